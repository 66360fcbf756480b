"""Which fields belong to a target of each provider (contract 2.1)."""

from dataclasses import dataclass

from control.core.refusals import InvalidError
from schemas.targets import Provider, Target

PATH = "targets[0]"


@dataclass(frozen=True, slots=True)
class _Fields:
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


_FIELDS = {
    Provider.BASETEN: _Fields(("model_id",), ("environment_name", "target_model", "secret_id")),
    Provider.BASETEN_MODEL_API: _Fields(("target_model",), ("secret_id",)),
    Provider.OPENAI: _Fields(("secret_id", "target_model")),
    Provider.ANTHROPIC: _Fields(("secret_id", "target_model")),
    Provider.OPENAI_COMPATIBLE: _Fields(("base_url", "target_model"), ("secret_id",)),
    Provider.VERTEX: _Fields(("vertex_config", "secret_id", "target_model")),
}


def checked(target: Target) -> Target:
    """Return a target as it is kept: only the fields that were set. Raise InvalidError."""
    given = target.model_dump(exclude_none=True)
    fields = _FIELDS[target.provider]
    for name in fields.required:
        if not given.get(name):
            raise InvalidError(f"{PATH}.{name}: required for {target.provider}", param=f"{PATH}.{name}")
    foreign = given.keys() - {"provider", *fields.required, *fields.optional}
    if foreign:
        name = min(foreign)
        own = ", ".join((*fields.required, *fields.optional))
        message = f"{PATH}.{name}: does not belong to {target.provider}, which takes {own}"
        raise InvalidError(message, param=f"{PATH}.{name}")
    if target.target_model is not None and not target.target_model.strip():
        raise InvalidError(f"{PATH}.target_model: must not be blank", param=f"{PATH}.target_model")
    return Target.model_validate(given)
