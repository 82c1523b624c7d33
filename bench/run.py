"""Measure the library against what it competes with, and print one table of ratios.

    python bench/run.py            about eleven minutes on two cores
    python bench/run.py --full     also the memory at k = 10^6: two minutes more
    python bench/run.py --quick    seconds: a smoke test at sizes at which ratios mean nothing

Every measurement runs in a process of its own, alone; the two sides of a ratio run in one process, or one right after
the other, on the same data and (unless the row says otherwise) in the same precision. Times are without imports and
without drawing the data; peak memory is that of the whole process, torch (about 0.5 GB) included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Result = dict[str, float]

FULL_SIZE: dict[str, dict[str, int]] = {
    "gram": {"q": 3000, "n": 1000, "d": 1000, "k": 100_000, "repeats": 3},
    "memory": {"q": 3000, "n": 1000, "d": 1000},
    "leave_one_out": {"n": 300, "d": 200, "k": 3000},
    "share": {"n": 1000, "d": 1000, "k": 100_000},
    "sweep": {"n": 1000, "n_test": 1000, "d": 1000, "k": 20_000},
    "networks": {"n": 100, "d": 40, "first": 100, "second": 50, "models": 41, "epochs": 60},
    "curve": {"largest": 1000, "n_test": 1000, "d": 1000, "k": 100_000, "smaller": 2000},
    "infinite": {"n": 1000, "d": 784, "repeats": 5},
    "prediction": {"points": 2000, "d": 1000, "repeats": 5},
    "tangent": {"n": 200, "side": 48},
}
QUICK_SIZE: dict[str, dict[str, int]] = {
    "gram": {"q": 30, "n": 20, "d": 20, "k": 3000, "repeats": 1},
    "memory": {"q": 30, "n": 20, "d": 20},
    "leave_one_out": {"n": 20, "d": 10, "k": 100},
    "share": {"n": 30, "d": 20, "k": 2000},
    "sweep": {"n": 30, "n_test": 20, "d": 20, "k": 200},
    "networks": {"n": 10, "d": 5, "first": 8, "second": 4, "models": 3, "epochs": 3},
    "curve": {"largest": 20, "n_test": 20, "d": 20, "k": 400, "smaller": 100},
    "infinite": {"n": 20, "d": 20, "repeats": 1},
    "prediction": {"points": 20, "d": 100, "repeats": 1},
    "tangent": {"n": 2, "side": 33},
}


def peak_gb() -> float:
    """Peak memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss starts from the peak of the process that started this one
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if "VmHWM" in line) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    out = work()
    return time.perf_counter() - start, out


# Measurements: each is called in a fresh process ----------------------------------------------------------------------


def gram(*, q: int, n: int, d: int, k: int, repeats: int, dtype: str, act: str) -> Result:
    """The gram against its two matrix products alone: blocks of weights that are there, no activation, no sum."""
    import torch

    import spurlib as sl

    kind = getattr(torch, dtype)
    generator = torch.Generator().manual_seed(0)
    Q, Z = (torch.randn(rows, d, generator=generator, dtype=kind) for rows in (q, n))
    samples, block = torch.cat([Q, Z]), min(k, 4096)
    V = torch.randn(block, d, generator=generator, dtype=kind)
    acts, out = torch.empty(q + n, block, dtype=kind), torch.empty(q, n, dtype=kind)

    def products() -> None:
        for start in range(0, k, block):
            width = min(block, k - start)
            torch.mm(samples, V[:width].T, out=acts[:, :width] if width == block else None)
            torch.mm(acts[:q, :width], acts[q:, :width].T, out=out)

    kernel = sl.RandomFeatures(act, d=d, k=k, dtype=kind)
    kernel.gram(Q[:2], Z[:2]) if k <= 4096 else products()  # warm up
    pairs = [(timed(products)[0], timed(lambda: kernel.gram(Q, Z))[0]) for _ in range(repeats)]
    alone, whole = (min(times) for times in zip(*pairs, strict=True))
    return {"products": alone, "gram": whole}


