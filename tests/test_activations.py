"""Activations: derivatives by finite differences, numpy and torch alike, names and Hermite sums."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

import spurlib as sl

SUMS = ["h1+h2", "h1+h4", "h0+h3", "2*h1-0.5*h3", "h12+h3"]
NAMES = [*sl.activation_names(), *SUMS]


def test_all_names_of_the_book_are_known():
    wanted = {"relu", "tanh", "erf", "sigmoid", "gelu", "softplus", "silu", "sin", "linear", "elu", "selu", "mish"}
    assert wanted <= set(sl.activation_names())


ELSEWHERE = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "erf": special.erf,
    "sigmoid": special.expit,
    "gelu": lambda x: x / 2 * special.erfc(-x / math.sqrt(2)),
    "softplus": lambda x: -special.log_expit(-x),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543773 * np.expm1(x)),
    "sin": np.sin,
    "cos": np.cos,
    "linear": lambda x: x,
    "abs": np.fabs,
    "step": lambda x: np.heaviside(x, 0.0),
    "leaky_relu": lambda x: np.maximum(x, 0.01 * x),
    "h1+h2": lambda x: x + (x**2 - 1) / math.sqrt(2),
    "h1+h4": lambda x: x + (x**4 - 6 * x**2 + 3) / math.sqrt(24),
    "h0+h3": lambda x: 1 + (x**3 - 3 * x) / math.sqrt(6),
    "2*h1-0.5*h3": lambda x: 2 * x - (x**3 - 3 * x) / 2 / math.sqrt(6),
    "h12+h3": lambda x: special.eval_hermitenorm(12, x) / math.sqrt(math.factorial(12)) + (x**3 - 3 * x) / math.sqrt(6),
}


@pytest.mark.parametrize("name", NAMES)
def test_values_equal_those_of_another_library(name):
    x = np.linspace(-6, 6, 241)
    np.testing.assert_allclose(sl.activation(name)(x), ELSEWHERE[name](x), rtol=1e-11, atol=1e-12)


def test_softplus_is_exact_far_out():
    x = np.array([-700.0, -30.0, 25.0, 30.0, 700.0])
    np.testing.assert_allclose(sl.activation("softplus")(x), np.logaddexp(0, x), rtol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_derivative_equals_finite_differences(name):
    act = sl.activation(name)
    x, step = np.linspace(-3.05, 3.04, 123), 1e-5
    x = x[np.abs(x) > 0.01]
    differences = (act(x + step) - act(x - step)) / (2 * step)
    np.testing.assert_allclose(act.derivative(x), differences, rtol=1e-6, atol=2e-8)


@pytest.mark.parametrize("name", NAMES)
def test_numpy_and_torch_and_both_precisions(name):
    for act in (sl.activation(name), sl.activation(name).derivative):
        x = np.random.default_rng(0).standard_normal((3, 5))
        reference = act(x)
        assert isinstance(reference, np.ndarray) and reference.dtype == np.float64 and reference.shape == x.shape
        for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-14)):
            out = act(torch.from_numpy(x).to(dtype))
            assert isinstance(out, torch.Tensor) and out.dtype == dtype and out.shape == x.shape
            np.testing.assert_allclose(out.double().numpy(), reference, rtol=tolerance, atol=tolerance)
        single = act(x.astype(np.float32))
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, reference, rtol=1e-4, atol=1e-4)
        assert act(np.arange(3)).dtype == np.float64
        assert act(np.asfortranarray(x)).shape == x.shape
        np.testing.assert_array_equal(act(x[:, ::-1]), reference[:, ::-1])
        assert act(np.array(0.5)).shape == ()


def test_the_input_is_left_alone():
    x = np.linspace(-1, 1, 5)
    for name in NAMES:
        before = x.copy()
        out = sl.activation(name)(x)
        out += 1
        np.testing.assert_array_equal(x, before, err_msg=name)


def numpy_by_method(x):
    return x.astype(float).clip(-1, 1)


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize("f", [special.erf, numpy_by_method, np.vectorize(math.tanh), np.arctan])
def test_functions_of_numpy_only(f):
    x = np.linspace(-2, 2, 7)
    out = sl.Activation(f)(torch.from_numpy(x))
    assert isinstance(out, torch.Tensor) and out.dtype == torch.float64
    np.testing.assert_allclose(out.numpy(), np.asarray(f(x), dtype=float))


@pytest.mark.parametrize("f", [torch.special.i0e, torch.nn.functional.elu, lambda x: x.sigmoid()])
def test_functions_of_torch_only(f):
    x = np.linspace(-2, 2, 7)
    for array in (x, x.astype(np.float32), x.reshape(7, 1)):
        out = sl.Activation(f)(array)
        assert isinstance(out, np.ndarray) and out.dtype == array.dtype
        np.testing.assert_allclose(out, f(torch.from_numpy(array)).numpy())


def test_functions_that_are_not_entry_wise_raise():
    with pytest.raises(ValueError, match="entry-wise"):
        sl.Activation(np.sum, name="sum")(np.ones(3))
    with pytest.raises(ValueError, match="entry-wise"):
        sl.Activation(torch.sum)(torch.ones(3))


def test_lookup():
    act = sl.activation("relu")
    assert sl.activation(act) is act
    assert sl.activation(" ReLU ") is act
    assert sl.activation(np.tanh).name == "tanh"
    assert repr(act) == "Activation('relu')"
    assert act.derivative.name == "relu'"
    assert act.kinks == act.derivative.kinks == (0.0,)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.sampled_from("+-"), st.one_of(st.none(), st.integers(0, 999)), st.booleans(), st.integers(0, 25)),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
def test_hermite_sums_parse(terms, leading_plus):
    spec, mu = "", np.zeros(26)
    for sign, hundredths, star, degree in terms:
        scale = "" if hundredths is None else f"{hundredths / 100:.2f}" + "*" * star
        spec += f"{sign}{scale}h{degree}"
        mu[degree] += (1 if hundredths is None else hundredths / 100) * (1 if sign == "+" else -1)
    spec = spec if leading_plus else spec.removeprefix("+")
    x = np.linspace(-2, 2, 9)
    expected = sum(m * special.eval_hermitenorm(l, x) / math.sqrt(math.factorial(l)) for l, m in enumerate(mu))
    np.testing.assert_allclose(sl.activation(spec)(x), expected, rtol=1e-10, atol=1e-10)


BAD = ["", "h", "h1h2", "h1+", "--h1", "h1.5", "h1*h2", "2*", "3h1h2", "h-1", "h+1", "5", "1e3h2", "h1+2h", "relus"]


@pytest.mark.parametrize("spec", [*BAD, "h1+relu", "2*relu", None, 3])
def test_bad_names_list_the_known_ones(spec):
    with pytest.raises(ValueError, match="not known") as caught:
        sl.activation(spec)
    message = str(caught.value)
    assert repr(spec) in message and "h1+h2" in message
    assert all(name in message for name in sl.activation_names())


def test_a_constant_has_derivative_zero():
    np.testing.assert_array_equal(sl.activation("2*h0").derivative(np.linspace(-1, 1, 5)), 0)


def test_bad_definitions():
    with pytest.raises(ValueError, match="f must be a function"):
        sl.Activation(3)
    with pytest.raises(ValueError, match="df must be a function"):
        sl.Activation(np.tanh, 3)
    with pytest.raises(ValueError, match="kinks"):
        sl.Activation(np.tanh, kinks=[float("nan")])


def test_coefficients_are_kept_and_cannot_be_changed():
    calls = []

    def counted(x):
        calls.append(1)
        return np.tanh(x)

    act = sl.Activation(counted)
    long = act.coefficients(20)
    seen = len(calls)
    np.testing.assert_array_equal(act.coefficients(7), long[:8])
    assert len(calls) == seen
    with pytest.raises(ValueError, match="read-only"):
        long[0] = 1


def test_energy_equals_a_sample_mean():
    x = np.random.default_rng(0).standard_normal(400_000)
    for name in ("relu", "tanh", "gelu", "h1+h2"):
        act = sl.activation(name)
        squares = act(x) ** 2
        assert abs(squares.mean() - act.energy) < 5 * squares.std() / math.sqrt(x.size)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: torch.softmax(x, -1),
        lambda x: torch.softmax(x, 0),
        lambda x: x / np.abs(x).max(),
        np.sort,
        torch.nn.Dropout(),
    ],
)
def test_what_looks_at_other_entries_is_refused(f):
    with pytest.raises(ValueError, match=r"activation '.*' must act entry-wise"):
        sl.activation(f)
    with pytest.raises(ValueError, match=r"activation .tanh'. must act entry-wise"):
        sl.Activation(torch.tanh, f, name="tanh")


def test_what_asks_for_a_shape_is_refused():
    with pytest.raises(ValueError, match=r"fails on an array of two axes.*normalized_shape"):
        sl.activation(torch.nn.LayerNorm(4, dtype=torch.float64))


def test_an_activation_may_work_in_place_and_spoils_nothing():
    before = sl.gamma_rf("tanh", 0.5, ratio=0.5)
    act = sl.Activation(torch.nn.ReLU(inplace=True), kinks=(0,))
    assert sl.gamma_rf(act, 0.5, ratio=0.5) == pytest.approx(sl.gamma_rf("relu", 0.5, ratio=0.5), rel=1e-12)
    assert sl.gaussian_expectation(lambda u: u**2) == pytest.approx(1, abs=1e-12)
    assert sl.gamma_rf("tanh", 0.5, ratio=0.5) == before
    for x in (np.linspace(-1, 1, 5), torch.linspace(-1, 1, 5)):
        kept = x.copy() if isinstance(x, np.ndarray) else x.clone()
        out = act(x)
        assert (out >= 0).all() and (x == kept).all()
        out += 1
        assert (x == kept).all()


def test_results_are_no_aliases():
    x = np.linspace(-1, 1, 5)
    for f in (lambda u: u, np.asarray, lambda u: u[...]):
        out = sl.Activation(f)(x)
        out += 1
        assert x[0] == -1


def test_read_only_arrays_are_fine(recwarn):
    x = np.linspace(-1, 1, 5)
    x.setflags(write=False)
    for name in NAMES:
        sl.activation(name)(x)
    assert not recwarn.list


def test_activations_cannot_be_changed():
    act = sl.activation("relu")
    for name in ("f", "df", "kinks", "name", "other"):
        with pytest.raises(AttributeError, match="cannot be changed"):
            setattr(act, name, None)
    with pytest.raises(AttributeError, match="cannot be changed"):
        del act.f
    assert sl.activation("relu")(np.array([2.0])) == 2.0


SIN = (lambda x: np.sin(3 * x), lambda x: 3 * np.cos(3 * x))
WRONG = {
    "tanh with cosh": (torch.tanh, torch.cosh),
    "a sign": (np.cos, np.sin),
    "a factor of 1.01": (SIN[0], lambda x: 1.01 * SIN[1](x)),
    "a shift": (SIN[0], lambda x: SIN[1](x) + 0.01),
    "one branch": (lambda x: np.maximum(x, 0), lambda x: 1.0 * (x < 0)),
    "a constant": (lambda x: 3.0 + 0 * x, lambda x: 3.0 + 0 * x),
}
RIGHT = {
    "tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "steep": (lambda x: np.exp(20 * x), lambda x: 20 * np.exp(20 * x)),
    "fast": (lambda x: np.sin(3000 * x), lambda x: 3000 * np.cos(3000 * x)),
    "large": (lambda x: 1e6 + np.tanh(x), lambda x: 1 / np.cosh(x) ** 2),
    "small": (lambda x: 1e-9 * np.tanh(x), lambda x: 1e-9 / np.cosh(x) ** 2),
    "in float32": (lambda x: np.tanh(x.astype("f4")), lambda x: 1 / np.cosh(x) ** 2),
    "defined on half a line": (np.log, lambda x: 1 / x),
    "noisy": (lambda x: np.round(np.sin(x), 5), np.cos),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_derivative_is_refused(case):
    with pytest.raises(ValueError, match=r"df is not the derivative of activation 'mine': at .* it is"):
        sl.Activation(*WRONG[case], kinks=(0,), name="mine")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("case", RIGHT)
def test_a_right_derivative_is_not_refused(case):
    sl.Activation(*RIGHT[case])


def test_kinks_next_to_the_points_of_comparison():
    grid = tuple(np.arange(-3, 3.001, 0.05))
    saw = lambda x: np.abs(np.mod(x, 0.1) - 0.05)  # noqa: E731
    sl.Activation(saw, lambda x: 1.0 - 2.0 * (np.mod(x, 0.1) < 0.05), kinks=grid)


def test_the_error_of_the_function_is_shown():
    with pytest.raises(ValueError, match=r"activation 'mine' fails .*NameError"):
        sl.Activation(lambda x: undefined(x), name="mine")  # noqa: F821
    with pytest.raises(ValueError, match=r"fails .*must be Tensor.* and on a tensor: IndexError"):
        sl.Activation(lambda x: torch.relu(x) + torch.ones(3)[7])

    def moody(x):
        if x.shape[0] == 5:
            raise RuntimeError("no fives")
        return x * 2

    with pytest.raises(RuntimeError, match="no fives"):
        sl.Activation(moody)(np.zeros(5))


@pytest.mark.parametrize("kinks", [0.0, [np.nan], "x", [[1.0]]])
def test_kinks_are_a_list_of_finite_numbers(kinks):
    with pytest.raises(ValueError, match="kinks must be a list of finite numbers"):
        sl.Activation(np.tanh, kinks=kinks)


def test_arguments_and_values_are_real_and_whole():
    act = sl.activation("tanh")
    for whole in (torch.arange(-2, 3), torch.arange(-2, 3, dtype=torch.int8), np.arange(-2, 3), [-2, -1, 0, 1, 2]):
        np.testing.assert_allclose(np.asarray(act(whole)), np.tanh(np.arange(-2, 3)), rtol=1e-14)
    for bad, message in ((np.ma.masked_array([1.0], [True]), "masked"), (np.array([1j]), "real"), ("abc", "numbers")):
        with pytest.raises(ValueError, match=f"x .*{message}"):
            act(bad)
    with pytest.raises(ValueError, match="must be real everywhere"):
        sl.Activation(np.emath.sqrt)
    with pytest.raises(ValueError, match="must be real everywhere"):
        sl.Activation(lambda x: np.ma.masked_less(x, 0))


@pytest.mark.parametrize("degree", [3, 60, 80, 100, 200])
def test_sums_of_hermite_polynomials_know_their_coefficients(degree):
    act = sl.activation(f"2*h0+0.5*h{degree}")
    expected = np.zeros(degree + 3)
    expected[[0, degree]] = 2, 0.5
    np.testing.assert_array_equal(act.coefficients(degree + 2), expected)
    np.testing.assert_array_equal(act.coefficients(1), [2, 0])
    assert act.energy == 4.25 and act.variance == 0.25
    assert act.derivative.coefficients(degree)[degree - 1] == pytest.approx(0.5 * math.sqrt(degree), rel=1e-15)
    assert act.derivative.energy == pytest.approx(degree / 4, rel=1e-14)
    assert sl.activation(f"2*h0+0.5*h{degree}") is act


@pytest.mark.parametrize("name", ["relu", "cos", "tanh", "h1+h4"])
@pytest.mark.parametrize("constant", [0.0, 1e3, 1e6])
def test_a_constant_hides_nothing(name, constant):
    act = sl.activation(name)
    shifted = sl.Activation(lambda u: act(u) + constant, kinks=act.kinks)
    assert shifted.variance == pytest.approx(act.energy - act.coefficients(0)[0] ** 2, rel=1e-8)
    np.testing.assert_allclose(shifted.coefficients(20)[1:], act.coefficients(20)[1:], atol=1e-16 * constant + 1e-12)
    assert shifted.coefficients(0)[0] == pytest.approx(act.coefficients(0)[0] + constant, rel=1e-12)


@pytest.mark.parametrize("order", [-1, 1.5, True, None])
def test_bad_orders(order):
    with pytest.raises(ValueError, match="order must be a nonnegative integer"):
        sl.activation("relu").coefficients(order)


def test_energies_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="grows too fast"):
        _ = sl.Activation(lambda u: np.exp(0.26 * u**2)).energy
    assert sl.Activation(lambda u: np.exp(0.2 * u**2)).energy == pytest.approx(5**0.5, rel=1e-12)
    assert sl.Activation(lambda u: np.exp(15 * u)).energy == pytest.approx(math.exp(450), rel=1e-12)


def test_slopes_at_the_kink():
    wanted = {"relu": 0.0, "leaky_relu": 0.01, "abs": 0.0, "elu": 1.0, "selu": 1.0507009873554805 * 1.6732632423543773}
    slopes = {name: float(sl.activation(name).derivative(np.zeros(1))[0]) for name in wanted}
    assert slopes == pytest.approx(wanted, rel=1e-15)
    assert sl.activation("step")(np.zeros(1)) == 0


def test_slopes_far_out_are_finite():
    x = np.array([-800.0, -100.0, 100.0, 800.0])
    for name, ends in {"elu": (0, 1), "selu": (0, 1.0507009873554805), "mish": (0, 1)}.items():
        np.testing.assert_allclose(sl.activation(name).derivative(x), np.repeat(ends, 2), rtol=1e-14, atol=1e-40)


TORCHS = {
    "a function of torch": (torch.tanh, ()),
    "a module": (torch.nn.GELU(), ()),
    "a module that works in place": (torch.nn.ELU(inplace=True), (0,)),
    "arithmetic": (lambda x: x**3 / (1 + x**2), ()),
    "another activation": (lambda x: 2 * sl.activation("selu")(x), (0,)),
}


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("case", TORCHS)
def test_torch_gives_the_derivative_where_none_is_given(case, mode):
    f, kinks = TORCHS[case]
    x, step = np.linspace(-3.05, 3.04, 123), 1e-5
    with mode():
        act = sl.Activation(f, kinks=kinks)
        assert act.df is None and act.derivative.kinks == act.kinks
        for dtype in (np.float32, np.float64):
            found = act.derivative(x.astype(dtype))
            assert found.dtype == dtype
            differences = (act(x + step) - act(x - step)) / (2 * step)
            np.testing.assert_allclose(found, differences, rtol=1e-6, atol=1e-5 if dtype == np.float32 else 1e-8)
        slopes = act.derivative(torch.from_numpy(x))
        assert not slopes.requires_grad


def test_second_derivatives_by_torch():
    x = np.linspace(-3, 3, 13)
    for act in (sl.activation("tanh"), sl.Activation(torch.tanh)):
        found = act.derivative.derivative(x)
        np.testing.assert_allclose(found, -2 * np.tanh(x) / np.cosh(x) ** 2, rtol=1e-11, atol=1e-13)


def test_torchs_derivative_gives_the_same_coefficients():
    given, found = sl.activation("tanh"), sl.Activation(torch.tanh)
    np.testing.assert_allclose(found.derivative.coefficients(20), given.derivative.coefficients(20), atol=1e-13)


@pytest.mark.parametrize("f", [np.tanh, special.erf, torch.ones_like, lambda x: torch.tanh(x.detach())])
def test_where_torch_does_not_differentiate(f):
    with pytest.raises(ValueError, match=r"without its derivative, and torch does not differentiate it: pass df"):
        _ = sl.Activation(f).derivative


def test_a_derivative_of_torch_that_is_not_the_derivative():
    with pytest.raises(
        ValueError, match=r"what torch computes is not the derivative of activation 'partly': at .* it is"
    ):
        _ = sl.Activation(lambda x: torch.tanh(x) + torch.tanh(x.detach()), name="partly").derivative


def test_what_a_function_takes_is_found_once_and_its_errors_are_its_own():
    """No other kind of array is tried when a function fails later: out of memory is not "use numpy"."""
    calls = []

    def mine(x):
        calls.append(type(x))
        if len(x) == 7:
            raise RuntimeError("out of memory")
        return x * 2

    act = sl.Activation(mine)
    calls.clear()
    with pytest.raises(RuntimeError, match="out of memory"):
        act(torch.zeros(7))
    with pytest.raises(RuntimeError, match="out of memory"):
        act(np.zeros(7))
    assert calls == [torch.Tensor, np.ndarray]


@pytest.mark.parametrize("name", [*NAMES, "tanh'", "h1+h4'"])
def test_the_librarys_own_pickle_as_the_same_objects(name):
    act = sl.activation(name) if name[-1] != "'" else sl.activation(name[:-1]).derivative
    act.coefficients(3)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(act, protocol)) is act
        assert pickle.loads(pickle.dumps(act.derivative, protocol)) is act.derivative
    assert copy.deepcopy(act) is act


def cubic(x):
    return x**3


def slope_of_cubic(x):
    return 3 * x**2


OWN = {
    "functions of a module": sl.Activation(cubic, slope_of_cubic),
    "numpy": sl.Activation(np.tanh, kinks=(0.5,), name="mine"),
    "torch": sl.Activation(torch.tanh),
    "a torch module": sl.Activation(torch.nn.Softplus()),
    "shifted": sl.activation("relu").shifted(-0.25),
    "a shifted polynomial": sl.activation("h1+h4").shifted(2),
    "shifted, of numpy": sl.Activation(np.tanh).shifted(1),
    "relu, but named cos": sl.Activation(torch.relu, kinks=(0,), name="cos"),
}


@pytest.mark.parametrize("case", OWN)
def test_own_activations_pickle(case):
    act, x = OWN[case], np.linspace(-2, 2, 9)
    mu = act.coefficients(4)
    other = pickle.loads(pickle.dumps(act))
    assert (other.name, other.kinks) == (act.name, act.kinks)
    np.testing.assert_array_equal(other(x), act(x))
    np.testing.assert_array_equal(other.coefficients(4), mu)
    with pytest.raises(ValueError, match="read-only"):
        other.coefficients(4)[0] = 1
    if "numpy" not in case:
        np.testing.assert_array_equal(other.derivative(x), act.derivative(x))


@pytest.mark.parametrize("name", ["relu", "tanh", "h1+h4"])
def test_a_shift_changes_the_mean_only(name):
    act, x = sl.activation(name), np.linspace(-2, 2, 9)
    shifted = act.shifted(-1.5)
    assert shifted.kinks == act.kinks and shifted.name == f"{name}-1.5"
    np.testing.assert_allclose(shifted(x), act(x) - 1.5, rtol=1e-15)
    np.testing.assert_array_equal(shifted.derivative(x), act.derivative(x))
    mu = act.coefficients(6) - 1.5 * (np.arange(7) == 0)
    np.testing.assert_allclose(shifted.coefficients(6), mu, atol=1e-13)
    with pytest.raises(ValueError, match="constant must be a finite number"):
        act.shifted(math.inf)
