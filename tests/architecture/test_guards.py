"""The guards of tests/conftest.py fail the tests they are there to fail, and no others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture import sources

TESTS = {
    "socket": "import socket\ndef test_it(): socket.socket().close()\n",
    "pair": "import socket\ndef test_it():\n    for end in socket.socketpair(): end.close()\n",
    "task": """
import asyncio
async def boom(): raise ValueError("boom")
async def test_it():
    asyncio.ensure_future(boom())
    await asyncio.sleep(0)
""",
    "thread": """
import threading
def boom(): raise ValueError("boom")
def test_it():
    thread = threading.Thread(target=boom)
    thread.start()
    thread.join()
""",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Run all of TESTS in folders of each kind, in a pytest of their own."""
    work = tmp_path_factory.mktemp("guards")
    conftest = (sources.ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
    (work / "conftest.py").write_text(conftest, encoding="utf-8")
    for folder in ("unit", "property", "integration"):
        (work / folder).mkdir()
        for name, text in TESTS.items():
            (work / folder / f"test_{folder}_{name}.py").write_text(text, encoding="utf-8")
    options = [
        "-q",
        "-rA",
        "-c",
        str(sources.ROOT / "pyproject.toml"),
        "--rootdir",
        str(work),
        "-p",
        "no:cacheprovider",
    ]
    command = [sys.executable, "-m", "pytest", *options, str(work)]
    environment = os.environ | {"PYTHONPATH": str(sources.ROOT)}  # the conftest names plugins of ours
    done = subprocess.run(command, check=False, cwd=work, env=environment, capture_output=True, text=True, timeout=60)
    return done.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("unit_socket", "FAILED"),
        ("property_socket", "FAILED"),
        ("integration_socket", "PASSED"),
        ("unit_pair", "PASSED"),
        ("unit_task", "ERROR"),
        ("integration_task", "ERROR"),
        ("unit_thread", "FAILED"),
        ("integration_thread", "FAILED"),
    ],
)
def test_guard(report: str, name: str, said: str) -> None:
    folder = Path(name.partition("_")[0])
    words = {line.split()[0] for line in report.splitlines() if f"{folder / f'test_{name}.py'}::test_it" in line}
    assert words - {"PASSED"} == {said} - {"PASSED"}, report
    assert words, report
