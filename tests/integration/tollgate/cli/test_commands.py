"""What every command shares: which installation it works on, what it warns of, and what `serve --check` refuses."""

import base64
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from unittest.mock import ANY

import click
import pytest
from click.testing import CliRunner, Result

from runtime import settings
from tests.support import processes
from tollgate.cli.main import tollgate
from tollgate.roles import waiting

KEY = base64.b64encode(bytes(32)).decode()
APART = {
    "TOLLGATE_KAFKA_BOOTSTRAP": "127.0.0.1:1",
    "TOLLGATE_DATABASE_URL": "postgresql://u:hush@127.0.0.1:1/none",
    "TOLLGATE_MASTER_KEY": KEY,
}
NEEDS = {
    "control": {"TOLLGATE_KAFKA_BOOTSTRAP", "TOLLGATE_DATABASE_URL", "TOLLGATE_MASTER_KEY"},
    "proxy": {"TOLLGATE_KAFKA_BOOTSTRAP", "TOLLGATE_MASTER_KEY"},
    "metering": {"TOLLGATE_KAFKA_BOOTSTRAP", "TOLLGATE_DATABASE_URL"},
    "webhooks": {"TOLLGATE_KAFKA_BOOTSTRAP", "TOLLGATE_DATABASE_URL", "TOLLGATE_MASTER_KEY"},
}
"""Contract 6."""
ELSEWHERE = ("completion", "mock-upstream", "schemas", "webhook")
"""Commands that work on no installation."""


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(settings.PREFIX)]:
        monkeypatch.delenv(name)


def run(*words: str, env: Mapping[str, str] = MappingProxyType({})) -> Result:
    return CliRunner().invoke(tollgate, words, env=env)


