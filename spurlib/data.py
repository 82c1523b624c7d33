"""Data with a core and a spurious part: Gaussian vectors, images in a frame of noise, images with a mark on them."""

from __future__ import annotations

import contextlib
import io
import math
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ._checks import fraction, positive

__all__ = [
    "DataNotAvailableError",
    "SpuriousData",
    "available",
    "data_folder",
    "first_available",
    "framed_images",
    "image_counts",
    "marked_images",
    "synthetic",
]

_PATIENCE = 15.0  # seconds after which a download inside a page is given up


class DataNotAvailableError(FileNotFoundError):
    """A data set is neither on disk nor to be downloaded; the message says where it was looked for."""


@dataclass(frozen=True)
class SpuriousData:
    """Training samples z = [x, y] with labels of x, their spurious queries, and a test set.

    Attributes
    ----------
    Z : ndarray, shape (n, d)
        Training samples.
    g : ndarray, shape (n,)
        Training labels, -1 or +1; they depend on the core alone. Images of more than two classes: 0.0, 1.0, ..., the
        position of the class.
    Z_spurious : ndarray, shape (n, d)
        Spurious queries: row i has the spurious part of sample i and another core (see `query`).
    Z_test : ndarray, shape (n_test, d)
        Test samples, cores and spurious parts both fresh.
    g_test : ndarray, shape (n_test,)
        Test labels.
    spurious : ndarray of bool, shape (d,)
        True at the spurious coordinates.
    query : str
        ``"fresh"``: the other core is drawn anew; ``"zero"``: it is zero.
    source : str
        Where the data come from, and which copy.
    image_shape : tuple of int
        Height, width and channels of a framed image; empty for synthetic data.
    offset, scale : ndarray of shape (d,), float
        A framed image has pixels ``offset + scale * z``, in [0, 1].
    u : ndarray, shape (d_x,)
        Direction of the teacher, for synthetic data; empty for images.
    """

    Z: np.ndarray
    g: np.ndarray
    Z_spurious: np.ndarray
    Z_test: np.ndarray
    g_test: np.ndarray
    spurious: np.ndarray
    query: str
    source: str
    image_shape: tuple[int, ...] = ()
    offset: np.ndarray = field(default_factory=lambda: np.empty(0))
    scale: float = 1.0
    u: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def alpha(self) -> float:
        """Share of spurious coordinates, d_y / d."""
        return float(self.spurious.mean())

    def image(self, z: np.ndarray) -> np.ndarray:
        """One sample, shape (d,), as a picture with values in [0, 1], shape (height, width) or (height, width, 3)."""
        if not self.image_shape:
            raise ValueError("image: these data are not images")
        z = np.asarray(z, dtype=float)
        if z.shape != self.spurious.shape:
            raise ValueError(f"z must be one sample of shape {self.spurious.shape}, got {z.shape}")
        picture = np.clip(self.offset + self.scale * z, 0.0, 1.0).reshape(self.image_shape)
        return picture[..., 0] if self.image_shape[-1] == 1 else picture


def _query(query: str) -> str:
    if query not in ("fresh", "zero"):
        raise ValueError(f"query must be 'fresh' or 'zero', got {query!r}")
    return query


def _seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be a nonnegative integer, got {seed!r}")
    return int(seed)


