#!/usr/bin/env bash
# sphinx-proof: a proof that begins with a displayed equation or a list comes out broken, without a warning.
#
# Expected: the body of the {prf:proof} directive is ordinary content, as in every directive that takes content. The
# syntax guide shows proofs with displayed formulas in them and states no rule for the first line.
# Happens: the word "Proof." is put in front of the first source line before the body is parsed. A first line that
# opens a block no longer opens it: "$$" becomes an inline formula between stray dollar signs, and a numbered list
# becomes one paragraph. The build succeeds even when warnings are errors. The other statements of the extension are
# not affected.
# Seen in: sphinx-proof 0.4.0 with Sphinx 7.4.7 and myst-parser 3.0.1.
# Instead: begin each proof with a line of prose and an empty line, for example "By computation:".
set -euo pipefail
unset PYTHONPATH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  sphinx==7.4.7 docutils==0.21.2 myst-parser==3.0.1 sphinx-proof==0.4.0

mkdir "$work/book"
cat > "$work/book/conf.py" <<'END'
project = "proofs"
extensions = ["myst_parser", "sphinx_proof"]
myst_enable_extensions = ["dollarmath"]
html_theme = "basic"
END
cat > "$work/book/index.md" <<'END'
# Proofs

```{toctree}
lemma
equation
list
prose
```
END
equation=$'$$\nk(x, x) = 1\n$$'
list=$'1. symmetric\n2. positive'
page() { printf '# Page\n\n````{prf:%s}\n%s\n````\n' "$2" "$3" > "$work/book/$1.md"; }
page lemma lemma "$equation"
page equation proof "$equation"
page list proof "$list"
page prose proof $'By computation:\n\n'"$equation"$'\n\n'"$list"
"$work/venv/bin/sphinx-build" -q -W -b html "$work/book" "$work/html"

cd "$work"
"$work/venv/bin/python" - <<'END'
import re
from importlib.metadata import version
from pathlib import Path

for name in ("sphinx-proof", "sphinx", "myst-parser"):
    print(name, version(name))


def seen(name):
    page = Path(f"html/{name}.html").read_text(encoding="utf-8")
    body = re.search(r'<div class="proof.*?</section>', page, re.S)[0]
    text = " ".join(re.sub(r"<[^>]*>", " ", body).split())
    result = {"displayed": '<div class="math' in body, "items": body.count("<li>"), "stray $": text.count("$")}
    print(f"{name}: {result} {text!r}")
    return result


good = {"displayed": True, "items": 0, "stray $": 0}
assert seen("lemma") == good, "behaviour changed"
assert seen("equation") == {"displayed": False, "items": 0, "stray $": 2}, "behaviour changed"
assert seen("list") == {"displayed": False, "items": 0, "stray $": 0}, "behaviour changed"
assert seen("prose") == good | {"items": 2}, "behaviour changed"
print("As described: the first block of a proof is lost unless a line of prose precedes it.")
END