def leaves(command: click.Command, name: str, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield name, command
        return
    for each in command.list_commands(context):
        found = command.get_command(context, each)
        assert found is not None
        yield from leaves(found, f"{name} {each}".strip(), context)


COMMANDS = dict(leaves(tollgate, "", click.Context(tollgate)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_answer_in_json_and_be_told_where(name: str) -> None:
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert "--json" in options
    assert name.startswith(ELSEWHERE) or {"--data", "--config"} <= options


GROUPS = sorted({name.rpartition(" ")[0] for name in COMMANDS})


@pytest.mark.parametrize("name", GROUPS)
def test_the_help_of_a_group_cuts_no_sentence(name: str) -> None:
    shown = " ".join(run(*name.split(), "--help").stdout.split()).replace("COMMAND [ARGS]...", "")
    assert "..." not in shown
    listed = [command for each, command in COMMANDS.items() if each.rpartition(" ")[0] == name]
    assert listed
    for command in listed:
        first, _, _ = " ".join((command.help or "").split()).partition(". ")
        assert first.rstrip(".") in shown


def test_the_command_line_imports_the_product_only_when_a_command_needs_it() -> None:
    asked = "import sys, tollgate.cli.main; print({'pydantic', 'sqlalchemy', 'litestar', 'rich'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", asked], text=True) == "set()\n"


READING = [
    ["workspace", "list"],
    ["workspace", "show", "--workspace", "lab"],
    ["workspace", "suspend", "--workspace", "lab"],
    ["workspace", "set-webhook", "--workspace", "lab", "--disable"],
    ["dead-letters", "list"],
    ["dead-letters", "redrive", "--workspace", "lab"],
    ["events", "tail", "--workspace", "lab", "--once"],
    ["export", "--day", "2026-01-31"],
    ["correct", "--event", "key", "--reason", "it was wrong"],
    ["reconcile"],
    ["audit"],
]
"""Commands that make sense only on data that are there."""


@pytest.mark.parametrize("named", [None, "--data", "TOLLGATE_DATA_DIR"])
@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_what_needs_data_makes_none_and_says_where_it_looked(
    words: list[str], named: str | None, tmp_path: Path
) -> None:
    folder = tmp_path / "data" if named is None else tmp_path / "far"
    given = [named, str(folder)] if named == "--data" else []
    ended = run(*words, *given, env={named: str(folder)} if named == "TOLLGATE_DATA_DIR" else {})
    assert ended.exit_code == (2 if words == ["reconcile"] else 1)
    assert ended.stdout == ""
    assert ended.stderr == (
        f"Error: there is no Tollgate data in {folder}; name its directory with --data or TOLLGATE_DATA_DIR\n"
    )
    assert not list(tmp_path.iterdir())


def test_a_data_directory_that_create_makes_is_named_on_stderr_once(tmp_path: Path) -> None:
    made = f"Made a new data directory: {tmp_path / 'data'}. "
    refused = run("workspace", "create", "--name", "lab", "--org-prefix", "a/b")  # the directory stays
    assert (refused.exit_code, refused.stderr.count(made)) == (1, 1)
    again = run("workspace", "create", "--name", "lab", "--org-prefix", "org", "--json")
    assert (json.loads(again.stdout)["workspace_id"], again.stderr) == (ANY, "")
    other = run("workspace", "create", "--name", "lab", "--org-prefix", "org", "--json", "--data", "b")
    assert other.stderr.startswith(f"Made a new data directory: {tmp_path / 'b'}. ")
    assert json.loads(other.stdout)
    said = run("workspace", "create", "--name", "second", "--org-prefix", "more").stderr
    assert said.startswith(f"Onboarded in {tmp_path / 'data'}. ")


@pytest.mark.parametrize(
    ("words", "none"),
    [
        (["dead-letters", "list"], "No dead letters.\n"),
        (["dead-letters", "list", "--not-due"], "No delivery was put aside as not due.\n"),
        (["events", "tail", "--workspace", "lab", "--once"], "No events so far.\n"),
        (["audit"], "No changes.\n"),
        (["workspace", "list"], "No workspaces in {data}.\n"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_a_list_of_nothing_says_so_to_people_and_is_empty_in_json(words: list[str], none: str, tmp_path: Path) -> None:
    run("migrate")
    if "lab" in words:
        run("workspace", "create", "--name", "lab", "--org-prefix", "org")
    shown = run(*words)
    assert (shown.exit_code, shown.stdout, shown.stderr) == (0, "", none.format(data=tmp_path / "data"))
    as_json = run(*words, "--json")
    assert (as_json.exit_code, as_json.stdout, as_json.stderr) == (0, "", "")


def test_a_command_works_where_its_config_says(tmp_path: Path) -> None:
    config = tmp_path / "etc" / "tollgate.toml"
    config.parent.mkdir()
    config.write_text(f'data_dir = "{tmp_path / "far"}"')
    create = ("workspace", "create", "--name", "lab", "--org-prefix", "org", "--json", "--config", str(config))
    made = json.loads(run(*create).stdout)
    for words in (["audit"], ["dead-letters", "list"], ["export", "--day", "2026-01-31"], ["reconcile"], ["doctor"]):
        ended = run(*words, "--config", str(config))
        assert ended.exit_code == 0, ended.output
    (entry,) = [json.loads(line) for line in run("audit", "--json", "--config", str(config)).stdout.splitlines()]
    assert entry["workspace_id"] == made["workspace_id"]
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["workspace", "create", "--name", "lab", "--org-prefix", "org"],
        ["workspace", "suspend", "--workspace", "lab"],
        ["dead-letters", "list"],
        ["dead-letters", "redrive", "--workspace", "lab"],
        ["events", "tail", "--workspace", "lab", "--once"],
        ["export", "--day", "2026-01-31"],
        ["correct", "--event", "key", "--reason", "it was wrong"],
        ["audit"],
        ["migrate"],
    ],
    ids=" ".join,
)
def test_a_database_that_a_config_names_is_the_one_that_is_worked_on(words: list[str]) -> None:
    Path("elsewhere.toml").write_text(f'database_url = "{APART["TOLLGATE_DATABASE_URL"]}"')
    ended = run(*words, "--config", "elsewhere.toml")
    assert ended.exit_code == 1
    assert "PostgreSQL 127.0.0.1:1/none" in ended.stderr
    assert "hush" not in ended.output
    assert not Path("data").exists()


def test_what_changes_nothing_is_warned_of_once_on_stderr() -> None:
    unused = {"TOLLGATE_PROT": "1", "TOLLGATE_OPS_PORT": "tcp://10.0.0.1:8081"}
    ended = run("workspace", "create", "--name", "lab", "--org-prefix", "org", "--json", env=unused)
    assert ended.exit_code == 0
    assert json.loads(ended.stdout)
    *warned, made = ended.stderr.splitlines()
    assert made.startswith("Made a new data directory")
    assert [line.split()[:2] for line in warned] == [
        ["Warning:", "TOLLGATE_OPS_PORT=tcp://10.0.0.1:8081"],
        ["Warning:", "TOLLGATE_PROT"],
    ]
    ended = run("serve", "control", env=unused | {"TOLLGATE_DATABSE_URL": "x"})
    assert "needs TOLLGATE_KAFKA_BOOTSTRAP, TOLLGATE_DATABASE_URL" in ended.stderr


def test_migrate_and_doctor_name_the_installation_first(tmp_path: Path) -> None:
    place = f"the data directory {tmp_path / 'data'}"
    assert run("migrate").stdout.splitlines()[0] == f"Migrating {place}"
    assert run("doctor").stdout.splitlines()[0] == f"Examining {place}"
    ended = run("migrate", env=APART)
    assert ended.stdout == "Migrating PostgreSQL 127.0.0.1:1/none, with Kafka 127.0.0.1:1\n"
    assert isinstance(json.loads(run("doctor", "--json").stdout), list)


def test_schemas_are_exported_and_listed(tmp_path: Path) -> None:
    listed = json.loads(run("schemas", "export", "out", "--json").stdout)["files"]
    assert sorted(listed) == sorted(str(path) for path in Path("out").iterdir())
    assert run("schemas", "export", "out").stdout.splitlines() == listed


def test_check_loads_the_settings_of_bare_serve_and_touches_nothing() -> None:
    assert processes.run("serve", "--check").stdout == "the settings are valid\n"  # a process: else it might serve on
    assert processes.answer("serve", "--check") == {"valid": True}
    assert not list(Path().iterdir())


@pytest.mark.parametrize("role", NEEDS)
def test_check_loads_the_settings_of_a_role_and_touches_nothing(role: str) -> None:
    ended = run("serve", role, "--check", env=APART)
    assert (ended.exit_code, ended.stdout) == (0, "the settings are valid\n"), ended.output
    assert json.loads(run("serve", role, "--check", "--json", env=APART).stdout) == {"valid": True}
    assert not list(Path().iterdir())


@pytest.mark.parametrize(("role", "missing"), [(role, name) for role, names in NEEDS.items() for name in sorted(names)])
@pytest.mark.parametrize("check", [True, False])
def test_a_role_without_what_it_needs_is_refused(role: str, missing: str, check: bool) -> None:
    given = {name: value for name, value in APART.items() if name != missing}
    ended = run("serve", role, *["--check"] * check, env=given)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert f"`tollgate serve {role}` needs {missing}" in ended.stderr


PROXY = {name: value for name, value in APART.items() if name in NEEDS["proxy"]}


@pytest.mark.parametrize("check", [True, False])
def test_workers_that_would_each_count_rate_limits_are_refused(check: bool) -> None:
    ended = run("serve", "proxy", "--workers", "3", *["--check"] * check, env=PROXY)
    assert (ended.exit_code, ended.stdout) == (2, "")
    said = " ".join(ended.stderr.split())
    assert "3 workers without TOLLGATE_REDIS_URL each count rate limits by themselves" in said
    assert "up to 3 times what its limits say" in said
    assert "--rate-limits-per-worker" in said


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (["--workers", "3", "--rate-limits-per-worker"], {}),
        (["--workers", "3"], {"TOLLGATE_REDIS_URL": "redis://127.0.0.1:1"}),
        (["--workers", "1"], {}),
    ],
)
def test_workers_are_taken_whose_rate_limits_are_shared_or_said_to_be_each_ones(
    words: list[str], more: dict[str, str]
) -> None:
    assert run("serve", "proxy", *words, "--check", env=PROXY | more).exit_code == 0


