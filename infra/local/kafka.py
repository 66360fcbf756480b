"""A Kafka broker on this machine: one KRaft node, from the jars that infra/kafka/pom.xml names."""

import base64
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import uuid
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from infra.local import process
from infra.local.process import LocalError, Service

ROOT = Path(__file__).resolve().parents[2]
JARS = (ROOT / ".tools" / "kafka").resolve()
POM = ROOT / "infra" / "kafka" / "pom.xml"
_DOWNLOAD_S = 600
_FORMAT_S = 180
_JVM = (
    *("-Xms64m", "-Xmx512m", "-XX:+UseSerialGC"),
    *(
        "-Xlog:cds=off",
        "-Xlog:cds+dynamic=off",
    ),  # an archive that does not fit is no news: classes are loaded from jars
    *(f"-Dorg.slf4j.simpleLogger.{name}" for name in ("defaultLogLevel=warn", "showDateTime=true")),
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)
CLASSES = JARS / f"classes-{zlib.crc32(str(JARS).encode()):08x}.jsa"
"""Kafka's classes as the JVM keeps them: a start that reads this one file takes half the CPU of one that unpacks them
from the jars (2.4 to 4.5 s, formatting included). Made once, at the download, for jars at this path; a Java that it was
not made by passes it over."""
_ARCHIVE_S = 120
_METADATA_API, _METADATA_VERSION = 3, 4


@dataclass
class Broker(Service):
    """A broker of one node."""

    controller_port: int
    more: dict[str, str] = field(default_factory=dict)
    """Further properties, which win over ours: other listeners, say."""
    jvm: Sequence[str] = ()
    """Further words for the JVM."""
    scram: Sequence[str] = ()
    """Users of SCRAM, as StorageTool's --add-scram takes them: SCRAM-SHA-512=[name=N,password=P]."""

    @property
    def bootstrap(self) -> str:
        """Where clients find it: host:port."""
        return f"{process.HOST}:{self.port}"

    def launch(self, logs: Path | None = None) -> None:
        """Start it without waiting."""
        words = [_java(), *_JVM, *_archived(), *self.jvm, "-cp", f"{JARS}/*", "kafka.Kafka", str(self.configure())]
        self.started = process.start("Kafka", words, (logs or self.folder) / "kafka.log")

    def answers(self) -> bool:
        """Whether it knows itself as a broker."""
        return brokers(self.port) > 0

    @property
    def data(self) -> Path:
        """Where its data lie."""
        return self.folder / "data"

    def configure(self) -> Path:
        """Write its properties and return their file; format its data where they are not yet. Raise LocalError."""
        path = self.folder / "server.properties"
        lines = properties(self.port, self.controller_port) | {"log.dirs": str(self.data)} | self.more
        path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()), encoding="utf-8")
        if not (self.data / "meta.properties").exists():
            _format(path, self.scram)
        return path


def properties(port: int, controller_port: int, listen: str = process.HOST) -> dict[str, str]:
    """Return a single node's settings, except for where its data lie; clients reach it at 127.0.0.1:`port`.

    Ports, and as many replicas of Kafka's own topics as there are nodes; all else is Kafka's default.
    """
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": f"PLAINTEXT://{listen}:{port},CONTROLLER://{process.HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{process.HOST}:{port}",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": f"1@{process.HOST}:{controller_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
    }


def at(folder: Path, port: int | None = None) -> Broker:
    """Return a broker of this folder that is not started yet; without a port, one on a free port."""
    folder.mkdir(parents=True, exist_ok=True)
    client, controller = process.free_ports(2)
    return Broker(folder.resolve(), port or client, controller)


def running(folder: Path, port: int | None = None) -> AbstractContextManager[Broker]:
    """Run a broker for the length of a `with` block, its data and log in `folder`. Raise LocalError."""
    return process.running(at(folder, port))


def download() -> None:
    """Bring the jars to .tools/kafka with Maven, where they are not there yet. Raise LocalError."""
    JARS.parent.mkdir(exist_ok=True)
    with (JARS.parent / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs at once: the second waits and finds them
        if not downloaded():
            _bring()
        if not CLASSES.exists():
            _archive()


def _bring() -> None:
    made = JARS.with_name(f"kafka.{os.getpid()}")
    words = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={made}"]
    try:
        ended = subprocess.run(words, capture_output=True, text=True, timeout=_DOWNLOAD_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LocalError(f"Maven did not bring Kafka's jars: {error}") from None
    if ended.returncode != 0:
        raise LocalError(f"Maven did not bring Kafka's jars:\n{(ended.stdout + ended.stderr)[-1500:]}")
    shutil.rmtree(JARS, ignore_errors=True)
    made.rename(JARS)
    (JARS / POM.name).write_bytes(POM.read_bytes())  # what they were brought for: another pom brings them anew


def _archive() -> None:
    """Run a broker once, and have its JVM write down the classes that it used. Without them a start takes longer."""
    made = CLASSES.with_name(f"{CLASSES.name}.{os.getpid()}")
    with tempfile.TemporaryDirectory(prefix="tollgate-kafka-") as folder:
        broker = at(Path(folder))
        broker.jvm = (f"-XX:ArchiveClassesAtExit={made}",)
        with process.running(broker):
            pass
    if made.exists():
        made.rename(CLASSES)


def downloaded() -> bool:
    """Whether the jars are in .tools/kafka, those that the pom names now."""
    kept = JARS / POM.name
    return kept.exists() and kept.read_bytes() == POM.read_bytes()


def _format(configuration: Path, scram: Sequence[str]) -> None:
    identity = "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]  # never begins with a dash
    words = [
        _java(),
        *_JVM,
        *_archived(),
        "-cp",
        f"{JARS}/*",
        "kafka.tools.StorageTool",
        "format",
        "-t",
        identity,
        "-c",
        str(configuration),
    ]
    words += [word for user in scram for word in ("--add-scram", user)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=_FORMAT_S, check=False)
    if ended.returncode != 0:
        raise LocalError(f"Kafka's data folder cannot be formatted:\n{(ended.stdout + ended.stderr)[-1500:]}")


def _archived() -> Sequence[str]:
    return (f"-XX:SharedArchiveFile={CLASSES}",) if CLASSES.exists() else ()


def _java() -> str:
    found = shutil.which("java")
    if found is None:
        raise LocalError("there is no java")
    return found


def brokers(port: int, host: str = process.HOST) -> int:
    """Ask a broker for metadata of no topic; return how many brokers the answer names, 0 where none answers."""
    client = b"probe"
    head = struct.pack(">hhih", _METADATA_API, _METADATA_VERSION, 1, len(client)) + client
    asked = head + struct.pack(">ib", 0, 0)  # no topics; do not create any
    answer = process.ask(port, struct.pack(">i", len(asked)) + asked, 16, host)
    # size, correlation id, throttle time, number of brokers
    return int(struct.unpack(">iiii", answer)[3]) if len(answer) == 16 else 0
