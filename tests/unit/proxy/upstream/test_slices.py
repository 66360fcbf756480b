"""A large body leaves slice by slice: none before the system has taken the one before, and others go on between two."""

import asyncio
from typing import cast

from proxy.upstream.slices import SLICE_BYTES, Slices
from runtime.turns import ROUNDS, Turns

BODY = bytes(range(256)) * (2 * SLICE_BYTES // 256) + b"rest"


class Wire:
    """A transport that takes what is written when it is told to."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.waiting = 0
        self.closing = False

    def set_write_buffer_limits(self, high: int | None = None) -> None:
        assert high == 0, "else it would not say when it has taken all"

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))
        self.waiting = len(data)


def slices(wire: Wire, sent: list[str]) -> Slices:
    turns = Turns(lambda: 0.0)  # by rounds of the loop alone
    return Slices(cast(asyncio.Transport, wire), BODY, turns, "lab", lambda: sent.append("all"))


async def rounds(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_next_slice_waits_until_the_system_has_taken_the_one_before() -> None:
    wire, sent = Wire(), list[str]()
    sending = slices(wire, sent)
    for count in (1, 2, 3):
        wire.waiting = 0
        sending.go_on()
        sending.go_on()  # as often as it is told
        await rounds(5 * ROUNDS)
        assert (len(wire.written), sent) == (count, [])
    assert (b"".join(wire.written), sending.is_left) == (BODY, False)
    assert max(map(len, wire.written)) == SLICE_BYTES
    wire.waiting = 0
    sending.go_on()
    sending.go_on()
    assert sent == ["all"]


async def test_what_the_system_takes_at_once_goes_in_turns_all_the_same() -> None:
    wire, sent = Wire(), list[str]()
    wire.get_write_buffer_size = lambda: 0  # type: ignore[method-assign]
    slices(wire, sent).go_on()
    seen = []
    while not sent:
        seen.append(len(wire.written))
        await asyncio.sleep(0)
    assert min(seen.count(number) for number in (0, 1, 2)) >= ROUNDS


async def test_a_connection_that_has_ended_is_sent_no_more() -> None:
    for end in (lambda wire, sending: sending.close(), lambda wire, _: setattr(wire, "closing", True)):
        wire, sent = Wire(), list[str]()
        sending = slices(wire, sent)
        sending.go_on()
        end(wire, sending)
        await rounds(3 * ROUNDS)
        assert (wire.written, sent) == ([], [])
