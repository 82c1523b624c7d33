#!/usr/bin/env bash
# docutils: replacing or removing a text node changes another one that reads the same.
#
# Expected: Element.replace is documented to replace one child node, the one that is passed. Nodes have an identity
# and a parent, so a transform that walks over the text nodes and replaces one of them should change that very node;
# and the position that Element.index gives should be its own.
# Happens: the child is looked for with ==, and text nodes are strings, so the first child with the same text is
# taken. In a paragraph "a and b and c" with emphasised letters, asking to replace the second " and " replaces the
# first; the node that was passed stays, and nothing is raised. Element.remove and Element.index err alike. Elements
# compare by identity and are safe, which hides the mistake until a paragraph repeats a piece of text.
# Seen in: docutils 0.21.2 and 0.23.
# Instead: find the position by identity, next(i for i, c in enumerate(parent.children) if c is node), and assign to
# parent[i] or delete it.
set -euo pipefail
unset PYTHONPATH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
cd "$work"

for version in 0.21.2 0.23; do
  "$work/venv/bin/pip" install --quiet --disable-pip-version-check "docutils==$version"
  "$work/venv/bin/python" - <<'END'
import docutils
from docutils import nodes
from docutils.core import publish_doctree

print("docutils", docutils.__version__)


def paragraph():
    [p] = publish_doctree("*a* and *b* and *c*").children
    first, second = (c for c in p.children if isinstance(c, nodes.Text))
    assert first == second == " and " and first is not second
    return p, second


p, second = paragraph()
p.replace(second, nodes.Text(", or "))
print("after replacing the second 'and':", p.astext())
assert p.astext() == "a, or b and c", "behaviour changed"
assert p[3] is second, "behaviour changed"

p, second = paragraph()
print("index of the second 'and', which stands at 3:", p.index(second))
assert p.index(second) == 1, "behaviour changed"

p, second = paragraph()
p.remove(second)
print("after removing the second 'and':", p.astext())
assert p.astext() == "ab and c", "behaviour changed"

p, second = paragraph()
p[next(i for i, c in enumerate(p.children) if c is second)] = nodes.Text(", or ")
print("replaced by identity:", p.astext())
assert p.astext() == "a and b, or c"
END
done
echo "As described: the first of two equal text nodes is changed, whichever one is passed."
