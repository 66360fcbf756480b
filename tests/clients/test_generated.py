"""Clients that others generate from the served description, used against a real server: four languages."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.clients import environments
from tests.support import processes

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

PROGRAMS = Path(__file__).parent / "programs" / "generated"
WITHIN_S = 600
THRESHOLD = 2**53
_LEFT_OUT = "apiTests=false,modelTests=false,apiDocs=false,modelDocs=false"


@dataclass(frozen=True)
class Api:
    """A running gateway's management, and its description in a file."""

    url: str
    key: str
    described: Path


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("generated")
    words = ("--name", "lab", "--org-prefix", "lab", "--data", str(folder / "data"))
    key = processes.answer("workspace", "create", *words)["api_key"]
    serve = ("serve", "--data", str(folder / "data"), "--port", "0", "--ops-port", "0")
    with processes.server(folder / "serve.log", *serve, allow_private_upstreams="true") as gateway:
        url = gateway.announced["url"]
        described = folder / "openapi.json"
        described.write_bytes(httpx.get(f"{url}/schema/openapi.json").content)
        yield Api(url, key, described)


def run(*words: str | Path, cwd: Path, **told: str) -> str:
    """Run a program to its end; return what it printed."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    ended = subprocess.run(
        words, cwd=cwd, env=environment | told, capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout


def generate(api: Api, language: str, into: Path, *more: str) -> None:
    jar = next(environments.java("openapi-generator").glob("*.jar"))
    words = ["java", "-XX:TieredStopAtLevel=1", "-jar", str(jar), "generate", "-i", str(api.described)]
    run(*words, "-g", language, "-o", into, "--global-property", _LEFT_OUT, *more, cwd=into.parent)


def by_go(api: Api, folder: Path) -> list[str | Path]:
    generate(api, "go", folder / "client", "--additional-properties", "packageName=client")
    module = "module tollgate\n\ngo 1.23\n"
    (folder / "client" / "go.mod").unlink()
    (folder / "go.mod").write_text(module, encoding="utf-8")
    shutil.copy(PROGRAMS / "main.go", folder)
    run("go", "build", "-o", "main", ".", cwd=folder)
    return [folder / "main"]


def by_java(api: Api, folder: Path) -> list[str | Path]:
    generate(api, "java", folder / "client", "--library", "native")
    jars = environments.jars_of(folder / "client")
    sources = [str(path) for path in (folder / "client" / "src" / "main").rglob("*.java")]
    run("javac", "-d", "classes", "-cp", f"{jars}/*", *sources, PROGRAMS / "Main.java", cwd=folder)
    return ["java", "-cp", f"classes:{jars}/*", "Main"]


def by_typescript(api: Api, folder: Path) -> list[str | Path]:
    modules = environments.node("node") / "node_modules"
    generate(api, "typescript-fetch", folder / "gen")
    shutil.copy(PROGRAMS / "main.ts", folder)
    compiler = modules / "typescript" / "bin" / "tsc"
    options = ("--strict", "--target", "es2022", "--lib", "es2022,dom", "--module", "commonjs", "--outDir", "made")
    run("node", compiler, *options, "main.ts", cwd=folder)
    return ["node", "made/main.js"]


def by_python(api: Api, folder: Path) -> list[str | Path]:
    interpreter = environments.python("openapi-python-client")
    words = ["-m", "openapi_python_client", "generate", "--path", str(api.described), "--output-path", "gen"]
    said = run(interpreter, *words, "--meta", "none", cwd=folder, PATH=f"{interpreter.parent}:{os.environ['PATH']}")
    assert "Warning" not in said, said
    shutil.copy(PROGRAMS / "main.py", folder)
    return [interpreter, "main.py"]


@pytest.mark.parametrize("make", [by_go, by_java, by_typescript, by_python])
def test_a_generated_client_does_a_labs_work(
    api: Api, tmp_path: Path, make: Callable[[Api, Path], list[str | Path]]
) -> None:
    command = make(api, tmp_path)
    name = make.__name__.replace("_", "-")
    told = {"BASE_URL": api.url, "API_KEY": api.key, "SLUG": f"lab/{name}", "CUSTOMER": name}
    read = json.loads(run(*command, cwd=tmp_path, **told))
    assert read == {"slug": f"lab/{name}", "key": "sky_", "listed": 1, "threshold": THRESHOLD, "refused": 404}
