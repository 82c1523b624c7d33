"""What others install: the wheel with its three dependencies, the extras of the chapters, and what Binder installs."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.book.clean import bare, copy_of_the_repository, environ, environment, has
from tools.chapters import ROOT, executable, notebook
from tools.environment import LOCK, REQUIREMENTS, pins

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def name(requirement: str) -> str:
    """Return the name of the package that a requirement asks for."""
    return re.split(r"[^\w-]", requirement)[0].lower()


EXTRAS = {extra: {*map(name, lines)} for extra, lines in PROJECT["optional-dependencies"].items()}
"""Names of the packages of each extra."""

BEHIND = {"torchvision": "the images of CIFAR-10 and ResNet-18", "ipython": "claims and notes, and `display`"}
"""What chapters need without importing it: spurlib does, for what stands here."""


def test_the_extra_of_the_chapters_is_what_they_import():
    imported = set()
    for chapter in executable():
        for cell in (cell for cell in notebook(chapter).cells if cell.cell_type == "code"):
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    imported.add(str(node.module).partition(".")[0])
    imported = {{"sklearn": "scikit-learn"}.get(module, module) for module in imported}
    brought = {name(line) for line in PROJECT["dependencies"]} | {"spurlib"}
    assert imported - sys.stdlib_module_names - brought == EXTRAS["book"] - set(BEHIND)


def test_no_extra_asks_for_more_than_what_is_tested():
    """What Colab pins stays, and nothing is asked for that is newer than what the tests install."""
    from packaging.requirements import Requirement

    tested = pins(REQUIREMENTS.read_text(encoding="utf-8"))
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    asked = [Requirement(line) for line in (*PROJECT["dependencies"], *extras)]
    assert [str(each) for each in asked if each.name == "pandas" and not each.specifier.contains("2.2.3")] == []
    assert [str(each) for each in asked if not each.specifier.contains(tested[each.name.lower()])] == []


def test_messages_name_no_package_that_a_stranger_could_own():
    found = [path for path in (ROOT / "spurlib").rglob("*.py") if "spurlib[" in path.read_text(encoding="utf-8")]
    assert found == [], 'the index does not hold spurlib: say `pip install ".[extra]"` in a checkout'


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build the wheel, in a copy of the repository."""
    there = tmp_path_factory.mktemp("wheel")
    source = copy_of_the_repository(there / "source")
    command = [sys.executable, "-m", "uv", "build", "--wheel", "--no-build-isolation", f"--python={sys.executable}"]
    done = subprocess.run([*command, f"--out-dir={there}", source], capture_output=True, text=True, env=environ())
    assert done.returncode == 0, done.stderr
    return next(there.glob("*.whl"))


@pytest.fixture(scope="module")
def alone(wheel, tmp_path_factory) -> Path:
    """Install the wheel with what it needs, and nothing else; return the interpreter."""
    needed = [*map(name, PROJECT["dependencies"])]
    assert sorted(needed) == ["numpy", "scipy", "torch"]
    versions = [each if each == "torch" else f"{each}=={importlib.metadata.version(each)}" for each in needed]
    return environment(tmp_path_factory.mktemp("alone") / "env", str(wheel), *versions)


def run(python: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python outside the repository."""
    environment = environ(HOME=str(folder), OMP_NUM_THREADS="1")
    return subprocess.run([python, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_wheel_holds_the_library_and_nothing_else(wheel):
    held = {path for path in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in path}
    files = {path for path in (ROOT / "spurlib").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert held == {path.relative_to(ROOT).as_posix() for path in files}


@pytest.mark.installs
def test_the_snippet_of_the_readme_runs_with_three_packages(alone, tmp_path):
    snippet = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    done = run(alone, "-c", snippet, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    measured, predicted, accuracy = map(float, done.stdout.split())
    assert measured == pytest.approx(predicted, rel=0.1)
    assert 0.5 < accuracy <= 1
    assert [module for module in ("pandas", "matplotlib", "IPython", "tqdm", "sphinx") if has(alone, module)] == []


@pytest.mark.installs
def test_the_experiments_are_listed_with_three_packages(alone, tmp_path):
    done = run(alone, "-m", "spurlib.experiments", "list", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "rf-mnist" in done.stdout


@pytest.mark.installs
@pytest.mark.parametrize(
    ("code", "package", "extra"),
    [
        ("sl.resnet18((3, 32, 32))", "torchvision", "images"),
        ("sl.framed_images('cifar10', n=10)", "torchvision", "images"),
        ("sl.figure_style()", "matplotlib", "plots"),
        ("load_record('rf-mnist')", "pandas", "experiments"),
        ("run(experiment('rf-mnist'), scale='page')", "pandas", "experiments"),
    ],
)
def test_what_is_missing_is_said_with_the_extra_that_brings_it(alone, code, package, extra, tmp_path):
    (tmp_path / "records").symlink_to(ROOT / "records")
    head = "import spurlib as sl; from spurlib.experiments import experiment, load_record, run; "
    done = run(alone, "-c", head + code, folder=tmp_path)
    said = done.stderr.rpartition("Error: ")[2]
    assert package in said and f'pip install ".[{extra}]"' in said, done.stderr


@pytest.mark.installs
def test_the_command_line_says_what_is_missing(alone, tmp_path):
    done = run(alone, "-m", "spurlib.experiments", "run", "rf-mnist", "--folder", ".", folder=tmp_path)
    assert done.returncode not in (0, None)
    assert 'pip install ".[experiments]"' in done.stderr and "Traceback" not in done.stderr


@pytest.mark.installs
def test_binder_can_install_what_it_is_told_to(tmp_path):
    """Pip installs what the requirements name; what postBuild runs resolves, at the versions of the lock."""
    folder = ROOT / ".binder"
    script = (folder / "postBuild").read_text(encoding="utf-8")
    assert os.access(folder / "postBuild", os.X_OK)
    command = re.search(r"^python (-m tools\.environment --book)$", script, re.MULTILINE)[1].split()
    listed = pins((folder / "requirements.txt").read_text(encoding="utf-8"))
    assert listed == {"uv": pins(REQUIREMENTS.read_text(encoding="utf-8"))["uv"]}
    python = bare(tmp_path / "env")
    pip = [python, "-m", "pip", "install", "--quiet", "-r", folder / "requirements.txt"]
    done = subprocess.run(pip, capture_output=True, text=True, env=environ())
    if done.returncode:
        pytest.skip(f"the registry cannot be reached, so that nothing was resolved: {done.stderr[-500:]}")
    done = subprocess.run([python, *command, "--dry-run"], cwd=ROOT, env=environ(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    chosen = dict(re.findall(r"^ \+ ([\w-]+)==([^\s+]+)", done.stderr, re.MULTILINE))
    locked = pins(LOCK.read_text(encoding="utf-8"))
    assert {*EXTRAS["book"], "torch", "numpy"} <= set(chosen)
    assert {each: found for each, found in chosen.items() if locked.get(each) != found and each != "spurlib"} == {}
    assert "sphinx" not in chosen
    assert ("PyTorch: cpu wheels" in done.stdout) == ("nvidia-cublas" not in chosen)
