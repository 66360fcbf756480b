"""A developer's key from its making to its end, a lab's own keys included (contract 2.3)."""

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from control import credentials
from metering.store import transaction
from runtime import clock
from runtime.database.engines import Database
from schemas.base import rfc3339
from schemas.config import ConfigKind, KeyRecord
from tests.integration.control import helpers
from tests.integration.control.furnished import PRIVATE, set_public_key
from tests.integration.control.helpers import Lab
from tests.support import engines
from tests.unit.metering import factories

PATH = "/v1/gateway/groups"
OWN = "abcdefghijklmnop-0123456789.ABCDEF"

Register = Callable[..., Any]


@pytest.fixture
async def group(lab: Lab) -> str:
    await lab.endpoint("acme/m")
    return str((await lab.made_group("cust", {"slug": "acme/m"}))["id"])


async def register(lab: Lab, group: str, body: Any, **headers: str | None) -> httpx.Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    signature = headers.get("signature", base64.b64encode(PRIVATE.sign(raw)).decode())
    sent = {"content-type": "application/json"} | ({"x-baseten-signature": signature} if signature else {})
    return await lab.client.post(f"{PATH}/{group}/api_keys/register", content=raw, headers=sent)


async def test_a_revoked_key_is_gone_everywhere(lab: Lab, group: str, database: Database) -> None:
    prefix = (await lab.key(group))[:16]
    path = f"{PATH}/{group}/api_keys"
    assert (await lab.client.delete(f"{path}/{prefix}")).json() == {"prefix": prefix}
    assert (await lab.client.get(f"{path}/{prefix}")).status_code == 404
    assert (await lab.client.delete(f"{path}/{prefix}")).status_code == 404
    assert (await lab.client.get(path)).json()["items"] == []
    change = helpers.changes(database)[-1]
    assert (change.kind, change.id, change.record) == (ConfigKind.KEY, prefix, None)


async def test_a_key_is_revoked_through_its_own_group_and_workspace_alone(lab: Lab, other: Lab, group: str) -> None:
    sibling = (await lab.made_group("two", {"slug": "acme/m"}))["id"]
    prefix = (await lab.key(group))[:16]
    assert (await lab.client.delete(f"{PATH}/{sibling}/api_keys/{prefix}")).status_code == 404
    assert (await other.client.delete(f"{PATH}/{group}/api_keys/{prefix}")).status_code == 403
    assert (await lab.client.get(f"{PATH}/{group}/api_keys/{prefix}")).status_code == 200


async def test_a_labs_own_key_is_registered(lab: Lab, group: str, database: Database) -> None:
    set_public_key(database, lab.id)
    answer = await register(lab, group, {"key": OWN, "name": "own"})
    assert (answer.status_code, answer.json()) == (200, {"ok": True})
    shown = (await lab.client.get(f"{PATH}/{group}/api_keys/{OWN[:16]}")).json()
    assert shown == {"prefix": OWN[:16], "name": "own", "created_at": shown["created_at"]}
    record = helpers.changes(database)[-1].record
    assert isinstance(record, KeyRecord)
    assert record.sha256 == credentials.digest(OWN)
    assert OWN not in repr(helpers.audited(database))


async def test_a_key_shows_what_was_set_and_may_be_sent_back(lab: Lab, group: str, database: Database) -> None:
    path = f"{PATH}/{group}/api_keys"
    end = "2027-01-01T00:00:00.000Z"
    made = (await lab.client.post(path, json={"name": "n", "expires_at": end, "metadata": {"team": "red"}})).json()
    assert set(made) == {"api_key", "prefix", "name"}
    one = f"{path}/{made['prefix']}"
    answer = await lab.client.get(one)
    shown = answer.json()
    assert shown == {
        "prefix": made["prefix"],
        "name": "n",
        "created_at": shown["created_at"],
        "expires_at": end,
        "metadata": {"team": "red"},
    }
    changed = await lab.client.patch(one, json=shown | {"disabled": True}, headers={"if-match": answer.headers["etag"]})
    assert changed.json() == shown | {"disabled": True}
    record = helpers.changes(database)[-1].record
    assert isinstance(record, KeyRecord)
    assert record.disabled
    stale = {"if-match": answer.headers["etag"]}
    assert (await lab.client.patch(one, json={"name": None}, headers=stale)).status_code == 412
    assert (await lab.client.delete(one, headers=stale)).status_code == 412
    bare = await lab.client.patch(one, json=dict.fromkeys(("name", "expires_at", "metadata", "disabled")))
    assert bare.json() == {"prefix": made["prefix"], "name": None, "created_at": shown["created_at"]}
    assert (await lab.client.get(path)).json()["items"] == [bare.json()]


