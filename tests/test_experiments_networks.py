"""Accuracies and stability of trained networks against their definitions."""

import numpy as np
import pytest

import spurlib as sl
from spurlib.experiments import NetworkCurve, NetworkStability, experiment, network_curve, network_stability

COMMON = {"kind": "fc", "act": "relu", "dtype": "float32", "n_test": 60}
SIGNS = {**COMMON, "data": "synthetic", "d": 30, "alpha": 0.5, "loss": "square"}
CLASSES = {**COMMON, "data": "digits", "loss": "cross-entropy"}


def test_network_curves_against_their_definitions():
    classes, loss = 10, "cross-entropy"
    cell = NetworkCurve(**CLASSES, classes=classes, sizes=(10, 25), epochs=60, until=None)
    rows = network_curve(cell, 1, "cpu")
    for row, n in zip(rows, [10, 25], strict=True):
        chosen = {"n": 25, "n_test": 60, "classes": range(classes), "seed": 1}
        zero, fresh = (sl.framed_images("digits", query=query, **chosen) for query in ("zero", "fresh"))
        g = zero.g
        assert row["n"] == n and row["source"] == zero.source and row["epochs_run"] == 60
        start = sl.fully_connected(zero.Z.shape[1], classes, seed=1)
        model, _ = sl.train(start, zero.Z[:n], g[:n], loss=loss, epochs=60, seed=1)
        f = sl.predict(model, zero.Z[:n]).astype(float)
        entropy = -np.log(np.exp(f)[np.arange(n), g[:n].astype(int)] / np.exp(f).sum(axis=1))
        assert row["train_loss"] == pytest.approx(entropy.mean(), rel=0.1) and row["train_accuracy"] == 1.0
        frames = zero.Z_test * zero.spurious
        for name, Z, labels in (
            ("spurious_accuracy_zero", zero.Z_spurious[:n], g[:n]),
            ("spurious_accuracy_fresh", fresh.Z_spurious[:n], g[:n]),
            ("unseen_accuracy", frames, zero.g_test),
        ):
            answers = sl.predict(model, Z).argmax(axis=1)
            assert row[name] == np.mean(answers == labels)
            pairs = np.mean([np.mean(np.roll(answers, shift) == labels) for shift in range(len(labels))])
            assert row[f"chance_{name}"] == pytest.approx(pairs)
        assert row["test_accuracy"] == np.mean(sl.predict(model, zero.Z_test).argmax(axis=1) == zero.g_test)


def test_network_curves_of_a_convolutional_network():
    cell = NetworkCurve(**{**CLASSES, "kind": "cnn"}, classes=3, sizes=(20,), epochs=300, until=0.1)
    (row,) = network_curve(cell, 0, "cpu")
    assert row["train_accuracy"] == 1.0 and row["epochs_run"] < 300 and "classes 0, 1 and 2" in row["source"]


def test_network_curves_of_signs():
    cell = NetworkCurve(**SIGNS, sizes=(10, 25), epochs=300, until=1e-2)
    for row in network_curve(cell, 2, "cpu"):
        assert row["train_accuracy"] == 1.0 and row["train_loss"] < 0.02 and row["epochs_run"] < 300
        assert row["spurious_accuracy_zero"] > 0.7 and row["source"].startswith("standard Gaussian")


@pytest.mark.parametrize("relabel", [True, False])
def test_network_stability_against_training_again(relabel):
    cell = NetworkStability(**SIGNS, sizes=(12,), left_out=(0, 7), epochs=60, relabel=relabel)
    rows = network_stability(cell, 4, "cpu")
    zero, fresh = (sl.synthetic(n=12, d=30, alpha=0.5, n_test=60, seed=4, query=query) for query in ("zero", "fresh"))
    start = sl.fully_connected(30, seed=4)
    model, _ = sl.train(start, zero.Z, zero.g, epochs=60, seed=4)
    for row, i in zip(rows, [0, 7], strict=True):
        others, _ = sl.train(start, np.delete(zero.Z, i, axis=0), np.delete(zero.g, i), epochs=60, seed=4)
        flipped, _ = sl.train(start, zero.Z, np.where(np.arange(12) == i, -zero.g, zero.g), epochs=60, seed=4)
        expected = {"n": 12, "sample": i, "label": zero.g[i]}
        for query, Z in (("", zero.Z), ("_zero", zero.Z_spurious), ("_fresh", fresh.Z_spurious)):
            f, without, f_flipped = (sl.predict(m, Z[i : i + 1])[0] for m in (model, others, flipped))
            expected[f"stability{query}"] = f - without
            if query:
                f_all = sl.predict(model, Z)
                expected[f"output{query}"] = f
                expected[f"spurious_accuracy{query}"] = np.mean(np.where(f_all >= 0, 1, -1) == zero.g)
                expected[f"covariance{query}"] = np.cov(f_all, zero.g, bias=True)[0, 1]
            if relabel:
                expected[f"stability_relabeled{query}"] = f_flipped - without
        f_train, f_test = sl.predict(model, zero.Z), sl.predict(model, zero.Z_test)
        expected |= {
            "train_loss": np.mean((f_train - zero.g) ** 2),
            "train_accuracy": 1.0,
            "test_accuracy": np.mean(np.where(f_test >= 0, 1, -1) == zero.g_test),
        }
        assert row.pop("source") == zero.source
        assert row == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_a_shortened_stability_is_part_of_the_whole():
    cell = NetworkStability(**SIGNS, sizes=(12, 20), left_out=(0, 7, 9), epochs=20, relabel=True)
    whole, short = (network_stability(c, 0, "cpu") for c in (cell, experiment("network-stability").shorten(cell)))
    assert len(whole) == 6 and len(short) == 2
    for left, right in zip(short, whole, strict=False):
        assert left.pop("source") == right.pop("source") and left == pytest.approx(right, abs=1e-6)
