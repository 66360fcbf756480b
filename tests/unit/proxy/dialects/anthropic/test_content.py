"""What becomes of pictures and documents."""

import base64
from typing import Any

import pytest

from proxy.dialects.chat import Invalid
from tests.unit.proxy.dialects.anthropic.sdk import attempt, translated

PNG = "iVBORw0KGgo="
PDF = base64.b64encode(b"%PDF-1.7 and so on").decode()


def image(url: Any, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}, **more}


def file(**members: Any) -> dict[str, Any]:
    return {"type": "file", "file": members}


def block(part: dict[str, Any]) -> Any:
    return translated(messages=[{"role": "user", "content": [part]}])["messages"][0]["content"][0]


@pytest.mark.parametrize(
    ("url", "source"),
    [
        (f"data:image/png;base64,{PNG}", {"type": "base64", "media_type": "image/png", "data": PNG}),
        (f"data:image/jpg;base64,{PNG}", {"type": "base64", "media_type": "image/jpeg", "data": PNG}),
        (f"DATA:Image/GIF;BASE64,{PNG}", {"type": "base64", "media_type": "image/gif", "data": PNG}),
        ("data:image/webp,%00%01a", {"type": "base64", "media_type": "image/webp", "data": "AAFh"}),
        ("data:image/png;base64,AA%2BB", {"type": "base64", "media_type": "image/png", "data": "AA+B"}),
        ("https://example.com/a.png", {"type": "url", "url": "https://example.com/a.png"}),
        ("http://example.com/a.png", {"type": "url", "url": "http://example.com/a.png"}),
    ],
)
def test_pictures_row_30(url: str, source: dict[str, str]) -> None:
    assert block(image(url)) == {"type": "image", "source": source}


def test_a_pdf_is_a_document_row_31() -> None:
    source = {"type": "base64", "media_type": "application/pdf", "data": PDF}
    assert block(file(file_data=f"data:application/pdf;base64,{PDF}", filename="a.pdf")) == {
        "type": "document",
        "source": source,
        "title": "a.pdf",
    }
    assert block(file(file_data=PDF)) == {"type": "document", "source": source}


def test_a_text_is_a_document() -> None:
    sent = base64.b64encode("á, b".encode()).decode()
    source = {"type": "text", "media_type": "text/plain", "data": "á, b"}
    for media_type in ("text/plain", "text/csv;charset=utf-8", "application/json"):
        assert block(file(file_data=f"data:{media_type};base64,{sent}"))["source"] == source


def test_a_picture_in_a_result_stays_one_row_32() -> None:
    told = [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}],
        },
        {"role": "tool", "tool_call_id": "a", "name": "f", "content": [image(f"data:image/png;base64,{PNG}")]},
    ]
    (result,) = translated(messages=told)["messages"][2]["content"]
    assert [part["type"] for part in result["content"]] == ["image"]


def test_marks_for_the_cache_are_kept() -> None:
    marked = {"type": "ephemeral", "ttl": "1h"}
    assert block(image("https://example.com/a.png", cache_control=marked))["cache_control"] == marked


@pytest.mark.parametrize(
    ("part", "param"),
    [
        (image("ftp://example.com/a.png"), "image_url.url"),
        (image("data:image/png;base64"), "image_url.url"),
        (image("data:image/tiff;base64,AAAA"), "image_url.url"),
        (image(None), "image_url.url"),
        ({"type": "image_url", "image_url": "https://example.com/a.png"}, "image_url"),
        (file(file_id="file-1"), "file.file_id"),
        (file(), "file.file_data"),
        (file(file_data="data:application/zip;base64,AAAA"), "file.file_data"),
        (file(file_data="data:text/plain;base64,/w=="), "file.file_data"),
        (file(file_data="data:text/plain;base64,A"), "file.file_data"),
        (file(file_data="plain words"), "file.file_data"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_its_place(part: dict[str, Any], param: str) -> None:
    found = attempt(messages=[{"role": "user", "content": [part]}])
    assert isinstance(found, Invalid)
    assert found.param == f"messages[0].content[0].{param}"
