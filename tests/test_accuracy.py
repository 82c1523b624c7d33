"""Predicted accuracies: against an independent solver, simulations, and the laws of the alignment."""

import mpmath as mp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import multivariate_normal, norm

import spurlib as sl
from spurlib.theory import predict_accuracy

B = np.sqrt(2 / np.pi)


def mean_over_spectrum(h, psi):
    """Mean of h over the limit spectrum of V^T V, V of shape (psi d, d): by quadrature of its density."""
    low, high = (1 - psi**0.5) ** 2, (1 + psi**0.5) ** 2
    middle, radius = (low + high) / 2, (high - low) / 2

    def integrand(angle):
        s = middle + radius * np.cos(angle)
        return h(s) * (radius * np.sin(angle)) ** 2 / (2 * np.pi * s)

    inside = quad(integrand, 0, np.pi, epsabs=1e-13, epsrel=1e-13, limit=400)[0]
    return inside + max(0.0, 1 - psi) * h(0.0)


def independent(act, alpha, n, d, k, ridge):
    """The formulas of the docstring by quadrature over the spectrum, and a bivariate normal law for the accuracy."""
    mu2 = sl.activation(act).coefficients(400) ** 2
    m, c = mu2[1], sl.activation(act).energy - mu2[0] - mu2[1]
    c_a = sum(mu2[level] * alpha**level for level in range(2, 401))
    psi = k / d

    def trace(h):  # over the k eigenvalues m s + c of C; h takes s
        return d * mean_over_spectrum(h, psi) + (k - d) * h(0.0)

    def spike(h):  # w^T h(V V^T) w
        return m * mean_over_spectrum(lambda s: s * h(s), psi)

    def excess(x):
        return trace(lambda s: (m * s + c) / (m * s + c + x)) + ridge / x - n

    x = brentq(excess, 1e-9 * k, 1e3 * (k + ridge), xtol=1e-13, rtol=1e-14)
    C = lambda s: m * s + c  # noqa: E731
    C_s = lambda s: alpha * m * s + c_a  # noqa: E731
    sigma2 = 1 - B**2 * spike(lambda s: 1 / C(s))
    bias = B**2 * x**2 * spike(lambda s: 1 / C(s) / (C(s) + x) ** 2)
    risk = (bias + sigma2) / (1 - trace(lambda s: (C(s) / (C(s) + x)) ** 2) / n)
    slope = B * spike(lambda s: 1 / (C(s) + x))
    q = risk - 1 + 2 * B * slope
    h = lambda s: s / (C(s) + x)  # noqa: E731
    scatter = mean_over_spectrum(lambda s: h(s) ** 2, psi) - mean_over_spectrum(h, psi) ** 2
    q_s = risk / n * trace(lambda s: C_s(s) * C(s) / (C(s) + x) ** 2)
    q_s += B**2 * (alpha * m**2 * scatter + c_a * spike(lambda s: 1 / (C(s) + x) ** 2))
    gamma = trace(lambda s: C_s(s) / (C(s) + x)) / n
    noise2 = q + gamma**2 * (q - slope**2) - 2 * gamma * q_s

    def right(t):
        return 2 * norm.pdf(t) * norm.cdf(gamma * (1 - slope * t) / np.sqrt(noise2))

    # P(f t > 0), f and t jointly normal
    law = multivariate_normal([0, 0], [[q, slope], [slope, 1]])
    return {
        "test": 2 * law.cdf([0, 0]),
        "spurious": quad(right, 0, 12, epsabs=1e-12, epsrel=1e-12)[0],
        "covariance": gamma * (1 - B * slope),
        "risk": risk,
        "alignment": gamma,
        "margin": B * slope,
    }


