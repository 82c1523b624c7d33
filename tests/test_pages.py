"""A page's recorded results: shown where the pictures are missing, checked where they are not."""

import json

import numpy as np
import pytest

import spurlib.data
from spurlib.experiments import CorruptedRecordError, MissingRecordError, StaleRecordError, recorded

RESULTS = {"mean": 0.25, "curve": [1.0, 1 / 3, -2e5], "table": np.arange(6.0).reshape(2, 3)}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Switch the pictures on and off; records go to a folder of their own."""
    monkeypatch.setenv("SPURLIB_RECORDS", str(tmp_path))
    return lambda yes: monkeypatch.setattr(spurlib.data, "available", lambda name, classes=None: yes)


def never():
    raise AssertionError("computed without its pictures")


def changed(**entries):
    return lambda: {**RESULTS, **entries}


def test_recorded_where_the_pictures_are_and_shown_where_they_are_not(here, tmp_path):
    here(True)
    first = recorded("a-result", lambda: RESULTS, data="cifar10")
    here(False)
    again = recorded("a-result", never, data="cifar10")
    assert again.keys() == first.keys() == RESULTS.keys()
    for key, value in RESULTS.items():
        assert np.array_equal(again[key], np.asarray(value))
    assert (tmp_path / "pages" / "a-result.json").is_file()


def test_the_record_is_shown_also_where_it_was_computed_again(here):
    here(True)
    recorded("a-result", lambda: RESULTS, data="cifar10")
    again = recorded("a-result", changed(mean=0.25 * (1 + 1e-9)), data="cifar10")
    assert again["mean"] == 0.25


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ({"mean": 0.25 * (1 + 1e-5)}, "mean differs"),
        ({"mean": float("nan")}, "mean differs"),
        ({"curve": [1.0, 1 / 3]}, "curve has shape"),
        ({"more": 1.0}, "has the entries"),
    ],
)
def test_what_does_not_agree_is_refused(here, entries, complaint):
    here(True)
    recorded("a-result", lambda: RESULTS, data="cifar10")
    with pytest.raises(StaleRecordError, match=complaint):
        recorded("a-result", changed(**entries), data="cifar10")


def test_missing_and_edited_records_are_refused_by_name(here, tmp_path):
    here(False)
    with pytest.raises(MissingRecordError, match="'a-result'"):
        recorded("a-result", never, data="cifar10")
    here(True)
    recorded("a-result", lambda: RESULTS, data="cifar10")
    path = tmp_path / "pages" / "a-result.json"
    content = json.loads(path.read_bytes())
    content["results"]["mean"] = 0.26
    path.write_text(json.dumps(content))
    with pytest.raises(CorruptedRecordError, match="edited"):
        recorded("a-result", lambda: RESULTS, data="cifar10")


@pytest.mark.parametrize("name", ["", "../a", "A", "a b", None])
def test_other_names_are_refused(here, name):
    here(True)
    with pytest.raises(ValueError, match="name must be"):
        recorded(name, lambda: RESULTS, data="cifar10")
