"""Data sets: what is nested, what is shared, what is independent; loaders on small copies written here."""

import gzip
import hashlib
import io
import math
import os
import pickle
import shutil
import struct
import subprocess
import sys
import threading
import time
import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

import spurlib as sl
from spurlib import data as module
from spurlib.data import images as image_sets
from spurlib.data.__main__ import main

MACHINE = Path(os.environ.get("SPURLIB_DATA") or Path.home() / ".cache" / "spurlib")
OTHERS = (3, 5)  # classes of MNIST that are not part of the package


def forget():
    image_sets._load.cache_clear()
    image_sets._why_not.cache_clear()
    image_sets._refused.clear()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty data folder, nothing remembered from other tests, and no download."""
    empty = tmp_path / "data"
    empty.mkdir()
    monkeypatch.setenv("SPURLIB_DATA", str(empty))
    download_by(tmp_path, monkeypatch, 'raise OSError("no network in tests")')
    forget()
    yield empty
    forget()


def download_by(tmp_path, monkeypatch, body):
    """Give the process that downloads a torchvision of our own; return the file where it notes each download."""
    package, log = tmp_path / "fake" / "torchvision", tmp_path / "downloads"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("")
    lines = [
        "import os, shutil, sys, time",
        "def MNIST(root, download):",
        f"    open({str(log)!r}, 'a').write('x')",
        *(f"    {line}" for line in body.splitlines()),
        "CIFAR10 = MNIST",
    ]
    (package / "datasets.py").write_text("\n".join(lines))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(package.parent), os.environ.get("PYTHONPATH")])))
    return log


# Synthetic ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["fresh", "zero"])
def test_synthetic_shapes(query):
    data = sl.synthetic(n=7, d=10, alpha=0.3, n_test=4, query=query)
    assert data.Z.shape == data.Z_spurious.shape == (7, 10)
    assert data.Z_test.shape == (4, 10) and data.g.shape == (7,) and data.g_test.shape == (4,)
    assert data.alpha == pytest.approx(0.3)
    assert data.spurious.tolist() == [False] * 7 + [True] * 3
    assert set(data.g) | set(data.g_test) <= {-1.0, 1.0}
    assert data.query == query and "Gaussian" in data.source


@pytest.mark.parametrize("query", ["fresh", "zero"])
def test_spherical_samples_have_both_parts_on_spheres(query):
    options = {"n": 40, "d": 10, "alpha": 0.3, "n_test": 5, "query": query, "seed": 2}
    data, gaussian = sl.synthetic(**options, spherical=True), sl.synthetic(**options)
    for Z in (data.Z, data.Z_test, data.Z_spurious):
        core = 0 if query == "zero" and Z is data.Z_spurious else 7
        np.testing.assert_allclose((Z[:, :7] ** 2).sum(axis=1), core)
        np.testing.assert_allclose((Z[:, 7:] ** 2).sum(axis=1), 3)
    np.testing.assert_array_equal(data.Z_spurious[:, 7:], data.Z[:, 7:])
    np.testing.assert_array_equal(data.g, gaussian.g)  # the same directions, other lengths
    assert (
        abs(np.sum(data.Z[:, :7] * gaussian.Z[:, :7], axis=1) ** 2 / 7 - (gaussian.Z[:, :7] ** 2).sum(1)).max() < 1e-12
    )
    assert "sphere" in data.source and "sphere" not in gaussian.source


def test_the_label_is_the_sign_of_the_core():
    data = sl.synthetic(n=300, d=20, alpha=0.5, n_test=200, seed=3)
    assert np.linalg.norm(data.u) == pytest.approx(1)
    for Z, g in ((data.Z, data.g), (data.Z_test, data.g_test)):
        np.testing.assert_array_equal(g, np.sign(Z[:, ~data.spurious] @ data.u))


def test_spurious_queries_share_the_spurious_part_and_nothing_else():
    fresh, zero = (sl.synthetic(n=4000, d=6, alpha=0.5, query=q) for q in ("fresh", "zero"))
    for data in (fresh, zero):
        np.testing.assert_array_equal(data.Z_spurious[:, data.spurious], data.Z[:, data.spurious])
    assert (zero.Z_spurious[:, ~zero.spurious] == 0).all()
    core, other = fresh.Z[:, ~fresh.spurious], fresh.Z_spurious[:, ~fresh.spurious]
    bound = 4.5 / math.sqrt(4000)
    assert np.abs(np.corrcoef(core.T, other.T)[:3, 3:]).max() < bound
    assert abs(np.mean(np.sign(other @ fresh.u) * fresh.g)) < bound
    assert abs(other.var() - 1) < 4.5 * math.sqrt(2 / other.size)


def test_the_spurious_part_is_independent_of_core_and_label():
    data = sl.synthetic(n=20_000, d=8, alpha=0.5)
    y, bound = data.Z[:, data.spurious], 4.5 / math.sqrt(20_000)
    assert np.abs(np.corrcoef(y.T, data.g)[:4, 4]).max() < bound
    assert np.abs(np.corrcoef(y.T, data.Z[:, ~data.spurious].T)[:4, 4:]).max() < bound


def equal(a, b, rows=None):
    for name in ("Z", "g", "Z_spurious"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name)[:rows], err_msg=name)
    for name in ("Z_test", "g_test", "spurious", "u"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


@pytest.mark.parametrize("options", [{}, {"query": "zero"}, {"label_noise": 0.3}])
def test_synthetic_sets_are_nested_and_reproducible(options):
    large = sl.synthetic(n=50, d=12, alpha=0.25, n_test=9, seed=4, **options)
    equal(sl.synthetic(n=50, d=12, alpha=0.25, n_test=9, seed=4, **options), large)
    for n in (1, 20):
        equal(sl.synthetic(n=n, d=12, alpha=0.25, n_test=9, seed=4, **options), large, n)
    tested = sl.synthetic(n=50, d=12, alpha=0.25, n_test=30, seed=4, **options)
    np.testing.assert_array_equal(tested.Z, large.Z)
    np.testing.assert_array_equal(tested.Z_test[:9], large.Z_test)
    assert np.abs(sl.synthetic(n=50, d=12, alpha=0.25, seed=5, **options).Z - large.Z).max() > 1


def test_training_and_test_samples_are_different():
    data = sl.synthetic(n=10, d=5, alpha=0.5, n_test=10)
    assert np.abs(data.Z - data.Z_test).min() > 0


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5])
def test_label_noise(noise):
    n = 20_000
    data = sl.synthetic(n=n, d=4, alpha=0.5, n_test=n, label_noise=noise)
    clean = sl.synthetic(n=n, d=4, alpha=0.5, n_test=n)
    np.testing.assert_array_equal(data.Z, clean.Z)
    flipped, flipped_test = data.g != clean.g, data.g_test != clean.g_test
    for rate in (flipped.mean(), flipped_test.mean()):
        assert abs(rate - noise) <= 4.5 * math.sqrt(noise * (1 - noise) / n)
    if noise:
        assert (flipped != flipped_test).any()


def test_alpha_is_rounded_to_whole_coordinates():
    assert sl.synthetic(n=1, d=10, alpha=0.26).alpha == pytest.approx(0.3)


SYNTHETIC = [
    ("n", 0),
    ("n", 2.5),
    ("d", -1),
    ("n_test", 0),
    ("alpha", 0),
    ("alpha", 1),
    ("alpha", 1.2),
    ("alpha", float("nan")),
    ("alpha", "half"),
    ("alpha", 0.001),
    ("alpha", 0.999),
    ("label_noise", -0.1),
    ("label_noise", 0.6),
    ("label_noise", float("nan")),
    ("label_noise", "much"),
    ("label_noise", None),
    ("query", "other"),
    ("seed", -1),
    ("seed", 1.0),
    ("seed", None),
    ("seed", 2**64),
    ("query", None),
    ("query", ["zero"]),
]


@pytest.mark.parametrize("argument, value", SYNTHETIC)
def test_bad_arguments_of_synthetic_are_named(argument, value):
    with pytest.raises(ValueError, match=rf"^{argument}\b"):
        sl.synthetic(**{"n": 3, "d": 10, "alpha": 0.5, argument: value})


def test_synthetic_data_have_no_picture():
    data = sl.synthetic(n=2, d=4, alpha=0.5)
    with pytest.raises(ValueError, match="image"):
        data.image(data.Z[0])


# Framed images --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scikit_digits():
    datasets = pytest.importorskip("sklearn.datasets")
    return datasets.load_digits()


def core_of(data, z, frame):
    picture = data.image(z)
    return picture[frame:-frame, frame:-frame]


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("pair", [(1, 7), (0, 9)])
def test_digits_are_those_of_scikit_learn(scikit_digits, pair, centered):
    n, n_test = sl.image_counts("digits", pair)
    data = sl.framed_images("digits", n=n, n_test=n_test, classes=pair, centered=centered)
    ours = []
    for Z, g in ((data.Z, data.g), (data.Z_test, data.g_test)):
        for z, label in zip(Z, g, strict=True):
            pixels = core_of(data, z, 3) * 16
            np.testing.assert_allclose(pixels, pixels.round(), atol=1e-9)
            ours.append((pair[int(label > 0)], *pixels.round().astype(int).ravel()))
    keep = np.isin(scikit_digits.target, pair)
    theirs = np.c_[scikit_digits.target[keep], scikit_digits.data[keep].astype(int)]
    assert sorted(ours) == sorted(map(tuple, theirs.tolist()))


def test_framed_digits():
    data = sl.framed_images("digits", n=20, n_test=10, frame=2)
    assert data.Z.shape == (20, 144) and data.image_shape == (12, 12, 1)
    mask = data.spurious.reshape(12, 12)
    assert not mask[2:-2, 2:-2].any() and mask.sum() == 144 - 64
    assert data.alpha == pytest.approx(80 / 144)
    assert data.image(data.Z[0]).shape == (12, 12)
    assert "digits" in data.source and "classes 1 and 7" in data.source
    assert set(data.g) == {-1.0, 1.0}
    for z in (data.Z, "black", np.full(144, np.nan)):
        with pytest.raises(ValueError, match=r"^z must be"):
            data.image(z)


def test_default_frame_of_digits():
    assert sl.framed_images("digits", n=2, n_test=2).image_shape == (14, 14, 1)


@pytest.mark.parametrize("query", ["zero", "fresh"])
@pytest.mark.parametrize("centered", [True, False])
def test_spurious_queries_of_images(query, centered):
    data = sl.framed_images("digits", n=120, n_test=5, query=query, centered=centered)
    core = ~data.spurious
    np.testing.assert_array_equal(data.Z_spurious[:, ~core], data.Z[:, ~core])
    if query == "zero":
        assert (data.Z_spurious[:, core] == 0).all()
        blank = data.image(data.Z_spurious[0])[3:-3, 3:-3].ravel()
        np.testing.assert_allclose(blank, data.offset[core] if centered else 0, atol=1e-12)
        return
    assert (np.abs(data.Z_spurious[:, core] - data.Z[:, core]).max(axis=1) > 0).all()
    everything = sl.framed_images("digits", n=sl.image_counts("digits")[0], n_test=5, centered=centered)
    known = {row.round(9).tobytes() for row in everything.Z[:, core] + 0.0}
    assert all(row.round(9).tobytes() in known for row in data.Z_spurious[:, core] + 0.0)


def test_a_fresh_core_is_never_the_samples_own():
    n, _ = sl.image_counts("digits")
    for seed in range(5):
        data = sl.framed_images("digits", n=n, n_test=1, query="fresh", seed=seed)
        changed = np.abs(data.Z_spurious - data.Z)[:, ~data.spurious].max(axis=1)
        assert (changed > 0).all()


@pytest.mark.parametrize("options", [{}, {"query": "fresh"}, {"centered": False}])
def test_image_sets_are_nested_and_reproducible(options):
    large = sl.framed_images("digits", n=60, n_test=20, seed=2, **options)
    equal(sl.framed_images("digits", n=60, n_test=20, seed=2, **options), large)
    equal(sl.framed_images("digits", n=25, n_test=20, seed=2, **options), large, 25)
    assert np.abs(sl.framed_images("digits", n=60, n_test=20, seed=3, **options).Z - large.Z).max() > 0.1


def test_images_are_drawn_without_replacement_and_tested_on_others():
    n, n_test = sl.image_counts("digits")
    data = sl.framed_images("digits", n=n, n_test=n_test)
    rows = {row.tobytes() for row in np.vstack([data.Z, data.Z_test])}
    assert len(rows) == n + n_test


def test_centered_images_have_mean_squared_norm_d():
    n, _ = sl.image_counts("digits")
    data = sl.framed_images("digits", n=n, n_test=1)
    core = data.Z[:, ~data.spurious]
    np.testing.assert_allclose(core.mean(axis=0), 0, atol=1e-12)  # all images: the mean is exact
    draws = np.vstack([sl.framed_images("digits", n=n, n_test=1, seed=s).Z[:, data.spurious] for s in range(10)])
    frames = (draws**2).sum(axis=1)
    expected = (core**2).sum(axis=1).mean() + frames.mean()
    assert abs(expected - data.spurious.size) < 4.5 * frames.std() / math.sqrt(len(frames))
    columns = draws.mean(axis=0) / draws.std(axis=0) * math.sqrt(len(draws))
    assert np.abs(columns).max() < 5


def test_frame_noise_is_uniform_over_the_gray_levels():
    data = sl.framed_images("digits", n=250, n_test=1, centered=False)
    levels = data.Z[:, data.spurious] * 16
    np.testing.assert_array_equal(levels, levels.round())
    counts = np.bincount(levels.astype(int).ravel(), minlength=17)
    assert len(counts) == 17
    expected = levels.size / 17
    assert (((counts - expected) ** 2) / expected).sum() < 45  # chi squared with 16 degrees of freedom, p = 1e-4
    assert np.abs(np.corrcoef(data.Z[:, data.spurious].T, data.g)[-1, :-1]).max() < 5 / math.sqrt(250)


IMAGES = [
    ("n", 0),
    ("n", 10**6),
    ("n_test", 0),
    ("n_test", 10**6),
    ("classes", (1, 1)),
    ("classes", (1,)),
    ("classes", (1, 2, 1)),
    ("classes", (1, 11)),
    ("classes", ("cat", "ship")),
    ("classes", "17"),
    ("classes", 7),
    ("classes", (0, True)),
    ("classes", (1.0, 7.0)),
    ("name", "imagenet"),
    ("name", ["digits"]),
    ("frame", 0),
    ("frame", 1.5),
    ("query", "none"),
    ("seed", -2),
]


@pytest.mark.parametrize("argument, value", IMAGES)
def test_bad_arguments_of_framed_images_are_named(argument, value):
    with pytest.raises(ValueError, match=rf"^{argument}\b"):
        sl.framed_images(**{"name": "digits", "n": 3, "n_test": 2, argument: value})


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("chosen", [range(10), (7, 1, 4)])
def test_more_than_two_classes_are_numbered(chosen, centered):
    n, n_test = sl.image_counts("digits", chosen)
    data = sl.framed_images("digits", n=n, n_test=n_test, classes=chosen, centered=centered, seed=1)
    assert set(data.g) == set(data.g_test) == {float(i) for i in range(len(chosen))} and data.g.dtype == float
    for position, c in enumerate(chosen):  # the same images as in a pair with another class
        pair = (c, (c + 1) % 10)
        size, _ = sl.image_counts("digits", pair)
        two = sl.framed_images("digits", n=size, n_test=1, classes=pair, centered=False)
        own = np.sort(two.Z[two.g == -1][:, ~two.spurious].round(9), axis=0)
        pixels = (data.offset + data.scale * data.Z) if centered else data.Z
        np.testing.assert_allclose(
            np.sort(pixels[data.g == position][:, ~data.spurious].round(9), axis=0), own, atol=1e-8
        )
    if centered:
        assert np.abs(data.Z[:, ~data.spurious].mean(axis=0)).max() < 1e-9
    assert f"classes {', '.join(str(c) for c in chosen[:-1])} and {chosen[-1]}, frame 3" in data.source


@pytest.mark.parametrize(
    "call", [lambda x: sl.framed_images(x, n=2), sl.first_available, sl.image_counts, module.available]
)
def test_unknown_data_sets_list_the_known(call):
    with pytest.raises(ValueError, match=r"^name must be one of 'cifar10', 'digits', 'mnist'; got 'imagenet'"):
        call("imagenet")


# Marked images --------------------------------------------------------------------------------------------------------

PATTERNS = ["watermark", "patch", "cast"]


def pixels(data, Z):
    return (data.offset + data.scale * Z).reshape(len(Z), *data.image_shape)


def pictures(seed, n=30, n_test=20):
    """The pictures without a mark that `marked_images` draws, in gray levels."""
    data = sl.framed_images("digits", n=n, n_test=n_test, centered=False, seed=seed)
    return [Z[:, ~data.spurious].reshape(-1, 8, 8, 1) for Z in (data.Z, data.Z_test)] + [data.g, data.g_test]


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("query", ["zero", "fresh"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_mark_is_the_same_on_sample_and_query(pattern, query, centered):
    chosen = {"pattern": pattern, "n": 30, "n_test": 20, "seed": 3, "centered": centered}
    data = sl.marked_images("digits", query=query, **chosen)
    own, own_test, g, g_test = pictures(3)
    np.testing.assert_array_equal(data.g, g)
    np.testing.assert_array_equal(data.g_test, g_test)
    blank = data.offset.reshape(8, 8, 1) if query == "zero" else None
    known = np.concatenate(pictures(0, *sl.image_counts("digits"))[:2])
    for Z, Z_s, own_pictures in ((data.Z, data.Z_spurious, own), (data.Z_test, None, own_test)):
        marked, asked = pixels(data, Z), None if Z_s is None else pixels(data, Z_s)
        for i, (z, x) in enumerate(zip(marked, own_pictures, strict=True)):
            others = [] if asked is None else [blank] if query == "zero" else known
            if pattern == "watermark":
                mark = z - x
                assert np.abs(mark).max() <= 0.25 + 1e-12 and np.abs(mark).max() > 0.2
                rest = [asked[i] - mark - other for other in others]
            elif pattern == "patch":
                changed = np.argwhere(np.abs(z - x)[..., 0] > 1e-9)
                (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0)
                assert bottom - top <= 3 and right - left <= 3 and len(changed) > 4
                covered = np.zeros((8, 8, 1), dtype=bool)
                covered[top : bottom + 1, left : right + 1] = True
                assert ((z[covered] >= 0) & (z[covered] <= 1)).all()
                # a pixel of the patch that happens to be as the picture was may lie outside `covered`
                rest = [np.where(covered, z - asked[i], 0) for other in others]
                far = [np.sort(np.where(covered, 0, asked[i] - other).ravel()) for other in others]
                assert not far or min(np.count_nonzero(np.abs(row) > 1e-9) for row in far) <= 16 - covered.sum()
            else:
                gain, shift = np.polyfit(x.ravel(), z.ravel(), 1)
                assert 0.5 <= gain <= 1.5 and abs(shift) <= 0.25
                np.testing.assert_allclose(gain * x + shift, z, atol=1e-9)
                rest = [asked[i] - (gain * other + shift) for other in others]
            assert not rest or min(np.abs(row).max() for row in rest) < 1e-9


def test_a_color_cast_is_another_one_for_each_channel(folder, monkeypatch):
    few_jpegs(monkeypatch)
    write_cifar_jpegs(folder, *small_images((32, 32, 3), flat=True))
    data = sl.marked_images("cifar10", pattern="cast", n=8, n_test=4, centered=False)
    assert data.image_shape == (32, 32, 3) and "cast, d = 3072" in data.source
    shift = pixels(data, data.Z_spurious)  # on black
    assert np.ptp(shift, axis=(1, 2)).max() < 1e-12 and np.ptp(shift[:, 0, 0], axis=1).min() > 1e-3
    assert sl.marked_images("mnist", pattern="patch", n=8, n_test=4).image_shape == (28, 28, 1)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_marked_images_have_no_coordinates_of_their_own(pattern):
    n, n_test = sl.image_counts("digits")
    data = sl.marked_images("digits", pattern=pattern, n=n, n_test=n_test)
    assert not data.spurious.any() and data.alpha == 0 and data.query == "zero"
    plain = np.concatenate(pictures(0, n, n_test)[:1]).reshape(n, -1)
    np.testing.assert_allclose(plain.mean(axis=0), data.offset, atol=1e-12)
    assert np.sum((plain - data.offset) ** 2) / data.scale**2 == pytest.approx(n * 64)
    knows = np.abs(np.corrcoef(data.Z_spurious.T, data.g)[-1, :-1])
    assert np.nanmax(knows) < 5 / math.sqrt(n)  # marks are independent of labels


@pytest.mark.parametrize("options", [{}, {"query": "fresh"}, {"centered": False}])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_marked_sets_are_nested_and_reproducible(pattern, options):
    chosen = {"pattern": pattern, "n_test": 20, "seed": 2, **options}
    large = sl.marked_images("digits", n=60, **chosen)
    equal(sl.marked_images("digits", n=60, **chosen), large)
    equal(sl.marked_images("digits", n=25, **chosen), large, 25)
    assert np.abs(sl.marked_images("digits", n=60, **{**chosen, "seed": 3}).Z - large.Z).max() > 0.1


@pytest.mark.parametrize(
    "argument, value", [case for case in IMAGES if case[0] != "frame"] + [("pattern", "scratch"), ("pattern", None)]
)
def test_bad_arguments_of_marked_images_are_named(argument, value):
    with pytest.raises(ValueError, match=rf"^{argument}\b"):
        sl.marked_images(**{"name": "digits", "n": 3, "n_test": 2, "pattern": "cast", argument: value})


# Copies on disk -------------------------------------------------------------------------------------------------------


def write_mnist(folder, images, labels, images_test, labels_test):
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, x, y in (("train", images, labels), ("t10k", images_test, labels_test)):
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, *x.shape) + x.tobytes())
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, len(y)) + y.tobytes())


def write_cifar_batches(folder, images, labels, images_test, labels_test):
    batches = folder / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    parts = zip(np.array_split(images, 5), np.array_split(labels, 5), strict=True)
    named = {f"data_batch_{i}": part for i, part in enumerate(parts, 1)} | {"test_batch": (images_test, labels_test)}
    for name, (x, y) in named.items():
        rows = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # the official files hold channels first
        (batches / name).write_bytes(pickle.dumps({"data": rows, "labels": y.tolist()}))
    (batches / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))


CIFAR_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def write_cifar_jpegs(folder, images, labels, images_test, labels_test):
    for split, x, y in (("train", images, labels), ("test", images_test, labels_test)):
        for name in CIFAR_NAMES:
            (folder / "cifar10-images" / split / name).mkdir(parents=True)
        for i, (image, label) in enumerate(zip(x, y, strict=True)):
            path = folder / "cifar10-images" / split / CIFAR_NAMES[label] / f"{i:04}.jpg"
            Image.fromarray(image).save(path, quality=95, subsampling=0)


def official(monkeypatch, folder):
    """Take the files in a folder for the official ones."""
    for where, digests in image_sets._OFFICIAL.items():
        if (folder / where).is_dir():
            known = {name: hashlib.md5((folder / where / name).read_bytes()).hexdigest() for name in digests}
            monkeypatch.setitem(image_sets._OFFICIAL, where, known)


def few_jpegs(monkeypatch):
    """Take the JPEG copy of `small_images` for complete."""
    monkeypatch.setattr(image_sets, "_JPEG_COUNTS", {"train": 4, "test": 2})


def small_images(shape, flat=False):
    generator = np.random.default_rng(0)
    sets = []
    for n in (40, 20):
        images = generator.integers(0, 256, (n, 1, 1, *shape[2:]) if flat else (n, *shape)).astype(np.uint8)
        sets += [np.broadcast_to(images, (n, *shape)).copy(), (np.arange(n) % 10).astype(np.uint8)]
    return sets


def assert_holds(data, frame, images, labels, pair, tolerance=1e-9):
    """Every picture's core is one of the images of its class."""
    for Z, g in ((data.Z, data.g), (data.Z_test, data.g_test)):
        for z, label in zip(Z, g, strict=True):
            candidates = images[labels == pair[int(label > 0)]]
            gap = np.abs(candidates - core_of(data, z, frame) * 255).reshape(len(candidates), -1).max(axis=1)
            assert gap.min() <= tolerance


