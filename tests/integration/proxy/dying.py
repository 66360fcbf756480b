"""A process of its own that spools until it is killed: run by test_killed.py, never imported.

Each sequence that `put` returned is a line of its output, `<sequence> <number>`; what it has in flight when it dies is
in its slots.
"""

import asyncio
import sys
from pathlib import Path

from proxy.spool import writer
from proxy.spool.slots import Slots
from runtime.settings import SpoolSync
from tests.contracts.proxy.drafts import draft
from tests.unit.proxy.core.test_usage_event import kept


async def main() -> None:
    """Spool one event after the other, eight at a time, each with its slot."""
    folder = Path(sys.argv[1])
    sink, _ = writer.open_folder(folder / "spool", sync=SpoolSync(sys.argv[2]), max_bytes=2**30)
    slots = Slots(folder / "in_flight", count=64)
    background = asyncio.create_task(sink.maintain())

    async def work(first: int) -> None:
        for number in range(first, 10**9, 8):
            slot = slots.open_slot(kept(idempotency_key=f"key-{number}"))
            sequence = await sink.put(draft(number))
            sys.stdout.write(f"{sequence} {number}\n")
            sys.stdout.flush()
            slots.close_slot(slot)

    await asyncio.gather(background, *[work(first) for first in range(8)])


if __name__ == "__main__":
    asyncio.run(main())
