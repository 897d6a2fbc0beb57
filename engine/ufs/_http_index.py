"""The names in a directory, read from the index page that a web server shows for it.

There is no standard for these pages; what Apache, nginx, Caddy, rclone and Python's own server show has in
common that each entry is a link to a URL directly below the page's own, with a slash behind a directory's.
Everything else on the page (the parent, sort orders, other sites) is passed over.
"""

from __future__ import annotations

import urllib.parse
from html.parser import HTMLParser
from typing import Final


def names_on_index(html: str, url: str) -> dict[str, bool]:
    """Return each name on the page at url, which ends with a slash, and whether it is a directory."""
    parser = _Links()
    parser.feed(html)
    parser.close()
    names: dict[str, bool] = {}
    base = urllib.parse.urlsplit(url)
    for link in parser.links:
        name, is_dir = _name_below(base, link)
        if name:
            # Both a file and a directory of one name: a path can only mean the file.
            names[name] = is_dir and names.get(name, True)
    return names


class _Links(HTMLParser):
    """Gathers where the anchors of a page lead."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.links: Final[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of an anchor's href; entities in it are resolved already."""
        if tag == "a":
            self.links.extend(value for name, value in attrs if name == "href" and value)


def _name_below(base: urllib.parse.SplitResult, link: str) -> tuple[str, bool]:
    """Return the name that a link means directly below base, "" if none, and whether it is a directory."""
    try:
        target = urllib.parse.urlsplit(urllib.parse.urljoin(base.geturl(), link.strip()))
    except ValueError:
        return "", False
    if target.netloc != base.netloc or target.query or target.fragment:
        return "", False
    folder = urllib.parse.unquote(base.path, errors="surrogateescape")
    full = urllib.parse.unquote(target.path, errors="surrogateescape")
    if not full.startswith(folder):
        return "", False
    # A slash that was encoded is in no name of a file system; it would lead elsewhere.
    name = full[len(folder) :].removesuffix("/")
    is_name = name not in ("", ".", "..") and "/" not in name and "\0" not in name
    return (name, full.endswith("/")) if is_name else ("", False)
