"""A dispatcher in a process of its own: `python -m tests.integration.webhooks.worker DATABASE_URL JSON`.

Says "ready" once it runs, ends in order at SIGTERM.
"""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, Any

from runtime import clock
from runtime.database import engines
from runtime.settings import Settings
from tests.integration.webhooks.scene import VAULT, webhook
from webhooks.app import Dispatcher
from webhooks.policies import Policies


@contextmanager
def running(url: str, receivers: Mapping[str, str], lease_s: float | None = None, **settings: Any) -> Iterator[Any]:
    """Run one for the length of a `with` block; return its Popen. `receivers` are URLs by workspace.

    A `lease_s` must be longer than an attempt may take: nothing is sent that could outlast its lease.
    """
    given = json.dumps({"receivers": dict(receivers), "lease_s": lease_s, "settings": settings})
    words = [sys.executable, "-m", "tests.integration.webhooks.worker", url, given]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        said: IO[str] | None = process.stdout
        assert said is not None
        assert said.readline() == "ready\n"
        yield process
    finally:
        process.terminate()
        process.wait(30)
        process.communicate()


async def _run(url: str, given: dict[str, Any]) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    settings = Settings(allow_private_receivers=True, **given["settings"])
    with engines.postgres(url) as opened:
        policies = replace(Policies.of(settings), lease_s=given["lease_s"])
        dispatcher = Dispatcher(opened, VAULT, clock.steady(), settings, policies=policies)
        for version, (workspace_id, place) in enumerate(given["receivers"].items(), start=1):
            dispatcher.apply(webhook(version, place, workspace_id))
        run = asyncio.create_task(dispatcher.run())
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        waits = asyncio.create_task(stopping.wait())
        await asyncio.wait({run, waits}, return_when=asyncio.FIRST_COMPLETED)
        await dispatcher.drain(1)
        run.cancel()
        waits.cancel()
        await asyncio.wait({run})
        await dispatcher.close()


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], json.loads(sys.argv[2])))
