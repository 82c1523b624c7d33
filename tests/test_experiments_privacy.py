"""The experiment on privacy: its rows against their definitions, its attacks against planted ones."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

import spurlib as sl
from spurlib.experiments import Privacy, answers_without, centered, experiment, privacy_curve
from spurlib.experiments.privacy import _advantage
from spurlib.privacy import gdp_epsilon

DESCENT = {"steps": 15, "rate": 10.0, "clip": 0.2}
CELL = Privacy(act="relu", k=150, d=10, sizes=(40,), audited=8, n_test=30, draws=4, mus=(0.5, 2.0), **DESCENT)


def descend(Phi, g, weights, *, steps, rate, clip):
    """Parameters after clipped descent, gradients formed; samples of weight zero do not count."""
    theta = np.zeros(Phi.shape[1])
    for _ in range(steps):
        gradients = (Phi @ theta - g)[:, None] * Phi
        lengths = np.linalg.norm(gradients, axis=1)
        theta -= rate / len(g) * (weights * np.minimum(1, clip / lengths)) @ gradients
    return theta


def test_rows_without_noise_against_gradients_and_refits():
    *private, noiseless, interpolator = privacy_curve(CELL, 5, "cpu")
    assert [row["mu"] for row in private] == [0.5, 2.0] and {row["run"] for row in private} == {"private"}
    assert [row["epsilon"] for row in private] == [gdp_epsilon(mu, 1 / 40**2) for mu in (0.5, 2.0)]
    assert [row["bound"] for row in private] == pytest.approx(norm.cdf([0.25, 1.0]))
    act = centered("relu")
    data = {q: sl.synthetic(n=40, d=10, alpha=0.5, n_test=30, query=q, seed=5) for q in ("zero", "fresh")}
    rf = sl.RandomFeatures(act, d=10, k=150, seed=5)
    scale = math.sqrt(150 * (0.5 - 1 / (2 * math.pi)))  # E relu^2 - (E relu)^2
    Phi, g = rf.features(data["zero"].Z) / scale, data["zero"].g
    for row, fit in (
        (noiseless, lambda w: descend(Phi, g, w, **DESCENT)),
        (interpolator, lambda w: np.linalg.pinv(Phi[w > 0]) @ g[w > 0]),
    ):
        theta = fit(np.ones(40))
        test = rf.features(data["zero"].Z_test) / scale @ theta
        assert row["test_accuracy"] == pytest.approx(np.mean(test * data["zero"].g_test > 0))
        assert math.isinf(row["mu"]) and math.isinf(row["epsilon"]) and row["bound"] == 1
        for q in ("zero", "fresh"):
            asked = rf.features(data[q].Z_spurious[:8]) / scale
            f = asked @ theta
            others = [asked[i] @ fit(1.0 * (np.arange(40) != i)) for i in range(8)]
            assert row[f"spurious_accuracy_{q}"] == np.mean(f * g[:8] > 0)
            assert row[f"informed_{q}"] == np.mean((f - others) * g[:8] > 0)
    assert interpolator["advantage_loss"] > 0.6 and interpolator["clipped"] == 0 < noiseless["clipped"] < 1


def test_answers_without_a_sample():
    rng = np.random.default_rng(0)
    Phi, Q, g = rng.standard_normal((12, 30)) / 5, rng.standard_normal((3, 30)), np.sign(rng.standard_normal(12))
    K = np.vstack([Phi, Q]) @ np.vstack([Phi, Q]).T
    settings = {"steps": 9, "rate": 2.0, "clip": 0.4}
    f = answers_without(K, g, [0, 7, 7], [12, 13, 14], **settings)
    expected = [q @ descend(Phi, g, np.arange(12) != i, **settings) for q, i in zip(Q, (0, 7, 7), strict=True)]
    assert np.allclose(f, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"K": np.triu(np.ones((5, 5)))}, "K must be symmetric"),
        ({"K": np.full((5, 5), np.nan)}, "K holds NaN"),
        ({"g": np.ones(6)}, "g must be a list of at most 5 labels"),
        ({"left_out": [0, 3]}, "left_out must be an integer of at least 0 and below 3"),
        ({"left_out": [0, -1]}, "left_out must be an integer of at least 0"),
        ({"left_out": [0.5, 1]}, "left_out must be an integer"),
        ({"asked": [3, 5]}, "asked must be an integer of at least 0 and below 5"),
        ({"asked": [3]}, "left_out and asked must be equally many, got 2 and 1"),
        ({"asked": 3}, "asked must be a list of positions"),
        ({"steps": 0}, "steps must be a positive integer"),
        ({"rate": -1.0}, "rate must be"),
        ({"clip": math.nan}, "clip must be"),
    ],
)
def test_answers_without_refuses_bad_input_by_name(change, message):
    arguments = {"K": np.eye(5), "g": np.ones(3), "left_out": [0, 1], "asked": [3, 4]} | change
    with pytest.raises(ValueError, match=message):
        answers_without(**({"steps": 2, "rate": 1.0, "clip": 1.0} | arguments))


def test_single_precision_is_told_to_the_interpolator():
    with pytest.raises(sl.SingularKernelError):  # a ridge of 1e-8 does not mend a float32 kernel of rank k < n
        privacy_curve(replace(CELL, dtype="float32", k=20), 5, "cpu")
    assert privacy_curve(replace(CELL, k=20), 5, "cpu")


def test_the_constant_is_removed():
    act = centered("relu")
    assert np.allclose(act.coefficients(4), sl.activation("relu").coefficients(4) * (np.arange(5) > 0), atol=1e-12)
    assert act.name == "relu-0.398942" and act.derivative(np.array([2.0])) == 1


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_advantage_of_a_planted_shift(shift):
    rng = np.random.default_rng(1)
    found = _advantage(rng.standard_normal((20, 1000)) + shift, rng.standard_normal((20, 1000)))
    assert found == pytest.approx(2 * norm.cdf(shift / 2) - 1, abs=0.02)


def test_the_bound_holds_and_rows_of_a_shortened_cell_are_rows_of_the_whole():
    tables = [[privacy_curve(c, s, "cpu") for s in range(8)] for c in (CELL, experiment("privacy").shorten(CELL))]
    for whole, short in zip(*tables, strict=True):
        assert [row["mu"] for row in short] == [0.5, math.inf, math.inf]
        assert short[0] == whole[0] and short[1:] == whole[2:]
    for position in range(2):
        rows = [run[position] for run in tables[0]]
        for reading in ("spurious_accuracy_zero", "spurious_accuracy_fresh", "informed_zero", "informed_fresh"):
            values = [row[reading] for row in rows]
            assert np.mean(values) - 3 * np.std(values, ddof=1) / math.sqrt(8) < rows[0]["bound"]
