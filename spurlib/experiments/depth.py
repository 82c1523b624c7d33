"""Fully connected networks of several depths, retrained without single samples, and their tangent kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, vmap

from ..gradients import EmpiricalTangent
from ..interpolation import Solve
from ..kernels import InfiniteWidth
from ..networks.draws import weights_of
from .definition import Experiment, Row
from .settings import accuracy, spurious_data, up_to
from .tolerances import Tolerance, of_training

__all__ = ["EXPERIMENTS", "DepthOfNetworks", "depth_of_networks", "ntk_network"]

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class DepthOfNetworks:
    """Settings of `depth_of_networks`.

    Attributes
    ----------
    data, dtype : str
        The data, as for `spurious_data`; the precision, stored in the record, ``"float32"``.
    depth, width : int
        Number and width of the hidden layers.
    sizes : tuple of int
        Sizes of the training sets, which are nested.
    left_out : int
        Number of samples, the first ones, that are left out one at a time.
    n_test, epochs : int
        Numbers of test samples and of steps.
    momentum : float
        Momentum of gradient descent.
    d, alpha : int, float
        For synthetic data, the dimension and the fraction of spurious coordinates.
    """

    data: str
    depth: int
    sizes: tuple[int, ...]
    left_out: int = 12
    n_test: int = 500
    width: int = 200
    epochs: int = 400
    momentum: float = 0.0
    dtype: str = "float32"
    d: int | None = None
    alpha: float | None = None


class _Scaled(nn.Module):
    def __init__(self, factor: float, rectified: bool):
        super().__init__()
        self.factor, self.rectified = factor, rectified

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * (x.relu() if self.rectified else x)


def ntk_network(d: int, depth: int, width: int, seed: int) -> nn.Module:
    """Return a ReLU network without biases, in the scaling of the neural tangent kernel.

    The weights are standard Gaussian. The inputs are multiplied by the square root of 1 / d, and the outputs of each
    hidden layer by that of 2 / width. As the width grows, the tangent kernel tends to a multiple of
    ``InfiniteWidth("relu", "ntk", depth=depth, layers="all")``.

    Parameters
    ----------
    d, depth, width : int
        Dimension of a sample, number of hidden layers, and their width.
    seed : int
        Seed of the weights.

    Returns
    -------
    torch.nn.Module
        A map from (n, d) to (n, 1), in float32.
    """
    layers: list[nn.Module] = [_Scaled(d**-0.5, False)]
    with weights_of(seed):
        for inputs in (d, *[width] * (depth - 1)):
            layers += [nn.Linear(inputs, width, bias=False), _Scaled((2 / width) ** 0.5, True)]
        layers.append(nn.Linear(width, 1, bias=False))
        for layer in layers[1::2]:
            nn.init.normal_(layer.weight)  # type: ignore[arg-type]
    return nn.Sequential(*layers)


def _descend(
    model: nn.Module, Z: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, rate: float, c: DepthOfNetworks
) -> tuple[Weights, float]:
    """Weights of one copy of the network for each row of `weights`, and their largest mean square residual.

    The first layer changes within the span of the samples only, so it is trained in coordinates of that span.
    """
    start = dict(model.state_dict())
    first, Q = next(iter(start)), torch.linalg.qr(Z.T).Q
    inside = start | {first: start[first] @ Q}
    p = {name: w.expand(len(weights), *w.shape).clone().requires_grad_() for name, w in inside.items()}
    velocity = [torch.zeros_like(w) for w in p.values()]
    answers = vmap(lambda q: functional_call(model, q, (Z @ Q,))[:, 0])
    goal = model(Z)[:, 0].detach() + labels

    def loss() -> torch.Tensor:
        residuals: torch.Tensor = answers(p) - goal
        return (weights * residuals**2).sum(1)

    for _ in range(c.epochs):
        slopes = torch.autograd.grad(loss().sum() / 2, list(p.values()))
        for w, v, slope in zip(p.values(), velocity, slopes, strict=True):
            v.mul_(c.momentum).sub_(rate * slope)
            w.data.add_(v)
    found = {name: w.detach() for name, w in p.items()}
    worst = float((loss().detach() / weights.sum(1)).max())
    return found | {first: start[first] + (found[first] - inside[first]) @ Q.T}, worst


def depth_of_networks(settings: DepthOfNetworks, seed: int, device: str) -> list[Row]:
    r"""Measure alignment and accuracies of trained networks of one depth, and of their tangent kernels.

    The networks are those of `ntk_network`, minus their outputs at initialization. All weights are trained by gradient
    descent on all samples, with a step size of one over the largest eigenvalue of the tangent kernel matrix at
    initialization. The mean over the training set is subtracted from the labels. Queries have fresh cores.

    Parameters
    ----------
    settings : DepthOfNetworks
        What to measure.
    seed : int
        Seed of data and weights.
    device : str
        Where to train.

    Returns
    -------
    list of dict
        One row for each size, with the entries ``n``; ``source``; ``train_loss``, the largest mean squared residual of
        the networks; ``similarity``, the cosine between the tangent kernel matrices before and after training; and, for
        the network, ``test_accuracy``, ``spurious_accuracy`` over all n samples, and ``alignment``, the sum of
        S(z_i^s) S(z_i) over the samples left out divided by that of S(z_i)^2, where S is the prediction minus that of
        the network trained without the sample. The last three with the prefixes ``start_`` and ``limit_`` are those of
        kernel interpolation of the same labels, with the tangent kernel at initialization and with that of infinite
        width.

    Raises
    ------
    ValueError
        As for the data and the kernels.
    """
    options: dict[str, Any] = {"n_test": settings.n_test, "query": "fresh", "seed": seed}
    if settings.data == "synthetic":
        options |= {"d": settings.d, "alpha": settings.alpha, "spherical": True}
    data = spurious_data(settings.data, n=max(settings.sizes), **options)
    network = partial(ntk_network, data.Z.shape[1], settings.depth, settings.width, seed)
    model, trained = network().to(device), network().to(device)
    limit = InfiniteWidth("relu", "ntk", depth=settings.depth, layers="all")
    rows = []
    for n in settings.sizes:
        Z, Z_s, g, some = data.Z[:n], data.Z_spurious[:n], data.g[:n], np.arange(min(settings.left_out, n))
        points, labels = np.vstack([Z, Z_s, data.Z_test]), g - g.mean()
        kernels = {"limit": limit.gram(points, Z), "start": EmpiricalTangent(model).gram(points, Z)}
        x, rate = (
            torch.as_tensor(points, dtype=torch.float32, device=device),
            1 / np.linalg.norm(kernels["start"][:n], 2),
        )
        weights = torch.ones(len(some) + 1, n, device=device)
        weights[1 + some, some] = 0.0
        p, loss = _descend(model, x[:n], x.new_tensor(labels), weights, float(rate), settings)
        with torch.no_grad():
            full = {name: w[0] for name, w in p.items()}
            f = (functional_call(model, full, (x,)) - model(x))[:, 0].cpu().double().numpy()
            pairs = torch.stack([x[some], x[n + some]], dim=1)
            others = {name: w[1:] for name, w in p.items()}
            without = vmap(lambda q, pair: functional_call(model, q, (pair,)) - model(pair))(others, pairs)[..., 0]
        S, S_s = np.stack([f[some], f[n + some]]) - without.T.cpu().double().numpy()
        trained.load_state_dict(full)
        before, after = kernels["start"][:n], EmpiricalTangent(trained).gram(Z)
        row: Row = {"n": n, "source": data.source, "train_loss": loss}
        row["similarity"] = float(np.sum(before * after) / np.linalg.norm(before) / np.linalg.norm(after))
        found = {"": (f, S, S_s)}
        for name, K in kernels.items():
            fit = Solve(K[:n], labels)
            s = np.asarray(fit.loo_residuals)[some]
            found[f"{name}_"] = (fit.predict(K), s, np.asarray(fit.at(K[n : 2 * n]).own)[some] * s)
        for name, (out, s, s_query) in found.items():
            row[f"{name}test_accuracy"] = accuracy(out[2 * n :], data.g_test)
            row[f"{name}spurious_accuracy"] = accuracy(out[n : 2 * n], g)
            row[f"{name}alignment"] = float(s_query @ s / (s @ s))
        rows.append(row)
    return rows


def _cells(scale: str) -> list[DepthOfNetworks]:
    if scale == "page":
        return [DepthOfNetworks("synthetic", depth, (20,), d=20, alpha=0.5, left_out=4, width=50) for depth in (1, 4)]
    synthetic = partial(DepthOfNetworks, "synthetic", sizes=(40, 100, 200), d=100, alpha=0.5)
    mnist = partial(DepthOfNetworks, "mnist", sizes=(40, 100, 200))
    return [cell(depth=depth) for cell in (synthetic, mnist) for depth in (1, 2, 4, 8)]


def _tolerance(quantity: str, row: Mapping[str, Any]) -> Tolerance:
    """The tolerance of trained networks; the alignment differed by 0.8 percent on another type of processor."""
    if quantity == "train_loss":  # a rounding error if all labels are fitted
        return Tolerance(0.5, absolute=1e-6)
    return Tolerance(0.03) if quantity == "alignment" else of_training(quantity, row)


EXPERIMENTS: tuple[Experiment[Any], ...] = (
    Experiment(
        "network-depth",
        "depth of trained networks: alignment by leaving samples out and accuracies, beside their tangent kernels",
        _cells,
        depth_of_networks,
        shorten=partial(up_to, most=40),
        draws={"page": 3, "paper": 12},
        tolerance=_tolerance,
    ),
)
"""The experiment of this module."""
