"""Accuracies of trained networks, and their stability by retraining without single samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp

from ..networks import predict, train, train_many
from .curves import SIZES
from .definition import Experiment, Row
from .settings import accuracy, answers, architecture, chance, drawn, unseen, up_to
from .tolerances import of_training

__all__ = ["EXPERIMENTS", "NetworkCurve", "NetworkStability", "network_curve", "network_stability"]


@dataclass(frozen=True)
class NetworkCurve:
    """Settings of `network_curve`.

    Attributes
    ----------
    data : str
        ``"synthetic"``, or a data set of `framed_images`.
    kind : {"fc", "cnn", "resnet18"}
        As for `architecture`.
    act : str
        The activation, as for `architecture`.
    dtype : str
        Precision, stored in the record: ``"float32"``.
    loss : {"square", "cross-entropy"}
        As for `train`.
    sizes : tuple of int
        Sizes of the training sets, which are nested.
    n_test : int
        Number of test samples.
    epochs : int
        Largest number of epochs.
    until : float or None
        The training loss at which to stop.
    d, alpha : int, float
        For synthetic data, the dimension and the fraction of spurious coordinates.
    classes : int
        For images, the number of classes, the first ones of the data set.
    """

    data: str
    kind: str
    act: str
    dtype: str
    loss: str
    sizes: tuple[int, ...]
    n_test: int
    epochs: int
    until: float | None
    d: int | None = None
    alpha: float | None = None
    classes: int | None = None


def network_curve(settings: NetworkCurve, seed: int, device: str) -> list[Row]:
    r"""Measure accuracies of trained networks, for growing training sets.

    Parameters
    ----------
    settings : NetworkCurve
        What to measure.
    seed : int
        Seed of data, weights and order of the samples.
    device : str
        Where to compute.

    Returns
    -------
    list of dict
        One row for each size, with the entries ``n``; ``source``; ``epochs_run``; ``train_loss`` and
        ``train_accuracy``, of the trained network in evaluation mode; ``test_accuracy``; ``spurious_accuracy_QUERY``
        for the queries with core ``zero`` and ``fresh``; ``unseen_accuracy``, the accuracy at the spurious parts of the
        test set with core zero; and for each of the last three ``chance_...``, the expected accuracy if labels and
        predicted classes are paired at random.

    Raises
    ------
    ValueError
        As for the data and for `train`.
    """
    zero, fresh = drawn(settings, seed)
    start = architecture(settings.kind, zero, settings.classes or 1, act=settings.act, seed=seed)
    recipe: dict[str, Any] = {"loss": settings.loss, "epochs": settings.epochs, "until": settings.until}
    rows = []
    for n in settings.sizes:
        g = zero.g[:n]
        model, losses = train(start, zero.Z[:n], g, seed=seed, device=device, **recipe)
        row = {"n": n, "source": zero.source, "epochs_run": len(losses)} | _fit(model, zero.Z[:n], g)
        row["test_accuracy"] = accuracy(predict(model, zero.Z_test), zero.g_test)
        for name, Z, labels in (
            ("spurious_accuracy_zero", zero.Z_spurious[:n], g),
            ("spurious_accuracy_fresh", fresh.Z_spurious[:n], g),
            ("unseen_accuracy", unseen(zero), zero.g_test),
        ):
            found = answers(predict(model, Z))
            row[name] = float(np.mean(found == labels))
            row[f"chance_{name}"] = chance(found, labels)
        rows.append(row)
    return rows


@dataclass(frozen=True)
class NetworkStability:
    """Settings of `network_stability`, which uses two classes and the square loss.

    Attributes
    ----------
    data, kind, act, dtype, loss, sizes, n_test, d, alpha
        As for `NetworkCurve`.
    left_out : tuple of int
        Positions of the samples that are left out, one at a time.
    epochs : int
        Number of epochs.
    relabel : bool
        Whether to train another network for each of these samples, with its label flipped.
    """

    data: str
    kind: str
    act: str
    dtype: str
    loss: str
    sizes: tuple[int, ...]
    left_out: tuple[int, ...]
    n_test: int
    epochs: int
    relabel: bool
    d: int | None = None
    alpha: float | None = None


def network_stability(settings: NetworkStability, seed: int, device: str) -> list[Row]:
    r"""Measure the stability of networks by retraining without single samples, and predictions at spurious queries.

    Parameters
    ----------
    settings : NetworkStability
        What to measure.
    seed : int
        Seed of data, weights and order of the samples.
    device : str
        Where to compute.

    Returns
    -------
    list of dict
        One row for each size and sample, with the entries ``n``; ``sample``, the position of the sample; ``source``;
        for the network trained on all samples, ``train_loss``, ``train_accuracy``, ``test_accuracy`` and, over all n
        samples, ``spurious_accuracy_QUERY`` and ``covariance_QUERY``, the covariance of predictions f(z_i^s) and
        labels; for the sample, ``label``; ``stability``, S(z_i); and, for the queries with core ``zero`` and ``fresh``,
        ``stability_QUERY``, S(z_i^s), and ``output_QUERY``, f(z_i^s). With ``relabel`` also ``stability_relabeled`` and
        ``stability_relabeled_QUERY``, the same S for the network trained with the flipped label.

    Raises
    ------
    ValueError
        As for the data and for `train_many`.
    """
    zero, fresh = drawn(settings, seed)
    start, left_out = architecture(settings.kind, zero, act=settings.act, seed=seed), settings.left_out
    rows: list[Row] = []
    for n in settings.sizes:
        g = zero.g[:n]
        labels, weights = np.tile(g, (2 * len(left_out) + 1, 1)), np.ones((2 * len(left_out) + 1, n))
        for j, i in enumerate(left_out, start=1):
            weights[j, i] = 0.0
            labels[j + len(left_out), i] *= -1
        count = len(labels) if settings.relabel else len(left_out) + 1
        everything, *others = train_many(
            start,
            zero.Z[:n],
            labels[:count],
            weights=weights[:count],
            loss=settings.loss,
            epochs=settings.epochs,
            seed=seed,
            device=device,
        )
        common: Row = {"n": n, "source": zero.source} | _fit(everything, zero.Z[:n], g)
        common["test_accuracy"] = accuracy(predict(everything, zero.Z_test), zero.g_test)
        asked = {"": zero.Z[:n], "_zero": zero.Z_spurious[:n], "_fresh": fresh.Z_spurious[:n]}
        f = {query: predict(everything, Z) for query, Z in asked.items()}
        for query in ("_zero", "_fresh"):
            common[f"spurious_accuracy{query}"] = accuracy(f[query], g)
            common[f"covariance{query}"] = float(np.mean((f[query] - f[query].mean()) * g))
        for j, i in enumerate(left_out):
            row = common | {"sample": i, "label": float(g[i])}
            for query, Z in asked.items():
                without = predict(others[j], Z[i : i + 1])[0]
                row[f"stability{query}"] = float(f[query][i] - without)
                if query:
                    row[f"output{query}"] = float(f[query][i])
                if settings.relabel:
                    flipped = predict(others[j + len(left_out)], Z[i : i + 1])[0]
                    row[f"stability_relabeled{query}"] = float(flipped - without)
            rows.append(row)
    return rows


def _fit(model: torch.nn.Module, Z: np.ndarray, g: np.ndarray) -> Row:
    f = predict(model, Z).astype(float)
    loss = (f - g) ** 2 if f.ndim == 1 else logsumexp(f, axis=1) - f[np.arange(len(g)), g.astype(int)]
    return {"train_loss": float(loss.mean()), "train_accuracy": accuracy(f, g)}


# Name: kind, data, largest N at page and at paper scale, largest number of epochs, training loss at which to stop, and
# the largest N that `verify` runs again; chosen for two cores. For the sizes of the paper, on a GPU: replace the
# largest N at paper scale, the epochs and the loss by 50_000, 1000 and None, and run with --device cuda.
_NETWORKS: dict[str, tuple[str, str, int, int, int, float | None, int]] = {
    "network-fc-synthetic": ("fc", "synthetic", 200, 2000, 1000, 1e-4, 200),
    "network-fc-mnist": ("fc", "mnist", 200, 50_000, 1000, 1e-3, 200),
    "network-cnn-mnist": ("cnn", "mnist", 50, 1000, 200, 1e-2, 50),
    "network-cnn-cifar10": ("cnn", "cifar10", 50, 500, 200, 1e-2, 10),
    "network-resnet18-cifar10": ("resnet18", "cifar10", 20, 200, 60, None, 10),
}


def _cells(name: str, scale: str) -> list[NetworkCurve]:
    kind, data, most_page, most_paper, epochs, until, _ = _NETWORKS[name]
    paper = scale == "paper"
    sizes = [n for n in (*SIZES, 2000, 5000, 10_000, 20_000, 50_000) if n <= (most_paper if paper else most_page)]
    common = partial(
        NetworkCurve,
        data=data,
        kind=kind,
        act="relu",
        dtype="float32",
        sizes=tuple(sizes),
        n_test=1000 if paper else 500,
        epochs=epochs,
        until=until,
    )
    if data != "synthetic":
        return [common(classes=10, loss="cross-entropy")]
    return [common(loss="square", d=1000 if paper else 100, alpha=alpha) for alpha in (0.5, 0.25)]


def _curve(name: str) -> Experiment[NetworkCurve]:
    kind, data, *_, verified = _NETWORKS[name]
    return Experiment(
        name,
        f"accuracies of trained networks ({kind}) on {data}",
        partial(_cells, name),
        network_curve,
        shorten=partial(up_to, most=verified),
        draws={"page": 3, "paper": 5 if kind == "fc" else 3},
        tolerance=of_training,
    )


def _activation_cells(scale: str) -> list[NetworkCurve]:
    paper = scale == "paper"
    common = partial(
        NetworkCurve,
        kind="fc",
        dtype="float32",
        sizes=(100, 1000) if paper else (50, 100),
        n_test=1000 if paper else 200,
        epochs=500,
        until=1e-2,
    )
    images = partial(common, loss="cross-entropy", classes=10)
    isotropic = partial(common, loss="square", data="synthetic", d=1000 if paper else 100, alpha=0.5)
    return [
        cell(act=act)
        for cell in (isotropic, partial(images, data="mnist"), partial(images, data="cifar10"))
        for act in ("relu", "tanh", "softplus")
    ]


def _smallest(settings: NetworkStability) -> NetworkStability:
    """The same with the smallest training set only, and two samples left out."""
    return replace(settings, sizes=settings.sizes[:1], left_out=settings.left_out[:2])


def _stability_cells(scale: str) -> list[NetworkStability]:
    common = partial(
        NetworkStability, act="relu", dtype="float32", loss="square", n_test=500, left_out=tuple(range(20))
    )
    fc = partial(common, kind="fc", epochs=100, relabel=True)
    if scale == "page":
        return [fc(data="synthetic", d=40, alpha=0.5, sizes=(20, 40))]
    return [
        fc(data="synthetic", d=1000, alpha=0.5, sizes=(50, 100, 200)),
        fc(data="mnist", sizes=(50, 100, 200)),
        common(kind="cnn", data="mnist", epochs=100, relabel=False, sizes=(25, 50, 100)),
    ]


EXPERIMENTS: tuple[Experiment[Any], ...] = (
    *map(_curve, _NETWORKS),
    Experiment(
        "network-activations",
        "accuracies of trained fully connected networks with ReLU, tanh and softplus, on three kinds of data",
        _activation_cells,
        network_curve,
        shorten=partial(up_to, most=100),
        draws={"page": 3, "paper": 5},
        tolerance=of_training,
    ),
    Experiment(
        "network-stability",
        "stability of trained networks by leaving samples out, beside their spurious answers",
        _stability_cells,
        network_stability,
        keys=("n", "sample"),
        shorten=_smallest,
        draws={"page": 3, "paper": 3},
        tolerance=of_training,
        samples=("sample",),
    ),
)
"""The experiments of this module."""
