"""A POST that is sent again under its `Idempotency-Key`: it gets the answer that it had (contract 2)."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from pydantic import BaseModel

from control.core.records import KeptAnswer
from control.core.refusals import ConflictError, InvalidError
from control.unit_of_work import UnitOfWork
from runtime.vault import Vault

LONGEST = 255

Body = TypeVar("Body", bound=BaseModel)


class Repeatable(NamedTuple):
    """One POST under a key of its client's choice."""

    name: str
    """Known to nobody who has no master key; differs by management key, method and path."""
    body_sha256: str


def read(vault: Vault, header: str, actor: str, call: str, body: bytes) -> Repeatable:
    """Return what an `Idempotency-Key` header names; `call` is method and path. Raise InvalidError."""
    if not 1 <= len(header) <= LONGEST or not header.isascii() or not header.isprintable():
        raise InvalidError(
            f"Idempotency-Key: 1 to {LONGEST} printable ASCII characters are allowed", param="Idempotency-Key"
        )
    name = vault.digest(f"{actor}\n{call}\n{header}", context="idempotency")
    return Repeatable(name, hashlib.sha256(body).hexdigest())


def once(
    unit: UnitOfWork, vault: Vault, call: Repeatable, answer: type[Body], work: Callable[[UnitOfWork], Body]
) -> Body:
    """Return the answer that is kept for the call; where none is, do the work and keep its answer, sealed.

    Raise ConflictError where the key was used with another body.
    """
    context = f"answer:{unit.workspace_id}:{call.name}"
    kept = unit.answers.find(call.name, unit.now)
    if kept is not None:
        if kept.body_sha256 != call.body_sha256:
            raise ConflictError(
                "Idempotency-Key: it was used with another body within 24 h; take a new one",
                param="Idempotency-Key",
                code="idempotency_key_reused",
            )
        return answer.model_validate_json(vault.open(kept.sealed, context))
    made = work(unit)
    sealed = vault.seal(made.model_dump_json(exclude_unset=True), context)
    unit.answers.keep(KeptAnswer(call.name, unit.workspace_id, call.body_sha256, sealed), unit.now)
    return made
