"""Random numbers of torch that depend on a seed alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .._checks import seed_of

__all__ = ["Drawing", "generator_of", "recording_gradients", "weights_of"]

_CREATE = (torch.ops.aten.empty, torch.ops.aten.zeros, torch.ops.aten.ones)
# The number of draws of these depends on the data, so leaving out a sample would change the draws for the others.
_BY_VALUE = (torch.ops.aten.rrelu_with_noise, torch.ops.aten.rrelu_with_noise_, torch.ops.aten.poisson)


@contextmanager
def recording_gradients() -> Iterator[None]:
    """Let torch record gradients, whatever the caller's mode."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def generator_of(seed: int, device: torch.device | str = "cpu", *, child: int | None = None) -> torch.Generator:
    """A torch generator. Different seeds give different streams; `child` gives a further one, independent of these."""
    if child is not None:
        seed = int(np.random.SeedSequence(seed, spawn_key=(child,)).generate_state(1, np.uint64)[0] >> 1)
    generator = torch.Generator(device).manual_seed(seed)
    if generator.device.type == "cpu" and seed >= 2**32:  # torch keeps only the last 32 bits
        state = generator.get_state()
        words = np.random.SeedSequence(seed).generate_state(624)  # the state of the Mersenne twister, after a header
        state.view(torch.int64)[3:627] = torch.from_numpy(words.astype(np.int64))
        generator.set_state(state)
    return generator


class Drawing(TorchDispatchMode):
    """While active, all random numbers of torch in this thread come from `generator`, and new tensors have `dtype`.

    The global generator and the default dtype, which other threads use at the same time, are neither read nor changed.
    """

    def __init__(self, generator: torch.Generator, dtype: torch.dtype | None = None):
        super().__init__()  # type: ignore[no-untyped-call]
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
def weights_of(seed: Any) -> Iterator[None]:
    """Let torch draw the weights of layers from a seed, in single precision and on the CPU, whatever its defaults."""
    generator = generator_of(seed_of(seed))
    with torch.inference_mode(False), torch.device("cpu"), Drawing(generator, torch.float32):
        yield
