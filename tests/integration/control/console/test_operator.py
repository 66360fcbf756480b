"""The operator's pages."""

from collections.abc import AsyncIterator
from datetime import date, timedelta
from functools import partial
from typing import Any

import pytest
from litestar import Litestar
from pydantic import SecretStr

from control.console.operator import workspaces
from control.reconciliations import ReconcileAnswer, ReconcileRequest, Reconciliations
from control.store import requests
from control.store.monitoring import status as store
from control.store.monitoring.reconciliations import Verdict
from runtime import clock, ids
from runtime.database.engines import Database
from runtime.settings import Settings
from schemas.monitoring.requests import RequestEnd, RequestRecord
from schemas.monitoring.status import LoopStatus
from tests.integration.control import furnished
from tests.integration.control.console import people
from tests.integration.control.console.people import Person, said
from tests.integration.control.console.test_safety import HOSTILE, runnable
from tests.integration.control.helpers import Lab
from tests.support.statuses import minute, status


@pytest.fixture
async def operator(app: Litestar, database: Database) -> AsyncIterator[Person]:
    made = Person(app)
    async with made.client:
        await made.follow_link(people.link(database))
        yield made


def refused(workspace_id: str | None, detail: str | None = None) -> RequestRecord:
    now = clock.steady()()
    return RequestRecord(
        request_id=ids.uuid7(now),
        at=now,
        ended=RequestEnd.REFUSED,
        status=401,
        reason="invalid_api_key",
        detail=detail,
        workspace_id=workspace_id,
        instance="proxy-a",
    )


async def test_every_workspace_is_shown_with_what_waits(operator: Person, lab: Lab, database: Database) -> None:
    await furnished.furnish(database, lab)
    shown = said(await operator.get("/console/operator"))
    assert f"lab {lab.id} active 0 0 0 – 1 Acme" in shown  # noqa: RUF001 (the dash of tables)


async def test_a_request_without_a_workspace_is_the_operators_to_find(
    operator: Person, signed_in: Person, lab: Lab, database: Database
) -> None:
    nobodys, labs = refused(None), refused(lab.id)
    database.write_now(lambda connection: requests.add(connection, [nobodys, labs]))
    listed = said(await operator.get("/console/operator"))
    assert "401 invalid_api_key none" in listed
    assert "401 invalid_api_key lab" in listed
    for record, own in ((nobodys, 404), (labs, 200)):
        page = f"/console/requests/{record.request_id}"
        found = await operator.client.get("/console/operator/search", params={"q": record.request_id.upper()})
        assert found.headers["location"] == page
        assert (await operator.get(page)).status_code == 200
        assert (await signed_in.get(page)).status_code == own


async def test_a_workspace_is_found_by_name_and_id(operator: Person, lab: Lab) -> None:
    for text in ("lab", lab.id):
        found = await operator.client.get("/console/operator/search", params={"q": text})
        assert found.headers["location"] == f"/console/operator#{lab.id}"
    assert "Nothing is named nobody" in said(await operator.get("/console/operator/search?q=nobody"))


async def test_what_a_request_says_is_shown_as_text(operator: Person, database: Database) -> None:
    for text in HOSTILE:
        record = refused(None, text)
        database.write_now(partial(requests.add, records=[record]))
        page = await operator.get(f"/console/requests/{record.request_id}")
        assert runnable(page) == []
        assert text in said(page)
        assert runnable(await operator.client.get("/console/operator/search", params={"q": text})) == []


async def test_a_lab_sees_no_page_of_the_operators(signed_in: Person, lab: Lab) -> None:
    for page in ("", "/processes", "/reconcile", "/settings", "/search?q=lab"):
        answer = await signed_in.get(f"/console/operator{page}")
        assert answer.status_code == 403
        assert "TOLLGATE_" not in answer.text


