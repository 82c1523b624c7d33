"""How nbval compares the stored notebooks with a fresh execution; loaded by ``-p tests.nbval_settings``."""

from __future__ import annotations

import pytest

from spurlib.claims import MIME
from tools.execute import data_used

# Images are not stored. A claim's JSON holds measured numbers, which its target judges and not this comparison.
NOT_COMPARED = ("image/svg+xml", "application/papermill.record/image/png", MIME)
TAG = "image-data"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Choose what is compared in a cell."""
    if not hasattr(item, "cell"):
        return
    notebook = item.parent
    notebook.skip_compare = tuple(dict.fromkeys((*notebook.skip_compare, *NOT_COMPARED)))
    # Coverage is that of the unit tests: nbval would trace the notebooks' kernels as well.
    item.config.option.cov_source = None
    if TAG in item.cell.metadata.get("tags", ()) and recorded_elsewhere(notebook.nb):
        item.options["check"] = False
        item.user_properties.append((TAG, item.nodeid))


def recorded_elsewhere(nb) -> bool:
    """Return whether the outputs of a notebook rest on image data other than those on this machine."""
    return nb.metadata.get("spurlib", {}).get("data", []) != data_used(nb)[0]


def pytest_terminal_summary(terminalreporter) -> None:
    """Say how many cells were executed without being compared."""
    reports = (report for reports in terminalreporter.stats.values() for report in reports)
    properties = (pair for report in reports for pair in getattr(report, "user_properties", ()))
    cells = {value for name, value in properties if name == TAG}
    if cells:
        terminalreporter.section("image data", yellow=True)
        terminalreporter.line(
            f"{len(cells)} cells were executed but not compared: their stored outputs rest on other image data "
            "than are on this machine (see SPURLIB_DATA). Their claims were checked."
        )
