"""Interpolation and leave-one-out in closed form against refits on explicit features."""

import inspect
import itertools
import pickle
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import spurlib as sl
from spurlib import evaluation
from spurlib.interpolation import Solve
from tests import memory

ROOT = Path(__file__).resolve().parents[1]


class Monomials:
    """All products of at most two coordinates: a feature map without randomness."""

    def features(self, A):
        A = np.asarray(A, dtype=float)
        pairs = itertools.combinations_with_replacement(range(A.shape[1]), 2)
        return np.hstack([np.ones((len(A), 1)), A, *(A[:, i : i + 1] * A[:, j : j + 1] for i, j in pairs)])

    def gram(self, A, B):
        return self.features(A) @ self.features(B).T


class Spy:
    """A kernel that must not be asked."""

    def __init__(self, d=3, n_features=None):
        self.d, self.calls = d, 0
        if n_features is not None:
            self.n_features = n_features

    def gram(self, A, B):
        self.calls += 1
        return np.asarray(A) @ np.asarray(B).T + 10 * np.eye(len(A), len(B))


def kernel_of(name, d, seed=0):
    if name == "monomials":
        return Monomials()
    kind, act = name.split()
    return {"rf": sl.RandomFeatures, "ntk": sl.TangentFeatures}[kind](act, d=d, k=80 if kind == "rf" else 12, seed=seed)


KERNELS = ["rf relu", "rf tanh", "rf h1+h2", "ntk tanh", "ntk relu", "monomials"]


def problem(name, n=14, d=5, seed=0, q=6):
    generator = np.random.default_rng(seed)
    Z, Q, g = generator.standard_normal((n, d)), generator.standard_normal((q, d)), generator.standard_normal(n)
    kernel = kernel_of(name, d, seed)
    return kernel, Z, g, Q, kernel.features(Z), kernel.features(Q)


def refit(Phi, g, ridge):
    """Minimizer of |Phi theta - g|^2 + ridge |theta|^2, of least norm; by least squares, without a kernel."""
    if ridge:
        Phi = np.vstack([Phi, np.sqrt(ridge) * np.eye(Phi.shape[1])])
        g = np.r_[g, np.zeros(Phi.shape[1])]
    return np.linalg.lstsq(Phi, g, rcond=None)[0]


def without(x, i):
    return np.delete(x, i, axis=0)


def assert_close(got, expected, tolerance=1e-9):
    assert np.abs(np.asarray(got) - expected).max() <= tolerance * np.abs(expected).max()


def perpendicular(rows, v):
    """The part of v orthogonal to the rows, by QR."""
    basis = np.linalg.qr(rows.T)[0]
    return v - basis @ (basis.T @ v)


@pytest.mark.parametrize("ridge", [0.0, 0.7])
@pytest.mark.parametrize("name", KERNELS)
def test_identities_against_refits(name, ridge):
    kernel, Z, g, Q, Phi, PhiQ = problem(name)
    m = sl.Interpolator(kernel, Z, g, ridge=ridge)
    theta = refit(Phi, g, ridge)
    left_out = np.array([refit(without(Phi, i), without(g, i), ridge) for i in range(len(g))])
    assert_close(m.predict(Q), PhiQ @ theta)
    assert_close(m.loo_residuals, g - np.einsum("ip,ip->i", Phi, left_out))
    changes = (PhiQ @ theta)[:, None] - PhiQ @ left_out.T
    assert_close(m.stability(Q), changes)
    at_the_samples = (Phi @ theta)[:, None] - Phi @ left_out.T
    assert_close(m.stability(Z), at_the_samples)


@pytest.mark.parametrize("name", KERNELS)
def test_the_samples_are_interpolated_with_the_least_norm(name):
    kernel, Z, g, _, Phi, _ = problem(name)
    m = sl.Interpolator(kernel, Z, g)
    assert_close(m.predict(Z), g)
    theta = Phi.T @ np.asarray(m.coefficients)
    assert_close(theta, np.linalg.pinv(Phi) @ g)


@pytest.mark.parametrize("name", KERNELS)
def test_alignment_is_its_definition(name):
    kernel, Z, g, Q, Phi, PhiQ = problem(name)
    m = sl.Interpolator(kernel, Z, g)
    for i in range(len(g)):
        perp = perpendicular(without(Phi, i), Phi[i])
        assert m.perp_norms[i] == pytest.approx(perp @ perp, rel=1e-9)
        assert_close(m.alignment(Q)[:, i], PhiQ @ perp / (perp @ perp))


@pytest.mark.parametrize("name", KERNELS)
def test_the_lemma_from_refits_alone(name):
    kernel, Z, g, Q, Phi, PhiQ = problem(name)
    alignment = sl.Interpolator(kernel, Z, g).alignment(Q)
    theta = refit(Phi, g, 0)
    for i in range(len(g)):
        moved = theta - refit(without(Phi, i), without(g, i), 0)
        assert_close(PhiQ @ moved, alignment[:, i] * (Phi[i] @ moved))


