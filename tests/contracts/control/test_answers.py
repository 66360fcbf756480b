"""Answers that are kept for a repeated POST: the fake and the store alike."""

from datetime import timedelta

from control.core.records import KeptAnswer
from tests.contracts.control.desks import Desk
from tests.unit.control.fakes import NOW

DAY = timedelta(hours=24)


def answer(name: str, sealed: str = "sealed", workspace_id: str = "lab") -> KeptAnswer:
    return KeptAnswer(name.ljust(64, "0"), workspace_id, "b" * 64, sealed)


def test_an_answer_is_kept_for_a_day_and_then_another_may_take_its_name(desk: Desk) -> None:
    first, theirs = answer("a"), answer("t", workspace_id="other")
    for each in (first, theirs):
        desk.answers.keep(each, NOW)
    last = NOW + DAY - timedelta(seconds=1)
    assert [desk.answers.find(each.name, last) for each in (first, theirs)] == [first, theirs]
    assert desk.answers.find("nothing", NOW) is None
    assert desk.answers.find(first.name, NOW + DAY) is None
    again = answer("a", "sealed anew")
    desk.answers.keep(again, NOW + DAY)
    assert desk.answers.find(first.name, NOW + DAY) == again
