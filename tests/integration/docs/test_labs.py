"""docs/labs.md: its snippets accept what the real dispatcher signed and nothing else, and its vectors are true."""

import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runtime.clock import steady
from schemas.config import ConfigChange, ConfigKind, SealedSecret, WebhookRecord
from tests.architecture import sources
from tests.integration.webhooks.scene import VAULT, dispatching, serving, status
from tests.support import engines
from tests.unit.webhooks import kit
from webhooks.core import signing

DOC = (sources.ROOT / "docs/labs.md").read_text(encoding="utf-8")
BUILD_S = 100

PYTHON = """
import base64, json, sys
for line in sys.stdin:
    case = json.loads(line)
    print(is_ours(base64.b64decode(case["body"]), case["signature"], case["secret"]))
"""
NODE = """
for (const line of require("node:fs").readFileSync(0, "utf8").trim().split("\\n")) {
  const item = JSON.parse(line);
  console.log(isOurs(Buffer.from(item.body, "base64"), item.signature, item.secret));
}
"""
GO = """package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"labs/billing"
)

func main() {
	decoder := json.NewDecoder(os.Stdin)
	for {
		var item struct {
			Body              []byte
			Signature, Secret string
		}
		if err := decoder.Decode(&item); err == io.EOF {
			return
		} else if err != nil {
			panic(err)
		}
		fmt.Println(billing.IsOurs(item.Body, item.Signature, item.Secret))
	}
}
"""


@dataclass(frozen=True)
class Case:
    """A body with its X-Baseten-Signature, and whether it is ours by this secret."""

    body: bytes
    signature: str
    secret: str
    ours: bool

    def as_json(self) -> str:
        body = base64.b64encode(self.body).decode()
        return json.dumps({"body": body, "signature": self.signature, "secret": self.secret})


def snippet(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)
    assert found, f"docs/labs.md has no {language} snippet"
    return found.group(1)


def vector(name: str) -> str:
    found = re.search(rf"^\| {re.escape(name)} \| `([^`]+)` \|$", DOC, re.MULTILINE)
    assert found, f"docs/labs.md has no vector {name!r}"
    return found.group(1)


def needed(program: str, package: str) -> str:
    found = shutil.which(program)
    assert found, f"{program} is missing; type: apt-get install {package}"
    return found


def run(command: list[str], cases: list[Case], folder: Path) -> list[bool]:
    lines = "\n".join(case.as_json() for case in cases) + "\n"
    ended = subprocess.run(
        command, input=lines, cwd=folder, capture_output=True, text=True, timeout=BUILD_S, check=False
    )
    said = [line.lower() for line in ended.stdout.splitlines() if line.lower() in {"true", "false"}]
    assert len(said) == len(cases), ended.stdout + ended.stderr
    return [word == "true" for word in said]


def in_python(cases: list[Case], folder: Path) -> list[bool]:
    (folder / "verify.py").write_text(snippet("python") + PYTHON, encoding="utf-8")
    return run([sys.executable, "verify.py"], cases, folder)


def in_node(cases: list[Case], folder: Path) -> list[bool]:
    (folder / "verify.js").write_text(snippet("javascript") + NODE, encoding="utf-8")
    return run([needed("node", "nodejs"), "verify.js"], cases, folder)


def in_go(cases: list[Case], folder: Path) -> list[bool]:
    (folder / "billing").mkdir()
    (folder / "billing" / "billing.go").write_text(snippet("go"), encoding="utf-8")
    (folder / "main.go").write_text(GO, encoding="utf-8")
    (folder / "go.mod").write_text("module labs\n\ngo 1.19\n", encoding="utf-8")
    return run([needed("go", "golang-go"), "run", "."], cases, folder)


async def signed_by_the_dispatcher(place: engines.Place) -> list[Case]:
    """Deliver during a rotation; return what the receiver got, as it should and should not verify."""
    async with serving(status(200)) as receiver, dispatching(place) as scene:
        secrets = tuple(
            SealedSecret(sealed=VAULT.seal(secret, "webhook:ws"), expires_at=expires_at)
            for secret, expires_at in [(kit.SECRET, None), (kit.OLDER_SECRET, datetime(2999, 1, 1, tzinfo=UTC))]
        )
        record = WebhookRecord(workspace_id="ws", url=receiver.url, enabled=True, secrets=secrets)
        scene.dispatcher.apply(ConfigChange(version=1, kind=ConfigKind.WEBHOOK, id="ws", record=record))
        await scene.partition.put(*(kit.event(number) for number in range(1, 4)))
        await scene.until_statuses("delivered")
        (received,) = receiver.received
    signing.verify(received.headers, received.body, [kit.OLDER_SECRET], steady()())
    signature = received.headers[signing.SIGNATURE.lower()]
    return [
        Case(received.body, signature, kit.SECRET, ours=True),
        Case(received.body, signature, kit.OLDER_SECRET, ours=True),
        Case(received.body, signature, kit.SECRET + "x", ours=False),
        Case(received.body + b" ", signature, kit.SECRET, ours=False),
        Case(received.body, signature.replace("v1=", "v2="), kit.SECRET, ours=False),
        Case(received.body, "", kit.SECRET, ours=False),
    ]


@pytest.mark.parametrize("verified", [in_python, in_node, in_go])
async def test_a_snippet_accepts_what_the_dispatcher_signed_and_nothing_else(
    verified: Callable[[list[Case], Path], list[bool]], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    cases = await signed_by_the_dispatcher(engines.made("sqlite", request, tmp_path))
    work = tmp_path / "work"
    work.mkdir()
    assert verified(cases, work) == [case.ours for case in cases]


def test_the_vectors_are_what_the_dispatcher_signs() -> None:
    found = re.search(r"^```text\n(.*)\n```", DOC, re.MULTILINE)
    assert found
    secrets, at = (
        [vector("secret"), vector("older secret")],
        datetime.fromtimestamp(int(vector("`webhook-timestamp`")), UTC),
    )
    for several, which in ((False, "one secret"), (True, "both")):
        used = secrets if several else secrets[:1]
        headers = signing.sign(found.group(1).encode(), vector("`webhook-id`"), used, at)
        assert headers[signing.SIGNATURE] == vector(f"`X-Baseten-Signature`, {which}")
        assert headers[signing.STANDARD_SIGNATURE] == vector(f"`webhook-signature`, {which}")
