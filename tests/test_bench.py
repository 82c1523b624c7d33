"""The benchmark runs to its end, and does not hide what fails."""

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1] / "bench" / "run.py"


def test_the_benchmark_runs(tmp_path):
    command = [sys.executable, str(BENCH), "--quick", "--json", str(tmp_path / "rows.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert len(rows) > 10 and all(row["value"] >= 0 for row in rows)
    assert len(done.stdout.splitlines()) == len(rows) + 1


def test_an_error_in_a_measurement_stops_the_benchmark():
    command = [sys.executable, str(BENCH), "--measure", "sweep", '{"way": "numpy"}']
    assert subprocess.run(command, capture_output=True, timeout=60).returncode != 0
