"""Activations: functions with their derivatives, kinks and Hermite coefficients, for numpy arrays and torch tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from ._checks import Array, integer, is_tensor, number, places, points
from ._functions import KINKED, SMOOTH, Function, identity, ones
from ._quadrature import PROBE, clenshaw, coefficients, refuse_not_entrywise, rounding, second_moment
from .hermite import gaussian_expectation, hermite_coefficients

if TYPE_CHECKING:
    import torch

__all__ = ["Activation", "activation", "activation_names"]

_STEP = 2.0**-10  # of the difference quotients that a derivative is compared with


class Activation:
    """An immutable function on the real line with its derivative, its kinks and its Hermite coefficients.

    Parameters
    ----------
    f : callable
        Applied entry-wise to a numpy array or a torch tensor. A function that takes only one of the two will do: which
        ones it takes is determined once, here. It receives a copy, and so may work in place.
    df : callable, optional
        The derivative of `f`, needed for tangent features only. Default: the derivative that torch computes, if `f`
        takes tensors and consists of operations that torch can differentiate.
    kinks : iterable of float
        Points at which `f` or one of its derivatives jumps. They make Hermite coefficients accurate for piecewise
        smooth functions.
    name : str, optional
        Default: the name of `f`.

    Attributes
    ----------
    f, df, kinks, name
        The arguments, with the kinks in increasing order. `df` is None if the derivative is computed by torch.
    polynomial : tuple of float or None
        All Hermite coefficients of a sum of Hermite polynomials; None for other functions.

    Raises
    ------
    ValueError
        `f` or `df` is not callable, fails on an array, or does not act entry-wise, so that its values on a part of an
        array differ from those on the whole. `df` differs from difference quotients of `f` at a few points away from
        the kinks. `kinks` is not a list of finite numbers.

    Notes
    -----
    An activation can be pickled if `f` and `df` can be pickled, as is the case for module-level functions and for torch
    modules. An activation of the library, or its derivative, is pickled by name, and unpickling returns the same
    object.

    Examples
    --------
    >>> import numpy as np
    >>> clipped = Activation(lambda x: np.clip(x, -1, 1), lambda x: 1.0 * (abs(x) < 1), kinks=(-1, 1), name="clip")
    >>> round(float(clipped.coefficients(3)[1]), 4)
    0.6827
    """

    f: Function
    df: Function | None
    kinks: tuple[float, ...]
    name: str
    polynomial: tuple[float, ...] | None
    _arrays: bool  # whether f takes numpy arrays
    _tensors: bool  # whether f takes tensors
    _copies: bool  # whether f is given a copy
    _named: bool  # whether it is one of the library's own, found by its name
    _mu: np.ndarray  # those computed so far

    def __init__(
        self,
        f: Function,
        df: Function | None = None,
        *,
        kinks: Iterable[float] = (),
        name: str | None = None,
    ):
        if not callable(f):
            raise ValueError(f"f must be a function of an array, got {f!r}")
        if df is not None and not callable(df):
            raise ValueError(f"df must be a function of an array, got {df!r}")
        name = str(name or getattr(f, "__name__", "activation"))
        probe = PROBE.reshape(3, 4)
        on_array, on_tensor = _failure(f, probe.copy()), _failure(f, _followed(probe))
        if on_array and on_tensor:
            on_tensor = _failure(f, _as_tensor(probe.copy()))
        if on_array and on_tensor:
            raise ValueError(
                f"activation {name!r} fails on an array of two axes: {on_array!r}, and on a tensor: {on_tensor!r}"
            ) from on_array
        self._fill(f, df, places(kinks, "kinks"), name, arrays=not on_array, tensors=not on_tensor, copies=True)
        try:
            refuse_not_entrywise(self, probe, f"activation {name!r}")
        except ValueError:
            raise
        except Exception as error:
            raise ValueError(f"activation {name!r} fails on an array of two axes: {error!r}") from error
        if df is not None:
            _ = self.derivative  # which is compared with f

    @classmethod
    def _own(
        cls,
        f: Function,
        df: Function | None,
        name: str,
        kinks: tuple[float, ...] = (),
        polynomial: tuple[float, ...] | None = None,
        *,
        named: bool = False,
        arrays: bool = True,
    ) -> Activation:
        """An activation of the library: its functions do not change their arguments, and they are not checked again."""
        act = cls.__new__(cls)
        act._fill(f, df, kinks, name, arrays=arrays, tensors=True, copies=False, polynomial=polynomial, named=named)
        return act

    def _fill(
        self,
        f: Function,
        df: Function | None,
        kinks: tuple[float, ...],
        name: str,
        *,
        arrays: bool,
        tensors: bool,
        copies: bool,
        polynomial: tuple[float, ...] | None = None,
        named: bool = False,
    ) -> None:
        vars(self).update(f=f, df=df, kinks=kinks, name=name, _arrays=arrays, _tensors=tensors, _copies=copies)
        vars(self).update(polynomial=polynomial, _named=named, _mu=np.empty(0))

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        return (_by_name, (self.name,)) if self._named else super().__reduce_ex__(protocol)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_mu": np.empty(0)}  # pickle would make the coefficients writeable

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{self!r} cannot be changed: make another Activation")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{self!r} cannot be changed: make another Activation")

    def __repr__(self) -> str:
        return f"Activation({self.name!r})"

    def __call__(self, x: Array) -> Array:
        """Values at `x`: an array or tensor of any shape.

        The values have the kind, shape and dtype of `x`; integers are converted to float64. A ``ValueError`` is raised
        if the activation changes the shape or returns complex or masked values.
        """
        x = points(x, "x")
        with nullcontext() if self._copies else np.errstate(all="ignore"):
            out = self._real(self.f(self._given(x)), x)
        if is_tensor(x):
            out = out if is_tensor(out) else _as_tensor(np.asarray(out))
            return out.to(device=x.device, dtype=x.dtype)
        out = out.detach().cpu().numpy() if is_tensor(out) else np.asarray(out)
        return out.astype(x.dtype, copy=False)

    def _given(self, x: Array) -> Array:
        """The argument of f: of a kind that f takes, and a copy if f may change it."""
        if is_tensor(x):
            if not self._tensors:
                return x.detach().cpu().numpy().copy()
            return x.clone() if self._copies else x
        own = x.copy() if self._copies or not x.flags.writeable else x
        return own if self._arrays else _as_tensor(np.ascontiguousarray(own)).reshape(x.shape)

    def _real(self, out: Any, x: Array) -> Any:
        out = out if is_tensor(out) else np.asanyarray(out)
        if tuple(out.shape) != tuple(x.shape):
            raise ValueError(
                f"activation {self.name!r} must act entry-wise: shape {tuple(x.shape)} in, {tuple(out.shape)} out"
            )
        if out.is_complex() if is_tensor(out) else np.iscomplexobj(out) or np.ma.is_masked(out):
            raise ValueError(f"activation {self.name!r} must be real everywhere: it has complex or masked values")
        return out

    @cached_property
    def derivative(self) -> Activation:
        """The derivative, itself an `Activation`: `df`, or else the derivative that torch computes.

        A ``ValueError`` is raised if `df` is missing and torch cannot differentiate `f`, or if the derivative differs
        from difference quotients of `f`.
        """
        name = f"{self.name}'"
        df = self._by_torch() if self.df is None else self.df
        if not self._copies:
            exact = None if self.polynomial is None else _slope(self.polynomial)
            return Activation._own(df, None, name, self.kinks, exact, named=self._named, arrays=self.df is not None)
        slope = Activation(df, kinks=self.kinks, name=name)
        _compare(self, slope)
        return slope

    def _by_torch(self) -> Function:
        slope = _Gradient(self.f)
        error = _failure(slope, _as_tensor(PROBE.copy()))
        if error:
            raise ValueError(
                f"activation {self.name!r} was given without its derivative, and torch does not differentiate it: "
                "pass df=..."
            ) from error
        return slope

    def shifted(self, constant: float) -> Activation:
        """Return the function plus a constant, with the same derivative and kinks.

        Raises
        ------
        ValueError
            `constant` is not a finite number.

        Examples
        --------
        >>> centered = activation("relu").shifted(-activation("relu").coefficients(0)[0])
        >>> abs(round(float(centered.coefficients(0)[0]), 12))
        0.0
        """
        constant = number(constant, "constant")
        return Activation(_Sum(self, constant), self.df, kinks=self.kinks, name=f"{self.name}{constant:+g}")

    def coefficients(self, order: int) -> np.ndarray:
        r"""Return Hermite coefficients :math:`\mu_0, \dots, \mu_L` with L = order, read-only, of shape (order + 1,).

        They are kept for later calls. For a sum of Hermite polynomials they are exact; otherwise accuracy and errors
        are those of `hermite_coefficients`.
        """
        order = integer(order, "order", least=0)
        if len(self._mu) <= order:
            mu = self._computed(order)
            mu.setflags(write=False)
            vars(self)["_mu"] = mu
        return self._mu[: order + 1]

    def _computed(self, order: int) -> np.ndarray:
        if self.polynomial is not None:
            return np.array([*self.polynomial, *[0.0] * (order + 1 - len(self.polynomial))])
        mu = hermite_coefficients(self, order)
        if mu[0] ** 2 > 1e6 * self.variance:  # a large constant hides the others
            mean, tolerance = mu[0], rounding(mu[0], self.variance)
            mu = coefficients(lambda u: self(u) - mean, order, self.kinks, tolerance)
            mu[0] += mean
        return mu

    @cached_property
    def energy(self) -> float:
        r"""The second moment :math:`E[f(u)^2] = \sum_l \mu_l^2` for standard Gaussian u."""
        if self.polynomial is not None:
            return float(np.square(self.polynomial).sum())
        return second_moment(self, 0.0, self.kinks)

    @cached_property
    def variance(self) -> float:
        r"""The energy in degrees at least one, :math:`\sum_{l \ge 1} \mu_l^2`, accurate also for a large constant."""
        if self.polynomial is not None:
            return float(np.square(self.polynomial[1:]).sum())
        return second_moment(self, gaussian_expectation(self), self.kinks)


@dataclass(frozen=True)
class _Sum:
    """A function plus a constant."""

    f: Function
    constant: float

    def __call__(self, x: Any) -> Any:
        return self.f(x) + self.constant


@dataclass(frozen=True)
class _Gradient:
    """The derivative of an entry-wise function of tensors, by torch."""

    f: Function

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        import torch

        with torch.inference_mode(False), torch.enable_grad():
            at = x if x.requires_grad else x.detach().clone().requires_grad_()
            return torch.autograd.grad(self.f(at.clone()).sum(), at, create_graph=x.requires_grad)[0]


def _as_tensor(x: np.ndarray) -> torch.Tensor:
    import torch

    return torch.from_numpy(x)


def _followed(x: np.ndarray) -> torch.Tensor:
    """A tensor with a gradient, which numpy functions refuse on every device; it may be changed in place."""
    import torch

    with torch.inference_mode(False), torch.enable_grad():
        return torch.from_numpy(x.copy()).requires_grad_().clone()


def _failure(f: Function, x: Any) -> Exception | None:
    """What f raises at x."""
    import torch

    try:
        with torch.inference_mode(False), torch.enable_grad(), np.errstate(all="ignore"):
            f(x)
    except Exception as error:
        return error
    return None


def _compare(act: Activation, slope: Activation) -> None:
    """Raise if the derivative differs from difference quotients by more than their own error."""
    x = np.array([p for p in PROBE if all(abs(p - kink) > 2 * _STEP for kink in act.kinks)])
    with np.errstate(all="ignore"):
        wide, narrow = ((act(x + h) - act(x - h)) / (2 * h) for h in (_STEP, _STEP / 2))
        quotients, given = (4 * narrow - wide) / 3, slope(x)
        fine = np.isfinite(quotients) & np.isfinite(given)
        if not fine.any():
            return
        x, given, quotients, error = x[fine], given[fine], quotients[fine], np.abs(wide - narrow)[fine].max()
        gap = np.abs(given - quotients)
        room = 1e-3 * np.maximum(np.abs(given), np.abs(quotients)).max() + 4 * error
    worst = np.argmax(gap)
    if gap[worst] > room:
        what = "what torch computes" if act.df is None else "df"
        raise ValueError(
            f"{what} is not the derivative of activation {act.name!r}: at {x[worst]:g} it is {given[worst]:.4g}, and "
            f"difference quotients of f give {quotients[worst]:.4g} (is there a kink that `kinks` does not name?)"
        )


def _slope(mu: tuple[float, ...]) -> tuple[float, ...]:
    """Hermite coefficients of the derivative of a polynomial: h_l' = sqrt(l) h_{l-1}."""
    return tuple(c * math.sqrt(l) for l, c in enumerate(mu))[1:] or (0.0,)


