"""Trained networks: architectures, training against plain loops, samples that are left out have no influence."""

import copy
import functools
import hashlib
import math
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import spurlib as sl
from spurlib.networks import DivergedError, mean_of, settled
from spurlib.networks.draws import generator_of

N, D = 24, 12
DATA = sl.synthetic(n=N, d=D, alpha=0.5, n_test=30, seed=0)
IMAGES = sl.framed_images("digits", n=40, n_test=30, classes=range(10), seed=0)
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")


def small(seed=0, **options):
    return sl.fully_connected(D, widths=(16, 8), seed=seed, **options)


class Normalized(nn.Module):
    """A network whose batches are normalized."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.body = nn.Sequential(nn.Linear(D, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 1))
        for p in self.body.parameters():
            with torch.no_grad():
                p.copy_(torch.randn(p.shape, generator=generator) / 3)

    def forward(self, z):
        return self.body(z)


def parameters(model):
    return torch.cat([p.detach().ravel() for p in model.parameters()])


def same(a, b):
    return torch.equal(parameters(a), parameters(b))


def digest(model):
    """Of names and values of all parameters and buffers."""
    return hashlib.sha256(
        b"".join(name.encode() + value.numpy().tobytes() for name, value in model.state_dict().items())
    ).hexdigest()[:16]


class Of(nn.Module):
    """One linear layer, of which `f` makes the output."""

    def __init__(self, f):
        super().__init__()
        self.f, self.linear = f, nn.Linear(D, 1)

    def forward(self, z):
        return self.f(self.linear(z))


def dropping(layer=None, **kinds):
    """A network with dropout."""
    start = small(**kinds)
    return nn.Sequential(*start[:3], nn.Dropout(0.4) if layer is None else layer, *start[3:])


# ---- architectures


def test_numbers_of_parameters():
    def count(model):
        return sum(p.numel() for p in model.parameters())

    assert count(sl.fully_connected(784, 10)) == 785 * 500 + 501 * 200 + 201 * 10
    assert count(sl.fully_connected(7, widths=(5,))) == 8 * 5 + 6
    assert count(sl.small_cnn((48, 48, 3), 10)) == (27 + 1) * 16 + (144 + 1) * 32 + (4608 + 1) * 256 + 257 * 10
    assert count(sl.small_cnn((14, 14, 1))) == (9 + 1) * 16 + (144 + 1) * 32 + (288 + 1) * 256 + 257
    assert count(sl.resnet18((48, 48, 3))) == 11_181_642  # torchvision's 11,689,512 with 1000 classes
    assert count(sl.resnet18((48, 48, 1), 2)) == 11_181_642 - 2 * 64 * 49 - 8 * 513


MAKERS = {
    "fc": small,
    "cnn": lambda seed=0, **kinds: sl.small_cnn((9, 12, 3), 4, seed=seed, **kinds),
    "resnet18": lambda seed=0, **kinds: sl.resnet18((8, 8, 1), 1, seed=seed, **kinds),
    "vit": lambda seed=0, **kinds: sl.vision_transformer(
        (8, 8, 1), 1, patch=4, width=8, layers=1, heads=2, seed=seed, **kinds
    ),
}


def by_torch(kind):
    """The layers as torch and torchvision draw them, from the global generator."""
    vision = pytest.importorskip("torchvision").models
    if kind == "fc":
        return nn.Sequential(nn.Linear(D, 16), nn.Linear(16, 8), nn.Linear(8, 1))
    if kind == "cnn":
        layers = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3), nn.Linear(32 * 2 * 3, 256), nn.Linear(256, 4)
        return nn.Sequential(*layers)
    if kind == "resnet18":
        body = vision.resnet18(num_classes=1)
        body.conv1 = nn.Conv2d(1, 64, 7, bias=False)
        return body
    body = vision.VisionTransformer(8, 4, 1, 2, 8, 16, num_classes=1)
    body.heads.head.reset_parameters()
    body.conv_proj = nn.Conv2d(1, 8, 4)
    return body


@pytest.mark.parametrize("kind", MAKERS)
def test_weights_are_those_that_torch_draws(kind):
    before = torch.get_rng_state()
    models = [MAKERS[kind](seed) for seed in (1, 2**32 - 1)]
    assert torch.equal(torch.get_rng_state(), before) and not same(*models)
    for seed, model in zip((1, 2**32 - 1), models, strict=True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            assert same(model, by_torch(kind))


DIGESTS = {
    "fc": ["10037d946557a63c", "0f747aec139215f9", "ac00d3bc5aed2427", "40d41a34e302acf1"],
    "cnn": ["9bcc513012ab82e4", "c3c888474d12157c", "9f042c217b400a14", "58f3ae454092f7dc"],
}


@pytest.mark.skipif(not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="rounded on other processors")
@pytest.mark.parametrize("kind", DIGESTS)
def test_weights_are_those_of_the_records(kind):
    for seed, expected in zip((0, 1, 12345, 2**32 - 1), DIGESTS[kind], strict=True):
        assert digest(MAKERS[kind](seed)) == expected


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@functools.cache
def built_and_trained(state):
    """Digests of networks, and outputs, where torch is in some state."""
    models = [make(3) for make in MAKERS.values()]
    assert all(p.requires_grad for model in models for p in model.parameters())
    own = nn.Linear(D, 1, device="cpu", dtype=torch.float32)
    with torch.no_grad():
        own.weight.fill_(0.1), own.bias.fill_(0.0)
    Z, g = (torch.tensor(x, device="cpu") for x in (DATA.Z, DATA.g))
    trained = [sl.train(start, Z, g, epochs=3, batch=7)[0] for start in (models[0], own)]
    trained += sl.train_many(models[0], Z, g, epochs=2, weights=torch.ones(2, N, device="cpu"), together=True)
    return [digest(model) for model in models + trained], sl.predict(trained[0], DATA.Z)


@pytest.mark.parametrize("state", ["no_grad", "inference_mode", "device", "double"])
def test_weights_and_training_do_not_depend_on_the_state_of_torch(state, request):
    expected, f = built_and_trained("as it starts")
    if state == "double":
        request.getfixturevalue("double")
        found, values = built_and_trained(state)
    else:
        with torch.device("meta") if state == "device" else getattr(torch, state)():
            found, values = built_and_trained(state)
    assert found == expected
    np.testing.assert_array_equal(values, f)


def test_threads_have_the_same_networks():
    def run(seeds):
        start.wait()
        built = [small(seed) for seed in seeds]
        trained = [sl.train(dropping(), DATA.Z, DATA.g, epochs=2, seed=seed)[0] for seed in seeds]
        together = sl.train_many(dropping(), DATA.Z, np.vstack([DATA.g, -DATA.g]), epochs=2, seed=seeds[0])
        return [digest(model) for model in built + trained + together]

    parts = [range(first, 24, 6) for first in range(6)]
    start = threading.Barrier(1)
    expected = [run(seeds) for seeds in parts]
    start = threading.Barrier(6)
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(run, parts)) == expected


def test_every_seed_has_numbers_of_its_own():
    for seed in (0, 5, 2**31):
        for more in (2**32, 2**33, 2**62):
            assert not same(small(seed), small(seed + more)) and same(small(seed + more), small(seed + more))
    twister = np.random.MT19937()
    state = twister.state
    state["state"] = {"key": np.random.SeedSequence(2**40).generate_state(624), "pos": 624}
    twister.state = state
    drawn = torch.empty(1000, dtype=torch.int32).random_(generator=generator_of(2**40))
    np.testing.assert_array_equal(drawn, twister.random_raw(1000) % 2**31)
    with pytest.raises(ValueError, match=r"^seed must be an integer .*, got 9223372036854775808"):
        small(2**63)


def test_networks_can_be_pickled():
    Z = np.random.default_rng(0).standard_normal((3, 324))
    for kind, d in (("fc", D), ("cnn", 324), ("resnet18", 64), ("vit", 64)):
        model = MAKERS[kind]()
        again = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(sl.predict(again, Z[:, :d]), sl.predict(model, Z[:, :d]))


@pytest.mark.parametrize("kind", ["cnn", "resnet18", "vit"])
def test_images_of_another_size_are_refused(kind):
    model = MAKERS[kind]()
    columns = math.prod(model.image_shape)
    Z = np.random.default_rng(0).standard_normal((4, 3 * columns))
    message = rf"^Z must have {columns} columns, for images of shape \(.*, got shape \(\d, {3 * columns}\)"
    for call in (
        lambda: sl.predict(model, Z),
        lambda: sl.train(model, Z, np.ones(4), epochs=1),
        lambda: sl.train_many(model, Z, np.ones((2, 4)), epochs=1),
        lambda: sl.leave_one_out(model, Z, np.ones(4), [0], epochs=1),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match=rf"^Z must have {columns} columns"):
        model(torch.ones(3, *model.image_shape[:2], 7))


def test_networks_of_images_take_them_flat():
    model = sl.small_cnn((5, 6, 2), 3)
    picture = np.random.default_rng(0).standard_normal((5, 6, 2))
    whole = model.body(torch.from_numpy(picture).float().permute(2, 0, 1)[None])
    np.testing.assert_allclose(sl.predict(model, picture.reshape(1, -1)), whole.detach(), atol=1e-6)
    torch.testing.assert_close(model(torch.from_numpy(picture).float()[None]), whole)


def test_activations_of_the_library_are_trained_through():
    x = torch.linspace(-1, 1, D)[None]
    layers = small(act="h1+h2")
    first, phi = layers[0](x), lambda t: t + (t**2 - 1) / 2**0.5
    torch.testing.assert_close(layers(x), layers[4](phi(layers[2](phi(first)))))
    with pytest.raises(ValueError, match=r"^act: torch cannot differentiate"):
        small(act=lambda x: np.sign(x))
    with pytest.raises(ValueError, match="activation 'rely' is not known"):
        small(act="rely")

    for make, shape in ((sl.small_cnn, (4, 4, 1)), (sl.resnet18, (5, 6, 1)), (sl.vision_transformer, (8, 8, 1))):
        plain, curved = make(shape, 1), make(shape, 1, act="erf")
        assert same(plain, curved)
        Z = np.random.default_rng(0).standard_normal((3, math.prod(shape)))
        assert np.abs(sl.predict(plain, Z) - sl.predict(curved, Z)).max() > 1e-4
        names = {type(module).__name__ for module in curved.modules()}
        assert not {"ReLU", "GELU"} & names
        with pytest.raises(ValueError, match=r"^act: torch cannot differentiate"):
            make(shape, act=lambda x: np.sign(x))
    written = sl.small_cnn((4, 4, 1), act=lambda x: x * (x > 0))  # ReLU again
    Z = np.random.default_rng(0).standard_normal((3, 16))
    np.testing.assert_allclose(sl.predict(written, Z), sl.predict(sl.small_cnn((4, 4, 1)), Z), rtol=1e-5)


def polynomial(u):
    return u + torch.special.hermite_polynomial_he(u, 3)


def partly_cut(u):
    return u + 0.01 * torch.tanh(u).detach()


def not_a_number(u):
    return torch.where(u > 0, u.abs().sqrt() + torch.sqrt(u), 0 * u)


@pytest.mark.parametrize("act", [polynomial, partly_cut, not_a_number], ids=lambda act: act.__name__)
def test_activations_that_torch_differentiates_in_part_are_refused(act):
    for make in (small, lambda act: sl.small_cnn((4, 4, 1), act=act)):
        with pytest.raises(ValueError, match=rf"^act: torch does not differentiate all of '{act.__name__}': at "):
            make(act=act)


ACTIVATIONS = {
    **{name: name for name in (*sl.activation_names(), "h3", "h60") if name != "step"},
    "clamp": lambda u: u.clamp(-1, 1),
    "two kinks": lambda u: (u - 0.3).abs() + (u + 1.7).abs(),
    "jumps": torch.round,
    "fast": lambda u: torch.sin(300 * u),
    "steep": lambda u: torch.exp(9 * u),
    "narrow": lambda u: torch.exp(-50 * u**2),
    "in place": nn.ReLU(inplace=True),
    "single precision": lambda u: torch.tanh(u.float()),
    "large constant": lambda u: torch.relu(u) + 1e6,
    "tiny": lambda u: 1e-9 * torch.tanh(u),
    "special": torch.special.ndtr,
    "approximate": nn.GELU(approximate="tanh"),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_right_derivatives_are_not_refused(name):
    assert sl.fully_connected(2, widths=(1,), act=ACTIVATIONS[name])[2].out_features == 1


def test_a_vision_transformer_starts_from_outputs_that_vary():
    model = sl.vision_transformer((16, 16, 1), 2, patch=4, width=16, layers=2, heads=2)
    f = sl.predict(model, np.random.default_rng(0).standard_normal((5, 256)))
    assert f.shape == (5, 2) and f.std(axis=0).min() > 1e-3
    weights = {name: tuple(p.shape) for name, p in model.body.named_parameters()}
    assert weights["conv_proj.weight"] == (16, 1, 4, 4) and weights["encoder.pos_embedding"] == (1, 17, 16)
    assert weights["encoder.layers.encoder_layer_1.mlp.0.weight"] == (32, 16)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sl.vision_transformer((16, 24, 1)), "^image_shape must be square"),
        (lambda: sl.vision_transformer((20, 20, 1)), "^image_shape must be square, its sides a multiple of patch = 8"),
        (lambda: sl.vision_transformer((16, 16, 1), heads=5), "^heads must divide width = 96"),
        (lambda: sl.vision_transformer((16, 16, 1), layers=0), "^layers must be"),
        (lambda: sl.fully_connected(0), "^d must be a positive integer"),
        (lambda: sl.fully_connected(3, 0), "^outputs must be"),
        (lambda: sl.fully_connected(3, widths=(5, 0)), "^widths must be"),
        (lambda: sl.fully_connected(3, seed=-1), "^seed must be"),
        (lambda: sl.small_cnn((8, 8)), r"^image_shape must be \(height, width, channels\)"),
        (lambda: sl.small_cnn((3, 8, 1)), "^image_shape must have a height and a width of 4"),
        (lambda: sl.small_cnn((8, 8, 0)), "^image_shape must be"),
        (lambda: sl.small_cnn((8, 8, 1), 0), "^outputs must be"),
        (lambda: sl.small_cnn(None), r"^image_shape must be \(height, width, channels\), got None"),
        (lambda: sl.resnet18((14, 0, 1)), "^image_shape must be a positive integer"),
        (lambda: sl.vision_transformer((16, 16, 1), 0), "^outputs must be"),
        (lambda: sl.fully_connected(3, widths=5), "^widths must be a sequence of integers, got 5"),
        (lambda: sl.fully_connected(3, seed=1.0), "^seed must be"),
    ],
)
def test_bad_architectures_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_torchvision_is_asked_for_when_it_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    advice = r'torchvision is needed here: pip install "\.\[images\]" in the checkout of the book$'
    with pytest.raises(ModuleNotFoundError, match=advice):
        sl.resnet18((48, 48, 3))
    with pytest.raises(ModuleNotFoundError, match="torchvision is needed here"):
        sl.vision_transformer((48, 48, 3))


# ---- outputs


def test_outputs_are_like_the_samples():
    model = small()
    for Z in (DATA.Z, torch.from_numpy(DATA.Z)):
        f = sl.predict(model, Z, batch=5)
        assert type(f) is type(Z) and f.shape == (N,)
        np.testing.assert_allclose(f, model(torch.from_numpy(DATA.Z).float())[:, 0].detach(), rtol=1e-5, atol=1e-6)
    assert sl.predict(small(outputs=3), DATA.Z).shape == (N, 3)
    np.testing.assert_array_equal(sl.predict(model, DATA.Z.tolist(), batch=5), sl.predict(model, DATA.Z, batch=5))
    f = sl.predict(model.double(), DATA.Z)
    assert f.dtype == np.float64 and np.array_equal(f, model(torch.from_numpy(DATA.Z))[:, 0].detach())


def test_outputs_are_those_after_training():
    model = Normalized().train()
    before = copy.deepcopy(model.state_dict())
    one_by_one = np.concatenate([sl.predict(model, z[None]) for z in DATA.Z])
    np.testing.assert_allclose(sl.predict(model, DATA.Z), one_by_one, rtol=1e-5, atol=1e-6)
    assert model.training and all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_modes_are_those_that_were():
    modes = []

    class Watch(Normalized):
        def forward(self, z):
            modes.append((self.training, shared.training, shared.body[1].training))
            return super().forward(z)

    shared = Watch().train()
    shared.body[1].eval()
    sl.predict(shared, DATA.Z)
    assert modes == [(False, True, False)]  # another thread may train what is asked here
    assert [module.training for module in shared.modules()] == [True, True, True, False, True, True]
    before = copy.deepcopy(shared.body[1].state_dict())
    modes.clear()
    everything, without = sl.leave_one_out(
        shared, DATA.Z, DATA.g, [3, 3], epochs=4
    )  # together, as batches do not enter
    assert all(torch.equal(before[k], v) for k, v in everything.body[1].state_dict().items() if "running" in k)
    assert not torch.equal(before["weight"], everything.body[1].weight) and same(*without)
    assert modes[-1][:2] == (True, True) and not any(module.training for module in everything.modules())
    thawed, _ = sl.train(copy.deepcopy(shared).eval(), DATA.Z, DATA.g, epochs=1)
    assert not torch.equal(before["running_mean"], thawed.body[1].running_mean)


class Centered(nn.Linear):
    def forward(self, z):
        return super().forward(z - z.mean(dim=0))


def test_outputs_that_depend_on_the_batch_are_refused():
    norm = nn.Sequential(nn.Linear(D, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 1))
    for call in (lambda: sl.predict(norm, DATA.Z), lambda: sl.train(norm, DATA.Z, DATA.g, epochs=1)):
        with pytest.raises(ValueError, match=r"^model: the output .* since layer '1' has no running statistics"):
            call()
    with pytest.raises(ValueError, match=r"^model: the output for a sample depends on the others of its batch$"):
        sl.train(Centered(D, 1), DATA.Z, DATA.g, epochs=1)


def frozen():
    return small().requires_grad_(False)


def constant():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.ones(1))

        def forward(self, z):
            return z[:, :1]

    return Constant()


@pytest.mark.parametrize(
    ("model", "message", "asked"),
    [
        (Of(lambda f: f[:, 0]), r"^model must return .* \(n, outputs\): for .* got shape \(\d+,\)", True),
        (Of(lambda f: f.reshape(1, -1)), r"^model must return .* got shape \(1, \d+\)", True),
        (Of(lambda f: (f, f)), "^model must return a tensor, .* got tuple", True),
        (
            Of(lambda f: f.bfloat16()),
            "^model must return outputs in torch.float32 or torch.float64, got torch.bfloat16",
            True,
        ),
        (small().bfloat16(), "^model must have parameters in torch.float32 or torch.float64, got torch.bfloat16", True),
        (nn.LazyLinear(1), "^model has parameters without values", True),
        (nn.Linear(D, 1, device="meta"), "^model has parameters without values", True),
        (frozen(), "^model has nothing to train", False),
        (constant(), "^model has nothing to train", False),
        (Of(torch.Tensor.detach), "^model has nothing to train", False),
    ],
)
def test_networks_that_do_not_fit_are_refused(model, message, asked):
    calls = [
        lambda: sl.train(model, DATA.Z[:5], DATA.g[:5], epochs=1),
        lambda: sl.train_many(model, DATA.Z[:5], DATA.g[:5], weights=np.ones((2, 5)), epochs=1),
    ]
    if asked:
        calls.append(lambda: sl.predict(model, DATA.Z[:5]))
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


def test_the_memory_is_not_the_columns():
    def fails(f):
        if len(f) > 1:
            raise kind("DefaultCPUAllocator: can't allocate memory")
        return f

    for kind in (RuntimeError, torch.OutOfMemoryError):
        with pytest.raises(kind, match=r"^DefaultCPUAllocator"):
            sl.predict(Of(fails), DATA.Z)
        assert sl.predict(Of(fails), DATA.Z, batch=1).shape == (N,)


def test_outputs_that_are_not_finite_are_refused():
    def diverged(f):
        return torch.where(f > f.sort(dim=0).values[-2], torch.nan, f)

    f = sl.predict(start := Of(lambda f: f), DATA.Z)
    start.f = diverged
    with pytest.raises(ValueError, match=rf"^model gives NaN or infinite outputs, first for row {f.argmax()} of Z"):
        sl.predict(start, DATA.Z)


def test_samples_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="Z has 11 columns, which the network does not take"):
        sl.predict(small(), DATA.Z[:, 1:])
    with pytest.raises(ValueError, match="Z must have 2 axes"):
        sl.predict(small(), DATA.Z[0])
    with pytest.raises(ValueError, match=r"model must be a torch.nn.Module with parameters, got str"):
        sl.predict("model", DATA.Z)


# ---- training


def plain(model, Z, g, loss, epochs):
    """Training by the whole set at each step, written down again."""
    model = copy.deepcopy(model)
    Z, adam, losses = torch.from_numpy(Z).float(), torch.optim.Adam(model.parameters()), []
    for epoch in range(epochs):
        for group in adam.param_groups:
            group["lr"] = 1e-3 * 0.8 ** (epoch // 100)
        adam.zero_grad()
        value = loss(model(Z), torch.from_numpy(g))
        value.backward()
        adam.step()
        losses.append(value.item())
    return model, losses


def test_training_is_adam_with_decay():
    before = parameters(start := small())
    model, losses = sl.train(start, DATA.Z, DATA.g, epochs=250)
    expected, values = plain(start, DATA.Z, DATA.g, lambda f, g: ((f[:, 0] - g) ** 2).mean(), 250)
    assert torch.equal(parameters(start), before) and not model.training
    np.testing.assert_allclose(losses, values, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(sl.predict(model, DATA.Z_test), sl.predict(expected, DATA.Z_test), atol=1e-3)


def test_cross_entropy_of_ten_classes():
    start = sl.small_cnn(IMAGES.image_shape, 10)
    model, losses = sl.train(start, IMAGES.Z, IMAGES.g, loss="cross-entropy", epochs=8)
    entropy = nn.CrossEntropyLoss()
    _, values = plain(start, IMAGES.Z, IMAGES.g, lambda f, g: entropy(f, g.long()), 8)
    np.testing.assert_allclose(losses, values, rtol=1e-3)
    model, losses = sl.train(start, IMAGES.Z, IMAGES.g, loss="cross-entropy", epochs=200, batch=16, until=0.01)
    assert len(losses) < 200 and losses[-1] < 0.01 <= losses[-2]
    assert (sl.predict(model, IMAGES.Z).argmax(axis=1) == IMAGES.g).all()


def test_a_small_set_is_interpolated():
    model, losses = sl.train(sl.fully_connected(D), DATA.Z, DATA.g, epochs=300)
    assert losses[-1] < 1e-5 and len(losses) == 300
    assert np.abs(sl.predict(model, DATA.Z) - DATA.g).max() < 0.01


def test_resnet_learns():
    data = sl.framed_images("digits", n=6, n_test=2, frame=12, seed=0)
    start = sl.resnet18(data.image_shape, 1)
    assert data.image_shape == (32, 32, 1)
    model, losses = sl.train(
        start, data.Z, data.g, epochs=5, lr=1e-4
    )  # with batches of three the loss goes up and down
    assert losses[-1] < losses[0] / 4 and sl.predict(model, data.Z).shape == (6,)
    with pytest.raises(ValueError, match=r"^batch = 4 leaves one of the 5 samples alone in a batch"):
        sl.leave_one_out(start, data.Z[:5], data.g[:5], range(5), epochs=1, batch=4)


def test_training_depends_on_its_seed_alone():
    options = {"epochs": 6, "batch": 5}
    torch.manual_seed(0)
    first, losses = sl.train(small(), DATA.Z, DATA.g, **options)
    torch.manual_seed(1)
    again, losses_again = sl.train(small(), DATA.Z, DATA.g, **options)
    assert same(first, again) and np.array_equal(losses, losses_again)
    assert not same(first, sl.train(small(), DATA.Z, DATA.g, seed=1, **options)[0])


@pytest.mark.parametrize("together", [True, False])
def test_a_training_that_diverges_says_so(together):
    start = small(act="linear")
    with pytest.raises(
        DivergedError, match=r"^training diverged: the loss is (nan|inf) in epoch \d; choose lr below 1e"
    ):
        sl.train_many(start, DATA.Z, DATA.g, epochs=9, lr=1e10, together=together)
    with pytest.raises(DivergedError, match=r"^training diverged: the loss is nan in epoch 1;"):
        with torch.no_grad():
            start[0].weight.fill_(torch.nan)
        sl.train_many(start, DATA.Z, DATA.g, epochs=9, together=together)
    with pytest.raises(DivergedError, match=r"^training diverged: weights are NaN or infinite after epoch 1;"):
        sl.train_many(small(), DATA.Z, DATA.g, epochs=1, lr=1e300, together=together)
    assert issubclass(DivergedError, ValueError)


class Noisy(nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def forward(self, x):
        return x + self.draw(x) if self.training else x


DRAWING = {
    "dropout": nn.Dropout(0.4),
    "whole units": nn.FeatureAlphaDropout(0.3),
    "a GPU's dropout": Noisy(lambda x: torch.native_dropout(x, 0.5, True)[0]),
    "noise": Noisy(lambda x: torch.empty_like(x).normal_()),
}


@pytest.mark.parametrize("name", DRAWING)
def test_dropout_depends_on_the_seed_alone(name):
    start, options = dropping(DRAWING[name], act="tanh"), {"epochs": 4, "batch": 7}
    before = torch.get_rng_state()
    model, losses = sl.train(start, DATA.Z, DATA.g, seed=1, **options)
    everything, without = sl.leave_one_out(start, DATA.Z, DATA.g, [2, 9, 2], seed=1, together=False, **options)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    again, values = sl.train(start, DATA.Z, DATA.g, seed=1, **options)
    assert same(model, again) and np.array_equal(losses, values) and same(everything, model)
    assert same(without[0], without[2]) and not same(without[0], without[1])
    assert not same(model, sl.train(small(act="tanh"), DATA.Z, DATA.g, seed=1, **options)[0])
    # the draws for other samples are the same: what is left out has no influence
    other = DATA.Z.copy()
    other[2] = 5.0
    _, (changed,) = sl.leave_one_out(start, other, DATA.g, [2], seed=1, together=False, **options)
    assert same(changed, without[0])


def test_dropout_together_is_dropout_apart():
    ways = [sl.leave_one_out(dropping(), DATA.Z, DATA.g, [2, 2], epochs=9, batch=9, together=w) for w in (None, False)]
    for together, apart in zip(*([everything, *without] for everything, without in ways), strict=True):
        torch.testing.assert_close(parameters(together), parameters(apart), rtol=1e-3, atol=1e-4)
    assert same(*ways[0][1])


def test_dropout_that_is_switched_off_is_off():
    off = dropping()
    off[3].eval()
    assert same(sl.train(off, DATA.Z, DATA.g, epochs=3)[0], sl.train(small(), DATA.Z, DATA.g, epochs=3)[0])


def test_attention_drops_by_the_seed():
    start = sl.vision_transformer((8, 8, 1), 1, patch=4, width=8, layers=1, heads=2)
    Z = np.random.default_rng(0).standard_normal((4, 64))
    plain, _ = sl.train(start, Z, np.ones(4), epochs=2)
    start.body.encoder.layers[0].self_attention.dropout = 0.5
    one, two = (sl.train(start, Z, np.ones(4), epochs=2)[0] for _ in range(2))
    assert same(one, two) and not same(one, plain)


def test_draws_without_a_generator_are_refused():
    for layer, name in ((Noisy(torch.randn_like), "randn_like"), (nn.RReLU(), "rrelu_with_noise")):
        for together in (None, False):
            with pytest.raises(ValueError, match=rf"^model draws random numbers by aten.{name}"):
                sl.train_many(dropping(layer), DATA.Z, DATA.g, epochs=1, together=together)
    both = nn.Sequential(nn.Linear(D, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1))
    assert same(*(sl.train(both, DATA.Z, DATA.g, epochs=2)[0] for _ in range(2)))
    with pytest.raises(ValueError, match=r"^weights: not zero for a network with both batch normalization and dropout"):
        sl.leave_one_out(both, DATA.Z, DATA.g, [0], epochs=1)


@pytest.mark.parametrize(
    ("n", "batch", "weights"), [(1, 9, None), (3, 2, None), (4, 4, [1, 0, 0, 0]), (4, 2, [1, 0, 1, 1])]
)
def test_a_batch_of_one_cannot_be_normalized(n, batch, weights):
    with pytest.raises(ValueError, match=rf"^batch = {batch} leaves one of the {n} samples alone in a batch"):
        sl.train(Normalized(), DATA.Z[:n], DATA.g[:n], epochs=3, batch=batch, weights=weights)
    assert len(sl.train(small(), DATA.Z[:n], DATA.g[:n], epochs=3, batch=batch, weights=weights)[1]) == 3


def test_batches_visit_every_sample_once():
    seen = []

    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        def forward(self, z):
            if self.training:
                seen.append(z[:, 0].detach().numpy().copy())
            return self.w * z[:, :1]

    Z = np.arange(11.0)[:, None]
    sl.train(Watch(), Z, np.ones(11), epochs=2, batch=5)
    assert [len(batch) for batch in seen] == [4, 4, 3] * 2
    orders = [np.concatenate(seen[:3]), np.concatenate(seen[3:])]
    assert all(sorted(order) == list(range(11)) for order in orders) and not np.array_equal(*orders)


def test_weights_of_samples():
    weights = np.r_[np.zeros(4), np.full(6, 2.0), np.ones(N - 10)]
    rows = np.r_[np.repeat(np.arange(4, 10), 2), np.arange(10, N)]
    weighted, losses = sl.train(small(), DATA.Z, DATA.g, epochs=20, weights=weights)
    repeated, values = sl.train(small(), DATA.Z[rows], DATA.g[rows], epochs=20)
    np.testing.assert_allclose(losses, values, rtol=1e-4)
    np.testing.assert_allclose(sl.predict(weighted, DATA.Z_test), sl.predict(repeated, DATA.Z_test), atol=1e-4)


# ---- several at once


@pytest.mark.parametrize("batch", [1024, 7])
@pytest.mark.parametrize("kind", ["fc", "cnn"])
def test_training_together_equals_training_apart(kind, batch):
    if kind == "fc":
        start, data, loss = small(), DATA, "square"
    else:
        start, data, loss = sl.small_cnn(IMAGES.image_shape, 10), IMAGES, "cross-entropy"
    epochs = {"fc": 20, "cnn": 8}[kind]
    n = len(data.g)
    weights, g = np.ones((3, n)), np.tile(data.g, (3, 1))
    weights[1, 4], g[2, 5] = 0.0, data.g[6]
    options = {"weights": weights, "loss": loss, "epochs": epochs, "batch": batch, "seed": 3}
    together, apart = (sl.train_many(start, data.Z, g, together=way, **options) for way in (True, False))
    options.pop("weights")
    for j in range(3):
        alone, _ = sl.train(start, data.Z, g[j], weights=weights[j], **options)
        assert same(alone, apart[j]) and not together[j].training
        np.testing.assert_allclose(sl.predict(together[j], data.Z_test), sl.predict(alone, data.Z_test), atol=1e-4)
    assert np.abs(sl.predict(together[0], data.Z_test) - sl.predict(together[1], data.Z_test)).max() > 1e-3


CASES = [
    pytest.param(small(), True, id="together"),
    pytest.param(small(), False, id="apart"),
    pytest.param(Normalized(), None, id="normalized"),
]


@pytest.mark.parametrize("batch", [1024, 7])
@pytest.mark.parametrize(("start", "together"), CASES)
def test_a_sample_left_out_has_no_influence(start, together, batch):
    options = {"epochs": 15, "batch": batch, "together": together}
    everything, without = sl.leave_one_out(start, DATA.Z, DATA.g, [2, 9], **options)
    other, label = DATA.Z.copy(), DATA.g.copy()
    other[9], label[9] = 5.0 * DATA.Z_test[0], -label[9]
    changed, without_changed = sl.leave_one_out(start, other, label, [2, 9], **options)
    state, state_changed = without[1].state_dict(), without_changed[1].state_dict()
    assert all(torch.equal(state[name], state_changed[name]) for name in state)  # averages of batches included
    assert not same(changed, everything) and not same(without[0], without_changed[0])
    assert not same(without[1], everything)


@pytest.mark.parametrize("start", [small(), Normalized()], ids=["plain", "normalized"])
def test_leaving_out_is_training_on_the_others(start):
    _, (without,) = sl.leave_one_out(start, DATA.Z, DATA.g, [5], epochs=30)
    others, _ = sl.train(start, np.delete(DATA.Z, 5, axis=0), np.delete(DATA.g, 5), epochs=30)
    np.testing.assert_allclose(sl.predict(without, DATA.Z_test), sl.predict(others, DATA.Z_test), atol=1e-4)


def test_a_batch_of_nothing_is_skipped_where_batches_are_normalized():
    weights = np.zeros(N)
    weights[torch.randperm(N, generator=torch.Generator().manual_seed(4))[:3]] = 1.0  # all in the first of two batches
    model, losses = sl.train(Normalized(), DATA.Z, DATA.g, epochs=1, batch=12, weights=weights, seed=4)
    assert np.isfinite(losses).all() and torch.isfinite(parameters(model)).all()


class Tied(nn.Module):
    """A weight used twice, and a buffer that is not saved."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.first, self.second, self.last = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, 1)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) / 4)
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.full((1,), 0.5), persistent=False)

    def forward(self, z):
        return self.last(torch.tanh(self.second(torch.tanh(self.scale * self.first(z)))))


