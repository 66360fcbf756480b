"""Each page of a lab, and what its forms do."""

import html
from datetime import UTC, datetime, time, timedelta

import pytest
from sqlalchemy import Connection, insert, update

from control.console import usage
from control.store import requests
from metering.store import day_partitions, transaction
from runtime import clock
from runtime.database.engines import Database
from tests.integration.control import furnished
from tests.integration.control.console.people import Person, said
from tests.integration.control.helpers import Lab, day_limit
from tests.integration.control.rows import statuses
from tests.support.request_records import refused
from tests.unit.metering import factories
from tests.unit.metering.factories import NOON, SLUG, HandClock, batch, event
from webhooks.store.tables import DELIVERY, DELIVERY_EVENT


async def test_every_page_of_an_empty_workspace_says_what_to_do(signed_in: Person) -> None:
    for path, hint in (
        ("/console/overview", "No call in the last 30 days"),
        ("/console/customers", "No customer yet"),
        ("/console/customers/new", "Make the first model"),
        ("/console/models", "tollgate mock-upstream"),
        ("/console/models/new", "Base URL"),
        ("/console/events", "No request in this window"),
        ("/console/webhook", "tollgate webhook listen"),
        ("/console/webhook/redrive", "Nothing was given up"),
        ("/console/usage", "tollgate usage --month"),
        ("/console/search", "x-request-id"),
    ):
        answer = await signed_in.get(path)
        assert answer.status_code == 200, path
        assert hint in said(answer), path


async def test_a_model_is_made_changed_and_deleted(signed_in: Person, lab: Lab) -> None:
    target = {"provider": "OPENAI_COMPATIBLE", "base_url": "https://up.example/v1", "target_model": "m"}
    made = await signed_in.post("/console/models/new", {"slug": "acme/small", **target})
    assert made.status_code == 303
    (endpoint,) = (await lab.client.get("/v1/gateway/endpoints")).json()["items"]
    page = f"/console/models/{endpoint['id']}"
    shown = await signed_in.get(page)
    assert "https://up.example/v1" in shown.text
    etag = endpoint_etag(shown.text)
    changed = await signed_in.post(page, {"slug": "acme/small", **target, "target_model": "n", "etag": etag})
    assert changed.status_code == 303
    stale = await signed_in.post(page, {"slug": "acme/small", **target, "target_model": "o", "etag": etag})
    assert stale.status_code == 400
    assert "it was changed since" in said(stale)
    assert (await lab.client.get("/v1/gateway/endpoints")).json()["items"][0]["targets"][0]["target_model"] == "n"
    assert "Calls of this slug are refused" in said(await signed_in.get(page + "/delete"))
    assert (await signed_in.post(page + "/delete")).status_code == 303
    assert (await lab.client.get("/v1/gateway/endpoints")).json()["items"] == []


async def test_what_the_api_refuses_is_said_at_the_form_and_what_was_typed_stays(signed_in: Person) -> None:
    answer = await signed_in.post(
        "/console/models/new", {"slug": "globex/small", "provider": "OPENAI_COMPATIBLE", "target_model": "typed"}
    )
    assert answer.status_code == 400
    assert "does not belong to this workspace" in said(answer)
    assert 'value="typed"' in answer.text


async def test_secrets_are_kept_and_deleted_and_never_shown(signed_in: Person, lab: Lab) -> None:
    assert (await signed_in.post("/console/models/secrets", {"name": "up", "value": "sk-very"})).status_code == 303
    shown = await signed_in.get("/console/models")
    assert "up" in said(shown)
    assert "sk-very" not in shown.text
    (secret,) = (await lab.client.get("/v1/secrets")).json()["items"]
    await signed_in.post(f"/console/models/secrets/{secret['id']}/delete")
    assert (await lab.client.get("/v1/secrets")).json()["items"] == []


async def test_a_tree_is_made_and_shown_by_branch_and_found_by_external_id(signed_in: Person, lab: Lab) -> None:
    await lab.endpoint("acme/m")
    fields = {
        "external_entity_id": "root",
        "limit_enforcement": "CASCADING",
        "slug.0": "acme/m",
        "kind.0.0": "usage_limits:TOKEN:DAY",
        "threshold.0.0": "1,000",
    }
    made = await signed_in.post("/console/customers/new", fields)
    assert made.status_code == 303, said(made)
    root = made.headers["location"].rpartition("/")[2]
    below = await signed_in.post(
        "/console/customers/new", {"external_entity_id": "rooted", "parent_group_id": root, "slug.0": "acme/m"}
    )
    assert below.status_code == 303, said(below)
    roots = said(await signed_in.get("/console/customers"))
    assert "0 of 1,000" in roots
    assert "rooted" not in roots
    assert "rooted" in said(await signed_in.get(f"/console/customers/{root}/children"))
    found = said(await signed_in.get("/console/customers?q=roote"))
    assert "rooted" in found
    assert "No external id begins with “x”" in said(await signed_in.get("/console/customers?q=x"))
    group = (await lab.client.get(f"/v1/gateway/groups/{root}")).json()
    assert group["models"][0]["usage_limits"] == [day_limit(1000)]


