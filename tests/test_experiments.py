"""The experiments of the book: their command line, their settings and their records."""

import json
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

import spurlib as sl
from spurlib.data import DataNotAvailableError
from spurlib.experiments import (
    SCALES,
    CorruptedRecordError,
    compare,
    experiment,
    experiment_names,
    load_record,
    records,
    register,
    verify,
)
from spurlib.experiments.__main__ import main
from spurlib.experiments.definition import coordinates, entries, scalars
from spurlib.experiments.runs import table_of
from tests.toys import TOY, Toy, fails_at, know, shifted

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "records"


@pytest.fixture
def toy(monkeypatch):
    know(monkeypatch, TOY)


# ---- the command line


def test_the_command_line(tmp_path, toy, capsys):
    there = ["--folder", str(tmp_path)]
    assert main(["run", "toy", "--seeds", "3", *there]) == 0
    assert "toy-page: 18 rows in" in (out := capsys.readouterr().out) and "data: toy" in out
    assert main(["list", *there]) == 0
    listed = [line.split(maxsplit=3) for line in capsys.readouterr().out.splitlines()[1:]]
    assert listed == [["toy", "page", "8", "current (3 seeds)"], ["toy", "paper", "12", "none"]]
    assert main(["verify", *there]) == 0
    assert re.search(r"toy-page: 2 numbers of seeds \[\d\] again: all agree", capsys.readouterr().out)
    assert main(["verify", "toy", "--whole", "--cells", "2", "--scale", "page", "--seed", "1", *there]) == 0
    assert "toy-page: 12 numbers" in capsys.readouterr().out


