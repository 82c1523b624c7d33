"""Records: what was written is what is read, and anything else is refused by name."""

import errno
import json
import os
import shutil
import threading

import numpy as np
import pandas as pd
import pytest

from spurlib.experiments import Experiment, records, run
from spurlib.experiments.records import (
    CorruptedRecordError,
    MissingRecordError,
    RecordError,
    StaleRecordError,
    load,
    save,
    sealed,
    unsealed,
)
from tests.toys import Toy

TABLE = pd.DataFrame(
    {
        "act": ["relu", "h1+0.5*h4", "NA"],
        "n": [10, 20, 50],
        "alpha": [0.1, 1 / 3, 2**-0.5],
        "value": [1e-300, np.pi, np.nan],
        "met": [True, False, True],
    }
)
PROVENANCE = {"hash": "abc", "seeds": 3, "nested": {"k": [1, 2.5, None]}, "size": np.int64(7), "x": np.float64(0.1)}


@pytest.fixture
def folder(tmp_path):
    save("run", TABLE, PROVENANCE, tmp_path)
    return tmp_path


def table_file(folder):
    (found,) = folder.glob("run.*.csv")
    return found


def test_what_was_written_is_read(folder):
    record = load("run", folder, hash="abc")
    pd.testing.assert_frame_equal(record.table, TABLE, check_exact=True)
    assert record.provenance == PROVENANCE
    assert sorted(os.listdir(folder)) == [table_file(folder).name, "run.json"]


def test_numbers_come_back_to_the_last_bit(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.standard_normal(5000) * 10.0 ** generator.integers(-300, 300, 5000)
    x[:8] = 0.0, -0.0, 5e-324, 1.7976931348623157e308, np.inf, -np.inf, np.nan, 2.0**53 + 2
    table = pd.DataFrame({"x": x, "single": x.clip(-1e30, 1e30).astype(np.float32), "n": np.arange(5000) + 2**62})
    save("run", table, {}, tmp_path)
    read = load("run", tmp_path).table
    assert [float(repr(value)) for value in x.tolist()][8:] == read["x"].tolist()[8:]
    for column in table:
        assert read[column].dtype == table[column].dtype
        assert read[column].to_numpy().tobytes() == table[column].to_numpy().tobytes()


TEXTS = {
    "digits": ["007", "7", "1e5"],
    "words of others": ["True", "inf", "NA"],
    "line ends": ["a\rb", "\r\n", "\n"],
    "marks": ['"', "a,b", " a "],
    "empty": ["", "a", None],
    "missing": ["a", None, "b"],
    "nothing": [None, None, None],
    "mixed": ["7", 7, 7.5],
    "flags": [True, None, False],
    "letters": ["ä", "\u2028", "\x00"],
}


@pytest.mark.parametrize("texts", TEXTS)
def test_text_is_kept(tmp_path, texts):
    values = TEXTS[texts]
    save("run", pd.DataFrame({"q": pd.Series(values), "n": [1, 2, 3]}), {}, tmp_path)
    read = load("run", tmp_path).table
    assert read["n"].tolist() == [1, 2, 3]
    for value, found in zip(values, read["q"].tolist(), strict=True):
        assert pd.isna(found) if value is None else (found == value and type(found) is type(value))


def test_cells_of_texts_that_look_alike_are_two(tmp_path):
    cells = [Toy("007"), Toy("7")]
    texts = Experiment("texts", "", lambda scale: cells, lambda settings, seed, device: [{"n": 1, "v": settings.act}])
    table = run(texts, seeds=1, folder=tmp_path, progress=False).table
    assert table["act"].tolist() == table["v"].tolist() == ["007", "7"]


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, np.arange(2), 1j, pd.Timestamp(0)])
def test_what_is_no_number_and_no_text_is_refused(tmp_path, value):
    table = pd.DataFrame({"x": pd.Series([value, "a"], dtype=object)})
    with pytest.raises(ValueError, match=r"table: column 'x' holds a \w+; numbers, booleans and strings are allowed"):
        save("run", table, {}, tmp_path)
    with pytest.raises(ValueError, match="table: every column needs a printable name of its own, got 'x'"):
        save("run", pd.DataFrame([[1, 2]], columns=["x", "x"]), {}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def resealed(folder, change):
    """Change the description of a record, and seal it again."""
    content = unsealed((folder / "run.json").read_bytes())
    change(content)
    (folder / "run.json").write_bytes(sealed(content))


def test_a_record_without_types_is_read_as_before(folder):
    resealed(folder, lambda content: content["table"].pop("columns"))
    pd.testing.assert_frame_equal(load("run", folder).table, TABLE, check_exact=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("table"), r"run\.json was truncated or edited"),
        (lambda content: content.update(table=[]), r"run\.json was truncated or edited"),
        (lambda content: content.pop("provenance"), r"run\.json was truncated or edited"),
        (lambda content: content["table"].pop("sha256"), r"run\.json was truncated or edited"),
        (lambda content: content["table"].update(file="../run.csv"), r"run\.json was truncated or edited"),
        (lambda content: content["table"].update(rows=4), r"csv is not as .*run\.json says"),
        (lambda content: content["table"]["columns"].pop("n"), r"csv is not as .*run\.json says"),
        (lambda content: content["table"]["columns"].update(act="int64"), r"csv is not as .*run\.json says"),
    ],
    ids=range(8),
)
def test_a_sealed_description_that_does_not_fit_is_refused(folder, change, message):
    resealed(folder, change)
    with pytest.raises(CorruptedRecordError, match=message):
        load("run", folder)


