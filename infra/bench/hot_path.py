"""The hot path: requests/s of the whole pipeline beside nginx as a reverse proxy, in one run.

Never reports a rate without having checked that every answer was counted.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from infra.bench import load, servers

NEEDED = {"nginx": "nginx-light", "wrk": "wrk"}
"""Program to the Debian package that brings it."""
ROUNDS, SECONDS, CONNECTIONS = 3, 5, 32
WARM_UP_S = 2
SETTLE_S = 60
NOTE = """\
Upstream of both: an nginx of its own that answers each POST with the same completion (a Python upstream would be
the bottleneck of nginx). wrk and the upstreams share one core, nginx or the gateway has the other, where there are
two. Medians of {rounds} alternating rounds of {seconds} s at {connections} connections."""


def bench(folder: Path) -> int:
    """Measure for a minute."""
    install_missing()
    return measure(folder, ROUNDS, SECONDS, CONNECTIONS)


def measure(folder: Path, rounds: int, seconds: int, connections: int) -> int:
    """Measure, print the table, and check that the ledger has what was answered."""
    with contextlib.ExitStack() as stack:
        ours, theirs = (stack.enter_context(servers.upstream(folder / name)) for name in ("ours", "theirs"))
        nginx = stack.enter_context(servers.reverse_proxy(folder / "nginx", theirs))
        gateway = stack.enter_context(servers.gateway(folder, ours))
        seen = []  # every round at the gateway, the warm-up too: the ledger has them all
        print("bench: warming up", flush=True)
        load.run(theirs.port, gateway.key, connections, WARM_UP_S)
        load.run(nginx, gateway.key, connections, WARM_UP_S)
        seen.append(load.run(gateway.port, gateway.key, connections, WARM_UP_S))
        at_nginx = []
        for number in range(1, rounds + 1):
            at_nginx.append(load.run(nginx, gateway.key, connections, seconds))
            seen.append(load.run(gateway.port, gateway.key, connections, seconds))
            rates = f"nginx {at_nginx[-1].per_second:,.0f}/s, tollgate {seen[-1].per_second:,.0f}/s"
            print(f"bench: round {number} of {rounds}: {rates}", flush=True)
        alone = load.run(theirs.port, gateway.key, connections, seconds)
        print_table({"upstream alone": [alone], "nginx": at_nginx, "tollgate": seen[1:]})
        print(NOTE.format(rounds=rounds, seconds=seconds, connections=connections))
        return check(gateway, ours, seen, connections)


def print_table(rows: dict[str, Sequence[load.Round]]) -> None:
    """Print the medians, and each row's rate as a part of nginx's."""
    base = load.median(rows["nginx"]).per_second
    print(f"\n{'':16}{'requests/s':>12}{'of nginx':>10}{'p50 ms':>9}{'p99 ms':>9}")
    for name, rounds in rows.items():
        row = load.median(rounds)
        share = f"{row.per_second / base:.1%}"
        print(f"{name:16}{row.per_second:>12,.0f}{share:>10}{row.p50_us / 1000:>9.2f}{row.p99_us / 1000:>9.2f}")
    print()


def check(gateway: servers.Gateway, upstream: servers.Upstream, seen: Sequence[load.Round], connections: int) -> int:
    """Compare the ledger with the upstream's own count (equal) and with wrk's.

    wrk hangs up at the end of a round with up to one request a connection under way: the upstream answered it and it
    is billed, but wrk has not counted it. So the ledger may have that many more than wrk, and never fewer.
    """
    count, input_tokens, output_tokens = settled(gateway, upstream)
    answered = upstream.requests()
    good = sum(each.answers - each.refused for each in seen)
    bad = sum(each.refused + each.lost for each in seen)
    under_way = connections * len(seen)
    print(f"ledger {count:,} events, upstream {answered:,} requests, wrk {good:,} good answers and {bad:,} others")
    wrong = []
    if count != answered:
        wrong.append(f"the upstream answered {answered:,} requests, the ledger has {count:,}")
    if not good <= count <= good + under_way:
        wrong.append(f"wrk saw {good:,} good answers (and up to {under_way:,} under way), the ledger has {count:,}")
    if (input_tokens, output_tokens) != (count * servers.INPUT_TOKENS, count * servers.OUTPUT_TOKENS):
        wrong.append(f"the ledger has {input_tokens:,} + {output_tokens:,} tokens for {count:,} events")
    if bad:
        wrong.append(f"{bad:,} requests were refused or lost")
    for line in wrong:
        print(f"bench: WRONG: {line}")
    return 1 if wrong else 0


def settled(gateway: servers.Gateway, upstream: servers.Upstream) -> tuple[int, int, int]:
    """Give the ledger once it has what the upstream answered, or as it is after SETTLE_S."""
    deadline = time.monotonic() + SETTLE_S
    while (counted := gateway.ledger())[0] != upstream.requests() and time.monotonic() < deadline:
        time.sleep(0.2)  # another process says nothing when it is ready; the loop is bounded
    return counted


def install_missing() -> None:
    """Install nginx and wrk where we may, else say what to type. Raises BenchError."""
    os.environ["PATH"] += os.pathsep + "/usr/sbin"  # where Debian keeps nginx; a user's PATH has it not
    missing = [package for program, package in NEEDED.items() if shutil.which(program) is None]
    if not missing:
        return
    line = f"apt-get install -y --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise servers.BenchError(f"needs {' and '.join(missing)}; type: sudo {line}")
    print(f"bench: {line}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-q"], line.split()):
        result = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=300)
        if result.returncode:
            raise servers.BenchError(f"{' '.join(command)} failed:\n{result.stdout}{result.stderr}")
