"""The local receiver, as an ASGI application without a server."""

import json
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from tests.unit.webhooks import kit
from tollgate.tools import receiver
from webhooks.core import signing

BODY = '{"data":{"ä":1}}'.encode()


class Scene:
    def __init__(self, *secrets: str, behaviour: receiver.Behaviour | None = None) -> None:
        self.kept: list[receiver.Receipt] = []
        self.sent: list[MutableMapping[str, Any]] = []
        self.app = receiver.ReceiverApp(secrets or (kit.SECRET,), kit.HandClock(), self.kept.append, behaviour)

    async def post(self, *parts: bytes, headers: dict[str, str] | None = None, method: str = "POST") -> int:
        messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        messages[-1]["more_body"] = False
        signed = signing.sign(b"".join(parts), "id-1", [kit.SECRET], kit.START) if headers is None else headers
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in signed.items()]

        async def receive() -> MutableMapping[str, Any]:
            return messages.pop(0)

        async def send(message: MutableMapping[str, Any]) -> None:
            self.sent.append(message)

        await self.app({"type": "http", "method": method, "headers": raw}, receive, send)
        status: int = self.sent[0]["status"]
        return status


async def test_a_signed_body_is_verified_and_kept_raw() -> None:
    scene = Scene()
    assert await scene.post(BODY[:5], BODY[5:]) == 200
    (receipt,) = scene.kept
    assert (receipt.body, receipt.verified, receipt.problem) == (BODY.decode(), True, None)
    assert receipt.received_at == "2026-01-01T00:00:00.000Z"
    assert receipt.headers["webhook-id"] == "id-1"


async def test_a_wrong_signature_is_refused_with_the_reason() -> None:
    scene = Scene(kit.OLDER_SECRET)
    assert await scene.post(BODY) == 401
    assert scene.kept[0].problem == "X-Baseten-Signature does not match the body and the secret"
    assert b"does not match" in scene.sent[1]["body"]


async def test_an_unsigned_body_that_is_no_text_is_kept_all_the_same() -> None:
    scene = Scene()
    assert await scene.post(b"\xff\x00", headers={}) == 401
    assert scene.kept[0].body == "\ufffd\x00"


async def test_other_methods_and_large_bodies_are_refused_and_not_kept() -> None:
    assert await Scene().post(b"", method="GET") == 405
    scene = Scene()
    assert await scene.post(bytes(receiver.MAX_BODY_BYTES), b"1") == 413
    assert scene.kept == []


async def test_the_file_has_the_receipt_before_the_answer_goes(tmp_path: Path) -> None:
    out = tmp_path / "received.jsonl"
    shown: list[tuple[str, int]] = []
    scene = Scene()
    keep = receiver.keeper(lambda _: shown.append((out.read_text(), len(scene.sent))), out)
    scene.app = receiver.ReceiverApp([kit.SECRET], kit.HandClock(), keep)
    await scene.post(BODY)
    await scene.post(b"{}")
    first, second = (json.loads(line) for line in out.read_text().splitlines())
    assert (first["body"], second["body"]) == (BODY.decode(), "{}")
    assert first.keys() >= {"headers", "body", "verified", "received_at"}
    assert json.loads(shown[0][0]) == first
    assert [sent for _, sent in shown] == [0, 2], "nothing of its own answer had gone"


@pytest.mark.parametrize(("body", "shown"), [('{"a":"ä"}', '{\n  "a": "ä"\n}'), ("\x1b[2J", r"'\x1b[2J'")])
def test_bodies_are_shown_for_reading(body: str, shown: str) -> None:
    assert receiver.pretty(body) == shown


async def test_it_answers_as_badly_as_it_is_told() -> None:
    scene = Scene(behaviour=receiver.Behaviour(status=410, fail_rate=0.5))
    answered = []
    for _ in range(4):
        scene.sent.clear()
        answered.append(await scene.post(BODY))
    assert answered == [410, 500, 410, 500]
    assert [receipt.answered for receipt in scene.kept] == answered
    scene.sent.clear()
    assert await scene.post(BODY, headers={}) == 401
