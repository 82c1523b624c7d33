"""How nbval compares the stored notebooks with a fresh execution; loaded by ``-p tests.nbval_settings``."""

from __future__ import annotations

import pytest
from IPython.core.displayhook import DisplayHook

# Images are not stored. A claim's JSON holds measured numbers, which its target judges and not this comparison.
NOT_COMPARED = (
    "image/svg+xml",
    "application/papermill.record/image/png",
    "application/vnd.spurlib.claim+json",
)
TAG = "image-data"
semicolon_at_end = DisplayHook.semicolon_at_end_of_expression


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Choose what is compared in a cell."""
    if not hasattr(item, "cell"):
        return
    notebook = item.parent
    notebook.skip_compare = tuple(dict.fromkeys((*notebook.skip_compare, *NOT_COMPARED)))
    # Coverage is that of the unit tests: nbval would trace the notebooks' kernels as well.
    item.config.option.cov_source = None
    # nbval runs cells without history, and then IPython does not see the semicolon that silences a result.
    if item.cell.source.rstrip().endswith(";") and semicolon_at_end(item.cell.source):
        item.cell.source += "\nNone"
    if TAG in item.cell.metadata.get("tags", ()) and recorded_elsewhere(notebook.nb):
        item.options["check"] = False
        item.user_properties.append((TAG, item.nodeid))


def recorded_elsewhere(nb) -> bool:
    """Return whether the outputs of a notebook rest on image data other than those on this machine."""
    from tools.execute import data_used  # not above: coverage starts after this module is loaded

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
