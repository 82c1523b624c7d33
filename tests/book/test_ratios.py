"""The table of the benchmarks on the page of the library."""

from __future__ import annotations

from tools.ratios import table

ABOUT = {"machine": {"cpu": "Some", "num_cpu": "2"}, "versions": {"numpy": "2.4"}, "base": "0123456789"}
ROW = {
    "case": "Fit",
    "peer": None,
    "unit": "seconds",
    "spurlib": 0.5,
    "over_peer": None,
    "over_base": 2.34,
    "control": 1,
}


def test_times_memory_and_ratios_are_shown():
    memory = ROW | {"unit": "bytes", "spurlib": 9e8, "peer": "numpy", "over_peer": 0.7}
    text = table(ABOUT | {"rows": [ROW, memory]})
    assert "| Fit |  | 0.5 s |  | 2.34 |" in text
    assert "| Fit | numpy | 900 MB | 0.7 | 2.34 |" in text
    assert "numpy 2.4 on 2 cores (Some); the earlier commit is `0123456`" in text
