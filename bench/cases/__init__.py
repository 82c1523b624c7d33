"""What is measured: each case prepares the same work in several ways, that of spurlib first, then those of its peers.

The ways return the same numbers (tests/test_bench.py), or None where they do not compute the same. A name of spurlib
that a measured commit may lack is looked up first.
"""

import hashlib
import inspect
import os
from functools import cache, partial

import numpy as np
import torch
from sklearn.kernel_ridge import KernelRidge

import spurlib as sl


def case(*peers, sizes, memory=False):
    """Make a benchmark of asv with ways and sizes as parameters: 5 times or 10 seconds, in each of two processes."""

    def made(prepare):
        ways = ["spurlib", *peers]
        named = {", ".join(f"{k} = {v:,}" if isinstance(v, int) else v for k, v in s.items()): s for s in sizes}

        def setup(self, way, size):
            self.work = prepare(**named[size])[ways.index(way)]
            if self.work is None:
                raise NotImplementedError

        about = {"params": [ways, list(named)], "param_names": [prepare.__doc__, "size"], "timeout": 3600, "rounds": 2}
        about |= {"version": hashlib.sha256(inspect.getsource(prepare).encode()).hexdigest(), "number": 1}
        about |= {"repeat": (1, 5, 10.0), "warmup_time": 0, "prepare": staticmethod(prepare), "setup": setup}
        for kind in ["time", "peakmem"][: 1 + memory]:
            about[f"{kind}_work"] = lambda self, way, size: self.work()
        return type(prepare.__name__, (), about)

    return made


@cache
def samples(n, d):
    return sl.synthetic(n=n, d=d, alpha=0.5, n_test=n, seed=0)


@cache
def grams(n, d, k):
    """Kernel matrix of the samples, kernel rows of the queries, labels."""
    rf, data = sl.RandomFeatures("relu", d=d, k=k), samples(n, d)
    return rf.gram(data.Z, data.Z), rf.gram(data.Z_spurious, data.Z), data.g


def full(m, queries):
    return np.diag(m.alignment(queries)), m.predict(queries)


def own(m, queries):
    """Alignment of each query with its own sample, and predictions."""
    at = m.at(queries) if hasattr(m, "at") else None
    return (at.own, at.predictions) if at else full(m, queries)


@case("numpy", sizes=[{"n": 1500, "d": 1000, "k": 20_000}])
def readme(n, d, k):
    """README: features, fit, own alignments, predictions (peer: stored features)"""
    data, rf = samples(n, d), partial(sl.RandomFeatures, "relu", d=d, k=k)

    def stored():
        V = rf().weights().numpy()
        Phi, Phi_s = (np.maximum(Z @ V.T, 0) for Z in (data.Z, data.Z_spurious))
        F = np.linalg.solve(Phi @ Phi.T, Phi @ Phi_s.T).T
        return np.diag(F), F @ data.g

    return lambda: own(sl.Interpolator(rf(), data.Z, data.g), data.Z_spurious), stored


@case("pseudoinverse", sizes=[{"n": 500, "d": 500, "k": 10_000}], memory=True)
def accuracies(n, d, k):
    """Test and spurious predictions of h1 + h2 (peer: the paper's way, full matrices in numpy)"""
    data, rf = samples(n, d), partial(sl.RandomFeatures, "h1+h2", d=d, k=k)
    Q, phi = np.vstack([data.Z_test, data.Z_spurious]), np.vectorize(lambda x: x + (x**2 - 1) / np.sqrt(2))

    def stored():
        V = rf().weights().numpy()
        return phi(Q @ V.T) @ (np.linalg.pinv(phi(data.Z @ V.T)) @ data.g)

    return lambda: sl.Interpolator(rf(), data.Z, data.g).predict(Q), stored


@case("scikit-learn", sizes=[{"n": 300, "d": 200, "k": 3000}])
def leave_one_out(n, d, k):
    """Residuals and own stabilities of all left-out samples (peer: KernelRidge, n refits)"""
    (K, rows, g), ridge = grams(n, d, k), partial(KernelRidge, alpha=1.0, kernel="precomputed")

    def closed():
        m = sl.Interpolator.from_gram(K, g, ridge=1.0)
        return m.loo_residuals, own(m, rows)[0] * m.loo_residuals

    def refits():
        everything, out = ridge().fit(K, g).predict(rows), np.empty((2, n))
        for i in range(n):
            rest = np.arange(n) != i
            without = ridge().fit(K[np.ix_(rest, rest)], g[rest]).predict(np.stack([K[i, rest], rows[i, rest]]))
            out[:, i] = g[i] - without[0], everything[i] - without[1]
        return out

    return closed, refits


@case("full matrix", sizes=[{"n": 1500, "d": 1000, "k": 5000}])
def own_alignments(n, d, k):
    """Own alignments and predictions after the fit (peer: the diagonal of all alignments)"""
    K, rows, g = grams(n, d, k)
    m = sl.Interpolator.from_gram(K, g)
    return lambda: own(m, rows), lambda: full(m, rows)


