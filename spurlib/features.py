"""Random features and tangent features, and their kernels streamed over the features."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import torch

from ._checks import Array, choice, device_of, like, number, positive, precision, seed_of, share, tensor
from .activations import Activation, activation

__all__ = ["RandomFeatures", "TangentFeatures"]

_TILE = 1024  # neurons drawn at a time, each tile from a generator of its own
_MOST = 16  # tiles in a block: float32 sums over more neurons lose digits, those of some libraries over few samples
_PIECE = 2**17  # entries to which an activation is applied at a time
_ROWS = 512  # of a kernel matrix computed at a time; of one that is symmetric, those up to the diagonal


def _apply(f: Activation, x: torch.Tensor) -> None:
    """Apply an activation in place, in pieces whose temporaries stay in the cache."""
    flat = x.view(-1)
    step = flat.numel() if x.is_cuda else _PIECE
    for start in range(0, flat.numel(), step):
        piece = flat[start : start + step]
        piece.copy_(f(piece))


class _Features:
    """Weights drawn tile by tile, and sums over the width that never hold more than one block of neurons."""

    def __init__(
        self,
        act: str | Activation,
        *,
        d: int,
        k: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: Any = torch.float64,
        draw_on: str = "device",
        memory: float = 64 * 2**20,
    ):
        self.activation = activation(act)
        self.d, self.k = positive(d, "d"), positive(k, "k")
        self.seed = seed_of(seed)
        self.device = device_of(device)
        self.dtype = precision(dtype)
        self.draw_on = self.device if choice(draw_on, "draw_on", ("device", "cpu")) == "device" else torch.device("cpu")
        self.memory = number(memory, "memory", above=0.0)
        self._f = self.activation  # of the projections, in the features

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.activation.name!r}, d={self.d}, k={self.k}, seed={self.seed})"

    def _normal(self, index: int) -> torch.Tensor:
        """One tile of standard Gaussian numbers: a function of seed and index alone, whatever memory and dtype."""
        sequence = np.random.SeedSequence([self.seed, index])
        if self.seed >= 2**32:  # of two words: in a list they would run together with the index
            sequence = np.random.SeedSequence(self.seed, spawn_key=(index,))
        key = int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
        generator = torch.Generator(device=self.draw_on).manual_seed(key)
        tile = torch.randn(_TILE, self.d, generator=generator, device=self.draw_on, dtype=torch.float32)
        return tile[: self.k - index * _TILE]

    def _tiles(self, indices: range) -> Iterator[torch.Tensor]:
        """The weights of some tiles in order, shape (1024, d) but for the last; a CPU draws them ahead in threads."""
        scale = self.d**-0.5
        if self.draw_on.type != "cpu" or len(indices) == 1:
            yield from (self._normal(index).mul_(scale) for index in indices)
            return
        threads = torch.get_num_threads()
        drawn: deque[Future[torch.Tensor]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            for index in indices:
                drawn.append(pool.submit(self._normal, index))
                if len(drawn) > threads:
                    yield drawn.popleft().result().mul_(scale)
            while drawn:
                yield drawn.popleft().result().mul_(scale)

    def _blocks(self, rows: int, tiles: tuple[int, int] = (0, 1)) -> Iterator[torch.Tensor]:
        """The weights in order, in blocks of whole tiles, shape (block, d), each in the memory of the one before."""
        rank, world = tiles
        indices = range(rank, -(-self.k // _TILE), world)
        fitting = int(self.memory / (_TILE * max(rows, self.d) * self.dtype.itemsize))
        size = min(max(1, fitting), _MOST, len(indices))
        buffer = torch.empty(min(size * _TILE, self.k), self.d, device=self.device, dtype=self.dtype)
        weights = self._tiles(indices)
        for _ in range(0, len(indices), max(1, size)):
            filled = 0
            for tile in islice(weights, size):
                buffer[filled : filled + len(tile)] = tile
                filled += len(tile)
            yield buffer[:filled]

    def weights(self) -> torch.Tensor:
        """The whole weight matrix, shape (k, d), entries N(0, 1/d). Takes memory k d: for small k."""
        tiles = list(self._tiles(range(-(-self.k // _TILE))))
        return torch.cat(tiles).to(device=self.device, dtype=self.dtype)

    def _rows(self, A: Array, name: str) -> torch.Tensor:
        return tensor(A, name, ndim=2, columns=self.d, device=self.device, dtype=self.dtype)

    def gram(self, A: Array, B: Array | None = None, *, tiles: tuple[int, int] = (0, 1)) -> Array:
        """Inner products of features between the rows of `A` and the rows of `B`, never storing the features.

        Parameters
        ----------
        A : array or tensor, shape (n, d)
            Samples, one a row.
        B : array or tensor, shape (m, d), optional
            Other samples; default: `A` itself. Where they are the first rows of `A`, as in ``gram(vstack([Z, Q]), Z)``,
            their features are computed once, and their products with each other by symmetry.
        tiles : (int, int)
            ``(rank, world)``: only the part of the sum over the tiles rank, rank + world, ... of 1024 neurons each. The
            parts of all ranks from 0 to world - 1 add up to the whole, to rounding, for workers that share the width.

        Returns
        -------
        array or tensor, shape (n, m), float64
            ``features(A) @ features(B).T``, the kind of `A`. Blocks are computed in `dtype` and summed in float64.

        Raises
        ------
        ValueError
            Wrong shape, empty, NaN or infinite values; features or their products that are too large for `dtype`, or
            where the activation is not defined; `tiles` that is not a rank below the number of workers, and that
            number.

        Notes
        -----
        Beside the result, of 8 n m bytes, a call takes about twice `memory`, or what one tile needs where that is more.
        Processes of ``torch.distributed`` sum their parts in place:
        ``K = kernel.gram(A, tiles=(dist.get_rank(), dist.get_world_size())); dist.all_reduce(K)``, for `A` a tensor.

        Examples
        --------
        >>> import numpy as np
        >>> kernel, A = RandomFeatures("relu", d=3, k=5000), np.eye(3)
        >>> parts = [kernel.gram(A, tiles=(rank, 2)) for rank in range(2)]  # each by a worker of its own
        >>> bool(np.allclose(sum(parts), kernel.gram(A), rtol=1e-13))
        True
        """
        tiles = share(tiles, "tiles")
        a = self._rows(A, "A")
        b = a if B is None or B is A else self._rows(B, "B")
        n, m = len(a), len(b)
        within = b is a or (m <= n and torch.equal(a[:m], b))  # A is often training samples, then queries
        pieces = [(i, min(i + _ROWS, n), min(i + _ROWS, m) if within else m) for i in range(0, n, _ROWS)]
        samples = a if within else torch.cat([a, b])
        total = torch.zeros(n, m, device=self.device, dtype=torch.float64)
        memory = samples.new_empty(0)
        for V in self._blocks(len(samples), tiles):
            if memory.numel() == 0:  # the first block is the largest
                memory = samples.new_empty(len(samples) * len(V))
            features = memory[: len(samples) * len(V)].view(len(samples), len(V))
            torch.mm(samples, V.T, out=features)
            _apply(self._f, features)
            left, right = features[:n], features[:m] if within else features[n:]
            for top, end, width in pieces:
                _add_product(total[top:end, :width], left[top:end], right[:width])
        for top, end, width in pieces:
            self._weigh(total[top:end, :width], a[top:end], b[:width])
        if within:
            _mirror(total[:m])
        return like(self._finite(total, a, b), A)

    def _weigh(self, products: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
        """Multiply products of f, summed over the neurons, by what else is in the features, in place."""

    def _finite(self, out: torch.Tensor, *samples: torch.Tensor) -> torch.Tensor:
        """What was computed of samples, or a ``ValueError`` where it overflowed."""
        if torch.isfinite(torch.stack(torch.aminmax(out))).all():
            return out
        largest = max(float(x.abs().max()) for x in samples)
        raise ValueError(
            f"the features of activation {self.activation.name!r}, or their products, overflow {self.dtype} or are not "
            f"defined (NaN), for samples with entries up to {largest:.3g}: scale the samples"
            + (", or use dtype=torch.float64" if self.dtype == torch.float32 else "")
        )


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Add left @ right.T to a float64 total in place."""
    if left.dtype == total.dtype:
        total.addmm_(left, right.T)
    else:
        total += left @ right.T


