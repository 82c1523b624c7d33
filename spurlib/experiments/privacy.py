"""Label inference and membership for random features that are trained with and without privacy."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from .._checks import number, numbers, positive, symmetric, tensor
from ..activations import Activation, activation
from ..data import synthetic
from ..features import RandomFeatures
from ..hermite import gaussian_expectation
from ..interpolation import Solve
from ..privacy import gdp_epsilon, gdp_noise, private_regression, reading_bound
from .definition import Experiment, Row

__all__ = ["EXPERIMENTS", "Privacy", "answers_without", "centered", "privacy_curve"]

_QUERIES = ("zero", "fresh")
_PARTS = ("train", *_QUERIES, "test", "strangers")


def centered(act: Any) -> Activation:
    """Return an activation minus its mean under N(0, 1), a constant that does not depend on the data.

    A constant part of the features is common to all samples, so that the first steps of the descent mostly depend on
    the mean of the labels.

    Parameters
    ----------
    act : str or Activation
        The activation.

    Returns
    -------
    Activation
        Its Hermite coefficient of degree zero is zero.

    Raises
    ------
    ValueError
        As for `activation`.
    """
    found = activation(act)
    return found.shifted(-float(found.coefficients(0)[0]))


def answers_without(K: Any, g: Any, left_out: Any, asked: Any, *, steps: int, rate: float, clip: float) -> np.ndarray:
    """Return predictions of noiseless clipped descent when samples are left out, one at a time.

    These are the predictions of models trained without one sample, which can be computed from the remaining samples.

    Parameters
    ----------
    K : array, shape (m, m)
        Kernel matrix of all points, the training samples first.
    g : array, shape (n,)
        Training labels.
    left_out : array of int, shape (a,)
        Position of the sample that run j leaves out; the other samples keep their weight 1 / n.
    asked : array of int, shape (a,)
        Position of the point at which run j is evaluated.
    steps, rate, clip
        As for `private_regression`, but `clip` must be finite.

    Returns
    -------
    ndarray, shape (a,)
        The prediction of each run.

    Raises
    ------
    ValueError
        Shapes do not match, `K` is not symmetric, positions or numbers are out of range, or entries are NaN or
        infinite.
    """
    K, g = symmetric(K, "K"), tensor(g, "g", ndim=1).cpu().numpy()
    n = len(g)
    if n > len(K):
        raise ValueError(f"g must be a list of at most {len(K)} labels, got shape {g.shape}")
    left_out, asked = _positions(left_out, "left_out", n), _positions(asked, "asked", len(K))
    runs = len(left_out)
    if len(asked) != runs:
        raise ValueError(f"left_out and asked must be equally many, got {runs} and {len(asked)}")
    steps, rate, clip = positive(steps, "steps"), number(rate, "rate", above=0.0), number(clip, "clip", above=0.0)
    f, total = np.zeros((n, runs)), np.zeros((n, runs))
    longest = clip / np.sqrt(np.diag(K)[:n, None])
    for _ in range(steps):
        move = np.clip(f - g[:, None], -longest, longest)
        move[left_out, np.arange(runs)] = 0.0
        total += move
        f -= rate / n * (K[:n, :n] @ move)
    return np.asarray(-rate / n * np.einsum("ja,aj->a", total, K[asked, :n]))


def _positions(value: Any, name: str, count: int) -> np.ndarray:
    x = numbers(value, name, least=0.0, below=float(count), whole=True)
    if x.ndim != 1:
        raise ValueError(f"{name} must be a list of positions, got shape {x.shape}")
    return x.astype(int)


@dataclass(frozen=True)
class Privacy:
    """Settings of `privacy_curve`.

    Attributes
    ----------
    data, kind, act, dtype : str
        ``"synthetic"`` data, ``"rf"`` features; their activation and precision.
    d, alpha : int, float
        Dimension, and fraction of spurious coordinates.
    k : int
        The width.
    sizes : tuple of int
        Sizes of the training sets.
    n_test : int
        Number of test samples.
    audited : int
        Number of training samples, the first ones, whose labels and membership are inferred.
    mus : tuple of float
        The budgets.
    steps, rate, clip
        As for `private_regression`.
    draws : int
        Number of draws of the noise.
    """

    act: str
    d: int
    k: int
    sizes: tuple[int, ...]
    n_test: int
    audited: int
    mus: tuple[float, ...]
    steps: int
    rate: float
    clip: float
    draws: int
    data: str = "synthetic"
    kind: str = "rf"
    dtype: str = "float64"
    alpha: float = 0.5


def privacy_curve(settings: Privacy, seed: int, device: str) -> list[Row]:
    r"""Measure accuracies, label inference and membership attacks for privately trained random features.

    The activation is centered, and the kernel is divided by k times its energy, so that the features of a sample have
    norm about one.

    Parameters
    ----------
    settings : Privacy
        What to measure.
    seed : int
        Seed of data, features and noise.
    device : str
        Where to compute the kernel matrix.

    Returns
    -------
    list of dict
        For each size ``n``, one row for each budget with ``run`` "private", one with "noiseless" (the same clipped
        descent without noise) and one with "interpolator" (with a ridge of 1e-8 times the mean of the diagonal). The
        entries are ``mu`` under replacement, infinite for the last two; ``epsilon`` at delta = 1 / n^2; ``clipped``,
        the fraction of clipped gradients; ``bound``, that of `reading_bound`; ``test_accuracy``; and, for the queries
        with core ``zero`` and ``fresh``, ``spurious_accuracy_QUERY``, the accuracy of the sign attack, and
        ``informed_QUERY``, that of the informed attack: the sign of the prediction minus the prediction without the
        sample (see `answers_without`; for the interpolator, the leave-one-out prediction). ``advantage_loss`` and
        ``advantage_query`` are the true minus the false positive rates of the loss attack, which compares the loss at a
        sample with a threshold, and of the query attack, which compares the product of the label and the prediction at
        the query with a fresh core with a threshold. The threshold is chosen on the other half of the samples.

    Raises
    ------
    ValueError
        As for the data, the features and `private_regression`.
    """
    return [row for n in settings.sizes for row in _budgets(settings, n, seed, device)]


def _budgets(c: Privacy, n: int, seed: int, device: str) -> list[Row]:
    """The rows of one size."""
    some = min(c.audited, n)
    descent: dict[str, Any] = {"steps": c.steps, "rate": c.rate}
    zero, fresh = (synthetic(n=n, d=c.d, alpha=c.alpha, n_test=c.n_test, query=query, seed=seed) for query in _QUERIES)
    strangers = zero.Z_test.copy()  # spurious parts of the test set, with fresh cores
    strangers[:, ~zero.spurious] = np.roll(zero.Z_test[:, ~zero.spurious], 1, axis=0)
    parts = [zero.Z, zero.Z_spurious[:some], fresh.Z_spurious[:some], zero.Z_test, strangers]
    ends = np.cumsum([len(part) for part in parts])
    at = dict(zip(_PARTS, np.split(np.arange(ends[-1]), ends[:-1]), strict=True))
    K, g, g_test, audited = _kernel(c, np.vstack(parts), seed, device), zero.g, zero.g_test, np.arange(some)
    without = {q: answers_without(K, g, audited, at[q], clip=c.clip, **descent) for q in _QUERIES}
    alone, unseen = _interpolator(K, g, at, c.dtype)

    def row(f: np.ndarray, base: dict[str, np.ndarray], **known: Any) -> Row:
        measured: Row = {"n": n, "source": zero.source, **known}
        measured["test_accuracy"] = float(np.mean(f[:, at["test"]] * g_test > 0))
        for q in _QUERIES:
            measured[f"spurious_accuracy_{q}"] = float(np.mean(f[:, at[q]] * g[:some] > 0))
            measured[f"informed_{q}"] = float(np.mean((f[:, at[q]] - base[q]) * g[:some] > 0))
        loss = -np.abs(f[:, audited] - g[:some]), -np.abs(f[:, at["test"]] - g_test)
        query = f[:, at["fresh"]] * g[:some], f[:, at["strangers"]] * g_test
        return measured | {"advantage_loss": _advantage(*loss), "advantage_query": _advantage(*query)}

    rows = []
    for position, mu in enumerate(c.mus):
        noise, of_noise = gdp_noise(mu, c.steps), 1000 * seed + position
        run = private_regression(K, g, clip=c.clip, noise=noise, draws=c.draws, seed=of_noise, **descent)
        budget = {"run": "private", "mu": float(mu), "epsilon": gdp_epsilon(mu, n**-2.0), "bound": reading_bound(mu)}
        rows.append(row(run.outputs, without, **budget, clipped=float(run.clipped.mean())))
    run = private_regression(K, g, clip=c.clip, noise=0.0, **descent)
    none = {"mu": math.inf, "epsilon": math.inf, "bound": 1.0}
    rows.append(row(run.outputs, without, run="noiseless", **none, clipped=float(run.clipped.mean())))
    rows.append(row(alone[None], unseen, run="interpolator", **none, clipped=0.0))
    return rows


def _kernel(c: Privacy, points: np.ndarray, seed: int, device: str) -> np.ndarray:
    act = centered(c.act)
    features = RandomFeatures(act, d=c.d, k=c.k, seed=seed, device=device, dtype=c.dtype, draw_on="cpu")
    return np.asarray(features.gram(points)) / (c.k * gaussian_expectation(lambda u: act(u) ** 2, kinks=act.kinks))


def _interpolator(
    K: np.ndarray, g: np.ndarray, at: dict[str, np.ndarray], dtype: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Predictions at all points, and at the queries without their sample: f_{-i}(z_i^s) = f(z_i^s) - F_i r_i."""
    n = len(g)
    m = Solve(K[:n, :n], g, ridge=1e-8 * np.trace(K[:n, :n]) / n, dtype=dtype)
    f, unseen = m.predict(K[:, :n]), {}
    for query in _QUERIES:
        F = m.alignment(K[at[query], :n]).diagonal()
        unseen[query] = f[at[query]] - F * m.loo_residuals[: len(F)]
    return f, unseen


