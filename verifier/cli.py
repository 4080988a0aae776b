"""The command line: parsing, hints, and the exit status of each kind of error. `commands/` has what commands do.

Everything heavy is imported inside the commands, so that `--help` and a wrong command line cost nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from verifier.commands.options import Command, TypedParameter, request_option, request_options, typed_option
from verifier.errors import ExitStatus, VerifierError, one_line
from verifier.output import pipe
from verifier.output.harmless import harmless_streams
from verifier.output.text import nearest
from verifier.requests.option import Door
from verifier.requests.request import RunRequest
from verifier.requests.values import FILE, IDENTITY, REFERENCE, ValueType, one_of

# What the system says where a process may have no more files, memory or processes.
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
TRACEBACK_VARIABLE = "VERIFIER_TRACEBACK"
REPORT_FORMATS = one_of("html", "markdown")
DIFF_FORMATS = one_of("terminal", "markdown")
LISTS = one_of("families", "adapters", "checks", "circumstances", "hooks", "presets")
_PATH = click.Path(path_type=Path)

_EPILOG = """\b
Exit status: 0 conforms, 1 does not, 2 the command line or a file is wrong,
3 the harness, or the adapter at its import, failed,
4 nothing ran, a shard is missing, or a planted fault survived,
130 interrupted."""

_DIFF_EPILOG = """\b
Exit status: 0 nothing is broken, 1 something is, 2 the command line or a file
is wrong, or the records have no case in common, 4 nothing is seen to be broken,
but NEW lacks what OLD looked at, or did not come to its end."""


_DOCTOR_EPILOG = """\b
Exit status: 0 a run would begin, 2 the configuration is wrong, 3 the family, the
adapter or a check does not load."""


@dataclass(slots=True)
class _Session:
    """What the options say about the command as a whole."""

    traceback: bool


def _note_traceback(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    session = context.find_object(_Session)
    if session is not None and value:
        session.traceback = True


class _Command(click.Command):
    """A command that takes `--traceback`."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        option = click.Option(
            ["--traceback"],
            is_flag=True,
            expose_value=False,
            callback=_note_traceback,
            help=f"Show the Python traceback of an internal error ({TRACEBACK_VARIABLE}=1 does too).",
        )
        self.params.append(option)


class _Commands(click.Group):
    """A group of commands that suggests the nearest one for a name that is unknown."""

    command_class = _Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            known = self.list_commands(ctx)
            raise click.UsageError(
                f"unknown command {name!r}{nearest(name, known)}; there are {', '.join(known)}", ctx=ctx
            )
        return super().resolve_command(ctx, args)


def _format_option(type: ValueType, help_text: str) -> Callable[[Command], Command]:
    """Give a command `--format`; the first word of the type is the default."""
    default = type.metavar.partition("|")[0]
    return typed_option("--format", "form", type=type, default=default, show_default=True, help=help_text)


@click.group(
    cls=_Commands,
    no_args_is_help=False,
    invoke_without_command=True,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="adapter-verifier", prog_name="verifier")
@click.pass_context
def cli(context: click.Context) -> ExitStatus | None:
    """Check that an adapter shows what the Hugging Face model computes, for every config of a model family."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
        return ExitStatus.USAGE
    return None


@cli.command("run", epilog=_EPILOG)
@request_options(Door.RUN)
def _run(request: RunRequest) -> ExitStatus:
    """Run every flag combination of FAMILY through every check.

    FAMILY and most options have what [tool.verifier] of pyproject.toml says where they are left out.
    """
    from verifier.commands.run import run

    return run(request)


@cli.command("fuzz", epilog=_EPILOG)
@request_options(Door.FUZZ)
def _fuzz(request: RunRequest) -> ExitStatus:
    """Fuzz FAMILY's whole config space: every distinct failure, shrunk to its minimal case."""
    from verifier.commands.fuzz import fuzz

    return fuzz(request)


