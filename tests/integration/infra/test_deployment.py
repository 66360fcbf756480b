"""What an installation is deployed with is valid by the formats' own schemas and linters, and fits the product."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate
import pytest
import yaml

from infra.local import process
from infra.local.postgres import user
from runtime import settings
from runtime.settings import Settings
from tests.architecture import sources
from tests.support import services
from tollgate.cli.serve import _ROLES

INFRA = sources.ROOT / "infra"
KUBERNETES = INFRA / "kubernetes"
VERSIONS = ["1.30", kubernetes_validate.latest_version().rpartition(".")[0]]
GRACE_S = 75
"""30 s for streams, 10 s for the spool, and what a busy machine adds."""
_NAMED = re.compile(rf"\b{settings.PREFIX}[A-Z0-9_]+")


def manifests() -> dict[str, list[dict[str, Any]]]:
    """Return the objects of each file."""
    files = sorted(path for path in KUBERNETES.glob("*.yaml") if path.name != "kustomization.yaml")
    return {path.name: list(yaml.safe_load_all(path.read_text(encoding="utf-8"))) for path in files}


OBJECTS = {f"{one['kind']} {one['metadata']['name']}": one for some in manifests().values() for one in some}
WORK = {name: one for name, one in OBJECTS.items() if one["kind"] in {"Deployment", "StatefulSet", "Job"}}
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text(encoding="utf-8"))
OURS = {name: one for name, one in COMPOSE["services"].items() if one["image"] == "tollgate"}


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_the_compose_file_is_one() -> None:
    schema = json.loads((sources.ROOT / "tests" / "data" / "compose-spec.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft7Validator(schema)
    validator.validate(COMPOSE)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(COMPOSE | {"servcies": {}})


def test_the_compose_file_runs_every_role_as_it_must_be_run() -> None:
    commands = {tuple(one["command"]) for one in OURS.values()}
    assert commands == {("migrate",), *(("serve", role) for role in _ROLES)}
    for name, one in OURS.items():
        assert one["read_only"], name
        assert one["user"] == "10001:10001", name
        assert seconds(one["stop_grace_period"]) >= GRACE_S, name
    proxies = [one for one in OURS.values() if one["command"] == ["serve", "proxy"]]
    disks = [mount.partition(":")[0] for one in proxies for mount in one["volumes"]]
    assert len(set(disks)) == len(proxies) > 1, "proxies share a disk"
    assert set(disks) <= set(COMPOSE["volumes"])


def test_prometheus_is_told_of_every_process_of_the_compose_file() -> None:
    scraped = yaml.safe_load((INFRA / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    targets = {one.partition(":")[0] for one in scraped["scrape_configs"][0]["static_configs"][0]["targets"]}
    assert targets == {name for name, one in OURS.items() if one["command"][0] == "serve"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OBJECTS)
def test_every_manifest_is_valid(name: str, version: str) -> None:
    kubernetes_validate.validate(OBJECTS[name], version, strict=True)


def test_a_manifest_that_is_not_valid_is_seen() -> None:
    wrong = OBJECTS["StatefulSet tollgate-proxy"] | {"spce": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_the_base_names_every_file() -> None:
    base = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text(encoding="utf-8"))
    assert sorted(base["resources"]) == sorted(manifests())


@pytest.mark.parametrize("name", WORK)
def test_every_pod_is_run_as_it_must_be(name: str) -> None:
    pod = WORK[name]["spec"]["template"]["spec"]
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert "cpu" not in container["resources"]["limits"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"/tmp", "/data"}
    if WORK[name]["kind"] == "Job":
        assert container["args"] == ["migrate"]
        return
    assert container["args"][0] == "serve"
    assert container["args"][1] in _ROLES
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert pod["terminationGracePeriodSeconds"] >= GRACE_S + before
    labels = WORK[name]["spec"]["template"]["metadata"]["labels"]
    budget = OBJECTS[f"PodDisruptionBudget {WORK[name]['metadata']['name']}"]["spec"]
    assert budget["selector"]["matchLabels"] == labels == WORK[name]["spec"]["selector"]["matchLabels"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


def test_every_role_has_a_workload_and_the_proxys_disk_outlives_it() -> None:
    words = {tuple(one["spec"]["template"]["spec"]["containers"][0]["args"]) for one in WORK.values()}
    assert words == {("migrate",), *(("serve", role) for role in _ROLES)}
    proxy = OBJECTS["StatefulSet tollgate-proxy"]["spec"]
    assert proxy["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    (claim,) = proxy["volumeClaimTemplates"]
    assert "labels" not in claim["metadata"], "labels of a claim's template can never be changed"
    disk = int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi")) * 2**30
    given = OBJECTS["ConfigMap tollgate-settings"]["data"]
    assert int(given["TOLLGATE_SPOOL_MAX_BYTES"]) < 0.9 * disk
    assert f"Service {proxy['serviceName']}" in OBJECTS


def test_what_deploys_names_settings_that_exist() -> None:
    known = {settings.variable(name) for name in Settings.model_fields}
    files = [sources.ROOT / path for path in sources.files() if path.parts[0] == "infra" and path.suffix != ".py"]
    unknown = {name for path in files for name in _NAMED.findall(path.read_text(encoding="utf-8"))} - known
    assert unknown == set()


def test_the_dockerfile_is_well_made() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    said = subprocess.run([linter, INFRA / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False)
    assert (said.returncode, said.stdout) == (0, "")


def test_the_image_gets_every_package_and_nothing_else() -> None:
    ignored = (INFRA / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[0] == "*"
    taken = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    packages = {name.partition(".")[0] for name in sources.project()["tool"]["setuptools"]["packages"]}
    assert taken == packages | {"requirements/demo.lock", "pyproject.toml", "README.md"}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_dockerfiles_own_steps_make_a_product_that_runs_as_nobody() -> None:
    """Its build's steps, in folders of the test's own, and its start, as a user who may write to its data alone."""
    steps = re.sub(r"\\\n\s*", "", (INFRA / "Dockerfile").read_text(encoding="utf-8")).split("\nFROM")[1]
    with services.folder("image") as folder:
        source, made, data = (folder / name for name in ("src", "opt", "data"))
        for path in (source, data):
            path.mkdir()
        taken = sources.project()["tool"]["setuptools"]["packages"]
        words = ["cp", "-r", "--parents", *{one.partition(".")[0] for one in taken}]
        subprocess.run([*words, "requirements/demo.lock", "pyproject.toml", "README.md", source], check=True)
        runs = [line.removeprefix("RUN ") for line in steps.splitlines() if line.startswith("RUN ")]
        assert len(runs) == 2
        for step in runs:
            command = step.replace("/opt/tollgate", str(made))
            command = command.replace("python -m venv", f"{sys.executable} -m venv")
            subprocess.run(["/bin/sh", "-ec", command], cwd=source, check=True, timeout=600)
        data.chmod(0o700)
        if (nobody := user()) is not None:
            os.chown(data, nobody, -1)
        environment = {
            "TOLLGATE_DATA_DIR": str(data),
            "TOLLGATE_PORT": "0",
            "TOLLGATE_OPS_PORT": "0",
            "PATH": "/usr/bin",
        }
        serving = process.start(
            "tollgate",
            [*([] if nobody is None else _as(nobody)), str(made / "bin" / "tollgate"), "serve", "--json"],
            folder / "log",
            announcement=folder / "said",
            environment=environment,
        )
        serving.until(lambda: "ops_url" in (folder / "said").read_text(encoding="utf-8"), 60)
        assert serving.stop() == 0
        assert (data / "tollgate.db").exists()


def _as(nobody: int) -> list[str]:
    """Return what runs a program as a user who may read everything (root's Python, too) and write nothing."""
    capability = "-all,+dac_read_search"
    who = ["setpriv", "--reuid", str(nobody), "--clear-groups"]
    return [*who, f"--inh-caps={capability}", f"--ambient-caps={capability}", "--"]


def _unit(folder: Path) -> Path:
    """Write the unit with a program and a file of settings that are there."""
    text = (INFRA / "systemd" / "tollgate@.service").read_text(encoding="utf-8")
    text = text.replace("/opt/tollgate/bin/tollgate", str(Path(sys.executable).parent / "tollgate"))
    unit = folder / "tollgate@proxy.service"
    unit.write_text(text, encoding="utf-8")
    return unit


def test_the_unit_is_valid(tmp_path: Path) -> None:
    command = ["systemd-analyze", "verify", "--man=no", str(_unit(tmp_path))]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    ours = [line for line in said.stderr.splitlines() if "tollgate@" in line]
    assert (said.returncode, ours) == (0, [])


def test_the_unit_is_hardened(tmp_path: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", str(_unit(tmp_path))]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 0, said.stdout


def test_the_unit_leaves_time_to_end() -> None:
    text = (INFRA / "systemd" / "tollgate@.service").read_text(encoding="utf-8")
    given = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z]\w+=", line))
    assert int(given["TimeoutStopSec"]) >= GRACE_S
    assert (given["KillMode"], given["ProtectSystem"]) == ("mixed", "strict")
