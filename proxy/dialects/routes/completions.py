"""`POST /v1/completions`: a text goes on (https://platform.openai.com/docs/api-reference/completions).

Streams, counts and the bound of the answer stand where chat completions have them.
"""

from msgspec.structs import replace

from proxy.dialects import chat
from proxy.dialects.chat import ChatRequest, Invalid
from proxy.dialects.routes import texts
from proxy.dialects.routes.api import OPENAI_SPEAKERS, ApiRoute
from schemas.usage import RouteName

_FURTHER = frozenset(("prompt", "best_of"))


def parse(body: bytes) -> ChatRequest | Invalid:
    """Read a body. Each of the prompts has `n` choices, and all of `best_of` are billed."""
    asked = chat.parse(body, further=_FURTHER)
    if isinstance(asked, Invalid):
        return asked
    prompt = asked.further.get("prompt", texts.NONE)
    each = max(asked.choices, chat.count(asked.further.get("best_of")) or 1)
    return replace(asked, choices=each * texts.prompt_count(prompt), token_ids=texts.token_ids(prompt))


ROUTE = ApiRoute(
    name=RouteName.COMPLETIONS,
    upstream_path="/completions",
    providers=OPENAI_SPEAKERS,
    parse=parse,
    prompt_tokens=texts.prompt_tokens,
)
