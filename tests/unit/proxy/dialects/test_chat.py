"""Reading a chat completion's body, and writing the one that goes upstream (contract 3)."""

import json
from typing import Any

import pytest

from proxy.dialects import chat
from proxy.dialects.chat import ChatRequest, Invalid

USAGE_ASKED = b'"stream_options":{"include_usage":true}'


def read(body: bytes) -> ChatRequest:
    read = chat.parse(body)
    assert isinstance(read, ChatRequest), read
    return read


def refused(body: bytes) -> Invalid:
    refused = chat.parse(body)
    assert isinstance(refused, Invalid), body
    return refused


@pytest.mark.parametrize(
    ("body", "upstream"),
    [
        (b'{"model":"a/b"}', b'{"model":"their"}'),
        (b' { "model" : "a/b" } ', b' { "model" : "their" } '),
        (
            b'{"n":1.0,"x":1e5,"big":123456789012345678901234567890,"model":"a/b","z":"\\u00e9\xc3\xa9"}',
            b'{"n":1.0,"x":1e5,"big":123456789012345678901234567890,"model":"their","z":"\\u00e9\xc3\xa9"}',
        ),
        (b'{"tools":[{"model":"x"}],"model":"a/b"}', b'{"tools":[{"model":"x"}],"model":"their"}'),
        (b'{"model":"model"}', b'{"model":"their"}'),
        (b'{"a":"model","model":"a/b"}', b'{"a":"model","model":"their"}'),
        (b'{"a":"\\"model\\":\\"x\\"","model":"a/b"}', b'{"a":"\\"model\\":\\"x\\"","model":"their"}'),
        (b'{"mod\\u0065l":"a/b","x":{"model":1}}', b'{"mod\\u0065l":"their","x":{"model":1}}'),
        (b'{"\\u006Dodel":"a/b"}', b'{"\\u006Dodel":"their"}'),
        (b'{"\\\\u006dodel":1,"model":"a/b"}', b'{"\\\\u006dodel":1,"model":"their"}'),
        (b'{"x":"\\ud83d","y":"\\udc00z","model":"a/b"}', b'{"x":"\\ud83d","y":"\\udc00z","model":"their"}'),
        (b'{"x":1,"x":2,"model":"a/b","y":{},"y":[]}', b'{"x":1,"x":2,"model":"their","y":{},"y":[]}'),
        (b'{"model":"a/b","stream":false,"stream_options":7}', b'{"model":"their","stream":false,"stream_options":7}'),
        (b'{"model":"a/b","stream":null,"stream_options":{}}', b'{"model":"their","stream":null,"stream_options":{}}'),
        (b'{"model":"a/b","stream":true}', b"{" + USAGE_ASKED + b',"model":"their","stream":true}'),
        (
            b'{"model":"a/b","stream":true,"stream_options":null}',
            b'{"model":"their","stream":true,"stream_options":{"include_usage":true}}',
        ),
        (
            b'{"stream_options": {},"stream":true,"model":"a/b"}',
            b'{"stream_options": {"include_usage":true},"stream":true,"model":"their"}',
        ),
        (
            b'{"stream_options":{ },"stream":true,"model":"a/b"}',
            b'{"stream_options":{"include_usage":true },"stream":true,"model":"their"}',
        ),
        (
            b'{"stream_options":{"x": 1.0},"stream":true,"model":"a/b"}',
            b'{"stream_options":{"include_usage":true,"x": 1.0},"stream":true,"model":"their"}',
        ),
        (
            b'{"stream_options":{"include_usage" : false , "x":{"include_usage":0}},"stream":true,"model":"a/b"}',
            b'{"stream_options":{"include_usage" : true , "x":{"include_usage":0}},"stream":true,"model":"their"}',
        ),
        (
            b'{"stream_options":{"include_usage":false,"include\\u005fusage":0},"stream":true,"model":"a/b"}',
            b'{"stream_options":{"include_usage":true,"include\\u005fusage":true},"stream":true,"model":"their"}',
        ),
        (
            b'{"stream\\u005foptions":{"x":"stream_options"},"stream":true,"model":"a/b"}',
            b'{"stream\\u005foptions":{"include_usage":true,"x":"stream_options"},"stream":true,"model":"their"}',
        ),
    ],
)
def test_the_body_that_goes_upstream(body: bytes, upstream: bytes) -> None:
    assert chat.upstream_body(read(body), "their") == upstream


