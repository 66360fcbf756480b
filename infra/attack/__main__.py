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
from infra.attack.scene import Scene, scene
from infra.bench.servers import BenchError

_LOOK_EVERY_S = 1.0
_AHEAD_S = 15.0
"""How long attackers are at it before the innocent tenant comes: then all they can hold is held."""
_SPARE_S = 120.0
_PER_S = 20.0
_GROWTH, _GROWTH_MIB = 1.2, 64.0
"""What the last third of the time may hold beyond what the first third did at most."""
_SPARE_DESCRIPTORS = 200
_GONE_WITHIN_S = 60.0
"""From the attackers' end until nothing of theirs is open any more: that much a drain takes, and a kept connection."""


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
        before = running.descriptors()
        with running.attacked(list(attackers.ATTACKS), seconds + _AHEAD_S + _SPARE_S) as loose:
            time.sleep(_AHEAD_S)  # so that the attack is under way; what is watched is not timed by it
            with Watch(running) as watch:
                seen = running.serve_innocent(seconds, _PER_S)
        wrong = judge(watch.memory_mib, seen["failed"])
        wrong += judge_descriptors(max(watch.descriptors), before, _left_open(running, before))
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


def judge_descriptors(most: int, before: int, after: int) -> list[str]:
    """Return what did not hold of descriptors: at most two for each attacker's connection, and none when all have gone.

    How many there are in between says nothing: it follows the attackers.
    """
    bound = before + 2 * sum(at_once for _, at_once in attackers.ATTACKS.values()) + _SPARE_DESCRIPTORS
    wrong = [f"{most} descriptors were open, {bound} were allowed"] if most > bound else []
    if after > before + _SPARE_DESCRIPTORS:
        wrong.append(f"{after} descriptors were left open, {before} were before")
    return wrong


def _left_open(running: Scene, before: int) -> int:
    """Return how many descriptors are open once the attackers have gone, or their time to go is over."""
    until = time.monotonic() + _GONE_WITHIN_S
    while (now := running.descriptors()) > before + _SPARE_DESCRIPTORS and time.monotonic() < until:
        time.sleep(_LOOK_EVERY_S)
    return now


if __name__ == "__main__":
    sys.exit(main())
