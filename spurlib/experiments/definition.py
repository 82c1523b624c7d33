"""An experiment: a measurement, the settings it is repeated for, and how its repetitions are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._checks import choice, needed, positive
from .records import canonical, checked_name, checksum
from .tolerances import Tolerance, rounding

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["SCALES", "Experiment"]

SCALES = ("page", "paper")
"""``"page"``: minutes on a laptop; ``"paper"``: the sizes of the paper."""

Row = dict[str, Any]
"""Numbers, booleans and strings by name: one observation."""

S = TypeVar("S", bound="DataclassInstance")
"""A frozen dataclass with the settings of a measurement."""


def entries(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass as a record keeps them; those left at a default of None are left out."""
    if not is_dataclass(settings) or isinstance(settings, type):
        raise ValueError(f"cells: settings must be an instance of a frozen dataclass, got {type(settings).__name__}")
    named = ((field.name, field.default, getattr(settings, field.name)) for field in fields(settings))
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, default, value in named
        if value is not None or default is not None
    }


def scalars(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that become columns of the table."""
    return {key: value for key, value in entries.items() if not isinstance(value, (list, tuple, dict))}


def _itself(settings: S) -> S:
    return settings


@dataclass(frozen=True)
class Experiment(Generic[S]):
    """A measurement to be repeated for several settings and over seeds.

    Attributes
    ----------
    name : str
        Letters, digits, ``-`` and ``_``. Its record at a scale is called ``name-scale``.
    about : str
        What is measured, in one line.
    cells : callable
        From ``"page"`` or ``"paper"`` to the settings, one a cell: instances of a frozen dataclass whose fields JSON
        can hold, told apart by those that are scalars.
    measure : callable
        From (settings, seed, device) to rows: dicts of numbers, booleans and strings. An entry ``"source"`` says which
        data were used.
    keys : tuple of str
        The entries of a row that tell it from the others of its cell; the rest is measured.
    shorten : callable
        From settings to cheaper ones with some of their rows, for `verify`. Default: the settings themselves.
    version : int
        To be raised when `measure` changes its numbers: it makes earlier records stale.
    draws : dict
        Default number of seeds at each scale.
    tolerance : callable
        From the name of a quantity and a measured row to the `Tolerance` of `verify`. Default: `rounding`. Booleans and
        strings are exact, and so are integers of which the tolerance gives no unit.
    samples : tuple of str
        Those of the keys that tell samples of one training set apart: statistical tolerances pool over them.
    """

    name: str
    about: str
    cells: Callable[[str], list[S]]
    measure: Callable[[S, int, str], list[Row]]
    keys: tuple[str, ...] = ("n",)
    shorten: Callable[[S], S] = _itself
    version: int = 1
    draws: Mapping[str, int] = field(default_factory=lambda: {"page": 3, "paper": 10})
    tolerance: Callable[[str, Mapping[str, Any]], Tolerance] = rounding
    samples: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checked_name(self.name)

    def hash(self, scale: str, seeds: int) -> str:
        """Hash of all that decides the numbers: name, version, settings, seeds; 16 hexadecimal digits."""
        cells = [entries(cell) for cell in self.cells(checked_scale(scale))]
        return checksum(canonical([self.name, self.version, cells, seeds]))[:16]

    def table(self, scale: str = "page", seeds: int | None = None, device: str = "cpu", **changes: Any) -> Any:
        """Measure all cells here and now: the table that `run` records, kept nowhere.

        Parameters
        ----------
        scale, seeds, device
            As for `run`.
        **changes
            Fields of the settings to be replaced, as in ``data="digits"``.

        Returns
        -------
        pandas.DataFrame
            One observation a row, with the source of the data in the column ``source`` where `measure` names it.

        Raises
        ------
        ValueError
            A field that the settings do not have; or as from `measure`.
        """
        seeds = positive(self.draws[checked_scale(scale)] if seeds is None else seeds, "seeds")
        rows = []
        for cell in self.cells(scale):
            if unknown := set(changes) - {field.name for field in fields(cell)}:
                raise ValueError(f"{sorted(unknown)[0]!r} is not a field of the settings of {self.name!r}")
            cell = replace(cell, **changes)
            for seed in range(seeds):
                rows += [{**scalars(entries(cell)), "seed": seed, **row} for row in self.measure(cell, seed, device)]
        return needed("pandas", "experiments").DataFrame(rows)

    def command(self, scale: str) -> str:
        """The command line that makes its record."""
        return f"python -m spurlib.experiments run {self.name} --scale {scale}"


def checked_scale(scale: str) -> str:
    """Return a scale, or raise a ``ValueError``."""
    return choice(scale, "scale", SCALES)


def coordinates(cells: Iterable[Mapping[str, Any]], experiment: Experiment[Any]) -> list[str]:
    """The columns that tell the rows of one seed apart: the scalars among the entries of every cell, and the keys."""
    return list(dict.fromkeys([*(key for each in cells for key in scalars(each)), *experiment.keys]))