def _mirror(square: torch.Tensor) -> None:
    """Copy what is below the diagonal to above it, in place."""
    for i in range(0, len(square), _ROWS):
        rows = square[i : i + _ROWS]
        square[:i, i : i + _ROWS] = rows[:, :i].T
        corner = rows[:, i : i + _ROWS]
        corner.copy_(corner.tril() + corner.tril(-1).T)


class RandomFeatures(_Features):
    r"""Random features :math:`\varphi(V z)`, V of shape (k, d) with independent N(0, 1/d) entries.

    Parameters
    ----------
    act : str or Activation
        The activation :math:`\varphi`.
    d : int
        Dimension of a sample.
    k : int
        Number of features (the width).
    seed : int
        Seed of the weights, below 2^63. The same seed gives the same weights for every memory and dtype, and the
        first rows of a wider draw.
    device : str or torch.device
        Where to compute.
    dtype : torch.dtype, numpy dtype or str
        ``"float32"`` or ``"float64"``: in which precision to compute features and block products; the sum over blocks
        is in float64.
    draw_on : {"device", "cpu"}
        Where to draw the weights. A GPU has a random stream of its own; ``"cpu"`` gives a GPU the CPU's weights, at
        about a second per 10^8 of them and thread.
    memory : float
        Bytes for the features of all samples in one block of neurons, and as many for the block's weights. A block has
        from 1024 neurons, whatever the memory, to 16,384.

    Raises
    ------
    ValueError
        An unknown activation, a size below 1, a device that is not there, another dtype, a memory that is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> kernel = RandomFeatures("relu", d=2, k=50_000, seed=0)
    >>> (kernel.gram(np.eye(2)) / kernel.k).round(2)  # that of infinite width: 1 / 4 and 1 / (4 pi)
    array([[0.25, 0.08],
           [0.08, 0.25]])
    """

    @property
    def n_features(self) -> int:
        """Number of features: the largest rank of a kernel matrix."""
        return self.k

    def features(self, A: Array) -> Array:
        """The features themselves, shape (n, k), in `dtype` and of the kind of `A`. Takes memory n k: for small k."""
        a = self._rows(A, "A")
        return like(self._finite(torch.cat([self._f(a @ V.T) for V in self._blocks(len(a))], dim=1), a), A)


