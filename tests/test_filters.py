"""Spectral filters against the methods that they stand for, each run as it is defined."""

import pickle

import numpy as np
import pytest
import torch
from scipy.linalg import expm

import spurlib as sl
from spurlib import evaluation, filters
from spurlib.filters import FilteredSolve

N, FEATURES = 12, 30


def problem(n=N, outputs=None, seed=0):
    """Features of samples and queries, and labels."""
    rng = np.random.default_rng(seed)
    return *rng.standard_normal((2, n, FEATURES)), rng.standard_normal(n if outputs is None else (n, outputs))


def singular(n=N, outputs=None):
    """The same with two equal samples and one without features."""
    Phi, PhiQ, g = problem(n, outputs)
    Phi[3], Phi[7] = Phi[2], 0
    return Phi, PhiQ, g


def gradient_descent(Phi, g, steps, rate, weight=0.0):
    """Parameters from zero, on half the sum of squared errors, with heavy-ball momentum."""
    last = theta = np.zeros((Phi.shape[1], *g.shape[1:]))
    for _ in range(steps):
        step = -rate * Phi.T @ (Phi @ theta - g) + weight * (theta - last)
        last, theta = theta, theta + step
    return theta


def gradient_flow(Phi, g, time):
    """The linear differential equation of the parameters and a constant, by one matrix exponential."""
    p = Phi.shape[1]
    A = np.zeros((p + 1, p + 1))
    A[:p, :p], A[:p, p] = -Phi.T @ Phi, Phi.T @ g
    return (expm(time * A) @ np.eye(p + 1)[p])[:p]


def ridge_regression(Phi, g, strength):
    p = Phi.shape[1]
    return np.linalg.solve(Phi.T @ Phi + strength * np.eye(p), Phi.T @ g)


def boosted(Phi, g, rounds, rate, strength):
    theta = np.zeros(Phi.shape[1])
    for _ in range(rounds):
        theta = theta + rate * ridge_regression(Phi, g - Phi @ theta, strength)
    return theta


def components(Phi, g, level):
    """Least squares on the principal components whose squared singular value is at least `level`."""
    u, s, v = np.linalg.svd(Phi, full_matrices=False)
    kept = s**2 >= level
    return v[kept].T @ (u[:, kept].T @ g / s[kept])


LARGEST = float(np.linalg.eigvalsh(problem()[0] @ problem()[0].T)[-1])
RATE = 0.9 / LARGEST
METHODS = {
    "ridge(2)": (filters.ridge(2.0), lambda Phi, g: ridge_regression(Phi, g, 2.0)),
    "flow": (filters.flow(0.03), lambda Phi, g: gradient_flow(Phi, g, 0.03)),
    "descent of one step": (filters.descent(1, RATE), lambda Phi, g: RATE * Phi.T @ g),
    "descent": (filters.descent(7, RATE), lambda Phi, g: gradient_descent(Phi, g, 7, RATE)),
    "descent near 2": (filters.descent(40, 2.1 * RATE), lambda Phi, g: gradient_descent(Phi, g, 40, 2.1 * RATE)),
    "momentum": (filters.momentum(9, RATE, 0.7), lambda Phi, g: gradient_descent(Phi, g, 9, RATE, 0.7)),
    "momentum near 3": (filters.momentum(9, 3 * RATE, 0.5), lambda Phi, g: gradient_descent(Phi, g, 9, 3 * RATE, 0.5)),
    "boosting": (filters.boosting(5, 0.3, 20.0), lambda Phi, g: boosted(Phi, g, 5, 0.3, 20.0)),
    "boosting of one round": (filters.boosting(1, 1.0, 3.0), lambda Phi, g: ridge_regression(Phi, g, 3.0)),
    "cutoff": (filters.cutoff(25.0), lambda Phi, g: components(Phi, g, 25.0)),
    "custom": (lambda s: 1 / (s + 2) ** 2, lambda Phi, g: Phi.T @ np.linalg.matrix_power(
        np.linalg.inv(Phi @ Phi.T + 2 * np.eye(len(Phi))), 2) @ g),
}  # fmt: skip


