"""`./run demo`: the main job for real, on the embedded default, in under a minute.

Starts a gateway, a mock upstream and a webhook receiver as processes of their own, plays the operator, the lab and the
developer, and ends with three independent accounts side by side: what the upstream says it served, what the ledger
holds, what the lab received. Exits 0 only if they agree.
"""

import hashlib
import hmac
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import standardwebhooks
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from sqlalchemy import func, select

from metering.store.events import USAGE_EVENT
from runtime.database import engines
from tollgate import installation

SLUG = "your-org/small-talk"
DAILY_REQUESTS = 12
WAIT_S = 20
Sums = tuple[int, int, int]
"""Requests, input tokens, output tokens."""

console = Console(highlight=False)


class DemoError(Exception):
    """Something did not go as it must; the message says what."""


def main() -> int:
    """Run the demo; return the exit code."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tollgate-demo-") as folder, ExitStack() as processes:
        try:
            agree = play(Path(folder), processes)
        except (DemoError, openai.OpenAIError, httpx.HTTPError) as error:
            console.print(f"[bold red]The demo failed:[/] {error}")
            return 1
    took = f"{time.monotonic() - began:.0f} s"
    console.print(f"[bold green]All three accounts agree.[/] ({took})" if agree else "[bold red]They do not agree.[/]")
    if agree:
        console.print("Keep one of your own: [bold]./run serve[/]")
    return 0 if agree else 1


def play(folder: Path, processes: ExitStack) -> bool:
    """Play the whole job in `folder`; say whether the accounts agree."""
    data, account, received = folder / "data", folder / "account.jsonl", folder / "received.jsonl"
    title("The operator starts the gateway and onboards a lab")
    lab = command("workspace", "create", "--name", "lab", "--org-prefix", "your-org", "--data", str(data))
    secret = lab["webhook_secret"]
    receiver = start(processes, "webhook", "listen", "--secret", secret, "--out", str(received))["url"]
    upstream = start(processes, "mock-upstream", "--tokens", "24", "--account", str(account))["base_url"]
    command("workspace", "set-webhook", "--workspace", "lab", "--url", receiver, "--data", str(data))
    gateway = start(processes, "serve", "--data", str(data), "--port", "0", "--ops-port", "0")["url"]
    done(f"gateway {gateway}, mock upstream {upstream}, the lab's receiver {receiver}")

    title("The lab registers its model and a customer")
    key = onboard(gateway, lab["api_key"], upstream)
    developer = openai.OpenAI(
        base_url=f"{gateway}/v1", api_key="unused", default_headers={"Authorization": f"Api-Key {key}"}, max_retries=0
    )
    title("The developer calls through the OpenAI SDK")
    converse(developer)
    title(f"The developer goes on until the day's {DAILY_REQUESTS} requests are used up")
    run_into_limit(developer)

    title("The lab receives signed webhooks")
    expected = DAILY_REQUESTS
    until(lambda: of_receiver(received)[0] >= expected and of_ledger(data)[0] >= expected, "the deliveries")
    show_delivery(received, secret)
    return compare(of_upstream(account), of_ledger(data), of_receiver(received))


def onboard(gateway: str, management_key: str, upstream: str) -> str:
    """Create an endpoint, a parent and a child group and a key; return the key."""
    with httpx.Client(base_url=f"{gateway}/v1/gateway", headers={"Authorization": f"Api-Key {management_key}"}) as api:

        def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
            answer = api.post(path, json=body)
            if answer.status_code != 200:
                raise DemoError(f"POST {path} answered {answer.status_code}: {answer.text}")
            created: dict[str, Any] = answer.json()
            return created

        target = {"provider": "OPENAI_COMPATIBLE", "base_url": upstream, "target_model": "mock-model"}
        post("/endpoints", {"slug": SLUG, "targets": [target]})
        done(f"endpoint [bold]{SLUG}[/]")
        wide = {"slug": SLUG, "usage_limits": [{"type": "REQUEST", "unit": "DAY", "threshold": 1000}]}
        parent = post("/groups", {"metadata": {"external_entity_id": "acme"}, "models": [wide]})
        narrow = {"slug": SLUG, "usage_limits": [{"type": "REQUEST", "unit": "DAY", "threshold": DAILY_REQUESTS}]}
        body = {
            "metadata": {"external_entity_id": "acme-research"},
            "models": [narrow],
            "hierarchy": {"parent_group_id": parent["id"]},
        }
        child = post("/groups", body)
        done(f"group acme (1000 requests a day), below it acme-research ({DAILY_REQUESTS} a day)")
        minted = post(f"/groups/{child['id']}/api_keys", {"name": "demo"})
        done(f"key {minted['prefix']}... for acme-research")
        key: str = minted["api_key"]
        return key


def converse(developer: openai.OpenAI) -> None:
    """Make one call of each kind."""
    say: Any = [{"role": "user", "content": "Say something kind."}]
    plain = developer.chat.completions.create(model=SLUG, messages=say, metadata={"order": "4711"})
    done(f"plain: {brief(plain.choices[0].message.content)} ({plain.usage and plain.usage.total_tokens} tokens)")
    pieces, usage_seen = [], False
    for chunk in developer.chat.completions.create(model=SLUG, messages=say, stream=True):
        usage_seen = usage_seen or chunk.usage is not None
        pieces += [choice.delta.content or "" for choice in chunk.choices]
    if usage_seen:
        raise DemoError("the client saw a usage chunk that it had not asked for")
    done(f"streamed: {brief(''.join(pieces))} ({len(pieces)} chunks, no usage chunk: none was asked for)")
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools: Any = [{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}]
    called = developer.chat.completions.create(model=SLUG, messages=say, tools=tools)
    calls: Any = called.choices[0].message.tool_calls
    done(f"tools: the model calls {calls[0].function.name}({calls[0].function.arguments})")
    shaped = developer.chat.completions.create(model=SLUG, messages=say, response_format={"type": "json_object"})
    done(f"response_format: {brief(json.dumps(json.loads(shaped.choices[0].message.content or '')))}")


def run_into_limit(developer: openai.OpenAI) -> None:
    """Call until the day is used up; show the refusal. It must come at the limit, not before or after."""
    messages: Any = [{"role": "user", "content": "And again."}]
    for made in range(4, DAILY_REQUESTS + 1):
        try:
            developer.chat.completions.create(model=SLUG, messages=messages)
        except openai.RateLimitError as refusal:
            if made != DAILY_REQUESTS:
                raise DemoError(f"refused after {made} requests, not after {DAILY_REQUESTS}") from refusal
            headers = refusal.response.headers
            shown = {name: headers[name] for name in ("retry-after", "x-should-retry") if name in headers}
            done(f"request {made + 1}: 429 [bold]{refusal.code}[/], {shown}")
            done(f"  {refusal.response.json()['error']['message']}")
            return
    raise DemoError(f"request {DAILY_REQUESTS + 1} was let through")


def show_delivery(received: Path, secret: str) -> None:
    """Show one webhook, and verify it with code that is not ours."""
    delivery = json.loads(received.read_text(encoding="utf-8").splitlines()[0])
    body: str = delivery["body"]
    headers = {name.lower(): value for name, value in delivery["headers"].items()}
    standardwebhooks.Webhook(secret).verify(body, headers)
    shortened = json.loads(body)
    events = shortened["data"]["events"]
    shortened["data"]["events"] = events[:1]
    console.print(Panel(json.dumps(shortened, indent=2), title=f"a webhook's body (1 of its {len(events)} events)"))
    done("its signature is valid by the [bold]standardwebhooks[/] library")
    expected = "v1=" + hmac.new(secret.encode(), body.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, headers["x-baseten-signature"]):
        raise DemoError("X-Baseten-Signature is wrong")
    done(f"X-Baseten-Signature is valid by plain HMAC: {headers['x-baseten-signature'][:24]}...")


def of_upstream(account: Path) -> Sums:
    """Sum the upstream's own account."""
    lines = [json.loads(line) for line in account.read_text(encoding="utf-8").splitlines()]
    return len(lines), sum(line["input_tokens"] for line in lines), sum(line["output_tokens"] for line in lines)


