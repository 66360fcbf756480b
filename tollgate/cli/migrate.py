"""`tollgate migrate`: brings the schema and the topics to what this program needs (spec section 6).

Never changes a topic that is there: a mismatch is named, and changing it is the operator's.
"""

import asyncio
import json
from contextlib import ExitStack
from pathlib import Path

import click
from sqlalchemy.exc import SQLAlchemyError

from metering import partitions
from runtime import settings, topics
from runtime.kafka import Kafka, KafkaAwayError
from tollgate import migrations, workplace


@click.command()
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="The data directory.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="A tollgate.toml.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def migrate(*, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Bring the database's schema up to date and create the topics that are missing. Safe to repeat."""
    try:
        loaded = settings.load(config, data_dir=data)
        where = _schema(loaded)
        made = _topics(loaded)
    except (settings.SettingsError, workplace.WorkplaceError, migrations.MigrationError, KafkaAwayError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps({"database": where, "topics": made}))
        return
    click.echo(f"the schema of {where} is current")
    if made:
        click.echo(f"{len(made)} topics are there")


def _schema(loaded: settings.Settings) -> str:
    if loaded.database_url is None:
        with workplace.opened(loaded, new=True) as place:
            return place.where
    with ExitStack() as closing:
        database, where = workplace.shared_database(loaded, closing)
        try:
            migrations.upgrade(database)
            too_small = database.read_now(lambda view: partitions.advice(view, loaded.ledger_days))
        except SQLAlchemyError as error:
            raise workplace.WorkplaceError(workplace.unusable(where, error)) from error
    if too_small:
        click.echo(f"Warning: {too_small}", err=True)
    return where


def _topics(loaded: settings.Settings) -> list[str]:
    if loaded.kafka_bootstrap is None:
        return []
    kafka, plans = Kafka.of(loaded), topics.plans(loaded)
    problems = asyncio.run(topics.ensure(kafka, plans, create=True))
    if problems:
        raise workplace.WorkplaceError("; ".join(problems))
    return [kafka.name(plan.name) for plan in plans]
