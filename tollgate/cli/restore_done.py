"""`tollgate restore-done`: brings a database that was restored together with its topics (counting 9).

Safe to repeat: each time another epoch begins, and nothing counts twice.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

from domain.positions import LogShrunkError, PositionLostError
from runtime.config import log as config_log
from runtime.database.leadership import LeadershipLostError, PostgresLeadership
from runtime.kafka.writer import Kafka, KafkaAwayError
from tollgate.cli import commands, progress
from tollgate.cli.commands import Where
from tollgate.installation import Installation
from tollgate.restoration import configuration, usage
from tollgate.restoration.configuration import Found, ToldConfiguration
from tollgate.restoration.usage import Recount
from tollgate.roles import control

_NAMED = 5
"""How many things of a kind are named to people; --json names all."""


@click.command("restore-done")
@commands.located
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, which names every thing.")
def restore_done(*, where: Where, as_json: bool) -> None:
    """Say that the database was restored: its versions lie above the topics' again, and what they hold is counted.

    To be run after the restore and before control, metering and webhooks are started. Proxies may run.
    """
    with commands.opened(where) as place:
        if place.settings.kafka_bootstrap is None:
            epoch = place.write(lambda connection: config_log.raise_epoch(connection, 0))
            text = f"Epoch {epoch}. Without Kafka there are no topics to compare with; start the server."
            click.echo(json.dumps({"epoch": epoch}) if as_json else text)
            return
        try:
            found, counted = asyncio.run(_bring_together(place, Kafka.of(place.settings)))
        except (KafkaAwayError, LeadershipLostError, LogShrunkError) as error:
            raise click.ClickException(str(error)) from None
        except PositionLostError as error:
            raise click.ClickException(f"{error}; stop metering, and type this again") from None
    click.echo(json.dumps(asdict(found) | {"usage": asdict(counted)}) if as_json else "\n".join(_told(found, counted)))


async def _bring_together(place: Installation, where: Kafka) -> tuple[Found, Recount]:
    leadership = PostgresLeadership(place.database, control.RELAY)
    if not await leadership.take():
        raise click.ClickException("control is running; stop it, and metering and webhooks, and type this again")
    try:
        topic = await configuration.read(where)
        found = await asyncio.to_thread(_configure, place, topic)
    finally:
        await leadership.release()
    with progress.bar() as shown:
        task = shown.add_task("counting", total=None)
        counted = await usage.count(
            where, place.database, lambda records, total: shown.update(task, advance=records, total=total)
        )
    return found, counted


def _configure(place: Installation, topic: ToldConfiguration) -> Found:
    return place.write(lambda connection: configuration.bring_together(connection, topic, commands.now(connection)))


def _told(found: Found, counted: Recount) -> list[str]:
    lines = [f"Epoch {found.epoch}: versions from now on lie above all that the topics hold."]
    for what, things in {
        "Made after the backup, and ended now, for the database does not have them": found.made_since,
        "Ended after the backup, and in force again (keys are not)": found.ended_since,
        "Changed after the backup, and again as the backup has them": found.changed_since,
    }.items():
        lines += [f"{what}: {_named(things)}"] if things else []
    if found.closed_again:
        lines.append(f"Stays closed as it was after the backup: {_some(found.closed_again)}")
    lines.append(f"{counted.records:,} usage events lay above the backup's positions and are counted.")
    if counted.put_aside:
        lines.append(f"{counted.put_aside:,} of them were put aside: see `tollgate unreadable list`.")
    if counted.gone:
        lines.append(f"{counted.gone:,} more are no longer in the topic: `tollgate reconcile` lists them as gaps.")
    return [*lines, "Start control, metering and webhooks now; then `tollgate reconcile` should print zeros."]


def _named(things: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{len(ids)} {kind}(s): {_some(ids)}" for kind, ids in sorted(things.items()))


def _some(ids: Sequence[Any]) -> str:
    return ", ".join([*ids[:_NAMED], *(["..."] if len(ids) > _NAMED else [])])
