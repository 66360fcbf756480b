"""What the flow must know of a route of the inference API, so that one story serves all (contract 3.3).

A route is a value of `ApiRoute` in a module of its own; `table` names them all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from proxy.dialects import answers, chat, prompts
from proxy.dialects.answers import Plain
from proxy.dialects.chat import ChatRequest, Invalid
from proxy.dialects.media import Costs
from proxy.limits.estimate import TokenCounts
from schemas.targets import Provider
from schemas.usage import RouteName

OPENAI_SPEAKERS = frozenset(Provider) - {Provider.ANTHROPIC}
"""Whose targets speak OpenAI's protocol."""


class Stream(Protocol):
    """A stream as it is read and passed on: `answers.StreamReader` says what each member means."""

    tokens: TokenCounts | None
    content_bytes: int
    done: bool
    failed: bool
    held: bytes

    @property
    def is_whole(self) -> bool:
        """Whether the answer came to its end, without an error."""

    @property
    def choices(self) -> int:
        """How many choices have come."""

    @property
    def held_bytes(self) -> int:
        """How much of an event is held that is not whole yet."""

    @property
    def is_counted(self) -> bool:
        """Whether the counts are those of the whole answer."""

    def feed(self, chunk: bytes) -> bytes:
        """Take what arrived; return what may leave at once."""

    def finish(self) -> None:
        """Take the end of the upstream's bytes."""

    def error_event(self, status: int, error: bytes) -> bytes | None:
        """Return what tells the client of an error of the gateway's own, given in OpenAI's shape; None: nothing can."""


class UpstreamBody(Protocol):
    """`chat.upstream_body` is one."""

    def __call__(self, request: ChatRequest, target_model: str | None, *, stored_metadata_only: bool = False) -> bytes:
        """Return the bytes for the upstream."""


class PromptTokens(Protocol):
    """`prompts.prompt_tokens` is one."""

    def __call__(self, body: bytes, *, otherwise: int, costs: Costs) -> int:
        """Return the tokens of a prompt, at least 1; `otherwise` where the body cannot be looked into."""


def _chat_stream(request: ChatRequest, slug: str) -> Stream:
    return answers.StreamReader(slug, keep_usage=request.include_usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRoute:
    """How one route's requests and answers are read; what is not said is as in chat completions."""

    name: RouteName
    upstream_path: str
    """Behind the target's base URL."""
    providers: frozenset[Provider]
    """Whose targets serve it; of others the slug is not found."""
    parse: Callable[[bytes], ChatRequest | Invalid] = chat.parse
    upstream_body: UpstreamBody = chat.upstream_body
    stream: Callable[[ChatRequest, str], Stream] = _chat_stream
    """Returns the reader of a stream, from the request and its slug."""
    plain: Callable[[bytes, str], Plain] = answers.plain
    """Reads a whole answer; takes the slug too."""
    prompt_tokens: PromptTokens = prompts.prompt_tokens
    has_output: bool = True
    """Whether a model writes anything."""
    is_opaque: bool = False
    """Whether bodies and answers are nobody's business here: they pass unchanged, and nothing is estimated."""
    token_limits_bind: bool = True
    """Whether an answer can tell of tokens at all."""
