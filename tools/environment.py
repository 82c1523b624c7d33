"""Make the environment of the book: what requirements.lock names, with its hashes, and PyTorch for this machine.

Run as ``python -m tools.environment FOLDER``; ``--lock`` derives requirements.lock from requirements.txt instead.
``--book`` installs into the running Python what the chapters need (for Binder). ``--oldest`` and ``--newest`` make
an environment of the oldest versions that pyproject.toml allows, or of the newest. It runs before anything is
installed, with the standard library only.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS, LOCK = ROOT / "requirements.txt", ROOT / "requirements.lock"
PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[\w,-]+\])?==([^\s;\\]+)")
# The wheels of PyTorch differ between indexes, and so do their hashes; CPU wheels need none of the packages of CUDA.
TORCH = re.compile(r"^(torch|torchvision|triton|nvidia-[\w-]+|cuda-[\w-]+)==")
TOOLS = ("asv", "pytest", "pytest-xdist", "pytest-timeout", "hypothesis", "mpmath", "scikit-learn")


def entries(lock: str) -> list[str]:
    """Return the entries of a lock: each a pinned package with its hashes and the comments below it."""
    return re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)[1:]


def pins(text: str) -> dict[str, str]:
    """Return the pinned versions in a list of requirements, or in a lock, by the names of the packages."""
    found = (PIN.match(line) for line in text.splitlines())
    return {match[1].lower().replace("_", "-"): match[2] for match in found if match}


def stale(requirements: str, lock: str) -> list[str]:
    """Return the packages for which a lock is not that of the requirements."""
    asked, locked = pins(requirements), pins(lock)
    direct = {name for entry in entries(lock) if "-r requirements.txt" in entry for name in pins(entry)}
    return sorted(name for name in {*asked, *direct} if name not in direct or asked.get(name) != locked[name])


def has_gpu() -> bool:
    """Return whether there is a GPU that the wheels of the default index can use."""
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return True
    command = shutil.which("nvidia-smi")
    return command is not None and subprocess.run([command, "-L"], capture_output=True).stdout.startswith(b"GPU")


def uv(python: Path, *arguments: str, text: str = "", quiet: bool = False) -> bool:
    """Run uv, with `text` as its input, for one interpreter; return whether it did what was asked."""
    # What is asked of the index of PyTorch is said on the command line; it must not reach the other packages.
    environ = {name: value for name, value in os.environ.items() if name != "UV_TORCH_BACKEND"}
    # An index that is not reachable is given up soon.
    environ = {"UV_HTTP_TIMEOUT": "20", "UV_HTTP_RETRIES": "1"} | environ if quiet else environ
    kept = subprocess.DEVNULL if quiet else None
    command = [str(python), "-m", "uv", *arguments]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environ, input=text.encode(), stdout=kept, stderr=kept, timeout=60 if quiet else None
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def backends() -> tuple[list[str], str]:
    """Return the indexes of PyTorch to try, by uv's names ("" is the default index), and why."""
    if wanted := os.environ.get("UV_TORCH_BACKEND"):
        return [wanted, ""], "as UV_TORCH_BACKEND asks"
    if platform.system() != "Linux":
        return [""], "which need no CUDA here"
    if has_gpu():
        return [""], "for the GPU of this machine"
    return ["cpu", ""], "because there is no GPU here"


def backend(python: Path) -> str:
    """Choose the index of PyTorch, and say in one line which."""
    choices, why = backends()
    for choice in choices[:-1]:
        if uv(python, "pip", "compile", f"--torch-backend={choice}", "--no-deps", "-", text=torch(), quiet=True):
            print(f"PyTorch: {choice} wheels, {why}", flush=True)
            return choice
    why = f"because {choices[0]} wheels cannot be had from here" if len(choices) > 1 else why
    print(f"PyTorch: wheels of the default index, {why}", flush=True)
    return choices[-1]


def torch() -> str:
    """Return the requirements of PyTorch."""
    versions = pins(LOCK.read_text(encoding="utf-8"))
    return "".join(f"{name}=={versions[name]}\n" for name in ("torch", "torchvision"))


