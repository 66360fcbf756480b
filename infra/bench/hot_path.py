"""What the hot path costs, beside nginx as a reverse proxy in the same run: `./run bench hot_path [--quick] [--json]`.

The whole pipeline is on: keys, two day and two rate limits, spool, and in one process ledger and deliveries, apart the
publisher on a real Kafka.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.bench import load, role, servers, streams, table
from infra.bench.servers import Subject
from infra.local import kafka

NEEDED = {"nginx": "nginx-light", "wrk": "wrk"}
"""Program to the Debian package that brings it."""
CONNECTIONS, STREAMS = 32, 64
SETTLE_S = 60
_NOT_DONE_S = 300


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int
    loaded_s: int
    alone_s: int
    burst_s: int
    paced_s: int
    keys: tuple[int, ...]
    memory_after: tuple[int, ...]


FULL = Plan(3, 5, 2, 3, 4, keys=(10, 10_000, 1_000_000), memory_after=(1_000, 10_000, 100_000))
QUICK = Plan(1, 2, 1, 1, 1, keys=(10,), memory_after=())


@dataclass
class Watched:
    """A subject, and what must be there once all that was asked is counted."""

    subject: Subject
    unsettled: Callable[[], str | None]
    """What is not as it must be; None: all was counted."""
    refused: int = 0
    memory_mib: dict[int, float] = field(default_factory=dict)


def bench(folder: Path, *, quick: bool = False, as_json: bool = False) -> int:
    """Measure; print a table, or one JSON object; return 1 where anything was not counted."""
    install_missing()
    found, wrong = measure(folder, QUICK if quick else FULL)
    print(json.dumps(found | {"wrong": wrong}, indent=2) if as_json else table.shown(found, CONNECTIONS, STREAMS))
    for line in wrong:
        say(f"WRONG: {line}")
    return 1 if wrong else 0


def measure(folder: Path, plan: Plan) -> tuple[dict[str, Any], list[str]]:
    """Run everything and measure it; return the figures and what was wrong."""
    with contextlib.ExitStack() as stack:
        say("starting nginx, `serve`, Kafka and `serve proxy`")
        broker = stack.enter_context(kafka.running(folder / "kafka"))
        direct, nginx = stack.enter_context(_nginx(folder / "nginx"))
        embedded = stack.enter_context(_embedded(folder / "embedded"))
        with _apart(folder / "apart", broker.bootstrap, plan.keys[0]) as (apart, running):
            gateways = [embedded, apart]
            for each in gateways:
                _remember(each, plan.memory_after)
            rounds = [_round(plan, direct, [nginx, *gateways], number) for number in range(1, plan.rounds + 1)]
            limits = _by_limits(plan, running, nginx)
            with _embedded(folder / "logged", access_log="true") as logged:
                logs = {"off": _beside(nginx, plan, embedded), "on": _beside(nginx, plan, logged)}
            by_keys = {plan.keys[0]: _by_keys(plan, apart, nginx, plan.keys[0])}
            wrong = _wrong(gateways)
        for count in plan.keys[1:]:
            say(f"starting `serve proxy` with {count:,} keys")
            with _apart(folder / f"keys-{count}", broker.bootstrap, count) as (many, _):
                by_keys[count] = _by_keys(plan, many, nginx, count)
                wrong += _wrong([many])
    memory = {each.subject.name: each.memory_mib for each in gateways if each.memory_mib}
    found = {
        "rounds": rounds,
        "medians": table.medians(rounds),
        "limits": limits,
        "access_log": logs,
        "keys": by_keys,
        "memory_mib": memory,
    }
    return found, wrong


def say(text: str) -> None:
    """Tell whoever waits; the figures alone go to stdout."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


# --- what is measured -------------------------------------------------------------------------------------------------


def _round(plan: Plan, direct: Subject, watched: Sequence[Watched], number: int) -> dict[str, dict[str, float]]:
    straight = _paced(direct, plan)
    figures = {each.subject.name: _figures(each, plan, straight["first_us"]) for each in watched}
    said = ", ".join(f"{name} {each['cpu_us']:.1f} us" for name, each in figures.items())
    say(f"round {number} of {plan.rounds}: CPU a request: {said}")
    return figures


def _figures(watched: Watched, plan: Plan, direct_first_us: float) -> dict[str, float]:
    subject = watched.subject
    _loaded(watched, 1)  # warm
    busy, cpu_us = _loaded(watched, plan.loaded_s)
    alone = load.run(subject.port, subject.key, 1, plan.alone_s)
    burst = load.run(subject.burst_port, subject.key, CONNECTIONS, plan.burst_s, slug=servers.BURST, stream=True)
    watched.refused += sum(each.refused + each.lost for each in (alone, burst))
    paced = _paced(subject, plan)
    return {
        "per_second": busy.per_second,
        "cpu_us": cpu_us,
        "p50_us": busy.p50_us,
        "p99_us": busy.p99_us,
        "alone_p50_us": alone.p50_us,
        "alone_p99_us": alone.p99_us,
        "streams_s": burst.per_second,
        **paced,
        "first_added_us": paced["first_us"] - direct_first_us,
    }


def _loaded(watched: Watched, seconds: int, *, key: str | None = None, keys: int = 0) -> tuple[load.Round, float]:
    """Load it; return what wrk saw and the CPU time of one request, in microseconds."""
    subject = watched.subject
    before_us = subject.cpu_us()
    seen = load.run(subject.port, key or subject.key, CONNECTIONS, seconds, keys=keys)
    watched.refused += seen.refused + seen.lost
    return seen, (subject.cpu_us() - before_us) / max(1, seen.answers)


