"""Conversion between numpy and torch, and the checks of sizes, fractions and devices."""

import numpy as np
import pytest
import torch

from spurlib._checks import device_of, fraction, like, positive, tensor


@pytest.mark.parametrize(
    "x", [[[1, 2], [3, 4]], np.array([[1, 2], [3, 4]], dtype=np.int8), torch.tensor([[1, 2], [3, 4]])]
)
def test_anything_numeric_becomes_float64(x):
    t = tensor(x, "x", ndim=2)
    assert t.dtype == torch.float64 and t.tolist() == [[1, 2], [3, 4]]


def test_no_copy_when_nothing_changes():
    x = np.ones((2, 3))
    assert np.shares_memory(tensor(x, "x", ndim=2).numpy(), x)


def test_views_with_negative_strides_and_gradients():
    x = np.arange(6.0).reshape(2, 3)
    assert tensor(np.ascontiguousarray(x[::-1]), "x", ndim=2).tolist() == x[::-1].tolist()
    assert tensor(x[::-1], "x", ndim=2).tolist() == x[::-1].tolist()
    assert not tensor(torch.ones(2, requires_grad=True), "x", ndim=1).requires_grad


def test_labels_may_be_boolean_but_samples_not():
    assert tensor(np.array([True, False]), "g", ndim=1).tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match="Z must hold real numbers"):
        tensor(np.ones((2, 2), dtype=bool), "Z", ndim=2)


@pytest.mark.parametrize("x", ["text", None, [[1, 2], [3]], object(), {"a": 1}, [["1", "2"]]])
def test_what_is_not_numbers_is_named(x):
    with pytest.raises(ValueError, match=r"^argument must"):
        tensor(x, "argument", ndim=2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_value_is_enough(bad):
    x = np.zeros((50, 50))
    x[17, 3] = bad
    for form in (x, torch.from_numpy(x), x.astype(np.float32)):
        with pytest.raises(ValueError, match=r"^x holds NaN or infinite values"):
            tensor(form, "x", ndim=2)


def test_like_follows_the_model():
    t = torch.ones(2)
    assert isinstance(like(t, np.zeros(1)), np.ndarray)
    assert isinstance(like(t, [1.0]), np.ndarray)
    assert like(t, torch.zeros(1)) is t


def test_devices(monkeypatch):
    assert device_of("cpu") == device_of(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(ValueError, match="device 'warp' is not known"):
        device_of("warp")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no CUDA device"):
        device_of("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of("cuda:1").index == 1
    with pytest.raises(ValueError, match="sees 2 CUDA devices"):
        device_of("cuda:2")


@pytest.mark.parametrize("value", [0, -1, 1.0, "3", None, True, np.float64(2)])
def test_sizes_are_positive_integers(value):
    with pytest.raises(ValueError, match=r"^width must be a positive integer"):
        positive(value, "width")
    assert type(positive(np.int32(3), "width")) is int


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, float("nan"), float("inf"), "half", None, [0.5, 0.5]])
def test_fractions_lie_strictly_inside(value):
    with pytest.raises(ValueError, match=r"^alpha must"):
        fraction(value, "alpha")
    assert fraction(np.float32(0.5), "alpha") == 0.5
