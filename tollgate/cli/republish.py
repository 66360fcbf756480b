"""`tollgate republish`: writes daily usage to its topic again, as the database has it, and decisions of today.

A total that a worker counts and writes meanwhile may stand in the topic before the one that was read here. The worker
sees from the broker's offsets that another has written, and tells those counters again.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from functools import partial
from typing import Any

import click

from control.store import snapshot
from domain import days
from metering import months
from metering.core import decisions, sums
from metering.core.decisions import Part
from metering.core.sums import Counter, Totals
from metering.store import transaction
from metering.thresholds import GroupThresholds
from metering.topic.lanes import partition_of
from metering.topic.publisher import KafkaTotals
from runtime import clock
from runtime.config import epochs
from runtime.config import log as config_log
from runtime.kafka.writer import Kafka, KafkaAwayError, RecordTooLargeError, Writer
from schemas.topics import LIMITS_DECISIONS, USAGE_DAILY
from tollgate.cli import commands, progress
from tollgate.cli.commands import Where
from tollgate.installation import Installation

_DAY = click.DateTime(["%Y-%m-%d"])

Shown = Callable[[int], None]
"""Is told how many more records the topics have."""


@click.command()
@click.option("--from", "from_day", required=True, type=_DAY, metavar="DAY", help="The first UTC day, as 2026-01-31.")
@click.option("--to", "to_day", required=True, type=_DAY, metavar="DAY", help="The last UTC day, inclusive.")
@commands.located
@click.option("--json", "as_json", is_flag=True, help="Print how many records were written as one JSON object.")
def republish(*, from_day: datetime, to_day: datetime, where: Where, as_json: bool) -> None:
    """Write daily usage to its topic again, and limit decisions of today and this month. Safe to repeat.

    For a topic that was lost.
    """
    first, last = from_day.date(), to_day.date()
    if first > last:
        raise click.UsageError(f"--from {first} lies behind --to {last}")
    with commands.opened(where) as place, _progress() as shown:
        if place.settings.kafka_bootstrap is None:
            raise click.ClickException("TOLLGATE_KAFKA_BOOTSTRAP is not set; without Kafka there are no topics")
        daily, decisions = _run(_republish(place, first, last, shown))
    if as_json:
        click.echo(json.dumps({"from": str(first), "to": str(last), "daily": daily, "decisions": decisions}))
        return
    click.echo(f"{daily:,} record(s) of {first} to {last} written to {USAGE_DAILY}")
    click.echo(f"{decisions:,} of today and this month written to {LIMITS_DECISIONS}")


def _run(work: Coroutine[Any, Any, tuple[int, int]]) -> tuple[int, int]:
    try:
        return asyncio.run(work)
    except (KafkaAwayError, RecordTooLargeError) as error:
        raise click.ClickException(str(error)) from None


@contextmanager
def _progress() -> Iterator[Shown]:
    with progress.bar() as shown:
        task = shown.add_task("writing", total=None)
        yield partial(shown.advance, task)


async def _republish(place: Installation, first: date, last: date, shown: Shown) -> tuple[int, int]:
    """Write both; return how many records of each."""
    today = place.read(commands.now).date()
    writer = Writer(Kafka.of(place.settings), "republish")
    totals = KafkaTotals(writer, clock.present, _too_large)
    totals.first_version = epochs.start(place.read(config_log.current_version))
    try:
        daily = await _daily(place, totals, first, last, shown)
        decisions = await _decisions(place, totals, today, shown) if first <= today <= last else 0
    finally:
        await writer.close()
    return daily, decisions


async def _daily(place: Installation, totals: KafkaTotals, first: date, last: date, shown: Shown) -> int:
    count, after = 0, Counter(first, "", "")
    while page := place.read(partial(transaction.daily_behind, after=after, to_day=last)):
        await totals.publish((), page)
        shown(len(page))
        count, after = count + len(page), Counter(page[-1].day, page[-1].group_id, page[-1].model_slug)
    return count


async def _decisions(place: Installation, totals: KafkaTotals, today: date, shown: Shown) -> int:
    thresholds = GroupThresholds()
    place.read(lambda connection: snapshot.load(connection, thresholds.apply))
    count, after = 0, Counter(today, "", "")
    while lanes := place.read(partial(transaction.limits_behind, after=after, to_day=today)):
        page = _parts(lanes, thresholds)
        await totals.publish(page, ())
        shown(len(page))
        count, after = count + len(page), max(total.counter for lane in lanes for total in lane.limits)
    for topic, partition, lane in place.read(transaction.lanes_of):
        if partition_of(lane) is not None:
            count += await _months(place, totals, (topic, partition, lane), thresholds, days.month_of(today), shown)
    return count


async def _months(  # noqa: PLR0917 - which months, and to whom
    place: Installation,
    totals: KafkaTotals,
    of_lane: tuple[str, int, str],
    thresholds: GroupThresholds,
    month: date,
    shown: Shown,
) -> int:
    """Write what a lane counts in the months that limits are compared with; return how many."""
    topic, partition, lane = of_lane
    count, after = 0, ("", "")
    while named := place.read(partial(transaction.named_in_month, lane=lane, month=month, after=after)):
        wanted = [Counter(month, *name) for name in named if thresholds.is_monthly(*name)]
        of_months = partial(transaction.months, topic=topic, partition=partition, lane=lane, names=wanted)
        page, _ = months.told(partition, *place.read(of_months), thresholds)
        await totals.publish(page, ())
        shown(len(page))
        count, after = count + len(page), named[-1]
    return count


def _parts(lanes: Sequence[Totals], thresholds: GroupThresholds) -> list[Part]:
    """Return what is told of these lanes; thresholds are judged by the sum over them."""
    whole = sums.whole_limits(total for lane in lanes for total in lane.limits)
    parts = []
    for lane in lanes:
        partition = partition_of(lane.lane)
        if partition is not None:
            for total in lane.limits:
                group_id, slug = total.counter.group_id, total.counter.model_slug
                used_up = decisions.used_up(whole[total.counter], thresholds.of(group_id, slug))
                parts.append(Part(lane.lane, partition, lane.position, total, used_up))
    return parts


def _too_large(_key: str, error: RecordTooLargeError) -> None:
    raise error
