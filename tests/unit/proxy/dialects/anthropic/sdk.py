"""The vendors' SDKs, which judge what is translated: their types read it, and their clients read it off the wire."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import anthropic
import httpx2
import openai
from anthropic.types import Message
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from proxy.dialects import chat
from proxy.dialects.anthropic import request

_PARAMS = {
    False: TypeAdapter[Any](MessageCreateParamsNonStreaming),
    True: TypeAdapter[Any](MessageCreateParamsStreaming),
}
SAMPLING = ("temperature", "top_p", "top_k")
"""Of API version 2023-06-01; the SDK's types are of a later one, which has none of them."""
MAX_TOKENS = 16384


def translated(**members: Any) -> dict[str, Any]:
    """Return what a chat completion with these members becomes. The SDK's types know every member of it."""
    found = attempt(**members)
    assert not isinstance(found, chat.Invalid), found
    known = {name: value for name, value in found.items() if name not in SAMPLING}
    adapter = _PARAMS[bool(found.get("stream"))]
    assert read(adapter.validate_python(known)) == known
    return found


def attempt(**members: Any) -> dict[str, Any] | chat.Invalid:
    """Return what a chat completion with these members becomes, or why it cannot be."""
    body = json.dumps({"model": "claude", "messages": [{"role": "user", "content": "Hi"}]} | members).encode()
    assert not isinstance(chat.parse(body), chat.Invalid)
    found = request.translate(body, default_max_tokens=MAX_TOKENS)
    return found if isinstance(found, chat.Invalid) else json.loads(found)


def read(value: Any) -> Any:
    """Return what an SDK's type has read, as plain JSON; what it does not know is not in it."""
    if isinstance(value, Mapping):
        return {name: read(member) for name, member in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [read(member) for member in value]
    return value


def openai_client(body: bytes, kind: str, status: int = 200) -> openai.OpenAI:
    """Return a client whose server answers so."""
    answer = httpx2.Response(status, headers={"content-type": kind}, content=body)
    served = httpx2.Client(transport=httpx2.MockTransport(lambda _: answer))
    return openai.OpenAI(api_key="unused", base_url="http://gateway/v1", http_client=served, max_retries=0)


def anthropic_client(body: bytes, kind: str) -> anthropic.Anthropic:
    """Return a client whose server answers so."""
    answer = httpx2.Response(200, headers={"content-type": kind}, content=body)
    served = httpx2.Client(transport=httpx2.MockTransport(lambda _: answer))
    return anthropic.Anthropic(api_key="unused", base_url="http://vendor", http_client=served, max_retries=0)


def completion(body: bytes) -> ChatCompletion:
    """Return an answer as OpenAI's SDK reads it."""
    with openai_client(body, "application/json") as client:
        return client.chat.completions.create(model="x", messages=[])


def chunks(body: bytes) -> Iterator[ChatCompletionChunk]:
    """Return a stream as OpenAI's SDK reads it."""
    with openai_client(body, "text/event-stream") as client:
        yield from client.chat.completions.create(model="x", messages=[], stream=True)


def message(body: bytes) -> Message:
    """Return an answer as Anthropic's SDK reads it."""
    with anthropic_client(body, "application/json") as client:
        return client.messages.create(model="x", max_tokens=1, messages=[])


def streamed_message(body: bytes) -> Message:
    """Return what Anthropic's SDK gathers of a stream."""
    with (
        anthropic_client(body, "text/event-stream") as client,
        client.messages.stream(model="x", max_tokens=1, messages=[]) as stream,
    ):
        return stream.get_final_message()
