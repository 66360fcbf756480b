"""What outlives the process: the lock does not, day totals and pending deliveries do."""

from pathlib import Path

import pytest

from tests.faults import scene as scenes
from tests.faults.scene import Scene
from tests.support import processes

pytestmark = pytest.mark.slow
THREE_A_DAY = {"usage_limits": [{"type": "REQUEST", "unit": "DAY", "threshold": 3}]}


def refused_code(scene: Scene, key: str) -> str:
    answer = scene.call(key)
    assert answer.status_code == 429, answer.text
    code: str = answer.json()["error"]["code"]
    return code


def test_a_second_process_on_the_directory_is_refused_and_the_next_after_a_kill_is_not(tmp_path: Path) -> None:
    serve = ("serve", "--data", str(tmp_path / "data"), "--port", "0", "--ops-port", "0")
    with processes.server(tmp_path / "first.log", *serve) as first:
        second = processes.run(*serve, check=False)
        assert second.returncode == 1
        assert f"already served by process {first.process.pid}" in second.stderr
        assert second.stderr.splitlines()[-1].startswith("Error: ")
        first.kill()
        with processes.server(tmp_path / "third.log", *serve) as third:
            assert third.stop() == 0


def test_a_group_at_its_limit_is_refused_after_any_restart(tmp_path: Path) -> None:
    with scenes.playing(tmp_path) as scene:
        scene.start()
        scene.onboard()
        key, other = scene.customer("limited", **THREE_A_DAY), scene.customer("killed early", **THREE_A_DAY)
        assert [scene.call(key).status_code for _ in range(3)] == [200] * 3
        assert refused_code(scene, key) == "insufficient_quota"
        scene.stop()
        scene.start()
        assert refused_code(scene, key) == "insufficient_quota"
        assert [scene.call(other, stream=True).status_code for _ in range(3)] == [200] * 3
        scene.kill()  # perhaps before metering has counted them: the rows of the spool count
        scene.start()
        assert [refused_code(scene, one) for one in (key, other)] == ["insufficient_quota"] * 2
        scene.stop()


def test_deliveries_that_were_pending_go_on(tmp_path: Path) -> None:
    port = scenes.free_port()
    with scenes.playing(tmp_path) as scene:
        scene.deliver_to(f"http://127.0.0.1:{port}/")
        scene.start()
        scene.onboard()
        assert scene.call(scene.customer("customer")).status_code == 200
        pending = "SELECT * FROM delivery WHERE status = 'pending' AND attempt_count > 0"
        (before,) = scenes.until(lambda: scene.rows(pending), "a failed attempt")
        scene.kill()
        assert scene.receive(port) == f"http://127.0.0.1:{port}"
        scene.start()
        (event,) = scene.events()
        scenes.until(scene.received, "the delivery", 60)
        assert scene.received() == {event["idempotency_key"]: {before["id"]}}
        delivered = "SELECT * FROM delivery WHERE status = 'delivered'"
        (after,) = scenes.until(lambda: scene.rows(delivered), "its settlement")
        assert after["body"] == before["body"]
        scene.stop()
