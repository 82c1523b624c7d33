"""Random features and tangent features, with kernels that are summed over blocks of neurons."""

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
_MOST = 16  # tiles in a block: float32 sums over more neurons lose digits (in some libraries for few samples only)
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
    """Weights that are drawn tile by tile, and sums over the width with one block of neurons in memory at a time."""

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
        """One tile of standard Gaussian numbers, which depends on seed and index only, not on memory or dtype."""
        sequence = np.random.SeedSequence([self.seed, index])
        if self.seed >= 2**32:  # of two words: in a list they would run together with the index
            sequence = np.random.SeedSequence(self.seed, spawn_key=(index,))
        key = int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
        generator = torch.Generator(device=self.draw_on).manual_seed(key)
        tile = torch.randn(_TILE, self.d, generator=generator, device=self.draw_on, dtype=torch.float32)
        return tile[: self.k - index * _TILE]

    def _tiles(self, indices: range) -> Iterator[torch.Tensor]:
        """The weights of some tiles in order, of shape (1024, d) except the last; on a CPU, threads draw them ahead."""
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
        """The weights in order, in blocks of whole tiles, shape (block, d), each in the memory of the previous one."""
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
        """Return the whole weight matrix, shape (k, d), with N(0, 1/d) entries. It needs memory for k d numbers."""
        tiles = list(self._tiles(range(-(-self.k // _TILE))))
        return torch.cat(tiles).to(device=self.device, dtype=self.dtype)

    def _rows(self, A: Array, name: str) -> torch.Tensor:
        return tensor(A, name, ndim=2, columns=self.d, device=self.device, dtype=self.dtype)

    def gram(self, A: Array, B: Array | None = None, *, tiles: tuple[int, int] = (0, 1)) -> Array:
        """Compute inner products of the features of the rows of `A` and `B`, without storing all features.

        Parameters
        ----------
        A : array or tensor, shape (n, d)
            Samples, one in each row.
        B : array or tensor, shape (m, d), optional
            Other samples; default: `A` itself. If they are the first rows of `A`, as in ``gram(vstack([Z, Q]), Z)``,
            their features are computed only once, and symmetry is used for their products with each other.
        tiles : (int, int)
            ``(rank, world)``: compute only the part of the sum over the tiles rank, rank + world, ... of 1024 neurons
            each. The parts of all ranks from 0 to world - 1 add up to the whole sum up to rounding, so that several
            workers can divide the width among themselves.

        Returns
        -------
        array or tensor, shape (n, m), float64
            ``features(A) @ features(B).T``, the kind of `A`. Blocks are computed in `dtype` and summed in float64.

        Raises
        ------
        ValueError
            `A` or `B` has a wrong shape, is empty, or holds NaN or infinite values; features or their products overflow
            `dtype`, or the activation is not defined where it is needed; `tiles` is not a pair of a rank and a larger
            number of workers.

        Notes
        -----
        Besides the result, of 8 n m bytes, a call needs about twice `memory`, or what one tile needs if that is more.
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
        """Multiply the sums over the neurons by the other factors of the features, in place."""

    def _finite(self, out: torch.Tensor, *samples: torch.Tensor) -> torch.Tensor:
        """Return what was computed from samples, or raise a ``ValueError`` if it overflowed."""
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
    """Copy the entries below the diagonal to those above it, in place."""
    for i in range(0, len(square), _ROWS):
        rows = square[i : i + _ROWS]
        square[:i, i : i + _ROWS] = rows[:, :i].T
        corner = rows[:, i : i + _ROWS]
        corner.copy_(corner.tril() + corner.tril(-1).T)


class RandomFeatures(_Features):
    r"""Random features :math:`\phi(V z)`, where V has shape (k, d) and independent N(0, 1/d) entries.

    Parameters
    ----------
    act : str or Activation
        The activation :math:`\phi`.
    d : int
        Dimension of a sample.
    k : int
        Number of features (the width).
    seed : int
        Seed of the weights, below 2^63. For one seed the weights do not depend on `memory` or `dtype`, and those of a
        narrower layer are the first rows of those of a wider one.
    device : str or torch.device
        Where to compute.
    dtype : torch.dtype, numpy dtype or str
        ``"float32"`` or ``"float64"``: the precision in which features and the products of a block are computed. The
        sum over blocks is computed in float64.
    draw_on : {"device", "cpu"}
        Where to draw the weights. The random numbers of a GPU differ from those of a CPU; with ``"cpu"`` the weights
        are the same on both; a thread draws about 10^8 weights per second.
    memory : float
        Largest number of bytes for the features of all samples in one block of neurons, and for the weights of the
        block. A block has at least 1024 neurons, even if they need more memory, and at most 16,384.

    Raises
    ------
    ValueError
        An unknown activation, a size below 1, a seed out of range, a device that is not available, another dtype or
        `draw_on`, or a memory that is not positive.

    Notes
    -----
    Rahimi and Recht (2007); chapter `random-features`.

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
        """Number of features, an upper bound on the rank of a kernel matrix."""
        return self.k

    def features(self, A: Array) -> Array:
        """Return the features of the rows of `A`, shape (n, k), in `dtype` and of the kind of `A`, held in memory."""
        a = self._rows(A, "A")
        return like(self._finite(torch.cat([self._f(a @ V.T) for V in self._blocks(len(a))], dim=1), a), A)


class TangentFeatures(_Features):
    r"""Tangent features :math:`z \otimes \phi'(W z)`, where W has shape (k, d) and independent N(0, 1/d) entries.

    They are the gradient of the two-layer network :math:`\sum_j a_j \phi(w_j \cdot z)`, :math:`a_j = \pm 1`, with
    respect to its first layer, up to the signs of the output weights, which do not change the kernel. The kernel is
    :math:`(A B^T) \circ (\phi'(A W^T) \phi'(B W^T)^T)`, so the d k features are never formed.

    Parameters
    ----------
    act : str or Activation
        The activation :math:`\phi`; only its derivative is used.
    d, k, seed, device, dtype, draw_on, memory
        As for `RandomFeatures`; k is the number of neurons.

    Raises
    ------
    ValueError
        As for `RandomFeatures`, or the activation has no derivative.

    Notes
    -----
    Jacot, Gabriel and Hongler (2018); chapter `tangent-kernel`.

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
        """Number of features, d k, an upper bound on the rank of a kernel matrix."""
        return self.d * self.k

    def features(self, A: Array) -> Array:
        """Return the features of the rows of `A`, shape (n, d k): entry i k + j is coordinate i times derivative j."""
        a = self._rows(A, "A")
        slopes = torch.cat([self._f(a @ W.T) for W in self._blocks(len(a))], dim=1)
        return like(self._finite((a[:, :, None] * slopes[:, None, :]).flatten(1), a), A)

    def _weigh(self, products: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
        products *= a @ b.T