class TangentFeatures(_Features):
    r"""Tangent features :math:`z \otimes \varphi'(W z)`, W of shape (k, d) with independent N(0, 1/d) entries.

    They are the gradient of the two-layer network :math:`\sum_j a_j \varphi(w_j \cdot z)`, :math:`a_j = \pm 1`, in
    its first layer, up to the signs of the output weights, which leave the kernel as it is. The kernel is
    :math:`(A B^T) \circ (\varphi'(A W^T) \varphi'(B W^T)^T)`: the d k features are never formed.

    Parameters
    ----------
    act : str or Activation
        The activation :math:`\varphi`; its derivative is what enters.
    d, k, seed, device, dtype, draw_on, memory
        As for `RandomFeatures`; k is the number of neurons.

    Raises
    ------
    ValueError
        As for `RandomFeatures`, or the activation has no derivative.

    Examples
    --------
    >>> import numpy as np
    >>> kernel = TangentFeatures("relu", d=2, k=50_000, seed=0)
    >>> (kernel.gram(np.array([[1.0, 0.0], [1.0, 1.0]])) / kernel.k).round(1)  # infinite width: 1 / 2, 3 / 8 and 1
    array([[0.5, 0.4],
           [0.4, 1. ]])
    """

    def __init__(self, act: str | Activation, **options: Any):
        super().__init__(act, **options)
        self._f = self.activation.derivative

    @property
    def n_features(self) -> int:
        """Number of features, d k: the largest rank of a kernel matrix."""
        return self.d * self.k

    def features(self, A: Array) -> Array:
        """The features themselves, shape (n, d k): entry i k + j is z_i times the slope of neuron j. For small d k."""
        a = self._rows(A, "A")
        slopes = torch.cat([self._f(a @ W.T) for W in self._blocks(len(a))], dim=1)
        return like(self._finite((a[:, :, None] * slopes[:, None, :]).flatten(1), a), A)

    def _weigh(self, products: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
        products *= a @ b.T
