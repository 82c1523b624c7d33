#!/usr/bin/env bash
# Sphinx: in the event "env-updated" the figure and table numbers are those of the build before.
#
# Expected: the documentation of "env-updated" says that it is emitted after all documents were read, when the
# environment is up to date. The numbers of figures and tables lie in that environment (toc_fignumbers), so an
# extension that lists or checks them there should see the numbers that the pages show.
# Happens: they are assigned later, during "env-get-updated". In a fresh build the extension sees none. In an
# incremental build it sees, for each page not read again, the number from the last build, even when that number
# changes now because a table was added on an earlier page; and nothing for the pages read again.
# Seen in: Sphinx 7.4.7 and 9.0.4.
# Instead: read the numbers in "env-check-consistency", or in "env-get-updated" with a priority above that of the
# collectors (900, say).
set -euo pipefail
unset PYTHONPATH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"

mkdir "$work/book"
cd "$work"
cat > book/conf.py <<'END'
import json
import os

project = "numbers"
html_theme = "basic"
numfig = True
numfig_secnum_depth = 0


def note(event):
    def handler(app, env):
        number = {page: env.toc_fignumbers.get(page, {}).get("table", {}) for page in ("one", "two")}
        with open(os.environ["SEEN"], "a", encoding="utf-8") as out:
            out.write(json.dumps([event, number]) + "\n")
        return []

    return handler


def setup(app):
    app.connect("env-updated", note("env-updated"))
    app.connect("env-check-consistency", note("env-check-consistency"))
END
printf 'Book\n====\n\n.. toctree::\n\n   one\n   two\n' > book/index.rst
table() { printf '.. table:: Caption\n   :name: %s\n\n   == ==\n   1  2\n   == ==\n\n' "$1"; }

for version in 7.4.7 9.0.4; do
  venv/bin/pip install --quiet --disable-pip-version-check docutils==0.21.2 "sphinx==$version"
  rm -rf html fresh again
  { printf 'One\n===\n\n'; table first; } > book/one.rst
  { printf 'Two\n===\n\n'; table last; } > book/two.rst
  SEEN=fresh venv/bin/sphinx-build -q -W -b html book html
  table added >> book/one.rst
  SEEN=again venv/bin/sphinx-build -q -W -b html book html
  grep -q 'Table 3' html/two.html

  venv/bin/python - <<'END'
import json
from importlib.metadata import version
from pathlib import Path

print("sphinx", version("sphinx"))
seen = {}
for build in ("fresh", "again"):
    for line in Path(build).read_text(encoding="utf-8").splitlines():
        event, number = json.loads(line)
        seen[build, event] = number
        print(f"{build}, {event}: {number}")

assert seen["fresh", "env-updated"] == {"one": {}, "two": {}}, "behaviour changed"
assert seen["fresh", "env-check-consistency"] == {"one": {"first": [1]}, "two": {"last": [2]}}
assert seen["again", "env-updated"] == {"one": {}, "two": {"last": [2]}}, "behaviour changed"
assert seen["again", "env-check-consistency"] == {"one": {"first": [1], "added": [2]}, "two": {"last": [3]}}
END
done
echo "As described: the last table is still number 2 in env-updated, while its page says 3."
