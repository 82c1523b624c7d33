"""An experiment: a measurement, the settings for which it is repeated, and the comparison of repetitions."""

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
"""``"page"`` takes minutes on a laptop; ``"paper"`` has the sizes of Bombari and Mondelli (2024)."""

Row = dict[str, Any]
"""One observation: numbers, booleans and strings by name."""

S = TypeVar("S", bound="DataclassInstance")
"""A frozen dataclass with the settings of a measurement."""


def entries(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass as they are stored in a record; fields left at a default of None are omitted."""
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
    """A measurement that is repeated for several settings and seeds.

    Attributes
    ----------
    name : str
        Name, of letters, digits, ``-`` and ``_``. The record at a scale is called ``name-scale``.
    about : str
        What is measured, in one line.
    cells : callable
        Function from a scale, ``"page"`` or ``"paper"``, to the list of settings, one for each cell. Settings are
        instances of a frozen dataclass whose fields can be stored as JSON, and they must differ in a scalar field.
    measure : callable
        Function from (settings, seed, device) to a list of rows, which are dicts of numbers, booleans and strings. An
        entry ``"source"`` names the data that were used.
    keys : tuple of str
        The entries by which the rows of a cell differ; all other entries are measured.
    shorten : callable
        Function from settings to cheaper settings with some of the same rows, for `verify`. Default: the identity.
    version : int
        A number to increase when a change of `measure` changes its results, so that earlier records become stale.
    draws : dict
        Number of seeds at each scale if none is given. Default: 3 at page scale, 10 at paper scale.
    tolerance : callable
        Function from the name of a quantity and a measured row to the `Tolerance` of `verify`. Default: `rounding`.
        Booleans and strings must agree exactly, and so must integers for which the tolerance has no unit.
    samples : tuple of str
        The keys by which the samples of one training set differ; statistical tolerances also compare means over them.

    Raises
    ------
    ValueError
        `name` has other characters.
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
        """Return the hash, 16 digits, of what determines the results: name, version, settings and number of seeds."""
        cells = [entries(cell) for cell in self.cells(checked_scale(scale))]
        return checksum(canonical([self.name, self.version, cells, seeds]))[:16]

    def table(self, scale: str = "page", seeds: int | None = None, device: str = "cpu", **changes: Any) -> Any:
        """Measure all cells and return the table that `run` would record, without storing it.

        Parameters
        ----------
        scale, seeds, device
            As for `run`.
        **changes
            Fields of the settings to be replaced, as in ``data="digits"``.

        Returns
        -------
        pandas.DataFrame
            One observation in each row. The column ``source`` names the source of the data if `measure` does.

        Raises
        ------
        ValueError
            The settings do not have one of these fields, `scale` or `seeds` is not valid, or as for `measure`.
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
        """Return the command line that makes the record."""
        return f"python -m spurlib.experiments run {self.name} --scale {scale}"


def checked_scale(scale: str) -> str:
    """Return a scale, or raise a ``ValueError``."""
    return choice(scale, "scale", SCALES)


def coordinates(cells: Iterable[Mapping[str, Any]], experiment: Experiment[Any]) -> list[str]:
    """The columns by which the rows of one seed differ: the scalar entries of the cells, and the keys."""
    return list(dict.fromkeys([*(key for each in cells for key in scalars(each)), *experiment.keys]))
