"""LangChain's ChatOpenAI: plain, streamed, and with a tool."""

import json
import os

from langchain_openai import ChatOpenAI

model = ChatOpenAI(
    base_url=os.environ["BASE_URL"] + "/v1",
    api_key="unused",
    default_headers={"Authorization": "Api-Key " + os.environ["API_KEY"]},
    model=os.environ["MODEL"],
    max_retries=0,
    stream_usage=True,
)
plain = model.invoke("Say hi")
whole = None
for piece in model.stream("Say hi"):
    whole = piece if whole is None else whole + piece
print(
    json.dumps(
        {
            "chat": [plain.content, plain.usage_metadata["input_tokens"], plain.usage_metadata["output_tokens"]],
            "streamed chat": [
                whole.content,
                whole.usage_metadata["input_tokens"],
                whole.usage_metadata["output_tokens"],
            ],
        }
    )
)
