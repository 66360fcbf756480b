"""Signing in and out, the operator's link, and what ends a session."""

from datetime import timedelta

import httpx
import pytest
from litestar import Litestar
from sqlalchemy import select, update

from control.console import guard
from control.flow import sessions as flow
from control.flow import workspaces
from control.store import units
from control.store.tables import CONSOLE_LINKS, CONSOLE_SESSIONS
from runtime import clock
from runtime.database.engines import Database
from tests.integration.control import helpers
from tests.integration.control.console import people
from tests.integration.control.console.people import Person, said
from tests.integration.control.helpers import Lab


async def test_without_a_session_every_page_leads_to_sign_in_and_back(person: Person, lab: Lab) -> None:
    answer = await person.get("/console/events?customer=a%26b")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/console/sign-in?next=%2Fconsole%2Fevents%3Fcustomer%3Da%2526b"
    signed_in = await person.sign_in(lab.api_key, "/console/events?customer=a%26b")
    assert signed_in.headers["location"] == "/console/events?customer=a%26b"


async def test_a_part_of_a_page_leads_the_whole_page_to_sign_in(person: Person) -> None:
    answer = await person.get("/console/customers", **{"HX-Request": "true"})
    assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/console/sign-in")


async def test_the_cookie_is_the_consoles_alone(person: Person, lab: Lab) -> None:
    answer = await person.sign_in(lab.api_key)
    cookie = next(one for one in answer.headers.get_list("set-cookie") if one.startswith(guard.COOKIE + "="))
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/console", "secure"} <= attributes
    token = cookie.partition("=")[2].partition(";")[0]
    for header in ({"cookie": f"{guard.COOKIE}={token}"}, {"authorization": f"Api-Key {token}"}):
        assert (await person.client.get("/v1/gateway/groups", headers=header)).status_code == 401


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "[::1]:8080"])
async def test_the_cookie_works_without_https_on_the_machine_itself(app: Litestar, lab: Lab, host: str) -> None:
    person = Person(app, f"http://{host}")
    async with person.client:
        answer = await person.sign_in(lab.api_key)
        assert "secure" not in answer.headers["set-cookie"].lower()
        assert (await person.get("/console/customers")).status_code == 200


async def test_a_token_is_kept_as_its_digest_alone(signed_in: Person, database: Database) -> None:
    token = str(signed_in.client.cookies.get(guard.COOKIE))
    rows = database.read_now(lambda connection: connection.execute(select(CONSOLE_SESSIONS)).all())
    assert [row.sha256 for row in rows] == [flow.digest(token)]
    assert token not in repr(rows)


async def test_wrong_keys_are_refused_and_bounded_and_lock_nobody_out(person: Person, lab: Lab) -> None:
    wrong = lab.api_key[:-1] + ("a" if lab.api_key[-1] != "a" else "b")
    statuses = [(await person.sign_in(wrong)).status_code for _ in range(7)]
    assert statuses == [400] * 5 + [429] * 2
    assert (await person.sign_in("tgm_other0000000.x")).status_code == 400
    assert (await person.sign_in(lab.api_key)).status_code == 303


async def test_a_developers_key_signs_nobody_in(person: Person, lab: Lab) -> None:
    await lab.endpoint("acme/m")
    group = await lab.made_group("cust", {"slug": "acme/m"})
    answer = await person.sign_in(await lab.key(group["id"]))
    assert answer.status_code == 400
    assert "developer's key" in said(answer)


async def test_sign_in_always_makes_a_new_session(person: Person, lab: Lab) -> None:
    person.client.cookies.set(guard.COOKIE, "planted", domain="gateway.test", path="/console")
    await person.sign_in(lab.api_key)
    first = person.client.cookies.get(guard.COOKIE)
    assert first != "planted"
    await person.sign_in(lab.api_key)
    assert person.client.cookies.get(guard.COOKIE) != first
    person.client.cookies.set(guard.COOKIE, str(first), domain="gateway.test", path="/console")
    assert (await person.get("/console/customers")).status_code == 303