def synthetic(
    *,
    n: int,
    d: int,
    alpha: float,
    n_test: int = 1000,
    label_noise: float = 0.0,
    query: str = "fresh",
    spherical: bool = False,
    seed: int = 0,
) -> SpuriousData:
    r"""Gaussian or spherical samples, labels :math:`g = \mathrm{sign}(u^\top x)` of the core.

    Parameters
    ----------
    n, n_test : int
        Numbers of training and test samples.
    d : int
        Dimension of a sample.
    alpha : float
        Share of the spurious coordinates, in (0, 1); d_y is alpha d, rounded. They are the last ones.
    label_noise : float
        Probability, in [0, 1/2], with which a label (training and test) is flipped.
    query : {"fresh", "zero"}
        The core of a spurious query: drawn anew, or zero.
    spherical : bool
        False: standard Gaussian samples. True: the same, with the core scaled to the norm :math:`\sqrt{d_x}` and the
        spurious part to :math:`\sqrt{d_y}`: both uniform on spheres, as the theorems of the book assume.
    seed : int
        Seed of everything, the direction u (uniform on the unit sphere) included. Training sets are nested: the first
        samples of a larger one are the smaller one, at equal seed and d.

    Returns
    -------
    SpuriousData

    Raises
    ------
    ValueError
        A size below 1, alpha or label_noise out of range, an unknown query, or alpha so extreme that a part is empty.
    """
    n, d, n_test = positive(n, "n"), positive(d, "d"), positive(n_test, "n_test")
    alpha = fraction(alpha, "alpha")
    d_y = round(alpha * d)
    if not 0 < d_y < d:
        raise ValueError(f"alpha = {alpha} leaves one of the two parts of a sample empty at d = {d}")
    if not 0 <= label_noise <= 0.5:
        raise ValueError(f"label_noise must lie in [0, 1/2], got {label_noise!r}")
    query, d_x = _query(query), d - d_y
    teacher, train, test, core, flips, test_flips = _generators(seed, 6)
    u = teacher.standard_normal(d_x)
    u /= np.linalg.norm(u)

    def labels(Z: np.ndarray, noise: np.random.Generator) -> np.ndarray:
        clean = np.where(Z[:, :d_x] @ u >= 0, 1.0, -1.0)
        return np.where(noise.random(len(Z)) < label_noise, -clean, clean)

    def parts(A: np.ndarray) -> np.ndarray:
        return A * (math.sqrt(A.shape[1]) / np.linalg.norm(A, axis=1, keepdims=True)) if spherical else A

    def samples(rng: np.random.Generator, count: int) -> np.ndarray:
        A = rng.standard_normal((count, d))
        return np.hstack([parts(A[:, :d_x]), parts(A[:, d_x:])])

    Z, Z_test = samples(train, n), samples(test, n_test)
    Z_spurious = Z.copy()
    Z_spurious[:, :d_x] = parts(core.standard_normal((n, d_x))) if query == "fresh" else 0.0
    spurious = np.arange(d) >= d_x
    return SpuriousData(
        Z=Z,
        g=labels(Z, flips),
        Z_spurious=Z_spurious,
        Z_test=Z_test,
        g_test=labels(Z_test, test_flips),
        spurious=spurious,
        query=query,
        source=f"{'uniform on spheres' if spherical else 'standard Gaussian'}, d = {d}",
        u=u,
    )


def _generators(seed: int, count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(s) for s in np.random.SeedSequence(_seed(seed)).spawn(count)]


@dataclass(frozen=True)
class _ImageSet:
    """What is known of an image data set before it is loaded."""

    classes: tuple[int, ...]
    frame: int
    levels: int
    load: Callable[[Path, tuple[int, ...]], tuple[_Split, _Split, str]]
    torchvision_name: str = ""


_Split = tuple[np.ndarray, np.ndarray]
"""Images, shape (n, height, width, channels), uint8, and class labels, shape (n,)."""


def data_folder() -> Path:
    """Return the folder of the image data: ``$SPURLIB_DATA``, or ``~/.cache/spurlib``."""
    return Path(os.environ.get("SPURLIB_DATA") or Path.home() / ".cache" / "spurlib").expanduser()


def _of_classes(split: _Split, chosen: tuple[int, ...]) -> _Split:
    keep = np.isin(split[1], chosen)
    return split[0][keep], split[1][keep]


def _load_digits(folder: Path, chosen: tuple[int, ...]) -> tuple[_Split, _Split, str]:
    with np.load(str(files("spurlib") / "digits.npz")) as stored:
        images, labels = stored["images"][..., None], stored["labels"].astype(int)
    test = np.arange(len(labels)) % 5 == 4
    source = "digits (8 x 8 images, embedded in spurlib; from scikit-learn)"
    train, held_out = ((images[part], labels[part]) for part in (~test, test))
    return _of_classes(train, chosen), _of_classes(held_out, chosen), source


def _load_mnist(folder: Path, chosen: tuple[int, ...]) -> tuple[_Split, _Split, str]:
    from torchvision.datasets import MNIST

    splits = [MNIST(str(folder), train=train, download=False) for train in (True, False)]
    train, test = ((s.data.numpy()[..., None], s.targets.numpy().astype(int)) for s in splits)
    return _of_classes(train, chosen), _of_classes(test, chosen), "MNIST"


