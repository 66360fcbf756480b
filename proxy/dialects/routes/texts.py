"""Reads what a model is given as texts or token ids: `prompt` of completions, `input` of embeddings."""

from typing import Any

import msgspec
from msgspec import Raw

from proxy.dialects import json_text, media
from proxy.dialects.media import Costs
from proxy.limits.estimate import BYTES_PER_TOKEN
from schemas.usage import MOST_TOKENS

NONE = Raw()
"""Stands for a prompt that is not there."""

_BLANK = b" \t\r\n"


def token_ids(given: Raw) -> int:
    """Return how many token ids are given, in one list or a list of lists; 0 where it is text."""
    text = bytes(given)
    first = text.lstrip(b"[" + _BLANK)[:1]
    return text.count(b",") + 1 if text.startswith(b"[") and first.isdigit() else 0


def prompt_count(given: Raw) -> int:
    """Return how many prompts are given: 1 for a text or a list of ids."""
    text = bytes(given)
    if not text.startswith(b"["):
        return 1
    if token_ids(given):
        return max(1, text.count(b"[") - 1)
    return max(1, len(msgspec.json.decode(text, type=list[Raw])))


def prompt_tokens(body: bytes, *, otherwise: int, costs: Costs = media.USUAL) -> int:  # noqa: ARG001 - it has no media
    """Return the tokens of the prompts, at least 1: of text its UTF-8 bytes / 4, of ids their number."""
    try:
        asked = json_text.loads(body)
    except json_text.UnreadableTextError:
        return otherwise
    given = asked.get("prompt", asked.get("input")) if isinstance(asked, dict) else None
    return min(max(1, _tokens(given)), MOST_TOKENS)


def text_bytes(given: Raw) -> int:
    """Return the UTF-8 bytes of the texts that are given; of token ids, about as many as they stand for."""
    try:
        texts = json_text.loads(bytes(given))
    except json_text.UnreadableTextError:
        return 0
    return _bytes(texts)


def _bytes(given: Any) -> int:
    if isinstance(given, str):
        return len(given.encode("utf-8", "replace"))
    if isinstance(given, list):
        return sum(map(_bytes, given))
    return BYTES_PER_TOKEN if isinstance(given, int) else 0


def _tokens(given: Any) -> int:
    if isinstance(given, str):
        return -(-_bytes(given) // BYTES_PER_TOKEN)
    if isinstance(given, list):
        return sum(map(_tokens, given))
    return 1 if isinstance(given, int) else 0
