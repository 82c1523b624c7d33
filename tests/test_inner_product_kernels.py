"""Kernels of the inner product: known power series, closed forms on the sphere, and the formulas for any kernel."""

import math
import pickle

import numpy as np
import pytest
import torch

import spurlib as sl
from spurlib.theory import predict_accuracy

sklearn_kernels = pytest.importorskip("sklearn.gaussian_process.kernels")


def geometric(rho):
    return 1 / (1 - rho / 2)


def arc_cosine(rho):
    return (np.sqrt(1 - rho**2) + rho * (math.pi - np.arccos(rho))) / (2 * math.pi)


# kappa, a0, a1, a2
SERIES = {
    "exponential": (np.exp, 1, 1, 1 / 2),
    "geometric": (geometric, 1, 1 / 2, 1 / 4),
    "cubic": (lambda rho: (1 + rho) ** 3, 1, 3, 3),
    "arc-cosine": (arc_cosine, 1 / (2 * math.pi), 1 / 4, 1 / (4 * math.pi)),
    "arc-sine": (np.arcsin, 0, 1, 0),
    "root": (lambda rho: 2 - np.sqrt(1 - rho), 1, 1 / 2, 1 / 8),
    "steep": (lambda rho: 1 / (1.1 - rho), 1 / 1.1, 1 / 1.1**2, 1 / 1.1**3),
    "even": (np.cosh, 1, 0, 1 / 2),
    "line and high degree": (lambda rho: rho + rho**36, 0, 1, 0),
    "square": (np.square, 0, 0, 1),
    "constant": (lambda rho: 3 + 0 * rho, 3, 0, 0),
    "short": (lambda rho: np.exp(20 * (rho - 1)), *(math.exp(-20) * a for a in (1, 20, 200))),
    "shorter": (lambda rho: np.exp(60 * (rho - 1)), *(math.exp(-60) * a for a in (1, 60, 1800))),
    "shortest": (lambda rho: np.exp(3000 * (rho - 1)), 0, 0, 0),
}


@pytest.mark.parametrize("size", [1.0, 1e-150, 1e150])
@pytest.mark.parametrize("name", SERIES)
def test_the_numbers_of_known_series(name, size):
    kappa, a0, a1, a2 = SERIES[name]
    at = np.array([0.1, 0.5, 0.9])
    found, one = sl.InnerProductKernel(lambda rho: size * kappa(rho)).numbers(at), float(kappa(np.float64(1)))
    expected = (a0, a1, one - a0 - a1, *(kappa(at) - a0 - a1 * at), a2)
    got = (found.a0, found.a1, found.c, *found.c_alpha, found.a2)
    gap = np.abs(np.array(got) / size - expected)
    assert gap[:-1].max() <= 2e-12 * one and gap[-1] <= 1e-10 * one


@pytest.mark.parametrize("width", [0.1, 0.03, 0.01, 0.003])
def test_narrow_kernels_have_their_small_numbers(width):
    kernel = sl.InnerProductKernel(lambda rho: np.exp((rho - 1) / width))
    found = kernel.numbers(0.5)
    np.testing.assert_allclose(found.a1, math.exp(-1 / width) / width, rtol=1e-9)
    assert predict_accuracy(kernel, 0.5, n=800, d=400).test > 0.76  # the sign of the linear part, however small it is


def test_numbers_in_numbers_out():
    kernel = sl.InnerProductKernel(np.exp)
    assert type(kernel.numbers(0.5).c_alpha) is float and kernel.numbers([[0.1], [0.2]]).c_alpha.shape == (2, 1)
    for alpha in (0, 1, float("nan"), []):
        with pytest.raises(ValueError, match="alpha must be a number strictly between 0 and 1"):
            kernel.numbers(alpha)


NOT_KERNELS = {
    "'cos' is not positive definite on every sphere: .*that of degree 2 is -0.5": np.cos,
    "that of degree 1 is -1": lambda rho: np.exp(-rho),
    "that of degree 2 is -1e-06": lambda rho: 1 + rho - 1e-6 * rho**2,
    "that of degree 8 is -0.01": lambda rho: np.exp(rho) - (1 / math.factorial(8) + 0.01) * rho**8,
    "so that \\|kappa\\(-1\\)\\| is at most kappa\\(1\\)": lambda rho: 1 + rho**20 - 2 * rho**13,
    "'absolute' has no power series about 0": np.abs,
    "has no power series about 0": lambda rho: np.maximum(rho, 0) ** 3,
    "is not finite on \\[-1, 1\\]": lambda rho: 1 / (1 - rho),
    "'logarithm' is not finite on": lambda rho: -np.log(1 - rho),
    "is not finite on": np.sqrt,
    "must act entry-wise and be real: \\(48,\\) in, \\(\\) out": np.sum,
    "must act entry-wise: its values on a part are not those on the whole": lambda rho: 1 + rho - rho.mean(),
    "must act entry-wise and be real: .*complex128": lambda rho: rho + 0j,
    "kappa must be a function of an array, got float": 1.0,
}


