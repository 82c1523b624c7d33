"""Say loudly which checks of the pages could not be made."""

from __future__ import annotations

import pytest

NO_BROWSER = "no Chromium on this machine: the pages were built, but nobody looked at them"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the tests that need a browser where there is none."""
    count = sum(NO_BROWSER in str(report.longrepr) for report in terminalreporter.stats.get("skipped", ()))
    if count:
        terminalreporter.section("NO BROWSER", red=True, bold=True)
        terminalreporter.line(f"{count} checks were not made: {NO_BROWSER}. Install chromium and test again.")
