"""Feature alignment by gradients of networks of several architectures, beside training again without single samples."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from .data import SpuriousData, framed_images, marked_images, synthetic
from .features import EmpiricalTangent
from .interpolation import Interpolator, SingularKernelError, Solve
from .networks import fully_connected, predict, resnet18, small_cnn, train_many, vision_transformer
from .runs import Configuration, Experiment, Row, Tolerance, of_training

__all__ = ["EXPERIMENTS", "architecture", "architecture_alignment", "mean_of", "settled", "spurious_data"]

_PATTERNS = {"mnist": ["watermark", "patch"], "cifar10": ["watermark", "patch", "cast"]}


def spurious_data(data: str, pattern: str, **options: Any) -> SpuriousData:
    """Data by the names in which the experiments know them.

    Parameters
    ----------
    data : str
        ``"synthetic"``, or a data set of `framed_images`.
    pattern : str
        Of images: ``"frame"``, or a pattern of `marked_images`.
    **options
        As for `synthetic`, `framed_images` or `marked_images`.

    Returns
    -------
    SpuriousData

    Raises
    ------
    ValueError, DataNotAvailableError
        As from these functions.
    """
    if data == "synthetic":
        return synthetic(**options)
    return framed_images(data, **options) if pattern == "frame" else marked_images(data, pattern=pattern, **options)


def architecture(kind: str, data: SpuriousData, *, act: str, seed: int = 0) -> nn.Module:
    """A network with one output, for samples like those of `data`.

    Parameters
    ----------
    kind : {"fc", "deep", "cnn", "resnet18", "vit"}
        Fully connected with hidden layers of 500 and 200 neurons, or of four times 200; `small_cnn`; `resnet18`;
        `vision_transformer` with two blocks of width 48, and as patch the largest divisor of the side, 8 at most, that
        leaves more than one.
    data : SpuriousData
        Images, or for the first two any data.
    act : str
        The activation.
    seed : int
        Of the weights.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ValueError
        An unknown kind (the message lists those known), or as from the networks.
    """
    d, shape = data.Z.shape[1], data.image_shape
    if kind in ("fc", "deep"):
        return fully_connected(d, widths=(500, 200) if kind == "fc" else (200,) * 4, act=act, seed=seed)
    if kind == "cnn":
        return small_cnn(shape, act=act, seed=seed)
    if kind == "resnet18":
        return resnet18(shape, 1, act=act, seed=seed)
    if kind == "vit":
        patch = max((p for p in range(1, 9) if shape and shape[0] % p == 0 and p < shape[0]), default=8)
        return vision_transformer(shape, 1, patch=patch, width=48, layers=2, act=act, seed=seed)
    raise ValueError(f"kind: {kind!r} is not known; known are fc, deep, cnn, resnet18, vit")


def settled(model: nn.Module, Z: np.ndarray) -> nn.Module:
    """A copy whose batch normalization has as running statistics those of one batch, and which is ready to be asked.

    Parameters
    ----------
    model : torch.nn.Module
        Any network; without batch normalization the copy is the same.
    Z : ndarray, shape (n, d)
        The batch.

    Returns
    -------
    torch.nn.Module
    """
    model = copy.deepcopy(model).train()
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.reset_running_stats()
            layer.momentum = None  # a plain average over the batches since the reset: of one
    weights = next(model.parameters())
    with torch.no_grad():
        model(torch.as_tensor(Z, dtype=weights.dtype, device=weights.device))
    return model.eval()


def mean_of(one: nn.Module, two: nn.Module, share: float = 0.5) -> nn.Module:
    """The network on the segment between two of the same architecture.

    Parameters
    ----------
    one, two : torch.nn.Module
        The ends.
    share : float
        Where on it: 0 is `one`, 1 is `two`.

    Returns
    -------
    torch.nn.Module
        Its parameters (and running statistics) are (1 - share) times those of `one` plus share times those of `two`.
    """
    between = copy.deepcopy(one)
    first, second = one.state_dict(), two.state_dict()
    between.load_state_dict({key: torch.lerp(first[key].double(), second[key].double(), share) for key in first})
    return between


def architecture_alignment(configuration: Configuration, seed: int, device: str) -> list[Row]:
    r"""Alignments by the tangent kernel of a network before and after training, beside its measured stability.

    The kernels are those of the gradient of the output in all parameters, at the start (`settled` on the training
    set), at the end, and, for a sample that is left out, halfway between the networks trained with and without it.
    Where single precision leaves a kernel matrix without a usable inverse (see `Interpolator`), a ridge of 1e-5 times
    the mean of its diagonal is added.

    Parameters
    ----------
    configuration : dict
        ``data``, ``pattern`` as for `spurious_data`, ``query``, ``kind`` and ``act`` as for `architecture`, ``dtype``
        (for the record: single precision), ``sizes``, ``n_test``, ``epochs``; ``left_out``, the positions of the
        samples that are left out, one at a time: none, and no network is trained again; for synthetic data ``d`` and
        ``alpha``.
    seed : int
        Seed of data, weights and order of the samples.
    device : str
        Where to train.

    Returns
    -------
    list of dict
        One a size, or a size and left-out sample: ``n``; ``source``; ``parameters``, their number; of the network that
        has seen all, ``train_loss`` (mean square), ``test_accuracy``, ``test_risk`` and over all n samples
        ``spurious_accuracy`` and ``covariance`` of labels and outputs f(z_i^s); ``similarity``, the cosine between the
        kernel matrices at start and end; and for POINT ``start`` and ``end`` ``alignment_POINT``, the mean of
        F_i = F(z_i^s, z_i), ``alignment_sd_POINT`` over the samples, ``kernel_POINT``, the covariance of labels and
        F_i S_i when S_i, too, is that of the kernel, of which the labels are g - f_0 at the start and g at the end,
        ``condition_POINT`` of the kernel matrix, at most the inverse of the rounding error of the gradients, beyond
        which it tells nothing; and ``ridge_POINT``, what was added to the diagonal, mostly 0. Of a
        left-out sample: ``sample``, its position; ``label``; ``stability``, S(z_i), and ``stability_query``,
        S(z_i^s); its F_i at ``start``, ``end`` and ``middle``, and ``ridge_middle``.

    Raises
    ------
    ValueError
        As from the data, the networks, `train_many` and the interpolator.
    """
    data = spurious_data(
        configuration["data"],
        configuration["pattern"],
        n=max(configuration["sizes"]),
        n_test=configuration["n_test"],
        query=configuration["query"],
        seed=seed,
        **{key: configuration[key] for key in ("d", "alpha") if key in configuration},
    )
    untrained = architecture(configuration["kind"], data, act=configuration["act"], seed=seed).to(device)
    left_out, rows = configuration["left_out"], []
    dtype = next(untrained.parameters()).dtype
    for n in configuration["sizes"]:
        Z, Z_s, g = data.Z[:n], data.Z_spurious[:n], data.g[:n]
        weights = np.ones((len(left_out) + 1, n))
        weights[1 + np.arange(len(left_out)), left_out] = 0.0
        full, *others = train_many(
            untrained, Z, g, weights=weights, epochs=configuration["epochs"], seed=seed, device=device
        )
        start = settled(untrained, Z)
        f, f_s, f_test = (predict(full, A) for A in (Z, Z_s, data.Z_test))
        common: Row = {
            "n": n,
            "source": data.source,
            "parameters": sum(p.numel() for p in untrained.parameters()),
            "train_loss": _mean((f - g) ** 2),
            "test_accuracy": _mean((f_test >= 0) == (data.g_test > 0)),
            "test_risk": _mean((f_test - data.g_test) ** 2),
            "spurious_accuracy": _mean((f_s >= 0) == (g > 0)),
            "covariance": _mean(f_s * (g - g.mean())),
        }
        own, kernels = {}, []
        for point, model, labels in (("start", start, g - predict(start, Z)), ("end", full, g)):
            K, K_s = np.split(EmpiricalTangent(model).gram(np.vstack([Z, Z_s]), Z), 2)
            m = _interpolator(K, labels, dtype)
            F = np.diag(m.alignment(K_s))
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
    """Of a kernel matrix whose gradients are of a precision; with a small ridge where that leaves no usable inverse."""
    try:
        return Interpolator.from_gram(K, g, dtype=dtype)
    except SingularKernelError:
        # the ridge is a hundred times the rounding errors of single precision: what is left need not be judged by them
        return Interpolator.from_gram(K, g, ridge=1e-5 * float(np.trace(K)) / len(K), dtype=torch.float64)


def _mean(x: Any) -> float:
    return float(np.mean(np.asarray(x, dtype=float)))


def _shorter(configuration: Configuration) -> Configuration:
    """The same with small training sets and one sample left out: its rows are rows of the whole."""
    sizes = configuration["sizes"]
    short = {**configuration, "sizes": [n for n in sizes if n <= 100] or sizes[:1]}
    return short | {"left_out": short["left_out"][:1]} if "left_out" in short else short


def of_gradients(quantity: str, row: Mapping[str, Any]) -> Tolerance:
    """The tolerance of what is computed from the gradients of networks, before and after training.

    Rounding errors of single precision, 1e-7, are amplified by the condition of the kernel matrix: 2e-7 times the
    condition is allowed besides what follows. At the start numbers agree to 1e-3, the condition itself and all of a
    ResNet to 4e-3. At the end training has amplified them as well: measured as for `runs.of_training` they were 3
    percent of a mean, 8 percent of a condition, and 17 percent of the alignment of a single sample, all of a ResNet.
    Allowed are 0.1 of means and deviations, 0.3 of the condition, and 0.5 of a single alignment, at the end and
    halfway, statistically. The rest as `runs.of_training` says.

    Parameters
    ----------
    quantity, row
        As for `runs.rounding`.

    Returns
    -------
    Tolerance
    """
    point, condition = quantity.rpartition("_")[2], quantity.startswith("condition")
    if point == "start":
        return Tolerance((4e-3 if condition or row["kind"] == "resnet18" else 1e-3) + 2e-7 * row["condition_start"])
    if quantity in ("end", "middle"):
        return Tolerance(0.5 + 2e-7 * row["condition_end"], statistical=True)
    if point in ("end", "middle"):
        return Tolerance((0.3 if condition else 0.1) + 2e-7 * row["condition_end"])
    return of_training(quantity, row)


def _common(data: str, pattern: str, kind: str, act: str, **sizes: Any) -> Configuration:
    chosen = {"data": data, "pattern": pattern, "query": "zero", "kind": kind, "act": act, "dtype": "float32"}
    return chosen | {"n_test": 1000, "epochs": 80} | sizes


def _cells(scale: str) -> list[Configuration]:
    if scale == "page":
        some: dict[str, Any] = {"sizes": [24], "left_out": list(range(4)), "n_test": 300}
        return [_common("mnist", "frame", kind, "relu", **some) for kind in ("deep", "cnn")]
    some = {"sizes": [40], "left_out": list(range(6))}
    few = {"sizes": [20], "left_out": list(range(3)), "epochs": 60}
    return [
        *(
            _common(data, "frame", kind, act, **some)
            for data in ("mnist", "cifar10")
            for kind in ("fc", "deep", "cnn", "vit")
            for act in ("relu", "tanh")
        ),
        *(
            _common(data, pattern, kind, "relu", **some)
            for data, patterns in _PATTERNS.items()
            for pattern in patterns
            for kind in ("fc", "cnn", "vit")
        ),
        *(_common("cifar10", "frame", "resnet18", act, **few) for act in ("relu", "tanh")),
    ]


def _growing(scale: str) -> list[Configuration]:
    paper = scale == "paper"
    return [
        _common(data, "frame", kind, act, left_out=[], sizes=[10, 120] if paper else [10, 20])
        for data in (("mnist", "cifar10") if paper else ("mnist",))
        for kind in (("deep", "cnn", "vit") if paper else ("deep",))
        for act in ("relu", "tanh")
    ]


EXPERIMENTS = (
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
"""The experiments of this module, for `experiments.register`."""
