"""Feature alignment by the gradients of networks of several architectures, and retraining without single samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from ..gradients import EmpiricalTangent
from ..interpolation import Interpolator, SingularKernelError, Solve
from ..networks import mean_of, predict, settled, train_many
from .definition import Experiment, Row
from .settings import accuracy, architecture, spurious_data, up_to
from .tolerances import of_gradients

__all__ = ["EXPERIMENTS", "Architecture", "architecture_alignment"]

_PATTERNS = {"mnist": ("watermark", "patch"), "cifar10": ("watermark", "patch", "cast")}


@dataclass(frozen=True)
class Architecture:
    """Settings of `architecture_alignment`.

    Attributes
    ----------
    data, pattern : str
        As for `spurious_data`.
    query : {"zero", "fresh"}
        As for `framed_images`.
    kind, act : str
        As for `architecture`.
    dtype : str
        Precision, stored in the record: ``"float32"``.
    sizes : tuple of int
        Sizes of the training sets, which are nested.
    left_out : tuple of int
        Positions of the samples that are left out, one at a time. If there are none, no network is retrained.
    n_test, epochs : int
        Numbers of test samples and of epochs.
    d, alpha : int, float
        For synthetic data, the dimension and the fraction of spurious coordinates.
    """

    data: str
    pattern: str
    kind: str
    act: str
    sizes: tuple[int, ...]
    left_out: tuple[int, ...]
    query: str = "zero"
    dtype: str = "float32"
    n_test: int = 1000
    epochs: int = 80
    d: int | None = None
    alpha: float | None = None


def architecture_alignment(settings: Architecture, seed: int, device: str) -> list[Row]:
    r"""Measure alignments by the tangent kernel of a network before and after training, and its stability.

    The kernels are those of the gradient of the output with respect to all parameters, at the start (`settled` on the
    training set), at the end, and, for a sample that is left out, halfway between the networks trained with and without
    it. If a kernel matrix has no usable inverse in single precision (see `Interpolator`), a ridge of 1e-5 times the
    mean of its diagonal is added.

    Parameters
    ----------
    settings : Architecture
        What to measure.
    seed : int
        Seed of data, weights and order of the samples.
    device : str
        Where to train.

    Returns
    -------
    list of dict
        One row for each size, or for each size and left-out sample, with the entries ``n``; ``source``; ``parameters``,
        the number of parameters; for the network trained on all samples, ``train_loss`` (mean square),
        ``test_accuracy``, ``test_risk`` and, over all n samples, ``spurious_accuracy`` and the ``covariance`` of labels
        and predictions f(z_i^s); ``similarity``, the cosine between the kernel matrices at the start and at the end;
        and for POINT ``start`` and ``end``: ``alignment_POINT``, the mean of F_i = F(z_i^s, z_i);
        ``alignment_sd_POINT``, its standard deviation over the samples; ``kernel_POINT``, the covariance of labels and
        F_i S_i with the S_i of kernel interpolation of g - f_0 at the start and of g at the end; ``condition_POINT``,
        the condition number of the kernel matrix, at most the inverse of the rounding error of the gradients, beyond
        which it has no meaning; and ``ridge_POINT``, the number added to the diagonal, which is 0 in most cases. For a
        left-out sample: ``sample``, its position; ``label``; ``stability``, S(z_i); ``stability_query``, S(z_i^s); its
        F_i at ``start``, ``end`` and ``middle``; and ``ridge_middle``.

    Raises
    ------
    ValueError
        As for the data, the networks, `train_many` and the interpolator.
    """
    synthetic = {"d": settings.d, "alpha": settings.alpha} if settings.data == "synthetic" else {}
    data = spurious_data(
        settings.data,
        settings.pattern,
        n=max(settings.sizes),
        n_test=settings.n_test,
        query=settings.query,
        seed=seed,
        **synthetic,
    )
    untrained = architecture(settings.kind, data, act=settings.act, seed=seed).to(device)
    left_out, rows = list(settings.left_out), []
    dtype = next(untrained.parameters()).dtype
    for n in settings.sizes:
        Z, Z_s, g = data.Z[:n], data.Z_spurious[:n], data.g[:n]
        weights = np.ones((len(left_out) + 1, n))
        weights[1 + np.arange(len(left_out)), left_out] = 0.0
        full, *others = train_many(untrained, Z, g, weights=weights, epochs=settings.epochs, seed=seed, device=device)
        start = settled(untrained, Z)
        f, f_s, f_test = (predict(full, A) for A in (Z, Z_s, data.Z_test))
        common: Row = {
            "n": n,
            "source": data.source,
            "parameters": sum(p.numel() for p in untrained.parameters()),
            "train_loss": _mean((f - g) ** 2),
            "test_accuracy": accuracy(f_test, data.g_test),
            "test_risk": _mean((f_test - data.g_test) ** 2),
            "spurious_accuracy": accuracy(f_s, g),
            "covariance": _mean(f_s * (g - g.mean())),
        }
        own, kernels = {}, []
        for point, model, labels in (("start", start, g - predict(start, Z)), ("end", full, g)):
            K, K_s = np.split(EmpiricalTangent(model).gram(np.vstack([Z, Z_s]), Z), 2)
            m = _interpolator(K, labels, dtype)
            F = m.at(K_s).own
            own[point] = F
            kernels.append(K)
            common |= {
                f"alignment_{point}": _mean(F),
                f"alignment_sd_{point}": float(F.std()),
                f"kernel_{point}": _mean(F * np.asarray(m.loo_residuals) * (g - g.mean())),
                f"condition_{point}": min(float(np.linalg.cond(K)), 1 / torch.finfo(dtype).eps),
                f"ridge_{point}": m.ridge,
            }
        common["similarity"] = float(np.sum(kernels[0] * kernels[1]) / np.prod([np.linalg.norm(K) for K in kernels]))
        for i, other in zip(left_out, others, strict=True):
            asked = np.stack([Z[i], Z_s[i]])
            S = predict(full, asked).astype(float) - predict(other, asked)
            K, k_s = np.split(EmpiricalTangent(mean_of(full, other)).gram(np.vstack([Z, Z_s[i : i + 1]]), Z), [n])
            m = _interpolator(K, g, dtype)
            rows.append(
                common
                | {"sample": i, "label": float(g[i]), "stability": float(S[0]), "stability_query": float(S[1])}
                | {point: float(F[i]) for point, F in own.items()}
                | {"middle": float(m.alignment(k_s)[0, i]), "ridge_middle": m.ridge}
            )
        if not left_out:
            rows.append(common)
    return rows


def _interpolator(K: np.ndarray, g: np.ndarray, dtype: torch.dtype) -> Solve:
    """Interpolator for gradients of a given precision; with a small ridge if there is no usable inverse."""
    try:
        return Interpolator.from_gram(K, g, dtype=dtype)
    except SingularKernelError:
        # the ridge is a hundred times the rounding errors of single precision: what is left need not be judged by them
        return Interpolator.from_gram(K, g, ridge=1e-5 * float(np.trace(K)) / len(K), dtype=torch.float64)


def _mean(x: Any) -> float:
    return float(np.mean(np.asarray(x, dtype=float)))


def _shorter(settings: Architecture) -> Architecture:
    """The same with small training sets and one sample left out; its rows are among those of `settings`."""
    return replace(up_to(settings, 100), left_out=settings.left_out[:1])


def _cells(scale: str) -> list[Architecture]:
    if scale == "page":
        some = partial(Architecture, "mnist", "frame", act="relu", sizes=(24,), left_out=tuple(range(4)), n_test=300)
        return [some(kind=kind) for kind in ("deep", "cnn")]
    many = partial(Architecture, sizes=(40,), left_out=tuple(range(6)))
    few = partial(Architecture, sizes=(20,), left_out=tuple(range(3)), epochs=60)
    return [
        *(
            many(data, "frame", kind, act)
            for data in ("mnist", "cifar10")
            for kind in ("fc", "deep", "cnn", "vit")
            for act in ("relu", "tanh")
        ),
        *(
            many(data, pattern, kind, "relu")
            for data, patterns in _PATTERNS.items()
            for pattern in patterns
            for kind in ("fc", "cnn", "vit")
        ),
        *(few("cifar10", "frame", "resnet18", act) for act in ("relu", "tanh")),
    ]


def _growing(scale: str) -> list[Architecture]:
    paper = scale == "paper"
    return [
        Architecture(data, "frame", kind, act, left_out=(), sizes=(10, 120) if paper else (10, 20))
        for data in (("mnist", "cifar10") if paper else ("mnist",))
        for kind in (("deep", "cnn", "vit") if paper else ("deep",))
        for act in ("relu", "tanh")
    ]


EXPERIMENTS: tuple[Experiment[Any], ...] = (
    Experiment(
        "architectures",
        "alignment by the gradients of networks, beside their stability by leaving samples out",
        _cells,
        architecture_alignment,
        keys=("n", "sample"),
        shorten=_shorter,
        version=2,
        draws={"page": 3, "paper": 4},
        tolerance=of_gradients,
        samples=("sample",),
    ),
    Experiment(
        "architecture-sizes",
        "alignment by the gradients of networks and test error, for two sizes of the training set",
        _growing,
        architecture_alignment,
        shorten=_shorter,
        version=2,
        draws={"page": 3, "paper": 4},
        tolerance=of_gradients,
    ),
)
"""The experiments of this module."""
