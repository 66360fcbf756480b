"""What clients ask, upstreams answer and both are counted as, in the tests of the flow."""

import json
from typing import Any

from schemas.usage import Outcome, Tokens, UsageSource

ASKED = b'{"model":"lab/model","messages":[{"role":"user","content":"Say hi"}]}'
STREAMED = ASKED[:-1] + b',"stream":true}'
NO_USAGE = b'{"model":"their-model","choices":[{"message":{"content":"hello world"}}]}'
PLAIN = NO_USAGE[:-1] + b',"usage":{"prompt_tokens":5,"completion_tokens":2}}'
HELLO = b'data: {"model":"their-model","choices":[{"delta":{"content":"hello world"}}]}\n\n'
HELLO_SENT = HELLO.replace(b"their-model", b"lab/model")
USAGE = b'data: {"model":"their-model","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"
COUNTED = Tokens(input_tokens=5, output_tokens=2)
INPUT = INPUT_STREAMED = 6
"""Tokens of "Say hi", by four bytes each, and four for the message."""
RESERVED = -(-len(ASKED) // 4)
"""Tokens that the prompt reserves: by four bytes of the whole body each."""
MEAN = 512
"""What an answer of a slug is expected to have that has answered nothing yet."""

PROVIDER, ESTIMATED = UsageSource.PROVIDER, UsageSource.ESTIMATED
COMPLETE, UPSTREAM_ERROR = Outcome.COMPLETE, Outcome.UPSTREAM_ERROR
ELEVEN_BYTES = 3  # tokens of "hello world", by four bytes each
SEEN = (ESTIMATED, Tokens(input_tokens=INPUT_STREAMED, output_tokens=ELEVEN_BYTES))


def nothing_known(body_tokens: int) -> tuple[UsageSource, Tokens]:
    return ESTIMATED, Tokens(input_tokens=body_tokens, output_tokens=MEAN)


def error_of(body: bytes) -> dict[str, Any]:
    return dict(json.loads(body)["error"])


def event_error(stream: bytes) -> dict[str, Any]:
    """Return the error of a stream that ends with one."""
    last = stream.removesuffix(b"\n\n").split(b"\n\n")[-1]
    return error_of(last.removeprefix(b"data: "))