async def test_lags_and_processes_are_shown_as_they_were_told(operator: Person, database: Database) -> None:
    assert "No process has told of itself yet" in said(await operator.get("/console/operator/processes"))
    now = clock.steady()()
    then = now.replace(second=0, microsecond=0) - timedelta(minutes=3)
    loop = LoopStatus(name="the publisher", did=3, overdue_s=200, waits_for="Kafka", is_still=True)
    told = [
        status("a", now, minute(then, publishing=1200, feedback=3.25), lags={"publishing": 5, "feedback": 1}),
        status("b", now, minute(then, publishing=34), lags={"publishing": 7, "feedback": 2.5}, loops=(loop,)),
        status("c", now, role="metering", problem=HOSTILE[0]),
        status("d", now - timedelta(minutes=2), host=HOSTILE[1], lags={"publishing": 99}),
    ]
    database.write_now(partial(store.keep, records=told))
    page = await operator.get("/console/operator/processes")
    shown = said(page)
    assert "Publishing now 12, at most 1,234" in shown
    assert "Feedback now 2.5 s, at most 3.2 s" in shown
    assert "stands still the publisher" in shown
    assert f"takes no traffic {HOSTILE[0]}" in shown
    assert f"{HOSTILE[1]}, pid 7 silent" in shown
    assert runnable(page) == []


async def test_a_day_is_reconciled_and_its_text_shown_as_text(database: Database, lab: Lab) -> None:
    asked: list[ReconcileRequest] = []

    async def reconcile(request: ReconcileRequest) -> ReconcileAnswer:
        asked.append(request)
        return ReconcileAnswer(Verdict.DIFFERS, HOSTILE[len(asked) - 1])

    runs = Reconciliations(database, clock.steady(), reconcile)
    app = people.application(database, runs)
    person = Person(app)
    async with person.client:
        await person.follow_link(people.link(database))
        assert "None in the last seven days" in said(await person.get("/console/operator/reconcile"))
        for day in ("", "yesterday", "9999-01-01"):
            wrong = await person.post("/console/operator/reconcile", {"day": day})
            assert wrong.status_code == 400
            assert "day: " in said(wrong)
        for text in HOSTILE:
            begun = await person.post("/console/operator/reconcile", {"day": "2025-03-14", "proxies": "a\nb"})
            assert begun.status_code == 303
            assert "under way" in said(await person.get("/console/operator/reconcile"))
            second = await person.post("/console/operator/reconcile", {"day": "2025-03-14"})
            assert "a reconciliation is under way" in said(second)
            await runs.step()
            page = await person.get("/console/operator/reconcile", **{"HX-Target": "reconciled"})
            assert "there are differences" in said(page)
            assert runnable(page) == []
            assert text in said(page)
        assert asked == [ReconcileRequest(date(2025, 3, 14), ["a", "b"])] * len(HOSTILE)


async def test_the_operators_forms_need_the_sessions_token(operator: Person, signed_in: Person) -> None:
    page = "/console/operator/reconcile"
    for token in ("", "wrong", signed_in.form_token):
        assert (await operator.client.post(page, data={"form_token": token})).status_code == 403
    assert (await operator.client.post(page, json={"form_token": operator.form_token})).status_code == 415
    assert (await signed_in.post(page, {"day": "2025-03-14"})).status_code == 403


async def test_settings_are_shown_with_the_changed_first(operator: Person) -> None:
    shown = said(await operator.get("/console/operator/settings"))
    assert "TOLLGATE_ALLOW_PRIVATE_RECEIVERS true changed" in shown
    assert shown.index("changed TOLLGATE_DATA_DIR") > 0


def test_no_secret_is_among_the_settings_in_force() -> None:
    secrets: dict[str, Any] = {
        name: SecretStr(f"very-secret-{name}")
        for name, field in Settings.model_fields.items()
        if "SecretStr" in str(field.annotation)
    }
    assert len(secrets) > 5
    given = Settings.model_construct(**secrets, openai_base_url="https://user:very-secret@up.example/v1")
    rows = {row.variable: row for row in workspaces.in_force(given)}
    assert "very-secret" not in repr(rows)
    assert rows["TOLLGATE_MASTER_KEY"].value == "set, not shown"
    assert rows["TOLLGATE_OPENAI_BASE_URL"].value == "https://up.example/v1"
