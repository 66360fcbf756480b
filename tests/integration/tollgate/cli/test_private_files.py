"""Whose eyes the data directory's files are for."""

import os
from pathlib import Path

from click.testing import CliRunner, Result
from sqlalchemy import text

from runtime.database import engines as databases
from tollgate.cli import workspace as cli


def run(data: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli.workspace, [*arguments, "--data", str(data)])


def test_every_file_of_the_data_directory_is_its_owners_alone_whatever_the_folder_and_the_umask_allow(
    tmp_path: Path,
) -> None:
    """It holds hashes of keys, sealed secrets and who called what; an older one of mode 0644 is put right."""
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o777)
    before = os.umask(0)
    try:
        assert run(data, "create", "--name", "lab", "--org-prefix", "acme").exit_code == 0
        with databases.sqlite(data / "tollgate.db") as database:
            database.read_now(lambda connection: connection.execute(text("SELECT 1")))
            modes = {path.name: path.stat().st_mode & 0o777 for path in data.iterdir()}
        assert modes == dict.fromkeys(modes, 0o600)
        assert {"tollgate.db", "tollgate.db-wal", "tollgate.db-shm"} <= modes.keys()
        (data / "tollgate.db").chmod(0o644)
        assert run(data, "list").exit_code == 0
        assert (data / "tollgate.db").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
