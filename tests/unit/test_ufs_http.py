"""What is read from a web server's index page and from the head of a response."""

from __future__ import annotations

import pytest

from forebay.ufs._http_head import Head, is_strong_tag
from forebay.ufs._http_index import names_on_index

URL = "http://host:8080/data/my%20set/"

PYTHON = """<!DOCTYPE HTML><html lang="en"><head><title>Directory listing for /data/</title></head><body>
<h1>Directory listing</h1><hr><ul>
<li><a href="a%20b.bin">a b.bin</a></li>
<li><a href="sub/">sub/</a></li>
<li><a href="link">link@</a></li>
<li><a href="%C3%BC%26%3F%23.txt">&uuml;&amp;?#.txt</a></li>
</ul><hr></body></html>"""

NGINX = """<html><head><title>Index of /data/</title></head><body><h1>Index of /data/</h1><hr><pre>
<a href="../">../</a>
<a href="sub/">sub/</a>                          22-Nov-2026 08:00          -
<a href="a%20b.bin">a b.bin</a>                  22-Nov-2026 08:00        123
</pre></body></html>"""

APACHE = """<html><head><title>Index of /data/my set</title></head><body><table>
<tr><th><a href="?C=N;O=D">Name</a></th><th><a href="?C=M;O=A">Last modified</a></th></tr>
<tr><td><a href="/data/">Parent Directory</a></td></tr>
<tr><td><a href='a%20b.bin'>a b.bin</a></td><td>123</td></tr>
<tr><td><a href="R&amp;D.txt">R&amp;D.txt</a></td></tr>
<tr><td><a href="/data/my%20set/sub/">sub/</a></td></tr></table></body></html>"""

CADDY = """<html><body><a href="./a%20b.bin"><span>a b.bin</span></a><a href="./sub/">sub</a>
<a href="https://caddyserver.com/">Caddy</a><a href="./?sort=name">Name</a><a href="#top">top</a></body>"""


@pytest.mark.parametrize(
    ("html", "more"),
    [
        (PYTHON, {"link": False, "ü&?#.txt": False}),
        (NGINX, {}),
        (APACHE, {"R&D.txt": False}),
        (CADDY, {}),
    ],
    ids=["python", "nginx", "apache", "caddy"],
)
def test_the_pages_of_known_servers_are_read(html: str, more: dict[str, bool]) -> None:
    assert names_on_index(html, URL) == {"a b.bin": False, "sub": True} | more


@pytest.mark.parametrize(
    "link",
    [
        "..",
        "../",
        "./",
        "",
        "/",
        "sub/deeper",
        "../other/file",
        "sub/../../../etc/passwd",
        "%2e%2e/",
        "a%2fb",
        "..%2f..%2fetc",
        "a%00b",
        "http://elsewhere/data/my%20set/file",
        "//elsewhere/data/my%20set/file",
        "javascript:alert(1)",
        "mailto:a@b",
        "file?x=1",
        "http://[broken/",
    ],
)
def test_a_link_that_names_nothing_here_is_passed_over(link: str) -> None:
    assert names_on_index(f'<a href="{link}">x</a>', URL) == {}


def test_what_is_no_html_has_no_names() -> None:
    assert names_on_index("\0\1\2<a href=<<<", URL) == {}
    assert names_on_index('{"href": "a"}', URL) == {}


def test_a_name_that_is_not_utf_8_is_kept() -> None:
    assert names_on_index('<a href="%FF">x</a>', URL) == {"\udcff": False}


def test_both_a_file_and_a_directory_is_a_file() -> None:
    for html in ('<a href="a">a</a><a href="a/">a/</a>', '<a href="a/">a/</a><a href="a">a</a>'):
        assert names_on_index(html, URL) == {"a": False}


@pytest.mark.parametrize(
    ("status", "headers", "size"),
    [
        (200, {"Content-Length": "5"}, 5),
        (200, {"Content-Length": "5", "Content-Encoding": "identity"}, 5),
        (200, {"Content-Length": "5", "Content-Encoding": "gzip"}, None),
        (200, {}, None),
        (200, {"Content-Length": "-5"}, None),
        (200, {"Content-Length": "\u0665"}, None),
        (200, {"Content-Length": "9" * 30}, None),
        (206, {"Content-Length": "1", "Content-Range": "bytes 0-0/77"}, 77),
        (206, {"Content-Length": "1", "Content-Range": "bytes 0-0/*"}, None),
        (206, {"Content-Length": "1"}, None),
        (416, {"Content-Range": "bytes */0"}, 0),
    ],
)
def test_the_size_of_an_object(status: int, headers: dict[str, str], size: int | None) -> None:
    assert Head(status, headers, URL).size == size


DATE = "Sun, 22 Nov 2026 08:00:01 GMT"
LATER = "Sun, 22 Nov 2026 08:00:02 GMT"


@pytest.mark.parametrize(
    ("headers", "version", "is_tag"),
    [
        ({"ETag": '"abc-1"', "Last-Modified": DATE, "Date": DATE}, "abc-1", True),
        ({"ETag": 'W/"abc"', "Date": LATER}, "W/abc", False),
        ({"Last-Modified": DATE, "Date": LATER}, "1795334401000000000-5", False),
        ({"Last-Modified": DATE, "Date": DATE}, "1795334401000000000-5~", False),
        ({"Last-Modified": "never"}, "untracked-5", False),
        ({}, "untracked-5", False),
    ],
)
def test_the_version_of_an_object(headers: dict[str, str], version: str, is_tag: bool) -> None:
    assert Head(200, headers, URL).info("a", 5).version == version
    assert is_strong_tag(version) == is_tag
