"""The served description, tried out by schemathesis: every answer is one that it promises, and none is a 5xx."""

import asyncio
from collections import Counter
from typing import Any

import pytest
import schemathesis
from litestar import Litestar
from schemathesis import engine
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events

from runtime.database import Database
from tests.integration.control import helpers
from tests.integration.control.helpers import Lab

CONFIG: dict[str, Any] = {
    "seed": 20260101,
    "continue-on-failure": True,
    "checks": {
        # what a body alone cannot show may be wrong with it: an unknown slug, a limit above the parent's, a name taken
        "positive_data_acceptance": {"expected-statuses": ["2xx", "400", "401", "403", "404"]},
    },
    "generation": {"max-examples": 40},
    "phases": {"stateful": {"generation": {"max-examples": 20}}},
}
SLUG = "acme/m"


async def furnish(app: Litestar, lab: Lab) -> dict[str, str]:
    """Make one of each; give what names them in a path."""
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
    """Let half of the generated requests be about what is there: made-up ids find nothing."""

    @described.hook("map_path_parameters")  # type: ignore[untyped-decorator]
    def aim_path(_: Any, given: Any) -> Any:
        swapped = {name: known[name] for name, value in (given or {}).items() if name in known and len(str(value)) % 2}
        return {**given, **swapped} if swapped else given

    @described.hook("map_body")  # type: ignore[untyped-decorator]
    def aim_body(_: Any, body: Any) -> Any:
        models = body.get("models") if isinstance(body, dict) else None
        for model in models if isinstance(models, list) else ():
            if isinstance(model, dict) and str(model.get("slug")).count("/") == 1:
                model["slug"] = SLUG
        return body


@pytest.mark.slow
def test_answers_are_as_described(database: Database, app: Litestar) -> None:
    onboarded = helpers.onboard(database, "lab", "acme")
    known = asyncio.run(furnish(app, Lab(onboarded.workspace_id, onboarded.api_key, helpers.client(app))))
    config = SchemathesisConfig.from_dict(CONFIG)
    described = schemathesis.openapi.from_asgi("/schema/openapi.json", app, config=config)
    described.config.update(headers={"Authorization": f"Api-Key {onboarded.api_key}"})
    aim(described, known)
    problems: list[str] = []
    statuses: Counter[int] = Counter()
    for event in engine.from_schema(described).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            problems.append(repr(event))
        if isinstance(event, events.ScenarioFinished | events.FuzzScenarioFinished):
            for checks in event.recorder.checks.values():
                problems += [f"{check.name}: {check.failure_info.failure}" for check in checks if check.failure_info]
            statuses.update(each.response.status_code for each in event.recorder.interactions.values() if each.response)
    assert not problems, "\n\n".join(problems)
    assert sum(statuses.values()) > 1500
    assert statuses[200] > 100