@pytest.mark.parametrize(
    ("act", "alpha", "n", "d", "k", "ridge"),
    [
        ("relu", 0.5, 300, 500, 2000, 0.0),
        ("tanh", 0.3, 700, 500, 900, 0.0),
        ("h1+h4", 0.8, 100, 500, 130, 0.0),
        ("relu", 0.5, 900, 500, 700, 35.0),
        ("gelu", 0.6, 200, 500, 260, 200.0),
        ("h1+0.3*h2", 0.5, 50, 400, 300, 0.0),
        ("h2+h3", 0.5, 50, 400, 300, 0.0),
    ],
)
def test_against_an_independent_solver(act, alpha, n, d, k, ridge):
    found = predict_accuracy(act, alpha, n=n, d=d, k=k, ridge=ridge)
    for name, value in independent(act, alpha, n, d, k, ridge).items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-8), name


def bisection(falling):
    low, high = mp.mpf(-40), mp.mpf(40)
    while high - low > 64 * mp.eps:  # which shrinks while mpmath differentiates
        middle = (low + high) / 2
        low, high = (middle, high) if falling(mp.exp(middle)) > 0 else (low, middle)
    return mp.exp(low)


def by_derivatives(act, spectrum, n, k, ridge):
    """The formulas of the docstring with traces of higher order by differentiation, in many digits."""
    mu2 = [mp.mpf(float(x)) for x in sl.activation(act).coefficients(400) ** 2]
    core, spurious = ([mp.mpf(float(x)) for x in part] for part in spectrum)
    d, alpha = len(core) + len(spurious), sum(spurious) / (len(core) + len(spurious))
    m, c = mu2[1], mp.mpf(sl.activation(act).energy) - mu2[0] - mu2[1]
    c_a, b = sum(mu2[level] * alpha**level for level in range(2, 401)), mp.sqrt(2 / mp.pi)

    def gamma(x, eps=0):  # V^T (V Sigma V^T + x)^-1 V is like (Sigma + gamma)^-1; Sigma_y (1 + eps)
        values = [*core, *(s * (1 + eps) for s in spurious)]
        return bisection(lambda g: x - g * (k - sum(s / (s + g) for s in values)) / d)

    def trace(x):  # of (V Sigma V^T + x)^-1
        return (k - sum(s / (s + gamma(x)) for s in core + spurious)) / x

    def first(q):
        return k - q * trace((c + q) / m) / m

    def shared(q):
        g = gamma((c + q) / m)
        return sum(s / (s + g) for s in spurious) + c_a / m * trace((c + q) / m)

    def fit(q, eps=0):
        g = gamma((c + q) / m, eps)
        return sum(s**2 / (s + g) for s in core) / sum(core)

    q = bisection(lambda q: first(q) + ridge / q - n)
    second = first(q) + q * mp.diff(first, q)
    bend = mp.diff(fit, q)
    risk = (b**2 * (1 - fit(q) + q * bend) + 1 - b**2) / (1 - second / n)
    slope = b * fit(q)
    square = risk - 1 + 2 * b * slope
    q_s = risk / n * (shared(q) + q * mp.diff(shared, q))
    q_s += b**2 * (-mp.diff(lambda eps: fit(q, eps), 0) - c_a * bend)
    alignment = shared(q) / n
    noise2 = square + alignment**2 * (square - slope**2) - 2 * alignment * q_s
    spread = mp.sqrt(noise2 + alignment**2 * slope**2 * (1 - b**2))
    cov = alignment * (1 - b * slope)
    return {"risk": risk, "alignment": alignment, "margin": b * slope, "covariance": cov, "spread": spread}


def power_law(core, spurious, p=0.7, unequal=2.0):
    values = [np.arange(1.0, size + 1) ** -p for size in (core, spurious)]
    values[1] *= unequal
    mean = np.concatenate(values).mean()
    return values[0] / mean, values[1] / mean


@pytest.mark.filterwarnings("ignore:n = 20 is not small")
@pytest.mark.parametrize(("act", "n", "k", "ridge"), [("relu", 20, 60, 0.0), ("tanh", 30, 35, 2.0)])
def test_a_spectrum_against_derivatives(act, n, k, ridge):
    spectrum = power_law(9, 6)
    with mp.workdps(20):
        expected = by_derivatives(act, spectrum, n, k, ridge)
    found = predict_accuracy(act, n=n, k=k, ridge=ridge, spectrum=spectrum)
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(float(value), abs=1e-8), name


