"""Counts do not depend on how events are cut into batches, sent twice or shuffled."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.core import sums
from metering.core.sums import Counter, DailyIncrement, Increments, LimitIncrement
from metering.store import transaction
from runtime.database import engines
from schemas.usage import MOST_COST, Kind, UsageEvent
from tests.unit.metering.factories import LANE, NOON, SPOOL, HandClock, batch, correction, event

Sums = dict[tuple[date, str, str], list[int]]

TREES = {"left": ("left", "root"), "right": ("right", "root"), "root": ("root",), "lone": ("lone",)}


@st.composite
def an_event(draw: st.DrawFn, sequence: int) -> UsageEvent:
    group_id = draw(st.sampled_from(sorted(TREES)))
    timestamp = NOON + timedelta(hours=12 * draw(st.integers(0, 3)), milliseconds=draw(st.integers(-1, 1)))
    slug = draw(st.sampled_from(["org/model", "org/other"]))
    if draw(st.integers(0, 4)) == 0:
        signed = st.integers(-1000, 1000)
        tokens = (draw(signed), draw(signed), 0)
        return correction(sequence, tokens=tokens, group_id=group_id, timestamp=timestamp, model_slug=slug)
    prompt, completion = draw(st.integers(0, 2**40)), draw(st.integers(0, 2**40))
    return event(
        sequence,
        tokens=(prompt, completion, draw(st.integers(0, prompt))),
        group_id=group_id,
        charged_groups=TREES[group_id],
        timestamp=timestamp,
        model_slug=slug,
        cost=draw(st.integers(0, MOST_COST)),
    )


@st.composite
def streams(draw: st.DrawFn) -> list[UsageEvent]:
    """Return events in any order, some of them twice and more often, then under another number."""
    originals = [draw(an_event(sequence)) for sequence in range(1, draw(st.integers(1, 12)) + 1)]
    again = draw(st.lists(st.sampled_from(originals), max_size=8))
    copies = [
        original.model_copy(update={"producer": original.producer.model_copy(update={"instance": f"copy-{number}"})})
        for number, original in enumerate(again)
    ]
    return draw(st.permutations(originals + copies))


@st.composite
def cuts(draw: st.DrawFn, stream: Sequence[UsageEvent]) -> list[Sequence[UsageEvent]]:
    """Cut a stream into batches."""
    ends = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    return [stream[start:end] for start, end in zip([0, *ends], [*ends, len(stream)], strict=True)]


def slow_sums(stream: Sequence[UsageEvent]) -> tuple[Sums, Sums]:
    """Count event by event, each key once: daily usage and limit totals."""
    daily: Sums = defaultdict(lambda: [0] * 7)
    limits: Sums = defaultdict(lambda: [0] * 5)
    seen = set()
    for each in stream:
        if each.idempotency_key in seen:
            continue
        seen.add(each.idempotency_key)
        day, tokens = each.timestamp.astimezone(UTC).date(), each.tokens
        counts = [1, tokens.input_tokens, tokens.output_tokens]
        own = daily[day, each.group_id, each.model_slug]
        if each.kind is Kind.CORRECTION:
            own[4:] = [a + b for a, b in zip(own[4:], counts, strict=True)]
            continue
        own[:4] = [a + b for a, b in zip(own[:4], [*counts, tokens.cached_input_tokens], strict=True)]
        for group_id in each.charged_groups:
            total = limits[day, group_id, each.model_slug]
            total[0] += 1
            total[1] += tokens.input_tokens + tokens.output_tokens
            total[2] += tokens.input_tokens
            total[3] += tokens.output_tokens
            total[4] = min(total[4] + each.cost, sums.MOST_COST)
    return dict(daily), dict(limits)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Database]:
    with engines.sqlite(tmp_path_factory.mktemp("rollup") / "main.db") as made:
        engines.METADATA.create_all(made.engine)
        yield made


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_split_with_duplicates_and_redelivery_counts_like_the_slow_model(
    data: st.DataObject, opened: engines.Database
) -> None:
    stream = data.draw(streams())
    daily, limits = slow_sums(stream)
    with opened.engine.connect().execution_options(tollgate_write=True) as connection, connection.begin() as undone:
        offset = 1
        for part in data.draw(cuts(stream)):
            for _ in range(data.draw(st.integers(1, 2))):
                transaction.apply(connection, batch(part, offset), HandClock())
            offset += len(part)
        found = transaction.parts(connection, SPOOL, 0, LANE, [Counter(*key) for key in daily | limits])
        undone.rollback()
    usages, totals_ = found.daily, found.limits
    assert {
        (usage.day, usage.group_id, usage.model_slug): [
            usage.requests,
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_input_tokens,
            usage.corrections,
            usage.corrected_input_tokens,
            usage.corrected_output_tokens,
        ]
        for usage in usages
    } == daily
    assert {
        tuple(total.counter): [total.requests, total.tokens, total.input_tokens, total.output_tokens, total.cost]
        for total in totals_
    } == limits


def merge(first: Increments, second: Increments) -> Increments:
    daily, limits = dict(first.daily), dict(first.limits)
    for counter, more in second.daily.items():
        daily[counter] = DailyIncrement(*map(sum, zip(daily.get(counter, DailyIncrement()), more, strict=True)))
    for counter, added in second.limits.items():
        limits[counter] = LimitIncrement(*map(sum, zip(limits.get(counter, LimitIncrement()), added, strict=True)))
    return Increments(daily, limits)


@given(st.data())
def test_increments_merge_to_the_same_however_they_are_cut_and_ordered(data: st.DataObject) -> None:
    stream = [data.draw(an_event(sequence)) for sequence in range(1, data.draw(st.integers(0, 10)) + 1)]
    parts = [sums.increments(part) for part in data.draw(cuts(stream))]
    merged = sums.increments([])
    for part in data.draw(st.permutations(parts)):
        merged = merge(merged, part)

    assert merged == sums.increments(stream)
    assert (
        {tuple(c): list(i) for c, i in merged.daily.items()},
        {tuple(c): list(i) for c, i in merged.limits.items()},
    ) == slow_sums(stream)
