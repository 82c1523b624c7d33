"""The built pages, looked at with a browser that cannot reach the network.

The pages are built once, by `tools.build`, from results that are executed here unless they are up to date.
"""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from pypdf import PdfReader

from tests.book.conftest import NO_BROWSER
from tools.chapters import BUILD, ROOT, contents, executable, repository, sources
from tools.markup import labels
from tools.notebooks import load
from tools.repository import placeholder
from tools.slides import with_slides

pytestmark = pytest.mark.timeout(1800)
HTML = BUILD / "html"
PAGES = [f"chapters/{name}.html" for name in contents()]
UNSET = """() => [...document.querySelectorAll('.math')]
    .filter(node => !node.querySelector('mjx-container') || node.querySelector('mjx-merror'))
    .map(node => node.textContent)"""
LINKS = """() => [...document.querySelectorAll('a[href]')]
    .map(link => link.href.baseVal ? new URL(link.href.baseVal, document.baseURI).href : link.href)"""
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
SLIDE = {"width": 1280, "height": 720}


@pytest.fixture(scope="module")
def site() -> str:
    """Build the pages and serve them; return their address."""
    done = subprocess.run([sys.executable, "-m", "tools.build"], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    handler = functools.partial(Quiet, directory=str(HTML))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that does not log."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def browser():
    """Start Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip(NO_BROWSER)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@dataclass
class Visit:
    """An open page and what went wrong while it was opened."""

    page: object
    address: str
    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def open(self, path: str) -> Visit:
        """Open a page of the book and wait until its mathematics is set."""
        self.page.goto(f"{self.address}/{path}", wait_until="load")
        self.page.evaluate("() => window.MathJax?.startup?.promise")
        return self

    def settle(self) -> None:
        """Wait until the page has answered to a change of its size."""
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 100)))")

    def log(self, message: object) -> None:
        """Keep an error of the console."""
        if message.type == "error":
            self.errors.append(message.text)

    def route(self, route: object) -> None:
        """Let only requests to the book through."""
        url = route.request.url
        if url.startswith((self.address, "data:", "blob:")):
            route.continue_()
        else:
            self.outside.append(url)
            route.abort()


@pytest.fixture(scope="module")
def visits(site, browser) -> Iterator[Visit]:
    """Open one window for all tests."""
    page = browser.new_page(viewport=DESK)
    visit = Visit(page, site)
    page.route("**/*", visit.route)
    page.on("console", visit.log)
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    yield visit
    page.close()


def test_old_addresses_lead_to_what_they_named(visits):
    page = visits.page
    for old, new in (
        ("api.html", "library.html"),
        ("hermite.html#thm-alignment-rf", "alignment-rf.html#thm-alignment-rf"),
    ):
        page.goto(f"{visits.address}/chapters/{old}")
        page.wait_for_url(f"**/chapters/{new}")


@pytest.mark.parametrize(
    "name",
    ["index", "stability", "networks", "predicted-curves", "course", "claims", "library", "notation", "references"],
)
def test_axe_finds_nothing_serious(visits, name):
    page = visits.open(f"chapters/{name}.html").page
    for mode in ("light", "dark"):
        page.evaluate("mode => { document.documentElement.dataset.theme = mode }", mode)
        # Colors fade from one mode to the other: the contrast is judged when they have arrived.
        page.evaluate("() => Promise.allSettled(document.getAnimations().map(each => each.finished))")
        found = Axe().run(page, options={"resultTypes": ["violations"], "elementRef": False}).response["violations"]
        serious = [item for item in found if item["impact"] in ("serious", "critical")]
        assert [(item["id"], [node["html"][:100] for node in item["nodes"][:4]]) for item in serious] == [], mode
    page.evaluate("() => { document.documentElement.dataset.theme = 'light' }")


@pytest.fixture(scope="module", params=PAGES)
def visit(request, visits) -> Visit:
    """Open a page of the book."""
    visits.errors.clear()
    visits.outside.clear()
    visits.page.set_viewport_size(DESK)
    return visits.open(request.param)


def test_opens_without_an_error_and_without_the_network(visit):
    assert visit.errors == []
    assert visit.outside == []


def test_formulas_fit_a_desk(visit):
    cut = visit.page.evaluate(
        """() => [...document.querySelectorAll('article .math mjx-container[display]')]
            .filter(node => node.checkVisibility() && node.scrollWidth > node.clientWidth + 3)
            .map(node => node.closest('.math').id || node.textContent)"""
    )
    assert cut == []


def test_code_in_sight_is_at_most_a_quarter(visit):
    code, whole = visit.page.evaluate(
        """() => [[...document.querySelectorAll('article .cell_input')].filter(node => node.checkVisibility())
            .reduce((sum, node) => sum + node.offsetHeight, 0), document.querySelector('article').offsetHeight]"""
    )
    assert code <= whole / 4


def test_every_equation_is_set(visit):
    assert visit.page.evaluate(UNSET) == []


def test_no_source_shows_through(visit):
    text = visit.page.evaluate(
        """() => { const copy = document.querySelector('article').cloneNode(true);
            copy.querySelectorAll('pre, code, script, .math').forEach(node => node.remove());
            return copy.textContent }"""
    )
    assert re.findall(r"\$[^$\n]+\$|\\\(|\{[\w:]+\}`|^:::|\\begin\{", text, re.MULTILINE) == []


def test_every_figure_says_what_it_shows(visit):
    texts = visit.page.evaluate(
        "() => [...document.querySelectorAll('article img')].map(image => [image.src, image.alt])"
    )
    assert [source for source, alt in texts if len((alt or "").split()) < 5] == []


def test_fits_a_phone(visit):
    visit.page.set_viewport_size(PHONE)
    try:
        wide = visit.page.evaluate(
            """() => { const width = document.documentElement.clientWidth;
                if (document.scrollingElement.scrollWidth <= width) return [];
                return [...document.querySelectorAll('article *')]
                    .filter(node => node.getBoundingClientRect().right > width + 1)
                    .map(node => node.outerHTML.slice(0, 120)) }"""
        )
        assert wide == []
        assert visit.page.evaluate("() => document.scrollingElement.scrollWidth") <= PHONE["width"]
    finally:
        visit.page.set_viewport_size(DESK)


def test_what_is_cut_off_on_a_phone_shows_it_and_scrolls(visit):
    visit.page.set_viewport_size(PHONE)
    try:
        visit.settle()
        cut = visit.page.evaluate(
            """() => [...document.querySelectorAll('article *')]
                .filter(node => node.checkVisibility() && node.clientWidth && node.scrollWidth > node.clientWidth + 3
                    && !node.closest('pre, mjx-container *, svg, select, input, button'))
                .filter(node => getComputedStyle(node).overflowX !== 'visible')
                .map(node => [node.tabIndex, getComputedStyle(node).overflowX,
                    getComputedStyle(node).backgroundImage.includes('gradient'), node.outerHTML.slice(0, 120)])"""
        )
        assert [node for node in cut if node[:3] != [0, "auto", True]] == []
    finally:
        visit.page.set_viewport_size(DESK)


def test_nothing_that_fits_says_that_it_is_cut_off(visit):
    visit.settle()
    marked = visit.page.evaluate(
        """() => [...document.querySelectorAll('article .spurlib-cut')].filter(node => node.checkVisibility())
            .filter(node => node.scrollWidth <= node.clientWidth).map(node => node.outerHTML.slice(0, 120))"""
    )
    assert marked == []


def test_folded_code_stands_below_what_it_shows_and_has_a_name(visit):
    folds = visit.page.evaluate(
        """() => [...document.querySelectorAll('.cell.tag_hide-input')].map(cell => [
            cell.lastElementChild.matches('details.spurlib-code:not([open])'),
            cell.lastElementChild.querySelector('summary')?.textContent,
            cell.querySelectorAll('figcaption').length, cell.querySelectorAll('.spurlib-claim').length,
            cell.matches('.tag_sheet')])"""
    )
    for last, name, figures, claims, sheet in folds:
        assert last, name
        if sheet:
            assert name == "Data of this exercise"
        elif figures:
            assert re.fullmatch(r"Code for Fig\. [\d.]+", name)
        else:
            assert name == {0: "Code", 1: "Code for this check"}.get(claims, "Code for these checks")


def test_boxes_have_two_colors_and_no_pictures(visit):
    statements, others = visit.page.evaluate(
        """() => ['.proof:not(#proof)', ':not(.proof:not(#proof))'].map(kind =>
            [...document.querySelectorAll(`article div.admonition${kind}`)].map(box => {
                const title = box.querySelector('.admonition-title');
                return getComputedStyle(box).backgroundColor + ' '
                    + (title ? getComputedStyle(title, '::after').content : 'none') }))"""
    )
    assert len(set(statements)) <= 1 and len(set(others)) <= 1
    assert not set(statements) & set(others)
    assert all(box.endswith(" none") for box in statements + others)


def test_every_button_has_a_name(visit):
    unnamed = visit.page.evaluate(
        """() => [...document.querySelectorAll('button')].filter(button =>
            !(button.getAttribute('aria-label') || button.title || button.innerText).trim())
            .map(button => button.outerHTML.slice(0, 120))"""
    )
    assert unnamed == []


def test_every_link_leads_somewhere(visit):
    links = visit.page.evaluate(LINKS)
    here = [urlsplit(link) for link in links if link.startswith(visit.address)]
    missing = {link.path for link in here if not (HTML / link.path.lstrip("/")).exists()}
    assert missing == set()
    broken = {
        link.geturl()
        for link in here
        if link.fragment and f'id="{link.fragment}"' not in (HTML / link.path.lstrip("/")).read_text(encoding="utf-8")
    }
    assert broken == set()


def test_links_to_the_repository_lead_to_files_once_it_has_an_address(visit):
    links = visit.page.evaluate(LINKS)
    slug = urlsplit(repository()).path.strip("/")
    pattern = re.compile(rf"(?:{slug}/(?:blob|edit)/main/|{slug}/main\?urlpath=lab/tree/)([\w./-]+)")
    files = [found[1] for link in links if (found := pattern.search(link))]
    name = urlsplit(visit.page.url).path.split("/")[-1].removesuffix(".html")
    assert [file for file in files if not (ROOT / file).exists()] == []
    if placeholder(repository()):
        assert files == []
        return
    assert f"chapters/{name}.md" in files
    assert files.count(f"chapters/{name}.ipynb") == 2 * (name in executable())


def test_a_solution_opens(visits):
    name = next(name for name, text in sources().items() if "{solution" in text)
    page = visits.open(f"chapters/{name}.html").page
    solution = page.locator("div.solution").first
    inside = solution.locator("p:not(.admonition-title)").first
    assert not inside.is_visible()
    solution.locator(".admonition-title, summary").first.click()
    inside.wait_for(state="visible", timeout=5000)


def test_a_chapter_opens_with_a_picture_and_then_the_statement(visits):
    page = visits.open("chapters/alignment-rf.html").page
    picture, statement = page.evaluate(
        """() => ['#fig-concentration img', '#thm-alignment-rf'].map(place => {
            const { top, bottom } = document.querySelector(place).getBoundingClientRect();
            return [top + scrollY, bottom + scrollY] })"""
    )
    assert picture[0] < 1.25 * DESK["height"]
    assert picture[1] < statement[0] < 3 * DESK["height"]


def test_search_finds_a_theorem_by_name(visits):
    label = next(label for label in labels(sources(), contents()) if label.kind in ("theorem", "lemma") and label.title)
    query = re.sub(r"[^\w-]+", "+", label.title)
    page = visits.open(f"search.html?q={query}").page
    page.locator(f"#search-results a[href*='{label.chapter}.html']").first.wait_for(timeout=10000)


def test_dark_mode(visits):
    page = visits.open(PAGES[1]).page
    shades = {}
    for _ in range(3):
        mode = page.evaluate("() => document.documentElement.dataset.theme")
        shades[mode] = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        page.locator("button.theme-switch-button:visible").first.click()
    assert set(shades) == {"light", "dark"}
    assert shades["light"] != shades["dark"]


@pytest.mark.parametrize("name", ["claims", "library", "terms"])
def test_the_filter_leaves_what_was_asked_for(visits, name):
    page = visits.open(f"chapters/{name}.html").page
    box = page.locator("input.spurlib-filter")
    items = page.locator(f"article :is({box.get_attribute('data-items')})").filter(visible=True)
    sections = page.locator("article section section").filter(visible=True)
    count, parts = items.count(), sections.count()
    word = items.nth(count // 2).inner_text().split()[0].lower()
    box.fill(word.upper())
    left = [text.lower() for text in items.all_inner_texts()]
    assert 0 < len(left) < count
    assert all(word in text for text in left)
    box.fill("xyzzy")
    assert items.count() == 0
    assert sections.count() < parts
    box.fill("")
    assert items.count() == count


@pytest.mark.parametrize("name", ["claims", "notation", "terms"])
def test_every_column_can_be_seen_on_a_phone(visits, name):
    page = visits.open(f"chapters/{name}.html").page
    page.set_viewport_size(PHONE)
    try:
        outside = page.evaluate(
            """() => [...document.querySelectorAll('article td')].filter(cell =>
                cell.getBoundingClientRect().right > document.documentElement.clientWidth).length"""
        )
        assert page.locator("article td").count() > 0
        assert outside == 0
    finally:
        page.set_viewport_size(DESK)


def test_nothing_glares_in_the_dark(visits):
    page = visits.open("chapters/alignment-rf.html").page
    page.evaluate("() => { document.documentElement.dataset.theme = 'dark' }")
    visits.settle()
    drawing = page.locator("img.spurlib-drawn").first
    # Drawings melt into the page: white becomes black, and adds nothing to the color of the page.
    assert drawing.evaluate("node => getComputedStyle(node).mixBlendMode") == "screen"
    assert drawing.evaluate("node => getComputedStyle(node).filter").startswith("invert(1)")
    bright = page.evaluate(
        """() => [...document.querySelectorAll('article *:not(img)')].filter(node => {
            const parts = getComputedStyle(node).backgroundColor.match(/[\\d.]+/g).map(Number);
            return (parts[3] ?? 1) * Math.max(...parts.slice(0, 3)) > 80 && node.clientWidth > 200 })
            .map(node => node.outerHTML.slice(0, 120))"""
    )
    assert bright == []


def test_the_ledger_shows_every_claim(site):
    from tools import ledger

    page = (HTML / "chapters" / "claims.html").read_text(encoding="utf-8")
    count = sum(len(ledger.entries(name, load(name))) for name in executable() if load(name))
    assert count > 0
    assert page.count("✓ holds") + page.count("✓ fails, as expected") == count


def test_no_placeholder_stands_in_the_head(site):
    for path in PAGES:
        head = (HTML / path).read_text(encoding="utf-8").split("</head>")[0]
        assert 'property="og:title"' in head
        assert 'content="Project name not set"' not in head


def test_every_public_name_is_documented(site):
    import spurlib

    page = (HTML / "chapters" / "library.html").read_text(encoding="utf-8")
    public = [name for name in spurlib.__all__ if not name.startswith("_")]
    assert [name for name in public if not re.search(rf'id="spurlib(?:\.\w+)+\.{name}"', page)] == []


def test_the_explorer_moves_by_keyboard_and_has_a_table(visits, browser, site):
    page = visits.open("chapters/predicted-curves.html").page
    root = page.locator(".spurlib-explorer")
    said, line = root.locator("output"), root.locator('[data-role="lines"] polyline').first
    for role, key in (("ratio", "ArrowRight"), ("alpha", "ArrowLeft"), ("act", "ArrowDown")):
        before = said.inner_text(), line.get_attribute("points")
        root.locator(f'[data-role="{role}"]').focus()
        page.keyboard.press(key)
        assert said.inner_text() != before[0], role
        assert (line.get_attribute("points") == before[1]) == (role == "ratio"), role
    plain = browser.new_page(java_script_enabled=False)
    plain.goto(f"{site}/chapters/predicted-curves.html")
    assert plain.locator(".spurlib-explorer form").is_hidden()
    assert plain.locator(".spurlib-explorer table").is_visible()
    plain.close()


@pytest.fixture(scope="module", params=with_slides())
def deck(request, visits) -> Visit:
    """Open a deck of slides in a window that is as large as a slide."""
    visits.errors.clear()
    visits.outside.clear()
    visits.page.set_viewport_size(SLIDE)
    visits.open(f"slides/{request.param}.html")
    visits.page.wait_for_function("document.documentElement.dataset.ready")
    return visits


def test_a_deck_opens_without_an_error_and_without_the_network(deck):
    assert deck.errors == []
    assert deck.outside == []


def test_every_slide_fits_and_can_be_read(deck):
    page = deck.page
    count = page.evaluate("() => Reveal.getTotalSlides()")
    assert 10 <= count <= 16
    for at in range(count):
        page.evaluate("at => Reveal.slide(at)", at)
        deck.settle()
        outside, crowded, letters, pictures = page.evaluate(
            """() => { const slide = Reveal.getCurrentSlide(), { right, bottom } = slide.getBoundingClientRect();
                const body = slide.querySelector('.body'), end = body.getBoundingClientRect().bottom;
                return [[...slide.querySelectorAll('*:not(mjx-container *, svg *, .panels img)')].filter(node => {
                    const box = node.getBoundingClientRect();
                    return node.checkVisibility() && box.width
                        && (box.right > right + 1 || box.bottom > (body.contains(node) ? end : bottom) + 2) })
                    .map(node => node.outerHTML.slice(0, 120)),
                    slide.dataset.crowded, parseFloat(getComputedStyle(slide).fontSize),
                    [...slide.querySelectorAll('figure img')].map(image => image.clientHeight)] }"""
        )
        assert (at, outside, crowded) == (at, [], "false")
        assert letters >= 20
        assert all(height >= 300 for height in pictures)


def test_every_formula_of_a_deck_is_set(deck):
    assert deck.page.evaluate(UNSET) == []


def test_no_source_shows_through_on_a_deck(deck):
    text = deck.page.evaluate(
        """() => { const copy = document.querySelector('.slides').cloneNode(true);
            copy.querySelectorAll('pre, code, script, style, .math').forEach(node => node.remove());
            return copy.textContent }"""
    )
    assert re.findall(r"\$[^$\n]+\$|\\\(|\{[\w:]+\}`|^:::|\\begin\{|% slide|<\w+|None(?! of)", text, re.MULTILINE) == []


def test_every_link_of_a_deck_leads_somewhere(deck):
    links = {link for link in deck.page.evaluate(LINKS) if link.startswith(deck.address) and "/slides/" not in link}
    missing = {
        link
        for link in links
        if not (page := HTML / urlsplit(link).path.lstrip("/")).exists()
        or f'id="{urlsplit(link).fragment}"' not in page.read_text(encoding="utf-8") + 'id=""'
    }
    assert len(links) > 3 and missing == set()


def test_a_page_leads_to_its_slides(visits):
    name = with_slides()[0]
    links = visits.open(f"chapters/{name}.html").page.evaluate(LINKS)
    assert f"{visits.address}/slides/{name}.html" in links
    page = visits.page
    page.goto(f"{visits.address}/slides/index.html")
    decks = {f"{visits.address}/slides/{name}.html" for name in with_slides()}
    assert decks < {*page.evaluate(LINKS)}


def test_a_deck_prints_one_page_a_slide(visits, tmp_path):
    page = visits.page
    page.goto(f"{visits.address}/slides/{with_slides()[0]}.html?print-pdf")
    page.wait_for_function("document.documentElement.dataset.ready")
    page.pdf(path=tmp_path / "deck.pdf", prefer_css_page_size=True, print_background=True)
    pages = PdfReader(tmp_path / "deck.pdf").pages
    headings = page.locator(".slides h1, .slides h2").all_inner_texts()
    assert len(pages) == len(headings)
    assert all(heading.split()[-1] in page.extract_text() for heading, page in zip(headings, pages, strict=True))


def test_the_explorer_moves_on_its_slide(visits):
    page = visits.page
    page.set_viewport_size(SLIDE)
    page.goto(f"{visits.address}/slides/predicted-curves.html")
    page.wait_for_function("document.documentElement.dataset.ready")
    root = page.locator(".spurlib-explorer")
    page.evaluate("slide => Reveal.slide(slide)", root.evaluate("node => Reveal.getIndices(node.closest('section')).h"))
    said = root.locator("output").inner_text()
    root.locator('[data-role="act"]').focus()
    page.keyboard.press("ArrowDown")
    assert root.locator("output").inner_text() != said
    assert root.is_visible()
