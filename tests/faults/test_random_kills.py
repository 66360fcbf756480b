"""SIGKILL of the gateway at random moments under mixed load: nothing is lost, nothing is counted twice.

TOLLGATE_TEST_SEED repeats a run's choices.
"""

import logging
import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.faults import load
from tests.faults import scene as scenes
from tests.faults.scene import Scene

SEED = int(os.environ.get("TOLLGATE_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
LEASE_S = 60
"""A delivery that was claimed when its dispatcher died is free again after less than this."""

MOCK = ("--tokens", "8", "--latency-ms", "30", "--chunk-interval-ms", "8")
LIMIT = {"rate_limits": [{"type": "REQUEST", "unit": "SECOND", "threshold": 5}]}

log = logging.getLogger(__name__)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.long)])
async def test_kills_at_random_moments_lose_and_double_nothing(tmp_path: Path, kills: int) -> None:
    log.warning("TOLLGATE_TEST_SEED=%d", SEED)  # shown where the test fails
    rng = random.Random(SEED)
    everything = load.Seen()
    with scenes.playing(tmp_path, *MOCK) as scene:
        scene.deliver_to(scene.receive())
        scene.start()
        scene.onboard()
        keys = scene.customer("open"), scene.customer("limited", **LIMIT)
        for number in range(kills):
            crowd = load.Crowd(scene.completions, *keys, rng)
            await crowd.run(rng.uniform(0.05, 1.5))
            scene.kill()
            add(everything, await crowd.leave())
            scene.start()
            check(scene, everything, f"seed {SEED}, kill {number + 1} of {kills}")
        figures(scene, everything, kills)
        everything_arrives_once(scene, kills)
        scene.stop()


def add(everything: load.Seen, seen: load.Seen) -> None:
    everything.whole |= seen.whole
    everything.left |= seen.left
    everything.refused += seen.refused


def check(scene: Scene, seen: load.Seen, moment: str) -> None:
    """Everything agrees with the upstream's account, and what a client has read whole is billed as such."""
    code, report = scene.reconcile("--upstream", str(scene.account))
    assert code == 0, f"{moment}: {differences(report)}"
    assert (report["served"], report["passed"], report["waiting"], report["gaps"]) == (True, True, 0, []), moment
    events = scene.events()
    by_request = {event["request_id"]: event for event in events}
    assert len(by_request) == len(events), moment
    for request_id, tokens in seen.whole.items():
        event = by_request.get(request_id)
        assert event is not None, f"{moment}: {request_id} was answered and is not in the ledger"
        assert (event["outcome"], event["usage_source"]) == ("complete", "provider"), f"{moment}: {dict(event)}"
        assert tokens in {(-1, -1), (event["input_tokens"], event["output_tokens"])}, f"{moment}: {dict(event)}"
    assert seen.left <= by_request.keys(), moment
    apart = {event["request_id"] for event in events if is_apart(event)}
    listed = report["upstream"]["apart"]
    assert listed["count"] == len(apart), moment
    assert {request["request_id"] for request in listed["requests"]} <= apart, moment
    assert len(listed["requests"]) == min(len(apart), 1000), moment


def is_apart(event: Any) -> bool:
    return bool(event["outcome"] != "complete" or event["usage_source"] == "estimated")


def differences(report: dict[str, Any]) -> str:
    days = [(line["daily_difference"], line["delivery_difference"]) for line in report["days"]]
    upstream = {
        kind: found["requests"][:5] for kind, found in report["upstream"].items() if isinstance(found, dict)
    } | {"apart": ()}
    rest = {name: report[name] for name in ("served", "passed", "waiting", "gaps")}
    return f"{rest} {days} {upstream}"


def everything_arrives_once(scene: Scene, kills: int) -> None:
    """Each event reaches the receiver in one delivery; a delivery whose answer a kill swallowed may come again."""

    def all_delivered() -> bool:
        waiting = scene.rows("SELECT count(*) AS count FROM delivery WHERE status <> 'delivered'")
        return bool(waiting[0]["count"] == 0)

    scenes.until(all_delivered, "the last delivery", LEASE_S)
    received = scene.received()
    assert received.keys() == {event["idempotency_key"] for event in scene.events()}
    assert {len(deliveries) for deliveries in received.values()} == {1}
    assert scene.receipts() - len(set().union(*received.values())) <= kills * 16, "attempts in flight at the kills"


def figures(scene: Scene, seen: load.Seen, kills: int) -> None:
    """Print what the run was made of, and see that it was a mixture."""
    outcomes: dict[str, int] = {}
    for event in scene.events():
        outcomes[event["outcome"]] = outcomes.get(event["outcome"], 0) + 1
    told = (kills, outcomes, seen.refused, len(seen.whole), len(seen.left))
    log.warning("%d kills, %s, %d refused, %d read whole, %d left", *told)
    assert min(outcomes["complete"], outcomes["client_disconnected"], outcomes["gateway_interrupted"]) > 0
    assert seen.refused > 0
