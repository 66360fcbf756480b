"""A proxy on a real port, in front of an upstream of the test's choice, with one key that may call one slug."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
from litestar import Litestar

from domain.sealing import secret_context
from proxy.app import Proxy
from runtime import clock
from runtime.http import server
from runtime.settings import Settings
from schemas.config import (
    ConfigChange,
    ConfigKind,
    ConfigRecord,
    EndpointRecord,
    GroupRecord,
    KeyRecord,
    SecretRecord,
    WorkspaceRecord,
    WorkspaceState,
)
from schemas.limits import LimitEnforcement, ModelConfig
from schemas.targets import Provider, Target
from schemas.usage import UsageEvent
from tests.support.events import as_contract
from tests.unit.proxy import kit
from tests.unit.proxy.kit import NOW, SLUG

KEY = "sky_abcdefghijkl.0123456789abcdef0123456789abcdef"
AUTHORIZED = {"authorization": f"Api-Key {KEY}"}
ASKED: dict[str, Any] = {"model": SLUG, "messages": [{"role": "user", "content": "Say hi"}]}
PATH = "/v1/chat/completions"


@dataclass
class Gate:
    """A running proxy."""

    url: str
    proxy: Proxy

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, **options: Any) -> httpx.AsyncClient:
        given: dict[str, Any] = {"base_url": self.url, "timeout": 20, "trust_env": False, "headers": AUTHORIZED}
        return httpx.AsyncClient(**given | options)

    def sdk(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", default_headers=AUTHORIZED, max_retries=0)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    @property
    def events(self) -> list[UsageEvent]:
        return list(map(as_contract, self.proxy.spool.file.remaining()))

    async def event(self) -> UsageEvent:
        """Wait for the one event there is."""
        async with asyncio.timeout(20):
            await self.proxy.spool.file.wait(1, 20)
        (event,) = self.events
        return event

    def apply(self, kind: ConfigKind, id_: str, record: ConfigRecord | None) -> None:
        """Change the configuration, each change newer than all before."""
        self._version = getattr(self, "_version", 0) + 1
        self.proxy.apply(ConfigChange(version=self._version, kind=kind, id=id_, record=record))

    def serve(self, slug: str, base_url: str) -> None:
        """Let an endpoint be the slug's."""
        target = Target(provider=Provider.OPENAI_COMPATIBLE, base_url=base_url, target_model="their-model")
        record = EndpointRecord(id=f"e-{slug}", workspace_id="ws", slug=slug, target=target, created_at=NOW)
        self.apply(ConfigKind.ENDPOINT, record.id, record)

    def target(self, slug: str, secret: str, more: dict[str, Any] | None = None, **target: Any) -> None:
        """Let an endpoint with a secret be the slug's; `more` is what it says beside its target."""
        sealed = kit.VAULT.seal(secret, secret_context("ws", "s1"))
        self.apply(ConfigKind.SECRET, "s1", SecretRecord(id="s1", workspace_id="ws", sealed=sealed))
        facts: dict[str, Any] = {"target": Target(secret_id="s1", **target), "created_at": NOW} | (more or {})
        record = EndpointRecord(id=f"e-{slug}", workspace_id="ws", slug=slug, **facts)
        self.apply(ConfigKind.ENDPOINT, record.id, record)

    def allow(self, *models: ModelConfig) -> None:
        """Let the key's group list these."""
        group = GroupRecord(
            id="group",
            workspace_id="ws",
            external_entity_id="customer-1",
            parent_group_id=None,
            ancestor_ids=(),
            limit_enforcement=LimitEnforcement.INDEPENDENT,
            models=models,
        )
        self.apply(ConfigKind.GROUP, "group", group)


def raw_request(body: bytes, *headers: str, method: str = "POST", path: str = PATH) -> bytes:
    """Return a request as bytes; its length is not among the headers unless it is given."""
    named = [f"{method} {path} HTTP/1.1", "host: gate", f"authorization: Api-Key {KEY}", *headers]
    return "\r\n".join([*named, "", ""]).encode() + body


def asked(**members: Any) -> bytes:
    return json.dumps(ASKED | members).encode()


@asynccontextmanager
async def gate(folder: Path, base_url: str, **settings: Any) -> AsyncIterator[Gate]:
    """Serve until the block ends."""
    proxy = Proxy(Settings(**({"allow_private_upstreams": True} | settings)), folder, kit.VAULT, clock.steady())
    await proxy.recover(kit.none_is_counted)
    app = Litestar(route_handlers=proxy.handlers(), openapi_config=None, logging_config=None)
    listener = server.listen("127.0.0.1", 0)
    serving = server.Server(app, listener, grace_s=1, routes=proxy.routes())
    run = asyncio.create_task(serving.run_until_stopped())
    opened = Gate(server.address_of(listener), proxy)
    workspace = WorkspaceRecord(id="ws", name="lab", state=WorkspaceState.ACTIVE, operator_credential=False)
    opened.apply(ConfigKind.WORKSPACE, "ws", workspace)
    opened.allow(ModelConfig(slug=SLUG))
    opened.serve(SLUG, base_url)
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    opened.apply(
        ConfigKind.KEY, KEY[:16], KeyRecord(prefix=KEY[:16], workspace_id="ws", group_id="group", sha256=digest)
    )
    try:
        yield opened
    finally:
        await server.stop_all([serving], [run])
        await proxy.close()
