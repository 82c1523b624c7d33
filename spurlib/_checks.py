"""Checks of arguments, each written once: bad input raises a ``ValueError`` that names the argument."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = [
    "Array",
    "choice",
    "device_of",
    "finite",
    "fraction",
    "integer",
    "is_tensor",
    "like",
    "needed",
    "number",
    "numbers",
    "one_given",
    "places",
    "plain",
    "points",
    "positive",
    "precision",
    "seed_of",
    "share",
    "square",
    "symmetric",
    "tensor",
]

Array = Any
"""A numpy array or a torch tensor."""

MOST_SEED = 2**63 - 1
"""The largest seed: every generator of numpy and torch takes it as it is."""


def is_tensor(x: Any) -> TypeGuard[torch.Tensor]:
    """Whether `x` is a tensor; torch is not imported to find out."""
    loaded = sys.modules.get("torch")
    return loaded is not None and isinstance(x, loaded.Tensor)


def tensor(
    x: Array,
    name: str,
    *,
    ndim: int | tuple[int, ...],
    columns: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Return `x` as a finite, nonempty tensor of `ndim` axes, or raise a ``ValueError`` that names it.

    Truth values are accepted only if one axis is allowed, as for labels. The default dtype is float64.
    """
    import torch

    dtype = torch.float64 if dtype is None else dtype
    axes = (ndim,) if isinstance(ndim, int) else ndim
    t = x.detach() if is_tensor(x) else torch.from_numpy(_native(x, name))
    if t.layout != torch.strided or t.is_nested or t.is_meta or t.is_quantized:
        raise ValueError(f"{name} must be a dense tensor that holds its numbers, got {_kind(t)}")
    if t.is_complex() or (t.dtype == torch.bool and min(axes) > 1):
        raise ValueError(f"{name} must hold real numbers, got dtype {t.dtype}")
    if t.ndim not in axes:
        raise ValueError(f"{name} must have {' or '.join(map(str, axes))} axes, got shape {tuple(t.shape)}")
    if t.numel() == 0:
        raise ValueError(f"{name} is empty: its shape is {tuple(t.shape)}")
    if columns is not None and t.shape[-1] != columns:
        raise ValueError(f"{name} must have {columns} columns, got shape {tuple(t.shape)}")
    out = t.to(device=device, dtype=dtype)
    if not finite(out):
        if finite(t):
            raise ValueError(f"{name} holds numbers too large for {dtype}")
        raise ValueError(f"{name} holds NaN or infinite values")
    return out


def finite(t: torch.Tensor) -> bool:
    """Whether all entries are finite, from the extremes (which are NaN if an entry is), without a large temporary."""
    return bool(t.amin().isfinite() & t.amax().isfinite())


def _native(x: Any, name: str) -> np.ndarray:
    """`x` as a numpy array of real numbers, in a dtype and byte order that torch takes; writable, or torch warns."""
    if _masked(x):
        raise ValueError(f"{name} has masked entries: fill or drop them first")
    try:
        a = np.asarray(x, order="C")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be an array of numbers, got {_kind(x)}: {error}") from error
    if a.dtype.kind == "O":
        a = _of_objects(a, x, name)
    if a.dtype.kind == "c":
        raise ValueError(f"{name} must hold real numbers, got dtype {a.dtype}")
    if a.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be an array of numbers, got {_kind(x)}")
    if a.dtype.kind == "f" and a.dtype.itemsize > 8:
        with np.errstate(over="ignore"):
            wide, a = a, a.astype(np.float64)
        if (np.isinf(a) & np.isfinite(wide)).any():
            raise ValueError(f"{name} holds numbers too large for torch.float64")
    a = a.astype(a.dtype.newbyteorder("="), copy=False)
    return a if a.flags.writeable else a.copy()


def _masked(x: Any) -> bool:
    """Whether an array, or one in a list, has masked entries."""
    if isinstance(x, (list, tuple)):
        return any(map(_masked, x))
    return isinstance(x, np.ma.MaskedArray) and bool(np.ma.is_masked(x))


