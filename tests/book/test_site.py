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

from tests.book.conftest import NO_BROWSER
from tools.chapters import BUILD, ROOT, contents, executable, repository, sources
from tools.markup import labels
from tools.notebooks import load
from tools.repository import placeholder

pytestmark = pytest.mark.timeout(1800)
HTML = BUILD / "html"
PAGES = [f"chapters/{name}.html" for name in contents()]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


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


def test_every_equation_is_set(visit):
    unset = visit.page.evaluate(
        """() => [...document.querySelectorAll('.math')]
            .filter(node => !node.querySelector('mjx-container') || node.querySelector('mjx-merror'))
            .map(node => node.textContent)"""
    )
    assert unset == []


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


def test_every_link_leads_somewhere(visit):
    links = visit.page.evaluate("() => [...document.querySelectorAll('a[href]')].map(link => link.href)")
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
    links = visit.page.evaluate("() => [...document.querySelectorAll('a[href]')].map(link => link.href)")
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


def test_the_alignment_of_random_features_opens_with_statement_number_and_picture(visits):
    page = visits.open("chapters/alignment-rf.html").page
    statement, number, picture = page.evaluate(
        """() => ['#thm-alignment-rf', '#thm-alignment-rf ~ p', '#fig-concentration img'].map(place => {
            const { top, bottom } = document.querySelector(place).getBoundingClientRect();
            return [top + scrollY, bottom + scrollY] })"""
    )
    assert statement[1] < number[1] < picture[0] < DESK["height"]
    assert picture[1] < 1.25 * DESK["height"]  # the rest of the picture, a quarter of a screen below


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


def test_the_ledger_shows_every_claim(site):
    from tools import ledger

    page = (HTML / "chapters" / "claims.html").read_text(encoding="utf-8")
    count = sum(len(ledger.entries(name, load(name))) for name in executable() if load(name))
    assert count > 0
    assert page.count("✓ holds") + page.count("✗ fails, as it must") == count


def test_no_placeholder_stands_in_the_head(site):
    for path in PAGES:
        head = (HTML / path).read_text(encoding="utf-8").split("</head>")[0]
        assert 'property="og:title"' in head
        assert 'content="Project name not set"' not in head


def test_every_public_name_is_documented(site):
    import spurlib

    page = (HTML / "chapters" / "library.html").read_text(encoding="utf-8")
    public = [name for name in spurlib.__all__ if not name.startswith("_")]
    assert [name for name in public if not re.search(rf'id="spurlib\.\w+\.{name}"', page)] == []


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
