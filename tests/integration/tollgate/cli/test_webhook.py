"""`tollgate webhook listen` as a process: the URL first, every body checked, kept and shown, a clean end."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from runtime.http import server
from tests.unit.webhooks import kit
from webhooks.core import signing

BODY = '{"data":{"events":["ä"]}}'.encode()
COMMAND = (sys.executable, "-c", "from tollgate.cli import webhook; webhook.webhook()", "listen")


@contextmanager
def listening(*options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen((*COMMAND, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def post(url: str, secret: str = kit.SECRET) -> httpx.Response:
    headers = signing.sign(BODY, "5f1c7a9e-3b52-4d8e-9a41-0c6d2b7e8f10", [secret], datetime.now(UTC))
    return httpx.post(url, content=BODY, headers=headers, timeout=10, trust_env=False)


@pytest.mark.slow
def test_it_prints_its_url_then_each_body_and_ends_cleanly(tmp_path: Path) -> None:
    out = tmp_path / "received.jsonl"
    with listening("--secret", kit.SECRET, "--secret", kit.OLDER_SECRET, "--out", str(out)) as process:
        url = first_line(process)
        assert post(url).status_code == 200
        assert json.loads(out.read_text())["body"] == BODY.decode()
        assert post(url, kit.OLDER_SECRET).status_code == 200
        wrong = post(url, "whsec_AAAA")
        assert wrong.status_code == 401
        process.send_signal(signal.SIGTERM)
        shown, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (0, "")
    assert shown.count("\nsignature verified\n") == 2
    assert '"events": [' in shown
    assert "signature not verified: X-Baseten-Signature does not match" in shown
    assert [json.loads(line)["verified"] for line in out.read_text().splitlines()] == [True, True, False]
    assert kit.SECRET not in shown + out.read_text()


@pytest.mark.slow
def test_as_json_every_line_is_an_object() -> None:
    with listening("--secret", kit.SECRET, "--json") as process:
        post(json.loads(first_line(process))["url"])
        receipt = json.loads(first_line(process))
    assert (receipt["verified"], receipt["body"], receipt["problem"]) == (True, BODY.decode(), None)


@pytest.mark.slow
def test_a_taken_port_and_an_unusable_secret_are_one_line_errors() -> None:
    taken = server.listen("127.0.0.1", 0)
    port = server.address_of(taken).rpartition(":")[2]
    with listening("--secret", kit.SECRET, "--port", port) as process:
        _, complaints = process.communicate(timeout=60)
    taken.close()
    assert process.returncode == 1
    assert complaints.startswith(f"Error: cannot listen on 127.0.0.1:{port}: ")
    assert complaints.count("\n") == 1
    with listening("--secret", "secret-in-another-form") as process:
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "a signing secret must be whsec_ followed by base64" in complaints
    assert "secret-in-another-form" not in complaints


@pytest.mark.slow
def test_a_slow_receiver_answers_late_and_as_told() -> None:
    with listening("--secret", kit.SECRET, "--status", "503", "--slow", "0.3", "--json") as process:
        answer = post(json.loads(first_line(process))["url"])
    assert (answer.status_code, answer.elapsed.total_seconds() >= 0.3) == (503, True)


@pytest.mark.slow
def test_what_is_verified_is_passed_on_byte_for_byte_and_answered_as_the_program_behind_answers(tmp_path: Path) -> None:
    out = tmp_path / "behind.jsonl"
    with listening("--secret", kit.SECRET, "--status", "418", "--out", str(out)) as behind:
        where = first_line(behind)
        with listening("--secret", kit.SECRET, "--forward-to", where, "--json") as process:
            url = json.loads(first_line(process))["url"]
            answer = post(url)
            assert (answer.status_code, answer.json()["message"]) == (418, f"{where} answered 418")
            assert json.loads(first_line(process))["answered"] == 418
            assert post(url, "whsec_AAAA").status_code == 401
            behind.kill()
            behind.wait(60)
            away = post(url)
            assert (away.status_code, away.json()["message"]) == (502, f"{where} did not answer: ConnectError")
    (received,) = map(json.loads, out.read_text().splitlines())
    assert (received["verified"], received["body"]) == (True, BODY.decode())


def test_a_place_that_is_no_url_is_refused() -> None:
    for text in ("localhost:3000", "http://", "ftp://localhost/"):
        with listening("--secret", kit.SECRET, "--forward-to", text) as process:
            _, complaint = process.communicate(timeout=60)
        assert (process.returncode, "Invalid value for --forward-to" in complaint) == (2, True)
