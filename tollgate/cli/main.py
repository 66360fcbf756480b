"""The `tollgate` command: one line for each thing an operator does.

Never imports a command's module before that command is called: most need only a part of the product.
"""

import importlib
import sys

import click

from tollgate.cli.menu import Menu, with_examples

_COMMANDS = {
    "audit": ("tollgate.cli.audit", "audit"),
    "completion": ("tollgate.cli.completion", "completion"),
    "console": ("tollgate.cli.console", "console"),
    "correct": ("tollgate.cli.correct", "correct"),
    "dead-letters": ("tollgate.cli.dead_letters", "dead_letters"),
    "doctor": ("tollgate.cli.doctor", "doctor"),
    "events": ("tollgate.cli.events", "events"),
    "export": ("tollgate.cli.export", "export"),
    "migrate": ("tollgate.cli.migrate", "migrate"),
    "mock-upstream": ("tollgate.cli.mock_upstream", "command"),
    "quickstart": ("tollgate.cli.quickstart", "quickstart"),
    "reconcile": ("tollgate.cli.reconcile", "reconcile"),
    "request": ("tollgate.cli.request", "request"),
    "republish": ("tollgate.cli.republish", "republish"),
    "restore-done": ("tollgate.cli.restore_done", "restore_done"),
    "schemas": ("tollgate.cli.schemas", "schemas"),
    "serve": ("tollgate.cli.serve", "serve"),
    "usage": ("tollgate.cli.usage", "usage"),
    "unreadable": ("tollgate.cli.unreadable", "unreadable"),
    "webhook": ("tollgate.cli.webhook", "webhook"),
    "workspace": ("tollgate.cli.workspace", "workspace"),
}


class _Menu(Menu):
    """Finds commands by name in `_COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, sorted."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return with_examples(ctx, cmd_name, command)


@click.command(cls=_Menu, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tollgate-gateway", prog_name="tollgate")
def tollgate() -> None:
    """Sell access to your own language models: limits, exact counts, signed billing webhooks."""


def main() -> None:
    """Run the command line."""
    tollgate(prog_name="tollgate", args=sys.argv[1:])
