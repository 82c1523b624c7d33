"""Slides: one deck a chapter, cut out of the built pages where comments in the chapter's source say so.

``% slide`` before a block of a chapter starts a slide with it, ``% slide+`` adds a block to the slide; comments are not
seen on pages and in notebooks. As a Sphinx extension, this writes the decks with the pages, to ``slides/NAME.html``;
``python -m tools.slides [--pdf]`` builds the pages, says where the decks are, and prints them when asked to.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from importlib.metadata import distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bs4 import BeautifulSoup
from bs4.element import Comment, NavigableString, PageElement, Tag
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

from .chapters import LICENSED, SourceError, any_terminal, config, contents, sources, titles
from .markup import TO_BE_CLAIMED
from .panels import panels

logger = logging.getLogger(__name__)

MARK = re.compile(r"^slide(\+?)(?: (\d+)(?:-(\d+))?)?(?:: *(\S.*))?$")
MARKED = re.compile(r"^% slide\b", re.MULTILINE)
MATH = re.compile(r"\$([^$]+)\$")
# Where a sentence ends, and what only looks like it.
STOP, SHORT = re.compile(r"[.?!][)”’]*$"), re.compile(r"\b(?:i\.i\.d|e\.g|i\.e|cf|Fig|al|resp|a\.s)\.$")
NEXT = re.compile(r"\s+(?=[A-Z“(])")
END = re.compile(r"\.(?=(?:</\w+>)*$)")
NAME = re.compile(r"^\((.*)\)((?:</\w+>)*)$", re.DOTALL)
STEP = re.compile(r"^Step \d+")
DRAWING = re.compile(r'(?<=src=")\.\./(_images/[^"]+\.svg)"')
AXES = re.compile(r'<g id="axes_\d+">')
FOLDED = re.compile(r'<details class="spurlib-code">.*?</details>', re.DOTALL)
MATHJAX = re.compile(r"<script>window\.MathJax.*?</script>|<script[^>]*/mathjax/[^>]*></script>")
FILES = ("reveal.js", "reveal.css", "reset.css")
DROPPED = ".headerlink, .spurlib-checks, .spurlib-code:not(.spurlib-data), .spurlib-ran, .dataframe + p, style[scoped]"
PAGE = """\
<!DOCTYPE html>
<html lang="en" data-theme="light">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Slides: {title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="../_static/reveal/reset.css">
<link rel="stylesheet" href="../_static/reveal/reveal.css">
<link rel="stylesheet" href="../_static/pygments.css">
<link rel="stylesheet" href="../_static/custom.css">
<link rel="stylesheet" href="../_static/slides.css">
{mathjax}
<script defer src="../_static/reveal/reveal.js"></script>
<script defer src="../_static/slides.js"></script>
</head>
<body class="tex2jax_ignore">
<div class="reveal"><div class="slides">
{slides}
</div></div>
</body>
</html>
"""
LIST = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Slides: {title}</title>
<style>body {{ font: 1.1rem/1.6 system-ui, sans-serif; margin: 2rem auto; max-width: 40rem; padding: 0 1rem }}</style>
</head><body><h1>Slides</h1>
<p>One deck a chapter of <a href="../index.html"><em>{title}</em></a>, cut out of its page. Add
<code>?print-pdf</code> to an address to print a deck.</p>
<ul>
{rows}
</ul></body></html>
"""


@dataclass
class Slide:
    """One slide as HTML.

    It has a title, blocks of content, the place on the page from which it comes, the heading of that section, and the
    proof and the step that contain its last block.
    """

    title: str
    place: str
    heading: str = ""
    proof: str = ""
    step: str = ""
    blocks: list[str] = field(default_factory=list)


class MarkError(ValueError):
    """A mark that cannot be followed; the message says why."""


def marked(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Keep the marks on the page, as comments."""
    for node in list(doctree.findall(nodes.comment)):
        for line in node.astext().split("\n"):
            if not line.startswith("slide"):
                continue
            if not MARK.match(line) or "--" in line:
                message = "%r is not a mark of a slide: see tools/WRITING.md"
                logger.warning(message, f"% {line}", location=(page, node.line))
                continue
            node.parent.insert(node.parent.index(node), nodes.raw("", f"<!--{line}-->", format="html"))


def sentences(parts: list[PageElement]) -> list[list[PageElement]]:
    """Split the content of a paragraph into sentences; a bold beginning belongs to the first one."""
    found: list[list[PageElement]] = [[]]
    said = ""
    for part in parts:
        if not isinstance(part, NavigableString):
            opening = said.strip() == "" and len(found) == 1
            found[-1].append(part)
            said = "" if opening and part.name in ("strong", "em") else said + part.get_text()
            continue
        text, start = str(part), 0
        for gap in NEXT.finditer(text + "A" if text[-1:].isspace() else text):
            before = (said + text[: gap.start()]).rstrip()
            if STOP.search(before) and not SHORT.search(before):
                found[-1].append(NavigableString(text[start : gap.start()]))
                found.append([])
                start = gap.end()
        found[-1].append(NavigableString(text[start:]))
        said += text
    return [one for one in found if any(str(part).strip() for part in one)]


def joined(found: list[list[PageElement]]) -> list[PageElement | str]:
    """Return sentences as the content of a paragraph."""
    return [part for one in found for part in (*one, " ")]


def html(parts: list[PageElement]) -> str:
    """Return elements as HTML."""
    return "".join(part.decode() if isinstance(part, Tag) else escape(str(part), quote=False) for part in parts).strip()


def chosen(parts: list[Any], first: int, last: int, what: str) -> list[Any]:
    """Return some of the parts, counted from one, or raise a `MarkError` if there are fewer."""
    if not 1 <= first <= last <= len(parts):
        raise MarkError(f"there is no part {first}-{last}: this block has {len(parts)} {what}")
    return parts[first - 1 : last]


def some(block: Tag, first: int, last: int) -> None:
    """Keep some sentences of a paragraph or of the first one of an exercise, items of a list, or blocks of a box."""
    if "exercise" in block.get("class", []):
        block, *rest = block.section.find_all(True, recursive=False)
        for part in rest:
            part.extract()
    if block.name == "p":
        kept = joined(chosen(sentences(list(block.children)), first, last, "sentences"))
        block.clear()
        block.extend(kept)
        return
    inner = (block.find("section") if block.name == "div" else None) or block
    if inner.name not in ("ul", "ol", "section", "div"):
        raise MarkError("only paragraphs, lists and boxes can be shown in part")
    parts = [part for part in inner.find_all(True, recursive=False) if "admonition-title" not in part.get("class", [])]
    kept = chosen(parts, first, last, "parts")
    for part in parts:
        if not any(part is one for one in kept):
            part.extract()
    if inner.name == "ol":
        inner["start"] = str(first)


def after(mark: Comment) -> Tag:
    """Return the block that a mark stands before."""
    for block in mark.next_siblings:
        if isinstance(block, Tag) and not (block.name == "span" and not block.get_text(strip=True)):
            if block.name == "section" or re.fullmatch("h[1-6]", block.name):
                raise MarkError("a mark stands before a block, and not before a heading")
            return block
    raise MarkError("there is no block after the mark")


def place(block: Tag) -> str:
    """Return the name of the place on the page that is nearest to a block: its own, or that of its section."""
    own = block if block.get("id") else block.find(["figure", "table"], id=True)
    held = own or next(one for one in block.parents if one.get("id") and one["id"] not in ("proof", "proof-content"))
    return str(held["id"])


def bare(element: Tag) -> str:
    """Return the content of a heading or a title without its number and its link."""
    element = copy.copy(element)
    for part in element.select(".headerlink, .section-number, .caption-number"):
        part.extract()
    return END.sub("", element.decode_contents().strip())


def proofs(soup: BeautifulSoup) -> dict[int, str]:
    """Return what each proof of a page proves, by the identity of its element.

    A proof belongs to the statements that its title names, or else to the last statement before it without a proof.
    """
    found, unproved = dict[int, str](), list[str]()
    for box in soup.select("div.proof"):
        if box.get("id") != "proof":
            if not {*TO_BE_CLAIMED}.isdisjoint(box["class"]):
                unproved.append(box.select_one(".caption-number").get_text(strip=True))
            continue
        start = box.find("p")
        named = [one.get_text() for one in start.find_all("a")] if start.get_text().startswith("Proof. (of") else []
        owners = named or unproved[-1:]
        unproved = [name for name in unproved if name not in owners]
        found[id(box)] = "Proof of " + " and ".join(owners) if owners else "Proof"
    return found


def step(block: Tag, proof: Tag) -> tuple[str, bool]:
    """Return the step of a proof in which a block stands, and whether the block says so itself."""
    for part in block.find_all("strong"):
        if STEP.match(part.get_text()):
            return bare(part), True
    for part in block.find_all_previous("strong"):
        if proof in part.parents and STEP.match(part.get_text()):
            return bare(part), False
    return "", False


def titled(text: str) -> str:
    """Return a title written in a mark as HTML."""
    return MATH.sub(r'<span class="math notranslate nohighlight">\\(\1\\)</span>', escape(text, quote=False))


def named(block: Tag) -> str:
    """Return the title that a block gives to its slide, and take it from the block when it is shown there."""
    if caption := block.select_one("figcaption .caption-text"):
        first, *rest = sentences(list(caption.children))
        caption.clear()
        caption.extend(joined(rest))
        return END.sub("", html(first))
    head = block.select_one("p.admonition-title")
    if "proof" in block.get("class", []) and head is not None and (name := NAME.match(bare(head))):
        number = head.select_one(".caption-number")
        head.clear()
        head.append(number)
        return name[1] + name[2]
    start = next(block.children, None)
    if block.name == "p" and isinstance(start, Tag) and start.name in ("strong", "em") and start.text.endswith("."):
        start.extract()
        return bare(start)
    if "exercise" in block.get("class", []) and (kind := block.find("em")):
        kind.extract()
        return {"Short.": "A short question"}.get(kind.get_text(), "A question")
    return ""


def around(block: Tag) -> str:
    """Return the heading of the section in which a block stands."""
    held = block.find_parent("section", id=lambda name: name != "proof-content")
    return bare(held.find(re.compile("^h[1-6]$")))


def bring(block: Tag, dropped: str = DROPPED) -> None:
    """Take out of a block what only its page needs."""
    for part in block.select(dropped):
        part.extract()
    for scroll in block.select("div.spurlib-scroll"):
        scroll.unwrap()
    # Names of an index, to which pandas gives the second of two rows, below empty cells of the first.
    for names in block.select("table.dataframe thead tr:nth-child(2):last-child"):
        pairs = list(zip(names.find_previous_sibling("tr").find_all("th"), names.find_all("th"), strict=False))
        if all(bool(above.text.strip()) != bool(name.text.strip()) for above, name in pairs):
            for above, name in pairs:
                above.string = name.text.strip() or above.text
            names.extract()


def shown(block: Tag, page: str) -> str:
    """Return a block as HTML for a slide: what it shows, with links to the page and without names of its own."""
    bring(block, f"{DROPPED}, .spurlib-data")
    if "proof" in block.get("class", []) and not block.select_one("p.admonition-title"):
        block.name, block["class"] = "div", "steps"  # a proof: its title is that of the slide
        if isinstance(start := block.p.contents[0], NavigableString):
            start.replace_with(start.removeprefix("Proof. "))
    outputs = block.select_one("div.cell_output") if "cell" in block.get("class", []) else None
    for link in block.find_all("a", href=True):
        there = urlsplit(str(link["href"]))
        if not there.scheme:
            link["href"] = f"../chapters/{page}.html{link['href']}" if not there.path else f"../chapters/{link['href']}"
    for part in [block, *block.find_all(id=True)]:
        if not part.find_parent("svg"):
            part.attrs.pop("id", None)
    for part in block.find_all("section"):  # which would be slides
        part.name = "div"
    for part in block.find_all("details"):
        part.attrs.pop("open", None)
    if outputs is None:
        return block.decode()
    code = block.select_one("div.cell_input")
    return "\n".join(part.decode() for part in [*([code] if code else []), *outputs.find_all(True, recursive=False)])


def cut(soup: BeautifulSoup, page: str) -> Iterator[Slide | MarkError]:
    """Return the slides that are marked on a page, and what is wrong with its marks."""
    slide: Slide | None = None
    known = proofs(soup)
    for comment in soup.find_all(string=lambda text: isinstance(text, Comment) and MARK.match(text)):
        more, first, last, title = MARK.match(comment).groups()
        try:
            block = after(comment)
            # What is around the block must be read before the block is taken out of it.
            heading, where = around(block), place(block)
            proof = block if id(block) in known else block.find_parent("div", id="proof")
            proves, (at, own) = ("", ("", False)) if proof is None else (known[id(proof)], step(block, proof))
            block = copy.copy(block)
            if not more:
                if slide is not None:
                    yield slide
                slide = Slide("", where, heading)
            elif slide is None:
                raise MarkError("there is no slide to which the block could be added")
            label = "" if own else at
            if proves != slide.proof:
                label = " – ".join(filter(None, (proves, label)))
            elif at == slide.step:
                label = ""
            if not slide.title:
                slide.title = titled(title or "") or label or named(block)
            if label not in ("", slide.title):
                slide.blocks.append(f'<p class="source">{label}</p>')
            slide.proof, slide.step = proves, at
            if first:
                some(block, int(first), int(last or first))
            slide.blocks.append(shown(block, page))
        except MarkError as error:
            yield MarkError(f"<!--{comment}-->: {error}")
    if slide is not None:
        yield slide


def opening(soup: BeautifulSoup, page: str) -> Slide:
    """Return the title slide: the title of the chapter, and what its first box says."""
    head, box = copy.copy(soup.h1), copy.copy(soup.select_one("div.admonition"))
    for part in head.select(".headerlink"):
        part.extract()
    book = f"<p><em>{escape(config()['title'])}</em>, {escape(config()['author'])} ({LICENSED})</p>"
    return Slide(head.decode_contents(), "", blocks=[book, *([shown(box, page)] if box else [])])


def closing(soup: BeautifulSoup, page: str) -> Slide | None:
    """Return the last slide: the chapter's own summary."""
    if points := soup.select_one("section#summary > :is(ul, ol)"):
        return Slide("Summary", "summary", blocks=[shown(copy.copy(points), page)])
    return None


def section(slide: Slide, page: str, title: str, kind: str) -> str:
    """Return a slide as reveal.js reads it."""
    anchor = slide.place.removeprefix("equation-")
    there = f"../chapters/{page}.html" + (f"#{slide.place}" if slide.place else "")
    level = "h1" if kind == "opening" else "h2"
    return (
        f'<section class="{kind}" data-place="{anchor}"><div class="sheet">\n'
        f"<{level}>{slide.title or slide.heading}</{level}>\n"
        f'<div class="body bd-article">\n' + "\n".join(slide.blocks) + "\n</div>\n"
        f'<footer><a href="{there}">{title}</a></footer>\n</div></section>'
    )


def article(text: str) -> BeautifulSoup:
    """Read the article of a page, without the code that the page folds."""
    # Most of a page is folded code and what stands around the article; without both it is read ten times faster.
    return BeautifulSoup(FOLDED.sub("", text[text.index("<article") : text.index("</article>")]), "html.parser")


def deck(text: str, page: str) -> tuple[str, list[str], int]:
    """Return the deck of a page as HTML, what is wrong with its marks, and the number of its slides."""
    soup = article(text)
    parts = list(cut(soup, page))
    if "% slide" in soup.get_text():
        parts.append(MarkError("a mark is seen on the page: it may not be the first line of a proof"))
    slides = [part for part in parts if isinstance(part, Slide)]
    faults = [str(part) for part in parts if isinstance(part, MarkError)]
    if not slides:
        return "", faults, 0
    first, last = opening(soup, page), closing(soup, page)
    if last is None:
        faults.append("there is no section Summary with a list for the last slide")
    all_of_it = [(first, "opening"), *((slide, "content") for slide in slides), *([(last, "closing")] if last else [])]
    sections = [section(slide, page, first.title, kind) for slide, kind in all_of_it]
    done = PAGE.format(
        title=escape(titles().get(page, page)),
        mathjax="\n".join(MATHJAX.findall(text)),
        slides="\n".join(sections),
    )
    return done, faults, len(sections)


def divided(done: str, folder: Path) -> str:
    """Mark in a deck where its drawings of several panels can be cut."""

    def said(found: re.Match[str]) -> str:
        drawing = (folder / found[1]).read_text(encoding="utf-8")
        if not (bands := panels(drawing)):
            return found[0]
        return f'{found[0]} data-panels="{json.dumps(bands)}" data-axes="{len(AXES.findall(drawing))}"'

    return DRAWING.sub(said, done)


def with_slides() -> list[str]:
    """Return the chapters that have a deck, in reading order."""
    return [name for name, text in sources().items() if MARKED.search(text)]


def offer(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Let the page offer its slides, beside the notebook."""
    name = Path(pagename).name
    if doctree is None or app.builder.name != "html" or name not in with_slides():
        return
    for button in context.get("header_buttons", ()):
        if button.get("label") == "download-buttons":
            there = {"type": "link", "url": context["pathto"](f"slides/{name}.html", 1), "label": "slides-button"}
            button["buttons"].append(there | {"text": "Slides", "tooltip": "Open the slides", "icon": "fas fa-display"})


def write(app: Sphinx, error: Exception | None) -> None:
    """Write all decks from the pages as they are now."""
    if error is not None or app.builder.name != "html":
        return
    folder, static = Path(app.outdir, "slides"), Path(app.outdir, "_static", "reveal")
    for old in (folder, static):
        shutil.rmtree(old, ignore_errors=True)
        old.mkdir(parents=True)
    reveal = Path(str(distribution("sphinx-revealjs").locate_file("sphinx_revealjs/_static/revealjs")))
    for name in FILES:
        shutil.copyfile(reveal / "dist" / name, static / name)
    shutil.copyfile(reveal / "LICENSE", static / "LICENSE")
    rows = []
    for name in with_slides():
        done, faults, count = deck(Path(app.outdir, "chapters", f"{name}.html").read_text(encoding="utf-8"), name)
        for fault in faults:
            logger.warning("slides: %s", fault, location=f"chapters/{name}")
        if done:
            (folder / f"{name}.html").write_text(divided(done, Path(app.outdir)), encoding="utf-8")
            number = f"{contents()[name]}. " if contents()[name] else ""
            rows.append(f'<li><a href="{name}.html">{number}{escape(titles()[name])}</a> ({count} slides)</li>')
    text = LIST.format(title=escape(config()["title"]), rows="\n".join(rows))
    (folder / "index.html").write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the hooks; the button comes when the theme has made its own."""
    app.connect("doctree-resolved", marked)
    app.connect("html-page-context", offer, priority=900)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def printed(decks: Path, names: list[str], folder: Path) -> bool:
    """Print decks as PDF, one page a slide; return True when there was a browser to do it."""
    from .pdf import able, opened

    if not able():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    with opened(decks.parent) as (page, address):
        for name in names:
            page.goto(f"{address}/slides/{name}.html?print-pdf")
            page.wait_for_function("document.documentElement.dataset.ready")
            page.pdf(path=folder / f"{name}.pdf", prefer_css_page_size=True, print_background=True)
            print(f"  {folder / name}.pdf", flush=True)
    return True


def main() -> int:
    """Run the command line and return its exit status."""
    from .build import BUILD, HTML, build

    parser = argparse.ArgumentParser(prog="python -m tools.slides", description=__doc__)
    parser.add_argument("--pdf", action="store_true", help="print the decks as well; needs Chromium")
    parser.add_argument("names", nargs="*", help="chapters whose decks are printed, by name (default: all)")
    options = parser.parse_args()
    any_terminal()
    try:
        names = with_slides()
        if unknown := [name for name in options.names if name not in names]:
            raise SourceError(f"without slides: {', '.join(unknown)}; with slides: {', '.join(names)}")
        if not build():
            return 1
        decks = HTML / "slides"
        if options.pdf and not printed(decks, options.names or names, BUILD / "slides"):
            return 1
        print(f"{len(names)} decks of slides: open {decks / 'index.html'}")
    except SourceError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
