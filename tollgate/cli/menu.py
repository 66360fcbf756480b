"""How the help of a group of commands lists them.

Never imports anything of the product: the whole command line waits for it.
"""

import click

_UNCUT = 1_000
"""Characters that a command's summary may have: click cuts off what is longer."""


class Menu(click.Group):
    """A group of commands whose help gives the first sentence of each command whole, over several lines if need be."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(_UNCUT)) for name, command in found if command])
