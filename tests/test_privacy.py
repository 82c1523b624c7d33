"""Accounting against numerical integration and another accountant; the mechanism against one that forms gradients."""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

import spurlib as sl
from spurlib.privacy import gdp_delta, gdp_epsilon, gdp_mu, gdp_noise, private_regression, reading_bound


@pytest.mark.parametrize("mu", [0.05, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0, 5.0])
def test_delta_is_the_divergence_of_two_normals(mu, epsilon):
    def excess(x):
        return max(0.0, norm.pdf(x, mu) - math.exp(epsilon) * norm.pdf(x))

    start = epsilon / mu + mu / 2  # where the likelihood ratio is e^epsilon
    expected = quad(excess, start, start + 40, epsabs=1e-14, limit=400)[0]
    assert gdp_delta(epsilon, mu) == pytest.approx(expected, rel=1e-6, abs=1e-13)


def test_epsilon_is_the_inverse():
    mu, delta = np.array([[0.1], [1.0], [6.0]]), np.array([1e-9, 1e-5, 1e-2])
    epsilon = gdp_epsilon(mu, delta)
    assert epsilon.shape == (3, 3) and (np.diff(epsilon, axis=0) > 0).all() and (np.diff(epsilon) < 0).all()
    assert np.allclose(gdp_delta(epsilon, mu), delta, rtol=1e-8)
    assert gdp_epsilon(0.1, 0.5) == 0.0
    assert isinstance(gdp_epsilon(1.0, 1e-5), float)


def test_epsilon_agrees_with_another_accountant():
    accountants = pytest.importorskip("opacus.accountants")
    for noise, steps, delta in ((1.0, 1, 1e-5), (5.0, 10, 1e-6), (5.0, 10, 1e-3), (200.0, 400, 1e-5)):
        other = accountants.PRVAccountant()
        other.history = [(noise, 1.0, steps)]  # full batches
        found = other.get_epsilon(delta=delta, eps_error=9e-5, delta_error=delta * 1e-6)  # at most this above the truth
        # opacus adds or removes a sample, which moves the sum by one clip; replacing one moves it by two
        assert gdp_epsilon(gdp_mu(noise, steps) / 2, delta) == pytest.approx(found, abs=1e-4)
        assert gdp_epsilon(gdp_mu(2 * noise, steps), delta) == pytest.approx(found, abs=1e-4)


def test_without_privacy():
    for delta in (1e-9, 0.5, 0.999):
        assert gdp_epsilon(gdp_mu(0, 10), delta) == math.inf
    assert gdp_delta([0.0, 5.0, 1e300], math.inf).tolist() == [1.0, 1.0, 1.0]
    assert gdp_delta(math.inf, 1.0) == gdp_delta(math.inf, math.inf) == 0.0  # an infinite epsilon promises nothing
    assert gdp_noise(math.inf, 3) == 0.0 and gdp_mu(math.inf, 3) == 0.0
    assert gdp_delta(1.0, 1e-320) == gdp_delta(1e-300, 1e-310) == 0.0


@pytest.mark.parametrize("mu", [900.0, 1e3, 1.1e3, 1e6, 1e8])
@pytest.mark.parametrize("z", [-4.0, 0.0, 4.0])
def test_little_privacy_costs_no_digits(mu, z):
    with mpmath.workdps(60):
        e, m = mpmath.mpf(mu * (mu / 2 + z)), mpmath.mpf(mu)
        expected = mpmath.ncdf(m / 2 - e / m) - mpmath.exp(e) * mpmath.ncdf(-m / 2 - e / m)
    rounding = 1e-15 * mu * (abs(z) + 1)  # of epsilon / mu
    assert gdp_delta(float(e), mu) == pytest.approx(float(expected), rel=1e-9 + 10 * rounding)


@pytest.mark.parametrize("delta", [1e-300, 1e-5, 0.5, 0.999])
def test_epsilon_grows_smoothly_with_mu_to_the_end(delta):
    mu = np.r_[np.geomspace(1e3, 1e12, 91), 1e154]
    epsilon = gdp_epsilon(mu, delta)
    assert np.abs(epsilon / (mu * (mu / 2 - norm.ppf(delta))) - 1).max() < 4e-6  # relative 2 / mu^2
    assert (np.diff(epsilon) > 0).all() and gdp_epsilon(2e154, delta) == math.inf
    below, above = gdp_epsilon([1e8, 1e8 * (1 + 1e-15)], delta) / 1e16
    assert above == pytest.approx(below, rel=1e-14)


def test_steps_and_noise():
    assert gdp_mu(4.0, 16) == pytest.approx(2.0)
    assert gdp_mu(0.0, 3) == math.inf
    assert gdp_mu(gdp_noise([0.3, 2.0], 50), 50) == pytest.approx([0.3, 2.0])
    assert reading_bound([1e-9, 2.0, math.inf]) == pytest.approx([0.5, norm.cdf(1), 1.0])