def test_a_flat_spectrum_is_the_isotropic_case():
    flat, sizes = (np.ones(240), np.ones(160)), np.array([30, 300, 900])
    for change in ({}, {"k": 450}, {"kind": "ntk", "ridge": 0.3}):
        one = predict_accuracy("relu", n=sizes, spectrum=flat, **change)
        other = predict_accuracy("relu", 0.4, n=sizes, d=400, **change)
        for name in vars(one):
            assert np.allclose(getattr(one, name), getattr(other, name), rtol=1e-12), name


def test_wide_features_with_a_spectrum_are_a_limit():
    spectrum = power_law(90, 60)
    limit, wide = (predict_accuracy("gelu", n=100, k=k, spectrum=spectrum) for k in (None, 10**9))
    for name in vars(limit):
        assert getattr(wide, name) == pytest.approx(getattr(limit, name), rel=1e-5), name
    for kind, law in (("rf", sl.gamma_rf), ("ntk", sl.gamma_ntk)):
        found = predict_accuracy("gelu", n=100, spectrum=spectrum, kind=kind).alignment
        assert found == pytest.approx(law("gelu", ratio=100 / 150, spectrum=spectrum), rel=1e-12)


@pytest.mark.parametrize(("n", "k", "ridge"), [(150, 1000, 0.0), (400, 200, 0.0), (300, 330, 25.0)])
def test_a_spectrum_against_simulation(n, k, ridge):
    """Sixteen draws at d = 400 with a power law: three standard errors, and 0.02 for the size."""
    spectrum = power_law(200, 200, p=0.4)
    d, is_core, rows = 400, np.arange(400) < 200, []
    scale, found = np.sqrt(np.concatenate(spectrum)), predict_accuracy("relu", n=n, k=k, ridge=ridge, spectrum=spectrum)
    for seed in range(16):
        rng = np.random.default_rng(seed)
        Z, cores, Z_test = (rng.standard_normal((size, d)) * scale for size in (n, n, 800))
        teacher = is_core * rng.standard_normal(d)
        g, g_t = np.sign(Z @ teacher), np.sign(Z_test @ teacher)
        features = sl.RandomFeatures("relu", d=d, k=k, seed=seed)
        A, S, T = (features.features(q).astype(float) for q in (Z, np.where(is_core, cores, Z), Z_test))
        M = A.T @ np.linalg.inv(A @ A.T + ridge * np.eye(n)) if ridge else np.linalg.pinv(A)
        f_s, f_t = S @ (M @ g), T @ (M @ g)
        rows.append(
            {
                "test": np.mean(f_t * g_t > 0),
                "spurious": np.mean(f_s * g > 0),
                "covariance": np.mean(f_s * g),
                "risk": np.mean((f_t - g_t) ** 2),
                "margin": np.mean(f_t * g_t),
                "spread": np.std(f_s * g),
                "alignment": np.einsum("ij,ji->i", S, M).mean(),
            }
        )
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        error = values.std(ddof=1) / np.sqrt(len(values))
        room = 0.02 * max(1.0, abs(values.mean()))
        assert abs(values.mean() - getattr(found, name)) < 3 * error + room, (name, values.mean(), getattr(found, name))


@pytest.mark.parametrize("act", ["relu", "tanh", "h1+h4"])
def test_without_a_ridge_the_alignment_is_the_sharp_law_whatever_the_width(act):
    n, d = np.array([30, 300, 900]), 300
    for k in (None, 950, 5000):
        found = predict_accuracy(act, 0.4, n=n, d=d, k=k).alignment
        assert np.allclose(found, sl.gamma_rf(act, 0.4, ratio=n / d), rtol=1e-8)
    tangent = predict_accuracy(act, 0.4, n=n, d=d, kind="ntk").alignment
    assert np.allclose(tangent, sl.gamma_ntk(act, 0.4, ratio=n / d), rtol=1e-8)


