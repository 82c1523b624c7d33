"""The report of the regime, by hand."""

import numpy as np
import pytest

import spurlib as sl


def test_regime_of_random_features():
    report = sl.regime(n=1000, d=100, k=30_000)
    np.testing.assert_allclose(list(report.ratios.values()), [1000 * 47.717083 / 3e4, 10, 1e-3], rtol=1e-6)
    assert [report.met(name) for name in report.ratios] == [False, False, True]
    text, page = str(report), report._repr_mimebundle_()["text/html"]
    assert text.startswith("random features, N = 1000, d = 100, k = 30000: ") and text.count("ABOVE") == 2
    assert "1 of 3 ratios below 1" in page and page.count("above 1") == 2
    assert report._repr_mimebundle_()["text/plain"] == text


def test_regime_of_tangent_features():
    report = sl.regime(n=3000, d=200, k=100, kind="ntk")
    assert "tangent features" in str(report)
    expected = [3000 * 64.101859 / 2e4, 27e9 / 1.6e9, 1 / 15]
    np.testing.assert_allclose(list(report.ratios.values()), expected, rtol=1e-6)
    assert [report.met(name) for name in report.ratios] == [False, False, True]


def test_no_size_with_more_samples_than_features_is_below_one():
    for n in range(1, 30):
        assert sl.regime(n=n, d=5, k=n - 1 or 1).ratios["N log^2 N / k"] >= 1
        assert sl.regime(n=n, d=1, k=n - 1 or 1, kind="ntk").ratios["N log^2 N / (k d)"] >= 1


def test_bad_regimes():
    for argument in ("n", "d", "k"):
        with pytest.raises(ValueError, match=f"^{argument} must be"):
            sl.regime(**{"n": 1, "d": 1, "k": 1, argument: 0})
    with pytest.raises(ValueError, match="kind must be"):
        sl.regime(n=1, d=1, k=1, kind="cnn")