def problem(n=12, m=20, d=15, k=70, seed=0):
    data = sl.synthetic(n=n, d=d, alpha=0.5, n_test=m - n, seed=seed)
    phi = sl.RandomFeatures("relu", d=d, k=k, seed=seed).features(np.vstack([data.Z, data.Z_test])).astype(float)
    return phi, data.g


def by_gradients(phi, g, *, steps, rate, clip, noise, rng=None):
    """Parameters after private descent, each sample's gradient formed by automatic differentiation."""
    theta = torch.zeros(phi.shape[1], dtype=torch.float64)
    n, features, labels = len(g), torch.tensor(phi[: len(g)]), torch.tensor(g)
    each = torch.func.vmap(torch.func.grad(lambda t, x, y: 0.5 * (x @ t - y) ** 2), (None, 0, 0))
    for _ in range(steps):
        gradients = each(theta, features, labels)
        factor = (clip / gradients.norm(dim=1)).clamp(max=1.0)
        total = (factor[:, None] * gradients).sum(0)
        if rng is not None:
            total = total + noise * clip * torch.tensor(rng.standard_normal(len(theta)))
        theta = theta - rate / n * total
    return theta.numpy()


def test_without_noise_it_is_gradient_descent_with_clipped_gradients():
    phi, g = problem()
    for clip in (1.0, 5.0, math.inf):
        theta = by_gradients(phi, g, steps=30, rate=0.1, clip=clip, noise=0.0)
        run = private_regression(phi @ phi.T, g, steps=30, rate=0.1, clip=clip, noise=0.0, draws=2)
        assert run.outputs.shape == (2, 20) and run.mu == math.inf
        assert np.allclose(run.outputs, phi @ theta, atol=1e-10)
    assert run.clipped.max() == 0
    assert private_regression(phi @ phi.T, g, steps=1, rate=0.1, clip=1.0, noise=0.0).clipped == pytest.approx([1.0])


def test_the_noise_has_the_law_of_noise_in_the_parameters():
    phi, g = problem()
    settings = {"steps": 6, "rate": 0.3, "clip": 2.0, "noise": 1.5}
    run = private_regression(phi @ phi.T, g, draws=4000, seed=1, **settings)
    assert run.mu == pytest.approx(2 * math.sqrt(6) / 1.5) and run.clipped.shape == (6,)
    rng = np.random.default_rng(2)
    others = np.array([phi @ by_gradients(phi, g, rng=rng, **settings) for _ in range(1000)])
    spread = np.sqrt(run.outputs.var(axis=0) / 4000 + others.var(axis=0) / 1000)
    assert (np.abs(run.outputs.mean(axis=0) - others.mean(axis=0)) < 4.5 * spread).all()
    a, b = np.corrcoef(run.outputs.T), np.corrcoef(others.T)
    assert np.abs(a - b).max() < 4.5 * 2 / math.sqrt(1000)
    ratio = run.outputs.var(axis=0) / others.var(axis=0)
    assert (np.abs(ratio - 1) < 4.5 * math.sqrt(2 / 1000 + 2 / 4000)).all()


def test_a_singular_kernel_matrix_will_do():
    phi, g = problem(k=8)  # 20 points in 8 dimensions
    run = private_regression(phi @ phi.T, g, steps=3, rate=0.1, clip=1.0, noise=1.0, draws=50)
    residue = run.outputs.T - phi @ np.linalg.lstsq(phi, run.outputs.T, rcond=None)[0]
    assert np.abs(residue).max() < 1e-4 * np.abs(run.outputs).max()  # the outputs of parameters


def test_seeds():
    phi, g = problem()
    settings = {"steps": 3, "rate": 0.1, "clip": 1.0, "noise": 1.0}
    one, same, other = (private_regression(phi @ phi.T, g, seed=s, **settings).outputs for s in (0, 0, 1))
    assert (one == same).all() and (one != other).all()


NO_KERNEL = np.eye(20) + np.pad([[0.0, 0.9, -0.9], [0.9, 0.0, 0.9], [-0.9, 0.9, 0.0]], (0, 17))  # eigenvalue -0.8


def test_a_rate_that_diverges_is_refused_and_its_limit_named():
    phi, g = problem()
    K, how = phi @ phi.T, {"steps": 3000, "clip": math.inf, "noise": 0.0}
    limit = 2 * 12 / np.linalg.eigvalsh(K[:12, :12])[-1]
    run = private_regression(K, g, rate=0.999 * limit, **how)
    assert np.abs(run.outputs[0, :12] - g).max() < np.abs(g).max()
    with pytest.raises(ValueError, match=f"^rate must be at most .* = {limit:.6g} without a clip, got"):
        private_regression(K, g, rate=1.01 * limit, **how)
    # a clip bounds the steps: with it every rate is a private mechanism
    clipped = private_regression(K, g, rate=1.01 * limit, **{**how, "clip": 1.0}).outputs
    assert np.abs(clipped).max() < 1.01 * limit * np.sqrt(np.abs(K).max()) * how["steps"]