def _load_cifar10(folder: Path, chosen: tuple[int, ...]) -> tuple[_Split, _Split, str]:
    from torchvision.datasets import CIFAR10, ImageFolder

    if (folder / "cifar-10-batches-py").is_dir():
        splits = [CIFAR10(str(folder), train=train, download=False) for train in (True, False)]
        train, test = ((s.data, np.array(s.targets)) for s in splits)
        return _of_classes(train, chosen), _of_classes(test, chosen), "CIFAR-10 (official batches)"

    def split(name: str) -> _Split:
        listing = ImageFolder(str(folder / "cifar10-images" / name))
        wanted = [row for row, target in enumerate(listing.targets) if target in chosen]  # decoding all takes 10 s
        images = np.stack([np.asarray(listing[row][0], dtype=np.uint8) for row in wanted])
        return images, np.array([listing.targets[row] for row in wanted])

    return split("train"), split("test"), "CIFAR-10 (JPEG copy)"


_SETS: dict[str, _ImageSet] = {
    "mnist": _ImageSet((1, 7), 10, 255, _load_mnist, "MNIST"),
    "cifar10": _ImageSet((3, 8), 8, 255, _load_cifar10, "CIFAR10"),
    "digits": _ImageSet((1, 7), 3, 16, _load_digits),
}


def _image_set(name: str) -> _ImageSet:
    if name not in _SETS:
        raise ValueError(f"name: data set {name!r} is not known; known are {', '.join(sorted(_SETS))}")
    return _SETS[name]


def available(name: str) -> bool:
    """Whether an image data set can be had without a download.

    Parameters
    ----------
    name : {"mnist", "cifar10", "digits"}
        The data set. ``"digits"`` is part of the package.

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        An unknown name.
    """
    _image_set(name)
    folder = data_folder()
    if name == "digits":
        return True
    if name == "mnist":
        stems = [f"{split}-{part}" for split in ("train", "t10k") for part in ("images-idx3", "labels-idx1")]
        return all((folder / "MNIST" / "raw" / f"{stem}-ubyte").is_file() for stem in stems)
    return (folder / "cifar-10-batches-py").is_dir() or all(
        (folder / "cifar10-images" / split).is_dir() for split in ("train", "test")
    )


def _download(name: str, folder: Path, patience: float | None) -> str:
    """Let torchvision download a data set into place; return "" on success, else the reason. Gives up in time."""
    failure: list[str] = []

    def work(into: str) -> None:
        try:
            import torchvision.datasets

            getattr(torchvision.datasets, _SETS[name].torchvision_name)(into, download=True)
        except Exception as error:
            failure.append(f"{type(error).__name__}: {error}".splitlines()[0])

    def fetch() -> None:
        # into a folder beside the target, then moved: an interrupted download leaves nothing that looks complete
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-", ignore_cleanup_errors=True) as into:
            work(into)
            for part in [] if failure else Path(into).iterdir():
                if part.is_dir() and not (folder / part.name).exists():
                    part.rename(folder / part.name)

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"{folder} cannot be written: {error}"
    if patience is None:
        fetch()
    else:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            thread = threading.Thread(target=fetch, daemon=True)
            thread.start()
            thread.join(patience)
        if thread.is_alive():
            return f"the download took longer than {patience:g} s (`python -m spurlib.data {name}` waits for it)"
    return failure[0] if failure else ""


@lru_cache(maxsize=8)
def _load(name: str, folder: Path, chosen: tuple[int, ...]) -> tuple[_Split, _Split, str]:
    """Training and test images of some classes, and where they come from."""
    if not available(name):
        reason = _download(name, folder, _PATIENCE)
        if not available(name):
            raise DataNotAvailableError(
                f"data set {name!r} is not in {folder} (set SPURLIB_DATA to the folder that holds it) and could not be "
                f"downloaded: {reason or 'incomplete'}"
            )
    return _SETS[name].load(folder, chosen)


