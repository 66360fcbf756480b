"""Reconcile beside a gateway that is at work: it looks at nothing behind its cut, so it is exact all the same."""

import asyncio
import random
from pathlib import Path

import pytest

from tests.faults import load
from tests.faults import scene as scenes

pytestmark = pytest.mark.slow
LIMIT = {"rate_limits": [{"type": "REQUEST", "unit": "SECOND", "threshold": 5}]}


async def test_it_finds_no_difference_while_traffic_goes_on(tmp_path: Path) -> None:
    with scenes.playing(tmp_path, "--tokens", "8", "--latency-ms", "10", "--chunk-interval-ms", "3") as scene:
        scene.deliver_to(scene.receive())
        scene.start()
        scene.onboard()
        keys = scene.customer("open"), scene.customer("limited", **LIMIT)
        crowd = load.Crowd(scene.completions, *keys, random.Random(1))
        await crowd.run(0.2)
        compared = []
        for _ in range(5):
            code, report = await asyncio.to_thread(scene.reconcile, "--upstream", str(scene.account))
            assert code == 0, report
            assert (report["served"], report["passed"], report["waiting"]) == (True, True, 0)
            compared.append(report["upstream"]["agreeing"])
        await crowd.leave()
        assert compared == sorted(set(compared)), "it compared more each time"
        scene.stop()
        code, report = scene.reconcile("--upstream", str(scene.account))
        (line,) = report["days"]
        assert (code, report["served"], report["in_flight"]) == (0, False, 0)
        assert line["ledger"]["requests"] + line["unpublished"]["requests"] >= len(crowd.seen.whole)
