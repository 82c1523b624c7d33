"""Data sets: what is nested, what is shared, what is independent; loaders on small copies written here."""

import gzip
import math
import os
import pickle
import runpy
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

import spurlib as sl
from spurlib import data as module


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty data folder, nothing remembered from other tests, and no download."""
    monkeypatch.setenv("SPURLIB_DATA", str(tmp_path))
    module._load.cache_clear()

    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr(torchvision.datasets.utils, "urlopen", refuse, raising=False)
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", refuse)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", refuse)
    yield tmp_path
    module._load.cache_clear()


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
    ("query", "other"),
    ("seed", -1),
    ("seed", 1.0),
    ("seed", None),
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
    with pytest.raises(ValueError, match="z must be one sample"):
        data.image(data.Z)


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
    ("frame", 0),
    ("frame", 1.5),
    ("query", "none"),
    ("seed", -2),
]


@pytest.mark.parametrize("argument, value", IMAGES)
def test_bad_arguments_of_framed_images_are_named(argument, value):
    with pytest.raises(ValueError, match=rf"^{argument}\b"):
        sl.framed_images("digits", **{"n": 3, "n_test": 2, argument: value})


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


@pytest.mark.parametrize("call", [lambda x: sl.framed_images(x, n=2), sl.first_available, sl.image_counts])
def test_unknown_data_sets_list_the_known(call):
    with pytest.raises(ValueError, match="'imagenet' is not known; known are cifar10, digits, mnist"):
        call("imagenet")
    with pytest.raises(ValueError, match="known are"):
        module.available("imagenet")


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


def test_a_color_cast_is_another_one_for_each_channel(folder):
    write_mnist(folder, *small_images((28, 28)))
    sets = small_images((32, 32, 3), flat=True)
    write_cifar_jpegs(folder, *sets)
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


@pytest.mark.parametrize("argument, value", [case for case in IMAGES if case[0] != "frame"] + [("pattern", "scratch")])
def test_bad_arguments_of_marked_images_are_named(argument, value):
    with pytest.raises(ValueError, match=rf"^{argument}\b"):
        sl.marked_images("digits", **{"n": 3, "n_test": 2, "pattern": "cast", argument: value})


# Copies on disk -------------------------------------------------------------------------------------------------------


def write_mnist(folder, images, labels, images_test, labels_test):
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, x, y in (("train", images, labels), ("t10k", images_test, labels_test)):
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, *x.shape) + x.tobytes())
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, len(y)) + y.tobytes())


def write_cifar_batches(folder, images, labels, images_test, labels_test):
    batches = folder / "cifar-10-batches-py"
    batches.mkdir()
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


def test_mnist_from_disk(folder):
    assert not module.available("mnist")
    sets = small_images((28, 28))
    write_mnist(folder, *sets)
    assert module.available("mnist")
    assert sl.image_counts("mnist") == (8, 4)
    data = sl.framed_images("mnist", n=8, n_test=4)
    assert data.image_shape == (48, 48, 1) and data.alpha == pytest.approx(1 - 784 / 2304)
    assert data.source.startswith("MNIST, classes 1 and 7")
    assert sorted(data.g) == [-1.0] * 4 + [1.0] * 4
    assert_holds(data, 10, np.concatenate(sets[::2]).astype(float), np.concatenate(sets[1::2]), (1, 7))
    reverse = sl.framed_images("mnist", n=8, n_test=4, classes=[7, 1])
    np.testing.assert_array_equal(reverse.g, -data.g)


@pytest.mark.parametrize("writer, copy", [(write_cifar_batches, "official"), (write_cifar_jpegs, "JPEG")])
def test_cifar_from_disk(folder, monkeypatch, writer, copy):
    assert not module.available("cifar10")
    sets = small_images((32, 32, 3), flat=copy == "JPEG")
    writer(folder, *sets)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda path, md5=None: os.path.isfile(path))
    assert module.available("cifar10")
    assert sl.first_available("cifar10", "digits") == "cifar10"
    assert sl.image_counts("cifar10") == (8, 4)
    data = sl.framed_images("cifar10", n=8, n_test=4)
    assert data.image_shape == (48, 48, 3) and data.alpha == pytest.approx(1 - 3072 / 6912)
    assert data.image(data.Z[0]).shape == (48, 48, 3)
    assert copy in data.source
    images, labels = np.concatenate(sets[::2]).astype(float), np.concatenate(sets[1::2])
    assert_holds(data, 8, images, labels, (3, 8), tolerance=3 if copy == "JPEG" else 1e-9)


def test_official_batches_come_before_the_jpeg_copy(folder, monkeypatch):
    sets = small_images((32, 32, 3), flat=True)
    write_cifar_jpegs(folder, *sets)
    write_cifar_batches(folder, *sets)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda path, md5=None: True)
    assert "official" in sl.framed_images("cifar10", n=2, n_test=2).source


# Downloads ------------------------------------------------------------------------------------------------------------


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_refused_download_fails_at_once_and_says_where_it_looked(folder):
    for name in ("mnist", "cifar10"):
        start = time.monotonic()
        with pytest.raises(sl.DataNotAvailableError, match="SPURLIB_DATA") as caught:
            sl.framed_images(name, n=2)
        assert time.monotonic() - start < 5
        assert str(folder) in str(caught.value) and "no network" in str(caught.value)
    assert leftovers(folder) == []
    assert issubclass(sl.DataNotAvailableError, FileNotFoundError)


def test_a_substitute_is_announced(capsys):
    assert sl.first_available("mnist", "cifar10", "digits") == "digits"
    out = capsys.readouterr().out
    assert "mnist, cifar10" in out and "digits instead" in out and out.count("\n") == 1
    assert sl.first_available("digits", "mnist") == "digits"
    assert capsys.readouterr().out == ""


def test_when_nothing_can_be_had():
    with pytest.raises(sl.DataNotAvailableError, match="none of mnist, cifar10"):
        sl.first_available("mnist", "cifar10")
    with pytest.raises(ValueError, match="names"):
        sl.first_available()


def test_a_typo_is_found_before_any_download(monkeypatch):
    monkeypatch.setattr(module, "_download", lambda *a: pytest.fail("a download began"))
    with pytest.raises(ValueError, match="not known"):
        sl.first_available("mnist", "digit")


HANGING = """
import sys, time
import torchvision.datasets
import spurlib as sl
from spurlib import data

