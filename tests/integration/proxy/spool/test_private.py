"""Whose eyes a spool's files are for."""

import os
from pathlib import Path

from proxy.spool import file as spool_file


def test_every_file_of_a_spool_is_its_owners_alone_whatever_the_folder_and_the_umask_allow(
    tmp_path: Path,
) -> None:
    """Whoever could write one could have events that nobody has counted taken for counted."""
    folder = tmp_path / "spools"
    folder.mkdir()
    folder.chmod(0o777)
    before = os.umask(0)
    try:
        file = spool_file.SpoolFile(spool_file.create(folder, "boot"))
        file.drop(1, 0)
        file.segments.newest.write_bytes(b"half a write")
        file.segments.cut(4)
        modes = {path.name: path.stat().st_mode & 0o777 for path in file.path.iterdir()}
        assert {name.rpartition(".")[2] for name in modes} == {"identity", "state", "log", "torn"}
        assert modes == dict.fromkeys(modes, 0o600)
        assert file.path.stat().st_mode & 0o777 == 0o700
        file.remove()
        assert (folder / "drained").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
