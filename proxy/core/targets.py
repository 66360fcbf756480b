"""Where the calls of a target go (contract 2.1).

What a lab chose stands in a URL only at the place that is meant for it.
"""

from dataclasses import dataclass, field

from proxy.core.calls import Dialect
from schemas.targets import Provider, Target, VertexConfig
from schemas.usage import RouteName

_MESSAGES = "/v1/messages"
_VERTEX_MULTI_REGIONS = ("us", "eu")
_DEFAULT_ENVIRONMENT = "production"
_MODEL_SERVER = frozenset((RouteName.PREDICT, RouteName.ASYNC_PREDICT, RouteName.SYNC))


@dataclass(frozen=True, slots=True)
class ProviderUrls:
    """The providers' places as the operator's settings name them; each includes the version's path."""

    openai: str
    baseten: str
    """A template: ``{model_id}`` and ``{environment_name}`` stand for the target's."""
    baseten_model: str
    """The same for the model server's own routes: it ends where theirs begin."""
    baseten_model_api: str
    baseten_credential: str | None = field(repr=False)
    """The operator's own, for BASETEN targets without a secret of workspaces that may use it."""
    anthropic: str
    """Without the version's path."""
    vertex: str | None
    """Scheme and host of all locations; None: each location has its own."""


def url(target: Target, places: ProviderUrls, path: str, name: RouteName = RouteName.CHAT_COMPLETIONS) -> str:
    """Return the URL that a route's requests go to; `path` is the route's, behind a base URL of OpenAI's kind."""
    if name in _MODEL_SERVER:
        return _filled(places.baseten_model, target).rstrip("/") + path
    return _base_url(target, places).rstrip("/") + (_MESSAGES if target.provider is Provider.ANTHROPIC else path)


def dialect(target: Target, name: RouteName = RouteName.CHAT_COMPLETIONS) -> Dialect:
    """Return what a target speaks with the clients of a route."""
    if name is RouteName.MESSAGES:
        return Dialect.PASSED_MESSAGES
    return _DIALECTS.get(target.provider, Dialect.CHAT)


def is_by_operator(target: Target) -> bool:
    """Tell whether the operator's settings name the place, not the lab."""
    return target.provider is not Provider.OPENAI_COMPATIBLE


def _base_url(target: Target, places: ProviderUrls) -> str:
    match target.provider:
        case Provider.OPENAI_COMPATIBLE:
            return target.base_url or ""
        case Provider.OPENAI:
            return places.openai
        case Provider.BASETEN_MODEL_API:
            return places.baseten_model_api
        case Provider.BASETEN:
            return _filled(places.baseten, target)
        case Provider.ANTHROPIC:
            return places.anthropic
        case Provider.VERTEX:
            return _vertex(target.vertex_config, places) if target.vertex_config is not None else ""


def _filled(template: str, target: Target) -> str:
    with_model = template.replace("{model_id}", target.model_id or "")
    return with_model.replace("{environment_name}", target.environment_name or _DEFAULT_ENVIRONMENT)


def _vertex(config: VertexConfig, places: ProviderUrls) -> str:
    """Return the base of a location's OpenAI-compatible endpoint.

    `global` and the two multi-regions have hosts of their own (https://cloud.google.com/vertex-ai/docs/general/locations).
    """
    if config.location == "global":
        host = "aiplatform.googleapis.com"
    elif config.location in _VERTEX_MULTI_REGIONS:
        host = f"aiplatform.{config.location}.rep.googleapis.com"
    else:
        host = f"{config.location}-aiplatform.googleapis.com"
    origin = places.vertex.rstrip("/") if places.vertex is not None else f"https://{host}"
    return f"{origin}/v1/projects/{config.project_id}/locations/{config.location}/endpoints/openapi"


_DIALECTS = {Provider.ANTHROPIC: Dialect.MESSAGES, Provider.VERTEX: Dialect.VERTEX}
