"""Kernels of infinite width and any depth, and kernels that are functions of the inner product."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.polynomial import chebyshev

from ._checks import Array, choice, finite, integer, like, number, numbers, plain, positive, tensor
from ._duals import Expectation, closed_form, expectation, second_moments
from .activations import Activation, activation

__all__ = ["InfiniteWidth", "InnerProductKernel", "KernelNumbers"]

_TILE = 256  # rows and columns computed at a time: the passes over a tile stay in the cache
_HOMOGENEOUS = ("relu", "leaky_relu", "abs")  # of the library's own: f(s u) = s f(u) for s > 0
_DEGREES = (16, 32, 64, 128)  # of the interpolation of a kernel on a sphere
_FEW = 2**14  # pairs: they are less work than the nodes of the interpolation, some of which are nearly parallel
_RADII = 2.0 ** -np.arange(1, 11)  # of intervals about 0: narrow kernels vary fast, and are small there
_ROUND = 1e-12  # relative: what counts as rounding of a norm


class InfiniteWidth:
    r"""The kernel of random or tangent features in the limit of infinite width, divided by the width, for any depth.

    Parameters
    ----------
    act : str or Activation
        The activation :math:`\phi`; its derivative is needed for ``kind="ntk"``.
    kind : {"rf", "ntk"}
        ``"rf"``: the features are the last hidden layer, and the limit is the NNGP kernel. ``"ntk"``: the features are
        the gradient, and the limit is the neural tangent kernel. At depth one these are the limits of `RandomFeatures`
        and of `TangentFeatures`.
    depth : int
        Number L of hidden layers.
    layers : {"hidden", "all", "last"}
        For ``kind="ntk"``, the layers with respect to whose weights the gradient is taken: the hidden layers, all
        layers (with the output layer), or the last hidden layer. At depth one ``"hidden"`` and ``"last"`` both give the
        tangent features of the book.
    weight_variance, bias_variance : float
        :math:`\sigma_w^2 > 0` and :math:`\sigma_b^2 \ge 0` of the hidden layers. The output layer has weights of
        variance one and no bias.

    Raises
    ------
    ValueError
        An unknown activation, kind or choice of layers; `layers` with ``kind="rf"``; a depth below 1; a variance out of
        range; ``kind="ntk"`` with an activation without derivative.

    Notes
    -----
    With :math:`\Sigma^1(a, b) = \sigma_w^2\, a \cdot b / d + \sigma_b^2` and, for (u, v) Gaussian with the covariance
    that :math:`\Sigma^l` gives to a and b,

    - :math:`\Sigma^{l+1} = \sigma_w^2\, E[\phi(u) \phi(v)] + \sigma_b^2`,
      :math:`\dot\Sigma^l = E[\phi'(u) \phi'(v)]`,
    - :math:`\Theta^1 = \Sigma^1`, :math:`\Theta^{l+1} = \Sigma^{l+1} + \sigma_w^2\, \Theta^l \dot\Sigma^l`,

    the kernel is :math:`E[\phi(u) \phi(v)]` at l = L for ``"rf"``. For ``"ntk"`` it is
    :math:`d\, \Theta^L \dot\Sigma^L`, where :math:`\Theta^L` is replaced by :math:`\Sigma^L` for the last layer alone,
    and :math:`d\, E[\phi(u) \phi(v)]` is added for all layers. The factor d is that of `TangentFeatures`, whose weights
    have variance 1 / d. The gradient is also taken with respect to the biases. See Lee et al. (2018), Jacot et al.
    (2018) and chapter `depth`.

    The expectations are :math:`E[f(s u) f(t v)]` with scales s and t and correlated standard Gaussian (u, v). They have
    closed forms for relu, leaky_relu, abs and step (Cho and Saul, 2009), for erf (Williams, 1997), and for sin and cos,
    and are polynomials for sums of Hermite polynomials. For other activations they are computed by the series
    :math:`\sum_l \mu_l(s) \mu_l(t) \rho^l` with :math:`\mu_l(s) = E[f(s u) h_l(u)]`, truncated where the remainder is
    below 1e-11 of the second moments. Pairs that are so nearly parallel that 512 terms do not suffice are computed by
    quadrature in the plane, which takes milliseconds for each pair. If a kernel is a function of the angle alone, as
    for samples of equal norms and for homogeneous activations without bias, it is interpolated in the angle by
    Chebyshev polynomials, with an error of 1e-12, if that is less work.

    The error is below 1e-8 times the square root of k(a, a) k(b, b). Correlations in float64 do not resolve angles
    below 1e-7: for rows that are so nearly parallel, but not parallel, the tangent kernel of an activation with kinks
    has an error of up to 1e-8 times the depth, and the deep kernel of an activation with jumps a larger one. Closed
    forms hold for all scales s and t. For tanh, nearly parallel pairs are possible up to scales of 25 and other pairs
    up to 200; for exp, all pairs up to scales of 12. Integrals that do not converge, or exceed float64, are refused.

    Examples
    --------
    >>> import numpy as np
    >>> A = np.array([[1.0, 1.0], [1.0, -1.0]])
    >>> InfiniteWidth("relu").gram(A).round(4)
    array([[0.5   , 0.1592],
           [0.1592, 0.5   ]])
    >>> InfiniteWidth("relu", depth=3, weight_variance=2).gram(A).round(4)
    array([[1.    , 0.6048],
           [0.6048, 1.    ]])
    """

    def __init__(
        self,
        act: str | Activation,
        kind: str = "rf",
        *,
        depth: int = 1,
        layers: str = "hidden",
        weight_variance: float = 1.0,
        bias_variance: float = 0.0,
    ):
        self.activation = activation(act)
        self.kind = choice(kind, "kind", ("rf", "ntk"))
        self.depth = positive(depth, "depth")
        self.layers = choice(layers, "layers", ("hidden", "all", "last"))
        if kind == "rf" and layers != "hidden":
            raise ValueError("layers chooses what is differentiated: it goes with kind='ntk' only")
        self.weight_variance = number(weight_variance, "weight_variance", above=0.0)
        self.bias_variance = number(bias_variance, "bias_variance", least=0.0)
        if kind == "ntk":
            _ = self.activation.derivative

    def __repr__(self) -> str:
        given = {"depth": (self.depth, 1), "layers": (self.layers, "hidden")}
        given |= {"weight_variance": (self.weight_variance, 1.0), "bias_variance": (self.bias_variance, 0.0)}
        others = "".join(f", {name}={value!r}" for name, (value, default) in given.items() if value != default)
        return f"InfiniteWidth({self.activation.name!r}, kind={self.kind!r}{others})"

    def gram(self, A: Array, B: Array | None = None) -> Array:
        """Return the kernel matrix of the rows of `A` and `B`: the limit of that at width k, divided by k.

        Parameters
        ----------
        A : array or tensor, shape (n, d)
            Samples, one in each row.
        B : array or tensor, shape (m, d), optional
            Other samples; default: `A` itself, which takes half the time.

        Returns
        -------
        array or tensor, shape (n, m), float64
            The kind of `A`, computed on its device.

        Raises
        ------
        ValueError
            `A` or `B` has a wrong shape, is empty, or holds NaN or infinite values. Gaussian integrals of the
            activation at the scale ``|a| / sqrt(d)`` of a row do not exist or do not converge, because a kink is not
            declared or the row is much longer than sqrt(d). The kernel exceeds float64.
        """
        s, a, t, b, symmetric = _pairs(A, B)
        kernel = self._on_angles(s, t) or self._by_layers(s, t)
        factor = a.shape[1] if self.kind == "ntk" else 1
        out = a.new_empty(len(a), len(b))
        for i, j in _tiles(len(a), len(b)):
            if symmetric and j.start < i.start:
                out[i, j] = out[j, i].T
            else:
                torch.mul(kernel(i, j, _correlations(a[i], b[j])), factor, out=out[i, j])
        if not finite(out):
            raise ValueError(f"A or B has rows so long that the kernel of {self.activation.name!r} is beyond float64")
        return like(out, A)

    def _by_layers(self, s: torch.Tensor, t: torch.Tensor) -> Expectation:
        """The kernel, without the factor d, on a tile: layer after layer."""
        act, w, b, tangent = self.activation, self.weight_variance, self.bias_variance, self.kind == "ntk"
        rows, columns, values, slopes = [(w * s**2 + b).sqrt()], [(w * t**2 + b).sqrt()], [], []
        for _ in range(self.depth):
            p, q = rows[-1], columns[-1]
            values.append(expectation(act, p, q))
            slopes.append(expectation(act, p, q, slope=True) if tangent else values[-1])
            if len(values) < self.depth:
                rows.append((w * second_moments(act, p) + b).sqrt())
                columns.append((w * second_moments(act, q) + b).sqrt())

        own = closed_form(act) is not None and not b  # then parallel rows stay parallel
        parallel, opposite = own and act.name in (*_HOMOGENEOUS, "step"), own and act.name == "abs"

        def kernel(i: slice, j: slice, rho: torch.Tensor) -> torch.Tensor:
            equal = (rho.abs() if opposite else rho) == 1  # rounding must not change these correlations
            if not parallel:
                equal &= s[i, None] == t[j]
            equal |= (s[i, None] == 0) & (t[j] == 0)
            if b:
                rho = _divided((s[i, None] * t[j] * w).mul_(rho).add_(b), rows[0][i, None] * columns[0][j], equal)
            theta = (rows[0][i, None] * columns[0][j]).mul_(rho) if tangent else rho
            for layer in range(self.depth - 1):
                value = values[layer](i, j, rho).mul_(w).add_(b)
                if tangent and self.layers != "last":
                    theta.mul_(slopes[layer](i, j, rho)).mul_(w).add_(value)
                elif tangent:
                    theta.copy_(value)
                rho = _divided(value, rows[layer + 1][i, None] * columns[layer + 1][j], equal)
            if not tangent:
                return values[-1](i, j, rho)
            theta.mul_(slopes[-1](i, j, rho))
            return theta.add_(values[-1](i, j, rho)) if self.layers == "all" else theta

        return kernel

    def _on_angles(self, s: torch.Tensor, t: torch.Tensor) -> Expectation | None:
        """The same, interpolated in the angle; None if it depends on more than the angle, or if this is more work."""
        if len(s) * len(t) <= _FEW:
            return None
        if self.depth == 1 and (closed_form(self.activation) or self.activation.polynomial is not None):
            return None
        homogeneous = closed_form(self.activation) and self.activation.name in _HOMOGENEOUS and not self.bias_variance
        least, most = (float(end) for end in torch.cat([s, t]).aminmax())
        if not homogeneous and most - least > _ROUND * most:
            return None
        settings = self.kind, self.depth, self.layers, self.weight_variance, self.bias_variance
        c = _chebyshev(self.activation, *settings, scale=1.0 if homogeneous else float(f"{most:.13g}"))
        if c is None:
            return None

        def kernel(i: slice, j: slice, rho: torch.Tensor) -> torch.Tensor:
            out = _clenshaw(c, rho.acos().mul_(2 / math.pi).sub_(1))
            return out.mul_(s[i, None]).mul_(t[j]) if homogeneous else out

        return kernel


@lru_cache(maxsize=256)
def _chebyshev(
    act: Activation, kind: str, depth: int, layers: str, weights: float, biases: float, *, scale: float
) -> tuple[float, ...] | None:
    """Coefficients in x of the kernel of two samples of one scale, at the angle pi (1 + x) / 2."""
    of = InfiniteWidth(act, kind, depth=depth, layers=layers, weight_variance=weights, bias_variance=biases)
    for degree in _DEGREES:
        x = chebyshev.chebpts1(degree + 1)
        rho = torch.from_numpy(np.cos(np.pi * (1 + x) / 2))[None]
        kernel = of._by_layers(rho.new_full((1,), scale), rho.new_full((degree + 1,), scale))
        values = kernel(slice(0, 1), slice(0, degree + 1), rho)[0].numpy()
        c = chebyshev.chebfit(x, values, degree)
        if np.abs(c[-3:]).max() <= 1e-13 * np.abs(c).max():
            return tuple(float(value) for value in c)
    return None


def _clenshaw(c: tuple[float, ...], x: torch.Tensor) -> torch.Tensor:
    """Sum of c_l T_l(x)."""
    above, total = torch.zeros_like(x), torch.full_like(x, c[-1])
    twice = 2 * x
    for value in c[-2:0:-1]:
        above.neg_().addcmul_(twice, total).add_(value)
        above, total = total, above
    return above.neg_().addcmul_(x, total).add_(c[0])


def _divided(value: torch.Tensor, scales: torch.Tensor, equal: torch.Tensor) -> torch.Tensor:
    """Correlations from covariances, in place; they are zero where a scale is zero."""
    return value.div_(scales).nan_to_num_(nan=0.0).clamp_(-1, 1).masked_fill_(equal, 1.0)


def _pairs(A: Array, B: Array | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, bool]:
    """Scales and directions of the rows of A and of B, checked, and whether A and B are the same."""
    device = A.device if isinstance(A, torch.Tensor) else torch.device("cpu")
    a = tensor(A, "A", ndim=2, device=device)
    d = a.shape[1]
    s, a = _polar(a, "A")
    if B is None or B is A:
        return s, a, s, a, True
    return s, a, *_polar(tensor(B, "B", ndim=2, columns=d, device=device), "B"), False


def _tiles(n: int, m: int) -> list[tuple[slice, slice]]:
    return [
        (slice(i, min(i + _TILE, n)), slice(j, min(j + _TILE, m)))
        for i in range(0, n, _TILE)
        for j in range(0, m, _TILE)
    ]


def _polar(x: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The scales |x| / sqrt(d) of the rows, and their directions (zero for a row of zeros)."""
    norms = torch.linalg.vector_norm(x, dim=1)
    if not torch.isfinite(norms).all():
        raise ValueError(f"{name} has rows whose norm is beyond float64")
    return norms / x.shape[1] ** 0.5, x / torch.where(norms > 0, norms, 1.0)[:, None]


