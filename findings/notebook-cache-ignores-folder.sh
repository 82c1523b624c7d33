#!/usr/bin/env bash
# myst-nb with jupyter-cache: two pages with the same code share one result, although each runs in its own folder.
#
# Expected: the documentation of MyST-NB says that a page runs, by default, with its own folder as the working
# directory, and that the cache gives back the outputs of a page whose code has not changed since the last build. So
# in a book whose chapters each have a settings file beside them, two pages with the same code cell should each print
# their own settings.
# Happens: the cache knows a page by a hash of its code cells and metadata only, without its path. In one and the same
# fresh build the second page is never run: it shows the outputs of the first one, and the build succeeds even when
# warnings are errors. The guide of jupyter-cache mentions the hash, but neither guide says that pages share results;
# the case they warn about, files that change over time, is not this one.
# Seen in: myst-nb 1.4.0 with jupyter-cache 1.0.1.
# Instead: make the code of the pages differ (a comment that names the page is enough), or use the mode "force".
set -euo pipefail
unset PYTHONPATH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export IPYTHONDIR="$work/ipython" JUPYTER_CONFIG_DIR="$work/config" JUPYTER_DATA_DIR="$work/data"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  sphinx==7.4.7 docutils==0.21.2 myst-parser==3.0.1 myst-nb==1.4.0 jupyter-cache==1.0.1 \
  nbclient==0.11.0 jupyter-client==8.10.0 ipykernel==7.4.0 ipython==9.18.1

cd "$work"
book() { # folder, execution mode, what stands above the code in chapter b
  mkdir -p "$1/a" "$1/b"
  printf 'project = "cache"\nextensions = ["myst_nb"]\nhtml_theme = "basic"\n' > "$1/conf.py"
  printf 'nb_execution_mode = "%s"\n' "$2" >> "$1/conf.py"
  printf '# Book\n\n```{toctree}\na/page\nb/page\n```\n' > "$1/index.md"
  echo '{"width": 100}' > "$1/a/settings.json"
  echo '{"width": 200}' > "$1/b/settings.json"
  for chapter in a b; do
    {
      printf -- '---\nfile_format: mystnb\nkernelspec:\n  name: python3\n---\n\n'
      printf '# Chapter %s\n\n```{code-cell}\n' "$chapter"
      if [ "$chapter" = b ]; then printf '%s' "$3"; fi
      printf 'import json\nprint("width", json.load(open("settings.json"))["width"])\n```\n'
    } > "$1/$chapter/page.md"
  done
  "$work/venv/bin/sphinx-build" -q -W -b html "$1" "$1-built/html" > log 2>&1 || { cat log; exit 1; }
}
book cached cache ''
book forced force ''
book distinct cache $'# chapter b\n'

"$work/venv/bin/python" - <<'END'
import re
from importlib.metadata import version
from pathlib import Path

for name in ("myst-nb", "jupyter-cache", "sphinx"):
    print(name, version(name))


def shown(book):
    pages = [Path(f"{book}-built/html/{c}/page.html").read_text(encoding="utf-8") for c in "ab"]
    result = [re.search(r"width (\d+)\n", p)[1] for p in pages]
    print(f"{book}: chapter a shows {result[0]}, chapter b shows {result[1]}")
    return result


assert shown("forced") == ["100", "200"]
assert shown("cached") == ["100", "100"], "behaviour changed"
assert shown("distinct") == ["100", "200"]
print("As described: with the cache, chapter b shows what chapter a printed.")
END
