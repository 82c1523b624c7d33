"""The lock is that of the requirements; the set-up chooses PyTorch for the machine, falls back, and repairs."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tools import environment
from tools.environment import LOCK, REQUIREMENTS, ROOT, entries, pins, stale

REQUIREMENTS_TEXT, LOCK_TEXT = REQUIREMENTS.read_text(encoding="utf-8"), LOCK.read_text(encoding="utf-8")


def test_the_lock_is_that_of_the_requirements():
    assert stale(REQUIREMENTS_TEXT, LOCK_TEXT) == [], "run `make lock`"
    wanted = [line for line in REQUIREMENTS_TEXT.splitlines() if line and not line.startswith("#")]
    assert [line for line in wanted if not pins(line)] == []  # every requirement is pinned


@pytest.mark.parametrize(
    ("requirements", "named"),
    [
        (REQUIREMENTS_TEXT + "six==1.17.0\n", ["six"]),
        (REQUIREMENTS_TEXT.replace("pytest==", "pytest==1."), ["pytest"]),
        (REQUIREMENTS_TEXT.replace("mpmath==1.3.0\n", ""), ["mpmath"]),
        (REQUIREMENTS_TEXT.replace("dask[distributed]==", "dask[distributed]==1!"), ["dask"]),
    ],
)
def test_a_lock_of_other_requirements_is_found(requirements, named):
    assert stale(requirements, LOCK_TEXT) == named


def test_every_entry_of_the_lock_has_a_hash_and_no_address():
    assert len(entries(LOCK_TEXT)) > len(pins(REQUIREMENTS_TEXT))
    assert [entry for entry in entries(LOCK_TEXT) if "--hash=sha256:" not in entry] == []
    assert re.findall(r"://|--(?:\w+-)?index|--find-links", LOCK_TEXT) == []


def test_what_needs_cuda_is_left_to_the_wheels_of_pytorch():
    stack = {name for name in pins(LOCK_TEXT) if environment.TORCH.match(f"{name}==")}
    assert {"torch", "torchvision", "triton", "nvidia-cublas", "cuda-toolkit"} <= stack
    assert stack - {"torch", "torchvision", "triton"} == {
        name for name in stack if name.startswith(("nvidia-", "cuda-"))
    }
    assert not {"numpy", "opacus", "setuptools"} & stack


def test_every_module_that_is_imported_is_required():
    """Of the packages that spurlib, tools, tests and bench import, none comes by way of another one only."""
    distributions, listed = importlib.metadata.packages_distributions(), set(pins(REQUIREMENTS_TEXT))
    ours, missing = {"spurlib", "tools", "tests"}, set()
    checkers = {"_typeshed"}  # comes with every type checker, and is imported by nothing else
    for path in (path for folder in (*ours, "bench") for path in (ROOT / folder).rglob("*.py")):
        for name in imported(path.read_text(encoding="utf-8")) - sys.stdlib_module_names - ours - checkers:
            if not listed & {package.lower().replace("_", "-") for package in distributions.get(name, [])}:
                missing.add(name)
    assert missing == set()


def imported(code: str) -> set[str]:
    """Return the top-level names of the modules that a piece of code imports."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Pretend that an environment is there; return what uv is asked for, and a way to let it refuse."""
    asked: list[str] = []
    refused: list[str] = []

    def uv(python, *arguments, text="", quiet=False):
        asked.append(" ".join(arguments) + "\n" + text)
        return not any(word in asked[-1] for word in refused)

    monkeypatch.delenv("UV_TORCH_BACKEND", raising=False)
    monkeypatch.setattr(environment, "uv", uv)
    monkeypatch.setattr(environment, "bootstrap", lambda folder: folder / "bin" / "python")
    monkeypatch.setattr(environment, "installed", lambda python, package: "")
    monkeypatch.setattr(environment, "has_gpu", lambda: False)
    monkeypatch.setattr(environment.platform, "system", lambda: "Linux")
    return asked, refused


def made(machine, folder, capsys) -> tuple[bool, list[str], list[str]]:
    """Make an environment; return whether that went well, what was said, and what was installed with CUDA."""
    done = environment.create(folder)
    return done, capsys.readouterr().out.splitlines(), [call for call in machine[0] if "nvidia-cublas" in call]


def test_without_a_gpu_cpu_wheels_are_installed(machine, tmp_path, capsys):
    done, said, cuda = made(machine, tmp_path, capsys)
    assert (done, said, cuda) == (True, ["PyTorch: cpu wheels, because there is no GPU here"], [])
    (call,) = [call for call in machine[0] if "install" in call and "\ntorch==" in call]
    assert "--torch-backend=cpu" in call and "--require-hashes" not in call
    assert any("--require-hashes" in call and "\nnumpy==" in call for call in machine[0])


def test_where_cpu_wheels_cannot_be_reached_the_default_index_serves(machine, tmp_path, capsys):
    machine[1].append("--torch-backend")
    done, said, cuda = made(machine, tmp_path, capsys)
    assert done
    assert said == ["PyTorch: wheels of the default index, because cpu wheels cannot be had from here"]
    assert len(cuda) == 1 and "--require-hashes" in cuda[0]