def test_with_a_ridge_the_factor_is_the_held_out_residual():
    kernel, Z, g, Q, Phi, PhiQ = problem("rf tanh")
    m = sl.Interpolator(kernel, Z, g, ridge=2.0)
    i, theta = 3, refit(Phi, g, 2.0)
    moved = theta - refit(without(Phi, 3), without(g, 3), 2.0)
    assert_close(PhiQ @ moved, m.alignment(Q)[:, i] * m.loo_residuals[i])
    # the change at the sample itself is smaller than the held-out residual: the lemma as it stands fails
    assert abs(Phi[i] @ moved / m.loo_residuals[i]) < 0.99
    assert Phi[i] @ moved == pytest.approx(m.alignment(Z)[i, i] * m.loo_residuals[i], rel=1e-9)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 12),
    d=st.integers(3, 8),
    ridge=st.sampled_from([0.0, 0.0, 1e-3, 1.0, 50.0]),
    name=st.sampled_from(["rf tanh", "rf relu", "rf sin", "ntk tanh"]),
)
def test_identities_hold_for_any_sizes(seed, n, d, ridge, name):
    kernel, Z, g, Q, Phi, PhiQ = problem(name, n=n, d=d, seed=seed, q=3)
    assume(np.linalg.cond(Phi) < 3000)  # its square is lost of the sixteen digits
    m = sl.Interpolator(kernel, Z, g, ridge=ridge)
    i = seed % n
    theta, left_out = refit(Phi, g, ridge), refit(without(Phi, i), without(g, i), ridge)
    scale = np.abs(PhiQ).max() * np.linalg.norm(theta) + np.abs(g).max()
    np.testing.assert_allclose(m.predict(Q), PhiQ @ theta, atol=1e-8 * scale, rtol=1e-8)
    np.testing.assert_allclose(m.stability(Q)[:, i], PhiQ @ (theta - left_out), atol=1e-8 * scale, rtol=1e-8)
    assert m.loo_residuals[i] == pytest.approx(g[i] - Phi[i] @ left_out, rel=1e-8, abs=1e-8 * scale)
    if ridge == 0:
        perp = perpendicular(without(Phi, i), Phi[i])
        assert m.perp_norms[i] == pytest.approx(perp @ perp, rel=1e-8)
        np.testing.assert_allclose(m.alignment(Z), np.eye(n), atol=1e-8)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), ridge=st.sampled_from([0.0, 0.3]), shift=st.floats(-5, 5))
def test_symmetries(seed, ridge, shift):
    kernel, Z, g, Q, _, _ = problem("rf tanh", seed=seed)
    m = sl.Interpolator(kernel, Z, g, ridge=ridge)
    order = np.random.default_rng(seed).permutation(len(g))
    permuted = sl.Interpolator(kernel, Z[order], g[order], ridge=ridge)
    np.testing.assert_allclose(permuted.alignment(Q), m.alignment(Q)[:, order], atol=1e-8)
    np.testing.assert_allclose(permuted.predict(Q), m.predict(Q), atol=1e-8)
    scaled = sl.Interpolator(kernel, Z, shift * g, ridge=ridge)
    np.testing.assert_allclose(scaled.predict(Q), shift * m.predict(Q), atol=1e-8)
    np.testing.assert_array_equal(scaled.alignment(Q), m.alignment(Q))


@pytest.mark.parametrize("ridge", [0.0, 0.7])
def test_from_gram_equals_the_direct_way(ridge):
    kernel, Z, g, Q, Phi, PhiQ = problem("rf relu")
    direct = sl.Interpolator(kernel, Z, g, ridge=ridge)
    indirect = sl.Interpolator.from_gram(Phi @ Phi.T, g, ridge=ridge)
    rows = PhiQ @ Phi.T
    for method in ("predict", "alignment", "stability"):
        assert_close(getattr(indirect, method)(rows), getattr(direct, method)(Q))
    assert_close(indirect.loo_residuals, direct.loo_residuals)
    assert_close(indirect.perp_norms, direct.perp_norms)


def test_one_gram_serves_smaller_training_sets():
    kernel, Z, g, Q, _, _ = problem("rf tanh")
    K, rows = kernel.gram(Z), kernel.gram(Q, Z)
    small = sl.Interpolator.from_gram(K[:8, :8], g[:8])
    assert_close(small.predict(rows[:, :8]), sl.Interpolator(kernel, Z[:8], g[:8]).predict(Q))


def test_kinds_in_and_out():
    kernel, Z, g, Q, _, _ = problem("rf tanh")
    m = sl.Interpolator(kernel, Z, g)
    t = sl.Interpolator(kernel, torch.from_numpy(Z), torch.from_numpy(g))
    for method, shape in (("predict", (6,)), ("alignment", (6, 14)), ("stability", (6, 14))):
        of_array, of_tensor = getattr(m, method)(Q), getattr(t, method)(torch.from_numpy(Q))
        assert isinstance(of_array, np.ndarray) and of_array.shape == shape
        assert isinstance(of_tensor, torch.Tensor)
        np.testing.assert_allclose(of_tensor.numpy(), of_array, rtol=1e-12)
        np.testing.assert_allclose(getattr(t, method)(Q), of_array, rtol=1e-12)
    assert isinstance(m.loo_residuals, np.ndarray) and isinstance(t.loo_residuals, torch.Tensor)
    lists = sl.Interpolator(kernel, Z.tolist(), g.tolist())
    np.testing.assert_allclose(lists.predict(Q.tolist()), m.predict(Q), rtol=1e-12)
    assert m.K.dtype == torch.float64
    K = kernel.gram(Z)
    np.testing.assert_allclose(sl.Interpolator(kernel, Z, g, ridge=3.0).K, K, rtol=1e-15)
    assert sl.Interpolator(kernel, Z, g > 0).g.dtype == torch.float64