def test_tied_weights_stay_tied():
    labels = np.vstack([DATA.g, -DATA.g])
    together, apart = (sl.train_many(Tied(), DATA.Z, labels, epochs=9, together=way) for way in (True, False))
    for one, other in zip(together, apart, strict=True):
        assert one.second.weight is one.first.weight and float(one.scale) == 0.5
        torch.testing.assert_close(parameters(one), parameters(other), rtol=1e-3, atol=1e-4)


def test_what_cannot_be_trained_together_is_trained_apart():
    branching = Of(lambda f: f if float(f.detach().abs().sum()) > 0 else -f)
    labels = np.vstack([DATA.g, -DATA.g])
    found = sl.train_many(branching, DATA.Z, labels, epochs=3)
    assert all(same(m, sl.train(branching, DATA.Z, g, epochs=3)[0]) for m, g in zip(found, labels, strict=True))
    with pytest.raises(ValueError, match=r"^together: torch cannot train this network so: vmap"):
        sl.train_many(branching, DATA.Z, labels, epochs=3, together=True)
    with pytest.raises(torch.OutOfMemoryError):
        sl.train_many(Of(full), DATA.Z, labels, epochs=1)


def full(f):
    if len(f) > 2:
        raise torch.OutOfMemoryError("all of it is used")
    return f


