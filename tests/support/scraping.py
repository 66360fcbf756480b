"""What processes show at `/metrics`, and what the documentation says of it."""

import re
from collections.abc import Iterator

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.architecture import sources

ROLES = ("embedded", "control", "proxy", "metering", "webhooks")
_ROW = re.compile(r"^\| `(\w+)` \|[^|]*\| ([\w, ]+) \|", re.MULTILINE)
_TYPE = re.compile(r"^# TYPE (\S+) ", re.MULTILINE)

Samples = dict[tuple[str, str], float]
"""By the sample's name and the value of its one label, empty where it has none."""


def text(url: str) -> str:
    """Scrape the process whose operator's port is at `url`."""
    answer = httpx.get(f"{url}/metrics", timeout=10)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return answer.text


def names(scraped: str) -> set[str]:
    """Return the metrics' names."""
    return set(_TYPE.findall(scraped))


def samples(scraped: str) -> Samples:
    """Return every number."""
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(scraped)
        for sample in family.samples
    }


def documented() -> dict[str, set[str]]:
    """Return, by role, the names that docs/metrics.md says it shows."""
    rows = list(_rows())
    return {role: {name for name, where in rows if "all" in where or role in where} for role in ROLES}


def _rows() -> Iterator[tuple[str, set[str]]]:
    page = (sources.ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name, where in _ROW.findall(page):
        shown_by = set(where.split(", "))
        assert shown_by <= {"all", *ROLES}, f"{name}: {where}"
        yield name, shown_by
