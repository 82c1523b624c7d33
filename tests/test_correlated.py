"""Correlated core and spurious part: the uncorrelated case, simulation of the linear model, and symmetries."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq

import spurlib as sl
from spurlib.theory import predict_accuracy, predict_correlated

COMMON = ("test", "spurious", "covariance", "alignment", "risk", "spread")
B2 = 2 / math.pi


def fields(prediction):
    return {name: np.asarray(value, dtype=float) for name, value in vars(prediction).items()}


def block(core, spurious, cross=None):
    """Covariance with the given eigenvalues of the two parts and a cross-covariance."""
    sigma = np.diag(np.r_[core, spurious])
    if cross is not None:
        sigma[: len(core), len(core) :] = cross
        sigma[len(core) :, : len(core)] = cross.T
    return sigma


@pytest.mark.parametrize("ridge", [0.0, 0.3, 30.0])
@pytest.mark.parametrize("act", ["relu", "tanh", "h1+0.3*h2"])
def test_without_correlation_it_is_the_isotropic_prediction(act, ridge):
    d, n, theta = 60, np.array([4, 20, 59, 60, 61]), np.r_[0.0, 3.0, np.zeros(58)]
    for spurious in (np.arange(60) >= 45, np.arange(60) % 3 == 0):
        theta[:2] = (3.0, 0.0) if not spurious[0] else (0.0, 3.0)
        found = predict_correlated(act, np.eye(d), theta, spurious, n=n, ridge=ridge)
        expected = predict_accuracy(act, spurious.mean(), n=n, d=d, ridge=ridge)
        for name in COMMON:
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9, err_msg=name)
        np.testing.assert_allclose(found.learned, 0, atol=1e-15)
        np.testing.assert_allclose(found.memorized, found.covariance, rtol=1e-12)
        np.testing.assert_allclose(found.unseen, 0.5, atol=1e-12)


@pytest.mark.parametrize("kernel", ["deep", "sklearn"])
def test_without_correlation_kernels_are_served_too(kernel):
    d, spurious = 60, np.arange(60) >= 30
    if kernel == "deep":
        kernel = sl.InfiniteWidth("erf", "ntk", depth=3, layers="all")
    else:
        kernel = pytest.importorskip("sklearn.gaussian_process.kernels").RBF(8.0)
    found = predict_correlated(kernel, np.eye(d), np.eye(d)[0], spurious, n=[10, 50], ridge=0.1)
    expected = predict_accuracy(kernel, 0.5, n=[10, 50], d=d, ridge=0.1)
    for name in COMMON:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("ridge", [0.0, 2.0])
def test_without_correlation_it_is_the_prediction_of_a_spectrum(ridge):
    """There the labels follow a random direction, so of each direction of the core as much as it varies."""
    values = np.arange(1.0, 61) ** -0.5
    values /= values.mean()
    core, spurious = values[::2], values[1::2]
    theta = np.r_[np.ones(30), np.zeros(30)]
    n = np.array([5, 30, 100])
    rotated = np.linalg.qr(np.random.default_rng(0).standard_normal((30, 30)))[0]
    for Q in (np.eye(30), rotated):  # the basis of the spurious part does not matter
        sigma = block(core, spurious)
        sigma[30:, 30:] = Q @ np.diag(spurious) @ Q.T
        found = predict_correlated("relu", sigma, theta, np.arange(60) >= 30, n=n, ridge=ridge)
        expected = predict_accuracy("relu", n=n, spectrum=(core, spurious), ridge=ridge)
        for name in COMMON:
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-8, err_msg=name)


def correlated(d_x, d_y, seed=0):
    """A covariance of any shape, of trace d, and a direction in the core."""
    rng = np.random.default_rng(seed)
    d = d_x + d_y
    A = rng.standard_normal((d, 3 * d)) * np.linspace(0.5, 1.5, d)[:, None]
    A[d_x : d_x + 5] += 1.5 * A[:5]  # some pairs strongly
    sigma = A @ A.T
    return sigma * d / np.trace(sigma), np.r_[1.0, 0.7, 0.4, rng.standard_normal(d_x - 3) / 20, np.zeros(d_y)]


def draw(sigma, theta, spurious, n, ridge, a1, c, c_alpha, seed):
    """One simulation of regression with the linear kernel and noise that stand for a kernel."""
    rng, d = np.random.default_rng(seed), len(sigma)
    root = np.linalg.cholesky(sigma + 1e-12 * np.eye(d))
    Z, other, Z_test = (rng.standard_normal((size, d)) @ root.T for size in (n, n, 800))
    g, g_test = np.sign(Z @ theta), np.sign(Z_test @ theta)
    M = np.linalg.inv(a1 * Z @ Z.T / d + (c + ridge) * np.eye(n))
    Q = np.where(spurious, Z, other)
    own = np.einsum("ij,ji->i", a1 * Q @ Z.T / d + c_alpha * np.eye(n), M)
    held_out = M @ g / np.diag(M)
    f = (a1 * Q @ Z.T / d + c_alpha * np.eye(n)) @ M @ g
    f_test = a1 * Z_test @ Z.T / d @ M @ g
    f_new = a1 * np.where(spurious, Z_test, Z_test[::-1]) @ Z.T / d @ M @ g
    return {
        "test": np.mean(f_test * g_test > 0),
        "spurious": np.mean(f * g > 0),
        "unseen": np.mean(f_new * g_test > 0),
        "covariance": np.mean(f * g),
        "learned": np.mean(f_new * g_test),
        "memorized": np.mean(own * held_out * g),
        "alignment": own.mean(),
        "risk": np.mean((f_test - g_test) ** 2),
        "spread": np.std(f * g),
    }


@pytest.mark.parametrize(
    ("d_x", "n", "ridge", "power"),
    [(75, 100, 0.0, 2), (75, 300, 0.2, 2), (110, 150, 0.0, 3), (50, 60, 1.0, 4)],
)
def test_against_simulation(d_x, n, ridge, power):
    """Forty draws at d = 150: three standard errors, and 1 / d for the size."""
    d, a1, rest = 150, 1.3, 0.5
    sigma, theta = correlated(d_x, d - d_x)
    spurious = np.arange(d) >= d_x
    alpha = np.trace(sigma[spurious][:, spurious]) / d
    kernel = sl.InnerProductKernel(lambda rho: a1 * rho + rest * rho**power)
    found = predict_correlated(kernel, sigma, theta, spurious, n=n, ridge=ridge)
    draws = [draw(sigma, theta, spurious, n, ridge, a1, rest, rest * alpha**power, seed) for seed in range(40)]
    for name, value in fields(found).items():
        values = np.array([one[name] for one in draws])
        error, size = values.std(ddof=1) / math.sqrt(len(values)), max(1.0, abs(values.mean()))
        assert abs(values.mean() - value) < 3 * error + size / d, (name, values.mean(), float(value), error)
    blind = predict_correlated(kernel, np.eye(d), np.eye(d)[0], spurious, n=n, ridge=ridge)
    assert found.learned > 5 / d and found.unseen > 0.5 + 5 / d and abs(found.spurious - blind.spurious) > 3 / d


def test_a_kernel_follows_its_linear_model():
    """Twenty draws at d = 150 of a kernel without constant: three standard errors, and 2 / d for the size."""
    d, n, kernel = 150, 150, sl.InfiniteWidth("erf")
    sigma, theta = correlated(75, 75, seed=1)
    spurious, root = np.arange(d) >= 75, np.linalg.cholesky(sigma)
    found, draws = predict_correlated("erf", sigma, theta, spurious, n=n), []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        Z, other, Z_test = (rng.standard_normal((size, d)) @ root.T for size in (n, n, 800))
        model = sl.Interpolator(kernel, Z, np.sign(Z @ theta))
        f, own, f_test = model.predict(Q := np.where(spurious, Z, other)), model.at(Q).own, model.predict(Z_test)
        f_new = model.predict(np.where(spurious, Z_test, Z_test[::-1]))
        right = np.sign(Z_test @ theta)
        draws.append(
            {
                "test": np.mean(f_test * right > 0),
                "spurious": np.mean(f * model.g.numpy() > 0),
                "unseen": np.mean(f_new * right > 0),
                "learned": np.mean(f_new * right),
                "alignment": own.mean(),
                "covariance": np.mean(f * model.g.numpy()),
            }
        )
    for name in draws[0]:
        values = np.array([one[name] for one in draws])
        error = values.std(ddof=1) / math.sqrt(len(values))
        assert abs(values.mean() - getattr(found, name)) < 3 * error + 2 / d, (name, values.mean(), error)


def test_the_formulas_of_the_docstring():
    d, n, ridge = 40, 35, 0.4
    sigma, theta = correlated(25, 15, seed=2)
    spurious = np.arange(d) >= 25
    kernel = sl.InnerProductKernel(lambda rho: 1 + 2 * rho + 0.7 * rho**3)
    alpha = np.trace(sigma[25:, 25:]) / d
    values = np.linalg.eigvalsh(sigma)
    t = brentq(lambda t: (values / (values + t)).sum() + (0.7 + ridge) * (d / 2) / t - n, 1e-9, 1e6, xtol=1e-14)
    S, P, theta = (
        np.linalg.inv(sigma + t * np.eye(d)),
        np.diag(1.0 * spurious),
        theta / math.sqrt(theta @ sigma @ theta),
    )
    gamma = (np.trace(P @ sigma @ S) + 0.7 * alpha**3 * (d / 2) / t) / n
    learned = B2 * theta @ sigma @ S @ P @ sigma @ theta
    memorized = gamma * (1 - B2 * theta @ sigma @ S @ sigma @ theta)
    found = predict_correlated(kernel, sigma, 5 * theta, spurious, n=n, ridge=ridge)
    expected = {"alignment": gamma, "learned": learned, "memorized": memorized, "covariance": learned + memorized}
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-9), name


def test_rotations_inside_the_parts_and_permutations_change_nothing():
    d_x, d_y, d = 20, 12, 32
    sigma, theta = correlated(d_x, d_y)
    spurious, rng = np.arange(d) >= d_x, np.random.default_rng(3)
    one = fields(predict_correlated("relu", sigma, theta, spurious, n=[5, 30], ridge=0.1))
    R = np.zeros((d, d))
    R[:d_x, :d_x] = np.linalg.qr(rng.standard_normal((d_x, d_x)))[0]
    R[d_x:, d_x:] = np.linalg.qr(rng.standard_normal((d_y, d_y)))[0]
    order = rng.permutation(d)
    for other in (
        predict_correlated("relu", R @ sigma @ R.T, R @ theta, spurious, n=[5, 30], ridge=0.1),
        predict_correlated("relu", sigma[order][:, order], theta[order], spurious[order], n=[5, 30], ridge=0.1),
        predict_correlated("relu", sigma, 1e3 * theta, spurious, n=[5, 30], ridge=0.1),
    ):
        for name, value in fields(other).items():
            np.testing.assert_allclose(value, one[name], rtol=1e-9, err_msg=name)
    mixed = np.linalg.qr(rng.standard_normal((d, d)))[0]  # a rotation that mixes the parts does change
    other = predict_correlated("relu", mixed @ sigma @ mixed.T, theta, spurious, n=30, ridge=0.1)
    assert abs(other.learned - one["learned"][1]) > 1e-3


@pytest.mark.parametrize("rank", [1, 12, 29])
def test_a_covariance_without_full_rank_is_a_limit(rank):
    """Such as that of fewer samples than coordinates."""
    d, rng = 30, np.random.default_rng(rank)
    A = rng.standard_normal((d, rank))
    singular = A @ A.T * d / np.sum(A**2)
    theta, spurious = np.r_[rng.standard_normal(15), np.zeros(15)], np.arange(d) >= 15
    found, near = (
        fields(predict_correlated("relu", sigma * d / np.trace(sigma), theta, spurious, n=[5, 40]))
        for sigma in (singular, singular + 1e-9 * np.eye(d))
    )
    for name, value in near.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.filterwarnings("ignore:n is not small")
def test_a_spurious_part_that_is_a_copy_is_all_learned():
    """y = x: with many samples the core of the query is a nuisance, and what is read from y is half of f."""
    d = 20
    sigma = np.kron(np.ones((2, 2)), np.eye(d // 2))
    kernel = sl.InnerProductKernel(lambda rho: rho + 1e-6 * rho**2)
    found = predict_correlated(kernel, sigma, np.eye(d)[0], np.arange(d) >= 10, n=2000, ridge=1e-5)
    assert found.learned == pytest.approx(B2 / 2, rel=1e-4) and found.memorized < 0.01
    # the sign of x' + x against that of x
    assert found.unseen == pytest.approx(0.75, abs=0.01) and found.test > 0.95


def test_what_is_learned_is_of_second_order_in_the_correlation():
    """One factor makes the spurious part a proxy of the core, one makes it tell; the sign is none of the two's."""
    d, theta, spurious = 40, np.eye(40)[0], np.arange(40) >= 20
    found = [
        predict_correlated("relu", np.eye(d) + r * np.kron([[0, 1], [1, 0]], np.eye(20)), theta, spurious, n=30)
        for r in (0.01, 0.02, -0.02)
    ]
    assert found[1].learned == pytest.approx(4 * found[0].learned, rel=2e-3) and found[0].learned > 0
    for name, value in fields(found[2]).items():
        assert value == pytest.approx(getattr(found[1], name), rel=1e-9), name