def test_mnist_from_disk(folder, monkeypatch):
    assert not module.available("mnist", OTHERS)
    sets = small_images((28, 28))
    write_mnist(folder, *sets)
    official(monkeypatch, folder)
    assert module.available("mnist", OTHERS)
    assert sl.image_counts("mnist", OTHERS) == (8, 4)
    data = sl.framed_images("mnist", n=8, n_test=4, classes=OTHERS)
    assert data.image_shape == (48, 48, 1) and data.alpha == pytest.approx(1 - 784 / 2304)
    assert data.source == "MNIST, classes 3 and 5, frame 10, d = 2304"
    assert sorted(data.g) == [-1.0] * 4 + [1.0] * 4
    assert_holds(data, 10, np.concatenate(sets[::2]).astype(float), np.concatenate(sets[1::2]), OTHERS)
    reverse = sl.framed_images("mnist", n=8, n_test=4, classes=OTHERS[::-1])
    np.testing.assert_array_equal(reverse.g, -data.g)


@pytest.mark.parametrize("writer, copy", [(write_cifar_batches, "official"), (write_cifar_jpegs, "pictures")])
def test_cifar_from_disk(folder, monkeypatch, writer, copy):
    assert not module.available("cifar10")
    sets = small_images((32, 32, 3), flat=copy == "pictures")
    writer(folder, *sets)
    official(monkeypatch, folder)
    few_jpegs(monkeypatch)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda path, md5=None: os.path.isfile(path))
    assert module.available("cifar10")
    assert sl.first_available("cifar10", "digits") == "cifar10"
    assert sl.image_counts("cifar10") == (8, 4)
    data = sl.framed_images("cifar10", n=8, n_test=4)
    assert data.image_shape == (48, 48, 3) and data.alpha == pytest.approx(1 - 3072 / 6912)
    assert data.image(data.Z[0]).shape == (48, 48, 3)
    assert copy in data.source
    images, labels = np.concatenate(sets[::2]).astype(float), np.concatenate(sets[1::2])
    assert_holds(data, 8, images, labels, (3, 8), tolerance=3 if copy == "pictures" else 1e-9)