def test_the_command_line_when_something_is_wrong(tmp_path, monkeypatch, toy, capsys):
    there = ["--folder", str(tmp_path)]
    assert main(["verify", "toy", *there]) == 1
    assert "MissingRecordError: record 'toy-paper' is not in" in capsys.readouterr().err
    assert main(["verify", *there]) == 1
    assert "MissingRecordError: there is no record in" in capsys.readouterr().err
    for command in ("verify", "list"):
        for folder, message in ((str(tmp_path / "typo"), "is not a folder"), ("", "got an empty one")):
            assert main([command, "--folder", folder]) == 1
            assert message in (shown := capsys.readouterr()).err and shown.out == ""
    assert main(["verify", "toi", *there]) == 1
    assert "experiment 'toi' is not known" in capsys.readouterr().err
    assert main(["run", "toi", *there]) == 1
    assert "experiment 'toi' is not known; known are toy" in capsys.readouterr().err
    assert main(["run", "toy", *there]) == 0

    know(monkeypatch, shifted(100.0))
    assert main(["verify", *there]) == 1
    assert "1 DISAGREE" in capsys.readouterr().out
    know(monkeypatch, replace(TOY, version=2))
    main(["list", *there])
    assert "stale" in capsys.readouterr().out
    assert main(["verify", *there]) == 1
    assert "StaleRecordError" in (shown := capsys.readouterr().err) and TOY.command("page") in shown
    (table,) = tmp_path.glob("*.csv")
    table.write_text(table.read_text()[:-5])
    main(["list", *there])
    assert "corrupted" in capsys.readouterr().out
    with pytest.raises(CorruptedRecordError):
        load_record("toy", "page", tmp_path)

    know(monkeypatch, fails_at("b", 0, ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):  # with its traceback
        main(["run", "toy", *there])
    capsys.readouterr()
    know(monkeypatch, fails_at("b", 0, KeyboardInterrupt()))
    assert main(["run", "toy", *there]) == 130
    assert "4 of 8 cells are finished and kept" in capsys.readouterr().err


def test_names_are_taken_once(toy):
    with pytest.raises(ValueError, match="experiment 'toy' is there already"):
        register(TOY)
    assert experiment_names() == ["toy"] and experiment("toy") is TOY


def test_the_module_runs_in_processes_of_its_own(tmp_path):
    command = [sys.executable, "-m", "spurlib.experiments", "run", "ntk-synthetic", "--seeds", "1", "--jobs", "2"]
    done = subprocess.run([*command, "--folder", str(tmp_path)], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "4/4" in done.stderr
    assert verify(experiment("ntk-synthetic"), "page", folder=tmp_path, whole=True)["agrees"].all()


# ---- the experiments of the book


@pytest.mark.parametrize("name", experiment_names())
@pytest.mark.parametrize("scale", SCALES)
def test_grids_can_be_stored_and_computed(name, scale):
    for cell in experiment(name).cells(scale):
        stored = json.loads(json.dumps(entries(cell)))
        assert stored == entries(cell)
        assert type(cell)(**{key: tuple(v) if isinstance(v, list) else v for key, v in stored.items()}) == cell
        act = sl.activation(getattr(cell, "act", "relu"))
        assert cell.sizes == tuple(sorted(cell.sizes)) and cell.dtype in ("float32", "float64")
        if cell.data == "synthetic" and getattr(cell, "kind", None) == "ntk":
            mu = act.derivative.coefficients(4)
            assert np.allclose(mu[np.abs(mu) > 1e-12], [1, 1], atol=1e-12)  # h0 + h1 or h0 + h3
        short = experiment(name).shorten(cell)
        assert short.sizes == cell.sizes[: len(short.sizes)] != ()
        differ = {field.name for field in fields(cell) if getattr(short, field.name) != getattr(cell, field.name)}
        assert type(short) is type(cell) and differ <= {"sizes", "left_out", "mus"}


def test_what_verification_runs_again():
    again = {name: experiment(name).shorten(experiment(name).cells("paper")[0]).sizes for name in experiment_names()}
    most = {name: sizes[-1] for name, sizes in again.items()}
    assert most["ntk-synthetic"] == most["ntk-cifar10"] == most["wide-synthetic"] == 1000
    assert most["rf-synthetic"] == most["rf-mnist"] == 500 and most["network-fc-mnist"] == 200
    assert experiment("rf-cifar10").shorten(Toy("a", (300, 400))) == Toy("a", (300,))  # the smallest at least


RECORDED = [
    (name, scale) for name in experiment_names() for scale in SCALES if (BOOK / f"{name}-{scale}.json").exists()
]
# Of each kind of experiment one, made as small as it can be: `verify` does more.
AGAIN = {
    "rf-synthetic": {"sizes": (10, 20)},
    "wide-synthetic": {"sizes": (30, 100)},
    "ntk-synthetic": {"sizes": (10, 20, 50)},
    "ntk-mnist": {"sizes": (10, 20, 50)},
    "network-fc-synthetic": {"sizes": (10, 20, 50)},
    "network-cnn-mnist": {"sizes": (10,)},
    "network-stability": {},
    "privacy": {},
    "architectures": {},
    "architecture-sizes": {"sizes": (10,)},
}


@pytest.mark.parametrize("name", AGAIN)
def test_records_of_the_book_agree_with_the_code(name):
    found = experiment(name)
    small = replace(found, shorten=lambda settings: replace(found.shorten(settings), **AGAIN[name]))
    try:
        rows = verify(small, folder=BOOK)
    except DataNotAvailableError as missing:
        pytest.skip(str(missing))
    assert rows["agrees"].all(), rows[~rows["agrees"]].to_string()


# What training on another machine may change by half a percent: see `of_training` and `of_gradients`.
LOOSE = re.compile("train_loss|stability.*|epochs_run|.*end|middle|alignment")


@pytest.mark.parametrize(("name", "scale"), RECORDED)
def test_wrong_records_are_refused(name, scale, tmp_path):
    """In copies with proper seals a column is zeroed, half a percent added, a label flipped."""
    found = experiment(name)
    record = load_record(name, scale, BOOK)
    table, generator = record.table, np.random.default_rng(0)
    noise = 1e-13 if "float64" in set(table["dtype"]) else 1e-6

    def measure(settings, seed, device):
        """The recorded rows, up to rounding errors."""
        at = table["seed"] == seed
        known = scalars(entries(settings))
        for column, value in known.items():
            at &= table[column].isna() if value is None else table[column] == value
        for column, part in {"n": "sizes", "sample": "left_out", "mu": "mus"}.items():
            if column in table and (chosen := getattr(settings, part, None)):
                at &= table[column].isin([*chosen, np.inf] if part == "mus" else chosen)
        rows = table[at].drop(columns=[*known, "seed"]).dropna(axis=1).to_dict("records")
        for row in rows:
            for key, value in row.items():
                if isinstance(value, float) and key not in found.keys and "accuracy" not in key and key != "label":
                    row[key] = value * (1 + noise * generator.standard_normal())
        return [row | {"source": record.provenance["data"][0]} for row in rows]

    recorded = replace(found, measure=measure)
    settings = found.shorten(found.cells(scale)[0])
    again = {"configuration": entries(settings), "seed": 0, "rows": measure(settings, 0, "cpu")}
    measured, _ = table_of([again], found)
    index = {"seed", *coordinates(map(entries, found.cells(scale)), found)}
    quantities = [name for name in measured if name not in index]
    right = compare(table, measured, found, scale)
    assert right["agrees"].all(), right[~right["agrees"]].to_string()

    def refused(quantity, wrong):
        rows = compare(table.assign(**{quantity: wrong}), measured, found, scale)
        return list(dict.fromkeys(rows[~rows["agrees"]]["quantity"])) == [quantity]

    for quantity in quantities:
        column, rounded = table[quantity], 2 * found.tolerance(quantity, measured.iloc[0].to_dict()).absolute
        counts = (measured[quantity].abs() > rounded).any()
        if counts:
            assert refused(quantity, 0 * column), f"{quantity} zeroed"
            assert refused(quantity, 3 * column), f"{quantity} times three"
        if counts and not LOOSE.fullmatch(quantity):
            assert refused(quantity, 1.005 * column), f"{quantity} and half a percent"
    if "label" in table:
        at = measured[["seed", *found.keys]].iloc[:1].merge(table.reset_index())["index"]
        flipped = table["label"].where(~table.index.isin(at), -table["label"])
        assert (flipped != table["label"]).any() and refused("label", flipped)

    half = [quantity for quantity in quantities if not LOOSE.fullmatch(quantity) and quantity != "parameters"]
    copies = {
        "as it is": table,
        "a column zeroed": table.assign(**{[name for name in quantities if (measured[name] != 0).all()][-1]: 0.0}),
        "half a percent added": table.assign(**{quantity: 1.005 * table[quantity] for quantity in half}),
        "a name flipped": table.assign(act="h7"),
    }
    for copy, wrong in copies.items():
        records.save(f"{name}-{scale}", wrong, record.provenance, tmp_path)
        assert verify(recorded, scale, folder=tmp_path, seed=0)["agrees"].all() == (copy == "as it is"), copy
