"""This release and the next one side by side under load: upgraded role by role, back, forth again, finished."""

import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from runtime.kafka.writer import Kafka
from tests.architecture import sources
from tests.e2e.apart import lab as labs
from tests.e2e.apart.crowd import SLUG
from tests.e2e.apart.lab import Lab
from tests.e2e.conftest import eventually
from tests.support import cluster as clusters
from tests.support import processes
from tollgate import migrations

COUNTS = {"control": 1, "proxy": 2, "metering": 1, "webhooks": 1}
ORDER = ("proxy-1", "proxy-2", "control-1", "metering-1", "webhooks-1")
ASKING = {"model": SLUG, "messages": [{"role": "user", "content": "How are you?"}]}
MIGRATION = """
from alembic import op
import sqlalchemy as sa
revision, down_revision, branch_labels, depends_on = "9999", "{before}", None, None
def upgrade():
    op.add_column("usage_event", sa.Column("next", sa.String(), nullable=True))
    op.create_table("next_thing", sa.Column("id", sa.String(), primary_key=True))
def finish(connection):
    connection.exec_driver_sql("ALTER TABLE usage_event DROP COLUMN route")
"""
"""What the next release's schema has, and what it takes away once it is finished."""


def next_release(folder: Path) -> Path:
    """Make a copy of the product with another migration; return its `tollgate`."""
    packages = {".".join(path.parts[:1]) for path in sources.modules()} - {"tests", "infra"}
    for package in sorted(packages):
        source = sources.ROOT / package
        if source.is_dir():
            shutil.copytree(source, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    text = MIGRATION.format(before=migrations.known()[-1])
    (folder / "tollgate" / "migrations" / "versions" / "9999_next.py").write_text(text, encoding="utf-8")
    command = folder / "next-tollgate"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} -P -m tollgate "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    return command


@contextmanager
def loaded(lab: Lab, key: str) -> Iterator[list[int]]:
    """Call all the while, as behind a load balancer: a proxy that is not ready is asked for nothing."""
    stopped, statuses = threading.Event(), list[int]()

    def call() -> None:
        headers = {"Authorization": f"Api-Key {key}"}
        with httpx.Client(timeout=60, headers=headers) as client:
            while not stopped.is_set():
                for proxy in lab.cluster.proxies:
                    try:
                        statuses.append(client.post(f"{proxy}/v1/chat/completions", json=ASKING).status_code)
                    except httpx.ConnectError:
                        continue  # it is being replaced: nobody has the call, and the next proxy gets it

    with ThreadPoolExecutor(2) as threads:
        calling = [threads.submit(call) for _ in range(2)]
        try:
            yield statuses
        finally:
            stopped.set()
        for one in calling:
            one.result()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("order", [("proxy-1", "metering-1"), pytest.param(ORDER, marks=pytest.mark.long)], ids=len)
def test_no_call_fails_and_none_counts_twice(
    kafka: Kafka, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: tuple[str, ...]
) -> None:
    this, coming = processes.TOLLGATE, str(next_release(tmp_path / "next"))
    with clusters.running(tmp_path, kafka, postgres_url, COUNTS) as cluster, labs.on(cluster, tmp_path) as lab:
        _, key = lab.customer("acme")

        def replaced(names: tuple[str, ...], program: str) -> None:
            monkeypatch.setattr(processes, "TOLLGATE", program)
            for name in names:
                assert cluster.stop(name) == 0
                cluster.start(name)
                eventually(lambda: not cluster.unready())

        eventually(lambda: not cluster.unready())
        with loaded(lab, key) as statuses:
            monkeypatch.setattr(processes, "TOLLGATE", coming)
            assert "9999" not in processes.run("migrate", settings=cluster.settings).stderr
            add_kind(postgres_url)
            replaced(order, coming)
            replaced(order[::-1], this)
            replaced(order[:-1], coming)
        assert set(statuses) == {200}, statuses
        assert len(statuses) > len(order)
        for name in order:
            said = (tmp_path / f"{name}.log").read_text(encoding="utf-8")
            assert ("UnknownKindError" if name.startswith("proxy") else "schema 9999 is a newer release's") in said
        lab.published()
        code, report = lab.reconcile()
        assert (code, report["agrees"], report["gaps"]) == (0, True, []), report

        assert cluster.stop("metering-1") == cluster.stop("webhooks-1") == 0
        assert processes.answer("migrate", "--finish", settings=cluster.settings)["finished"] == "9999"
        monkeypatch.setattr(processes, "TOLLGATE", this)
        refused = processes.run("serve", "metering", "--ops-port", "0", check=False, settings=cluster.settings)
        assert refused.returncode != 0
        assert "schema 9999 is newer than this program" in refused.stderr


def add_kind(url: str) -> None:
    """Change the configuration as only the next release can."""
    with psycopg.connect(url, autocommit=True) as connection, connection.transaction():
        version = connection.execute("UPDATE config_version SET version = version + 1 RETURNING version").fetchone()
        assert version is not None
        connection.execute(
            "INSERT INTO config_change (version, kind, id, record, created_at) VALUES (%s, 'next', 'a', '{}', now())",
            version,
        )
