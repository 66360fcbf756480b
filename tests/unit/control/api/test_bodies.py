import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from control.api import common, paging
from control.core.refusals import InvalidError
from runtime import ids
from schemas.api import (
    CreateApiKey,
    CreateGroup,
    CreateSecret,
    Endpoint,
    Region,
    RegisterApiKey,
    RevokedApiKey,
    UpdateGroup,
)
from schemas.targets import Provider, Target


def refusal(body: bytes) -> InvalidError:
    with pytest.raises(InvalidError) as refused:
        common.read(CreateGroup, body)
    return refused.value


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"metadata": {"external_entity_id": ""}, "models": [{"slug": "a/m"}]}, "metadata.external_entity_id"),
        ({"metadata": {"external_entity_id": 1}, "models": [{"slug": "a/m"}]}, "metadata.external_entity_id"),
        ({"metadata": {"external_entity_id": "a"}, "models": []}, "models"),
        ({"metadata": {"external_entity_id": "a"}, "models": [{"slug": "a"}]}, "models[0].slug"),
        ({"metadata": {"external_entity_id": "a"}, "models": [{"slug": "a/m"}], "more\n": 1}, "more\\n"),
    ],
)
def test_a_refusal_names_the_field(body: dict[str, Any], param: str) -> None:
    refused = refusal(json.dumps(body).encode())
    assert refused.param == param
    assert refused.message.startswith(f"{param}: ")


def test_what_is_allowed_is_said() -> None:
    body = {"metadata": {"external_entity_id": "a"}, "models": [{"slug": "a/m", "usage_limits": [{"type": "X"}]}]}
    assert "'REQUEST', 'TOKEN', 'INPUT_TOKEN', 'OUTPUT_TOKEN' or 'COST'" in refusal(json.dumps(body).encode()).message
    repeated = {"metadata": {"external_entity_id": "a"}, "models": [{"slug": "a/m"}, {"slug": "a/m"}]}
    assert refusal(json.dumps(repeated).encode()).message == "models: a slug may appear at most once"


def test_nul_is_refused_wherever_it_stands() -> None:
    hierarchy = {"parent_group_id": "b\0"}
    body = {"metadata": {"external_entity_id": "a"}, "models": [{"slug": "a/m"}], "hierarchy": hierarchy}
    assert "U+0000" in refusal(json.dumps(body).encode()).message


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    read = common.read(UpdateGroup, rb'{"metadata": {"name": "\\u0000"}}')
    assert read.metadata is not None
    assert read.metadata.name == r"\u0000"


def written(page: Any) -> Any:
    """Return a page as a client reads it."""
    return json.loads(msgspec.json.encode(page, enc_hook=common.encode))


@given(st.integers(0, 30), st.integers(1, 10))
def test_pages_cover_everything_once(count: int, limit: int) -> None:
    everything = sorted(ids.mint() for _ in range(count))
    seen: list[str] = []
    cursor: str | None = None
    while True:
        after = common.after(cursor)
        found = [id_ for id_ in everything if id_ > after][: limit + 1]
        page = written(paging.filled(found, limit, lambda id_: RevokedApiKey(prefix=id_), common.id_cursor))
        assert len(page["items"]) <= limit
        seen += [each["prefix"] for each in page["items"]]
        cursor = page["pagination"]["cursor"]
        assert page["pagination"]["has_more"] is (cursor is not None)
        if cursor is None:
            break
    assert seen == everything


@given(st.text())
def test_any_other_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidError, match="cursor"):
        common.after(cursor)


def test_an_answer_leaves_out_only_what_a_target_never_had() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC)
    endpoint = Endpoint(
        id="e",
        slug="a/m",
        region=Region.EU,
        targets=(Target(provider=Provider.OPENAI_COMPATIBLE, target_model="m"),),
        created_at=moment,
        updated_at=moment,
    )
    assert common.encode(endpoint) == {
        "id": "e",
        "slug": "a/m",
        "region": "EU",
        "targets": [{"provider": "OPENAI_COMPATIBLE", "target_model": "m"}],
        "created_at": "2026-01-02T03:04:05.678Z",
        "updated_at": "2026-01-02T03:04:05.678Z",
    }


