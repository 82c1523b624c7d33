"""Kernels of infinite width on images of several classes, with one Cholesky factor for all training sets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from .._cholesky import System
from ..kernels import InfiniteWidth
from .definition import Experiment, Row
from .settings import answers, chance, drawn, unseen, up_to

__all__ = ["EXPERIMENTS", "ClassCurve", "class_curve"]


@dataclass(frozen=True)
class ClassCurve:
    """Settings of `class_curve`.

    Attributes
    ----------
    data : str
        A data set of `framed_images`.
    classes : int
        Number of classes, the first ones of the data set.
    kind : {"rf", "ntk"}
        As for `InfiniteWidth`.
    act : str
        The activation.
    sizes : tuple of int
        Sizes of the training sets, which are nested.
    n_test : int
        Number of test samples.
    asked : int
        Number of training samples, the first ones, at whose spurious queries predictions are computed.
    dtype : str
        Precision, stored in the record: ``"float64"``.
    """

    data: str
    classes: int
    kind: str
    act: str
    sizes: tuple[int, ...]
    n_test: int
    asked: int
    dtype: str = "float64"


def class_curve(settings: ClassCurve, seed: int, device: str) -> list[Row]:
    r"""Measure accuracies of kernel interpolation of several classes, for growing training sets.

    There is one output for each of C classes, with the target 1 - 1 / C for the class of a sample and -1 / C for the
    others. The predicted class has the largest output. The Cholesky factor of the largest kernel matrix contains those
    of all smaller ones.

    Parameters
    ----------
    settings : ClassCurve
        What to measure.
    seed : int
        Seed of the data: the same images and frames as in `network_curve`.
    device : str
        Where to compute.

    Returns
    -------
    list of dict
        One row for each size, with the entries ``n``; ``source``; ``test_accuracy``; ``spurious_accuracy_QUERY`` for
        the queries with core ``zero`` and ``fresh``, over the first `asked` samples; ``unseen_accuracy``, the accuracy
        at the frames of the test set around the core zero; and for each of the last three ``chance_...``, as in
        `network_curve`.

    Raises
    ------
    ValueError
        As for the data and the kernel.
    SingularKernelError
        Images are repeated.
    """
    zero, fresh = drawn(settings, seed)
    kernel = InfiniteWidth(settings.act, settings.kind)
    Z = torch.from_numpy(zero.Z).to(device)
    C = _coefficients(kernel, Z, zero.g, settings)
    asked = min(settings.asked, len(Z))

    def found(Q: np.ndarray) -> np.ndarray:
        """Predicted classes for each training set, shape (sizes, q)."""
        parts = torch.from_numpy(Q).to(device).split(1000)
        f = torch.cat([kernel.gram(part, Z) @ C for part in parts]).cpu().numpy()
        return np.stack([answers(one) for one in f.reshape(len(Q), len(settings.sizes), -1).swapaxes(0, 1)])

    predicted = {
        "test_accuracy": (found(zero.Z_test), zero.g_test),
        "spurious_accuracy_zero": (found(zero.Z_spurious[:asked]), zero.g[:asked]),
        "spurious_accuracy_fresh": (found(fresh.Z_spurious[:asked]), zero.g[:asked]),
        "unseen_accuracy": (found(unseen(zero)), zero.g_test),
    }
    rows: list[Row] = []
    for position, n in enumerate(settings.sizes):
        row: Row = {"n": n, "source": zero.source}
        for name, (every, labels) in predicted.items():
            of_sample = name.startswith("spurious")
            f, g = (part[:n] if of_sample else part for part in (every[position], labels))
            row[name] = float(np.mean(f == g))
            if name != "test_accuracy":
                row[f"chance_{name}"] = chance(f, g)
        rows.append(row)
    return rows


def _coefficients(kernel: InfiniteWidth, Z: torch.Tensor, g: np.ndarray, settings: ClassCurve) -> torch.Tensor:
    """Coefficients, shape (n, sizes * classes); zero for samples that are not in the training set."""
    labels = torch.from_numpy(np.eye(settings.classes)[g.astype(int)] - 1 / settings.classes).to(Z.device)
    system = System(kernel.gram(Z), ridge=0.0, dtype=None, overwrite=True)
    system.factor()
    L = system.matrix
    y = torch.linalg.solve_triangular(L, labels, upper=False)
    C = L.new_zeros(len(Z), len(settings.sizes), settings.classes)
    for position, n in enumerate(settings.sizes):
        C[:n, position] = torch.linalg.solve_triangular(L[:n, :n].T, y[:n], upper=True)
    return C.flatten(1)


def _cells(scale: str) -> list[ClassCurve]:
    if scale == "page":
        common = partial(ClassCurve, data="digits", sizes=(10, 30, 100, 300), n_test=200, asked=300)
    else:
        sizes = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 30_000)
        common = partial(ClassCurve, data="mnist", sizes=sizes, n_test=1000, asked=2000)
    return [common(classes=10, kind=kind, act="relu") for kind in ("rf", "ntk")]


EXPERIMENTS: tuple[Experiment[ClassCurve], ...] = (
    Experiment(
        "ten-classes",
        "accuracies of kernels of infinite width on ten classes of framed images",
        _cells,
        class_curve,
        shorten=partial(up_to, most=1000),
        draws={"page": 3, "paper": 2},
    ),
)
"""The experiments of this module."""
