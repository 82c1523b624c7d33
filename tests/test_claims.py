"""Claims: verdicts, messages, and what is stored in a notebook."""

import io
import json
import math
import sys

import numpy as np
import pytest
import torch

import spurlib as sl
from spurlib.book.claims import MIME

HOLDS = [
    (0.5, {"near": 0.5, "tol": 0}),
    (0.509, {"near": 0.5, "tol": 0.01}),
    (0.491, {"near": 0.5, "tol": 0.01}),
    (1, {"below": 2}),
    (1, {"above": 0}),
    (1, {"above": 0, "below": 2}),
    (0.5, {"near": 0.5, "tol": 0.1, "below": 0.55}),
    (np.float32(1), {"below": np.float64(2)}),
    (torch.tensor([1.0]), {"below": torch.tensor(2.0)}),
    (1, {"below": math.inf}),
]
FAILS = [
    (0.52, {"near": 0.5, "tol": 0.01}),
    (0.48, {"near": 0.5, "tol": 0.01}),
    (2, {"below": 2}),
    (0, {"above": 0}),
    (3, {"above": 0, "below": 2}),
    (-1, {"above": 0, "below": 2}),
    (0.58, {"near": 0.5, "tol": 0.1, "below": 0.55}),
    (math.nan, {"near": 0.5, "tol": 10}),
    (math.nan, {"below": 1}),
    (math.inf, {"above": 0}),
    (-math.inf, {"below": 0}),
    (1, {"near": math.nan, "tol": 1}),
    (1, {"above": math.nan}),
]


@pytest.mark.parametrize("value, target", HOLDS)
def test_true_claims_are_printed_outside_a_notebook(value, target, capsys):
    assert sl.claim("thm-x", name="is so", value=value, **target) is None
    out = capsys.readouterr().out
    assert out.startswith("✓ thm-x, is so: holds; value ") and out.count("\n") == 1


@pytest.mark.parametrize("value, target", FAILS)
def test_false_claims_raise_and_show_nothing(value, target, capsys):
    with pytest.raises(sl.ClaimError) as caught:
        sl.claim("thm-x", name="is so", value=value, **target)
    assert "✗ thm-x, is so: FAILS" in str(caught.value)
    assert f"{float(value):.3g}" in str(caught.value)
    assert capsys.readouterr().out == ""
    assert isinstance(caught.value, AssertionError)


def test_a_falsification_says_so(capsys):
    sl.claim("lem-y", name="fails without it", value=3, above=1, falsifies=True)
    assert "fails, as expected" in capsys.readouterr().out


@pytest.mark.parametrize(
    "message, arguments",
    [
        ("statement must be", {"statement": "", "below": 1}),
        ("statement must be", {"statement": 3, "below": 1}),
        ("near and tol", {"near": 1}),
        ("near and tol", {"tol": 1}),
        ("near and tol", {"tol": 1, "below": 3}),
        ("needs a target", {}),
        ("tol must be nonnegative", {"near": 1, "tol": -1}),
        ("tol must be nonnegative", {"near": 1, "tol": math.nan}),
    ],
)
def test_bad_claims(message, arguments):
    with pytest.raises(ValueError, match=message):
        sl.claim(**{"statement": "thm-x", "name": "n", "value": 1.0, **arguments})


def test_every_target_is_named():
    with pytest.raises(sl.ClaimError, match=r"near 0\.5 within 0\.01 and below 2 and above 0\.1"):
        sl.claim("thm-x", name="n", value=9, near=0.5, tol=0.01, below=2, above=0.1)


@pytest.fixture
def notebook(monkeypatch):
    """Pretend that a kernel runs, and collect what is displayed."""
    import IPython.core.getipython
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.core.getipython, "get_ipython", lambda: object())
    monkeypatch.setattr(IPython.display, "display", shown.append)
    return shown


def test_a_notebook_stores_the_claim(notebook, capsys):
    sl.claim("thm-x", name="a < b & c", value=np.float64(0.123456), near=0.12, tol=0.01, falsifies=True)
    assert capsys.readouterr().out == ""
    (shown,) = notebook
    bundle = shown._repr_mimebundle_()
    assert set(bundle) == {MIME, "text/html", "text/plain"}
    entry = json.loads(json.dumps(bundle[MIME]))
    assert entry == {
        "statement": "thm-x",
        "name": "a < b & c",
        "value": 0.123456,
        "target": "near 0.12 within 0.01",
        "falsifies": True,
        "holds": True,
    }
    assert "a &lt; b &amp; c" in bundle["text/html"] and "a < b" not in bundle["text/html"]
    assert "0.123" in bundle["text/html"] and "spurlib-falsifies" in bundle["text/html"]
    assert "0.12" not in bundle["text/plain"]  # compared verbatim on other machines: no measured number


def test_a_false_claim_is_not_stored(notebook):
    with pytest.raises(sl.ClaimError):
        sl.claim("thm-x", name="n", value=2, below=1)
    assert notebook == []


def test_without_ipython_the_line_is_printed(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "IPython.core.getipython", None)
    sl.claim("thm-x", name="n", value=1, below=2)
    assert "✓" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("shell", [None, object()])
def test_every_terminal_shows_the_claim(monkeypatch, encoding, shell):
    import IPython.core.getipython
    import IPython.display

    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(IPython.core.getipython, "get_ipython", lambda: shell)
    monkeypatch.setattr(IPython.display, "display", lambda claim: print(claim))  # as IPython does in a terminal
    sl.claim("thm-x", name="Café", value=1, below=2)
    terminal.flush()
    shown = terminal.buffer.getvalue().decode(encoding)
    assert shown.rstrip() == f"{'✓' if encoding == 'utf-8' else '?'} thm-x, Café: holds; value 1, below 2".replace(
        "é", "?" if encoding == "ascii" else "é"
    )
