"""Hermite basis and coefficients against closed forms, rational arithmetic and adaptive quadrature."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special

import spurlib as sl

ORDER = 40


def double_factorial(n):
    return math.prod(range(n, 0, -2))


def even_moment(m):
    """He_{2m}(0) = (-1)^m (2m - 1)!!, exact."""
    return (-1) ** m * double_factorial(2 * m - 1)


def over_root_factorial(number, l):
    """number / sqrt(l!) without overflow: through the exact rational number^2 / l!."""
    return math.sqrt(Fraction(number) ** 2 / math.factorial(l)) * (1 if number > 0 else -1)


def relu_coefficient(l):
    # the second derivative is a point mass at 0, so E[f He_l] = He_{l-2}(0) / sqrt(2 pi)
    if l < 2:
        return (1 / math.sqrt(2 * math.pi), 0.5)[l]
    return over_root_factorial(even_moment(l // 2 - 1), l) / math.sqrt(2 * math.pi) if l % 2 == 0 else 0.0


def step_coefficient(l):
    if l == 0:
        return 0.5
    return over_root_factorial(even_moment(l // 2), l) / math.sqrt(2 * math.pi) if l % 2 else 0.0


def abs_coefficient(l):
    return 2 * relu_coefficient(l) - (l == 1)


def leaky_coefficient(l):
    return 0.99 * relu_coefficient(l) + 0.01 * (l == 1)


def erf_coefficient(l):
    # Stein: E[erf He_l] = E[erf' He_{l-1}]; the latter is a Gaussian integral of variance 1/3
    if l % 2 == 0:
        return 0.0
    m = (l - 1) // 2
    return 2 / math.sqrt(3 * math.pi) * over_root_factorial(Fraction(-2, 3) ** m * double_factorial(l - 2), l)


def sin_coefficient(l):
    return math.exp(-0.5) * over_root_factorial((0, 1, 0, -1)[l % 4], l)


def cos_coefficient(l):
    return math.exp(-0.5) * over_root_factorial((1, 0, -1, 0)[l % 4], l)


def linear_coefficient(l):
    return float(l == 1)


CLOSED = {
    "relu": relu_coefficient,
    "step": step_coefficient,
    "abs": abs_coefficient,
    "leaky_relu": leaky_coefficient,
    "erf": erf_coefficient,
    "sin": sin_coefficient,
    "cos": cos_coefficient,
    "linear": linear_coefficient,
}


@pytest.mark.parametrize("name", CLOSED)
def test_coefficients_equal_closed_forms(name):
    expected = np.array([CLOSED[name](l) for l in range(ORDER + 1)])
    np.testing.assert_allclose(sl.hermite_coefficients(sl.activation(name), ORDER), expected, atol=1e-10, rtol=0)


def test_exponential_grows_and_is_still_exact():
    expected = [math.exp(0.125) * 0.5**l / math.sqrt(math.factorial(l)) for l in range(ORDER + 1)]
    np.testing.assert_allclose(sl.hermite_coefficients(lambda u: np.exp(u / 2), ORDER), expected, atol=1e-11)


def test_two_kinks_off_the_grid():
    a, b = -0.7, 1.3
    mu = sl.hermite_coefficients(lambda u: np.clip(u, a, b), ORDER, kinks=[b, a])
    density = [math.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) for x in (a, b)]
    he_a, he_b = ([special.eval_hermitenorm(l, x) for l in range(ORDER)] for x in (a, b))
    expected = [
        (density[0] * he_a[l - 2] - density[1] * he_b[l - 2]) / math.sqrt(math.factorial(l))
        for l in range(2, ORDER + 1)
    ]
    np.testing.assert_allclose(mu[2:], expected, atol=1e-10)
    assert mu[1] == pytest.approx(special.ndtr(b) - special.ndtr(a), abs=1e-12)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "gelu", "softplus", "silu"])
def test_smooth_coefficients_equal_adaptive_quadrature(name):
    act = sl.activation(name)
    mu = act.coefficients(ORDER)
    for l in (0, 1, 2, 3, 7, 12, 25, 40):
        scale = math.sqrt(math.factorial(l))

        def integrand(u, l=l, scale=scale):
            density = math.exp(-(u**2) / 2) / math.sqrt(2 * math.pi)
            return float(act(np.array(u))) * special.eval_hermitenorm(l, u) / scale * density

        value, _ = integrate.quad(integrand, -14, 14, epsabs=1e-13, epsrel=1e-13, limit=400)
        assert mu[l] == pytest.approx(value, abs=1e-10)


@pytest.mark.parametrize("name", [n for n in sl.activation_names() if n != "step"])
def test_stein_ties_the_derivative_to_the_function(name):
    act = sl.activation(name)
    slope = sl.hermite_coefficients(act.derivative, ORDER - 1)
    shifted = act.coefficients(ORDER)[1:] * np.sqrt(np.arange(1, ORDER + 1))
    np.testing.assert_allclose(slope, shifted, atol=1e-10)


def test_stein_fails_where_the_function_jumps():
    act = sl.activation("step")
    assert abs(act.coefficients(1)[1] - sl.hermite_coefficients(act.derivative, 0)[0]) > 0.3


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    kinks=st.lists(st.floats(-3, 3), min_size=1, max_size=3, unique_by=lambda x: round(x, 2)).map(sorted),
    pieces=st.lists(st.lists(st.floats(-2, 2), min_size=4, max_size=4), min_size=4, max_size=4),
    l=st.integers(0, 15),
)
def test_piecewise_smooth_functions_equal_adaptive_quadrature(kinks, pieces, l):
    def f(u):
        u = np.asarray(u, dtype=float)
        which = np.searchsorted(kinks, u)
        values = [np.polynomial.polynomial.polyval(u, p[:3]) + p[3] * np.sin(2 * u) for p in pieces]
        return np.choose(which, values[: len(kinks) + 1])

    def integrand(u):
        return float(f(u)) * special.eval_hermitenorm(l, u) * math.exp(-(u**2) / 2) / math.sqrt(math.factorial(l))

    edges = [-11.0, *kinks, 11.0]
    eps = 1e-12  # the integrand is taken inside each piece
    parts = [
        integrate.quad(integrand, a + eps, b - eps, epsabs=1e-10, epsrel=1e-10, limit=200)[0]
        for a, b in itertools.pairwise(edges)
    ]
    expected = sum(parts) / math.sqrt(2 * math.pi)
    assert sl.hermite_coefficients(f, l, kinks=kinks)[l] == pytest.approx(expected, abs=1e-9)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=9))
def test_polynomials_come_back(mu):
    got = sl.hermite_coefficients(lambda u: sl.hermite_series(mu, u), len(mu) + 3)
    np.testing.assert_allclose(got, [*mu, 0, 0, 0, 0], atol=1e-11)


def test_monomials_have_rational_coefficients():
    # u^n = sum_j n! / (2^j j! (n - 2j)!) He_{n-2j}(u)
    for n in range(11):
        expected = np.zeros(n + 1)
        for j in range(n // 2 + 1):
            ways = Fraction(math.factorial(n), 2**j * math.factorial(j) * math.factorial(n - 2 * j))
            expected[n - 2 * j] = float(ways) * math.sqrt(math.factorial(n - 2 * j))
        np.testing.assert_allclose(sl.hermite_coefficients(lambda u, n=n: u**n, n), expected, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("name", ["tanh", "erf", "gelu", "sin", "cos", "h1+h2", "h0-0.5*h3+h7"])
def test_parseval(name):
    act = sl.activation(name)
    tail = 1e-9 if name in ("tanh", "gelu", "erf") else 1e-12
    assert float(np.sum(act.coefficients(160) ** 2)) == pytest.approx(act.energy, abs=tail)


def test_parseval_of_kinked_functions_up_to_the_known_tail():
    assert sl.activation("relu").energy == pytest.approx(0.5, abs=1e-12)
    assert sl.activation("step").energy == pytest.approx(0.5, abs=1e-12)
    assert sl.activation("abs").energy == pytest.approx(1.0, abs=1e-12)
    rest = 0.5 - np.sum(sl.activation("relu").coefficients(200) ** 2)
    tail = sum(relu_coefficient(l) ** 2 for l in range(201, 1001))
    assert tail < rest < 1.15 * tail


@pytest.mark.parametrize("expectation, f, kinks", [(1.0, lambda u: u**2, ()), (0.5, lambda u: 1.0 * (u > 0), (0,))])
def test_gaussian_expectation(expectation, f, kinks):
    assert sl.gaussian_expectation(f, kinks=kinks) == pytest.approx(expectation, abs=1e-13)


def test_gaussian_expectation_takes_the_kinks_of_an_activation():
    third = sl.Activation(lambda u: (u > 1 / 3) * 1.0, kinks=[1 / 3])
    assert sl.gaussian_expectation(third) == pytest.approx(special.ndtr(-1 / 3), abs=1e-13)


def test_constant_functions_may_return_a_scalar():
    np.testing.assert_allclose(sl.hermite_coefficients(lambda u: 3.0, 3), [3, 0, 0, 0], atol=1e-13)


def test_basis_is_orthonormal():
    u, w = np.polynomial.hermite_e.hermegauss(120)
    h = sl.hermite_basis(u, 50)
    np.testing.assert_allclose(h * w @ h.T / math.sqrt(2 * math.pi), np.eye(51), atol=1e-10)


def test_basis_equals_scipy():
    u = np.linspace(-4, 4, 41).reshape(1, 41)
    h = sl.hermite_basis(u, 30)
    assert h.shape == (31, 1, 41)
    for l in range(31):
        expected = special.eval_hermitenorm(l, u) / math.sqrt(math.factorial(l))
        np.testing.assert_allclose(h[l], expected, rtol=1e-9, atol=1e-11)


def test_numpy_and_torch_alike():
    u, mu = np.linspace(-3, 3, 24).reshape(4, 6), [0.3, -1.0, 0.0, 2.0]
    for function in (lambda x: sl.hermite_basis(x, 7), lambda x: sl.hermite_series(mu, x)):
        of_array, of_tensor = function(u), function(torch.from_numpy(u))
        assert isinstance(of_array, np.ndarray) and isinstance(of_tensor, torch.Tensor)
        np.testing.assert_allclose(of_tensor.numpy(), of_array, rtol=1e-14)
    rho = u / 3
    np.testing.assert_allclose(sl.dual_kernel(mu, torch.from_numpy(rho)).numpy(), sl.dual_kernel(mu, rho), rtol=1e-14)
    assert sl.hermite_basis(torch.zeros(3, dtype=torch.float32), 2).dtype == torch.float32
    assert sl.hermite_series(mu, torch.zeros(3, dtype=torch.float32)).dtype == torch.float32


def test_series_equals_numpys_hermite_e():
    mu, u = np.random.default_rng(0).standard_normal(12), np.linspace(-3, 3, 30)
    he = mu / np.sqrt([math.factorial(l) for l in range(12)])
    np.testing.assert_allclose(sl.hermite_series(mu, u), np.polynomial.hermite_e.hermeval(u, he), rtol=1e-10)


DUALS = {
    "erf": lambda r: 2 / np.pi * np.arcsin(2 * r / 3),
    "sin": lambda r: np.exp(-1) * np.sinh(r),
    "cos": lambda r: np.exp(-1) * np.cosh(r),
    "relu": lambda r: (np.sqrt(1 - r**2) + r * (np.pi - np.arccos(r))) / (2 * np.pi),
    "step": lambda r: (np.pi - np.arccos(r)) / (2 * np.pi),
    "h0-2*h3": lambda r: 1 + 4 * r**3,
}


@pytest.mark.parametrize("name", DUALS)
def test_dual_kernel_equals_closed_forms(name):
    rho = np.linspace(-0.8, 0.8, 17)
    got = sl.dual_kernel(sl.activation(name).coefficients(140), rho)
    np.testing.assert_allclose(got, DUALS[name](rho), atol=1e-12)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.3, 0.7])
@pytest.mark.parametrize("name", ["tanh", "gelu"])
def test_dual_kernel_equals_two_dimensional_quadrature(name, rho):
    act = sl.activation(name)
    x, w = np.polynomial.legendre.leggauss(120)
    u, w = 9 * x, 9 * w * np.exp(-((9 * x) ** 2) / 2) / math.sqrt(2 * math.pi)
    v = rho * u[:, None] + math.sqrt(1 - rho**2) * u
    expected = w @ (act(u)[:, None] * act(v)) @ w
    assert sl.dual_kernel(act.coefficients(100), rho) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("place", [0.3, -1.77])
def test_a_kink_that_is_not_declared_raises(place):
    with pytest.raises(ValueError, match="kinks"):
        sl.hermite_coefficients(lambda u: np.abs(u - place), 5)
    with pytest.raises(ValueError, match="kinks"):
        sl.hermite_coefficients(lambda u: (u > place) * 1.0, 5)
    sl.hermite_coefficients(lambda u: np.abs(u - place), 5, kinks=[place])


def test_a_root_at_a_kink_is_no_trouble():
    """E|u|^p = 2^(p/2) Gamma((p+1)/2) / sqrt(pi), for powers whose derivatives are infinite at 0."""
    for p in (0.5, 1.5, 2.5):
        expected = 2 ** (p / 2) * math.gamma((p + 1) / 2) / math.sqrt(math.pi)
        assert sl.gaussian_expectation(lambda u, p=p: np.abs(u) ** p, kinks=(0,)) == pytest.approx(expected, abs=1e-12)


def test_a_pole_that_is_not_square_integrable_raises():
    act = sl.Activation(lambda x: np.sqrt(np.abs(x)), lambda x: 0.5 * np.sign(x) * np.abs(x) ** -0.5, kinks=(0,))
    with pytest.raises(ValueError, match="do not settle"):
        _ = act.derivative.energy


def test_growth_too_fast_for_square_integrability_raises():
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="f"):
        sl.hermite_coefficients(lambda u: np.exp(u**4), 2)


@pytest.mark.parametrize("f", [lambda u: np.where(u > 2, np.nan, 0), lambda u: np.where(u > 2, np.inf, 0)])
def test_functions_that_are_not_finite_raise(f):
    with pytest.raises(ValueError, match="f is not finite"):
        sl.hermite_coefficients(f, 3)


@pytest.mark.parametrize("order", [-1, 1.5, "3", True, None])
def test_bad_order_raises(order):
    with pytest.raises(ValueError, match="order"):
        sl.hermite_coefficients(np.tanh, order)
    with pytest.raises(ValueError, match="order"):
        sl.hermite_basis(np.zeros(3), order)


@pytest.mark.parametrize("rate", [4.0, 10.0, 20.0])
def test_exponentials_are_exact_however_far_out_they_peak(rate):
    """E[exp(a u) h_l(u)] = exp(a^2 / 2) a^l / sqrt(l!): the integrand peaks at u = a, beyond any fixed cut."""
    mu = sl.hermite_coefficients(lambda u: np.exp(rate * u), 30)
    logs = [rate**2 / 2 + l * math.log(rate) - math.lgamma(l + 1) / 2 for l in range(31)]
    np.testing.assert_allclose(mu / np.exp(logs), 1, rtol=1e-9)
    assert sl.gaussian_expectation(lambda u: np.exp(rate * u)) == pytest.approx(math.exp(rate**2 / 2), rel=1e-12)


@pytest.mark.parametrize("a", [0.1, 0.4, 0.45])
def test_a_heavy_tail_is_not_cut(a):
    assert sl.gaussian_expectation(lambda u: np.exp(a * u**2)) == pytest.approx((1 - 2 * a) ** -0.5, rel=1e-12)


@pytest.mark.parametrize(
    "f",
    [
        lambda u: np.exp(u**2 / 2),
        lambda u: np.exp(0.51 * u**2),
        lambda u: np.exp(u**2 / 2) / (1 + abs(u)),
        lambda u: np.sin(2 * np.pi * u) * np.exp(u**2 / 2),  # its integral over each panel is 0
        lambda u: np.exp(u**2 / 2) * np.sign(u + 0.5),
        lambda u: np.exp(25 * u),  # exp(312) would be its expectation, but exp(25 u) is infinite where it matters
        lambda u: np.exp(abs(u) ** 3),
    ],
)
def test_what_grows_too_fast_is_refused(f):
    with pytest.raises(ValueError, match="grows too fast"):
        sl.gaussian_expectation(f, kinks=(-0.5, 0))


@pytest.mark.parametrize("degree", [60, 80, 100, 200])
def test_polynomials_of_high_degree_by_quadrature(degree):
    mu = np.eye(degree + 1)[degree]
    f = lambda u: sl.hermite_series(mu, u)  # noqa: E731
    np.testing.assert_allclose(sl.hermite_coefficients(f, degree), mu, atol=1e-11)
    assert sl.gaussian_expectation(lambda u: f(u) ** 2) == pytest.approx(1, abs=1e-11)


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_an_undeclared_kink_is_seen_at_any_size(size):
    with pytest.raises(ValueError, match="kinks"):
        sl.gaussian_expectation(lambda u: size * np.abs(u - 0.3))
    assert sl.gaussian_expectation(lambda u: size * np.abs(u)) > 0.7 * size


def test_a_function_that_works_in_place_spoils_nothing():
    def doubled(u):
        u *= 2
        return u

    for _ in range(2):
        assert sl.hermite_coefficients(doubled, 1)[1] == pytest.approx(2, abs=1e-12)
        assert sl.gaussian_expectation(lambda u: u**2) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("f", [lambda u: u - u.mean(), np.cumsum, np.sort, lambda u: np.full_like(u, len(u)), np.sum])
def test_what_is_not_entry_wise_is_refused(f):
    with pytest.raises(ValueError, match="f must act entry-wise"):
        sl.gaussian_expectation(f)


@pytest.mark.parametrize("kinks", [0.0, [np.nan], [np.inf], "ab", [[0.0]], [None]])
def test_kinks_are_a_list_of_finite_numbers(kinks):
    for call in (sl.hermite_coefficients, lambda f, _, kinks: sl.gaussian_expectation(f, kinks=kinks)):
        with pytest.raises(ValueError, match="kinks must be a list of finite numbers"):
            call(np.tanh, 3, kinks=kinks)


def test_integers_are_not_rounded_to_and_masks_not_dropped():
    whole, real = torch.arange(-2, 3), torch.arange(-2.0, 3.0, dtype=torch.float64)
    for function in (
        lambda u: sl.hermite_basis(u, 4),
        lambda u: sl.hermite_series([0.1, 0.7, 0.3], u),
        lambda u: sl.dual_kernel([0.1, 0.7], u),
    ):
        for cast in (whole, whole.to(torch.int8), whole.numpy(), whole.tolist()):
            np.testing.assert_array_equal(np.asarray(function(cast)), function(real).numpy())
        with pytest.raises(ValueError, match="masked"):
            function(np.ma.masked_array([1.0, 2.0], [False, True]))
        with pytest.raises(ValueError, match="real numbers"):
            function(np.array([1j]))


@pytest.mark.parametrize("mu", [[], [np.nan], [[1.0], [2.0]], "x", None])
def test_bad_coefficients_are_refused_by_name(mu):
    for function in (sl.hermite_series, sl.dual_kernel):
        with pytest.raises(ValueError, match=r"^mu must be"):
            function(mu, np.zeros(2))