def of_ledger(data: Path) -> Sums:
    """Sum the ledger."""
    columns = USAGE_EVENT.c
    sums = select(func.count(), func.sum(columns.input_tokens), func.sum(columns.output_tokens))
    with engines.sqlite(data / installation.DATABASE_FILE) as ledger:
        row = ledger.read_now(lambda connection: connection.execute(sums).one())
    return int(row[0]), int(row[1] or 0), int(row[2] or 0)


def of_receiver(received: Path) -> Sums:
    """Sum what the lab received and found well signed, each event once."""
    events: dict[str, dict[str, Any]] = {}
    if received.exists():
        for line in received.read_text(encoding="utf-8").splitlines():
            delivery = json.loads(line)
            if delivery["verified"]:
                events |= {event["idempotencyKey"]: event for event in json.loads(delivery["body"])["data"]["events"]}
    tokens = [event["tokens"] for event in events.values()]
    return len(tokens), sum(one["inputTokens"] for one in tokens), sum(one["outputTokens"] for one in tokens)


def compare(upstream: Sums, ledger: Sums, receiver: Sums) -> bool:
    """Print the accounts side by side; say whether they agree."""
    table = Table(title="One day, three accounts")
    for column in ("account", "requests", "input tokens", "output tokens"):
        table.add_column(column, justify="left" if column == "account" else "right")
    for name, sums in (("the upstream's own", upstream), ("the ledger", ledger), ("delivered to the lab", receiver)):
        table.add_row(name, *(f"{count:,}" for count in sums))
    console.print(table)
    return upstream == ledger == receiver and upstream[0] == DAILY_REQUESTS