def test_numbers_of_numpy_are_ridges_too():
    kernel, Z, g, Q, _, _ = problem("rf tanh")
    expected = sl.Interpolator(kernel, Z, g, ridge=0.5).predict(Q)
    for ridge in (np.float64(0.5), np.float32(0.5)):
        np.testing.assert_array_equal(sl.Interpolator(kernel, Z, g, ridge=ridge).predict(Q), expected)
    assert sl.Interpolator(kernel, Z, g, ridge=np.int64(2)).ridge == 2.0


def test_float32_features_err_by_no_more_than_single_precision():
    d, n = 30, 60
    generator = np.random.default_rng(0)
    Z, g, Q = (
        generator.standard_normal((n, d)),
        np.sign(generator.standard_normal(n)),
        generator.standard_normal((9, d)),
    )
    exact = sl.Interpolator(sl.RandomFeatures("relu", d=d, k=3000), Z, g)
    single = sl.Interpolator(sl.RandomFeatures("relu", d=d, k=3000, dtype=torch.float32), Z, g)
    assert np.abs(single.alignment(Q) - exact.alignment(Q)).max() < 1e-5


# Bad input ------------------------------------------------------------------------------------------------------------

Z_OK, G_OK = np.arange(12.0).reshape(4, 3) ** 1.5, np.array([1.0, -1, 1, -1])
BAD = {
    "Z must have 2 axes": (np.ones(3), G_OK, {}),
    "Z must have 3 columns": (np.ones((4, 2)), G_OK, {}),
    "Z is empty": (np.ones((0, 3)), np.ones(0), {}),
    "Z holds NaN": (np.where(Z_OK > 30, np.nan, Z_OK), G_OK, {}),
    "Z holds NaN or inf": (np.where(Z_OK > 30, -np.inf, Z_OK), G_OK, {}),
    "g must have one label a sample: 4 samples, 3 labels": (Z_OK, G_OK[:3], {}),
    "g must have 1 or 2 axes": (Z_OK, G_OK[:, None, None], {}),
    "g must have one label a sample: 4 samples, 1 labels": (Z_OK, G_OK[None], {}),
    "progress must be True, False or a callable, got str": (Z_OK, G_OK, {"progress": "yes"}),
    "g holds NaN": (Z_OK, G_OK * np.nan, {}),
    "g is empty": (Z_OK, [], {}),
    "g must be an array": (Z_OK, ["a", "b", "c", "d"], {}),
    "ridge must be": (Z_OK, G_OK, {"ridge": -1.0}),
    "ridge must be a": (Z_OK, G_OK, {"ridge": float("nan")}),
    "ridge must be a finite": (Z_OK, G_OK, {"ridge": float("inf")}),
    "ridge must be a finite number": (Z_OK, G_OK, {"ridge": "small"}),
    "Z has n = 4 samples but the kernel only 3 features": (Z_OK, G_OK, {"n_features": 3}),
    "rows 1, 3": (Z_OK[[0, 1, 2, 1]], G_OK, {}),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_before_the_kernel_is_asked(message):
    Z, g, options = BAD[message]
    spy = Spy(n_features=options.pop("n_features", None)) if "n_features" in options else Spy()
    with pytest.raises(ValueError, match=message):
        sl.Interpolator(spy, Z, g, **options)
    assert spy.calls == 0


def test_the_same_checks_guard_a_matrix():
    K = np.eye(4)
    for message, (bad_K, g, ridge) in {
        r"K must be a square matrix, got shape \(4, 3\)": (K[:, :3], G_OK, 0.0),
        r"K must be a square matrix, got shape \(3, 4\)": (K[:3], G_OK[:3], 0.0),
        "K must be symmetric": (K + np.triu(np.ones((4, 4))), G_OK, 0.0),
        "K must have 2 axes": (np.ones(4), G_OK, 0.0),
        "K is empty": (np.ones((0, 0)), [], 0.0),
        "K holds NaN": (K * np.nan, G_OK, 0.0),
        "g must have one label": (K, G_OK[:3], 0.0),
        "ridge": (K, G_OK, -0.1),
        "rows 0, 2": (np.ones((4, 4)) * [1, 0, 1, 0] * np.array([[1], [0], [1], [0]]) + np.diag([0, 1, 0, 1]), G_OK, 0),
    }.items():
        with pytest.raises(ValueError, match=message):
            sl.Interpolator.from_gram(bad_K, g, ridge=ridge)


def test_bad_queries():
    spy = Spy()
    m = sl.Interpolator(spy, Z_OK, G_OK)
    calls = spy.calls
    for method in (m.at, m.predict, m.alignment, m.stability):
        for message, Q in {
            "Q must have 3 columns": np.ones((2, 4)),
            "Q must have 2 axes": np.ones(3),
            "Q is empty": np.ones((0, 3)),
            "Q holds NaN": np.full((2, 3), np.nan),
        }.items():
            with pytest.raises(ValueError, match=message):
                method(Q)
    assert spy.calls == calls
    solve = sl.Interpolator.from_gram(10 * np.eye(4), G_OK)
    for method in (solve.at, solve.predict, solve.alignment, solve.stability):
        with pytest.raises(ValueError, match=r"^rows must have 4 columns"):
            method(np.ones((2, 3)))


@pytest.mark.parametrize("kernel", [np.eye(4), None, "rbf", Spy])
def test_a_kernel_needs_a_gram(kernel):
    with pytest.raises(ValueError, match=r"^kernel must have a method gram\(A, B\), or be a callable"):
        sl.Interpolator(kernel, Z_OK, G_OK)


@pytest.mark.parametrize("ridge", [0.0, 0.7])
@pytest.mark.parametrize("name", ["rf tanh", "ntk relu", "monomials"])
def test_own_is_the_diagonal_and_its_stability_a_refit(name, ridge):
    kernel, Z, g, Q, Phi, PhiQ = problem(name, q=14)
    m = sl.Interpolator(kernel, Z, g, ridge=ridge)
    at = m.at(Q)
    assert_close(at.own, np.diag(m.alignment(Q)))
    theta = refit(Phi, g, ridge)
    left_out = np.array([refit(without(Phi, i), without(g, i), ridge) for i in range(len(g))])
    assert_close(at.own_stability, PhiQ @ theta - np.einsum("ip,ip->i", PhiQ, left_out))


def test_the_larger_matrices_are_as_exact_as_the_small_ones():
    # more than two blocks: k(x, y) = r^|x - y| of neighbours on a line has a known inverse of three diagonals
    n, r = 700, 0.6
    K = r ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    inverse = (np.diag(np.full(n, 1 + r**2)) - r * (np.eye(n, k=1) + np.eye(n, k=-1))) / (1 - r**2)
    inverse[0, 0] = inverse[-1, -1] = 1 / (1 - r**2)
    rows, g = np.random.default_rng(0).standard_normal((2, n, n))
    solve = Solve(K, g)
    assert_close(solve.alignment(rows), rows @ inverse, 1e-13)
    assert_close(solve.predict(rows), rows @ inverse @ g, 1e-13)
    assert_close(solve.perp_norms, 1 / np.diag(inverse), 1e-13)
    assert_close(solve.at(rows).own, np.einsum("ij,ij->i", rows, inverse), 1e-13)


def test_a_dependent_sample_of_a_larger_matrix_is_named():
    # the factor fails in the third block, when the first two have been overwritten
    Z, g = clean(0, n=600)
    Z[550] = Z[41]
    K = sl.RandomFeatures("tanh", d=20, k=900).gram(Z)
    for overwrite in (False, True):
        with pytest.raises(sl.SingularKernelError) as caught:
            Solve(K, g, overwrite=overwrite)
        assert caught.value.rows == [41, 550]


class Counted:
    """A kernel that counts how often it is asked, and for how many rows at most."""

    def __init__(self, kernel):
        self.kernel, self.calls, self.most = kernel, 0, 0

    def gram(self, A, B):
        self.calls, self.most = self.calls + 1, max(self.most, len(A))
        return self.kernel.gram(A, B)


def read(at):
    return [at.predictions, at.alignment, at.stability, at.own, at.own_stability]


def test_one_kernel_matrix_serves_all_at_the_queries():
    kernel, Z, g, Q, _, _ = problem("rf tanh", q=14)
    counted = Counted(kernel)
    m = sl.Interpolator(counted, Z, g)
    assert counted.calls == 1
    read(m.at(Q)), m.solve.at(kernel.gram(Q, Z))
    assert counted.calls == 2
    for method in (m.predict, m.alignment, m.stability):
        method(Q)
    assert counted.calls == 5
    m.at(Q)
    assert counted.calls == 5  # nothing is computed before it is read


def test_many_queries_are_asked_for_in_pieces(monkeypatch):
    kernel, Z, g, Q, _, _ = problem("rf tanh", q=14)
    counted = Counted(kernel)
    m = sl.Interpolator(counted, Z, g)
    whole, rows = read(m.at(Q)), kernel.gram(Q, Z)
    monkeypatch.setattr(evaluation, "_ROWS", 4 * 14)
    counted.calls = counted.most = 0
    at = m.at(Q)
    assert_close(at.predictions, whole[0])
    assert_close(at.own, whole[3])
    assert_close(at.own_stability, whole[4])
    assert (counted.calls, counted.most) == (4, 4)  # one pass, and no more than four rows at a time
    for pieces in (read(at), read(m.solve.at(rows))):
        for one, other in zip(pieces, whole, strict=True):
            assert_close(one, other)
    assert (counted.calls, counted.most) == (8, 4)


def test_own_needs_a_query_for_each_sample():
    kernel, Z, g, Q, _, _ = problem("rf tanh")
    for at in (sl.Interpolator(kernel, Z, g).at(Q), Solve(kernel.gram(Z), g).at(kernel.gram(Q, Z))):
        for name in ("own", "own_stability"):
            with pytest.raises(ValueError, match=r"^own pairs query i .* there must be 14 queries, got 6"):
                getattr(at, name)
        assert at.predictions.shape == (6,)


def test_evaluations_keep_kinds_and_pickle():
    kernel, Z, g, Q, _, _ = problem("rf tanh", q=14)
    m = sl.Interpolator(kernel, Z, g)
    for x in read(m.at(torch.from_numpy(Q))):
        assert isinstance(x, torch.Tensor) and x.dtype == torch.float64
    for x in read(m.at(Q.tolist())):
        assert isinstance(x, np.ndarray)
    m = sl.Interpolator(Monomials(), Z, g)
    at = pickle.loads(pickle.dumps(m.at(Q)))
    for one, other in zip(read(at), read(m.at(Q)), strict=True):
        np.testing.assert_array_equal(one, other)


# Labels with several columns ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [0.0, 0.7])
@pytest.mark.parametrize("outputs", [1, 3, 14])
def test_columns_of_labels_are_regressions_of_their_own(outputs, ridge):
    kernel, Z, _, Q, _, _ = problem("rf tanh", q=14)
    G = np.random.default_rng(1).standard_normal((14, outputs))
    m = sl.Interpolator(kernel, Z, G, ridge=ridge)
    alone = [sl.Interpolator(kernel, Z, g, ridge=ridge) for g in G.T]
    assert m.stability(Q).shape == (14, 14, outputs) and m.coefficients.shape == m.g.shape == (14, outputs)
    assert_close(m.predict(Q), np.stack([one.predict(Q) for one in alone], axis=-1))
    assert_close(m.loo_residuals, np.stack([one.loo_residuals for one in alone], axis=-1))
    assert_close(m.stability(Q), np.stack([one.stability(Q) for one in alone], axis=-1))
    assert_close(m.at(Q).own_stability, np.stack([one.at(Q).own_stability for one in alone], axis=-1))
    np.testing.assert_allclose(m.alignment(Q), alone[0].alignment(Q), atol=1e-12)


def test_classes_by_argmax():
    generator = np.random.default_rng(0)
    centers = 3 * generator.standard_normal((10, 8))
    classes = np.arange(60) % 10
    Z, Q = centers[classes] + generator.standard_normal((2, 60, 8)) / 2
    for labels in (np.eye(10)[classes], np.eye(10)[classes] == 1):
        f = sl.Interpolator(sl.RandomFeatures("relu", d=8, k=2000), Z, labels).predict(Q)
        assert f.shape == (60, 10) and np.mean(f.argmax(axis=1) == classes) > 0.9


# In place -------------------------------------------------------------------------------------------------------------

MEMORY = """
import torch
from spurlib.interpolation import Solve
from tests.memory import watched

n, r = 4000, 0.6
line = torch.arange(n)
torch.set_num_threads(1)
Solve(torch.eye(n), line.double(), overwrite=True)  # libraries keep the buffers that they need for this size
for overwrite in (True, False):
    K = torch.empty(n, n, dtype=torch.float64)
    for i in range(n):
        K[i] = r ** (line - i).abs()
    with watched() as more:
        solve = Solve(K.numpy(), line.double(), overwrite=overwrite)
        solve.predict(K[:10]), solve.perp_norms
    print(more[0] / (8 * n * n))
    del solve, K
"""


@pytest.mark.skipif(not memory.KNOWN, reason="the system does not tell anonymous memory")
def test_a_fit_in_place_takes_little_more_than_its_matrix():
    done = subprocess.run([sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True, cwd=ROOT)
    in_place, copied = map(float, done.stdout.split())
    assert in_place < 0.3
    assert copied > 1.9  # the measure sees matrices: a copy of K and the inverse


@pytest.mark.parametrize("ridge", [0.0, 0.7])
def test_overwrite_uses_the_matrix_up_and_changes_no_number(ridge):
    kernel, Z, g, Q, _, _ = problem("rf tanh")
    K, rows = kernel.gram(Z), kernel.gram(Q, Z)
    kept, solve, called = Solve(K, g, ridge=ridge), Solve(used := K.copy(), g, ridge=ridge, overwrite=True), []
    of_gram = sl.Interpolator.from_gram(K.copy(), g, ridge=ridge, overwrite=True, progress=called.append)
    for one in (solve, of_gram):
        np.testing.assert_array_equal(one.stability(rows), kept.stability(rows))
    assert_close(used @ (K + ridge * np.eye(14)), np.eye(14))  # the inverse is where the matrix was
    assert not hasattr(solve, "K") and np.array_equal(kept.K, K) and called[-1] == 1
    K.setflags(write=False)
    Solve(K, g, ridge=ridge, overwrite=True)
    np.testing.assert_array_equal(K, kernel.gram(Z))
    large = np.ones((20, 20))
    large[3:17, 3:17] = K
    part = Solve(large[3:17, 3:17], g, ridge=ridge, overwrite=True)
    assert_close(part.stability(rows), kept.stability(rows))
    assert large[:3].all() and large[:, 17:].all() and (large != 1).sum() == 14 * 14


def test_progress(capsys):
    K, shares = np.eye(1000), []
    Solve(K, np.ones(1000), progress=shares.append)
    assert shares == sorted(shares) and shares[len(shares) // 2 - 1] == pytest.approx(1 / 3) and shares[-1] == 1
    assert 4 <= len(shares) < 40 and max(np.diff([0, *shares])) < 0.5
    assert capsys.readouterr().err == ""
    Solve(K, np.ones(1000), progress=True)
    assert "\rfit:  33%" in (told := capsys.readouterr().err) and told.endswith("\rfit: 100%\n")
    shares.clear()
    kernel, Z, g, _, _, _ = problem("rf tanh")
    sl.Interpolator(kernel, Z, g, progress=shares.append)
    assert shares == pytest.approx([1 / 3, 1])


# Kernels of every kind ------------------------------------------------------------------------------------------------


def test_a_callable_is_a_kernel():
    _, Z, g, Q, _, _ = problem("monomials")
    expected = sl.Interpolator(Monomials(), Z, g)
    for kernel in (Monomials().gram, lambda A, B: Monomials().gram(A, B)):
        m = sl.Interpolator(kernel, Z, g)
        np.testing.assert_array_equal(m.stability(Q), expected.stability(Q))
        np.testing.assert_array_equal(m.K, Monomials().gram(Z, Z))
        np.testing.assert_array_equal(m.predict(Q.tolist()), expected.predict(Q))


def test_kernels_of_scikit_learn():
    kernels = pytest.importorskip("sklearn.gaussian_process.kernels")
    regression = pytest.importorskip("sklearn.gaussian_process")
    _, Z, g, Q, _, _ = problem("monomials")
    kernel = 1.3 * kernels.RBF(2.0) + kernels.Matern(nu=1.5)
    theirs = regression.GaussianProcessRegressor(kernel, alpha=0.2, optimizer=None).fit(Z, g)
    assert_close(sl.Interpolator(kernel, Z, g, ridge=0.2).predict(Q), theirs.predict(Q))
    of_tensors = sl.Interpolator(kernel, torch.tensor(Z), torch.tensor(g), ridge=0.2).predict(torch.tensor(Q))
    assert_close(of_tensors, theirs.predict(Q))
    # noise is nothing between two sets, even equal ones, but something of one set: here it is a ridge
    noisy = kernel + kernels.WhiteKernel(0.2)
    assert_close(noisy(Z) - noisy(Z, Z), 0.2 * np.eye(14))
    theirs = regression.GaussianProcessRegressor(noisy, alpha=0, optimizer=None).fit(Z, g)
    assert_close(sl.Interpolator(noisy, Z, g, ridge=0.2).predict(Q), theirs.predict(Q))


def test_the_rows_of_queries_are_counted():
    spy = Spy()
    m = sl.Interpolator(spy, Z_OK, G_OK)
    spy.gram = lambda A, B: np.ones((3, 4))
    m._kernel = spy.gram
    with pytest.raises(ValueError, match=r"^kernel.gram\(Q, Z\) must have a row for each of 2 queries, got 3"):
        m.predict(np.ones((2, 3)))


def test_solve_takes_rows_and_an_interpolator_takes_queries():
    kernel, Z, g, Q, _, _ = problem("rf tanh", n=5, d=5)  # n = d: shapes cannot tell
    m, solve = sl.Interpolator(kernel, Z, g), Solve(kernel.gram(Z), g)
    assert type(sl.Interpolator.from_gram(kernel.gram(Z), g)) is Solve and type(m.solve) is Solve
    assert not isinstance(solve, sl.Interpolator) and not hasattr(solve, "Z") and not hasattr(solve, "kernel")
    for method in ("at", "predict", "alignment", "stability"):
        assert [*inspect.signature(getattr(solve, method)).parameters] == ["rows"]
        assert [*inspect.signature(getattr(m, method)).parameters] == ["Q"]
    for method in ("predict", "alignment", "stability"):
        np.testing.assert_array_equal(getattr(solve, method)(kernel.gram(Q, Z)), getattr(m, method)(Q))
    for name in ("K", "g", "coefficients", "loo_residuals", "perp_norms"):
        np.testing.assert_array_equal(getattr(solve, name), getattr(m, name))
    assert solve.ridge == m.ridge == 0


@pytest.mark.parametrize("kind", [np.array, torch.tensor, lambda x: x.tolist()], ids=["numpy", "torch", "list"])
def test_what_was_fitted_is_not_changed_with_the_arrays_it_came_from(kind):
    kernel, Z, g, Q, _, _ = problem("rf tanh")
    K, rows = kernel.gram(Z), kernel.gram(Q, Z)
    Z, g, K = kind(Z), kind(g), kind(K)
    m, solve = sl.Interpolator(kernel, Z, g), Solve(K, g)
    before = [m.predict(Q), m.loo_residuals, m.K, m.g, solve.predict(rows), solve.loo_residuals, solve.K, solve.g]
    before = [np.array(x.tolist()) for x in before]
    for x in (Z, g, K):
        for i in range(len(x)):
            x[i] = 2 * x[i]
    after = [m.predict(Q), m.loo_residuals, m.K, m.g, solve.predict(rows), solve.loo_residuals, solve.K, solve.g]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_overflow_is_called_by_its_name():
    with pytest.raises(ValueError, match=r"features of activation 'h1.h2', or their products, overflow torch.float64"):
        sl.Interpolator(sl.RandomFeatures("h1+h2", d=3, k=9), 1e200 * Z_OK, G_OK)
    with pytest.raises(ValueError, match="g is too large for K: the coefficients overflow"):
        Solve(1e-200 * np.eye(2), [1e200, 1.0])


@pytest.mark.parametrize("ridge", [10**400, True, "1", None, [1.0], np.ma.masked, 1j, -1e-300])
def test_what_is_not_a_ridge(ridge):
    for work in (lambda: Solve(np.eye(4), G_OK, ridge=ridge), lambda: sl.Interpolator(Spy(), Z_OK, G_OK, ridge=ridge)):
        with pytest.raises(ValueError, match=r"^ridge must be") as caught:
            work()
        assert len(str(caught.value)) < 150


@pytest.mark.parametrize("ridge", [2, 2.0, np.int64(2), np.float32(2), np.array(2.0), torch.tensor(2.0), Fraction(2)])
def test_what_is_a_ridge(ridge):
    solve = Solve(2 * np.eye(4), G_OK, ridge=ridge)
    assert type(solve.ridge) is float and solve.coefficients.tolist() == (G_OK / 4).tolist()


@pytest.mark.parametrize("result", [np.eye(3), np.eye(4)[:, :3], np.full((4, 4), np.nan), np.ones(4)])
def test_a_kernel_of_the_wrong_shape_is_refused(result):
    spy = Spy()
    spy.gram = lambda A, B: result
    with pytest.raises(ValueError, match=r"^K "):
        sl.Interpolator(spy, Z_OK, G_OK)


# Singular kernels -----------------------------------------------------------------------------------------------------


def clean(seed, n=60, d=20):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((n, d)), np.sign(generator.standard_normal(n))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["tanh", "relu"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("distance", [0.0, 1e-9, 1e-7])
def test_equal_and_nearly_equal_samples_are_named(name, dtype, seed, distance):
    Z, g = clean(seed)
    noise = np.random.default_rng(seed + 100).standard_normal((3, 20))
    Z[41] = Z[7] + distance * noise[0]
    Z[[12, 59]] = Z[30] + distance * noise[1:]
    rf = sl.RandomFeatures(name, d=20, k=600, seed=seed, dtype=dtype)
    with pytest.raises(sl.SingularKernelError) as caught:
        sl.Interpolator(rf, Z, g)
    assert caught.value.rows == [7, 12, 30, 41, 59]
    assert "rows 7, 12, 30, 41, 59" in str(caught.value) and "ridge" in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["tanh", "relu", "h1+h2"])
def test_clean_samples_are_never_accused(name, dtype):
    for seed in range(6):
        Z, g = clean(seed)
        sl.Interpolator(sl.RandomFeatures(name, d=20, k=600, seed=seed, dtype=dtype), Z, g)
        sl.Interpolator(sl.TangentFeatures(name, d=20, k=30, seed=seed, dtype=dtype), Z, g)


def test_samples_almost_as_many_as_features_are_not_accused():
    for seed in range(4):
        Z, g = clean(seed)
        sl.Interpolator(sl.RandomFeatures("tanh", d=20, k=66, seed=seed, dtype=torch.float32), Z, g)


def test_equal_samples_pass_with_a_ridge():
    Z, g = clean(0)
    Z[3] = Z[4]
    m = sl.Interpolator(sl.RandomFeatures("tanh", d=20, k=600), Z, g, ridge=1.0)
    assert np.isfinite(m.alignment(Z)).all()


def test_a_ridge_too_small_to_help_is_refused():
    Z, g = clean(0)
    Z[3] = Z[4]
    with pytest.raises(sl.SingularKernelError, match="larger ridge") as caught:
        sl.Interpolator(sl.RandomFeatures("tanh", d=20, k=600), Z, g, ridge=1e-12)
    assert caught.value.rows == [3, 4]


def test_more_samples_than_features():
    Z, g = clean(0)
    with pytest.raises(sl.SingularKernelError, match="n = 60 samples but the kernel only 59 features"):
        sl.Interpolator(sl.RandomFeatures("tanh", d=20, k=59), Z, g)
    sl.Interpolator(sl.RandomFeatures("tanh", d=20, k=60), Z, g)
    sl.Interpolator(sl.RandomFeatures("tanh", d=20, k=59), Z, g, ridge=0.1)


def test_linear_activation_beyond_its_dimension_accuses_all():
    Z, g = clean(0)
    with pytest.raises(sl.SingularKernelError) as caught:
        sl.Interpolator(sl.RandomFeatures("linear", d=20, k=600), Z, g)
    assert caught.value.rows == list(range(60))
    assert "(60 in all)" in str(caught.value)
    sl.Interpolator(sl.RandomFeatures("linear", d=20, k=600), Z[:20], g[:20])


def test_exactly_the_dependent_samples_are_named():
    # degree at most two: four samples on a line (and only they) are dependent
    generator = np.random.default_rng(5)
    Z = generator.standard_normal((12, 4))
    direction = generator.standard_normal(4)
    for row, t in zip((1, 4, 6, 9), (-1.0, 0.3, 1.1, 2.0), strict=True):
        Z[row] = 0.5 + t * direction
    with pytest.raises(sl.SingularKernelError) as caught:
        sl.Interpolator(Monomials(), Z, generator.standard_normal(12))
    assert caught.value.rows == [1, 4, 6, 9]


INDEFINITE = {
    "rows 1 have a negative entry on its diagonal": np.diag([1.0, -1.0, 2.0]),
    "rows 0, 2 have": np.array([[1.0, 0.0, 3.0], [0.0, 9.0, 0.0], [3.0, 0.0, 1.0]]),
    "eigenvalues go from -0.8 to 1.9": np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]]),
}