def test_an_intercept_is_one_more_direction():
    """The formulas of infinite width with n - y in the place of n, y the degrees of freedom of the constant."""
    n, d, alpha, b2 = 30, 1000, 0.25, 2 / np.pi
    phi = sl.activation("relu")
    mu2 = phi.coefficients(200) ** 2
    c, c_alpha = phi.energy - mu2[0] - mu2[1], (mu2[2:] * alpha ** np.arange(2, 201)).sum()

    def root(n):
        return brentq(lambda x: d / (1 + x) + c * d / mu2[1] / x - n, 1e-6, 1e6, xtol=1e-13)

    e = mu2[0] * d / mu2[1]
    y = e / (e + root(n))
    kappa = root(n - y)
    eta = 1 / (1 + kappa)
    risk = (1 - b2 + b2 * (1 - eta) ** 2) / (1 - (d * eta**2 + y**2) / n)
    found = sl.predict_accuracy("relu", alpha, n=n, d=d, intercept=True)
    assert found.alignment == pytest.approx((alpha * d * eta + y + c_alpha * d / mu2[1] / kappa) / n, rel=1e-9)
    assert found.risk == pytest.approx(risk, rel=1e-9)
    noise = risk * (d * eta**2 + y**2) / n
    assert found.test == pytest.approx(0.5 + np.arctan(np.sqrt(b2 / noise) * eta) / np.pi, rel=1e-9)
    wide = sl.predict_accuracy("relu", alpha, n=n, d=d, k=10**9, intercept=True)
    assert wide.spurious == pytest.approx(found.spurious, abs=1e-6)
    assert np.isfinite(fields(sl.predict_accuracy("relu", alpha, n=1, d=d, k=2, intercept=True))).all()


def test_arguments_are_broadcast():
    n, alpha = np.array([50, 100, 200]), np.array([[0.25], [0.5]])
    found = predict_accuracy("relu", alpha, n=n, d=300, k=1000, ridge=1.0)
    assert found.test.shape == found.spread.shape == (2, 3)
    one = predict_accuracy("relu", 0.5, n=100, d=300, k=1000, ridge=1.0)
    assert isinstance(one.spurious, float)
    for name in vars(one):
        assert getattr(found, name)[1, 1] == pytest.approx(getattr(one, name), rel=1e-12)


def test_wide_features_are_the_limit():
    limit = predict_accuracy("relu", 0.5, n=200, d=300)
    wide = predict_accuracy("relu", 0.5, n=200, d=300, k=10**8)
    for name in vars(limit):
        assert getattr(wide, name) == pytest.approx(getattr(limit, name), rel=1e-4)
    ridge = predict_accuracy("relu", 0.5, n=200, d=300, ridge=0.1)
    wide = predict_accuracy("relu", 0.5, n=200, d=300, k=10**8, ridge=10**7)
    assert wide.risk == pytest.approx(ridge.risk, rel=1e-4) and ridge.margin < 0.9 * limit.margin