def _of_objects(a: np.ndarray, x: Any, name: str) -> np.ndarray:
    """An array of Python objects, for instance from a nullable column, as float64: each must be a real number."""
    for value in a.flat:
        if isinstance(value, bool) or not isinstance(value, Real):
            among = f" that holds {_shown(value)}" if a.ndim else ""
            raise ValueError(f"{name} must be an array of numbers, got {_kind(x)}{among}")
    try:
        return a.astype(np.float64)
    except OverflowError as error:
        raise ValueError(f"{name} holds numbers too large for torch.float64") from error


def _shown(value: Any, most: int = 80) -> str:
    """The value that was passed, in one line that is not too long."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python does not print integers with more than a few thousand digits
        return f"{type(value).__name__} too long to print"
    return text if len(text) <= most else text[:most] + "..."


def _kind(x: Any) -> str:
    """The type of `x`, with its dtype where it has one."""
    dtype = getattr(x, "dtype", None)
    layout = f", {x.layout}, on {x.device}" if is_tensor(x) else ""
    return type(x).__name__ + (f" of dtype {dtype}{layout}" if dtype is not None else "")


def like(t: torch.Tensor, x: Array) -> Array:
    """Return tensor `t` as the kind of array that `x` is: a tensor on its device, or a numpy array."""
    return t.to(x.device) if is_tensor(x) else t.cpu().numpy()


def device_of(device: Any) -> torch.device:
    """Check that a device is available and that this library can compute on it, and return it."""
    import torch

    try:
        d = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device {device!r} is not known to torch: use 'cpu' or 'cuda'") from error
    if d.type == "cpu" and not d.index:
        return torch.device("cpu")
    if d.type != "cuda":
        raise ValueError(f"device must be 'cpu' or 'cuda', where float64 is computed; got {device!r}")
    if not torch.cuda.is_available():
        raise ValueError(f"device {device!r} was asked for, but torch sees no CUDA device: use device='cpu'")
    if d.index is not None and d.index >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices")
    return d


def precision(dtype: Any, name: str = "dtype") -> torch.dtype:
    """Return ``torch.float32`` or ``torch.float64``, given as such, by name, or as a numpy dtype."""
    import torch

    known = {"float32": torch.float32, "float64": torch.float64}
    if isinstance(dtype, torch.dtype):
        found = str(dtype).removeprefix("torch.")
    else:
        try:
            found = np.dtype(dtype).name if dtype is not None else "None"
        except TypeError:
            found = str(dtype)
    if found not in known:
        raise ValueError(f"{name} must be torch.float32 or torch.float64, got {_shown(dtype)}")
    return known[found]


def choice(value: Any, name: str, allowed: Collection[str]) -> str:
    """Return one of several words."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {_shown(value)}")
    return value


def one_given(**given: Any) -> None:
    """Raise unless exactly one of several arguments is not None."""
    if sum(value is not None for value in given.values()) != 1:
        raise ValueError(f"{' and '.join(given)}: give exactly one of them")


def integer(value: Any, name: str, *, least: int, most: int | None = None) -> int:
    """Return an ``int`` from `least` to `most`."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        kind = {0: "nonnegative", 1: "positive"}.get(least) if most is None else None
        wanted = f"a {kind} integer" if kind else f"an integer of at least {least}"
        wanted += "" if most is None else f" and at most {most}"
        raise ValueError(f"{name} must be {wanted}, got {_shown(value)}")
    return int(value)


def positive(value: Any, name: str) -> int:
    """Return a size as a positive ``int``."""
    return integer(value, name, least=1)


def seed_of(value: Any, name: str = "seed") -> int:
    """Return a seed: an integer that numpy and torch both accept without truncation."""
    if type(value).__name__ == "Generator":
        raise ValueError(f"{name} must be an integer, from which generators are made here; got {_shown(value)}")
    return integer(value, name, least=0, most=MOST_SEED)


def share(value: Any, name: str) -> tuple[int, int]:
    """Return ``(rank, world)``: the number of a worker, counted from 0, and the number of workers."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{name} must be a pair (rank, world), got {_shown(value)}")
    world = positive(value[1], f"{name}[1]")
    return integer(value[0], f"{name}[0]", least=0, most=world - 1), world


