"""The experiments by their names."""

from __future__ import annotations

import os
from typing import Any

from . import architectures, classes, curves, depth, networks, privacy
from .definition import Experiment
from .records import Record
from .runs import OptionError, load

__all__ = ["experiment", "experiment_names", "load_record", "register"]

_ALL: list[Experiment[Any]] = [
    *curves.EXPERIMENTS,
    *classes.EXPERIMENTS,
    *networks.EXPERIMENTS,
    *privacy.EXPERIMENTS,
    *architectures.EXPERIMENTS,
    *depth.EXPERIMENTS,
]
KNOWN = {each.name: each for each in _ALL}
"""The experiments, in the order in which they are listed."""


def register(new: Experiment[Any]) -> Experiment[Any]:
    """Register an experiment under its name and return it, or raise a ``ValueError`` if the name is taken."""
    if new.name in KNOWN:
        raise ValueError(f"experiment {new.name!r} is there already")
    KNOWN[new.name] = new
    return new


def experiment_names() -> list[str]:
    """Return the names of all experiments, in the order in which they were registered."""
    return list(KNOWN)


def experiment(name: str) -> Experiment[Any]:
    """Return the experiment with a given name, or raise an `OptionError` that lists the known ones."""
    if name not in KNOWN:
        raise OptionError(f"experiment {name!r} is not known; known are {', '.join(KNOWN)}")
    return KNOWN[name]


def load_record(name: str, scale: str = "paper", folder: str | os.PathLike[str] | None = None) -> Record:
    """Read the record of the experiment with a given name; see `load`."""
    return load(experiment(name), scale, folder)