def test_shapes():
    sigma, theta = correlated(20, 12)
    spurious = np.arange(32) >= 20
    one = predict_correlated("relu", sigma, theta, spurious, n=30, ridge=0.5)
    assert all(type(value) is float for value in vars(one).values())
    many = predict_correlated("relu", sigma, theta, spurious, n=[10, 30], ridge=[[0.0], [0.5], [2.0]])
    for name, value in fields(many).items():
        assert value.shape == (3, 2) and value[1, 1] == pytest.approx(getattr(one, name), rel=1e-12)
        assert np.isfinite(value).all()


def test_samples_that_learn_degree_two_are_reported(recwarn):
    sigma, theta = correlated(20, 12)
    spurious = np.arange(32) >= 20
    predict_correlated("relu", sigma, theta, spurious, n=30)
    predict_correlated("tanh", sigma, theta, spurious, n=500)
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"n is not small against d \(d \+ 1\) / 2 = 528"):
        predict_correlated("relu", sigma, theta, spurious, n=[10, 300])


EYE, MASK, THETA = np.eye(4), np.array([False, False, True, True]), np.array([1.0, 0.0, 0.0, 0.0])
BAD = {
    r"covariance must be a square matrix, got shape \(4, 3\)": {"covariance": EYE[:, :3]},
    r"covariance must be a square matrix, got shape \(4,\)": {"covariance": EYE[0] + 1},
    "covariance must be a finite number": {"covariance": EYE * np.nan},
    "covariance must be symmetric": {"covariance": EYE + np.triu(np.full((4, 4), 0.1), 1)},
    "covariance must be positive semidefinite": {"covariance": EYE + 2 * EYE[::-1]},
    r"covariance must have trace d \(samples scaled to .*\), has 2 d": {"covariance": 2 * EYE},
    "spurious must be 4 truth values, some true and some false": {"spurious": np.array([0, 0, 1, 1])},
    "spurious must be 4 truth values": {"spurious": MASK[:3]},
    "spurious must be 4 truth values, some": {"spurious": ~np.zeros(4, dtype=bool)},
    "spurious must be 4 truth values, some true": {"spurious": np.zeros(4, dtype=bool)},
    "theta must have 4 entries, zero on the spurious coordinates": {"theta": np.ones(4)},
    "theta must have 4 entries": {"theta": THETA[:3]},
    "theta must be a direction in which the core varies": {"theta": np.zeros(4)},
    "theta must be a direction in which": {"covariance": np.diag([0.0, 1.0, 1.5, 1.5])},
    "n must be an integer of at least 1, got 0": {"n": 0},
    "ridge must be a finite number of at least 0": {"ridge": -1.0},
    "act: kernel 'even' has no linear part: a1 = 0": {"act": sl.InnerProductKernel(np.cosh, name="even")},
    "act: kernel 'line' is linear: without a ridge n must be below the number of directions": {
        "act": sl.InnerProductKernel(lambda rho: rho, name="line"),
        "n": 4,
    },
    "activation 'nonesuch' is not known": {"act": "nonesuch"},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_by_name(message):
    arguments = {"act": "relu", "covariance": EYE, "theta": THETA, "spurious": MASK, "n": 2} | BAD[message]
    with pytest.raises(ValueError, match=message):
        predict_correlated(**arguments)


def test_a_linear_kernel_below_its_dimension():
    line = sl.InnerProductKernel(lambda rho: rho)
    found = predict_correlated(line, np.eye(40), np.eye(40)[0], np.arange(40) >= 30, n=[5, 39])
    np.testing.assert_allclose(found.alignment, 0.25, rtol=1e-9)
    flat = np.diag(np.r_[2.0 * np.ones(10), np.zeros(10), np.ones(20)])
    with pytest.raises(ValueError, match="n must be below the number of directions"):
        predict_correlated(line, flat, np.eye(40)[0], np.arange(40) >= 20, n=30)
