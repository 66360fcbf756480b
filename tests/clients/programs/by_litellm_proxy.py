"""LiteLLM as a proxy that routes to Tollgate, asked by OpenAI's SDK: chat completions, streamed too, and embeddings."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import openai

NAME = "front"
ROUTED = {"model": f"openai/{os.environ['MODEL']}", "api_base": os.environ["BASE_URL"] + "/v1"}
CONFIG = {
    "model_list": [{"model_name": NAME, "litellm_params": ROUTED | {"api_key": os.environ["API_KEY"]}}],
    "general_settings": {"master_key": "sk-of-the-proxy"},
}
START = "from litellm.proxy.proxy_cli import run_server; run_server()"
READY = "Application startup complete"

with tempfile.TemporaryDirectory() as folder:
    config = Path(folder, "config.yaml")
    config.write_text(json.dumps(CONFIG), encoding="utf-8")  # JSON is YAML
    port = os.environ["PORT"]
    command = [sys.executable, "-c", START, "--config", str(config), "--host", "127.0.0.1", "--port", port]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as proxy:
        try:
            log = []
            for line in proxy.stdout:
                log.append(line)
                if READY in line:
                    break
            else:
                sys.exit("".join(log))
            client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="sk-of-the-proxy", max_retries=0)
            asked = {"model": NAME, "messages": [{"role": "user", "content": "Say hi"}]}
            plain = client.chat.completions.create(**asked)
            pieces = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **asked))
            text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
            counts = next(piece.usage for piece in reversed(pieces) if piece.usage)
            vectors = client.embeddings.create(model=NAME, input=["Hello"], encoding_format="float")
        finally:
            proxy.kill()
print(
    json.dumps(
        {
            "chat": [plain.choices[0].message.content, plain.usage.prompt_tokens, plain.usage.completion_tokens],
            "streamed chat": [text, counts.prompt_tokens, counts.completion_tokens],
            "embeddings": [vectors.data[0].embedding, vectors.usage.prompt_tokens],
        }
    )
)
