"""The `choreo` command: finds its subcommands by module name and turns every error into one line and an exit code.

A subcommand is a module ``choreo/cli/<command>.py`` (dashes are underscores in the file) with a click command named
``command``. Its docstring's first line is the summary in ``choreo --help``; it is read without importing the module, so
that help and completion stay fast while Kafka, Avro and rich load only when a command needs them.
"""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

import choreo.cli as commands
from choreo.cli._output import report
from choreo.errors import EXIT_OK, ChoreoError, HostError

# Order and headings of `choreo --help`. A command that no section names is listed under "Other", so that a new module
# shows up without an edit here.
SECTIONS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("Start", ("demo", "new", "broker")),
    ("Design", ("lint", "plan", "apply", "graph", "schemas", "test")),
    ("Run", ("run", "status", "send", "load", "rows")),
    ("Repair", ("dead-letters", "parked", "agent")),
)
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, what a shell reports for Ctrl-C
EXIT_PIPE_CLOSED: Final = 141  # 128 + SIGPIPE: `choreo rows … | head` is not an error of ours


class CommandsByModule(click.Group):
    """A click group whose commands are the modules of this package, imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, in the order of the help text."""
        found = {
            module.name.replace("_", "-")
            for module in pkgutil.iter_modules(commands.__path__)
            if not module.name.startswith("_")
        }
        ordered = [name for _, names in SECTIONS for name in names if name in found]
        return ordered + sorted(found.difference(ordered))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None if there is no such module."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{commands.__name__}.{cmd_name.replace('-', '_')}")
        command = module.command
        if not isinstance(command, click.Command):
            raise AssertionError(f"{module.__name__}.command is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One section of the help per kind of work; summaries come from the modules' docstrings."""
        names = self.list_commands(ctx)
        named = {name for _, section in SECTIONS for name in section}
        sections = [*SECTIONS, ("Other", tuple(name for name in names if name not in named))]
        for heading, section in sections:
            rows = [(name, summary_of(name)) for name in section if name in names]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows, col_max=16)


def summary_of(name: str) -> str:
    """First line of the docstring of a command's module, read without running it."""
    for folder in commands.__path__:
        file = Path(folder) / f"{name.replace('-', '_')}.py"
        if file.is_file():
            text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
            first = text.partition("\n")[0].strip()
            # "`choreo lint`: check a topology" reads twice in a list that already shows the name
            _, marker, rest = first.partition("`: ")
            return (rest if marker and first.startswith("`choreo ") else first).rstrip(".")
    return ""


@click.group(
    cls=CommandsByModule,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Every command takes --json. Exit codes: 0 done, 1 refused, 2 drift, 64 wrong usage, 69 unreachable.",
)
@click.version_option(package_name="choreo", message="choreo %(version)s")
def root() -> None:
    """Multi-agent choreography over Kafka: declared topologies, typed events, exactly once."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code.

    Args:
        arguments: what follows ``choreo`` on the command line.

    Returns:
        The command's own int result if it returns one, else 0; for errors the code of the exit table.
    """
    as_json = "--json" in arguments
    try:
        result = root.main(args=list(arguments), prog_name="choreo", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.format_message())
        return EXIT_OK
    except click.ClickException as error:
        return report(_usage_error(error), as_json=as_json)
    except click.Abort:
        return EXIT_INTERRUPTED
    except ChoreoError as error:
        return report(error, as_json=as_json)
    except BrokenPipeError:
        # What is still buffered has no reader; without this the interpreter would complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    except OSError as error:
        reason = error.strerror or str(error)
        where = None if error.filename is None else str(error.filename)
        return report(HostError(reason[:1].lower() + reason[1:], code="CH0804", where=where), as_json=as_json)
    return result if isinstance(result, int) and not isinstance(result, bool) else EXIT_OK


def _usage_error(error: click.ClickException) -> ChoreoError:
    """Click's own error in our form: click would exit with 2, which here means drift."""
    context = getattr(error, "ctx", None)
    hint = None if context is None else f"see `{context.command_path} --help`"
    return HostError(error.format_message().rstrip("."), code="CH0807", hint=hint, fault="user")


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))
