"""How a record lies aside: as it came, with why and from where in headers of ours."""

from types import SimpleNamespace
from typing import Any

from metering.topic import unreadable
from runtime.kafka.writer import KafkaRecord
from tests.unit.metering.factories import NOON


def found(record: KafkaRecord, *, partition: int = 3, offset: int = 41) -> Any:
    """Return a record as aiokafka's consumer does."""
    return SimpleNamespace(
        key=record.key or None,
        value=record.value,
        headers=tuple(record.headers),
        partition=partition,
        offset=offset,
        timestamp=int(NOON.timestamp() * 1000),
    )


def kept(record: KafkaRecord, reason: str = "no JSON") -> unreadable.Aside:
    return unreadable.of(found(unreadable.aside(found(record), reason), partition=0, offset=7))


def test_what_was_put_aside_comes_back_as_it_came() -> None:
    record = KafkaRecord(b"key", b"\x00not JSON", (("ce_id", b"1"), ("ce_id", b"2"), ("empty", b"")))
    aside = kept(record, "no JSON\n  at all")

    assert aside.record == record
    assert (aside.partition, aside.offset) == (0, 7)
    assert (aside.source_partition, aside.source_offset) == (3, 41)
    assert (aside.reason, aside.at, aside.is_cut) == ("no JSON at all", NOON, False)


def test_a_record_without_key_or_value_is_kept_too() -> None:
    assert kept(KafkaRecord(b"", None)).record == KafkaRecord(b"", None)


def test_headers_of_ours_that_it_already_had_are_replaced() -> None:
    again = kept(
        KafkaRecord(b"key", b"x", (("tollgate_reason", b"old"), ("tollgate_offset", b"1"), ("other", b"o"))), "new"
    )

    assert (again.reason, again.source_offset) == ("new", 41)
    assert again.record.headers == (("other", b"o"),)


def test_a_reason_is_bounded() -> None:
    assert len(kept(KafkaRecord(b"key", b"x"), "ä" * 10_000).reason) == 300


def test_what_is_too_large_to_be_an_event_is_cut_and_said_to_be() -> None:
    most = 256 * 1024
    for record in (
        KafkaRecord(b"k" * (most + 1), b"v"),
        KafkaRecord(b"k", b"v" * (most + 1)),
        KafkaRecord(b"k", b"v", (("h", b"h" * most),)),
        KafkaRecord(b"k", None, tuple((f"h{number}", b"h" * 1000) for number in range(most // 1000))),
    ):
        put = unreadable.aside(found(record), "too large")
        ours = 200  # the most that the headers which say why and where take here
        assert len(put.key) + len(put.value or b"") + sum(len(name) + len(body) for name, body in put.headers) < (
            most + ours
        )
        assert unreadable.of(found(put)).is_cut
    whole = KafkaRecord(b"k" * most, b"v" * most, (("h", b"h" * (most - 1)),))
    assert (kept(whole).record, kept(whole).is_cut) == (whole, False)


def test_what_others_wrote_there_has_no_reason_and_no_source() -> None:
    foreign = unreadable.of(found(KafkaRecord(b"k", b"v", (("tollgate_offset", b"-x"),))))

    assert (foreign.reason, foreign.source_partition, foreign.source_offset) == ("", -1, -1)


def test_equal_records_have_one_digest_wherever_they_stood() -> None:
    first = unreadable.aside(found(KafkaRecord(b"k", b"v")), "a")
    second = unreadable.aside(found(KafkaRecord(b"k", b"v", (("more", b""),)), offset=9), "b")
    digests = [unreadable.of(found(put)).digest for put in (first, second)]
    others = [kept(KafkaRecord(b"kv", b"")).digest, kept(KafkaRecord(b"", b"kv")).digest]

    assert digests[0] == digests[1]
    assert len({digests[0], *others}) == 3