def test_official_batches_come_before_the_jpeg_copy(folder, monkeypatch):
    sets = small_images((32, 32, 3), flat=True)
    write_cifar_jpegs(folder, *sets)
    write_cifar_batches(folder, *sets)
    official(monkeypatch, folder)
    few_jpegs(monkeypatch)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda path, md5=None: True)
    assert "official" in sl.framed_images("cifar10", n=2, n_test=2).source
    (folder / "cifar-10-batches-py" / "data_batch_3").unlink()  # half a copy is none, and does not hide the other
    forget()
    assert "pictures" in sl.framed_images("cifar10", n=2, n_test=2).source


def test_another_copy_in_pictures_has_another_source(folder, monkeypatch):
    few_jpegs(monkeypatch)
    write_cifar_jpegs(folder, *small_images((32, 32, 3), flat=True))

    def source(classes=(3, 8)):
        forget()
        return sl.framed_images("cifar10", n=2, n_test=2, classes=classes).source

    first = source()
    assert source() == first and first.startswith("CIFAR-10 (pictures with digest ")
    digests = {
        split: " ".join(
            hashlib.sha256(
                b"".join(p.read_bytes() for p in sorted((folder / "cifar10-images" / split / name).iterdir()))
            ).hexdigest()[:12]
            for name in CIFAR_NAMES
        )
        for split in ("train", "test")
    }
    monkeypatch.setattr(image_sets, "_JPEG_DIGESTS", digests)
    assert source() == "CIFAR-10 (JPEG copy), classes 3 and 8, frame 8, d = 6912"  # as the records have it
    one, other = sorted((folder / "cifar10-images" / "train" / "ship").iterdir())[:2]
    content = one.read_bytes(), other.read_bytes()
    one.write_bytes(content[1])
    other.write_bytes(content[0])
    assert source().startswith("CIFAR-10 (pictures with digest ") and source() != first
    assert source((3, 5)) == "CIFAR-10 (JPEG copy), classes 3 and 5, frame 8, d = 6912"


