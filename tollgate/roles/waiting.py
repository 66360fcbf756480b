"""A role whose database is away when it starts: it waits, says so, is alive and not ready, and ends when asked to.

Never waits for what does not pass by itself, as a schema that is not current or a password that is wrong.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import TypeVar

from runtime.http import health, server
from runtime.outage import Outage
from runtime.settings import Settings
from runtime.telemetry import scrape
from tollgate.installation import AwayError
from tollgate.roles import process

_GRACE_S = 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

Prepared = TypeVar("Prepared")
Prepare = Callable[[Settings, ExitStack], Prepared]

log = logging.getLogger(__name__)


async def prepared(loaded: Settings, closing: ExitStack, prepare: Prepare[Prepared]) -> Prepared | None:
    """Return what `prepare` returns, once its database answers; None where the process was asked to end before.

    What it opens is closed with `closing`. Raises what does not pass by itself.
    """
    waiting = asyncio.create_task(_waited(loaded, closing, prepare))
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, waiting.cancel)
    try:
        await asyncio.wait({waiting})
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
    return None if waiting.cancelled() else waiting.result()


async def _waited(loaded: Settings, closing: ExitStack, prepare: Prepare[Prepared]) -> Prepared:
    try:
        return await _tried(loaded, closing, prepare)  # mostly it is there, and no port is opened twice
    except AwayError as error:
        reason = str(error)
    outage = Outage("the start", log, passes=lambda error: isinstance(error, AwayError))
    async with _not_ready(loaded, reason):
        return await outage.ride_out(lambda: _tried(loaded, closing, prepare))


async def _tried(loaded: Settings, closing: ExitStack, prepare: Prepare[Prepared]) -> Prepared:
    def work() -> Prepared:
        with ExitStack() as attempt:
            made = prepare(loaded, attempt)
            closing.push(attempt.pop_all())
            return made

    return await asyncio.to_thread(work)


@asynccontextmanager
async def _not_ready(loaded: Settings, reason: str) -> AsyncIterator[None]:
    """Show on the operator's port that the process is alive, and what it waits for; its metrics say the same."""
    metrics = scrape.handler(process.basic_telemetry(lambda: False))
    app = health.ops_app({"database": lambda: f"waits for it: {reason}"}, [metrics])
    ops = server.Server(app, process.ops_listener(loaded), grace_s=_GRACE_S)
    running = asyncio.create_task(ops.run_until_stopped())
    try:
        yield
    finally:
        await server.stop_all([ops], [running])