@case("seven fits", sizes=[{"n": 1000, "d": 1000, "k": 5000}])
def curve(n, d, k):
    """All training-set sizes after the gram (peer: seven sizes, which is all there was before `nested`)"""
    (K, rows, g), some = grams(n, d, k), [max(1, n * part // 100) for part in (1, 2, 5, 10, 20, 50, 100)]

    def nested():
        c = sl.nested(K, g, rows)
        return [part[m - 1, :m] for m in some for part in (c.alignment, c.prediction, c.residual)]

    def fits():
        models = [(m, sl.Interpolator.from_gram(K[:m, :m], g[:m])) for m in some]
        return [part for m, model in models for part in (*full(model, rows[:m, :m]), model.loo_residuals)]

    return nested if hasattr(sl, "nested") else fits, fits


GRAMS = [{"n": 3000, "m": 1000, "d": 1000, "k": k, "act": act} for k in (20_000, 100_000) for act in ("relu", "tanh")]


@case("two products", sizes=[*GRAMS, {"n": 5000, "m": 0, "d": 500, "k": 20_000, "act": "relu"}], memory=True)
def gram(n, m, d, k, act):
    """Gram in float32, n x m, or n x n where m = 0 (peer: both products alone, with weights drawn before)"""
    A, V = torch.from_numpy(samples(n + m, d).Z).float(), torch.randn(4096, d)
    rf = sl.RandomFeatures(act, d=d, k=k, dtype=torch.float32)

    def products():
        for start in range(0, k, len(V)):
            phi = A @ V[: k - start].T
            phi[:n] @ phi[n if m else 0 :].T

    return lambda: (rf.gram(A[:n], A[n:] if m else None), None)[1], products


RESNETS = [{"network": "resnet18", "n": n} for n in (50, 200)]


@case(
    "torch.func",
    sizes=[*({"network": net, "n": 200} for net in ("fully_connected", "small_cnn")), *RESNETS],
    memory=True,
)
def empirical_tangent(network, n, side=48):
    """Gram of a network's gradients: 784-500-200-1, or of images 48 x 48 x 3 (peer: vmap of grad, all stored)"""
    image, flat = (side, side, 3), network == "fully_connected"
    model = (sl.fully_connected(784) if flat else getattr(sl, network)(image, 1)).eval()
    Z = torch.from_numpy(samples(n, 784 if flat else 3 * side**2).Z).float()
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def output(p, z):
        return torch.func.functional_call(model, p, (z[None],))[0, 0]

    def stored():
        gradients = torch.func.vmap(torch.func.grad(output), (None, 0), chunk_size=25)(parameters, Z)
        return sum(J.flatten(1) @ J.flatten(1).T for J in gradients.values())

    small = n * sum(map(torch.numel, parameters.values())) < 1e9
    return lambda: sl.EmpiricalTangent(model).gram(Z), stored if small else None


@case("one by one", sizes=[{"n": 100, "d": 40, "count": 41, "epochs": 60}])
def networks(n, d, count, epochs):
    """Leave-one-out training of networks d-100-50-1, together"""
    data, start = samples(n, d), sl.fully_connected(d, widths=(100, 50))

    def trained(together):
        first, rest = sl.leave_one_out(start, data.Z, data.g, range(count - 1), together=together, epochs=epochs)
        return [sl.predict(model, data.Z_spurious) for model in (first, *rest)]

    return partial(trained, True), partial(trained, False)


@case("ReLU, closed", sizes=[{"n": 1000, "d": 784, "act": act} for act in ("tanh", "gelu")])
def infinite_width(n, d, act):
    """Kernel of infinite width, by a series (peer: the closed form of ReLU)"""
    Z, kernels = samples(n, d).Z, [sl.InfiniteWidth(act), sl.InfiniteWidth("relu")]
    kernels[0].gram(Z[:2])  # the Hermite coefficients
    return [lambda kernel=kernel: (kernel.gram(Z), None)[1] for kernel in kernels]


@case("one by one", sizes=[{"d": 1000, "count": 100}])
def predictions(d, count):
    """Predicted test accuracies of many training-set sizes at once"""
    n, predicted = np.linspace(10, 4 * d, count).astype(int), partial(sl.predict_accuracy, "gelu", 0.5, d=d, k=20 * d)
    predicted(n=10)  # the Hermite coefficients
    return lambda: predicted(n=n).test, lambda: [predicted(n=int(one)).test for one in n]


@case(sizes=[{"n": 6000}, {"n": 20_000}], memory=True)
def fit(n):
    """Fit with the kernel of infinite width; of 20,000 samples (minutes, 16 GB) where SPURLIB_BENCH is `all`"""
    if n > 6000 and os.environ.get("SPURLIB_BENCH") != "all":
        return [None]
    Z, g, kernel = samples(n, 500).Z, samples(n, 500).g, sl.InfiniteWidth("relu")
    return [lambda: (sl.Interpolator(kernel, Z, g), None)[1]]
