"""Reading and finding the members of a request's body, whatever is in it."""

import pytest

from proxy.dialects import request_members
from proxy.dialects.json_members import TooManyMembersError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"{}", []),
        (b" { } ", []),
        (b'{"a":1}', [("a", b"1")]),
        (b' { "a" : "x" ,\n"b" : [ 1 , {"c":2} ] } ', [("a", b'"x"'), ("b", b'[ 1 , {"c":2} ]')]),
        (b'{"a":{"a":{"a":1}},"a":[[[]]]}', [("a", b'{"a":{"a":1}}'), ("a", b"[[[]]]")]),
        (b'{"a":"}]{[,:","\\"b\\\\":["]","{"]}', [("a", b'"}]{[,:"'), ('"b\\', b'["]","{"]')]),
        (b'{"\\u0061":1,"\\u00e9":-2.5e3,"\\\\u0061":null}', [("a", b"1"), ("é", b"-2.5e3"), ("\\u0061", b"null")]),
        (b'{"a":"\\ud800","b\\udfff":true}', [("a", b'"\\ud800"'), ("b\ufffd", b"true")]),
    ],
)
def test_members_and_where_they_stand(text: bytes, found: list[tuple[str, bytes]]) -> None:
    spans = request_members.spans(text, request_members.read(text))
    assert [(name.text, text[start:stop]) for name, (start, stop), _ in spans] == found


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (b'{"m":1}', b"{}"),
        (b' { "m" : {"m":1} , "b": 2 } ', b' { "b": 2 } '),
        (b'{"a":1, "m":[1,"}"] ,"b":2}', b'{"a":1,"b":2}'),
        (b'{"a":1,"m":2 }', b'{"a":1}'),
        (b'{"m":1,"a":{"m":1},"\\u006d":2}', b'{"a":{"m":1}}'),
        (b'{"a":1 , "b":2}', b'{"a":1 , "b":2}'),
        (b"{}", b"{}"),
    ],
)
def test_a_member_is_taken_out(text: bytes, left: bytes) -> None:
    assert request_members.without(text, "m") == left


@pytest.mark.parametrize("padding", [b"1", b'"' + b"x" * 70_000 + b'"'])
def test_a_thousand_members_are_read_and_no_more(padding: bytes) -> None:
    """A large body is stopped while its names are made, a small one afterwards."""
    members = [b'"a":1'] * 999 + [b'"a":' + padding]
    assert len(request_members.read(b"{" + b",".join(members) + b"}")) == 1000
    with pytest.raises(TooManyMembersError):
        request_members.read(b"{" + b",".join([*members, b'"b":1']) + b"}")


def test_a_large_body_of_nothing_but_small_values_makes_no_step_for_each() -> None:
    """Its steps are counted, not timed: one for the one member, however much is in it."""
    text = b'{"a":[' + b"[[]]," * 200_000 + b"1]}"
    ((name, value),) = request_members.read(text).items()
    assert (name.text, len(value)) == ("a", len(text) - len(b'{"a":}'))