def _advantage(members: np.ndarray, others: np.ndarray) -> float:
    """True minus false positives of a threshold on scores; scores have shape (draws, samples).

    The threshold for each half of the samples is the best one of the other half, so that the choice adds no bias.
    """
    total = 0.0
    for chosen, judged in ((0, 1), (1, 0)):
        a, b = (np.sort(scores[:, chosen::2], axis=None) for scores in (members, others))
        levels = np.concatenate([a, b])
        gain = np.searchsorted(b, levels) / b.size - np.searchsorted(a, levels) / a.size
        level = levels[np.argmax(gain)]
        total += float(np.mean(members[:, judged::2] >= level) - np.mean(others[:, judged::2] >= level))
    return total / 2


def _cells(scale: str) -> list[Privacy]:
    n, d, ratios, some = (2000, 100, (1, 2, 5, 10), 400) if scale == "paper" else (200, 10, (1, 10, 100), 100)
    common = partial(
        Privacy,
        act="relu",
        d=d,
        sizes=(n,),
        n_test=2 * some if scale == "page" else some,
        audited=some,
        mus=(0.1, 0.2, 0.5, 1.0, 2.0, 4.0),
        steps=20,
        rate=float(d),  # public: the largest eigenvalue of K / n is near 1 / d
        clip=0.2,
        draws=10,
    )
    return [common(k=ratio * n) for ratio in ratios]


def _one_budget(settings: Privacy) -> Privacy:
    return replace(settings, mus=settings.mus[:1])


EXPERIMENTS: tuple[Experiment[Any], ...] = (
    Experiment(
        "privacy",
        "accuracy, readings and membership of privately trained random features, against the budget and the width",
        _cells,
        privacy_curve,
        keys=("n", "run", "mu"),
        shorten=_one_budget,
        draws={"page": 3, "paper": 5},
    ),
)
"""The experiments of this module."""
