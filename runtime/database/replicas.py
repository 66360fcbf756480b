"""What a replica's refusal to write means: after a failover it may stand where the primary was."""

from typing import Any

from sqlalchemy.engine import ExceptionContext

_READ_ONLY_STATE = "25006"
"""PostgreSQL's code for a write in a transaction that may only read, as all of a replica's are."""


def refuses(error: Any) -> bool:
    """Tell whether a driver's error is such a refusal."""
    return getattr(error, "sqlstate", None) == _READ_ONLY_STATE


def leave(context: ExceptionContext) -> None:
    """Have an engine drop its connections when one of them is refused: the next may find the new primary."""
    if refuses(context.original_exception):
        context.is_disconnect = True
