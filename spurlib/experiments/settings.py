"""Data and networks that the settings of experiments name, queries of both kinds, and accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from torch import nn

from ..data import SpuriousData, framed_images, marked_images, synthetic
from ..networks import fully_connected, resnet18, small_cnn, vision_transformer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["accuracy", "answers", "architecture", "chance", "drawn", "spurious_data", "unseen", "up_to"]


class OfSizes(Protocol):
    """Settings with nested training sets and a data set."""

    @property
    def data(self) -> str: ...
    @property
    def sizes(self) -> Sequence[int]: ...
    @property
    def n_test(self) -> int: ...


S = TypeVar("S", bound="DataclassInstance")


def spurious_data(data: str, pattern: str = "frame", **options: Any) -> SpuriousData:
    """Return the data that the settings of an experiment name.

    Parameters
    ----------
    data : str
        ``"synthetic"``, or a data set of `framed_images`.
    pattern : str
        For images, ``"frame"`` or a pattern of `marked_images`.
    **options
        As for `synthetic`, `framed_images` or `marked_images`.

    Returns
    -------
    SpuriousData

    Raises
    ------
    ValueError, DataNotAvailableError
        As for these functions.
    """
    if data == "synthetic":
        return synthetic(**options)
    return framed_images(data, **options) if pattern == "frame" else marked_images(data, pattern=pattern, **options)


def architecture(kind: str, data: SpuriousData, outputs: int = 1, *, act: str, seed: int = 0) -> nn.Module:
    """Return a network before training, for samples like those of `data`.

    Parameters
    ----------
    kind : {"fc", "deep", "cnn", "resnet18", "vit"}
        ``"fc"``: fully connected with hidden layers of 500 and 200 neurons. ``"deep"``: fully connected with four
        hidden layers of 200 neurons. ``"cnn"``: `small_cnn`. ``"resnet18"``: `resnet18`. ``"vit"``:
        `vision_transformer` with two blocks of width 48; the side of a patch is the largest proper divisor of the side
        of the image, at most 8.
    data : SpuriousData
        Images, or for the first two kinds any data.
    outputs : int
        1 for labels -1 and +1, else the number of classes.
    act : str
        The activation.
    seed : int
        Seed of the weights.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ValueError
        `kind` is unknown (the message lists the known ones), or as for the networks.
    ModuleNotFoundError
        torchvision is missing, for ``"resnet18"`` and ``"vit"``.
    """
    d, shape = data.Z.shape[1], data.image_shape
    if kind in ("fc", "deep"):
        return fully_connected(d, outputs, widths=(500, 200) if kind == "fc" else (200,) * 4, act=act, seed=seed)
    if kind == "cnn":
        return small_cnn(shape, outputs, act=act, seed=seed)
    if kind == "resnet18":
        return resnet18(shape, outputs, act=act, seed=seed)
    if kind == "vit":
        patch = max((p for p in range(1, 9) if shape and shape[0] % p == 0 and p < shape[0]), default=8)
        return vision_transformer(shape, outputs, patch=patch, width=48, layers=2, act=act, seed=seed)
    raise ValueError(f"kind: {kind!r} is not known; known are fc, deep, cnn, resnet18, vit")


def drawn(settings: OfSizes, seed: int) -> tuple[SpuriousData, SpuriousData]:
    """One draw of the data for the largest training set, with queries with core zero and with fresh cores."""
    options: dict[str, Any] = {"n": max(settings.sizes), "n_test": settings.n_test, "seed": seed}
    if settings.data == "synthetic":
        options |= {name: getattr(settings, name) for name in ("d", "alpha")}
    elif count := getattr(settings, "classes", None):
        options["classes"] = range(count)
    zero, fresh = (spurious_data(settings.data, query=query, **options) for query in ("zero", "fresh"))
    return zero, fresh


def up_to(settings: S, most: int) -> S:
    """Return the settings with the sizes that are at most `most`, or the first size if there are none.

    Training sets are nested, so the rows of smaller ones do not change.
    """
    sizes: Sequence[int] = settings.sizes  # type: ignore[attr-defined]
    return replace(settings, sizes=tuple(n for n in sizes if n <= most) or sizes[:1])


def answers(f: Any) -> np.ndarray:
    """Predicted classes: the class of the largest output, or the sign of a single output (zero is positive)."""
    f = np.asarray(f)
    return f.argmax(axis=1).astype(float) if f.ndim == 2 else np.where(f >= 0, 1.0, -1.0)


def chance(found: np.ndarray, labels: np.ndarray) -> float:
    """The expected fraction of correct classes if predicted classes and labels are paired at random."""
    return sum(float(np.mean(found == c) * np.mean(labels == c)) for c in set(labels))


def unseen(data: SpuriousData) -> np.ndarray:
    """The spurious parts of the test samples with core zero, shape (n_test, d); they are not in the training set."""
    return np.where(data.spurious, data.Z_test, 0.0)


def accuracy(f: Any, g: Any) -> float:
    """The fraction of correct predictions, for outputs f of shape (n,) or (n, classes) and labels g of shape (n,).

    Examples
    --------
    >>> accuracy([0.5, -2.0, 0.1], [1.0, -1.0, -1.0])
    0.6666666666666666
    """
    return float(np.mean(answers(f) == np.asarray(g)))
