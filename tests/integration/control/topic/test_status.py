"""What a process tells through Kafka is in control's database once, whichever process takes it."""

from control.store.monitoring import status
from control.store.monitoring.status import CallDimension, Unit
from control.topic import status as topic
from runtime.database.engines import Database
from runtime.kafka.writer import Kafka, KafkaRecord, Writer
from schemas.topics import GATEWAY_STATUS
from tests.support import records
from tests.support.statuses import calls, minute
from tests.support.statuses import status as told
from tests.unit.control.fakes import NOW
from tollgate.roles.status import StatusTopic


async def test_what_is_told_is_kept_once(kafka: Kafka, database: Database) -> None:
    await records.make_topics(kafka, partitions=2, only=[GATEWAY_STATUS])
    start = NOW.replace(second=0, microsecond=0)
    writer, teller = Writer(kafka, "a test"), StatusTopic(kafka)
    first, second = (topic.follower(kafka, database) for _ in range(2))
    try:
        for process in ("p", "q"):
            await teller.tell(told(process, NOW, minute(start, calls("w", complete=2), publishing=3)))
        await writer.write(GATEWAY_STATUS, [KafkaRecord(b"broken", b"{"), KafkaRecord(b"gone", None)])
        for follower in (first, second):
            await follower.step()
        assert [one.process for one in database.read_now(status.processes)] == ["p", "q"]
        lags = database.read_now(lambda view: status.lags(view, Unit.MINUTE, start))
        assert [one.lag for one in lags] == [6]
        [point] = database.read_now(lambda view: status.calls(view, Unit.MINUTE, start, [CallDimension.WORKSPACE]))
        assert point.counts.outcomes == {"complete": 4}
    finally:
        for each in (first, second, teller, writer):
            await each.close()
