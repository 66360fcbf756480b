"""What one workspace or key may take of a proxy, and what it is told beyond that."""

import pytest

from proxy import shares
from proxy.shares import AnswerRoom, AnswersFullError, ReadingRates
from runtime.shares import Excess, Shares
from tests.unit.proxy import kit
from tests.unit.proxy.bodies import error_of

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("excess", "status", "code"),
    [
        (Excess.OWN, 429, "share_exceeded"),
        (Excess.WHOLE, 503, "service_unavailable"),
    ],
)
def test_a_refusal_names_the_bound_and_asks_for_a_second(excess: Excess, status: int, code: str) -> None:
    reply = shares.refused(excess, "request bodies")
    assert (reply.status, error_of(reply.body)["code"]) == (status, code)
    assert "request bodies" in error_of(reply.body)["message"]
    assert (b"retry-after", b"1") in reply.headers


def test_a_key_reads_its_bytes_a_second_and_its_workspace_those_of_four_keys() -> None:
    now_s = 0.0
    rates = ReadingRates(MIB, 2 * MIB, lambda: now_s)
    keys = [kit.key(prefix=f"key-{number}") for number in range(4)]
    assert [rates.take(keys[0], size) for size in (2 * MIB, 65_537, 65_536)] == [None, Excess.OWN, None]
    assert [rates.take(key, MIB) for key in keys[1:]] == [None, None, Excess.OWN], "the workspace's"
    others = [kit.key(prefix=f"other-{number}", workspace_id=f"ws-{number}") for number in range(10)]
    assert [rates.take(key, 2 * MIB) for key in others[:7]] == [None] * 6 + [Excess.WHOLE]
    now_s = 2.0
    assert [rates.take(keys[0], 2 * MIB), rates.take(others[7], 2 * MIB)] == [None, None]


def test_an_answers_room_is_counted_beyond_64_kib_and_given_back() -> None:
    answers = Shares(4 * MIB, 0.5)
    room, other = AnswerRoom(answers, "ws"), AnswerRoom(answers, "ws")
    room.hold(64 * 1024)
    assert answers.taken == 0
    room.hold(MIB)
    room.hold(2 * MIB)
    with pytest.raises(AnswersFullError) as refused:
        other.hold(64 * 1024 + 1)
    assert (refused.value.excess, answers.taken) == (Excess.OWN, 2 * MIB)
    room.hold(10)
    assert answers.taken == 10
    room.close()
    room.close()
    assert answers.taken == 0
