"""A process of its own that spools and publishes until it is killed: run by test_publisher_on_kafka.py, never imported.

Each sequence that `put` returned is a line of its output.
"""

import asyncio
import sys
from pathlib import Path

from proxy.spool import file as spool_file
from proxy.topic.publisher import SpoolPublisher
from runtime.kafka.writer import Kafka, Writer
from tests.integration.proxy import fake_topic


async def main() -> None:
    """Spool twenty events at a time, and let rows go as if metering counted at once."""
    folder, bootstrap, prefix = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    sink, older = fake_topic.opened(folder)
    writer = Writer(Kafka(bootstrap, prefix), "publishing")
    drained = spool_file.drained_instances(folder)
    publisher = SpoolPublisher(sink, older, drained, writer, fake_topic.Limits(passed=True), fake_topic.no_ends)

    async def put() -> None:
        while True:
            first = sink.file.end - 1
            await fake_topic.spooled(sink, range(first, first + 20))
            sys.stdout.write(f"{sink.file.end - 1}\n")
            sys.stdout.flush()

    await asyncio.gather(publisher.run(), sink.maintain(), put())


if __name__ == "__main__":
    asyncio.run(main())
