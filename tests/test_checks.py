"""The checks of arguments: what each accepts, what each refuses, and by which name."""

import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import sparse

from spurlib import _checks
from spurlib._checks import (
    choice,
    device_of,
    finite,
    fraction,
    integer,
    is_tensor,
    like,
    needed,
    number,
    numbers,
    one_given,
    places,
    plain,
    points,
    positive,
    precision,
    seed_of,
    share,
    square,
    symmetric,
    tensor,
)


def read_only(x):
    x.setflags(write=False)
    return x


A = np.array([[1.0, 2.0], [3.0, 4.0]])
ACCEPTED = {
    "list": [[1, 2], [3, 4]],
    "tuple of arrays": (A[0], A[1]),
    "list of tensors": [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])],
    "int8": A.astype(np.int8),
    "uint16": A.astype(np.uint16),
    "uint64": A.astype(np.uint64),
    "float16": A.astype(np.float16),
    "float32": A.astype(np.float32),
    "longdouble": A.astype(np.longdouble),
    "big-endian": A.astype(">f8"),
    "big-endian integers": A.astype(">i2"),
    "Fortran order": np.asfortranarray(A),
    "negative strides": np.ascontiguousarray(A[::-1, ::-1])[::-1, ::-1],
    "read-only": read_only(A.copy()),
    "broadcast": np.broadcast_to(A, (1, 2, 2))[0],
    "objects": A.astype(object),
    "mixed objects": np.array([[1, 2.0], [Fraction(3), np.float32(4)]], dtype=object),
    "masked array without a mask": np.ma.masked_array(A, np.zeros_like(A)),
    "integer tensor": torch.tensor([[1, 2], [3, 4]]),
    "half tensor": torch.tensor(A, dtype=torch.float16),
    "bfloat16 tensor": torch.tensor(A, dtype=torch.bfloat16),
    "transposed tensor": torch.tensor(A.T).T,
    "differentiable tensor": torch.tensor(A, requires_grad=True),
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_whatever_is_numbers_becomes_float64_without_a_warning(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        t = tensor(ACCEPTED[kind], "x", ndim=2)
        array = tensor(ACCEPTED[kind], "x", ndim=2, dtype=torch.float32)
    assert t.dtype == torch.float64 and t.tolist() == A.tolist() and not t.requires_grad
    assert array.dtype == torch.float32 and array.tolist() == A.tolist()


def test_tables():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"a": [1, 3], "b": [2.0, 4.0]})
    for t in (table, table.astype("Int64"), table.astype("Float64"), table.astype(object), table.astype("float32")):
        assert tensor(t, "x", ndim=2).tolist() == A.tolist()
    assert tensor(table["a"], "x", ndim=1).tolist() == [1, 3]
    assert tensor(pandas.array([1, 2], dtype="Int64"), "x", ndim=1).tolist() == [1, 2]
    for dtype in ("Int64", "Float64", object):  # what numpy makes of them differs from one pandas to another
        with pytest.raises(ValueError, match=r"^x (holds NaN|must be an array of numbers.* holds (<NA>|None))"):
            tensor(pandas.array([1, None], dtype=dtype), "x", ndim=1)
    with pytest.raises(ValueError, match=r"^x must be an array of numbers, got .* holds <NA>"):
        tensor(np.array([1, pandas.NA], dtype=object), "x", ndim=1)
    with pytest.raises(ValueError, match=r"^x must be an array of numbers, got DataFrame that holds '"):
        tensor(table.assign(c=["u", "v"]), "x", ndim=2)


def test_no_copy_when_nothing_changes():
    x = np.ones((2, 3))
    assert np.shares_memory(tensor(x, "x", ndim=2).numpy(), x)


def test_a_copy_of_what_must_not_be_written_to():
    x = read_only(np.ones((2, 3)))
    tensor(x, "x", ndim=2).zero_()
    assert x.all()


def test_labels_may_be_boolean_but_samples_not():
    assert tensor(np.array([True, False]), "g", ndim=1).tolist() == [1.0, 0.0]
    assert tensor(torch.tensor([True, False]), "g", ndim=1).tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match="Z must hold real numbers"):
        tensor(np.ones((2, 2), dtype=bool), "Z", ndim=2)


