"""Random and tangent features: against autograd; statistics of weights, memory, devices."""

import math
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy import stats

import spurlib as sl

BOTH = [sl.RandomFeatures, sl.TangentFeatures]
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")


def samples(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def test_random_features_are_the_activation_of_projections():
    A, rf = samples(5, 7), sl.RandomFeatures("tanh", d=7, k=30, seed=3)
    V = rf.weights().numpy()
    assert V.shape == (30, 7)
    np.testing.assert_allclose(rf.features(A), np.tanh(A @ V.T), rtol=1e-13)


def test_tangent_features_are_outer_products():
    A, ntk = samples(5, 7), sl.TangentFeatures("sin", d=7, k=11, seed=3)
    W = ntk.weights().numpy()
    expected = np.stack([np.kron(z, np.cos(W @ z)) for z in A])
    np.testing.assert_allclose(ntk.features(A), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_tangent_kernel_is_that_of_the_gradient_of_a_network(name):
    d, k = 6, 9
    ntk = sl.TangentFeatures(name, d=d, k=k, seed=1)
    signs = torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], k))
    phi = {"tanh": torch.nn.Tanh(), "relu": torch.nn.ReLU()}[name]
    A, gradients = torch.from_numpy(samples(4, d)), []
    for z in A:
        W = ntk.weights().requires_grad_()
        (gradient,) = torch.autograd.grad(signs @ phi(W @ z), W)
        gradients.append(gradient)
    G = torch.stack(gradients)  # (n, k, d)
    torch.testing.assert_close(ntk.gram(A), G.flatten(1) @ G.flatten(1).T, rtol=1e-12, atol=1e-12)
    features = ntk.features(A).reshape(4, d, k).transpose(1, 2)
    torch.testing.assert_close(features, G * signs[None, :, None], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("name", ["relu", "h1+h2", "tanh"])
def test_gram_is_the_product_of_features(kind, name):
    kernel = kind(name, d=6, k=2500 if kind is sl.RandomFeatures else 60, seed=2)
    A, B = samples(8, 6), samples(5, 6, seed=1)
    FA, FB = kernel.features(A), kernel.features(B)
    np.testing.assert_allclose(kernel.gram(A, B), FA @ FB.T, rtol=1e-11, atol=1e-10)
    np.testing.assert_allclose(kernel.gram(A), FA @ FA.T, rtol=1e-11, atol=1e-10)
    np.testing.assert_allclose(kernel.gram(A, A), FA @ FA.T, rtol=1e-11, atol=1e-10)
    np.testing.assert_allclose(kernel.gram(A, A.copy()), FA @ FA.T, rtol=1e-11, atol=1e-10)
    assert kernel.n_features == FA.shape[1]


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("memory", [1, 2 * 1024 * 4 * 8, 1e9])  # blocks of one tile, of two, of all
def test_features_do_not_depend_on_the_memory(kind, memory):
    k = 5 * 1024 + 7
    reference, other = kind("relu", d=3, k=k, seed=5), kind("relu", d=3, k=k, seed=5, memory=memory)
    A = samples(4, 3)
    assert len(list(other._blocks(len(A)))) == {1: 6, 1e9: 1}.get(memory, 3)
    assert torch.equal(reference.weights(), other.weights())
    np.testing.assert_allclose(other.features(A), reference.features(A), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(other.gram(A), reference.gram(A), rtol=1e-12)


@pytest.mark.parametrize("kind", BOTH)
def test_float32_has_the_same_weights_rounded(kind):
    single, double = (kind("tanh", d=10, k=1500, seed=4, dtype=t) for t in (torch.float32, torch.float64))
    torch.testing.assert_close(single.weights().double(), double.weights(), rtol=1e-7, atol=0)
    A = samples(6, 10)
    assert single.features(A).dtype == np.float32
    np.testing.assert_allclose(single.features(A), double.features(A), rtol=1e-4, atol=1e-5)
    K32, K64 = single.gram(A), double.gram(A)
    assert K32.dtype == K64.dtype == np.float64
    assert np.abs(K32 - K64).max() < 2e-6 * np.abs(K64).max()


@pytest.mark.parametrize("narrow", [1, 1023, 1024, 1500, 2048])
def test_a_wider_draw_contains_the_narrower(narrow):
    wide = sl.RandomFeatures("relu", d=4, k=3000, seed=7).weights()
    assert torch.equal(sl.RandomFeatures("relu", d=4, k=narrow, seed=7).weights(), wide[:narrow])


def test_tiles_and_seeds_differ():
    V = sl.RandomFeatures("relu", d=4, k=4096, seed=0).weights()
    tiles = V.reshape(4, 1024, 4)
    for i in range(4):
        for j in range(i):
            assert (tiles[i] - tiles[j]).abs().max() > 0.1
    others = [sl.RandomFeatures("relu", d=4, k=1024, seed=s).weights() for s in (1, 2**40, np.int64(3))]
    assert all((V[:1024] - other).abs().max() > 0.1 for other in others)


def test_weights_are_gaussian_with_variance_one_over_d():
    d, k = 50, 8000
    V = sl.RandomFeatures("relu", d=d, k=k, seed=11).weights().numpy().ravel() * math.sqrt(d)
    m = V.size
    assert abs(V.mean()) < 4.5 / math.sqrt(m)
    assert abs(V.var() - 1) < 4.5 * math.sqrt(2 / m)
    assert stats.kstest(V[:100_000], "norm").pvalue > 1e-4
    columns = V.reshape(k, d)
    correlation = np.corrcoef(columns.T)[np.triu_indices(d, 1)]
    assert np.abs(correlation).max() < 5.5 / math.sqrt(k)


def test_wide_kernels_approach_the_dual_kernel():
    d, k = 20, 40_000
    A = samples(6, d)
    A *= math.sqrt(d) / np.linalg.norm(A, axis=1, keepdims=True)
    rf = sl.RandomFeatures("tanh", d=d, k=k, seed=0)
    features = rf.features(A)
    limit = sl.dual_kernel(sl.activation("tanh").coefficients(60), A @ A.T / d)
    errors = np.array([[(x * y).std() for y in features] for x in features]) / math.sqrt(k)
    assert (np.abs(rf.gram(A) / k - limit) < 5 * errors).all()


@pytest.mark.parametrize("kind", BOTH)
def test_what_comes_in_goes_out(kind):
    kernel, A = kind("relu", d=3, k=5), samples(4, 3)
    T = torch.from_numpy(A)
    assert isinstance(kernel.gram(A), np.ndarray) and isinstance(kernel.features(A), np.ndarray)
    assert isinstance(kernel.gram(T), torch.Tensor) and isinstance(kernel.features(T), torch.Tensor)
    assert isinstance(kernel.gram(A, T), np.ndarray) and isinstance(kernel.gram(T, A), torch.Tensor)
    np.testing.assert_array_equal(kernel.gram(T).numpy(), kernel.gram(A))
    np.testing.assert_array_equal(kernel.gram(A.tolist()), kernel.gram(A))
    np.testing.assert_array_equal(kernel.gram(np.asfortranarray(A)), kernel.gram(A))
    assert kernel.gram(T.requires_grad_()).requires_grad is False
    ints = np.arange(12).reshape(4, 3)
    np.testing.assert_array_equal(kernel.gram(ints), kernel.gram(ints.astype(float)))


def test_the_samples_are_left_alone():
    A = samples(4, 3)
    before = A.copy()
    for kind in BOTH:
        kernel = kind("relu", d=3, k=5)
        for call in (kernel.gram, kernel.features):
            call(A)
    np.testing.assert_array_equal(A, before)


def test_the_kernel_is_reproducible_and_global_seeds_play_no_part():
    rf, A = sl.RandomFeatures("relu", d=3, k=50), samples(4, 3)
    torch.manual_seed(0)
    first = rf.gram(A)
    state = torch.get_rng_state()
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    np.testing.assert_array_equal(rf.gram(A), first)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


def products(kernel, A, B):
    """The gram written out from the weights alone, tile after tile, in float64."""
    f = kernel.activation if isinstance(kernel, sl.RandomFeatures) else kernel.activation.derivative
    A, B, V = (torch.as_tensor(x, dtype=torch.float64) for x in (A, B, kernel.weights()))
    total = sum(f(A @ v.T) @ f(B @ v.T).T for v in V.split(1024))
    return (total if isinstance(kernel, sl.RandomFeatures) else (A @ B.T) * total).numpy()


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("name", [*sl.activation_names(), "h1+h2"])
def test_pickled_kernels_give_the_same_gram(kind, name):
    kernel, A = kind(name, d=6, k=1500, seed=2, dtype="float32", memory=1e5), samples(8, 6)
    other = pickle.loads(pickle.dumps(kernel))
    assert repr(other) == repr(kernel) and other.activation is kernel.activation
    np.testing.assert_array_equal(other.gram(A), kernel.gram(A))


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("n", [1, 511, 512, 513, 1300])
def test_the_gram_of_one_set_is_exactly_symmetric(kind, n):
    """The upper half is a copy: of the right block, across blocks of rows of which the last is shorter."""
    kernel, A = kind("tanh", d=4, k=1100, seed=1), samples(n, 4)
    K = kernel.gram(A)
    np.testing.assert_array_equal(K, K.T)
    np.testing.assert_allclose(K, products(kernel, A, A), rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(("n", "m"), [(600, 1), (600, 511), (1100, 512), (1100, 700), (1100, 1024), (530, 529)])
def test_the_gram_of_samples_and_queries_with_the_samples(kind, n, m):
    kernel, A = kind("tanh", d=4, k=1100, seed=1), samples(n, 4)
    K = kernel.gram(A, A[:m])
    np.testing.assert_array_equal(K[:m], K[:m].T)
    np.testing.assert_allclose(K, products(kernel, A, A[:m]), rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("n", [1, 4, 8])
def test_float32_sums_of_few_samples_over_many_features(n):
    """In one float32 product of some BLAS they are wrong by 6e-5: the inner dimension is cut, and summed in float64."""
    A = np.abs(samples(n, 2)).astype(np.float32)
    kernel = sl.RandomFeatures("sigmoid", d=2, k=1_000_000, seed=1, dtype=torch.float32)
    assert max(len(V) for V in kernel._blocks(n)) == 2**14
    expected = products(kernel, A, A)
    found, across = kernel.gram(A), kernel.gram(A, A[::-1].copy())
    assert np.abs(found / expected - 1).max() < 1e-6
    assert np.abs(across / expected[:, ::-1] - 1).max() < 1e-6


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_parts_of_the_width_add_up(kind, world):
    kernel, A, B = kind("relu", d=5, k=4500, seed=3), samples(7, 5), samples(4, 5, seed=1)  # five tiles, one shorter
    with ThreadPoolExecutor(world) as pool:
        for other in (None, B):
            parts = list(pool.map(lambda rank: kernel.gram(A, other, tiles=(rank, world)), range(world)))  # noqa: B023
            np.testing.assert_allclose(sum(parts), kernel.gram(A, other), rtol=1e-13)
    for rank, part in enumerate(parts):
        V = torch.cat([kernel.weights()[:0], *kernel.weights().split(1024)[rank::world]]).numpy()
        F, G = (np.maximum(x @ V.T, 0) if kind is sl.RandomFeatures else 1.0 * (x @ V.T > 0) for x in (A, B))
        expected = F @ G.T * (1 if kind is sl.RandomFeatures else A @ B.T)
        np.testing.assert_allclose(part, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("tiles", "message"),
    [
        (2, r"tiles must be a pair \(rank, world\), got 2"),
        ((0, 1, 2), r"tiles must be a pair"),
        ((0, 0), r"tiles\[1\] must be a positive integer"),
        ((2, 2), r"tiles\[0\] must be an integer of at least 0 and at most 1"),
        ((-1, 2), r"tiles\[0\] must be"),
        ((0.0, 2), r"tiles\[0\] must be"),
    ],
)
def test_bad_parts_are_refused(tiles, message):
    with pytest.raises(ValueError, match=message):
        sl.RandomFeatures("relu", d=3, k=5).gram(np.eye(3), tiles=tiles)


WORKER = """
import sys
import torch
import torch.distributed as dist
import spurlib as sl

rank, world, store = int(sys.argv[1]), 2, sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
A = torch.randn(600, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
for kind in (sl.RandomFeatures, sl.TangentFeatures):
    kernel = kind("tanh", d=5, k=4500, seed=3)
    K = kernel.gram(A, tiles=(dist.get_rank(), dist.get_world_size()))
    whole = kernel.gram(A)
    assert (K - whole).abs().max() > 0.1 * whole.abs().max()  # a part
    dist.all_reduce(K)
    torch.testing.assert_close(K, whole, rtol=1e-12, atol=1e-10)
dist.destroy_process_group()
print("equal")
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_processes_of_torch_distributed_add_up_their_parts(tmp_path):
    command = [sys.executable, "-c", WORKER]
    workers = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    assert [worker.communicate(timeout=300)[0].split() for worker in workers] == [["equal"], ["equal"]]


def test_weights_drawn_ahead_are_those_drawn_in_order(monkeypatch):
    """Whatever order the threads end in; and an error while drawing is raised where the weights are used."""
    kernel = sl.RandomFeatures("relu", d=3, k=20_000, seed=4)
    in_order = torch.cat([kernel._normal(index) for index in range(20)]).mul_(3**-0.5).double()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert torch.equal(kernel.weights(), in_order)
    draw = kernel._normal

    def late(index):
        if index == 7:
            raise MemoryError("no room for tile 7")
        if index % 2 == 0:
            threading.Event().wait(0.01)
        return draw(index)

    monkeypatch.setattr(kernel, "_normal", late)
    found = []
    with pytest.raises(MemoryError, match="tile 7"):
        found.extend(kernel._tiles(range(20)))
    monkeypatch.setattr(kernel, "k", 7 * 1024)
    assert torch.equal(kernel.weights(), in_order[: 7 * 1024])


def test_drawing_stops_when_the_weights_are_not_used(monkeypatch):
    drawn, kernel = [], sl.RandomFeatures("relu", d=3, k=100 * 1024)
    draw = kernel._normal
    monkeypatch.setattr(kernel, "_normal", lambda index: drawn.append(index) or draw(index))
    tiles = kernel._tiles(range(100))
    next(tiles)
    tiles.close()
    assert len(drawn) <= torch.get_num_threads() + 1


def test_repr():
    assert repr(sl.RandomFeatures("relu", d=3, k=5, seed=2)) == "RandomFeatures('relu', d=3, k=5, seed=2)"


MEMORY = """
import torch
import spurlib as sl

torch.set_num_threads(1)
A = torch.randn({n}, {d}, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
for k in (22_000, 220_000):
    sl.{kind}("relu", d={d}, k=k).gram(A)
    # not ru_maxrss, which starts from the peak of the process that started this one
    print(next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads peak memory from /proc")
@pytest.mark.parametrize("kind, n, d", [(sl.RandomFeatures, 400, 100), (sl.TangentFeatures, 3, 400)])
def test_memory_does_not_grow_with_the_width(kind, n, d):
    script = MEMORY.format(kind=kind.__name__, n=n, d=d)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    first, tenfold = map(int, done.stdout.split())
    stored = 220_000 * 400 * 8  # the features of the first case, the weights of the second
    assert tenfold - first < stored / 20
    assert tenfold < 1.1 * first


ONE_SQUARE = """
import torch
import spurlib as sl

torch.set_num_threads(1)
A = torch.randn(3000, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
peak = lambda: next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
kernels = [
    kind("relu", d=20, k=3000, dtype=dtype, memory=1e6)
    for kind in (sl.RandomFeatures, sl.TangentFeatures)
    for dtype in ("float32", "float64")
]
for kernel in kernels:
    kernel.gram(A[:600])
before = peak()
for kernel in kernels:
    kernel.gram(A)
    print((peak() - before) / (8 * 3000**2))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads peak memory from /proc")
def test_memory_is_that_of_the_result_and_one_block():
    """In numbers of the result: one tile of 3000 samples is 1/3 in float64."""
    command = [sys.executable, "-c", ONE_SQUARE]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert max(map(float, done.stdout.split())) < 1.8  # with a second matrix of the size of the result 2.3


BAD = {
    "A must have 2 axes": np.ones(3),
    "A must have 3 columns": np.ones((2, 4)),
    "A is empty": np.ones((0, 3)),
    "A holds NaN": np.full((2, 3), np.nan),
    "A must hold real": np.ones((2, 3)) * 1j,
    "A must be an array": [["a", "b", "c"]],
}


@pytest.mark.parametrize("message", BAD)
@pytest.mark.parametrize("kind", BOTH)
def test_bad_samples(kind, message, monkeypatch):
    kernel = kind("relu", d=3, k=5)
    monkeypatch.setattr(kernel, "_blocks", lambda *_: pytest.fail("work began"))
    with pytest.raises(ValueError, match=message):
        kernel.gram(BAD[message])
    with pytest.raises(ValueError, match=message):
        kernel.features(BAD[message])
    with pytest.raises(ValueError, match="B" + message[1:]):
        kernel.gram(np.ones((2, 3)), BAD[message])


OPTIONS = [
    ("d", 0),
    ("d", 2.0),
    ("k", 0),
    ("k", -3),
    ("k", True),
    ("seed", -1),
    ("seed", 0.5),
    ("seed", None),
    ("seed", 2**63),
    ("seed", True),
    ("seed", np.random.default_rng(0)),
    ("seed", torch.Generator()),
    ("dtype", torch.float16),
    ("dtype", "half"),
    ("dtype", None),
    ("dtype", np.int64),
    ("draw_on", "gpu"),
    ("draw_on", None),
    ("device", "warp"),
    ("device", "mps"),
    ("device", "meta"),
    ("device", None),
    ("memory", 0),
    ("memory", math.inf),
    ("memory", "1e9"),
]


@pytest.mark.parametrize("argument, value", OPTIONS)
@pytest.mark.parametrize("kind", BOTH)
def test_bad_options_are_named(kind, argument, value):
    with pytest.raises(ValueError, match=rf"^{argument}\b"):
        kind("relu", **{"d": 3, "k": 5, argument: value})


@pytest.mark.parametrize("kind", BOTH)
def test_unknown_activation(kind):
    with pytest.raises(ValueError, match="relu, selu, sigmoid"):
        kind("nonesuch", d=3, k=5)


def test_tangent_features_need_a_derivative():
    with pytest.raises(ValueError, match="derivative"):
        sl.TangentFeatures(sl.Activation(np.tanh), d=3, k=5)


def test_a_missing_device_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device 'cuda'"):
        sl.RandomFeatures("relu", d=3, k=5, device="cuda")


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_precision_may_be_given_in_every_way(kind, dtype):
    name = str(dtype).removeprefix("torch.")
    for given in (name, np.dtype(name), getattr(np, name)):
        kernel = kind("relu", d=3, k=5, dtype=given)
        assert kernel.dtype == dtype
        np.testing.assert_array_equal(kernel.gram(np.eye(3)), kind("relu", d=3, k=5, dtype=dtype).gram(np.eye(3)))


def test_samples_larger_than_the_precision_are_refused():
    with pytest.raises(ValueError, match=r"A holds numbers too large for torch\.float32"):
        sl.RandomFeatures("relu", d=3, k=5, dtype=torch.float32).gram(np.full((2, 3), 1e300))


EXP = sl.Activation(torch.exp, torch.exp, name="exp")


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    ("act", "dtype", "scale", "larger"),
    [
        (EXP, torch.float32, 300.0, True),  # the features overflow
        (EXP, torch.float64, 2000.0, False),
        ("h1+h2", torch.float64, 1e200, False),
        ("linear", torch.float32, 1e30, True),  # only their products
        ("linear", torch.float64, 1e200, False),
    ],
)
def test_features_that_overflow_are_refused(kind, act, dtype, scale, larger):
    kernel, A = kind(act, d=3, k=50, dtype=dtype), scale * samples(4, 3)
    words = rf"features of activation '.*', or their products, overflow {dtype}.* entries up to .*: scale the samples"
    with pytest.raises(ValueError, match=words) as caught:
        kernel.gram(A)
    assert ("or use dtype=torch.float64" in str(caught.value)) is larger
    if act is EXP:
        for work in (lambda: kernel.gram(samples(2, 3), A), lambda: kernel.features(A)):
            with pytest.raises(ValueError, match=words):
                work()


def test_an_activation_that_is_not_defined_everywhere():
    with pytest.raises(ValueError, match=r"activation 'log'.* not defined \(NaN\)"):
        sl.RandomFeatures(torch.log, d=3, k=50).gram(samples(2, 3))


def test_weights_of_old_records():
    """The first numbers of two tiles, as they were when the first records were made."""
    for seed, weights in {
        0: [0.25602213, 0.52773219],
        7: [0.38397652, -1.32106650],
        2**32 - 1: [-0.52706307, 1.34496486],
    }.items():
        found = sl.RandomFeatures("relu", d=1, k=1025, seed=seed).weights()[[0, 1024], 0].tolist()
        assert found == pytest.approx(weights, abs=1e-6)


def test_seeds_of_two_words_are_seeds_of_their_own():
    of = {
        seed: sl.RandomFeatures("relu", d=1, k=4096, seed=seed).weights().reshape(4, 1024)
        for seed in (0, 1, 3, 2**32, 2**32 + 1, 2**33, 3 * 2**32, 2**63 - 1)
    }
    tiles = torch.cat(list(of.values()))
    assert len({tuple(tile[:4].tolist()) for tile in tiles}) == len(tiles) == 32


def test_threads_share_a_kernel():
    kernel = sl.RandomFeatures("tanh", d=10, k=3000)
    parts = [samples(6, 10, seed=s) for s in range(12)]
    with ThreadPoolExecutor(4) as pool:
        for found, A in zip(pool.map(kernel.gram, parts), parts, strict=True):
            np.testing.assert_array_equal(found, kernel.gram(A))


@CUDA
@pytest.mark.parametrize("kind", BOTH)
def test_cuda_with_weights_drawn_on_the_cpu_equals_the_cpu(kind):
    A = samples(20, 30)
    cpu, gpu = kind("tanh", d=30, k=3000), kind("tanh", d=30, k=3000, device="cuda", draw_on="cpu")
    assert torch.equal(cpu.weights(), gpu.weights().cpu())
    np.testing.assert_allclose(gpu.gram(A), cpu.gram(A), rtol=1e-11, atol=1e-9)


@CUDA
@pytest.mark.parametrize("kind", BOTH)
def test_cuda_draws_weights_of_its_own(kind):
    A, options = samples(20, 30), {"d": 30, "k": 3000, "device": "cuda"}
    first, again = kind("tanh", **options), kind("tanh", **options, memory=1)
    assert torch.equal(first.weights(), again.weights())
    assert first.weights().is_cuda
    np.testing.assert_allclose(first.gram(A), again.gram(A), rtol=1e-11)
    F = first.features(A)
    np.testing.assert_allclose(first.gram(A), F @ F.T, rtol=1e-11, atol=1e-9)
    V = first.weights().cpu().numpy().ravel() * math.sqrt(30)
    assert abs(V.var() - 1) < 4.5 * math.sqrt(2 / V.size)


@CUDA
def test_cuda_tensors_come_back_on_their_device():
    T = torch.randn(5, 30, device="cuda", dtype=torch.float64)
    assert sl.RandomFeatures("relu", d=30, k=50, device="cuda").gram(T).is_cuda
    assert sl.RandomFeatures("relu", d=30, k=50, device="cpu").gram(T).is_cuda
    m = sl.Interpolator(sl.RandomFeatures("relu", d=30, k=50, device="cuda"), T, torch.ones(5))
    assert m.predict(T).is_cuda


def test_gram_of_samples_and_queries_with_the_samples_computes_them_once(monkeypatch):
    rng = np.random.default_rng(3)
    Z, Q = rng.standard_normal((7, 5)), rng.standard_normal((4, 5))
    both = np.vstack([Z, Q])
    rf = sl.RandomFeatures("relu", d=5, k=300, seed=1)
    expected = rf.features(both) @ rf.features(Z).T
    seen = []
    blocks = rf._blocks
    monkeypatch.setattr(rf, "_blocks", lambda rows, *tiles: seen.append(rows) or blocks(rows, *tiles))
    np.testing.assert_allclose(rf.gram(both, Z), expected, rtol=1e-12)
    np.testing.assert_allclose(rf.gram(both, Q), rf.features(both) @ rf.features(Q).T, rtol=1e-12)
    assert seen[0] == 11 and seen[1] == 15