@pytest.mark.parametrize(("role", "said"), [([], "is one process"), (["metering"], "once more instead")])
def test_workers_are_of_proxies_alone(role: list[str], said: str) -> None:
    ended = run("serve", *role, "--workers", "2", "--check", env=APART if role else {})
    assert ended.exit_code == 2
    assert "--workers is for `tollgate serve proxy`" in ended.stderr
    assert said in " ".join(ended.stderr.split())


@pytest.mark.parametrize("role", NEEDS)
def test_a_role_needs_nothing_else(role: str) -> None:
    given = {name: value for name, value in APART.items() if name in NEEDS[role]}
    assert run("serve", role, "--check", env=given).exit_code == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://u:hush@h/n"),
        ("DATABASE_URL", "postgresql://u:hu@sh@h/n"),
        ("KAFKA_BOOTSTRAP", "not a broker at all"),
        ("MASTER_KEY", "hush"),
        ("KAFKA_REPLICATION", "1"),
    ],
)
@pytest.mark.parametrize("words", [["serve", "control", "--check"], ["serve", "control"], ["migrate"]])
def test_a_value_of_the_wrong_form_is_refused_in_one_line(name: str, value: str, words: list[str]) -> None:
    ended = run(*words, env=APART | {f"TOLLGATE_{name}": value})
    assert ended.exit_code == 1
    assert ended.stderr.count("\n") == 1
    assert f"TOLLGATE_{name}" in ended.stderr
    assert "hush" not in ended.output
    assert "sh@" not in ended.output


@pytest.mark.parametrize("name", ["TOLLGATE_KAFKA_BOOTSTRAP", "TOLLGATE_DATABASE_URL"])
@pytest.mark.parametrize("check", [True, False])
def test_bare_serve_is_refused_where_an_installation_apart_is_meant(name: str, check: bool) -> None:
    ended = run("serve", *["--check"] * check, env={name: APART[name]})
    assert ended.exit_code == 2
    assert f"{name} is set" in ended.stderr
    assert "name a role: control, proxy, metering, webhooks" in ended.stderr
    assert not Path("data").exists()


@pytest.mark.parametrize("role", NEEDS)
def test_a_proxy_says_at_its_start_that_it_shares_no_rate_windows(
    role: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ended(*_: object) -> None:
        """Wait for no database, as if the process was asked to end while it waited."""

    monkeypatch.setattr(waiting, "prepared", ended)
    caplog.set_level(logging.INFO, "tollgate")
    Path("file").write_text("")  # what is served lies nowhere: the start ends there
    run("serve", role, "--data", "file/data", env=APART)
    said = [message for message in caplog.messages if "rate limits hold at each proxy by itself" in message]
    assert len(said) == (role == "proxy")
