"""Every link within the documentation leads to a file that is there, and to a heading of it."""

import re
from pathlib import Path

import pytest

from tests.architecture import sources

PAGES = [path for path in sources.files() if path.suffix == ".md"]
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`[^`\n]*`")


def text_of(path: Path) -> str:
    """Return a page's text without its blocks of code."""
    return FENCE.sub("", (sources.ROOT / path).read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """Return what links may name of a page: its headings, as GitHub writes them."""
    headings = HEADING.findall(text_of(path))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(SPAN.sub("", text_of(page))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page if not name else Path(*(page.parent / name).parts)
        found = (sources.ROOT / target).resolve()
        assert found.exists(), link
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found.relative_to(sources.ROOT)), link
