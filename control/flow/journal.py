"""The audit log, as every flow of control writes it.

Never part of a decision: what is noted has been decided, in the same transaction.
"""

from typing import Protocol

from control.core.records import Shown


class Journal(Protocol):
    """Notes changes on behalf of one actor."""

    def note(
        self, workspace_id: str, action: str, subject: str, *, before: Shown | None = None, after: Shown | None = None
    ) -> None:
        """Note what was done to whom; `subject` is a thing's id, or its prefix for a key. Never give it a secret."""