def test_without_a_target_model_the_slug_stays_as_it_was_spelled() -> None:
    body = b'{"model":"a\\/b"}'
    assert read(body).slug == "a/b"
    assert chat.upstream_body(read(body), None) == body


@pytest.mark.parametrize(
    ("body", "upstream"),
    [
        (b'{"model":"a/b","metadata":{"k":"v"},"n":1.0}', b'{"model":"their","n":1.0}'),
        (b'{"metadata":{},"store":false,"model":"a/b"}', b'{"store":false,"model":"their"}'),
        (b'{"metadata":{"k":"v"},"store":"true","model":"a/b"}', b'{"store":"true","model":"their"}'),
        (b'{"metadata":{"k":"v"},"store":true,"model":"a/b"}', b'{"metadata":{"k":"v"},"store":true,"model":"their"}'),
        (b'{"metadata":null,"model":"a/b"}', b'{"metadata":null,"model":"their"}'),
        (
            b'{"metadata":{"k":"v"},"stream":true,"model":"a/b"}',
            b"{" + USAGE_ASKED + b',"stream":true,"model":"their"}',
        ),
    ],
)
def test_metadata_is_dropped_where_it_may_only_be_stored(body: bytes, upstream: bytes) -> None:
    asked = read(body)
    assert chat.upstream_body(asked, "their", stored_metadata_only=True) == upstream
    assert (b"metadata" in chat.upstream_body(asked, "their")) is True


def test_a_body_of_a_thousand_members_passes_and_of_more_is_refused() -> None:
    many = b",".join(b'"x%d":1' % number for number in range(997))
    body = b'{"metadata":{"k":"v"},"model":"a/b","stream":true,' + many + b"}"
    sent = chat.upstream_body(read(body), "their", stored_metadata_only=True)
    assert sent == b"{" + USAGE_ASKED + b',"model":"their","stream":true,' + many + b"}"
    assert "1000 members" in refused(body[:-1] + b',"y":1}').message


def test_a_target_model_is_written_as_json() -> None:
    assert chat.upstream_body(read(b'{"model":"a/b"}'), 'say "hi"\\é') == '{"model":"say \\"hi\\"\\\\é"}'.encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"nothing",
        b"{",
        b'{"model":"a/b"',
        b'{"model":"a/b",}',
        b'{"model":"a/b"} x',
        b'{"model":"a/b"}{}',
        b"{'model':'a/b'}",
        b'\xef\xbb\xbf{"model":"a/b"}',
        b'{"model":"a/b","x":NaN}',
        b'{"model":"a/b","x":Infinity}',
        b'{"model":"a/b","x":-Infinity}',
        b'{"model":"a/b","max_tokens":NaN}',
        b'{"model":"a/b","x":01}',
        b'{"model":"a/b","x":1.}',
        b'{"model":"a/b","x":.5}',
        b'{"model":"a/b","x":+1}',
        b'{"model":"a/b","x":"\\q"}',
        b'{"model":"a/b","x":"\n"}',
        b'{"model":"a/b","x":"\\u12"}',
        b'{"model":"a/b","x":"\\ud8"}',
        b'{"model":"a/b","x":tru}',
        b'{"model":"a/b","x":[1 2]}',
        b'{"model":"a/b" "x":1}',
        b'{"model":"a/b"\x00}',
        b'{"model":"a/b","x":"\xff"}',
        b'{"model":"a/b","x":"\xc3"}',
        b'{"model":"a/b","\xff":1}',
        b'{"model":"a/b","x":"\xed\xa0\x80"}',
        '{"model":"a/b"}'.encode("utf-16"),
        b'{"model":"a/b","x":"\\ud800","y":\xff}',
        b'{"model":"a/b","x":"\\ud800","y":}',
    ],
)
def test_what_is_not_json_in_utf8_is_refused(body: bytes) -> None:
    assert "JSON" in refused(body).message or "UTF-8" in refused(body).message
    assert refused(body).param is None


