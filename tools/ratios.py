"""Directive ``benchmark-table``: the ratios in ``bench/ratios.json``, where a run of the benchmarks writes them."""

from __future__ import annotations

import json
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from .chapters import ROOT

RATIOS = ROOT / "bench" / "ratios.json"


def table(about: dict[str, Any]) -> str:
    """Return the ratios as MyST text, and what they were measured with."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    machine = about["machine"]
    lines = [
        "| Work | Peer | spurlib | Peer over spurlib | Earlier commit over this one |",
        "| :--- | :--- | ---: | ---: | ---: |",
    ]
    for row in about["rows"]:
        value = f"{1e-6 * row['spurlib']:.0f} MB" if row["unit"] == "bytes" else f"{row['spurlib']:.3g} s"
        ratios = [f"{row[name]:.3g}" if row[name] else "" for name in ("over_peer", "over_base")]
        lines.append(f"| {row['case']} | {row['peer'] or ''} | {value} | {' | '.join(ratios)} |")
    made = f"Measured with {versions} on {machine['num_cpu']} cores ({machine['cpu']})"
    return "\n".join([*lines, "", f"{made}; the earlier commit is `{about['base'][:7]}`."])


class BenchmarkTable(SphinxDirective):
    """Directive ``benchmark-table``."""

    def run(self) -> list[nodes.Node]:
        """Write the table in MyST and let the parser of the page read it."""
        self.env.note_dependency(str(RATIOS))
        return self.parse_text_to_nodes(table(json.loads(RATIOS.read_text(encoding="utf-8"))))
