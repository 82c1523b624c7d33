"""Alignment formulas against closed forms, a numerical root, and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

import spurlib as sl
from tests.quadrature import iterated, moment

# (energy, mu_0^2, mu_1^2, dual kernel) of activations whose dual kernel has a closed form
CLOSED = {
    "relu": (
        1 / 2,
        1 / (2 * math.pi),
        1 / 4,
        lambda r: (math.sqrt(1 - r**2) + r * (math.pi - math.acos(r))) / (2 * math.pi),
    ),
    "erf": (2 / math.pi * math.asin(2 / 3), 0.0, 4 / (3 * math.pi), lambda r: 2 / math.pi * math.asin(2 * r / 3)),
    "sin": (math.sinh(1) / math.e, 0.0, 1 / math.e, lambda r: math.sinh(r) / math.e),
    "cos": (math.cosh(1) / math.e, 1 / math.e, 0.0, lambda r: math.cosh(r) / math.e),
    "h1+h4": (2.0, 0.0, 1.0, lambda r: r + r**4),
    "h0+2*h2": (5.0, 1.0, 0.0, lambda r: 1 + 4 * r**2),
}
ALPHAS = [0.02, 0.25, 0.5, 0.66, 0.9, 0.99]


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", CLOSED)
def test_bound_equals_closed_forms(name, alpha):
    energy, mu0, mu1, dual = CLOSED[name]
    expected = (dual(alpha) - mu0 - mu1 * alpha) / (energy - mu0)
    assert sl.gamma_rf_bound(name, alpha) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def sharp(linear, rest, damped, alpha, ratio):
    """The sharp law with kappa from a bracketing root finder."""
    if linear == 0:
        return damped / rest

    def excess(log_kappa):
        kappa = math.exp(log_kappa)
        return 1 / (1 + kappa) + rest / linear / kappa - ratio

    kappa = math.exp(optimize.brentq(excess, -60, 60, xtol=1e-14))
    tau = kappa / (1 + kappa)
    return (alpha * linear * tau + damped) / (linear * tau + rest)


@pytest.mark.parametrize("ratio", [1e-3, 0.2, 0.999, 1.0, 1.7, 30.0, 1e4])
@pytest.mark.parametrize("alpha", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("name", CLOSED)
def test_sharp_law_equals_a_numerical_root(name, alpha, ratio):
    energy, mu0, mu1, dual = CLOSED[name]
    expected = sharp(mu1, energy - mu0 - mu1, dual(alpha) - mu0 - mu1 * alpha, alpha, ratio)
    assert sl.gamma_rf(name, alpha, ratio=ratio) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_tangent_limit_equals_closed_forms(alpha):
    # slope of relu: a step, 1/4 + arcsin(r) / (2 pi); of h1 + h2: h0 + sqrt(2) h1
    assert sl.gamma_ntk("relu", alpha) == pytest.approx(alpha * math.asin(alpha) / (math.pi / 2), rel=1e-9)
    assert sl.gamma_ntk("h1+h2", alpha) == pytest.approx(alpha**2, rel=1e-12)
    assert sl.gamma_ntk("h1+h4", alpha) == pytest.approx(alpha**4, rel=1e-12)
    assert sl.gamma_ntk("sin", alpha) == pytest.approx(alpha * (math.cosh(alpha) - 1) / (math.cosh(1) - 1), rel=1e-9)


@pytest.mark.parametrize("ratio", [0.2, 1.0, 3.0, 15.0, 1e4])
def test_tangent_law_equals_a_numerical_root(ratio):
    alpha = 0.5
    relu = alpha * sharp(1 / 4, 1 / 4, math.asin(alpha) / (2 * math.pi), 1.0, ratio)
    assert sl.gamma_ntk("relu", alpha, ratio=ratio) == pytest.approx(relu, rel=1e-8)
    assert sl.gamma_ntk("h1+0.5*h2", alpha, ratio=ratio) == pytest.approx(
        alpha * sharp(1, 0.5, 0.5 * alpha, 1.0, ratio), rel=1e-8
    )


@pytest.mark.parametrize("name", ["relu", "tanh", "erf", "h1+h2", "h1+h4", "gelu"])
def test_limits_and_order(name):
    alpha = np.array([0.2, 0.5, 0.8])
    ratios = np.geomspace(1e-6, 1e6, 25)
    gamma = sl.gamma_rf(name, alpha[:, None], ratio=ratios)
    assert gamma.shape == (3, 25)
    assert (np.diff(gamma, axis=1) < 0).all()
    assert (gamma > sl.gamma_rf_bound(name, alpha)[:, None]).all() and (gamma < alpha[:, None]).all()
    mu = sl.activation(name).coefficients(200)[1:] ** 2
    damped = np.array([(mu[1:] * a ** np.arange(2, 201)).sum() for a in alpha])
    tail = sl.activation(name).energy - (sl.activation(name).coefficients(1) ** 2).sum()
    np.testing.assert_allclose(gamma[:, -1], damped / tail, rtol=1e-3)
    np.testing.assert_allclose(gamma[:, 0], (alpha * mu[0] + damped) / (mu[0] + tail), rtol=1e-4)
    limit = sl.gamma_ntk(name, alpha)
    finite = sl.gamma_ntk(name, alpha, ratio=1e6)
    assert (finite > limit).all()
    np.testing.assert_allclose(finite, limit, rtol=1e-3, atol=1e-5)


def nameless(seed, parity=None):
    """A function no one has named: tanh, a corner, a parabola on half a line, a wave; made even or odd on demand."""
    rng = np.random.default_rng(seed)
    a, c, r, q = rng.choice([-1, 1], 4) * rng.uniform(0.3, 1.5, 4)
    slope, wave = rng.uniform(0.3, 2.5, 2)
    shift, corner, start, phase = rng.uniform(-1.5, 1.5, 4)

    def f(u):
        u = np.asarray(u)
        bent = a * np.tanh(slope * u + shift) + c * np.abs(u - corner)
        return bent + r / 2 * np.maximum(u - start, 0) ** 2 + q * np.sin(wave * u + phase)

    def df(u):
        u = np.asarray(u)
        bent = a * slope / np.cosh(slope * u + shift) ** 2 + c * np.sign(u - corner)
        return bent + r * np.maximum(u - start, 0) + q * wave * np.cos(wave * u + phase)

    kinks, name = (corner, start), f"nameless {seed}"
    if parity is None:
        return sl.Activation(f, df, kinks=kinks, name=name)
    sign, kinks = (1 if parity == "even" else -1), (corner, start, -corner, -start)
    return sl.Activation(
        lambda u: f(u) + sign * f(-u), lambda u: df(u) - sign * df(-u), kinks=kinks, name=f"{name}, {parity}"
    )


def shared(f, alpha):
    """By quadrature in the plane: mu_0^2, mu_1^2, the rest of the energy, and the rest at correlation alpha."""
    constant, linear = moment(f) ** 2, moment(f, 1) ** 2
    whole, part = (iterated(f, 1, 1, rho, nodes=40) for rho in (1, alpha))
    constant, linear = (0.0 if x < 1e-20 * whole else x for x in (constant, linear))
    return constant, linear, whole - constant - linear, part - constant - linear * alpha


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([None, "even", "odd"]),
    st.floats(0.05, 0.95),
    st.floats(-3, 4).map(lambda x: 10**x),
)
@settings(max_examples=40, deadline=None)
def test_formulas_of_nameless_functions_are_gaussian_integrals(seed, parity, alpha, ratio):
    act = nameless(seed, parity)
    _, linear, rest, damped = shared(act, alpha)
    assert sl.gamma_rf_bound(act, alpha) == pytest.approx(damped / (linear + rest), abs=1e-8)
    assert sl.gamma_rf(act, alpha, ratio=ratio) == pytest.approx(sharp(linear, rest, damped, alpha, ratio), abs=1e-8)
    constant, linear, rest, damped = shared(act.derivative, alpha)
    rest, damped = rest + linear, damped + linear * alpha  # degree one of the slope is not explained
    assert sl.gamma_ntk(act, alpha) == pytest.approx(alpha * damped / rest, abs=1e-8)
    finite = alpha * sharp(constant, rest, damped, 1.0, ratio)
    assert sl.gamma_ntk(act, alpha, ratio=ratio) == pytest.approx(finite, abs=1e-8)


def test_an_undeclared_kink_is_seen():
    act = nameless(0)
    smooth = sl.Activation(act.f, act.df, kinks=act.kinks[:1])
    with pytest.raises(ValueError, match="kinks"):
        sl.gamma_ntk(smooth, 0.5)


def simulated(kind, act, n, d, k, alpha, draws=8):
    """Mean alignment over samples and draws of data and weights, and its standard error."""
    values = []
    for seed in range(draws):
        data = sl.synthetic(n=n, d=d, alpha=alpha, n_test=1, seed=seed, spherical=True)
        m = sl.Interpolator(kind(act, d=d, k=k, seed=seed), data.Z, data.g)
        values.append(np.diag(m.alignment(data.Z_spurious)).mean())
    return np.mean(values), np.std(values, ddof=1) / math.sqrt(draws)


# The laws are limits: at a finite size we allow 1 / d (the spread of correlations) and 1 / N (the constant part).
@pytest.mark.parametrize(
    "act, n, alpha",
    [("relu", 125, 0.5), ("relu", 500, 0.5), ("tanh", 300, 0.75), *[(nameless(s), 300, 0.5) for s in (1, 2, 3)]],
    ids=str,
)
def test_sharp_law_equals_a_simulation(act, n, alpha):
    d = 250
    predicted = sl.gamma_rf(act, alpha, ratio=n / d)
    mean, error = simulated(sl.RandomFeatures, act, n, d, 3000, alpha)
    allowed = 3 * error + 1 / d + 1 / n
    assert abs(mean - predicted) <= allowed
    assert predicted - sl.gamma_rf_bound(act, alpha) > 2 * allowed  # so the simulation can tell them apart


@pytest.mark.parametrize("act", ["h1+h2", "tanh", *[nameless(s) for s in (1, 3, 6)]], ids=str)
def test_tangent_law_equals_a_simulation(act):
    n, d = 450, 150
    predicted = sl.gamma_ntk(act, 0.5, ratio=n / d)
    mean, error = simulated(sl.TangentFeatures, act, n, d, 80, 0.5)
    allowed = 3 * error + 1 / d + 1 / n
    assert abs(mean - predicted) <= allowed
    assert predicted - sl.gamma_ntk(act, 0.5) > 2 * allowed


def test_floats_in_floats_out_and_arrays_broadcast():
    for gamma in (sl.gamma_rf("relu", 0.5, ratio=2), sl.gamma_rf_bound("relu", 0.5), sl.gamma_ntk("relu", 0.5)):
        assert type(gamma) is float
    alpha, ratio = np.array([0.2, 0.5]), np.array([[0.5], [1.0], [7.0]])
    for law in (sl.gamma_rf, sl.gamma_ntk):
        table = law("tanh", alpha, ratio=ratio)
        assert table.shape == (3, 2)
        for i, r in enumerate([0.5, 1.0, 7.0]):
            for j, a in enumerate([0.2, 0.5]):
                assert table[i, j] == pytest.approx(law("tanh", a, ratio=r), rel=1e-10)
    assert sl.gamma_rf_bound("tanh", alpha).shape == (2,)
    assert sl.gamma_rf("cos", 0.5, ratio=[1.0, 2.0]).shape == (2,)


def test_a_linear_activation_below_its_dimension():
    # kernel Z Z^T: the alignment of what is left of z beside fewer than d others is alpha
    assert sl.gamma_rf("linear", 0.3, ratio=0.5) == pytest.approx(0.3)
    assert sl.gamma_rf_bound("linear", 0.3) == 0
    assert sl.gamma_ntk("linear", 0.3, ratio=0.5) == pytest.approx(0.3)


LAWS = [
    lambda act, alpha: sl.gamma_rf(act, alpha, ratio=2.0),
    lambda act, alpha: sl.gamma_rf(act, alpha, ratio=0.5),
    sl.gamma_rf_bound,
    sl.gamma_ntk,
    lambda act, alpha: sl.gamma_ntk(act, alpha, ratio=2.0),
]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("alpha", [0, 1, -0.5, float("nan"), [0.5, 1.5], []])
def test_alpha_must_lie_inside(law, alpha):
    with pytest.raises(ValueError, match="alpha must be a number strictly between 0 and 1"):
        law("relu", alpha)


@pytest.mark.parametrize("ratio", [0, -1, float("nan"), float("inf"), []])
def test_ratio_must_be_positive(ratio):
    for law in (sl.gamma_rf, sl.gamma_ntk):
        with pytest.raises(ValueError, match="ratio must be a finite number above 0"):
            law("relu", 0.5, ratio=ratio)


@pytest.mark.parametrize("law", LAWS)
def test_constants_and_unknown_names(law):
    with pytest.raises(ValueError, match=r"^act"):
        law("h0", 0.5)
    with pytest.raises(ValueError, match="known are"):
        law("nonesuch", 0.5)


def test_linear_activations_where_the_kernel_is_singular():
    with pytest.raises(ValueError, match="linear"):
        sl.gamma_rf("linear", 0.5, ratio=1.0)
    for ratio in (None, 1.0):
        with pytest.raises(ValueError, match="constant"):
            sl.gamma_ntk("linear", 0.5, ratio=ratio)


@pytest.mark.parametrize("name", ["relu", "tanh", "h2+h3"])
def test_a_spectrum_against_bisection(name):
    rng = np.random.default_rng(0)
    values = rng.exponential(size=80)
    values /= values.mean()
    core, spurious = values[:50], values[50:]
    rho, n = spurious.sum() / 80, np.array([4, 80, 900])
    for kind, law in (("rf", sl.gamma_rf), ("ntk", sl.gamma_ntk)):
        act = sl.activation(name) if kind == "rf" else sl.activation(name).derivative
        first = 2 if kind == "rf" else 1
        mu2 = act.coefficients(300) ** 2
        m, c = mu2[first - 1], act.energy - mu2[:first].sum()
        c_a = (mu2[first:] * rho ** np.arange(first, 301)).sum() * (rho if kind == "ntk" else 1)
        for size, found in zip(n, law(name, ratio=n / 80, spectrum=(core, spurious)), strict=True):
            if m < 1e-20:
                assert found == pytest.approx(c_a / c, rel=1e-9)
                continue
            excess = lambda x: (values / (values + x)).sum() + c * 80 / m / x - size  # noqa: B023, E731
            x = optimize.brentq(excess, 1e-9, 1e9, xtol=1e-14, rtol=1e-14)
            left = [m / 80 * (part * x / (part + x)).sum() for part in (spurious, values)]
            assert found == pytest.approx((left[0] + c_a) / (left[1] + c), abs=1e-9)


NEAR_ONE = [0.99, 0.994, 0.9999, 0.999999, 1 - 1e-10]


@pytest.mark.parametrize("alpha", NEAR_ONE)
@pytest.mark.parametrize("name", CLOSED)
def test_bound_next_to_one_equals_closed_forms(name, alpha):
    """Where 4000 terms of the series do not suffice."""
    energy, mu0, mu1, dual = CLOSED[name]
    expected = (dual(alpha) - mu0 - mu1 * alpha) / (energy - mu0)
    assert sl.gamma_rf_bound(name, alpha) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("alpha", NEAR_ONE)
def test_jumps_next_to_one_equal_closed_forms(alpha):
    step = (math.asin(alpha) - alpha) / (math.pi / 2)
    assert sl.gamma_rf_bound("step", alpha) == pytest.approx(step, rel=1e-10)
    assert sl.gamma_ntk("relu", alpha) == pytest.approx(alpha * math.asin(alpha) / (math.pi / 2), rel=1e-10)
    both = sl.gamma_rf_bound("step", np.array([0.5, alpha]))
    assert both == pytest.approx([(math.asin(0.5) - 0.5) / (math.pi / 2), step], rel=1e-10)


def test_the_step_next_to_one():
    assert sl.gamma_rf_bound("step", 0.999999) == pytest.approx(0.36248, abs=5e-6)
    assert sl.gamma_rf("step", 0.9999, ratio=1e9) == pytest.approx(0.9754, abs=5e-5)


@pytest.mark.parametrize(("a", "alpha"), [(0.1, 0.5), (0.1, 0.9999), (0.2, 0.97), (0.2, 0.9999), (0.24, 0.5)])
def test_a_heavy_tail_is_counted(a, alpha):
    """exp(a u^2): E[f(u) f(v)] = ((1 - 2 a)^2 - (2 a rho)^2)^(-1/2)."""
    dual = lambda rho: ((1 - 2 * a) ** 2 - (2 * a * rho) ** 2) ** -0.5  # noqa: E731
    expected = (dual(alpha) - dual(0)) / (dual(1) - dual(0))
    assert sl.gamma_rf_bound(lambda u: np.exp(a * u**2), alpha) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("a", [0.249, 0.26])
@pytest.mark.parametrize("law", [sl.gamma_rf_bound, lambda act, alpha: sl.gamma_rf(act, alpha, ratio=1.0)])
def test_a_tail_that_cannot_be_counted_is_refused(a, law):
    with pytest.raises(ValueError, match="grows too fast"):
        law(lambda u: np.exp(a * u**2), 0.5)


@pytest.mark.parametrize("constant", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("name", ["relu", "tanh", "sin", "h1+h4"])
def test_a_constant_changes_nothing(name, constant):
    act = sl.activation(name)
    shifted = sl.Activation(lambda u: act(u) + constant, act.derivative, kinks=act.kinks)
    for alpha in (0.3, 0.9999):
        assert sl.gamma_rf(shifted, alpha, ratio=0.5) == pytest.approx(sl.gamma_rf(act, alpha, ratio=0.5), rel=1e-7)
        assert sl.gamma_rf_bound(shifted, alpha) == pytest.approx(sl.gamma_rf_bound(act, alpha), rel=1e-7)
    steep = sl.Activation(lambda u: act(u) + constant * u, lambda u: act.derivative(u) + constant, kinks=act.kinks)
    assert sl.gamma_ntk(steep, 0.5) == pytest.approx(sl.gamma_ntk(act, 0.5), rel=1e-7)


@pytest.mark.parametrize("constant", [0.0, 1.0, 1e6])
def test_linear_is_linear_beside_a_constant(constant):
    act = sl.Activation(lambda u: u + constant, lambda u: 1.0 + 0 * u)
    assert sl.gamma_rf(act, 0.3, ratio=0.5) == pytest.approx(0.3)
    with pytest.raises(ValueError, match="linear"):
        sl.gamma_rf(act, 0.3, ratio=2.0)
    with pytest.raises(ValueError, match="constant"):
        sl.gamma_ntk(act, 0.3)
    with pytest.raises(ValueError, match="is constant"):
        sl.gamma_rf(lambda u: constant + 0 * u, 0.3, ratio=0.5)


@pytest.mark.parametrize("degree", [60, 100, 200])
def test_high_degrees(degree):
    assert sl.gamma_rf_bound(f"h1+h{degree}", 0.9) == pytest.approx(0.9**degree / 2, rel=1e-12)
    assert sl.gamma_ntk(f"h{degree}", 0.9) == pytest.approx(0.9**degree, rel=1e-12)
