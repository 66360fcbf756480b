"""What a tool like Terraform does: plan, apply, change out of band, destroy; several at once, with answers lost."""

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from tests.integration.control import helpers
from tests.integration.control.helpers import Lab, day_limit

ENDPOINTS, GROUPS, WEBHOOK = "/v1/gateway/endpoints", "/v1/gateway/groups", "/v1/gateway/billing_webhook"
SLUGS = ("acme/small", "acme/large")
LEVELS = ("root", "division", "team", "person", "robot")
Json = dict[str, Any]


def desired() -> Json:
    """Two endpoints, a tree of five levels with two keys each, and where webhooks go."""
    models = [{"slug": slug, "rate_limits": [], "usage_limits": [day_limit(10)]} for slug in SLUGS]
    return {
        "endpoints": {slug: helpers.endpoint_body(slug)["targets"] for slug in SLUGS},
        "groups": {
            name: {"parent": LEVELS[level - 1] if level else None, "name": name.title(), "models": models}
            for level, name in enumerate(LEVELS)
        },
        "keys": [(name, key) for name in LEVELS for key in ("first", "second")],
        "webhook": {"url": "https://hooks.example/in", "enabled": True},
    }


class Applier:
    """Makes a lab what is desired. Each answer may be lost once, and then the same call is sent again."""

    def __init__(self, lab: Lab, wanted: Json, seed: int) -> None:
        self.client = lab.client
        self.wanted = wanted
        self.random = random.Random(seed)
        self.lost = 0

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        while True:
            answer = await self.client.request(method, path, json=body, headers=sent)
            if self.random.random() < 0.2:
                self.lost += 1
            elif answer.status_code != 409:
                return answer
            await asyncio.sleep(0)

    async def one(self, path: str, **query: str) -> Json | None:
        listed = (await self.call("GET", f"{path}?{httpx.QueryParams(query)}")).json()["items"]
        assert len(listed) <= 1
        return listed[0] if listed else None

    async def plan(self) -> list[str]:
        """Return what is not as desired."""
        found = []
        for slug, targets in self.wanted["endpoints"].items():
            endpoint = await self.one(ENDPOINTS, slug=slug)
            if endpoint is None or endpoint["targets"] != targets:
                found.append(slug)
        for name, group in self.wanted["groups"].items():
            there = await self.one(GROUPS, external_entity_id=name)
            if there is None or self.differs(there, group):
                found.append(name)
        for name, key in self.wanted["keys"]:
            there = await self.one(GROUPS, external_entity_id=name)
            listed = [] if there is None else await self.keys(there["id"])
            found += [f"{name}/{key}"] * (listed.count(key) != 1)
        return found + ["webhook"] * ((await self.call("GET", WEBHOOK)).json() != self.wanted["webhook"])

    @staticmethod
    def differs(there: Json, group: Mapping[str, Any]) -> bool:
        return bool(there["models"] != group["models"] or there["metadata"]["name"] != group["name"])

    async def keys(self, group_id: str) -> list[str]:
        return [key["name"] for key in (await self.call("GET", f"{GROUPS}/{group_id}/api_keys")).json()["items"]]

    async def apply(self) -> None:
        for slug, targets in self.wanted["endpoints"].items():
            if await self.one(ENDPOINTS, slug=slug) is None:
                await self.make(ENDPOINTS, {"slug": slug, "targets": targets}, f"endpoint {slug}")
            endpoint = await self.one(ENDPOINTS, slug=slug)
            assert endpoint is not None
            if endpoint["targets"] != targets:
                await self.change(f"{ENDPOINTS}/{endpoint['id']}", {"targets": targets})
        for name, group in self.wanted["groups"].items():
            await self.apply_group(name, group)
        for name, key in self.wanted["keys"]:
            there = await self.one(GROUPS, external_entity_id=name)
            assert there is not None
            if key not in await self.keys(there["id"]):
                await self.make(f"{GROUPS}/{there['id']}/api_keys", {"name": key}, f"key {name}/{key}")
        await self.call("PUT", WEBHOOK, self.wanted["webhook"])

    async def apply_group(self, name: str, group: Mapping[str, Any]) -> None:
        there = await self.one(GROUPS, external_entity_id=name)
        if there is None:
            parent = await self.one(GROUPS, external_entity_id=group["parent"]) if group["parent"] else None
            body = {
                "metadata": {"external_entity_id": name, "name": group["name"]},
                "models": group["models"],
                "hierarchy": {"parent_group_id": parent and parent["id"]},
            }
            await self.make(GROUPS, body, f"group {name}")
        elif self.differs(there, group):
            body = {"metadata": {"name": group["name"]}, "models": group["models"]}
            await self.change(f"{GROUPS}/{there['id']}", body)

    async def make(self, path: str, body: Any, key: str) -> None:
        answer = await self.call("POST", path, body, idempotency_key=f"run {self.wanted['run']}: {key}")
        assert answer.status_code == 200, answer.text

    async def change(self, path: str, body: Any) -> None:
        tag = (await self.call("GET", path)).headers["etag"]
        answer = await self.call("PATCH", path, body, if_match=tag)
        assert answer.status_code in {200, 412}, answer.text  # another applier was first, or our own answer was lost

    async def destroy(self) -> None:
        for name in self.wanted["groups"]:
            there = await self.one(GROUPS, external_entity_id=name)
            if there is not None:
                assert (await self.call("DELETE", f"{GROUPS}/{there['id']}")).status_code in {200, 404}
        for slug in self.wanted["endpoints"]:
            endpoint = await self.one(ENDPOINTS, slug=slug)
            if endpoint is not None:
                assert (await self.call("DELETE", f"{ENDPOINTS}/{endpoint['id']}")).status_code in {200, 404}


