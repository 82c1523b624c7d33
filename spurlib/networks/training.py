"""Training of networks, and retraining without single samples."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from .._checks import Array, choice, device_of, like, number, positive, seed_of, tensor
from .draws import Drawing, generator_of, recording_gradients

__all__ = ["DivergedError", "leave_one_out", "mean_of", "predict", "settled", "train", "train_many"]

_FEW_PARAMETERS = 50_000  # on a CPU, larger models are trained as fast one by one (bench/run.py)
_PRECISIONS = (torch.float32, torch.float64)


class DivergedError(ValueError):
    """The loss or the weights became NaN or infinite during training."""


def predict(model: nn.Module, Z: Array, *, batch: int = 1024) -> Array:
    """Return the predictions of a network in evaluation mode, computed on the device of its weights.

    Parameters
    ----------
    model : torch.nn.Module
        The network; it is not changed, and several threads may use it at once.
    Z : array or tensor, shape (n, d)
        Samples.
    batch : int
        Largest number of samples that are processed at a time.

    Returns
    -------
    array or tensor, shape (n,) for a network with one output, else (n, outputs)
        Of the kind of `Z`.

    Raises
    ------
    ValueError
        The samples are not finite numbers, or have a size that the network does not accept; `batch` is below 1; the
        network has no parameters, or is neither in float32 nor in float64; its outputs do not have shape (n, outputs),
        are not finite, or depend on the batch (batch normalization without running statistics).

    Examples
    --------
    >>> import numpy as np
    >>> from spurlib import fully_connected
    >>> predict(fully_connected(4, widths=(8,)), np.zeros((3, 4))).shape
    (3,)
    """
    weights, batch, parts = _weights(model), positive(batch, "batch"), []
    evaluated = _evaluated(model)
    for some in _pieces(Z, batch):
        samples = tensor(some, "Z", ndim=2, device=weights.device, dtype=weights.dtype)
        parts += [_outputs(evaluated, part) for part in samples.split(batch)]
    out = torch.cat(parts)
    finite = out.isfinite().all(dim=1)
    if not finite.all():
        raise ValueError(
            f"model gives NaN or infinite outputs, first for row {int(finite.int().argmin())} of Z: "
            "its training may have diverged"
        )
    return like(out[:, 0] if out.shape[1] == 1 else out, Z)


def _pieces(Z: Array, rows: int) -> Iterable[Array]:
    """`Z` in pieces of `rows` rows, of which one at a time is converted; or as a whole, if it cannot be cut."""
    dense = isinstance(Z, np.ndarray) or (isinstance(Z, torch.Tensor) and Z.layout == torch.strided)
    return (Z[start : start + rows] for start in range(0, len(Z), rows)) if dense and Z.ndim == 2 and len(Z) else [Z]


def _evaluated(model: nn.Module) -> nn.Module:
    """The network in evaluation mode: itself, or a copy with the same tensors, so that its own mode is not changed."""
    if not any(module.training for module in model.modules()):
        return model
    held = (value for module in model.modules() for value in vars(module).values())
    shared = (t for t in chain(model.parameters(), model.buffers(), held) if isinstance(t, torch.Tensor))
    return copy.deepcopy(model, {id(t): t for t in shared}).eval()


@torch.no_grad()
def _outputs(model: nn.Module, samples: torch.Tensor) -> torch.Tensor:
    try:
        return _rows_of(model(samples), samples)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if len(samples) > 1:
            _outputs(model, samples[:1])  # raises if the columns are at fault, and not the number of rows
            raise
        raise ValueError(f"Z has {samples.shape[1]} columns, which the network does not take: {error}") from error


def _rows_of(out: Any, samples: torch.Tensor) -> torch.Tensor:
    """Outputs of a network, if they are one row of numbers for each sample."""
    if not isinstance(out, torch.Tensor):
        raise ValueError(f"model must return a tensor, of shape (n, outputs), got {type(out).__name__}")
    if out.ndim != 2 or len(out) != len(samples) or out.shape[1] == 0:
        raise ValueError(
            f"model must return outputs of shape (n, outputs): for samples of shape {tuple(samples.shape)}, "
            f"got shape {tuple(out.shape)}"
        )
    if out.dtype not in _PRECISIONS:
        raise ValueError(f"model must return outputs in torch.float32 or torch.float64, got {out.dtype}")
    return out


def _weights(model: nn.Module) -> torch.Tensor:
    """The first parameters of a network, after checks; they have its precision and device."""
    weights = list(model.parameters()) if isinstance(model, nn.Module) else []
    if not weights:
        raise ValueError(f"model must be a torch.nn.Module with parameters, got {type(model).__name__}")
    for p in weights:
        if nn.parameter.is_lazy(p) or p.is_meta:
            raise ValueError("model has parameters without values: call it once, or load its weights")
        if p.dtype not in _PRECISIONS:
            raise ValueError(f"model must have parameters in torch.float32 or torch.float64, got {p.dtype}")
    for name, layer in model.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
            raise ValueError(
                f"model: the output for a sample depends on the others of its batch, since layer {name!r} has no "
                "running statistics: pass it track_running_stats=True"
            )
    return weights[0]


def _square(out: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    return (out[..., 0] - g) ** 2


def _cross_entropy(out: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(out, g.long(), reduction="none")


_LOSSES = {"square": _square, "cross-entropy": _cross_entropy}


def train(
    model: nn.Module,
    Z: Array,
    g: Array,
    *,
    epochs: int,
    loss: str = "square",
    batch: int = 1024,
    lr: float = 1e-3,
    seed: int = 0,
    device: torch.device | str = "cpu",
    weights: Array | None = None,
    until: float | None = None,
) -> tuple[nn.Module, np.ndarray]:
    """Train a copy of a network with Adam, whose step size is multiplied by 0.8 after every 100 epochs.

    Parameters
    ----------
    model : torch.nn.Module
        The network before training; it is not changed. Layers in evaluation mode inside a network in training mode stay
        in evaluation mode (frozen batch normalization, dropout that is switched off). A network that is itself in
        evaluation mode, such as one that `train` returns, is put in training mode with all its layers.
    Z : array or tensor, shape (n, d)
        Samples.
    g : array or tensor, shape (n,)
        Labels: numbers for the square loss, the classes 0, 1, ... for the cross entropy.
    epochs : int
        Number of passes over the samples.
    loss : {"square", "cross-entropy"}
        ``"square"``, (f - g)^2, is for a network with one output.
    batch : int
        Largest number of samples in a step. The sizes of batches differ by at most one, and batches are drawn anew for
        every epoch.
    lr : float
        Initial step size of Adam.
    seed : int
        Seed of the order of the samples, which is drawn by the CPU's generator for every device, and of the random
        numbers of the network in training (dropout), which the generator of the device draws.
    device : str
        Where to train, and where the returned network is.
    weights : array or tensor, shape (n,), optional
        Weights of the samples in the loss, nonnegative. The loss of a batch is the weighted mean, so a sample of weight
        zero is left out and has no influence.
    until : float, optional
        Stop after the first epoch whose loss is below it.

    Returns
    -------
    (torch.nn.Module, ndarray of shape (epochs run,))
        The trained network, in evaluation mode, and the loss of each epoch: the weighted mean over its batches, where
        the loss of a batch is computed before its step.

    Raises
    ------
    ValueError
        Before training: shapes do not match, labels do not suit the loss, numbers are out of range, or the loss or
        device is unknown; the network is refused by `predict`, has outputs that depend on the batch, has no parameters
        to train, cannot normalize a batch that would consist of one sample, or has both batch normalization and dropout
        while a weight is zero. In the first step: the network draws random numbers in a way that takes no generator.
    DivergedError
        The loss or the weights became NaN or infinite; a ``ValueError`` that names the epoch.

    Notes
    -----
    The training of Bombari and Mondelli (2024), section 6: Adam with step 1e-3, batches of 1024, 1000 epochs.

    Examples
    --------
    >>> from spurlib import fully_connected, synthetic
    >>> data = synthetic(n=20, d=10, alpha=0.5, n_test=5, seed=0)
    >>> model, losses = train(fully_connected(10, widths=(50,)), data.Z, data.g, epochs=200)
    >>> bool(losses[-1] < 0.1 < losses[0])
    True
    """
    if until is not None:
        until = number(until, "until", above=0.0)
    with recording_gradients():
        task = _Task(model, Z, g, weights, epochs, loss, batch, lr, seed, device)
        if task.models != 1:
            raise ValueError("g and weights must have one axis here: use train_many for several networks")
        return task.one(0, until)


def train_many(
    model: nn.Module,
    Z: Array,
    g: Array,
    *,
    weights: Array | None = None,
    epochs: int,
    loss: str = "square",
    batch: int = 1024,
    lr: float = 1e-3,
    seed: int = 0,
    device: torch.device | str = "cpu",
    together: bool | None = None,
) -> list[nn.Module]:
    """Train several copies of a network on different labels or samples, with the same initial weights and order.

    Parameters
    ----------
    model, Z, epochs, loss, batch, lr, seed, device
        As for `train`.
    g, weights : array or tensor, shape (n,) or (models, n)
        Labels, and weights of the samples in the loss; arrays with one axis are used for all networks.
    together : bool, optional
        Whether to train all networks at once, as one network with an additional axis (by ``torch.func``), or one by
        one. The default is the faster way: at once on a GPU, and on a CPU if the network is small and has no
        convolutions; otherwise, or if torch cannot train them at once, one by one. Networks with batch normalization
        are always trained one by one. If they were trained at once, a sample of weight zero would still enter the
        averages of its batch; one by one, it is removed from the batch.

    Returns
    -------
    list of torch.nn.Module
        The trained networks, in evaluation mode.

    Raises
    ------
    ValueError
        As for `train`; or `together` is True for a network with batch normalization, or for one that torch cannot train
        in this way; or a sample has weight zero for a network with both batch normalization and dropout, where leaving
        it out would change the random numbers for the others.

    Examples
    --------
    >>> from spurlib import fully_connected, synthetic
    >>> data = synthetic(n=20, d=10, alpha=0.5, n_test=5, seed=0)
    >>> start = fully_connected(10, widths=(50,))
    >>> len(train_many(start, data.Z, [data.g, -data.g], epochs=5))
    2
    """
    if together not in (None, True, False):
        raise ValueError(f"together must be True, False or None, got {together!r}")
    with recording_gradients():
        task = _Task(model, Z, g, weights, epochs, loss, batch, lr, seed, device)
        if together and task.normalizes:
            raise ValueError(
                "together: not with batch normalization, where samples of weight zero would have influence"
            )
        if together or (together is None and not task.normalizes and (task.device.type == "cuda" or task.small)):
            try:
                return task.all()
            except RuntimeError as error:
                if "vmap" not in str(error):
                    raise
                if together:
                    raise ValueError(f"together: torch cannot train this network so: {error}") from error
        return [task.one(index)[0] for index in range(task.models)]


def leave_one_out(
    model: nn.Module, Z: Array, g: Array, left_out: Sequence[int], **options: Any
) -> tuple[nn.Module, list[nn.Module]]:
    """Train a network on all samples, and again without each of several samples in turn.

    Everything else is held fixed: the initial weights, the order of the samples, the number of steps, and the random
    numbers of the network in training (dropout).

    Parameters
    ----------
    model : torch.nn.Module
        The network before training.
    Z : array or tensor, shape (n, d)
        Samples, n at least 2.
    g : array or tensor, shape (n,)
        Labels.
    left_out : sequence of int
        Positions of the samples to be left out, one at a time.
    **options
        As for `train_many`, such as ``epochs``, but not ``weights``, which are set here.

    Returns
    -------
    (torch.nn.Module, list of torch.nn.Module)
        The network trained on all samples, and those trained without one sample, in the order of `left_out`.

    Raises
    ------
    ValueError
        As for `train_many`; or there is only one sample, or `left_out` is empty or contains a position out of range.

    Examples
    --------
    >>> from spurlib import fully_connected, synthetic
    >>> data = synthetic(n=20, d=10, alpha=0.5, n_test=5, seed=0)
    >>> full, without = leave_one_out(fully_connected(10, widths=(50,)), data.Z, data.g, [0, 1], epochs=100)
    >>> unseen = [predict(model, data.Z[i : i + 1])[0] for i, model in enumerate(without)]
    >>> bool(((predict(full, data.Z[:2]) - unseen) * data.g[:2] > 0).all())
    True
    """
    n = len(tensor(Z, "Z", ndim=2))
    chosen = np.asarray(left_out)
    if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer) or not ((chosen >= 0) & (chosen < n)).all():
        raise ValueError(f"left_out must be positions from 0 to {n - 1}, got {left_out!r}")
    if n < 2 or len(chosen) == 0:
        raise ValueError(f"left_out: nothing to train without, of {n} samples and {len(chosen)} positions")
    weights = np.ones((len(chosen) + 1, n))
    weights[np.arange(1, len(chosen) + 1), chosen] = 0.0
    everything, *without = train_many(model, Z, g, weights=weights, **options)
    return everything, without


def settled(model: nn.Module, Z: np.ndarray) -> nn.Module:
    """Return a copy in evaluation mode in which the running statistics of batch normalization are those of one batch.

    Parameters
    ----------
    model : torch.nn.Module
        Any network. Without batch normalization the copy differs in its mode only.
    Z : ndarray, shape (n, d)
        The batch.

    Returns
    -------
    torch.nn.Module
        The copy.
    """
    model = copy.deepcopy(model).train()
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.reset_running_stats()
            layer.momentum = None  # a plain average over the batches since the reset: of one
    weights = next(model.parameters())
    with torch.no_grad():
        model(torch.as_tensor(Z, dtype=weights.dtype, device=weights.device))
    return model.eval()


def mean_of(one: nn.Module, two: nn.Module, share: float = 0.5) -> nn.Module:
    """Return a network on the segment between the parameters of two networks of the same architecture.

    Parameters
    ----------
    one, two : torch.nn.Module
        The networks at the ends of the segment.
    share : float
        Position on the segment: 0 gives `one`, 1 gives `two`.

    Returns
    -------
    torch.nn.Module
        Its parameters and running statistics are (1 - share) times those of `one` plus share times those of `two`.
    """
    between = copy.deepcopy(one)
    first, second = one.state_dict(), two.state_dict()
    between.load_state_dict({key: torch.lerp(first[key].double(), second[key].double(), share) for key in first})
    return between


class _Task:
    """Checked arguments of a training, and the two ways to run it."""

    def __init__(
        self,
        model: nn.Module,
        Z: Array,
        g: Array,
        weights: Array | None,
        epochs: int,
        loss: str,
        batch: int,
        lr: float,
        seed: int,
        device: torch.device | str,
    ):
        self.device, self.epochs, self.batch = device_of(device), positive(epochs, "epochs"), positive(batch, "batch")
        self.loss, self.lr = _LOSSES[choice(loss, "loss", _LOSSES)], number(lr, "lr", above=0.0)
        self.seed, dtype = seed_of(seed), _weights(model).dtype
        self.Z = tensor(Z, "Z", ndim=2, device=self.device, dtype=dtype)
        self.n = len(self.Z)
        self.g = self._rows(g, "g")
        self.weights = self._rows(np.ones(self.n) if weights is None else weights, "weights")
        if (self.weights < 0).any() or not (self.weights.sum(dim=1) > 0).all():
            raise ValueError("weights must be nonnegative, and not all zero")
        counts = {len(rows) for rows in (self.g, self.weights)} - {1}
        if len(counts) > 1:
            raise ValueError(f"g is for {len(self.g)} networks, weights are for {len(self.weights)}")
        self.models = max(counts, default=1)
        self.model = copy.deepcopy(model).to(self.device)
        if not self.model.training:
            self.model.train()
        count = self._outputs()
        if loss == "square" and count != 1:
            raise ValueError(f"loss: 'square' is for a network with one output, this one has {count}")
        if loss != "square" and not torch.isin(self.g, torch.arange(count, device=self.device)).all():
            raise ValueError(f"g must be classes from 0 to {count - 1} for the cross entropy of {count} outputs")
        layers = list(self.model.modules())
        self.normalizes = any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in layers)
        convolves = any(isinstance(layer, nn.Conv2d) for layer in layers)
        self.small = not convolves and sum(p.numel() for p in self.model.parameters()) < _FEW_PARAMETERS
        if self.normalizes:
            self._normalized()

    def _rows(self, x: Array, name: str) -> torch.Tensor:
        ndim = 2 if np.ndim(x) == 2 else 1
        t = tensor(x, name, ndim=ndim, device=self.device, dtype=self.Z.dtype)
        if t.shape[-1] != self.n:
            raise ValueError(f"{name} must have one entry for each of the {self.n} samples, got shape {tuple(t.shape)}")
        return t if ndim == 2 else t[None]

    def _outputs(self) -> int:
        """The number of outputs; checks that each depends on its sample alone and on parameters that are trained."""
        evaluated = _evaluated(self.model)
        alone, beside = (_outputs(evaluated, self.Z[:rows]) for rows in (1, 2))
        if (alone - beside[:1]).abs().max() > 1e-3 * beside.abs().max():
            raise ValueError("model: the output for a sample depends on the others of its batch")
        if not any(p.requires_grad for p in self.model.parameters()) or not evaluated(self.Z[:1]).requires_grad:
            raise ValueError(
                "model has nothing to train: its outputs do not depend on parameters that require gradients"
            )
        return alone.shape[1]

    def _normalized(self) -> None:
        """Refuse what batch normalization does not allow before the training starts."""
        drawing = Drawing(generator_of(self.seed, self.device))
        averages = {name: buffer.clone() for name, buffer in self.model.named_buffers()}  # not to be changed here
        try:
            with torch.no_grad(), drawing:
                functional_call(self.model, averages, (self.Z[:1],))
        except ValueError:  # one sample alone has no variance
            for rows in chain.from_iterable(self._orders()):
                if ((self.weights[:, rows] > 0).sum(dim=1) == 1).any():
                    raise ValueError(
                        f"batch = {self.batch} leaves one of the {self.n} samples alone in a batch, which this network "
                        "cannot normalize: choose another size"
                    ) from None
            with torch.no_grad(), drawing:
                functional_call(self.model, averages, (self.Z[:2],))
        if drawing.drew and not (self.weights > 0).all():
            raise ValueError(
                "weights: not zero for a network with both batch normalization and dropout: a sample that is left out "
                "would change what is drawn for the others"
            )

    def _orders(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """The batches of each epoch, as positions of samples."""
        generator, count = generator_of(self.seed), -(-self.n // self.batch)
        for _ in range(self.epochs):
            order = torch.randperm(self.n, generator=generator, device="cpu").to(self.device)
            yield order.tensor_split(count) if count > 1 else (torch.arange(self.n, device=self.device),)

    def _epochs(self, parameters: Iterable[torch.Tensor]) -> Iterator[tuple[torch.optim.Optimizer, Any]]:
        """The optimizer and the batches of each epoch."""
        adam = torch.optim.Adam(parameters, lr=self.lr, fused=True)
        decay = torch.optim.lr_scheduler.StepLR(adam, step_size=100, gamma=0.8)
        for batches in self._orders():
            yield adam, batches
            decay.step()

    def _caller(self, model: Callable[..., Any]) -> Callable[..., Any]:
        """`model` with random numbers from a generator of the seed; skipped if the first call has drawn none."""
        drawing, draws = Drawing(generator_of(self.seed, self.device, child=1)), True

        def call(*args: Any) -> Any:
            nonlocal draws
            if not draws:
                return model(*args)
            with drawing:
                out = model(*args)
            draws = drawing.drew
            return out

        return call

    def one(self, index: int, until: float | None = None) -> tuple[nn.Module, np.ndarray]:
        """One of the networks, trained alone."""
        model, losses = copy.deepcopy(self.model), []
        g, weights = (rows[index if len(rows) > 1 else 0] for rows in (self.g, self.weights))
        call = self._caller(model)
        for adam, batches in self._epochs(model.parameters()):
            total = torch.zeros((), device=self.device, dtype=torch.float64)  # read once per epoch: a GPU would wait
            for rows in batches:
                if self.normalizes:  # a weight of zero would not keep a sample out of the averages of its batch
                    rows = rows[weights[rows] > 0]
                    if len(rows) == 0:
                        continue
                adam.zero_grad()
                Z = self.Z[rows]
                summed = (weights[rows] * self.loss(_rows_of(call(Z), Z), g[rows])).sum()
                (summed / weights[rows].sum().clamp(min=1e-30)).backward()
                adam.step()
                total += summed.detach()
            losses.append(float(total) / float(weights.sum()))
            self._finite(losses[-1], len(losses))
            if until is not None and losses[-1] < until:
                break
        self._finite_weights(model, len(losses))
        return model.eval(), np.array(losses)

    def all(self) -> list[nn.Module]:
        """All networks, trained as one network with an additional axis."""
        parameters, buffers = stack_module_state([self.model] * self.models)
        g, weights = (rows.expand(self.models, -1) for rows in (self.g, self.weights))

        def loss(p: Any, b: Any, Z: torch.Tensor, g: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            values = weights * self.loss(_rows_of(functional_call(self.model, (p, b), (Z,)), Z), g)
            return values.sum() / weights.sum().clamp(min=1e-30)

        # all networks have the same random numbers
        call = self._caller(vmap(loss, (0, 0, None, 0, 0), randomness="same"))
        for epoch, (adam, batches) in enumerate(self._epochs(parameters.values()), start=1):
            total = torch.zeros((), device=self.device)
            for rows in batches:
                adam.zero_grad()
                summed = call(parameters, buffers, self.Z[rows], g[:, rows], weights[:, rows]).sum()
                summed.backward()
                adam.step()
                total += summed.detach()
            self._finite(float(total), epoch)
        trained = []
        for index in range(self.models):
            model = copy.deepcopy(self.model)
            with torch.no_grad():
                for name, t in chain(model.named_parameters(), model.named_buffers()):
                    t.copy_((parameters | buffers)[name][index])
            self._finite_weights(model, self.epochs)
            trained.append(model.eval())
        return trained

    def _finite(self, loss: float, epoch: int) -> None:
        if not math.isfinite(loss):
            raise DivergedError(f"training diverged: the loss is {loss} in epoch {epoch}; choose lr below {self.lr:g}")

    def _finite_weights(self, model: nn.Module, epoch: int) -> None:
        if not all(p.isfinite().all() for p in model.parameters()):
            raise DivergedError(
                f"training diverged: weights are NaN or infinite after epoch {epoch}; choose lr below {self.lr:g}"
            )
