"""Activations: derivatives by finite differences, numpy and torch alike, names and Hermite sums."""

import math

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
    wanted = {"relu", "tanh", "erf", "sigmoid", "gelu", "softplus", "silu", "sin", "linear"}
    assert wanted <= set(sl.activation_names())


ELSEWHERE = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "erf": special.erf,
    "sigmoid": special.expit,
    "gelu": lambda x: x / 2 * special.erfc(-x / math.sqrt(2)),
    "softplus": lambda x: -special.log_expit(-x),
    "silu": lambda x: x / (1 + np.exp(-x)),
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
    with pytest.raises(ValueError, match="without its derivative"):
        _ = sl.Activation(np.tanh).derivative


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
