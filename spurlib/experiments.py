"""The sweeps behind the figures, and the command line that runs, lists and verifies them.

``python -m spurlib.experiments list | run NAME | verify [NAME]``; ``--help`` says more.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp

from . import architectures
from .data import DataNotAvailableError, SpuriousData, framed_images, synthetic
from .features import RandomFeatures, TangentFeatures
from .interpolation import Interpolator
from .kernels import InfiniteWidth
from .networks import fully_connected, predict, resnet18, small_cnn, train, train_many
from .private_experiments import PRIVACY
from .records import MissingRecordError, Record, RecordError, StaleRecordError, records_folder
from .runs import SCALES, Configuration, Experiment, OptionError, Row, load, of_training, refusing, run
from .verification import verify

__all__ = [
    "accuracy_curve",
    "experiment",
    "experiment_names",
    "load_record",
    "main",
    "network_curve",
    "network_stability",
    "register",
]

_SIZES = [10, 20, 50, 100, 200, 500, 1000]
_KINDS = {"rf": RandomFeatures, "ntk": TangentFeatures}
_REGISTRY: dict[str, Experiment] = {}


def accuracy_curve(configuration: Configuration, seed: int, device: str) -> list[Row]:
    r"""Accuracies, alignments, stabilities and risks of one draw of data and features, for growing training sets.

    One kernel matrix of the largest training set serves all smaller ones.

    Parameters
    ----------
    configuration : dict
        ``data`` ("synthetic" or the name of images), ``kind`` ("rf" or "ntk"), ``act``, ``k`` (None: the kernel of
        infinite width), ``dtype``, ``sizes``, ``n_test``; for synthetic data ``d`` and ``alpha``.
    seed : int
        Seed of data and features. The weights are drawn by the CPU's generator, the same for every device.
    device : str
        Where to compute.

    Returns
    -------
    list of dict
        One a size: ``n``; ``source``; ``test_accuracy``, of the sign; ``test_risk``, the mean of (f - g)^2 over the
        test set; ``loo_risk``, the mean R of the squared leave-one-out residuals; ``stability``, the mean of g_i S_i,
        S_i the stability at the sample itself; and, for the queries with core ``zero`` and ``fresh``,
        ``spurious_accuracy_QUERY``; ``alignment_QUERY``, the mean of F_i, and ``alignment_sd_QUERY``, its standard
        deviation over the samples; ``product_QUERY``, the mean of F_i S_i g_i; ``covariance_QUERY``, the mean of
        f(z_i^s) g_i (labels have mean zero), and ``spread_QUERY``, its standard deviation over the samples;
        ``noise_QUERY``, the standard deviation of f_{-i}(z_i^s) = f(z_i^s) - F_i S_i, the answer without the sample.

    Raises
    ------
    ValueError
        As from the data, the features and the interpolator.
    """
    sizes, dtype = configuration["sizes"], getattr(torch, configuration["dtype"])
    zero, fresh = (_data(configuration, seed, query) for query in ("zero", "fresh"))
    kind, act, k = (configuration[key] for key in ("kind", "act", "k"))
    drawn = {"d": zero.Z.shape[1], "k": k, "seed": seed, "device": device, "dtype": dtype, "draw_on": "cpu"}
    kernel = InfiniteWidth(act, kind) if k is None else _KINDS[kind](act, **drawn)
    parts = [zero.Z, zero.Z_spurious, fresh.Z_spurious, zero.Z_test]
    samples = torch.from_numpy(np.vstack(parts)).to(device)
    K, K_zero, K_fresh, K_test = kernel.gram(samples, samples[: len(zero.Z)]).split([len(part) for part in parts])
    g, g_test = (torch.from_numpy(labels).to(device) for labels in (zero.g, zero.g_test))
    rows = []
    for n in sizes:
        m = Interpolator.from_gram(K[:n, :n], g[:n], dtype=dtype)
        f_test, S = m.predict(K_test[:, :n]), m.loo_residuals
        row = {
            "n": n,
            "source": zero.source,
            "test_accuracy": _mean(f_test * g_test > 0),
            "test_risk": _mean((f_test - g_test) ** 2),
            "loo_risk": _mean(S**2),
            "stability": _mean(S * g[:n]),
        }
        for query, queries in (("zero", K_zero), ("fresh", K_fresh)):
            f, F = m.predict(queries[:n, :n]), m.alignment(queries[:n, :n]).diagonal()
            row |= {
                f"spurious_accuracy_{query}": _mean(f * g[:n] > 0),
                f"alignment_{query}": _mean(F),
                f"alignment_sd_{query}": float(F.std(correction=0)),
                f"product_{query}": _mean(F * S * g[:n]),
                f"covariance_{query}": _mean(f * g[:n]),
                f"spread_{query}": float((f * g[:n]).std(correction=0)),
                f"noise_{query}": float((f - F * S).std(correction=0)),
            }
        rows.append(row)
    return rows


def _mean(x: torch.Tensor) -> float:
    return float(x.double().mean())


def _data(configuration: Configuration, seed: int, query: str) -> SpuriousData:
    sizes: dict[str, Any] = {"n": max(configuration["sizes"]), "n_test": configuration["n_test"]}
    if configuration["data"] == "synthetic":
        return synthetic(d=configuration["d"], alpha=configuration["alpha"], query=query, seed=seed, **sizes)
    if "classes" in configuration:
        sizes["classes"] = range(configuration["classes"])
    return framed_images(configuration["data"], query=query, seed=seed, **sizes)


def network_curve(configuration: Configuration, seed: int, device: str) -> list[Row]:
    r"""Accuracies of trained networks, for growing training sets.

    Parameters
    ----------
    configuration : dict
        ``data`` ("synthetic" or the name of images), ``kind`` ("fc", "cnn" or "resnet18"), ``act`` and ``dtype`` (for
        the record: ReLU and single precision), ``loss``, ``sizes``, ``n_test``, ``epochs`` (at most), ``until`` (the
        train loss at which to stop, or None); for synthetic data ``d`` and ``alpha``, for images ``classes``, their
        number, of which the first are taken.
    seed : int
        Seed of data, weights and order of the samples.
    device : str
        Where to compute.

    Returns
    -------
    list of dict
        One a size: ``n``; ``source``; ``epochs_run``; ``train_loss`` and ``train_accuracy``, of the trained network
        (with batch normalization as after training); ``test_accuracy``; ``spurious_accuracy_QUERY`` for the queries
        with core ``zero`` and ``fresh``; ``unseen_accuracy``, the share of right answers to the frames of the test set
        around the core zero. With each of the last three goes ``chance_...``: the share of right answers that one
        expects when labels and answers are paired blindly.

    Raises
    ------
    ValueError
        As from the data and from `train`.
    """
    zero, fresh = (_data(configuration, seed, query) for query in ("zero", "fresh"))
    start, rows = _network(configuration, zero, seed), []
    for n in configuration["sizes"]:
        g = zero.g[:n]
        chosen = {key: configuration[key] for key in ("loss", "epochs", "until")}
        model, losses = train(start, zero.Z[:n], g, seed=seed, device=device, **chosen)
        row = {"n": n, "source": zero.source, "epochs_run": len(losses)} | _fit(model, zero.Z[:n], g)
        row["test_accuracy"] = float(np.mean(_answer(predict(model, zero.Z_test)) == zero.g_test))
        for name, Z, labels in (
            ("spurious_accuracy_zero", zero.Z_spurious[:n], g),
            ("spurious_accuracy_fresh", fresh.Z_spurious[:n], g),
            ("unseen_accuracy", np.where(zero.spurious, zero.Z_test, 0.0), zero.g_test),
        ):
            answers = _answer(predict(model, Z))
            row[name] = float(np.mean(answers == labels))
            row[f"chance_{name}"] = sum(float(np.mean(answers == c) * np.mean(labels == c)) for c in set(labels))
        rows.append(row)
    return rows


def network_stability(configuration: Configuration, seed: int, device: str) -> list[Row]:
    r"""Stability of trained networks by training again without single samples, beside their spurious answers.

    Parameters
    ----------
    configuration : dict
        As for `network_curve`, two classes, the square loss, and ``epochs`` exactly; ``left_out``, the positions of the
        samples that are left out, one at a time; ``relabel``: whether to train once more with the label of each of
        them flipped.
    seed : int
        Seed of data, weights and order of the samples.
    device : str
        Where to compute.

    Returns
    -------
    list of dict
        One a size and sample: ``n``; ``sample``, its position; ``source``; of the network that has seen all,
        ``train_loss``, ``train_accuracy``, ``test_accuracy`` and, over all n samples, ``spurious_accuracy_QUERY`` and
        ``covariance_QUERY``, the covariance of outputs f(z_i^s) and labels; and of the sample, S being its stability,
        ``label``; ``stability``, S(z_i); and for the queries with core ``zero`` and ``fresh`` ``stability_QUERY``,
        S(z_i^s), and ``output_QUERY``, f(z_i^s). With ``relabel``, ``stability_relabeled`` and
        ``stability_relabeled_QUERY``: the same S of the network that has seen the flipped label.

    Raises
    ------
    ValueError
        As from the data and from `train_many`.
    """
    zero, fresh = (_data(configuration, seed, query) for query in ("zero", "fresh"))
    start, left_out = _network(configuration, zero, seed), configuration["left_out"]
    rows: list[Row] = []
    for n in configuration["sizes"]:
        g = zero.g[:n]
        labels, weights = np.tile(g, (2 * len(left_out) + 1, 1)), np.ones((2 * len(left_out) + 1, n))
        for j, i in enumerate(left_out, start=1):
            weights[j, i] = 0.0
            labels[j + len(left_out), i] *= -1
        count = len(labels) if configuration["relabel"] else len(left_out) + 1
        everything, *others = train_many(
            start,
            zero.Z[:n],
            labels[:count],
            weights=weights[:count],
            loss=configuration["loss"],
            epochs=configuration["epochs"],
            seed=seed,
            device=device,
        )
        common: Row = {"n": n, "source": zero.source} | _fit(everything, zero.Z[:n], g)
        common["test_accuracy"] = float(np.mean(_answer(predict(everything, zero.Z_test)) == zero.g_test))
        asked = {"": zero.Z[:n], "_zero": zero.Z_spurious[:n], "_fresh": fresh.Z_spurious[:n]}
        f = {query: predict(everything, Z) for query, Z in asked.items()}
        for query in ("_zero", "_fresh"):
            common[f"spurious_accuracy{query}"] = float(np.mean(_answer(f[query]) == g))
            common[f"covariance{query}"] = float(np.mean((f[query] - f[query].mean()) * g))
        for j, i in enumerate(left_out):
            row = common | {"sample": i, "label": float(g[i])}
            for query, Z in asked.items():
                without = predict(others[j], Z[i : i + 1])[0]
                row[f"stability{query}"] = float(f[query][i] - without)
                if query:
                    row[f"output{query}"] = float(f[query][i])
                if configuration["relabel"]:
                    flipped = predict(others[j + len(left_out)], Z[i : i + 1])[0]
                    row[f"stability_relabeled{query}"] = float(flipped - without)
            rows.append(row)
    return rows


def _network(configuration: Configuration, data: SpuriousData, seed: int) -> torch.nn.Module:
    """The network before training."""
    count = configuration.get("classes", 1)
    if configuration["kind"] == "fc":
        return fully_connected(data.Z.shape[1], count, act=configuration["act"], seed=seed)
    return {"cnn": small_cnn, "resnet18": resnet18}[configuration["kind"]](data.image_shape, count, seed=seed)


def _answer(f: np.ndarray) -> np.ndarray:
    """The class with the largest output; of one output, the sign, where zero counts as positive."""
    return f.argmax(axis=1).astype(float) if f.ndim == 2 else np.where(f >= 0, 1.0, -1.0)


def _fit(model: torch.nn.Module, Z: np.ndarray, g: np.ndarray) -> Row:
    f = predict(model, Z).astype(float)
    loss = (f - g) ** 2 if f.ndim == 1 else logsumexp(f, axis=1) - f[np.arange(len(g)), g.astype(int)]
    return {"train_loss": float(loss.mean()), "train_accuracy": float(np.mean(_answer(f) == g))}


# The largest training set that `verify` runs again: what two cores do in seconds, twenty at most.
_VERIFIED = {
    "rf-synthetic": 500,
    "rf-mnist": 500,
    "rf-cifar10": 100,
    "wide-synthetic": 1000,
    "ntk-synthetic": 1000,
    "ntk-mnist": 1000,
    "ntk-cifar10": 1000,
    "network-fc-synthetic": 200,
    "network-fc-mnist": 200,
    "network-cnn-mnist": 50,
    "network-cnn-cifar10": 10,
    "network-resnet18-cifar10": 10,
}


def _up_to(most: int, configuration: Configuration) -> Configuration:
    """The same with small training sets only: training sets are nested, and rows of the smaller ones are unchanged."""
    sizes = configuration["sizes"]
    return {**configuration, "sizes": [n for n in sizes if n <= most] or sizes[:1]}


def _curves(kind: str, data: str, acts: list[str], most: int = 1000) -> Experiment:
    """The accuracy curves of one kernel on one data set: the paper's at paper scale."""

    def cells(scale: str) -> list[Configuration]:
        paper = scale == "paper"
        sizes = [n for n in [*_SIZES, 2000, 5000] if n <= most] if paper else [10, 20, 50, 100, 200]
        width = (100_000 if paper else 2000) if kind == "rf" else 100
        # the tangent kernel costs little: it can afford double precision, which its small width wants
        dtype = "float32" if kind == "rf" and paper else "float64"
        common = {"data": data, "kind": kind, "k": width, "dtype": dtype, "n_test": 1000}
        if data != "synthetic":
            return [{**common, "act": act, "sizes": sizes} for act in acts]
        d, sizes = (1000, sizes) if paper else (300, [*sizes, 300])
        return [{**common, "act": act, "d": d, "alpha": alpha, "sizes": sizes} for act in acts for alpha in (0.5, 0.25)]

    name, features = f"{kind}-{data}", {"rf": "random features", "ntk": "tangent features"}[kind]
    about = f"accuracies, alignment and stability of {features} on {data}"
    return Experiment(name, about, cells, accuracy_curve, shorten=partial(_up_to, _VERIFIED[name]))