async def test_a_key_shows_its_last_use_in_its_own_life_alone(lab: Lab, group: str, database: Database) -> None:
    used, unused = [(await lab.key(group))[:16] for _ in range(2)]
    made = clock.steady()()
    later = [made + timedelta(minutes=3, seconds=each) for each in (50, 10)]
    times = [(used, later[0]), (used, later[1]), (unused, made - timedelta(hours=1))]
    events = [
        factories.event(number, group_id=group, api_key_prefix=prefix, timestamp=at)
        for number, (prefix, at) in enumerate(times, 1)
    ]
    for at in {at.date() for _, at in times}:
        engines.open_day(database, at)
    before = (await lab.client.get(f"{PATH}/{group}/api_keys/{used}")).headers["etag"]
    database.write_now(lambda connection: transaction.apply(connection, factories.batch(events), clock.steady()))
    minute = rfc3339(later[0].replace(second=0, microsecond=0))
    answer = await lab.client.get(f"{PATH}/{group}/api_keys/{used}")
    assert (answer.json()["last_used_at"], answer.headers["etag"]) == (minute, before)
    listed = (await lab.client.get(f"{PATH}/{group}/api_keys")).json()["items"]
    assert [item.get("last_used_at", "never") for item in listed] == [minute, "never"]
    changed = await lab.client.patch(
        f"{PATH}/{group}/api_keys/{used}", json={"name": "n"}, headers={"If-Match": before}
    )
    assert (changed.status_code, changed.json()["last_used_at"]) == (200, minute)


@pytest.mark.parametrize(
    "body",
    [
        {"expires_at": "2027-01-01"},
        {"expires_at": 5},
        {"metadata": {"a": 1}},
        {"metadata": {str(index): "" for index in range(17)}},
        {"metadata": {"a" * 65: ""}},
        {"metadata": {"": ""}},
        {"metadata": {"a": "b" * 513}},
        {"disabled": "yes"},
    ],
)
async def test_what_a_key_may_not_have(lab: Lab, group: str, body: Any) -> None:
    path = f"{PATH}/{group}/api_keys"
    prefix = (await lab.key(group))[:16]
    for answer in (await lab.client.patch(f"{path}/{prefix}", json=body), await lab.client.post(path, json=body)):
        assert answer.status_code == 400, answer.text


async def test_a_rotated_key(lab: Lab, group: str, database: Database) -> None:
    set_public_key(database, lab.id)
    key = "batch/a//b?c%2F#/0123456789ABCDEFGH"
    assert (await register(lab, group, {"key": key, "name": "own"})).status_code == 200
    one = f"{PATH}/{group}/api_keys/{quote(key[:16], safe='')}"
    headers = {"idempotency-key": "r"}
    made = (await lab.client.post(f"{one}/rotate", json={"overlap_seconds": 60}, headers=headers)).json()
    assert (set(made), made["name"]) == ({"api_key", "prefix", "name", "previous_expires_at"}, "own")
    assert (await lab.client.get(one)).json()["expires_at"] == made["previous_expires_at"]
    repeated = await lab.client.post(f"{one}/rotate", json={"overlap_seconds": 60}, headers=headers)
    assert repeated.json() == made
    listed = (await lab.client.get(f"{PATH}/{group}/api_keys")).json()["items"]
    assert {each["prefix"] for each in listed} == {key[:16], made["prefix"]}
    for wrong in (-1, 30 * 86_400 + 1, None, "1"):
        answer = await lab.client.post(f"{one}/rotate", json={"overlap_seconds": wrong})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "overlap_seconds")
    assert (await lab.client.post(one, json={"overlap_seconds": 0})).status_code == 405
    assert (await lab.client.post(f"{PATH}/{group}/api_keys/x/rotate", json={"overlap_seconds": 0})).status_code == 404


