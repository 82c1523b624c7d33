"""How far what is measured again may be from what was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Tolerance", "of_gradients", "of_training", "rounding"]


@dataclass(frozen=True)
class Tolerance:
    """How far a quantity that is measured again may be from the recorded one; by default not at all.

    Attributes
    ----------
    relative : float
        The largest difference, relative to the scale of the quantity: the larger of the measured number and of the
        median over seeds (and samples) of the recorded ones, in absolute value.
    unit : float
        Where it is positive, the quantity counts something: it is a whole multiple of `unit`, and may differ by
        `steps` of them besides.
    steps : int
        See `unit`.
    statistical : bool
        The differences of single samples are independent of each other. The means over the m samples of a cell, too,
        are compared: they may differ by ``relative / sqrt(m)``.
    absolute : float
        A difference that is allowed besides, of a quantity that may be zero up to rounding.
    """

    relative: float = 0.0
    unit: float = 0.0
    steps: int = 0
    statistical: bool = False
    absolute: float = 0.0


def rounding(quantity: str, row: Mapping[str, Any]) -> Tolerance:
    """The tolerance of what is computed without training: rounding errors, which differ from machine to machine.

    Numbers agree to 1e-6 in double precision and to 1e-3 in single precision (``dtype`` of the configuration). In
    single precision an accuracy may differ by two samples, whose predictions are zero up to rounding. A ``label`` is
    exact.

    Parameters
    ----------
    quantity : str
        Its name: a column of the table.
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
    """The tolerance of trained networks: what rounding errors become when training amplifies them.

    Measured by training again with other instructions of the processor, which changed at most two answers in a
    thousand, 2 percent of a train loss, 0.05 percent of a covariance or an output (a ResNet, whose batch normalization
    amplifies more: 0.5 percent) and 3 percent of the stability of a single sample (a ResNet: 10). Allowed are: one
    answer and one percent of them (a ResNet: two and two percent); half of a train loss, which falls by as much from
    one epoch to the next; one epoch and one in twenty; 0.4 percent of covariances, outputs and risks (a ResNet: 3
    percent); and 0.3 of a stability, statistically, over the samples left out.

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
            # of m^2 pairs of an answer and a label; one answer is in m of them, of which half at most become right
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
    """The tolerance of what is computed from the gradients of networks, before and after training.

    Rounding errors of single precision, 1e-7, are amplified by the condition of the kernel matrix: 2e-7 times the
    condition is allowed besides what follows. At the start numbers agree to 1e-3, the condition itself and all of a
    ResNet to 4e-3. At the end training has amplified them as well: measured as for `of_training` they were 3
    percent of a mean, 8 percent of a condition, and 17 percent of the alignment of a single sample, all of a ResNet.
    Allowed are 0.1 of means and deviations, 0.3 of the condition, and 0.5 of a single alignment, at the end and
    halfway, statistically. The rest as `of_training` says.

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