@pytest.mark.parametrize(
    ("act", "n", "k", "ridge", "kind"),
    [
        ("relu", 200, 4000, 0.0, "rf"),
        ("tanh", 400, 600, 0.0, "rf"),
        ("relu", 400, 450, 60.0, "rf"),
        ("h1+0.7*h2", 300, 60, 0.0, "ntk"),
        ("tanh", 300, 60, 3000.0, "ntk"),
    ],
)
def test_against_simulation(act, n, k, ridge, kind):
    """Twelve draws at d = 400: three standard errors, and 0.01 for the size."""
    d, alpha, rows = 400, 0.5, []
    for seed in range(12):
        data = sl.synthetic(n=n, d=d, alpha=alpha, n_test=800, seed=seed)
        features = {"rf": sl.RandomFeatures, "ntk": sl.TangentFeatures}[kind](act, d=d, k=k, seed=seed)
        G = features.gram(np.vstack([data.Z, data.Z_spurious, data.Z_test]), data.Z)
        model = sl.Interpolator.from_gram(G[:n], data.g, ridge=ridge)
        f_s, f_t, g, g_t = model.predict(G[n : 2 * n]), model.predict(G[2 * n :]), data.g, data.g_test
        M = np.linalg.inv(G[:n] + ridge * np.eye(n))
        respond = np.einsum("ij,ji->i", G[n : 2 * n], M)
        rows.append(
            {
                "test": np.mean(f_t * g_t > 0),
                "spurious": np.mean(f_s * g > 0),
                "covariance": np.mean(f_s * g),
                "risk": np.mean((f_t - g_t) ** 2),
                "margin": np.mean(f_t * g_t),
                "spread": np.std(f_s * g),
                "alignment": respond.mean(),
            }
        )
    found = predict_accuracy(act, alpha, n=n, d=d, k=k, ridge=ridge, kind=kind)
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        error = values.std(ddof=1) / np.sqrt(len(values))
        room = 0.02 * max(1.0, abs(values.mean()))
        assert abs(values.mean() - getattr(found, name)) < 3 * error + room, (name, values.mean(), getattr(found, name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 1.0}, "alpha must be a number strictly between 0 and 1"),
        ({"n": 0}, "n must be an integer of at least 1, got 0"),
        ({"n": 2.5}, "n must be an integer of at least 1, got 2.5"),
        ({"d": -3}, "d must be an integer of at least 1"),
        ({"k": 0}, "k must be an integer of at least 1"),
        ({"k": 100}, "k: without a ridge n must differ from k, where the risk is infinite"),
        ({"ridge": -1.0}, "ridge must be a finite number of at least 0"),
        ({"kind": "cnn"}, "kind must be one of 'rf', 'ntk'; got 'cnn'"),
        ({"act": "h0"}, "act: 'h0' has no energy beyond its constant"),
        (
            {"act": "linear", "d": 50},
            "'linear' is linear: without a ridge n or k must be below the number of directions",
        ),
    ],
)
def test_bad_input_is_refused_by_name(change, message):
    arguments = {"act": "relu", "alpha": 0.5, "n": 100, "d": 200, "k": 1000} | change
    with pytest.raises(ValueError, match=message):
        predict_accuracy(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spectrum": (np.ones(3),)}, "spectrum must be a pair"),
        ({"spectrum": 3}, "spectrum must be a pair"),
        ({"spectrum": (np.ones(3), -np.ones(3))}, "spectrum: eigenvalues of the spurious part"),
        ({"spectrum": (np.zeros(3), np.ones(3))}, "spectrum: eigenvalues of the core"),
        ({"spectrum": (np.ones((3, 1)), np.ones(3))}, "spectrum: eigenvalues of the core"),
        ({"spectrum": (2 * np.ones(3), np.ones(3))}, "spectrum must have mean 1 .*, has 1.5"),
        ({"act": "linear", "n": 7}, "'linear' is linear"),
    ],
)
def test_a_bad_spectrum_is_refused_by_name(change, message):
    arguments = {"act": "relu", "n": 5, "spectrum": ([2.0, 1.0, 0.0], [1.0, 1.5, 0.5])} | change
    with pytest.raises(ValueError, match=message):
        predict_accuracy(**arguments)
    arguments.pop("n")
    for law in (sl.gamma_rf, sl.gamma_ntk):
        with pytest.raises(ValueError, match=message if "spectrum" in change else "linear|constant"):
            law(**arguments, ratio=7 / 6)


def test_either_alpha_or_a_spectrum():
    pair = ([1.0, 1.0], [1.0, 1.0])
    for law in (sl.gamma_rf, sl.gamma_ntk):
        for arguments in ({}, {"alpha": 0.5, "spectrum": pair}):
            with pytest.raises(ValueError, match="alpha and spectrum: give exactly one of them"):
                law("relu", ratio=1.0, **arguments)
    with pytest.raises(ValueError, match="alpha and spectrum: give exactly one of them"):
        predict_accuracy("relu", n=10, d=10)
    for arguments in ({"alpha": 0.5}, {"d": 4, "spectrum": pair}):
        with pytest.raises(ValueError, match="d and spectrum: give exactly one of them"):
            predict_accuracy("relu", n=10, **arguments)


