"""Gradients of networks with respect to their parameters, and the kernels that they define."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy

from ._checks import Array, choice, device_of, finite, like, number, positive, precision, tensor
from ._layers import Calls, Layer, add_products, candidates, uses, watched

__all__ = ["EmpiricalTangent"]

Samples = dict[Any, torch.Tensor]
"""The arguments of a model, by position (0, 1, ...) or by keyword; each tensor has one row for each sample."""

Piece = tuple[str, int, int]
"""Some rows of a parameter: its name, the first row, and the row after the last."""

_BYTES = 16 * 2**20  # target for what autograd saves for one batch
_LOCKS: WeakKeyDictionary[nn.Module, Lock] = WeakKeyDictionary()  # of the models that are being differentiated


class EmpiricalTangent:
    r"""The gradient of a network's output with respect to its parameters, at their current values, as features.

    Parameters
    ----------
    model : torch.nn.Module
        A map from (n, d) to (n, outputs), in float32 or float64. Parameters that do not require a gradient are not
        differentiated. The model is evaluated without dropout and with the running statistics of batch normalization,
        so that the gradient of a sample does not depend on the others; the modes of its modules are restored.
    output : int or callable
        Index of an output, or a function that maps the outputs of one sample, shape (outputs,), to a number (a tensor
        without axes).
    inputs : callable, optional
        Function from samples to the arguments of the model: a tensor, a tuple of tensors (positional arguments) or a
        dict of tensors (keyword arguments), each with one row for each sample. A matrix of samples is passed to it as
        a tensor in the precision and on the device of the model; any other object, such as a list of texts, is passed
        unchanged. Default: the samples are the only argument.
    way : {"auto", "structured", "streamed"}
        How `gram` treats linear layers, convolutions and embeddings (see Notes): ``"auto"`` chooses the cheaper way
        for each layer, ``"structured"`` always uses products of Gram matrices, and ``"streamed"`` treats them like all
        other parameters.
    memory : float
        Bytes for what is kept of all samples at a time: gradients with respect to some of the parameters, and inputs
        and derivatives of some of the layers. The other parameters take further passes over the samples.
    batch : int, optional
        Number of samples that pass through the network at a time; default: as many as 16 MiB hold, but at least 8.

    Raises
    ------
    ValueError
        A model without parameters that require a gradient, in another precision, or with batch normalization that has
        no running statistics; an `output` or `inputs` of a wrong type; an unknown way; a memory or batch out of range.

    Notes
    -----
    A linear layer that is applied to sample i at positions t (the tokens of a sequence, the patches of an image; one
    position for vectors) with inputs :math:`a_{it}` has the gradient :math:`G_i = \sum_t \delta_{it} a_{it}^T`, where
    :math:`\delta_{it}` is the derivative of the network with respect to the output of the layer. Its part of the
    kernel,

    .. math:: \langle G_i, G_j \rangle = \sum_{t, s} (a_{it} \cdot a_{js}) (\delta_{it} \cdot \delta_{js}),

    requires two small Gram matrices and no gradient. With many positions it is cheaper to form the :math:`G_i`. Both
    ways need one pass over the samples for as many layers as fit into `memory` together. The gradients with respect to
    other parameters are streamed: they are computed sample by sample with `torch.func`, in the same pass as long as
    they fit into `memory`, and every further part of them takes one more pass. `ways` returns the way of each
    parameter. If a two-layer network is differentiated with respect to its first layer, the kernel is that of
    `TangentFeatures`. Experiments: chapter `architectures`.

    Examples
    --------
    >>> import numpy as np, torch
    >>> model = torch.nn.Linear(2, 1)
    >>> EmpiricalTangent(model).gram([[1.0, 2.0], [3.0, 4.0]])  # z.z' + 1
    array([[ 6., 12.],
           [12., 26.]])
    >>> tokens = torch.nn.Sequential(torch.nn.Embedding(5, 1), torch.nn.Flatten())
    >>> kernel = EmpiricalTangent(tokens, inputs=lambda Z: Z.long(), output=lambda f: f.sum())
    >>> kernel.gram(np.array([[0, 1, 1], [1, 2, 3]]))  # pairs of equal tokens
    array([[5., 2.],
           [2., 3.]])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        output: int | Callable[[torch.Tensor], torch.Tensor] = 0,
        inputs: Callable[[Any], Any] | None = None,
        way: str = "auto",
        memory: float = 1e9,
        batch: int | None = None,
    ):
        if not isinstance(model, nn.Module) or not any(p.requires_grad for p in model.parameters()):
            raise ValueError(f"model must be a torch.nn.Module with parameters to differentiate, got {model!r:.60}")
        if not callable(output) and (isinstance(output, bool) or not isinstance(output, (int, np.integer))):
            raise ValueError(f"output must be a number of an output or a function, got {output!r}")
        if inputs is not None and not callable(inputs):
            raise ValueError(f"inputs must be a function from samples to what the model takes, got {inputs!r:.60}")
        self.model, self.output, self.inputs = model, output, inputs
        self.way = choice(way, "way", ("auto", "structured", "streamed"))
        self.memory = number(memory, "memory", above=0.0)
        self.batch = None if batch is None else positive(batch, "batch")
        self._checked()

    def _checked(self) -> None:
        """Refuse a model whose gradients cannot be computed or depend on other samples."""
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
        """The coarsest precision among the parameters of the model."""
        floating = [p.dtype for p in self.model.parameters() if p.is_floating_point()]
        return min(floating, key=lambda dtype: dtype.itemsize)

    @property
    def n_features(self) -> int:
        """Number of differentiated parameters, an upper bound on the rank of a kernel matrix."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def features(self, A: Array) -> Array:
        """Return the gradients at the rows of `A`, shape (n, n_features), of the kind of `A`, held in memory."""
        a = self._samples(A, "A")
        with self._evaluating():
            ((J, _),) = _Passes(self, a, way="streamed", most=self.n_features)
        return like(_finite(J), A)

    def gram(self, A: Array, B: Array | None = None) -> Array:
        """Compute inner products of the gradients at the rows of `A` and `B`.

        Parameters
        ----------
        A : array or tensor, shape (n, d)
            Samples, one in each row; with `inputs`, whatever this function takes.
        B : array or tensor, shape (m, d), optional
            Other samples; default: `A` itself. If they are the first rows of `A`, their gradients are computed only
            once.

        Returns
        -------
        array or tensor, shape (n, m), float64
            A tensor if `A` is one. Gradients are computed in the precision of the model; their inner products are
            computed in float64.

        Raises
        ------
        ValueError
            `A` or `B` has a wrong shape, is empty, holds NaN or infinite values, or is not accepted by the model; the
            model does not have the chosen output, or draws random numbers in evaluation mode; gradients overflow or
            are NaN.
        """
        a = self._samples(A, "A")
        b = a if B is None or B is A else self._samples(B, "B", beside=a)
        n, m = _count(a), _count(b)
        within = b is a or (m <= n and all(torch.equal(a[key][:m], b[key]) for key in a))
        samples = a if within else {key: torch.cat([a[key], b[key]]) for key in a}
        columns = range(m) if within else range(n, n + m)
        with self._evaluating():
            total = torch.zeros(n, m, device=next(self.model.parameters()).device, dtype=torch.float64)
            for J, layers in _Passes(self, samples, way=self.way, most=self._most(_count(samples))):
                add_products(total, J, columns)
                del J
                for layer in list(layers):
                    layer.add(total, layers.pop(layer), columns)
        return like(_finite(total), A)

    def ways(self, A: Array) -> dict[str, str]:
        """Describe how `gram` would treat each parameter that is differentiated, for as many samples as `A` holds.

        Parameters
        ----------
        A : array or tensor, shape (n, d)
            Samples, as for `gram`.

        Returns
        -------
        dict of str to str
            The way of each parameter, by its name. ``"product"``: products of Gram matrices. ``"gradients"``: gradients
            formed from the inputs and derivatives of the layer. ``"streamed"``: parameters of other layers, parameters
            that are used in more than one place, and layers whose inputs and derivatives do not fit into `memory`.

        Raises
        ------
        ValueError
            As for `gram`.
        """
        a = self._samples(A, "A")
        with self._evaluating():
            layers = _Passes(self, a, way=self.way, most=self._most(_count(a))).layers
        found = {name: "product" if layer.product else "gradients" for layer in layers for name in layer.names}
        return {name: found.get(name, "streamed") for name, p in self.model.named_parameters() if p.requires_grad}

    def _samples(self, A: Any, name: str, beside: Samples | None = None) -> Samples:
        """The arguments of the model for some samples, which must match those for others in `beside`."""
        self._checked()
        weights = next(self.model.parameters())
        if self.inputs is None or (isinstance(A, (np.ndarray, torch.Tensor)) and A.ndim == 2):
            columns = beside[0].shape[1] if self.inputs is None and beside else None
            A = tensor(A, name, ndim=2, columns=columns, device=weights.device, dtype=weights.dtype)
        X = A if self.inputs is None else self.inputs(A)
        found = dict(X) if isinstance(X, Mapping) else dict(enumerate(X if isinstance(X, (tuple, list)) else [X]))
        shapes = {key: tuple(t.shape) if isinstance(t, torch.Tensor) else type(t).__name__ for key, t in found.items()}
        rows = {shape[0] if isinstance(shape, tuple) and shape else 0 for shape in shapes.values()}
        if len(rows) != 1 or rows == {0} or (isinstance(A, torch.Tensor) and rows != {len(A)}):
            raise ValueError(f"inputs must make tensors with one row for each sample, but makes {shapes} of {name}")
        if beside and {k: t.shape[1:] for k, t in beside.items()} != {k: t.shape[1:] for k, t in found.items()}:
            raise ValueError(f"inputs makes tensors of shapes {shapes} of {name}, and others of A, with which they go")
        return {key: t.detach().to(weights.device) for key, t in found.items()}

    def _most(self, n: int) -> int:
        """How many entries `memory` holds for each of n samples."""
        return int(self.memory / next(self.model.parameters()).element_size()) // n

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Put the model in evaluation mode, and restore the mode of each of its modules; one thread at a time."""
        with _LOCKS.setdefault(self.model, Lock()), torch.inference_mode(False), torch.enable_grad():
            modes = [(module, module.training) for module in self.model.modules()]
            self.model.eval()
            try:
                yield
            finally:
                for module, training in modes:
                    module.training = training