def first_available(*names: str) -> str:
    """Return the first of several image data sets that can be had, downloads included, and say if it is a substitute.

    Parameters
    ----------
    *names : str
        Names of data sets, the preferred one first.

    Returns
    -------
    str
        One of `names`. When it is not the first, a line that says so is printed.

    Raises
    ------
    ValueError
        An unknown name, or none.
    DataNotAvailableError
        None of them can be had.
    """
    if not names:
        raise ValueError("names: give at least one data set")
    for name in names:
        _image_set(name)
    missing: list[str] = []
    for name in names:
        try:
            _load(name, data_folder(), _SETS[name].classes)
        except DataNotAvailableError:
            missing.append(name)
            continue
        if missing:
            print(f"Not to be had here: {', '.join(missing)}. What follows was run on {name} instead.")
        return name
    raise DataNotAvailableError(f"none of {', '.join(names)} is in {data_folder()} or could be downloaded")


def image_counts(name: str, classes: Sequence[int] | None = None) -> tuple[int, int]:
    """Numbers of training and test images that `framed_images` can draw from.

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
    """
    chosen = _classes(classes, _image_set(name))
    train, test, _ = _load(name, data_folder(), chosen)
    return len(train[1]), len(test[1])


def _classes(classes: Sequence[int] | None, known: _ImageSet) -> tuple[int, ...]:
    chosen = known.classes if classes is None else tuple(classes)
    if len(chosen) < 2 or len(set(chosen)) != len(chosen) or any(c not in range(10) for c in chosen):
        raise ValueError(f"classes must be two or more different numbers from 0 to 9, got {classes!r}")
    return tuple(int(c) for c in chosen)


