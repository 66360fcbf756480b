"""docs/tutorial.md, followed as it stands: its commands in their order, and what it says one sees."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from infra.local import process
from tests.architecture import sources
from tests.faults.scene import until
from tests.support import processes

pytestmark = pytest.mark.slow

DOC = (sources.ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
PORTS = ("3000", "8080", "9000", "9001")
NOT_RUN = {"./run setup demo", ". .venv/bin/activate"}
"""What made the environment that the test itself runs in."""


def commands() -> list[str]:
    """Return what is typed, in its order, comments aside."""
    blocks = re.findall(r"^```sh\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    return [line.split("  #")[0].strip() for line in lines]


@dataclass
class Terminal:
    """Types into a shell in a fresh folder, on ports of its own."""

    folder: Path
    environment: dict[str, str]
    ports: dict[str, str]
    running: list[subprocess.Popen[bytes]]

    def here(self, text: str) -> str:
        return re.sub("|".join(PORTS), lambda found: self.ports[found[0]], text)

    def type(self, line: str) -> str:
        if line.startswith("export "):
            self.environment |= dict(word.split("=") for word in line.split()[1:])
            return ""
        words = self.here(line).replace("docs/receiver.py", str(sources.ROOT / "docs" / "receiver.py"))
        words = words.replace("serve --data data", "serve --data data --ops-port 0")
        if words.endswith("&"):
            self.begin(words[:-1])
            return ""
        ended = subprocess.run(
            ["sh", "-c", words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, f"{words}\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    def begin(self, words: str) -> None:
        log = (self.folder / f"{len(self.running)}.log").open("wb")
        with log:
            self.running.append(
                subprocess.Popen(
                    ["sh", "-c", f"exec {words}"], cwd=self.folder, env=self.environment, stdout=log, stderr=log
                )
            )
        until(lambda: self.listening() >= len(self.running), words)

    def listening(self) -> int:
        return sum(not process.is_free(int(port)) for port in self.ports.values())


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    ports = dict(zip(PORTS, map(str, process.free_ports(len(PORTS))), strict=True))
    path = f"{Path(processes.TOLLGATE).parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    made = Terminal(tmp_path, {"PATH": path, "HOME": str(tmp_path)}, ports, [])
    with ExitStack() as ending:
        yield made
        for one in made.running:
            ending.callback(one.wait, 60)
            one.terminate()


def test_the_tutorial_does_what_it_says(terminal: Terminal) -> None:
    curl = printed = ""
    for line in commands():
        if line in NOT_RUN:
            continue
        if "set-webhook" in line:
            terminal.type(line)
            answer = terminal.type(f"{curl} -s -i")
            assert " 200 " in answer.splitlines()[0]
            terminal.environment["REQUEST_ID"] = re.findall(r"x-request-id: (\S+)", answer)[0]
            (said,) = re.findall(r"^```\n(acme .*)\n```$", DOC, re.MULTILINE)
            until(lambda said=said: said in (terminal.folder / "1.log").read_text(), "the receiver's line")  # type: ignore[misc]
        else:
            printed = terminal.type(line)
        if line.startswith("tollgate quickstart"):
            curl = printed.splitlines()[-1]
            named = {"api_key": "MANAGEMENT_KEY", "webhook_secret": "WEBHOOK_SECRET", "group_id": "GROUP_ID"}
            found = dict(one.split(None, 1) for one in printed.splitlines() if one.split(None, 1)[:1])
            terminal.environment |= {variable: found[name].strip() for name, variable in named.items()}
    words = shlex.split(curl)
    headers = dict(words[place + 1].split(": ", 1) for place, word in enumerate(words) if word == "-H")
    body = words[words.index("-d") + 1]
    refused = httpx.post(words[1], headers=headers, content=body, timeout=30)
    assert refused.status_code == 429
    assert "2 TOKEN per DAY for your-org/small" in refused.json()["error"]["message"]
    assert "It resets at " in refused.json()["error"]["message"]
