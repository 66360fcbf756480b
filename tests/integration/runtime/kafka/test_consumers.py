"""Clients whose start is cut off leave nothing open."""

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from runtime.kafka import consumers
from runtime.kafka.consumers import Consumer
from runtime.kafka.writer import Kafka, KafkaAwayError, KafkaRecord, Writer
from schemas.topics import USAGE_EVENTS


class Gate:
    """Stands before a broker; what the broker answers waits until the gate is opened."""

    def __init__(self, where: Kafka) -> None:
        self.asked, self.opened = asyncio.Event(), asyncio.Event()
        self._host, self._port = where.bootstrap.split(":")

    @asynccontextmanager
    async def bootstrap(self) -> AsyncIterator[str]:
        """Return where clients find it."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            host, port = server.sockets[0].getsockname()
            yield f"{host}:{port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, to_them = await asyncio.open_connection(self._host, self._port)
        await asyncio.gather(self._pass(reader, to_them, self.asked.set), self._answer(theirs, writer))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.opened.wait()
        await self._pass(reader, writer, lambda: None)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Callable[[], None]) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                seen()
        writer.close()


async def left_open(cut_off: asyncio.Task[None], gate: Gate, closing: Awaitable[None]) -> list[str]:
    """Cut a start off while it waits for its first answer, and close; return what is open after that."""
    await gate.asked.wait()
    cut_off.cancel()
    await asyncio.wait({cut_off})
    asyncio.get_running_loop().call_later(0.1, gate.opened.set)  # after the closing has begun
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        await closing
        gc.collect()
    return [str(one.message) for one in warned if "nclosed" in str(one.message)]


async def test_a_consumers_start_that_is_cut_off_leaves_no_connection(kafka: Kafka) -> None:
    gate = Gate(kafka)
    async with gate.bootstrap() as bootstrap:
        consumer = Consumer(Kafka(bootstrap))
        starting = asyncio.create_task(consumer.start())
        assert await left_open(starting, gate, consumers.stop(consumer)) == []


async def test_a_writers_first_write_that_is_cut_off_leaves_no_connection(kafka: Kafka) -> None:
    gate = Gate(kafka)
    async with gate.bootstrap() as bootstrap:
        writer = Writer(Kafka(bootstrap, kafka.prefix), "test")

        async def write() -> None:
            with suppress(KafkaAwayError):
                await writer.write(USAGE_EVENTS, [KafkaRecord(b"key", b"value")])

        assert await left_open(asyncio.create_task(write()), gate, writer.close()) == []
