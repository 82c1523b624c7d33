"""Clean environments outside the repository, which tests make in seconds from what the set-up has downloaded."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.chapters import ROOT


def environ(**more: str) -> dict[str, str]:
    """Return an environment that knows nothing of this repository, of its data or of its settings."""
    ours = ("PYTHON", "SPUR", "UV_", "VIRTUAL_ENV", "MPL")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | more


def copy_of_the_repository(folder: Path) -> Path:
    """Copy the repository without what is built, so that nothing is left in it."""
    built = shutil.ignore_patterns(
        ".git", ".venv", "_build", ".cache", "build", "*.egg-info", "__pycache__", ".*_cache"
    )
    return Path(shutil.copytree(ROOT, folder, ignore=built))


def bare(folder: Path) -> Path:
    """Make an environment with pip and return its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, env=environ())
    return folder / "bin" / "python"


def environment(folder: Path, *packages: str) -> Path:
    """Make an environment with some packages and return its interpreter; PyTorch is the one that runs here.

    Where the registry cannot be reached and the packages were not downloaded before, the test is skipped.
    """
    python = bare(folder)
    version, _, local = importlib.metadata.version("torch").partition("+")
    wanted = [f"torch=={version}" if package == "torch" else package for package in packages]
    backend = [f"--torch-backend={local}"] if local else []
    # Links to what the set-up has downloaded: gigabytes are neither downloaded nor copied.
    install = [sys.executable, "-m", "uv", "pip", "install", "-q", "--link-mode=symlink", f"--python={python}"]
    for more in (["--offline"], []):
        done = subprocess.run([*install, *backend, *more, *wanted], capture_output=True, text=True, env=environ())
        if done.returncode == 0:
            return python
    pytest.skip(f"the packages cannot be had from here, so that nothing was installed and tested: {done.stderr[:500]}")


def has(python: Path, module: str) -> bool:
    """Return whether an interpreter finds a module."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([python, "-I", "-c", code]).returncode == 0


def version(python: Path, package: str) -> str:
    """Return the version of a package that an interpreter has."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.strip()
