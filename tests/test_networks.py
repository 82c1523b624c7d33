"""Trained networks: architectures, training against plain loops, samples that are left out have no influence."""

import copy
import math
import sys

import numpy as np
import pytest
import torch
from torch import nn

import spurlib as sl

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


def test_weights_are_drawn_from_the_seed_alone():
    makers = [
        small,
        lambda seed: sl.small_cnn((8, 8, 1), seed=seed),
        lambda seed: sl.resnet18((33, 33, 1), seed=seed),
        lambda seed: sl.vision_transformer((8, 8, 1), patch=4, width=8, layers=1, heads=2, seed=seed),
    ]
    for make in makers:
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        first = make(seed=1)
        assert torch.equal(torch.rand(3), expected)
        assert same(make(seed=1), first) and not same(make(seed=2), first)


def test_networks_of_images_take_them_flat():
    model = sl.small_cnn((5, 6, 2), 3)
    picture = np.random.default_rng(0).standard_normal((5, 6, 2))
    whole = model.body(torch.from_numpy(picture).float().permute(2, 0, 1)[None])
    np.testing.assert_allclose(sl.predict(model, picture.reshape(1, -1)), whole.detach(), atol=1e-6)


def test_activations_of_the_library_are_trained_through():
    x = torch.linspace(-1, 1, D)[None]
    layers = small(act="h1+h2")
    first, phi = layers[0](x), lambda t: t + (t**2 - 1) / 2**0.5
    torch.testing.assert_close(layers(x), layers[4](phi(layers[2](phi(first)))))
    with pytest.raises(ValueError, match=r"^act: torch cannot differentiate"):
        small(act=lambda x: np.sign(x))
    with pytest.raises(ValueError, match="activation 'rely' is not known"):
        small(act="rely")

    for make, shape in ((sl.small_cnn, (4, 4, 1)), (sl.resnet18, (33, 33, 1)), (sl.vision_transformer, (8, 8, 1))):
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
        (lambda: sl.resnet18((14, 14, 1)), "^image_shape must have a height and a width of 33"),
    ],
)
def test_bad_architectures_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_torchvision_is_asked_for_when_it_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ModuleNotFoundError, match=r"torchvision is needed here: pip install 'spurlib\[images\]'"):
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


def test_outputs_are_those_after_training():
    model = Normalized().train()
    before = copy.deepcopy(model.state_dict())
    one_by_one = np.concatenate([sl.predict(model, z[None]) for z in DATA.Z])
    np.testing.assert_allclose(sl.predict(model, DATA.Z), one_by_one, rtol=1e-5, atol=1e-6)
    assert model.training and all(torch.equal(before[key], value) for key, value in model.state_dict().items())


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
    data = sl.framed_images("digits", n=6, n_test=2, frame=13, seed=0)
    start = sl.resnet18(data.image_shape, 1)
    model, losses = sl.train(start, data.Z, data.g, epochs=4, batch=3)
    assert losses[-1] < losses[0] and sl.predict(model, data.Z).shape == (6,)
    assert same(model, sl.train(start, data.Z, data.g, epochs=4, batch=3)[0])


def test_training_depends_on_its_seed_alone():
    options = {"epochs": 6, "batch": 5}
    torch.manual_seed(0)
    first, losses = sl.train(small(), DATA.Z, DATA.g, **options)
    torch.manual_seed(1)
    again, losses_again = sl.train(small(), DATA.Z, DATA.g, **options)
    assert same(first, again) and np.array_equal(losses, losses_again)
    assert not same(first, sl.train(small(), DATA.Z, DATA.g, seed=1, **options)[0])


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
    n = len(data.g)
    weights, g = np.ones((3, n)), np.tile(data.g, (3, 1))
    weights[1, 4], g[2, 5] = 0.0, data.g[6]
    options = {"weights": weights, "loss": loss, "epochs": 20, "batch": batch, "seed": 3}
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


CLASSES = np.arange(N) % 3
BAD = [
    ({"loss": "hinge"}, "^loss must be one of 'square', 'cross-entropy', got 'hinge'"),
    ({"epochs": 0}, "^epochs must be a positive integer"),
    ({"batch": 0}, "^batch must be a positive integer"),
    ({"lr": 0.0}, "^lr must be a positive number"),
    ({"seed": -1}, "^seed must be"),
    ({"device": "abacus"}, "^device 'abacus' is not known"),
    ({"until": -1.0}, "^until must be a positive number or None"),
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
    with pytest.raises(ValueError, match=r"^together: not with batch normalization"):
        sl.train_many(Normalized(), DATA.Z, DATA.g, epochs=1, together=True)
    with pytest.raises(ValueError, match=r"^g is for 2 networks, weights are for 3"):
        sl.train_many(small(), DATA.Z, np.tile(DATA.g, (2, 1)), weights=np.ones((3, N)), epochs=1)
    for wrong in ([N], [-1], [0.5], 3, [[1]]):
        with pytest.raises(ValueError, match=r"^left_out must be positions from 0 to 23"):
            sl.leave_one_out(small(), DATA.Z, DATA.g, wrong, epochs=1)
    with pytest.raises(ValueError, match=r"^left_out: nothing to train without"):
        sl.leave_one_out(small(), DATA.Z[:1], DATA.g[:1], [0], epochs=1)