def test_fewer_features_than_samples_are_the_limit_of_a_small_ridge():
    small = predict_accuracy("relu", 0.5, n=500, d=300, k=400, ridge=1e-9)
    none = predict_accuracy("relu", 0.5, n=500, d=300, k=400)
    for name in vars(none):
        assert getattr(none, name) == pytest.approx(getattr(small, name), rel=1e-6), name
    near = predict_accuracy("relu", 0.5, n=500, d=300, k=[499, 501])
    assert (near.risk > 50).all() and (np.abs(near.test - 0.5) < 0.1).all()


def fields(prediction):
    return np.array([np.asarray(getattr(prediction, name), dtype=float) for name in vars(prediction)])


@pytest.mark.parametrize("alpha", [0.25, 0.5])
@pytest.mark.parametrize(("act", "n"), [("relu", 2), ("relu", 10), ("0.1*h0+h1+h2", 5), ("gelu", 4)])
def test_with_an_intercept_a_fixed_number_of_samples_has_its_exact_alignment(act, n, alpha):
    """The limit of large d: v_a / v (1 - s) + s with s = mu_0^2 / (v + n mu_0^2), by inverting v I + mu_0^2 1 1^T."""
    phi = sl.activation(act)
    mu2 = phi.coefficients(400) ** 2
    v, v_a = phi.variance, (mu2[1:] * alpha ** np.arange(1, 401)).sum()
    s = mu2[0] / (v + n * mu2[0])
    found = predict_accuracy(act, alpha, n=n, d=10**8, intercept=True).alignment
    assert found == pytest.approx(v_a / v * (1 - s) + s, rel=1e-6)


def test_the_intercept_is_continuous_in_the_constant():
    sizes = {"n": np.array([1, 2, 20, 300]), "d": 300, "ridge": np.array([[0.0], [1.0], [1e4]])}
    bare = fields(predict_accuracy("h1+h2", 0.5, **sizes))
    nearly = fields(predict_accuracy("0.000001*h0+h1+h2", 0.5, **sizes, intercept=True))
    assert np.abs(nearly / bare - 1).max() < 1e-6
    steps = [predict_accuracy(f"{c}*h0+h1+h2", 0.5, n=20, d=500, intercept=True).alignment
             for c in ("0.01", "0.1", "1", "10", "1000")]  # fmt: skip
    assert (np.diff(steps) > 0).all()
    for change in ({"k": 30}, {"k": 10, "ridge": 5.0}):
        pair = [
            fields(predict_accuracy(f"{c}h1+h2", 0.5, n=20, d=500, intercept=True, **change)) for c in ("", "0*h0+")
        ]
        assert (pair[0] == pair[1]).all()


def test_a_large_ridge_leaves_each_direction_its_energy():
    """f(z^s) = k(z^s, z_i) g_i / ridge + ...: the alignment tends to the kernel of sample and query over the ridge."""
    phi, ridge = sl.activation("relu"), 1e9
    shared = (phi.coefficients(400) ** 2 * 0.5 ** np.arange(401)).sum()
    found = predict_accuracy("relu", 0.5, n=300, d=300, ridge=ridge, intercept=True)
    assert found.alignment * ridge == pytest.approx(shared, rel=1e-6)
    assert found.covariance * ridge == pytest.approx(shared, rel=1e-6)


