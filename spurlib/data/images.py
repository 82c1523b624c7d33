"""Image data sets inside the package and in the data folder, with the check and the download of their files."""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import choice, integer

PATIENCE = 20.0  # seconds after which a download inside a page is abandoned; torchvision needs some of them to start
_DAY = 86_400.0  # seconds after which the folder of another download counts as abandoned

Split = tuple[np.ndarray, np.ndarray]
"""Images, shape (n, height, width, channels), uint8, and class labels, shape (n,)."""

Loaded = tuple[Split, Split, str]
"""Training images, test images, and where they come from."""


class DataNotAvailableError(FileNotFoundError):
    """A data set is not on disk and cannot be downloaded; the message gives the folder and the reasons."""


@dataclass(frozen=True)
class _Copy:
    """One form in which a data set may lie in the data folder."""

    problems: Callable[[Path], list[str]]
    load: Callable[[Path, tuple[int, ...]], Loaded]


@dataclass(frozen=True)
class ImageSet:
    """What is known about an image data set before it is loaded."""

    classes: tuple[int, ...]
    frame: int
    levels: int
    copies: tuple[_Copy, ...] = ()
    torchvision_name: str = ""


# Inside the package ---------------------------------------------------------------------------------------------------


def _load_digits() -> Loaded:
    with (files(__package__) / "digits.npz").open("rb") as file, np.load(file) as stored:
        images, labels = stored["images"][..., None], stored["labels"].astype(int)
    test = np.arange(len(labels)) % 5 == 4
    source = "digits (8 x 8 images, embedded in spurlib; from scikit-learn)"
    return (images[~test], labels[~test]), (images[test], labels[test]), source


def _load_ones_and_sevens() -> Loaded:
    """The digits 1 and 7 of MNIST in the order of the official files: labels of 1 byte, then pictures of 784 bytes."""
    content = lzma.decompress((files(__package__) / "mnist_1_7.xz").read_bytes())
    train, count = 13_007, 15_170
    labels = np.frombuffer(content, np.uint8, count).astype(int)
    images = np.frombuffer(content, np.uint8, offset=count).reshape(count, 28, 28, 1)
    return (images[:train], labels[:train]), (images[train:], labels[train:]), "MNIST"


_EMBEDDED: dict[str, tuple[Sequence[int], Callable[[], Loaded]]] = {
    "digits": (range(10), _load_digits),
    "mnist": ((1, 7), _load_ones_and_sevens),
}


def embedded(name: str, classes: Sequence[int] | None = None) -> bool:
    """Return whether the images of some classes are part of the package; arguments are as for `available`."""
    return set(classes_of(name, classes)) <= set(_EMBEDDED[name][0] if name in _EMBEDDED else ())


# In the data folder ---------------------------------------------------------------------------------------------------