def test_files_are_readable_by_others(folder):
    umask = os.umask(0)
    os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666 & ~umask}


def test_a_new_record_replaces_the_old_one(folder):
    old = table_file(folder)
    save("run", TABLE.head(1), PROVENANCE | {"hash": "new"}, folder)
    assert not old.exists()
    record = load("run", folder, hash="new")
    assert len(record.table) == 1


def test_records_with_similar_names_do_not_touch_each_other(folder):
    save("run-2", TABLE.head(1), PROVENANCE, folder)
    save("run", TABLE.head(2), PROVENANCE, folder)
    assert [len(load(name, folder).table) for name in ("run", "run-2")] == [2, 1]


def test_only_the_table_that_was_replaced_is_deleted(folder):
    before, copies = table_file(folder), [folder / "run.copy.csv", folder / "run.0123456789ab.csv"]
    for copy in copies:
        shutil.copy(before, copy)
    save("run", TABLE.head(1), PROVENANCE, folder)
    assert all(copy.exists() for copy in copies) and not before.exists()


def test_two_who_save_one_record_at_once_leave_one_whole(tmp_path):
    ready, errors = threading.Barrier(2), []

    def saving(own):
        try:
            for _ in range(60):
                ready.wait(60)
                save("run", TABLE.head(own), {"own": own}, tmp_path)
                record = load("run", tmp_path)
                assert len(record.table) == record.provenance["own"]
        except BaseException as error:
            errors.append(error)
            ready.abort()

    threads = [threading.Thread(target=saving, args=(own,)) for own in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.parametrize("written", [0, 1], ids=["in the table", "in the description"])
def test_a_full_disk_leaves_the_old_record(folder, monkeypatch, written):
    before, calls = sorted(os.listdir(folder)), []

    def fsync(number):
        calls.append(number)
        if len(calls) > written:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records.os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        save("run", TABLE.head(1), PROVENANCE, folder)
    assert sorted(os.listdir(folder)) == before
    pd.testing.assert_frame_equal(load("run", folder).table, TABLE)


@pytest.mark.parametrize("after", [0, 1], ids=["in the table", "between table and description"])
def test_killed_while_writing_it_leaves_the_old_record(folder, monkeypatch, after):
    replaced = []

    def replace(source, target):
        if len(replaced) == after:
            raise KeyboardInterrupt
        replaced.append(target)
        os.rename(source, target)

    monkeypatch.setattr(records.os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        save("run", TABLE.head(1), PROVENANCE, folder)
    assert list(folder.glob(".*")) == []
    pd.testing.assert_frame_equal(load("run", folder).table, TABLE)
    monkeypatch.undo()
    save("run", TABLE.head(2), PROVENANCE, folder)
    assert len(load("run", folder).table) == 2
    assert table_file(folder)


def test_what_cannot_be_stored_is_refused_and_leaves_nothing(folder):
    with pytest.raises(TypeError, match="a set cannot be stored"):
        save("run", TABLE.head(1), {"hash": {1, 2}}, folder)
    pd.testing.assert_frame_equal(load("run", folder).table, TABLE)
    assert table_file(folder)


def truncated_table(folder):
    path = table_file(folder)
    path.write_bytes(path.read_bytes()[:-10])


def edited_table(folder):
    path = table_file(folder)
    path.write_text(path.read_text().replace("relu", "tanh"))


def emptied_table(folder):
    table_file(folder).write_bytes(b"")


def missing_table(folder):
    table_file(folder).unlink()


def description(change):
    def damage(folder):
        path = folder / "run.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return damage


def truncated_description(folder):
    path = folder / "run.json"
    path.write_bytes(path.read_bytes()[:-30])


def missing_description(folder):
    (folder / "run.json").unlink()


def no_description(folder):
    (folder / "run.json").write_text("[1, 2]\n")


def description_of_another(folder):
    save("other", TABLE.head(1), PROVENANCE, folder)
    (folder / "other.json").replace(folder / "run.json")


DAMAGES = {
    "truncated table": (truncated_table, r"run\.\w+\.csv was truncated or edited"),
    "edited table": (edited_table, r"run\.\w+\.csv was truncated or edited"),
    "emptied table": (emptied_table, r"run\.\w+\.csv was truncated or edited"),
    "missing table": (missing_table, r"its table .*run\.\w+\.csv is missing"),
    "edited seeds": (description(lambda c: c["provenance"].update(seeds=30)), r"run\.json was truncated or edited"),
    "edited hash": (description(lambda c: c["provenance"].update(hash="new")), r"run\.json was truncated or edited"),
    "edited checksum": (description(lambda c: c["table"].update(sha256="0")), r"run\.json was truncated or edited"),
    "no checksum": (description(lambda c: c.pop("sha256")), r"run\.json was truncated or edited"),
    "truncated description": (truncated_description, r"run\.json was truncated or edited"),
    "not a description": (no_description, r"run\.json was truncated or edited"),
    "another's description": (description_of_another, r"run\.json was truncated or edited"),
    "missing description": (missing_description, r"its description .*run\.json is missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(folder, damage):
    change, message = DAMAGES[damage]
    change(folder)
    with pytest.raises(CorruptedRecordError, match=message) as refused:
        load("run", folder, renew="make it")
    assert "record 'run'" in str(refused.value) and "make it again with `make it`" in str(refused.value)


def test_every_changed_byte_is_noticed(folder):
    generator = np.random.default_rng(0)
    for path in (table_file(folder), folder / "run.json"):
        whole = path.read_bytes()
        for at in generator.choice(len(whole), 60, replace=False):
            changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
            path.write_bytes(changed)
            try:
                record = load("run", folder)
            except RecordError:
                continue
            assert path.suffix == ".json" and whole[at : at + 1].isspace()  # layout may change, content not
            assert record.provenance == PROVENANCE
        path.write_bytes(whole)


def test_a_missing_record_is_named(tmp_path):
    with pytest.raises(MissingRecordError, match=r"record 'nothing' is not in .*: make it again with `do`"):
        load("nothing", tmp_path, renew="do")


def test_a_stale_record_is_named(folder):
    with pytest.raises(StaleRecordError, match=r"made with configuration abc, the code's is xyz: make it again"):
        load("run", folder, hash="xyz", renew="do")


def test_errors_are_value_errors():
    for error in (RecordError, MissingRecordError, CorruptedRecordError, StaleRecordError):
        assert issubclass(error, ValueError) and issubclass(error, RecordError)


@pytest.mark.parametrize("name", ["", "../run", "a/b", "a.b", ".run", "ä"])
def test_names_that_are_no_file_names_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="name must be of letters"):
        save(name, TABLE, PROVENANCE, tmp_path)
    with pytest.raises(ValueError, match="name must be of letters"):
        load(name, tmp_path)


def test_the_folder_is_the_argument_or_the_variable_or_the_nearest(tmp_path, monkeypatch):
    monkeypatch.delenv("SPURLIB_RECORDS", raising=False)
    (tmp_path / "records").mkdir()
    (tmp_path / "chapters").mkdir()
    monkeypatch.chdir(tmp_path / "chapters")
    assert records.records_folder() == tmp_path / "records"
    (tmp_path / "records").rmdir()
    assert records.records_folder() == tmp_path / "chapters" / "records"
    monkeypatch.setenv("SPURLIB_RECORDS", str(tmp_path / "there"))
    save("run", TABLE, PROVENANCE)
    assert (tmp_path / "there" / "run.json").is_file()
    assert records.records_folder(tmp_path) == tmp_path
    with pytest.raises(ValueError, match="folder must be the path of a folder, got an empty one"):
        records.records_folder("")