# Name: kind, data, largest N at page and at paper scale, most epochs, train loss at which to stop: what two cores can
# do. The paper's own sizes, for a GPU: write 50_000, 1000, None as the last three of a line, run with --device cuda.
_NETWORKS: dict[str, tuple[str, str, int, int, int, float | None]] = {
    "network-fc-synthetic": ("fc", "synthetic", 200, 2000, 1000, 1e-4),
    "network-fc-mnist": ("fc", "mnist", 200, 50_000, 1000, 1e-3),
    "network-cnn-mnist": ("cnn", "mnist", 50, 1000, 200, 1e-2),
    "network-cnn-cifar10": ("cnn", "cifar10", 50, 500, 200, 1e-2),
    "network-resnet18-cifar10": ("resnet18", "cifar10", 20, 200, 60, None),
}


def _wide_cells(scale: str) -> list[Configuration]:
    sizes, d = ([30, 100, 300, 1000, 1500, 2000, 3000], 1000) if scale == "paper" else ([10, 30, 100, 300, 600], 200)
    common = {"data": "synthetic", "kind": "rf", "k": None, "dtype": "float64", "n_test": 1000, "d": d, "sizes": sizes}
    return [{**common, "act": act, "alpha": alpha} for act in ("h1+h2", "h1+h4", "relu") for alpha in (0.5, 0.25)]


