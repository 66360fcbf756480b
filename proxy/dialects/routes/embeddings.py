"""`POST /v1/embeddings`: texts become vectors (https://platform.openai.com/docs/api-reference/embeddings).

No model writes anything, so only the input counts, and nothing is streamed. The vectors pass byte for byte, as numbers
or as base64.
"""

from msgspec.structs import replace

from proxy.dialects import answers, chat
from proxy.dialects.answers import Plain
from proxy.dialects.chat import ChatRequest, Invalid
from proxy.dialects.routes import texts
from proxy.dialects.routes.api import OPENAI_SPEAKERS, ApiRoute
from schemas.targets import Provider
from schemas.usage import RouteName

_FURTHER = frozenset(("input",))


def parse(body: bytes) -> ChatRequest | Invalid:
    """Read a body; what it says of streams is the upstream's business."""
    asked = chat.parse(body, further=_FURTHER)
    if isinstance(asked, Invalid):
        return asked
    ids = texts.token_ids(asked.further.get("input", texts.NONE))
    return replace(asked, stream=False, stream_options=None, choices=1, max_tokens=None, token_ids=ids)


def plain(body: bytes, slug: str) -> Plain:
    """Read an answer: whatever is in it, nothing was written."""
    return replace(answers.plain(body, slug, wrote=lambda _: 0), content_bytes=0)


ROUTE = ApiRoute(
    name=RouteName.EMBEDDINGS,
    upstream_path="/embeddings",
    providers=OPENAI_SPEAKERS - {Provider.VERTEX},
    parse=parse,
    plain=plain,
    prompt_tokens=texts.prompt_tokens,
    has_output=False,
)
