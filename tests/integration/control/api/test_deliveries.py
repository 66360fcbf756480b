"""Deliveries over the API: what is listed, how pages hold together, redeliver, redrive, walls between tenants."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from litestar import Litestar
from sqlalchemy import insert

from control import app as control_app
from runtime.database.engines import Database
from runtime.settings import Settings
from schemas.base import rfc3339
from schemas.billing import DeliveryStatus
from tests.integration.control import helpers
from tests.integration.control.helpers import VAULT, Lab
from tests.integration.control.rows import keep, row, statuses
from tests.unit.webhooks import kit
from tests.unit.webhooks.kit import HandClock
from webhooks.store import pages, redrive
from webhooks.store.tables import ATTEMPT

PATH = "/v1/gateway/deliveries"


@pytest.fixture
def clock() -> HandClock:
    return HandClock(kit.after(1000))


@pytest.fixture
def app(database: Database, clock: HandClock) -> Litestar:
    router = control_app.build(
        control_app.desk(database, VAULT, clock, Settings(webhook_redrive_per_s=2), helpers.at_once)
    )
    return Litestar([router], exception_handlers=control_app.UNROUTED, logging_config=None)


def mixed(lab: Lab) -> list[dict[str, Any]]:
    """Deliveries of every status; the order they ended in is not the one they were made in."""
    return [
        row(lab.id, "waits", "pending", made_s=1),
        row(lab.id, "arrived", "delivered", made_s=2, ended_s=9),
        row(lab.id, "lost-late", "dead", made_s=3, ended_s=30),
        row(lab.id, "lost-soon", "dead", made_s=4, ended_s=5),
        row(lab.id, "aside", "not_due", made_s=6, ended_s=6),
        row(lab.id, "lost-too", "dead", made_s=7, ended_s=5),
    ]


async def names(lab: Lab, **query: Any) -> list[str]:
    answer = await lab.client.get(PATH, params=query)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


async def test_a_delivery_is_shown_with_its_attempts(lab: Lab, database: Database) -> None:
    made = row(lab.id, "one", "dead", made_s=0, ended_s=15)
    keep(database, made | {"attempt_count": 2, "reason": "no success"})
    tries = [
        {"delivery_id": "one", "number": 1, "at": kit.START, "status_code": 500, "error": None, "duration_ms": 7},
        {
            "delivery_id": "one",
            "number": 2,
            "at": kit.after(1.25),
            "status_code": None,
            "error": "gone",
            "duration_ms": 9,
        },
    ]
    database.write_now(lambda connection: connection.execute(insert(ATTEMPT), tries))
    answer = await lab.client.get(PATH)
    assert answer.json() == {
        "items": [
            {
                "id": "one",
                "status": "dead",
                "reason": "no success",
                "created_at": rfc3339(kit.START),
                "event_count": 3,
                "next_attempt_at": None,
                "attempts": [
                    {"at": rfc3339(kit.START), "status_code": 500, "error": None, "duration_ms": 7},
                    {"at": rfc3339(kit.after(1.25)), "status_code": None, "error": "gone", "duration_ms": 9},
                ],
            }
        ],
        "pagination": {"has_more": False, "cursor": None},
    }


async def test_one_is_shown_with_its_body_and_what_each_attempt_was_answered(lab: Lab, database: Database) -> None:
    body = '{"type": "API_BILLING_USAGE", "data": {"events": [], "of": "Zoë"}}'
    keep(database, row(lab.id, "one", "pending", made_s=0) | {"attempt_count": 2, "body": body.encode()})
    refused = {"delivery_id": "one", "number": 1, "at": kit.START, "status_code": 500, "error": None, "duration_ms": 7}
    silent = refused | {"number": 2, "at": kit.after(1), "status_code": None, "error": "gone"}
    tries = [refused | {"answer": "no room: <b>\n\u202e"}, silent | {"answer": None}]
    database.write_now(lambda connection: connection.execute(insert(ATTEMPT), tries))
    (listed,) = (await lab.client.get(PATH)).json()["items"]
    answer = await lab.client.get(f"{PATH}/one")
    assert answer.status_code == 200, answer.text
    first, second = listed["attempts"]
    whole = [first | {"answer": "no room: <b>\n\u202e"}, second | {"answer": None}]
    assert answer.json() == listed | {"body": body, "attempts": whole}
    assert (await lab.client.get(f"{PATH}/nothing")).status_code == 404


async def test_of_very_many_attempts_the_last_are_shown(lab: Lab, database: Database) -> None:
    keep(database, row(lab.id, "one", "pending", made_s=0) | {"attempt_count": 120})
    tries = [
        {"delivery_id": "one", "number": n, "at": kit.after(n), "status_code": 500, "error": None, "duration_ms": 1}
        for n in range(1, 121)
    ]
    database.write_now(lambda connection: connection.execute(insert(ATTEMPT), tries))
    (item,) = (await lab.client.get(PATH)).json()["items"]
    assert [one["at"] for one in item["attempts"]] == [rfc3339(kit.after(n)) for n in range(71, 121)]
    assert pages.SHOWN_ATTEMPTS == 50


async def test_the_newest_come_first_and_a_status_goes_by_its_own_moment(lab: Lab, database: Database) -> None:
    keep(database, *mixed(lab))
    assert await names(lab) == ["lost-too", "aside", "lost-soon", "lost-late", "arrived", "waits"]
    assert await names(lab, status="dead") == ["lost-late", "lost-too", "lost-soon"]
    assert await names(lab, status="pending") == ["waits"]
    assert await names(lab, status="delivered") == ["arrived"]
    assert await names(lab, status="not_due") == ["aside"]


@pytest.mark.parametrize("status", [None, "dead", "pending"])
async def test_pages_hold_together_while_more_come(lab: Lab, database: Database, status: str | None) -> None:
    kind = status or "dead"
    ended = {} if kind == "pending" else {"ended_s": 50}
    made = [row(lab.id, f"one-{n:02}", kind, made_s=n // 3, **ended) for n in range(11)]
    keep(database, *made)
    query: dict[str, Any] = {"limit": 4} | ({"status": status} if status else {})
    seen: list[str] = []
    for step in range(4):
        page = (await lab.client.get(PATH, params=query)).json()
        seen += [item["id"] for item in page["items"]]
        late = {} if kind == "pending" else {"ended_s": 900 + step}
        keep(database, row(lab.id, f"new-{step}", kind, made_s=900 + step, **late))
        if not page["pagination"]["has_more"]:
            break
        query = {"limit": 4, "cursor": page["pagination"]["cursor"]}
    assert seen == [f"one-{n:02}" for n in reversed(range(11))]
    assert page["pagination"]["cursor"] is None


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"status": "lost"}, "status"),
        ({"limit": 0}, "limit"),
        ({"cursor": "e30"}, "cursor"),
        ({"cursor": "WyIyMDI2LTAxLTAxVDAwOjAwOjAwIiwiYSIsbnVsbF0"}, "cursor"),  # a time without a zone
        ({"cursor": "WyIwMDAxLTAxLTAxVDAwOjAwOjAwKzE0OjAwIiwiYSIsbnVsbF0"}, "cursor"),  # before the year 1 in UTC
    ],
)
async def test_a_wrong_query_names_the_field(lab: Lab, query: dict[str, Any], param: str) -> None:
    answer = await lab.client.get(PATH, params=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_cursor_belongs_to_its_status(lab: Lab, database: Database) -> None:
    keep(database, *mixed(lab))
    cursor = (await lab.client.get(PATH, params={"status": "dead", "limit": 1})).json()["pagination"]["cursor"]
    assert await names(lab, cursor=cursor, status="dead") == ["lost-too", "lost-soon"]
    answer = await lab.client.get(PATH, params={"cursor": cursor, "status": "pending"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "status")


async def test_redeliver_puts_one_back_whatever_became_of_it(lab: Lab, database: Database, clock: HandClock) -> None:
    keep(database, *mixed(lab))
    for name in ("arrived", "lost-late", "aside", "waits"):
        answer = await lab.client.post(f"{PATH}/{name}/redeliver")
        assert answer.status_code == 200, answer.text
        assert (answer.json()["id"], answer.json()["status"]) == (name, "pending")
    assert (await lab.client.post(f"{PATH}/lost-soon/redeliver")).json()["next_attempt_at"] == rfc3339(clock())
    assert statuses(database)["lost-too"] == "dead"
    noted = [entry for entry in helpers.audited(database) if entry.action == "delivery.redeliver"]
    assert [entry.subject for entry in noted] == ["arrived", "lost-late", "aside", "waits", "lost-soon"]
    assert {entry.actor for entry in noted} == {lab.api_key[:16]}


async def test_redrive_puts_back_what_ended_in_its_window_at_the_rate(
    lab: Lab, database: Database, clock: HandClock
) -> None:
    keep(database, *mixed(lab))
    window = {"from": rfc3339(kit.after(5)), "to": rfc3339(kit.after(30))}
    assert (await lab.client.post(f"{PATH}/redrive", json=window)).json() == {"count": 3}
    assert statuses(database) == {
        "waits": "pending",
        "arrived": "delivered",
        "lost-late": "dead",
        "lost-soon": "pending",
        "aside": "pending",
        "lost-too": "pending",
    }
    page = (await lab.client.get(PATH, params={"status": "pending"})).json()
    due = {item["id"]: item["next_attempt_at"] for item in page["items"]}
    assert [due[name] for name in ("lost-soon", "lost-too", "aside")] == [
        rfc3339(clock() + timedelta(seconds=step)) for step in (0, 0.5, 1)
    ]
    assert (await lab.client.post(f"{PATH}/redrive", json={})).json() == {"count": 1}
    assert (await lab.client.post(f"{PATH}/redrive", json={})).json() == {"count": 0}
    noted = [entry.after for entry in helpers.audited(database) if entry.action == "deliveries.redrive"]
    assert noted == [window, {"from": None, "to": rfc3339(clock())}]


async def test_a_redrive_of_thousands_is_many_transactions(
    lab: Lab, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(database, *(row(lab.id, f"lost-{n}", "dead", made_s=n / 100, ended_s=n / 100) for n in range(2300)))
    steps: list[int] = []
    real = redrive.redrive

    def counted(*arguments: Any, **named: Any) -> int:
        steps.append(real(*arguments, **named))
        return steps[-1]

    monkeypatch.setattr(redrive, "redrive", counted)
    assert (await lab.client.post(f"{PATH}/redrive", json={})).json() == {"count": 2300}
    assert steps == [500, 500, 500, 500, 300, 0]
    assert set(statuses(database).values()) == {"pending"}


async def test_redrives_at_once_put_each_back_once(lab: Lab, database: Database) -> None:
    keep(database, *(row(lab.id, f"lost-{n}", "dead", made_s=n / 100, ended_s=n / 100) for n in range(1200)))
    answers = await asyncio.gather(*(lab.client.post(f"{PATH}/redrive", json={}) for _ in range(3)))
    assert sum(answer.json()["count"] for answer in answers) == 1200
    assert set(statuses(database).values()) == {"pending"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"from": "yesterday"}, "from"),
        ({"from": "2026-01-01T00:00:00"}, "from"),
        ({"from": "0001-01-01T00:00:00+14:00"}, "from"),
        ({"to": "9999-12-31T23:59:59-14:00"}, "to"),
        ({"to": 5}, "to"),
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "to"),
        ({"from_": "2026-01-02T00:00:00Z"}, "from_"),
        ({"since": "2026-01-02T00:00:00Z"}, "since"),
    ],
)
async def test_a_wrong_window_names_the_field(lab: Lab, body: dict[str, Any], param: str) -> None:
    answer = await lab.client.post(f"{PATH}/redrive", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_deliveries_are_their_workspaces_alone(lab: Lab, other: Lab, database: Database) -> None:
    keep(database, *mixed(lab))
    before = statuses(database)
    assert await names(other) == []
    assert (await other.client.post(f"{PATH}/redrive", json={})).json() == {"count": 0}
    assert (await other.client.get(f"{PATH}/lost-late")).status_code == 403
    assert (await other.client.post(f"{PATH}/lost-late/redeliver")).status_code == 403
    assert (await other.client.post(f"{PATH}/nothing/redeliver")).status_code == 404
    cursor = (await lab.client.get(PATH, params={"limit": 1})).json()["pagination"]["cursor"]
    assert await names(other, cursor=cursor) == []
    assert statuses(database) == before


async def test_a_read_key_may_only_look(lab: Lab, app: Litestar, database: Database) -> None:
    keep(database, *mixed(lab))
    before = statuses(database)
    async with helpers.client(app, helpers.add_read_key(database, lab.id)) as reader:
        assert (await reader.get(PATH)).status_code == 200
        for path in (f"{PATH}/redrive", f"{PATH}/lost-late/redeliver"):
            assert (await reader.post(path, json={})).status_code == 403
    assert statuses(database) == before


@pytest.mark.parametrize("status", [None, "pending", "delivered", "dead", "not_due"])
def test_a_page_reads_an_index_never_the_table(database: Database, status: str | None) -> None:
    keep(database, *(row("ws", f"one-{n}", "dead", made_s=n, ended_s=n) for n in range(20)))
    window = pages.DeliveryQuery("ws", None if status is None else DeliveryStatus(status))
    plans: list[str] = []

    def explain(connection: Any) -> None:
        if connection.dialect.name == "postgresql":  # of so few rows it would read the table whatever the index
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        query = pages.query(window, pages.DeliveryPageStart(kit.after(9), "one-9"), 10)
        text = str(query.compile(connection, compile_kwargs={"literal_binds": True}))
        words = "EXPLAIN" if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
        plans.extend(str(line) for line in connection.exec_driver_sql(f"{words} {text.replace('%', '%%')}"))

    database.write_now(explain)
    plan = " ".join(plans)
    assert "ix_delivery" in plan
    assert "Seq Scan" not in plan
    assert "SCAN delivery" not in plan