@pytest.mark.parametrize("seed", range(3))
async def test_appliers_at_once_with_lost_answers_leave_no_drift_and_no_orphan(lab: Lab, seed: int) -> None:
    wanted = desired() | {"run": 1}
    appliers = [Applier(lab, wanted, seed * 10 + number) for number in range(3)]
    first = appliers[0]
    assert len(await first.plan()) == len(SLUGS) + len(LEVELS) + 2 * len(LEVELS) + 1
    await asyncio.gather(*(each.apply() for each in appliers))
    assert await first.plan() == []

    team = await first.one(GROUPS, external_entity_id="team")
    small = await first.one(ENDPOINTS, slug=SLUGS[0])
    robot = await first.one(GROUPS, external_entity_id="robot")
    assert team is not None
    assert small is not None
    assert robot is not None
    await lab.client.patch(f"{GROUPS}/{team['id']}", json={"metadata": {"name": "changed by hand"}})
    await lab.client.patch(f"{ENDPOINTS}/{small['id']}", json={"targets": [{"provider": "BASETEN", "model_id": "a"}]})
    (prefix, *_) = [
        key["prefix"]
        for key in (await lab.client.get(f"{GROUPS}/{robot['id']}/api_keys")).json()["items"]
        if key["name"] == "second"
    ]
    await lab.client.delete(f"{GROUPS}/{robot['id']}/api_keys/{prefix}")
    assert await first.plan() == [SLUGS[0], "team", "robot/second"]
    wanted["run"] = 2
    await asyncio.gather(*(each.apply() for each in appliers))
    assert await first.plan() == []

    await asyncio.gather(*(each.destroy() for each in appliers))
    for path in (ENDPOINTS, GROUPS):
        assert (await lab.client.get(path)).json()["items"] == []
    assert sum(each.lost for each in appliers) > 10


async def test_of_clients_that_each_add_a_model_none_is_lost(lab: Lab) -> None:
    slugs = [f"acme/{number}" for number in range(8)]
    for slug in ("acme/m", *slugs):
        await lab.endpoint(slug)
    path = f"{GROUPS}/{(await lab.made_group('cust', {'slug': 'acme/m'}))['id']}"

    async def add(slug: str) -> None:
        while True:
            read = await lab.client.get(path)
            await asyncio.sleep(0)
            body = {"models": [*read.json()["models"], {"slug": slug}]}
            answer = await lab.client.patch(path, json=body, headers={"if-match": read.headers["etag"]})
            if answer.status_code == 200:
                return
            assert answer.status_code == 412, answer.text

    await asyncio.gather(*(add(slug) for slug in slugs))
    kept = {model["slug"] for model in (await lab.client.get(path)).json()["models"]}
    assert kept == {"acme/m", *slugs}
