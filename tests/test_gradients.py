"""Kernels of the gradients of networks: against autograd, one way against the other; memory, threads, bad input."""

import copy
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

import spurlib as sl


def samples(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


WAYS = ("auto", "structured", "streamed")


def exact(model, *given, output=0, of=None, **named):
    """Gradients in float64 by `jacrev`, one sample at a time; `of`: the parameters, by name."""
    parameters = {name: p.detach().double() for name, p in model.named_parameters() if p.requires_grad}
    buffers = {name: b.double() if b.is_floating_point() else b for name, b in model.named_buffers()}
    rows = []
    for i in range(len([*given, *named.values()][0])):
        args, kwargs = tuple(t[i : i + 1] for t in given), {name: t[i : i + 1] for name, t in named.items()}
        double = copy.deepcopy(model).double().eval()
        jacobian = jacrev(lambda p, a=args, k=kwargs, m=double: functional_call(m, {**p, **buffers}, a, k)[0, output])
        found = jacobian(parameters)
        rows.append(torch.cat([found[name].flatten() for name in of or parameters]))
    return torch.stack(rows).numpy()


def trained(model):
    """The network with statistics of batch normalization and scales that are not those of an untrained one."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0.0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
            if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0.0, 0.3, generator=generator)
    return model


BOOK = {
    "fully connected": (lambda: sl.fully_connected(20, 3, widths=(9, 7)), 20),
    "convolutions": (lambda: sl.small_cnn((8, 8, 3), 3), 192),
    "residual": (lambda: trained(sl.resnet18((33, 33, 1), 3)), 1089),
    "attention": (lambda: trained(sl.vision_transformer((16, 16, 1), 3, width=16, layers=2, heads=2)), 256),
}


@pytest.mark.parametrize("name", BOOK)
def test_each_way_on_each_network_of_the_book(name):
    build, d = BOOK[name]
    model, A, B = build(), samples(5, d), samples(2, d, seed=1)
    G, H = (exact(model, torch.as_tensor(Z), output=2) for Z in (A, B))
    sizes = np.linalg.norm(G, axis=1)
    rest = set() if name in ("fully connected", "convolutions") else {"streamed"}
    used = {"auto": {"product", "gradients"} | rest, "structured": {"product"} | rest}
    if name == "fully connected":  # one position: gradients are never cheaper
        used["auto"] = used["structured"]
    for way in WAYS:
        kernel = sl.EmpiricalTangent(model, output=2, way=way)
        for K, other in ((kernel.gram(A, B), H), (kernel.gram(A, A[:2]), G[:2])):
            assert (np.abs(K - G @ other.T) < 2e-5 * np.outer(sizes, np.linalg.norm(other, axis=1))).all()
        found = kernel.ways(A)
        assert list(found) == [parameter for parameter, _ in model.named_parameters()]
        assert set(found.values()) == ({"streamed"} if way == "streamed" else used[way])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["fully connected", "convolutions", "attention"])
def test_double_precision_agrees_to_rounding(name, way):
    build, d = BOOK[name]
    model, A = build(), samples(4, d)
    G = exact(model, torch.as_tensor(A), output=1)
    double = copy.deepcopy(model).double()
    for memory in (1e9, 1e4):
        K = sl.EmpiricalTangent(double, output=1, way=way, memory=memory, batch=3).gram(A)
        assert np.abs(K - G @ G.T).max() < 1e-12 * np.abs(G @ G.T).max()


class Odd(nn.Module):
    """Layers used in every way that products of Gram matrices must not get wrong."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Linear(6, 6)
        self.borrowed = nn.Linear(6, 6)
        self.tied, self.other = nn.Linear(6, 6), nn.Linear(6, 6)
        self.other.weight = self.tied.weight
        self.frozen = nn.Linear(6, 6)
        self.frozen.weight.requires_grad_(False)
        self.still = nn.Linear(6, 6)
        self.still.bias.requires_grad_(False)
        self.hooked = nn.Linear(6, 6)
        self.hooked.register_forward_hook(lambda module, args, out: 3 * out)
        self.unused = nn.Linear(6, 6)
        self.apart = nn.Linear(6, 6)
        self.mixed = nn.Conv2d(2, 4, 3, stride=2, padding=(1, 2), dilation=(1, 2))
        self.grouped = nn.Conv2d(4, 4, 1, groups=2)
        self.circular = nn.Conv2d(4, 2, 3, padding=1, padding_mode="circular")
        self.same = nn.Conv2d(2, 1, 3, padding="same", bias=False)
        self.head = nn.Linear(6, 2)

    def forward(self, z):
        x = torch.tanh(self.twice(torch.tanh(self.twice(z))))
        x = x + nn.functional.linear(torch.tanh(self.borrowed(x)), self.borrowed.weight)
        x = torch.tanh(self.tied(x)) + torch.sin(self.other(input=x))
        x = self.still(torch.tanh(self.frozen(x))) + torch.tanh(self.hooked(x))
        with torch.no_grad():
            y = self.apart(x)
        x = x + torch.tanh(nn.functional.linear(x, self.apart.weight)) * y
        image = torch.tanh(x[:, :, None] * x[:, None, :]).unflatten(1, (2, 3)).repeat(1, 1, 2, 1)
        image = self.same(torch.relu_(self.circular(self.grouped(torch.sin(self.mixed(image))))))
        return self.head(x) + image.flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize("way", WAYS)
def test_layers_that_are_shared_borrowed_tied_frozen_or_hooked(way):
    torch.manual_seed(1)
    model, A = Odd().double(), samples(5, 6)
    G = exact(model, torch.as_tensor(A), output=1)
    kernel = sl.EmpiricalTangent(model, output=1, way=way)
    np.testing.assert_allclose(kernel.gram(A), G @ G.T, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(kernel.features(A), G, rtol=1e-11, atol=1e-11)
    layers = {name.split(".")[0] for name, found in kernel.ways(A).items() if found != "streamed"}
    assert layers == (set() if way == "streamed" else {"twice", "still", "mixed", "head"})
    assert not any(len(m._forward_hooks) for name, m in model.named_modules() if name != "hooked")


def test_the_batch_is_not_mixed():
    class Centered(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 1)

        def forward(self, z):
            x = torch.tanh(self.first(z))
            return self.last(x - 0.5 * x.mean(dim=0))  # the mean of one sample, when it comes alone

    model, A = Centered().double(), samples(6, 4)
    G = exact(model, torch.as_tensor(A))
    for way in WAYS:
        np.testing.assert_allclose(sl.EmpiricalTangent(model, way=way).gram(A), G @ G.T, rtol=1e-12)


def test_sums_over_many_parameters_are_in_double_precision():
    model = nn.Linear(2_000_000, 1, bias=False)
    A = np.abs(samples(2, 2_000_000)).astype(np.float32)
    expected = A.astype(float) @ A.astype(float).T
    for way in WAYS:
        np.testing.assert_allclose(sl.EmpiricalTangent(model, way=way).gram(A), expected, rtol=1e-12)


class Text(nn.Module):
    """A classifier of sequences, as libraries of language models have them: keywords, a mask, words that pad."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(11, 8, padding_idx=0)
        self.places = nn.Parameter(torch.randn(1, 5, 8) / 3)
        self.block = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, *, ids, mask):
        x = self.block(self.words(ids) + self.places)
        return self.head((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


@pytest.mark.parametrize("way", WAYS)
def test_tokens_and_dicts_through_an_adapter(way):
    torch.manual_seed(2)
    model = Text().double()
    ids = torch.randint(0, 11, (6, 5), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = torch.tensor([3, 3, 4, 5, 3, 4])
    batch = {"ids": ids, "mask": (ids > 0).double()}
    G = exact(model, output=1, **batch)
    kernel = sl.EmpiricalTangent(model, output=1, way=way, inputs=lambda A: A)
    np.testing.assert_allclose(kernel.gram(batch), G @ G.T, rtol=1e-10, atol=1e-12)
    few = {key: t[4:] for key, t in batch.items()}
    np.testing.assert_allclose(kernel.gram(batch, few), G @ G[4:].T, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(kernel.features(batch), G, rtol=1e-10, atol=1e-12)
    assert kernel.ways(batch)["words.weight"] == ("streamed" if way == "streamed" else "product")
    rows = sl.EmpiricalTangent(model, output=1, way=way, inputs=lambda Z: {"ids": Z.long(), "mask": (Z > 0).double()})
    np.testing.assert_allclose(rows.gram(ids.numpy()), G @ G.T, rtol=1e-10, atol=1e-12)
    m = sl.Interpolator(rows, ids.numpy(), [1, -1, 1, -1, 1, -1])
    np.testing.assert_allclose(m.predict(ids.numpy()), [1, -1, 1, -1, 1, -1], atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_images_and_several_arguments_through_an_adapter(way):
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 2, 3), nn.Linear(8, 1)

        def forward(self, image, weight):
            return self.head(torch.tanh(self.conv(image)).flatten(1)) * weight[:, None]

    model, A = Pair().double(), samples(5, 17)
    split = lambda Z: (Z[:, :16].reshape(-1, 1, 4, 4), Z[:, 16])  # noqa: E731
    G = exact(model, *split(torch.as_tensor(A)))
    kernel = sl.EmpiricalTangent(model, way=way, inputs=split)
    np.testing.assert_allclose(kernel.gram(A), G @ G.T, rtol=1e-11)
    np.testing.assert_allclose(kernel.gram(A[1:], A[:3]), G[1:] @ G[:3].T, rtol=1e-11)


def test_threads_share_a_network():
    model = sl.fully_connected(10, widths=(20,), act="tanh")
    parts = [samples(6, 10, seed=s) for s in range(12)]
    for memory in (1e9, 1e4):
        kernel = sl.EmpiricalTangent(model, memory=memory)
        with ThreadPoolExecutor(4) as pool:
            for found, A in zip(pool.map(kernel.gram, parts), parts, strict=True):
                np.testing.assert_array_equal(found, kernel.gram(A))


def test_another_thread_may_apply_the_network_meanwhile():
    model, A = sl.fully_connected(10, widths=(20,), act="tanh"), samples(40, 10)
    kernel, z = sl.EmpiricalTangent(model, batch=1), torch.ones(3, 10)
    expected, K = model(z), kernel.gram(A)
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(lambda: [kernel.gram(A) for _ in range(5)])
        while not work.done():
            assert torch.equal(model(z), expected)
        for found in work.result():
            np.testing.assert_array_equal(found, K)


class TwoLayers(torch.nn.Module):
    """The network whose gradient in the first layer tangent features are."""

    def __init__(self, W, signs):
        super().__init__()
        self.W = torch.nn.Parameter(W.clone())
        self.signs = torch.nn.Parameter(signs, requires_grad=False)

    def forward(self, z):
        return (torch.tanh(z @ self.W.T) @ self.signs)[:, None]


@pytest.mark.parametrize("memory", [1e9, 3e4, 1.0])
def test_empirical_tangent_of_a_two_layer_network_is_the_tangent_kernel(memory):
    d, k = 12, 70
    ntk = sl.TangentFeatures("tanh", d=d, k=k, seed=1)
    signs = torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], k))
    empirical = sl.EmpiricalTangent(TwoLayers(ntk.weights(), signs), memory=memory, batch=4)
    assert empirical.n_features == d * k
    A, B = samples(9, d), samples(5, d, seed=1)
    np.testing.assert_allclose(empirical.gram(A), ntk.gram(A), rtol=1e-10)
    np.testing.assert_allclose(empirical.gram(A, B), ntk.gram(A, B), rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(empirical.gram(A, A[:4]), ntk.gram(A, A[:4]), rtol=1e-10)


def gradients(model, Z, output=0):
    """Gradients by one backward pass for each sample."""
    rows = []
    for z in torch.as_tensor(Z, dtype=torch.float32):
        model.zero_grad()
        model(z[None])[0, output].backward()
        rows.append(torch.cat([p.grad.flatten() for p in model.parameters()]).numpy().copy())
    return np.array(rows, dtype=float)


@pytest.mark.parametrize(
    ("model", "d"),
    [
        (sl.fully_connected(20, 3, widths=(9, 7)), 20),
        (sl.small_cnn((8, 8, 1), 2), 64),
        (sl.vision_transformer((16, 16, 1), 2, width=16, layers=1, heads=2), 256),
    ],
    ids=["fully connected", "convolutions", "attention"],
)
def test_empirical_tangent_against_backward_passes(model, d):
    A, B = samples(7, d), samples(3, d, seed=1)
    G, H = gradients(model, A, 1), gradients(model, B, 1)
    for memory in (1e9, 4e5):
        empirical = sl.EmpiricalTangent(model, output=1, memory=memory)
        np.testing.assert_allclose(empirical.gram(A, B), G @ H.T, rtol=1e-4, atol=1e-4 * np.abs(G @ H.T).max())
    np.testing.assert_allclose(empirical.features(A), G, rtol=1e-3, atol=1e-4 * np.abs(G).max())
    difference = sl.EmpiricalTangent(model, output=lambda f: f[1] - f[0])
    D = G - gradients(model, A, 0)
    np.testing.assert_allclose(difference.gram(A), D @ D.T, rtol=1e-4, atol=1e-4 * np.abs(D @ D.T).max())


def test_empirical_tangent_leaves_the_network_as_it_was():
    model = sl.resnet18((33, 33, 1), 2)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    A = samples(3, 33 * 33)
    K = sl.EmpiricalTangent(model, batch=2).gram(A)
    assert model.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    model.eval()  # statistics as they were stored: a sample's gradient does not depend on the others
    G = gradients(model, A)
    np.testing.assert_allclose(K, G @ G.T, rtol=1e-3)


def test_modes_come_back_module_by_module():
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    model.train()
    model[1].eval()  # frozen
    A = samples(6, 5)
    K = sl.EmpiricalTangent(model, batch=4).gram(A)
    assert [module.training for module in model.modules()] == [True, True, False, True, True]
    np.testing.assert_allclose(K[:2, :2], sl.EmpiricalTangent(model).gram(A[:2]), rtol=1e-5)
    with pytest.raises(ValueError, match="overflow or are NaN"):
        model[3].weight.data.fill_(torch.nan)
        sl.EmpiricalTangent(model).gram(A)
    assert [module.training for module in model.modules()] == [True, True, False, True, True]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_in_a_context_without_gradients(mode):
    A, model = samples(4, 5), nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1))
    expected = sl.EmpiricalTangent(model).gram(A)
    with mode():
        np.testing.assert_array_equal(sl.EmpiricalTangent(model).gram(A), expected)
        inside = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1))
        inside.load_state_dict(model.state_dict())
        np.testing.assert_array_equal(sl.EmpiricalTangent(inside).gram(A), expected)


def test_the_precision_is_that_of_the_parameters():
    model = sl.fully_connected(5, widths=(7,), act="tanh")
    kernel = sl.EmpiricalTangent(model)
    assert kernel.dtype == torch.float32
    model.double()
    assert kernel.dtype == torch.float64
    model[0].float()
    assert kernel.dtype == torch.float32  # the coarsest


class Flat(nn.Module):
    """Outputs of shape (n,)."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, z):
        return self.layer(z)[:, 0]


class Noisy(Flat):
    """Random in every mode."""

    def forward(self, z):
        return self.layer(nn.functional.dropout(z, 0.5, training=True))


def tangent(model, **options):
    return sl.EmpiricalTangent(model, **options).gram(samples(4, 3))


LINEAR = nn.Linear(3, 2)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: sl.EmpiricalTangent(LINEAR).gram(np.ones((2, 3)), np.ones((2, 4))), "B must have 3 columns"),
        (
            lambda: sl.EmpiricalTangent(LINEAR).gram(np.ones((2, 4))),
            "model does not take a sample of A, with 4 columns",
        ),
        (lambda: sl.EmpiricalTangent(LINEAR).features(np.ones((2, 4))), "model does not take a sample of A"),
        (
            lambda: sl.EmpiricalTangent(sl.small_cnn((8, 8, 1))).gram(np.ones((2, 192))),
            "with 192 columns.*must have 64 columns",
        ),
        (lambda: tangent(LINEAR, output=2), "output must be below 2, the number of the model's outputs, got 2"),
        (lambda: tangent(LINEAR, output=-3), "output must be below 2"),
        (lambda: tangent(LINEAR, output=lambda f: f), "output must return one number"),
        (lambda: tangent(LINEAR, output=lambda f: 1.0), "output must return one number"),
        (lambda: tangent(Flat()), r"model must return outputs of shape \(n, outputs\).*returned shape \(1,\)"),
        (lambda: tangent(Noisy()), "model draws random numbers"),
        (lambda: tangent(nn.Linear(3, 1).bfloat16()), "model: the dtype of parameter 'weight' must be torch.float32"),
        (lambda: tangent(nn.Linear(3, 1).half()), "model: the dtype of parameter 'weight'"),
        (lambda: tangent(nn.Linear(3, 1, dtype=torch.complex64)), "model: the dtype of parameter 'weight'"),
        (lambda: tangent(nn.Linear(3, 1, device="meta")), "device must be 'cpu' or 'cuda'"),
        (lambda: tangent(nn.LazyLinear(1)), "parameter 'weight' has no shape yet"),
        (
            lambda: tangent(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False))),
            "module '1' has no running statistics",
        ),
        (
            lambda: sl.EmpiricalTangent(sl.fully_connected(3, act="linear")).gram(np.full((2, 3), 3e38)),
            "model has gradients, or products of them, that overflow",
        ),
        (lambda: tangent(LINEAR, memory=math.inf), "memory must be a finite number above 0"),
        (lambda: tangent(LINEAR, memory="1e9"), "memory must be"),
        (lambda: tangent(LINEAR, batch=2.0), "batch must be a positive integer"),
        (lambda: tangent(LINEAR, output=True), "output must be a number of an output"),
        (lambda: tangent(LINEAR, way="fast"), "way must be one of 'auto', 'structured', 'streamed'; got 'fast'"),
        (lambda: tangent(LINEAR, inputs=3), "inputs must be a function from samples to what the model takes"),
        (lambda: tangent(LINEAR, inputs=lambda Z: Z[:2]), r"inputs must make tensors.*makes \{0: \(2, 3\)\} of A"),
        (lambda: tangent(LINEAR, inputs=lambda Z: (Z, 1.0)), r"makes \{0: \(4, 3\), 1: 'float'\} of A"),
        (lambda: tangent(LINEAR, inputs=lambda Z: {"zz": Z}), "model does not take what inputs makes of A"),
        (
            lambda: sl.EmpiricalTangent(LINEAR, inputs=lambda Z: Z).gram(np.ones((2, 3)), np.ones((2, 4))),
            r"inputs makes tensors of shapes \{0: \(2, 4\)\} of B, and others of A",
        ),
    ],
)
def test_empirical_tangent_names_what_it_cannot_do(work, message):
    with pytest.raises(ValueError, match=message):
        work()