def test_ten_thousand_halves_of_surrogate_pairs_pass_and_more_are_not_looked_into() -> None:
    body = b'{"model":"a/b","x":"%b"}'
    most = body % (b"\\ud800" * 10_000)
    assert chat.upstream_body(read(most), None) == most
    assert "not valid JSON" in refused(body % (b"\\ud800" * 10_001)).message


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"1", b"null", b"true", b'[{"model":"a/b"}]'])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    assert refused(body).message == "The body must be a JSON object."


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (b"", "required"),
        (b'"Model":"a/b"', "in lower case"),
        (b'"x":{"model":"a/b"}', "required"),
        (b'"model":null', "must be a string"),
        (b'"model":7', "must be a string"),
        (b'"model":["a/b"]', "must be a string"),
        (b'"model":{"model":"a/b"}', "must be a string"),
        (b'"model":"a/b","model":"a/b"', "given once"),
        (b'"model":7,"model":"a/b"', "given once"),
        (b'"model":"a/b","mod\\u0065l":"a/c"', "given once"),
        (b'"model":"\\ud800"', "surrogate"),
        (b'"model":"a/b\\udc00","x":1', "surrogate"),
    ],
)
def test_a_model_that_is_missing_repeated_or_no_string_is_refused(members: bytes, message: str) -> None:
    assert message in refused(b"{" + members + b"}").message
    assert refused(b"{" + members + b"}").param == "model"


@pytest.mark.parametrize("value", [b"1", b"0", b'"true"', b"[]", b"{}"])
def test_a_stream_that_is_no_boolean_is_refused(value: bytes) -> None:
    assert refused(b'{"model":"a/b","stream":' + value + b"}").param == "stream"


def test_a_repeated_stream_is_refused_for_who_could_say_which_one_the_upstream_takes() -> None:
    assert refused(b'{"model":"a/b","stream":false,"stream":true}').param == "stream"
    assert refused(b'{"model":"a/b","stream":true,"str\\u0065am":false}').param == "stream"
    assert read(b'{"model":"a/b","stream":true,"x":{"stream":false}}').stream


@pytest.mark.parametrize("value", [b"1", b"true", b'"x"', b"[]"])
def test_stream_options_of_a_stream_that_are_no_object_are_refused(value: bytes) -> None:
    assert refused(b'{"model":"a/b","stream":true,"stream_options":' + value + b"}").param == "stream_options"


def test_stream_options_of_4096_bytes_are_read_and_longer_ones_refused() -> None:
    options = b'{"x":"' + b"y" * (4096 - len(b'{"x":""}')) + b'"}'
    body = b'{"model":"a/b","stream":true,"stream_options":%b}'
    assert read(body % options).stream
    longer = refused(body % options.replace(b"y", b"yy", 1))
    assert (longer.param, "4096 bytes" in longer.message) == ("stream_options", True)


def test_repeated_stream_options_of_a_stream_are_refused() -> None:
    body = b'{"model":"a/b","stream":true,"stream_options":{},"stream_options":{}}'
    assert refused(body).param == "stream_options"


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (b'{"include_usage":true}', True),
        (b'{"include_usage":false}', False),
        (b'{"include_usage":1}', False),
        (b'{"x":{"include_usage":true}}', False),
        (b"{}", False),
        (b"null", False),
    ],
)
def test_whether_the_client_asked_for_the_usage_chunk(options: bytes, *, asked: bool) -> None:
    assert read(b'{"model":"a/b","stream":true,"stream_options":' + options + b"}").include_usage is asked


def test_nesting_that_no_decoder_follows_is_refused() -> None:
    for depth in (500, 990, 1000, 1010, 5000, 200_000):
        for member in (b'"x":', b'"metadata":', b'"n":', b'"stream":true,"stream_options":{"x":'):
            closing = b"}}" if member.endswith(b'{"x":') else b"}"
            body = b'{"model":"a/b",' + member + b"[" * depth + b"]" * depth + closing
            outcome = chat.parse(body)
            assert isinstance(outcome, Invalid) or chat.upstream_body(outcome, "their")
    assert "nested" in refused(body).message


