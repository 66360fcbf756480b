"""Reads streams whose events have names and whose last one is named, not `[DONE]`: Responses and Messages.

The rules of `answers.StreamReader` hold: whole events leave at once, the last one is held until the usage event is
durable. The model's name stands inside a member of some events, and only it is changed.
"""

from abc import abstractmethod
from typing import Any

import msgspec
from msgspec import Raw

from proxy.dialects import answer_json, json_text, written
from proxy.dialects.answers import StreamReader

_LARGE = 64 * 1024


class NamedStreamReader(StreamReader):
    """Follows one stream of named events."""

    holder: bytes
    """The member that holds the model's name."""

    def __init__(self, slug: str) -> None:
        super().__init__(slug, keep_usage=True)

    @abstractmethod
    def _take_named(self, kind: str, answer: dict[str, Any]) -> None:
        """Take what an event of a `kind` says; the last one sets `done`."""

    def finish(self) -> None:
        """Take the end of the upstream's bytes; a last event without its blank line is completed."""
        had_done = self.done
        super().finish()
        if self.done and not had_done and not self.held.endswith((b"\n\n", b"\r\r", b"\r\n\r\n")):
            self.held += b"\n\n"

    def _read(self, event: bytes, data: bytes) -> bytes:
        answer = answer_json.read(data)
        if answer is not None and answer.get("choices") is answer_json.UNREAD:
            answer = _outer(data)
        if answer is None:
            self.content_bytes += written.unread_bytes(data)
            return event
        kind = answer.get("type")
        self._take_named(kind if isinstance(kind, str) else "", answer)
        if self.holder.decode() in answer:
            event = self._with_slug(event, data, answer_json.inner_model_spans(data, self.holder))
        if not self.done:
            return event
        self.held += event
        return b""


def _outer(data: bytes) -> dict[str, Any] | None:
    """Return the small members of an event that has too many parts to be made into values, and those of its members."""
    try:
        return {
            name: _small(value) if len(value) > _LARGE else json_text.loads(value)
            for name, raw in msgspec.json.decode(data, type=dict[str, Raw]).items()
            if (value := bytes(raw))
        }
    except (ValueError, RecursionError, json_text.UnreadableTextError):
        return None


def _small(value: bytes) -> dict[str, Any]:
    if not value.startswith(b"{"):
        return {}
    members = msgspec.json.decode(value, type=dict[str, Raw])
    return {name: json_text.loads(bytes(raw)) for name, raw in members.items() if len(bytes(raw)) <= _LARGE}