async def test_sign_out_ends_the_session_for_whoever_copied_it(signed_in: Person) -> None:
    token = str(signed_in.client.cookies.get(guard.COOKIE))
    assert (await signed_in.post("/console/sign-out")).status_code == 303
    signed_in.client.cookies.set(guard.COOKIE, token, domain="gateway.test", path="/console")
    assert (await signed_in.get("/console/customers")).headers["location"].startswith("/console/sign-in")


async def test_revoking_the_key_ends_the_session(signed_in: Person, lab: Lab, database: Database) -> None:
    now = clock.steady()()
    prefix = lab.api_key.partition(".")[0]
    database.write_now(lambda connection: workspaces.revoke_key(units.over(connection, now), lab.id, prefix))
    assert (await signed_in.get("/console/customers")).status_code == 303


async def test_suspending_the_workspace_ends_the_session(signed_in: Person, lab: Lab, database: Database) -> None:
    helpers.suspend(database, lab.id)
    assert (await signed_in.get("/console/customers")).status_code == 303


@pytest.mark.parametrize(
    ("column", "age", "lasts"),
    [
        ("used_at", timedelta(minutes=29), True),
        ("used_at", timedelta(minutes=30), False),
        ("begun_at", timedelta(hours=11, minutes=59), True),
        ("begun_at", timedelta(hours=12), False),
    ],
)
async def test_a_session_ends_by_rest_and_by_age(
    signed_in: Person, database: Database, column: str, age: timedelta, *, lasts: bool
) -> None:
    moment = clock.steady()() - age
    database.write_now(lambda connection: connection.execute(update(CONSOLE_SESSIONS).values({column: moment})))
    assert ((await signed_in.get("/console/customers")).status_code == 200) is lasts


async def test_use_keeps_a_session_alive(signed_in: Person, database: Database) -> None:
    before = clock.steady()() - timedelta(minutes=29)
    database.write_now(lambda connection: connection.execute(update(CONSOLE_SESSIONS).values(used_at=before)))
    await signed_in.get("/console/customers")
    used_at = database.read_now(lambda connection: connection.execute(select(CONSOLE_SESSIONS.c.used_at)).scalar_one())
    assert used_at > before


async def test_a_link_makes_the_operator_once(app: Litestar, database: Database, person: Person, lab: Lab) -> None:
    token = people.link(database)
    for _ in range(2):  # looking at it does not use it up
        shown = await person.get(f"/console/link?t={token}")
        assert "Enter as the operator" in said(shown)
    entered = await person.follow_link(token)
    assert entered.status_code == 303
    assert "lab" in said(await person.get("/console/operator"))
    second = Person(app)
    async with second.client:
        again = await second.follow_link(token)
        assert again.status_code == 403
        assert "tollgate console link" in said(again)


async def test_a_link_ends_after_ten_minutes(database: Database, person: Person) -> None:
    token = people.link(database)
    now = clock.steady()()
    database.write_now(lambda connection: connection.execute(update(CONSOLE_LINKS).values(expires_at=now)))
    assert (await person.follow_link(token)).status_code == 403


async def test_lab_and_operator_keep_to_their_own_sides(signed_in: Person, app: Litestar, database: Database) -> None:
    assert (await signed_in.get("/console/operator")).status_code == 403
    operator = Person(app)
    async with operator.client:
        await operator.follow_link(people.link(database))
        answers = [await operator.get(f"/console/{page}") for page in ("customers", "models", "events", "webhook")]
        assert [answer.status_code for answer in answers] == [403] * 4
        assert (await operator.post("/console/models/secrets", {"name": "n", "value": "v"})).status_code == 403


async def test_the_root_leads_browsers_to_the_console_and_nobody_else(person: Person) -> None:
    browser = await person.client.get("/", headers={"accept": "text/html,*/*"})
    assert (browser.status_code, browser.headers["location"]) == (303, "/console")
    program: httpx.Response = await person.client.get("/")
    assert program.status_code == 404
    assert program.json()["error"]["code"] == "not_found"
