"""Networks before training: four architectures whose weights depend on a seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from .._checks import needed, positive
from ..activations import Activation, activation
from .draws import recording_gradients, weights_of

__all__ = ["fully_connected", "resnet18", "small_cnn", "vision_transformer"]


class _Entrywise(nn.Module):
    def __init__(self, act: Activation):
        super().__init__()
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.act(x)
        return out


class _OfImages(nn.Module):
    """A network for images in the format of `SpuriousData`: flat, channels last."""

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
        out: torch.Tensor = self.body(z.reshape(-1, *self.image_shape).permute(0, 3, 1, 2))
        return out


def _swap(module: nn.Module, act: Activation) -> None:
    """Replace every activation by `act`."""
    for name, child in module.named_children():
        if isinstance(child, (nn.ReLU, nn.GELU)):
            setattr(module, name, _Entrywise(act))
        else:
            _swap(child, act)


def _differentiable(act: str | Activation | Callable[[Any], Any]) -> Activation:
    """Return the activation if torch computes its derivative correctly."""
    phi = activation(act)
    with recording_gradients():
        x = 3 * torch.sin(torch.arange(1, 25, dtype=torch.float64, device="cpu"))  # not where kinks are
        x.requires_grad_()
        values = phi(1 * x)
        if not values.requires_grad:
            raise ValueError(f"act: torch cannot differentiate {phi.name!r}")
        (derivative,) = torch.autograd.grad(values.sum(), x)
    with torch.no_grad():
        # Near a kink only one side has the right quotient; functions computed in single precision need a larger step.
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
    """Return a fully connected network, by default with layers of d, 500, 200 and `outputs` units.

    Parameters
    ----------
    d : int
        Dimension of a sample.
    outputs : int
        1 for labels -1 and +1, else the number of classes.
    widths : sequence of int
        Widths of the hidden layers.
    act : str, Activation or callable
        As for `activation`; torch must be able to differentiate it.
    seed : int
        Seed of the weights. As is the default in torch, they are uniform on the interval whose ends are plus and minus
        one over the square root of the number of inputs.

    Returns
    -------
    torch.nn.Module
        A map from (n, d) to (n, outputs), in float32.

    Raises
    ------
    ValueError
        A size is below 1, or the activation is unknown or not differentiable by torch.

    Notes
    -----
    The architecture of Bombari and Mondelli (2024), section 6.

    Examples
    --------
    >>> import torch
    >>> fully_connected(4, widths=(8,))(torch.zeros(3, 4)).shape
    torch.Size([3, 1])
    """
    if not isinstance(widths, Iterable):
        raise ValueError(f"widths must be a sequence of integers, got {widths!r}")
    sizes = [positive(d, "d"), *(positive(width, "widths") for width in widths)]
    outputs, phi = positive(outputs, "outputs"), _differentiable(act)
    layers: list[nn.Module] = []
    with weights_of(seed):
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
    """Return a small convolutional network.

    Two 3 x 3 convolutions with 16 and 32 channels, each with ReLU and 2 x 2 max pooling, are followed by 256 neurons.

    Parameters
    ----------
    image_shape : (int, int, int)
        Height, width and channels, as in `SpuriousData.image_shape`; height and width at least 4.
    outputs, seed : int
        As for `fully_connected`.
    act : str, Activation or callable
        The activation that replaces ReLU, as for `fully_connected`.

    Returns
    -------
    torch.nn.Module
        A map from flat images, shape (n, height * width * channels), to (n, outputs), in float32.

    Raises
    ------
    ValueError
        A shape or a number is out of range, or the activation is unknown or not differentiable by torch.

    Notes
    -----
    The architecture of Bombari and Mondelli (2024), section 6. It is our choice that the convolutions preserve height
    and width, by zero padding.

    Examples
    --------
    >>> import torch
    >>> small_cnn((14, 14, 1))(torch.zeros(2, 14 * 14)).shape
    torch.Size([2, 1])
    """
    height, width, channels = shape = _shape(image_shape, 4)
    outputs, phi = positive(outputs, "outputs"), None if act == "relu" else _differentiable(act)
    with weights_of(seed):
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
    """Return the ResNet-18 of torchvision with untrained weights.

    Parameters
    ----------
    image_shape : (int, int, int)
        Height, width and channels; the first layer has as many input channels as the image. As in torchvision, every
        size is allowed, but for images of at most 32 x 32 pixels the last layers have one position, and a batch of one
        such image cannot be normalized in training.
    outputs, seed : int
        As for `fully_connected`.
    act : str, Activation or callable
        The activation that replaces ReLU, as for `fully_connected`.

    Returns
    -------
    torch.nn.Module
        A map from flat images, shape (n, height * width * channels), to (n, outputs), in float32.

    Raises
    ------
    ValueError
        A shape or a number is out of range, or the activation is unknown or not differentiable by torch.
    ModuleNotFoundError
        torchvision is missing.

    Notes
    -----
    He et al. (2016).

    Examples
    --------
    >>> sum(p.numel() for p in resnet18((32, 32, 3)).parameters())
    11181642
    """
    shape, outputs = _shape(image_shape, 1), positive(outputs, "outputs")
    phi = None if act == "relu" else _differentiable(act)
    with weights_of(seed):
        body = needed("torchvision.models", "images").resnet18(weights=None, num_classes=outputs)
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
    """Return a small vision transformer of torchvision with untrained weights.

    Parameters
    ----------
    image_shape : (int, int, int)
        Height, width and channels. The image must be square; it is cut into squares with sides of `patch` pixels.
    outputs, seed : int
        As for `fully_connected`.
    patch, width, layers, heads : int
        Side of a patch in pixels, size of a token, number of blocks, and number of attention heads, which must divide
        the width. The hidden layer of a block has 2 * `width` neurons.
    act : str, Activation or callable
        The activation that replaces GELU, as for `fully_connected`.

    Returns
    -------
    torch.nn.Module
        A map from flat images, shape (n, height * width * channels), to (n, outputs), in float32.

    Raises
    ------
    ValueError
        A shape or a number is out of range, or the activation is unknown or not differentiable by torch.
    ModuleNotFoundError
        torchvision is missing.

    Notes
    -----
    In torchvision the weights of the head are zero, so that the output is constant at initialization; here they are
    drawn as torch draws linear layers. Dosovitskiy et al. (2021) train much larger networks.

    Examples
    --------
    >>> import torch
    >>> vision_transformer((16, 16, 3), layers=1)(torch.zeros(2, 16 * 16 * 3)).shape
    torch.Size([2, 10])
    """
    patch, width, layers = positive(patch, "patch"), positive(width, "width"), positive(layers, "layers")
    outputs = positive(outputs, "outputs")
    shape = height, across, channels = _shape(image_shape, patch)
    if height != across or height % patch:
        raise ValueError(f"image_shape must be square, its sides a multiple of patch = {patch}, got {image_shape!r}")
    if width % positive(heads, "heads"):
        raise ValueError(f"heads must divide width = {width}, got {heads}")
    phi = None if act == "gelu" else _differentiable(act)
    with weights_of(seed):
        body = needed("torchvision.models", "images").VisionTransformer(
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