def command(*words: str) -> dict[str, Any]:
    """Run a `tollgate` command with --json; return what it printed."""
    ended = subprocess.run(
        [tollgate(), *words, "--json"], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    if ended.returncode != 0:
        raise DemoError(f"tollgate {words[0]} {words[1]}: {ended.stderr.strip()}")
    printed: dict[str, Any] = json.loads(ended.stdout)
    return printed


def start(processes: ExitStack, *words: str) -> dict[str, Any]:
    """Start a `tollgate` server until the demo ends; return what it announced."""
    return processes.enter_context(running(*words))


@contextmanager
def running(*words: str) -> Iterator[dict[str, Any]]:
    """Run a `tollgate` server for the length of a `with` block."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [tollgate(), *words, "--json"], env=environment(), stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                process.wait(10)
                log.seek(0)
                raise DemoError(f"tollgate {words[0]} did not start: {log.read().strip()}")
            yield json.loads(line)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()


def environment() -> dict[str, str]:
    """Return the processes' environment: this machine's own upstream and receiver are allowed, nothing else is set."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TOLLGATE_")}
    return inherited | {"TOLLGATE_ALLOW_PRIVATE_UPSTREAMS": "true", "TOLLGATE_ALLOW_PRIVATE_RECEIVERS": "true"}


def tollgate() -> str:
    """Return the path of the command beside this interpreter."""
    return str(Path(sys.executable).with_name("tollgate"))


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for `condition`, at most WAIT_S."""
    deadline = time.monotonic() + WAIT_S
    with console.status(f"waiting for {what}"):
        while not condition():
            if time.monotonic() > deadline:
                raise DemoError(f"{what} did not come within {WAIT_S} s")
            time.sleep(0.1)  # another process says nothing when it is ready; the loop is bounded


def title(text: str) -> None:
    """Print what comes next."""
    console.print(f"\n[bold]{text}[/]")


def done(text: str) -> None:
    """Print what has been done."""
    console.print(f"  {text}")


def brief(text: str | None) -> str:
    """Shorten an answer for one line."""
    return repr(text if text is None or len(text) <= 48 else text[:48] + "...")


if __name__ == "__main__":
    sys.exit(main())
