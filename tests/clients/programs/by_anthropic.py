"""Anthropic's SDK: a message, a streamed one, and a count of tokens."""

import json
import os

import anthropic

client = anthropic.Anthropic(base_url=os.environ["BASE_URL"], api_key=os.environ["API_KEY"], max_retries=0)
asked = {"model": os.environ["MODEL"], "messages": [{"role": "user", "content": "Say hi"}]}
plain = client.messages.create(max_tokens=64, **asked)
with client.messages.stream(max_tokens=64, **asked) as stream:
    whole = stream.get_final_message()
print(
    json.dumps(
        {
            "messages": [plain.content[0].text, plain.usage.input_tokens, plain.usage.output_tokens, plain.model],
            "streamed messages": [
                whole.content[0].text,
                whole.usage.input_tokens,
                whole.usage.output_tokens,
                whole.model,
            ],
            "count_tokens": client.messages.count_tokens(**asked).input_tokens,
        }
    )
)