def _network_curves(name: str) -> Experiment:
    kind, data, most_page, most_paper, epochs, until = _NETWORKS[name]

    def cells(scale: str) -> list[Configuration]:
        paper = scale == "paper"
        most = most_paper if paper else most_page
        sizes = [n for n in [*_SIZES, 2000, 5000, 10_000, 20_000, 50_000] if n <= most]
        common: Configuration = {"kind": kind, "data": data, "act": "relu", "dtype": "float32"}
        common |= {"n_test": 1000 if paper else 500, "epochs": epochs, "until": until, "sizes": sizes}
        if data != "synthetic":
            return [{**common, "classes": 10, "loss": "cross-entropy"}]
        d = 1000 if paper else 100
        return [{**common, "loss": "square", "d": d, "alpha": alpha} for alpha in (0.5, 0.25)]

    about = f"accuracies of trained networks ({kind}) on {data}"
    draws = {"page": 3, "paper": 5 if kind == "fc" else 3}
    shorten = partial(_up_to, _VERIFIED[name])
    return Experiment(name, about, cells, network_curve, shorten=shorten, draws=draws, tolerance=of_training)


def _smallest(configuration: Configuration) -> Configuration:
    """The same with the smallest training set only, and two samples left out."""
    return {**configuration, "sizes": configuration["sizes"][:1], "left_out": configuration["left_out"][:2]}