# --- what is read of it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "max_tokens", "choices"),
    [
        (b"", None, 1),
        (b',"max_tokens":7,"n":3', 7, 3),
        (b',"max_completion_tokens":8,"max_tokens":7', 8, 1),
        (b',"max_completion_tokens":null,"max_tokens":7', 7, 1),
        (b',"max_tokens":0,"n":0', None, 1),
        (b',"max_tokens":-1,"n":-1', None, 1),
        (b',"max_tokens":7.0,"n":"3"', 7, 1),
        (b',"max_tokens":7.5,"n":2', None, 2),
        (b',"max_completion_tokens":1,"max_tokens":5e3', 5000, 1),
        (b',"max_tokens":true,"n":[2]', None, 1),
        (b',"max_tokens":1e999,"n":1e2', None, 100),
        (b',"max_tokens":9007199254740992', 2**53, 1),
        (b',"max_tokens":9007199254740993', None, 1),
        (b',"max_tokens":1' + b"0" * 5000, None, 1),
    ],
)
def test_counts_that_are_none_are_the_upstreams_business(members: bytes, max_tokens: int | None, choices: int) -> None:
    asked = read(b'{"model":"a/b"' + members + b"}")
    assert (asked.max_tokens, asked.choices) == (max_tokens, choices)


def test_the_larger_bound_is_reserved_for_some_upstreams_know_only_one() -> None:
    assert read(b'{"model":"a/b","max_completion_tokens":1,"max_tokens":5000}').max_tokens == 5000


@pytest.mark.parametrize("body", [b'{"mo\\u0064el":"a/b","":0' + b',"":0' * 2000 + b"}"])
def test_a_body_that_would_take_long_to_look_through_is_refused(body: bytes) -> None:
    refused = chat.parse(body)
    assert isinstance(refused, chat.Invalid)
    assert "1000 members" in refused.message


def with_metadata(value: Any) -> bytes:
    return json.dumps({"model": "a/b", "metadata": value}).encode()


SIXTEEN = {f"k{number}": "" for number in range(16)}


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {"": ""},
        SIXTEEN,
        {"k" * 64: "v" * 512},
        {"é" * 64: "😀" * 512},
        {f"{number:02}": "é" * 507 for number in range(16)},
    ],
)
def test_metadata_that_is_within_its_bounds(metadata: dict[str, str] | None) -> None:
    assert read(with_metadata(metadata)).metadata == metadata


def test_no_metadata() -> None:
    assert read(b'{"model":"a/b"}').metadata is None


def test_metadata_goes_by_its_compact_form_to_the_byte() -> None:
    exact = {f"{number:02}": "é" * 510 for number in range(15)}
    room = 16 * 1024 - len(compact(exact | {"15": ""}))
    exact["15"] = "é" * (room // 2) + "x" * (room % 2)
    assert len(compact(exact)) == 16 * 1024
    spaced = json.dumps({"model": "a/b", "metadata": exact}, indent=8).encode()
    assert len(spaced) > 2 * 16 * 1024
    assert read(spaced).metadata == exact
    assert "16384 bytes" in refused(with_metadata(exact | {"15": exact["15"] + "x"})).message


def compact(metadata: dict[str, str]) -> bytes:
    return json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (SIXTEEN | {"one": "more"}, "16 pairs"),
        ({"k" * 65: ""}, "64 characters"),
        ({"k": "v" * 513}, "512 in a value"),
        ({f"{number:02}": "😀" * 512 for number in range(16)}, "16384 bytes"),
        ({"k": "v" * 300_000}, "16384 bytes"),
        ({"k": 1}, "object of strings"),
        ({"k": None}, "object of strings"),
        ({"k": {"k": "v"}}, "object of strings"),
        (["k"], "object of strings"),
        ("k", "object of strings"),
        (1, "object of strings"),
        (False, "object of strings"),
        ({"k": "\ud800"}, "surrogate"),
    ],
)
def test_metadata_beyond_its_bounds_is_refused(metadata: Any, message: str) -> None:
    assert message in refused(with_metadata(metadata)).message
    assert refused(with_metadata(metadata)).param == "metadata"