def installed(python: Path, package: str) -> str:
    """Return the version of a package that an interpreter has, or nothing."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([str(python), "-c", code], capture_output=True, encoding="utf-8").stdout.strip()


def works(folder: Path) -> bool:
    """Return whether an environment was made where it is, and its interpreter runs and is new enough."""
    settings = folder / "pyvenv.cfg"
    made = (
        re.search("^command = (.*)$", settings.read_text(encoding="utf-8"), re.MULTILINE) if settings.exists() else None
    )
    # The commands of an environment that was moved or copied still name the old place.
    if made and not made[1].endswith(f" {folder}"):
        return False
    command = [str(folder / "bin" / "python"), "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    return os.path.exists(command[0]) and subprocess.run(command, capture_output=True).returncode == 0


def bootstrap(folder: Path) -> Path:
    """Make a virtual environment that has uv, or make a broken one anew; return its interpreter."""
    if not works(folder):
        if os.path.lexists(folder):
            print(f"{folder.name} does not work here: made anew", flush=True)
            shutil.rmtree(folder) if folder.is_dir() and not folder.is_symlink() else folder.unlink()
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    if not installed(python, "pip"):
        subprocess.run([str(python), "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
    with_uv(python)
    return python


def with_uv(python: Path) -> None:
    """Install uv, by the hash of the lock where there is one."""
    if installed(python, "uv") == pins(REQUIREMENTS.read_text(encoding="utf-8"))["uv"]:
        return
    lock = LOCK.read_text(encoding="utf-8") if LOCK.exists() else ""
    entry = next((entry for entry in entries(lock) if entry.startswith("uv==")), "uv")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "uv.txt"
        path.write_text(entry, encoding="utf-8")
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "-r", str(path)]
        subprocess.run([str(python), "-m", "pip", "install", *options], check=True)


def create(folder: Path) -> bool:
    """Make the environment of the book in `folder`; return whether it is complete."""
    lock = LOCK.read_text(encoding="utf-8")
    if names := stale(REQUIREMENTS.read_text(encoding="utf-8"), lock):
        print(f"requirements.lock is not that of requirements.txt ({', '.join(names)}): run `make lock`")
        return False
    python = bootstrap(folder)
    exact = ("pip", "install", f"--python={python}", "--no-deps", "--require-hashes", "-r", "-")
    done = uv(python, *exact, text="".join(entry for entry in entries(lock) if not TORCH.match(entry)))
    # Only wheels from elsewhere than the default index have a local version, such as 2.13.0+cpu.
    here = all(installed(python, name).startswith(f"{pins(lock)[name]}+") for name in ("torch", "torchvision"))
    if done and not here and (choice := backend(python)):
        here = uv(python, "pip", "install", f"--python={python}", f"--torch-backend={choice}", "-r", "-", text=torch())
        if not here:
            print(f"PyTorch: {choice} wheels could not be installed; those of the default index follow", flush=True)
    if done and not here:
        done = uv(python, *exact, text=lock)
    # setuptools is in the lock: nothing else is downloaded to build the package.
    return done and uv(python, "pip", "install", f"--python={python}", "--no-deps", "--no-build-isolation", "-e", ".")


@contextmanager
def constraints() -> Iterator[str]:
    """Write the versions of the lock, without hashes, as constraints."""
    lock = LOCK.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "versions.txt"
        path.write_text("\n".join(entry.splitlines()[0].rstrip(" \\") for entry in entries(lock)), encoding="utf-8")
        yield str(path)


def resolve(python: Path, *arguments: str) -> bool:
    """Install packages at versions that are resolved now and not read from the lock."""
    choice = backend(python)
    for option in [f"--torch-backend={choice}", ""] if choice else [""]:
        if uv(python, "pip", "install", *[option] * bool(option), *arguments):
            return True
    return False


def book(*options: str) -> bool:
    """Install into the running Python the library with what the chapters use, at the versions of the lock."""
    python = Path(sys.executable)
    with_uv(python)
    with constraints() as path:
        return resolve(python, f"--python={python}", "-c", path, *options, ".[book]")


def trial(folder: Path, resolution: str, version: str) -> bool:
    """Make an environment of the oldest or newest versions that pyproject.toml allows, with what the tests need."""
    python = Path(sys.executable)
    with_uv(python)
    tested = pins(REQUIREMENTS.read_text(encoding="utf-8"))
    tools = [f"{name}=={tested[name]}" for name in TOOLS]
    if not uv(python, "venv", "--clear", f"--python={version}", str(folder)):
        return False
    where = f"--python={folder / 'bin' / 'python'}"
    return resolve(python, where, f"--resolution={resolution}", "-r", "pyproject.toml", "--all-extras", *tools)


def lock(folder: Path) -> bool:
    """Derive the lock from the requirements; what they do not change stays as it was locked."""
    options = ("--universal", "--python-version=3.11", "--generate-hashes", "--custom-compile-command=make lock")
    return uv(bootstrap(folder), "pip", "compile", "--quiet", "requirements.txt", "-o", "requirements.lock", *options)


def main() -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.environment", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--lock", action="store_true", help="derive requirements.lock from requirements.txt")
    what.add_argument("--book", action="store_true", help="install what the chapters need into the running Python")
    what.add_argument("--oldest", metavar="PYTHON", help="the oldest versions that pyproject.toml allows")
    what.add_argument("--newest", metavar="PYTHON", help="the newest versions that there are")
    parser.add_argument("--dry-run", action="store_true", help="with --book: resolve, install nothing")
    parser.add_argument("folder", nargs="?", default=".venv", help="of the environment (default: .venv)")
    options = parser.parse_args()
    folder = Path(os.path.abspath(options.folder))
    try:
        if options.book:
            done = book(*["--dry-run"] * options.dry_run)
        elif options.lock:
            done = lock(folder)
        elif version := options.oldest or options.newest:
            done = trial(folder, "lowest-direct" if options.oldest else "highest", version)
        else:
            done = create(folder)
    except KeyboardInterrupt:
        return 130
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(map(str, error.cmd))} failed", file=sys.stderr)
        return 1
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