def numbers(
    value: Any,
    name: str,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    finite: bool = True,
    whole: bool = False,
) -> np.ndarray:
    """Return a float64 array of real numbers within bounds (`above` and `below` are excluded), without NaN."""
    try:
        if is_tensor(value):
            value = value.detach().cpu().numpy()
        x = _native(value, name)
    except (ValueError, TypeError, RuntimeError, OverflowError):
        x = np.empty(0)
    right = x.size > 0 and x.dtype.kind in "iuf"
    if right:
        x = x.astype(np.float64)
        right = not np.isnan(x).any() and not (finite and np.isinf(x).any())
    for bound, inside in (
        (above, lambda: (x > above).all()),
        (least, lambda: (x >= least).all()),
        (below, lambda: (x < below).all()),
        (whole or None, lambda: (np.isinf(x) | (x == np.floor(x))).all()),
    ):
        right = right and (bound is None or bool(inside()))
    if not right:
        raise ValueError(f"{name} must be {_range(above, least, below, finite, whole)}, got {_shown(value)}")
    return x


def number(value: Any, name: str, **bounds: Any) -> float:
    """Return one real number within bounds, as `numbers` takes them."""
    x = numbers(value, name, **bounds)
    if x.ndim:
        raise ValueError(f"{name} must be one number, got an array of shape {x.shape}")
    return float(x)


def _range(above: float | None, least: float | None, below: float | None, finite: bool, whole: bool) -> str:
    kind = "an integer" if whole else "a finite number" if finite and below is None else "a number"
    if above is not None and below is not None:
        return f"{kind} strictly between {above:g} and {below:g}"
    bounds = [f"{word} {bound:g}" for word, bound in (("above", above), ("of at least", least)) if bound is not None]
    bounds += [] if below is None else [f"below {below:g}"]
    return f"{kind} {' and '.join(bounds)}".rstrip()


def fraction(value: Any, name: str) -> float:
    """Return a number strictly between 0 and 1."""
    return number(value, name, above=0.0, below=1.0)


def plain(x: Any) -> Any:
    """A ``float`` for an array without axes, else the array."""
    return float(x) if np.ndim(x) == 0 else x


def square(x: Any, name: str, *, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return a square, symmetric, finite float64 matrix as a tensor; no second matrix is made on the way."""
    t = tensor(x, name, ndim=2, device=device)
    if t.shape[0] != t.shape[1]:
        raise ValueError(f"{name} must be a square matrix, got shape {tuple(t.shape)}")
    gap = max(float((rows - columns).abs_().max()) for rows, columns in zip(t.split(64), t.T.split(64), strict=True))
    if gap > 1e-4 * max(-float(t.amin()), float(t.amax())):
        raise ValueError(f"{name} must be symmetric: the largest difference of two entries is {gap:.3g}")
    return t


def symmetric(x: Any, name: str) -> np.ndarray:
    """Return a square, symmetric, finite float64 matrix of numpy."""
    return square(x, name).numpy()


def points(x: Array, name: str) -> Array:
    """Return `x` as real floating-point numbers: a tensor stays one, all else becomes a numpy array; NaN may stay.

    Integers and booleans become float64: no result is rounded to a whole number.
    """
    if not is_tensor(x):
        x = _native(x, name)
        if x.dtype.kind == "c":
            raise ValueError(f"{name} must hold real numbers, got {_kind(x)}")
        return x if x.dtype.kind == "f" else x.astype(np.float64)
    if x.is_complex() or x.is_quantized or str(x.layout) != "torch.strided":
        raise ValueError(f"{name} must be a dense tensor of real numbers, got {_kind(x)}")
    return x if x.is_floating_point() else x.double()


def places(value: Any, name: str) -> tuple[float, ...]:
    """Return the points of a list of finite numbers, perhaps empty, in increasing order."""
    try:
        found = [number(x, name) for x in value]
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a list of finite numbers, got {value!r}") from None
    return tuple(sorted(found))


def needed(module: str, extra: str) -> Any:
    """Import an optional dependency, or raise an error that names the extra of the library with it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        # By path, not by name: the package index does not hold spurlib, and anybody could register that name there.
        advice = f'pip install ".[{extra}]" in the checkout of the book'
        raise ModuleNotFoundError(f"{package} is needed here: {advice}", name=package) from error
