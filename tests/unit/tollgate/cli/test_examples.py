"""Every command's help ends with examples that it takes, and says how it exits; a shell completes them."""

import itertools
import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from tests.architecture import sources
from tollgate.cli import examples
from tollgate.cli.main import tollgate


def leaves(
    command: click.Command, words: tuple[str, ...], context: click.Context
) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield " ".join(words), command
        return
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        inner = click.Context(found, parent=context, info_name=name)
        yield from leaves(found, (*words, name), inner)


COMMANDS = dict(leaves(tollgate, (), click.Context(tollgate, info_name="tollgate")))


def test_every_command_has_examples_and_no_example_is_of_another() -> None:
    assert COMMANDS.keys() == examples.EXAMPLES.keys()
    assert examples.EXIT_CODES.keys() <= COMMANDS.keys()


@pytest.mark.parametrize("words", COMMANDS)
def test_an_example_names_options_that_are_there_and_leaves_out_none_that_must_be(words: str) -> None:
    command = COMMANDS[words]
    options = {
        name: one
        for one in command.params
        for name in (*one.opts, *one.secondary_opts)
        if isinstance(one, click.Option)
    }
    for example in examples.EXAMPLES[words]:
        typed = shlex.split(example)
        if typed[0] == "eval":
            continue
        assert typed[: 1 + len(words.split())] == ["tollgate", *words.split()]
        given = [word for word in typed if word.startswith("--")]
        assert set(given) <= options.keys(), example
        for name, value in itertools.pairwise(typed):
            if (
                name in options
                and not options[name].is_flag
                and not isinstance(options[name].type, click.Path | click.File)
            ):
                options[name].type.convert(value, options[name], None)
        needed = {id(one) for one in options.values() if one.required}
        assert needed <= {id(options[name]) for name in given}, example


@pytest.mark.parametrize("words", COMMANDS)
def test_the_help_shows_them(words: str) -> None:
    shown = CliRunner().invoke(tollgate, [*words.split(), "--help"], terminal_width=200)
    assert shown.exit_code == 0
    for example in examples.EXAMPLES[words]:
        assert f"  {example}" in shown.output
    assert "Exit codes: 0 " in shown.output


def test_every_command_takes_json_and_is_in_the_page_of_commands() -> None:
    page = (sources.ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    for words, command in COMMANDS.items():
        assert any("--json" in one.opts for one in command.params), words
        assert f"`tollgate {words}`" in page, words
    for words, codes in examples.EXIT_CODES.items():
        for code in codes.split("; "):
            assert code.partition(":")[0] in page, words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_has_its_script_and_is_told_what_may_come(shell: str) -> None:
    script = CliRunner().invoke(tollgate, ["completion", shell])
    assert script.exit_code == 0
    assert "_TOLLGATE_COMPLETE" in script.output
    asked = {"_TOLLGATE_COMPLETE": f"{shell}_complete", "COMP_WORDS": "tollgate workspace cr", "COMP_CWORD": "2"}
    if shell == "fish":
        asked["COMP_CWORD"] = "cr"
    told = CliRunner().invoke(tollgate, [], env=asked, prog_name="tollgate")
    assert "create" in told.output
