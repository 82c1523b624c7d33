"""Accuracy curves against refits, and their shortened cells."""

from dataclasses import replace

import numpy as np
import pytest

import spurlib as sl
from spurlib.experiments import Curve, accuracy_curve, experiment


def refit(Phi, g):
    return np.linalg.pinv(Phi) @ g


@pytest.mark.parametrize(
    ("kind", "act", "d", "k"), [("rf", "h1+h4", 20, 150), ("rf", "relu", 20, 150), ("ntk", "h1+0.5*h4", 12, 10)]
)
def test_accuracy_curves_against_refits(kind, act, d, k):
    common = {"data": "synthetic", "kind": kind, "act": act, "d": d, "k": k, "alpha": 0.5}
    rows = accuracy_curve(Curve(**common, dtype="float64", sizes=(6, 15), n_test=40), 3, "cpu")
    features = {"rf": sl.RandomFeatures, "ntk": sl.TangentFeatures}[kind](act, d=d, k=k, seed=3)
    for row, n in zip(rows, [6, 15], strict=True):
        expected = {"n": n, "source": f"standard Gaussian, d = {d}"}
        for query in ("zero", "fresh"):
            data = sl.synthetic(n=n, d=d, alpha=0.5, n_test=40, seed=3, query=query)
            g, Phi, Phi_s = data.g, features.features(data.Z), features.features(data.Z_spurious)
            theta = refit(Phi, g)
            F, S, without = np.empty(n), np.empty(n), np.empty(n)
            for i in range(n):
                others = np.delete(Phi, i, axis=0)
                theta_out = refit(others, np.delete(g, i))
                S[i], without[i] = Phi[i] @ (theta - theta_out), Phi_s[i] @ theta_out
                new = Phi[i] - np.linalg.pinv(others) @ (others @ Phi[i])
                F[i] = Phi_s[i] @ new / (new @ new)
            f_s, f_test = Phi_s @ theta, features.features(data.Z_test) @ theta
            expected |= {
                f"spurious_accuracy_{query}": np.mean(np.sign(f_s) == g),
                f"alignment_{query}": F.mean(),
                f"alignment_sd_{query}": np.sqrt(np.mean((F - F.mean()) ** 2)),
                f"product_{query}": np.mean(F * S * g),
                f"covariance_{query}": np.mean(f_s * g),
                f"noise_{query}": without.std(),
                f"spread_{query}": np.std(f_s * g),
                "test_accuracy": np.mean(np.sign(f_test) == data.g_test),
                "test_risk": np.mean((f_test - data.g_test) ** 2),
                "loo_risk": np.mean(S**2),
                "stability": np.mean(S * g),
            }
        assert set(row) == set(expected)
        assert row.pop("source") == expected.pop("source")
        assert row == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_accuracy_curves_of_images_say_which(tmp_path):
    cell = Curve(data="digits", kind="rf", act="relu", k=500, dtype="float32", sizes=(10, 40), n_test=50)
    rows = accuracy_curve(cell, 0, "cpu")
    assert [row["n"] for row in rows] == [10, 40]
    assert rows[0]["source"].startswith("digits") and rows[1]["test_accuracy"] > 0.8
    assert accuracy_curve(replace(experiment("rf-mnist").shorten(cell), sizes=(10,)), 0, "cpu")[0]["n"] == 10


def test_rows_of_a_shortened_cell_are_rows_of_the_whole():
    (cell, *_) = experiment("rf-cifar10").cells("page")
    cell = replace(cell, data="synthetic", d=300, alpha=0.5, k=500, n_test=50, sizes=(10, 20, 50, 100, 150))
    whole, short = (accuracy_curve(c, 1, "cpu") for c in (cell, experiment("rf-cifar10").shorten(cell)))
    assert len(short) == 4
    for left, right in zip(short, whole[:4], strict=True):
        assert left.pop("source") == right.pop("source")
        assert left == pytest.approx(right, rel=1e-9, abs=1e-12)
