"""Accounting against numerical integration and another accountant; the mechanism against one that forms gradients."""

import math

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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"K": np.ones((3, 4))}, "K must be a square matrix"),
        ({"K": -np.eye(20)}, "K must be positive semidefinite"),
        ({"g": np.ones(21)}, "g must be a list of at most 20 labels"),
        ({"steps": 0}, "steps must be"),
        ({"rate": 0.0}, "rate must be positive"),
        ({"clip": -1.0}, "clip must be positive"),
        ({"noise": -1.0}, "noise must be zero or positive"),
        ({"clip": math.inf}, "noise must be zero when there is no clip"),
        ({"draws": 0}, "draws must be"),
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
        (lambda: gdp_mu(-1.0, 3), "noise must be zero or positive"),
        (lambda: gdp_mu(1.0, 2.5), "steps must be a positive integer"),
        (lambda: gdp_noise(0.0, 3), "mu must be positive"),
        (lambda: gdp_delta(-1.0, 1.0), "epsilon must be zero or positive"),
        (lambda: gdp_epsilon(1.0, 1.0), "delta must lie strictly between 0 and 1"),
        (lambda: reading_bound(0.0), "mu must be positive"),
    ],
)
def test_accounting_refuses_bad_input_by_name(work, message):
    with pytest.raises(ValueError, match=message):
        work()