@pytest.mark.parametrize("ridge", [0.0, 0.1])
@pytest.mark.parametrize("message", INDEFINITE)
def test_indefinite_matrices_are_refused_and_called_so(message, ridge):
    with pytest.raises(sl.SingularKernelError, match=f"^K is not positive semidefinite.*{message}") as caught:
        Solve(INDEFINITE[message], np.ones(3), ridge=ridge)
    assert "repeated samples" not in str(caught.value)


def test_samples_without_features_are_named():
    Z, g = clean(0, n=7, d=5)
    Z[6] = 0.0
    relu = sl.RandomFeatures("relu", d=5, k=80)
    with pytest.raises(sl.SingularKernelError, match="samples without features: rows 6,") as caught:
        sl.Interpolator(relu, Z, g)
    assert caught.value.rows == [6]
    assert sl.Interpolator(relu, Z, g, ridge=1e-3).predict(np.zeros((1, 5))) == 0
    with pytest.raises(sl.SingularKernelError, match="rows 0, 1, 2,"):
        Solve(np.zeros((3, 3)), np.ones(3))


def test_matrices_that_are_not_symmetric_are_refused():
    with pytest.raises(ValueError, match="symmetric"):
        sl.Interpolator.from_gram(np.array([[2.0, 1.0], [0.0, 2.0]]), np.ones(2))