def test_one_network_for_all_labels_and_weights():
    (only,) = sl.train_many(small(), DATA.Z, DATA.g, epochs=5, together=False)
    assert same(only, sl.train(small(), DATA.Z, DATA.g, epochs=5)[0])
    labels = np.vstack([DATA.g, -DATA.g])
    first, second = sl.train_many(small(), DATA.Z, labels, epochs=5, weights=np.ones(N))
    assert not same(first, second)


@CUDA
def test_networks_on_a_gpu_agree():
    for together in (True, False):
        models = sl.train_many(small(), DATA.Z, DATA.g, epochs=50, device="cuda", together=together)
        expected, _ = sl.train(small(), DATA.Z, DATA.g, epochs=50)
        np.testing.assert_allclose(
            sl.predict(models[0], DATA.Z_test), sl.predict(expected, DATA.Z_test), rtol=1e-3, atol=1e-3
        )


@CUDA
def test_dropout_on_a_gpu_depends_on_the_seed_alone():
    options = {"epochs": 4, "batch": 7, "device": "cuda"}
    before = torch.cuda.get_rng_state()
    one, two = (sl.train_many(dropping(), DATA.Z, DATA.g, together=False, **options)[0] for _ in range(2))
    assert same(one, two) and torch.equal(torch.cuda.get_rng_state(), before)
    assert not same(one, sl.train(small(), DATA.Z, DATA.g, **options)[0])


