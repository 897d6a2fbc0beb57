"""Pages of listings: the quick way of reading them says what a parser says, or leaves it to the parser."""

from __future__ import annotations

from collections.abc import Callable
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.ufs._s3_errors import Failed
from forebay.ufs._s3_names import Key, is_marker, is_path
from forebay.ufs._s3_pages import Page, read_page
from forebay.ufs._s3_scan import described
from forebay.ufs.base import ObjectInfo

MODIFIED_S = 1_700_000_000
NAMESPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def entry(key: str, size: int = 3, etag: str = '"tag"', more: str = "") -> str:
    return (
        f"<Contents><Key>{escape(key)}</Key><LastModified>2023-11-14T22:13:20.000Z</LastModified>"
        f"<ETag>{escape(etag, {chr(34): '&quot;'})}</ETag>{more}<Size>{size}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
    )


def document(content: str, *, namespace: str = NAMESPACE, head: str = "") -> bytes:
    listing = f"<ListBucketResult{namespace}>{head}{content}</ListBucketResult>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{listing}'.encode()


def keys_of(page: Page) -> list[Key]:
    return page.keys


@pytest.mark.parametrize(
    "write",
    [
        lambda key: entry(key),
        lambda key: entry(key).replace("><", ">\n   <"),
        lambda key: entry(key, more="<ChecksumAlgorithm>CRC32</ChecksumAlgorithm>"),
        lambda key: entry(key).replace(
            "STANDARD", "X</StorageClass><Owner><ID>1</ID></Owner><StorageClass>Y"
        ),
        # From here on for the parser.
        lambda key: (
            f"<Contents><Size>3</Size>{entry(key)[len('<Contents>') :].replace('<Size>3</Size>', '')}"
        ),
        lambda key: entry(key).replace("<Key>", "<Key><!-- a remark -->"),
        lambda key: entry(key).replace("tag", "&#116;ag"),
        lambda key: entry(key).replace("<Contents>", '<Contents id="1">'),
        lambda key: entry(key) + "<CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes>",
    ],
)
@pytest.mark.parametrize("namespace", [NAMESPACE, ""])
def test_every_way_of_writing_is_read_alike(write: Callable[[str], str], namespace: str) -> None:
    page = read_page(document(write("a/b") + write("c<&>d") + write("e"), namespace=namespace))
    assert keys_of(page) == [Key(key, 3, MODIFIED_S, "tag") for key in ("a/b", "c<&>d", "e")]


@given(st.lists(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1), max_size=5))
def test_keys_come_as_they_are(keys: list[str]) -> None:
    assert [key.key for key in keys_of(read_page(document("".join(map(entry, keys)))))] == keys


USUAL = {
    "Key": ["a", "a/b", "ü", "a b"],
    "LastModified": ["2023-11-14T22:13:20.000Z", "2023-11-14T22:13:21Z"],
    "ETag": ["&quot;tag&quot;", '"tag"', "tag", "&quot;&quot;", '"a"b"'],
    "Size": ["0", "17", "1" * 18],
}
ODD = [
    "",
    " 5",
    "1" * 19,
    "-1",
    "a\rb",
    "a&amp;b",
    "&quot;a&quot;b&quot;",
    "&#65;",
    "<!--x-->",
    "<Key>k</Key>",
]
ODD_BETWEEN = ["text", "<!-- <Size>1</Size> -->", "<Owner/>", "<Size>1</Size>", "<A><A>1</A></A>"]


def write_objects(odd: list[str], odd_between: list[str]) -> st.SearchStrategy[str]:
    """Write an object as servers do, or one of its elements in some odd way."""
    elements = [
        st.sampled_from(
            [f"<{name}>{text}</{name}>" for text in texts] * (2 if odd else 1)
            + [f"<{name}>{text}</{name}>" for text in odd]
            + (["", f"<{name}/>", f"<{name} a='1'>3</{name}>"] if odd else [])
        )
        for name, texts in USUAL.items()
    ]
    between = st.sampled_from(["", " \n", "<Owner><ID>1</ID></Owner>", "<StorageClass>X</StorageClass>"])
    return st.tuples(
        st.tuples(*elements).flatmap(st.permutations), st.one_of(between, st.sampled_from(odd_between))
    ).map(lambda parts: f"<Contents>{parts[1].join(parts[0])}</Contents>")


usual = st.lists(st.one_of(write_objects([], [""]), st.just("\n")))
odd = st.lists(
    st.one_of(
        write_objects([], [""]),
        write_objects(ODD, ODD_BETWEEN),
        st.sampled_from(["<IsTruncated>true</IsTruncated>", "<!--<Contents>-->"]),
    )
)


@settings(max_examples=300)
@given(st.one_of(usual, odd))
def test_what_is_scanned_is_what_a_parser_finds(content: list[str]) -> None:
    def read() -> Page | str:
        try:
            return read_page(document("".join(content)))
        except Failed as failed:
            return str(failed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("forebay.ufs._s3_pages.scan", lambda *_: None)
        parsed = read()
    assert read() == parsed


@given(st.lists(st.tuples(st.text("a./\0ü", max_size=6), st.integers(0, 1)), unique=True))
def test_what_a_path_can_name_is_described(keys: list[tuple[str, int]]) -> None:
    infos, hidden_count = described([Key(f"p/{name}", size, 3, "v") for name, size in keys], 2, "d/")
    shown = [(name, size) for name, size in keys if is_path(name)]
    assert infos == [ObjectInfo(f"d/{name}", size, 3 * 10**9, "v") for name, size in shown]
    assert hidden_count == sum(not is_path(name) and not is_marker(name, size) for name, size in keys)


def test_times_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(Failed, match="cannot be read"):
        read_page(document(entry("a").replace("2023-11-14T22:13:20.000Z", "yesterday")))


def test_encoded_keys_are_decoded() -> None:
    head = "<EncodingType>url</EncodingType>"
    content = entry("a+b%2Bc%25%0A") + "<CommonPrefixes><Prefix>p+q%2F</Prefix></CommonPrefixes>"
    page = read_page(document(content, head=head))
    assert [key.key for key in page.keys] == ["a b+c%\n"]
    assert page.prefixes == ["p q/"]


@pytest.mark.parametrize(("truncated", "token"), [("true", "next"), ("false", "")])
def test_what_follows_is_read_wherever_it_stands(truncated: str, token: str) -> None:
    flags = f"<IsTruncated>{truncated}</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
    for content in (flags + entry("a"), entry("a") + flags, entry("a") + flags + entry("b"), flags):
        page = read_page(document(content))
        assert (page.truncated, page.token) == (truncated == "true", token)


def test_an_object_without_an_etag_has_a_version_all_the_same() -> None:
    (key,) = keys_of(read_page(document(entry("a", etag=""))))
    assert key.version == f"mtime-{MODIFIED_S}-3"


def test_an_entry_without_a_size_is_refused() -> None:
    with pytest.raises(Failed, match="cannot be read"):
        read_page(document(entry("a").replace("<Size>3</Size>", "")))


def test_a_page_that_breaks_off_is_refused() -> None:
    for length in (1, 50, 200, 350):
        with pytest.raises(Failed, match="cannot be read"):
            read_page(document(entry("a"))[:-length])
