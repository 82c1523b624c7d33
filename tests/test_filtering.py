"""The formulas for spectral filters: against those for a ridge, integrals over a density, and simulation."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad

import spurlib as sl
from spurlib import filters
from spurlib.filters import FilteredSolve
from spurlib.theory import gamma_filter, predict_accuracy, predict_filter
from spurlib.theory.filtering import _marchenko_pastur

RATIOS = np.array([0.05, 0.5, 0.99, 1.0, 1.01, 2.0, 20.0])


def fields(prediction):
    return {name: np.asarray(value, dtype=float) for name, value in vars(prediction).items()}


def assert_same(one, other, rel=1e-9):
    for name, value in fields(one).items():
        np.testing.assert_allclose(value, fields(other)[name], rtol=rel, err_msg=name)


@pytest.mark.filterwarnings("ignore:n = .* is not small")
@pytest.mark.parametrize("strength", [0.0, 0.01, 1.0, 100.0])
@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("act", ["relu", "tanh", "h1+0.2*h2"])
def test_a_ridge_is_that_of_the_other_derivation(act, alpha, strength):
    d, kernel = 400, sl.InfiniteWidth(act)
    found = predict_filter(kernel, alpha, ratio=RATIOS, filter=filters.ridge(strength))
    assert found.test.shape == (7,)
    assert_same(found, predict_accuracy(kernel, alpha, n=np.round(RATIOS * d), d=d, ridge=strength))


def test_interpolation_has_the_alignment_of_any_kernel():
    for kernel in (sl.InfiniteWidth("erf", "ntk", depth=3, layers="all"), sl.InnerProductKernel(np.exp)):
        found = gamma_filter(kernel, 0.3, ratio=RATIOS, filter=lambda s: 1 / s)
        np.testing.assert_allclose(found, sl.gamma_kernel(kernel, 0.3, ratio=RATIOS), rtol=1e-9)


@pytest.mark.parametrize("r", [0.01, 0.3, 0.999, 1.0, 1.001, 3.0, 500.0])
def test_moments_of_the_spectrum(r):
    x, weight, empty = _marchenko_pastur(r, [])
    assert weight.min() >= 0 and weight.sum() + empty == pytest.approx(1, rel=1e-12)
    assert empty == pytest.approx(max(0.0, 1 - 1 / r), abs=1e-15)
    moments = (1, 1 + r, 1 + 3 * r + r**2, 1 + 6 * r + 6 * r**2 + r**3)
    for power, moment in enumerate(moments, 1):
        assert weight @ x**power == pytest.approx(moment, rel=1e-11)
    if r < 0.9:
        assert weight @ (1 / x) == pytest.approx(1 / (1 - r), rel=1e-10)
    assert ((1 - math.sqrt(r)) ** 2 * (1 - 1e-12) <= x).all() and (x <= (1 + math.sqrt(r)) ** 2 * (1 + 1e-12)).all()


def mean_by_density(h, r, breaks):
    """Over the eigenvalues x of Z Z' / d, from their density and its atom at zero."""
    low, high = (1 - math.sqrt(r)) ** 2, (1 + math.sqrt(r)) ** 2
    points = sorted([low, *(b for b in breaks if low < b < high), high])

    def weighted(x):
        return h(x) * math.sqrt(max(0.0, (high - x) * (x - low))) / (2 * math.pi * r * x)

    parts = [quad(weighted, a, b, epsabs=1e-13, epsrel=1e-12, limit=400)[0] for a, b in pairwise(points)]
    return sum(parts) + max(0.0, 1 - 1 / r) * h(0.0)