async def test_limits_are_edited_and_the_ancestors_rule_is_said_at_the_field(signed_in: Person, lab: Lab) -> None:
    await lab.endpoint("acme/m")
    model = {"slug": "acme/m", "usage_limits": [day_limit(1000)]}
    root = await lab.made_group("root", model, limit_enforcement="CASCADING")
    child = await lab.made_group("child", model, parent_group_id=root["id"])
    page = f"/console/customers/{child['id']}"
    shown = await signed_in.get(page)
    assert "at most 1,000, which root sets" in said(shown)
    fields = {
        "etag": endpoint_etag(shown.text),
        "name": "Named",
        "slug.0": "acme/m",
        "kind.0.0": "usage_limits:TOKEN:DAY",
        "threshold.0.0": "1001",
    }
    refused = await signed_in.post(page, fields)
    assert refused.status_code == 400
    assert "Child group exceeds parent group limit." in said(refused)
    assert 'value="1001"' in refused.text
    changed = await signed_in.post(
        page, fields | {"threshold.0.0": "900", "kind.0.1": "rate_limits:REQUEST:MINUTE", "threshold.0.1": "60"}
    )
    assert changed.status_code == 303, said(changed)
    group = (await lab.client.get(f"/v1/gateway/groups/{child['id']}")).json()
    assert group["metadata"]["name"] == "Named"
    assert group["models"][0] == {
        "slug": "acme/m",
        "rate_limits": [{"type": "REQUEST", "unit": "MINUTE", "threshold": 60}],
        "usage_limits": [day_limit(900)],
    }
    wrong = await signed_in.post(page, fields | {"threshold.0.0": "many"})
    assert "must be a whole number" in said(wrong)


async def test_a_key_is_shown_once_and_revoked_with_its_count(signed_in: Person, lab: Lab, database: Database) -> None:
    await lab.endpoint("acme/m")
    group = await lab.made_group("cust", {"slug": "acme/m"})
    minted = await signed_in.post(f"/console/customers/{group['id']}/keys", {"name": "prod"})
    assert minted.status_code == 200
    assert minted.headers["cache-control"] == "no-store"
    (key,) = (await lab.client.get(f"/v1/gateway/groups/{group['id']}/api_keys")).json()["items"]
    assert key["prefix"] + "." in minted.text
    assert key["prefix"] + "." not in (await signed_in.get(f"/console/customers/{group['id']}")).text
    asked = await signed_in.get(f"/console/customers/{group['id']}/keys/revoke?prefix={key['prefix']}")
    assert "0 calls today" in said(asked)
    assert (
        await signed_in.post(f"/console/customers/{group['id']}/keys/revoke", {"prefix": key["prefix"]})
    ).status_code == 303
    assert (await lab.client.get(f"/v1/gateway/groups/{group['id']}/api_keys")).json()["items"] == []


async def test_a_key_is_changed_and_rotated(signed_in: Person, lab: Lab) -> None:
    await lab.endpoint("acme/m")
    group = await lab.made_group("cust", {"slug": "acme/m"})
    keys = f"/console/customers/{group['id']}/keys"
    minted = await signed_in.post(keys, {"name": "prod", "expires_at": "2100-01-01T00:00"})
    assert "https://gateway.test/v1/chat/completions" in said(minted)
    (key,) = (await lab.client.get(f"/v1/gateway/groups/{group['id']}/api_keys")).json()["items"]
    assert key["expires_at"] == "2100-01-01T00:00:00.000Z"
    prefix = key["prefix"]
    page = await signed_in.get(f"{keys}/change?prefix={prefix}")
    fields = {"prefix": prefix, "name": "main", "expires_at": "2099-01-01T00:00:00", "disabled": "true"}
    stale = await signed_in.post(f"{keys}/change", fields | {"etag": '"old"'})
    assert "it was changed since" in said(stale)
    assert (await signed_in.post(f"{keys}/change", fields | {"etag": endpoint_etag(page.text)})).status_code == 303
    (key,) = (await lab.client.get(f"/v1/gateway/groups/{group['id']}/api_keys")).json()["items"]
    assert (key["name"], key["disabled"], key["expires_at"]) == ("main", True, "2099-01-01T00:00:00.000Z")
    assert "disabled" in said(await signed_in.get(f"/console/customers/{group['id']}"))
    rotated = await signed_in.post(f"{keys}/rotate", {"prefix": prefix, "overlap_hours": "1"})
    assert "The key before works until" in said(rotated)
    assert len((await lab.client.get(f"/v1/gateway/groups/{group['id']}/api_keys")).json()["items"]) == 2
    again = await signed_in.post(f"{keys}/rotate", {"prefix": prefix, "overlap_hours": "1"})
    assert "it was rotated to" in said(again)