@pytest.mark.parametrize(
    ("act", "n", "d", "alpha", "ridge", "k"),
    [
        ("relu", 10, 300, 0.25, 0.0, None),
        ("0.1*h0+h1+h2", 20, 300, 0.25, 0.0, None),
        ("relu", 100, 100, 0.5, 300.0, None),
        ("relu", 20, 200, 0.25, 300.0, 30),
    ],
)
def test_an_intercept_against_simulation(act, n, d, alpha, ridge, k):
    """Forty draws: four standard errors, and one percent for the size."""
    rows, names = [], ("test", "spurious", "covariance", "risk", "alignment")
    for seed in range(40):
        data = sl.synthetic(n=n, d=d, alpha=alpha, n_test=300, seed=seed, spherical=True)
        kernel = sl.InfiniteWidth(act) if k is None else sl.RandomFeatures(act, d=d, k=k, seed=seed)
        G = kernel.gram(np.vstack([data.Z, data.Z_spurious, data.Z_test]), data.Z)
        M = np.linalg.inv(G[:n] + ridge * np.eye(n))
        f = G[n:] @ (M @ data.g)
        right, old = f[n:] * data.g_test, f[:n] * data.g
        own = np.einsum("ij,ji->i", G[n : 2 * n], M).mean()
        rows.append([np.mean(right > 0), np.mean(old > 0), old.mean(), np.mean((right - 1) ** 2), own])
    mean, error = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1) / len(rows) ** 0.5
    found, bare = (predict_accuracy(act, alpha, n=n, d=d, k=k, ridge=ridge, intercept=which) for which in (True, False))
    for name, value, se in zip(names, mean, error, strict=True):
        assert abs(value - getattr(found, name)) < 4 * se + 0.01 * abs(value), (name, value, se)
    if act == "relu":  # so the simulation tells them apart
        assert abs(mean[-1] - bare.alignment) > 5 * error[-1] + 0.01 * mean[-1]


def by_many_digits(act, alpha, n, d, ridge):
    """The ladder of the chapter for infinite width, in many digits."""
    phi = sl.activation(act)
    mu2 = [mp.mpf(float(x)) for x in phi.coefficients(400) ** 2]
    m, c = mu2[1], mp.mpf(phi.variance) - mu2[1]
    c_a, b2, delta = sum(mu2[level] * mp.mpf(alpha) ** level for level in range(2, 401)), 2 / mp.pi, mp.mpf(n) / d
    lam = (c + ridge) / m
    p = delta - 1 - lam
    kappa = (
        2 * lam / (mp.sqrt(p**2 + 4 * delta * lam) + p)
        if p > 0
        else (mp.sqrt(p**2 + 4 * delta * lam) - p) / (2 * delta)
    )
    eta = 1 / (1 + kappa)
    risk = (1 - b2 + b2 * (1 - eta) ** 2) / (1 - eta**2 / delta)
    v2 = risk * eta**2 / delta
    gamma = (alpha * eta + c_a / m / kappa) / delta
    spread2 = b2 * eta**2 + v2 * (1 - 2 * alpha * gamma + gamma**2)
    spread = mp.sqrt(spread2 + gamma**2 * b2 * eta**2 * (1 - b2))
    test = mp.mpf(1) / 2 + mp.atan(mp.sqrt(b2) * eta / mp.sqrt(v2)) / mp.pi
    return {"test": test, "risk": risk, "alignment": gamma, "covariance": gamma * (1 - b2 * eta), "spread": spread}


@pytest.mark.parametrize(("n", "d"), [(500, 1000), (600, 300)])
@pytest.mark.parametrize(
    ("act", "ridge"),
    [("tanh", 0.0), ("tanh", 1e4), ("tanh", 1e8), ("relu", 1e12), ("relu", 1e100), ("0.000001*h1+h2", 0.0)],
)
def test_nothing_cancels(act, ridge, n, d):
    found = predict_accuracy(act, 0.5, n=n, d=d, ridge=ridge)
    with mp.workdps(60):
        expected = {name: float(value) for name, value in by_many_digits(act, 0.5, n, d, ridge).items()}
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-9, abs=0), name
    assert 0.5 < found.spurious < 1


def test_without_a_linear_part_there_is_nothing_to_learn():
    for change in ({}, {"k": 500}, {"ridge": 1.0}, {"k": 150, "ridge": 3.0}):
        found = predict_accuracy("h2+h3", 0.5, n=200, d=400, **change)
        assert found.test == 0.5 and found.margin == 0 and found.spurious > 0.5
        assert found.covariance == found.alignment > 0


