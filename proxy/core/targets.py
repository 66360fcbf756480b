"""Where the calls of a target go (contract 2.1).

Never holds a lab's credential, and never lets what a lab chose change the host beyond the place that is meant for it.
"""

from dataclasses import dataclass, field

from schemas.targets import Provider, Target

_PATH = "/chat/completions"
_DEFAULT_ENVIRONMENT = "production"


@dataclass(frozen=True, slots=True)
class ProviderUrls:
    """The providers' places as the operator's settings name them; each includes the version's path."""

    openai: str
    baseten: str
    """A template: ``{model_id}`` and ``{environment_name}`` stand for the target's."""
    baseten_model_api: str
    baseten_credential: str | None = field(repr=False)
    """The operator's own, for BASETEN targets without a secret of workspaces that may use it."""


def url(target: Target, places: ProviderUrls) -> str | None:
    """Return the URL that a target's chat completions are posted to; None for a provider that is not served yet."""
    base = _base_url(target, places)
    return None if base is None else base.rstrip("/") + _PATH


def is_by_operator(target: Target) -> bool:
    """Tell whether the operator's settings name the place, not the lab."""
    return target.provider is not Provider.OPENAI_COMPATIBLE


def _base_url(target: Target, places: ProviderUrls) -> str | None:
    match target.provider:
        case Provider.OPENAI_COMPATIBLE:
            return target.base_url
        case Provider.OPENAI:
            return places.openai
        case Provider.BASETEN_MODEL_API:
            return places.baseten_model_api
        case Provider.BASETEN:
            environment = target.environment_name or _DEFAULT_ENVIRONMENT
            with_model = places.baseten.replace("{model_id}", target.model_id or "")
            return with_model.replace("{environment_name}", environment)
        case _:
            return None
