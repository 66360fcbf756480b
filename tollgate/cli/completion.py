"""`tollgate completion`: lets a shell complete commands and options."""

import json

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_TOLLGATE_COMPLETE"
"""What the script sets to ask for completions: Click's own protocol."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def completion(ctx: click.Context, *, shell: str, as_json: bool) -> None:
    """Print the script that lets SHELL complete commands and options."""
    found = get_completion_class(shell)
    if found is None:
        raise click.ClickException(f"there is no completion for {shell}")
    script = found(ctx.find_root().command, {}, "tollgate", _VARIABLE).source()
    click.echo(json.dumps({"shell": shell, "script": script}) if as_json else script)
