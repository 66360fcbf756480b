"""The innocent tenant, a program: `python -m infra.attack.innocent PORT SECONDS PER_S`; a key in ATTACK_KEY."""

import asyncio
import json
import os
import sys
import time

import uvloop

from infra.attack.upstream import QUICK

PREFIX = "innocent"
_WITHIN_S = 30.0


async def _ask(port: int, request: bytes, seen: list[float], failed: list[str]) -> None:
    began = time.perf_counter()
    try:
        async with asyncio.timeout(_WITHIN_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request)
                line = await reader.readline()
                await reader.read()
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError) as error:
        failed.append(type(error).__name__)
        return
    if b" 200 " in line:
        seen.append((time.perf_counter() - began) * 1000)
    else:
        failed.append(line.decode("latin-1").strip() or "no answer")


async def _main(port: int, seconds: float, per_s: float) -> None:
    body = json.dumps({"model": f"{PREFIX}/{QUICK}", "messages": [{"role": "user", "content": "hi"}]}).encode()
    lines = (
        "POST /v1/chat/completions HTTP/1.1",
        "host: gateway",
        f"authorization: Api-Key {os.environ['ATTACK_KEY']}",
        f"content-length: {len(body)}",
        "connection: close",
    )
    request = "\r\n".join((*lines, "", "")).encode() + body
    seen: list[float] = []
    failed: list[str] = []
    began = time.perf_counter()
    async with asyncio.TaskGroup() as asking:
        for number in range(int(seconds * per_s)):
            await asyncio.sleep(max(0.0, began + number / per_s - time.perf_counter()))
            asking.create_task(_ask(port, request, seen, failed))
    seen.sort()
    p50, p99 = (seen[int(len(seen) * share)] if seen else 0.0 for share in (0.5, 0.99))
    print(json.dumps({"answered": len(seen), "failed": failed, "p50_ms": p50, "p99_ms": p99}))


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
