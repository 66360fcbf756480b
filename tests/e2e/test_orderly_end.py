"""SIGTERM and readiness as whoever runs Tollgate sees them (contract 6)."""

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults import scene
from tests.faults.scene import Scene
from tests.support import processes

pytestmark = pytest.mark.slow

CHUNKS = 12
STREAM = ("--tokens", str(CHUNKS), "--chunk-interval-ms", "250")
"""Three seconds of an answer."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Scene]:
    with scene.playing(tmp_path, *STREAM) as playing:
        playing.deliver_to(playing.receive())
        playing.start()
        playing.onboard()
        yield playing


def refuses(url: str) -> bool:
    try:
        httpx.get(f"{url}/healthz", timeout=5)
    except (httpx.NetworkError, httpx.RemoteProtocolError):  # reset where it had waited to be let in
        return True
    return False


def test_a_stream_under_way_is_finished_and_billed_while_nothing_new_is_let_in(lab: Scene) -> None:
    assert lab.gateway is not None
    key, url, ops_url = lab.customer("acme"), lab.url, lab.gateway.announced["ops_url"]
    headers, asked = scene.authorized(key), scene.asking(stream=True)
    with httpx.stream("POST", lab.completions, headers=headers, json=asked, timeout=30) as answer:
        pieces = answer.iter_bytes()
        body = next(pieces)
        assert httpx.get(f"{ops_url}/readyz", timeout=5).status_code == 200
        lab.gateway.process.send_signal(signal.SIGTERM)
        scene.until(lambda: refuses(url), "new connections are refused")
        ready = httpx.get(f"{ops_url}/readyz", timeout=5)
        assert (ready.status_code, ready.json()["missing"]) == (503, {"process": "starting or stopping"})
        assert httpx.get(f"{ops_url}/healthz", timeout=5).status_code == 200
        assert lab.gateway.process.poll() is None
        body += b"".join(pieces)
    assert body.endswith(b"data: [DONE]\n\n")
    assert b'"error"' not in body
    assert lab.gateway.process.wait(processes.STOP_S) == 0
    (event,) = lab.events()
    assert (event["outcome"], event["output_tokens"]) == ("complete", CHUNKS)
    assert list(lab.received()) == [event["idempotency_key"]]
    assert "Traceback" not in (lab.folder / "serve.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("full", [False, True])
def test_both_ports_say_whether_traffic_may_come(tmp_path: Path, full: bool) -> None:
    # Webhooks wait for more events, so the spool keeps what it has: two events are more than its bound.
    settings = {"spool_max_bytes": "1024", "webhook_linger_ms": "60000"} if full else {}
    with scene.playing(tmp_path) as playing:
        playing.settings |= settings
        playing.start()
        assert playing.gateway is not None
        urls = playing.url, playing.gateway.announced["ops_url"]
        if full:
            playing.onboard()
            key = playing.customer("acme")
            scene.until(lambda: playing.call(key).status_code == 503, "the spool takes nothing more")
            scene.until(lambda: httpx.get(f"{urls[1]}/readyz", timeout=5).status_code == 503, "the spool says so")
        for url in urls:
            assert httpx.get(f"{url}/healthz", timeout=5).json() == {"status": "alive"}
            ready = httpx.get(f"{url}/readyz", timeout=5)
            assert ready.status_code == (503 if full else 200)
            assert list(ready.json().get("missing", {})) == ["spool"] * full
