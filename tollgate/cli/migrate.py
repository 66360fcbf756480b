"""`tollgate migrate`: brings the schema and the topics to what this program needs (contract 6).

A topic that has held a record stays as it is: what differs is named, and changing it is the operator's.
"""

import asyncio
import json
from contextlib import ExitStack

import click
from sqlalchemy.exc import SQLAlchemyError

from metering.store import day_partitions
from runtime import settings
from runtime.kafka import topics
from runtime.kafka.writer import Kafka, KafkaAwayError
from schemas.topics import LIMITS_DECISIONS_V1
from tollgate import installation, migrations
from tollgate.cli import commands
from tollgate.cli.commands import Where


@click.command()
@commands.located
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--recreate-empty",
    is_flag=True,
    help="Delete the topics that are not as the settings want them and never held a record, and make them anew. "
    "Nothing may be writing to them.",
)
@click.option(
    "--finish",
    is_flag=True,
    help="Also remove what the release before needs: once no process of it runs, for none starts again after that.",
)
def migrate(*, where: Where, as_json: bool, recreate_empty: bool, finish: bool) -> None:
    """Bring the database's schema up to date and create the topics that are missing. Safe to repeat.

    It only adds: processes of the release before go on, and start again, until --finish.
    """
    try:
        loaded = commands.load(where)
        if not as_json:
            click.echo(f"Migrating {installation.named(loaded)}")
        migrated = _schema(loaded)
        anew = _made_anew(loaded) if recreate_empty else []
        made = _topics(loaded)
        finished = _finished(loaded) if finish else None
    except (settings.SettingsError, installation.InstallationError, migrations.MigrationError, KafkaAwayError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps({"database": migrated, "topics": made, "recreated": anew, "finished": finished}))
        return
    click.echo(f"the schema of {migrated} is current")
    for topic in anew:
        click.echo(f"topic {topic} was empty and is made anew")
    if made:
        click.echo(f"{len(made)} topics are there")
    if finished:
        click.echo(f"finished: releases whose schema is older than {finished} no longer work with it")


def _schema(loaded: settings.Settings) -> str:
    if loaded.database_url is None:
        with installation.opened(loaded, new=True) as place:
            return place.where
    with ExitStack() as closing:
        database, where = installation.shared_database(loaded, closing)
        try:
            migrations.upgrade(database)
            too_small = database.read_now(lambda view: day_partitions.advice(view, loaded.ledger_days))
        except SQLAlchemyError as error:
            raise installation.InstallationError(installation.unusable(where, error)) from error
    if too_small:
        click.echo(f"Warning: {too_small}", err=True)
    return where


def _finished(loaded: settings.Settings) -> str:
    with installation.opened(loaded) as place:
        try:
            finished = migrations.finish(place.database)
        except SQLAlchemyError as error:
            raise installation.InstallationError(installation.unusable(place.where, error)) from error
    if loaded.kafka_bootstrap is not None:
        asyncio.run(topics.remove(Kafka.of(loaded), LIMITS_DECISIONS_V1))
    return finished


def _made_anew(loaded: settings.Settings) -> list[str]:
    if loaded.kafka_bootstrap is None:
        return []
    return asyncio.run(topics.recreate_empty(Kafka.of(loaded), topics.plans(loaded)))


def _topics(loaded: settings.Settings) -> list[str]:
    if loaded.kafka_bootstrap is None:
        return []
    kafka, plans = Kafka.of(loaded), topics.plans(loaded)
    problems = asyncio.run(topics.ensure(kafka, plans, create=True))
    if problems:
        raise installation.InstallationError(topics.told(problems))
    return [kafka.name(plan.name) for plan in plans]