async def test_a_thousand_keys_at_once_or_none(lab: Lab, group: str) -> None:
    path = f"{PATH}/{group}/api_keys"
    wrong: tuple[list[dict[str, Any]], ...] = ([], [{}] * 1001, [{}, {"name": 5}])
    for items in wrong:
        assert (await lab.client.post(f"{path}/batch", json={"items": items})).status_code == 400
    assert (await lab.client.get(path)).json()["items"] == []
    made = (await lab.client.post(f"{path}/batch", json={"items": [{"name": str(at)} for at in range(1000)]})).json()
    listed = (await lab.client.get(path, params={"limit": 1000})).json()["items"]
    shown = {(key["prefix"], key["name"]) for key in listed}
    assert shown == {(each["prefix"], each["name"]) for each in made["items"]}
    assert len({each["api_key"] for each in made["items"]}) == 1000


async def test_a_prefix_may_hold_what_a_path_must_escape(lab: Lab, group: str, database: Database) -> None:
    set_public_key(database, lab.id)
    key = "/a//b?c%2F#d;e&f/0123456789ABCDEFGH"
    assert (await register(lab, group, {"key": key})).status_code == 200
    path = f"{PATH}/{group}/api_keys/{quote(key[:16], safe='')}"
    assert (await lab.client.get(path)).json()["prefix"] == key[:16]
    assert (await lab.client.delete(path)).json() == {"prefix": key[:16]}


async def test_registering_needs_a_public_key(lab: Lab, group: str) -> None:
    answer = await register(lab, group, {"key": OWN})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "Must configure a public key before registering API keys"


@pytest.mark.parametrize("signature", [None, "x", base64.b64encode(bytes(64)).decode(), "A" * 5000])
async def test_a_wrong_signature_registers_nothing(
    lab: Lab, group: str, database: Database, signature: str | None
) -> None:
    set_public_key(database, lab.id)
    answer = await register(lab, group, {"key": OWN}, signature=signature)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "Signature verification failed"
    assert (await lab.client.get(f"{PATH}/{group}/api_keys")).json()["items"] == []


async def test_the_signature_is_of_the_raw_body(lab: Lab, group: str, database: Database) -> None:
    set_public_key(database, lab.id)
    signature = base64.b64encode(PRIVATE.sign(json.dumps({"key": OWN}).encode())).decode()
    spaced = b'{ "key": "%s" }' % OWN.encode()
    assert (await register(lab, group, spaced, signature=signature)).status_code == 400
    assert (await register(lab, group, spaced)).status_code == 200


@pytest.mark.parametrize(
    "key",
    [OWN[:31], OWN * 4, OWN.replace("-", " "), OWN.replace("-", "é"), OWN + "\n", "ab" * 20, "abcdefg" * 5, 5],
)
async def test_keys_that_are_none_are_refused(lab: Lab, group: str, database: Database, key: Any) -> None:
    set_public_key(database, lab.id)
    answer = await register(lab, group, {"key": key})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "key"
    assert str(key)[:31] not in answer.text or key == 5


async def test_two_keys_never_share_a_prefix(lab: Lab, other: Lab, group: str, database: Database) -> None:
    set_public_key(database, lab.id)
    set_public_key(database, other.id)
    await other.endpoint("globex/m")
    theirs = (await other.made_group("cust", {"slug": "globex/m"}))["id"]
    longer = OWN[:16] + "zyxwvutsrqponmlk"
    assert (await register(lab, group, {"key": OWN})).status_code == 200
    for where, whose in ((group, lab), (theirs, other)):
        answer = await register(whose, where, {"key": longer})
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "prefix_taken"
    await lab.client.delete(f"{PATH}/{group}/api_keys/{OWN[:16]}")
    assert (await register(other, theirs, {"key": longer})).status_code == 200


async def test_registering_for_another_workspaces_group_is_forbidden(
    lab: Lab, other: Lab, group: str, database: Database
) -> None:
    set_public_key(database, other.id)
    assert (await register(other, group, {"key": OWN})).status_code == 403
    assert (await register(other, "nothing", {"key": OWN})).status_code == 404