def test_one_of_several_numbers_of_axes():
    for x in (A, A[0], A > 1, A[0] > 1):
        assert tensor(x, "g", ndim=(1, 2)).tolist() == x.astype(float).tolist()
    for x in (A[None], 3.0):
        with pytest.raises(ValueError, match=r"^g must have 1 or 2 axes, got shape"):
            tensor(x, "g", ndim=(1, 2))


def nested():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


def quantized():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(2, 2), 1.0, 0, torch.qint8)


MASKED = np.ma.masked_array(A, [[0, 1], [0, 0]])
REFUSED = {
    "text": (lambda: "text", "must be an array of numbers, got str"),
    "None": (lambda: None, "must be an array of numbers, got NoneType"),
    "an object": (lambda: object(), "must be an array of numbers, got object"),
    "a dict": (lambda: {"a": 1}, "must be an array of numbers, got dict"),
    "a set": (lambda: {1, 2}, "must be an array of numbers, got set"),
    "a generator": (lambda: (i for i in range(2)), "must be an array of numbers, got generator"),
    "ragged rows": (lambda: [[1, 2], [3]], "must be an array of numbers, got list: .*inhomogeneous"),
    "ragged objects": (
        lambda: np.array([[1, 2], [3]], dtype=object),
        r"must be an array of numbers, got ndarray of dtype object that holds \[1, 2\]",
    ),
    "strings": (lambda: [["1", "2"]], "must be an array of numbers, got list"),
    "bytes": (lambda: np.array([[b"1"]]), "must be an array of numbers, got ndarray of dtype"),
    "dates": (lambda: np.array([["2020-01-01"]], dtype="M8[D]"), "must be an array of numbers, got ndarray of dtype"),
    "a record": (lambda: np.zeros((2, 2), dtype=[("a", float)]), "must be an array of numbers"),
    "objects with None": (
        lambda: np.array([[1, None]], dtype=object),
        "must be an array of numbers, .* that holds None",
    ),
    "objects with text": (lambda: np.array([[1, "a"]], dtype=object), "must be an array of numbers, .* that holds 'a'"),
    "objects with truth values": (
        lambda: np.array([[1, True]], dtype=object),
        "must be an array of numbers, .* that holds True",
    ),
    "objects with complex numbers": (
        lambda: np.array([[1, 1j]], dtype=object),
        "must be an array of numbers, .* that holds 1j",
    ),
    "complex": (lambda: A * 1j, "must hold real numbers, got dtype complex128"),
    "complex with zero imaginary part": (lambda: A + 0j, "must hold real numbers"),
    "long complex": (lambda: A.astype(np.clongdouble), "must hold real numbers"),
    "complex tensor": (lambda: torch.tensor(A) * 1j, "must hold real numbers, got dtype torch.complex128"),
    "boolean tensor": (lambda: torch.ones(2, 2, dtype=torch.bool), "must hold real numbers"),
    "masked": (lambda: MASKED, "has masked entries"),
    "masked row": (lambda: [MASKED[0], MASKED[1]], "has masked entries"),
    "masked number": (lambda: [[1.0, np.ma.masked]], "has masked entries"),
    "sparse": (lambda: torch.tensor(A).to_sparse(), "must be a dense tensor .* torch.sparse_coo"),
    "sparse rows": (lambda: torch.tensor(A).to_sparse_csr(), "must be a dense tensor .* torch.sparse_csr"),
    "sparse matrix": (lambda: sparse.csr_matrix(A), "must be an array of numbers, got csr_matrix"),
    "meta": (lambda: torch.ones(2, 2, device="meta"), "must be a dense tensor that holds its numbers, .* on meta"),
    "nested": (nested, "must be a dense tensor"),
    "quantized": (quantized, "must be a dense tensor .* torch.qint8"),
    "differentiable rows": (
        lambda: [torch.ones(2, requires_grad=True)],
        "must be an array of numbers, got list: .*requires grad",
    ),
    "one axis": (lambda: A[0], r"must have 2 axes, got shape \(2,\)"),
    "three axes": (lambda: A[None], r"must have 2 axes, got shape \(1, 2, 2\)"),
    "a number": (lambda: 3.0, r"must have 2 axes, got shape \(\)"),
    "empty": (lambda: np.ones((0, 2)), r"is empty: its shape is \(0, 2\)"),
    "too many columns": (lambda: np.ones((2, 3)), r"must have 2 columns, got shape \(2, 3\)"),
    "a huge integer": (lambda: [[10**400, 1]], "holds numbers too large for torch.float64"),
    "huge objects": (lambda: np.array([[10**400, 1]], dtype=object), "holds numbers too large for torch.float64"),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_numbers_is_named(kind):
    make, message = REFUSED[kind]
    x = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=rf"^argument {message}"):
            tensor(x, "argument", ndim=2, columns=2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_value_is_enough(bad):
    x = np.zeros((50, 50))
    x[17, 3] = bad
    for form in (x, torch.from_numpy(x), x.astype(np.float32), x.astype(np.longdouble), x.astype(object)):
        with pytest.raises(ValueError, match=r"^x holds NaN or infinite values"):
            tensor(form, "x", ndim=2)


def test_overflow_is_not_called_infinite_input():
    with pytest.raises(ValueError, match=r"^x holds numbers too large for torch\.float32"):
        tensor([1e300], "x", ndim=1, dtype=torch.float32)
    wide = np.array([1e300], dtype=np.longdouble) ** 2
    if np.isfinite(wide).all():  # where the platform has such numbers
        with pytest.raises(ValueError, match=r"^x holds numbers too large for torch\.float64"):
            tensor(wide, "x", ndim=1)


def test_like_follows_the_model():
    t = torch.ones(2)
    assert isinstance(like(t, np.zeros(1)), np.ndarray)
    assert isinstance(like(t, [1.0]), np.ndarray)
    assert like(t, torch.zeros(1)) is t


def test_devices(monkeypatch):
    for device in ("cpu", "cpu:0", torch.device("cpu"), torch.device("cpu", 0)):
        assert device_of(device) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device, message in {
        "warp": "device 'warp' is not known",
        None: "device None is not known",
        3.5: "device 3.5 is not known",
        "mps": "device must be 'cpu' or 'cuda', .* got 'mps'",
        "xpu": "device must be 'cpu' or 'cuda'",
        "meta": "device must be 'cpu' or 'cuda'",
        "cpu:1": "device must be 'cpu' or 'cuda', .* got 'cpu:1'",
        "cuda:0": "no CUDA device",
    }.items():
        with pytest.raises(ValueError, match=message):
            device_of(device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of("cuda:1").index == 1
    with pytest.raises(ValueError, match="sees 2 CUDA devices"):
        device_of("cuda:2")


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_precisions(name):
    expected = getattr(torch, name)
    for given in (name, expected, np.dtype(name), getattr(np, name), np.dtype(name).newbyteorder(), np.dtype(name).str):
        assert precision(given) is expected


@pytest.mark.parametrize("given", ["float16", torch.bfloat16, torch.int64, int, bool, None, "double", 3, "", complex])
def test_other_precisions_are_named(given):
    if given == "double":  # numpy's name of float64
        assert precision(given) is torch.float64
        return
    with pytest.raises(ValueError, match=r"^kind must be torch\.float32 or torch\.float64, got"):
        precision(given, "kind")


def test_choices():
    assert choice("a", "letter", ("a", "b")) == "a"
    for value in ("c", "", None, 1, ["a"], np.array(["a"])):
        with pytest.raises(ValueError, match=r"^letter must be one of 'a', 'b'; got"):
            choice(value, "letter", ("a", "b"))


def test_one_of_several_arguments():
    one_given(n=None, ratio=0.5)
    one_given(n=np.ones(3), ratio=None)  # an array has no truth value
    for given in ({"n": None, "ratio": None}, {"n": 1, "ratio": 0.5}):
        with pytest.raises(ValueError, match=r"^n and ratio: give exactly one of them"):
            one_given(**given)


@pytest.mark.parametrize("value", [0, -1, 1.0, "3", None, True, np.True_, np.float64(2), [2], np.array([2])])
def test_sizes_are_positive_integers(value):
    with pytest.raises(ValueError, match=r"^width must be a positive integer, got"):
        positive(value, "width")
    assert type(positive(np.int32(3), "width")) is int


def test_integers_within_bounds():
    assert [integer(k, "n", least=2, most=4) for k in (2, np.uint8(3), 4)] == [2, 3, 4]
    for value in (1, 5, 2.5, 10**5000):
        with pytest.raises(ValueError, match=r"^n must be an integer of at least 2 and at most 4, got"):
            integer(value, "n", least=2, most=4)
    with pytest.raises(ValueError, match=r"^n must be a nonnegative integer, got -1"):
        integer(-1, "n", least=0)
    with pytest.raises(ValueError, match=r"^n must be an integer of at least 3, got 2"):
        integer(2, "n", least=3)


def test_seeds():
    for value in (0, np.uint64(7), 2**32, _checks.MOST_SEED):
        assert seed_of(value) == value and type(seed_of(value)) is int
        np.random.default_rng(seed_of(value))
        torch.Generator().manual_seed(seed_of(value))
    for value in (-1, 0.0, None, True, "1", 2**63, 10**5000, np.random.SeedSequence(1)):
        with pytest.raises(ValueError, match=r"^seed must be an integer of at least 0 and at most 9223372036854775807"):
            seed_of(value)
    for generator in (np.random.default_rng(0), torch.Generator()):
        with pytest.raises(ValueError, match=r"^start must be an integer, from which generators are made here; got"):
            seed_of(generator, "start")


ONE = [1, 1.0, np.float64(1), np.float32(1), np.int8(1), np.array(1.0), np.array(1), torch.tensor(1.0), Fraction(1)]
ONE += [torch.tensor(1, dtype=torch.int8), torch.tensor(1.0, requires_grad=True), np.array(1.0, dtype=">f4")]


@pytest.mark.parametrize("value", ONE, ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}")
def test_numbers_of_every_kind(value):
    found = number(value, "x", least=1.0, above=0.0, below=2.0)
    assert type(found) is float and found == 1.0


NO_NUMBER = [True, np.True_, torch.tensor(True), "1", b"1", None, 1j, np.ma.masked, object(), {}, [], np.nan, np.inf]
NO_NUMBER += [10**400, 10**5000, torch.ones((), device="meta"), [[1], [2, 3]], np.array(["1"]), torch.ones(0)]


@pytest.mark.parametrize("value", NO_NUMBER, ids=lambda value: type(value).__name__)
def test_what_is_no_number(value):
    for check in (number, numbers):
        with pytest.raises(ValueError, match=r"^x must be a finite number, got") as caught:
            check(value, "x")
        assert len(str(caught.value)) < 130 and "\n" not in str(caught.value)


def test_a_list_is_not_one_number():
    for value in ([1.0], np.ones(1), torch.ones(2), np.ones((1, 1))):
        with pytest.raises(ValueError, match=r"^x must be one number, got an array of shape"):
            number(value, "x")


BOUNDS = [
    ({"above": 0.0}, [1e-300, 3], [0.0, -1, np.inf, np.nan], "a finite number above 0"),
    ({"least": 1.0}, [1, 2.5], [0.999, -np.inf, np.inf], "a finite number of at least 1"),
    ({"below": 2.0}, [1.999, -5], [2, np.nan], "a number below 2"),
    ({"above": 0.0, "below": 1.0}, [0.5], [0, 1, np.nan], "a number strictly between 0 and 1"),
    ({"least": 0.0, "finite": False}, [0, np.inf], [-1e-9, np.nan, -np.inf], "a number of at least 0"),
    ({"least": 0.0, "below": 3.0, "whole": True}, [0, 2.0], [0.5, 3, -1], "an integer of at least 0 and below 3"),
    ({"whole": True, "finite": False}, [1e300, np.inf], [0.5, np.nan], "an integer"),
]


@pytest.mark.parametrize(("bounds", "inside", "outside", "words"), BOUNDS)
def test_bounds(bounds, inside, outside, words):
    assert numbers(inside, "x", **bounds).tolist() == inside
    for value in outside:
        for given in (value, [inside[0], value], torch.tensor([value])):
            with pytest.raises(ValueError, match=rf"^x must be {words}, got"):
                numbers(given, "x", **bounds)


def test_numbers_keep_their_shape_and_leave_the_array_alone():
    x = np.arange(6.0).reshape(2, 3)
    found = numbers(x, "x")
    assert found.shape == (2, 3) and found.dtype == np.float64
    found[:] = -1
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, float("nan"), float("inf"), "half", None, [0.5, 0.5]])
def test_fractions_lie_strictly_inside(value):
    with pytest.raises(ValueError, match=r"^alpha must"):
        fraction(value, "alpha")
    assert fraction(np.float32(0.5), "alpha") == 0.5


