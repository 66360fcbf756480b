"""Puts load on a server with wrk, and reads what it measured."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from infra.bench import servers


@dataclass(frozen=True)
class Round:
    """What wrk saw. `answers` holds the refused (status 400 and above) too; `lost` had no answer."""

    answers: int
    refused: int
    lost: int
    duration_us: int
    p50_us: int
    p99_us: int

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return self.answers / self.duration_us * 1e6


def run(
    port: int,
    key: str,
    connections: int,
    seconds: int,
    *,
    slug: str = servers.SLUG,
    stream: bool = False,
    keys: int = 0,
) -> Round:
    """Ask for one completion over and over; with `keys`, each time by one of that many. Raise BenchError."""
    asked = {"model": slug, "messages": [{"role": "user", "content": "What does a request cost, all in all?"}]}
    script = Path(__file__).parent / "post.lua"
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    wrk = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
    environment = os.environ | {
        "BENCH_AUTHORIZATION": f"Api-Key {key}",
        "BENCH_BODY": json.dumps(asked | ({"stream": True} if stream else {})),
        "BENCH_KEYS": str(keys),
    }
    result = subprocess.run(
        servers.pinned(servers.LOAD_CORE, wrk),
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds + 30,
    )
    lines = [line for line in result.stdout.splitlines() if line.startswith("BENCH ")]
    if result.returncode or not lines:
        raise servers.BenchError(f"wrk failed:\n{result.stdout}{result.stderr}")
    return Round(**json.loads(lines[0].removeprefix("BENCH ")))