CLASSES = np.arange(N) % 3
BAD = [
    ({"loss": "hinge"}, "^loss must be one of 'square', 'cross-entropy'; got 'hinge'"),
    ({"epochs": 0}, "^epochs must be a positive integer"),
    ({"batch": 0}, "^batch must be a positive integer"),
    ({"loss": ["square"]}, "^loss must be one of"),
    ({"lr": 0.0}, "^lr must be a finite number above 0, got 0.0"),
    ({"lr": "fast"}, "^lr must be a finite number above 0, got 'fast'"),
    ({"seed": -1}, "^seed must be"),
    ({"device": "abacus"}, "^device 'abacus' is not known"),
    ({"until": -1.0}, "^until must be a finite number above 0"),
    ({"until": "soon"}, "^until must be a finite number above 0"),
    ({"weights": np.ones(N - 1)}, "^weights must have one entry for each of the 24 samples"),
    ({"weights": -np.ones(N)}, "^weights must be nonnegative, and not all zero"),
    ({"weights": np.zeros(N)}, "^weights must be nonnegative, and not all zero"),
    ({"weights": np.ones((2, N))}, "^g and weights must have one axis here"),
    ({"g": DATA.g[:-1]}, "^g must have one entry for each of the 24 samples"),
    ({"g": np.full(N, np.nan)}, "^g holds NaN"),
    ({"g": CLASSES - 1, "loss": "cross-entropy", "outputs": 3}, "^g must be classes from 0 to 2"),
    ({"g": CLASSES + 0.5, "loss": "cross-entropy", "outputs": 3}, "^g must be classes from 0 to 2"),
    ({"outputs": 3}, "^loss: 'square' is for a network with one output, this one has 3"),
    ({"Z": DATA.Z[:, 1:]}, "^Z has 11 columns"),
    ({"Z": DATA.Z[0]}, "^Z must have 2 axes"),
    ({"model": nn.ReLU()}, "^model must be a torch.nn.Module with parameters, got ReLU"),
]


