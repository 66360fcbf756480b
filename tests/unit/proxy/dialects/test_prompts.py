"""What a prompt is billed as where nobody counted it: its text and its media, not its syntax."""

import base64
import json
from typing import Any

import pytest

from proxy.dialects import media, prompts

MEGABYTE = base64.b64encode(bytes(3 * 2**20)).decode()


def tokens(messages: list[Any], **more: Any) -> int:
    return prompts.prompt_tokens(json.dumps({"model": "lab/model", "messages": messages} | more).encode(), otherwise=-1)


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


@pytest.mark.parametrize(
    ("messages", "billed"),
    [
        ([{"role": "user", "content": "Hi"}], 1 + 4),
        ([{"role": "system", "content": "x" * 40}, {"role": "user", "content": "Hi"}], 11 + 8),
        ([{"role": "user", "content": "ü" * 40}], 20 + 4),
        (user({"type": "text", "text": "Hi"}), 1 + 4),
        (
            [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]}],
            6,
        ),
        ([{"role": "tool", "tool_call_id": "call_" + "1" * 400, "content": "sunny"}], 2 + 4),
        (user({"type": "input_audio", "input_audio": {"data": MEGABYTE, "format": "wav"}}), 4 + 1500),
        (user({"type": "file", "file": {"file_data": "data:application/pdf;base64," + MEGABYTE}}), 4 + 1500),
        (user({"type": "file", "file": {"file_id": "file-1"}}, {"type": "text", "text": "Read"}), 1 + 4 + 1500),
        (user({"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}}), 4 + 1500),
        (user({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}), 4 + 1100),
        (user({"type": "image_url", "image_url": "https://example.org/a.png"}), 4 + 1100),
        ([], 1),
        (["odd", {"content": 5}], 4),
    ],
)
def test_messages(messages: list[Any], billed: int) -> None:
    assert tokens(messages) == billed


def test_what_media_cost_is_a_setting() -> None:
    asked = user({"image_url": {"url": "https://example.org"}}, {"input_audio": {}}, {"input_audio": {}})
    body = json.dumps({"messages": asked}).encode()
    assert prompts.prompt_tokens(body, otherwise=-1, costs=media.Costs(image=10, other=100)) == 4 + 10 + 200


def test_tools_and_the_schema_of_the_answer_are_text_too() -> None:
    asked = [{"role": "user", "content": "Hi"}]
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    compact = json.dumps([tool], separators=(",", ":"))
    assert tokens(asked, tools=[tool]) == -(-(2 + len(compact)) // 4) + 4
    schema = {"name": "answer", "schema": {"type": "object"}}
    compact = json.dumps(schema, separators=(",", ":"))
    assert (
        tokens(asked, response_format={"type": "json_schema", "json_schema": schema}) == -(-(2 + len(compact)) // 4) + 4
    )
    assert tokens(asked, response_format={"type": "json_object"}) == tokens(asked, tools=None) == 5


def test_a_body_that_is_too_much_to_look_into_is_billed_otherwise() -> None:
    crowded = b'{"messages":[' + b"{}," * 200_000 + b"{}]}"
    assert prompts.prompt_tokens(crowded, otherwise=7) == 7
    part = b'{"type":"image_url","image_url":{"url":""}},{"type":"file","file" :{}},'
    hidden = crowded.replace(b"{},", part, 3)
    assert prompts.prompt_tokens(hidden, otherwise=7, costs=media.Costs(image=1000, other=20_000)) == 7 + 3 * 21_000
    assert prompts.prompt_tokens(b'{"messages":' + b"[" * 5000 + b"]" * 5000 + b"}", otherwise=7) == 7
    assert prompts.prompt_tokens(b'{"messages":[{"content":"\\ud83d"}]}', otherwise=7) == 1 + 4


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big")


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + width.to_bytes(2, "little") + height.to_bytes(2, "little")


def jpeg(width: int, height: int) -> bytes:
    comment = b"\xff\xfe" + (30_002).to_bytes(2, "big") + bytes(30_000)
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return b"\xff\xd8" + comment + b"\xff\xff\xc2\x00\x11\x08" + size + bytes(10)


def webp(width: int, height: int) -> bytes:
    less = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + less


def webp_lossless(width: int, height: int) -> bytes:
    return b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + (width - 1 | (height - 1) << 14).to_bytes(4, "little")


def webp_lossy(width: int, height: int) -> bytes:
    return (
        b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a" + width.to_bytes(2, "little") + height.to_bytes(2, "little")
    )


@pytest.mark.parametrize("make", [png, gif, jpeg, webp, webp_lossless, webp_lossy])
@pytest.mark.parametrize(
    ("width", "height", "billed"), [(1000, 750, 1000), (1001, 750, 1001), (16, 16, 85), (4000, 3000, 1600)]
)
def test_a_picture_counts_by_the_size_in_its_own_bytes(make: Any, width: int, height: int, billed: int) -> None:
    url = f"data:image/x;base64,{base64.b64encode(make(width, height)).decode()}"
    assert media.image_tokens(url) == billed


@pytest.mark.parametrize(
    "head", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a\1", b"\xff\xd8", b"\xff\xd8\xff\xfe\0\x02", b"RIFF1234WEBPVP9 ", b"BM"]
)
def test_a_picture_without_a_size_counts_as_any_other(head: bytes) -> None:
    assert media.image_tokens(f"data:image/x;base64,{base64.b64encode(head).decode()}") == 1100
    assert media.image_tokens("data:image/x;base64,!!!") == media.image_tokens("data:image/svg+xml,<svg/>") == 1100


@pytest.mark.parametrize("make", [png, gif, jpeg, webp, webp_lossless, webp_lossy])
def test_no_cut_of_a_picture_makes_an_exception(make: Any) -> None:
    whole = make(800, 600)
    for at in range(0, len(whole), max(1, len(whole) // 200)):
        tokens_ = media.image_tokens(f"data:image/x;base64,{base64.b64encode(whole[:at]).decode()}")
        assert tokens_ in (640, 1100)
