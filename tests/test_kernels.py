"""Infinite-width kernels against iterated quadrature, closed forms, simulation, and what a kernel must be."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spurlib as sl
from spurlib import _duals, kernels
from tests.quadrature import iterated

RHO = np.array([-1, -0.999, -0.5, 0, 0.3, 0.99, 0.99999, 1])
SCALES = [(0.3, 3.0), (1.0, 1.0), (3.0, 1.7)]
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")

SQUASHED = sl.Activation(
    lambda x: x * (abs(x) < 1.3) + (1.3 + (x - 1.3) / 4) * (x >= 1.3),  # a jump at -1.3, a kink at 1.3
    lambda x: 1.0 * (abs(x) < 1.3) + 0.25 * (x >= 1.3),
    kinks=(-1.3, 1.3),
    name="squashed",
)
POWER = sl.Activation(  # its derivative is like the root of |x|
    lambda x: abs(x) ** 1.5 + x / 2,
    lambda x: 1.5 * abs(x) ** 0.5 * (1.0 * (x > 0) - 1.0 * (x < 0)) + 0.5,
    kinks=(0,),
    name="power",
)
ACTIVATIONS = [*sl.activation_names(), "h0", "h1+h4", "h1+0.5*h2-2*h3", SQUASHED, POWER]


def plane(s, t):
    """Rows in the plane with the scales s and t and the angles of RHO."""
    angle = np.arccos(RHO)
    A, B = np.array([[1.0, 0.0]]), np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return math.sqrt(2) * s * A, math.sqrt(2) * t * B


@pytest.mark.parametrize("act", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("kind", ["rf", "ntk"])
def test_kernels_are_the_gaussian_integrals(act, kind):
    f = sl.activation(act) if kind == "rf" else sl.activation(act).derivative
    for s, t in SCALES:
        A, B = plane(s, t)
        expected = np.array([iterated(f, s, t, rho) for rho in RHO])
        unit = math.sqrt(max(1, iterated(f, s, s, 1) * iterated(f, t, t, 1)))
        if kind == "ntk":
            expected, unit = 2 * s * t * RHO * expected, 2 * s * t * unit
        np.testing.assert_allclose(sl.InfiniteWidth(act, kind).gram(A, B)[0], expected, rtol=0, atol=1e-8 * unit)


def clusters(n, d, spread, seed=0):
    """Rows of many correlations: distant, near, nearly parallel, opposite, equal and zero; scales about 1."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((4, d))[rng.integers(4, size=n)]
    X += rng.choice([0.02, 0.3, 1.0, 3.0], size=(n, 1)) * rng.standard_normal((n, d))
    X *= math.sqrt(d) / np.linalg.norm(X, axis=1, keepdims=True) * np.exp(rng.uniform(-spread, spread, size=(n, 1)))
    X[1], X[2], X[3], X[4] = X[0], -X[0], 2 * X[0], 0
    return X