def memory(*, q: int, n: int, d: int, k: int, dtype: str, act: str) -> Result:
    """Peak memory of a process that computes one gram."""
    import torch

    import spurlib as sl

    kind = getattr(torch, dtype)
    generator = torch.Generator().manual_seed(0)
    Q, Z = (torch.randn(rows, d, generator=generator, dtype=kind) for rows in (q, n))
    seconds, _ = timed(lambda: sl.RandomFeatures(act, d=d, k=k, dtype=kind).gram(Q, Z))
    return {"seconds": seconds, "peak": peak_gb()}


def leave_one_out(*, n: int, d: int, k: int) -> Result:
    """All alignments and leave-one-out residuals: one Cholesky against n projections and n refits."""
    import numpy as np

    import spurlib as sl

    data = sl.synthetic(n=n, d=d, alpha=0.5, n_test=1)
    kernel = sl.RandomFeatures("relu", d=d, k=k)
    Phi, PhiQ, g = kernel.features(data.Z), kernel.features(data.Z_spurious), data.g
    K, rows = Phi @ Phi.T, PhiQ @ Phi.T

    def closed() -> tuple[Any, Any]:
        m = sl.Interpolator.from_gram(K, g)
        return m.alignment(rows), m.loo_residuals

    def one_by_one(refit: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
        alignment, residuals = np.empty((n, n)), np.empty(n)
        for i in range(n):
            perp, theta = refit(np.delete(Phi, i, axis=0), i)
            alignment[:, i] = PhiQ @ perp / (perp @ perp)
            residuals[i] = g[i] - Phi[i] @ theta
        return alignment, residuals

    def by_qr(others: Any, i: int) -> tuple[Any, Any]:
        basis, triangle = np.linalg.qr(others.T)
        return Phi[i] - basis @ (basis.T @ Phi[i]), basis @ np.linalg.solve(triangle.T, np.delete(g, i))

    def by_lstsq(others: Any, i: int) -> tuple[Any, Any]:
        shadow = np.linalg.lstsq(others.T, Phi[i], rcond=None)[0]
        return Phi[i] - others.T @ shadow, np.linalg.lstsq(others, np.delete(g, i), rcond=None)[0]

    closed()
    seconds, (F, residuals) = min((timed(closed) for _ in range(3)), key=lambda pair: pair[0])
    seconds_qr, (F_qr, residuals_qr) = timed(lambda: one_by_one(by_qr))
    some = max(1, n // 15)  # the slower way for some of the samples: its time is the same for each
    seconds_lstsq, _ = timed(lambda: [by_lstsq(np.delete(Phi, i, axis=0), i) for i in range(some)])
    np.testing.assert_allclose(F, F_qr, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(residuals, residuals_qr, rtol=1e-6, atol=1e-8)
    return {"closed": seconds, "qr": seconds_qr, "lstsq": seconds_lstsq * n / some}


def share(*, n: int, d: int, k: int, dtype: str) -> Result:
    """Time of the factorization, all alignments, stabilities and residuals beside the time of the gram."""
    import torch

    import spurlib as sl

    data = sl.synthetic(n=n, d=d, alpha=0.5, n_test=1)
    kernel = sl.RandomFeatures("relu", d=d, k=k, dtype=getattr(torch, dtype))
    seconds_gram, K = timed(lambda: kernel.gram(data.Z))
    rows = K[::-1].copy()  # any rows will do

    def rest() -> None:
        m = sl.Interpolator.from_gram(K, data.g, dtype=kernel.dtype)
        m.alignment(rows), m.stability(rows), m.predict(rows), m.loo_residuals

    rest()
    return {"gram": seconds_gram, "rest": min(timed(rest)[0] for _ in range(3))}


def gaussian(n: int, n_test: int, d: int) -> tuple[Any, ...]:
    """Samples, queries with fresh cores, test samples, and the labels of the first and the last."""
    import numpy as np

    generator = np.random.default_rng(0)
    Z, Z_test = generator.standard_normal((n, d)), generator.standard_normal((n_test, d))
    Z_spurious = np.hstack([generator.standard_normal((n, d // 2)), Z[:, d // 2 :]])
    u = np.r_[generator.standard_normal(d // 2), np.zeros(d - d // 2)]
    return Z, Z_spurious, Z_test, np.sign(Z @ u), np.sign(Z_test @ u)


def stored(samples: tuple[Any, ...], *, k: int, vectorize: bool, dtype: str) -> tuple[Any, Any]:
    """Outputs at test samples and queries, features h1 + h2 stored and inverted."""
    import numpy as np

    def entry(x: Any) -> Any:
        return x + (x**2 - 1) / np.sqrt(2)  # as one writes it: np.vectorize evaluates the root for every entry

    Z, Z_spurious, Z_test, g, _ = samples
    phi = np.vectorize(entry) if vectorize else entry
    d = Z.shape[1]
    V = np.random.default_rng(1).standard_normal((k, d)).astype(dtype) / np.asarray(d**0.5, dtype=dtype)
    features, queries, tests = (phi(A.astype(dtype) @ V.T) for A in (Z, Z_spurious, Z_test))
    theta = np.linalg.pinv(features) @ g.astype(dtype)
    return tests @ theta, queries @ theta


def sweep(*, n: int, n_test: int, d: int, k: int, way: str, dtype: str) -> Result:
    """One point of the accuracy curves, three ways: test and spurious accuracy of random features h1 + h2."""
    import numpy as np

    samples = gaussian(n, n_test, d)
    Z, Z_spurious, Z_test, g, g_test = samples

    def streamed() -> tuple[Any, Any]:
        kernel = sl.RandomFeatures("h1+h2", d=d, k=k, dtype=getattr(torch, dtype))
        rows = kernel.gram(np.vstack([Z, Z_spurious, Z_test]), Z)
        m = sl.Interpolator.from_gram(rows[:n], g, dtype=kernel.dtype)
        return m.predict(rows[2 * n :]), m.predict(rows[n : 2 * n])

    if way == "spurlib":
        import torch

        import spurlib as sl
    runs = 1 if way == "textbook" else 3  # the best of three for what takes seconds; a minute speaks for itself

    def work() -> tuple[Any, Any]:
        return streamed() if way == "spurlib" else stored(samples, k=k, vectorize=way == "textbook", dtype=dtype)

    calls = [timed(work) for _ in range(runs)]
    seconds, (test, spurious) = min(calls, key=lambda call: call[0])
    return {
        "seconds": seconds,
        "peak": peak_gb(),
        "test": float(np.mean(np.sign(test) == g_test)),
        "spurious": float(np.mean(np.sign(spurious) == g)),
    }


def curve(*, largest: int, n_test: int, d: int, k: int, smaller: int, way: str) -> Result:
    """One draw of a whole accuracy curve: one gram for all N, against the textbook way for each N.

    The textbook way takes time linear in the width, once that is well above N: it is run at the widths `smaller` and
    2 `smaller`, and the line through both is followed to `k`.
    """
    sizes = [max(1, largest * n // 1000) for n in (10, 20, 50, 100, 200, 500, 1000)]
    Z, Z_spurious, Z_test, g, g_test = gaussian(largest, n_test, d)
    if way == "textbook":
        times = []
        for width in (smaller, 2 * smaller):
            seconds = 0.0
            for n in sizes:
                samples = (Z[:n], Z_spurious[:n], Z_test, g[:n], g_test)
                seconds += timed(lambda: stored(samples, k=width, vectorize=True, dtype="float64"))[0]  # noqa: B023
            times.append(seconds)
        slope = (times[1] - times[0]) / smaller
        return {"seconds": times[1] + slope * (k - 2 * smaller), "measured": times[1], "doubling": times[1] / times[0]}

    import numpy as np
    import torch

    import spurlib as sl

    def streamed() -> None:
        kernel = sl.RandomFeatures("h1+h2", d=d, k=k, dtype=torch.float32)
        rows = kernel.gram(np.vstack([Z, Z_spurious, Z_test]), Z)
        for n in sizes:
            m = sl.Interpolator.from_gram(rows[:n, :n], g[:n], dtype=torch.float32)
            m.predict(rows[2 * largest :, :n]), m.predict(rows[largest : largest + n, :n])

    return {"seconds": min(timed(streamed)[0] for _ in range(2))}


def networks(*, n: int, d: int, first: int, second: int, models: int, epochs: int) -> Result:
    """Networks that leave one sample out each, and one that leaves out none: trained together and one by one."""
    import numpy as np

    import spurlib as sl

    data = sl.synthetic(n=n, d=d, alpha=0.5, n_test=50)
    start = sl.fully_connected(d, widths=(first, second))

    def both(together: bool, epochs: int) -> Any:
        options = {"together": together, "epochs": epochs}
        everything, without = sl.leave_one_out(start, data.Z, data.g, range(models - 1), **options)
        return np.stack([sl.predict(model, data.Z_test) for model in (everything, *without)])

    both(True, 2), both(False, 2)
    together, outputs = timed(lambda: both(True, epochs))
    apart, expected = timed(lambda: both(False, epochs))
    np.testing.assert_allclose(outputs, expected, atol=1e-2)
    return {"together": together, "apart": apart}


def infinite(*, n: int, d: int, repeats: int, act: str) -> Result:
    """Kernel matrix of infinitely many features by the series of an activation, against the closed form of ReLU."""
    import numpy as np

    import spurlib as sl

    Z = np.random.default_rng(0).standard_normal((n, d))
    closed, series = sl.InfiniteWidth("relu"), sl.InfiniteWidth(act)
    out = {"closed": float("inf"), "series": float("inf")}
    for _ in range(repeats + 1):  # the first draws up the coefficients
        for name, kernel in (("closed", closed), ("series", series)):
            out[name] = min(out[name], timed(lambda kernel=kernel: kernel.gram(Z))[0])
    return out


def prediction(*, points: int, d: int, repeats: int) -> Result:
    """Predicted alignment and accuracies of many sizes at once, coefficients cached."""
    import numpy as np

    import spurlib as sl

    n = np.unique(np.linspace(10, 5 * d, points).astype(int))
    sl.predict_accuracy("gelu", 0.5, n=10, d=d)
    accuracy = min(
        timed(lambda: sl.predict_accuracy("gelu", 0.5, n=n, d=d, k=20 * d, ridge=1.0))[0] for _ in range(repeats)
    )
    gamma = min(timed(lambda: sl.gamma_rf("gelu", 0.5, ratio=n / d))[0] for _ in range(repeats))
    one = min(timed(lambda: sl.predict_accuracy("gelu", 0.5, n=d, d=d, k=20 * d, ridge=1.0))[0] for _ in range(repeats))
    return {"accuracy": 1e3 * accuracy / len(n), "gamma": 1e3 * gamma / len(n), "one": 1e3 * one}


def tangent(*, n: int, side: int) -> Result:
    """The kernel of the gradients of a ResNet-18, streamed over its parameters."""
    import numpy as np

    import spurlib as sl

    model, Z = sl.resnet18((side, side, 3), 1), np.random.default_rng(0).standard_normal((n, side * side * 3))
    kernel = sl.EmpiricalTangent(model)
    seconds, _ = timed(lambda: kernel.gram(Z))
    return {"seconds": seconds, "peak": peak_gb(), "all": n * kernel.n_features * 4 / 1e9}


MEASUREMENTS: dict[str, Callable[..., Result]] = {
    "gram": gram,
    "memory": memory,
    "leave_one_out": leave_one_out,
    "share": share,
    "sweep": sweep,
    "networks": networks,
    "curve": curve,
    "infinite": infinite,
    "prediction": prediction,
    "tangent": tangent,
}


# The table ------------------------------------------------------------------------------------------------------------


WIDTH = 112


class Table:
    """Rows of measured, target and verdict, printed as they come."""

    def __init__(self, judged: bool):
        self.judged, self.rows = judged, list[dict[str, Any]]()
        print(f"{'what':<{WIDTH}} {'measured':>10} {'target':>10}", flush=True)

    def add(self, what: str, value: float, unit: str = "x", *, least: float | None = None, most: float | None = None):
        shown = f"{100 * value:.1f} %" if unit == "%" else f"{value:.2f} {unit}"
        if least is None and most is None:
            target, met = "", None
        else:
            bound = least if least is not None else most
            sign = ">=" if least is not None else "<="
            target = f"{sign} {100 * bound:g} %" if unit == "%" else f"{sign} {bound:g} {unit}"
            met = value >= bound if least is not None else value <= bound
        verdict = "" if met is None or not self.judged else ("met" if met else "MISSED")
        self.rows.append({"what": what, "value": value, "unit": unit, "target": target, "met": met})
        print(f"{what:<{WIDTH}} {shown:>10} {target:>10}  {verdict}".rstrip(), flush=True)


def fresh(name: str, **options: Any) -> Result:
    """Run one measurement in a process of its own."""
    command = [sys.executable, __file__, "--measure", name, json.dumps(options)]
    root = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths})
    if done.returncode:
        sys.exit(f"{name} {options} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def run(size: dict[str, dict[str, int]], *, quick: bool, full: bool) -> list[dict[str, Any]]:
    table = Table(judged=not quick)

    def measure(name: str, **options: Any) -> Result:
        with_torch = options.get("way") not in ("numpy", "textbook")
        return MEASUREMENTS[name](**options) if quick and with_torch else fresh(name, **options)  # importing takes long

    for dtype, act in (("float32", "relu"), ("float32", "tanh"), ("float64", "relu")):
        if dtype == "float64" and not full and not quick:
            continue
        s = size["gram"]
        r = measure("gram", **s, dtype=dtype, act=act)
        what = f"gram {s['q']} x {s['n']}, d = {s['d']}, k = {s['k']}, {act}, {dtype}: time of its two products"
        table.add(what, r["gram"] / r["products"], most=1.5 if dtype == "float32" else None)

    widths = [size["gram"]["k"], 10 * size["gram"]["k"] if full else 2 * size["gram"]["k"]]
    peaks = [measure("memory", **size["memory"], k=k, dtype="float32", act="relu")["peak"] for k in widths]
    table.add(f"the same: peak memory of the process, k = {widths[0]}", peaks[0], "GB", most=1.3)
    table.add(f"the same: peak memory at k = {widths[1]} against k = {widths[0]}", peaks[1] / peaks[0], most=1.1)

    s = size["leave_one_out"]
    r = measure("leave_one_out", **s)
    what = f"all alignments and residuals, n = {s['n']}, k = {s['k']}: one by one against one Cholesky"
    table.add(f"{what}, QR", r["qr"] / r["closed"], least=100)
    table.add(f"{what}, lstsq", r["lstsq"] / r["closed"])

    s = size["share"]
    for dtype in ("float32", "float64"):
        r = measure("share", **s, dtype=dtype)
        what = f"all that follows the gram, n = {s['n']}, k = {s['k']}: share of the {dtype} gram's time"
        table.add(what, r["rest"] / r["gram"], "%", most=0.05)

    s = size["sweep"]
    ways = [("spurlib", "float32"), ("spurlib", "float64"), ("numpy", "float32"), ("numpy", "float64")]
    results = {
        (way, dtype): measure("sweep", **s, way=way, dtype=dtype) for way, dtype in [*ways, ("textbook", "float64")]
    }
    sizes = f"N = {s['n']}, d = {s['d']}, k = {s['k']}"
    seconds = {key: r["seconds"] for key, r in results.items()}
    book = seconds["textbook", "float64"]
    table.add(
        f"accuracies, {sizes}: textbook way against spurlib float64", book / seconds["spurlib", "float64"], least=20
    )
    table.add(
        f"accuracies, {sizes}: textbook way against spurlib float32", book / seconds["spurlib", "float32"], least=40
    )
    for dtype, least in (("float32", 3.0), ("float64", None)):
        ratio = seconds["numpy", dtype] / seconds["spurlib", dtype]
        table.add(f"accuracies, {sizes}: plain numpy, {dtype}, against spurlib {dtype}", ratio, least=least)
    for (way, dtype), r in results.items():
        table.add(
            f"    {way} {dtype}: best seconds (test {r['test']:.3f}, spurious {r['spurious']:.3f})", r["seconds"], "s"
        )
        table.add(f"    {way} {dtype}: peak memory of the process", r["peak"], "GB")

    s = size["curve"]
    ours, theirs = measure("curve", **s, way="spurlib"), measure("curve", **s, way="textbook")
    sizes = f"N up to {s['largest']}, k = {s['k']}"
    what = (
        f"a whole curve, {sizes}: textbook way for each N (extrapolated from k = {2 * s['smaller']}) against one gram"
    )
    table.add(what, theirs["seconds"] / ours["seconds"], least=100)
    table.add("    spurlib float32: best seconds", ours["seconds"], "s")
    table.add(f"    textbook float64: seconds at k = {2 * s['smaller']}", theirs["measured"], "s")
    table.add(f"    textbook float64: time at k = {2 * s['smaller']} against k = {s['smaller']}", theirs["doubling"])
    larger = {**size["networks"], "first": 5 * size["networks"]["first"], "second": 4 * size["networks"]["second"]}
    for s in (size["networks"], larger):
        r = measure("networks", **s)
        what = f"{s['models']} leave-one-out networks {s['d']}-{s['first']}-{s['second']}-1, n = {s['n']}"
        table.add(f"{what}: one by one against together", r["apart"] / r["together"])

    s = size["infinite"]
    for act in ("tanh", "gelu"):
        r = measure("infinite", **s, act=act)
        what = (
            f"kernel of infinite width, {s['n']} x {s['n']}, d = {s['d']}: series of {act} against closed form of ReLU"
        )
        table.add(what, r["series"] / r["closed"], most=1.5)
    s = size["prediction"]
    r = measure("prediction", **s)
    table.add(f"predicted accuracies, {s['points']} sizes at once: milliseconds a point", r["accuracy"], "ms", most=1.0)
    table.add(f"predicted alignment, {s['points']} sizes at once: milliseconds a point", r["gamma"], "ms", most=1.0)
    table.add("predicted accuracies, one point alone", r["one"], "ms")
    s = size["tangent"]
    r = measure("tangent", **s)
    what = f"gradients of ResNet-18, {s['side']} x {s['side']} x 3: gram {s['n']} x {s['n']}"
    table.add(f"{what}: peak memory of the process", r["peak"], "GB", most=4)
    table.add("    all gradients would take", r["all"], "GB")
    table.add("    seconds", r["seconds"], "s")
    return table.rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, no verdicts")
    parser.add_argument("--full", action="store_true", help="also float64, and memory at ten times the width")
    parser.add_argument("--json", type=Path, help="write the rows to this file as well")
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "OPTIONS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASUREMENTS[options.measure[0]](**json.loads(options.measure[1]))))
        return
    rows = run(QUICK_SIZE if options.quick else FULL_SIZE, quick=options.quick, full=options.full)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