NEAR = np.array([[1.0, 1 - 1e-6], [1 - 1e-6, 1.0]])


@pytest.mark.parametrize("dtype", [None, torch.float64, "float64", np.float64, np.dtype(">f8")])
def test_the_precision_of_a_matrix_may_be_told_in_every_way(dtype):
    assert Solve(NEAR, np.ones(2), dtype=dtype).coefficients.tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    ("K", "dtype"),
    [
        *((NEAR, dtype) for dtype in (torch.float32, "float32", np.float32, np.dtype("f4"))),
        *((NEAR.astype("f4"), dtype) for dtype in (None, torch.float64, "float64")),  # never finer than its numbers
        (NEAR.astype(">f4"), None),
        (torch.tensor(NEAR, dtype=torch.float32), None),
        (torch.tensor(NEAR, dtype=torch.float32), torch.float64),
    ],
)
def test_single_precision_is_judged_more_strictly(K, dtype):
    with pytest.raises(sl.SingularKernelError) as caught:
        sl.Interpolator.from_gram(K, np.ones(2), dtype=dtype)
    assert caught.value.rows == [0, 1]


@pytest.mark.parametrize("K", [np.eye(2, dtype=np.float16), torch.eye(2, dtype=torch.bfloat16)])
def test_half_precision_is_refused(K):
    with pytest.raises(ValueError, match=r"^K must be computed in float32 or float64"):
        Solve(K, np.ones(2))


