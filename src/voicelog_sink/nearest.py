"""A group of commands that names the nearest one where there is none of that name."""

from __future__ import annotations

from difflib import get_close_matches

import click


class NearestGroup(click.Group):
    """A group that says what was meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that `args` begins with; raises a UsageError that names the nearest one."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            near = get_close_matches(args[0], known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
            message = f"{args[0]!r} is no command of {ctx.command_path}: {hint}"
            raise click.UsageError(message, ctx)
        return super().resolve_command(ctx, args)
