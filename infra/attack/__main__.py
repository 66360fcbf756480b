"""`./run attack`: all attackers at once on a real server, for minutes, and an innocent tenant served beside them.

Fails where the innocent tenant was refused, memory or descriptors grew, or something was not counted exactly once.
"""

import argparse
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from infra.attack import attackers
from infra.attack.scene import SPARE_DESCRIPTORS, Scene, scene
from infra.bench.servers import BenchError

_LOOK_EVERY_S = 1.0
_AHEAD_S = 15.0
"""How long attackers are at it before the innocent tenant comes: then all they can hold is held."""
_SPARE_S = 120.0
_PER_S = 20.0
_INNOCENT_DESCRIPTORS = 200
_GROWTH, _GROWTH_MIB = 1.2, 64.0
"""What the last third of the time may hold beyond what the first third did at most."""


class Watch:
    """What the server holds, seen every few seconds by a thread."""

    def __init__(self, seen: Scene) -> None:
        self.memory_mib: list[float] = []
        self.descriptors: list[int] = []
        self._scene = seen
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            self.memory_mib.append(self._scene.memory_mib())
            self.descriptors.append(self._scene.descriptors())


def main() -> int:
    """Attack; return 0 where nobody was stopped."""
    parser = argparse.ArgumentParser(prog="./run attack", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started ends with us
    try:
        with tempfile.TemporaryDirectory(prefix="tollgate-attack-") as folder:
            return attack(Path(folder), given.minutes * 60)
    except BenchError as error:
        print(f"attack: {error}", file=sys.stderr)
        return 1


def attack(folder: Path, seconds: float) -> int:
    """Let all attackers loose at once for so long; print what was seen. Return 1 where something did not hold."""
    with scene(folder) as running:
        running.serve_innocent(3, _PER_S)  # so that nothing is done for the first time in what is compared
        quiet = running.serve_innocent(5, _PER_S)
        with running.attacked(list(attackers.ATTACKS), seconds + _AHEAD_S + _SPARE_S) as loose:
            time.sleep(_AHEAD_S)  # so that the attack is under way; what is watched is not timed by it
            with Watch(running) as watch:
                seen = running.serve_innocent(seconds, _PER_S)
        wrong = judge(watch.memory_mib, seen["failed"])
        wrong += judge_descriptors(max(watch.descriptors) - running.descriptors_at_rest, running.left_open())
        for name, statuses in loose.items():
            print(f"{name:>14}  {statuses or 'no answer was read'}")
        for when, times in (("alone", quiet), ("attacked", seen)):
            print(f"innocent {when}: p50 {times['p50_ms']:.1f} ms, p99 {times['p99_ms']:.1f} ms of {times['answered']}")
        print(f"server: {max(watch.memory_mib):.0f} MiB, {max(watch.descriptors)} descriptors at most")
        if running.reconciled():
            wrong.append("reconcile found a difference")
    for line in wrong:
        print(f"attack: {line}", file=sys.stderr)
    return 1 if wrong else 0


def judge(memory_mib: list[float], failed: list[str]) -> list[str]:
    """Return what did not hold: one line each."""
    third = max(1, len(memory_mib) // 3)
    wrong = [f"the innocent tenant was refused {len(failed)} times: {', '.join(sorted(set(failed)))}"] if failed else []
    bound_mib = max(memory_mib[:third]) * _GROWTH + _GROWTH_MIB
    if max(memory_mib[-third:]) > bound_mib:
        wrong.append(f"memory grew to {max(memory_mib[-third:]):.0f} MiB, {bound_mib:.0f} were allowed")
    return wrong


def judge_descriptors(most: int, left: int) -> list[str]:
    """Return what did not hold of the descriptors beyond those at rest: at most two for each attacker's connection.

    How many there are in between says nothing: it follows the attackers. None may be left when all have gone.
    """
    bound = 2 * sum(at_once for _, at_once in attackers.ATTACKS.values()) + _INNOCENT_DESCRIPTORS
    wrong = [f"{most} descriptors were open, {bound} were allowed"] if most > bound else []
    if left > SPARE_DESCRIPTORS:
        wrong.append(f"{left} descriptors were left open")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
