"""Style and types, as `make lint` checks them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tools.chapters import ROOT


@pytest.mark.parametrize("command", ["ruff check", "ruff format --check", "mypy"])
def test_no_complaint(command):
    done = subprocess.run([sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
