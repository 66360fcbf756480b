"""The processes of one installation on this machine: which there are, with which words and settings they start."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

COUNTS: Mapping[str, int] = {"control": 1, "proxy": 2, "metering": 2, "webhooks": 2}
"""How many processes of each role."""
PUBLIC = {"control", "proxy"}
"""The roles with a port of their own, beside the operator's."""
READY_S = 60
_ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class Part:
    """One process; a name like `proxy-2`, and a data directory of that name."""

    name: str
    role: str
    folder: Path

    def words(self, port: int = 0, ops_port: int = 0) -> list[str]:
        """Return what stands after `tollgate`; 0 picks a free port, which the process announces."""
        public = ["--port", str(port)] if self.role in PUBLIC else []
        return ["serve", self.role, "--data", str(self.folder), *public, "--ops-port", str(ops_port), "--json"]


def parts(folder: Path, counts: Mapping[str, int] = COUNTS) -> list[Part]:
    """Return the processes of an installation whose data directories lie in `folder`; control first."""
    return [
        Part(f"{role}-{number}", role, folder / f"{role}-{number}")
        for role, count in counts.items()
        for number in range(1, count + 1)
    ]


def settings(bootstrap: str, database_url: str, master_key: str, partitions: int = 4) -> dict[str, str]:
    """Return what all processes and commands share, by the settings' names; for a single broker."""
    return {
        "kafka_bootstrap": bootstrap,
        "kafka_partitions": str(partitions),
        "kafka_replication": "1",
        "kafka_min_insync_replicas": "1",
        "database_url": database_url,
        "master_key": master_key,
    }


def unready(ops_url: str) -> str | None:
    """Ask a process whether traffic may come; return what it lacks, or None."""
    try:
        answer = httpx.get(f"{ops_url}/readyz", timeout=_ANSWER_S)
    except httpx.HTTPError as error:
        return f"/readyz does not answer ({type(error).__name__})"
    return None if answer.status_code == 200 else f"/readyz answers {answer.status_code}: {answer.text[:300]}"
