"""`POST /v1/completions`: a text goes on (https://platform.openai.com/docs/api-reference/completions).

Streams, counts and the bound of the answer stand where chat completions have them.
"""

from msgspec import Raw
from msgspec.structs import replace

from proxy.dialects import answers, chat
from proxy.dialects.chat import ChatRequest, Invalid
from proxy.dialects.routes import texts
from proxy.dialects.routes.api import OPENAI_SPEAKERS, ApiRoute, Stream
from schemas.usage import RouteName

_FURTHER = frozenset(("prompt", "best_of", "echo"))
_TRUE = Raw(b"true")


def parse(body: bytes) -> ChatRequest | Invalid:
    """Read a body. Each of the prompts has `n` choices, which repeat it where `echo` says so; `best_of` are billed."""
    asked = chat.parse(body, further=_FURTHER)
    if isinstance(asked, Invalid):
        return asked
    prompt = asked.further.get("prompt", texts.NONE)
    each = max(asked.choices, chat.count(asked.further.get("best_of")) or 1)
    echoed = texts.text_bytes(prompt) * asked.choices if asked.further.get("echo") == _TRUE else 0
    ids = texts.token_ids(prompt)
    return replace(asked, choices=each * texts.prompt_count(prompt), token_ids=ids, echoed_bytes=echoed)


def stream(request: ChatRequest, slug: str) -> Stream:
    """Return a reader of a stream; a prompt that is repeated in it counts for nothing."""
    reader = answers.StreamReader(slug, keep_usage=request.include_usage)
    reader.content_bytes -= request.echoed_bytes
    return reader


ROUTE = ApiRoute(
    name=RouteName.COMPLETIONS,
    upstream_path="/completions",
    providers=OPENAI_SPEAKERS,
    parse=parse,
    stream=stream,
    prompt_tokens=texts.prompt_tokens,
)