def _stability_cells(scale: str) -> list[Configuration]:
    common = {"act": "relu", "dtype": "float32", "loss": "square", "n_test": 500, "left_out": list(range(20))}
    fc = {**common, "kind": "fc", "epochs": 100, "relabel": True}
    if scale == "page":
        return [{**fc, "data": "synthetic", "d": 40, "alpha": 0.5, "sizes": [20, 40]}]
    return [
        {**fc, "data": "synthetic", "d": 1000, "alpha": 0.5, "sizes": [50, 100, 200]},
        {**fc, "data": "mnist", "sizes": [50, 100, 200]},
        {**common, "kind": "cnn", "data": "mnist", "epochs": 100, "relabel": False, "sizes": [25, 50, 100]},
    ]


def register(new: Experiment) -> Experiment:
    """Make an experiment known under its name, and return it; a ``ValueError`` when the name is taken."""
    if new.name in _REGISTRY:
        raise ValueError(f"experiment {new.name!r} is there already")
    _REGISTRY[new.name] = new
    return new


register(_curves("rf", "synthetic", ["h1+h2", "h1+h4"]))
register(_curves("rf", "mnist", ["relu"], most=5000))
register(_curves("rf", "cifar10", ["relu"]))
register(
    Experiment(
        "wide-synthetic",
        "accuracies, alignment and stability of infinitely many random features on synthetic data",
        _wide_cells,
        accuracy_curve,
        shorten=partial(_up_to, _VERIFIED["wide-synthetic"]),
    )
)
# h_l' = sqrt(l) h_{l-1}: derivatives h0 + h1 and h0 + h3
register(_curves("ntk", "synthetic", [f"h1+{2**-0.5!r}*h2", "h1+0.5*h4"]))
register(_curves("ntk", "mnist", ["relu"], most=5000))
register(_curves("ntk", "cifar10", ["relu"]))