@pytest.mark.parametrize("message", NOT_KERNELS)
def test_what_is_not_a_kernel_is_refused(message):
    with pytest.raises(ValueError, match=message):
        sl.InnerProductKernel(NOT_KERNELS[message], name="logarithm" if "logarithm" in message else None)


def squared_distance(rho, d):
    return 2 * d * (1 - rho)


D = 40
ON_SPHERE = {
    "RBF": (sklearn_kernels.RBF(7.0), lambda rho: np.exp(-squared_distance(rho, D) / (2 * 7.0**2))),
    "Matern 1/2": (
        sklearn_kernels.Matern(9.0, nu=0.5),
        lambda rho: np.exp(-np.sqrt(squared_distance(rho, D)) / 9.0),
    ),
    "Matern 3/2": (
        sklearn_kernels.Matern(9.0, nu=1.5),
        lambda rho: (1 + (r := np.sqrt(3 * squared_distance(rho, D)) / 9.0)) * np.exp(-r),
    ),
    "rational": (
        sklearn_kernels.RationalQuadratic(6.0, alpha=1.3),
        lambda rho: (1 + squared_distance(rho, D) / (2 * 1.3 * 6.0**2)) ** -1.3,
    ),
    "polynomial": (
        sklearn_kernels.PairwiseKernel(gamma=1 / D, metric="polynomial"),
        lambda rho: (1 + rho) ** 3,
    ),
    "product": (0.5 * sklearn_kernels.DotProduct(2.0) ** 2, lambda rho: 0.5 * (4 + D * rho) ** 2),
    "callable": (lambda A, B: np.exp(A @ B.T / D), np.exp),
    "relu": (sl.InfiniteWidth("relu"), arc_cosine),
}


@pytest.mark.parametrize("name", ON_SPHERE)
def test_kernels_on_the_sphere_are_their_closed_forms(name):
    given, kappa = ON_SPHERE[name]
    kernel, rho = sl.InnerProductKernel.of(given, D), np.linspace(-1, 1, 41)
    np.testing.assert_allclose(kernel(rho), kappa(rho), rtol=1e-9, atol=1e-12 * kappa(1.0))
    found, expected = (one.numbers(0.3) for one in (kernel, sl.InnerProductKernel(kappa)))
    for field in ("a0", "a1", "c", "c_alpha", "a2"):
        assert getattr(found, field) == pytest.approx(getattr(expected, field), rel=1e-8, abs=1e-10 * kappa(1.0))


def test_an_anisotropic_kernel_is_refused():
    lengths = np.linspace(5, 10, D)
    for kernel in (sklearn_kernels.RBF(lengths), lambda A, B: np.exp(A[:, :5] @ B[:, :5].T / D)):
        with pytest.raises(ValueError, match="not a function of the inner product: it changes under rotations"):
            sl.InnerProductKernel.of(kernel, D)


def test_what_of_refuses_and_what_it_returns():
    kernel = sl.InnerProductKernel(np.exp)
    assert sl.InnerProductKernel.of(kernel, 5) is kernel
    assert sl.InnerProductKernel.of(sklearn_kernels.RBF(2.0), 5).name == "RBF(length_scale=2)"
    for d in (2, 2.5):
        with pytest.raises(ValueError, match="d must be an integer of at least 3"):
            sl.InnerProductKernel.of(sklearn_kernels.RBF(2.0), d)
    for wrong in (np.eye(3), sklearn_kernels.RBF, "rbf"):
        with pytest.raises(ValueError, match=r"kernel must have a method gram\(A, B\), or be callable"):
            sl.InnerProductKernel.of(wrong, 5)
    with pytest.raises(ValueError, match=r"kernel.gram\(A, B\) must have shape \(len\(A\), len\(B\)\), got \(48, 1\)"):
        sl.InnerProductKernel.of(lambda A, B: B @ A.T, 5)