def _paced(subject: Subject, plan: Plan) -> dict[str, float]:
    before_us = subject.cpu_us()
    seen = streams.follow(subject.paced_port, subject.key, servers.PACED, STREAMS, plan.paced_s)
    return {
        "chunk_cpu_us": (subject.cpu_us() - before_us) / seen.chunks,
        "held_back": seen.together / seen.chunks,
        "first_us": seen.first_us,
        "chunk_p50_us": seen.p50_us,
        "chunk_p99_us": seen.p99_us,
        "broken_streams": seen.broken,
    }


def _by_limits(plan: Plan, running: role.Role, nginx: Watched) -> dict[int | str, dict[str, float]]:
    watched = Watched(running.subject, lambda: None)
    return {name: _beside(nginx, plan, watched, key=running.keys[name]) for name in role.LIMITS}


def _by_keys(plan: Plan, watched: Watched, nginx: Watched, count: int) -> dict[str, float]:
    return _beside(nginx, plan, watched, keys=count) | {"memory_mib": watched.subject.memory_mib()}


def _beside(nginx: Watched, plan: Plan, watched: Watched, *, key: str | None = None, keys: int = 0) -> dict[str, float]:
    """Return the medians of CPU a request, and of its ratio to nginx's just before."""
    ours, ratios = [], []
    for _ in range(plan.rounds):
        theirs = _loaded(nginx, plan.alone_s)[1]
        ours.append(_loaded(watched, plan.alone_s, key=key, keys=keys)[1])
        ratios.append(ours[-1] / theirs)
    return {"cpu_us": table.median(ours), "to_nginx": table.median(ratios)}


def _remember(watched: Watched, marks: Sequence[int]) -> None:
    """Note what it holds in memory after so many requests, up to a second's more."""
    asked = 0
    deadline = time.monotonic() + _NOT_DONE_S
    for mark in marks:
        while asked < mark and time.monotonic() < deadline:
            asked += load.run(watched.subject.port, watched.subject.key, CONNECTIONS if asked else 1, 1).answers
        watched.memory_mib[asked] = watched.subject.memory_mib()


# --- who is measured --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _upstreams(folder: Path) -> Iterator[tuple[servers.Upstream, servers.Streaming]]:
    folder.mkdir()
    with servers.upstream(folder / "upstream") as plain, servers.streaming(folder) as streaming:
        yield plain, streaming


@contextlib.contextmanager
def _nginx(folder: Path) -> Iterator[tuple[Subject, Watched]]:
    """Run nginx; return the upstream behind it, which the reader of paced streams asks itself too, and nginx."""
    with _upstreams(folder) as (plain, streaming), servers.reverse_proxy(folder / "proxy", plain, streaming) as nginx:
        direct = Subject("direct", nginx.pid, plain.port, streaming.paced_port, streaming.burst_port, "none")
        yield direct, Watched(nginx, lambda: None)


@contextlib.contextmanager
def _embedded(folder: Path, **settings: str) -> Iterator[Watched]:
    with (
        _upstreams(folder) as (plain, streaming),
        servers.gateway(folder, plain, streaming, **settings) as gateway,
    ):

        def unsettled() -> str | None:
            count, input_tokens, output_tokens = gateway.ledger()
            asked, total = plain.requests(), plain.requests() + streaming.requests()
            if (count, gateway.total()) != (asked, total):
                return f"the upstreams answered {total:,} requests, the ledger has {gateway.total():,}"
            if (input_tokens, output_tokens) != (count * servers.INPUT_TOKENS, count * servers.OUTPUT_TOKENS):
                return f"the ledger has {input_tokens:,} + {output_tokens:,} tokens for {count:,} events"
            return None

        yield Watched(gateway.subject(), unsettled)


@contextlib.contextmanager
def _apart(folder: Path, bootstrap: str, keys: int) -> Iterator[tuple[Watched, role.Role]]:
    with (
        _upstreams(folder) as (plain, streaming),
        role.proxy(folder / "proxy", bootstrap, plain, streaming, keys) as running,
    ):

        def unsettled() -> str | None:
            published, asked = running.published(), plain.requests() + streaming.requests()
            return None if published == asked else f"the upstreams answered {asked:,}, Kafka has {published:,} events"

        yield Watched(running.subject, unsettled), running


def _wrong(gateways: Sequence[Watched]) -> list[str]:
    """Return what is not as it must be once all has settled, or is not within SETTLE_S."""
    found = []
    for each in gateways:
        deadline = time.monotonic() + SETTLE_S
        while (problem := each.unsettled()) is not None and time.monotonic() < deadline:
            time.sleep(0.2)  # another process says nothing when it is ready; the loop is bounded
        if problem is not None:
            found.append(f"{each.subject.name}: {problem}")
        if each.refused:
            found.append(f"{each.subject.name}: {each.refused:,} requests were refused or lost")
    return found


def install_missing() -> None:
    """Install nginx and wrk where we may, else say what to type. Raise BenchError."""
    os.environ["PATH"] += os.pathsep + "/usr/sbin"  # where Debian keeps nginx; a user's PATH has it not
    missing = [package for program, package in NEEDED.items() if shutil.which(program) is None]
    if not missing:
        return
    line = f"apt-get install -y --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise servers.BenchError(f"needs {' and '.join(missing)}; type: sudo {line}")
    say(line)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-q"], line.split()):
        result = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=300)
        if result.returncode:
            raise servers.BenchError(f"{' '.join(command)} failed:\n{result.stdout}{result.stderr}")