def hang(self):
    print("began", file=sys.__stdout__, flush=True)
    open(self.root + "/half", "w").write("x")
    time.sleep(60)

torchvision.datasets.MNIST.download = hang
data._PATIENCE = 0.5
start = time.monotonic()
try:
    sl.framed_images("mnist", n=2)
except sl.DataNotAvailableError as error:
    print("gave up", time.monotonic() - start, "longer than 0.5 s" in str(error))
"""


def test_a_hanging_download_is_given_up_and_leaves_nothing(folder):
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=50, check=True)
    words = done.stdout.split()
    assert words[0] == "began" and words[1:3] == ["gave", "up"] and words[4] == "True"
    assert float(words[3]) < 10
    assert time.monotonic() - start < 45  # it did not wait for the sixty seconds
    assert leftovers(folder) == []


def test_a_slow_download_is_given_up_but_may_still_arrive(folder, monkeypatch, capsys):
    sets, done = small_images((28, 28)), threading.Event()

    def slow(self):
        done.wait(20)
        write_mnist(Path(self.root), *sets)

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", slow)
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    with pytest.raises(sl.DataNotAvailableError, match=r"longer than 0\.1 s"):
        sl.framed_images("mnist", n=2)
    assert not module.available("mnist")
    print("still printed")
    assert capsys.readouterr().out == "still printed\n"
    done.set()
    deadline = time.monotonic() + 20
    while leftovers(folder) != ["MNIST"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert leftovers(folder) == ["MNIST"]
    assert sl.image_counts("mnist") == (8, 4)


def test_a_download_that_fails_half_way_leaves_nothing(folder, monkeypatch):
    def half(self):
        os.makedirs(self.raw_folder)
        with open(os.path.join(self.raw_folder, "train-images-idx3-ubyte"), "w") as file:
            file.write("x")
        raise RuntimeError("connection lost\nsecond line")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", half)
    with pytest.raises(sl.DataNotAvailableError, match=r"connection lost$"):
        sl.framed_images("mnist", n=2)
    assert leftovers(folder) == []


def test_an_incomplete_download_is_not_taken_for_the_data(folder, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "MNIST", lambda root, download: os.makedirs(f"{root}/MNIST/raw"))
    with pytest.raises(sl.DataNotAvailableError, match="incomplete"):
        sl.framed_images("mnist", n=2)


def fake_download(monkeypatch):
    sets = small_images((28, 28))

    def download(self):
        write_mnist(Path(self.root), *sets)
        for path in Path(self.raw_folder).iterdir():
            (path.parent / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)


def test_a_download_is_moved_into_place_and_used_once(folder, monkeypatch, capsys):
    fake_download(monkeypatch)
    assert sl.first_available("mnist", "digits") == "mnist"
    assert leftovers(folder) == ["MNIST"]
    assert module.available("mnist")
    assert len(sl.framed_images("mnist", n=8, n_test=4).g) == 8
    assert capsys.readouterr().out == ""


def test_a_folder_that_cannot_be_written(folder, monkeypatch):
    (folder / "file").write_text("in the way")
    monkeypatch.setenv("SPURLIB_DATA", str(folder / "file" / "below"))
    with pytest.raises(sl.DataNotAvailableError, match="cannot be written"):
        sl.framed_images("mnist", n=2)


def test_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in (None, ""):
        monkeypatch.delenv("SPURLIB_DATA") if value is None else monkeypatch.setenv("SPURLIB_DATA", value)
        assert module.data_folder() == tmp_path / ".cache" / "spurlib"
    monkeypatch.setenv("SPURLIB_DATA", "~/elsewhere")
    assert module.data_folder() == tmp_path / "elsewhere"


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_command_line_downloads_with_patience(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["data", "mnist"])
    with pytest.raises(SystemExit, match="mnist: OSError: no network"):
        runpy.run_module("spurlib.data", run_name="__main__")
    fake_download(monkeypatch)
    runpy.run_module("spurlib.data", run_name="__main__")
    assert leftovers(folder) == ["MNIST"]
    runpy.run_module("spurlib.data", run_name="__main__")
    assert f"mnist is in {folder}" in capsys.readouterr().out
