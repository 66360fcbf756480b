"""Real services in Docker, where a daemon answers: the second place that `tests/support/services.py` looks in."""

import gc
import importlib
import warnings
from contextlib import ExitStack
from functools import cache
from typing import Any

from infra.local import kafka, process
from infra.local.process import LocalError

KAFKA_IMAGE = "apache/kafka:4.1.1"
POSTGRES_IMAGE = "postgres:17"
REDIS_IMAGE = "redis:8"
_CONTROLLER_PORT = 9093
_ANSWER_S = 3


@cache
def _daemon_answers() -> str | None:
    """Ask once; return what is wrong, or None."""
    docker: Any = importlib.import_module("docker")  # only a run that looks for services pays for it
    wrong = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            docker.from_env(timeout=_ANSWER_S).close()  # it asks for the daemon's version
        except docker.errors.DockerException as error:
            wrong = f"no Docker daemon answers ({type(error).__name__})"
        gc.collect()  # a client that finds no daemon leaves its socket to the collector
    return wrong


def _start(stack: ExitStack, image: str, ports: dict[int, int], settings: dict[str, str], *command: str) -> None:
    """Run a container until `stack` closes; `ports` are its own ports and the local ones they are reached at."""
    if wrong := _daemon_answers():
        raise LocalError(wrong)
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - slow to import

    container: Any = DockerContainer(image).with_envs(**settings)
    for inside, outside in ports.items():
        container = container.with_bind_ports(inside, outside)
    if command:
        container = container.with_command(list(command))
    try:
        container.start()
    except Exception as error:  # noqa: BLE001 - see above
        raise LocalError(f"Docker does not run {image}: {error}") from None
    stack.callback(container.stop)


def start_kafka(stack: ExitStack) -> str:
    """Run Kafka with the settings of a local one; return its bootstrap address. Raise LocalError."""
    (port,) = process.free_ports(1)
    settings = kafka.properties(port, _CONTROLLER_PORT, listen="0.0.0.0")
    named = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in settings.items()}
    _start(stack, KAFKA_IMAGE, {port: port}, named)
    return f"{process.HOST}:{port}"


def start_postgres(stack: ExitStack) -> str:
    """Run PostgreSQL; return its superuser's URL. Raise LocalError."""
    (port,) = process.free_ports(1)
    settings = {"POSTGRES_HOST_AUTH_METHOD": "trust"}
    command = ("postgres", "-c", "max_connections=300", "-c", "fsync=off")
    _start(stack, POSTGRES_IMAGE, {5432: port}, settings, *command)
    return f"postgresql://postgres@{process.HOST}:{port}/postgres"


def start_redis(stack: ExitStack) -> str:
    """Run Redis; return its URL. Raise LocalError."""
    (port,) = process.free_ports(1)
    _start(stack, REDIS_IMAGE, {6379: port}, {})
    return f"redis://{process.HOST}:{port}/0"
