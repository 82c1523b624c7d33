"""Kernels of any depth against recursions written anew, wide random networks, and what a kernel must be."""

import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

import spurlib as sl
from spurlib import kernels
from tests import memory
from tests.quadrature import iterated

ROOT = Path(__file__).resolve().parents[1]
WIDE = np.longdouble  # the angle of nearly parallel rows is lost in float64
PI = WIDE("3.14159265358979323846264338327950288")
KINDS = {"rf": ("rf", "hidden"), "hidden": ("ntk", "hidden"), "all": ("ntk", "all"), "last": ("ntk", "last")}
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
VARIANCES = [(1.0, 0.0), (1.7, 0.3)]


# E[f(u) f(v)] and E[f'(u) f'(v)] for scales s, t and correlations r


def relu(s, t, r):
    angle = np.arccos(r)
    return s * t / (2 * PI) * (np.sin(angle) + (PI - angle) * r), (PI - angle) / (2 * PI)


def erf(s, t, r):
    sizes, product = (1 + 2 * s**2) * (1 + 2 * t**2), 2 * s * t * r
    return 2 / PI * np.arcsin(product / np.sqrt(sizes)), 4 / PI / np.sqrt(sizes - product**2)


def sin(s, t, r):
    damped = np.exp(-(s**2 + t**2) / 2)
    return damped * np.sinh(s * t * r), damped * np.cosh(s * t * r)


def cos(s, t, r):
    return sin(s, t, r)[::-1]


def leaky_relu(s, t, r):
    """x / 100 + 0.99 relu(x)."""
    value, slope = relu(s, t, r)
    return 0.99**2 * value + (0.0099 + 0.0001) * s * t * r, 0.99**2 * slope + 0.0099 + 0.0001


def step(s, t, r):
    return 1 / WIDE(4) + np.arcsin(r) / (2 * PI), 0 * r


def by_trapezoid(f, df):
    """For entire functions and tanh: the sum of a grid of step h errs like exp(-pi^2 / (s h)) at the scale s."""
    u, h = np.linspace(-9, 9, 161, retstep=True)
    p = h * np.exp(-(u**2) / 2) / math.sqrt(2 * math.pi)

    def pair(s, t, r):
        v = t * (r * u[:, None] + math.sqrt(max(0.0, 1 - r * r)) * u)
        return p * f(s * u) @ (f(v) @ p), p * df(s * u) @ (df(v) @ p)

    return np.vectorize(pair)


