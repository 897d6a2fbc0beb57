"""Listings page by page, each page checked for being the next one: they never just end early."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from forebay.errors import under_storage_error
from forebay.ufs import _s3_pages
from forebay.ufs._s3_errors import broken
from forebay.ufs._s3_pages import Page
from forebay.ufs._s3_tries import Tries

if TYPE_CHECKING:
    from forebay.ufs._s3_boto import BotoClient

# A server may answer pages without anything on them, but not for ever.
_EMPTY_PAGES_MAX: Final = 1_000
_LEVELS_MAX: Final = 16


class Listing:
    """What lies under one prefix of a bucket. Threads: any."""

    def __init__(
        self,
        client: Callable[[], BotoClient],
        tries: Callable[[], Tries],
        uri: str,
        prefix: str,
        delimiter: str = "",
        slot: AbstractContextManager[object] | None = None,
    ) -> None:
        """List what begins with the prefix; with a delimiter, one level of it.

        uri is for messages. slot is held during each request, and not while its answer is read.
        """
        self._client: Final = client
        self._tries: Final = tries
        self.uri: Final = uri
        self.prefix: Final = prefix
        self._slot: Final = slot if slot is not None else nullcontext()
        self._query: Final = {
            name: value for name, value in (("Prefix", prefix), ("Delimiter", delimiter)) if value
        }

    def common_prefixes(self) -> list[str]:
        """Return the names one level below that hold all keys, up to a page of them.

        While there is only one it is gone down into.
        """
        prefix = self.prefix
        for _ in range(_LEVELS_MAX):
            page = self._page(Prefix=prefix, Delimiter="/")
            if page.keys or page.truncated or len(page.prefixes) != 1:
                return page.prefixes
            prefix = page.prefixes[0]
        return []

    def first_keys(self, count: int) -> list[str]:
        """Return the first keys, so many at most."""
        return [key for key, *_ in self._page(MaxKeys=count).keys]

    def pages(self, start_after: str = "") -> Iterator[Page]:
        """Yield the pages from the first key behind start_after on.

        Raises: UnderStorageError (a page that is cut short or leads back), and as ``UnderStorage.list``.
        """
        query: dict[str, Any] = {"StartAfter": start_after} if start_after else {}
        tokens: set[str] = set()
        empty_count = 0
        while True:
            page = self._page(**query)
            yield page
            if not page.truncated:
                return
            empty_count = 0 if page.keys or page.prefixes else empty_count + 1
            if not page.token or page.token in tokens or empty_count > _EMPTY_PAGES_MAX:
                raise under_storage_error(self.uri, "the listing was cut short: no new continuation token")
            tokens.add(page.token)
            query["ContinuationToken"] = page.token

    def _page(self, **query: Any) -> Page:
        def ask() -> Page:
            with self._slot:
                body = self._client().call("list_objects_v2", **(self._query | query)).get(_s3_pages.BODY)
            if body is None:
                raise broken("the answer is no listing")
            return _s3_pages.read_page(body)

        return self._tries().run(ask)
