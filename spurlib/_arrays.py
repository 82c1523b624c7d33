"""Checked conversion between numpy arrays and torch tensors: what comes in decides what goes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

Array = Any
"""A numpy array or a torch tensor."""


def tensor(
    x: Array,
    name: str,
    *,
    ndim: int,
    columns: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> torch.Tensor:
    """Return `x` as a finite, nonempty tensor of `ndim` axes, or raise a ``ValueError`` that names it."""
    try:
        t = x.detach() if isinstance(x, torch.Tensor) else torch.as_tensor(np.asarray(x, order="C"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of numbers, got {type(x).__name__}") from error
    if t.is_complex() or (t.dtype == torch.bool and ndim > 1):
        raise ValueError(f"{name} must hold real numbers, got dtype {t.dtype}")
    if t.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, got shape {tuple(t.shape)}")
    if t.numel() == 0:
        raise ValueError(f"{name} is empty: its shape is {tuple(t.shape)}")
    if columns is not None and t.shape[-1] != columns:
        raise ValueError(f"{name} must have {columns} columns, got shape {tuple(t.shape)}")
    t = t.to(device=device, dtype=dtype)
    if not torch.isfinite(t).all():
        raise ValueError(f"{name} holds NaN or infinite values")
    return t


def like(t: torch.Tensor, x: Array) -> Array:
    """Return tensor `t` as the kind of array that `x` is: a tensor on its device, or a numpy array."""
    return t.to(x.device) if isinstance(x, torch.Tensor) else t.cpu().numpy()


def device_of(device: torch.device | str) -> torch.device:
    """Check that a device is there, and return it."""
    try:
        d = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r} is not known to torch: use 'cpu' or 'cuda'") from error
    if d.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} was asked for, but torch sees no CUDA device: use device='cpu'")
    if d.type == "cuda" and d.index is not None and d.index >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices")
    return d


def positive(value: Any, name: str) -> int:
    """Return a size as a positive ``int``, or raise a ``ValueError`` that names it."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return int(value)


def fraction(value: Any, name: str) -> float:
    """Return a number strictly between 0 and 1, or raise a ``ValueError`` that names it."""
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a number strictly between 0 and 1, got {value!r}") from error
    if not 0.0 < number < 1.0:
        raise ValueError(f"{name} must lie strictly between 0 and 1, got {value!r}")
    return number
