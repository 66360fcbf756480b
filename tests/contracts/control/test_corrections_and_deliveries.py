"""Corrections, and deliveries that are put back: the fakes and the store alike."""

from datetime import datetime

import pytest

from schemas.usage import Tokens, UsageDraft
from tests.contracts.control.desks import Desk
from tests.unit.metering.factories import NOON, correction, event, key
from tests.unit.webhooks import kit

NEVER = NOON.replace(year=2100)


def draft(number: int, corrects: int, tokens: tuple[int, int]) -> UsageDraft:
    made = correction(number, corrects=key(corrects), tokens=(*tokens, 0))
    return UsageDraft(**made.model_dump(exclude={"producer"}))


def test_an_event_of_the_ledger_is_found_whole(desk: Desk) -> None:
    counted = event(1, request_metadata={"order": "4711"})
    desk.count(counted)

    assert desk.corrections.find(key(1)) == counted
    assert desk.corrections.find(key(2)) is None


def test_a_correction_is_kept_under_its_key_with_the_next_number(desk: Desk) -> None:
    desk.corrections.lock()
    first, second = (desk.corrections.put(draft(number, 1, (-1, 2)), NOON) for number in (7, 8))

    assert first.model_dump(exclude={"producer"}) == draft(7, 1, (-1, 2)).model_dump()
    assert (first.producer.sequence, second.producer.sequence) == (1, 2)
    assert first.producer.instance == second.producer.instance
    assert [desk.corrections.made(key(number)) for number in (7, 8, 9)] == [first, second, None]
    assert desk.corrections.find(key(7)) is None, "the ledger does not have it yet"


def test_corrections_of_one_event_are_summed_with_their_signs(desk: Desk) -> None:
    desk.corrections.lock()
    for number, corrects, tokens in ((7, 1, (-3, 2)), (8, 1, (1, -9)), (9, 2, (5, 5))):
        desk.corrections.put(draft(number, corrects, tokens), NOON)

    sums = [desk.corrections.corrected(key(number)) for number in (1, 2, 3)]
    assert sums == [
        Tokens(input_tokens=prompt, output_tokens=completion) for prompt, completion in ((-2, -7), (5, 5), (0, 0))
    ]


def redriven(desk: Desk, since: datetime | None, until: datetime) -> int:
    """Redrive until no more is put back, as the flow does; return how many were."""
    total = 0
    while count := desk.deliveries.redrive("lab", kit.after(1000), since=since, until=until):
        total += count
    return total


def test_a_delivery_has_one_owner(desk: Desk) -> None:
    desk.deliver("lab", "mine", "dead", 1)
    desk.deliver("other", "theirs", "pending", None)

    assert [desk.deliveries.owner(name) for name in ("mine", "theirs", "none")] == ["lab", "other", None]


@pytest.mark.parametrize(("status", "ended_s"), [("dead", 1), ("delivered", 1), ("not_due", 1), ("pending", None)])
def test_a_delivery_is_put_back_whatever_became_of_it(desk: Desk, status: str, ended_s: float | None) -> None:
    desk.deliver("lab", "mine", status, ended_s)
    desk.deliver("lab", "more", "dead", 1)

    assert desk.deliveries.redeliver("lab", "mine", kit.after(9))
    assert list(desk.pending()) == ["mine"]


def test_a_delivery_that_is_another_workspaces_or_gone_is_not_put_back(desk: Desk) -> None:
    desk.deliver("other", "theirs", "dead", 1)

    assert [desk.deliveries.redeliver("lab", name, kit.after(9)) for name in ("theirs", "none")] == [False, False]
    assert list(desk.pending()) == []


def test_a_redrive_puts_back_what_ended_undelivered_in_its_window(desk: Desk) -> None:
    for name, status, ended_s in (
        ("before", "dead", 4),
        ("first", "dead", 5),
        ("arrived", "delivered", 6),
        ("aside", "not_due", 7),
        ("second", "dead", 8),
        ("third", "dead", 8),
        ("after", "dead", 9),
    ):
        desk.deliver("lab", name, status, ended_s)
    desk.deliver("other", "theirs", "dead", 6)

    assert redriven(desk, kit.after(5), kit.after(9)) == 4
    assert list(desk.pending()) == ["aside", "first", "second", "third"]
    assert redriven(desk, None, kit.after(5)) == 1, "what ended at the end of a window is not part of it"
    assert redriven(desk, None, NEVER) == 1
    assert list(desk.pending()) == ["after", "aside", "before", "first", "second", "third"]
