"""Images with a spurious part: in a frame of noise, or with a random mark on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .._checks import choice, positive
from .images import classes_of, image_set, load, moments
from .samples import QUERIES, SpuriousData, generators


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
    """Return images of two or more classes in frames of noise; the image is the core, and the frame the spurious part.

    Parameters
    ----------
    name : {"mnist", "cifar10", "digits"}
        The data set. ``"digits"``, and the classes 1 and 7 of ``"mnist"``, are part of the package. The others are read
        from `data_folder`, whose files must be those that the authors published (for CIFAR-10, a copy in JPEG files is
        accepted too). Missing or damaged files are downloaded by torchvision, for at most 20 seconds.
    n, n_test : int
        Numbers of training and test samples, drawn without replacement.
    classes : sequence of int, optional
        Class numbers, two or more. With two classes, the labels are -1 for the first and +1 for the second; with more,
        the label is the position of the class, 0.0, 1.0, ... Default: 1 and 7 for MNIST and digits, 3 and 8 (cats and
        ships) for CIFAR-10.
    frame : int, optional
        Width of the frame in pixels. Default: 10 for MNIST, 8 for CIFAR-10, 3 for digits. The noise of each pixel (and
        channel) is uniform over the gray levels, and drawn anew for every sample.
    centered : bool
        Subtract the mean of the training images of the classes (in the frame, the mean of the noise), and divide by one
        number so that the mean of ||z||^2 over these images is d. Otherwise pixels lie in [0, 1].
    query : {"zero", "fresh"}
        The core of a spurious query: zero (the mean image if `centered`, else black), or that of another image.
    seed : int
        Seed of the choice of images and of the noise. Training sets are nested: for equal seeds, a smaller training set
        consists of the first samples of a larger one.

    Returns
    -------
    SpuriousData

    Raises
    ------
    ValueError
        The data set or the query is unknown (the message lists the known ones), the classes are not two or more
        different integers from 0 to 9, or a size is out of range.
    DataNotAvailableError
        The data set is missing or damaged, and cannot be downloaded; the message names the files.

    Notes
    -----
    Bombari and Mondelli (2024); chapter `spurious-features`.

    Examples
    --------
    >>> data = framed_images("digits", n=20, n_test=5, seed=0)
    >>> data.Z.shape, data.image_shape, round(data.alpha, 3)
    ((20, 196), (14, 14, 1), 0.673)
    """
    n, n_test, query = positive(n, "n"), positive(n_test, "n_test"), choice(query, "query", QUERIES)
    frame = image_set(name).frame if frame is None else positive(frame, "frame")
    pick, pick_test, noise, noise_test, other = generators(seed, 5)
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
    offset, scale = _centering(name, drawn, mask) if centered else (np.zeros(Z.shape[1]), 1.0)
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
    chosen: tuple[int, ...]
    source: str

    def others(self, generator: np.random.Generator) -> np.ndarray:
        """Another image for each row."""
        count = len(self.pictures)
        return self.pictures[(self.rows + generator.integers(1, count, size=count)[: len(self.rows)]) % count]


def _draw(
    name: str,
    classes: Sequence[int] | None,
    sizes: tuple[int, int],
    generators: tuple[np.random.Generator, np.random.Generator],
) -> _Drawn:
    """Images of the classes without replacement, for training and for the test, with their labels."""
    known = image_set(name)
    chosen = classes_of(name, classes)
    train, test, source = load(name, chosen)
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
        chosen=chosen,
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
    """Return images of two or more classes with a random mark on each, which replaces the spurious part.

    A mark is a random map of images, drawn anew for every sample and independent of the image and its label. It has no
    coordinates of its own, so `spurious` is False everywhere and `alpha` is zero. The core is the image.

    Parameters
    ----------
    name, n, n_test, classes
        As for `framed_images`.
    pattern : {"watermark", "patch", "cast"}
        Gray levels are between 0 and 1. ``"watermark"`` adds to each pixel (and channel) a uniform number between -1/4
        and 1/4. ``"patch"`` covers a square at a random place, half as high as the image, with uniform noise.
        ``"cast"`` (a color cast) multiplies each channel by a uniform number between 1/2 and 3/2 and adds a uniform
        number between -1/4 and 1/4. Values outside [0, 1] are kept.
    centered : bool
        Subtract the mean of the training images of the classes, and divide by one number so that the mean of ||z||^2
        over the images without a mark is d. Otherwise the values are gray levels.
    query : {"zero", "fresh"}
        The image to which the mark of a spurious query is applied: the mean image (black unless `centered`), or another
        image.
    seed : int
        Seed of the choice of images, which is that of `framed_images`, and of the marks. Training sets are nested.

    Returns
    -------
    SpuriousData

    Raises
    ------
    ValueError
        The data set, pattern or query is unknown (the message lists the known ones), the classes are not two or more
        different integers from 0 to 9, or a size is out of range.
    DataNotAvailableError
        The data set is missing or damaged, and cannot be downloaded; the message names the files.

    Notes
    -----
    Chapter `architectures`.

    Examples
    --------
    >>> marked_images("digits", pattern="patch", n=20, n_test=5).source
    'digits (8 x 8 images, embedded in spurlib; from scikit-learn), classes 1 and 7, patch, d = 64'
    """
    pattern = choice(pattern, "pattern", _MARKS)
    n, n_test, query = positive(n, "n"), positive(n_test, "n_test"), choice(query, "query", QUERIES)
    pick, pick_test, noise, noise_test, other = generators(seed, 5)
    drawn = _draw(name, classes, (n, n_test), (pick, pick_test))
    shape = drawn.pictures.shape[1:]
    spurious = np.zeros((1, *shape), dtype=bool)
    offset, scale = _centering(name, drawn, spurious) if centered else (np.zeros(spurious.size), 1.0)

    def flat(marks: list[_Mark], pictures: np.ndarray) -> np.ndarray:
        marked = [mark(picture) for mark, picture in zip(marks, pictures, strict=True)]
        return np.asarray((np.reshape(marked, (len(marked), -1)) - offset) / scale)

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


def _centering(name: str, drawn: _Drawn, mask: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean of a framed image, and the scale at which its centered version has mean squared norm d."""
    (means, variances), levels = moments(name, drawn.chosen), drawn.levels
    offset = np.full(mask.shape[1:], 0.5)
    offset[~mask[0]] = means.ravel()
    noise_variance = ((levels + 1) ** 2 - 1) / 12 / levels**2
    total = variances.sum() + noise_variance * mask.sum()
    return offset.ravel(), float(np.sqrt(total / mask.size))
