"""Every usual form of the address of a repository leads to the same links."""

from __future__ import annotations

import pytest

from tools.repository import hosted, notice, placeholder, published, web


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/Someone/book",
        "https://github.com/Someone/book/",
        "https://github.com/Someone/book.git",
        "https://github.com/Someone/book.git/",
        " https://www.github.com/Someone/book ",
        "http://github.com/Someone/book",
        "https://someone@github.com/Someone/book.git",
        "git@github.com:Someone/book.git",
        "git@github.com:Someone/book",
        "ssh://git@github.com/Someone/book.git",
        "ssh://git@github.com:22/Someone/book.git",
        "git://github.com/Someone/book.git",
        "github.com/Someone/book",
    ],
)
def test_one_repository_has_one_address(url):
    assert web(url) == "https://github.com/Someone/book"
    assert published(url) == "https://someone.github.io/book/"
    assert hosted(url) and not placeholder(url) and notice(url) == ""


@pytest.mark.parametrize(
    ("url", "pages"),
    [
        ("https://github.com/Someone/someone.github.io", "https://someone.github.io/"),
        ("git@github.com:someone/Someone.github.io.git", "https://someone.github.io/"),
        ("https://github.com/someone/other.github.io", "https://someone.github.io/other.github.io/"),
        ("https://gitlab.com/group/part/book.git", "https://group.gitlab.io/part/book/"),
        ("https://git.example.org/someone/book", ""),
        ("file:///srv/book", ""),
        ("/srv/a b/book", ""),
        ("https://github.com/OWNER/REPOSITORY", ""),
        ("git@github.com:OWNER/REPOSITORY.git", ""),
        ("", ""),
    ],
)
def test_the_pages_are_where_the_host_publishes_them(url, pages):
    assert published(url) == pages
    assert hosted(url) == bool(pages)
    assert ("_config.yml" in notice(url)) == (not pages)


@pytest.mark.parametrize("url", ["file:///srv/book", "/srv/a b/book", "../book", "C:/book"])
def test_an_address_of_another_kind_stays_as_it_is(url):
    assert web(url) == url


@pytest.mark.parametrize("url", ["https://github.com/OWNER/REPOSITORY", "https://github.com/OWNER/REPOSITORY/", ""])
def test_a_placeholder_is_known_as_one(url):
    assert placeholder(url)
    assert "is a placeholder" in notice(url)


def test_an_address_without_a_repository_is_refused():
    with pytest.raises(ValueError, match=r"repository: url:.*https://github\.com/someone'"):
        published("https://github.com/someone")