def test_plain():
    for x in (np.float64(2.0), np.array(2.0), 2):
        assert type(plain(x)) is float and plain(x) == 2.0
    x = np.ones(1)
    assert plain(x) is x


def test_symmetric_matrices():
    K, corner = np.array([[2.0, 1.0], [1.0, 3.0]]), np.eye(2, k=1)
    for given in (K, K.tolist(), torch.tensor(K, dtype=torch.float32)):
        found, t = symmetric(given, "K"), square(given, "K")
        assert isinstance(found, np.ndarray) and found.dtype == np.float64 and found.tolist() == K.tolist()
        assert isinstance(t, torch.Tensor) and t.dtype == torch.float64 and t.tolist() == K.tolist()
    assert symmetric(np.zeros((2, 2)), "K").tolist() == [[0, 0], [0, 0]]
    symmetric(K + 1e-5 * corner, "K")  # single precision
    large = np.eye(600)
    large[599, 2] = 0.25  # far from the diagonal, in the last of several parts
    for given in (large, large.T):
        with pytest.raises(ValueError, match=r"^K must be symmetric: the largest difference of two entries is 0.25"):
            square(given, "K")
    for bad, message in {
        "not symmetric": (K + 1e-3 * corner, "must be symmetric: the largest difference of two entries is 0.001"),
        "not square": (np.ones((2, 3)), r"must be a square matrix, got shape \(2, 3\)"),
        "a list": (np.ones(3), "must have 2 axes"),
        "NaN": (K * np.nan, "holds NaN"),
        "masked": (np.ma.masked_array(K, K > 2), "has masked entries"),
    }.values():
        for check in (symmetric, square):
            with pytest.raises(ValueError, match=rf"^K {message}"):
                check(bad, "K")


