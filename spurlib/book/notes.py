"""Notes: values that a cell computes and the text of its chapter shows."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["note"]

PREFIX = "application/papermill.record/"
"""Prefix of the MIME types of a noted value: notebooks store such outputs and do not show them."""


def note(name: str, value: Any) -> None:
    """Store a value in the notebook under a name by which the text of the chapter shows it.

    The text shows the value at ``{glue:text}`name``` or ``{glue:text}`name:.2f```. The output is like that of
    ``myst_nb.glue(name, value, display=False)``; only IPython is required.

    Parameters
    ----------
    name : str
        Name of the value, unique in its chapter: letters, digits, hyphens and underscores.
    value : object
        The value, as the notebook would display it. Round a number, because stored values are compared exactly.

    Raises
    ------
    ValueError
        `name` contains other characters.

    Notes
    -----
    Outside a notebook nothing is stored.

    Examples
    --------
    >>> note("accuracy", round(0.6180339, 2))
    """
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"name must be made of letters, digits, hyphens and underscores, got {name!r}")
    try:
        from IPython.core.formatters import format_display_data
        from IPython.core.getipython import get_ipython
        from IPython.display import display
    except ImportError:
        return
    if get_ipython() is None:
        return
    data, metadata = format_display_data(value)
    display(
        {PREFIX + mime: shown for mime, shown in data.items()},
        raw=True,
        metadata={**metadata, "scrapbook": {"name": name, "mime_prefix": PREFIX}},
    )