def _correlations(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Inner products of unit vectors; for nearly parallel ones from their distance, which is more accurate."""
    rho = a @ b.T
    for i, j in zip(*(p.split(_TILE) for p in (rho.abs() > 1 - 1e-6).nonzero(as_tuple=True)), strict=True):
        sign = rho[i, j].sign()
        rho[i, j] = sign * (1 - (a[i] - sign[:, None] * b[j]).square().sum(dim=1) / 2)
    return rho.clamp_(-1, 1)


@dataclass(frozen=True)
class KernelNumbers:
    r"""The numbers by which a kernel :math:`\kappa(z \cdot z' / d)` on the sphere enters the formulas of the book.

    Attributes
    ----------
    a0, a1 : float
        :math:`\kappa(0)` and :math:`\kappa'(0)`.
    c : float
        :math:`\kappa(1) - a_0 - a_1`, the energy in degrees at least two.
    c_alpha : float or ndarray
        :math:`\kappa(\alpha) - a_0 - a_1 \alpha`, with the shape of alpha.
    a2 : float
        :math:`\kappa''(0) / 2`.
    """

    a0: float
    a1: float
    c: float
    c_alpha: Any
    a2: float


class InnerProductKernel:
    r"""A kernel that is a function of the inner product, :math:`k(z, z') = \kappa(z \cdot z' / d)`.

    Parameters
    ----------
    kappa : callable
        The function :math:`\kappa`, denoted by :math:`\bar k` in the chapters, applied entry-wise to an array of any
        shape with entries in [-1, 1], such as ``lambda rho: np.exp(rho - 1)``. All coefficients of
        :math:`\kappa(\rho) = \sum_l a_l \rho^l` must be nonnegative.
    name : str, optional
        Name for messages. Default: the name of the function.

    Raises
    ------
    ValueError
        `kappa` is not finite on [-1, 1], does not act entry-wise, has no power series about 0 that converges for
        :math:`|\rho| < 1`, has :math:`|\kappa(-1)| > \kappa(1)`, or has a negative coefficient among the first
        thirteen. In the last two cases it is not positive definite on the spheres of all dimensions (Schoenberg, 1942).
        Negative coefficients of higher degrees are not
        detected, nor are small ones, below 1e-11 :math:`\kappa(1)` at degree two and 1e-3 :math:`\kappa(1)` at degree
        twelve.

    Notes
    -----
    Samples on the sphere :math:`\|z\| = \sqrt d` have inner products, divided by d, in [-1, 1]. Other samples are
    accepted if `kappa` is defined at their inner products. The power series is found by interpolation at the Chebyshev
    points of [-1/2, 1/2], with an error like :math:`3.7^{-m}` for m points, and of shorter intervals for narrow
    kernels. This requires that :math:`\kappa` is analytic in the unit disc, as is every power series with nonnegative
    coefficients and a finite value at 1, whether or not it is smooth at 1. See chapter `any-kernel`.

    Examples
    --------
    >>> import numpy as np
    >>> kernel = InnerProductKernel(lambda rho: np.exp(rho - 1), name="rbf")
    >>> kernel.gram(np.array([[1.0, 1.0], [1.0, -1.0]])).round(4)
    array([[1.    , 0.3679],
           [0.3679, 1.    ]])
    >>> found = kernel.numbers(0.5)
    >>> round(found.a1, 4), round(found.c, 4), round(found.c_alpha, 4)
    (0.3679, 0.2642, 0.0547)
    """

    def __init__(self, kappa: Callable[[np.ndarray], Any], name: str | None = None):
        if not callable(kappa):
            raise ValueError(f"kappa must be a function of an array, got {type(kappa).__name__}")
        self._kappa = kappa
        self.name = str(name or getattr(kappa, "__name__", "kappa"))
        self._series = self._power_series()

    def __repr__(self) -> str:
        return f"InnerProductKernel({self.name!r})"

    @classmethod
    def of(cls, kernel: Any, d: int) -> InnerProductKernel:
        """Return the inner-product kernel that equals a given kernel on the sphere of radius sqrt(d) in d dimensions.

        Parameters
        ----------
        kernel : object with ``gram(A, B)``, or callable (A, B) -> matrix
            For instance `InfiniteWidth`, or a kernel of scikit-learn such as ``RBF`` or ``Matern``.
        d : int
            Number of coordinates, at least 3.

        Returns
        -------
        InnerProductKernel
            `kernel` itself if it is one.

        Raises
        ------
        ValueError
            `kernel` has different values at pairs with the same inner product; `kernel` has no ``gram`` and is not
            callable; `d` is below 3; or as for `InnerProductKernel`.

        Examples
        --------
        >>> from sklearn.gaussian_process.kernels import RBF
        >>> round(InnerProductKernel.of(RBF(10.0), d=100).numbers(0.5).a1, 4)  # exp(rho - 1)
        0.3679
        """
        if isinstance(kernel, cls):
            return kernel
        d = integer(d, "d", least=3)
        gram = getattr(kernel, "gram", None)
        gram = gram if callable(gram) else kernel
        if isinstance(kernel, type) or not callable(gram):
            raise ValueError(f"kernel must have a method gram(A, B), or be callable, got {type(kernel).__name__}")
        if isinstance(kernel, InfiniteWidth):  # depends on d only by the factor of tangent features: d = 3 suffices
            factor = d / 3 if kernel.kind == "ntk" else 1.0
            return cls(_OnSphere(gram, 3, factor), name=str(kernel))
        return cls(_OnSphere(gram, d), name=getattr(kernel, "name", None) or str(kernel))

    def gram(self, A: Array, B: Array | None = None) -> Array:
        """Return the kernel matrix of the rows of `A` with the rows of `B`.

        Parameters
        ----------
        A : array or tensor, shape (n, d)
            Samples, one in each row; their inner products are divided by d.
        B : array or tensor, shape (m, d), optional
            Other samples; default: `A` itself, which takes half the time.

        Returns
        -------
        array or tensor, shape (n, m), float64
            The kind of `A`; `kappa` is applied on the CPU.

        Raises
        ------
        ValueError
            `A` or `B` has a wrong shape, is empty, or holds NaN or infinite values; samples are so long that `kappa` is
            not defined at their inner products.
        """
        s, a, t, b, symmetric = _pairs(A, B)
        out = a.new_empty(len(a), len(b))
        for i, j in _tiles(len(a), len(b)):
            if symmetric and j.start < i.start:
                out[i, j] = out[j, i].T
                continue
            rho = _correlations(a[i], b[j]).mul_(s[i, None]).mul_(t[j])
            rho = torch.where((rho.abs() - 1).abs() <= 4 * np.finfo(float).eps, rho.sign(), rho)
            out[i, j] = torch.from_numpy(self(rho.cpu().numpy())).to(out.device)
        if not finite(out):
            longest = float(torch.maximum(s.max(), t.max()))
            raise ValueError(
                f"kernel {self.name!r} is not finite for rows with |a| up to {longest:.4g} sqrt(d): "
                "scale the samples to the sphere |a| = sqrt(d)"
            )
        return like(out, A)

    def __call__(self, rho: Any) -> np.ndarray:
        """Values of kappa, float64; NaN where it is not defined."""
        rho = np.asarray(rho, dtype=np.float64)
        with np.errstate(all="ignore"):
            out = self._kappa(rho.copy())
        out = np.asarray(out.detach().cpu() if isinstance(out, torch.Tensor) else out)
        if out.shape != rho.shape or out.dtype.kind not in "biuf":
            raise ValueError(
                f"kappa {self.name!r} must act entry-wise and be real: {rho.shape} in, {out.shape} out, {out.dtype}"
            )
        return out.astype(np.float64)

    def _power_series(self) -> np.ndarray:
        """The coefficients a_0, ..., a_12, checked; those that are rounding errors are set to zero."""
        x = chebyshev.chebpts1(48)
        values, ends = self(x / 2), self(np.array([-1.0, 1.0]))
        if not (np.isfinite(values).all() and np.isfinite(ends).all()):
            raise ValueError(f"kappa {self.name!r} is not finite on [-1, 1]")
        if not np.allclose(values[::3], self(x[::3].reshape(-1, 2) / 2).ravel(), rtol=1e-12, atol=0):
            raise ValueError(
                f"kappa {self.name!r} must act entry-wise: its values on a part are not those on the whole"
            )
        top = float(np.abs(np.r_[values, ends]).max())
        found = []
        for radius in _RADII:
            one = self._interpolated(x, radius, top)
            if one is not None:
                found.append(one)
                if max(one[1][1], one[2][1]) <= 1e-9 * one[0][1]:  # a_1 is known
                    break
        if top == 0 or not found:
            raise ValueError(f"kappa {self.name!r} has no power series about 0 that converges for |rho| < 1")
        each, roundings, doubts = (np.stack(part) for part in zip(*found, strict=True))
        best = np.maximum(roundings, doubts).argmin(axis=0), np.arange(13)
        a, rounding, beyond = each[best], roundings[best], doubts[best]
        negative = np.flatnonzero(a < -np.maximum(rounding, beyond))
        if len(negative) or abs(ends[0]) > ends[1] * (1 + 1e-9):
            why = (
                f"but that of degree {negative[0]} is {a[negative[0]]:.4g}"
                if len(negative)
                else "so that |kappa(-1)| is at most kappa(1)"
            )
            raise ValueError(
                f"kappa {self.name!r} is not positive definite on every sphere: its power series must have nonnegative "
                f"coefficients, {why}"
            )
        return np.where(a > rounding, a, 0.0)

    def _interpolated(
        self, x: np.ndarray, radius: float, top: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Coefficients from the Chebyshev points of [-radius, radius], their rounding errors and truncation errors.

        None if the interpolation does not converge there.
        """
        values = self(radius * x)
        size, c = float(np.abs(values).max()), chebyshev.chebfit(x, values, 47)
        noise = max(float(np.abs(c[-12:]).max()), 1e-16 * size)
        if noise > 1e-11 * (top if radius == _RADII[0] else size):
            return None
        of_degree = _of_degree() * radius ** -np.arange(13.0)
        kept, sizes = np.abs(c) > 10 * noise, np.abs(of_degree)
        ellipse = 1 / radius + (radius**-2 - 1) ** 0.5
        beyond = np.minimum(10 * noise, 2 * top * ellipse ** -np.arange(48.0)) @ sizes  # at most, if all a_l >= 0
        return (
            c[kept] @ of_degree[kept],
            10 * noise * sizes[: kept.nonzero()[0].max(initial=-1) + 1].sum(axis=0),
            beyond,
        )

    @property
    def degree(self) -> int | None:
        """The degree of a kernel that is a polynomial of degree at most 12, up to 1e-9 kappa(1); None for others."""
        total, one = float(self._series.sum()), float(self(np.ones(1))[0])
        return int(self._series.nonzero()[0].max()) if abs(one - total) <= 1e-9 * one else None

    def numbers(self, alpha: Any) -> KernelNumbers:
        r"""Return the numbers by which the kernel enters the formulas for alignments and accuracies.

        Parameters
        ----------
        alpha : float or array
            Fraction of spurious coordinates, in (0, 1).

        Returns
        -------
        KernelNumbers

        Raises
        ------
        ValueError
            `alpha` is out of range.
        """
        at = numbers(alpha, "alpha", above=0.0, below=1.0)
        a0, a1, a2 = (float(value) for value in self._series[:3])
        one = float(self(np.ones(1))[0])
        c, damped = one - a0 - a1, self(np.atleast_1d(at)).reshape(at.shape) - a0 - a1 * at
        if c <= 1e-13 * one:
            c, damped = 0.0, np.zeros_like(damped)
        return KernelNumbers(a0, a1, c, plain(damped), a2)


@cache
def _of_degree() -> np.ndarray:
    """Coefficients up to degree 12 of the first 48 Chebyshev polynomials."""
    out = np.zeros((48, 13))
    for m in range(48):
        powers = chebyshev.cheb2poly(np.eye(48)[m, : m + 1])[:13]
        out[m, : len(powers)] = powers
    return out


@dataclass(frozen=True)
class _OnSphere:
    """A kernel as a function of the inner product, divided by d, of two samples on the sphere."""

    gram: Callable[[np.ndarray, np.ndarray], Any]
    d: int
    factor: float = 1.0

    def __call__(self, rho: np.ndarray) -> np.ndarray:
        one, two = (self._along(rho.ravel(), axes) for axes in (self._axes(1), self._axes(2)))
        size = np.abs(one).max(initial=0.0)
        if not np.allclose(one, two, rtol=0, atol=1e-9 * size, equal_nan=True):
            raise ValueError("kernel is not a function of the inner product: it changes under rotations of the sphere")
        return self.factor * one.reshape(rho.shape)

    def _axes(self, seed: int) -> np.ndarray:
        """Two orthonormal directions, at random."""
        return np.linalg.qr(np.random.default_rng(seed).standard_normal((self.d, 2)))[0].T

    def _along(self, rho: np.ndarray, axes: np.ndarray) -> np.ndarray:
        inside = np.clip(rho, -1, 1)
        other = np.stack([inside, np.sqrt(1 - inside**2)], axis=1) @ axes
        values = np.asarray(self.gram(self.d**0.5 * axes[:1], self.d**0.5 * other), dtype=np.float64)
        if values.shape != (1, len(rho)):
            raise ValueError(f"kernel.gram(A, B) must have shape (len(A), len(B)), got {values.shape}")
        return np.where(np.abs(rho) <= 1, values[0], np.nan)
