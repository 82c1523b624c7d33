"""Runs of experiments: resumed after any kill, the same in any order and any process."""

import errno
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from joblib.externals.loky import get_reusable_executor

import spurlib as sl
from spurlib.experiments import (
    Experiment,
    MissingRecordError,
    OptionError,
    gram_by,
    load,
    machine,
    records,
    register,
    run,
    runs,
)
from spurlib.experiments.__main__ import main
from spurlib.experiments.definition import entries
from spurlib.experiments.records import sealed, unsealed
from tests.toys import TOY, Open, Toy, changed, fails_at, know, same, toy_cells, toy_measure

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def toy(monkeypatch):
    know(monkeypatch, TOY)


# ---- what a run leaves


def test_a_run_is_a_table_with_provenance(tmp_path):
    record = run(TOY, folder=tmp_path, progress=False)
    expected = [
        {"act": cell.act, "seed": seed, **row}
        for cell in toy_cells("page")
        for seed in range(4)
        for row in toy_measure(cell, seed, "cpu")
    ]
    same(record.table, pd.DataFrame(expected).drop(columns="source"))
    made = record.provenance
    assert made["hash"] == TOY.hash("page", 4)
    assert made["configurations"] == [{"act": act, "sizes": [1, 2, 3]} for act in ("a", "b")] and made["seeds"] == 4
    assert made["data"] == ["toy"] and made["device"] == ["cpu"]
    assert made["seconds"] > 0.03 and made["peak_bytes"] > 10**7
    assert made["seconds"] <= made["wall_seconds"] < made["seconds"] + 30 and made["cores"] == os.cpu_count()
    assert {"python", "numpy", "torch", "spurlib"} <= set(made["versions"])
    assert str(tmp_path) not in json.dumps(made) and str(ROOT) not in json.dumps(made)
    same(load(TOY, "page", tmp_path).table, record.table)
    assert list((tmp_path / ".cells").iterdir()) == []


def test_a_table_without_a_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = TOY.table("page", seeds=3)
    assert set(found.pop("source")) == {"toy"} and list(tmp_path.iterdir()) == []
    same(found, run(TOY, seeds=3, folder=tmp_path, progress=False).table)
    assert len(TOY.table(seeds=1, sizes=(3,))) == 2
    assert set(TOY.table(seeds=1, act="c")["act"]) == {"c"}
    with pytest.raises(ValueError, match="'size' is not a field of the settings of 'toy'"):
        TOY.table(seeds=1, size=(3,))


def test_the_commit_is_named(monkeypatch, tmp_path):
    inside = machine.commit()
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", inside)
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    assert machine.commit() == "unknown"
    monkeypatch.setenv("SPURLIB_COMMIT", "named")
    assert machine.commit() == "named"


def test_only_a_changed_library_makes_the_commit_dirty(monkeypatch, tmp_path):
    here = tmp_path / "spurlib" / "experiments" / "machine.py"
    module, record = tmp_path / "spurlib" / "hermite.py", tmp_path / "records" / "a.json"
    for file in (here, module, record):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("before")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "all"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    monkeypatch.setattr(machine, "__file__", str(here))
    clean = machine.commit()
    record.write_text("after")
    assert re.fullmatch(r"[0-9a-f]{40}", clean) and machine.commit() == clean
    module.write_text("after")
    assert machine.commit() == f"{clean}-dirty"


def test_the_hash_is_of_all_that_decides_the_numbers():
    other = [
        TOY.hash("paper", 4),
        TOY.hash("page", 5),
        replace(TOY, version=2).hash("page", 4),
        replace(TOY, name="other").hash("page", 4),
        replace(TOY, cells=lambda scale: toy_cells(scale)[:1]).hash("page", 4),
    ]
    assert len({TOY.hash("page", 4), *other}) == 6
    assert replace(TOY, about="other words").hash("page", 4) == TOY.hash("page", 4)


@pytest.mark.parametrize("settings", [{"act": "a"}, "a", None, Toy])
def test_settings_are_instances_of_dataclasses(tmp_path, settings):
    with pytest.raises(ValueError, match="cells: settings must be an instance of a frozen dataclass, got"):
        run(replace(TOY, cells=lambda scale: [settings]), folder=tmp_path, progress=False)


