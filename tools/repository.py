"""The address of the repository, in the forms that git takes, and what follows from it."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

PLACEHOLDER = "OWNER/REPOSITORY"
PAGES = {"github.com": "github.io", "gitlab.com": "gitlab.io"}


def web(url: str) -> str:
    """Return the address at which a browser, and git, find a repository; an address of another kind stays as it is.

    >>> web("git@github.com:someone/book.git")
    'https://github.com/someone/book'
    """
    url = url.strip()
    known = (
        re.fullmatch(r"(?:https?|git)://(?:[^@/]+@)?([^/:]+)(?::\d+)?/(.+)", url)
        or re.fullmatch(r"ssh://(?:[^@/]+@)?([^/:]+)(?::\d+)?/(.+)", url)
        or re.fullmatch(r"(?:[\w.-]+@)?([\w-]+(?:\.[\w-]+)+)[:/](?!/)(.+)", url)
    )
    if not known:
        return url
    host, path = known[1].lower().removeprefix("www."), known[2].strip("/").removesuffix(".git")
    return f"https://{host}/{path}"


def placeholder(url: str) -> bool:
    """Return whether an address is still the placeholder for the real one."""
    return urlsplit(web(url)).path.strip("/") in ("", PLACEHOLDER)


def hosted(url: str) -> bool:
    """Return whether there is an address, and it is that of a host whose pages and buttons the book supports."""
    return not placeholder(url) and urlsplit(web(url)).hostname in PAGES


def published(url: str) -> str:
    """Return the address of the pages that the host of a repository publishes; nothing where that is unknown.

    >>> published("https://github.com/Someone/book/")
    'https://someone.github.io/book/'
    """
    if not hosted(url):
        return ""
    parts = urlsplit(web(url))
    owner, _, name = parts.path.strip("/").partition("/")
    if not name:
        raise ValueError(f"`repository: url:` in _config.yml must name an owner and a repository, got {url!r}")
    site = f"{owner.lower()}.{PAGES[str(parts.hostname)]}"
    # A repository with the name of its owner's site is published at the top of that site.
    return f"https://{site}/" if name.lower() == site else f"https://{site}/{name}/"


def notice(url: str) -> str:
    """Return a line that says what is missing while there is no address; nothing once there is one."""
    if hosted(url):
        return ""
    kind = "is a placeholder" if placeholder(url) else "is that of no host the pages know"
    return (
        f"The address of the repository {kind} (`repository: url:` in _config.yml): "
        "no page has a button that leads there, to Colab or to Binder."
    )
