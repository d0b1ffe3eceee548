"""`python -m migrations`: the command that operators use."""

import sys
from typing import Annotated

import typer

from migrations import address, development, logins, runner, verification
from migrations.applied import Applied
from migrations.errors import StepFailed
from services.chassis.errors import ServiceError

_PENDING = 3

app = typer.Typer(
    help="The tables of Baton. On PostgreSQL the URL is an administrator's; the services get logins of their own.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they would print local variables, passwords among them
)

DatabaseUrl = Annotated[
    str,
    typer.Option(
        help="postgresql://user:password@host/database, or sqlite:///directory. "
        "Without it: DATABASE_URL, else SQLite in BATON_HOME, else in .baton.",
        default_factory=address.default,
        show_default=False,
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more: the database, and every step.")]


@app.command()
def upgrade(
    database_url: DatabaseUrl,
    as_development: Annotated[
        bool, typer.Option("--development", help="Mark an empty database as one that `reset` may drop.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Run every pending step. Exit 0: all applied; 1: stopped, and what was done before stays.

    The logins' passwords derive from the file named by BATON_DATABASE_PASSWORD_SECRET_FILE, if that is set.
    """
    _say_database(database_url, verbose)
    applied = runner.upgrade(
        database_url, development=as_development, secret=logins.read_secret(), step_done=_step_printer(verbose)
    )
    _print_applied(applied)


@app.command()
def status(database_url: DatabaseUrl, verbose: Verbose = False) -> None:
    """Show how far each context is. Exit 0: up to date; 3: steps are pending; 1: the database cannot be read."""
    _say_database(database_url, verbose)
    states = runner.states(database_url)
    rows = [(state.context, state.current or "-", state.newest, str(len(state.pending))) for state in states]
    _print_table([("context", "current", "newest", "pending"), *rows])
    for state in states if verbose else []:
        for step in state.pending:
            typer.echo(f"pending: {state.context} {step.revision} {step.summary}")
    if any(state.pending for state in states):
        raise typer.Exit(_PENDING)


@app.command()
def verify(database_url: DatabaseUrl, verbose: Verbose = False) -> None:
    """Check that everything is applied, that the tables are as the code expects, and that no login can do too much.

    Exit 0: all is well; 1: something is not, each on a line of its own.
    """
    _say_database(database_url, verbose)
    found = verification.findings(database_url)
    for finding in found:
        typer.echo(finding)
    typer.echo(f"{len(found)} findings" if found else "all is as expected")
    raise typer.Exit(1 if found else 0)


@app.command()
def reset(database_url: DatabaseUrl, verbose: Verbose = False) -> None:
    """Drop ALL data and begin anew. Only for a development database, and only after its name was typed."""
    _say_database(database_url, verbose)
    name = development.require(database_url)
    typer.echo(f"This drops all data of {address.shown(address.parse(database_url))}.")
    typer.echo(f"Type its name, {name}, to go on: ", nl=False)
    if sys.stdin.readline().strip() != name:
        typer.echo("")
        raise typer.Exit(_fail("that is not its name: nothing was dropped"))
    _print_applied(development.reset(database_url))


def main() -> None:
    """Runs the command; what goes wrong is one line on stderr and exit code 1."""
    try:
        app(prog_name="python -m migrations")
    except StepFailed as error:
        _print_applied(error.applied)
        sys.exit(_fail(error.message))
    except ServiceError as error:
        sys.exit(_fail(error.message))


def _fail(message: str) -> int:
    typer.echo(f"error: {message}", err=True)
    return 1


def _say_database(database_url: str, verbose: bool) -> None:
    if verbose:
        typer.echo(f"database: {address.shown(address.parse(database_url))}")


def _step_printer(verbose: bool) -> runner.StepDone:
    return lambda context, revision: typer.echo(f"step: {context} {revision}") if verbose else None


def _print_applied(applied: list[Applied]) -> None:
    rows = [
        (
            item.context,
            item.before or "-",
            item.after or "-",
            "up to date" if item.before == item.after and item.before else str(item.steps),
            f"{item.seconds * 1000:.0f} ms",
        )
        for item in applied
    ]
    _print_table([("context", "from", "to", "steps", "time"), *rows])


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