@pytest.mark.parametrize("k", [3, 49, 98, 103, 107, 161, 1999])
def test_as_many_features_as_samples_are_refused_for_every_number(k):
    with pytest.raises(ValueError, match="n must differ from k"):
        predict_accuracy("relu", 0.5, n=k, d=100, k=k)
    assert np.isfinite(fields(predict_accuracy("relu", 0.5, n=k, d=1000, k=k, ridge=0.1))).all()


@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.55, 0.7])
@pytest.mark.parametrize("d", [7, 49, 50, 103])
def test_as_many_samples_as_directions_are_refused_for_every_number(alpha, d):
    with pytest.raises(ValueError, match="linear"):
        predict_accuracy("linear", alpha, n=d, d=d)
    assert predict_accuracy("linear", alpha, n=d - 1, d=d).alignment == pytest.approx(alpha, rel=1e-6)


@pytest.mark.parametrize(("act", "kind"), [("h1+h2", "rf"), ("relu", "rf"), ("h1+h2", "ntk")])
def test_so_many_samples_that_degree_two_is_learned_are_reported(act, kind):
    with pytest.warns(UserWarning, match=r"n = 1000 is not small against d \(d \+ 1\) / 2 = 1275: about [67]\d%"):
        predict_accuracy(act, 0.5, n=[10, 1000], d=50, kind=kind)


@pytest.mark.parametrize(
    ("act", "n", "ridge"), [("tanh", 1000, 0.0), ("h1+h3", 1000, 0.0), ("relu", 100, 0.0), ("relu", 1000, 100.0)]
)
def test_nothing_is_reported_where_the_law_holds(act, n, ridge, recwarn):
    predict_accuracy(act, 0.5, n=n, d=50, ridge=ridge)
    assert not recwarn.list


@pytest.mark.filterwarnings("ignore:n = 300 is not small")
def test_the_report_is_needed():
    """The simulated test accuracy is then below the law; for tanh, which has no degree two, it is not."""
    n, d, gaps = 300, 40, {}
    for act in ("h1+h2", "tanh"):
        right = []
        for seed in range(6):
            data = sl.synthetic(n=n, d=d, alpha=0.5, n_test=600, seed=seed, spherical=True)
            G = sl.InfiniteWidth(act).gram(np.vstack([data.Z, data.Z_test]), data.Z)
            right.append(np.mean(G[n:] @ np.linalg.solve(G[:n], data.g) * data.g_test > 0))
        gaps[act] = np.mean(right) - predict_accuracy(act, 0.5, n=n, d=d).test
    assert gaps["h1+h2"] < -0.06 and abs(gaps["tanh"]) < 0.02


@pytest.mark.parametrize(("act", "n"), [("h1+h2", 66), ("h0+h1+h2", 66), ("h1+h3", 286)])
def test_a_polynomial_with_as_many_samples_as_monomials_is_refused(act, n):
    """At d = 10 the polynomials of degree 2 and 3 are 66 and 286: the kernel of one sample more is singular."""
    kernel, degree = sl.InfiniteWidth(act), int(act[-1])
    X = np.random.default_rng(0).standard_normal((n + 5, 10))
    assert np.linalg.matrix_rank(kernel.gram(X), tol=1e-9) <= n
    for change in ({"n": n}, {"n": n + 100, "k": n}, {"n": n, "k": 10 * n}):
        with pytest.raises(ValueError, match=f"'{act}' is a polynomial".replace("+", "[+]")):
            predict_accuracy(act, 0.5, d=10, **change)
    assert degree
    predict_accuracy(act, 0.5, n=n // 12, d=10)
    predict_accuracy(act, 0.5, n=n, d=10, ridge=100.0)


@pytest.mark.parametrize("ridge", [0.0, 1.0])
def test_fewer_tangent_features_than_samples_are_refused(ridge):
    for n, k in ((200, 2), (100, 1), (200, [2, 50])):
        with pytest.raises(ValueError, match="many more features k d than samples n"):
            predict_accuracy("relu", 0.5, n=n, d=100, k=k, kind="ntk", ridge=ridge)