def framed_images(
    name: str,
    *,
    n: int,
    n_test: int = 1000,
    classes: Sequence[int] | None = None,
    frame: int | None = None,
    centered: bool = True,
    query: str = "zero",
    seed: int = 0,
) -> SpuriousData:
    """Images of two or more classes in a frame of uniform noise: the image is the core, the frame the spurious part.

    Parameters
    ----------
    name : {"mnist", "cifar10", "digits"}
        The data set. It is looked for in `data_folder`; what is missing there is downloaded by torchvision, for
        15 seconds at most. ``"digits"`` is embedded in the package.
    n, n_test : int
        Numbers of training and test samples, drawn without replacement.
    classes : sequence of int, optional
        Class numbers, two or more. Of two, the first is labeled -1, the second +1; of more, each is labeled with its
        position, 0.0, 1.0, ... Default: MNIST and digits 1 and 7, CIFAR-10 3 and 8 (cats and ships).
    frame : int, optional
        Width of the frame in pixels. Default: MNIST 10, CIFAR-10 8, digits 3. The noise of each pixel (and channel) is
        uniform over the gray levels, drawn anew for every sample.
    centered : bool
        Subtract the mean image of the classes' training images (in the frame: the mean of the noise), and scale by
        one number so that the mean of ||z||^2 over them is d. Otherwise pixels lie in [0, 1].
    query : {"zero", "fresh"}
        The core of a spurious query: zero (the mean image, when `centered`; black otherwise), or that of another image.
    seed : int
        Seed of the choice of images and of the noise. Training sets are nested: the first samples of a larger one are
        the smaller one, at equal seed.

    Returns
    -------
    SpuriousData

    Raises
    ------
    ValueError
        An unknown data set (the message lists those known), wrong classes, sizes out of range.
    DataNotAvailableError
        The data set is not there and cannot be downloaded.
    """
    n, n_test, query = positive(n, "n"), positive(n_test, "n_test"), _query(query)
    frame = _image_set(name).frame if frame is None else positive(frame, "frame")
    pick, pick_test, noise, noise_test, other = _generators(seed, 5)
    drawn = _draw(name, classes, (n, n_test), (pick, pick_test))
    levels, (height, width, channels) = drawn.levels, drawn.pictures.shape[1:]
    shape = (height + 2 * frame, width + 2 * frame, channels)
    window = np.s_[:, frame : frame + height, frame : frame + width]
    mask = np.ones((1, *shape), dtype=bool)
    mask[window] = False

    def framed(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        out = np.empty((len(images), *shape))
        for row, image in zip(out, images, strict=True):  # one sample at a time: nested for every n
            row[:] = generator.integers(0, levels + 1, shape)
            row[window[1:]] = image
        return out.reshape(len(images), -1) / levels

    Z, Z_test = framed(drawn.pictures[drawn.rows], noise), framed(drawn.test, noise_test)
    spurious = mask.ravel()
    offset, scale = _centering(drawn.pictures, mask, levels) if centered else (np.zeros(Z.shape[1]), 1.0)
    Z, Z_test = (Z - offset) / scale, (Z_test - offset) / scale
    Z_spurious = Z.copy()
    if query == "zero":
        Z_spurious[:, ~spurious] = 0.0
    else:
        Z_spurious[:, ~spurious] = (drawn.others(other).reshape(n, -1) / levels - offset[~spurious]) / scale
    return SpuriousData(
        Z=Z,
        g=drawn.g,
        Z_spurious=Z_spurious,
        Z_test=Z_test,
        g_test=drawn.g_test,
        spurious=spurious,
        query=query,
        source=f"{drawn.source}, frame {frame}, d = {spurious.size}",
        image_shape=shape,
        offset=offset,
        scale=scale,
    )


@dataclass(frozen=True)
class _Drawn:
    """All training images of the chosen classes, the rows drawn from them, and the test images drawn."""

    pictures: np.ndarray
    rows: np.ndarray
    g: np.ndarray
    test: np.ndarray
    g_test: np.ndarray
    levels: int
    source: str

    def others(self, generator: np.random.Generator) -> np.ndarray:
        """For each row another image."""
        count = len(self.pictures)
        return self.pictures[(self.rows + generator.integers(1, count, size=count)[: len(self.rows)]) % count]


def _draw(
    name: str,
    classes: Sequence[int] | None,
    sizes: tuple[int, int],
    generators: tuple[np.random.Generator, np.random.Generator],
) -> _Drawn:
    """Images of the classes without replacement, for training and for the test, with their labels."""
    known = _image_set(name)
    chosen = _classes(classes, known)
    train, test, source = _load(name, data_folder(), chosen)
    for size, argument, (_, labels) in zip(sizes, ("n", "n_test"), (train, test), strict=True):
        if size > len(labels):
            raise ValueError(f"{argument} = {size} is more than the {len(labels)} images of classes {chosen} in {name}")
    rows, rows_test = (
        generator.permutation(len(labels))[:size]
        for generator, size, (_, labels) in zip(generators, sizes, (train, test), strict=True)
    )
    values = (-1.0, 1.0) if len(chosen) == 2 else range(len(chosen))
    label = {c: float(value) for c, value in zip(chosen, values, strict=True)}
    return _Drawn(
        pictures=train[0],
        rows=rows,
        g=np.array([label[c] for c in train[1][rows]]),
        test=test[0][rows_test],
        g_test=np.array([label[c] for c in test[1][rows_test]]),
        levels=known.levels,
        source=f"{source}, classes {', '.join(map(str, chosen[:-1]))} and {chosen[-1]}",
    )


_Mark = Callable[[np.ndarray], np.ndarray]


def _watermark(rng: np.random.Generator, shape: tuple[int, ...]) -> _Mark:
    noise = rng.uniform(-0.25, 0.25, shape)
    return lambda picture: picture + noise


def _patch(rng: np.random.Generator, shape: tuple[int, ...]) -> _Mark:
    side = shape[0] // 2
    top, left = (int(rng.integers(0, length - side + 1)) for length in shape[:2])
    noise = rng.random((side, side, shape[2]))

    def cover(picture: np.ndarray) -> np.ndarray:
        covered = picture.copy()
        covered[top : top + side, left : left + side] = noise
        return covered

    return cover


def _cast(rng: np.random.Generator, shape: tuple[int, ...]) -> _Mark:
    gain, shift = rng.uniform(0.5, 1.5, shape[2]), rng.uniform(-0.25, 0.25, shape[2])
    return lambda picture: gain * picture + shift


_MARKS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], _Mark]] = {
    "watermark": _watermark,
    "patch": _patch,
    "cast": _cast,
}