@pytest.mark.parametrize(
    ("kappa", "degree"),
    [
        *[(lambda rho, m=m: (1 + rho) ** m, m) for m in (1, 2, 5, 9, 12)],
        (lambda rho: 2 + 0 * rho, 0),
        (lambda rho: rho + rho**4, 4),
        (lambda rho: (1 + rho) ** 13, None),
        (lambda rho: rho**40, None),
        (lambda rho: np.exp(2 * rho), None),
        (geometric, None),
        (arc_cosine, None),
        (lambda rho: np.exp(100 * (rho - 1)), None),
    ],
)
def test_degree(kappa, degree):
    assert sl.InnerProductKernel(kappa).degree == degree


def rows(seed=0, n=12, d=9):
    """Some equal, opposite and zero."""
    X = np.random.default_rng(seed).standard_normal((n, d))
    X[1], X[2], X[3] = X[0], -X[0], 0
    return X


@pytest.mark.parametrize("kappa", [np.exp, lambda rho: (1 + rho) ** 3, np.cosh])
def test_gram_off_the_sphere(kappa, monkeypatch):
    A, B, kernel = rows(), rows(1, n=5), sl.InnerProductKernel(kappa)
    np.testing.assert_allclose(kernel.gram(A, B), kappa(A @ B.T / 9), rtol=1e-12)
    K = kernel.gram(A)
    np.testing.assert_array_equal(K, kernel.gram(A, A))
    np.testing.assert_allclose(K, kappa(A @ A.T / 9), rtol=1e-12)
    np.testing.assert_allclose(K, K.T, rtol=1e-14)
    monkeypatch.setattr(sl.kernels, "_TILE", 5)
    tiled = kernel.gram(A)
    np.testing.assert_allclose(tiled, K, rtol=1e-13)
    assert (tiled[:5, 5:] == tiled[5:, :5].T).all()


def test_gram_on_the_sphere_keeps_inside_of_it():
    """Where kappa is steep at one, or is not defined beyond."""
    A = np.delete(rows(), 3, axis=0)
    A *= 3 / np.linalg.norm(A, axis=1, keepdims=True)
    rho = np.clip(A @ A.T / 9, -1, 1)
    rho[[0, 1, 0, 1], [1, 0, 2, 2]] = [1, 1, -1, -1]
    rho[[2, 2], [0, 1]] = -1
    np.fill_diagonal(rho, 1)
    for kappa in (lambda r: np.exp(-np.sqrt(2 - 2 * r)), arc_cosine, lambda r: 2 - np.sqrt(1 - r)):
        K = sl.InnerProductKernel(kappa).gram(A)
        np.testing.assert_allclose(K, kappa(rho), rtol=0, atol=1e-7)  # the root of the rounding
        np.testing.assert_array_equal(np.diag(K), kappa(np.ones(len(A))))
        assert K[0, 1] == K[0, 0] and np.linalg.eigvalsh(K)[0] > -1e-7
    with pytest.raises(ValueError, match=r"'root' is not finite for rows with \|a\| up to 1.5 sqrt\(d\): scale the"):
        sl.InnerProductKernel(lambda r: 2 - np.sqrt(1 - r), name="root").gram(1.5 * A)


def test_gram_of_tensors():
    A, B, kernel = rows(), rows(1, n=5), sl.InnerProductKernel(np.exp)
    K, T = kernel.gram(A, B), torch.from_numpy(A)
    assert isinstance(K, np.ndarray) and K.dtype == np.float64
    for one in (kernel.gram(T, B), kernel.gram(T, torch.from_numpy(B))):
        assert isinstance(one, torch.Tensor) and one.dtype == torch.float64
        np.testing.assert_array_equal(one.numpy(), K)
    by_torch = sl.InnerProductKernel(lambda rho: torch.exp(torch.from_numpy(rho)))
    np.testing.assert_allclose(by_torch.gram(A, B), K, rtol=1e-14)
    for wrong in (A[:, :4], A[0], np.full((2, 9), np.nan)):
        with pytest.raises(ValueError, match=r"^B "):
            kernel.gram(A, wrong)


