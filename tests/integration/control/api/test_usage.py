"""Usage and prices over the API: sums of the daily tables, lines, pages, CSV, walls between tenants (contract 2.5)."""

import csv
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from control.store import snapshot
from metering.store import transaction
from runtime.database.engines import Database
from schemas.config import ConfigChange, ConfigKind, PriceRecord
from schemas.money import Price
from schemas.usage import UsageEvent
from tests.integration.control import helpers
from tests.integration.control.helpers import Lab
from tests.unit.metering.factories import NOON, SLUG, HandClock, batch, correction, event, key

PATH = "/v1/gateway/usage"
PRICES = "/v1/gateway/prices"
DAY = str(NOON.date())
NEXT = str((NOON + timedelta(days=1)).date())


def price(from_: str = "2025-01-01", customer: str | None = None, **rates: str) -> dict[str, Any]:
    given = {"input": "1000000", "cached_input": "0", "output": "0", "request": "0", "currency": "EUR"} | rates
    return {"slug": SLUG, "external_entity_id": customer, "from": from_, **given}


def count(database: Database, *events: UsageEvent) -> None:
    database.write_now(lambda connection: transaction.apply(connection, batch(events), HandClock(NOON)))


async def used(lab: Lab, **query: str) -> list[dict[str, Any]]:
    answer = await lab.client.get(PATH, params={"from": DAY, "to": NEXT, **query})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


@pytest.fixture
def filled(database: Database, lab: Lab, other: Lab) -> None:
    """Two customers over two days, a correction of the first day's event on the second day, and another lab's event."""
    late = NOON + timedelta(days=1)
    count(
        database,
        event(1, workspace_id=lab.id),
        event(2, workspace_id=lab.id, group_id="group-b", api_key_prefix="sky_another"),
        event(3, workspace_id=lab.id, timestamp=late),
        correction(4, workspace_id=lab.id, timestamp=late, corrects=key(1)),
        event(5, workspace_id=other.id, group_id="group-c"),
    )


async def test_sums_are_the_labs_own_with_corrections_apart(filled: None, lab: Lab) -> None:
    (line,) = await used(lab)
    assert line == {
        "requests": 3,
        "input_tokens": 30,
        "output_tokens": 15,
        "cached_input_tokens": 6,
        "corrections": 1,
        "corrected_input_tokens": -3,
        "corrected_output_tokens": -1,
        "currency": None,
        "amount": None,
    }
    assert (await used(lab, to=DAY))[0]["requests"] == 2


async def test_lines_are_told_apart_by_what_is_asked_for(filled: None, lab: Lab) -> None:
    lines = await used(lab, group_by="customer,day")
    assert [(line["customer"], line["day"], line["requests"]) for line in lines] == [
        ("customer of group-a", DAY, 1),
        ("customer of group-a", NEXT, 1),
        ("customer of group-b", DAY, 1),
    ]
    lines = await used(lab, group_by="model,group")
    assert [(line["model"], line["group"]) for line in lines] == [(SLUG, "group-a"), (SLUG, "group-b")]


async def test_a_key_says_when_it_was_last_used_by_a_request(filled: None, lab: Lab) -> None:
    lines = await used(lab, group_by="key")
    assert [(line["key"], line["requests"], line["corrections"]) for line in lines] == [
        ("sky_abcdefghijkl", 2, 1),
        ("sky_another", 1, 0),
    ]
    assert [line["last_used_at"] for line in lines] == [f"{NEXT}T12:00:00.000Z", f"{DAY}T12:00:00.000Z"]


@pytest.mark.parametrize("by", ["model", "model,key"])
async def test_a_change_of_price_splits_the_line_and_a_correction_takes_its_events_price(
    filled: None, lab: Lab, by: str
) -> None:
    old, new = price(), price(NEXT, input="10000000")
    assert (await lab.client.put(PRICES, json=[old, new])).status_code == 200
    lines = [line for line in await used(lab, group_by=by) if line.get("key") != "sky_another"]
    events = 2 if by == "model" else 1
    assert [line["price"]["from"] for line in lines] == ["2025-01-01", NEXT]
    assert [(line["requests"], line["corrections"]) for line in lines] == [(events, 1), (1, 0)]
    # 8 of each event's 10 input tokens are not cached; the correction takes 3 back at the first day's price.
    assert [line["amount"] for line in lines] == [f"{events * 8 - 3}.00", "80.00"]


