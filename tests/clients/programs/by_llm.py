"""`llm` with an extra model of OpenAI's kind, by its command line, as its documentation has it."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    Path(folder, "extra-openai-models.yaml").write_text(
        f"- model_id: tollgate\n  model_name: {os.environ['MODEL']}\n  api_base: {os.environ['BASE_URL']}/v1\n"
        "  api_key_name: tollgate\n",
        encoding="utf-8",
    )
    Path(folder, "keys.json").write_text(json.dumps({"tollgate": os.environ["API_KEY"]}), encoding="utf-8")
    home = os.environ | {"LLM_USER_PATH": folder}
    told = {}
    for name, options in (("chat", ["--no-stream"]), ("streamed chat", [])):
        command = [sys.executable, "-m", "llm", "-m", "tollgate", *options, "Say hi"]
        told[name] = subprocess.run(command, env=home, check=True, capture_output=True, text=True).stdout.strip()
print(json.dumps(told))
