"""Trained networks: four architectures, training, and leaving samples out by training again."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from ._checks import Array, choice, device_of, like, number, positive, seed_of, tensor
from .activations import Activation, activation

__all__ = [
    "DivergedError",
    "fully_connected",
    "leave_one_out",
    "predict",
    "resnet18",
    "small_cnn",
    "train",
    "train_many",
    "vision_transformer",
]

_FEW_PARAMETERS = 50_000  # on a CPU, models above this are as fast one by one (bench/run.py)
_PRECISIONS = (torch.float32, torch.float64)
_CREATE = (torch.ops.aten.empty, torch.ops.aten.zeros, torch.ops.aten.ones)
# These draw as many numbers as the data decide, so that a sample left out would change what is drawn for the others.
_BY_VALUE = (torch.ops.aten.rrelu_with_noise, torch.ops.aten.rrelu_with_noise_, torch.ops.aten.poisson)


class DivergedError(ValueError):
    """A training whose loss or weights became NaN or infinite."""


class _Entrywise(nn.Module):
    def __init__(self, act: Activation):
        super().__init__()
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x)


class _OfImages(nn.Module):
    """A network of pictures that takes them as `SpuriousData` holds them: flat, channels last."""

    def __init__(self, image_shape: tuple[int, int, int], body: nn.Module, act: Activation | None = None):
        super().__init__()
        self.image_shape, self.body = image_shape, body
        if act is not None:
            _swap(body, act)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        columns = math.prod(self.image_shape)
        if tuple(z.shape[1:]) not in ((columns,), self.image_shape):
            raise ValueError(
                f"Z must have {columns} columns, for images of shape {self.image_shape}, got shape {tuple(z.shape)}"
            )
        return self.body(z.reshape(-1, *self.image_shape).permute(0, 3, 1, 2))


def _swap(module: nn.Module, act: Activation) -> None:
    """Put `act` in the place of every activation."""
    for name, child in module.named_children():
        if isinstance(child, (nn.ReLU, nn.GELU)):
            setattr(module, name, _Entrywise(act))
        else:
            _swap(child, act)


def _differentiable(act: str | Activation | Callable[[Any], Any]) -> Activation:
    """The activation, if the derivative that torch computes is that of its values."""
    phi = activation(act)
    with _gradients():
        x = 3 * torch.sin(torch.arange(1, 25, dtype=torch.float64, device="cpu"))  # not where kinks are
        x.requires_grad_()
        values = phi(1 * x)
        if not values.requires_grad:
            raise ValueError(f"act: torch cannot differentiate {phi.name!r}")
        (derivative,) = torch.autograd.grad(values.sum(), x)
    with torch.no_grad():
        # Near a kink only one side has the right quotient; functions computed in single precision need a longer step.
        steps = torch.tensor([1e-7, -1e-7, 1e-5, -1e-5, 1e-3, -1e-3], dtype=torch.float64, device="cpu")[:, None]
        quotients = (phi((x + steps).flatten()).view(6, -1) - phi(1 * x)) / steps
        nearest = quotients.gather(0, (quotients - derivative).abs().nan_to_num(torch.inf).argmin(0)[None])[0]
        scale = nearest.abs() + nearest.abs().nanmean()
        wrong = nearest.isfinite() & ~((nearest - derivative).abs() <= 1e-3 * scale)
    if wrong.any():
        point, slope, found = (t[wrong][0].item() for t in (x.detach(), nearest, derivative))
        raise ValueError(
            f"act: torch does not differentiate all of {phi.name!r}: at {point:.3g} its derivative is {slope:.4g}, "
            f"and torch finds {found:.4g}"
        )
    return phi


def _torchvision() -> Any:
    try:
        return importlib.import_module("torchvision.models")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('torchvision is needed here: pip install ".[images]"') from error


@contextmanager
def _gradients() -> Iterator[None]:
    """Let torch record gradients, whatever the caller's mode."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _generator(seed: int, device: torch.device | str = "cpu", *, child: int | None = None) -> torch.Generator:
    """A generator of torch: different seeds give different streams, and a `child` one more, independent of the rest."""
    if child is not None:
        seed = int(np.random.SeedSequence(seed, spawn_key=(child,)).generate_state(1, np.uint64)[0] >> 1)
    generator = torch.Generator(device).manual_seed(seed)
    if generator.device.type == "cpu" and seed >= 2**32:  # of which torch keeps the last 32 bits
        state = generator.get_state()
        words = np.random.SeedSequence(seed).generate_state(624)  # the state of the Mersenne twister, after a header
        state.view(torch.int64)[3:627] = torch.from_numpy(words.astype(np.int64))
        generator.set_state(state)
    return generator


