"""Tolerances for the comparison of repeated measurements with records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Tolerance", "of_gradients", "of_training", "rounding"]


@dataclass(frozen=True)
class Tolerance:
    """How far a quantity that is measured again may be from the recorded one; by default it must be equal.

    Attributes
    ----------
    relative : float
        The largest allowed difference, relative to the scale of the quantity. The scale is the larger of the absolute
        value of the measured number and the median of the absolute values of the recorded numbers over seeds and
        samples.
    unit : float
        If it is positive, the quantity is an integer multiple of `unit`, as a count is, and may differ by another
        `steps` units.
    steps : int
        See `unit`.
    statistical : bool
        Whether the differences of single samples are independent of each other. Then the means over the m samples of a
        cell are compared as well; they may differ by the mean allowed difference over sqrt(m).
    absolute : float
        An additional allowed difference, for a quantity that may be zero up to rounding.
    """

    relative: float = 0.0
    unit: float = 0.0
    steps: int = 0
    statistical: bool = False
    absolute: float = 0.0


def rounding(quantity: str, row: Mapping[str, Any]) -> Tolerance:
    """Return the tolerance of results that are computed without training and differ only by rounding errors.

    Relative differences may be 1e-6 in double precision and 1e-3 in single precision (``dtype`` of the configuration).
    In single precision an accuracy may differ by two samples, whose predictions are zero up to rounding. A ``label``
    must agree exactly.

    Parameters
    ----------
    quantity : str
        Name of the quantity, a column of the table.
    row : mapping
        The measured row, with the scalars of its configuration.

    Returns
    -------
    Tolerance
    """
    if quantity == "label":
        return Tolerance()
    if row.get("dtype", "float64") == "float64":
        return Tolerance(1e-6)
    return Tolerance(unit=1 / samples_of(quantity, row), steps=2) if "accuracy" in quantity else Tolerance(1e-3)


def of_training(quantity: str, row: Mapping[str, Any]) -> Tolerance:
    """Return the tolerance of trained networks, whose rounding errors are amplified by training.

    The errors were measured by repeating the training with other instructions of the processor. This changed at most
    two predicted classes in a thousand, a training loss by 2 percent, a covariance or an output by 0.05 percent (0.5
    percent for a ResNet, whose batch normalization amplifies errors more), and the stability of a single sample by 3
    percent (10 percent for a ResNet). The tolerances are one predicted class plus one percent of them (for a ResNet,
    twice as much); half of a training loss, which may fall by as much from one epoch to the next; one epoch plus one in
    twenty; 0.4 percent of covariances, outputs and risks (3 percent for a ResNet); and 0.3 of a stability,
    statistically over the samples left out.

    Parameters
    ----------
    quantity, row
        As for `rounding`.

    Returns
    -------
    Tolerance
    """
    more = 2 if row.get("kind") == "resnet18" else 1
    if "accuracy" in quantity:
        m = samples_of(quantity, row)
        answers = more * (1 + m // 100)
        if quantity.startswith("chance_"):
            # of m^2 pairs of prediction and label; one prediction is in m of them, and at most half become correct
            return Tolerance(unit=1 / m**2, steps=answers * m // 2)
        return Tolerance(unit=1 / m, steps=answers)
    if quantity == "epochs_run":
        return Tolerance(0.05, unit=1, steps=1)
    if quantity == "train_loss":
        return Tolerance(0.5)
    if quantity.startswith("stability"):
        return Tolerance(0.3, statistical=True)
    return Tolerance() if quantity == "label" else Tolerance(4e-3 if more == 1 else 3e-2)


def samples_of(accuracy: str, row: Mapping[str, Any]) -> int:
    """The number of samples of which an accuracy is the fraction."""
    return int(row["n_test" if accuracy.endswith(("test_accuracy", "unseen_accuracy")) else "n"])


def of_gradients(quantity: str, row: Mapping[str, Any]) -> Tolerance:
    """Return the tolerance of results that are computed from the gradients of networks, before and after training.

    Rounding errors of single precision, 1e-7, are amplified by the condition number of the kernel matrix, so that 2e-7
    times this number is added to all of the following tolerances. At the start, relative differences may be 1e-3, and
    4e-3 for the condition number itself and for a ResNet. At the end, training has amplified the errors as well.
    Measured as for `of_training`, they were at most 3 percent of a mean, 8 percent of a condition number, and 17
    percent of the alignment of a single sample, all for a ResNet. The tolerances are 0.1 of means and standard
    deviations, 0.3 of the condition number, and, statistically, 0.5 of a single alignment at the end and halfway. All
    other quantities have the tolerances of `of_training`.

    Parameters
    ----------
    quantity, row
        As for `rounding`.

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
