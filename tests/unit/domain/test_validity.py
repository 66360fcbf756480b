"""Which records are usage events that can be counted."""

import json
import re
from datetime import date
from typing import Any

import pytest

from domain import validity
from domain.ledger_days import EVERY, Days
from tests.unit.metering.factories import NOON, correction, event

TODAY = NOON.date()


def altered(**fields: Any) -> bytes:
    """Return an event's JSON with some members other than they should be; None as a value takes one away."""
    body = json.loads(event(1).model_dump_json())
    body |= fields
    return json.dumps({name: value for name, value in body.items() if value is not ...}).encode()


def refusal(value: bytes | None, days: Days = EVERY) -> str:
    with pytest.raises(validity.UnreadableError) as refused:
        validity.read(value, days)
    return str(refused.value)


def test_an_event_and_a_correction_are_read_whole() -> None:
    for each in (event(1, request_metadata={"a": "\u0000 is text here"}), correction(2)):
        assert validity.read(each.model_dump_json().encode(), EVERY) == each


def test_unknown_members_of_a_newer_version_are_ignored() -> None:
    assert validity.read(altered(newer={"x": [1]}), EVERY) == event(1)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "it has no value"),
        (b"", "Invalid JSON"),
        (b"not JSON", "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"[]", "object"),
        (b"null", "object"),
        (b"{}", "idempotencyKey: Field required"),
        (altered(tokens={"inputTokens": 1.5, "outputTokens": 1}), "tokens.inputTokens"),
        (altered(tokens={"inputTokens": -1, "outputTokens": 1}), "must not be negative"),
        (altered(tokens={"inputTokens": 1, "outputTokens": 10**9 + 1}), "no event holds more than"),
        (altered(tokens={"inputTokens": 10**40, "outputTokens": 1}), "no event holds more than"),
        (
            altered(tokens={"inputTokens": 1, "outputTokens": 1, "cachedInputTokens": 10**9 + 1}),
            "no event holds more than",
        ),
        (correction(2, tokens=(0, -(10**9) - 1, 0)).model_dump_json().encode(), "no event holds more than"),
        (altered(timestamp="2025-03-01T12:00:00"), "timestamp"),
        (altered(timestamp="9999-12-31T23:59:59-01:00"), "outside of the calendar"),
        (altered(producer={"instance": "a", "sequence": 0}), "producer.sequence"),
        (altered(producer={"instance": "a", "sequence": 2**63}), "producer.sequence: Input should be less than"),
        (altered(latencyMs=2**63), "latencyMs: Input should be less than"),
        (altered(firstByteMs=-1), "firstByteMs: Input should be greater than"),
        (altered(requestMetadata={"k": "v" * 33_000}), "a usage event has 32768 at most"),
        (altered(workspaceId=...), "workspaceId: Field required"),
        (event(1).model_dump_json().replace("workspace-a", "\\ud800").encode(), "Invalid JSON"),
        (b"[" * 5000, "Invalid JSON"),
    ],
)
def test_what_is_no_usage_event_is_refused_in_one_line(value: bytes | None, reason: str) -> None:
    said = refusal(value)
    assert reason in said
    assert "\n" not in said


def test_what_is_just_allowed_is_read() -> None:
    most = 10**9
    for each in (
        event(1, tokens=(most, most, most)),
        correction(2, tokens=(-most, -most, 0)),
        event(3, charged_groups=tuple(f"group-{level}" for level in range(16))),
    ):
        assert validity.read(each.model_dump_json().encode(), EVERY) == each
    padded = event(4).model_dump_json().encode().ljust(32_768)
    assert validity.read(padded, EVERY) == event(4)
    assert "it has 32769 bytes" in refusal(padded + b" ")


def test_a_refusal_holds_nothing_of_the_values() -> None:
    assert "sk-secret" not in refusal(altered(timestamp="sk-secret", tokens="sk-secret"))


def test_an_event_whose_day_is_not_kept_is_refused_with_the_days_that_are() -> None:
    value = event(1).model_dump_json().encode()

    assert validity.read(value, Days(TODAY, TODAY)) == event(1)
    assert "no longer kept" in refusal(value, Days(date(2025, 3, 2), date(2025, 3, 9)))
    assert "too far ahead" in refusal(value, Days(date(2024, 3, 2), date(2025, 2, 28)))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("idempotencyKey", "k" * 65),
        ("workspaceId", "w\x00"),
        ("externalEntityId", "c\x00ustomer"),
        ("modelSlug", "s" * 256),
        ("chargedGroups", ["g"] * 17),
        ("chargedGroups", ["g" * 65]),
        ("producer", {"instance": "i" * 12_000, "sequence": 1}),
    ],
)
def test_texts_that_no_database_can_keep_are_put_aside(name: str, text: Any) -> None:
    """One of them in a batch would stop its partition for good."""
    assert re.search(r"at most|no event has more", refusal(altered(**{name: text})))


def test_metadata_may_hold_any_character() -> None:
    made = event(1, request_metadata={"note": "a\x00b"})
    assert validity.read(made.model_dump_json().encode(), EVERY) == made