def test_kernels_pickle_and_tell_their_names():
    for kernel in (
        sl.InnerProductKernel(geometric),
        sl.InnerProductKernel.of(sklearn_kernels.RBF(2.0), 9),
        sl.InnerProductKernel.of(sl.InfiniteWidth("tanh", "ntk", depth=2), 9),
    ):
        again = pickle.loads(pickle.dumps(kernel))
        assert repr(again) == repr(kernel) and again.numbers(0.3) == kernel.numbers(0.3)
    assert repr(sl.InnerProductKernel(geometric)) == "InnerProductKernel('geometric')"
    assert repr(sl.InnerProductKernel(geometric, name="pole")) == "InnerProductKernel('pole')"


def test_it_serves_as_kernel_of_an_interpolator():
    rng = np.random.default_rng(0)
    Z, Q, g = rng.standard_normal((20, 8)), rng.standard_normal((5, 8)), rng.standard_normal(20)
    expected = np.exp(Q @ Z.T / 8) @ np.linalg.solve(np.exp(Z @ Z.T / 8) + 0.1 * np.eye(20), g)
    found = sl.Interpolator(sl.InnerProductKernel(np.exp), Z, g, ridge=0.1).predict(Q)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


# The formulas of the theory -------------------------------------------------------------------------------------------

ACTIVATIONS = ["relu", "tanh", "erf", "sin", "cos", "gelu", "abs", "elu", "softplus", "h1+h2", "h1+0.3*h3", "h0+h2+h4"]
ALPHAS, RATIOS = np.array([0.1, 0.5, 0.9])[:, None], np.array([0.03, 0.5, 1.0, 2.0, 40.0])


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_gamma_kernel_is_gamma_of_the_activation(act):
    of_features = sl.gamma_rf(act, ALPHAS, ratio=RATIOS)
    of_gradients = sl.gamma_ntk(act, ALPHAS, ratio=RATIOS)
    for d in (None, 7):
        for kind, expected in (("rf", of_features), ("ntk", of_gradients)):
            found = sl.gamma_kernel(sl.InfiniteWidth(act, kind), ALPHAS, ratio=RATIOS, d=d)
            assert found.shape == (3, 5)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


def test_gamma_kernel_of_two_numbers():
    """Of kappa = a0 + a1 rho + c rho^3 by the root in closed form at N = d: 1 / (1 + t) + c / (a1 t) = 1."""
    for a0, a1, c, alpha in ((0.0, 1.0, 1.0, 0.5), (2.0, 3.0, 0.5, 0.25)):
        t = c / a1 / 2 + math.sqrt((c / a1 / 2) ** 2 + c / a1)
        assert 1 / (1 + t) + c / a1 / t == pytest.approx(1)
        kernel = sl.InnerProductKernel(lambda rho, a0=a0, a1=a1, c=c: a0 + a1 * rho + c * rho**3)
        explained = a1 * t / (1 + t)
        expected = (alpha * explained + c * alpha**3) / (explained + c)
        assert sl.gamma_kernel(kernel, alpha, ratio=1.0) == pytest.approx(expected, rel=1e-10)


def test_gamma_kernel_asks_for_d():
    for kernel in (sklearn_kernels.RBF(10.0), lambda A, B: np.exp(A @ B.T / 30)):
        with pytest.raises(
            ValueError, match="d is needed: the values of this kernel on the sphere depend on the number"
        ):
            sl.gamma_kernel(kernel, 0.5, ratio=1.0)
    gamma = sl.gamma_kernel(sklearn_kernels.RBF(10.0), 0.5, ratio=1.0, d=50)
    expected = sl.gamma_kernel(sl.InnerProductKernel(lambda rho: np.exp(rho - 1)), 0.5, ratio=1.0)
    assert type(gamma) is float and gamma == pytest.approx(expected, abs=0.2) and gamma != expected
    one = sl.gamma_kernel(sklearn_kernels.RBF(10.0), 0.5, ratio=1.0, d=100)
    assert one == pytest.approx(expected, abs=1e-8)  # exp(-2 d (1 - rho) / (2 * 100))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 1.0}, "alpha must be a number strictly between 0 and 1"),
        ({"ratio": 0.0}, "ratio must be a finite number above 0"),
        ({"d": 2}, "d must be an integer of at least 3"),
        ({"kernel": sl.InnerProductKernel(lambda rho: 3 + 0 * rho, name="flat")}, "'flat' is constant"),
        ({"kernel": sl.InnerProductKernel(lambda rho: 1 + rho, name="line")}, "'line' is linear, and singular"),
        ({"kernel": "relu"}, "d is needed|kernel must have"),
    ],
)
def test_gamma_kernel_refuses_by_name(change, message):
    arguments = {"kernel": sl.InfiniteWidth("relu"), "alpha": 0.5, "ratio": 1.0} | change
    with pytest.raises(ValueError, match=message):
        sl.gamma_kernel(arguments.pop("kernel"), arguments.pop("alpha"), **arguments)