@pytest.mark.parametrize("output", [-1, -2, np.int64(1)])
def test_outputs_may_be_counted_from_the_end(output):
    np.testing.assert_array_equal(tangent(LINEAR, output=output), tangent(LINEAR, output=int(output) % 2))


def test_empirical_tangent_streams_over_the_parameters():
    script = f"""
import sys
sys.path.insert(0, {sys.path[0]!r})
import numpy as np, spurlib as sl
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1e6
model = sl.fully_connected(400, widths=(2000, 1000))  # 2.8 million parameters
Z = np.random.default_rng(0).standard_normal((80, 400))
sl.EmpiricalTangent(model, memory=1e7).gram(Z[:2])
before = peak()
sl.EmpiricalTangent(model, memory=1.5e8, batch=4).gram(Z)
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.5  # all gradients: 0.9 GB


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sl.EmpiricalTangent(lambda z: z), "model must be a torch.nn.Module"),
        (lambda: sl.EmpiricalTangent(torch.nn.ReLU()), "model must be .* with parameters to differentiate"),
        (lambda: sl.EmpiricalTangent(torch.nn.Linear(3, 1), output="first"), "output must be"),
        (lambda: sl.EmpiricalTangent(torch.nn.Linear(3, 1), memory=0), "memory must be a finite number above 0"),
        (lambda: sl.EmpiricalTangent(torch.nn.Linear(3, 1), batch=0), "batch must be a positive integer"),
        (lambda: sl.EmpiricalTangent(torch.nn.Linear(3, 1)).gram(np.full((2, 3), np.nan)), "A holds NaN"),
    ],
)
def test_empirical_tangent_refuses_bad_input_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
