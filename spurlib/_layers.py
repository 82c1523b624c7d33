"""Layers whose gradients are sums of outer products, and the inner products of such gradients."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
from torch import nn

__all__ = ["Calls", "Layer", "add_products", "candidates", "uses", "watched"]

Calls = list[tuple[torch.Tensor, torch.Tensor]]
"""Inputs of a layer and derivatives with respect to its outputs, for all samples: a pair for each application."""

_BYTES = 16 * 2**20  # target for one block of samples, or of gradients
_CACHE = 4 * 2**20  # the same, if what is computed from a block is read immediately


class Layer:
    """A linear layer, convolution or embedding, and how a network applies it to one sample.

    The gradient with respect to the weights is the sum of d_t p_t^T over positions t, where d_t is the derivative with
    respect to the outputs at position t, and p_t holds the inputs from which these are computed. The gradient with
    respect to the bias is the sum of the d_t.

    Parameters
    ----------
    module : torch.nn.Module
        The layer.
    names : tuple of str
        Its parameters that are differentiated.
    calls : list of pairs of torch.Size
        Shapes of input and output for one sample, a pair for each time that the layer is applied.
    always : bool
        Use the product of two Gram matrices even if gradients are cheaper.
    """

    def __init__(
        self,
        module: nn.Module,
        names: tuple[str, ...],
        calls: list[tuple[torch.Size, torch.Size]],
        *,
        always: bool,
    ):
        weight = module.get_parameter("weight")
        self.module, self.names, self.calls = module, names, calls
        self.dtype = weight.dtype
        embeds = isinstance(module, nn.Embedding)
        self.bias = len(names) == 2
        self.height = weight.shape[1] if embeds else len(weight)  # of a gradient
        self.width = weight[0].numel() + self.bias
        self.positions = sum(d.numel() for _, d in calls) // self.height
        self.entries = self.height + (1 if embeds else self.width)  # of the factors at one position
        self.product = always or embeds or self.positions**2 * self.entries <= self.height * self.width
        size, kept = self.height * self.width, sum(x.numel() + d.numel() for x, d in calls)
        self.at_once = not self.product and size <= kept  # gradients take less room than what they are formed from
        self.kept = size if self.at_once else kept  # entries for one sample

    def room(self, n: int, device: torch.device) -> Calls:
        """Empty tensors for the inputs and the derivatives of n samples."""
        kind = torch.long if isinstance(self.module, nn.Embedding) else self.dtype
        return [
            (
                torch.empty(n, *x, device=device, dtype=kind),
                torch.empty(n, *d, device=device, dtype=self.dtype),
            )
            for x, d in self.calls
        ]

    def factors(self, calls: Calls, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """The p_t and d_t of some samples, shapes (samples, positions, width) and (samples, positions, height).

        The p_t of an embedding would be rows of the identity; they are represented by the numbers of these rows.
        """
        found = [self._factors(x[rows], d[rows]) for x, d in calls]
        if len(found) == 1:
            return found[0]
        p, d = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        return p, d

    def _factors(self, x: torch.Tensor, d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        n = len(x)
        module: Any = self.module
        if isinstance(self.module, nn.Conv2d):
            x = x.reshape(-1, *x.shape[-3:])
            x = nn.functional.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride).mT
            d = d.flatten(-2).mT
        if isinstance(self.module, nn.Embedding):
            d = d if module.padding_idx is None else d * (x != module.padding_idx)[..., None]
            return x.reshape(n, -1), d.reshape(n, -1, self.height)
        return x.reshape(n, -1, x.shape[-1]), d.reshape(n, -1, self.height)

    def add(self, total: torch.Tensor, calls: Calls, columns: range) -> None:
        """Add the inner products of the gradients of the first samples with those in `columns`."""
        if not self.product:
            step = max(1, _BYTES // (len(calls[0][0]) * self.width * self.dtype.itemsize))
            for start in range(0, self.height, step):
                add_products(total, self.gradients(calls, slice(start, start + step)), columns)
            return
        size = max(1, min(math.isqrt(_BYTES // 16), _BYTES // (8 * self.entries)) // self.positions)
        for i in range(0, len(total), size):
            rows = slice(i, min(i + size, len(total)))
            p, d = self._double(calls, rows)
            for j in range(0, len(columns), size):
                others = slice(columns[j], columns[j : j + size][-1] + 1)
                q, e = (p, d) if others == rows else self._double(calls, others)
                pairs = p @ q.T if p.ndim == 2 else (p[:, None] == q).double()
                pairs = pairs.add_(1) if self.bias else pairs
                pairs *= d @ e.T
                shape = (-1, self.positions, others.stop - others.start, self.positions)
                total[rows, j : j + size] += pairs.view(shape).sum((1, 3))

    def _double(self, calls: Calls, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """The factors of some samples, one position after the other, in float64."""
        p, d = (t.flatten(0, 1) for t in self.factors(calls, rows))
        return p.double() if p.is_floating_point() else p, d.double()

    def gradients(self, calls: Calls, rows: slice = slice(None)) -> torch.Tensor:
        """Some rows of the gradients of all samples, shape (samples, entries of these rows)."""
        n = len(calls[0][0])
        J = calls[0][1].new_empty(n, len(range(self.height)[rows]), self.width)
        some = max(1, _CACHE // (self.positions * self.entries * self.dtype.itemsize))
        for i in range(0, n, some):
            p, d = self.factors(calls, slice(i, i + some))
            torch.bmm(d[:, :, rows].mT, p, out=J[i : i + some, :, : p.shape[2]])
            if self.bias:
                torch.sum(d[:, :, rows], dim=1, out=J[i : i + some, :, -1])
        return J.flatten(1)


def add_products(total: torch.Tensor, J: torch.Tensor, columns: range) -> None:
    """Add the products of the first rows of J with those in `columns`, in float64, without a float64 copy of J."""
    for part in J.split(max(1, _BYTES // (8 * len(J))), dim=1):
        wide = part.double()
        total.addmm_(wide[: len(total)], wide[columns.start : columns.stop].T)


def candidates(model: nn.Module) -> dict[nn.Module, tuple[str, ...]]:
    """The layers that apply the plain operation of their class to weights of their own, with the names of these."""
    owners = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    found = {}
    for prefix, module in model.named_modules():
        own = {name: p for name, p in module.named_parameters(prefix, recurse=False) if p.requires_grad}
        plain = type(module) in _PLAIN and "forward" not in vars(module) and _PLAIN[type(module)](module)
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
        shared = any(owners[id(p)] > 1 for p in own.values())
        if plain and not any(hooks) and not shared and any(p is module._parameters.get("weight") for p in own.values()):
            found[module] = tuple(own)
    return found


_PLAIN: dict[type[nn.Module], Callable[[Any], bool]] = {
    nn.Linear: lambda module: True,
    nn.Conv2d: lambda module: (
        module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    ),
    nn.Embedding: lambda module: module.max_norm is None and not module.scale_grad_by_freq and not module.sparse,
}


@contextmanager
def watched(layers: Iterable[nn.Module], see: Callable[..., Any]) -> Iterator[None]:
    """Call `see` with a layer, its input and its output at each call in this thread; a result replaces the output."""
    here = get_ident()

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: torch.Tensor) -> Any:
        return see(module, [*args, *kwargs.values()][0], out) if get_ident() == here else None

    handles = [layer.register_forward_hook(hook, prepend=True, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def uses(value: torch.Tensor, leaves: dict[str, torch.Tensor]) -> Counter[str]:
    """The number of places in the graph of a value in which each leaf occurs."""
    names = {id(leaf): name for name, leaf in leaves.items()}
    found: Counter[str] = Counter()
    met, ahead = set(), [value.grad_fn]
    while ahead:
        node = ahead.pop()
        for before, _ in node.next_functions if node is not None else ():
            leaf = getattr(before, "variable", None)
            if leaf is not None:
                found[names.get(id(leaf), "")] += 1
            elif before is not None and before not in met:
                met.add(before)
                ahead.append(before)
    return found
