"""The list of events: requests as they end, marked until the ledger has them."""

import html
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from control.console import events
from control.store import requests
from metering.store import transaction
from runtime.database.engines import Database
from schemas.monitoring.requests import RequestEnd, RequestRecord
from schemas.usage import UsageEvent
from tests.integration.control.console.people import Person, said
from tests.integration.control.helpers import Lab
from tests.support.request_records import refused
from tests.unit.metering.factories import NOON, HandClock, batch, event

EVENTS = "/console/events?from=2025-01-01T00:00"


def cut_short(record: RequestRecord) -> RequestRecord:
    return record.model_copy(
        update={"ended": RequestEnd.FAILED, "status": 200, "reason": "client_disconnected", "is_billed": True}
    )


def counted(number: int, record: RequestRecord, **fields: str) -> UsageEvent:
    given: dict[str, Any] = {
        "workspace_id": str(record.workspace_id),
        "external_entity_id": "cust",
        "group_id": "g",
        **fields,
    }
    return event(number, timestamp=record.at, request_id=record.request_id, **given)


def keep(database: Database, records: list[RequestRecord], counted: list[UsageEvent]) -> None:
    def write(connection: Connection) -> None:
        requests.add(connection, records)
        if counted:
            transaction.apply(connection, batch(counted), HandClock(NOON))

    database.write_now(write)


async def test_a_request_is_marked_until_the_ledger_has_it_and_then_shown_once(
    signed_in: Person, lab: Lab, database: Database
) -> None:
    await lab.endpoint("acme/m")
    group = await lab.made_group("cust", {"slug": "acme/m"})
    record = cut_short(refused(NOON, lab.id, "", group["id"]))
    keep(database, [record], [])
    shown = said(await signed_in.get(EVENTS))
    assert "cust" in shown
    assert "client disconnected 0 ms not yet in the ledger" in shown
    keep(database, [], [counted(1, record)])
    page = await signed_in.get(EVENTS, **{"HX-Target": "events"})
    assert "not yet in the ledger" not in page.text
    assert page.text.count("<tr>") == 2  # the heads of the columns, and the event
    assert "client disconnected" not in said(page)  # the event says how it ended


async def test_what_is_not_billed_is_shown_with_its_reason_to_its_own_lab(
    signed_in: Person, lab: Lab, other: Lab, database: Database
) -> None:
    keep(database, [refused(NOON, lab.id, "tokens_per_day"), refused(NOON, other.id, "very-secret")], [])
    page = await signed_in.get(EVENTS)
    assert "refused 429 tokens_per_day 0 ms not billed" in said(page)
    assert "very-secret" not in page.text


async def test_the_filters_choose_among_both(signed_in: Person, lab: Lab, database: Database) -> None:
    await lab.endpoint("acme/m")
    group = await lab.made_group("cust", {"slug": "acme/m"})
    own, of_another = refused(NOON, lab.id, "mine", group["id"]), refused(NOON, lab.id, "elsewhere")
    waiting = cut_short(refused(NOON, lab.id, "", group["id"]))
    keyed = own.model_copy(update={"api_key_prefix": "sky_first"})
    keep(database, [keyed, of_another, waiting], [counted(1, refused(NOON, lab.id, ""), api_key_prefix="sky_other")])
    marks = {"mine": "mine", "elsewhere": "elsewhere", "waiting": "not yet in the ledger", "counted": "sky_other"}
    for query, wanted in (
        ("", {"mine", "elsewhere", "waiting", "counted"}),
        ("customer=cust", {"mine", "waiting", "counted"}),
        ("customer=nobody", set()),
        ("key=sky_first", {"mine"}),
        ("shown=billed", {"waiting", "counted"}),
        ("shown=not_billed", {"mine", "elsewhere"}),
        ("to=2025-01-02T00:00", set()),
    ):
        page = (await signed_in.get(f"{EVENTS}&{query}")).text.partition('id="events"')[2]
        assert {name for name, mark in marks.items() if mark in page} == wanted, query
    assert (await signed_in.get(f"{EVENTS}&shown=nothing")).status_code == 400


async def test_pages_show_each_request_once_in_its_order(
    signed_in: Person, lab: Lab, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "ROWS", 2)
    at = [NOON - timedelta(seconds=each) for each in (0, 1, 1, 2, 3, 3, 4)]
    records = [refused(moment, lab.id, f"reason-{each}") for each, moment in enumerate(at)]
    billed = [cut_short(records[each]) for each in (1, 4)]
    kept = [billed[0], billed[1], *(records[each] for each in (0, 2, 3, 5, 6))]
    keep(database, kept, [counted(each, record) for each, record in enumerate(billed, start=1)])
    path, seen = EVENTS, ""
    for _ in range(4):
        page = await signed_in.get(path)
        assert page.status_code == 200
        seen += page.text.partition("<tbody>")[2].partition("</tbody>")[0]
        path = html.unescape(page.text.partition('class="more"><a class="button" href="')[2].partition('"')[0])
    assert path == ""
    assert "not yet in the ledger" not in seen
    reasons = [seen.index(f"reason-{each}") for each in (0, 2, 3, 5, 6)]
    assert reasons == sorted(reasons)
    assert seen.count("<tr>") == len(at)
