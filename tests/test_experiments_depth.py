"""Depth of trained networks: definitions recomputed one network at a time, kernels of infinite width, the record."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import spurlib as sl
from spurlib.experiments import (
    DepthOfNetworks,
    Tolerance,
    depth_of_networks,
    experiment,
    load_record,
    ntk_network,
    verify,
)

CELL = DepthOfNetworks(
    "synthetic", 2, (12,), d=20, alpha=0.5, left_out=3, n_test=60, width=30, epochs=200, momentum=0.95
)


def outputs(weights, Z):
    """Of a ReLU network in the parametrization of the tangent kernel."""
    x = Z @ weights[0].T / Z.shape[1] ** 0.5
    for w in weights[1:]:
        x = x.relu() @ w.T * (2 / w.shape[1]) ** 0.5
    return x[:, 0]


def gradients(weights, Z):
    w = [each.clone().requires_grad_() for each in weights]
    return np.stack(
        [torch.cat([g.flatten() for g in torch.autograd.grad(f, w, retain_graph=True)]) for f in outputs(w, Z)]
    )


def descend(weights, Z, labels, rate):
    """Full-batch gradient descent with momentum, of all weights, in double precision."""
    w = [each.clone().requires_grad_() for each in weights]
    v, goal = [torch.zeros_like(each) for each in w], outputs(weights, Z) + labels
    for _ in range(200):
        loss = ((outputs(w, Z) - goal) ** 2).sum()
        for each, speed, slope in zip(w, v, torch.autograd.grad(loss / 2, w), strict=True):
            speed.mul_(0.95).sub_(rate * slope)
            each.data.add_(speed)
    return [each.detach() for each in w], float(((outputs(w, Z) - goal) ** 2).mean().detach())


def test_the_measurement_against_its_definitions():
    (row,) = depth_of_networks(CELL, 3, "cpu")
    data = sl.synthetic(n=12, d=20, alpha=0.5, n_test=60, seed=3, query="fresh", spherical=True)
    Z, Z_s, Z_test = (torch.as_tensor(A) for A in (data.Z, data.Z_spurious, data.Z_test))
    g = data.g - data.g.mean()
    labels = torch.as_tensor(g)
    start = [w.detach().double() for w in ntk_network(20, 2, 30, 3).parameters()]
    J = gradients(start, Z)
    rate = 1 / np.linalg.eigvalsh(J @ J.T)[-1]
    end, loss = descend(start, Z, labels, rate)
    f_s, f_test = (outputs(end, A) - outputs(start, A) for A in (Z_s, Z_test))
    losses = [loss]
    assert row["test_accuracy"] == np.mean((f_test.numpy() >= 0) == (data.g_test > 0))
    assert row["spurious_accuracy"] == np.mean((f_s.numpy() >= 0) == (data.g > 0))
    S = []
    for i in range(3):
        keep = [j for j in range(12) if j != i]
        other, loss = descend(start, Z[keep], labels[keep], rate)
        losses.append(loss)
        S.append([float((outputs(end, A) - outputs(other, A))[i]) for A in (Z, Z_s)])
    S, S_s = np.transpose(S)
    assert row["train_loss"] == pytest.approx(max(losses), rel=0.1) and row["source"] == data.source
    assert row["alignment"] == pytest.approx((S @ S_s) / (S @ S), rel=2e-3)
    J_end = gradients(end, Z)
    K, K_end = J @ J.T, J_end @ J_end.T
    similarity = np.sum(K * K_end) / np.linalg.norm(K) / np.linalg.norm(K_end)
    assert row["similarity"] == pytest.approx(similarity, abs=1e-3)
    limit = sl.InfiniteWidth("relu", "ntk", depth=2, layers="all")
    kernels = {
        "start": (K, gradients(start, Z_s) @ J.T),
        "limit": (limit.gram(data.Z), limit.gram(data.Z_spurious, data.Z)),
    }
    for name, (K, K_s) in kernels.items():
        s, s_query = [], []
        for i in range(3):
            keep = np.arange(12) != i
            without = np.linalg.solve(K[np.ix_(keep, keep)], g[keep])
            s.append(g[i] - K[i, keep] @ without)
            s_query.append(K_s[i] @ np.linalg.solve(K, g) - K_s[i, keep] @ without)
        assert row[f"{name}_alignment"] == pytest.approx(np.dot(s, s_query) / np.dot(s, s), rel=1e-3)
        assert row[f"{name}_spurious_accuracy"] == np.mean((K_s @ np.linalg.solve(K, g) >= 0) == (data.g > 0))


@pytest.mark.parametrize("depth", [1, 3])
def test_wide_networks_have_the_kernel_of_infinite_width(depth):
    Z = sl.synthetic(n=8, d=10, alpha=0.5, n_test=2, seed=0).Z
    K = np.mean([sl.EmpiricalTangent(ntk_network(10, depth, 1000, seed)).gram(Z) for seed in range(6)], axis=0)
    limit = sl.InfiniteWidth("relu", "ntk", depth=depth, layers="all").gram(Z)
    np.testing.assert_allclose(K / np.trace(K), limit / np.trace(limit), atol=0.05 * np.max(limit) / np.trace(limit))


def test_wide_networks_approach_their_kernel():
    def distance(width):
        rows = [depth_of_networks(replace(CELL, width=width), seed, "cpu")[0] for seed in range(3)]
        return np.mean([abs(row["alignment"] - row["start_alignment"]) for row in rows])

    assert distance(1000) < 0.04 and distance(1000) < distance(20) / 2


def test_a_shortened_cell_is_part_of_the_whole():
    whole = replace(CELL, sizes=(12, 45), epochs=20)
    rows = [depth_of_networks(c, 1, "cpu") for c in (whole, experiment("network-depth").shorten(whole))]
    (short,) = rows[1]
    assert rows[0][1]["n"] == 45 and short.pop("source") == rows[0][0].pop("source")
    assert short == pytest.approx(rows[0][0], abs=1e-4)


def test_pictures_are_taken():
    cell = DepthOfNetworks("mnist", 1, (10,), left_out=2, n_test=20, width=20)
    (row,) = depth_of_networks(cell, 0, "cpu")
    assert row["source"].startswith("MNIST") and row["train_loss"] < 1e-3
    assert np.isfinite([value for value in row.values() if not isinstance(value, str)]).all()


def test_the_record_is_read_and_verified():
    table = load_record("network-depth").table
    assert sorted(set(table["depth"])) == [1, 2, 4, 8] and table["train_loss"].max() < 0.01
    tolerance = experiment("network-depth").tolerance
    assert tolerance("train_loss", {}) == Tolerance(0.5, absolute=1e-6)
    assert tolerance("alignment", {}) == Tolerance(0.03) and tolerance("start_alignment", {}) == Tolerance(4e-3)
    assert verify(experiment("network-depth"), "paper", seed=0)["agrees"].all()