@pytest.mark.parametrize("spread", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("name, kind", _duals.CLOSED)
def test_the_general_path_agrees_with_closed_forms(name, kind, spread):
    known = sl.activation(name)
    general = sl.InfiniteWidth(sl.Activation(known.f, known.df, kinks=known.kinks, name=name), kind)
    assert _duals.closed_form(general.activation, slope=kind == "ntk") is None
    X = clusters(40, 40, spread)
    np.testing.assert_allclose(
        general.gram(X), sl.InfiniteWidth(name, kind).gram(X), rtol=0, atol=2e-10 * (1 if kind == "rf" else 40)
    )


def test_many_scales_and_correlations_agree_with_single_pairs(monkeypatch):
    monkeypatch.setattr(kernels, "_TILE", 10)
    X, kernel = clusters(24, 30, 0.3, seed=1), sl.InfiniteWidth(SQUASHED)
    K = kernel.gram(X)
    pairs = np.random.default_rng(0).integers(24, size=(8, 2)).tolist()
    for i, j in [*pairs, (0, 1), (0, 2), (0, 3), (0, 4), (4, 4)]:
        np.testing.assert_allclose(kernel.gram(X[[i]], X[[j]])[0, 0], K[i, j], rtol=0, atol=1e-9)


@pytest.mark.parametrize("act", ["step", "abs", "cos", "erf", "gelu", "h0+h2", SQUASHED], ids=str)
def test_a_row_of_zeros_has_the_feature_f_of_0(act):
    f, B = sl.activation(act), clusters(9, 3, 0.4)
    K = sl.InfiniteWidth(act).gram(np.zeros((1, 3)), B)[0]
    at_zero = float(f(np.zeros(1))[0])
    mean = [sl.gaussian_expectation(sl.Activation(lambda u, s=s: f(s * u), kinks=np.divide(f.kinks, s or 1)))
            for s in np.linalg.norm(B, axis=1) / math.sqrt(3)]  # fmt: skip
    np.testing.assert_allclose(K, at_zero * np.array(mean), atol=1e-10)


@pytest.mark.parametrize("act", ["relu", "tanh", "abs", "sin", "h1+h2", SQUASHED], ids=str)
@pytest.mark.parametrize("kind", ["rf", "ntk"])
def test_simulated_kernels_scatter_about_the_limit(act, kind):
    d, k, seeds = 15, 2000, 24
    A, B = clusters(7, d, 0.4, seed=5), clusters(5, d, 0.4, seed=6)
    make = sl.RandomFeatures if kind == "rf" else sl.TangentFeatures
    draws = np.array([make(act, d=d, k=k, seed=seed).gram(A, B) / k for seed in range(seeds)])
    error = draws.std(axis=0, ddof=1) / math.sqrt(seeds)
    gap = np.abs(draws.mean(axis=0) - sl.InfiniteWidth(act, kind).gram(A, B))
    assert (gap <= 5 * error + 1e-9).all()  # 35 correlated entries of a t distribution with 23 degrees of freedom
    assert error.max() < 0.1 * np.abs(draws).max()


def test_relu_is_the_arc_cosine_kernel_and_erf_the_arc_sine():
    X, Y = clusters(20, 6, 0.5), clusters(12, 6, 0.5, seed=1)
    G, s, t = X @ Y.T / 6, np.linalg.norm(X, axis=1) / 6**0.5, np.linalg.norm(Y, axis=1) / 6**0.5
    angle = np.arccos(np.clip(G / np.maximum(np.outer(s, t), 1e-300), -1, 1))
    relu = np.outer(s, t) / (2 * math.pi) * (np.sin(angle) + (math.pi - angle) * np.cos(angle))
    np.testing.assert_allclose(sl.InfiniteWidth("relu").gram(X, Y), relu * np.outer(s > 0, t > 0), atol=1e-12)
    arcsine = 2 / math.pi * np.arcsin(2 * G / np.sqrt(np.outer(1 + 2 * s**2, 1 + 2 * t**2)))
    np.testing.assert_allclose(sl.InfiniteWidth("erf").gram(X, Y), arcsine, atol=1e-12)


@pytest.mark.parametrize("act", ["tanh", "softplus", "h1+h4"])
def test_on_the_sphere_it_is_the_dual_kernel(act):
    X = clusters(40, 30, 0.0)[5:]
    limit = sl.dual_kernel(sl.activation(act).coefficients(300), X @ X.T / 30)
    np.testing.assert_allclose(sl.InfiniteWidth(act).gram(X), limit, atol=1e-10)


@given(st.sampled_from(["relu", "step", "erf", "cos", "tanh", "silu", "h1+h2"]), st.sampled_from(["rf", "ntk"]),
       st.integers(1, 8), st.integers(1, 6), st.floats(0.2, 3), st.integers(0, 2**32 - 1))  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_kernels_are_symmetric_positive_and_rotation_invariant(act, kind, n, d, scale, seed):
    rng = np.random.default_rng(seed)
    X, Y = scale * rng.standard_normal((n, d)), rng.standard_normal((3, d))
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    kernel = sl.InfiniteWidth(act, kind)
    K = kernel.gram(X)
    atol = 1e-8 * max(1, np.abs(K).max())
    np.testing.assert_allclose(K, K.T, rtol=0, atol=atol)
    assert np.linalg.eigvalsh(K)[0] > -n * atol
    np.testing.assert_allclose(kernel.gram(X @ rotation), K, rtol=0, atol=10 * atol)
    np.testing.assert_allclose(kernel.gram(X, Y), kernel.gram(Y, X).T, rtol=0, atol=atol)


@pytest.mark.parametrize("act", ["relu", "tanh"])
@pytest.mark.parametrize("kind", ["rf", "ntk"])
def test_what_comes_in_goes_out(act, kind, monkeypatch):
    kernel, A, B = sl.InfiniteWidth(act, kind), clusters(20, 8, 0.3), clusters(9, 8, 0.3, seed=1)
    K, T = kernel.gram(A, B), torch.from_numpy(A)
    assert isinstance(K, np.ndarray) and K.dtype == np.float64 and K.shape == (20, 9)
    assert isinstance(kernel.gram(T), torch.Tensor) and isinstance(kernel.gram(A, T), np.ndarray)
    np.testing.assert_array_equal(kernel.gram(T, torch.from_numpy(B)).numpy(), K)
    np.testing.assert_array_equal(kernel.gram(A.tolist(), np.asfortranarray(B)), K)
    single = kernel.gram(T.float(), B)
    assert single.dtype == torch.float64
    np.testing.assert_allclose(single.numpy(), K, atol=1e-4 * np.abs(K).max())
    symmetric = kernel.gram(A)
    np.testing.assert_array_equal(kernel.gram(A, A), symmetric)
    np.testing.assert_allclose(kernel.gram(A, A.copy()), symmetric, rtol=0, atol=1e-10)
    monkeypatch.setattr(kernels, "_TILE", 7)
    np.testing.assert_allclose(kernel.gram(A), symmetric, rtol=0, atol=1e-10)
    np.testing.assert_allclose(kernel.gram(A, B), K, rtol=0, atol=1e-10)


def test_extreme_scales_of_closed_forms():
    X = np.array([[1e-200, 0.0], [1e-9, 0.0], [1e3, 1e3], [1e3, 1e3 + 1e-3], [1e6, -1e6], [1e70, 0.0]])
    for name, kind in _duals.CLOSED:
        assert np.isfinite(sl.InfiniteWidth(name, kind).gram(X)).all()
    np.testing.assert_allclose(sl.InfiniteWidth("sin").gram(X)[2, 2], 0.5)
    np.testing.assert_allclose(sl.InfiniteWidth("step").gram(1e-100 * X[2:4]), 0.5, atol=1e-6)


def test_long_rows_of_any_activation_become_those_of_its_sign():
    X = np.random.default_rng(0).standard_normal((20, 60))
    kernel, sign = sl.InfiniteWidth("tanh"), sl.InfiniteWidth(sl.Activation(np.sign, kinks=(0,)))
    assert np.abs(kernel.gram(20 * X) - sign.gram(X)).max() < 0.06
    assert np.abs(kernel.gram(100 * X) - sign.gram(X)).max() < 0.012


def test_it_serves_as_kernel_of_an_interpolator():
    rng = np.random.default_rng(2)
    Z, Q, g = rng.standard_normal((30, 20)), rng.standard_normal((4, 20)), rng.choice([-1.0, 1.0], 30)
    kernel = sl.InfiniteWidth("tanh")
    model = sl.Interpolator(kernel, Z, g)
    np.testing.assert_allclose(model.predict(Z), g, atol=1e-8)
    np.testing.assert_allclose(model.predict(Q), kernel.gram(Q, Z) @ np.linalg.solve(kernel.gram(Z), g), atol=1e-8)
    with pytest.raises(sl.SingularKernelError):
        sl.Interpolator(sl.InfiniteWidth("linear"), Z, g)


BAD = {
    "A must have 2 axes": np.ones(3),
    "A is empty": np.ones((0, 3)),
    "A holds NaN": np.full((2, 3), np.nan),
    "A must be an array": [["a", "b", "c"]],
    "A has rows whose norm is beyond float64": np.full((2, 3), 1e300),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_samples(message):
    kernel = sl.InfiniteWidth("relu")
    with pytest.raises(ValueError, match=message):
        kernel.gram(BAD[message])
    with pytest.raises(ValueError, match="B" + message[1:]):
        kernel.gram(np.ones((2, 3)), BAD[message])
    with pytest.raises(ValueError, match="B must have 3 columns"):
        kernel.gram(np.ones((2, 3)), np.ones((2, 4)))


def test_bad_kernels():
    with pytest.raises(ValueError, match="kind must be one of 'rf', 'ntk'; got 'gp'"):
        sl.InfiniteWidth("relu", "gp")
    with pytest.raises(ValueError, match="not known; known are"):
        sl.InfiniteWidth("nonesuch")
    with pytest.raises(ValueError, match="without its derivative"):
        sl.InfiniteWidth(np.tanh, "ntk")


def test_integrals_that_do_not_settle_are_refused():
    undeclared = sl.Activation(lambda x: 1.0 * (x > 0.7), name="jump")
    with pytest.raises(ValueError, match=r"act: 'jump' at scale \|a\| / sqrt\(d\) = 1: f: its Gaussian integrals"):
        sl.InfiniteWidth(undeclared).gram(np.ones((2, 3)))
    long_rows = 100 * np.array([[1.0, 1.0], [1.0, 1.01]])
    with pytest.raises(ValueError, match=r"act: 'tanh' at scales .* up to 1.*nearly parallel rows does not settle"):
        sl.InfiniteWidth("tanh").gram(long_rows)


def test_repr():
    assert repr(sl.InfiniteWidth("relu", kind="ntk")) == "InfiniteWidth('relu', kind='ntk')"


@CUDA
@pytest.mark.parametrize("act", ["relu", "tanh", SQUASHED], ids=str)
def test_cuda_equals_the_cpu(act):
    X, kernel = clusters(50, 30, 0.5), sl.InfiniteWidth(act)
    K = kernel.gram(torch.from_numpy(X).cuda(), X[:9])
    assert K.is_cuda
    np.testing.assert_allclose(K.cpu().numpy(), kernel.gram(X, X[:9]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("longest", [1.0, 5.0, 12.0])
@pytest.mark.parametrize("n", [9, 40])
def test_the_exponential_of_long_rows(longest, n):
    """E[exp(s u) exp(t v)] = exp((s^2 + t^2) / 2 + rho s t), against the root of the diagonal."""
    d, rng = 12, np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    X *= (np.r_[rng.uniform(0.1, 1, n - 2), 1, 1] * longest / np.linalg.norm(X, axis=1))[:, None] * d**0.5
    X[1], X[2], X[3], X[4] = X[0], X[5] * 0.9, -X[6], X[7] + 1e-4 * X[8]
    G = X @ X.T / d
    size = np.diag(G)
    allowed = 1e-8 * np.exp(size[:, None] + size)
    gap = np.abs(sl.InfiniteWidth(np.exp).gram(X) - np.exp((size[:, None] + size) / 2 + G))
    assert (gap <= allowed).all()


def test_growth_beyond_float64_is_refused():
    with pytest.raises(ValueError, match=r"act: 'exp' at scale .* = 30: f is not finite .*grows too fast"):
        sl.InfiniteWidth(np.exp).gram(30 * np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"norm is beyond float64"):
        sl.InfiniteWidth("relu").gram(np.full((1, 2), 1e200))
    with pytest.raises(ValueError, match=r"the kernel of 'h1\+h4' is beyond float64"):
        sl.InfiniteWidth("h1+h4").gram(np.full((1, 2), 1e60))
    quick = sl.Activation(lambda x: np.exp(0.3 * x**2), name="quick")
    with pytest.raises(ValueError, match=r"act: 'quick' at scale .* = 1: f .*grows too fast"):
        sl.InfiniteWidth(quick).gram(np.ones((1, 3)))


@pytest.mark.parametrize("kind", ["rf", "ntk"])
@pytest.mark.parametrize("spec", ["h0", "linear", "h1+h2", "2*h0-0.5*h3+h7", "h12+h3", "h1+h40"])
def test_sums_of_hermite_polynomials_have_polynomials_for_kernels(spec, kind):
    """On the sphere they are the dual kernel, also where rows are parallel; elsewhere the general path agrees."""
    act, X = sl.activation(spec), np.random.default_rng(1).standard_normal((12, 6))
    X /= np.linalg.norm(X, axis=1)[:, None] / 6**0.5
    X[1], X[2], X[3] = X[0], -X[4], X[5] + 1e-3 * X[6]
    X[3] /= np.linalg.norm(X[3]) / 6**0.5
    rho, f = X @ X.T / 6, act if kind == "rf" else act.derivative
    expected = sl.dual_kernel(f.coefficients(41), np.clip(rho, -1, 1)) * (1 if kind == "rf" else 6 * rho)
    np.testing.assert_allclose(sl.InfiniteWidth(act, kind).gram(X), expected, atol=1e-12 * np.abs(expected).max())
    if spec == "h1+h40":
        return
    Y = X * np.linspace(0.3, 1.6, 12)[:, None]
    unnamed = sl.Activation(lambda x: act(x), lambda x: act.derivative(x))
    exact = sl.InfiniteWidth(act, kind).gram(Y)
    gap = np.abs(sl.InfiniteWidth(unnamed, kind).gram(Y) - exact)
    assert (gap <= 1e-8 * np.sqrt(np.outer(np.diag(exact), np.diag(exact))) + 1e-12).all()


def test_a_small_function_is_as_exact_as_a_large_one():
    X = np.random.default_rng(2).standard_normal((5, 4))
    X[1] = X[0] + 1e-4 * X[2]
    K = sl.InfiniteWidth("tanh").gram(X)
    for size in (1e-6, 1e6):
        scaled = sl.Activation(lambda x, size=size: size * np.tanh(x))
        np.testing.assert_allclose(sl.InfiniteWidth(scaled).gram(X) / size**2, K, rtol=0, atol=1e-9)
    jump = sl.Activation(lambda x: 1e-7 * (x > 0.7))
    with pytest.raises(ValueError, match="kinks"):
        sl.InfiniteWidth(jump).gram(X)


def test_no_second_matrix_is_made():
    """Peak memory of a gram over its result, in a process of its own: 2.4 when the check for NaN made temporaries."""
    code = """
import torch, spurlib as sl
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
A = torch.randn(4000, 20, dtype=torch.float64)
sl.InfiniteWidth("relu").gram(A[:600])
open("/proc/self/clear_refs", "w").write("5")
before = peak()
K = sl.InfiniteWidth("relu").gram(A)
print((peak() - before) / (K.numel() * 8))
"""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("the system does not reset its record of the peak memory")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert float(done.stdout) < 1.3, done.stderr