@pytest.mark.parametrize(("changed", "message"), BAD)
def test_bad_training_is_refused_by_name(changed, message):
    arguments = {"epochs": 2, "Z": DATA.Z, "g": DATA.g} | changed
    model = arguments.pop("model", small(outputs=arguments.pop("outputs", 1)))
    with pytest.raises(ValueError, match=message):
        sl.train(model, arguments.pop("Z"), arguments.pop("g"), **arguments)


def test_bad_batches_of_networks_are_refused_by_name():
    with pytest.raises(ValueError, match=r"^together must be True, False or None, got 'yes'"):
        sl.train_many(small(), DATA.Z, DATA.g, epochs=1, together="yes")
    with pytest.raises(ValueError, match=r"^together: not with batch normalization"):
        sl.train_many(Normalized(), DATA.Z, DATA.g, epochs=1, together=True)
    with pytest.raises(ValueError, match=r"^g is for 2 networks, weights are for 3"):
        sl.train_many(small(), DATA.Z, np.tile(DATA.g, (2, 1)), weights=np.ones((3, N)), epochs=1)
    for wrong in ([N], [-1], [0.5], 3, [[1]]):
        with pytest.raises(ValueError, match=r"^left_out must be positions from 0 to 23"):
            sl.leave_one_out(small(), DATA.Z, DATA.g, wrong, epochs=1)
    with pytest.raises(ValueError, match=r"^left_out: nothing to train without"):
        sl.leave_one_out(small(), DATA.Z[:1], DATA.g[:1], [0], epochs=1)


# ---- networks made of networks


def test_normalized_batches_settle():
    Z = np.random.default_rng(0).standard_normal((6, 33 * 33))
    model = sl.resnet18((33, 33, 1), 1, seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calm = settled(model, Z)
    assert not calm.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    first, x = calm.body.bn1, torch.as_tensor(Z, dtype=torch.float32)
    seen = calm.body.conv1(x.reshape(-1, 33, 33, 1).permute(0, 3, 1, 2))
    torch.testing.assert_close(first.running_mean, seen.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first.running_var, seen.var(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    plain = sl.small_cnn((8, 8, 1))
    assert np.array_equal(sl.predict(settled(plain, Z[:, :64]), Z[:, :64]), sl.predict(plain, Z[:, :64]))


def test_networks_between_two():
    one, two = (sl.resnet18((33, 33, 1), 1, seed=seed) for seed in (0, 1))
    for share in (0.0, 0.25, 1.0):
        between = mean_of(one, two, share)
        for name, value in between.state_dict().items():
            expected = (1 - share) * one.state_dict()[name] + share * two.state_dict()[name]
            torch.testing.assert_close(value, expected.to(value.dtype), rtol=1e-5, atol=1e-6)