def test_what_a_record_keeps_of_settings():
    assert entries(Toy("a", (1, 2))) == {"act": "a", "sizes": [1, 2]}
    assert entries(Toy("a", d=5)) == {"act": "a", "sizes": [], "d": 5}
    assert entries(Open("a", until=None)) == {"act": "a", "sizes": [], "until": None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "poster"}, "scale must be one of 'page', 'paper'; got 'poster'"),
        ({"seeds": 0}, "seeds must be a positive integer, got 0"),
        ({"jobs": 0}, "jobs must be a positive integer, got 0"),
        ({"backend": "threads"}, "backend must be one of 'loky', 'dask'; got 'threads'"),
        ({"address": "tcp://there"}, "address is for the backend 'dask', got 'tcp://there'"),
        ({"device": "abacus"}, "device 'abacus' is not known"),
    ],
)
def test_bad_input_is_refused_by_name(tmp_path, options, message):
    with pytest.raises(OptionError, match=message):
        run(TOY, folder=tmp_path / "new", progress=False, **options)
    assert not (tmp_path / "new").exists()


def test_all_that_can_be_checked_is_checked_before_the_first_cell(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    (tmp_path / "file").touch()
    twice = replace(TOY, cells=lambda scale: [Toy("a", (1,)), Open("a", (2,), until=None)])
    with pytest.raises(OptionError, match="cells: two settings of 'toy' have the same scalars"):
        run(twice, folder=tmp_path, progress=False)
    with pytest.raises(OptionError, match=r"folder: .*file.* cannot be written: .*[Ff]ile"):
        run(TOY, folder=tmp_path / "file", progress=False)
    with pytest.raises(OptionError, match="folder must be the path of a folder, got an empty one"):
        run(TOY, folder="", progress=False)
    with pytest.raises(TypeError, match="a set cannot be stored"):
        run(replace(TOY, cells=lambda scale: [Toy({1})]), folder=tmp_path, progress=False)
    for name in ("a name", "../toy", "a.b", ""):
        with pytest.raises(ValueError, match="name must be of letters, digits, '-' and '_', got"):
            replace(TOY, name=name)
    assert not (tmp_path / "log").exists() and list(tmp_path.glob("*.json")) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"value": np.arange(2)}, "'value' in a row is a ndarray: numbers, booleans and strings can be recorded"),
        ({"value": [1]}, "'value' in a row is a list"),
        ({"act": "b"}, "'act' is in a row and in the settings"),
        ({"seed": 1}, "'seed' is in a row and in the settings"),
        ({"n": 1}, "two rows of one cell have the same n"),
    ],
)
def test_rows_are_checked_as_soon_as_they_are_there(tmp_path, wrong, message):
    count = []

    def measure(settings, seed, device):
        count.append(seed)
        return [row | wrong for row in toy_measure(settings, seed, device)]

    with pytest.raises(ValueError, match=message) as raised:
        run(replace(TOY, measure=measure), folder=tmp_path, progress=False)
    assert len(count) == 1 and raised.value.__notes__[0].startswith("in the cell Toy(act='a'")


def test_a_record_of_more_seeds_is_not_replaced_unasked(tmp_path, toy, capsys):
    record = run(TOY, folder=tmp_path, progress=False)
    with pytest.raises(OptionError, match=r"seeds: 3 would replace the 4 of the record 'toy-page'.*--replace"):
        run(TOY, seeds=3, folder=tmp_path, progress=False)
    command = ["run", "toy", "--seeds", "1", "--folder", str(tmp_path)]
    assert main(command) == 1 and "seeds: 1 would replace the 4" in capsys.readouterr().err
    same(load(TOY, "page", tmp_path).table, record.table)
    assert main([*command, "--replace"]) == 0
    assert load(TOY, "page", tmp_path).provenance["seeds"] == 1
    run(TOY, folder=tmp_path, progress=False)


# ---- interruptions


def measured(log):
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("oh")], ids=["Ctrl-C", "error"])
def test_an_interrupted_run_keeps_its_finished_cells(tmp_path, monkeypatch, capsys, error):
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    with pytest.raises(type(error)) as raised:
        run(fails_at("b", 2, error), folder=tmp_path, progress=False)
    assert "toy-page: 6 of 8 cells are finished and kept" in raised.value.__notes__[-1]
    with pytest.raises(MissingRecordError, match=re.escape(TOY.command("page"))):
        load(TOY, "page", tmp_path)
    resumed = run(TOY, folder=tmp_path)
    assert len(measured(tmp_path / "log")) == len(set(measured(tmp_path / "log"))) == 8
    shown = capsys.readouterr().err
    assert "resuming, 6 of 8 cells were finished before" in shown and "8/8" in shown
    same(resumed.table, run(TOY, folder=tmp_path / "whole", progress=False).table)