class _Drawing(TorchDispatchMode):
    """While active, all that torch draws in this thread comes from `generator`, and new tensors are of type `dtype`.

    The global generator and the default type, which other threads use at the same time, are neither read nor changed.
    """

    def __init__(self, generator: torch.Generator, dtype: torch.dtype | None = None):
        super().__init__()
        self.generator, self.dtype, self.drew = generator, dtype, False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if self.dtype is not None and func.overloadpacket in _CREATE:
            given.setdefault("dtype", self.dtype)
        if torch.Tag.nondeterministic_seeded not in func.tags or given.get("generator") is not None:
            return func(*args, **given)
        names = [argument.name for argument in func._schema.arguments]
        if "dropout_p" in names and not dict(zip(names, args, strict=False)).get("dropout_p", given.get("dropout_p")):
            return func(*args, **given)  # attention without dropout
        self.drew = True
        if func is torch.ops.aten.native_dropout.default:  # dropout on a GPU
            x, p = args[:2]
            kept = torch.empty_like(x).bernoulli_(1 - p, generator=self.generator)
            return x * kept / (1 - p), kept.bool()
        if "generator" not in names or func.overloadpacket in _BY_VALUE:
            raise ValueError(
                f"model draws random numbers by {func}, which cannot be made to depend on the seed alone: draw them "
                "as torch.empty_like(x).normal_() does"
            )
        return func(*args, **(given | {"generator": self.generator}))


@contextmanager
def _weights_of(seed: Any) -> Iterator[None]:
    """Let torch draw the weights of layers from a seed: in single precision, on the CPU, as if nothing were set."""
    generator = _generator(seed_of(seed))
    with torch.inference_mode(False), torch.device("cpu"), _Drawing(generator, torch.float32):
        yield


def _shape(image_shape: Sequence[int], least: int) -> tuple[int, int, int]:
    sizes = tuple(image_shape) if isinstance(image_shape, Iterable) else ()
    if len(sizes) != 3:
        raise ValueError(f"image_shape must be (height, width, channels), got {image_shape!r}")
    height, width, channels = (positive(size, "image_shape") for size in sizes)
    if min(height, width) < least:
        raise ValueError(f"image_shape must have a height and a width of {least} or more, got {image_shape!r}")
    return height, width, channels


def fully_connected(
    d: int,
    outputs: int = 1,
    *,
    widths: Sequence[int] = (500, 200),
    act: str | Activation | Callable[[Any], Any] = "relu",
    seed: int = 0,
) -> nn.Module:
    """A fully connected network, d - 500 - 200 - outputs.

    Parameters
    ----------
    d : int
        Dimension of a sample.
    outputs : int
        1 for labels -1 and +1, else the number of classes.
    widths : sequence of int
        Widths of the hidden layers.
    act : str, Activation or callable
        As for `activation`; one that torch can differentiate.
    seed : int
        Of the weights, drawn as torch does by default: uniform within one over the root of the number of inputs.

    Returns
    -------
    torch.nn.Module
        From (n, d) to (n, outputs), in float32.

    Raises
    ------
    ValueError
        A size below 1, or an activation that is not known or not differentiable by torch.

    Notes
    -----
    The architecture of Bombari and Mondelli (2024), section 6.
    """
    if not isinstance(widths, Iterable):
        raise ValueError(f"widths must be a sequence of integers, got {widths!r}")
    sizes = [positive(d, "d"), *(positive(width, "widths") for width in widths)]
    outputs, phi = positive(outputs, "outputs"), _differentiable(act)
    layers: list[nn.Module] = []
    with _weights_of(seed):
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), _Entrywise(phi)]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))


