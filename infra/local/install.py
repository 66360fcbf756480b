"""Finds out which programs of a service this machine lacks, and installs them where that is wanted and allowed."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from infra.local import kafka, postgres
from infra.local.process import LocalError

APT_S = 900
_JAVA_NEEDED = 17
_JAVAS = ("openjdk-17-jre-headless", "default-jre-headless")
"""The packages that bring a Java for Kafka, best first; which of them a system has depends on its age."""
_POLICY = Path("/usr/sbin/policy-rc.d")
_NO_CLUSTER = Path("/etc/postgresql-common/createcluster.conf")


def ensure(service: str, *, install: bool) -> None:
    """See to it that `service` (a name of `CHECKS`) can be started here.

    With `install` it installs Debian packages that are missing, as root. Raise LocalError, which names the line that
    installs all that any service lacks.
    """
    packages = CHECKS[service]()
    if packages:
        if not (install and os.geteuid() == 0 and shutil.which("apt-get")):
            raise LocalError(f"this machine lacks {' and '.join(packages)}; type: {line(missing())}")
        with _alone():
            if packages := CHECKS[service]():  # another process may have installed them meanwhile
                _install(service, packages)
    if service == "kafka":
        kafka.download()


@contextmanager
def _alone() -> Iterator[None]:
    """Wait for another process that installs: several test runners begin at once, and apt-get refuses the second."""
    kafka.JARS.parent.mkdir(exist_ok=True)
    with (kafka.JARS.parent / "install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(service: str, packages: list[str]) -> None:
    print(f"installing the system's packages {' '.join(packages)}", file=sys.stderr, flush=True)
    _apt("update")
    _apt_install(CHECKS[service]())  # which of them there are is known only now
    if still := CHECKS[service]():
        raise LocalError(f"apt-get installed {' '.join(packages)}, and still there is no {' '.join(still)}")


def missing() -> list[str]:
    """Return the packages that any service lacks."""
    return [package for check in CHECKS.values() for package in check()]


def line(packages: list[str]) -> str:
    """Return the one line to type."""
    return f"sudo apt-get install {' '.join(packages)}"


def _kafka_lacks() -> list[str]:
    lacks = [] if _java_version() >= _JAVA_NEEDED else [_java_package()]
    return lacks if kafka.downloaded() or shutil.which("mvn") else [*lacks, "maven"]


def _postgres_lacks() -> list[str]:
    try:
        postgres.binary("initdb")
        postgres.binary("postgres")
    except LocalError:
        return ["postgresql"]
    return []


def _redis_lacks() -> list[str]:
    return [] if shutil.which("redis-server") else ["redis-server"]


def _npm_lacks() -> list[str]:
    return [] if shutil.which("npm") else ["npm"]


def _lacks(program: str, package: str) -> list[str]:
    return [] if shutil.which(program, path="/usr/sbin:/usr/bin") else [package]


CHECKS: dict[str, Callable[[], list[str]]] = {
    "kafka": _kafka_lacks,
    "postgres": _postgres_lacks,
    "redis": _redis_lacks,
    "pgbouncer": partial(_lacks, "pgbouncer", "pgbouncer"),
    "nginx": partial(_lacks, "nginx", "nginx-light"),
    "caddy": partial(_lacks, "caddy", "caddy"),
    "npm": _npm_lacks,
    "chromium": partial(_lacks, "chromium", "chromium"),
    "prometheus": partial(_lacks, "promtool", "prometheus"),
}
"""For each service, what says which packages it lacks."""


def feature_version(said: str) -> int:
    """Return the number that counts of what `java -version` said: 17 of 17.0.15, 8 of 1.8.0; 0 of anything else."""
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found[1]) if found else 0


def _java_version() -> int:
    try:
        said = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=30, check=False).stderr
    except OSError:
        return 0
    return feature_version(said)


def _java_package() -> str:
    best, fallback = _JAVAS
    if shutil.which("apt-cache") is None:
        return fallback
    known = subprocess.run(["apt-cache", "show", best], capture_output=True, timeout=60, check=False)
    return best if known.returncode == 0 else fallback


def _apt_install(packages: list[str]) -> None:
    with _no_server_starts():
        if "postgresql" in packages and not _NO_CLUSTER.exists():
            _apt("install", "-y", "--no-install-recommends", "postgresql-common")
            settings = _NO_CLUSTER.read_text(encoding="utf-8") if _NO_CLUSTER.exists() else ""
            _NO_CLUSTER.write_text(f"{settings}\ncreate_main_cluster = false\n", encoding="utf-8")
        _apt("install", "-y", "--no-install-recommends", *packages)


def _apt(*words: str) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    # Another apt may hold its lock: wait for it, as long as for anything else.
    command = ["apt-get", "-q", "-o", f"DPkg::Lock::Timeout={APT_S}", *words]
    try:
        ended = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=APT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LocalError(f"{' '.join(command)} did not end within {APT_S} s") from None
    if ended.returncode != 0:
        raise LocalError(f"{' '.join(command)} failed:\n{ended.stdout[-1500:]}")


@contextmanager
def _no_server_starts() -> Iterator[None]:
    """Keep Debian from starting what it installs: our servers are our own, on ports of their own."""
    ours = not _POLICY.exists()
    if ours:
        _POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")  # 101: not allowed (invoke-rc.d's interface)
        _POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            _POLICY.unlink()