def test_the_time_by_the_clock_adds_up_over_resumptions(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run(fails_at("b", 2, ZeroDivisionError()), folder=tmp_path, progress=False)
    kept = sorted((tmp_path / ".cells").rglob("*.json"))
    before = sum(json.loads(path.read_text())["wall_seconds"] for path in kept)
    made = run(TOY, folder=tmp_path, progress=False).provenance
    assert 0.02 < before < made["wall_seconds"] and made["wall_seconds"] >= made["seconds"]


def test_cells_kept_without_a_clock_are_used(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run(fails_at("b", 2, ZeroDivisionError()), folder=tmp_path, progress=False)
    path = next((tmp_path / ".cells").rglob("*.json"))
    cell = unsealed(path.read_bytes())
    del cell["wall_seconds"]
    path.write_bytes(sealed(cell))
    record = run(TOY, folder=tmp_path, progress=False)
    assert record.provenance["wall_seconds"] is None
    same(record.table, run(TOY, folder=tmp_path / "whole", progress=False).table)


def test_an_error_names_its_cell(tmp_path):
    with pytest.raises(ZeroDivisionError) as raised:
        run(fails_at("b", 2, ZeroDivisionError("oh")), folder=tmp_path, progress=False)
    assert raised.value.__notes__[0] == f"in the cell {Toy('b', (1, 2, 3))}, seed 2"


def test_cells_of_another_copy_of_the_data_are_measured_again(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run(fails_at("b", 2, ZeroDivisionError()), folder=tmp_path, progress=False)
    record = run(changed(source="another"), folder=tmp_path, progress=False)
    assert record.provenance["data"] == ["another"]
    same(record.table, run(TOY, folder=tmp_path / "whole", progress=False).table)


def test_where_cells_were_computed_is_recorded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "_here", lambda: {"commit": "earlier", "versions": {"numpy": "1", "torch": "2"}})
    with pytest.raises(ZeroDivisionError):
        run(fails_at("b", 2, ZeroDivisionError()), folder=tmp_path, progress=False)
    monkeypatch.setattr(runs, "_here", lambda: {"commit": "later", "versions": {"numpy": "1", "torch": "3"}})
    made = run(TOY, folder=tmp_path).provenance
    assert "6 of 8 cells were finished before, 6 of them by another commit" in capsys.readouterr().err
    assert made["commit"] == ["earlier", "later"] and made["versions"] == {"numpy": "1", "torch": "2, 3"}


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch, toy, capsys):
    whole = run(TOY, folder=tmp_path / "whole", progress=False)
    old = run(TOY, seeds=2, folder=tmp_path, progress=False)
    calls = []

    def fsync(number):
        calls.append(number)
        if len(calls) > 5:  # the probe and four cells
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records.os, "fsync", fsync)
    assert main(["run", "toy", "--folder", str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert "No space left on device" in shown and "4 of 8 cells are finished and kept" in shown
    same(load(TOY, "page", tmp_path).table, old.table)
    monkeypatch.undo()
    know(monkeypatch, TOY)
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    assert main(["run", "toy", "--folder", str(tmp_path)]) == 0
    assert len(measured(tmp_path / "log")) == 4
    same(load(TOY, "page", tmp_path).table, whole.table)


def test_two_runs_in_one_folder_lose_nothing(tmp_path, serial):
    errors = []

    def running():
        try:
            same(run(TOY, seeds=8, folder=tmp_path, progress=False).table, serial)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=running) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    same(load(TOY, "page", tmp_path).table, serial)


def test_damaged_cells_are_measured_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    with pytest.raises(ZeroDivisionError):
        run(fails_at("b", 3, ZeroDivisionError()), folder=tmp_path, progress=False)
    kept = sorted((tmp_path / ".cells").rglob("*.json"))
    assert len(kept) == 7
    kept[0].write_bytes(kept[0].read_bytes()[:-40])
    kept[1].write_bytes(b"")
    kept[2].write_text(kept[2].read_text().replace('"value": ', '"value": 1'))
    kept[3].write_bytes(kept[4].read_bytes())
    (tmp_path / "log").unlink()
    record = run(TOY, folder=tmp_path, progress=False)
    assert measured(tmp_path / "log") == ["a 0", "a 1", "a 2", "a 3", "b 3"]
    same(record.table, run(TOY, folder=tmp_path / "whole", progress=False).table)


LONG = replace(TOY, draws={"page": 160, "paper": 1})


def killed(folder, log, started, jobs=1):
    """In a process of its own: say that it begins, and run until killed."""
    os.setsid()  # a group of its own, with the processes that it starts
    os.environ["TOY_LOG"] = log
    started.set()
    run(LONG, folder=folder, jobs=jobs, progress=False)


def kept(folder):
    """The number of cells that are finished and kept."""
    return len(list((folder / ".cells").rglob("*-*.json")))


def wait_for(process, happened):
    """Wait for something that a process does, for as long as it is there to do it."""
    while not happened():
        assert process.is_alive()
        time.sleep(0.001)


def test_killed_twenty_times_it_resumes_twenty_times(tmp_path):
    context = multiprocessing.get_context("forkserver")  # processes in which everything is imported already
    context.set_forkserver_preload(["pandas", "pytest", "tqdm", "spurlib.experiments"])
    log, whole = tmp_path / "log", run(LONG, folder=tmp_path / "whole", progress=False)
    moment = random.Random(0)
    finished = 0
    for _ in range(20):
        started = context.Event()
        process = context.Process(target=killed, args=(tmp_path, str(log), started))
        process.start()
        wait_for(process, started.is_set)
        enough = finished + moment.randrange(8)  # the run is killed on its way to the next one, or at its start
        wait_for(process, lambda: kept(tmp_path) >= enough)  # noqa: B023
        time.sleep(moment.uniform(0.0, 0.008))  # as long as a cell takes
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert kept(tmp_path) >= finished
        finished = kept(tmp_path)
    assert 0 < finished < 320
    record = run(LONG, folder=tmp_path, progress=False)
    same(record.table, whole.table)
    again = len(measured(log)) - finished
    assert 0 <= again <= 20  # a kill loses the cell in flight at most
    assert list((tmp_path / ".cells").iterdir()) == []


def test_killed_with_its_two_processes_it_resumes(tmp_path):
    log, context = tmp_path / "log", multiprocessing.get_context("forkserver")
    started = context.Event()
    process = context.Process(target=killed, args=(tmp_path, str(log), started, 2))
    process.start()
    wait_for(process, lambda: kept(tmp_path) >= 20)
    os.killpg(process.pid, signal.SIGKILL)  # the run, and the processes of joblib
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    finished = kept(tmp_path)
    assert 20 <= finished < 320
    record = run(LONG, folder=tmp_path, progress=False)
    same(record.table, run(LONG, folder=tmp_path / "whole", progress=False).table)
    assert record.provenance["seconds"] > 0.004 * 320


def slow_measure(settings, seed, device):
    Path(settings.signed[0], str(os.getpid())).touch()
    time.sleep(600)


def terminated(folder, started):
    """In a process of its own: the command line, with two processes that take their time."""
    cells = [replace(cell, signed=(str(folder),)) for cell in toy_cells("page")]
    register(Experiment("slow", "", lambda scale: cells, slow_measure))
    started.set()
    sys.exit(main(["run", "slow", "--jobs", "2", "--folder", str(folder / "records")]))


def alive(pid):
    """Whether a process is there, and not only waiting for its end to be noticed."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc").exists()


def test_sigterm_ends_the_processes_too(tmp_path):
    context = multiprocessing.get_context("forkserver")
    started = context.Event()
    process = context.Process(target=terminated, args=(tmp_path, started))
    process.start()
    wait_for(process, lambda: len(signatures(tmp_path)) == 2)
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 143
    patience = time.monotonic() + 60
    while any(map(alive, signatures(tmp_path))) and time.monotonic() < patience:
        time.sleep(0.02)
    assert not any(map(alive, signatures(tmp_path)))


# ---- processes


def test_there_are_no_more_processes_than_cells(tmp_path, monkeypatch):
    asked = []

    def serially(tasks, jobs, backend, address):
        asked.append((jobs, {task[-1] for task in tasks}))
        return [runs._work(*task) for task in tasks]

    monkeypatch.setattr(runs, "_finished", serially)
    run(TOY, jobs=50, folder=tmp_path, progress=False)
    assert asked == [(8, {"cpu"})]


def test_gpus_are_dealt_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert runs._devices("cuda", 8) == ["cuda:0", "cuda:1", "cuda:2"]
    assert runs._devices("cuda", 1) == ["cuda"] and runs._devices("cuda:1", 8) == ["cuda:1"]
    assert runs._devices("cpu", 8) == ["cpu"]


def test_a_script_without_a_main_guard_is_told_so(tmp_path, monkeypatch):
    # Dask starts processes that import the script; this is how multiprocessing marks them meanwhile
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(SystemExit, match="put the call under a main guard"):
        run(TOY, backend="dask", folder=tmp_path / "new", progress=False)
    assert not (tmp_path / "new").exists()


def watched_measure(settings, seed, device):
    """The toy's rows, by at least two processes that sign with their names; one may be told to die."""
    (folder,) = map(Path, settings.signed)
    (folder / str(os.getpid())).touch()
    patience = time.monotonic() + 300
    while len(signatures(folder)) < 2 and time.monotonic() < patience:
        time.sleep(0.01)
    if (settings.act, seed) == ("b", 4) and (folder / "die").exists():
        (folder / "die").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return toy_measure(settings, seed, device)


def watched(folder, die=False):
    folder.mkdir()
    if die:
        (folder / "die").touch()
    cells = [replace(cell, signed=(str(folder),)) for cell in toy_cells("page")]
    return replace(TOY, cells=lambda scale: cells, measure=watched_measure)


def signatures(folder):
    return {int(path.name) for path in folder.glob("[0-9]*")}


@pytest.fixture
def serial(tmp_path):
    return run(TOY, seeds=8, folder=tmp_path / "serial", progress=False).table


def test_two_processes_of_joblib_one_killed(tmp_path, serial):
    signed = tmp_path / "signed"
    dies = watched(signed, die=True)
    options = {"seeds": 8, "folder": tmp_path, "progress": False}
    with pytest.raises(Exception, match="terminated") as raised:
        run(dies, jobs=2, **options)
    assert len(signatures(signed) - {os.getpid()}) == 2
    kept = int(re.search(r"(\d+) of 16 cells are finished and kept", raised.value.__notes__[-1])[1])
    assert 0 < kept < 16
    same(run(dies, **options).table, serial)


def test_two_workers_of_dask_one_killed(tmp_path, serial):
    pytest.importorskip("dask.distributed")
    signed = tmp_path / "signed"
    record = run(watched(signed, die=True), seeds=8, jobs=2, backend="dask", folder=tmp_path, progress=False)
    assert not (signed / "die").exists()
    assert len(signatures(signed) - {os.getpid()}) >= 2
    same(record.table, serial)
    assert record.provenance["backend"] == "dask"


def test_dask_by_the_address_of_a_scheduler(tmp_path, toy, serial, capsys):
    dask = pytest.importorskip("dask.distributed")
    with dask.LocalCluster(n_workers=1, processes=False, protocol="tcp", dashboard_address=None) as cluster:
        there = cluster.scheduler_address
        record = run(TOY, seeds=8, backend="dask", address=there, folder=tmp_path, progress=False)
        options = ["--backend", "dask", "--address", there, "--seeds", "8", "--folder", str(tmp_path / "other")]
        assert main(["run", "toy", *options]) == 0
    same(record.table, serial)
    assert "toy-page: 48 rows in" in capsys.readouterr().out
    record = load(TOY, "page", tmp_path / "other")
    same(record.table, serial)
    assert record.provenance["backend"] == "dask"


def test_optional_packages_are_imported_when_needed():
    code = "import sys, spurlib.experiments; print({'pandas', 'joblib', 'dask', 'distributed'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.stdout == "set()\n", done.stderr


# ---- one kernel matrix by many workers


def pools():
    yield "threads", ThreadPoolExecutor(2)
    yield "processes", ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
    yield "joblib", get_reusable_executor(2)


def test_a_kernel_matrix_by_the_workers_of_any_executor():
    A, B = np.random.default_rng(0).standard_normal((2, 6, 5))
    kernel = sl.RandomFeatures("h1+h2", d=5, k=5000)
    whole, both = kernel.gram(A), kernel.gram(A, B)
    for name, pool in pools():
        with pool:
            assert np.allclose(gram_by(pool, kernel, A, workers=3), whole, rtol=1e-12), name
            assert np.allclose(gram_by(pool, kernel, A, B, workers=2), both, rtol=1e-12), name
    dask = pytest.importorskip("dask.distributed")
    with dask.Client(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as client:
        assert np.allclose(gram_by(client.get_executor(pure=False), kernel, A, workers=3), whole, rtol=1e-12)


def test_workers_of_a_kernel_matrix_are_checked():
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(ValueError, match="workers must be a positive integer, got 0"):
            gram_by(pool, sl.RandomFeatures("relu", d=2, k=5), np.eye(2), workers=0)
        with pytest.raises(ValueError, match="A must have 2 columns"):
            gram_by(pool, sl.RandomFeatures("relu", d=2, k=5), np.eye(3), workers=2)
