"""Accuracies, alignments and stabilities of kernels, for growing training sets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from ..features import RandomFeatures, TangentFeatures
from ..kernels import InfiniteWidth
from ..nesting import nested
from .definition import Experiment, Row
from .settings import accuracy, drawn, up_to

__all__ = ["EXPERIMENTS", "Curve", "accuracy_curve"]

SIZES = (10, 20, 50, 100, 200, 500, 1000)
_SMOOTH = (10, 12, 14, 17, 20, 24, 28, 34, 41, 50, 59, 70, 84, 100, 119, 141, 168, 200)  # page scale: a smooth line
_VERIFIED = {"rf-synthetic": 500, "rf-mnist": 500, "rf-cifar10": 100}  # the largest size that `verify` runs again: at
# most twenty seconds on two cores; 1000 for all other experiments


@dataclass(frozen=True)
class Curve:
    """Settings of `accuracy_curve`.

    Attributes
    ----------
    data : str
        ``"synthetic"``, or a data set of `framed_images`.
    kind : {"rf", "ntk"}
        Random or tangent features.
    act : str
        The activation.
    k : int or None
        The width; None for the kernel of infinite width.
    dtype : {"float32", "float64"}
        Precision of the features.
    sizes : tuple of int
        Sizes of the training sets, which are nested.
    n_test : int
        Number of test samples.
    d, alpha : int, float
        For synthetic data, the dimension and the fraction of spurious coordinates.
    """

    data: str
    kind: str
    act: str
    k: int | None
    dtype: str
    sizes: tuple[int, ...]
    n_test: int
    d: int | None = None
    alpha: float | None = None


def accuracy_curve(settings: Curve, seed: int, device: str) -> list[Row]:
    r"""Measure accuracies, alignments, stabilities and risks for nested training sets of one draw of data and features.

    The kernel matrix of the largest training set and its Cholesky factor are used for all smaller ones (see `nested`),
    so a curve may have any number of sizes.

    Parameters
    ----------
    settings : Curve
        What to measure.
    seed : int
        Seed of data and features. The weights are drawn by the CPU's generator, the same for every device.
    device : str
        Where to compute.

    Returns
    -------
    list of dict
        One row for each size, with the entries ``n``; ``source``; ``test_accuracy``, of the sign of the prediction;
        ``test_risk``, the mean of (f - g)^2 over the test set; ``loo_risk``, the mean of the squared leave-one-out
        residuals; ``stability``, the mean of g_i S_i, where S_i is the stability at the sample itself; and, for the
        queries with core ``zero`` and ``fresh``, ``spurious_accuracy_QUERY``; ``alignment_QUERY``, the mean of F_i, and
        ``alignment_sd_QUERY``, its standard deviation over the samples; ``product_QUERY``, the mean of F_i S_i g_i;
        ``covariance_QUERY``, the mean of f(z_i^s) g_i, which is a covariance up to the mean of the labels, and
        ``spread_QUERY``, the standard deviation of f(z_i^s) g_i over the samples; and ``noise_QUERY``, that of
        f_{-i}(z_i^s) = f(z_i^s) - F_i S_i, the prediction without the sample.

    Raises
    ------
    ValueError
        As for the data, the features and the interpolator.
    """
    zero, fresh = drawn(settings, seed)
    kernel, dtype = _kernel(settings, zero.Z.shape[1], seed, device), getattr(torch, settings.dtype)
    parts = [zero.Z, zero.Z_spurious, fresh.Z_spurious, zero.Z_test]
    samples = torch.from_numpy(np.vstack(parts)).to(device)
    K, K_zero, K_fresh, K_test = kernel.gram(samples, samples[: len(zero.Z)]).split([len(part) for part in parts])
    g, g_test = (torch.from_numpy(labels).to(device) for labels in (zero.g, zero.g_test))
    at_zero = nested(K, g, K_zero, dtype=dtype)
    asked, at_test = {"zero": at_zero, "fresh": at_zero.at(K_fresh)}, at_zero.at(K_test).prediction
    rows = []
    for n in settings.sizes:
        f_test, S = at_test[n - 1], at_zero.residual[n - 1, :n]
        row = {
            "n": n,
            "source": zero.source,
            "test_accuracy": accuracy(f_test.cpu(), g_test.cpu()),
            "test_risk": _mean((f_test - g_test) ** 2),
            "loo_risk": _mean(S**2),
            "stability": _mean(S * g[:n]),
        }
        for query, curve in asked.items():
            f, F = curve.prediction[n - 1, :n], curve.alignment[n - 1, :n]
            row |= {
                f"spurious_accuracy_{query}": accuracy(f.cpu(), g[:n].cpu()),
                f"alignment_{query}": _mean(F),
                f"alignment_sd_{query}": float(F.std(correction=0)),
                f"product_{query}": _mean(F * S * g[:n]),
                f"covariance_{query}": _mean(f * g[:n]),
                f"spread_{query}": float((f * g[:n]).std(correction=0)),
                f"noise_{query}": float((f - F * S).std(correction=0)),
            }
        rows.append(row)
    return rows


def _kernel(settings: Curve, d: int, seed: int, device: str) -> Any:
    if settings.k is None:
        return InfiniteWidth(settings.act, settings.kind)
    features = {"rf": RandomFeatures, "ntk": TangentFeatures}[settings.kind]
    dtype = getattr(torch, settings.dtype)
    return features(settings.act, d=d, k=settings.k, seed=seed, device=device, dtype=dtype, draw_on="cpu")


def _mean(x: torch.Tensor) -> float:
    return float(x.double().mean())


def _cells(kind: str, data: str, acts: tuple[str, ...], most: int, scale: str) -> list[Curve]:
    paper = scale == "paper"
    sizes = tuple(n for n in (*SIZES, 2000, 5000) if n <= most) if paper else _SMOOTH
    width = (100_000 if paper else 2000) if kind == "rf" else 100
    # the tangent kernel is cheap enough for double precision, which its small width requires
    dtype = "float32" if kind == "rf" and paper else "float64"
    common = partial(Curve, data=data, kind=kind, k=width, dtype=dtype, n_test=1000)
    if data != "synthetic":
        return [common(act=act, sizes=sizes) for act in acts]
    d, sizes = (1000, sizes) if paper else (300, (*sizes, 245, 300))
    return [common(act=act, d=d, alpha=alpha, sizes=sizes) for act in acts for alpha in (0.5, 0.25)]


def _curves(kind: str, data: str, *acts: str, most: int = 1000) -> Experiment[Curve]:
    """The accuracy curves of one kernel on one data set; at paper scale, those of the paper."""
    name, features = f"{kind}-{data}", {"rf": "random features", "ntk": "tangent features"}[kind]
    about = f"accuracies, alignment and stability of {features} on {data}"
    shorten = partial(up_to, most=_VERIFIED.get(name, 1000))
    return Experiment(name, about, partial(_cells, kind, data, acts, most), accuracy_curve, shorten=shorten)


def _wide_cells(scale: str) -> list[Curve]:
    sizes, d = ((30, 100, 300, 1000, 1500, 2000, 3000), 1000) if scale == "paper" else ((10, 30, 100, 300, 600), 200)
    common = partial(Curve, data="synthetic", kind="rf", k=None, dtype="float64", n_test=1000, d=d, sizes=sizes)
    return [common(act=act, alpha=alpha) for act in ("h1+h2", "h1+h4", "relu") for alpha in (0.5, 0.25)]


EXPERIMENTS: tuple[Experiment[Any], ...] = (
    _curves("rf", "synthetic", "h1+h2", "h1+h4"),
    _curves("rf", "mnist", "relu", most=5000),
    _curves("rf", "cifar10", "relu"),
    Experiment(
        "wide-synthetic",
        "accuracies, alignment and stability of infinitely many random features on synthetic data",
        _wide_cells,
        accuracy_curve,
        shorten=partial(up_to, most=1000),
    ),
    # h_l' = sqrt(l) h_{l-1}: derivatives h0 + h1 and h0 + h3
    _curves("ntk", "synthetic", f"h1+{2**-0.5!r}*h2", "h1+0.5*h4"),
    _curves("ntk", "mnist", "relu", most=5000),
    _curves("ntk", "cifar10", "relu"),
)
"""The experiments of this module."""
