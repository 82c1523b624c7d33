#!/usr/bin/env bash
# Sphinx and sphinx-exercise: with the extension loaded, the single-page builder no longer knows the nodes of others.
#
# Expected: an extension that registers how its own nodes are written (app.add_node) leaves the nodes of other
# extensions alone. A document without a single exercise is built by `singlehtml` the same with and without it.
# Happens: Sphinx looks up visitors by the name of the builder, and by its format (html) only where nothing at all is
# registered under that name. sphinx-exercise registers its nodes under `singlehtml` as well as under `html`, so that
# from then on those are the only visitors of that builder. A theorem of sphinx-proof, or a dropdown of sphinx-design,
# which are registered under `html`, cannot be written any more: the build ends with "unknown node type". `html` itself and
# `dirhtml` are not concerned. The message names the theorem, not the extension that was added.
# Seen in: Sphinx 7.4.7 and 8.1.3 with sphinx-exercise 1.2.1, sphinx-proof 0.4.0, sphinx-design 0.6.1.
# Instead: before the build, copy to the handlers of `singlehtml` those of `html` that it lacks (a function connected
# to the event builder-inited), or print from the pages of the builder `html`.
set -euo pipefail
unset PYTHONPATH

work=$(mktemp -d)
export TMPDIR="$work"  # Sphinx leaves a log of its error there
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
mkdir "$work/book"
cd "$work/book"

cat > index.rst <<'END'
A page without exercises
========================

.. prf:theorem:: Sum

   One and one are two.

.. dropdown:: More

   Two and one are three.
END
cat > conf.py <<'END'
import os

extensions = os.environ["EXTENSIONS"].split()


def inherit(app):
    handlers = app.registry.translation_handlers
    for name, visitors in handlers["html"].items():
        handlers.get("singlehtml", handlers["html"]).setdefault(name, visitors)


def setup(app):
    if os.environ.get("INHERIT"):
        app.connect("builder-inited", inherit)
END

build() {
  rm -rf out
  "$work/venv/bin/python" -m sphinx -q -b "$1" . out > log 2>&1
}

for version in 7.4.7 8.1.3; do
  "$work/venv/bin/pip" install --quiet --disable-pip-version-check "sphinx==$version" \
    sphinx-exercise==1.2.1 sphinx-proof==0.4.0 sphinx-design==0.6.1
  for other in sphinx_proof sphinx_design "sphinx_proof sphinx_design"; do
    case "$other" in
      sphinx_proof) sed -n 1,6p index.rst > page ;;
      sphinx_design) sed '4,7d' index.rst > page ;;
      *) cp index.rst page ;;
    esac
    cp index.rst whole && cp page index.rst
    EXTENSIONS="$other" build singlehtml || { cat log; echo "behaviour changed: it failed alone"; exit 1; }
    EXTENSIONS="$other sphinx_exercise" build html || { cat log; echo "behaviour changed: html failed"; exit 1; }
    if EXTENSIONS="$other sphinx_exercise" build singlehtml; then
      echo "behaviour changed: singlehtml knows the nodes of $other"
      exit 1
    fi
    grep -q "unknown node type" log || { cat log; echo "behaviour changed: another error"; exit 1; }
    echo "Sphinx $version, $other with sphinx_exercise, singlehtml: $(grep -o "departing unknown node type: .*\|visiting unknown node type: .*" log | head -1)"
    INHERIT=1 EXTENSIONS="$other sphinx_exercise" build singlehtml || { cat log; exit 1; }
    mv whole index.rst
  done
done
echo "As described: an extension that is not used takes the visitors of all others from the single-page builder."
