"""The table of docs/labs.md is true: what a real tokenizer counts, what is estimated, and how far that is off.

The tokenizer's vocabulary comes in its package's wheel: nothing is fetched.
"""

import json
import re
from pathlib import Path
from typing import Any

import mistral_common
import pytest
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from proxy.dialects import prompts

ROOT = Path(__file__).parents[4]
VOCABULARY = Path(mistral_common.__file__).parent / "data" / "tekken_240911.json"
ROW = re.compile(
    r"^\| \[[^]]+\]\(\.\./(tests/data/texts/[a-z_.]+)\)[^|]*\| (\d+) \| (\d+) \| (\d+) \| ([+-]\d+) % \|$",
    re.MULTILINE,
)
ROWS = ROW.findall((ROOT / "docs" / "labs.md").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer() -> MistralTokenizer[Any, Any, Any, Any, Any]:
    return MistralTokenizer.from_file(str(VOCABULARY))


def test_each_text_is_in_the_table() -> None:
    assert sorted(row[0] for row in ROWS) == sorted(
        path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / "data" / "texts").iterdir()
    )


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_of_the_table(tokenizer: MistralTokenizer[Any, Any, Any, Any, Any], row: tuple[str, ...]) -> None:
    path, *figures = row
    text = (ROOT / path).read_text(encoding="utf-8")
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": text}]}
    if path.endswith(".json"):
        asked = json.loads(text)
    request = ChatCompletionRequest.from_openai(messages=asked["messages"], tools=asked.get("tools"))
    counted = len(tokenizer.encode_chat_completion(request).tokens)
    estimated = prompts.prompt_tokens(json.dumps(asked).encode(), otherwise=0)
    error = round((estimated - counted) / counted * 100)
    assert [len(text.encode()), counted, estimated, error] == list(map(int, figures))