async def test_a_month_is_shown_with_its_sum_and_as_csv(signed_in: Person, lab: Lab, database: Database) -> None:
    names = await furnished.furnish(database, lab)
    shown = await signed_in.get("/console/usage?month=2025-03")
    assert "customer of group-a org/model 1 10 2 5 -4" in said(shown)
    assert "The whole month 1 10 2 5 -4" in said(shown)
    assert "No prices are set" in said(shown)
    price = {"slug": SLUG, "from": "2025-01-01", "currency": "EUR", "cached_input": "0", "output": "0", "request": "0"}
    await lab.client.put("/v1/gateway/prices", json=[price | {"input": "1000000000"}])
    priced = said(await signed_in.get("/console/usage?month=2025-03&by=day,model"))
    assert "2025-03-01 org/model 1 10 2 5 -4 5,000.00 EUR" in priced
    saved = await signed_in.get("/console/usage/csv?month=2025-03&by=customer")
    assert saved.headers["content-disposition"] == 'attachment; filename="usage-2025-03-customer.csv"'
    query = "from=2025-03-01&to=2025-03-31&group_by=customer&format=csv"
    assert saved.text == (await lab.client.get(f"/v1/gateway/usage?{query}")).text
    assert "Nothing was used" in said(await signed_in.get(f"/console/usage?month=2025-03&group={names['group_id']}"))
    assert "Nothing was used" in said(await signed_in.get("/console/usage?month=2025-02"))


async def test_the_overview_compares_today_and_says_what_needs_a_look(
    signed_in: Person, lab: Lab, other: Lab, database: Database
) -> None:
    now = clock.steady()()
    today, week_ago = (
        datetime.combine(now.date(), time(), UTC) + timedelta(milliseconds=each) - ago
        for each, ago in ((0, timedelta(0)), (1, timedelta(days=7)))
    )
    await lab.endpoint("acme/m")
    group = await lab.made_group("cust", {"slug": "acme/m", "usage_limits": [day_limit(17)]})
    own = {"group_id": group["id"], "external_entity_id": "cust", "model_slug": "acme/m", "workspace_id": lab.id}
    events = [
        event(1, timestamp=today, **own),
        event(2, timestamp=week_ago, **own),
        event(3, timestamp=week_ago, **own),
        event(4, timestamp=today, workspace_id=other.id, group_id="theirs"),
    ]
    failed = refused(today, lab.id, "tokens_per_day", group["id"]), refused(today, other.id, "very-secret")
    recent = refused(now, lab.id, "upstream_status", group["id"])

    def fill(connection: Connection) -> None:
        for moment in (week_ago, today):
            day_partitions.ensure(connection, moment.date())
        transaction.apply(connection, batch(events), HandClock(now))
        requests.add(connection, [*failed, recent])

    database.write_now(fill)
    assert (await signed_in.get("/console")).headers["location"] == "/console/overview"
    page = await signed_in.get("/console/overview")
    shown = said(page)
    assert f"Requests 1 last {today:%A}: 2" in shown
    assert "Refused or failed 2" in shown
    assert "Median time of a call 120 ms" in shown
    assert "acme/m 1 2 3 15 30 45 2" in shown
    assert "cust 1 2 3 15 30 45 2" in shown
    assert "cust acme/m 17 tokens per day 88 %" in shown
    assert "upstream_status" in shown
    assert f"{today.date()} 1 {today.date() - timedelta(days=1)} 0" in shown
    assert "theirs" not in page.text
    assert "very-secret" not in page.text


async def test_usage_is_shown_in_pages(
    signed_in: Person, lab: Lab, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "ROWS", 1)
    events = [event(each, workspace_id=lab.id, group_id=f"group-{each}") for each in (1, 2)]
    database.write_now(lambda connection: transaction.apply(connection, batch(events), HandClock(NOON)))
    first = await signed_in.get("/console/usage?month=2025-03")
    assert "group-1" in said(first)
    assert "group-2" not in said(first)
    assert "The whole month 2 20 4 10" in said(first)
    following = html.unescape(first.text.partition('class="more"><a class="button" href="')[2].partition('"')[0])
    second = said(await signed_in.get(following))
    assert "group-1" not in second
    assert "group-2" in second
    assert (await signed_in.get(following.replace("2025-03", "2025-02"))).status_code == 400


