"""What one workspace or key may take of a proxy, and what it is told beyond that."""

import json

import pytest

from proxy import shares
from proxy.core.calls import AnswersFullError
from proxy.shares import AnswerRoom, ReadingRates
from runtime.shares import Excess, Shares
from tests.unit.proxy import kit
from tests.unit.proxy.bodies import ASKED, PLAIN, error_of
from tests.unit.proxy.kit import House
from tests.unit.proxy.virtual_time import in_virtual_time

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


@in_virtual_time
async def test_a_large_body_beyond_the_keys_rate_is_refused_before_it_is_read() -> None:
    house = House()
    large = json.dumps({"model": kit.SLUG, "x": "y" * (10 * MIB)}).encode()
    house.upstream.answers(PLAIN)
    first, second, small = [house.client(body) for body in (large, large[:-1], ASKED)]
    await house.serve(first)
    await house.serve(second)
    await house.serve(small)
    assert [first.status, second.status, small.status] == [200, 429, 200], "not 400: it was not looked at"
    assert error_of(second.got)["code"] == "share_exceeded"
    house.assert_all_given_back()
