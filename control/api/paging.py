"""Pages of lists: how much one holds, and its JSON, made where the page is read and not on the event loop."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec
from pydantic import BaseModel, Field

from schemas.api import Page, Pagination

PAGE_BYTES = 1024 * 1024
"""A page that holds as much is full, whatever `limit` says: the last item may pass it."""

Item = TypeVar("Item")
Shown = TypeVar("Shown", bound=BaseModel)


class EncodedPage(Page[Shown]):
    """A page whose items are JSON already; `items` is empty."""

    encoded_items: bytes = Field(exclude=True)

    @property
    def encoded(self) -> dict[str, object]:
        """Return the body as what msgspec writes."""
        return {"items": msgspec.Raw(self.encoded_items), "pagination": self.pagination.model_dump()}


def filled(
    found: Iterable[Item],
    limit: int,
    body: Callable[[Item], Shown],
    cursor: Callable[[Item], str],
    *,
    at_end: Callable[[Item | None], str | None] = lambda _: None,
) -> Page[Shown]:
    """Return a page of at most `limit` of the items found, in their order; fewer where they fill PAGE_BYTES.

    `found` yields at least one item more than `limit` where there is one. `at_end` gives the cursor of a list's last
    page from its last item, None where it has none. Encodes: for a thread, not for the event loop.
    """
    parts: list[bytes] = []
    size = 0
    last: Item | None = None
    for item in found:
        if last is not None and (len(parts) == limit or size >= PAGE_BYTES):
            return _page(parts, Pagination(has_more=True, cursor=cursor(last)))
        parts.append(body(item).model_dump_json(exclude_unset=True).encode())
        size += len(parts[-1])
        last = item
    return _page(parts, Pagination(has_more=False, cursor=at_end(last)))


def _page(parts: list[bytes], pagination: Pagination) -> Page[Shown]:
    return EncodedPage(items=(), pagination=pagination, encoded_items=b"[" + b",".join(parts) + b"]")