@pytest.mark.parametrize("make", [problem, singular])
@pytest.mark.parametrize("name", METHODS)
def test_a_filter_is_its_method(name, make):
    (q, method), (Phi, PhiQ, g) = METHODS[name], make()
    theta, solve = method(Phi, g), FilteredSolve(Phi @ Phi.T, g, q)
    scale = np.abs(PhiQ @ theta).max()
    np.testing.assert_allclose(solve.predict(PhiQ @ Phi.T), PhiQ @ theta, rtol=0, atol=1e-10 * scale)
    np.testing.assert_allclose(Phi.T @ solve.coefficients.numpy(), theta, rtol=0, atol=1e-10 * np.abs(theta).max())
    np.testing.assert_allclose(solve.residuals, g - Phi @ theta, rtol=0, atol=1e-10 * np.abs(g).max())


@pytest.mark.parametrize("name", METHODS)
def test_the_alignment_is_the_coefficient_of_a_label(name):
    (q, method), (Phi, PhiQ, g) = METHODS[name], problem()
    solve = FilteredSolve(Phi @ Phi.T, g, q)
    at = solve.at(PhiQ @ Phi.T)
    moved = np.array([PhiQ @ (method(Phi, g + one) - method(Phi, g)) for one in np.eye(N)]).T
    np.testing.assert_allclose(at.alignment, moved, atol=1e-10 * np.abs(moved).max())
    np.testing.assert_allclose(at.own, np.diag(moved), atol=1e-10 * np.abs(moved).max())
    np.testing.assert_array_equal(solve.alignment(PhiQ @ Phi.T), at.alignment)


def test_values_of_the_filters():
    s = np.array([0.0, 1e-13, 1e-6, 0.3, 1.0, 1.9])
    left = 1 - 0.5 * s / (s + 2)
    expected = {
        filters.ridge(0.5): 1 / (s + 0.5),
        filters.flow(3.0): [3, 3, 3 - 4.5e-6, *(1 - np.exp(-3 * s[3:])) / s[3:]],
        filters.descent(4, 1.0): 1 + (1 - s) + (1 - s) ** 2 + (1 - s) ** 3,
        filters.momentum(2, 0.5, 0.4): 0.5 * (2.4 - 0.5 * s),
        filters.boosting(3, 0.5, 2.0): 0.5 / (s + 2) * (1 + left + left**2),
        filters.cutoff(0.3): [0, 0, 0, 1 / 0.3, 1, 1 / 1.9],
    }
    for q, values in expected.items():
        np.testing.assert_allclose(q(s), values, rtol=1e-11, err_msg=q.name)
        assert q(0.3) == pytest.approx(values[3]) and q(np.ones((2, 3))).shape == (2, 3)


def test_limits():
    Phi, PhiQ, g = problem()
    K, rows = Phi @ Phi.T, PhiQ @ Phi.T
    interpolator = sl.Solve(K, g).predict(rows)
    s = np.linalg.eigvalsh(K)
    limits = [filters.flow(60 / s[0]), filters.ridge(0.0), filters.descent(round(60 * s[-1] / s[0]), 1 / s[-1])]
    for q in [
        *limits,
        filters.momentum(3000, 1 / s[-1], 0.8),
        filters.boosting(400, 1.0, s[0]),
        filters.cutoff(s[0] / 2),
    ]:
        np.testing.assert_allclose(FilteredSolve(K, g, q).predict(rows), interpolator, rtol=1e-8)
    for small in (filters.flow(1e-9), filters.descent(1, 1e-9), filters.boosting(1, 0.1, 1e8), filters.ridge(1e9)):
        np.testing.assert_allclose(FilteredSolve(K, g, small).predict(rows), 1e-9 * rows @ g, rtol=1e-4)
    assert not FilteredSolve(K, g, filters.cutoff(2 * s[-1])).predict(rows).any()
    fine = filters.descent(1000, 3e-5)(s)  # small steps follow the flow, to rate s / 2
    np.testing.assert_allclose(fine, filters.flow(0.03)(s), rtol=3e-5 * s[-1])


def test_descent_is_momentum_without_weight():
    s = np.linspace(0, 1.9, 20)
    np.testing.assert_array_equal(filters.descent(9, 1.0)(s), filters.momentum(9, 1.0, 0.0)(s))
    np.testing.assert_allclose(filters.descent(9, 1.0)(s[1:]), (1 - (1 - s[1:]) ** 9) / s[1:], rtol=1e-12)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_divergence_is_refused_with_the_largest_eigenvalue(weight):
    Phi, _, g = problem()
    K, most = Phi @ Phi.T, 2 * (1 + weight) / LARGEST
    below, above = (filters.momentum(5, factor * most, weight) for factor in (0.999, 1.001))
    FilteredSolve(K, g, below)
    message = f"rate {1.001 * most:g} diverges: it must be below {most:.3g}, for the largest eigenvalue {LARGEST:.3g}"
    with pytest.raises(ValueError, match=message):
        FilteredSolve(K, g, above)
    grown = [np.abs(gradient_descent(Phi, g, 2000, f * most, weight)).max() for f in (0.999, 1.02)]
    assert grown[0] < 10 < grown[1]  # so it is the limit of the method