@cli.command("repro", epilog=_EPILOG)
@click.argument("identity", metavar="ID")
@click.argument("record", required=False, type=_PATH)
@typed_option("--adapter", type=REFERENCE, help="Another adapter than the record's.")
@click.option("--pdb", is_flag=True, help="In this process, with Python's debugger at each failure.")
@click.option(
    "--script",
    type=_PATH,
    metavar="FILE",
    help="Run nothing: write a Python file that shows the failure, where that is possible without this harness; "
    "`-` for the standard output.",
)
@click.option("--pytest", type=_PATH, metavar="FILE", help="The same as a test function.")
def _repro(identity: str, record: Path | None, adapter: str | None, pdb: bool, **files: Path | None) -> ExitStatus:
    """Run one case again: ID is a case's, or a failure's fingerprint.

    RECORD is a record.jsonl or its folder; without it, the newest record under reports/ that knows the ID.
    """
    from verifier.commands.repro import repro, write

    if not any(files.values()):
        return repro(identity, record, adapter, pdb=pdb)
    if pdb:
        raise click.UsageError("--pdb stops where a case is run, and --script and --pytest run none")
    return write(identity, record, adapter, **files)


@cli.command("report")
@click.argument("records", metavar="RECORD…", nargs=-1, required=True, type=_PATH)
@typed_option("--out", type=FILE, help="Default: beside the record; for Markdown, the standard output.")
@_format_option(REPORT_FORMATS, "A page, or the same as Markdown, for a pull request or a job's summary.")
@typed_option(
    "--selftest",
    "selftests",
    type=FILE,
    multiple=True,
    help="What `verifier selftest --json` wrote, for the report's section on it; may be repeated.",
)
@click.option(
    "--merge",
    is_flag=True,
    help="Take the records as one: campaigns with different seeds. Without it they stand side by side.",
)
@click.option(
    "--gate",
    is_flag=True,
    help="End with the exit status that the records stand for, the worst of several, and not with 0.",
)
@request_option("junit", Door.RUN)
@request_option("github", Door.RUN)
def _report(records: tuple[Path, ...], **options: Any) -> ExitStatus:
    """Write the report of one RECORD, or of several side by side: adapters, or versions of one.

    The shards of a run are one record; where one of them is missing the exit status is 4.
    """
    from verifier.commands.report import report

    return report(records, **options)


@cli.command("baseline")
@click.argument("records", metavar="RECORD…", nargs=-1, type=_PATH)
@typed_option(
    "--out",
    type=FILE,
    help="The baseline; what is written there by hand into entries that stay is kept. Default: the configured one, "
    "else verifier-known.toml.",
)
@typed_option("--remove", type=IDENTITY, multiple=True, help="Take an entry out of the baseline; may be repeated.")
def _baseline(records: tuple[Path, ...], out: Path | None, remove: tuple[str, ...]) -> ExitStatus:
    """Write the failures of a run down as known, each with its case and room for the reason.

    RECORD is a record.jsonl or its folder; of several, shards of one run, one baseline is made.
    """
    from verifier.commands.baseline import baseline

    return baseline(records, out, remove)


@cli.command("diff", epilog=_DIFF_EPILOG)
@click.argument("old", type=_PATH)
@click.argument("new", type=_PATH)
@_format_option(DIFF_FORMATS, "For a terminal, or as Markdown for a pull request's comment.")
@typed_option("--out", type=FILE, help="Where the Markdown goes. Default: the standard output.")
@typed_option(
    "--json",
    type=FILE,
    help="All of it as JSON too, with the id of every case; `-` for the standard output, and nothing else there.",
)
def _diff(old: Path, new: Path, **options: Any) -> ExitStatus:
    """Tell what a change broke and mended: from the record OLD before it and the record NEW after it.

    OLD and NEW are a record.jsonl or its folder each. What failed and was not looked at before counts as broken.
    """
    from verifier.commands.diff import diff

    return diff(old, new, **options)