def marked_images(
    name: str,
    *,
    pattern: str,
    n: int,
    n_test: int = 1000,
    classes: Sequence[int] | None = None,
    centered: bool = True,
    query: str = "zero",
    seed: int = 0,
) -> SpuriousData:
    """Images of two or more classes with a random mark on each: the image is the core, the mark the spurious part.

    A mark is a function from pictures to pictures, drawn anew for every sample and independent of its label. It has no
    coordinates of its own, so `spurious` is False everywhere and `alpha` is zero.

    Parameters
    ----------
    name, n, n_test, classes
        As for `framed_images`.
    pattern : {"watermark", "patch", "cast"}
        With gray levels from 0 to 1: ``"watermark"`` adds to each pixel (and channel) a number uniform between -1/4 and
        1/4; ``"patch"`` puts a square of uniform noise, half as high as the picture, at a random place; ``"cast"``
        multiplies each channel by a number between 1/2 and 3/2 and adds one between -1/4 and 1/4. Values outside
        [0, 1] stay.
    centered : bool
        Subtract the mean image of the classes' training images, and scale by one number so that the mean of ||z||^2
        over the images without a mark is d. Otherwise the values are gray levels.
    query : {"zero", "fresh"}
        What carries the mark of a spurious query: the mean image (when `centered`; black otherwise), or another image.
    seed : int
        Seed of the choice of images (the same as in `framed_images`) and of the marks; training sets are nested.

    Returns
    -------
    SpuriousData

    Raises
    ------
    ValueError
        An unknown data set or pattern (the message lists those known), wrong classes, sizes out of range.
    DataNotAvailableError
        The data set is not there and cannot be downloaded.
    """
    if pattern not in _MARKS:
        raise ValueError(f"pattern: {pattern!r} is not known; known are {', '.join(sorted(_MARKS))}")
    n, n_test, query = positive(n, "n"), positive(n_test, "n_test"), _query(query)
    pick, pick_test, noise, noise_test, other = _generators(seed, 5)
    drawn = _draw(name, classes, (n, n_test), (pick, pick_test))
    shape = drawn.pictures.shape[1:]
    spurious = np.zeros((1, *shape), dtype=bool)
    offset, scale = _centering(drawn.pictures, spurious, drawn.levels) if centered else (np.zeros(spurious.size), 1.0)

    def flat(marks: list[_Mark], pictures: np.ndarray) -> np.ndarray:
        marked = [mark(picture) for mark, picture in zip(marks, pictures, strict=True)]
        return (np.reshape(marked, (len(marked), -1)) - offset) / scale

    marks, marks_test = (
        [_MARKS[pattern](generator, shape) for _ in range(count)]
        for generator, count in ((noise, n), (noise_test, n_test))
    )
    blank = np.broadcast_to(offset.reshape(shape), (n, *shape))
    return SpuriousData(
        Z=flat(marks, drawn.pictures[drawn.rows] / drawn.levels),
        g=drawn.g,
        Z_spurious=flat(marks, blank if query == "zero" else drawn.others(other) / drawn.levels),
        Z_test=flat(marks_test, drawn.test / drawn.levels),
        g_test=drawn.g_test,
        spurious=spurious.ravel(),
        query=query,
        source=f"{drawn.source}, {pattern}, d = {spurious.size}",
        image_shape=shape,
        offset=offset,
        scale=scale,
    )


def _centering(cores: np.ndarray, mask: np.ndarray, levels: int) -> tuple[np.ndarray, float]:
    """Mean of a framed image, and the scale at which its centered version has mean squared norm d."""
    lines = (cores[:, line] / levels for line in range(cores.shape[1]))  # all images at once may take gigabytes
    means, variances = map(np.stack, zip(*((line.mean(axis=0), line.var(axis=0)) for line in lines), strict=True))
    offset = np.full(mask.shape[1:], 0.5)
    offset[~mask[0]] = means.ravel()
    noise_variance = ((levels + 1) ** 2 - 1) / 12 / levels**2
    total = variances.sum() + noise_variance * mask.sum()
    return offset.ravel(), float(np.sqrt(total / mask.size))


if __name__ == "__main__":
    for wanted in sys.argv[1:] or ["mnist", "cifar10"]:
        if available(wanted):
            print(f"{wanted} is in {data_folder()}")
        elif problem := _download(wanted, data_folder(), None):
            sys.exit(f"{wanted}: {problem}")
