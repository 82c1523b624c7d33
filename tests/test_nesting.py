"""All training-set sizes from one factor, against a fit of each size."""

import numpy as np
import pytest
import torch

import spurlib as sl


def problem(N=40, d=12, outputs=None, seed=0, name="relu"):
    generator = np.random.default_rng(seed)
    Z, Q = generator.standard_normal((2, N, d))
    g = generator.standard_normal(N if outputs is None else (N, outputs))
    kernel = sl.RandomFeatures(name, d=d, k=500, seed=seed)
    return kernel.gram(Z), g, kernel.gram(Q, Z)


def assert_close(got, expected, tolerance=1e-9):
    assert got.shape == expected.shape
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    assert np.nanmax(np.abs(got - expected)) <= tolerance * np.nanmax(np.abs(expected))


def one_by_one(K, g, K_query, ridge):
    """The same by a fit of each size."""
    N, outputs = len(K), g.shape[1:]
    prediction = np.empty((N, len(K_query), *outputs))
    alignment = np.full((N, N), np.nan)
    residual, stability = np.full((2, N, N, *outputs), np.nan)
    for n in range(1, N + 1):
        m = sl.Solve(K[:n, :n], g[:n], ridge=ridge)
        prediction[n - 1] = m.predict(K_query[:, :n])
        F, S = m.alignment(K_query[:n, :n]), m.stability(K_query[:n, :n])
        alignment[n - 1, :n], residual[n - 1, :n] = np.diag(F), m.loo_residuals
        stability[n - 1, :n] = S[np.arange(n), np.arange(n)]
    return {"prediction": prediction, "alignment": alignment, "residual": residual, "stability": stability}


@pytest.mark.parametrize("ridge", [0.0, 0.7])
@pytest.mark.parametrize("outputs", [None, 1, 3])
def test_every_size_is_a_fit_of_its_own(outputs, ridge):
    K, g, K_query = problem(outputs=outputs)
    curve = sl.nested(K, g, K_query, ridge=ridge)
    for name, expected in one_by_one(K, g, K_query, ridge).items():
        assert_close(getattr(curve, name), expected)
    assert_close(curve.mean_alignment, np.nanmean(curve.alignment, axis=1))


def test_the_last_size_of_a_larger_set_is_the_whole_fit():
    # more than two blocks of the factor, and queries in number other than the samples
    K, g, K_query = problem(N=600, d=100, name="tanh", seed=1)
    K, kept = K + 20 * np.eye(600), K  # well conditioned
    curve, m = sl.nested(K, g, K_query), sl.Solve(K, g)
    at = m.at(K_query)
    assert_close(curve.prediction[-1], at.predictions)
    assert_close(curve.alignment[-1], at.own)
    assert_close(curve.stability[-1], at.own_stability)
    assert_close(curve.residual[-1], m.loo_residuals)
    half = sl.Solve(kept[:300, :300], g[:300], ridge=20)
    assert_close(sl.nested(kept, g, K_query[:50], ridge=20).prediction[299], half.predict(K_query[:50, :300]))
    assert_close(curve.alignment[299, :300], half.at(K_query[:300, :300]).own)


def test_other_queries_with_the_same_factor():
    K, g, K_query = problem()
    curve = sl.nested(K, g, K_query[:7])
    assert curve.prediction.shape == (40, 7)
    for name in ("prediction", "alignment", "stability", "residual", "mean_alignment"):
        assert_close(getattr(curve.at(K_query), name), getattr(sl.nested(K, g, K_query), name), 1e-14)
    assert_close(curve.residual, curve.at(K_query).residual)
    for name in ("alignment", "stability", "mean_alignment"):
        with pytest.raises(ValueError, match=r"^alignments pair query i .* K_query must have 40 rows, got 7"):
            getattr(curve, name)


def test_the_order_of_the_samples_matters_for_all_sizes_but_the_last():
    K, g, K_query = problem()
    order = np.random.default_rng(3).permutation(40)
    curve, other = sl.nested(K, g, K_query), sl.nested(K[order][:, order], g[order], K_query[:, order])
    assert_close(other.prediction[-1], curve.prediction[-1])
    assert np.abs(other.prediction[:-1] - curve.prediction[:-1]).max(axis=1).min() > 1e-3


def test_kinds_in_and_out():
    K, g, K_query = problem()
    expected = sl.nested(K, g, K_query)
    for given in (sl.nested(*map(torch.from_numpy, (K, g, K_query))), sl.nested(K, g, torch.from_numpy(K_query))):
        for name in ("prediction", "alignment", "stability", "residual", "mean_alignment"):
            got = getattr(given, name)
            assert isinstance(got, torch.Tensor) and got.dtype == torch.float64
            assert_close(got.numpy(), getattr(expected, name), 1e-14)
    lists = sl.nested(K.tolist(), g.tolist(), K_query.tolist())
    assert isinstance(lists.prediction, np.ndarray) and isinstance(lists.at(K_query[:2]).prediction, np.ndarray)


def test_nothing_that_was_given_is_changed():
    given = problem()
    copies = [x.copy() for x in given]
    curve = sl.nested(*given, ridge=0.5)
    assert curve.prediction.shape == curve.stability.shape
    for one, other in zip(given, copies, strict=True):
        np.testing.assert_array_equal(one, other)


def test_dependent_samples_are_named():
    generator = np.random.default_rng(0)
    Z, g = generator.standard_normal((60, 20)), generator.standard_normal(60)
    Z[41] = Z[7]
    Z[59] = Z[30] + 1e-7 * generator.standard_normal(20)  # has a factor, but no usable inverse
    for rows, some in (([7, 41], slice(59)), ([30, 58], np.delete(np.arange(60), 41))):
        K = sl.RandomFeatures("tanh", d=20, k=600).gram(Z[some])
        with pytest.raises(sl.SingularKernelError) as caught:
            sl.nested(K, g[some], K)
        assert caught.value.rows == rows
        sl.nested(K, g[some], K, ridge=1.0)


def test_bad_input():
    K, g, K_query = problem()
    for message, (bad_K, labels, queries, options) in {
        "K must be a square matrix": (K[:, :9], g, K_query, {}),
        "K must be symmetric": (K + np.triu(K), g, K_query, {}),
        "K is not positive semidefinite": (-K, g, K_query, {}),
        "g must have one label a sample: 40 samples, 39 labels": (K, g[1:], K_query, {}),
        "g must have 1 or 2 axes": (K, g[:, None, None], K_query, {}),
        "g is too large for K": (1e-200 * K, 1e300 * g, K_query, {}),
        "K_query must have 40 columns": (K, g, K_query[:, 1:], {}),
        "K_query must have 2 axes": (K, g, K_query[0], {}),
        "K_query holds NaN": (K, g, K_query * np.nan, {}),
        "ridge must be": (K, g, K_query, {"ridge": -1}),
        "dtype must be": (K, g, K_query, {"dtype": "float16"}),
    }.items():
        with pytest.raises(ValueError, match=f"^{message}"):
            sl.nested(bad_K, labels, queries, **options)
    with pytest.raises(ValueError, match=r"^K_query must have 40 columns"):
        sl.nested(K, g, K_query).at(K[:, 1:])


def test_single_precision_is_judged_more_strictly():
    near = np.array([[1.0, 1 - 1e-6], [1 - 1e-6, 1.0]])
    sl.nested(near, np.ones(2), near)
    for K, dtype in ((near, "float32"), (near.astype("f4"), None)):
        with pytest.raises(sl.SingularKernelError) as caught:
            sl.nested(K, np.ones(2), near, dtype=dtype)
        assert caught.value.rows == [0, 1]