def test_a_linear_kernel_below_its_dimension():
    assert sl.gamma_kernel(sl.InnerProductKernel(lambda rho: 1 + rho), 0.3, ratio=0.5) == pytest.approx(0.3)


def simulated(kernel, n, d, alpha, draws=8):
    """Mean alignment over samples and draws, and its standard error."""
    values = []
    for seed in range(draws):
        data = sl.synthetic(n=n, d=d, alpha=alpha, n_test=1, seed=seed, spherical=True)
        values.append(sl.Interpolator(kernel, data.Z, data.g).at(data.Z_spurious).own.mean())
    return np.mean(values), np.std(values, ddof=1) / math.sqrt(draws)


SIMULATED = {
    "geometric": (sl.InnerProductKernel(geometric), 300, 0.5),
    "deep tangent": (sl.InfiniteWidth("erf", "ntk", depth=2, layers="all", weight_variance=1.5), 200, 0.75),
    "Matern 3/2": (sklearn_kernels.Matern(14.0, nu=1.5), 250, 0.5),
    "Matern 5/2": (sklearn_kernels.Matern(10.0, nu=2.5), 150, 0.3),
    "rational quadratic": (sklearn_kernels.RationalQuadratic(14.0, alpha=0.7), 250, 0.4),
    "polynomial": (
        sklearn_kernels.PairwiseKernel(
            metric="poly", gamma=1 / 200, pairwise_kernels_kwargs={"degree": 4, "coef0": 0.5}
        ),
        200,
        0.6,
    ),
    "exponential": (sl.InnerProductKernel(lambda rho: np.exp(1.7 * rho)), 200, 0.25),
    "logarithm": (sl.InnerProductKernel(lambda rho: 0.1 - np.log(1 - 0.8 * rho)), 250, 0.5),
    "power": (sl.InnerProductKernel(lambda rho: (1.3 - rho) ** -0.5), 300, 0.7),
    "arc sine": (sl.InnerProductKernel(lambda rho: np.arcsin(0.7 * rho)), 150, 0.8),
    "GELU, two layers": (sl.InfiniteWidth("gelu", depth=2, weight_variance=2.0, bias_variance=0.1), 200, 0.5),
    "tanh, last of four": (sl.InfiniteWidth("tanh", "ntk", depth=4, layers="last", weight_variance=1.8), 250, 0.4),
    "leaky ReLU, five layers": (sl.InfiniteWidth("leaky_relu", "ntk", depth=5), 200, 0.5),
}


@pytest.mark.parametrize(("kernel", "n", "alpha"), SIMULATED.values(), ids=SIMULATED)
def test_gamma_kernel_equals_a_simulation(kernel, n, alpha):
    """Three standard errors, and 2 / N for the size."""
    d = 200
    predicted = sl.gamma_kernel(kernel, alpha, ratio=n / d, d=d)
    mean, error = simulated(kernel, n, d, alpha)
    allowed = 3 * error + 2 / n
    assert abs(mean - predicted) <= allowed
    of_many = sl.gamma_kernel(kernel, alpha, ratio=1e4, d=d)
    assert abs(of_many - predicted) > 2 * allowed  # so the simulation can tell them apart


def fields(prediction):
    return {name: np.asarray(value, dtype=float) for name, value in vars(prediction).items()}


def assert_same(one, other, rel=1e-8):
    for name, value in fields(one).items():
        np.testing.assert_allclose(value, fields(other)[name], rtol=rel, err_msg=name)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("act", ["relu", "tanh", "gelu", "0.3*h0+h1+h2+0.5*h3"])
def test_the_accuracies_of_a_kernel_are_those_of_its_activation(act, intercept):
    sizes = {"n": np.array([20, 150, 300]), "d": 300, "ridge": np.array([[0.0], [0.4], [50.0]]), "intercept": intercept}
    for alpha in (0.2, 0.5):
        found = predict_accuracy(sl.InfiniteWidth(act), alpha, **sizes)
        assert found.spurious.shape == (3, 3)
        assert_same(found, predict_accuracy(act, alpha, **sizes))