def limits(*limits: tuple[str, str, int]) -> bytes:
    """Make the body of a group with these rate limits: type, unit, threshold."""
    rates = [{"type": type_, "unit": unit, "threshold": threshold} for type_, unit, threshold in limits]
    model = {"slug": "a/m", "rate_limits": rates}
    return json.dumps({"metadata": {"external_entity_id": "a"}, "models": [model]}).encode()


@pytest.mark.parametrize("threshold", [-1, 2**53 + 1])
def test_a_threshold_lies_between_zero_and_what_every_json_reader_holds(threshold: int) -> None:
    assert refusal(limits(("TOKEN", "MINUTE", threshold))).param == "models[0].rate_limits[0].threshold"
    for allowed in (0, 1, 2**53):
        (model,) = common.read(CreateGroup, limits(("TOKEN", "MINUTE", allowed))).models
        assert model.rate_limits[0].threshold == allowed


def test_a_group_sets_one_rate_of_a_type_and_unit() -> None:
    two = limits(("TOKEN", "MINUTE", 1), ("TOKEN", "MINUTE", 2))
    assert "at most one rate limit per type and unit" in refusal(two).message
    for other in (("REQUEST", "MINUTE", 1), ("TOKEN", "SECOND", 1)):
        assert common.read(CreateGroup, limits(("TOKEN", "MINUTE", 1), other)).models


@pytest.mark.parametrize("character", ["\x01", "\t", "\n", "\r", "\x1b", "\x7f", "\x85", "\x9b"])
@pytest.mark.parametrize(
    ("contract", "body", "param"),
    [
        (CreateGroup, {"metadata": {"external_entity_id": "a%s"}, "models": [{"slug": "a/m"}]}, "external_entity_id"),
        (
            CreateGroup,
            {"metadata": {"external_entity_id": "a", "name": "a%s"}, "models": [{"slug": "a/m"}]},
            "metadata.name",
        ),
        (UpdateGroup, {"metadata": {"name": "%s"}}, "metadata.name"),
        (CreateApiKey, {"name": "a%sb"}, "name"),
        (RegisterApiKey, {"name": "a%sb", "key": "k" * 32}, "name"),
        (CreateSecret, {"name": "a%sb", "value": "v"}, "name"),
    ],
)
def test_names_and_ids_hold_no_control_characters(
    contract: type[BaseModel], body: dict[str, Any], param: str, character: str
) -> None:
    """A terminal, a log or a table of somebody else's would obey them."""

    def text(value: str) -> bytes:
        return json.dumps(body).replace("%s", json.dumps(value)[1:-1]).encode()

    with pytest.raises(InvalidError) as refused:
        common.read(contract, text(character))
    assert (refused.value.param or "").endswith(param)
    assert refused.value.message.endswith("must not hold control characters")
    assert common.read(contract, text("é客🙂"))


def test_a_page_is_full_by_its_bytes_too_and_nothing_is_read_beyond_it() -> None:
    taken: list[int] = []

    def found() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    def body(_: int) -> RevokedApiKey:
        return RevokedApiKey(prefix="x" * (paging.PAGE_BYTES // 4))

    page = written(paging.filled(found(), 1000, body, str))
    assert len(page["items"]) == 4
    assert page["pagination"] == {"has_more": True, "cursor": "3"}
    assert taken == [0, 1, 2, 3, 4]


def test_one_item_larger_than_a_page_is_a_page() -> None:
    def body(_: int) -> RevokedApiKey:
        return RevokedApiKey(prefix="x" * (paging.PAGE_BYTES * 2))

    first = written(paging.filled([1, 2], 1000, body, str))
    assert (len(first["items"]), first["pagination"]["has_more"]) == (1, True)
