"""Activations: a function, its derivative, its kinks, its Hermite coefficients; for numpy arrays and torch tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

import numpy as np
import torch

from .hermite import gaussian_expectation, hermite_coefficients, hermite_series

__all__ = ["Activation", "activation", "activation_names"]


class Activation:
    """A function of the line with what the theory asks of it.

    Parameters
    ----------
    f : callable
        Applied entry-wise to a numpy array or a torch tensor; one that takes only one of the two is fine.
    df : callable, optional
        The derivative of `f`. Needed for tangent features only.
    kinks : iterable of float
        Where `f` or `df` jump. They make Hermite coefficients exact for functions that are only piecewise smooth.
    name : str, optional
        Default: the name of `f`.

    Raises
    ------
    ValueError
        `f` or `df` is not callable, or `kinks` are not finite numbers.

    Examples
    --------
    >>> import numpy as np
    >>> clipped = Activation(lambda x: np.clip(x, -1, 1), lambda x: 1.0 * (abs(x) < 1), kinks=(-1, 1), name="clip")
    >>> round(clipped.coefficients(3)[1], 4)
    0.6827
    """

    def __init__(
        self,
        f: Callable[[Any], Any],
        df: Callable[[Any], Any] | None = None,
        *,
        kinks: Iterable[float] = (),
        name: str | None = None,
    ):
        if not callable(f):
            raise ValueError(f"f must be a function of an array, got {f!r}")
        if df is not None and not callable(df):
            raise ValueError(f"df must be a function of an array, got {df!r}")
        self.f, self.df = f, df
        self.kinks = tuple(sorted(float(c) for c in kinks))
        if not np.isfinite(self.kinks).all():
            raise ValueError(f"kinks must be finite numbers, got {self.kinks}")
        self.name = name or str(getattr(f, "__name__", "activation"))
        self._mu = np.empty(0)

    def __repr__(self) -> str:
        return f"Activation({self.name!r})"

    def __call__(self, x: Any) -> Any:
        """Values at `x`: an array or tensor of any shape; the same kind, shape and dtype comes back."""
        if isinstance(x, torch.Tensor):
            return _on_tensor(self.f, x, self.name)
        x = np.asarray(x)
        x = x if np.issubdtype(x.dtype, np.floating) else x.astype(float)
        return _on_array(self.f, x, self.name)

    @cached_property
    def derivative(self) -> Activation:
        """The derivative, itself an `Activation` (without a derivative of its own)."""
        if self.df is None:
            raise ValueError(f"activation {self.name!r} was given without its derivative: pass df=...")
        return Activation(self.df, kinks=self.kinks, name=f"{self.name}'")

    def coefficients(self, order: int) -> np.ndarray:
        r"""Hermite coefficients :math:`\mu_0, \dots, \mu_L`, shape (order + 1,); kept for the next call."""
        if len(self._mu) <= order:
            self._mu = hermite_coefficients(self, order)
            self._mu.setflags(write=False)
        return self._mu[: order + 1]

    @cached_property
    def energy(self) -> float:
        r"""The second moment :math:`E[f(u)^2] = \sum_l \mu_l^2`, u standard Gaussian (by quadrature)."""
        return gaussian_expectation(lambda u: self(u) ** 2, kinks=self.kinks)


def _on_tensor(f: Callable[[Any], Any], x: torch.Tensor, name: str) -> torch.Tensor:
    try:
        out = f(x)
    except (TypeError, RuntimeError, AttributeError):
        out = f(x.detach().cpu().numpy())
    if not isinstance(out, torch.Tensor):
        out = torch.as_tensor(np.asarray(out))
    return _shaped(out, x, name).to(device=x.device, dtype=x.dtype)


def _on_array(f: Callable[[Any], Any], x: np.ndarray, name: str) -> np.ndarray:
    try:
        out = f(x)
    except (TypeError, RuntimeError, AttributeError):
        out = f(torch.from_numpy(np.ascontiguousarray(x)).reshape(x.shape))
    if isinstance(out, torch.Tensor):
        out = out.numpy()
    return _shaped(np.asarray(out), x, name).astype(x.dtype, copy=False)


def _shaped(out: Any, x: Any, name: str) -> Any:
    if tuple(out.shape) != tuple(x.shape):
        raise ValueError(f"activation {name!r} must act entry-wise: shape {tuple(x.shape)} in, {tuple(out.shape)} out")
    return out


_PHI = (2 * torch.pi) ** -0.5


def _density(x: torch.Tensor) -> torch.Tensor:
    return _PHI * torch.exp(-(x**2) / 2)


def _step(x: torch.Tensor) -> torch.Tensor:
    return (x > 0).to(x.dtype)


def _softplus(x: torch.Tensor) -> torch.Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))  # torch's own is linear beyond 20: wrong at 1e-9


def _dsilu(x: torch.Tensor) -> torch.Tensor:
    s = torch.sigmoid(x)
    return s * (1 + x * (1 - s))


_SMOOTH: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "tanh": (torch.tanh, lambda x: 1 - torch.tanh(x) ** 2),
    "erf": (torch.erf, lambda x: 2 / torch.pi**0.5 * torch.exp(-(x**2))),
    "sigmoid": (torch.sigmoid, lambda x: torch.sigmoid(x) * (1 - torch.sigmoid(x))),
    "gelu": (lambda x: x * torch.special.ndtr(x), lambda x: torch.special.ndtr(x) + x * _density(x)),
    "softplus": (_softplus, torch.sigmoid),
    "silu": (lambda x: x * torch.sigmoid(x), _dsilu),
    "sin": (torch.sin, torch.cos),
    "cos": (torch.cos, lambda x: -torch.sin(x)),
    "linear": (lambda x: 1 * x, torch.ones_like),
}
_KINKED: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "relu": (torch.relu, _step),
    "leaky_relu": (lambda x: torch.where(x > 0, x, 0.01 * x), lambda x: 0.01 + 0.99 * _step(x)),
    "abs": (torch.abs, torch.sign),
    "step": (_step, torch.zeros_like),
}
_KNOWN = {name: Activation(*pair, name=name) for name, pair in _SMOOTH.items()} | {
    name: Activation(*pair, kinks=(0.0,), name=name) for name, pair in _KINKED.items()
}
_TERM = re.compile(r"([+-]?)(?:(\d+\.?\d*|\.\d+)\*?)?h(\d+)")
_SUM = re.compile(rf"{_TERM.pattern}(?:(?=[+-]){_TERM.pattern})*")


def activation_names() -> list[str]:
    """Names that `activation` knows besides Hermite sums such as ``"h1+h2"``."""
    return sorted(_KNOWN)


def activation(spec: str | Activation | Callable[[Any], Any]) -> Activation:
    """Look up an activation.

    Parameters
    ----------
    spec : str, Activation or callable
        A name (see `activation_names`), a sum of normalized Hermite polynomials such as ``"h1+h4"`` or
        ``"h1+0.5*h4"``, or a function (then without derivative and kinks: use `Activation` to declare them).

    Returns
    -------
    Activation

    Raises
    ------
    ValueError
        The name is not known; the message lists those that are.
    """
    if isinstance(spec, Activation):
        return spec
    if callable(spec):
        return Activation(spec)
    name = str(spec).replace(" ", "").lower()
    if name in _KNOWN:
        return _KNOWN[name]
    if _SUM.fullmatch(name):
        return _polynomial(name)
    raise ValueError(
        f"activation {spec!r} is not known; known are {', '.join(activation_names())}, and sums of Hermite "
        "polynomials such as 'h1+h2' or 'h1+0.5*h4'"
    )


def _polynomial(name: str) -> Activation:
    terms = [(float(f"{sign}{scale or 1}"), int(degree)) for sign, scale, degree in _TERM.findall(name)]
    mu = np.zeros(max(degree for _, degree in terms) + 1)
    for scale, degree in terms:
        mu[degree] += scale
    slope = mu[1:] * np.sqrt(np.arange(1, len(mu))) if len(mu) > 1 else np.zeros(1)  # h_l' = sqrt(l) h_{l-1}
    return Activation(lambda x: hermite_series(mu, x), lambda x: hermite_series(slope, x), name=name)
