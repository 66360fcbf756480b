"""What one tenant at his bounds, or a stranger, costs an innocent one: answers with and without each attack in turn.

Attackers have what the others leave of their core (`scene.LAST_IN_LINE`); how much of its own core the
server needed is shown beside.
"""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from infra.attack import attackers
from infra.attack.scene import Scene, scene

ROUNDS = 5
ROUND_S = 3.0
AHEAD_S = 2.0
PER_S = 50.0
MOST, MOST_MORE_MS = 1.2, 5.0
"""What an attack may cost: a fifth more of the p99, or 5 ms, whichever is more."""


@dataclass(frozen=True)
class Round:
    """What was seen in one round, or the median of several."""

    p50_ms: float
    p99_ms: float
    cpu: float
    """The share of one core that the server used."""
    refused: int


def bench(folder: Path) -> int:
    """Measure each attack; print a table of the rounds' medians. Return 1 where one costs too much."""
    failed = False
    with scene(folder) as running:
        running.serve_innocent(ROUND_S, PER_S)
        print("of the innocent tenant's answers and of the server, without and with each attack")
        print(f"{'attack':>14} {'p50 ms':>16} {'p99 ms':>16} {'core':>12}  refused")
        for name in attackers.ATTACKS:
            alone, attacked = _rounds(running, name)
            refused = alone.refused + attacked.refused
            holds = not refused and attacked.p99_ms <= max(alone.p99_ms * MOST, alone.p99_ms + MOST_MORE_MS)
            failed = failed or not holds
            shown = f"{alone.p50_ms:8.1f} {attacked.p50_ms:7.1f} {alone.p99_ms:8.1f} {attacked.p99_ms:7.1f}"
            shown += f" {alone.cpu:6.0%} {attacked.cpu:5.0%}"
            print(f"{name:>14} {shown}  {refused}{'' if holds else '  too much'}", flush=True)
    return 1 if failed else 0


def _rounds(running: Scene, name: str) -> tuple[Round, Round]:
    """Return the medians without and with an attack."""
    alone, attacked = [], []
    for _ in range(ROUNDS):
        running.left_open()  # an attack goes on after its attackers: what they left is drained
        alone.append(_round(running))
        with running.attacked([name], AHEAD_S + ROUND_S + 60):
            time.sleep(AHEAD_S)  # so that what is measured is an attack under way, not its first connections
            attacked.append(_round(running))
    return _median(alone), _median(attacked)


def _round(running: Scene) -> Round:
    began, cpu_s = time.monotonic(), running.cpu_s()
    seen = running.serve_innocent(ROUND_S, PER_S)
    cpu = (running.cpu_s() - cpu_s) / (time.monotonic() - began)
    return Round(seen["p50_ms"], seen["p99_ms"], cpu, len(seen["failed"]))


def _median(rounds: list[Round]) -> Round:
    p50_ms, p99_ms, cpu = (
        statistics.median(each) for each in zip(*((r.p50_ms, r.p99_ms, r.cpu) for r in rounds), strict=True)
    )
    return Round(p50_ms, p99_ms, cpu, sum(each.refused for each in rounds))
