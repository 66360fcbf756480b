"""The served description, tried out by schemathesis: every answer is one that it promises, and none is a 5xx."""

import asyncio
from collections import Counter
from itertools import count
from typing import Any

import pytest
import schemathesis
from hypothesis import Phase, settings
from litestar import Litestar
from schemathesis import engine
from schemathesis.config import ProjectConfig, SchemathesisConfig
from schemathesis.engine import events
from schemathesis.generation import GenerationMode

from runtime.database.engines import Database
from tests.integration.control import helpers
from tests.integration.control.helpers import Lab

CONFIG: dict[str, Any] = {
    "seed": 20260101,
    "continue-on-failure": True,
    "checks": {
        # 413: more items than are allowed may be more bytes than are read
        "negative_data_rejection": {
            "expected-statuses": ["400", "401", "403", "404", "405", "409", "412", "413", "415", "429"]
        },
        # what a body alone cannot show may be wrong: an unknown slug, a limit above the parent's, a name or key taken
        "positive_data_acceptance": {"expected-statuses": ["2xx", "400", "401", "403", "404", "409", "412"]},
    },
    "operations": [
        {
            # a key's prefix may be `register`, `batch`, or hold a slash: one path is several operations'
            "include-path-regex": "api_keys/",
            "checks": {"unsupported_method": {"enabled": False}, "allow_header_conformance": {"enabled": False}},
        },
        {
            # a secret of a name that is there keeps its id: who made it first may have deleted it for the second
            "include-path-regex": "secrets/",
            "checks": {"ensure_resource_availability": {"enabled": False}},
        },
    ],
}
SLUG = "acme/m"
MAIN_POSTS = {
    "POST /v1/gateway/endpoints",
    "POST /v1/gateway/groups",
    "POST /v1/gateway/groups/{group_id}/api_keys",
    "POST /v1/secrets",
    "POST /v1/gateway/deliveries/redrive",
}
"""Whose description must lead to requests that succeed: nobody could use a wrong one."""


async def furnish(app: Litestar, lab: Lab) -> dict[str, str]:
    """Make one of each; return what names them in a path."""
    async with helpers.client(app, lab.api_key) as lab.client:
        endpoint = await lab.endpoint(SLUG)
        group = (await lab.made_group("cust", {"slug": SLUG, "usage_limits": [helpers.day_limit(5)]}))["id"]
        return {
            "endpoint_id": endpoint["id"],
            "group_id": group,
            "secret_id": await lab.secret("upstream", "sk-1"),
            "api_key_prefix": (await lab.key(group))[:16],
        }


def aim(described: Any, known: dict[str, str]) -> None:
    """Let many of the generated requests be about what is there, which none deletes: made-up names find nothing."""
    numbers = count()

    @described.hook("map_path_parameters")  # type: ignore[untyped-decorator]
    def aim_path(context: Any, given: Any) -> Any:
        if context.operation.method.upper() == "DELETE":
            return given
        swapped = {name: known[name] for name, value in (given or {}).items() if name in known and len(str(value)) % 2}
        return {**given, **swapped} if swapped else given

    @described.hook("map_case")  # type: ignore[untyped-decorator]
    def aim_body(context: Any, case: Any) -> Any:
        if case.meta.generation.mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            for model in case.body.get("models") or ():
                model["slug"] = SLUG
            if context.operation.label == "POST /v1/gateway/groups":
                metadata = case.body["metadata"]
                metadata["external_entity_id"] = f"{next(numbers)} {metadata['external_entity_id']}"[:255]
                del case.body["models"][1:]
                if next(numbers) % 2 and case.headers:
                    case.headers.pop("Idempotency-Key", None)  # a key that comes twice is most often another body's
                (case.body.get("hierarchy") or {}).pop("parent_group_id", None)
            if context.operation.label == "POST /v1/gateway/endpoints":
                case.body["slug"] = "acme" + case.body["slug"][case.body["slug"].index("/") :]
                (target,) = case.body["targets"]
                target.clear()
                target.update(provider="BASETEN_MODEL_API", target_model="m")
        return case


@pytest.fixture(autouse=True)
def profile_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every machine generate the same: climbing towards accepted requests takes minutes where `CI` is set."""
    configured = ProjectConfig.get_hypothesis_settings

    def without_climbing(config: ProjectConfig, **given: Any) -> settings:
        made = configured(config, **given | {"apply_ci_profile": False})
        return settings(made, phases=[phase for phase in made.phases if phase is not Phase.target])

    monkeypatch.setattr(ProjectConfig, "get_hypothesis_settings", without_climbing)


@pytest.mark.slow
@pytest.mark.parametrize("examples", [8, pytest.param(40, marks=pytest.mark.long)])
def test_answers_are_as_described(database: Database, app: Litestar, examples: int) -> None:
    onboarded = helpers.onboard(database, "lab", "acme")
    known = asyncio.run(furnish(app, Lab(onboarded.workspace_id, onboarded.api_key, helpers.client(app))))
    generated = {
        "generation": {"max-examples": examples},
        "phases": {"stateful": {"generation": {"max-examples": examples // 2}}},
    }
    config = SchemathesisConfig.from_dict(CONFIG | generated)
    described = schemathesis.openapi.from_asgi("/schema/openapi.json", app, config=config)
    described.config.update(headers={"Authorization": f"Api-Key {onboarded.api_key}"})
    aim(described, known)
    problems: list[str] = []
    statuses: Counter[tuple[str, int]] = Counter()
    for event in engine.from_schema(described).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            problems.append(repr(event))
        if isinstance(event, events.ScenarioFinished | events.FuzzScenarioFinished):
            for checks in event.recorder.checks.values():
                problems += [f"{check.name}: {check.failure_info.failure}" for check in checks if check.failure_info]
            for name, each in event.recorder.interactions.items():
                if each.response:
                    operation = event.recorder.cases[name].value.operation.label
                    statuses[operation, each.response.status_code] += 1
    assert not problems, "\n\n".join(problems)
    assert statuses.total() > 40 * examples
    taken = Counter({operation: times for (operation, status), times in statuses.items() if status == 200})
    assert taken.total() > 2.5 * examples
    assert not {operation: taken[operation] for operation in MAIN_POSTS if taken[operation] < examples / 8}
