#!/usr/bin/env bash
# sphinx-proof: a link text that contains the label is thrown away.
#
# Expected: the syntax guide of sphinx-proof says that a text given explicitly to {prf:ref} becomes the text of the
# reference. So {prf:ref}`the theorem of mercer <mercer>` should read "the theorem of mercer".
# Happens: whenever the label occurs anywhere within that text, letter for letter, the text is replaced by "Theorem
# 1", as if none had been given, and no warning tells. A sentence such as "a kernel is mercer-decomposable" turns into
# "a kernel is Theorem 1". The same link with a capital M keeps its text.
# Seen in: sphinx-proof 0.4.0 with Sphinx 7.4.7 and myst-parser 3.0.1.
# Instead: give labels that no prose contains, for example with a prefix (thm-mercer).
set -euo pipefail
unset PYTHONPATH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  sphinx==7.4.7 docutils==0.21.2 myst-parser==3.0.1 sphinx-proof==0.4.0

mkdir "$work/book"
cat > "$work/book/conf.py" <<'END'
project = "links"
extensions = ["myst_parser", "sphinx_proof"]
html_theme = "basic"
END
cat > "$work/book/index.md" <<'END'
# Links

```{prf:theorem} Expansion
:label: mercer

A continuous kernel on a compact set has an expansion.
```

```{prf:theorem} Interpolation
:label: thm-spline

The interpolant of least norm is a spline.
```

- A {prf:ref}`the theorem of mercer <mercer>`
- B {prf:ref}`mercer-decomposable <mercer>`
- C {prf:ref}`the theorem of Mercer <mercer>`
- D {prf:ref}`the spline theorem <thm-spline>`
END
"$work/venv/bin/sphinx-build" -q -W -b html "$work/book" "$work/html"

cd "$work"
"$work/venv/bin/python" - <<'END'
import re
from importlib.metadata import version
from pathlib import Path

for name in ("sphinx-proof", "sphinx", "myst-parser"):
    print(name, version(name))
page = Path("html/index.html").read_text(encoding="utf-8")
links = dict(re.findall(r"<li><p>([A-D]) <a[^>]*>(?:<[^>]*>)*([^<]*)", page))
for item, text in sorted(links.items()):
    print(f"{item}: {text}")
assert links == {
    "A": "Theorem 1",
    "B": "Theorem 1",
    "C": "the theorem of Mercer",
    "D": "the spline theorem",
}, "behaviour changed"
print("As described: texts A and B, which contain the label, are lost; C and D are kept.")
END
