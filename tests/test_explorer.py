"""The figure to move by hand: its numbers, its first choice without scripts, and what it refuses."""

import html.parser
import json
import re

import numpy as np
import pytest

import spurlib as sl

ALPHAS, RATIOS = [0.25, 0.5, 0.75], [0.1, 0.5, 1.0, 4.0, 10.0]
RUN = {"act": "relu", "alpha": 0.5, "ratio": 0.7, "quantity": "test", "value": 0.71234, "error": 0.02}


class Page(html.parser.HTMLParser):
    """Tags that are open, all tags seen, and the text of table cells."""

    def __init__(self, page):
        super().__init__()
        self.open, self.seen, self.cells = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in ("input", "circle", "path", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("circle", "path", "line"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


def made(**change):
    arguments = {"acts": ["relu", "tanh"], "alphas": ALPHAS, "ratios": RATIOS, "runs": [RUN]} | change
    return sl.Explorer(**arguments)


def test_its_numbers_are_the_predictions():
    shown = made()
    page = shown._repr_mimebundle_()["text/html"]
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page)[1])
    for a, act in enumerate(("relu", "tanh")):
        for s, alpha in enumerate(ALPHAS):
            for r, ratio in enumerate(RATIOS):
                found = sl.predict_accuracy(act, alpha, n=round(1000 * ratio), d=1000)
                expected = [found.alignment, found.test, found.spurious]
                assert np.allclose([data["values"][q][a][s][r] / 1000 for q in range(3)], expected, atol=5.1e-4)
    assert data["alphas"] == ALPHAS and data["ratios"] == RATIOS
    assert data["runs"] == {"0 1": [[1, 0.7, 0.7123, 0.02]]}


def test_without_scripts_it_shows_its_first_choice_and_a_table():
    shown = made()
    page = shown._repr_mimebundle_()["text/html"]
    parsed = Page(page)
    assert parsed.open == []
    assert not [attributes for _, attributes in parsed.seen if "id" in attributes]  # there may be two on a page
    (form,) = (attributes for tag, attributes in parsed.seen if tag == "form")
    assert "hidden" in form  # controls that would do nothing
    first = sl.predict_accuracy("relu", 0.5, n=1000, d=1000)
    assert f"relu, spurious fraction 0.5, N/d = 1: alignment {first.alignment:.3f}" in page
    assert parsed.cells[:3] == [f"{value:.3f}" for value in (first.alignment, first.test, first.spurious)]
    assert len(parsed.cells) == 2 * 3
    assert len([1 for tag, a in parsed.seen if tag == "circle" and a["class"].startswith("run")]) == 1
    assert "http" not in page and "src=" not in page  # nothing from elsewhere
    text = str(shown).splitlines()
    assert text[0] == "spurious fraction 0.5, N/d = 1" and len(text) == 4
    assert text[2].split() == ["relu", *parsed.cells[:3]]
    assert shown._repr_mimebundle_() == made()._repr_mimebundle_()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"acts": []}, "acts must name at least one"),
        ({"alphas": [0.5, 0.2]}, "alphas must increase"),
        ({"alphas": [0.5, 1.0]}, "alphas must be a number strictly between 0 and 1"),
        ({"ratios": [1.0]}, "ratios must increase"),
        ({"ratios": [-1.0, 2.0]}, "ratios must be a finite number above 0"),
        ({"runs": [RUN | {"act": "gelu"}]}, "not on the grid"),
        ({"runs": [RUN | {"alpha": 0.3}]}, "not on the grid"),
        ({"runs": [RUN | {"quantity": "risk"}]}, "not on the grid"),
        ({"runs": [RUN | {"ratio": 50.0}]}, "ratio 50.0 is outside of 0.1 to 10"),
    ],
)
def test_bad_input_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        made(**change)


@pytest.mark.parametrize("key", ["alpha", "ratio", "value", "error"])
def test_runs_hold_finite_numbers(key):
    for bad in (float("nan"), float("inf"), "0.5", None):
        with pytest.raises(ValueError, match=f"runs: {key} must be a"):
            made(runs=[RUN | {key: bad}])
    with pytest.raises(ValueError, match=f"is without {key}"):
        made(runs=[{name: value for name, value in RUN.items() if name != key}])


def test_activations_have_names_of_their_own():
    same = [sl.Activation(lambda x, g=g: np.sin(g * x), name="wave") for g in (1, 2)]
    with pytest.raises(ValueError, match=r"names of their own, .* got wave, wave"):
        made(acts=same, runs=[])
    with pytest.raises(ValueError, match="names of their own"):
        made(acts=["relu", "ReLU"])


def test_two_on_a_page_do_not_share_their_parts():
    """Each script takes the explorers that no script has taken; none looks for an id."""
    page = made()._repr_mimebundle_()["text/html"]
    assert "getElementById" not in page
    assert page.count(":not([data-live])") == page.count("root.dataset.live = ") == 1