def small_cnn(
    image_shape: Sequence[int],
    outputs: int = 1,
    *,
    act: str | Activation | Callable[[Any], Any] = "relu",
    seed: int = 0,
) -> nn.Module:
    """A small convolutional network: 16 and 32 channels, 3 x 3, each with ReLU and 2 x 2 max pooling, then 256 neurons.

    Parameters
    ----------
    image_shape : (int, int, int)
        Height, width and channels, as in `SpuriousData.image_shape`; height and width at least 4.
    outputs, seed : int
        As for `fully_connected`.
    act : str, Activation or callable
        In the place of ReLU, as for `fully_connected`.

    Returns
    -------
    torch.nn.Module
        From flat images, shape (n, height * width * channels), to (n, outputs), in float32.

    Raises
    ------
    ValueError
        A shape or a number out of range.

    Notes
    -----
    The architecture of Bombari and Mondelli (2024), section 6; that the convolutions keep height and width (by zeros
    around the image) is our choice.
    """
    height, width, channels = shape = _shape(image_shape, 4)
    outputs, phi = positive(outputs, "outputs"), None if act == "relu" else _differentiable(act)
    with _weights_of(seed):
        body = nn.Sequential(
            *(nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(32 * (height // 4) * (width // 4), 256), nn.ReLU(), nn.Linear(256, outputs)),
        )
    return _OfImages(shape, body, phi)


def resnet18(
    image_shape: Sequence[int],
    outputs: int = 10,
    *,
    act: str | Activation | Callable[[Any], Any] = "relu",
    seed: int = 0,
) -> nn.Module:
    """ResNet-18 as torchvision has it, with untrained weights.

    Parameters
    ----------
    image_shape : (int, int, int)
        Height, width and channels, of which the first layer takes that number. Any size will do, as for torchvision;
        but the last layers of images of at most 32 x 32 pixels have one position, and a batch of one such image cannot
        be normalized in training.
    outputs, seed : int
        As for `fully_connected`.
    act : str, Activation or callable
        In the place of ReLU, as for `fully_connected`.

    Returns
    -------
    torch.nn.Module
        From flat images, shape (n, height * width * channels), to (n, outputs), in float32.

    Raises
    ------
    ValueError
        A shape or a number out of range, or an activation that is not known or not differentiable by torch.
    ModuleNotFoundError
        torchvision is missing.
    """
    shape, outputs = _shape(image_shape, 1), positive(outputs, "outputs")
    phi = None if act == "relu" else _differentiable(act)
    with _weights_of(seed):
        body = _torchvision().resnet18(weights=None, num_classes=outputs)
        if shape[2] != 3:
            body.conv1 = nn.Conv2d(shape[2], 64, kernel_size=7, stride=2, padding=3, bias=False)
    return _OfImages(shape, body, phi)


def vision_transformer(
    image_shape: Sequence[int],
    outputs: int = 10,
    *,
    patch: int = 8,
    width: int = 96,
    layers: int = 4,
    heads: int = 4,
    act: str | Activation | Callable[[Any], Any] = "gelu",
    seed: int = 0,
) -> nn.Module:
    """A small vision transformer, torchvision's, with untrained weights.

    Parameters
    ----------
    image_shape : (int, int, int)
        Height, width and channels; the image is square and cut into squares of `patch` pixels a side.
    outputs, seed : int
        As for `fully_connected`.
    patch, width, layers, heads : int
        Side of a patch, size of a token, number of blocks, and of attention heads, which divides the width. The
        neurons of a block number twice the width.
    act : str, Activation or callable
        In the place of GELU, as for `fully_connected`.

    Returns
    -------
    torch.nn.Module
        From flat images, shape (n, height * width * channels), to (n, outputs), in float32.

    Raises
    ------
    ValueError
        A shape or a number out of range, or an activation that is not known or not differentiable by torch.
    ModuleNotFoundError
        torchvision is missing.

    Notes
    -----
    The head starts from zero in torchvision, which makes the output constant at initialization; here it is drawn as
    torch draws linear layers. Small sizes: Dosovitskiy et al. (2021) train much larger ones.
    """
    patch, width, layers = positive(patch, "patch"), positive(width, "width"), positive(layers, "layers")
    outputs = positive(outputs, "outputs")
    shape = height, across, channels = _shape(image_shape, patch)
    if height != across or height % patch:
        raise ValueError(f"image_shape must be square, its sides a multiple of patch = {patch}, got {image_shape!r}")
    if width % positive(heads, "heads"):
        raise ValueError(f"heads must divide width = {width}, got {heads}")
    phi = None if act == "gelu" else _differentiable(act)
    with _weights_of(seed):
        body = _torchvision().VisionTransformer(
            image_size=height,
            patch_size=patch,
            num_layers=layers,
            num_heads=heads,
            hidden_dim=width,
            mlp_dim=2 * width,
            num_classes=outputs,
        )
        body.heads.head.reset_parameters()
        if channels != 3:
            body.conv_proj = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)
    return _OfImages(shape, body, phi)


def predict(model: nn.Module, Z: Array, *, batch: int = 1024) -> Array:
    """Outputs of a network, computed where its weights are, with batch normalization as after training.

    Parameters
    ----------
    model : torch.nn.Module
        The network; it is not changed, and several threads may use it at once.
    Z : array or tensor, shape (n, d)
        Samples.
    batch : int
        How many at a time.

    Returns
    -------
    array or tensor like `Z`
        Shape (n,) for a network with one output, else (n, outputs).

    Raises
    ------
    ValueError
        Samples that are not numbers, or of a size that the network does not take; a network whose outputs are not of
        shape (n, outputs), are not finite, or depend on the batch (batch normalization without running statistics).
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
    """`Z` cut into `rows` at a time, so that only these are converted at once; or whole, where it cannot be cut."""
    dense = isinstance(Z, np.ndarray) or (isinstance(Z, torch.Tensor) and Z.layout == torch.strided)
    return (Z[start : start + rows] for start in range(0, len(Z), rows)) if dense and Z.ndim == 2 and len(Z) else [Z]


def _evaluated(model: nn.Module) -> nn.Module:
    """The network in evaluation mode: itself, or a copy that shares all its tensors, so that no flag of it is set."""
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
            _outputs(model, samples[:1])  # raises where the columns are at fault, and not the number of rows
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
    """The first parameters of a network with which this library computes, which tell precision and device."""
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
    """Train a copy of a network by Adam, its step times 0.8 after every 100 epochs.

    Parameters
    ----------
    model : torch.nn.Module
        The network before training; it is not changed. Layers in evaluation mode inside a network in training mode stay
        so (frozen batch normalization, dropout that is switched off); of a network that is itself in evaluation mode,
        as `train` returns it, every layer is trained.
    Z : array or tensor, shape (n, d)
        Samples.
    g : array or tensor, shape (n,)
        Labels: numbers for the square loss, the classes 0, 1, ... for the cross entropy.
    epochs : int
        How often every sample is visited.
    loss : {"square", "cross-entropy"}
        ``"square"``, (f - g)^2, is for a network with one output.
    batch : int
        Most samples in a step. Batches differ in size by one at most, and are drawn anew for every epoch.
    lr : float
        Step of Adam at the start.
    seed : int
        Of the order of the samples, which is drawn by the CPU's generator, for every device; and of what the network
        draws in training (dropout), by the generator of the device.
    device : str
        Where to train, and where the returned network is.
    weights : array or tensor, shape (n,), optional
        Weights of the samples in the loss, nonnegative. The loss of a batch is the weighted mean: a sample of weight
        zero is left out, and has no influence whatever.
    until : float, optional
        Stop after the first epoch whose loss is below it.

    Returns
    -------
    (torch.nn.Module, ndarray of shape (epochs run,))
        The trained network, in evaluation mode; and the loss of each epoch: the weighted mean over its batches, each
        before its own step, as in training.

    Raises
    ------
    ValueError
        Before training: shapes that do not fit, labels that the loss does not take, numbers out of range, an unknown
        loss or device; a network that `predict` refuses, whose output depends on the batch, that has nothing to train,
        or that cannot normalize a batch in which one sample would be alone. In its first step: a network that draws
        numbers in a way that takes no generator.
    DivergedError
        The loss or the weights became NaN or infinite: a ``ValueError`` that names the epoch.

    Notes
    -----
    The training of Bombari and Mondelli (2024), section 6: Adam with step 1e-3, batches of 1024, 1000 epochs.
    """
    if until is not None:
        until = number(until, "until", above=0.0)
    with _gradients():
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
    """Train several copies of a network, from the same weights and in the same order, on other labels or samples.

    Parameters
    ----------
    model, Z, epochs, loss, batch, lr, seed, device
        As for `train`.
    g, weights : array or tensor, shape (n,) or (models, n)
        Labels, and weights of the samples in the loss; those of one axis are the same for all networks.
    together : bool, optional
        Train all at once, as one network with an axis more (by ``torch.func``), or one by one. Default: what is faster:
        at once on a GPU, and on a CPU when the network is small and has no convolutions; one by one where torch cannot
        do otherwise. A network with batch
        normalization is trained one by one: at once, a sample of weight zero would still enter the averages of its
        batch, and so not be left out; one by one it is taken from the batch.

    Returns
    -------
    list of torch.nn.Module

    Raises
    ------
    ValueError
        As from `train`; or `together` was asked for with batch normalization, or where torch cannot; or a sample has
        weight zero in a network with both batch normalization and dropout, where it would change what is drawn for
        the others.
    """
    if together not in (None, True, False):
        raise ValueError(f"together must be True, False or None, got {together!r}")
    with _gradients():
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
    """Train a network with all samples, and once more without each of some of them.

    All else is held fixed: the weights at the start, the order of the samples, the number of steps, and what the
    network draws in training (dropout).

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
        As for `train_many`: ``epochs`` and the like.

    Returns
    -------
    (torch.nn.Module, list of torch.nn.Module)
        The network trained with all samples, and those trained without one, in the order of `left_out`.

    Raises
    ------
    ValueError
        As from `train_many`; or a position that is not there.
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


class _Task:
    """Checked arguments of a training, and its two ways."""

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
        """How many outputs the network has, each of which depends on its sample alone, and on what is trained."""
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
        """Refuse what batch normalization does not allow, before it meets it in the middle of a training."""
        drawing = _Drawing(_generator(self.seed, self.device))
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
        """For each epoch its batches: positions of samples."""
        generator, count = _generator(self.seed), -(-self.n // self.batch)
        for _ in range(self.epochs):
            order = torch.randperm(self.n, generator=generator, device="cpu").to(self.device)
            yield order.tensor_split(count) if count > 1 else (torch.arange(self.n, device=self.device),)

    def _epochs(self, parameters: Iterable[torch.Tensor]) -> Iterator[tuple[torch.optim.Optimizer, Any]]:
        """For each epoch the optimizer and its batches."""
        adam = torch.optim.Adam(parameters, lr=self.lr, fused=True)
        decay = torch.optim.lr_scheduler.StepLR(adam, step_size=100, gamma=0.8)
        for batches in self._orders():
            yield adam, batches
            decay.step()

    def _caller(self, model: Callable[..., Any]) -> Callable[..., Any]:
        """`model`, which draws from a generator of the seed if its first call has shown that it draws at all."""
        drawing, draws = _Drawing(_generator(self.seed, self.device, child=1)), True

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
            total = torch.zeros((), device=self.device, dtype=torch.float64)  # read once an epoch: a GPU would wait
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
        """All networks, trained as one with an axis more."""
        parameters, buffers = stack_module_state([self.model] * self.models)
        g, weights = (rows.expand(self.models, -1) for rows in (self.g, self.weights))

        def loss(p: Any, b: Any, Z: torch.Tensor, g: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            values = weights * self.loss(_rows_of(functional_call(self.model, (p, b), (Z,)), Z), g)
            return values.sum() / weights.sum().clamp(min=1e-30)

        # what is drawn is the same for all
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
