"""An experiment that is quickly done, for the tests of runs, of their verification, and of the command line."""

import os
import time
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

import spurlib.experiments.__main__ as command_line
from spurlib.experiments import Experiment, registry


@dataclass(frozen=True)
class Toy:
    """Settings of the toy: those that are None are left out."""

    act: str
    sizes: tuple[int, ...] = ()
    signed: tuple[str, ...] | None = None
    d: int | None = None
    dtype: str | None = None


@dataclass(frozen=True, kw_only=True)
class Open(Toy):
    """Settings of the toy with a choice that is left open, and recorded as such."""

    until: float | None


def toy_cells(scale):
    return [Toy(act, (1, 2, 3) if scale == "page" else (1, 2, 3, 4)) for act in ("a", "b")]


def toy_measure(settings, seed, device):
    """Rows that depend on nothing but the arguments; each call leaves a line in $TOY_LOG."""
    if log := os.environ.get("TOY_LOG"):
        with open(log, "a") as file:
            file.write(f"{settings.act} {seed}\n")
    time.sleep(0.004)
    draws = np.random.default_rng([ord(settings.act), seed]).standard_normal(9)
    return [{"n": n, "value": draws[n], "square": draws[n] ** 2, "source": "toy"} for n in settings.sizes]


def first_size(settings):
    return replace(settings, sizes=settings.sizes[:1])


TOY = Experiment("toy", "draws", toy_cells, toy_measure, shorten=first_size, draws={"page": 4, "paper": 6})


def know(monkeypatch, only):
    """Let the registry and the command line know one experiment, under the name of the toy."""
    known = {"toy": only}
    for module in (registry, command_line):
        monkeypatch.setattr(module, "KNOWN", known)


def fails_at(act, seed, error):
    """The toy with an error in one cell."""

    def measure(settings, draw, device):
        if (settings.act, draw) == (act, seed):
            raise error
        return toy_measure(settings, draw, device)

    return replace(TOY, measure=measure)


def changed(**entries):
    """The toy with other entries in each of its rows: values, or functions of the value."""

    def measure(settings, seed, device):
        rows = toy_measure(settings, seed, device)
        return [row | {key: new(row[key]) if callable(new) else new for key, new in entries.items()} for row in rows]

    return replace(TOY, measure=measure)


def shifted(by):
    """The toy with other values."""
    return changed(value=lambda value: value + by)


def same(left, right):
    pd.testing.assert_frame_equal(left, right, check_exact=True)
