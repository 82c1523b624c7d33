"""Alignment across architectures: definitions recomputed, and slices."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import spurlib as sl
from spurlib.experiments import (
    Architecture,
    Tolerance,
    architecture,
    architecture_alignment,
    experiment,
    of_gradients,
    of_training,
    settings,
    spurious_data,
)
from spurlib.experiments.architectures import _interpolator

CELL = Architecture(
    data="synthetic",
    pattern="frame",
    kind="fc",
    act="tanh",
    d=30,
    alpha=0.5,
    sizes=(12,),
    n_test=60,
    epochs=40,
    left_out=(0, 7),
)


def features(model, Z):
    """Gradients by one backward pass for each sample."""
    rows = []
    for z in torch.as_tensor(Z, dtype=torch.float32):
        model.zero_grad()
        model(z[None])[0, 0].backward()
        rows.append(torch.cat([p.grad.flatten() for p in model.parameters()]).double().numpy())
    return np.array(rows)


def new(Phi, i):
    """What is new in sample i: its features without their projection onto those of the others."""
    others = np.delete(Phi, i, axis=0)
    return Phi[i] - np.linalg.pinv(others) @ (others @ Phi[i])


def alignments(model, Z, Q):
    Phi, Phi_s = features(model, Z), features(model, Q)
    return np.array([Phi_s[i] @ new(Phi, i) / (new(Phi, i) @ new(Phi, i)) for i in range(len(Q))])


def test_the_measurement_against_its_definitions():
    rows = architecture_alignment(CELL, 4, "cpu")
    data = sl.synthetic(n=12, d=30, alpha=0.5, n_test=60, query="zero", seed=4)
    start = sl.fully_connected(30, act="tanh", seed=4)
    full, _ = sl.train(start, data.Z, data.g, epochs=40, seed=4)
    K, K_end = (features(m, data.Z) @ features(m, data.Z).T for m in (start, full))
    f, f_s, f_test = (sl.predict(full, A) for A in (data.Z, data.Z_spurious, data.Z_test))
    common = {
        "n": 12,
        "parameters": 31 * 500 + 501 * 200 + 201,
        "train_loss": np.mean((f - data.g) ** 2),
        "test_accuracy": np.mean((f_test >= 0) == (data.g_test > 0)),
        "test_risk": np.mean((f_test - data.g_test) ** 2),
        "spurious_accuracy": np.mean((f_s >= 0) == (data.g > 0)),
        "covariance": np.cov(f_s, data.g, bias=True)[0, 1],
        "similarity": np.sum(K * K_end) / np.linalg.norm(K) / np.linalg.norm(K_end),
    }
    F = {"start": alignments(start, data.Z, data.Z_spurious), "end": alignments(full, data.Z, data.Z_spurious)}
    for point, kernel, labels in (("start", K, data.g - sl.predict(start, data.Z)), ("end", K_end, data.g)):
        S = np.empty(12)
        for i in range(12):
            keep = np.arange(12) != i
            S[i] = labels[i] - kernel[i, keep] @ np.linalg.solve(kernel[np.ix_(keep, keep)], labels[keep])
        common |= {
            f"alignment_{point}": F[point].mean(),
            f"alignment_sd_{point}": F[point].std(),
            f"kernel_{point}": np.cov(F[point] * S, data.g, bias=True)[0, 1],
            f"condition_{point}": np.linalg.cond(kernel),
            f"ridge_{point}": 0.0,
        }
    for row, i in zip(rows, [0, 7], strict=True):
        other, _ = sl.train(start, np.delete(data.Z, i, axis=0), np.delete(data.g, i), epochs=40, seed=4)
        S, S_s = (
            sl.predict(full, A[i : i + 1])[0] - sl.predict(other, A[i : i + 1])[0] for A in (data.Z, data.Z_spurious)
        )
        between = sl.fully_connected(30, act="tanh")
        between.load_state_dict({k: (v + other.state_dict()[k]) / 2 for k, v in full.state_dict().items()})
        expected = common | {"sample": i, "label": data.g[i], "stability": S, "stability_query": S_s}
        expected |= {point: F[point][i] for point in F}
        expected["middle"] = alignments(between, data.Z, data.Z_spurious[: i + 1])[i]
        expected["ridge_middle"] = 0.0
        assert row.pop("source") == data.source
        assert row == pytest.approx(expected, rel=2e-3, abs=2e-3)


def test_nothing_left_out_gives_one_row_a_size():
    whole = replace(CELL, sizes=(6, 12), left_out=())
    rows = architecture_alignment(whole, 0, "cpu")
    assert [row["n"] for row in rows] == [6, 12] and "sample" not in rows[0]
    short = experiment("architecture-sizes").shorten(whole)
    (again,) = architecture_alignment(replace(short, sizes=(6,)), 0, "cpu")
    assert again["alignment_start"] == pytest.approx(rows[0]["alignment_start"], abs=1e-6)


def test_a_shortened_cell_is_part_of_the_whole():
    whole, short = (architecture_alignment(c, 1, "cpu") for c in (CELL, experiment("architectures").shorten(CELL)))
    assert len(whole) == 2 and len(short) == 1
    assert short[0].pop("source") == whole[0].pop("source") and short[0] == pytest.approx(whole[0], abs=1e-6)


@pytest.mark.parametrize("pattern", ["frame", "watermark", "patch", "cast"])
@pytest.mark.parametrize("kind", ["deep", "cnn", "vit"])
def test_every_network_takes_every_pattern(kind, pattern):
    cell = Architecture("digits", pattern, kind, "relu", sizes=(10,), left_out=(3,), n_test=60, epochs=5)
    (row,) = architecture_alignment(cell, 0, "cpu")
    numbers = [value for value in row.values() if not isinstance(value, str)]
    assert np.isfinite(numbers).all() and row["source"].startswith("digits") and row["sample"] == 3


def test_unknown_networks_list_the_known():
    data = spurious_data("digits", "frame", n=2, n_test=2)
    with pytest.raises(ValueError, match="kind: 'rnn' is not known; known are fc, deep, cnn, resnet18, vit"):
        architecture("rnn", data, act="relu")
    with pytest.raises(ValueError, match="pattern must be one of"):
        spurious_data("digits", "scratch", n=2)
    flat = spurious_data("synthetic", "frame", n=2, d=9, alpha=0.5, n_test=2)
    with pytest.raises(ValueError, match="image_shape"):
        architecture("resnet18", flat, act="relu")


def test_a_singular_kernel_gets_a_small_ridge():
    Phi = np.random.default_rng(0).standard_normal((5, 9))
    regular, doubled = Phi @ Phi.T, np.vstack([Phi, Phi[:1]]) @ np.vstack([Phi, Phi[:1]]).T
    g = np.arange(6.0)
    m = _interpolator(regular, g[:5], torch.float32)
    assert m.ridge == 0
    np.testing.assert_array_equal(m.alignment(regular), sl.Interpolator.from_gram(regular, g[:5]).alignment(regular))
    m = _interpolator(doubled, g, torch.float32)
    assert m.ridge == pytest.approx(1e-5 * np.trace(doubled) / 6)
    expected = np.linalg.solve(doubled + m.ridge * np.eye(6), doubled).T
    np.testing.assert_allclose(m.alignment(doubled), expected, atol=1e-6)


def near_twins(size):
    """A network with two hidden layers, and samples of which two differ by little and have opposite labels."""
    generator = np.random.default_rng(1)
    Z, g = generator.standard_normal((30, 20)), np.resize([1.0, -1.0], 30)
    Z[1] = Z[0] + size * generator.standard_normal(20)
    return sl.fully_connected(20, widths=(100,), act="tanh", seed=1), Z, g


def test_gradients_of_single_precision_are_judged_as_such():
    model, Z, g = near_twins(1e-4)
    K = sl.EmpiricalTangent(model).gram(Z)
    assert sl.Interpolator.from_gram(K, g).ridge == 0  # in double precision the matrix would pass
    single, double = (_interpolator(K, g, dtype) for dtype in (torch.float32, torch.float64))
    assert single.ridge > 0 and double.ridge == 0
    order = np.roll(np.arange(30), 7)
    permuted = _interpolator(sl.EmpiricalTangent(model).gram(Z[order]), g[order], torch.float32)
    np.testing.assert_allclose(permuted.predict(K[:, order]), single.predict(K), atol=2e-2)
    # rounding errors decide what the other says
    errors = 1e-7 * np.random.default_rng(2).standard_normal((30, 30)) * np.trace(K) / 30
    moved = _interpolator(K + errors + errors.T, g, torch.float64).coefficients.numpy()
    assert np.abs(moved / double.coefficients.numpy() - 1).max() > 0.1


def test_the_ridge_of_a_sample_with_large_gradients_is_not_judged_again():
    Phi = np.random.default_rng(0).standard_normal((6, 9))
    Phi[:2] *= 30  # twins, with gradients above the average
    Phi[1] = Phi[0]
    m = _interpolator(Phi @ Phi.T, np.arange(6.0), torch.float32)
    assert m.ridge > 0 and m.predict(Phi @ Phi.T)[:2] == pytest.approx([0.5, 0.5], abs=1e-2)


def test_ridges_and_conditions_are_recorded(monkeypatch):
    def doubled(*arguments, **options):
        data = sl.synthetic(*arguments, **options)
        data.Z[1], data.g[1] = data.Z[0], data.g[0]
        return data

    monkeypatch.setattr(settings, "synthetic", doubled)
    for row in architecture_alignment(replace(CELL, epochs=2, n_test=5), 4, "cpu"):
        assert min(row["ridge_start"], row["ridge_end"], row["ridge_middle"]) > 0
        assert row["condition_start"] == row["condition_end"] == 1 / torch.finfo(torch.float32).eps


def test_tolerances_of_gradients():
    row = {"kind": "fc", "condition_start": 1e4, "condition_end": 5e5, "n": 40, "n_test": 1000}
    assert of_gradients("alignment_sd_start", row) == of_gradients("start", row) == Tolerance(3e-3)
    assert of_gradients("condition_start", row) == of_gradients("start", row | {"kind": "resnet18"}) == Tolerance(6e-3)
    assert of_gradients("kernel_end", row) == of_gradients("ridge_middle", row) == Tolerance(0.2)
    assert of_gradients("middle", row) == Tolerance(0.6, statistical=True)
    for quantity in ("stability_query", "covariance", "test_accuracy", "label", "train_loss"):
        assert of_gradients(quantity, row) == of_training(quantity, row)