async def test_without_a_model_lines_are_cut_by_currency_alone(filled: None, lab: Lab) -> None:
    own = price(customer="customer of group-b", currency="JPY")
    await lab.client.put(PRICES, json=[price(), price(NEXT, input="2"), own])
    lines = await used(lab)
    assert {(line["currency"], line["amount"]) for line in lines} == {("EUR", "5.00"), ("JPY", "8")}
    assert all("price" not in line for line in lines)


async def test_pages_hold_every_line_once_also_where_one_place_has_several(filled: None, lab: Lab) -> None:
    await lab.client.put(PRICES, json=[price(), price(NEXT, input="2")])
    whole = await used(lab, group_by="model,customer")
    assert len(whole) == 3
    found, query = [], {"from": DAY, "to": NEXT, "group_by": "model,customer", "limit": "1"}
    while True:
        answer = (await lab.client.get(PATH, params=query)).json()
        found += answer["items"]
        if not answer["pagination"]["has_more"]:
            break
        query = {"cursor": answer["pagination"]["cursor"], "limit": "1"}
    assert found == whole


async def test_csv_has_all_lines_and_nothing_a_spreadsheet_calculates(database: Database, lab: Lab) -> None:
    count(database, event(1, workspace_id=lab.id, external_entity_id='=1+1,"x"'))
    answer = await lab.client.get(PATH, params={"from": DAY, "to": DAY, "group_by": "customer", "format": "csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    (line,) = csv.DictReader(answer.text.splitlines())
    assert (line["customer"], line["requests"], line["amount"]) == ('\'=1+1,"x"', "1", "")
    described = (await lab.client.get("/schema/openapi.json")).json()["paths"][PATH]["get"]["responses"]["200"]
    example = described["content"]["text/csv"]["example"]
    assert example.splitlines()[0] == answer.text.splitlines()[0].replace("customer", "customer,model")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"from": "2025-03-02", "to": "2025-03-01"}, "to"),
        ({"from": "2023-01-01", "to": "2025-03-01"}, "to"),
        ({"from": "20250301"}, "from"),
        ({"to": "today"}, "to"),
        ({"group_by": "day,day"}, "group_by"),
        ({"group_by": "hour"}, "group_by"),
        ({"format": "xml"}, "format"),
        ({"from_": DAY}, "from_"),
        ({"cursor": "AAAA"}, "cursor"),
    ],
)
async def test_a_wrong_question_is_refused_by_name(lab: Lab, query: dict[str, str], param: str) -> None:
    answer = await lab.client.get(PATH, params=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ([price(input="1.2.3")], "[0].input"),
        ([price(input="-1")], "[0].input"),
        ([price(currency="eur")], "[0].currency"),
        ([price(from_="soon")], "[0].from"),
        ([price() | {"input": 1.5}], "[0].input"),
        ([price(), price(input="2")], None),
        ([price() | {"per": "token"}], "[0].per"),
        ({}, None),
    ],
)
async def test_prices_that_cannot_be_are_refused(lab: Lab, body: Any, param: str | None) -> None:
    answer = await lab.client.put(PRICES, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


async def test_prices_are_kept_as_they_were_sent_and_are_the_labs_own(lab: Lab, other: Lab) -> None:
    sent = [price(), price(NEXT, "cust", input="0.15")]
    assert (await lab.client.put(PRICES, json=sent)).json() == sent
    assert (await lab.client.get(PRICES)).json() == sent
    assert (await other.client.get(PRICES)).json() == []
    assert (await lab.client.put(PRICES, json=[])).json() == []


async def test_the_proxies_are_told_of_each_price_that_came_changed_or_went_and_of_no_other(
    lab: Lab, database: Database
) -> None:
    first = [price(), price(NEXT), price(customer="cust")]
    await lab.client.put(PRICES, json=first)
    told = [change for change in helpers.changes(database) if change.kind is ConfigKind.PRICE]
    assert held(told) == sorted_prices(first)
    version = max(change.version for change in told)

    second = [price(), price(NEXT, input="7"), price(customer="another")]
    await lab.client.put(PRICES, json=second)
    later = [change for change in helpers.changes(database) if change.version > version]
    assert held(later) == sorted_prices(second[1:])
    (gone,) = [change.id for change in later if change.record is None]
    assert [held([change]) for change in told if change.id == gone] == [sorted_prices(first[2:])]
    assert database.read_now(lambda view: held(snapshot.snapshot(view)[1])) == sorted_prices(second)


def held(changes: Iterable[ConfigChange]) -> list[Price]:
    """Return the prices that changes bring."""
    return sorted((change.record.price for change in changes if isinstance(change.record, PriceRecord)), key=str)


def sorted_prices(some: list[dict[str, Any]]) -> list[Price]:
    return sorted(map(Price.model_validate, some), key=str)