@cli.command("selftest", epilog=_EPILOG)
@request_options(Door.SELFTEST)
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the kill table as a page of documentation.")
@typed_option("--json", "json_file", type=FILE, help="The kill table as JSON too, for `verifier report --selftest`.")
@click.option(
    "--generated",
    is_flag=True,
    help="Plant generated mutants instead: wrong for one value of a circumstance, or where two or three meet.",
)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Processes of --generated.")
def _selftest(request: RunRequest, *, generated: bool, workers: int, **options: Any) -> ExitStatus:
    """Plant a fault for each check of FAMILY, and show that it is seen."""
    from verifier.commands import selftest

    return selftest.generated(request, workers) if generated else selftest.selftest(request, **options)


@cli.command("doctor", epilog=_DOCTOR_EPILOG)
@request_option("family", Door.RUN)
@request_option("adapters", Door.RUN)
@typed_option("--json", type=FILE, help="All of it as JSON too; `-` for the standard output, and nothing else there.")
def _doctor(family: str | None, adapters: tuple[str, ...], json: Path | None) -> ExitStatus:
    """Look at what is installed, configured and registered here, and at what would keep `verifier run` from running.

    With FAMILY and --adapter it is told what a run of those would be, else what one with no arguments would be.
    """
    from verifier.commands.doctor import doctor

    return doctor(family, adapters, json)


@cli.command("list")
@click.argument("kind", type=TypedParameter(LISTS), metavar=LISTS.metavar)
@request_option("family", Door.RUN)
@click.option("--markdown", "as_markdown", is_flag=True, help="With hooks: the vocabulary as a page of documentation.")
def _list(kind: str, family: str | None, *, as_markdown: bool) -> ExitStatus:
    """Name what there is, of FAMILY alone if given."""
    from verifier.commands.listing import listing

    return listing(kind, family, as_markdown=as_markdown)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and end every failure in one line and its status."""
    session = _Session(traceback=os.environ.get(TRACEBACK_VARIABLE, "") not in ("", "0"))
    status = int(ExitStatus.CONFORMS)  # of a command that only shows something, and whose reader has seen enough
    with harmless_streams():
        try:
            status = _answer(list(sys.argv[1:] if arguments is None else arguments), session)
            sys.stdout.flush()
        except BrokenPipeError:
            pipe.discard(sys.stdout)
        except OSError as error:  # what is printed is kept until there is much of it, or nothing more
            pipe.discard(sys.stdout)
            status = _say(_unprinted(error), ExitStatus.BROKEN)
    return status


def _answer(arguments: list[str], session: _Session) -> int:
    """Run a command, print a line about what went wrong, and give the exit status."""
    try:
        # Not `cli.main`: it would end the process itself when a pipe is closed.
        with cli.make_context("verifier", arguments, obj=session) as context:
            status = cli.invoke(context)
            return ExitStatus.CONFORMS if status is None else int(status)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        return _say(error.format_message(), ExitStatus.USAGE)
    except (KeyboardInterrupt, click.Abort):
        return _say("interrupted", ExitStatus.INTERRUPTED)
    except BrokenPipeError:
        raise
    except VerifierError as error:
        if session.traceback and error.status is ExitStatus.BROKEN:
            traceback.print_exception(error)
            if error.detail:
                print(error.detail, file=sys.stderr)
        return _say(str(error), error.status)
    except Exception as error:
        if _is_nowhere():
            return _say("the current folder is not there any more: change into one that is", ExitStatus.USAGE)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            pipe.discard(sys.stdout)
            return _say(_unprinted(error), ExitStatus.BROKEN)
        if session.traceback:
            traceback.print_exception(error)
            return _say(one_line(error), ExitStatus.BROKEN)
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _SHORT):
            what = error.strerror if isinstance(error, OSError) else "not enough memory"
            return _say(f"this machine gives this process no more of something: {what}", ExitStatus.BROKEN)
        return _say(f"internal error: {one_line(error)} (--traceback shows where)", ExitStatus.BROKEN)


def _is_nowhere() -> bool:
    """Whether the current folder was removed."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _unprinted(error: OSError) -> str:
    return f"cannot print: {error.strerror}"


def _say(message: str, status: ExitStatus) -> ExitStatus:
    text = " ".join(message.split())
    with contextlib.suppress(BrokenPipeError):  # nobody is there to be told; the status still says it
        print(f"verifier: {text}", file=sys.stderr)
    return status