for _name in _NETWORKS:
    register(_network_curves(_name))
register(
    Experiment(
        "network-stability",
        "stability of trained networks by leaving samples out, beside their spurious answers",
        _stability_cells,
        network_stability,
        keys=("n", "sample"),
        shorten=_smallest,
        draws={"page": 3, "paper": 3},
        tolerance=of_training,
        samples=("sample",),
    )
)
register(PRIVACY)
for _one in architectures.EXPERIMENTS:
    register(_one)


def experiment_names() -> list[str]:
    """Names of all experiments, in the order in which they were registered."""
    return list(_REGISTRY)


def experiment(name: str) -> Experiment:
    """The experiment of a name; an `OptionError` that lists those known when there is none."""
    if name not in _REGISTRY:
        raise OptionError(f"experiment {name!r} is not known; known are {', '.join(_REGISTRY)}")
    return _REGISTRY[name]


def load_record(name: str, scale: str = "paper", folder: str | os.PathLike[str] | None = None) -> Record:
    """Read the record of the experiment of a name: see `spurlib.runs.load`."""
    return load(experiment(name), scale, folder)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        with _stopped_by_sigterm():
            return options.act(options)
    except (KeyboardInterrupt, OptionError, RecordError, DataNotAvailableError, OSError, ModuleNotFoundError) as error:
        # what the user or the machine is to blame for; any other error is a bug, whose traceback is wanted
        notes = getattr(error, "__notes__", [])
        print("\n".join([f"{type(error).__name__}: {error}", *notes]), file=sys.stderr)
        return 1 if not isinstance(error, KeyboardInterrupt) else 143 if error.args else 130


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM stop a run as Ctrl-C does: finished cells are kept, and no process is left behind."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt("terminated")

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread, where signals do not arrive
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m spurlib.experiments", description="Run, list and verify records.")
    commands = parser.add_subparsers(required=True, metavar="list | run | verify")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--folder", help="folder of the records (default: $SPURLIB_RECORDS, or records)")
    listing = commands.add_parser("list", parents=[common], help="list experiments and their records")
    listing.set_defaults(act=_list)
    running = commands.add_parser("run", parents=[common], help="run an experiment, or what is left of it")
    running.add_argument("name", metavar="NAME")
    running.add_argument("--scale", choices=SCALES, default="page", help="default: page")
    running.add_argument("--seeds", type=int, help="number of draws (default: the experiment's)")
    running.add_argument("--jobs", type=int, default=1, help="number of processes (default: 1)")
    running.add_argument("--backend", choices=("loky", "dask"), default="loky", help="who runs them (default: loky)")
    running.add_argument("--replace", action="store_true", help="replace a record of more seeds")
    running.add_argument("--address", help="dask: address of a scheduler (default: a local cluster)")
    running.set_defaults(act=_run)
    verifying = commands.add_parser("verify", parents=[common], help="run a random slice of records again, and compare")
    verifying.add_argument("name", metavar="NAME", nargs="?", help="default: all that have a record")
    verifying.add_argument("--scale", choices=SCALES, help="default: both")
    verifying.add_argument("--cells", type=int, default=1, help="number of cells of each record (default: 1)")
    verifying.add_argument("--whole", action="store_true", help="run the cells in full (default: small sizes only)")
    verifying.add_argument("--seed", type=int, help="of the choice of cells (default: another one each time)")
    verifying.set_defaults(act=_verify)
    for sub in (running, verifying):
        sub.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    return parser


