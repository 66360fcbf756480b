"""Says how many tokens a prompt is billed as where its server did not count it.

Counted is the text that a model gets: messages, tools and the schema of the answer, at 4 bytes of UTF-8 a token, and 4
tokens a message for what surrounds it. JSON's own syntax is not. A picture counts by its size, other media flat.
"""

import re
from typing import Any

import msgspec

from proxy.dialects import json_text, media, written
from proxy.dialects.media import Costs
from proxy.limits.estimate import BYTES_PER_TOKEN
from schemas.usage import MOST_TOKENS

MESSAGE_TOKENS = 4
"""For a message's role and its bounds (https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken)."""

_OTHER_MEDIA = ("input_audio", "audio_url", "video_url", "file", "input_file", "document")
_FILES = ("input_file", "document")
"""Types of parts whose members tell nothing of them."""


_IMAGE = re.compile(rb'"image_url"[ \t\r\n]*+:')
_OTHER = re.compile(rb'"(?:%s)"[ \t\r\n]*+:' % "|".join(_OTHER_MEDIA).encode())


def prompt_tokens(body: bytes, *, otherwise: int, costs: Costs = media.USUAL) -> int:
    """Return the tokens of a chat completion's prompt, at least 1.

    `otherwise` stands for the text of a body with too many parts, or nested too deeply, to be looked into; its media
    are counted by their members' names, each flat.
    """
    try:
        asked = json_text.loads(body)
    except json_text.UnreadableTextError:
        images = len(_IMAGE.findall(body))
        others = len(_OTHER.findall(body))
        return min(otherwise + images * costs.image + others * costs.other, MOST_TOKENS)
    if not isinstance(asked, dict):
        return otherwise
    size = tokens = 0
    messages = asked.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            size += written.message_bytes(message)
            tokens += MESSAGE_TOKENS + media_tokens(message.get("content"), costs)
    size += sum(json_bytes(asked.get(name)) for name in ("tools", "functions")) + json_bytes(_schema(asked))
    return in_all(size, tokens)


def members(body: bytes) -> dict[str, Any] | None:
    """Return the members of a body; None where it cannot be looked into, or is no object."""
    try:
        asked = json_text.loads(body)
    except json_text.UnreadableTextError:
        return None
    return asked if isinstance(asked, dict) else None


def in_all(text_bytes: int, tokens: int) -> int:
    """Return the tokens of so many bytes of text beside `tokens` of other kinds, at least 1."""
    return min(max(1, -(-text_bytes // BYTES_PER_TOKEN) + tokens), MOST_TOKENS)


def media_tokens(content: Any, costs: Costs) -> int:
    """Return the tokens of the media among the parts of a message."""
    return sum(_part_tokens(part, costs) for part in content) if isinstance(content, list) else 0


def _part_tokens(part: Any, costs: Costs) -> int:
    if not isinstance(part, dict):
        return 0
    if "image_url" in part:
        image = part["image_url"]
        url = image.get("url") if isinstance(image, dict) else image
        return media.image_tokens(url if isinstance(url, str) else "", costs)
    if part.get("type") in _FILES:
        return costs.other
    return costs.other if any(name in part for name in _OTHER_MEDIA) else 0


def _schema(asked: dict[str, Any]) -> Any:
    """Return what `response_format` tells the model; a bare `json_object` or `text` tells it nothing."""
    wanted = asked.get("response_format")
    return wanted.get("json_schema") if isinstance(wanted, dict) else None


def json_bytes(value: Any) -> int:
    """Return the bytes of a value as compact JSON, which is how a model gets it."""
    return len(msgspec.json.encode(value)) if value else 0
