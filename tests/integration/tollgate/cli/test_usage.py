"""`tollgate usage` over a data directory: the same sums as the ledger's export, prices of a file, trees."""

import csv
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from control.store.tables import GROUPS
from runtime.clock import steady
from runtime.database import engines
from tests.integration.tollgate.cli.test_events import data, invoke, today
from tests.unit.metering.factories import SLUG
from tollgate import installation
from tollgate.cli.usage import _days

__all__ = ["data"]

PRICES = f"""
[[prices]]
slug = "{SLUG}"
from = 2020-01-01
currency = "EUR"
input = "1000000"
cached_input = "0"
output = "0.5"
request = "0.001"
"""


def lines(data: Path, *words: str) -> list[dict[str, object]]:
    said = invoke("usage", "--from", today(), "--to", today(), "--data", str(data), "--json", *words)
    return [json.loads(line) for line in said.splitlines()]


def test_it_sums_the_day_that_export_writes(data: Path) -> None:
    (line,) = lines(data, "--by", "customer,model")
    rows = list(csv.DictReader(invoke("export", "--day", today(), "--data", str(data)).splitlines()))
    usage = [row for row in rows if row["kind"] == "usage"]
    assert (line["workspace"], line["customer"], line["model"]) == ("lab", "customer of group-a", SLUG)
    assert line["input_tokens"] == sum(int(row["input_tokens"]) for row in usage)
    assert (line["corrections"], line["corrected_output_tokens"]) == (len(rows) - len(usage), -1)


def test_a_file_of_prices_is_taken_in_place_of_the_stored(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(PRICES, encoding="utf-8")
    (line,) = lines(data, "--prices", str(file))
    # 5 events of 8 uncached input tokens, 5 output tokens and a request each; 3 and 1 tokens are taken back.
    assert (line["currency"], line["amount"]) == ("EUR", "37.01")
    shown = invoke("usage", "--from", today(), "--prices", str(file), "--data", str(data))
    assert "37.01" in shown
    assert SLUG in shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PRICES.replace('"0.5"', "0.5"), "prices.0.output"),
        (PRICES.replace("slug", "slugs"), "prices.0.slug"),
        ("[[price]]", "only [[prices]]"),
        ("prices = 5", "prices"),
        ("[[", "prices.toml"),
    ],
)
def test_a_wrong_file_is_one_line(data: Path, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text, encoding="utf-8")
    error = invoke("usage", "--prices", str(file), "--data", str(data), code=1)
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_a_parents_line_sums_its_children_also_after_it_was_deleted(data: Path) -> None:
    now = steady()()
    with engines.sqlite(data / installation.DATABASE_FILE) as opened:
        (line,) = lines(data)
        lab = json.loads(invoke("usage", "--by", "group", "--from", today(), "--data", str(data), "--json"))
        assert lab["group"] == "group-a"
        kept: dict[str, Any] = {
            "workspace_id": opened.read_now(_workspace),
            "name": None,
            "limit_enforcement": "INDEPENDENT",
        }
        kept |= {"models": [], "created_at": now, "updated_at": now, "root_id": "top"}
        top: dict[str, Any] = {
            "id": "top",
            "external_entity_id": "the firm",
            "parent_group_id": None,
            "depth": 0,
            "ancestor_ids": [],
        }
        child: dict[str, Any] = {
            "id": "group-a",
            "external_entity_id": line["customer"],
            "parent_group_id": "top",
            "depth": 1,
        }
        rows = [kept | top | {"deleted_at": now}, kept | child | {"ancestor_ids": ["top"], "deleted_at": None}]
        opened.write_now(lambda connection: connection.execute(insert(GROUPS), rows))
    found = lines(data, "--tree", "--by", "customer")
    assert [(line["customer"], line["requests"]) for line in found] == [("customer of group-a", 5), ("the firm", 5)]


def _workspace(connection: Connection) -> str:
    return str(connection.exec_driver_sql("SELECT id FROM workspaces").scalar_one())


def test_a_month_is_all_its_days() -> None:
    assert _days(steady()().replace(year=2024, month=2, day=1), None, None) == (date(2024, 2, 1), date(2024, 2, 29))


@pytest.mark.parametrize(
    "words",
    [
        ("--by", "hour"),
        ("--by", "day,day"),
        ("--tree", "--by", "day"),
        ("--month", "2026-11", "--to", "2026-11-02"),
    ],
)
def test_wrong_words_are_refused(data: Path, words: tuple[str, ...]) -> None:
    assert "Usage:" in invoke("usage", *words, "--data", str(data), code=2)


def test_days_that_are_no_stretch_are_refused(data: Path) -> None:
    said = invoke("usage", "--from", "2026-02-02", "--to", "2026-02-01", "--data", str(data), code=1)
    assert said.strip() == "Error: to: must not be before from"
