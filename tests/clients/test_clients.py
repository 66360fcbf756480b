"""Clients that people use, unmodified and of the versions of their lock files, in front of a proxy on a real port.

Each runs as a process of its own and prints what it read. That is what the upstream said, under the slug, and what is
billed is what the upstream counted.
"""

import asyncio
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from infra.local import process
from schemas.targets import Provider
from schemas.usage import Outcome, UsageSource
from tests.clients import environments, upstream
from tests.integration.proxy.gate import KEY, Gate, gate
from tests.integration.proxy.tcp import TcpUpstream
from tests.unit.proxy.kit import SLUG

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

PROGRAMS = Path(__file__).parent / "programs"
WITHIN_S = 240
STREAMED = {"chat": ["Hello", 5, 2], "streamed chat": ["Hello", 5, 2]}
VECTORS = {"embeddings": [[1.0, 2.0], 8]}
BOTH_CHATS = Counter({("chat.completions", False, 5, 2): 1, ("chat.completions", True, 5, 2): 1})
ONE_EMBEDDING = Counter({("embeddings", False, 8, 0): 1})
MESSAGES = Counter({("messages", False, 60, 7): 1, ("messages", True, 60, 7): 1})
RESPONSES = Counter({("responses", False, 9, 6): 1, ("responses", True, 9, 6): 1})


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Gate]:
    async with TcpUpstream(upstream.answer) as server:
        place = f"http://127.0.0.1:{server.port}"
        async with gate(tmp_path, server.base_url, accept_bearer=True, anthropic_base_url=place) as opened:
            yield opened


async def run(gate: Gate, *command: str | Path) -> dict[str, Any]:
    """Run a program to its end and return what it printed; its environment is what it is told, and no more."""
    (port,) = process.free_ports(1)
    told = {"BASE_URL": gate.url, "API_KEY": KEY, "MODEL": SLUG, "PORT": str(port)}
    with tempfile.TemporaryDirectory() as home:
        alone = {"PATH": os.environ["PATH"], "HOME": home, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        running = await asyncio.create_subprocess_exec(
            *command, env=alone | told, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(WITHIN_S):
                printed, errors = await running.communicate()
        finally:
            if running.returncode is None:
                running.kill()
                await running.wait()
    assert running.returncode == 0, errors.decode()
    read: dict[str, Any] = json.loads(printed)
    return read


def billed(gate: Gate) -> Counter[tuple[str, bool, int, int]]:
    """Return the events by what they count; each is of a whole answer that the upstream counted."""
    events = gate.events
    assert {(event.outcome, event.usage_source) for event in events} == {(Outcome.COMPLETE, UsageSource.PROVIDER)}
    return Counter(
        (event.route, event.stream, event.tokens.input_tokens, event.tokens.output_tokens) for event in events
    )


@pytest.mark.parametrize(
    ("name", "read", "events"),
    [
        ("langchain", STREAMED, BOTH_CHATS),
        ("litellm", STREAMED | VECTORS, BOTH_CHATS + ONE_EMBEDDING),
        ("llm", {"chat": "Hello", "streamed chat": "Hello"}, BOTH_CHATS),
    ],
)
async def test_a_client_in_python(front: Gate, name: str, read: dict[str, Any], events: Counter[Any]) -> None:
    interpreter = await asyncio.to_thread(environments.python, name)
    assert await run(front, interpreter, PROGRAMS / f"by_{name}.py") == read
    assert billed(front) == events


async def test_litellm_as_a_proxy_that_routes_here(front: Gate) -> None:
    interpreter = await asyncio.to_thread(environments.python, "litellm")
    assert await run(front, interpreter, PROGRAMS / "by_litellm_proxy.py") == STREAMED | VECTORS
    assert billed(front) == BOTH_CHATS + ONE_EMBEDDING


@pytest.mark.parametrize("version", ["anthropic-1", "anthropic-2"])
async def test_anthropics_sdk_of_either_api_version(front: Gate, version: str) -> None:
    front.target(SLUG, "sk-ant-1", provider=Provider.ANTHROPIC, target_model="claude-1")
    interpreter = await asyncio.to_thread(environments.python, version)
    message = ["Hello", 10, 7, SLUG]
    assert await run(front, interpreter, PROGRAMS / "by_anthropic.py") == {
        "messages": message,
        "streamed messages": message,
        "count_tokens": 14,
    }
    assert billed(front) == MESSAGES


@pytest.mark.parametrize(
    ("name", "read", "events"),
    [
        (
            "openai",
            STREAMED | VECTORS | {"responses": ["Hello", 9, 6], "streamed responses": [SLUG, 9, 6]},
            BOTH_CHATS + ONE_EMBEDDING + RESPONSES,
        ),
        ("ai_sdk", STREAMED | VECTORS, BOTH_CHATS + ONE_EMBEDDING),
    ],
)
async def test_a_client_in_node(front: Gate, name: str, read: dict[str, Any], events: Counter[Any]) -> None:
    folder = await asyncio.to_thread(environments.node, "node")
    program = shutil.copy(PROGRAMS / f"by_{name}.mjs", folder)
    assert await run(front, "node", program) == read
    assert billed(front) == events