# Inside the package ---------------------------------------------------------------------------------------------------

ONES_AND_SEVENS = {  # of the official files, filtered by class: pictures, labels of one byte
    "train": (
        "4a3675fa188afcd4c19223c85e1421f7f6ee3bb428bb872f1febabc6c5bd0686",
        "868f3fcdb8d2d833983b77f90e5d01e7bedce626ee2aebbfa8651ca4814cbcdb",
    ),
    "t10k": (
        "36fe1a15ee5c89febf1f842e69b102fcb0ed00f40d6bfae7196d20cf1d39de67",
        "ca1be12ab5faa2b26700d0401a7cd7fa0cf63e5cea04419769a347734b16dbf3",
    ),
}


def test_the_ones_and_sevens_of_mnist_are_inside():
    train, test, source = image_sets.load("mnist", (1, 7))
    assert source == "MNIST"
    for (images, labels), digests in zip((train, test), ONES_AND_SEVENS.values(), strict=True):
        assert images.dtype == np.uint8 and labels.dtype == int and set(labels) == {1, 7}
        assert images.shape == (len(labels), 28, 28, 1)
        assert hashlib.sha256(images.tobytes()).hexdigest() == digests[0]
        assert hashlib.sha256(labels.astype(np.uint8).tobytes()).hexdigest() == digests[1]
    assert sl.image_counts("mnist") == sl.image_counts("mnist", [7, 1]) == (13_007, 2_163)


