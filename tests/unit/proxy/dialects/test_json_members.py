"""Finding the top-level members of a JSON object in its bytes."""

import pytest

from proxy.dialects import json_members


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"{}", []),
        (b" { } ", []),
        (b'{"a":1}', [(b"a", b"1")]),
        (b'{ "a" : "x" , "b" : [ 1 , {"c":2} ] }', [(b"a", b'"x"'), (b"b", b'[ 1 , {"c":2} ]')]),
        (b'{"a":{"a":{"a":1}},"a":[[[]]]}', [(b"a", b'{"a":{"a":1}}'), (b"a", b"[[[]]]")]),
        (b'{"a":"}]{[,:","b":["]","{"]}', [(b"a", b'"}]{[,:"'), (b"b", b'["]","{"]')]),
        (b'{"a":"\\"}","b":"\\\\"}', [(b"a", b'"\\"}"'), (b"b", b'"\\\\"')]),
        (b'{"\\u0061":1,"\\u00e9":2,"\\\\u0061":3}', [(b"a", b"1"), (b"\\u00e9", b"2"), (b"\\a", b"3")]),
        (b'{"a":[1,[2,3],[]],"b":{}}', [(b"a", b"[1,[2,3],[]]"), (b"b", b"{}")]),
        (b'{"a":[1,2', []),
        (b'{"a":1,"b', [(b"a", b"1")]),
    ],
)
def test_members(text: bytes, found: list[tuple[bytes, bytes]]) -> None:
    assert [(name, text[start:stop]) for name, (start, stop) in json_members.members(text)] == found


def test_splicing_takes_spans_in_any_order() -> None:
    assert json_members.splice(b"0123456789", [((7, 9), b"B"), ((1, 3), b"A")]) == b"0A3456B9"
    assert json_members.splice(b"0123", []) == b"0123"


def test_a_thousand_members_are_looked_through_and_no_more() -> None:
    names = [b"x%d" % number for number in range(1001)]
    most = [b'"%s":1' % name for name in names]
    assert [name for name, _ in json_members.members(b"{" + b",".join(most[:1000]) + b"}")] == names[:1000]
    with pytest.raises(json_members.TooManyMembersError):
        list(json_members.members(b"{" + b",".join(most) + b"}"))


def test_deep_and_long_values_are_passed_over_quickly() -> None:
    deep = b"[" * 200_000 + b"]" * 200_000
    long = b'{"a":[' + b'{"x":"y"},' * 200_000 + b"1]}"
    for value in (deep, long):
        text = b'{"v":' + value + b',"model":1}'
        assert [name for name, _ in json_members.members(text)] == [b"v", b"model"]
