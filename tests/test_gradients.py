"""Gradients of networks: against autograd; memory, threads, bad input."""

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import spurlib as sl


def samples(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def test_threads_share_a_network():
    kernel = sl.EmpiricalTangent(sl.fully_connected(10, widths=(20,), act="tanh"), memory=1e4)
    parts = [samples(6, 10, seed=s) for s in range(12)]
    with ThreadPoolExecutor(4) as pool:
        for found, A in zip(pool.map(kernel.gram, parts), parts, strict=True):
            np.testing.assert_array_equal(found, kernel.gram(A))


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
            lambda: sl.EmpiricalTangent(sl.fully_connected(3, act="linear")).gram(np.full((2, 3), 1e30)),
            "model has gradients, or products of them, that overflow",
        ),
        (lambda: tangent(LINEAR, memory=math.inf), "memory must be a finite number above 0"),
        (lambda: tangent(LINEAR, memory="1e9"), "memory must be"),
        (lambda: tangent(LINEAR, batch=2.0), "batch must be a positive integer"),
        (lambda: tangent(LINEAR, output=True), "output must be a number of an output"),
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