# The MD5 digests of the files as their authors published them, MNIST's unpacked.
_OFFICIAL = {
    "MNIST/raw": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "cifar-10-batches-py": {
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
}

_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_JPEG_COUNTS = {"train": 5000, "test": 1000}  # pictures of each class

# The first digits of the SHA-256 of all files of a class, one after another, in the JPEG copy that the book used.
_JPEG_DIGESTS = {
    "train": "6103f270b648 a9acca5d4817 44023a6ee430 f94aa88bead0 156a92cd103c "
    "579a9761ea1d bcdb6434d22f a88ee3dee919 aacc935dcd3a 952dcaa4351a",
    "test": "aa0f3f0ea709 19aec3ffc5cc f10cf427ba2a 619a9ce79c7d 2c6e461252c3 "
    "131ce34c7895 48a76d36a48e b5d67a53e2a1 0567d72a7de2 a8424fdaa462",
}


def data_folder() -> Path:
    """Return the folder of the image data: ``$SPURLIB_DATA``, or ``~/.cache/spurlib``.

    Raises
    ------
    DataNotAvailableError
        The home directory is not known.
    """
    try:
        return Path(os.environ.get("SPURLIB_DATA") or "~/.cache/spurlib").expanduser().absolute()
    except RuntimeError as error:
        raise DataNotAvailableError(f"{error} Set SPURLIB_DATA to the folder of the image data.") from error


def check_folder(folder: Path) -> None:
    """Refuse to create the folder that SPURLIB_DATA names: if it is not there, the name is probably mistyped."""
    if os.environ.get("SPURLIB_DATA") and not os.path.isdir(folder):
        raise DataNotAvailableError(
            f"SPURLIB_DATA names {folder}, which is not a folder: correct the variable, or create the folder"
        )


def _not_installed(module: str) -> list[str]:
    if find_spec(module) is not None:
        return []
    return [f'{module} is not installed: run `pip install ".[images]"` in the checkout of spurlib']


def _official_problems(folder: Path, where: str) -> list[str]:
    """What prevents the use of the official files of a data set; empty if they are complete."""
    problems = {name: _problem(folder / where / name, md5) for name, md5 in _OFFICIAL[where].items()}
    if all(problem == "is missing" for problem in problems.values()):
        return [f"{where} holds none of the official files"]
    return [f"{where}/{name} {problem}" for name, problem in problems.items() if problem]


def _problem(path: Path, md5: str) -> str:
    """What is wrong with a file, or ""."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return "is not a file"
        digest = _md5(path, found.st_size, found.st_mtime_ns)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if digest == md5:
        return ""
    return "is empty" if not found.st_size else f"is not the official file: it has {found.st_size} bytes, MD5 {digest}"


@lru_cache(maxsize=64)
def _md5(path: Path, size: int, modified: int) -> str:
    """The digest of a file, cached by its size and its time of modification."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _mnist_problems(folder: Path) -> list[str]:
    return _official_problems(folder, "MNIST/raw")


def _load_mnist(folder: Path, chosen: tuple[int, ...]) -> Loaded:
    def split(name: str) -> Split:
        images, labels = (folder / "MNIST/raw" / f"{name}-{part}-ubyte" for part in ("images-idx3", "labels-idx1"))
        pixels = np.frombuffer(images.read_bytes(), np.uint8, offset=16).reshape(-1, 28, 28, 1)
        return pixels, np.frombuffer(labels.read_bytes(), np.uint8, offset=8).astype(int)

    return split("train"), split("t10k"), "MNIST"


def _batches_problems(folder: Path) -> list[str]:
    return _official_problems(folder, "cifar-10-batches-py") or _not_installed("torchvision")


def _load_batches(folder: Path, chosen: tuple[int, ...]) -> Loaded:
    try:
        from torchvision.datasets import CIFAR10
    except Exception as error:  # a torchvision that does not match torch fails in many ways
        raise DataNotAvailableError(f"torchvision cannot be imported: {type(error).__name__}: {error}") from error

    splits = [CIFAR10(str(folder), train=train, download=False) for train in (True, False)]
    train, test = ((s.data, np.array(s.targets)) for s in splits)
    return train, test, "CIFAR-10 (official batches)"


def _pictures(folder: Path) -> list[str]:
    """The names of the pictures in a folder in alphabetical order, in which the records drew them."""
    names = (name for name in os.listdir(folder) if name.lower().endswith((".jpg", ".jpeg", ".png")))
    return sorted(name for name in names if name[0] != ".")


def _jpeg_problems(folder: Path) -> list[str]:
    """What prevents the use of a JPEG copy; the number of a class is the position of its name among the ten."""
    problems = []
    try:
        for split, count in _JPEG_COUNTS.items():
            where = f"cifar10-images/{split}"
            folders = [path.name for path in (folder / where).iterdir() if path.is_dir() and path.name[0] != "."]
            if unknown := sorted(set(folders) - set(_CIFAR10_CLASSES)):
                problems.append(f"{where} holds folders that are no classes of CIFAR-10: {', '.join(unknown)}")
            for name in _CIFAR10_CLASSES:
                held = len(_pictures(folder / where / name)) if name in folders else 0
                if held != count:
                    problems.append(f"{where}/{name} holds {held} pictures instead of {count}")
    except FileNotFoundError as error:
        problems.append(f"{Path(error.filename).relative_to(folder)} is missing")
    except OSError as error:
        problems.append(f"{error.filename} cannot be read: {error.strerror}")
    return problems or _not_installed("PIL")


def _load_jpegs(folder: Path, chosen: tuple[int, ...]) -> Loaded:
    from PIL import Image

    def picture(path: Path, content: bytes) -> np.ndarray:
        try:
            pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=np.uint8)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataNotAvailableError(f"{path} is not a picture that can be read: replace it ({error})") from error
        if pixels.shape != (32, 32, 3):
            raise DataNotAvailableError(
                f"{path} has {pixels.shape[0]} x {pixels.shape[1]} pixels, not 32 x 32: replace it"
            )
        return pixels

    digests: list[str] = []

    def split(name: str) -> Split:
        images: list[np.ndarray] = []
        labels: list[int] = []
        for c in chosen:
            digest = hashlib.sha256()
            where = folder / "cifar10-images" / name / _CIFAR10_CLASSES[c]
            for file in _pictures(where):
                content = (where / file).read_bytes()
                digest.update(content)
                images.append(picture(where / file, content))
                labels.append(c)
            digests.append(digest.hexdigest()[:12])
        return np.stack(images), np.array(labels)

    train, test = split("train"), split("test")
    if digests == [_JPEG_DIGESTS[name].split()[c] for name in ("train", "test") for c in chosen]:
        return train, test, "CIFAR-10 (JPEG copy)"
    mark = hashlib.sha256("".join(digests).encode()).hexdigest()[:12]
    return train, test, f"CIFAR-10 (pictures with digest {mark})"


