"""Trained networks: four architectures, training, and leaving samples out by training again."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from ._checks import Array, device_of, like, positive, tensor
from .activations import Activation, activation

__all__ = [
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
        return self.body(z.reshape(-1, *self.image_shape).permute(0, 3, 1, 2))


def _swap(module: nn.Module, act: Activation) -> None:
    """Put `act` in the place of every activation."""
    for name, child in module.named_children():
        if isinstance(child, (nn.ReLU, nn.GELU)):
            setattr(module, name, _Entrywise(act))
        else:
            _swap(child, act)


def _differentiable(act: str | Activation | Callable[[Any], Any]) -> Activation:
    phi = activation(act)
    if not phi(torch.zeros(2, requires_grad=True)).requires_grad:
        raise ValueError(f"act: torch cannot differentiate {phi.name!r}")
    return phi


def _torchvision() -> Any:
    try:
        return importlib.import_module("torchvision.models")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("torchvision is needed here: pip install 'spurlib[images]'") from error


@contextmanager
def _weights_of(seed: Any) -> Iterator[None]:
    """Let torch draw the weights of layers from a seed, and leave its global generator as it was."""
    seed = _seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be a nonnegative integer, got {seed!r}")
    return int(seed)


def _shape(image_shape: Sequence[int], least: int) -> tuple[int, int, int]:
    sizes = tuple(image_shape)
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
    sizes = [positive(d, "d"), *(positive(width, "widths") for width in widths)]
    phi = _differentiable(act)
    layers: list[nn.Module] = []
    with _weights_of(seed):
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), _Entrywise(phi)]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], positive(outputs, "outputs")))


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
        Height, width and channels; height and width at least 33, so that batches can be normalized down to the last
        layer, whatever their size. The first layer takes that number of channels.
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
    shape, outputs = _shape(image_shape, 33), positive(outputs, "outputs")
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
    patch, width = positive(patch, "patch"), positive(width, "width")
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
            num_layers=positive(layers, "layers"),
            num_heads=heads,
            hidden_dim=width,
            mlp_dim=2 * width,
            num_classes=positive(outputs, "outputs"),
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
        The network.
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
        Samples that are not numbers, or of a size that the network does not take.
    """
    out = _outputs(model, _samples(model, Z), positive(batch, "batch"))
    return like(out[:, 0] if out.shape[1] == 1 else out, Z)


@torch.no_grad()
def _outputs(model: nn.Module, samples: torch.Tensor, batch: int) -> torch.Tensor:
    was_training = model.training
    model.eval()
    try:
        return torch.cat([model(part) for part in samples.split(batch)])
    except RuntimeError as error:
        raise ValueError(f"Z has {samples.shape[1]} columns, which the network does not take: {error}") from error
    finally:
        model.train(was_training)


def _samples(model: nn.Module, Z: Array) -> torch.Tensor:
    weights = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    if weights is None:
        raise ValueError(f"model must be a torch.nn.Module with parameters, got {type(model).__name__}")
    return tensor(Z, "Z", ndim=2, device=weights.device, dtype=weights.dtype)


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
        The network before training; it is not changed.
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
        Of the order of the samples. It is drawn by the CPU's generator, for every device.
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
        The trained network; and the loss of each epoch: the weighted mean over its batches, each before its own step,
        as in training.

    Raises
    ------
    ValueError
        Shapes that do not fit, labels that the loss does not take, numbers out of range, an unknown loss or device.

    Notes
    -----
    The training of Bombari and Mondelli (2024), section 6: Adam with step 1e-3, batches of 1024, 1000 epochs.
    """
    task = _Task(model, Z, g, weights, epochs, loss, batch, lr, seed, device)
    if task.models != 1:
        raise ValueError("g and weights must have one axis here: use train_many for several networks")
    if until is not None and not float(until) > 0:
        raise ValueError(f"until must be a positive number or None, got {until!r}")
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
        at once on a GPU, and on a CPU when the network is small and has no convolutions. A network with batch
        normalization is trained one by one: at once, a sample of weight zero would still enter the averages of its
        batch, and so not be left out; one by one it is taken from the batch.

    Returns
    -------
    list of torch.nn.Module

    Raises
    ------
    ValueError
        As from `train`; or `together` was asked for with batch normalization.
    """
    task = _Task(model, Z, g, weights, epochs, loss, batch, lr, seed, device)
    if together and task.normalizes:
        raise ValueError("together: not with batch normalization, where samples of weight zero would have influence")
    if together is None:
        together = not task.normalizes and (task.device.type == "cuda" or task.small)
    return task.all() if together else [task.one(index)[0] for index in range(task.models)]