def test_every_check_is_tested_here():
    assert set(_checks.__all__) - {"Array"} <= set(globals())


def test_shares_of_the_work():
    assert share((2, 3), "tiles") == (2, 3) and share([0, np.int64(1)], "tiles") == (0, 1)
    for wrong, message in (
        ((3, 3), r"tiles\[0\] must be an integer of at least 0 and at most 2, got 3"),
        ((0, 0), r"tiles\[1\] must be a positive integer"),
        (3, r"tiles must be a pair \(rank, world\), got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            share(wrong, "tiles")


def test_finite_finds_one_entry():
    for wrong in (torch.nan, torch.inf, -torch.inf):
        t = torch.zeros(3, 4)
        assert finite(t)
        t[1, 2] = wrong
        assert not finite(t)


def test_tensors_are_told_from_all_else():
    assert is_tensor(torch.zeros(2)) and is_tensor(torch.nn.Parameter(torch.zeros(2)))
    assert not any(map(is_tensor, (np.zeros(2), 1.0, None, torch.Tensor)))


def test_a_missing_dependency_names_the_extra():
    assert needed("torch.nn", "anything") is torch.nn
    advice = r'^nowhere is needed here: pip install "\.\[that\]" in the checkout of the book$'
    with pytest.raises(ModuleNotFoundError, match=advice) as raised:
        needed("nowhere.inside", "that")
    assert raised.value.name == "nowhere"


def test_points_are_floating_and_keep_their_kind():
    single = torch.ones(2, dtype=torch.float32)
    assert points(single, "x") is single
    assert points(np.ones(2, np.float32), "x").dtype == np.float32
    assert points(torch.arange(3), "x").dtype == torch.float64 and points([1, 2], "x").dtype == np.float64
    assert points(np.array([np.nan]), "x").size == 1
    for bad in (np.array([1j]), torch.ones(2, dtype=torch.complex64), "text", None, torch.ones(2, 2).to_sparse()):
        with pytest.raises(ValueError, match=r"^x must"):
            points(bad, "x")
    with pytest.raises(ValueError, match="masked"):
        points(np.ma.masked_array([1.0], [True]), "x")


def test_places_are_sorted_finite_numbers():
    assert places([], "kinks") == () and places(iter([2, -1.0]), "kinks") == (-1.0, 2.0)
    assert places(np.array([1.0, 0.0]), "kinks") == (0.0, 1.0)
    for bad in (0.0, None, [np.inf], ["0"], [[0.0]], [True]):
        with pytest.raises(ValueError, match="kinks must be a list of finite numbers"):
            places(bad, "kinks")
