"""Bodies of every size are read alike: at once, in a thread, and in the process beside."""

import asyncio
from collections.abc import Iterator

import pytest

from proxy import large
from proxy.dialects.chat import Invalid
from proxy.dialects.routes import chat_completions, responses
from proxy.large import Large
from runtime.beside import Beside

SIZES = [10, large.AT_ONCE_BYTES + 10, large.IN_THREAD_BYTES + 10]


@pytest.fixture(scope="module")
def reader() -> Iterator[Large]:
    beside = Beside()
    asyncio.run(beside.begun())
    yield Large(beside)
    asyncio.run(beside.close())


def body(size: int, rest: bytes = b"") -> bytes:
    return b'{"model":"a/b","max_tokens":7,"messages":[{"role":"user","content":"%b"}]%b}' % (b"x" * size, rest)


@pytest.mark.parametrize("size", SIZES)
async def test_a_request(reader: Large, size: int) -> None:
    text = body(size)
    read = await reader.request(chat_completions.ROUTE, text)
    assert not isinstance(read, Invalid)
    assert (read.request.body, read.request.slug, read.request.max_tokens) == (text, "a/b", 7)
    assert text[slice(*read.request.model)] == b'"a/b"'
    assert read.prompt_bound == -(-len(text) // 4)
    assert read.prompt_tokens == (None if size == SIZES[0] else 4 + (size + 3) // 4)


@pytest.mark.parametrize("size", SIZES)
async def test_a_request_that_is_refused(reader: Large, size: int) -> None:
    found = await reader.request(chat_completions.ROUTE, body(size, b',"file_id":"f"'))
    assert not isinstance(found, Invalid)
    assert found.upstream_object == "file_id"  # whether it may is the endpoint's to say
    unread = await reader.request(chat_completions.ROUTE, body(size)[:-1])
    assert isinstance(unread, Invalid)
    assert unread.message.startswith("The body is not valid JSON")


@pytest.mark.parametrize("size", SIZES)
async def test_further_members_of_another_route(reader: Large, size: int) -> None:
    read = await reader.request(responses.ROUTE, b'{"model":"a/b","input":"%b","max_output_tokens":9}' % (b"x" * size))
    assert not isinstance(read, Invalid)
    assert read.request.max_tokens == 9


@pytest.mark.parametrize("size", SIZES)
async def test_an_answer(reader: Large, size: int) -> None:
    answer = b'{"model":"m","choices":[{"message":{"content":"%b"}}],"usage":{"prompt_tokens":5,"completion_tokens":2}}'
    told = await reader.answer(chat_completions.ROUTE, answer % (b"x" * size), "a/b")
    assert told.tokens is not None
    assert (told.tokens.input_tokens, told.tokens.output_tokens, told.failed) == (5, 2, False)
    assert told.body == answer.replace(b'"m"', b'"a/b"') % (b"x" * size)
