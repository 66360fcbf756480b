"""A relay in a process of its own, to be killed. Its arguments: Kafka's address and prefix, the database's URL."""

import asyncio
import logging
import sys

from runtime.database import engines
from runtime.kafka.writer import Kafka
from tests.integration.runtime.config import scene


async def main(bootstrap: str, prefix: str, url: str) -> None:
    with engines.postgres(url) as opened:
        await scene.relay(opened, Kafka(bootstrap, prefix)).run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)  # says when it leads
    asyncio.run(main(*sys.argv[1:]))