def test_kinds_of_arrays():
    phi, g = problem()
    K, how = phi @ phi.T, {"steps": 3, "rate": 0.1, "clip": 1.0, "noise": 1.0}
    expected = private_regression(K, g, **how).outputs
    for kind in (np.asfortranarray, torch.tensor, lambda x: x.astype(">f8"), lambda x: x.tolist()):
        assert np.allclose(private_regression(kind(K), kind(g), **how).outputs, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"K": np.ones((3, 4))}, "K must be a square matrix"),
        ({"K": -np.eye(20)}, "K must be positive semidefinite"),
        ({"g": np.ones(21)}, "g must be a list of at most 20 labels"),
        ({"steps": 0}, "steps must be"),
        ({"rate": 0.0}, "rate must be a finite number above 0, got 0.0"),
        ({"clip": -1.0}, "clip must be a number above 0"),
        ({"noise": -1.0}, "noise must be a finite number of at least 0"),
        ({"clip": math.inf}, "noise must be zero when there is no clip"),
        ({"draws": 0}, "draws must be"),
        ({"K": np.triu(np.ones((20, 20)))}, "K must be symmetric"),
        ({"K": np.full((20, 20), np.nan)}, "K holds NaN"),
        ({"K": np.ma.masked_array(np.eye(20), np.eye(20))}, "K has masked entries"),
        ({"K": -np.eye(20), "noise": 0.0}, "K must be positive semidefinite"),
        ({"K": NO_KERNEL, "noise": 0.0}, "K must be positive semidefinite"),
        ({"K": NO_KERNEL, "noise": 0.0, "clip": math.inf}, "K must be positive semidefinite"),
        ({"g": np.full(12, np.nan)}, "g holds NaN"),
        ({"g": []}, "g is empty"),
        ({"g": np.ones((12, 1))}, "g must have 1 axes"),
        ({"rate": math.nan}, "rate must be a finite number above 0"),
        ({"rate": math.inf}, "rate must be a finite number above 0"),
        ({"rate": [0.1, 0.2]}, "rate must be one number"),
        ({"clip": math.nan}, "clip must be a number above 0"),
        ({"noise": math.nan}, "noise must be a finite number of at least 0"),
        ({"steps": 2.0}, "steps must be a positive integer"),
        ({"seed": None}, "seed must be"),
        ({"seed": np.random.default_rng(0)}, "seed must be an integer, from which generators are made"),
        ({"clip": 1e308, "rate": 1e308, "noise": 0.0, "steps": 9}, "outputs that overflow"),
    ],
)
def test_bad_input_is_refused_by_name(change, message):
    phi, g = problem()
    arguments = {"K": phi @ phi.T, "g": g, "steps": 2, "rate": 0.1, "clip": 1.0, "noise": 1.0} | change
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=message):
        private_regression(**arguments)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: gdp_mu(-1.0, 3), "noise must be a number of at least 0, got -1.0"),
        (lambda: gdp_mu("much", 3), "noise must be a number of at least 0, got 'much'"),
        (lambda: gdp_mu(math.nan, 3), "noise must be a number of at least 0"),
        (lambda: gdp_mu(1.0, 2.5), "steps must be an integer of at least 1, got 2.5"),
        (lambda: gdp_mu(1.0, [3, 0]), "steps must be an integer of at least 1"),
        (lambda: gdp_mu(1.0, math.inf), "steps must be an integer"),
        (lambda: gdp_mu(1.0, []), "steps must be an integer"),
        (lambda: gdp_noise(0.0, 3), "mu must be a number above 0"),
        (lambda: gdp_delta(-1.0, 1.0), "epsilon must be a number of at least 0"),
        (lambda: gdp_delta(1.0, math.nan), "mu must be a number above 0"),
        (lambda: gdp_delta(1.0, 1j), "mu must be a number above 0"),
        (lambda: gdp_epsilon(1.0, 1.0), "delta must be a number strictly between 0 and 1"),
        (lambda: gdp_epsilon(1.0, 0.0), "delta must be a number strictly between 0 and 1"),
        (lambda: gdp_epsilon(True, 0.1), "mu must be a number above 0"),
        (lambda: reading_bound(0.0), "mu must be a number above 0"),
    ],
)
def test_accounting_refuses_bad_input_by_name(work, message):
    with pytest.raises(ValueError, match=message):
        work()
