"""Records of experiments: verified, and refused where they are stale."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from spurlib.experiments import (
    RecordError,
    StaleRecordError,
    Tolerance,
    compare,
    experiment,
    load,
    of_training,
    rounding,
    run,
    verify,
)
from tests.toys import TOY, Open, Toy, changed, shifted, toy_cells


def test_stale_records_are_refused_with_the_command_that_renews_them(tmp_path):
    run(TOY, folder=tmp_path, progress=False)
    for stale in (replace(TOY, version=2), replace(TOY, cells=lambda scale: toy_cells(scale)[:1])):
        with pytest.raises(StaleRecordError, match="run toy --scale page"):
            load(stale, "page", tmp_path)
        with pytest.raises(StaleRecordError):
            verify(stale, "page", folder=tmp_path)
    run(TOY, seeds=2, folder=tmp_path, progress=False, replace=True)  # the number of draws is the record's own affair
    assert len(load(TOY, "page", tmp_path).table) == 2 * 2 * 3


def test_verification_agrees_with_what_was_recorded(tmp_path):
    run(TOY, folder=tmp_path, progress=False)
    rows = verify(TOY, "page", folder=tmp_path, cells=3, seed=1)
    assert len(rows) == 3 * 1 * 2 and rows["agrees"].all()
    assert list(rows.columns) == ["act", "n", "seed", "quantity", "measured", "recorded", "allowed", "agrees"]
    assert (rows["measured"] == rows["recorded"]).all()
    everything = verify(TOY, "page", folder=tmp_path, cells=100, whole=True)
    assert len(everything) == 2 * 4 * 3 * 2 and everything["agrees"].all()
    recorded = load(TOY, "page", tmp_path).table
    middle = recorded[(recorded["act"] == "b") & (recorded["n"] == 2)]["value"].abs().median()
    found = everything.query("act == 'b' and n == 2 and quantity == 'value'")
    assert np.allclose(found["allowed"], 1e-6 * np.maximum(found["measured"].abs().astype(float), middle))


def test_verification_of_cells_that_name_different_things(tmp_path):
    # what networks do: one data set has a dimension, another has none; a choice may be left open
    def cells(scale):
        return [Open("a", (1, 2), until=None), Open("b", (2, 3), until=None, d=5)]

    mixed = replace(TOY, cells=cells)
    recorded = run(mixed, folder=tmp_path, progress=False).table
    assert recorded["until"].isna().all() and list(recorded["d"].isna()) == 8 * [True] + 8 * [False]
    for seed in range(12):  # one cell at a time, either kind
        rows = verify(mixed, "page", folder=tmp_path, seed=seed)
        assert len(rows) == 2 and rows["agrees"].all()
    rows = verify(mixed, "page", folder=tmp_path, cells=100, whole=True)
    assert len(rows) == 2 * 2 * 4 * 2 and (rows["measured"] == rows["recorded"]).all()


def test_verification_of_infinite_numbers(tmp_path):
    infinite = changed(value=np.inf)
    run(infinite, folder=tmp_path, progress=False)
    assert verify(infinite, "page", folder=tmp_path)["agrees"].all()
    rows = verify(TOY, "page", folder=tmp_path).set_index("quantity")["agrees"]
    assert not rows["value"] and rows["square"]


def test_verification_notices_other_numbers(tmp_path):
    run(TOY, folder=tmp_path, progress=False)
    allowed = verify(TOY, "page", folder=tmp_path, seed=0).set_index("quantity")["allowed"]["value"]
    assert verify(shifted(0.9 * allowed), "page", folder=tmp_path, seed=0)["agrees"].all()
    for by in (1.1 * allowed, np.nan, np.inf):
        far = verify(shifted(by), "page", folder=tmp_path, seed=0).set_index("quantity")["agrees"]
        assert not far["value"] and far["square"]


EACH = {"whole": 3, "fraction": 0.5, "text": "a", "flag": True, "open": None}


@pytest.mark.parametrize(
    ("name", "value", "agrees"),
    [
        ("whole", 3, True),
        ("whole", 4, False),
        ("fraction", 0.5 + 1e-8, True),
        ("fraction", 0.5 + 1e-5, False),
        ("fraction", None, False),
        ("text", "b", False),
        ("text", None, False),
        ("flag", False, False),
        ("flag", 1, False),
        ("open", 0.0, False),
        ("new", 1.0, False),
    ],
)
def test_texts_flags_and_counts_are_exact(tmp_path, name, value, agrees):
    def measuring(**others):
        return replace(TOY, measure=lambda c, s, d: [{"n": 1} | EACH | others])

    run(measuring(), folder=tmp_path, progress=False)
    rows = verify(measuring(**{name: value}), "page", folder=tmp_path).set_index("quantity")["agrees"]
    assert rows[name] == agrees and rows.drop(name).all()


def test_rows_that_the_record_has_not_or_has_twice_disagree(tmp_path):
    table = run(TOY, folder=tmp_path, progress=False).table
    for recorded in (table.iloc[1:], pd.concat([table, table.iloc[:1]])):
        rows = compare(recorded, table.iloc[:2], TOY, "page")
        assert list(rows["agrees"]) == [False, False, True, True]


def test_tolerances():
    single = {"dtype": "float32", "n": 50, "n_test": 1000}
    assert rounding("alignment", {"dtype": "float64"}) == rounding("spurious_accuracy", {}) == Tolerance(1e-6)
    assert rounding("alignment", single) == Tolerance(1e-3) and rounding("label", single) == Tolerance()
    assert rounding("spurious_accuracy_zero", single) == Tolerance(unit=1 / 50, steps=2)
    assert rounding("test_accuracy", single) == Tolerance(unit=1 / 1000, steps=2)
    assert of_training("spurious_accuracy", single) == Tolerance(unit=1 / 50, steps=1)
    assert of_training("unseen_accuracy", single) == Tolerance(unit=1 / 1000, steps=11)
    assert of_training("chance_spurious_accuracy_zero", single) == Tolerance(unit=1 / 2500, steps=25)
    resnet = single | {"kind": "resnet18"}
    assert of_training("covariance", single) == Tolerance(4e-3) and of_training("covariance", resnet) == Tolerance(3e-2)
    assert of_training("test_accuracy", resnet) == Tolerance(unit=1 / 1000, steps=22)
    assert of_training("label", single) == Tolerance() and of_training("stability_zero", single).statistical


def of_samples(values, *, draws=1):
    """A table with a stability and an accuracy for each of several samples."""
    rows = [
        {"act": "a", "seed": s, "n": 10, "i": i, "stability": v} for s in range(draws) for i, v in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_statistical_tolerances_pool_over_samples():
    def near(quantity, row):
        return Tolerance(0.3, statistical=True)

    sampled = replace(TOY, cells=lambda scale: [Toy("a")], keys=("n", "i"), samples=("i",), tolerance=near)
    once, many = np.ones(1), np.ones(16)
    signs = np.resize([1, -1], 16)
    for recorded, measured, agrees in (
        (once, 1.29 * once, True),  # a single sample: 0.3
        (once, 1.45 * once, False),
        (many, many + 0.29 * signs, True),  # of 16 samples: their mean to 0.3 / 4
        (many, 1.07 * many, True),
        (many, 1.09 * many, False),
        (many, many + 1.5 * (np.arange(16) == 3), False),
    ):
        rows = compare(of_samples(recorded), of_samples(measured), sampled, "page")
        assert rows["agrees"].all() == agrees


@pytest.mark.parametrize(("measured", "agrees"), [(3e-13, True), (0.9e-6, True), (2.2e-6, False), (1e-5, False)])
def test_a_loss_that_is_zero_up_to_rounding_may_be_another_one(measured, agrees):
    tolerance = experiment("network-depth").tolerance
    fitted = replace(TOY, cells=lambda scale: [Toy("a")], keys=("n",), tolerance=tolerance)
    rows = [{"act": "a", "seed": 0, "n": 40, "train_loss": value} for value in (1e-14, measured)]
    found = compare(*(pd.DataFrame([row]) for row in rows), fitted, "page")
    assert found["agrees"].all() == agrees


@pytest.mark.parametrize(("recorded", "agrees"), [(0.62, True), (0.66, True), (0.68, False), (0.621, False)])
def test_accuracies_differ_by_whole_samples(recorded, agrees):
    measured = pd.DataFrame({"act": ["a"], "dtype": ["float32"], "seed": [0], "n": [50], "spurious_accuracy": [0.62]})
    single = replace(TOY, cells=lambda scale: [Toy("a", dtype="float32")])
    rows = compare(measured.assign(spurious_accuracy=recorded), measured, single, "page")
    assert rows["agrees"].all() == agrees


def test_undefined_numbers_agree_with_undefined_ones(tmp_path):
    run(shifted(np.nan), folder=tmp_path, progress=False)
    assert verify(shifted(np.nan), "page", folder=tmp_path)["agrees"].all()


def test_verification_refuses_another_copy_of_the_data(tmp_path):
    run(TOY, folder=tmp_path, progress=False)
    with pytest.raises(RecordError, match=r"is of the data \['toy'\], here are \['another copy'\]"):
        verify(changed(source="another copy"), "page", folder=tmp_path)
