"""Measure the library against its peers and against another commit, keep the results, and write a table of ratios.

    python bench/run.py                      the last commit against its peers
    python bench/run.py --base COMMIT        also against COMMIT, in alternating rounds
    python bench/run.py --only 'gram|fit'    some cases only

asv measures commits and keeps the results, by machine and commit, in bench/history, where its commands `show`,
`compare` and `publish` find them. The table is of one run.
"""

import argparse
import itertools
import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from asv.machine import Machine
from asv.results import iter_results_for_machine_and_hash

HERE = Path(__file__).resolve().parent
MACHINE = Machine.get_defaults()
NAME = re.sub(r"\W+", "-", "{cpu} {num_cpu}".format(**MACHINE)).lower()  # not that of the host
RATIOS = ("over_peer", "over_base", "control")


def run(*command, **options):
    return subprocess.run(command, cwd=HERE, text=True, **options)


def commit(name):
    return run("git", "rev-parse", "--verify", f"{name}^{{commit}}", check=True, stdout=subprocess.PIPE).stdout.strip()


def measured(about, hash):
    """Return what is kept of one benchmark at one commit, by the way and the size."""
    for results in iter_results_for_machine_and_hash(str(HERE / "history"), NAME, hash):
        if about["name"] in results.get_all_result_keys():
            values = results.get_result_value(about["name"], about["params"])
            return dict(zip(itertools.product(*about["params"]), values, strict=True))
    return {}


def rows(about, head, base):
    """Compare the ways of one benchmark, a row for each size and peer; a ratio above 1 is in favor of spurlib.

    Peer over spurlib, base over this commit, and as a control the latter for the peer, which is 1 up to noise.
    """
    now, before = measured(about, head), measured(about, base) if base else {}
    (ours, *peers), sizes = about["params"]
    for size, peer in itertools.product(sizes, peers or [None]):
        values = [found.get((way, size)) for found in (now, before) for way in (ours, peer)]
        new, new_peer, old, old_peer = values
        if new == new and (new_peer == new_peer or peer == peers[0]):  # what is not measured is NaN
            pairs = zip(RATIOS, ((new_peer, new), (old, new), (old_peer, new_peer)), strict=True)
            names = {"case": f"{about['param_names'][0]}: {size.strip(chr(39))}", "peer": peer and peer.strip("'")}
            ratios = {name: a / b if a and b and a == a and b == b else None for name, (a, b) in pairs}
            yield names | {"unit": about["unit"], "spurlib": new} | ratios


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", metavar="COMMIT", help="measure this commit as well, and compare")
    parser.add_argument("--only", metavar="PATTERN", default="", help="a regular expression for the names of cases")
    parser.add_argument("--json", type=Path, default=HERE / "ratios.json", help="where to write the table")
    options = parser.parse_args()
    head, base = commit("HEAD"), commit(options.base) if options.base else None
    machine = MACHINE | {"machine": NAME}
    Machine.load(machine_name=NAME, **machine)
    asv = (sys.executable, "-m", "asv", "run", "--machine", NAME, "--bench", options.only, "--show-stderr")
    status = run(*asv, "HASHFILE:-", input="\n".join(filter(None, [head, base]))).returncode
    known = json.loads((HERE / "history" / "benchmarks.json").read_text(encoding="utf-8"))
    chosen = [about for name, about in sorted(known.items()) if name != "version" and re.search(options.only, name)]
    table = [row for about in chosen for row in rows(about, head, base)]
    print("\n    spurlib  peer/spurlib  base/this commit  control of the base  case [peer]")
    for row in table:
        scale, unit = (1, "s") if row["unit"] == "seconds" else (1e-6, "MB")
        value = f"{scale * row['spurlib']:8.3g} {unit:<2}" if row["spurlib"] else "failed"
        ratios = "".join(
            f"{row[name]:{width}.2f}" if row[name] else f"{'-':>{width}}"
            for name, width in zip(RATIOS, (14, 18, 21), strict=True)
        )
        print(f"{value:>11}{ratios}  {row['case']} [{row['peer'] or '-'}]")
    versions = {name: version(name) for name in ("numpy", "scipy", "torch", "scikit-learn")}
    about = {"commit": head, "base": base, "machine": machine, "versions": versions, "rows": table}
    options.json.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
