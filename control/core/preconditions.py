"""Entity tags, and whether what a caller read is still what there is (RFC 9110 8.8.3, 13.1.1)."""

import hashlib
import json

from pydantic import BaseModel

from control.core.refusals import PreconditionError

_DERIVED = {"effective_models", "last_used_at"}
"""What a body shows beside the thing's own record."""


def entity_tag(body: BaseModel) -> str:
    """Return the strong entity tag of what a body shows of a thing's own record."""
    own = body.model_dump(mode="json", exclude_unset=True, exclude=_DERIVED)
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
    return f'"{digest[:32]}"'


def check(if_match: str | None, body: BaseModel) -> None:
    """Raise PreconditionError where an `If-Match` header names neither `*` nor the tag of what there is now."""
    if if_match is None:
        return
    named = [tag.strip() for tag in if_match.split(",")]
    if "*" not in named and entity_tag(body) not in named:
        message = "If-Match: it was changed since this ETag was read; read it again"
        raise PreconditionError(message, param="If-Match", code="precondition_failed")