def leave_one_out(
    model: nn.Module, Z: Array, g: Array, left_out: Sequence[int], **options: Any
) -> tuple[nn.Module, list[nn.Module]]:
    """Train a network with all samples, and once more without each of some of them.

    All else is held fixed: the weights at the start, the order of the samples, the number of steps.

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
        if loss not in _LOSSES:
            raise ValueError(f"loss must be one of {', '.join(map(repr, _LOSSES))}, got {loss!r}")
        if not float(lr) > 0:
            raise ValueError(f"lr must be a positive number, got {lr!r}")
        self.loss, self.lr, self.seed = _LOSSES[loss], float(lr), _seed(seed)
        _samples(model, Z)
        self.model = copy.deepcopy(model).to(self.device)
        self.Z = _samples(self.model, Z)
        self.n = len(self.Z)
        count = _outputs(self.model, self.Z[:1], 1).shape[1]
        self.g = self._rows(g, "g")
        self.weights = self._rows(np.ones(self.n) if weights is None else weights, "weights")
        if (self.weights < 0).any() or not (self.weights.sum(dim=1) > 0).all():
            raise ValueError("weights must be nonnegative, and not all zero")
        counts = {len(rows) for rows in (self.g, self.weights)} - {1}
        if len(counts) > 1:
            raise ValueError(f"g is for {len(self.g)} networks, weights are for {len(self.weights)}")
        self.models = max(counts, default=1)
        if loss == "square" and count != 1:
            raise ValueError(f"loss: 'square' is for a network with one output, this one has {count}")
        if loss != "square" and not torch.isin(self.g, torch.arange(count, device=self.device)).all():
            raise ValueError(f"g must be classes from 0 to {count - 1} for the cross entropy of {count} outputs")
        layers = list(self.model.modules())
        self.normalizes = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in layers)
        convolves = any(isinstance(layer, nn.Conv2d) for layer in layers)
        self.small = not convolves and sum(p.numel() for p in self.model.parameters()) < _FEW_PARAMETERS

    def _rows(self, x: Array, name: str) -> torch.Tensor:
        ndim = 2 if np.ndim(x) == 2 else 1
        t = tensor(x, name, ndim=ndim, device=self.device, dtype=self.Z.dtype)
        if t.shape[-1] != self.n:
            raise ValueError(f"{name} must have one entry for each of the {self.n} samples, got shape {tuple(t.shape)}")
        return t if ndim == 2 else t[None]

    def _steps(self, parameters: Any) -> tuple[torch.optim.Optimizer, Iterator[tuple[torch.Tensor, ...]]]:
        """The optimizer, and for each epoch its batches: positions of samples."""
        adam = torch.optim.Adam(parameters, lr=self.lr, fused=True)
        decay = torch.optim.lr_scheduler.StepLR(adam, step_size=100, gamma=0.8)
        generator, count = torch.Generator().manual_seed(self.seed), -(-self.n // self.batch)

        def epochs() -> Iterator[tuple[torch.Tensor, ...]]:
            for _ in range(self.epochs):
                order = torch.randperm(self.n, generator=generator).to(self.device)
                yield order.tensor_split(count) if count > 1 else (torch.arange(self.n, device=self.device),)
                decay.step()

        return adam, epochs()

    def one(self, index: int, until: float | None = None) -> tuple[nn.Module, np.ndarray]:
        """One of the networks, trained alone."""
        model, losses = copy.deepcopy(self.model).train(), []
        g, weights = (rows[index if len(rows) > 1 else 0] for rows in (self.g, self.weights))
        adam, epochs = self._steps(model.parameters())
        for batches in epochs:
            total = 0.0
            for rows in batches:
                if self.normalizes:  # a weight of zero would not keep a sample out of the averages of its batch
                    rows = rows[weights[rows] > 0]
                    if len(rows) == 0:
                        continue
                adam.zero_grad()
                summed = (weights[rows] * self.loss(model(self.Z[rows]), g[rows])).sum()
                (summed / weights[rows].sum().clamp(min=1e-30)).backward()
                adam.step()
                total += float(summed.detach())
            losses.append(total / float(weights.sum()))
            if until is not None and losses[-1] < until:
                break
        return model.eval(), np.array(losses)

    def all(self) -> list[nn.Module]:
        """All networks, trained as one with an axis more."""
        self.model.train()
        parameters, buffers = stack_module_state([self.model] * self.models)
        g, weights = (rows.expand(self.models, -1) for rows in (self.g, self.weights))

        def loss(p: Any, b: Any, Z: torch.Tensor, g: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            values = weights * self.loss(functional_call(self.model, (p, b), (Z,)), g)
            return values.sum() / weights.sum().clamp(min=1e-30)

        adam, epochs = self._steps(parameters.values())
        for batches in epochs:
            for rows in batches:
                adam.zero_grad()
                each = vmap(loss, (0, 0, None, 0, 0))(parameters, buffers, self.Z[rows], g[:, rows], weights[:, rows])
                each.sum().backward()
                adam.step()
        trained = []
        for index in range(self.models):
            model = copy.deepcopy(self.model)
            model.load_state_dict({name: stacked[index] for name, stacked in (parameters | buffers).items()})
            trained.append(model.eval())
        return trained
