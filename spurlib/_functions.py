"""The functions behind the names of activations and their derivatives, each for numpy arrays and torch tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy import special

from ._checks import is_tensor

__all__ = ["KINKED", "SMOOTH", "identity", "ones"]

Function = Callable[[Any], Any]

_PHI = (2 * math.pi) ** -0.5
_SCALE, _ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717  # of selu


def _elu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


_ARRAYS = SimpleNamespace(
    abs=np.abs,
    cos=np.cos,
    elu=_elu,
    erf=special.erf,
    exp=np.exp,
    mish=lambda x: x * np.tanh(np.logaddexp(x, 0)),
    ndtr=special.ndtr,
    of=lambda mask, x: mask.astype(x.dtype),
    ones=np.ones_like,
    relu=lambda x: np.maximum(x, 0),
    selu=lambda x: _SCALE * np.where(x > 0, x, _ALPHA * np.expm1(np.minimum(x, 0))),
    sigmoid=special.expit,
    sign=np.sign,
    sin=np.sin,
    softplus=lambda x: np.logaddexp(x, 0),
    tanh=np.tanh,
    below=lambda x: np.minimum(x, 0),
    where=np.where,
    zeros=np.zeros_like,
)


@cache
def _tensors() -> SimpleNamespace:
    import torch
    from torch.nn import functional

    return SimpleNamespace(
        abs=torch.abs,
        cos=torch.cos,
        elu=functional.elu,
        erf=torch.erf,
        exp=torch.exp,
        mish=functional.mish,
        ndtr=torch.special.ndtr,
        of=lambda mask, x: mask.to(x.dtype),
        ones=torch.ones_like,
        relu=torch.relu,
        selu=functional.selu,
        sigmoid=torch.sigmoid,
        sign=torch.sign,
        sin=torch.sin,
        # torch's own softplus is linear beyond 20: wrong at 1e-9
        softplus=lambda x: torch.logaddexp(x, torch.zeros_like(x)),
        tanh=torch.tanh,
        below=lambda x: x.clamp(max=0),
        where=torch.where,
        zeros=torch.zeros_like,
    )


def _on(x: Any) -> SimpleNamespace:
    """The operations of numpy, or of torch."""
    return _tensors() if is_tensor(x) else _ARRAYS


def _named(operation: str) -> Function:
    return lambda x: getattr(_on(x), operation)(x)


def _step(x: Any) -> Any:
    return _on(x).of(x > 0, x)


def _dsilu(x: Any) -> Any:
    s = _on(x).sigmoid(x)
    return s * (1 + x * (1 - s))


def _dmish(x: Any) -> Any:
    t = _on(x).tanh(_on(x).softplus(x))
    return t + x * _on(x).sigmoid(x) * (1 - t**2)


identity: Function = lambda x: 1 * x  # noqa: E731
ones = _named("ones")

SMOOTH: dict[str, tuple[Function, Function]] = {
    "tanh": (_named("tanh"), lambda x: 1 - _on(x).tanh(x) ** 2),
    "erf": (_named("erf"), lambda x: 2 / math.pi**0.5 * _on(x).exp(-(x**2))),
    "sigmoid": (_named("sigmoid"), lambda x: _on(x).sigmoid(x) * (1 - _on(x).sigmoid(x))),
    "gelu": (lambda x: x * _on(x).ndtr(x), lambda x: _on(x).ndtr(x) + x * (_PHI * _on(x).exp(-(x**2) / 2))),
    "softplus": (_named("softplus"), _named("sigmoid")),
    "silu": (lambda x: x * _on(x).sigmoid(x), _dsilu),
    "mish": (_named("mish"), _dmish),
    "sin": (_named("sin"), _named("cos")),
    "cos": (_named("cos"), lambda x: -_on(x).sin(x)),
}
"""Functions that are smooth everywhere, with their derivatives."""

KINKED: dict[str, tuple[Function, Function]] = {
    "relu": (_named("relu"), _step),
    "leaky_relu": (lambda x: _on(x).where(x > 0, x, 0.01 * x), lambda x: 0.01 + 0.99 * _step(x)),
    "elu": (_named("elu"), lambda x: _on(x).exp(_on(x).below(x))),
    "selu": (
        _named("selu"),
        lambda x: _SCALE * _on(x).where(x > 0, 1.0, _ALPHA * _on(x).exp(_on(x).below(x))),
    ),
    "abs": (_named("abs"), _named("sign")),
    "step": (_step, _named("zeros")),
}
"""Functions that are not smooth at zero, with their derivatives."""
