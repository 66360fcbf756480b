"""`POST /v1/messages`: Anthropic's Messages API, passed through (https://platform.claude.com/docs/en/api/messages).

Only the model's name is changed, in both directions. `metadata` goes on whatever it holds, and is the event's where it
is made of strings. Counts are those of `dialects.anthropic.usage`: of a stream's events each is taken field by field.
"""

from typing import Any

import msgspec
from msgspec.structs import replace

from proxy.dialects import answers, chat, media, prompts, usage, written
from proxy.dialects.answers import Plain
from proxy.dialects.anthropic import usage as anthropic_usage
from proxy.dialects.chat import ChatRequest, Invalid
from proxy.dialects.media import Costs
from proxy.dialects.named_events import NamedStreamReader
from proxy.dialects.routes.api import ApiRoute
from proxy.limits.estimate import TokenCounts
from schemas.targets import Provider
from schemas.usage import RouteName

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}
"""https://platform.claude.com/docs/en/api/errors; any other status is an `api_error`."""
_DELTAS = ("text", "thinking", "partial_json")
_DEEPEST = 4


def parse(body: bytes) -> ChatRequest | Invalid:
    """Read a body; one without `max_tokens` is the provider's to refuse."""
    asked = chat.parse(body, any_metadata=True)
    return asked if isinstance(asked, Invalid) else replace(asked, choices=1)


def upstream_body(request: ChatRequest, target_model: str | None, *, stored_metadata_only: bool = False) -> bytes:
    """Return the bytes for the upstream; a stream has its usage in any case."""
    return chat.upstream_body(replace(request, stream=False), target_model, stored_metadata_only=stored_metadata_only)


def error(status: int, told: bytes, request_id: str | None = None) -> bytes:
    """Return an error of the gateway's own, given in OpenAI's shape, in this API's; its `code` is kept."""
    known = msgspec.json.decode(told)["error"]
    inner = {"type": _KINDS.get(status, "api_error"), "message": known["message"], "code": known["code"]}
    shaped = {"type": "error", "error": {name: value for name, value in inner.items() if value is not None}}
    return msgspec.json.encode(shaped | ({"request_id": request_id} if request_id is not None else {}))


def plain(body: bytes, slug: str) -> Plain:
    """Read a whole answer."""
    return answers.plain(body, slug, counted=_counted, wrote=lambda answer: _blocks_bytes(answer.get("content")))


class MessageStream(NamedStreamReader):
    """Follows one stream."""

    holder = b"message"

    def __init__(self, slug: str) -> None:
        super().__init__(slug)
        self._usage: dict[str, Any] = {}

    def error_event(self, status: int, told: bytes) -> bytes:
        """Return the `error` event of this API, which its SDKs read only with its `event:` line."""
        return b"event: error\ndata: " + error(status, told) + b"\n\n"

    def _take_named(self, kind: str, answer: dict[str, Any]) -> None:
        match kind:
            case "message_start":
                message = answer.get("message")
                self._merge(message.get("usage") if isinstance(message, dict) else None)
            case "content_block_start":
                self.content_bytes += _block_bytes(answer.get("content_block"))
            case "content_block_delta":
                delta = answer.get("delta")
                if isinstance(delta, dict):
                    self.content_bytes += sum(written.text_bytes(delta.get(name)) for name in _DELTAS)
            case "message_delta":
                self._merge(answer.get("usage"))
                delta = answer.get("delta")
                self._counted = self._counted or bool(isinstance(delta, dict) and delta.get("stop_reason"))
            case "message_stop":
                self.done = True
            case "error":
                self.failed = True

    def _merge(self, news: Any) -> None:
        anthropic_usage.merge(self._usage, news)
        tokens = _counted({"usage": self._usage})
        self.tokens = tokens if tokens is not None and usage.is_counted(tokens) else self.tokens


def _counted(answer: dict[str, Any]) -> TokenCounts | None:
    told = answer.get("usage")
    return usage.counts(anthropic_usage.as_chat(told)) if isinstance(told, dict) else None


def _blocks_bytes(blocks: Any, depth: int = 0) -> int:
    """Return the UTF-8 bytes of a text, or of what is written in a list of blocks."""
    if isinstance(blocks, list) and depth <= _DEEPEST:
        return sum(_block_bytes(block, depth) for block in blocks)
    return written.text_bytes(blocks) if isinstance(blocks, str) else 0


def _block_bytes(block: Any, depth: int = 0) -> int:
    if not isinstance(block, dict):
        return 0
    size = sum(written.text_bytes(block.get(name)) for name in ("text", "thinking", "name"))
    return size + prompts.json_bytes(block.get("input")) + _blocks_bytes(block.get("content"), depth + 1)


def _media_tokens(blocks: Any, costs: Costs, depth: int = 0) -> int:
    tokens = 0
    for block in blocks if isinstance(blocks, list) and depth <= _DEEPEST else ():
        if not isinstance(block, dict):
            continue
        if block.get("type") == "image":
            source = block.get("source")
            data = source.get("data") if isinstance(source, dict) else None
            tokens += media.image_tokens(f"data:;base64,{data}" if isinstance(data, str) else "", costs)
        elif block.get("type") == "document":
            tokens += costs.other
        else:
            tokens += _media_tokens(block.get("content"), costs, depth + 1)
    return tokens


def prompt_tokens(body: bytes, *, otherwise: int, costs: Costs = media.USUAL) -> int:
    """Return the tokens of the system prompt, the messages and the tools, at least 1."""
    asked = prompts.members(body)
    if asked is None:
        return otherwise
    size = _blocks_bytes(asked.get("system")) + prompts.json_bytes(asked.get("tools"))
    tokens = 0
    messages = asked.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            size += _blocks_bytes(message.get("content"))
            tokens += prompts.MESSAGE_TOKENS + _media_tokens(message.get("content"), costs)
    return prompts.in_all(size, tokens)


ROUTE = ApiRoute(
    name=RouteName.MESSAGES,
    upstream_path="/v1/messages",
    providers=frozenset((Provider.ANTHROPIC,)),
    parse=parse,
    upstream_body=upstream_body,
    stream=lambda _, slug: MessageStream(slug),
    plain=plain,
    prompt_tokens=prompt_tokens,
)