@pytest.mark.parametrize("rows_of", [np.asarray, torch.from_numpy])
def test_kinds_in_and_out(rows_of):
    Phi, PhiQ, g = problem()
    K, rows = Phi @ Phi.T, PhiQ @ Phi.T
    solve = FilteredSolve(rows_of(K), rows_of(g), filters.flow(0.03))
    at, kind = solve.at(rows_of(rows)), type(rows_of(g))
    for x in (at.predictions, at.alignment, at.own, solve.residuals, solve.predict(rows_of(rows))):
        assert isinstance(x, kind)
    assert isinstance(solve.predict(rows), np.ndarray) and isinstance(solve.coefficients, torch.Tensor)
    np.testing.assert_allclose(solve.eigenvalues, np.linalg.eigvalsh(K), rtol=1e-10)
    lists = FilteredSolve(K.tolist(), g.tolist(), filters.flow(0.03))
    np.testing.assert_allclose(lists.predict(rows.tolist()), solve.predict(rows), rtol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_cuda_equals_the_cpu():
    Phi, PhiQ, g = problem()
    K, rows = Phi @ Phi.T, PhiQ @ Phi.T
    here, there = (FilteredSolve(matrix, g, filters.flow(0.03)) for matrix in (K, torch.from_numpy(K).cuda()))
    found = there.predict(torch.from_numpy(rows).cuda())
    assert found.is_cuda and isinstance(there.predict(rows), np.ndarray)
    np.testing.assert_allclose(found.cpu().numpy(), here.predict(rows), rtol=1e-9)


@pytest.mark.parametrize("outputs", [1, 3])
def test_columns_of_labels_are_regressions_of_their_own(outputs):
    Phi, PhiQ, G = problem(outputs=outputs)
    K, rows, q = Phi @ Phi.T, PhiQ @ Phi.T, filters.boosting(4, 0.5, 10.0)
    together, alone = FilteredSolve(K, G, q), [FilteredSolve(K, g, q) for g in G.T]
    for name in ("predict", "residuals"):
        values = [getattr(one, name) if name == "residuals" else one.predict(rows) for one in (together, *alone)]
        assert values[0].shape == (N, outputs)
        np.testing.assert_allclose(values[0], np.stack(values[1:], axis=1), atol=1e-12)
    np.testing.assert_allclose(together.alignment(rows), alone[0].alignment(rows), atol=1e-14)


def test_another_filter_from_the_same_eigenvectors(monkeypatch):
    Phi, PhiQ, g = problem()
    K, rows = Phi @ Phi.T, PhiQ @ Phi.T
    fresh = {name: FilteredSolve(K, g, q).predict(rows) for name, (q, _) in METHODS.items()}
    solve = FilteredSolve(K, g, filters.flow(0.03))
    before = solve.predict(rows)
    monkeypatch.setattr(torch.linalg, "eigh", None)
    for name, (q, _) in METHODS.items():
        np.testing.assert_allclose(solve.filtered(q).predict(rows), fresh[name], atol=1e-12 * np.abs(fresh[name]).max())
    np.testing.assert_array_equal(solve.predict(rows), before)
    assert solve.filter.name == "flow(0.03)"


def test_what_was_fitted_is_not_changed_with_the_arrays_it_came_from():
    Phi, PhiQ, g = problem()
    K, rows, q = Phi @ Phi.T, PhiQ @ Phi.T, filters.flow(0.03)
    kept, solve = (K.copy(), g.copy()), FilteredSolve(K, g, q)
    np.testing.assert_array_equal(K, kept[0])
    before = solve.predict(rows), solve.residuals
    K[:], g[:] = 0, 0
    np.testing.assert_array_equal(solve.predict(rows), before[0])
    np.testing.assert_array_equal(solve.residuals, before[1])
    np.testing.assert_array_equal(solve.filtered(q).predict(rows), FilteredSolve(*kept, q).predict(rows))


def samples(n=20, d=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal((n, d)), rng.standard_normal(n)


def test_a_ridge_is_a_filter():
    Z, Q, g = samples()
    for kernel in (sl.InfiniteWidth("tanh"), sl.RandomFeatures("relu", d=8, k=100)):
        for strength in (0.0, 0.7):
            one, other = sl.Interpolator(kernel, Z, g, ridge=strength), None
            other = sl.Interpolator(kernel, Z, g, filter=filters.ridge(strength))
            for name in ("predictions", "alignment", "own"):
                found, expected = getattr(other.at(Q), name), getattr(one.at(Q), name)
                np.testing.assert_allclose(found, expected, atol=1e-8 * np.abs(expected).max())
            np.testing.assert_allclose(other.coefficients, one.coefficients, rtol=1e-6)
            np.testing.assert_array_equal(other.K, one.K)
            np.testing.assert_array_equal(other.predict(Q), other.at(Q).predictions)
            np.testing.assert_array_equal(other.alignment(Q), other.at(Q).alignment)


def test_an_interpolator_with_a_filter():
    Z, Q, g = samples()
    kernel, q = sl.InfiniteWidth("relu", "ntk", depth=2), filters.descent(30, 0.05)
    model = sl.Interpolator(kernel, Z, g, filter=q)
    K, rows = kernel.gram(Z), kernel.gram(Q, Z)
    a = np.zeros(20)
    for _ in range(30):
        a = a + 0.05 * (g - K @ a)
    np.testing.assert_allclose(model.predict(Q), rows @ a, rtol=1e-9)
    assert isinstance(model.solve, FilteredSolve) and model.ridge == 0
    late = model.filtered(lambda s: 1 / s)
    np.testing.assert_allclose(late.predict(Z), g, atol=1e-8)
    np.testing.assert_allclose(late.coefficients, np.linalg.solve(K, g), rtol=1e-6)
    np.testing.assert_allclose(model.predict(Q), rows @ a, rtol=1e-9)
    of_tensors = sl.Interpolator(kernel, torch.from_numpy(Z), torch.from_numpy(g), filter=q)
    assert isinstance(of_tensors.predict(torch.from_numpy(Q)), torch.Tensor)
    np.testing.assert_allclose(of_tensors.predict(Q), model.predict(Q), rtol=1e-12)
    np.testing.assert_allclose(sl.Interpolator(kernel, Z, np.stack([g, -g], 1), filter=q).predict(Q)[:, 1], -rows @ a)


def test_equal_samples_pass_with_a_filter():
    Z, Q, g = samples()
    Z[4] = Z[3]
    kernel = sl.InfiniteWidth("relu")
    model = sl.Interpolator(kernel, Z, g, filter=filters.cutoff(1e-6))
    np.testing.assert_allclose(model.predict(Z)[[3, 4]], [(g[3] + g[4]) / 2] * 2)
    assert np.isfinite(
        sl.Interpolator(sl.RandomFeatures("relu", d=8, k=10), Z, g, filter=filters.flow(1.0)).predict(Q)
    ).all()
    with pytest.raises(ValueError, match=r"filter ridge\(0\) must be finite and entry-wise on eigenvalues from 0"):
        FilteredSolve(np.ones((2, 2)), [1.0, 2.0], filters.ridge(0.0))


def test_many_queries_are_asked_for_in_pieces(monkeypatch):
    Z, Q, g = samples()
    model = sl.Interpolator(sl.InfiniteWidth("relu"), Z, g, filter=filters.flow(2.0))
    whole = [getattr(model.at(Q), name) for name in ("predictions", "alignment", "own")]
    monkeypatch.setattr(evaluation, "_ROWS", 3 * 20)
    for name, expected in zip(("predictions", "alignment", "own"), whole, strict=True):
        np.testing.assert_allclose(getattr(model.at(Q), name), expected, atol=1e-12)


def test_leaving_out_is_refused():
    Z, Q, g = samples()
    model = sl.Interpolator(sl.InfiniteWidth("relu"), Z, g, filter=filters.flow(2.0))
    for name in ("stability", "own_stability"):
        with pytest.raises(ValueError, match=r"^stability: leaving a sample out has a closed form for a ridge only"):
            getattr(model.at(Q), name)
    with pytest.raises(ValueError, match=r"^stability: leaving a sample out has a closed form for a ridge only"):
        model.stability(Q)
    for name in ("loo_residuals", "perp_norms"):
        with pytest.raises(
            ValueError, match=r"^leaving a sample out has a closed form for a ridge only, not for a filter"
        ):
            getattr(model, name)


def test_one_of_ridge_and_filter():
    Z, _, g = samples()
    kernel = sl.InfiniteWidth("relu")
    with pytest.raises(ValueError, match=r"^filter takes the place of the ridge: give one of them"):
        sl.Interpolator(kernel, Z, g, ridge=0.1, filter=filters.flow(2.0))
    with pytest.raises(ValueError, match=r"^filtered needs a fit with a filter"):
        sl.Interpolator(kernel, Z, g).filtered(filters.flow(2.0))


BAD = {
    "strength must be a finite number of at least 0, got -1": lambda: filters.ridge(-1.0),
    "time must be a finite number above 0, got 0": lambda: filters.flow(0),
    "steps must be a positive integer, got 0": lambda: filters.descent(0, 0.1),
    "steps must be a positive integer, got 2.5": lambda: filters.momentum(2.5, 0.1, 0.5),
    "rate must be a finite number above 0, got 0": lambda: filters.descent(3, 0.0),
    "weight must be a number of at least 0 and below 1, got 1": lambda: filters.momentum(3, 0.1, 1.0),
    "rounds must be a positive integer": lambda: filters.boosting(0, 0.1, 1.0),
    r"rate must lie in \(0, 1\], got 1.5": lambda: filters.boosting(3, 1.5, 1.0),
    "strength must be a finite number above 0": lambda: filters.boosting(3, 1.0, 0.0),
    "level must be a finite number above 0": lambda: filters.cutoff(0.0),
    "filter must be a function of the eigenvalues, got float": lambda: FilteredSolve(np.eye(2), np.ones(2), 1.0),
    "filter sum must be finite and entry-wise": lambda: FilteredSolve(np.eye(2), np.ones(2), np.sum),
    "filter log must be finite and entry-wise": lambda: FilteredSolve(np.diag([0.0, 1.0]), np.ones(2), np.log),
    "K must be a square matrix": lambda: FilteredSolve(np.ones((2, 3)), np.ones(2), np.exp),
    "K must be symmetric": lambda: FilteredSolve(np.array([[1.0, 2.0], [0.0, 1.0]]), np.ones(2), np.exp),
    "K holds NaN": lambda: FilteredSolve(np.full((2, 2), np.nan), np.ones(2), np.exp),
    "g must have one label a sample": lambda: FilteredSolve(np.eye(2), np.ones(3), np.exp),
    "K is not positive semidefinite.*from -1 to 3": lambda: FilteredSolve([[1.0, 2.0], [2.0, 1.0]], np.ones(2), np.exp),
    "rows must have 2 columns": lambda: FilteredSolve(np.eye(2), np.ones(2), np.exp).predict(np.ones((3, 3))),
    "own pairs query i": lambda: FilteredSolve(np.eye(2), np.ones(2), np.exp).at(np.ones((3, 2))).own,
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_by_name(message):
    with pytest.raises(ValueError, match=f"^{message}"):
        BAD[message]()
    if "semidefinite" in message:
        with pytest.raises(sl.SingularKernelError):
            BAD[message]()


def test_names():
    told = [filters.ridge(0.5), filters.flow(2), filters.descent(3, 0.1), filters.momentum(3, 0.1, 0.9)]
    told += [filters.boosting(4, 0.5, 2), filters.cutoff(1e-3)]
    names = [
        "ridge(0.5)",
        "flow(2)",
        "descent(3, 0.1)",
        "momentum(3, 0.1, 0.9)",
        "boosting(4, 0.5, 2)",
        "cutoff(0.001)",
    ]
    assert [*map(repr, told)] == names and filters.cutoff(1e-3).breaks == (1e-3,)
    assert FilteredSolve(np.eye(2), np.ones(2), np.exp).filter.name == "exp"


def test_filters_and_their_fits_pickle():
    s = np.linspace(0, 0.5, 9)
    for q in (*[q for q, _ in METHODS.values()][:-1], filters.Filter("exp", np.exp)):
        again = pickle.loads(pickle.dumps(q))
        assert (again.name, again.breaks) == (q.name, q.breaks)
        np.testing.assert_array_equal(again(s), q(s))
    Z, Q, g = samples()
    model = sl.Interpolator(sl.InfiniteWidth("relu"), Z, g, filter=filters.momentum(9, 0.1, 0.5))
    for one in (model, model.solve):
        again = pickle.loads(pickle.dumps(one))
        np.testing.assert_array_equal(again.coefficients, one.coefficients)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model.at(Q))).alignment, model.alignment(Q))
