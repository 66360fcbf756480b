"""LiteLLM as an SDK: chat completions, streamed too, and embeddings."""

import json
import os

import litellm

litellm.suppress_debug_info = True
called = {
    "api_base": os.environ["BASE_URL"] + "/v1",
    "api_key": os.environ["API_KEY"],
    "model": "openai/" + os.environ["MODEL"],
    "max_retries": 0,
}
asked = [{"role": "user", "content": "Say hi"}]
plain = litellm.completion(messages=asked, **called)
pieces = list(litellm.completion(messages=asked, stream=True, stream_options={"include_usage": True}, **called))
text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
counts = next(piece.usage for piece in reversed(pieces) if getattr(piece, "usage", None))
vectors = litellm.embedding(input=["Hello"], encoding_format="float", **called)
print(
    json.dumps(
        {
            "chat": [plain.choices[0].message.content, plain.usage.prompt_tokens, plain.usage.completion_tokens],
            "streamed chat": [text, counts.prompt_tokens, counts.completion_tokens],
            "embeddings": [vectors.data[0]["embedding"], vectors.usage.prompt_tokens],
        }
    )
)
