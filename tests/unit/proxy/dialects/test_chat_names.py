"""Members called like ours except for their case, and repeats of what decides the price."""

import pytest

from proxy.dialects import chat
from tests.unit.proxy.dialects.test_chat import read, refused


@pytest.mark.parametrize(
    ("members", "field"),
    [
        (b'"Model":"a/c"', "model"),
        (b'"\\u004dodel":"a/c"', "model"),
        (b'"STREAM":true', "stream"),
        ('"\u017ftream":true'.encode(), "stream"),
        (b'"\\u017Ftream":true', "stream"),
        (b'"Stream_Options":{"include_usage":false}', "stream_options"),
        ('"max_to\u212aens":9'.encode(), "max_tokens"),
        (b'"max_to\\u212aens":9', "max_tokens"),
        (b'"Max_Completion_Tokens":9', "max_completion_tokens"),
        (b'"N":9', "n"),
        (b'"Metadata":{"a":"b"}', "metadata"),
        (b'"Store":true', "store"),
        (b'"n":1,"n":2', "n"),
        (b'"max_tokens":1,"max_tokens":2', "max_tokens"),
        (b'"max_completion_tokens":1,"max_completion_\\u0074okens":2', "max_completion_tokens"),
        (b'"stream_options":{},"stream_options":null', "stream_options"),
    ],
)
def test_a_name_in_another_case_or_repeated_is_refused_for_servers_in_go_take_it_for_theirs(
    members: bytes, field: str
) -> None:
    for body in (b'{"model":"a/b",' + members + b"}", b"{" + members + b',"x":"\\ud800","model":"a/b"}'):
        assert refused(body).param == field
        assert "lower case" in refused(body).message


@pytest.mark.parametrize(
    "members",
    [
        b'"x":{"Model":1,"STREAM":2,"n":[{"n":1,"N":2}]}',
        b'"x":"\\"Model\\":1"',
        b'"max-tokens":1,"models":[],"maxTokens":2',
        '"\ufb05ream":true,"strea\u2098":1'.encode(),
        b'"metadata":{"a":"b"},"metadata":null',
    ],
)
def test_what_is_only_like_a_name_of_ours_passes(members: bytes) -> None:
    body = b'{"model":"a/b",' + members + b"}"
    assert chat.upstream_body(read(body), None) == body


@pytest.mark.parametrize("options", [b'{"Include_Usage":false}', b'{"include_usage":true,"include_u\\u017fage":false}'])
def test_usage_cannot_be_switched_off_by_another_case(options: bytes) -> None:
    asked = refused(b'{"model":"a/b","stream":true,"stream_options":' + options + b"}")
    assert (asked.param, "lower case" in asked.message) == ("stream_options", True)
