"""`tollgate unreadable`: the records that could not be counted, and another try of them (contract 4).

Records stay for the topic's 35 days. Trying one twice is harmless: the ledger takes a key once.
"""

import asyncio
import json
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

import click

from metering.topic import unreadable as store
from metering.topic.unreadable import Aside
from runtime import settings
from runtime.kafka.reader import LogReader
from runtime.kafka.writer import Kafka, KafkaAwayError, RecordTooLargeError, Writer
from schemas import base
from schemas.topics import USAGE_EVENTS, USAGE_UNREADABLE
from tollgate.cli import commands, progress
from tollgate.cli.commands import Where
from tollgate.cli.menu import Menu

_WITHIN_S = 30.0

Result = TypeVar("Result")


@click.group(cls=Menu)
def unreadable() -> None:
    """Records of the usage topic that could not be counted."""


@unreadable.command("list")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="The newest so many.")
@commands.located
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def list_(*, limit: int, where: Where, as_json: bool) -> None:
    """Show the newest unreadable records with their reasons, oldest first."""
    found, total = _run(_newest(_kafka(where), limit))
    for one in found:
        click.echo(json.dumps(_shown(one)) if as_json else _line(one))
    if not as_json:
        shown = f", the newest {limit} shown" if total > limit else ""
        click.echo(f"{total} unreadable record(s){shown}" if total else "No unreadable records.", err=True)


@unreadable.command()
@click.option("--all", "everything", is_flag=True, help="Everything that lies aside; equal records once.")
@click.option("--partition", type=click.IntRange(0), help="With --offset: one record, as `list` names it.")
@click.option("--offset", type=click.IntRange(0))
@commands.located
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def retry(
    *,
    everything: bool,
    partition: int | None,
    offset: int | None,
    where: Where,
    as_json: bool,
) -> None:
    """Send records back to the usage topic as they came, to be counted after all. Safe to repeat."""
    kafka = _kafka(where)
    if everything and partition is None and offset is None:
        sent, skipped = _run(_retry_all(kafka))
    elif not everything and partition is not None and offset is not None:
        sent, skipped = _run(_retry_one(kafka, partition, offset))
    else:
        raise click.UsageError("give either --all, or --partition and --offset")
    if as_json:
        click.echo(json.dumps({"sent": sent, "skipped": skipped}))
        return
    click.echo(f"{sent} record(s) sent back to {kafka.name(USAGE_EVENTS)}; what is still unreadable will come again")
    if skipped:
        click.echo(f"{skipped} skipped: they were cut because of their size, or repeat another")


def _kafka(where: Where) -> Kafka:
    try:
        loaded = commands.load(where)
    except settings.SettingsError as error:
        raise click.ClickException(str(error)) from None
    if loaded.kafka_bootstrap is None:
        raise click.ClickException("TOLLGATE_KAFKA_BOOTSTRAP is not set; without Kafka no record is ever put aside")
    return Kafka.of(loaded)


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    try:
        return asyncio.run(work)
    except (KafkaAwayError, RecordTooLargeError) as error:
        raise click.ClickException(str(error)) from None


async def _newest(where: Kafka, limit: int) -> tuple[list[Aside], int]:
    newest: deque[Aside] = deque(maxlen=limit)
    total = 0
    with progress.bar() as shown:
        task = shown.add_task("reading", total=await _size(where))
        async for some in store.stored(where):
            total += len(some)
            newest = deque(sorted([*newest, *some], key=_order), maxlen=limit)  # the partitions come interleaved
            shown.advance(task, len(some))
    return list(newest), total


async def _retry_all(where: Kafka) -> tuple[int, int]:
    sent = skipped = 0
    seen: set[bytes] = set()
    writer = Writer(where, "tollgate-unreadable")
    try:
        with progress.bar() as shown:
            task = shown.add_task("sending back", total=await _size(where))
            async for some in store.stored(where):
                chosen = {one.digest: one for one in some if not one.is_cut and one.digest not in seen}
                seen |= chosen.keys()
                await writer.write(USAGE_EVENTS, [one.record for one in chosen.values()], _WITHIN_S)
                sent += len(chosen)
                skipped += len(some) - len(chosen)
                shown.advance(task, len(some))
    finally:
        await writer.close()
    return sent, skipped


async def _retry_one(where: Kafka, partition: int, offset: int) -> tuple[int, int]:
    found = await store.at(where, partition, offset)
    if found is None:
        raise click.ClickException(f"{where.name(USAGE_UNREADABLE)} has no record at {partition}, {offset}")
    if found.is_cut:
        return 0, 1
    writer = Writer(where, "tollgate-unreadable")
    try:
        await writer.write(USAGE_EVENTS, [found.record], _WITHIN_S)
    finally:
        await writer.close()
    return 1, 0


async def _size(where: Kafka) -> int:
    async with LogReader(where, USAGE_UNREADABLE) as reader:
        return sum(log.end - log.begin for log in (await reader.bounds()).values())


def _order(one: Aside) -> tuple[Any, ...]:
    return one.at, one.partition, one.offset


def _shown(one: Aside) -> dict[str, Any]:
    value = one.record.value
    return {
        "partition": one.partition,
        "offset": one.offset,
        "at": base.rfc3339(one.at),
        "reason": one.reason,
        "source_partition": one.source_partition,
        "source_offset": one.source_offset,
        "cut": one.is_cut,
        "key": one.record.key.decode(errors="replace"),
        "value": None if value is None else value.decode(errors="replace"),
    }


def _line(one: Aside) -> str:
    came = f"{USAGE_EVENTS}/{one.source_partition} at {one.source_offset}"
    return (
        f"--partition {one.partition} --offset {one.offset}  {base.rfc3339(one.at)}  {came}: {json.dumps(one.reason)}"
    )