_SETS: dict[str, ImageSet] = {
    "cifar10": ImageSet(
        classes=(3, 8),
        frame=8,
        levels=255,
        copies=(_Copy(_batches_problems, _load_batches), _Copy(_jpeg_problems, _load_jpegs)),
        torchvision_name="CIFAR10",
    ),
    "digits": ImageSet(classes=(1, 7), frame=3, levels=16),
    "mnist": ImageSet(
        classes=(1, 7),
        frame=10,
        levels=255,
        copies=(_Copy(_mnist_problems, _load_mnist),),
        torchvision_name="MNIST",
    ),
}


def image_set(name: Any) -> ImageSet:
    """What is known about a data set."""
    return _SETS[choice(name, "name", _SETS)]


def classes_of(name: Any, classes: Sequence[int] | None) -> tuple[int, ...]:
    """The chosen classes of a data set, in the order given."""
    known = image_set(name)
    if classes is None:
        return known.classes
    try:
        chosen = tuple(integer(c, "classes", least=0, most=9) for c in classes)
    except (TypeError, ValueError):
        chosen = ()
    if len(chosen) < 2 or len(set(chosen)) != len(chosen):
        raise ValueError(f"classes must be two or more different integers from 0 to 9, got {classes!r}")
    return chosen


def look(name: str, folder: Path) -> tuple[_Copy | None, list[str]]:
    """The first complete copy of a data set in a folder, or what is wrong with all of them."""
    problems: list[str] = []
    for copy in _SETS[name].copies:
        if not (found := copy.problems(folder)):
            return copy, []
        problems += found
    return None, problems


def listed(problems: list[str]) -> str:
    """The first problems in one line, and how many there are besides."""
    return "; ".join([*problems[:5], *([f"{len(problems) - 5} more"] if len(problems) > 5 else [])])


def available(name: str, classes: Sequence[int] | None = None) -> bool:
    """Return whether the images of some classes can be loaded without a download.

    Parameters
    ----------
    name : {"mnist", "cifar10", "digits"}
        The data set. ``"digits"``, and the classes 1 and 7 of ``"mnist"``, are part of the package; for the others, the
        folder that `data_folder` returns must contain the correct files.
    classes : sequence of int, optional
        As for `framed_images`.

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        `name` is unknown, or `classes` are not two or more different integers from 0 to 9.
    """
    if embedded(name, classes):
        return True
    try:
        return look(name, data_folder())[0] is not None
    except DataNotAvailableError:
        return False


# Downloads ------------------------------------------------------------------------------------------------------------

# Run by another process, which can be stopped and whose output is its own; nothing of spurlib is needed there.
_DOWNLOAD = """
import contextlib, socket, sys
socket.setdefaulttimeout(60)
try:
    with contextlib.redirect_stdout(sys.stderr):
        import torchvision.datasets
        getattr(torchvision.datasets, sys.argv[1])(sys.argv[2], download=True)
except Exception as error:
    print(type(error).__name__, error, sep=": ")
    sys.exit(1)
"""


def download(name: str, folder: Path, patience: float | None) -> str:
    """Download a data set with torchvision, check it and move it into place; return "" on success, else the reason.

    A file that is wrong is kept beside the new one, as NAME.damaged.
    """
    if missing := _not_installed("torchvision"):
        return missing[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(".download-*"):  # of a process that was killed
            if time.time() - os.path.getmtime(old) > _DAY:
                shutil.rmtree(old, ignore_errors=True)
        # beside the target, then moved: an interrupted download leaves nothing that looks complete
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-", ignore_cleanup_errors=True) as into:
            if reason := _fetch(name, into, patience):
                return reason
            copy = _SETS[name].copies[0]
            if problems := copy.problems(Path(into)):
                return f"what arrived is not complete: {listed(problems)}"
            _move(Path(into), folder)
    except OSError as error:
        return f"{folder} cannot be written: {error}"
    return ""


def _fetch(name: str, into: str, patience: float | None) -> str:
    command = [sys.executable, "-c", _DOWNLOAD, _SETS[name].torchvision_name, into]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if patience is None else subprocess.DEVNULL,
            timeout=patience,
            encoding="utf-8",
            errors="replace",
            env=os.environ | {"PYTHONUTF8": "1"},
        )
    except subprocess.TimeoutExpired:
        return f"the download took longer than {patience:g} s"
    if done.returncode:
        return done.stdout.strip() or f"the download ended with status {done.returncode}"
    return ""


