"""Gradients of networks in their parameters, and their kernels, streamed over the parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy

from ._checks import Array, device_of, like, number, positive, precision, tensor

__all__ = ["EmpiricalTangent"]

_LOCKS: WeakKeyDictionary[nn.Module, Lock] = WeakKeyDictionary()  # of the models that are being differentiated


class EmpiricalTangent:
    r"""The gradient of a network's output in its parameters, at their present values: features of any network.

    Parameters
    ----------
    model : torch.nn.Module
        From (n, d) to (n, outputs), in float32 or float64. Parameters that do not require a gradient are not
        differentiated. The model is evaluated without dropout and with the running statistics of batch normalization,
        so that the gradient of a sample does not depend on the others; its modules' modes are left as they were.
    output : int or callable
        Which output, or a function from a sample's outputs, shape (outputs,), to a number (a tensor without axes).
    memory : float
        Bytes for the gradients of all samples in some of the parameters; more parameters come later.
    batch : int
        Samples through the network at a time.

    Raises
    ------
    ValueError
        A model without parameters that require a gradient, in another precision, or with batch normalization that has
        no running statistics; a memory or batch out of range.

    Notes
    -----
    For a two-layer network differentiated in its first layer the kernel is that of `TangentFeatures`. Every part of
    the parameters takes one more pass over the samples: gradients are never stored for all parameters.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        output: int | Callable[[torch.Tensor], torch.Tensor] = 0,
        memory: float = 1e9,
        batch: int = 8,
    ):
        if not isinstance(model, nn.Module) or not any(p.requires_grad for p in model.parameters()):
            raise ValueError(f"model must be a torch.nn.Module with parameters to differentiate, got {model!r:.60}")
        if not callable(output) and (isinstance(output, bool) or not isinstance(output, (int, np.integer))):
            raise ValueError(f"output must be a number of an output or a function, got {output!r}")
        self.model, self.output = model, output
        self.memory, self.batch = number(memory, "memory", above=0.0), positive(batch, "batch")
        self._checked()

    def _checked(self) -> None:
        """Refuse a model whose gradients cannot be computed, or depend on other samples."""
        for name, p in self.model.named_parameters():
            if is_lazy(p):
                raise ValueError(f"model: parameter {name!r} has no shape yet: apply the model to a sample first")
            if p.is_floating_point() or p.is_complex():
                precision(p.dtype, f"model: the dtype of parameter {name!r}")
            device_of(p.device)
        for name, module in self.model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
                raise ValueError(
                    f"model: module {name!r} has no running statistics, so that outputs depend on the other samples "
                    "of its batch: use track_running_stats=True"
                )

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the model's parameters: that of the gradients."""
        floating = [p.dtype for p in self.model.parameters() if p.is_floating_point()]
        return min(floating, key=lambda dtype: dtype.itemsize)

    @property
    def n_features(self) -> int:
        """Number of parameters: the largest rank of a kernel matrix."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def features(self, A: Array) -> Array:
        """The gradients themselves, shape (n, parameters), of the kind of `A`. Takes memory n times parameters."""
        a = self._rows(A, "A")
        with self._evaluating():
            return like(_finite_gradients(torch.cat(list(self._gradients(a, self.n_features * len(a))), dim=1)), A)

    def gram(self, A: Array, B: Array | None = None) -> Array:
        """Inner products of gradients between the rows of `A` and the rows of `B`, streamed over the parameters.

        Parameters
        ----------
        A : array or tensor, shape (n, d)
            Samples, one a row.
        B : array or tensor, shape (m, d), optional
            Other samples; default: `A` itself. Where they are the first rows of `A` they are differentiated once.

        Returns
        -------
        array or tensor, shape (n, m), float64
            Of the kind of `A`. Gradients are computed in the precision of the model and summed in float64.

        Raises
        ------
        ValueError
            Wrong shape, empty, NaN or infinite values, samples that the model does not take; an output that it does not
            have; gradients that overflow or are NaN.
        """
        a = self._rows(A, "A")
        b = a if B is None or B is A else self._rows(B, "B", columns=a.shape[1])
        n, m = len(a), len(b)
        within = b is a or (m <= n and torch.equal(a[:m], b))
        samples = a if within else torch.cat([a, b])
        entries = int(self.memory / samples.element_size())
        with self._evaluating():
            total = torch.zeros(n, m, device=a.device, dtype=torch.float64)
            for J in self._gradients(samples, entries):
                total += J[:n] @ (J[:m] if within else J[n:]).T
        return like(_finite_gradients(total), A)

    def _rows(self, A: Array, name: str, columns: int | None = None) -> torch.Tensor:
        self._checked()
        weights = next(self.model.parameters())
        return tensor(A, name, ndim=2, columns=columns, device=weights.device, dtype=weights.dtype)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """The model in evaluation mode, then each of its modules in the mode in which it was; one thread at a time."""
        with _LOCKS.setdefault(self.model, Lock()), torch.inference_mode(False), torch.enable_grad():
            modes = [(module, module.training) for module in self.model.modules()]
            self.model.eval()
            try:
                yield
            finally:
                for module, training in modes:
                    module.training = training

    def _picked(self, sample: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """The output that is differentiated, as a function of all outputs; checked on one sample."""
        try:
            with torch.no_grad():
                f = self.model(sample[None])
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"model does not take a sample of A, with {len(sample)} columns: {error}") from error
        if not isinstance(f, torch.Tensor) or f.ndim != 2 or len(f) != 1:
            got = f"shape {tuple(f.shape)}" if isinstance(f, torch.Tensor) else type(f).__name__
            raise ValueError(f"model must return outputs of shape (n, outputs); for one sample it returned {got}")
        if callable(self.output):
            value = self.output(f[0])
            if not isinstance(value, torch.Tensor) or value.ndim:
                raise ValueError(f"output must return one number, a tensor without axes; it returned {value!r:.60}")
            return self.output
        if not -f.shape[1] <= self.output < f.shape[1]:
            raise ValueError(f"output must be below {f.shape[1]}, the number of the model's outputs, got {self.output}")
        return partial(torch.select, dim=0, index=int(self.output))

    def _pieces(self, most: int) -> Iterator[list[tuple[str, int, int]]]:
        """Slices of parameters, cut along their first axis, in groups of at most `most` entries where rows allow."""
        group: list[tuple[str, int, int]] = []
        size = 0
        for name, p in self.model.named_parameters():
            if not p.requires_grad:
                continue
            length, row = (p.shape[0], p[0].numel()) if p.ndim else (1, 1)
            start = 0
            while start < length:
                fit = min(length - start, max((most - size) // row, 0 if group else 1))
                if fit == 0:
                    yield group
                    group, size = [], 0
                    continue
                group.append((name, start, start + fit))
                size += fit * row
                start += fit
        yield group

    def _gradients(self, samples: torch.Tensor, entries: int) -> Iterator[torch.Tensor]:
        """Gradients of all samples in one group of parameters after the other, shape (len(samples), entries)."""
        values = {name: _ordinary(p.detach()) for name, p in self.model.named_parameters()}
        buffers = {name: _ordinary(b) for name, b in self.model.named_buffers()}
        samples = _ordinary(samples)
        pick = self._picked(samples[0])

        def value(part: dict[str, torch.Tensor], pieces: list[tuple[str, int, int]], z: torch.Tensor) -> torch.Tensor:
            whole = dict(values)
            for name, start, stop in pieces:
                p = values[name]
                piece = part[name]
                whole[name] = torch.cat([p[:start], piece, p[stop:]]) if p.ndim and stop - start < len(p) else piece
            return pick(functional_call(self.model, {**whole, **buffers}, (z[None],))[0])

        for pieces in self._pieces(max(1, entries // len(samples))):
            part = {
                name: values[name][start:stop] if values[name].ndim else values[name] for name, start, stop in pieces
            }
            each = vmap(grad(value), (None, None, 0))
            J = samples.new_empty(len(samples), sum(p.numel() for p in part.values()))
            for rows, batch in zip(J.split(self.batch), samples.split(self.batch), strict=True):
                try:
                    with sdpa_kernel(SDPBackend.MATH):  # attention that vmap can batch
                        found = each(part, pieces, batch)
                except RuntimeError as error:
                    if "random" in str(error):
                        raise ValueError("model draws random numbers in evaluation mode too, as for dropout") from error
                    raise
                torch.cat([g.flatten(1) for g in found.values()], dim=1, out=rows)
            yield J


def _ordinary(t: torch.Tensor) -> torch.Tensor:
    """What was made in inference mode, copied: some versions of torch take its gradients to be zero."""
    return t.clone() if t.is_inference() else t


def _finite_gradients(found: torch.Tensor) -> torch.Tensor:
    if not torch.isfinite(found).all():
        raise ValueError("model has gradients, or products of them, that overflow or are NaN: was its training stable?")
    return found