async def test_a_text_leads_to_what_it_names(signed_in: Person, lab: Lab, database: Database) -> None:
    names = await furnished.furnish(database, lab)
    group = f"/console/customers/{names['group_id']}"
    listed = await signed_in.get("/console/events?from=2020-01-01T00:00")
    key = listed.text.partition('href="/console/events/')[2].partition('"')[0]
    for text, page in (
        ("cust", group),
        (names["group_id"], group),
        (f" {names['api_key_prefix']} ", group + "#keys"),
        ("cus", "/console/customers?q=cus"),
        (furnished.SLUG, f"/console/models/{names['endpoint_id']}"),
        (names["endpoint_id"], f"/console/models/{names['endpoint_id']}"),
        (furnished.DELIVERY, f"/console/webhook/deliveries/{furnished.DELIVERY}"),
        (furnished.REQUEST, f"/console/requests/{furnished.REQUEST}"),
        (key, f"/console/events/{key}"),
    ):
        answer = await signed_in.client.get("/console/search", params={"q": text})
        assert answer.headers.get("location") == page, text
        assert (await signed_in.get(page.partition("#")[0])).status_code == 200, page
    known = {"day": NOON.date(), "workspace_id": lab.id, "idempotency_key": factories.key(1), "input_tokens": 10}
    known |= {"delivery_id": furnished.DELIVERY, "output_tokens": 5}
    database.write_now(lambda connection: connection.execute(insert(DELIVERY_EVENT).values(known)))
    request = said(await signed_in.get(f"/console/requests/{furnished.REQUEST}"))
    assert f"Delivery {furnished.DELIVERY} dead" in request
    assert "10 in, 5 out" in request
    assert "Nothing is named nobody" in said(await signed_in.get("/console/search?q=nobody"))


async def test_deleting_a_group_says_how_many_go(signed_in: Person, lab: Lab) -> None:
    await lab.endpoint("acme/m")
    root = await lab.made_group("root", {"slug": "acme/m"})
    await lab.made_group("child", {"slug": "acme/m"}, parent_group_id=root["id"])
    assert "Delete 2 groups" in said(await signed_in.get(f"/console/customers/{root['id']}/delete"))
    assert (await signed_in.post(f"/console/customers/{root['id']}/delete")).status_code == 303
    assert (await lab.client.get("/v1/gateway/groups")).json()["items"] == []


async def test_the_webhook_is_set_tested_and_rotated(signed_in: Person, lab: Lab) -> None:
    saved = await signed_in.post("/console/webhook", {"url": "http://127.0.0.1:9/hook", "enabled": "true"})
    assert saved.status_code == 303
    assert (await lab.client.get("/v1/gateway/billing_webhook")).json() == {
        "url": "http://127.0.0.1:9/hook",
        "enabled": True,
    }
    tested = await signed_in.post("/console/webhook/test")
    assert "Not taken" in said(tested)
    rotated = await signed_in.post("/console/webhook/rotate", {"overlap_hours": "24"})
    assert "whsec_" in rotated.text
    assert "Two secrets sign." in said(await signed_in.get("/console/webhook"))
    assert (await signed_in.post("/console/webhook/rotate", {"overlap_hours": "24"})).status_code == 200
    assert "Three secrets sign." in said(await signed_in.get("/console/webhook"))
    again = await signed_in.post("/console/webhook/rotate", {"overlap_hours": "24"})
    assert "3 secrets sign already" in said(again)


async def test_events_and_deliveries_are_shown_and_put_back(signed_in: Person, lab: Lab, database: Database) -> None:
    await furnished.furnish(database, lab)
    listed = await signed_in.get("/console/events?from=2020-01-01T00:00")
    assert "acme/m" in said(listed) or "cust" in said(listed)
    key = listed.text.partition('href="/console/events/')[2].partition('"')[0]
    assert "Admitted" in said(await signed_in.get(f"/console/events/{key}"))
    shown = await signed_in.get(f"/console/webhook/deliveries/{furnished.DELIVERY}")
    assert furnished.DELIVERY in said(shown)
    assert "answered 500" in said(shown)
    assert "gone" in said(shown)
    assert "{}" in said(shown)
    database.write_now(lambda connection: connection.execute(update(DELIVERY).values(status="dead")))
    counted = await signed_in.get("/console/webhook/redrive")
    waiting = len(statuses(database))
    assert f"Redrive {waiting}" in said(counted)
    assert (await signed_in.post("/console/webhook/redrive", {"from": "", "to": ""})).status_code == 303
    assert set(statuses(database).values()) == {"pending"}
    assert (await signed_in.post(f"/console/webhook/deliveries/{furnished.DELIVERY}/redeliver")).status_code == 303


def endpoint_etag(text: str) -> str:
    return text.partition('name="etag" value="')[2].partition('"')[0].replace("&#34;", '"')
