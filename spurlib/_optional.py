"""Packages that only parts of the library need."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["needed"]


def needed(module: str, extra: str) -> Any:
    """Import an optional dependency, or say which extra of the library brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        # By path, not by name: the index does not hold spurlib, and a stranger could give that name to anything.
        advice = f'pip install ".[{extra}]" in the checkout of the book'
        raise ModuleNotFoundError(f"{package} is needed here: {advice}", name=package) from error
