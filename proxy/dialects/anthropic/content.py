"""Translates the parts of a message's content into blocks: text, pictures, documents.

A part without a counterpart is refused by its place; a text of only blanks is left out, for the API refuses it.
"""

import base64
import binascii
from typing import Any
from urllib.parse import unquote_to_bytes

from proxy.dialects.anthropic import fields

Block = dict[str, Any]

_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_PDF = "application/pdf"
_PDF_BASE64 = "JVBERi0"
"""The base64 of ``%PDF-``, with which each PDF begins (ISO 32000-1 7.5.2)."""
_TEXTS = ("application/json", "application/xml")


def blocks(content: Any, param: str) -> list[Block]:
    """Return the blocks of a user's or a tool's content, which is a string or a list of parts. Raise RefusedError."""
    if isinstance(content, str):
        return [] if fields.is_blank(content) else [{"type": "text", "text": content}]
    found: list[Block] = []
    for number, part in enumerate(fields.sequence(content, param)):
        found += _part(fields.mapping(part, f"{param}[{number}]"), f"{param}[{number}]")
    return found


def texts(content: Any, param: str, kinds: tuple[str, ...] = ("text",)) -> list[Block]:
    """Return one text block for each text part, its `cache_control` kept. Raise RefusedError for any other part."""
    if isinstance(content, list):
        for number, part in enumerate(content):
            kind = fields.mapping(part, f"{param}[{number}]").get("type")
            if kind not in kinds:
                fields.refuse(f"{param}[{number}].type", f"must be {' or '.join(kinds)}")
    return blocks(content, param)


def _part(part: dict[str, Any], param: str) -> list[Block]:
    kind = part.get("type")
    if kind in ("text", "refusal"):
        fields.only(part, ("type", kind, "cache_control", "annotations", "prompt_cache_breakpoint"), param)
        text = fields.text(part.get(kind), f"{param}.{kind}")
        block: list[Block] = [] if fields.is_blank(text) else [{"type": "text", "text": text}]
    elif kind == "image_url":
        fields.only(part, ("type", "image_url", "cache_control", "prompt_cache_breakpoint"), param)
        block = [_image(part.get("image_url"), f"{param}.image_url")]
    elif kind == "file":
        fields.only(part, ("type", "file", "cache_control", "prompt_cache_breakpoint"), param)
        block = [_document(part.get("file"), f"{param}.file")]
    else:
        fields.refuse(f"{param}.type", "must be text, image_url or file for this model's provider")
    if block and part.get("cache_control") is not None:
        block[0]["cache_control"] = fields.mapping(part["cache_control"], f"{param}.cache_control")
    return block


def _image(value: Any, param: str) -> Block:
    image = fields.mapping(value, param)
    fields.only(image, ("url", "detail"), param)
    url = fields.text(image.get("url"), f"{param}.url")
    if url.lower().startswith(("https://", "http://")):
        return {"type": "image", "source": {"type": "url", "url": url}}
    media_type, data = _data_url(url, f"{param}.url")
    media_type = "image/jpeg" if media_type == "image/jpg" else media_type
    if media_type not in _IMAGES:
        fields.refuse(f"{param}.url", f"must hold one of {', '.join(_IMAGES)}")
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def _document(value: Any, param: str) -> Block:
    file = fields.mapping(value, param)
    fields.only(file, ("file_data", "filename"), param)
    name = fields.text(file.get("filename") or "", f"{param}.filename")
    sent = fields.text(file.get("file_data"), f"{param}.file_data")
    if sent.startswith(_PDF_BASE64):
        media_type, data = _PDF, sent
    else:
        media_type, data = _data_url(sent, f"{param}.file_data")
    block: Block = {"type": "document", "source": _source(media_type, data, f"{param}.file_data")}
    return block | ({"title": name} if name else {})


def _source(media_type: str, data: str, param: str) -> Block:
    if media_type == _PDF:
        return {"type": "base64", "media_type": _PDF, "data": data}
    if not media_type.startswith("text/") and media_type not in _TEXTS:
        fields.refuse(param, "must hold a PDF or a text")
    try:
        text = base64.b64decode(data).decode()
    except ValueError:
        fields.refuse(param, "must hold base64 of a text in UTF-8")
    return {"type": "text", "media_type": "text/plain", "data": text}


def _data_url(url: str, param: str) -> tuple[str, str]:
    """Return the media type of a ``data:`` URL (RFC 2397), in lower case, and its content as base64."""
    head, comma, data = url.partition(",")
    if not comma or head[:5].lower() != "data:":
        fields.refuse(param, "must be a data: URL, or for an image an http(s) one")
    media_type, *options = [option.strip().lower() for option in head[5:].split(";")]
    if "base64" in options:
        return media_type, unquote_to_bytes(data).decode("ascii", "replace") if "%" in data else data
    try:
        return media_type or "text/plain", binascii.b2a_base64(unquote_to_bytes(data), newline=False).decode()
    except UnicodeEncodeError:  # half of a surrogate pair
        fields.refuse(param, "must be a data: URL")
