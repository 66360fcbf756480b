"""docs/developers.md says which provider serves which route: the table is made from where their calls lead."""

from typing import Any

import pytest

from proxy.core.calls import Dialect, Route
from proxy.dialects.routes import table
from proxy.dialects.routes.api import ApiRoute
from proxy.front import routes as front
from schemas.targets import Provider, VertexConfig
from schemas.usage import RouteName
from tests.architecture import sources
from tests.unit.proxy.directories import directory, endpoint, secret, the_key
from tests.unit.proxy.test_directory_upstreams import BARE, SERVICE_ACCOUNT

PAGE = sources.ROOT / "docs/developers.md"
COLUMNS = list(Provider)
FACTS: dict[Provider, dict[str, Any]] = {
    Provider.BASETEN: {"model_id": "abc", **BARE},
    Provider.VERTEX: {"vertex_config": VertexConfig(project_id="p", location="global"), "base_url": None},
    Provider.OPENAI_COMPATIBLE: {},
}
WORDS = {Dialect.MESSAGES: "translated"}
TEMPLATES = {"/predict/": "{slug}", "/async_predict/": "{slug}", "/sync/": "{slug}/{path}"}


def leads_to(api: ApiRoute, provider: Provider) -> Route | None:
    """Return where the directory sends a route's calls of an endpoint of the provider's; None: it is not found."""
    target = {"provider": provider, "secret_id": "s1"} | FACTS.get(provider, {"base_url": None})
    made = directory(secret(SERVICE_ACCOUNT if provider is Provider.VERTEX else "sk-1"), endpoint(**target))
    found = made.route(the_key(made), "lab/a", api)
    assert found is None or isinstance(found, Route), found
    return found


def cell(api: ApiRoute, provider: Provider) -> str:
    found = leads_to(api, provider)
    return "no" if found is None else WORDS.get(found.dialect, "yes")


def paths() -> dict[str, RouteName]:
    """Return every path that is counted, as a developer writes it, and `count_tokens`."""
    posted = dict(front._PATHS) | {front._MESSAGES: RouteName.MESSAGES, front._COUNT_TOKENS: RouteName.MESSAGES}
    return posted | {prefix + TEMPLATES[prefix]: name for prefix, (name, _) in front._MODEL_SERVER.items()}


def rendered() -> str:
    lines = ["| route | " + " | ".join(f"`{one.value}`" for one in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for path, name in paths().items():
        cells = [cell(table.ROUTES[name], provider) for provider in COLUMNS]
        lines.append(f"| `{path}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_the_table_is_what_the_directory_does() -> None:
    assert rendered() in PAGE.read_text(encoding="utf-8"), f"the table of docs/developers.md must be:\n{rendered()}"


def test_every_route_has_a_path() -> None:
    assert set(paths().values()) == set(RouteName) == set(table.ROUTES)


@pytest.mark.parametrize("name", RouteName)
def test_what_is_not_served_leads_nowhere_and_what_is_served_leads_to_its_own_path(name: RouteName) -> None:
    api = table.ROUTES[name]
    for provider in Provider:
        found = leads_to(api, provider)
        if found is not None:
            assert found.url.endswith("/v1/messages" if provider is Provider.ANTHROPIC else api.upstream_path)
        else:
            assert provider not in api.providers