@pytest.mark.parametrize("act", ["relu", "tanh", "h1+h2"])
def test_the_accuracies_of_a_tangent_kernel_are_those_of_its_activation(act):
    """The gram of `InfiniteWidth` is d times the kernel of one feature: a ridge of it is d times as large."""
    d, ridge = 300, np.array([[0.0], [0.4], [50.0]])
    sizes = {"n": np.array([20, 150, 300]), "d": d}
    found = predict_accuracy(sl.InfiniteWidth(act, "ntk"), 0.4, ridge=d * ridge, **sizes)
    assert_same(found, predict_accuracy(act, 0.4, ridge=ridge, kind="ntk", **sizes))
    scaled = predict_accuracy(sl.InfiniteWidth(act, "ntk"), 0.4, ridge=ridge, **sizes)
    assert abs(scaled.risk - found.risk)[1:].min() > 1e-3


def test_the_accuracies_of_a_kernel_with_a_spectrum():
    values = np.linspace(0.2, 1.8, 200)
    spectrum = (values[::2], values[1::2])
    for kind in ("rf", "ntk"):
        found = predict_accuracy(sl.InfiniteWidth("relu", kind), n=[50, 150], spectrum=spectrum)
        assert_same(found, predict_accuracy("relu", n=[50, 150], spectrum=spectrum, kind=kind))


def test_the_accuracies_of_kernels_of_scikit_learn():
    found = predict_accuracy(sklearn_kernels.RBF(10.0), 0.5, n=[50, 150], d=100, ridge=0.1)
    assert_same(
        found, predict_accuracy(sl.InnerProductKernel(lambda r: np.exp(r - 1)), 0.5, n=[50, 150], d=100, ridge=0.1)
    )
    alignment = predict_accuracy(sklearn_kernels.RBF(10.0), 0.5, n=150, d=100).alignment
    assert alignment == pytest.approx(sl.gamma_kernel(sklearn_kernels.RBF(10.0), 0.5, ratio=1.5, d=100), rel=1e-9)


@pytest.mark.parametrize("size", [1e-3, 7.0])
def test_a_multiple_of_a_kernel_and_of_its_ridge_changes_nothing(size):
    sizes = {"n": [50, 300], "d": 200, "intercept": True}
    one = predict_accuracy(sl.InnerProductKernel(geometric), 0.5, ridge=0.3, **sizes)
    other = predict_accuracy(sl.InnerProductKernel(lambda r: size * geometric(r)), 0.5, ridge=0.3 * size, **sizes)
    assert_same(one, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 1000}, "k and kind are for activations: a kernel has neither"),
        ({"kind": "ntk"}, "k and kind are for activations: a kernel has neither"),
        ({"d": [100, 200]}, "d must be one number for a kernel, which depends on it"),
        ({"act": sl.InnerProductKernel(lambda r: 2 + 0 * r, name="flat")}, "'flat' has no energy beyond its constant"),
        ({"act": sl.InnerProductKernel(lambda r: 1 + r, name="line"), "n": 200}, "'line' is linear: without a ridge"),
        ({"act": sl.InnerProductKernel(lambda r: (1 + r) ** 2, name="two"), "n": 66, "d": 10}, "'two' is a polynomial"),
        ({"act": sklearn_kernels.RBF(np.linspace(5, 10, 200))}, "it changes under rotations of the sphere"),
        ({"alpha": 0.0}, "alpha must be a number strictly between 0 and 1"),
        ({"ridge": -1.0}, "ridge must be a finite number of at least 0"),
    ],
)
def test_accuracies_refuse_by_name(change, message):
    arguments = {"act": sl.InfiniteWidth("relu"), "alpha": 0.5, "n": 100, "d": 200} | change
    with pytest.raises(ValueError, match=message):
        predict_accuracy(**arguments)


def test_a_polynomial_kernel_is_served_below_its_number_of_monomials_and_with_a_ridge():
    kernel = sl.InnerProductKernel(lambda r: (1 + r) ** 2)
    assert np.isfinite(predict_accuracy(kernel, 0.5, n=5, d=10).risk)
    assert np.isfinite(predict_accuracy(kernel, 0.5, n=66, d=10, ridge=100.0).risk)
    with pytest.warns(UserWarning, match=r"n = 1000 is not small against d \(d \+ 1\) / 2"):
        predict_accuracy(kernel, 0.5, n=1000, d=60, ridge=0.01)
