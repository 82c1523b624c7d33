"""Kernels on several classes: each size against a fit of its own, and the seeds of the networks' data."""

import numpy as np
import pytest

import spurlib as sl
from spurlib.experiments import ClassCurve, class_curve, experiment

SMALL = ClassCurve(data="digits", classes=3, kind="rf", act="relu", sizes=(5, 20, 60), n_test=40, asked=30)


@pytest.mark.parametrize("kind", ["rf", "ntk"])
def test_each_size_is_a_fit_of_its_own(kind):
    settings = ClassCurve(**{**vars(SMALL), "kind": kind})
    rows = class_curve(settings, 1, "cpu")
    zero, fresh = (
        sl.framed_images("digits", n=60, n_test=40, classes=range(3), query=query, seed=1)
        for query in ("zero", "fresh")
    )
    for n, row in zip((5, 20, 60), rows, strict=True):
        labels = np.eye(3)[zero.g[:n].astype(int)] - 1 / 3
        m = sl.Interpolator(sl.InfiniteWidth("relu", kind), zero.Z[:n], labels)
        asked = min(n, 30)
        found = {
            "test_accuracy": (zero.Z_test, zero.g_test),
            "spurious_accuracy_zero": (zero.Z_spurious[:asked], zero.g[:asked]),
            "spurious_accuracy_fresh": (fresh.Z_spurious[:asked], zero.g[:asked]),
            "unseen_accuracy": (np.where(zero.spurious, zero.Z_test, 0.0), zero.g_test),
        }
        assert row["n"] == n and row["source"] == zero.source
        for name, (Q, g) in found.items():
            predicted = m.at(Q).predictions.argmax(axis=1)
            assert row[name] == np.mean(predicted == g)
            if name != "test_accuracy":
                chance = np.mean(predicted[:, None] == np.random.default_rng(0).permutation(g)[None, :])
                assert row[f"chance_{name}"] == pytest.approx(chance, abs=1e-12)


def test_the_frame_is_remembered_and_an_unseen_one_tells_nothing():
    table = experiment("ten-classes").table("page", seeds=3)
    large = table[table.n == 300].groupby("kind")[["spurious_accuracy_zero", "unseen_accuracy"]].mean()
    assert (large.spurious_accuracy_zero > 0.5).all() and (large.unseen_accuracy < 0.2).all()