def _move(source: Path, folder: Path) -> None:
    """Put the official files that were downloaded into the data folder, replacing wrong ones."""
    for where, digests in _OFFICIAL.items():
        for name, md5 in digests.items() if (source / where).is_dir() else ():
            target = folder / where / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not (problem := _problem(target, md5)):
                continue
            if problem != "is missing":
                target.replace(target.with_name(f"{name}.damaged"))
            (source / where / name).replace(target)


# Loading --------------------------------------------------------------------------------------------------------------

_lock = threading.RLock()
_refused: dict[tuple[str, Path], str] = {}  # downloads that failed in this process, and why: none starts twice


def load(name: str, chosen: tuple[int, ...]) -> Loaded:
    """Training and test images of some classes, in the order of the files, and where they come from."""
    return _load(name, None if embedded(name, chosen) else data_folder(), tuple(sorted(chosen)))


@lru_cache(maxsize=8)
def _load(name: str, folder: Path | None, chosen: tuple[int, ...]) -> Loaded:
    train, test, source = _EMBEDDED[name][1]() if folder is None else _found(name, folder).load(folder, chosen)
    return _of_classes(train, chosen), _of_classes(test, chosen), source


def moments(name: str, chosen: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of every pixel over the training images of some classes, with gray levels from 0 to 1."""
    return _moments(name, None if embedded(name, chosen) else data_folder(), tuple(sorted(chosen)))


@lru_cache(maxsize=8)
def _moments(name: str, folder: Path | None, chosen: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    pictures, levels = _load(name, folder, chosen)[0][0], image_set(name).levels
    lines = (pictures[:, line] / levels for line in range(pictures.shape[1]))  # all images at once may take gigabytes
    means, variances = map(np.stack, zip(*((line.mean(axis=0), line.var(axis=0)) for line in lines), strict=True))
    return means, variances


def _of_classes(split: Split, chosen: tuple[int, ...]) -> Split:
    keep = np.isin(split[1], chosen)
    return split[0][keep], split[1][keep]


def _found(name: str, folder: Path) -> _Copy:
    """A complete copy of a data set in a folder, downloaded if there is none."""
    with _lock:
        copy, problems = look(name, folder)
        if copy is not None:
            return copy
        check_folder(folder)
        if (name, folder) not in _refused:
            _refused[name, folder] = download(name, folder, PATIENCE)
            copy, problems = look(name, folder)
    if copy is not None:
        return copy
    raise DataNotAvailableError(
        f"data set {name!r} is not complete in {folder}: {listed(problems)}. It could not be downloaded: "
        f"{_refused[name, folder]}. Put the files there, set SPURLIB_DATA to the folder that holds them, or run "
        f"`python -m spurlib.data {name}`, which waits for a slow download."
    )


def first_available(*names: str) -> str:
    """Return the first of several image data sets that is available or can be downloaded.

    A script may fall back on another data set in this way; the pages of the book never do. Within a process, and for
    one data folder, the result is always the same, and no download is tried twice. The field `source` of `SpuriousData`
    names the data that were used.

    Parameters
    ----------
    *names : str
        Names of data sets, the preferred one first. Each stands for its default classes.

    Returns
    -------
    str
        One of `names`. If it is not the first, a line with the reason is printed.

    Raises
    ------
    ValueError
        A name is unknown, or no name is given.
    DataNotAvailableError
        None of the data sets is available; the message gives a reason for each.

    Examples
    --------
    >>> first_available("digits", "mnist")
    'digits'
    """
    if not names:
        raise ValueError("names: give at least one data set")
    for name in names:
        image_set(name)
    missing: list[str] = []
    for name in names:
        if reason := _why_not(name, os.environ.get("SPURLIB_DATA")):
            missing.append(f"{name} cannot be had here ({reason})")
            continue
        if missing:
            print(f"{'; '.join(missing)}. What follows was run on {name} instead.")
        return name
    raise DataNotAvailableError("; ".join(missing))


@lru_cache(maxsize=64)
def _why_not(name: str, folder: str | None) -> str:
    """Why the default classes of a data set are not available, or ""; tried once for each value of SPURLIB_DATA."""
    try:
        load(name, image_set(name).classes)
    except DataNotAvailableError as error:
        return " ".join(str(error).split())
    return ""


def image_counts(name: str, classes: Sequence[int] | None = None) -> tuple[int, int]:
    """Return the numbers of training and test images from which `framed_images` can draw.

    Parameters
    ----------
    name, classes
        As for `framed_images`.

    Returns
    -------
    tuple of int
        (training images, test images) of the classes together.

    Raises
    ------
    ValueError, DataNotAvailableError
        As for `framed_images`.

    Examples
    --------
    >>> image_counts("digits")
    (297, 64)
    """
    train, test, _ = load(name, classes_of(name, classes))
    return len(train[1]), len(test[1])
