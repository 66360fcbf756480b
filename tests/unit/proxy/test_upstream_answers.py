"""What upstreams really send, from `tests/data`: what each client sees of it, and what is billed (contract 3, 4).

A row of the data is an answer in the pieces that its upstream writes, its right counts (null: any), and whether its
client is told of an error. Its upstream calls its model `their-model`, which no client may see.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.core.calls import BrokenOffError
from tests.unit.proxy.bodies import ASKED, STREAMED
from tests.unit.proxy.kit import SLUG, House, Step
from tests.unit.proxy.virtual_time import in_virtual_time

DATA = Path(__file__).parents[2] / "data"
SERVERS = {"vLLM", "SGLang", "llama.cpp", "TGI", "Ollama", "Groq", "Moonshot", "DeepSeek", "xAI", "Azure"}


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


BENT = rows("bent_answers.jsonl")
SEEN = rows("upstream_answers.jsonl")


def events(sent: bytes) -> list[Any]:
    """Return the JSON objects that a client gets of a stream, or the one of a plain answer."""
    text = sent.decode(errors="replace").removeprefix("\ufeff").replace("\r\n", "\n")
    if text.startswith("{"):
        return [json.loads(text)]
    data = [
        "\n".join(line[5:] for line in event.splitlines() if line.startswith("data:")) for event in text.split("\n\n")
    ]
    return [json.loads(one) for one in data if one.strip().startswith("{")]


async def play(house: House, row: dict[str, Any]) -> bytes:
    """Let a client ask, and the upstream answer with a row; return what the client got."""
    steps: list[Step] = [piece.encode("utf-8", "surrogatepass") for piece in row["pieces"]]
    if not row["ends_cleanly"]:
        steps.append(BrokenOffError("gone"))
    house.upstream.answers(*steps, content_type=row["content_type"])
    client = await house.serve(house.client(STREAMED if row["stream"] else ASKED))
    assert client.status == 200
    assert client.ended
    house.assert_all_given_back()
    return client.got


@pytest.mark.parametrize("row", [*BENT, *SEEN], ids=lambda row: row["name"])
@in_virtual_time
async def test_an_answer_is_read_as_its_client_reads_it(house: House, row: dict[str, Any]) -> None:
    got = await play(house, row)
    assert b"their-model" not in got
    assert (SLUG.encode() in got) == ("their-model" in "".join(row["pieces"]))
    seen = events(got)
    assert any(event.get("error") for event in seen) == row["right"]["client_sees_error"]
    if row["stream"] and len(seen) > 1:
        assert not [event for event in seen if event.get("usage") and event.get("choices") == []], "nobody asked for it"
    assert (b"[DONE]" in got) == ("[DONE]" in "".join(row["pieces"]) and not row["right"]["client_sees_error"])
    draft = house.draft
    billed = {
        "input_tokens": draft.tokens.input_tokens,
        "output_tokens": draft.tokens.output_tokens,
        "cached_input_tokens": draft.tokens.cached_input_tokens,
        "usage_source": draft.usage_source.value,
        "outcome": draft.outcome.value,
    }
    fixed = {name: value for name, value in row["right"].items() if value is not None and name in billed}
    assert {name: billed[name] for name in fixed} == fixed


def shape(row: dict[str, Any]) -> str:
    """Return what is left of an answer without its texts and numbers: the names, the order, the transport."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: bare(each) for name, each in value.items()}
        if isinstance(value, list):
            return [bare(each) for each in value]
        return value if value is None or isinstance(value, bool) else type(value).__name__

    pieces = [
        bare(events(piece.encode("utf-8", "surrogatepass"))) if "{" in piece else piece for piece in row["pieces"]
    ]
    return json.dumps([row["stream"], row["content_type"], row["ends_cleanly"], pieces])


def test_the_answers_of_ten_servers_are_there_each_with_its_source_and_no_two_of_one_shape() -> None:
    assert {row["server"] for row in SEEN} == SERVERS
    assert len(SEEN) >= 40
    assert all(row["source"].startswith("https://") for row in SEEN)
    assert len({row["name"] for row in [*BENT, *SEEN]}) == len([*BENT, *SEEN])
    assert len({shape(row) for row in SEEN}) == len(SEEN)