_KNOWN = {name: Activation._own(*pair, name, named=True) for name, pair in SMOOTH.items()} | {
    name: Activation._own(*pair, name, (0.0,), named=True) for name, pair in KINKED.items()
}
_KNOWN["linear"] = Activation._own(identity, ones, "linear", polynomial=(0.0, 1.0), named=True)
_TERM = re.compile(r"([+-]?)(?:(\d+\.?\d*|\.\d+)\*?)?h(\d+)")
_SUM = re.compile(rf"{_TERM.pattern}(?:(?=[+-]){_TERM.pattern})*")


def activation_names() -> list[str]:
    """List the names that `activation` accepts, in addition to sums of Hermite polynomials such as ``"h1+h2"``.

    At the kink 0 the derivative is the left derivative for relu (0), leaky_relu (0.01) and selu (1.758), and it is 0
    for abs. The value of step at 0 is 0, and its derivative is 0 everywhere.

    Examples
    --------
    >>> activation_names()[:3]
    ['abs', 'cos', 'elu']
    """
    return sorted(_KNOWN)


def activation(spec: str | Activation | Callable[[Any], Any]) -> Activation:
    """Look up an activation.

    Parameters
    ----------
    spec : str, Activation or callable
        A name (see `activation_names`), a sum of normalized Hermite polynomials such as ``"h1+h4"`` or
        ``"h1+0.5*h4"``, or a function. A function is taken to have no kinks, and its derivative is computed by torch;
        `Activation` declares kinks and a derivative.

    Returns
    -------
    Activation

    Raises
    ------
    ValueError
        The name is unknown (the message lists the known ones), or as for `Activation`.

    Examples
    --------
    >>> activation("h1+0.5*h4").coefficients(4)
    array([0. , 1. , 0. , 0. , 0.5])
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


@lru_cache(maxsize=256)
def _polynomial(name: str) -> Activation:
    terms = [(float(f"{sign}{scale or 1}"), int(degree)) for sign, scale, degree in _TERM.findall(name)]
    mu = [0.0] * (max(degree for _, degree in terms) + 1)
    for scale, degree in terms:
        mu[degree] += scale
    exact = tuple(mu)
    pair = partial(clenshaw, exact), partial(clenshaw, _slope(exact))
    return Activation._own(*pair, name, polynomial=exact, named=True)


def _by_name(name: str) -> Activation:
    """An activation of the library by its name; with a prime after the name, its derivative."""
    return _by_name(name[:-1]).derivative if name.endswith("'") else activation(name)
