"""`POST /v1/responses`: OpenAI's Responses API (https://platform.openai.com/docs/api-reference/responses).

Nothing is stored here, so what would answer later than its request is refused. Streams are named events: those that
hold the `response` object name the model, and the last one (`response.completed`, `incomplete` or `failed`) the counts.
"""

from typing import Any

import msgspec
from msgspec.structs import replace

from proxy.dialects import answers, chat, media, prompts, usage, written
from proxy.dialects.answers import Plain
from proxy.dialects.chat import ChatRequest, Invalid
from proxy.dialects.media import Costs
from proxy.dialects.named_events import NamedStreamReader
from proxy.dialects.routes.api import OPENAI_SPEAKERS, ApiRoute
from schemas.usage import RouteName

_LAST = frozenset(("response.completed", "response.incomplete", "response.failed"))
_DELTAS = frozenset(
    f"response.{name}.delta"
    for name in (
        "output_text",
        "refusal",
        "function_call_arguments",
        "custom_tool_call_input",
        "mcp_call_arguments",
        "code_interpreter_call_code",
        "reasoning_text",
        "reasoning_summary_text",
        "audio.transcript",
    )
)
"""Events whose `delta` the model wrote."""
_WRITTEN = ("content", "summary", "name", "arguments", "input", "code")
"""Members of an output item that the model wrote."""


_FURTHER = frozenset(("max_output_tokens", "background"))


def parse(body: bytes) -> ChatRequest | Invalid:
    """Read a body."""
    asked = chat.parse(body, further=_FURTHER)
    if isinstance(asked, Invalid):
        return asked
    background = asked.further.get("background")
    if background is not None and bytes(background) not in (b"null", b"false"):
        return Invalid(
            "Field background must be false: nothing is stored here, so no answer can come later.", "background"
        )
    return replace(asked, choices=1, max_tokens=chat.count(asked.further.get("max_output_tokens")))


def upstream_body(request: ChatRequest, target_model: str | None, *, stored_metadata_only: bool = False) -> bytes:
    """Return the bytes for the upstream; usage is always in a stream, and `stream_options` means something else."""
    untouched = replace(request, stream=False)
    return chat.upstream_body(untouched, target_model, stored_metadata_only=stored_metadata_only)


def plain(body: bytes, slug: str) -> Plain:
    """Read a whole answer."""
    return answers.plain(body, slug, wrote=lambda answer: _output_bytes(answer.get("output")))


class ResponseStream(NamedStreamReader):
    """Follows one stream."""

    holder = b"response"

    def __init__(self, slug: str) -> None:
        super().__init__(slug)
        self._sequence = -1

    def error_event(self, status: int, error: bytes) -> bytes:
        """Return the `error` event of this API."""
        told = msgspec.json.decode(error)["error"]
        event = {
            "type": "error",
            "code": told["code"],
            "message": told["message"],
            "param": None,
            "sequence_number": self._sequence + 1,
        }
        return b"event: error\ndata: " + msgspec.json.encode(event) + b"\n\n"

    def _take_named(self, kind: str, answer: dict[str, Any]) -> None:
        sequence = answer.get("sequence_number")
        self._sequence = sequence if isinstance(sequence, int) else self._sequence + 1
        if kind in _DELTAS:
            self.content_bytes += written.text_bytes(answer.get("delta"))
        elif kind == "response.output_item.added":
            item = answer.get("item")
            self.content_bytes += written.text_bytes(item.get("name")) if isinstance(item, dict) else 0
        elif kind == "error":
            self.failed = True
        elif kind in _LAST:
            self._end(kind, answer.get("response"))

    def _end(self, kind: str, response: Any) -> None:
        tokens = usage.reported(response) if isinstance(response, dict) else None
        self.tokens = tokens if tokens is not None and usage.is_counted(tokens) else self.tokens
        self.failed = self.failed or kind == "response.failed"
        self.done = True


def _output_bytes(output: Any) -> int:
    return sum(_item_bytes(item) for item in output if isinstance(item, dict)) if isinstance(output, list) else 0


def _item_bytes(item: dict[str, Any]) -> int:
    return sum(written.text_bytes(item.get(name)) for name in _WRITTEN)


def prompt_tokens(body: bytes, *, otherwise: int, costs: Costs = media.USUAL) -> int:
    """Return the tokens of the instructions, the input, the tools and the schema of the answer, at least 1."""
    asked = prompts.members(body)
    if asked is None:
        return otherwise
    size = written.text_bytes(asked.get("instructions")) + prompts.json_bytes(asked.get("tools"))
    form = asked.get("text")
    wanted = form.get("format") if isinstance(form, dict) else None
    size += prompts.json_bytes(wanted.get("schema")) if isinstance(wanted, dict) else 0
    given = asked.get("input")
    items = given if isinstance(given, list) else [{"content": given}]
    tokens = 0
    for item in items:
        if isinstance(item, dict):
            size += _item_bytes(item) + written.text_bytes(item.get("output"))
            tokens += prompts.MESSAGE_TOKENS + prompts.media_tokens(item.get("content"), costs)
    return prompts.in_all(size, tokens)


ROUTE = ApiRoute(
    name=RouteName.RESPONSES,
    upstream_path="/responses",
    providers=OPENAI_SPEAKERS,
    parse=parse,
    upstream_body=upstream_body,
    stream=lambda _, slug: ResponseStream(slug),
    plain=plain,
    prompt_tokens=prompt_tokens,
)