def test_cpu_wheels_that_are_listed_and_not_delivered_do_not_fail_the_set_up(machine, tmp_path, capsys):
    machine[1].append(f"pip install --python={tmp_path / 'bin' / 'python'} --torch-backend")
    done, said, cuda = made(machine, tmp_path, capsys)
    assert done and len(cuda) == 1
    assert said[-1] == "PyTorch: cpu wheels could not be installed; those of the default index follow"


def test_with_a_gpu_the_default_index_serves(machine, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(environment, "has_gpu", lambda: True)
    done, said, cuda = made(machine, tmp_path, capsys)
    assert done and len(cuda) == 1
    assert said == ["PyTorch: wheels of the default index, for the GPU of this machine"]
    assert not any("--torch-backend" in call for call in machine[0])


def test_the_user_chooses_the_wheels(machine, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("UV_TORCH_BACKEND", "cu130")
    done, said, cuda = made(machine, tmp_path, capsys)
    assert (done, said, cuda) == (True, ["PyTorch: cu130 wheels, as UV_TORCH_BACKEND asks"], [])


def test_wheels_of_another_index_that_are_there_stay(machine, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(environment, "installed", lambda python, package: pins(LOCK_TEXT)[package] + "+cpu")
    done, said, cuda = made(machine, tmp_path, capsys)
    assert (done, said, cuda) == (True, [], [])


def test_a_lock_of_other_requirements_stops_the_set_up(machine, tmp_path, capsys, monkeypatch):
    other = tmp_path / "requirements.txt"
    other.write_text(REQUIREMENTS_TEXT + "six==1.17.0\n")
    monkeypatch.setattr(environment, "REQUIREMENTS", other)
    done, said, _ = made(machine, tmp_path, capsys)
    assert not done and said == ["requirements.lock is not that of requirements.txt (six): run `make lock`"]
    assert machine[0] == []


def test_what_uv_is_asked_for_pytorch_does_not_reach_the_other_packages(monkeypatch, tmp_path):
    monkeypatch.setenv("UV_TORCH_BACKEND", "cu130")
    monkeypatch.setattr(environment.subprocess, "run", lambda *_, env, **__: pytest.fail(env["UV_TORCH_BACKEND"]))
    with pytest.raises(KeyError):
        environment.uv(Path("python"), "pip")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Make an empty environment on a path with a space."""
    folder = tmp_path / "a b" / ".venv"
    venv.create(folder, symlinks=True)
    (folder / "pyvenv.cfg").write_text(f"{(folder / 'pyvenv.cfg').read_text()}\ncommand = python -m venv {folder}\n")
    return folder


def break_nothing(folder: Path) -> None:
    """Leave it as it is."""


def break_interpreter(folder: Path) -> None:
    """Take away the Python it was made with."""
    for python in (folder / "bin").glob("python*"):
        python.unlink()
        python.symlink_to("/nonexistent/python")


def break_place(folder: Path) -> None:
    """Move it, as a checkout is moved."""
    other = folder.with_name("other")
    folder.rename(other)
    text = (other / "pyvenv.cfg").read_text()
    shutil.copytree(other, folder, symlinks=True)
    (folder / "pyvenv.cfg").write_text(text.replace(str(folder), str(other)))


def break_folder(folder: Path) -> None:
    """Leave a link that leads nowhere in its place."""
    shutil.rmtree(folder)
    folder.symlink_to("/nonexistent")


@pytest.mark.parametrize("harm", [break_nothing, break_interpreter, break_place, break_folder])
def test_a_broken_environment_is_made_anew(folder, harm, monkeypatch, capsys):
    monkeypatch.setattr(environment, "with_uv", lambda python: None)
    mark = folder / "mark"
    mark.touch()
    harm(folder)
    python = environment.bootstrap(folder)
    assert subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0  # it had no pip
    assert mark.exists() == (harm is break_nothing)
    assert (capsys.readouterr().out == "") == (harm is break_nothing)


def test_make_sees_that_the_environment_does_not_work(tmp_path):
    """A file that says "ready" in an environment whose Python is gone does not count."""
    for name in ("Makefile", "requirements.txt", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "environment.py").touch()
    home = tmp_path / ".venv"
    (home / "bin").mkdir(parents=True)
    (home / ".ready").touch()
    (home / "bin" / "python").symlink_to(sys.executable)
    for made_at, target, fine in (
        (home, sys.executable, True),
        ("/other", sys.executable, False),
        (home, "/no", False),
    ):
        (home / "pyvenv.cfg").write_text(f"command = python -m venv {made_at}\n")
        (home / "bin" / "python").unlink()
        (home / "bin" / "python").symlink_to(target)
        done = subprocess.run(["make", "-n", ".venv/.ready"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert ("up to date" in done.stdout) == fine, (made_at, target, done.stdout)