def test_the_pictures_inside_are_those_of_the_official_files(monkeypatch):
    if image_sets.look("mnist", MACHINE)[0] is None:
        pytest.skip("the official files of MNIST are not here: the digests of what they hold are tested above")
    monkeypatch.setenv("SPURLIB_DATA", str(MACHINE))
    options = [{"classes": (1, 7)}, {"classes": (7, 1), "query": "fresh"}, {"centered": False}]
    inside = [sl.framed_images("mnist", n=50, n_test=20, seed=3, **chosen) for chosen in options]
    monkeypatch.delitem(image_sets._EMBEDDED, "mnist")
    forget()
    for ours, chosen in zip(inside, options, strict=True):
        theirs = sl.framed_images("mnist", n=50, n_test=20, seed=3, **chosen)
        equal(ours, theirs)
        np.testing.assert_array_equal(ours.offset, theirs.offset)
        assert (ours.scale, ours.source, ours.image_shape) == (theirs.scale, theirs.source, theirs.image_shape)


ALONE = """
import sys, time
sys.modules["torchvision"] = sys.modules["PIL"] = None
import spurlib as sl
from spurlib.data import available
start = time.perf_counter()
data = sl.framed_images("mnist", n=20, n_test=5, classes=(7, 1))
assert time.perf_counter() - start < 10, "it waited"
assert sl.first_available("mnist", "digits") == "mnist"
sl.marked_images("mnist", pattern="cast", n=5, n_test=5)
print(data.source, available("mnist"), available("mnist", (1, 2)), available("cifar10"))
try:
    sl.framed_images("mnist", n=2, classes=(1, 2))
except sl.DataNotAvailableError as error:
    print(error)
"""


def test_they_need_no_folder_no_home_no_network_and_no_torchvision(tmp_path):
    environ = {name: value for name, value in os.environ.items() if name not in ("HOME", "SPURLIB_DATA")}
    environ["HOME"] = str(tmp_path / "nowhere")
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True, env=environ)
    first, second = done.stdout.splitlines()
    assert first == "MNIST, classes 7 and 1, frame 10, d = 2304 True False False"
    assert "torchvision is not installed" in second and 'pip install ".[images]"' in second
    assert not (tmp_path / "nowhere").exists()


def test_the_license_of_what_is_inside_lies_beside_it():
    inside = files("spurlib.data")
    assert (inside / "mnist_1_7.xz").stat().st_size < 2_500_000
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    terms = project["project"]["license"].split(" AND ")
    for name, term, owner in (("mnist", "CC-BY-SA-3.0", "LeCun"), ("digits", "CC-BY-4.0", "Alpaydin")):
        text = (inside / f"LICENSE-{name}.txt").read_text(encoding="utf-8")
        assert owner in text and term in terms
        assert f"creativecommons.org/licenses/{term[3:].lower().rsplit('-', 1)[0]}/{term[-3:]}/" in text
    package_data = project["tool"]["setuptools"]["package-data"]["spurlib.data"]
    assert {"mnist_1_7.xz", "digits.npz", "LICENSE-*"} <= set(package_data)


# Damaged copies -------------------------------------------------------------------------------------------------------


def names_of(folder, where="MNIST/raw"):
    return {path.name for path in (folder / where).iterdir()}


def change(name, function):
    def damage(raw):
        path = raw / name
        path.write_bytes(function(path.read_bytes()))

    return damage


def swap(one, other):
    def damage(raw):
        first, second = (raw / one).read_bytes(), (raw / other).read_bytes()
        (raw / one).write_bytes(second)
        (raw / other).write_bytes(first)

    return damage


