"""An interactive figure: predicted curves of many activations and kernels, for pages without a running kernel."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from .._checks import number, numbers
from ..activations import Activation, activation
from ..theory import predict_accuracy, predict_correlated, predict_filter

__all__ = ["Explorer"]

_NAMES = {"alignment": "alignment", "test": "test accuracy", "spurious": "accuracy at the spurious query"}
_MANY = 10**6  # the dimension: predictions depend on ratios only
_CLASSES = ("q0", "q1", "q2")
_PAIRED = 200  # coordinates of a covariance with correlated parts


class Explorer:
    """Interactive curves of alignment, test accuracy and spurious accuracy against N / d.

    In a notebook or on a page it is a figure in which the reader chooses, by mouse or keyboard, the activation or
    kernel, alpha, N / d and, if there are several, the setting. If scripts do not run, the figure and a table for the
    first choice are shown.

    Parameters
    ----------
    acts : sequence of str, Activation or (str, kernel)
        Activations, or pairs of a name and a kernel as for `gamma_kernel`; the first one is shown first.
    alphas : sequence of float
        Fractions of spurious coordinates, in (0, 1), increasing; the middle one is shown first.
    ratios : sequence of float
        Values of N / d, positive, increasing: the grid of the curves. The middle one is marked first.
    runs : iterable of mappings, optional
        Simulated points: ``act``, ``alpha`` (on the grid), ``ratio``, ``quantity`` (``"alignment"``, ``"test"`` or
        ``"spurious"``), ``value`` and ``error``, half the length of the bar. They belong to the first setting.
    settings : mapping of str to mapping, optional
        For each name that is shown, the changes of the model or data: ``{}`` for none; ``{"time": t}`` for gradient
        flow that is stopped at time t over the value of the kernel at equal samples; ``{"correlation": rho}`` for pairs
        of coordinates of core and spurious part with this correlation. Default: one setting without changes.

    Raises
    ------
    ValueError
        There is no activation, or two have the same name; `alphas` or `ratios` are out of range, not increasing, or
        fewer than two; a run is not on the grid, or its numbers are not finite; there is no setting, or one is unknown;
        a prediction is not finite.

    Notes
    -----
    The curves are those of `predict_accuracy`, `predict_filter` and `predict_correlated` for Gaussian data, infinite
    width and no ridge, rounded to three decimals. The data are isotropic unless a correlation is set; in that case the
    label is the sign of the sum of the coordinates of the core.
    """

    def __init__(
        self,
        acts: Sequence[Any],
        alphas: Sequence[float],
        ratios: Sequence[float],
        runs: Iterable[Mapping[str, Any]] = (),
        settings: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        self.acts = [act if isinstance(act, tuple) else (activation(act).name, activation(act)) for act in acts]
        if not self.acts:
            raise ValueError("acts must name at least one activation")
        self.names = [str(name) for name, _ in self.acts]
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"acts must have names of their own, by which they are shown; got {', '.join(self.names)}")
        self.alphas = numbers(alphas, "alphas", above=0.0, below=1.0).ravel()
        self.ratios = numbers(ratios, "ratios", above=0.0).ravel()
        for name, values in (("alphas", self.alphas), ("ratios", self.ratios)):
            if len(values) < 2 or not (np.diff(values) > 0).all():
                raise ValueError(f"{name} must increase, got {values.tolist()}")
        self._kernels: dict[int, Any] = {}
        self.settings = dict({"": {}} if settings is None else settings)
        if not self.settings:
            raise ValueError("settings must have at least one entry")
        found = [self._curves(act, dict(change)) for change in self.settings.values() for _, act in self.acts]
        self.values = np.stack(found, axis=1)  # (quantity, setting and activation, alpha, ratio)
        if not np.isfinite(self.values).all():
            raise ValueError("acts: some predictions are not numbers")
        self.runs: dict[str, list[list[float]]] = {}
        for run in runs:
            self._enter(run)

    def _curves(self, act: Any, change: dict[str, float]) -> np.ndarray:
        """Predictions of one activation or kernel, shape (quantity, alpha, ratio)."""
        if not change and isinstance(act, Activation):
            n = np.maximum(1, np.round(self.ratios * _MANY))
            exact = predict_accuracy(act, self.alphas[:, None], n=n, d=_MANY)
            return np.array([getattr(exact, name) for name in _NAMES])
        from ..filters import flow, ridge  # it imports torch, which a page without kernels does not need

        found: list[Any]
        kernel = self._kernel(act)
        if not change:
            found = [
                predict_filter(kernel, alpha, ratio=self.ratios, filter=ridge(0.0)) for alpha in self.alphas.tolist()
            ]
        elif set(change) == {"time"}:
            stopped = flow(number(change["time"], "settings: time", above=0.0) / float(kernel(np.ones(1))[0]))
            found = [predict_filter(kernel, alpha, ratio=self.ratios, filter=stopped) for alpha in self.alphas.tolist()]
        elif set(change) == {"correlation"}:
            rho = number(change["correlation"], "settings: correlation", above=-1.0, below=1.0)
            n = np.maximum(1, np.round(self.ratios * _PAIRED))
            found = [predict_correlated(kernel, *_paired(alpha, rho), n=n) for alpha in self.alphas]
        else:
            raise ValueError(f"settings: {change} must be empty, or name time or correlation")
        return np.array([[getattr(one, name) for one in found] for name in _NAMES])

    def _kernel(self, act: Any) -> Any:
        """The inner-product kernel of an activation or kernel on the sphere, computed once."""
        from ..kernels import InfiniteWidth, InnerProductKernel  # they import torch

        if id(act) not in self._kernels:
            wide = InfiniteWidth(act) if isinstance(act, Activation) else act
            self._kernels[id(act)] = InnerProductKernel.of(wide, _PAIRED)
        return self._kernels[id(act)]

    def _enter(self, run: Mapping[str, Any]) -> None:
        names = self.names
        missing = {"act", "alpha", "ratio", "quantity", "value", "error"} - set(run)
        if missing:
            raise ValueError(f"runs: {dict(run)} is without {', '.join(sorted(missing))}")
        name, quantity = str(run["act"]), run["quantity"]
        alpha, ratio, value = (number(run[key], f"runs: {key}") for key in ("alpha", "ratio", "value"))
        error = number(run["error"], "runs: error", least=0.0)
        share = np.flatnonzero(np.isclose(self.alphas, alpha))
        if name not in names or not share.size or quantity not in _NAMES:
            raise ValueError(f"runs: {dict(run)} is not on the grid of activations, alphas and quantities")
        if not self.ratios[0] <= ratio <= self.ratios[-1]:
            raise ValueError(f"runs: ratio {ratio!r} is outside of {self.ratios[0]:g} to {self.ratios[-1]:g}")
        point = [list(_NAMES).index(quantity), *(float(f"{x:.4g}") for x in (ratio, value, error))]
        self.runs.setdefault(f"{names.index(name)} {share[0]}", []).append(point)

    def _x(self, ratio: float) -> float:
        low, high = np.log(self.ratios[[0, -1]])
        return round(float(45 + (np.log(ratio) - low) / (high - low) * 405), 1)

    @staticmethod
    def _y(value: float) -> float:
        return round(float(255 - 245 * value), 1)

    def _axes(self) -> str:
        low, high = self.ratios[0], self.ratios[-1]
        parts = ['<path class="frame" d="M45 10V255H450"></path>']
        for value in (0, 0.25, 0.5, 0.75, 1):
            y = self._y(value)
            parts.append(f'<path class="rule" d="M45 {y}H450"></path><text x="40" y="{y + 4}" text-anchor="end">')
            parts.append(f"{value:g}</text>")
        decades = [m * 10.0**p for p in range(-6, 7) for m in (1, 2, 5)]
        for ratio in [tick for tick in decades if low <= tick * (1 + 1e-9) and tick <= high * (1 + 1e-9)]:
            parts.append(f'<text x="{self._x(ratio)}" y="272" text-anchor="middle">{ratio:g}</text>')
        parts.append('<text x="247" y="292" text-anchor="middle">samples per dimension, N/d</text>')
        return "".join(parts)

    @cached_property
    def _page(self) -> str:
        alpha, ratio = len(self.alphas) // 2, len(self.ratios) // 2
        names = [html.escape(name) for name in self.names]
        now, at = self.values[:, :, alpha, ratio], self.ratios[ratio]
        setting = html.escape(next(iter(self.settings)))
        choice = f"{setting}, " * bool(setting) + f"spurious fraction {self.alphas[alpha]:g}, N/d = {at:.3g}"
        title = f"{names[0]}, {choice}: " + ", ".join(
            f"{name} {value:.3f}" for name, value in zip(_NAMES.values(), now[:, 0], strict=True)
        )
        points = [
            " ".join(f"{self._x(r)},{self._y(v)}" for r, v in zip(self.ratios, curve, strict=True))
            for curve in self.values[:, 0, alpha]
        ]
        data = {
            "names": list(_NAMES.values()),
            "alphas": [float(f"{a:.4g}") for a in self.alphas],
            "ratios": [float(f"{r:.6g}") for r in self.ratios],
            "values": np.round(1000 * self.values).astype(int).tolist(),
            "runs": self.runs,
            "acts": len(names),
        }
        bars = "".join(
            f'<path class="run {_CLASSES[int(q)]}" d="M{self._x(t)} {self._y(v - e)}V{self._y(v + e)}"></path>'
            f'<circle class="run {_CLASSES[int(q)]}" r="4" cx="{self._x(t)}" cy="{self._y(v)}"></circle>'
            for q, t, v, e in self.runs.get(f"0 {alpha}", [])
        )
        text = json.dumps(data, separators=(",", ":"), allow_nan=False)
        rows = "".join(
            f'<tr><th scope="row">{name}</th>' + "".join(f"<td>{v:.3f}</td>" for v in now[:, i]) + "</tr>"
            for i, name in enumerate(names)
        )
        heads = "".join(f'<th scope="col">{name}</th>' for name in ("activation", *_NAMES.values()))
        return Template((files(__package__) / "explorer.html").read_text(encoding="utf-8")).substitute(
            options="".join(f"<option>{name}</option>" for name in names),
            settings="".join(f"<option>{html.escape(name)}</option>" for name in self.settings),
            one=" hidden" * (len(self.settings) == 1),
            what="Activation or kernel"
            if any(not isinstance(act, Activation) for _, act in self.acts)
            else "Activation",
            last_alpha=len(self.alphas) - 1,
            alpha=alpha,
            last_ratio=len(self.ratios) - 1,
            ratio=ratio,
            title=title,
            mark=self._x(at),
            axes=self._axes(),
            lines="".join(
                f'<polyline class="line {q}" style="fill: none" points="{p}"></polyline>'
                for q, p in zip(_CLASSES, points, strict=True)
            ),
            dots="".join(
                f'<circle class="dot {q}" r="5" cx="{self._x(at)}" cy="{self._y(v)}"></circle>'
                for q, v in zip(_CLASSES, now[:, 0], strict=True)
            ),
            runs=bars,
            key="".join(
                f'<li><svg viewBox="0 0 36 12" aria-hidden="true"><path class="line {q}" d="M0 6H36"></path></svg> '
                f"{name}</li>"
                for q, name in zip(_CLASSES, _NAMES.values(), strict=True)
            ),
            table=f"<table><caption>{choice}</caption><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>",
            data=text,
        )

    def __str__(self) -> str:
        alpha, ratio = len(self.alphas) // 2, len(self.ratios) // 2
        width = max(map(len, self.names)) + 2
        lines = [f"spurious fraction {self.alphas[alpha]:g}, N/d = {self.ratios[ratio]:.3g}"]
        lines.append(" " * width + "  ".join(f"{name:>9s}" for name in _NAMES))
        for i, name in enumerate(self.names):
            numbers = "  ".join(f"{value:9.3f}" for value in self.values[:, i, alpha, ratio])
            lines.append(f"{name:{width}s}{numbers}")
        return "\n".join(lines)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._page}


def _paired(alpha: float, rho: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A covariance with pairs of correlated coordinates, the direction of the labels, and the spurious coordinates."""
    spurious = np.arange(_PAIRED) >= round((1 - alpha) * _PAIRED)
    core, other = np.flatnonzero(~spurious), np.flatnonzero(spurious)
    pairs = min(len(core), len(other))
    sigma = np.eye(_PAIRED)
    sigma[core[:pairs], other[:pairs]] = sigma[other[:pairs], core[:pairs]] = rho
    return sigma, np.where(spurious, 0.0, 1.0), spurious
