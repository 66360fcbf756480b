"""The outbox of corrections on its way into ``usage.events.v1``."""

from datetime import timedelta

import pytest
from sqlalchemy import insert

from control.flow import corrections as flow
from control.store import corrections, published, tables
from metering.store import transaction
from runtime.database.engines import Database
from runtime.kafka.writer import KafkaAwayError
from schemas.topics import USAGE_EVENTS
from schemas.usage import Kind, UsageEvent
from tests.integration.runtime.config.kit import Scene
from tests.unit.metering.factories import NOON, HandClock, batch, event


def correct(database: Database, corrected: UsageEvent) -> UsageEvent:
    return database.write_now(
        lambda connection: flow.correct(
            corrections.SqlCorrections(connection),
            lambda: NOON + timedelta(days=1),
            event_key=corrected.idempotency_key,
            input_tokens=-1,
            output_tokens=0,
            reason="counted twice",
        )
    )


async def test_corrections_go_out_under_their_events_key(begun: Scene) -> None:
    alone = event(1)
    cascading = event(2).model_copy(update={"charged_groups": ("child", "root")})
    counted = batch([alone, cascading])
    begun.database.write_now(lambda connection: transaction.apply(connection, counted, HandClock()))
    made = [correct(begun.database, alone), correct(begun.database, cascading)]
    await begun.step()
    await begun.step()
    sent = [record for topic, record in begun.topics.written if topic == USAGE_EVENTS]
    assert [record.key.decode() for record in sent] == [alone.group_id, "root"]
    assert [UsageEvent.model_validate_json(record.value or b"") for record in sent] == made
    assert [one.producer.sequence for one in made] == [1, 2]
    assert {one.kind for one in made} == {Kind.CORRECTION}
    headers = dict(sent[0].headers)
    assert headers["ce_id"].decode() == made[0].idempotency_key
    assert begun.mark(published.CORRECTIONS) == 2


async def test_a_correction_that_was_not_acknowledged_goes_out_again(begun: Scene) -> None:
    counted = batch([event(1)])
    begun.database.write_now(lambda connection: transaction.apply(connection, counted, HandClock()))
    made = correct(begun.database, event(1))
    begun.topics.refuses = lambda record: KafkaAwayError("away")
    with pytest.raises(KafkaAwayError):
        await begun.step()
    begun.topics.refuses = lambda record: None
    await begun.begin()
    sent = [record for topic, record in begun.topics.written if topic == USAGE_EVENTS]
    assert [UsageEvent.model_validate_json(record.value or b"") for record in sent] == [made]


async def test_a_correction_of_an_event_that_is_not_there_any_more_goes_out_under_its_group(begun: Scene) -> None:
    draft = event(1).model_dump(mode="json", exclude={"producer"})
    rows = [
        insert(tables.CORRECTION_COUNTER).values(id=1, instance="database", sequence=1),
        insert(tables.CORRECTION).values(
            sequence=1,
            idempotency_key=event(1).idempotency_key,
            corrects="nothing",
            input_tokens=0,
            output_tokens=0,
            event=draft,
            created_at=NOON,
        ),
    ]
    begun.database.write_now(lambda connection: [connection.execute(row) for row in rows])
    await begun.step()
    sent = [record for topic, record in begun.topics.written if topic == USAGE_EVENTS]
    assert [record.key.decode() for record in sent] == [event(1).group_id]
