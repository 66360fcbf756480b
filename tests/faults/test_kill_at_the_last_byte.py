"""SIGKILL right after the client has its last byte: the event is in the ledger, and delivered once."""

from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.faults import scene as scenes
from tests.faults.scene import Scene

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_kill_after_the_last_byte_loses_and_doubles_nothing(tmp_path: Path, stream: bool) -> None:
    with scenes.playing(tmp_path, "--tokens", "8") as scene:
        scene.settings["webhook_linger_ms"] = "1000"  # so that no attempt is under way at the kill
        scene.deliver_to(scene.receive())
        scene.start()
        scene.onboard()
        key = scene.customer("customer")
        requests = []
        for number in (1, 2):
            answer = scene.call(key, stream=stream)
            scene.kill()
            assert answer.status_code == 200
            assert not stream or answer.content.endswith(b"data: [DONE]\n\n")
            requests.append(answer.headers["x-request-id"])
            scene.start()
            scenes.until(partial(delivered, scene, number), "the delivery")
        events = scene.events()
        assert [event["request_id"] for event in events] == requests
        assert {(event["outcome"], event["output_tokens"]) for event in events} == {("complete", 8)}
        code, report = scene.reconcile("--upstream", str(scene.account))
        assert (code, report["upstream"]["agreeing"]) == (0, 2)
        assert scene.received().keys() == {event["idempotency_key"] for event in events}
        assert scene.receipts() == 2
        scene.stop()


def delivered(scene: Scene, count: int) -> bool:
    return len(scene.rows("SELECT * FROM delivery WHERE status = 'delivered'")) == count


def test_a_request_in_flight_is_billed_as_interrupted(tmp_path: Path) -> None:
    with scenes.playing(tmp_path, "--tokens", "8", "--chunk-interval-ms", "2000") as scene:
        scene.deliver_to(scene.receive())
        scene.start()
        scene.onboard()
        headers, body = scenes.authorized(scene.customer("customer")), scenes.asking(stream=True)
        with httpx.stream("POST", scene.completions, headers=headers, json=body, timeout=scenes.WITHIN_S) as answer:
            next(answer.iter_raw())
            scene.kill()
            request_id = answer.headers["x-request-id"]
        code, report = scene.reconcile()
        assert (code, report["served"], report["in_flight"], report["days"]) == (0, False, 1, []), "not billed yet"
        scene.start()
        (event,) = scenes.until(scene.events, "the event")
        assert (event["request_id"], event["outcome"]) == (request_id, "gateway_interrupted")
        assert (event["usage_source"], event["stream"]) == ("estimated", 1)
        assert event["input_tokens"] >= 1
        scenes.until(lambda: scene.received().keys() == {event["idempotency_key"]}, "its delivery")
        code, report = scene.reconcile("--upstream", str(scene.account))
        (apart,) = report["upstream"]["apart"]["requests"]
        assert (code, apart["request_id"], apart["outcome"]) == (0, request_id, "gateway_interrupted")
        scene.stop()
