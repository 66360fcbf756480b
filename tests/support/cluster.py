"""The product as separate processes, for tests: each can be killed and replaced alone."""

import base64
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.local import parts
from infra.local.parts import Part
from runtime.kafka.writer import Kafka
from tests.support import processes
from tests.support.processes import Server

_AT_ONCE = 4
"""Starting a process costs a second of CPU: more at once only wait for each other."""


@dataclass
class Cluster:
    """The running processes by their names: `control-1`, `proxy-1`, `proxy-2`, `metering-1`, `webhooks-1` ..."""

    folder: Path
    settings: dict[str, str]
    parts: dict[str, Part]
    stack: ExitStack
    servers: dict[str, Server] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start a process, on the data directory it had before, and wait until it announces itself."""
        part = self.parts[name]
        running = processes.server(self.folder / f"{name}.log", *part.words()[:-1], **self.settings)
        self.servers[name] = self.stack.enter_context(running)

    def kill(self, name: str) -> None:
        """End a process as a power switch would."""
        self.servers[name].kill()

    def replace(self, name: str) -> None:
        """Kill a process and start another in its place."""
        self.kill(name)
        self.start(name)

    def stop(self, name: str) -> int:
        """Ask a process to end; return its exit code."""
        return self.servers[name].stop()

    def url(self, name: str) -> str:
        """Return where a process with a public port listens now."""
        url: str = self.servers[name].announced["url"]
        return url

    def ops_url(self, name: str) -> str:
        """Return where a process's operator's port is now."""
        url: str = self.servers[name].announced["ops_url"]
        return url

    @property
    def control(self) -> str:
        """Where management is."""
        return self.url("control-1")

    @property
    def proxies(self) -> list[str]:
        """Where inference is, one URL a proxy."""
        return [self.url(name) for name, part in self.parts.items() if part.role == "proxy"]

    def unready(self) -> dict[str, str]:
        """Return what each process lacks that no traffic may come to."""
        lacking = {name: parts.unready(self.ops_url(name)) for name in self.servers}
        return {name: lack for name, lack in lacking.items() if lack is not None}

    def command(self, *words: str) -> dict[str, Any]:
        """Run a `tollgate` command on this installation; return what it printed."""
        return processes.answer(*words, settings=self.settings)


@contextmanager
def running(
    folder: Path,
    kafka: Kafka,
    database_url: str,
    counts: Mapping[str, int] = parts.COUNTS,
    partitions: int = 4,
    **settings: str,
) -> Iterator[Cluster]:
    """Migrate `database_url` and run the processes of `counts` for the length of a `with` block.

    `settings` are more of the product's, by their names in lower case.
    """
    master_key = base64.b64encode(os.urandom(32)).decode()
    shared = parts.settings(kafka.bootstrap, database_url, master_key, partitions)
    shared |= {"kafka_topic_prefix": kafka.prefix} | settings
    named = {part.name: part for part in parts.parts(folder, counts)}
    processes.run("migrate", "--data", str(folder / "migrate"), settings=shared)
    with ExitStack() as stack:
        cluster = Cluster(folder, shared, named, stack)
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            list(threads.map(cluster.start, named))
        yield cluster
