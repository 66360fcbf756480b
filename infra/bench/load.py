"""Puts load on a server with wrk, and reads what it measured.

Never averages: each round is given as it was.
"""

import json
import os
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.bench import servers

_BODY = {"model": servers.SLUG, "messages": [{"role": "user", "content": "What does a request cost, all in all?"}]}


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


@dataclass(frozen=True)
class Row:
    """The medians of some rounds."""

    per_second: float
    p50_us: float
    p99_us: float


def run(port: int, key: str, connections: int, seconds: int) -> Round:
    """Ask for one completion over and over. Raises BenchError where wrk fails."""
    script = Path(__file__).parent / "post.lua"
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    wrk = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
    environment = os.environ | {"BENCH_AUTHORIZATION": f"Api-Key {key}", "BENCH_BODY": json.dumps(_BODY)}
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


def median(rounds: Sequence[Round]) -> Row:
    """Give the median of each figure."""
    return Row(
        statistics.median(each.per_second for each in rounds),
        statistics.median(each.p50_us for each in rounds),
        statistics.median(each.p99_us for each in rounds),
    )
