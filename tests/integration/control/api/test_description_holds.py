"""The served description and the gateway say the same: of every operation's requests, of its answers, of junk."""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]
from litestar import Litestar

from runtime.database.engines import Database
from tests.integration.control import furnished, helpers
from tests.integration.control.furnished import BODIES, SLUG, Call, Json
from tests.integration.control.helpers import Lab

CHECKER = FormatChecker(formats=())
TOO_LONG = "x" * 256
JUNK: list[tuple[str, Any]] = [
    ("create_endpoint", helpers.endpoint_body("acme")),
    ("create_endpoint", helpers.endpoint_body("acme/" + "m" * 251)),
    ("create_endpoint", {"slug": "acme/j", "targets": []}),
    ("create_endpoint", {"slug": "acme/j", "targets": helpers.endpoint_body("acme/j")["targets"] * 2}),
    ("create_endpoint", {"slug": "acme/j", "targets": [{}]}),
    ("create_endpoint", helpers.endpoint_body("acme/j", target_model="")),
    ("create_endpoint", {"slug": "acme/j", "targets": [{"provider": "BASETEN", "model_id": "no.dots"}]}),
    ("update_endpoint", {"slug": "acme"}),
    ("update_endpoint", {"targets": []}),
    ("create_group", {"metadata": {"external_entity_id": ""}, "models": [{"slug": SLUG}]}),
    ("create_group", {"metadata": {"external_entity_id": TOO_LONG}, "models": [{"slug": SLUG}]}),
    ("create_group", {"metadata": {"external_entity_id": "j"}, "models": []}),
    ("create_group", {"metadata": {"external_entity_id": "j"}, "models": [{}]}),
    ("update_group", {"metadata": {"name": TOO_LONG}}),
    ("update_group", {"models": [{"slug": SLUG, "usage_limits": [helpers.day_limit(-1)]}]}),
    ("create_api_key", {"name": TOO_LONG}),
    ("register_api_key", {"key": "short"}),
    ("save_secret", {"name": "", "value": "v"}),
    ("rotate_webhook_secret", {"overlap_seconds": -1}),
    ("redrive_deliveries", {"from": "yesterday"}),
]


@CHECKER.checks("date-time", raises=ValueError)  # type: ignore[untyped-decorator]
def is_moment(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


class Described:
    """The served document, to hold values against."""

    def __init__(self, document: Json) -> None:
        self.document = document

    def refusals(self, content: Json, value: Any) -> list[str]:
        """Say what is wrong with `value` by the schema of a body."""
        schema = content["content"]["application/json"]["schema"]
        Draft202012Validator.check_schema(schema)
        whole = {**schema, "components": self.document["components"]}
        return [error.message for error in Draft202012Validator(whole, format_checker=CHECKER).iter_errors(value)]


@pytest.fixture
def app(database: Database) -> Litestar:
    return furnished.application(database)


@pytest.fixture
async def described(lab: Lab) -> Described:
    return Described((await lab.client.get("/schema/openapi.json")).json())


@pytest.fixture
async def calls(lab: Lab, database: Database, described: Described) -> list[Call]:
    return list(furnished.calls(described.document, await furnished.furnish(database, lab)))


async def test_real_requests_and_answers_are_as_described(lab: Lab, calls: list[Call], described: Described) -> None:
    answers: dict[str, Any] = {}
    for call in calls:
        if call.body is not None:
            assert described.refusals(call.described["requestBody"], call.body) == [], call.id
        answer = await call.send(lab.client)
        assert answer.status_code == 200, (call.id, answer.text)
        answers[call.id] = answer.json()
        assert described.refusals(call.described["responses"]["200"], answers[call.id]) == [], call.id
    assert {call.id for call in calls if "requestBody" in call.described} == BODIES.keys()
    for name, each in answers.items():  # an empty list is as described whatever the description
        assert not name.startswith("list_") or each["items"], name
    for item in answers["list_events"]["items"]:
        assert item.keys() <= described.document["components"]["schemas"]["LedgerEvent"]["properties"].keys()


async def test_junk_is_refused_by_the_description_and_by_the_gateway(
    lab: Lab, calls: list[Call], described: Described
) -> None:
    by_id = {call.id: call for call in calls}
    for name, body in [*JUNK, *((id_, junk) for id_, whole in BODIES.items() for junk in spoilt(whole))]:
        call = by_id[name]
        assert described.refusals(call.described["requestBody"], body), (name, body)
        answer = await call.send(lab.client, body)
        assert answer.status_code == 400, (name, body, answer.text)
        assert described.refusals(call.described["responses"]["400"], answer.json()) == []


def spoilt(body: Json) -> Iterator[Any]:
    """Return what no body of this kind is: other values, an unknown field, each field as something that none is."""
    yield from ([], ["x"], "x", 5, True)
    yield {**body, "colour": "red"}
    yield from ({**body, name: [[5]]} for name in body)
    yield from ({**body, name: value | {"colour": "red"}} for name, value in body.items() if isinstance(value, dict))


async def test_an_answer_of_other_names_is_not_as_described(lab: Lab, calls: list[Call], described: Described) -> None:
    (call,) = (each for each in calls if each.id == "list_events")
    answer = (await call.send(lab.client)).json()
    counted, corrected = answer["items"]
    assert ("kind" in counted, corrected["kind"]) == (False, "correction")
    for name, own in (("idempotency_key", "idempotencyKey"), ("usage_source", "usageSource")):
        renamed = {key: value for key, value in counted.items() if key != own} | {name: counted[own]}
        assert described.refusals(call.described["responses"]["200"], answer | {"items": [renamed]})
    tokens = {"input_tokens": 1, "output_tokens": 1}
    assert described.refusals(call.described["responses"]["200"], answer | {"items": [counted | {"tokens": tokens}]})


async def test_what_a_body_may_leave_out_is_described(described: Described) -> None:
    schemas = described.document["components"]["schemas"]
    assert schemas["CreateEndpoint"]["properties"]["region"]["default"] == "UNRESTRICTED"
    operations = [each for item in described.document["paths"].values() for each in item.values()]
    optional = {each["operationId"] for each in operations if each.get("requestBody", {}).get("required") is False}
    assert optional == {"create_api_key", "redrive_deliveries"}


async def test_every_status_that_is_answered_is_described(described: Described) -> None:
    for item in described.document["paths"].values():
        for operation in item.values():
            always = {"200", "400", "401", "403", "404", "405", "429", "503"}
            with_body = {"408", "413", "415"} if "requestBody" in operation else set()
            headers = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "header"}
            conditional = {"412"} if "If-Match" in headers else set()
            repeatable = {"409"} if "Idempotency-Key" in headers else set()
            assert operation["responses"].keys() == always | with_body | conditional | repeatable


async def test_every_reference_leads_somewhere(described: Described) -> None:
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(described.document)))
    assert named <= described.document["components"]["schemas"].keys()
    assert {"Order", "DeliveryStatus"} <= named  # the parameters' own


async def test_the_page_for_people_shows_what_is_allowed(lab: Lab) -> None:
    page = (await lab.client.get("/schema")).text
    for said in (
        "string (pattern ^[!-~]{32,128}$)",
        'list of <a href="#Target">Target</a> (minItems 1, maxItems 1)',
        "default <code>&quot;UNRESTRICTED&quot;</code>",
        "<code>correction</code> or null",
        'by name: list of <a href="#LimitUsage">',
        "integer (minimum 1, maximum 1000)",
    ):
        assert said in page
