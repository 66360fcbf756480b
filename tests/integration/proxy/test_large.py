"""Bodies of every size are read alike: at once, in a thread, and in the process beside, from a file in memory."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Never

import pytest

from proxy import large
from proxy.dialects.chat import Invalid
from proxy.dialects.routes import chat_completions, model_server, responses
from proxy.dialects.routes.api import ApiRoute
from proxy.large import Large
from runtime import memory_files
from runtime.beside import Beside
from runtime.memory_files import MemoryFile
from tests.unit.proxy import kit

SIZES = [10, large.AT_ONCE_BYTES + 10, memory_files.HEAP_BYTES + 10]


@pytest.fixture(scope="module")
def reader() -> Iterator[Large]:
    beside = Beside()
    asyncio.run(beside.begun())
    yield Large(beside)
    asyncio.run(beside.close())


def body(size: int, rest: bytes = b"") -> bytes:
    return b'{"model":"a/b","max_tokens":7,"messages":[{"role":"user","content":"%b"}]%b}' % (b"x" * size, rest)


def gathered(text: bytes) -> bytes | MemoryFile:
    """Return a body as it comes from the port, or an answer from an upstream."""
    return (memory_files.spilled([text[:1000], text[1000:]]) or b"") if len(text) > memory_files.HEAP_BYTES else text


@pytest.mark.parametrize("size", SIZES)
async def test_a_request(reader: Large, size: int) -> None:
    text = body(size)
    read = await reader.request(chat_completions.ROUTE, gathered(text))
    assert not isinstance(read, Invalid)
    assert (read.request.slug, read.request.max_tokens) == ("a/b", 7)
    assert read.request.body == (b"" if size == SIZES[2] else text)
    assert text[slice(*read.request.model)] == b'"a/b"'
    assert read.prompt_bound == -(-len(text) // 4)
    assert read.prompt_tokens == (None if size == SIZES[0] else 4 + (size + 3) // 4)


@pytest.mark.parametrize("size", SIZES)
async def test_a_request_that_is_refused(reader: Large, size: int) -> None:
    found = await reader.request(chat_completions.ROUTE, gathered(body(size, b',"file_id":"f"')))
    assert not isinstance(found, Invalid)
    assert found.upstream_object == "file_id"  # whether it may is the endpoint's to say
    unread = await reader.request(chat_completions.ROUTE, gathered(body(size)[:-1]))
    assert isinstance(unread, Invalid)
    assert unread.message.startswith("The body is not valid JSON")


@pytest.mark.parametrize("size", SIZES)
async def test_further_members_of_another_route(reader: Large, size: int) -> None:
    text = b'{"model":"a/b","input":"%b","max_output_tokens":9}' % (b"x" * size)
    read = await reader.request(responses.ROUTE, gathered(text))
    assert not isinstance(read, Invalid)
    assert read.request.max_tokens == 9


@pytest.mark.parametrize("size", SIZES)
async def test_an_answer(reader: Large, size: int) -> None:
    answer = b'{"model":"m","choices":[{"message":{"content":"%b"}}],"usage":{"prompt_tokens":5,"completion_tokens":2}}'
    told = await reader.answer(chat_completions.ROUTE, gathered(answer % (b"x" * size)), "a/b")
    assert told.tokens is not None
    assert (told.tokens.input_tokens, told.tokens.output_tokens, told.failed) == (5, 2, False)
    assert (told.large[:] if told.large else told.body) == answer.replace(b'"m"', b'"a/b"') % (b"x" * size)


@pytest.mark.parametrize(
    "api", [chat_completions.ROUTE, responses.ROUTE, model_server.PREDICT], ids=lambda api: api.name
)
@pytest.mark.parametrize("target_model", ["their-model", None])
async def test_what_goes_upstream_of_a_large_request(reader: Large, api: ApiRoute, target_model: str | None) -> None:
    text = body(SIZES[2], b',"stream":true')
    file = gathered(text)
    assert isinstance(file, MemoryFile)
    route = replace(kit.route(), target_model=target_model)
    read = await reader.request(api, file)
    assert not isinstance(read, Invalid)
    made = (await reader.for_upstream(api, file, read, route)).request.upstream_body
    asked = api.parse(text)
    assert made is not None and not isinstance(asked, Invalid)
    assert made[:] == api.upstream_body(asked, target_model)


async def test_where_no_other_process_may_see_its_files_a_body_is_read_here() -> None:
    class Blind(Beside):
        async def run(self, *_: object) -> Never:
            raise PermissionError

    read = await Large(Blind()).request(chat_completions.ROUTE, gathered(body(SIZES[2])))
    assert not isinstance(read, Invalid)
    assert read.request.slug == "a/b"
