"""The page about troubles quotes what is really said, and advises what can be run."""

from __future__ import annotations

import builtins
import importlib.util
import re
import subprocess
import sys
import tomllib

import pytest
import torch
from docutils import nodes
from docutils.utils import new_document

import spurlib as sl
from spurlib.data import images
from tools.chapters import ROOT, config, read
from tools.grading import fault
from tools.notebooks import install_cell
from tools.repository import PLACEHOLDER
from tools.sheets import visible

PAGE = re.sub(r"\{\w+\}`[^`]*`", "", read(ROOT / "chapters" / "trouble.md"))  # without roles
QUOTED = {literal[2].strip() for literal in re.finditer(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)", PAGE)}
COMMANDS = {one for one in QUOTED if re.search(r"^(\w+=\S+ )*(make|python|pip) ", one)}
ERRORS = {one for one in QUOTED if re.fullmatch(r"[A-Z]\w+Error", one)}

MAKEFILE, DOWNLOADS = read(ROOT / "Makefile"), read(ROOT / "spurlib" / "data" / "__main__.py")
ARRAY = {"name": "change", "kind": "number", "shape": [8], "entries": [1.0] * 8, "tol": 0.0}
WORDS = {"kind": "text", "shape": [], "entries": ["eight"]}


def raised(call, *arguments):
    """Return what a call that fails says."""
    with pytest.raises(Exception) as caught:
        call(*arguments)
    return str(caught.value)


def downloaded(monkeypatch, tmp_path):
    monkeypatch.setattr(images, "_fetch", lambda *_: "")
    return images.download("mnist", tmp_path, None)


def waited(monkeypatch, tmp_path):
    def run(command, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(images.subprocess, "run", run)
    return images._fetch("mnist", str(tmp_path), images.PATIENCE)


def damaged(monkeypatch, tmp_path, text="x"):
    (tmp_path / "file").write_text(text)
    return images._problem(tmp_path / "file", "digest")


def empty(monkeypatch, tmp_path):
    return damaged(monkeypatch, tmp_path, text="")


def without_torchvision(monkeypatch, tmp_path):
    monkeypatch.setattr(images, "find_spec", lambda _: None)
    return images._not_installed("torchvision")[0]


def without_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SPURLIB_DATA", str(tmp_path / "none"))
    return raised(images.check_folder, images.data_folder())


def outside(monkeypatch, tmp_path):
    return subprocess.run([sys.executable, "-I", "-S", "-c", "import spurlib"], capture_output=True, text=True).stderr


def without_operator(monkeypatch, tmp_path):
    """PyTorch's message, for an operator that there is not."""
    return raised(torch.library.register_fake("torchvision::none"), print).replace("none", "nms")


SAID = {
    "Python 3.11 or newer is needed": lambda *_: MAKEFILE,
    "operator torchvision::nms does not exist": without_operator,
    "ModuleNotFoundError: No module named 'spurlib'": outside,
    "repository: url:": lambda *_: install_cell("x", PLACEHOLDER),
    "RuntimeError": lambda *_: install_cell("x", PLACEHOLDER),
    "the download took longer than 20 s": waited,
    "what had been downloaded was removed": lambda *_: DOWNLOADS,
    "is not the official file": damaged,
    "is empty": empty,
    "what arrived is not complete": downloaded,
    "torchvision is not installed": without_torchvision,
    "which is not a folder": without_folder,
    "unknown node type": lambda *_: raised(nodes.NodeVisitor(new_document("")).unknown_visit, nodes.paragraph()),
    "define `change`": lambda *_: visible(ARRAY),
    "differs from the reference": lambda *_: fault(ARRAY, ARRAY | {"entries": [2.0] * 8}),
    "of shape (1, 8), not (8,)": lambda *_: fault(ARRAY, ARRAY | {"shape": [1, 8]}),
    "not of the kind asked for": lambda *_: fault(ARRAY, WORDS),
}
NAMES = {
    ".venv": "VENV := .venv\n" in MAKEFILE,
    "_config.yml": "url" in config()["repository"],
    "records/pages": any((ROOT / "records" / "pages").glob("*.json")),
    "~/.cache/spurlib": "~/.cache/spurlib" in str(images.data_folder.__doc__),
    "SPURLIB_DATA": "$SPURLIB_DATA" in str(images.data_folder.__doc__),
    "MNIST/raw": "MNIST/raw" in images._OFFICIAL,
    "cifar-10-batches-py": "cifar-10-batches-py" in images._OFFICIAL,
    ".damaged": "NAME.damaged" in str(images.download.__doc__),
    "digits": images.embedded("digits"),
    "mnist": images.embedded("mnist") and not images.embedded("mnist", range(10)),
    "spurlib": (ROOT / "spurlib").is_dir(),
}
OTHERS = {"change = ...", "(8,)", "html", "singlehtml"}
"""Examples of values, and names of Sphinx."""


def test_all_that_is_quoted_is_tested():
    tested = COMMANDS | ERRORS | {*SAID} | {*NAMES} | OTHERS
    assert tested == QUOTED
    assert len(COMMANDS) > 10


@pytest.mark.parametrize("message", SAID)
def test_a_message_is_what_is_said(message, monkeypatch, tmp_path):
    assert message in SAID[message](monkeypatch, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_what_it_is_called(name):
    assert NAMES[name]


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_an_error_has_this_name(name):
    assert issubclass(getattr(sl, name, None) or getattr(builtins, name), Exception)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_command_can_be_run(command):
    words = command.split()
    settings = [word.partition("=")[0] for word in words if re.match(r"\w+=", word)]
    program, *words = [word for word in words if not re.match(r"\w+=", word)]
    for name in settings:
        assert name in read(ROOT / "tools" / "environment.py") or re.search(rf"^{name} \?=", MAKEFILE, re.MULTILINE)
    if program == "make":
        assert words and all(re.search(rf"^{target}:.*##", MAKEFILE, re.MULTILINE) for target in words)
    elif program == "python":
        flag, module, *names = words
        assert flag == "-m" and importlib.util.find_spec(f"{module}.__main__")
        assert names == [] or (module == "spurlib.data" and all(map(images.image_set, names)))
    else:
        extra = re.fullmatch(r'install "\.\[(\w+)\]"', " ".join(words))
        assert extra and extra[1] in tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