@pytest.mark.parametrize("r", [0.2, 0.8, 1.5, 6.0])
@pytest.mark.parametrize("place", [0.1, 0.6, 0.97])
def test_the_alignment_with_a_cutoff_is_an_integral_over_the_density(r, place):
    kernel, alpha = sl.InnerProductKernel(lambda rho: np.exp(2 * rho)), 0.4
    a1, c, c_alpha = 2.0, math.exp(2) - 3, math.exp(0.8) - 1 - 0.8
    low, high = (1 - math.sqrt(r)) ** 2, (1 + math.sqrt(r)) ** 2
    level = low + place * (high - low)
    for q in (
        filters.cutoff(c + a1 * level),
        filters.Filter("step", lambda s: 1.0 * (s < c + a1 * level), (c + a1 * level,)),
    ):
        expected = mean_by_density(lambda x: (alpha * a1 * x + c_alpha) * float(q(c + a1 * x)), r, [level])  # noqa: B023
        assert gamma_filter(kernel, alpha, ratio=r, filter=q) == pytest.approx(expected, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("r", [0.5, 1.0, 2.5])
def test_the_alignment_is_that_of_a_sampled_matrix(r):
    """Of spheres, a mean over N eigenvalues is off by a few over N."""
    d, kernel, alpha = 400, sl.InfiniteWidth("relu"), 0.5
    n = round(r * d)
    found, x = kernel_numbers(kernel, alpha), np.linalg.eigvalsh(gaussian(n, d) @ gaussian(n, d).T / d)
    for q in (filters.flow(3.0), filters.flow(0.3), filters.descent(5, 0.4), filters.momentum(8, 0.2, 0.6)):
        s = found.c + found.a1 * x
        expected = np.mean((alpha * found.a1 * x + found.c_alpha) * q(s))
        assert gamma_filter(kernel, alpha, ratio=r, filter=q) == pytest.approx(expected, abs=5 / n)


def kernel_numbers(kernel, alpha):
    return sl.InnerProductKernel.of(kernel, 3).numbers(alpha)


def gaussian(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def draw(gram, n, d, alpha, q, flips, seed):
    """One simulation of all fields; `gram(A, B, same)` has the diagonal of samples and queries in `same`."""
    rng = np.random.default_rng(seed)
    Z, cores, Z_test = (rng.standard_normal((size, d)) for size in (n, n, 1000))
    spurious = np.arange(d) >= d - round(alpha * d)
    g = np.sign(Z[:, 0]) * np.where(rng.random(n) < flips, -1, 1)
    solve = FilteredSolve(gram(Z, Z, "itself"), g, q)
    at, f_t = solve.at(gram(np.where(spurious, Z, cores), Z, "own")), solve.predict(gram(Z_test, Z, None))
    told, right = at.predictions * g, f_t * np.sign(Z_test[:, 0])
    return {
        "test": np.mean(right > 0),
        "spurious": np.mean(told > 0),
        "covariance": told.mean(),
        "risk": np.mean((right - 1) ** 2),
        "alignment": at.own.mean(),
        "margin": right.mean(),
        "spread": told.std(),
    }


def equivalent(a1, c, c_alpha):
    """The linear kernel with noise that the theory puts in the place of a kernel."""
    added = {"itself": c, "own": c_alpha, None: 0.0}
    return lambda A, B, same: a1 * A @ B.T / A.shape[1] + (added[same] * np.eye(len(A)) if same else 0)


def assert_simulated(found, draws, room):
    for name, value in fields(found).items():
        values = np.array([one[name] for one in draws])
        error = values.std(ddof=1) / math.sqrt(len(values))
        size = max(1.0, abs(values.mean()))
        assert abs(values.mean() - value) < 3 * error + room * size, (name, values.mean(), float(value), error)


@pytest.mark.parametrize(
    ("q", "n", "alpha", "flips"),
    [
        (filters.flow(2.0), 150, 0.4, 0.0),
        (filters.flow(2.0), 300, 0.6, 0.25),
        (filters.cutoff(1.2), 100, 0.3, 0.1),
        (filters.ridge(0.2), 225, 0.5, 0.3),
        (filters.boosting(3, 0.5, 1.0), 150, 0.5, 0.15),
        (filters.Filter("decay", lambda s: np.exp(-s)), 120, 0.5, 0.2),
    ],
    ids=str,
)
def test_the_equivalent_model_is_simulated(q, n, alpha, flips):
    """Forty draws at d = 150: three standard errors, and 1 / d for the size."""
    d, kernel = 150, sl.InnerProductKernel(lambda rho: 0.9 * rho + 0.4 * rho**2 + 0.2 * rho**5)
    gram = equivalent(0.9, 0.6, 0.4 * alpha**2 + 0.2 * alpha**5)
    draws = [draw(gram, n, d, alpha, q, flips, seed) for seed in range(40)]
    found = predict_filter(kernel, alpha, ratio=n / d, filter=q, flips=flips)
    assert_simulated(found, draws, 1 / d)
    if flips:
        clean = predict_filter(kernel, alpha, ratio=n / d, filter=q)
        assert clean.test - found.test > 4 / d  # so the simulation tells flips apart


@pytest.mark.parametrize(
    ("kernel", "q", "n", "flips"),
    [
        (sl.InfiniteWidth("erf"), filters.descent(8, 0.9), 150, 0.2),
        (sl.InfiniteWidth("tanh", depth=2, weight_variance=1.5), filters.flow(3.0), 225, 0.1),
    ],
    ids=str,
)
def test_kernels_are_simulated(kernel, q, n, flips):
    """Twenty draws at d = 150 of kernels without constant: three standard errors, and 2 / d for the size."""
    d, alpha = 150, 0.5
    draws = [draw(lambda A, B, same: kernel.gram(A, B), n, d, alpha, q, flips, seed) for seed in range(20)]
    assert_simulated(predict_filter(kernel, alpha, ratio=n / d, filter=q, flips=flips), draws, 2 / d)


def test_a_multiple_of_a_filter_changes_no_accuracy():
    for flips in (0.0, 0.2):
        one, other = (
            predict_filter(
                sl.InfiniteWidth("relu"), 0.5, ratio=RATIOS, filter=lambda s, f=f: f / (s + 0.1), flips=flips
            )
            for f in (1.0, 7.0)
        )
        for name, power in dict(test=0, spurious=0, covariance=1, alignment=1, margin=1, spread=1).items():
            np.testing.assert_allclose(getattr(other, name), 7**power * getattr(one, name), rtol=1e-10, err_msg=name)


def test_limits_of_few_samples_and_short_times():
    kernel, alpha = sl.InfiniteWidth("tanh"), 0.3
    found = kernel_numbers(kernel, alpha)
    shared, whole = alpha * found.a1 + found.c_alpha, found.a1 + found.c
    q = filters.flow(2.0)
    few = predict_filter(kernel, alpha, ratio=1e-8, filter=q)
    assert few.alignment == pytest.approx(shared * float(q(whole)), rel=1e-3)
    assert few.test == pytest.approx(0.5, abs=1e-3) and few.risk == pytest.approx(1, abs=1e-3) and few.spurious > 0.999
    short = predict_filter(kernel, alpha, ratio=2.0, filter=filters.flow(1e-9))
    assert short.alignment == pytest.approx(1e-9 * shared, rel=1e-6)
    assert short.covariance == pytest.approx(1e-9 * shared, rel=1e-6)


def test_flips_of_half_the_labels_leave_nothing_to_learn():
    found = predict_filter(sl.InfiniteWidth("relu"), 0.5, ratio=2.0, filter=filters.flow(2.0), flips=0.5 - 1e-12)
    assert found.test == pytest.approx(0.5, abs=1e-6) and found.margin == pytest.approx(0, abs=1e-9)
    assert found.covariance == pytest.approx(found.alignment, rel=1e-9) and found.spurious > 0.5


def test_flips_have_the_alignment_of_clean_labels():
    clean, noisy = (
        predict_filter(sl.InfiniteWidth("relu"), 0.5, ratio=RATIOS, filter=filters.flow(2.0), flips=flips)
        for flips in (0.0, 0.2)
    )
    np.testing.assert_array_equal(clean.alignment, noisy.alignment)
    np.testing.assert_allclose(noisy.margin, 0.6 * clean.margin, rtol=1e-12)
    assert (noisy.test < clean.test).all() and (noisy.risk > clean.risk).all()


def test_a_filter_that_is_zero_predicts_nothing():
    found = predict_filter(sl.InfiniteWidth("relu"), 0.5, ratio=[0.5, 2.0], filter=filters.cutoff(1e3))
    expected = dict(test=0.5, spurious=0.5, covariance=0, risk=1, alignment=0, margin=0, spread=0)
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(found, name), [value, value], atol=1e-15, err_msg=name)


def test_shapes():
    kernel, q = sl.InfiniteWidth("relu"), filters.flow(2.0)
    one = predict_filter(kernel, 0.5, ratio=2.0, filter=q)
    assert (
        all(type(value) is float for value in vars(one).values())
        and type(gamma_filter(kernel, 0.5, ratio=2, filter=q)) is float
    )
    many = predict_filter(kernel, 0.5, ratio=[[0.5], [2.0]], filter=q)
    for name, value in fields(many).items():
        assert value.shape == (2, 1) and value[1, 0] == pytest.approx(getattr(one, name), rel=1e-14)
    np.testing.assert_array_equal(gamma_filter(kernel, 0.5, ratio=[[0.5], [2.0]], filter=q), many.alignment)


def test_kernels_that_depend_on_d():
    kernels = pytest.importorskip("sklearn.gaussian_process.kernels")
    found = predict_filter(kernels.RBF(10.0), 0.5, ratio=RATIOS, filter=filters.flow(3.0), d=100)
    same = predict_filter(
        sl.InnerProductKernel(lambda rho: np.exp(rho - 1)), 0.5, ratio=RATIOS, filter=filters.flow(3.0)
    )
    assert_same(found, same, rel=1e-7)


BAD = {
    "alpha must be one number, got an array of shape": {"alpha": [0.2, 0.5]},
    "alpha must be a number strictly between 0 and 1": {"alpha": 1.0},
    "ratio must be a finite number above 0": {"ratio": 0.0},
    "flips must be a number of at least 0 and below 0.5, got 0.5": {"flips": 0.5},
    "flips must be a number of at least 0 and below 0.5, got -0.1": {"flips": -0.1},
    "filter must be a function of the eigenvalues, got float": {"filter": 2.0},
    "filter sum must be finite and entry-wise on eigenvalues from": {"filter": np.sum},
    r"filter ridge\(0\) must be finite": {
        "kernel": sl.InnerProductKernel(lambda rho: rho),
        "filter": filters.ridge(0.0),
        "ratio": 2.0,
    },
    "rate 5 diverges: it must be below": {"filter": filters.descent(3, 5.0)},
    "kernel 'h2' has no linear part: a1 = 0": {"kernel": sl.InnerProductKernel(lambda rho: rho**2, name="h2")},
    "d is needed": {"kernel": lambda A, B: np.exp(A @ B.T / 30)},
    "d must be an integer of at least 3": {"d": 2},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_by_name(message):
    arguments = {"kernel": sl.InfiniteWidth("relu"), "alpha": 0.5, "ratio": 1.0, "filter": filters.flow(2.0)} | BAD[
        message
    ]
    kernel, alpha = arguments.pop("kernel"), arguments.pop("alpha")
    with pytest.raises(ValueError, match=message):
        predict_filter(kernel, alpha, **arguments)
    if "flips" not in arguments:
        with pytest.raises(ValueError, match=message):
            gamma_filter(kernel, alpha, **arguments)
