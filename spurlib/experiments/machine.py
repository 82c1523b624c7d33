"""Properties of the code and the machine that are stored in a record."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def commit() -> str:
    """Commit of the code, with ``-dirty`` if the library has been changed since; ``$SPURLIB_COMMIT`` outside git.

    Changed records are ignored, because one run may write them while another one computes.
    """
    folder = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=30).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "experiments/machine.py")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("SPURLIB_COMMIT", "unknown")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute."""
    found = {"python": platform.python_version()}
    for package in ("spurlib", "numpy", "scipy", "torch", "pandas"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a checkout that was never installed
            found[package] = "unknown"
    return found


def peak_bytes() -> int:
    """Peak memory of this process in bytes; 0 if the system does not report it."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
