"""The served description says what the published document says, except for what docs/management-api.md lists."""

import base64
import hashlib
import json
import re
from fnmatch import fnmatchcase
from typing import NamedTuple

import jsonschema  # type: ignore[import-untyped]
import pytest

from control.api.openapi import examples
from tests.architecture import sources
from tests.integration.control import openapi_facts
from tests.integration.control.helpers import Lab
from tests.integration.control.openapi_facts import Facts

DOC = (sources.ROOT / "docs" / "management-api.md").read_text(encoding="utf-8")
PUBLISHED: Facts = json.loads((sources.ROOT / "tests" / "data" / "management_facts.json").read_text(encoding="utf-8"))
OPERATIONS = {name for name, kind in PUBLISHED.items() if kind == "operation"}
SECTION = "## Beside the published document"
ROW = re.compile(r"^\| `([^`|]+)` \| (?:`([^`|]+)`)? ?\| (?:`([^`|]+)`)? ?\| .+ \|$", re.MULTILINE)


class Difference(NamedTuple):
    where: str
    published: str | None
    here: str | None


LISTED = {
    Difference(where, published or None, here or None)
    for where, published, here in ROW.findall(DOC.partition(SECTION)[2])
}


def differences(ours: Facts) -> set[Difference]:
    shared = {name for name in ours if any(name.startswith(f"{operation} ") for operation in OPERATIONS)}
    return {
        Difference(name, PUBLISHED.get(name), ours.get(name))
        for name in shared | PUBLISHED.keys()
        if PUBLISHED.get(name) != ours.get(name)
    }


def explains(listed: Difference, found: Difference) -> bool:
    same = found.published == listed.published and listed.here in {found.here, "*"}
    return fnmatchcase(found.where, listed.where) and same


@pytest.fixture
async def ours(lab: Lab) -> Facts:
    return openapi_facts.facts((await lab.client.get("/schema/openapi.json")).json())


async def test_every_difference_from_the_published_document_is_listed(ours: Facts) -> None:
    found = differences(ours)
    unlisted = [each for each in found if not any(explains(listed, each) for listed in LISTED)]
    assert not unlisted
    stale = [listed for listed in LISTED if not any(explains(listed, each) for each in found)]
    assert not stale


async def test_every_operation_that_is_published_is_here(ours: Facts) -> None:
    assert len(OPERATIONS) == 13
    assert {name for name, kind in ours.items() if kind == "operation"} >= OPERATIONS


def test_the_rule_sees_what_differs() -> None:
    field = "POST /v1/gateway/groups body metadata"
    assert differences(PUBLISHED) == set()
    assert differences({name: kind for name, kind in PUBLISHED.items() if name != field}) == {
        Difference(field, PUBLISHED[field], None)
    }
    assert differences(PUBLISHED | {f"{field}.more": "string"}) == {Difference(f"{field}.more", None, "string")}
    assert differences(PUBLISHED | {field: "string"}) == {Difference(field, PUBLISHED[field], "string")}


async def test_operation_ids_are_explicit_and_unique(lab: Lab) -> None:
    described = (await lab.client.get("/schema/openapi.json")).json()
    named = [operation["operationId"] for item in described["paths"].values() for operation in item.values()]
    assert len(named) == len(set(named))
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)+", name) for name in named)


async def test_the_guide_to_the_api_names_what_it_is_about(ours: Facts) -> None:
    own = ("/v1/secrets", "/v1/gateway/endpoints", "/v1/gateway/groups")
    for name, kind in ours.items():
        if kind == "operation" and name.partition(" ")[2].startswith(own):
            assert f"`{name}`" in DOC


@pytest.mark.parametrize("path", ["/schema", "/schema/openapi.json"])
async def test_a_browser_that_shows_it_runs_nothing_and_asks_nobody(lab: Lab, path: str) -> None:
    answer = await lab.client.get(path)
    headers = answer.headers
    assert answer.status_code == 200
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
    assert headers["referrer-policy"] == "no-referrer"
    if path == "/schema":
        (style,) = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert f"style-src 'sha256-{digest}'" in policy
        assert not re.search(r"<script|\son\w+=|\sstyle=|src=", answer.text)


async def test_every_operation_has_examples_that_are_what_it_takes_and_answers(lab: Lab) -> None:
    document = (await lab.client.get("/schema/openapi.json")).json()
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    components = {"components": document["components"]}
    for operation in operations:
        contents = [operation["requestBody"]["content"]] if "requestBody" in operation else []
        contents += [answer["content"] for answer in operation["responses"].values()]
        for content in (each["application/json"] for each in contents):
            validator = jsonschema.Draft202012Validator(content["schema"] | components)
            assert list(validator.iter_errors(content["example"])) == [], operation["operationId"]
    named = {operation["operationId"] for operation in operations}
    assert named == examples.ANSWERS.keys()
    assert {one["operationId"] for one in operations if "requestBody" in one} == examples.BODIES.keys()


async def test_everything_is_described_in_words_and_named_as_any_language_can(lab: Lab) -> None:
    document = (await lab.client.get("/schema/openapi.json")).json()
    assert all(re.fullmatch(r"[A-Z][A-Za-z]+", name) for name in document["components"]["schemas"])
    for item in document["paths"].values():
        for operation in item.values():
            described = [operation, *operation["responses"].values(), *operation.get("parameters", ())]
            assert all(one.get("description") for one in described), operation["operationId"]
            said = {one["description"] for one in operation["responses"].values()}
            assert not any(text.startswith("Request fulfilled") for text in said)
    text = json.dumps(document)
    assert not re.search(r'"default": \{', text)
    events = document["paths"]["/v1/gateway/events"]["get"]["parameters"]
    (start,) = [one for one in events if one["name"] == "start_time"]
    assert "Required without `cursor`" in start["description"]