def only_processed(raw):
    (raw.parent / "processed").mkdir()
    for name in ("training.pt", "test.pt"):
        (raw.parent / "processed" / name).write_bytes(b"of an old torchvision")
    shutil.rmtree(raw)


def in_a_folder(raw):
    (raw / "train-labels-idx1-ubyte").unlink()
    (raw / "train-labels-idx1-ubyte").mkdir()
    (raw / "train-labels-idx1-ubyte" / "inside").write_text("")


def still_packed(raw):
    for path in list(raw.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


def a_file_for_a_folder(raw):
    shutil.rmtree(raw)
    raw.write_text("a file")


def a_dangling_link(raw):
    (raw / "t10k-images-idx3-ubyte").unlink()
    (raw / "t10k-images-idx3-ubyte").symlink_to(raw / "nowhere")


HTML = b"<!DOCTYPE html><title>Moved</title>"
DAMAGED_MNIST = {
    "three of four files": (lambda raw: (raw / "t10k-labels-idx1-ubyte").unlink(), "t10k-labels.* is missing"),
    "a truncated file": (change("train-images-idx3-ubyte", lambda b: b[:1000]), "train-images.* has 1000 bytes"),
    "an empty file": (change("train-labels-idx1-ubyte", lambda b: b""), "train-labels.* is empty"),
    "four empty files": (lambda raw: [path.write_bytes(b"") for path in raw.iterdir()], "train-images.* is empty; "),
    "a page of a portal": (change("t10k-images-idx3-ubyte", lambda b: HTML), "t10k-images.*has 35 bytes"),
    "bytes too many": (change("train-images-idx3-ubyte", lambda b: b + b"\n"), "train-images.*not the official file"),
    "another header": (change("t10k-labels-idx1-ubyte", lambda b: b"\0" + b[1:-1] + b"x"), "t10k-labels"),
    "permuted labels": (
        change("train-labels-idx1-ubyte", lambda b: b[:8] + b[:7:-1]),
        "train-labels.*not the official",
    ),
    "black pictures": (change("train-images-idx3-ubyte", lambda b: b[:16] + bytes(len(b) - 16)), "train-images"),
    "swapped sets": (
        swap("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"),
        "train-images.*; MNIST/raw/t10k-images",
    ),
    "pictures for labels": (swap("train-images-idx3-ubyte", "train-labels-idx1-ubyte"), "train-labels"),
    "processed pictures": (only_processed, "MNIST/raw holds none"),
    "a folder for a file": (in_a_folder, "train-labels.* is not a file"),
    "packed files": (still_packed, "MNIST/raw holds none"),
    "a file for the folder": (a_file_for_a_folder, "cannot be read: Not a directory"),
    "a dangling link": (a_dangling_link, "t10k-images.* is missing"),
}


@pytest.mark.parametrize("case", DAMAGED_MNIST)
def test_damaged_mnist_is_named(folder, monkeypatch, tmp_path, case):
    damage, message = DAMAGED_MNIST[case]
    write_mnist(folder, *small_images((28, 28)))
    official(monkeypatch, folder)
    damage(folder / "MNIST" / "raw")
    assert not module.available("mnist", OTHERS)
    with pytest.raises(sl.DataNotAvailableError, match=message) as caught:
        sl.framed_images("mnist", n=2, classes=OTHERS)
    assert "no network" in str(caught.value) and "python -m spurlib.data mnist" in str(caught.value)
    assert sl.image_counts("mnist") == (13_007, 2_163)  # what is inside does not depend on the folder


@pytest.mark.parametrize("case", [name for name in DAMAGED_MNIST if name != "a file for the folder"])
def test_damaged_mnist_is_repaired_by_a_download(folder, monkeypatch, tmp_path, case):
    sound = tmp_path / "sound"
    write_mnist(sound, *small_images((28, 28)))
    official(monkeypatch, sound)
    download_by(tmp_path, monkeypatch, f"shutil.copytree({str(sound)!r}, root, dirs_exist_ok=True)")
    shutil.copytree(sound, folder, dirs_exist_ok=True)
    DAMAGED_MNIST[case][0](folder / "MNIST" / "raw")
    assert sl.image_counts("mnist", OTHERS) == (8, 4)
    assert module.available("mnist", OTHERS)
    for path in (sound / "MNIST" / "raw").iterdir():
        assert (folder / "MNIST" / "raw" / path.name).read_bytes() == path.read_bytes()
    if case == "permuted labels":  # a file that somebody changed on purpose is not lost
        assert "train-labels-idx1-ubyte.damaged" in names_of(folder)


def test_old_processed_pictures_are_not_read(folder, monkeypatch):
    write_mnist(folder, *small_images((28, 28)))
    official(monkeypatch, folder)
    (folder / "MNIST" / "processed").mkdir()
    for name in ("training.pt", "test.pt"):
        (folder / "MNIST" / "processed" / name).write_bytes(b"200 pictures")
    assert sl.image_counts("mnist", OTHERS) == (8, 4)


def damage_batches(name, content):
    def damage(folder):
        path = folder / "cifar-10-batches-py" / name
        path.unlink() if content is None else path.write_bytes(content)

    return damage


@pytest.mark.parametrize(
    "damage, message",
    [
        (damage_batches("data_batch_2", None), "cifar-10-batches-py/data_batch_2 is missing"),
        (damage_batches("test_batch", b""), "test_batch is empty"),
        (damage_batches("batches.meta", HTML), "batches.meta is not the official file"),
        (damage_batches("data_batch_1", pickle.dumps({"data": [], "labels": []})), "data_batch_1 is not the official"),
        (lambda folder: [p.unlink() for p in (folder / "cifar-10-batches-py").iterdir()], "holds none of the official"),
    ],
)
def test_damaged_batches_are_named(folder, monkeypatch, damage, message):
    write_cifar_batches(folder, *small_images((32, 32, 3)))
    official(monkeypatch, folder)
    damage(folder)
    assert not module.available("cifar10")
    with pytest.raises(sl.DataNotAvailableError, match=message):
        sl.framed_images("cifar10", n=2)


def picture_file(content):
    def damage(images):
        next((images / "train" / "cat").iterdir()).write_bytes(content)

    return damage


def encoded(shape):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros(shape, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "damage, message",
    [
        (
            lambda images: (images / "train" / "ants").mkdir(),
            "train holds folders that are no classes of CIFAR-10: ants",
        ),
        (lambda images: shutil.rmtree(images / "train" / "bird"), "train/bird holds 0 pictures instead of 4"),
        (lambda images: (images / "test" / "ship").rename(images / "test" / "boat"), "no classes of CIFAR-10: boat"),
        (lambda images: next((images / "test" / "dog").iterdir()).unlink(), "test/dog holds 1 pictures instead of 2"),
        (lambda images: shutil.rmtree(images / "test"), "cifar10-images/test is missing"),
        (
            lambda images: [shutil.rmtree(images / "test" / name) for name in CIFAR_NAMES],
            "test/cat .*; 6 more. It could",
        ),
        (lambda images: (shutil.rmtree(images), images.write_text("")), "cannot be read: Not a directory"),
    ],
)
def test_a_jpeg_copy_with_other_classes_or_counts_is_refused(folder, monkeypatch, damage, message):
    few_jpegs(monkeypatch)
    write_cifar_jpegs(folder, *small_images((32, 32, 3), flat=True))
    for hidden in (".DS_Store", ".ipynb_checkpoints"):  # no classes, and no harm
        (folder / "cifar10-images" / "train" / hidden).mkdir()
    (folder / "cifar10-images" / "train" / "cat" / "._0003.jpg").write_bytes(b"attributes")
    assert module.available("cifar10")
    damage(folder / "cifar10-images")
    assert not module.available("cifar10")
    with pytest.raises(sl.DataNotAvailableError, match=message):
        sl.framed_images("cifar10", n=2)


@pytest.mark.parametrize("content", [b"", HTML, encoded((32, 32, 3))[:300], encoded((31, 32, 3))])
def test_a_damaged_picture_is_named(folder, monkeypatch, content):
    few_jpegs(monkeypatch)
    write_cifar_jpegs(folder, *small_images((32, 32, 3), flat=True))
    picture_file(content)(folder / "cifar10-images")
    with pytest.raises(sl.DataNotAvailableError, match=r"cat/00\d\d\.jpg .*: replace it"):
        sl.framed_images("cifar10", n=2)


def test_a_torchvision_that_does_not_fit_is_named(folder, monkeypatch):
    write_cifar_batches(folder, *small_images((32, 32, 3)))
    official(monkeypatch, folder)
    monkeypatch.delattr(torchvision.datasets, "CIFAR10")
    with pytest.raises(sl.DataNotAvailableError, match="torchvision cannot be imported: ImportError"):
        sl.framed_images("cifar10", n=2)


# Downloads ------------------------------------------------------------------------------------------------------------


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_refused_download_fails_at_once_and_says_where_it_looked(folder):
    for name, classes in (("mnist", range(10)), ("cifar10", None)):
        with pytest.raises(sl.DataNotAvailableError, match="SPURLIB_DATA") as caught:
            sl.framed_images(name, n=2, classes=classes)
        assert str(folder) in str(caught.value) and "no network" in str(caught.value)
    assert leftovers(folder) == []
    assert issubclass(sl.DataNotAvailableError, FileNotFoundError)


def test_a_substitute_is_announced_with_the_reason(capsys):
    assert sl.first_available("cifar10", "digits") == "digits"
    out = capsys.readouterr().out
    assert out.startswith("cifar10 cannot be had here (") and "no network" in out
    assert "digits instead" in out and out.count("\n") == 1
    assert sl.first_available("digits", "cifar10") == "digits"
    assert sl.first_available("mnist", "digits") == "mnist"
    assert capsys.readouterr().out == ""


def test_the_decision_holds_for_the_process_and_no_download_is_tried_twice(folder, monkeypatch, tmp_path):
    log = download_by(tmp_path, monkeypatch, 'raise OSError("no network in tests")')
    with pytest.raises(sl.DataNotAvailableError):
        sl.framed_images("cifar10", n=2)
    for _ in range(2):
        assert sl.first_available("cifar10", "mnist") == "mnist"
        with pytest.raises(sl.DataNotAvailableError, match="no network"):
            sl.framed_images("cifar10", n=2)
    assert log.read_text() == "x"
    few_jpegs(monkeypatch)
    write_cifar_jpegs(folder, *small_images((32, 32, 3), flat=True))  # as another process may do
    assert sl.first_available("cifar10", "digits") == "digits"
    assert sl.image_counts("cifar10") == (8, 4)  # whoever asks for CIFAR-10 by name gets it


def test_threads_share_one_download(monkeypatch, tmp_path):
    log = download_by(tmp_path, monkeypatch, 'time.sleep(0.5)\nraise OSError("no network in tests")')
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(sl.first_available("cifar10", "mnist"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == ["mnist"] * 4 and log.read_text() == "x"


def test_when_nothing_can_be_had():
    with pytest.raises(sl.DataNotAvailableError, match=r"cifar10 cannot be had here .*no network"):
        sl.first_available("cifar10")
    with pytest.raises(ValueError, match="names"):
        sl.first_available()


def test_a_typo_is_found_before_any_download(monkeypatch):
    monkeypatch.setattr(image_sets, "download", lambda *a: pytest.fail("a download began"))
    with pytest.raises(ValueError, match="'digit'"):
        sl.first_available("cifar10", "digit")
    for call in (sl.framed_images, sl.marked_images):
        pattern = {} if call is sl.framed_images else {"pattern": "cast"}
        for wrong in ({"seed": -1}, {"query": "none"}, {"n": 0}, {"classes": (3, 3)}):
            with pytest.raises(ValueError, match=f"^{next(iter(wrong))}"):
                call("cifar10", **{"n": 3, **pattern, **wrong})


def test_a_slow_download_is_stopped_and_leaves_nothing(folder, monkeypatch, tmp_path, capfd):
    pid = tmp_path / "pid"
    body = f"open({str(pid)!r}, 'w').write(str(os.getpid()))\nopen(root + '/half', 'w').write('x')\ntime.sleep(60)"
    download_by(tmp_path, monkeypatch, body)
    monkeypatch.setattr(image_sets, "PATIENCE", 3)
    with pytest.raises(sl.DataNotAvailableError, match="longer than 3 s"):
        sl.framed_images("mnist", n=2, classes=OTHERS)
    assert leftovers(folder) == [] and capfd.readouterr() == ("", "")
    with pytest.raises(ProcessLookupError):  # it will not arrive later and change what this process finds
        os.kill(int(pid.read_text()), 0)


def test_prints_of_other_threads_are_seen_during_a_download(monkeypatch, tmp_path, capfd):
    download_by(tmp_path, monkeypatch, 'print("from the download")\ntime.sleep(1)\nraise OSError("no network")')
    thread = threading.Thread(target=lambda: module.first_available("cifar10", "digits"))
    thread.start()
    time.sleep(0.3)
    print("seen")
    thread.join()
    out, err = capfd.readouterr()
    assert "seen\n" in out and "from the download" not in out + err


def test_a_download_that_fails_half_way_leaves_nothing_and_tells_all(folder, monkeypatch, tmp_path):
    body = 'os.makedirs(root + "/MNIST/raw")\nopen(root + "/MNIST/raw/train-images-idx3-ubyte", "w").write("x")\n'
    download_by(tmp_path, monkeypatch, body + 'raise RuntimeError("connection lost\\nfirst mirror: 404")')
    with pytest.raises(sl.DataNotAvailableError, match=r"(?s)RuntimeError: connection lost\nfirst mirror: 404"):
        sl.framed_images("mnist", n=2, classes=OTHERS)
    assert leftovers(folder) == []


def test_a_download_that_is_killed_is_no_success(folder, monkeypatch, tmp_path):
    download_by(tmp_path, monkeypatch, "os.kill(os.getpid(), 9)")
    with pytest.raises(sl.DataNotAvailableError, match="ended with status -9"):
        sl.framed_images("mnist", n=2, classes=OTHERS)


def test_an_incomplete_download_is_not_taken_for_the_data(folder, monkeypatch, tmp_path):
    download_by(tmp_path, monkeypatch, "os.makedirs(root + '/MNIST/raw')")
    with pytest.raises(sl.DataNotAvailableError, match="what arrived is not complete: MNIST/raw holds none"):
        sl.framed_images("mnist", n=2, classes=OTHERS)
    assert leftovers(folder) == []


def sound_mnist(monkeypatch, tmp_path):
    """Let a download bring small pictures, with packed files beside them as torchvision leaves them."""
    sound = tmp_path / "sound"
    write_mnist(sound, *small_images((28, 28)))
    official(monkeypatch, sound)
    for path in list((sound / "MNIST" / "raw").iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    return download_by(tmp_path, monkeypatch, f"shutil.copytree({str(sound)!r}, root, dirs_exist_ok=True)")


def test_a_download_is_moved_into_place_and_used_once(folder, monkeypatch, tmp_path, capfd):
    log = sound_mnist(monkeypatch, tmp_path)
    (folder / "MNIST").mkdir()  # an empty folder does not turn it away
    assert len(sl.framed_images("mnist", n=8, n_test=4, classes=OTHERS).g) == 8
    assert module.available("mnist", OTHERS) and sl.image_counts("mnist", (1, 3)) == (8, 4)
    assert leftovers(folder) == ["MNIST"] and names_of(folder) == set(image_sets._OFFICIAL["MNIST/raw"])
    assert capfd.readouterr() == ("", "") and log.read_text() == "x"


def test_what_a_killed_process_left_is_removed_in_time(folder, monkeypatch, tmp_path):
    sound_mnist(monkeypatch, tmp_path)
    for name, age in ((".download-old", 2 * 86_400), (".download-new", 60)):
        (folder / name).mkdir()
        (folder / name / "half").write_text("x")
        os.utime(folder / name, (time.time() - age,) * 2)
    sl.image_counts("mnist", OTHERS)
    assert leftovers(folder) == [".download-new", "MNIST"]


@pytest.mark.parametrize("below", [False, True])
def test_a_mistyped_folder_is_not_created(folder, monkeypatch, below):
    (folder / "file").write_text("in the way")
    wrong = folder / "file" / "below" if below else folder / "mistyped"
    monkeypatch.setenv("SPURLIB_DATA", str(wrong))
    assert not module.available("cifar10")
    with pytest.raises(sl.DataNotAvailableError, match=f"SPURLIB_DATA names {wrong}, which is not a folder"):
        sl.framed_images("cifar10", n=2)
    assert main(["cifar10"]) == 1
    assert not wrong.exists()
    assert sl.image_counts("mnist") == (13_007, 2_163)


def test_the_default_folder_is_created(monkeypatch, tmp_path):
    sound_mnist(monkeypatch, tmp_path)
    monkeypatch.delenv("SPURLIB_DATA")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert sl.image_counts("mnist", OTHERS) == (8, 4)
    assert (tmp_path / "home" / ".cache" / "spurlib" / "MNIST").is_dir()


@pytest.mark.parametrize("step", ["mkdtemp", "replace"])
def test_a_folder_that_cannot_be_written(folder, monkeypatch, tmp_path, step):
    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    sound_mnist(monkeypatch, tmp_path)
    monkeypatch.setattr(*((image_sets.tempfile, "mkdtemp", refuse) if step == "mkdtemp" else (Path, "replace", refuse)))
    with pytest.raises(sl.DataNotAvailableError, match=r"cannot be written: .*Read-only file system"):
        sl.framed_images("mnist", n=2, classes=OTHERS)


def test_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in (None, ""):
        monkeypatch.delenv("SPURLIB_DATA") if value is None else monkeypatch.setenv("SPURLIB_DATA", value)
        assert module.data_folder() == tmp_path / ".cache" / "spurlib"
    monkeypatch.setenv("SPURLIB_DATA", "~/elsewhere")
    assert module.data_folder() == tmp_path / "elsewhere"
    monkeypatch.setenv("SPURLIB_DATA", "~nobody-of-this-name/data")
    assert not module.available("cifar10")
    with pytest.raises(sl.DataNotAvailableError, match="home directory"):
        sl.framed_images("cifar10", n=2)


# The command line -----------------------------------------------------------------------------------------------------


def test_the_command_line_checks_and_downloads(folder, monkeypatch, tmp_path, capfd):
    assert main(["mnist"]) == 1
    out, err = capfd.readouterr()
    assert out.startswith(f"mnist is not complete in {folder}: MNIST/raw holds none") and "no network" in err
    sound_mnist(monkeypatch, tmp_path)
    assert main(["mnist"]) == 0
    assert capfd.readouterr().out.endswith(f"mnist is now complete in {folder}\n")
    assert main(["mnist", "digits"]) == 0
    out = capfd.readouterr().out
    assert out == f"mnist is complete in {folder}\ndigits is part of spurlib: there is nothing to download\n"
    (folder / "MNIST" / "raw" / "train-labels-idx1-ubyte").write_bytes(b"")
    assert main(["mnist"]) == 0
    assert "train-labels-idx1-ubyte is empty. Downloading." in capfd.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["imagenet"])
    assert ended.value.code == 2 and "name must be one of" in capfd.readouterr().err


def test_one_failure_does_not_keep_the_next_data_set_from_being_checked(folder, monkeypatch, capsys):
    write_mnist(folder, *small_images((28, 28)))
    official(monkeypatch, folder)
    assert main(["cifar10", "mnist"]) == 1
    assert capsys.readouterr().out.endswith(f"mnist is complete in {folder}\n")


def test_a_stopped_command_line_removes_its_folder_and_warns_of_nothing(folder, monkeypatch, tmp_path):
    log = download_by(tmp_path, monkeypatch, "time.sleep(60)")
    command = [sys.executable, "-m", "spurlib.data", "mnist"]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(leftovers(folder)) == 1
    process.terminate()
    assert process.communicate(timeout=30)[1] == "" and process.returncode == 143
    assert leftovers(folder) == []