def test_whole_numbers_are_exact():
    for K in (4 * np.eye(2, dtype=np.int8), torch.tensor([[4, 0], [0, 4]]), [[4, 0], [0, 4]]):
        assert Solve(K, [1, -1]).coefficients.tolist() == [0.25, -0.25]


@pytest.mark.parametrize("dtype", ["float16", torch.bfloat16, int, "double precision"])
def test_other_precisions_are_refused(dtype):
    with pytest.raises(ValueError, match=r"^dtype must be torch.float32 or torch.float64"):
        Solve(np.eye(2), np.ones(2), dtype=dtype)
    spy = Spy()
    spy.dtype = dtype
    with pytest.raises(ValueError, match=r"^kernel.dtype must be"):
        sl.Interpolator(spy, Z_OK, G_OK)
    assert spy.calls == 0


def near_twins():
    generator = np.random.default_rng(1)
    Z, g = generator.standard_normal((30, 20)), np.sign(generator.standard_normal(30))
    Z[1] = Z[0] + 1e-4 * generator.standard_normal(20)
    g[:2] = 1.0, -1.0
    return Z, g


def test_a_tangent_kernel_is_judged_in_the_precision_of_its_network():
    Z, g = near_twins()
    network = sl.fully_connected(20, widths=(100,), act="tanh")
    with pytest.raises(sl.SingularKernelError) as caught:
        sl.Interpolator(sl.EmpiricalTangent(network), Z, g)
    assert caught.value.rows == [0, 1]
    m = sl.Interpolator(sl.EmpiricalTangent(network.double()), Z, g)  # the same weights
    np.testing.assert_allclose(m.predict(Z), g, atol=1e-6)


def test_a_kernel_that_tells_no_precision_is_judged_by_its_matrix():
    class Single(Spy):
        def gram(self, A, B):
            A, B = (np.hstack([C, np.ones((len(C), 1))]).astype(np.float32) for C in (A, B))
            return A @ B.T

    class Told(Single):
        dtype = "float64"

    Z = np.array([[1.0, 0.0, 0.0], [1.0, 1e-4, 0.0]])
    for kernel in (Single(), Told()):
        with pytest.raises(sl.SingularKernelError) as caught:
            sl.Interpolator(kernel, Z, [1.0, -1.0])
        assert caught.value.rows == [0, 1]


def test_the_error_can_be_made_without_rows():
    assert sl.SingularKernelError("no").rows == []
    assert issubclass(sl.SingularKernelError, ValueError)