CLOSED = {"relu": relu, "erf": erf, "sin": sin, "cos": cos, "leaky_relu": leaky_relu}
SMOOTH = {
    "tanh": by_trapezoid(np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "gelu": by_trapezoid(lambda x: x * norm.cdf(x), lambda x: norm.cdf(x) + x * norm.pdf(x)),
}


def recursion(expected, X, depth, w, b):
    """All four kernels, each layer the Gaussian expectations of the last."""
    X = X.astype(type(w))
    d = X.shape[1]
    sigma = w * (X @ X.T) / d + b
    theta = sigma
    for _ in range(depth - 1):
        value, slope = layer(expected, sigma)
        sigma = w * value + b
        theta = sigma + w * theta * slope
    value, slope = layer(expected, sigma)
    return {"rf": value, "hidden": d * theta * slope, "all": d * (theta * slope + value), "last": d * sigma * slope}


def layer(expected, sigma):
    s = np.sqrt(np.diag(sigma))
    with np.errstate(invalid="ignore"):
        r = np.nan_to_num(np.clip(sigma / np.outer(s, s), -1, 1))
    return expected(s[:, None], s[None], r)


def rows(seed=0):
    """Of unequal norms; some equal, opposite, parallel, nearly parallel, and one zero."""
    X = np.random.default_rng(seed).standard_normal((9, 6)) * np.linspace(0.4, 1.5, 9)[:, None]
    X[1], X[2], X[3], X[4], X[5] = X[0], -X[0], 1.7 * X[0], 0, X[6] + 1e-5 * X[7]
    return X


def on_sphere(X):
    X = X[np.any(X != 0, axis=1)]
    return X / np.linalg.norm(X, axis=1, keepdims=True) * X.shape[1] ** 0.5


def assert_close(K, expected, tolerance=1e-8):
    size = np.sqrt(np.diag(expected))
    assert (np.abs(K - expected) <= tolerance * np.outer(size, size)).all()


def kernels_of(act, depth, w, b):
    return {
        which: sl.InfiniteWidth(act, kind, depth=depth, layers=layers, weight_variance=w, bias_variance=b)
        for which, (kind, layers) in KINDS.items()
    }


@pytest.mark.parametrize(("w", "b"), VARIANCES)
@pytest.mark.parametrize("depth", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms_layer_by_layer(name, depth, w, b):
    for X in (rows(), on_sphere(rows())):
        expected = recursion(CLOSED[name], X, depth, WIDE(w), WIDE(b))
        for which, kernel in kernels_of(name, depth, w, b).items():
            K = kernel.gram(X)
            assert_close(K, expected[which])
            np.testing.assert_allclose(kernel.gram(X[:4], X[2:]), K[:4, 2:], rtol=0, atol=1e-12 * np.abs(K).max())


@pytest.mark.parametrize("depth", [1, 2, 5, 20])
def test_the_step_layer_by_layer(depth):
    X = rows()[[0, 2, 6, 7, 8]]  # none of them parallel: the correlation of one would be rounded here
    for w, b in VARIANCES:
        expected = recursion(step, X, depth, WIDE(w), WIDE(b))
        for which, kernel in kernels_of("step", depth, w, b).items():
            assert_close(kernel.gram(X), expected[which])


@pytest.mark.parametrize(
    ("depth", "w", "b"), [(2, 1.0, 0.0), (3, 1.7, 0.3), (5, 1.0, 0.0), (5, 1.7, 0.3), (20, 1.7, 0.3)]
)
@pytest.mark.parametrize("name", SMOOTH)
def test_quadrature_layer_by_layer(name, depth, w, b):
    X = rows()[[0, 1, 2, 4, 8]]
    expected = recursion(SMOOTH[name], X, depth, w, b)
    for which, kernel in kernels_of(name, depth, w, b).items():
        assert_close(kernel.gram(X), expected[which])


@pytest.mark.parametrize("act", ["selu", "h1+0.5*h2"])
def test_quadrature_with_kinks_layer_by_layer(act):
    """By panels that end at the kinks."""
    phi, w, b, depth = sl.activation(act), 1.3, 0.2, 3
    pair = np.vectorize(lambda s, t, r: (iterated(phi, s, t, r), iterated(phi.derivative, s, t, r)))
    X = rows()[[0, 8]]
    expected = recursion(pair, X, depth, w, b)
    for which, kernel in kernels_of(act, depth, w, b).items():
        assert_close(kernel.gram(X), expected[which])


def by_layers(monkeypatch):
    monkeypatch.setattr(sl.InfiniteWidth, "_on_angles", lambda self, s, t: None)


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize(
    ("act", "kind"), [("tanh", "rf"), ("gelu", "ntk"), ("elu", "rf"), ("relu", "ntk"), ("erf", "rf")]
)
def test_the_interpolation_in_the_angle_changes_nothing(act, kind, depth, monkeypatch):
    """To what the series leaves out; at depth one the kernel layer by layer is that of `TangentFeatures`."""
    X = on_sphere(np.random.default_rng(1).standard_normal((130, 12)))  # so many that it is less work
    X[1], X[2], X[3] = X[0], -X[0], X[4] * 0.6 + X[5] * 0.8
    X, kernel, used = on_sphere(X), sl.InfiniteWidth(act, kind, depth=depth), []
    chebyshev = kernels._chebyshev
    monkeypatch.setattr(
        kernels, "_chebyshev", lambda *args, **scale: used.append(chebyshev(*args, **scale)) or used[-1]
    )
    K = kernel.gram(X)
    exact = depth == 1 and act in CLOSED
    assert len(used) == (not exact) and None not in used
    few = kernel.gram(X[:100])
    assert len(used) == (not exact)
    by_layers(monkeypatch)
    assert_close(K, kernel.gram(X), 1e-10)
    assert_close(few, K[:100, :100], 1e-10)


def test_the_interpolation_is_made_once_for_each_kernel_and_scale():
    """Also where rounding moves the norms; and settings that are changed later are seen."""
    X = on_sphere(np.random.default_rng(1).standard_normal((400, 12)))
    kernel = sl.InfiniteWidth("tanh", depth=2)
    kernels._chebyshev.cache_clear()
    K = kernel.gram(X[:200])
    for rows in (X[:200], X[200:] * (1 + 2e-16)):
        sl.InfiniteWidth("tanh", depth=2).gram(rows)
    assert kernels._chebyshev.cache_info().misses == 1
    for scaled in (1e-3 * X[:200], 2 * X[:200]):
        assert_close(kernel.gram(scaled)[:50, :50], sl.InfiniteWidth("tanh", depth=2).gram(scaled[:50]), 1e-10)
    assert kernels._chebyshev.cache_info().misses == 3
    kernel.weight_variance = 2.0
    assert np.abs(kernel.gram(X[:200]) - K).max() > 0.1


@pytest.mark.parametrize("kind", ["rf", "ntk"])
@pytest.mark.parametrize("act", ["relu", "abs"])
def test_homogeneous_kernels_of_unequal_norms_are_interpolated_too(act, kind, monkeypatch):
    X = np.random.default_rng(1).standard_normal((130, 12))
    K = sl.InfiniteWidth(act, kind, depth=4).gram(X)
    by_layers(monkeypatch)
    assert_close(K, sl.InfiniteWidth(act, kind, depth=4).gram(X), 1e-10)


@given(st.sampled_from(["relu", "step", "erf", "tanh", "silu", "h1+h2"]), st.sampled_from([*KINDS]), st.integers(2, 6),
       st.integers(1, 7), st.integers(2, 6), st.floats(0.3, 2), st.sampled_from([0.0, 0.4]),
       st.integers(0, 2**32 - 1))  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_kernels_are_symmetric_positive_and_rotation_invariant(act, which, depth, n, d, w, b, seed):
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((n, d)), rng.standard_normal((3, d))
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    kernel = kernels_of(act, depth, w, b)[which]
    K = kernel.gram(X)
    size = np.sqrt(np.diag(K))
    atol = 1e-8 * np.outer(size, size) + 1e-300
    assert (np.abs(K - K.T) <= atol).all()
    assert np.linalg.eigvalsh(K / (np.outer(size, size) + 1e-300))[0] > -n * 1e-8
    assert (np.abs(kernel.gram(X @ rotation) - K) <= 100 * atol).all()
    assert (np.abs(kernel.gram(X, Y) - kernel.gram(Y, X).T) <= atol.max()).all()


@pytest.mark.parametrize("which", KINDS)
@pytest.mark.parametrize("act", ["relu", "leaky_relu", "abs"])
def test_homogeneous_activations_have_homogeneous_kernels(act, which):
    X, scales = rows(), np.linspace(0.01, 30, 9)
    for depth in (2, 7):
        kernel = kernels_of(act, depth, 1.4, 0.0)[which]
        K = kernel.gram(X)
        np.testing.assert_allclose(kernel.gram(scales[:, None] * X), np.outer(scales, scales) * K, rtol=1e-9)


@pytest.mark.parametrize("w", [0.7, 1.0, 1.1, 1.3, 2.3])
@pytest.mark.parametrize("depth", [2, 3, 5, 20])
@pytest.mark.parametrize("act", ["relu", "leaky_relu", "abs", "step"])
def test_parallel_rows_stay_parallel(act, depth, w):
    """Of any norms without a bias, and opposite ones under abs: the limit of a correlation of one is not rounded."""
    X = rows()[:4]
    kept = [0, 1, 2, 3] if act == "abs" else [0, 1, 3]
    for kernel in kernels_of(act, depth, w, 0.0).values():
        K = kernel.gram(X)[np.ix_(kept, kept)]
        size = np.sqrt(np.diag(K))
        np.testing.assert_allclose(K, np.outer(size, size), rtol=1e-12)


@pytest.mark.parametrize("b", [0.0, 0.3])
@pytest.mark.parametrize("act", ["relu", "step", "tanh", "erf", "cos", "silu"])
def test_equal_rows_have_equal_kernels(act, b):
    X = rows()[[0, 1, 4, 4, 8]]
    for kernel in kernels_of(act, 2, 1.2, b).values():
        K = kernel.gram(X)
        size = np.sqrt(np.diag(K))
        for i in (0, 2):
            assert (np.abs(K[i] - K[i + 1]) <= 1e-12 * size[i] * size).all()
            assert abs(K[i, i + 1] - K[i, i]) <= 1e-12 * K[i, i]


@pytest.mark.parametrize(("act", "sign"), [("erf", -1), ("tanh", -1), ("sin", -1), ("cos", 1), ("abs", 1)])
def test_odd_and_even_activations(act, sign):
    X = rows()[[3, 4, 7, 8]]
    for kernel in kernels_of(act, 3, 1.2, 0.0).values():
        K = kernel.gram(X)
        np.testing.assert_allclose(kernel.gram(-X, X), sign * K, rtol=0, atol=1e-9 * np.abs(K).max())


def test_nearly_parallel_rows_of_a_deep_tangent_kernel():
    """Angles of 1e-3 to 1e-6 with the kernel at a kink steep in the angle; 1e-7 and less round to other angles."""
    angle, depth = 10.0 ** -np.arange(3, 7), 20
    A, B = np.array([[1.0, 0.0]]), np.stack([np.cos(angle), np.sin(angle)], axis=1)
    expected = recursion(relu, np.vstack([A, 1.3 * B]), depth, WIDE(2), WIDE(0))
    for which, kernel in kernels_of("relu", depth, 2.0, 0.0).items():
        assert_close(kernel.gram(np.vstack([A, 1.3 * B])), expected[which])


def test_a_row_of_zeros():
    for act in ("relu", "tanh", "sin", "gelu", "step"):  # f(0) = 0, in each layer
        assert not any(kernel.gram(rows()[4:5], rows()).any() for kernel in kernels_of(act, 4, 1.5, 0.0).values())
    assert sl.InfiniteWidth("softplus", depth=2).gram(np.zeros((1, 3)))[0, 0] == pytest.approx(
        iterated(sl.activation("softplus"), math.log(2), math.log(2), 1), rel=1e-10
    )


def test_the_layers_add_up():
    X = rows()
    one, three = (kernels_of("erf", depth, 1.3, 0.2) for depth in (1, 3))
    for found in (one, three):
        K = {which: kernel.gram(X) for which, kernel in found.items()}
        np.testing.assert_allclose(K["all"], K["hidden"] + 6 * K["rf"], rtol=1e-12)
    np.testing.assert_array_equal(one["last"].gram(X), one["hidden"].gram(X))
    assert (np.diag(three["last"].gram(X)) < np.diag(three["hidden"].gram(X))).all()


def network(act, X, k, w, b, rng):
    """Features and gradients of a network with two hidden layers of width k, all kernels divided by k, times d."""
    phi, d = sl.activation(act), X.shape[1]
    W1, W2, v = rng.standard_normal((k, d)), rng.standard_normal((k, k)), rng.standard_normal(k)
    c1, c2 = rng.standard_normal((2, k))
    h1 = math.sqrt(w / d) * X @ W1.T + math.sqrt(b) * c1
    f1 = phi(h1)
    h2 = math.sqrt(w / k) * f1 @ W2.T + math.sqrt(b) * c2
    f2 = phi(h2)
    back2 = v * phi.derivative(h2) / math.sqrt(k)
    back1 = math.sqrt(w / k) * (back2 @ W2) * phi.derivative(h1)
    last = (back2 @ back2.T) * (w * f1 @ f1.T / k + b)
    first = (back1 @ back1.T) * (w * X @ X.T / d + b)
    rf = f2 @ f2.T / k
    return {"rf": rf, "hidden": d * (first + last), "all": d * (first + last + rf), "last": d * last}


@pytest.mark.parametrize(("act", "w", "b"), [("relu", 2.0, 0.0), ("tanh", 1.5, 0.3)])
def test_wide_random_networks_scatter_about_the_limit(act, w, b):
    """Four standard errors of ten entries, and 4 / k for the size."""
    k, draws, X = 600, 24, rows()[[0, 5, 7, 8]]
    found = [network(act, X, k, w, b, np.random.default_rng(seed)) for seed in range(draws)]
    limits = {
        (which, depth): kernel.gram(X) for depth in (1, 2, 3) for which, kernel in kernels_of(act, depth, w, b).items()
    }
    for which in KINDS:
        values, K = np.array([one[which] for one in found]), limits[which, 2]
        size = np.sqrt(np.outer(np.diag(K), np.diag(K)))
        allowed = 4 * values.std(axis=0, ddof=1) / math.sqrt(draws) + 4 / k * size
        gap = np.abs(values.mean(axis=0) - K)
        assert (gap <= allowed).all(), which
        for other in limits.keys() - {(which, 2)}:  # so the simulation can tell them apart
            assert (np.abs(values.mean(axis=0) - limits[other]) > allowed).any(), other


def test_kinds_in_and_out():
    A, B = rows()[4:], rows(seed=1)[3:]
    for act in ("relu", "tanh"):
        kernel = sl.InfiniteWidth(act, "ntk", depth=3, bias_variance=0.1)
        K, T = kernel.gram(A, B), torch.from_numpy(A)
        assert isinstance(K, np.ndarray) and K.dtype == np.float64 and K.shape == (5, 6)
        assert isinstance(kernel.gram(T), torch.Tensor) and isinstance(kernel.gram(A, T), np.ndarray)
        np.testing.assert_array_equal(kernel.gram(T, torch.from_numpy(B)).numpy(), K)


@CUDA
@pytest.mark.parametrize("act", ["relu", "tanh"])
def test_cuda_equals_the_cpu(act):
    X = np.vstack([rows(), rows(seed=1)[5:]])
    for kernel in kernels_of(act, 3, 1.2, 0.1).values():
        K = kernel.gram(torch.from_numpy(X).cuda(), X[:5])
        assert K.is_cuda
        np.testing.assert_allclose(K.cpu().numpy(), kernel.gram(X, X[:5]), rtol=0, atol=1e-9 * float(K.abs().max()))


def test_tiles_make_no_difference(monkeypatch):
    X = np.vstack([rows()[:5], rows(seed=1)[6:]])
    grams = []
    for tile in (256, 3):
        monkeypatch.setattr(kernels, "_TILE", tile)
        grams.append([kernel.gram(X) for act in ("relu", "tanh") for kernel in kernels_of(act, 2, 1.0, 0.1).values()])
    for one, other in zip(*grams, strict=True):
        assert_close(one, other, 1e-9)


MEMORY = """
import torch
import spurlib as sl
from tests.memory import watched
A = torch.randn(3000, 20, dtype=torch.float64)
for b in (0.0, 0.1):  # interpolated in the angle, and layer by layer
    kernel = sl.InfiniteWidth("relu", "ntk", depth=3, layers="all", bias_variance=b)
    kernel.gram(A[:600])
    with watched() as more:
        K = kernel.gram(A)
    print(more[0] / (8 * K.numel()))
    del K
"""


@pytest.mark.skipif(not memory.KNOWN, reason="the system does not tell anonymous memory")
def test_no_second_matrix_is_made():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, cwd=ROOT, timeout=300)
    angles, layers = map(float, done.stdout.split())
    assert 0.95 < angles < 1.2 and 0.95 < layers < 1.2, done.stderr


BAD = {
    "depth must be a positive integer, got 0": {"depth": 0},
    "depth must be a positive integer, got 1.5": {"depth": 1.5},
    "layers must be one of 'hidden', 'all', 'last'; got 'first'": {"layers": "first", "kind": "ntk"},
    "layers chooses what is differentiated: it goes with kind='ntk' only": {"layers": "all"},
    "weight_variance must be a finite number above 0, got 0": {"weight_variance": 0},
    "weight_variance must be a finite number above 0, got inf": {"weight_variance": float("inf")},
    "bias_variance must be a finite number of at least 0, got -0.1": {"bias_variance": -0.1},
    "bias_variance must be a finite number of at least 0, got nan": {"bias_variance": float("nan")},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_kernels_are_refused_by_name(message):
    with pytest.raises(ValueError, match=f"^{message}"):
        sl.InfiniteWidth("relu", **BAD[message])


def test_what_is_beyond_float64_is_refused():
    with pytest.raises(ValueError, match="rows so long that the kernel of 'relu' is beyond float64"):
        sl.InfiniteWidth("relu", depth=5, weight_variance=1e80).gram(np.ones((2, 3)))


def test_repr_names_what_is_not_default():
    assert repr(sl.InfiniteWidth("relu", depth=1, layers="hidden")) == "InfiniteWidth('relu', kind='rf')"
    whole = sl.InfiniteWidth("erf", "ntk", depth=4, layers="all", weight_variance=2, bias_variance=0.5)
    told = "InfiniteWidth('erf', kind='ntk', depth=4, layers='all', weight_variance=2.0, bias_variance=0.5)"
    assert repr(whole) == told


def test_kernels_pickle():
    X = rows()
    for act in ("relu", "tanh", "h1+h2"):
        kernel = sl.InfiniteWidth(act, "ntk", depth=3, layers="last", weight_variance=1.3, bias_variance=0.2)
        again = pickle.loads(pickle.dumps(kernel))
        assert repr(again) == repr(kernel)
        np.testing.assert_array_equal(again.gram(X), kernel.gram(X))


def test_a_deep_kernel_serves_an_interpolator():
    rng = np.random.default_rng(2)
    Z, g = rng.standard_normal((30, 20)), rng.choice([-1.0, 1.0], 30)
    kernel = sl.InfiniteWidth("relu", "ntk", depth=3, layers="all", weight_variance=2)
    model = sl.Interpolator(kernel, Z, g)
    np.testing.assert_allclose(model.predict(Z), g, atol=1e-8)
