"""How the help of a group of commands lists them.

It imports nothing of the product: the whole command line waits for it.
"""

import click

from tollgate.cli import examples

_UNCUT = 1_000
"""Characters that a command's summary may have: click cuts off what is longer."""


class Menu(click.Group):
    """A group of commands whose help gives the first sentence of each command whole, over several lines if need be."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, whose help ends with examples."""
        return with_examples(ctx, cmd_name, super().get_command(ctx, cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(_UNCUT)) for name, command in found if command])


def with_examples(ctx: click.Context, name: str, command: click.Command | None) -> click.Command | None:
    """Let the help of a command of the group `ctx` end with its examples and exit codes."""
    if command is not None and not isinstance(command, click.Group):
        command.epilog = examples.epilog(" ".join([*ctx.command_path.split()[1:], name]))
    return command
