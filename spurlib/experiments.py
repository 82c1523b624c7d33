"""The sweeps behind the figures, and the command line that runs, lists and verifies them.

``python -m spurlib.experiments list | run NAME | verify [NAME]``; ``--help`` says more.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

import numpy as np
import torch

from .data import SpuriousData, framed_images, synthetic
from .features import RandomFeatures, TangentFeatures
from .interpolation import Interpolator
from .records import MissingRecordError, Record, RecordError, StaleRecordError
from .runs import SCALES, Configuration, Experiment, Row, load, run
from .verification import verify

__all__ = ["accuracy_curve", "experiment", "experiment_names", "load_record", "main", "register"]

_SIZES = [10, 20, 50, 100, 200, 500, 1000]
_KINDS = {"rf": RandomFeatures, "ntk": TangentFeatures}
_REGISTRY: dict[str, Experiment] = {}


def accuracy_curve(configuration: Configuration, seed: int, device: str) -> list[Row]:
    r"""Accuracies, alignments, stabilities and risks of one draw of data and features, for growing training sets.

    One kernel matrix of the largest training set serves all smaller ones.

    Parameters
    ----------
    configuration : dict
        ``data`` ("synthetic" or the name of images), ``kind`` ("rf" or "ntk"), ``act``, ``k``, ``dtype``, ``sizes``,
        ``n_test``; for synthetic data ``d`` and ``alpha``.
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
    features = _KINDS[configuration["kind"]](
        configuration["act"],
        d=zero.Z.shape[1],
        k=configuration["k"],
        seed=seed,
        device=device,
        dtype=dtype,
        draw_on="cpu",
    )
    parts = [zero.Z, zero.Z_spurious, fresh.Z_spurious, zero.Z_test]
    samples = torch.from_numpy(np.vstack(parts)).to(features.device)
    K, K_zero, K_fresh, K_test = features.gram(samples, samples[: len(zero.Z)]).split([len(part) for part in parts])
    g, g_test = (torch.from_numpy(labels).to(features.device) for labels in (zero.g, zero.g_test))
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
    return framed_images(configuration["data"], query=query, seed=seed, **sizes)


def _small_sizes(configuration: Configuration) -> Configuration:
    """The same with small training sets only: training sets are nested, and rows of the smaller ones are unchanged."""
    sizes = configuration["sizes"]
    return {**configuration, "sizes": [n for n in sizes if n <= 100] or sizes[:1]}


def _curves(kind: str, data: str, acts: list[str], most: int = 1000) -> Experiment:
    """The accuracy curves of one kernel on one data set: the paper's at paper scale."""

    def cells(scale: str) -> list[Configuration]:
        paper = scale == "paper"
        sizes = [n for n in [*_SIZES, 2000, 5000] if n <= most] if paper else [10, 20, 50, 100, 200]
        width = (100_000 if paper else 4000) if kind == "rf" else 100
        # the tangent kernel costs little: it can afford double precision, which its small width wants
        dtype = "float32" if kind == "rf" and paper else "float64"
        common = {"data": data, "kind": kind, "k": width, "dtype": dtype, "n_test": 1000}
        if data != "synthetic":
            return [{**common, "act": act, "sizes": sizes} for act in acts]
        d, sizes = (1000, sizes) if paper else (300, [*sizes, 300])
        return [{**common, "act": act, "d": d, "alpha": alpha, "sizes": sizes} for act in acts for alpha in (0.5, 0.25)]

    features = {"rf": "random features", "ntk": "tangent features"}[kind]
    about = f"accuracies, alignment and stability of {features} on {data}"
    return Experiment(f"{kind}-{data}", about, cells, accuracy_curve, shorten=_small_sizes)


def register(new: Experiment) -> Experiment:
    """Make an experiment known under its name, and return it; a ``ValueError`` when the name is taken."""
    if new.name in _REGISTRY:
        raise ValueError(f"experiment {new.name!r} is there already")
    _REGISTRY[new.name] = new
    return new


register(_curves("rf", "synthetic", ["h1+h2", "h1+h4"]))
register(_curves("rf", "mnist", ["relu"], most=5000))
register(_curves("rf", "cifar10", ["relu"]))
# h_l' = sqrt(l) h_{l-1}: derivatives h0 + h1 and h0 + h3
register(_curves("ntk", "synthetic", [f"h1+{2**-0.5!r}*h2", "h1+0.5*h4"]))
register(_curves("ntk", "mnist", ["relu"], most=5000))
register(_curves("ntk", "cifar10", ["relu"]))


def experiment_names() -> list[str]:
    """Names of all experiments, in the order in which they were registered."""
    return list(_REGISTRY)


def experiment(name: str) -> Experiment:
    """The experiment of a name; a ``ValueError`` that lists those known when there is none."""
    if name not in _REGISTRY:
        raise ValueError(f"experiment {name!r} is not known; known are {', '.join(_REGISTRY)}")
    return _REGISTRY[name]


def load_record(name: str, scale: str = "paper", folder: str | os.PathLike[str] | None = None) -> Record:
    """Read the record of the experiment of a name: see `spurlib.runs.load`."""
    return load(experiment(name), scale, folder)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return options.act(options)
    except (KeyboardInterrupt, ValueError, OSError, ImportError) as error:
        notes = getattr(error, "__notes__", [])
        print("\n".join([f"{type(error).__name__}: {error}", *notes]), file=sys.stderr)
        return 130 if isinstance(error, KeyboardInterrupt) else 1


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


def _list(options: argparse.Namespace) -> int:
    print(f"{'experiment':16} {'scale':6} {'cells':>5}  record")
    for name, e in _REGISTRY.items():
        for scale in SCALES:
            count = len(e.cells(scale)) * e.draws[scale]
            print(f"{name:16} {scale:6} {count:5}  {_state(name, scale, options.folder)}")
    return 0


def _run(options: argparse.Namespace) -> int:
    chosen = {key: getattr(options, key) for key in ("seeds", "device", "jobs", "backend", "address", "folder")}
    record = run(experiment(options.name), options.scale, **chosen)
    seconds, data = record.provenance["seconds"], ", ".join(record.provenance["data"])
    print(f"{options.name}-{options.scale}: {len(record.table)} rows in {seconds:.0f} s of computing; data: {data}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    failed = 0
    scales = [options.scale] if options.scale else SCALES
    for name in [options.name] if options.name else experiment_names():
        found = [scale for scale in scales if _state(name, scale, options.folder) != "none"]
        for scale in found or ([scales[-1]] if options.name else []):
            chosen = {key: getattr(options, key) for key in ("cells", "whole", "device", "folder", "seed")}
            rows = verify(experiment(name), scale, **chosen)
            wrong = rows[~rows["agrees"]]
            verdict = "all within three standard errors" if wrong.empty else f"{len(wrong)} DISAGREE"
            print(f"{name}-{scale}: {len(rows)} numbers of seeds {sorted(set(rows['seed']))} again: {verdict}")
            if not wrong.empty:
                print(wrong.to_string(index=False))
            failed += not wrong.empty
    return 1 if failed else 0


if __name__ == "__main__":
    from spurlib.experiments import main as imported  # functions of __main__ are not known to other processes

    sys.exit(imported())
