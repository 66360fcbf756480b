"""What one tenant at his bounds, or a stranger, costs an innocent one: answers with and without each attack in turn."""

import statistics
from pathlib import Path

from infra.attack import attackers
from infra.attack.scene import Scene, scene

ROUNDS = 5
ROUND_S = 3.0
PER_S = 50.0
MOST, MOST_MORE_MS = 1.2, 5.0
"""What an attack may cost: a fifth more of the p99, or 5 ms, whichever is more."""


def bench(folder: Path) -> int:
    """Measure each attack; print a table of the rounds' medians. Return 1 where one costs too much."""
    failed = False
    with scene(folder) as running:
        running.serve_innocent(ROUND_S, PER_S)
        print(f"{'attack':>14} {'p50 ms':>14} {'p99 ms':>16}  refused")
        for name in attackers.ATTACKS:
            alone, attacked, refused = _rounds(running, name)
            holds = not refused and attacked[1] <= max(alone[1] * MOST, alone[1] + MOST_MORE_MS)
            failed = failed or not holds
            shown = f"{alone[0]:6.1f} {attacked[0]:7.1f} {alone[1]:8.1f} {attacked[1]:7.1f}"
            print(f"{name:>14} {shown}  {refused}{'' if holds else '  too much'}", flush=True)
    return 1 if failed else 0


def _rounds(running: Scene, name: str) -> tuple[tuple[float, float], tuple[float, float], int]:
    """Return the medians of p50 and p99 without and with an attack, and how often the innocent tenant was refused."""
    alone, attacked, refused = [], [], 0
    for _ in range(ROUNDS):
        alone.append(running.serve_innocent(ROUND_S, PER_S))
        with running.attacked([name], ROUND_S + 60):
            attacked.append(running.serve_innocent(ROUND_S, PER_S))
        refused += len(attacked[-1]["failed"]) + len(alone[-1]["failed"])
    return _medians(alone), _medians(attacked), refused


def _medians(rounds: list[dict[str, float]]) -> tuple[float, float]:
    return statistics.median(each["p50_ms"] for each in rounds), statistics.median(each["p99_ms"] for each in rounds)