def _state(name: str, scale: str, folder: str | None) -> str:
    try:
        return f"current ({load_record(name, scale, folder).provenance['seeds']} seeds)"
    except MissingRecordError:
        return "none"
    except StaleRecordError:
        return "stale"
    except RecordError:
        return "corrupted"


def _there(folder: str | None) -> None:
    """Refuse a folder that was named and is not there."""
    with refusing():
        found = records_folder(folder)
    if folder is not None and not found.is_dir():
        raise OptionError(f"folder: {folder!r} is not a folder")


def _list(options: argparse.Namespace) -> int:
    _there(options.folder)
    print(f"{'experiment':24} {'scale':6} {'cells':>5}  record")
    for name, e in _REGISTRY.items():
        for scale in SCALES:
            count = len(e.cells(scale)) * e.draws[scale]
            print(f"{name:24} {scale:6} {count:5}  {_state(name, scale, options.folder)}")
    return 0


def _run(options: argparse.Namespace) -> int:
    names = ("seeds", "device", "jobs", "backend", "address", "folder", "replace")
    record = run(experiment(options.name), options.scale, **{name: getattr(options, name) for name in names})
    seconds, data = record.provenance["seconds"], ", ".join(record.provenance["data"])
    print(f"{options.name}-{options.scale}: {len(record.table)} rows in {seconds:.0f} s of computing; data: {data}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    _there(options.folder)
    verified = failed = 0
    scales = [options.scale] if options.scale else SCALES
    for name in [options.name] if options.name else experiment_names():
        experiment(name)
        found = [scale for scale in scales if _state(name, scale, options.folder) != "none"]
        for scale in found or ([scales[-1]] if options.name else []):
            chosen = {key: getattr(options, key) for key in ("cells", "whole", "device", "folder", "seed")}
            rows = verify(experiment(name), scale, **chosen)
            wrong = rows[~rows["agrees"]]
            verdict = "all agree" if wrong.empty else f"{len(wrong)} DISAGREE"
            print(f"{name}-{scale}: {len(rows)} numbers of seeds {sorted(set(rows['seed']))} again: {verdict}")
            if not wrong.empty:
                print(wrong.to_string(index=False))
            verified, failed = verified + 1, failed + (not wrong.empty)
    if not verified:
        raise MissingRecordError(f"there is no record in {records_folder(options.folder)} to verify")
    return 1 if failed else 0


if __name__ == "__main__":
    from spurlib.experiments import main as imported  # functions of __main__ are not known to other processes

    sys.exit(imported())