class _Passes:
    """Passes of the samples through a network, one for each part of its parameters.

    Parameters
    ----------
    tangent : EmpiricalTangent
    samples : dict of tensors
    way : str
        ``"streamed"`` to treat no layer separately; else as for `EmpiricalTangent`.
    most : int
        Largest number of entries to keep for one sample.
    """

    def __init__(self, tangent: EmpiricalTangent, samples: Samples, *, way: str, most: int):
        self.model, self.batch, self.most = tangent.model, tangent.batch, max(1, most)
        self.samples = {key: _ordinary(t) for key, t in samples.items()}
        self.values = {name: _ordinary(p.detach()) for name, p in self.model.named_parameters()}
        self.buffers = {name: _ordinary(b) for name, b in self.model.named_buffers()}
        self.weights = next(iter(self.values.values()))
        self._probe(tangent, way)

    def _call(self, parameters: Samples, sample: Samples) -> Any:
        """Outputs for one sample, shape (1, outputs)."""
        one = {key: t[None] for key, t in sample.items()}
        args = tuple(one.pop(key) for key in sample if isinstance(key, int))
        return functional_call(self.model, {**parameters, **self.buffers}, args, one)

    def _probe(self, tangent: EmpiricalTangent, way: str) -> None:
        """Apply the network to the first sample to find its layers, what autograd saves, and the chosen output."""
        found = {} if way == "streamed" else candidates(self.model)
        shapes: dict[nn.Module, list[Any]] = {layer: [] for layer in found}
        given = dict(self.model.named_parameters())
        leaves = {name: p.detach().requires_grad_(given[name].requires_grad) for name, p in self.values.items()}
        saved: dict[int, int] = {}

        def see(layer: nn.Module, x: torch.Tensor, out: torch.Tensor) -> None:
            shapes[layer].append((x.shape, out.shape) if out.requires_grad else None)

        def save(t: torch.Tensor) -> torch.Tensor:
            saved[t.data_ptr()] = t.nbytes
            return t

        first = {key: t[0] for key, t in self.samples.items()}
        try:
            with watched(found, see), saved_tensors_hooks(save, lambda t: t):
                f = self._call(leaves, first)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError) as error:
            what = "what inputs makes of A" if tangent.inputs else f"a sample of A, with {len(first[0])} columns"
            raise ValueError(f"model does not take {what}: {error}") from error
        self.pick = _picked(tangent.output, f)
        for leaf in leaves.values():
            saved.pop(leaf.data_ptr(), None)
        self.saved = sum(saved.values())
        count = uses(self.pick(f[0]), leaves)
        self.layers = []
        for module, calls in shapes.items():
            if not calls or None in calls or {count[name] for name in found[module]} != {len(calls)}:
                continue  # unused, or a weight that is used elsewhere, or without gradients
            layer = Layer(module, found[module], calls, always=way == "structured")
            if layer.kept <= self.most:
                self.layers.append(layer)

    def _groups(self) -> Iterator[tuple[list[Piece], list[Layer]]]:
        """Groups of rows of parameters and of layers, with at most `most` entries for one sample if rows allow it."""
        pieces: list[Piece] = []
        layers: list[Layer] = []
        size = 0
        for layer in self.layers:
            if size + layer.kept > self.most:
                yield [], layers
                layers, size = [], 0
            layers.append(layer)
            size += layer.kept
        done = {name for layer in self.layers for name in layer.names}
        for name, p in self.model.named_parameters():
            if not p.requires_grad or name in done:
                continue
            length, row = (p.shape[0], p[0].numel()) if p.ndim else (1, 1)
            start = 0
            while start < length:
                fit = min(length - start, max((self.most - size) // row, 0 if pieces or layers else 1))
                if fit == 0:
                    yield pieces, layers
                    pieces, layers, size = [], [], 0
                    continue
                pieces.append((name, start, start + fit))
                size += fit * row
                start += fit
        yield pieces, layers

    def __iter__(self) -> Iterator[tuple[torch.Tensor, dict[Layer, Calls]]]:
        """For each group, the gradients in some parameters, shape (n, entries), and what is kept of other layers."""
        for pieces, layers in self._groups():
            yield self._through(pieces, layers)

    def _through(self, pieces: list[Piece], layers: list[Layer]) -> tuple[torch.Tensor, dict[Layer, Calls]]:
        values, n = self.values, _count(self.samples)
        rows_of = {
            name: values[name][start:stop] if values[name].ndim else values[name] for name, start, stop in pieces
        }
        zeros = [[self.weights.new_zeros(d, dtype=layer.dtype) for _, d in layer.calls] for layer in layers]
        index = {layer.module: i for i, layer in enumerate(layers)}

        def value(part: Samples, shifts: list[list[torch.Tensor]], sample: Samples) -> tuple[torch.Tensor, Any]:
            whole = dict(values)
            for name, start, stop in pieces:
                p, piece = values[name], part[name]
                whole[name] = torch.cat([p[:start], piece, p[stop:]]) if p.ndim and stop - start < len(p) else piece
            inputs: list[list[torch.Tensor]] = [[] for _ in layers]

            def shift(layer: nn.Module, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
                i = index[layer]
                inputs[i].append(x.clone())  # the network may change it in place
                return out + shifts[i][len(inputs[i]) - 1]

            with watched(index, shift):
                f = self._call(whole, sample)[0]
            if [len(found) for found in inputs] != [len(layer.calls) for layer in layers]:
                raise ValueError("model applies its layers to some samples and not to others: use way='streamed'")
            return self.pick(f), inputs

        each = vmap(grad(value, argnums=(0, 1), has_aux=True), (None, None, 0))
        formed = sum(layer.kept for layer in layers if layer.at_once)
        J = self.weights.new_empty(n, sum(p.numel() for p in rows_of.values()) + formed)
        kept = {layer: layer.room(n, J.device) for layer in layers if not layer.at_once}
        one = self.saved + J.element_size() * (J.shape[1] + sum(layer.kept for layer in kept))
        batch = self.batch or max(8, _BYTES // one)
        for start in range(0, n, batch):
            rows = slice(start, start + batch)
            try:
                with sdpa_kernel(SDPBackend.MATH):  # attention that vmap can batch
                    (found, slopes), inputs = each(rows_of, zeros, {key: t[rows] for key, t in self.samples.items()})
            except RuntimeError as error:
                if "random" in str(error):
                    raise ValueError("model draws random numbers in evaluation mode too, as for dropout") from error
                raise
            parts = [g.flatten(1) for g in found.values()]
            for layer, xs, ds in zip(layers, inputs, slopes, strict=True):
                calls = list(zip(xs, ds, strict=True))
                if layer.at_once:
                    parts.append(layer.gradients(calls))
                    continue
                for (x_all, d_all), (x, d) in zip(kept[layer], calls, strict=True):
                    x_all[rows], d_all[rows] = x, d
            if parts:
                torch.cat(parts, dim=1, out=J[rows])
        return J, kept


def _picked(output: int | Callable[[torch.Tensor], torch.Tensor], f: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """The output that is differentiated, as a function of all outputs; checked on those of one sample."""
    if not isinstance(f, torch.Tensor) or f.ndim != 2 or len(f) != 1:
        got = f"shape {tuple(f.shape)}" if isinstance(f, torch.Tensor) else type(f).__name__
        raise ValueError(f"model must return outputs of shape (n, outputs); for one sample it returned {got}")
    if callable(output):
        value = output(f[0])
        if not isinstance(value, torch.Tensor) or value.ndim:
            raise ValueError(f"output must return one number, a tensor without axes; it returned {value!r:.60}")
        return output
    if not -f.shape[1] <= output < f.shape[1]:
        raise ValueError(f"output must be below {f.shape[1]}, the number of the model's outputs, got {output}")
    return partial(torch.select, dim=0, index=int(output))


def _count(samples: Samples) -> int:
    return len(next(iter(samples.values())))


def _ordinary(t: torch.Tensor) -> torch.Tensor:
    """A tensor, copied if it was made in inference mode, where gradients are zero in some versions of torch."""
    return t.clone() if t.is_inference() else t


def _finite(found: torch.Tensor) -> torch.Tensor:
    if not finite(found):
        raise ValueError("model has gradients, or products of them, that overflow or are NaN: was its training stable?")
    return found
