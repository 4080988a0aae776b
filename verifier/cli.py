"""The command line: parsing, hints, and what each kind of failure ends with. What commands do is in `commands/`.

Everything heavy is imported inside the commands, so that `--help` and a wrong command line cost nothing.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from verifier.cases.shards import shard_of
from verifier.cases.spec import WORKING_DTYPES
from verifier.errors import ExitStatus, UsageError, VerifierError, one_line
from verifier.output import pipe
from verifier.output.text import nearest
from verifier.requests import configuration, measures

TRACEBACK_VARIABLE = "VERIFIER_TRACEBACK"
REPORT_FORMATS = ("html", "markdown")
DIFF_FORMATS = ("terminal", "markdown")
LISTS = ("families", "adapters", "checks", "hooks", "presets")

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
    """What the options say of the command as a whole."""

    traceback: bool


class _Commands(click.Group):
    """A group that knows what was meant."""

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


class _OneOf(click.Choice[str]):
    """A choice whose error names the nearest one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        known = [str(choice) for choice in self.choices]
        if value not in known:
            self.fail(f"{value!r} is none of {', '.join(known)}{nearest(str(value), known)}", param, ctx)
        return str(value)


class _Read(click.ParamType[Any]):
    """What a function makes of a text; what that complains of is the option's complaint."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value  # it was read before
        try:
            return self._read(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


_duration, _size = _Read("duration", measures.duration), _Read("size", measures.size)
_shard = _Read("shard", shard_of)


Function = TypeVar("Function", bound=Callable[..., Any])


def _shows_traceback(function: Function) -> Function:
    """`--traceback`, which every command takes."""

    def note(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        session = context.find_object(_Session)
        if session is not None and value:
            session.traceback = True

    option = click.option(
        "--traceback",
        is_flag=True,
        expose_value=False,
        callback=note,
        help=f"Show the Python traceback of an internal error ({TRACEBACK_VARIABLE}=1 does too).",
    )
    return option(function)


def _configured(
    *, told: bool = False, without: Sequence[str] = ()
) -> Callable[[Callable[..., ExitStatus]], Callable[..., ExitStatus]]:
    """A command whose options have the project's settings where the command line says nothing.

    Args:
        told: whether it is told which settings it was given, as `configured`.
        without: the options that are none of `run`'s, although they have the name of one.
    """

    def decorate(function: Callable[..., ExitStatus]) -> Callable[..., ExitStatus]:
        @functools.wraps(function)
        def filled(**options: Any) -> ExitStatus:
            context = click.get_current_context()
            found = configuration.read(Path.cwd())
            given = {name for name in options if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
            options, used = configuration.fill(options, given.union(without), found)
            if options["family"] is None:
                raise click.UsageError(
                    f"Missing argument 'FAMILY': `verifier {context.info_name} FAMILY`, or `family` in [tool.verifier] "
                    f"of pyproject.toml; `verifier list families` names them"
                )
            if told:
                options["configured"] = used
            try:
                return function(**options)
            except UsageError as error:
                raise configuration.blamed(error, found, used) from error

        return filled

    return decorate


def _require_left_out(*names: str, why: str) -> None:
    """Raise where one of these options stands on the command line."""
    context = click.get_current_context()
    for parameter in context.command.params:
        if parameter.name in names and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[0]} says nothing here: {why}; leave it out")


_adapter = click.option("--adapter", metavar="NAME|MODULE:OBJECT", help="Another adapter than the default one.")
_dtypes = click.option(
    "--dtype",
    "dtypes",
    multiple=True,
    type=_OneOf(WORKING_DTYPES),
    help="A dtype that precision is judged in; may be repeated. Default: all.",
)
_device = click.option("--device", default="cpu", show_default=True, help="As torch names it.")
_workers = click.option("--workers", type=click.IntRange(1), help="Processes. Default: the usable cores.")
_seed = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of weights and inputs."
)


_junit = click.option(
    "--junit",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="JUnit XML too, a test case for each check: for Jenkins, GitLab and other build servers.",
)
_github = click.option(
    "--github",
    is_flag=True,
    help="Annotations for GitHub's pages on the standard output, and the report in the step's summary.",
)


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
@click.argument("family", required=False)
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="NAME|MODULE:OBJECT",
    help="The adapter under test; may be given more than once. Default: `adapter` in [tool.verifier] of "
    "pyproject.toml, else `bridge`.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="GLOB",
    help="Checks to run: `qkv.*`, or an area alone, `qkv`; may be given more than once.",
)
@click.option(
    "--where", multiple=True, metavar="FLAG=VALUE,…", help="Cases to run, `alibi=true,num_kv_heads=4`; may be repeated."
)
@click.option("--preset", metavar="NAME", help="A published checkpoint's shape instead of the flag matrix.")
@click.option("--checkpoint", metavar="DIR", help="The model in this folder instead of the flag matrix.")
@_dtypes
@_device
@_seed
@_workers
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where record and report go; of several adapters each gets DIR/FAMILY-ADAPTER. "
    "Default: reports/FAMILY-ADAPTER.",
)
@click.option(
    "--baseline",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Known failures, as `verifier baseline` writes them: they are run again first, and excused where they still "
    "fail so. May be repeated, one for each adapter.",
)
@click.option("--no-baseline", is_flag=True, help="Leave the configured baseline aside.")
@click.option(
    "--gate",
    multiple=True,
    type=_OneOf(configuration.GATES),
    metavar="|".join(configuration.GATES),
    help="An outcome with which the adapter does not conform either; may be repeated. `skip` is every check that was "
    "not applicable.",
)
@click.option(
    "--changed-since",
    metavar="REV",
    help="Run only the adapters of whose files, or of what they import, something was touched between this git "
    "revision and the working tree.",
)
@click.option(
    "--cases",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The cases in this file instead of the flag matrix: a record.jsonl, or a case's JSON on each line.",
)
@click.option(
    "--everywhere",
    is_flag=True,
    help="Every check on every case, also those that otherwise look at a covering of the flags, or at a few cases.",
)
@click.option("--resume", is_flag=True, help="Go on with the record that is there: run only the cases it lacks.")
@click.option(
    "--timeout",
    type=_duration,
    help="What a case may take: `90`, `90s`, `5m`; 0 for no limit. Default: 60s, and 1h for --preset and --checkpoint.",
)
@click.option(
    "--memory",
    type=_size,
    help="What a case may take on top: `512M`, `4G`; 0 for no limit. Default: 2G, and what is free, shared out among "
    "the workers, for --preset and --checkpoint.",
)
@click.option(
    "--isolation/--no-isolation",
    default=True,
    show_default=True,
    help="Without it everything runs in this very process: for a debugger, with no limits.",
)
@click.option("--pdb", is_flag=True, help="Stop in Python's debugger at each failure; takes --no-isolation with it.")
@click.option("--slowest", type=click.IntRange(0), default=0, metavar="N", help="Name the N slowest cases at the end.")
@click.option(
    "--shard",
    type=_shard,
    metavar="I/N",
    help="The I-th of N parts of the cases, which N machines run; `verifier report` puts their records together.",
)
@_junit
@_github
@_shows_traceback
@_configured(told=True)
def _run(dtypes: tuple[str, ...], no_baseline: bool, **options: Any) -> ExitStatus:
    """Run every flag combination of FAMILY through every check.

    FAMILY and most options have what [tool.verifier] of pyproject.toml says where they are left out.
    """
    from verifier.commands.run import run
    from verifier.requests.request import RunOptions

    if no_baseline and options["baseline"]:
        raise click.UsageError("--baseline and --no-baseline contradict each other: give one of them")
    if options["cases"] is not None:
        _require_left_out("dtypes", "seed", "device", why="each of --cases has its own")
    if options["pdb"]:
        options["isolation"] = False
    return run(RunOptions(dtypes=dtypes or WORKING_DTYPES, **options))


@cli.command("fuzz", epilog=_EPILOG)
@click.argument("family", required=False)
@_adapter
@click.option("--only", multiple=True, metavar="GLOB", help="As for `run`.")
@click.option(
    "--where",
    multiple=True,
    metavar="FIELD=VALUE,…",
    help="Fields that are to have one value: flags, dims, batch, length, long, padding, scale, attention.",
)
@click.option("--time", type=_duration, help="How long: `90s`, `10m`. With neither, until Ctrl-C.")
@click.option("--max-examples", type=click.IntRange(1), metavar="N", help="How many cases, those of shrinking aside.")
@_dtypes
@_device
@_seed
@_workers
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where record, report and the cases that are kept go. Default: reports/FAMILY-ADAPTER-fuzz.",
)
@click.option("--timeout", type=_duration, help="What a case may take; 0 for no limit. Default: 60s.")
@click.option("--memory", type=_size, help="What a case may take on top; 0 for no limit. Default: 4G.")
@_shows_traceback
@_configured(without=["out"])
def _fuzz(dtypes: tuple[str, ...], **options: Any) -> ExitStatus:
    """Fuzz FAMILY's whole config space: every distinct failure, shrunk to its minimal case."""
    from verifier.commands.fuzz import FuzzOptions, fuzz

    return fuzz(FuzzOptions(dtypes=dtypes or WORKING_DTYPES, **options))


@cli.command("repro", epilog=_EPILOG)
@click.argument("identity", metavar="ID")
@click.argument("record", required=False, type=click.Path(path_type=Path))
@_adapter
@click.option("--pdb", is_flag=True, help="In this process, with Python's debugger at each failure.")
@click.option(
    "--script",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Run nothing: write a Python file that shows the failure, where that is possible without this harness; "
    "`-` for the standard output.",
)
@click.option("--pytest", type=click.Path(path_type=Path), metavar="FILE", help="The same as a test function.")
@_shows_traceback
def _repro(
    identity: str, record: Path | None, adapter: str | None, pdb: bool, script: Path | None, pytest: Path | None
) -> ExitStatus:
    """Run one case again: ID is a case's, or a failure's fingerprint.

    RECORD is a record.jsonl or its folder; without it, the newest record under reports/ that knows the ID.
    """
    from verifier.commands.repro import repro, write

    if script is None and pytest is None:
        return repro(identity, record, adapter, pdb=pdb)
    if pdb:
        raise click.UsageError("--pdb stops where a case is run, and --script and --pytest run none")
    return write(identity, record, adapter, script=script, pytest=pytest)


@cli.command("report")
@click.argument("records", metavar="RECORD…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Default: beside the record; for Markdown, the standard output.",
)
@click.option(
    "--format",
    "form",
    type=_OneOf(REPORT_FORMATS),
    default=REPORT_FORMATS[0],
    show_default=True,
    metavar="|".join(REPORT_FORMATS),
    help="A page, or the same as Markdown, for a pull request or a job's summary.",
)
@click.option(
    "--selftest",
    "selftests",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
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
@_junit
@_github
@_shows_traceback
def _report(records: tuple[Path, ...], **options: Any) -> ExitStatus:
    """Write the report of one RECORD, or of several side by side: adapters, or versions of one.

    The shards of a run are one record; where one of them is missing the exit status is 4.
    """
    from verifier.commands.report import ReportOptions, report

    return report(records, ReportOptions(**options))


@cli.command("baseline")
@click.argument("records", metavar="RECORD…", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The baseline; what is written there by hand into entries that stay is kept. Default: the configured one, "
    "else verifier-known.toml.",
)
@click.option("--remove", multiple=True, metavar="ID", help="Take an entry out of the baseline; may be repeated.")
@_shows_traceback
def _baseline(records: tuple[Path, ...], out: Path | None, remove: tuple[str, ...]) -> ExitStatus:
    """Write the failures of a run down as known, each with its case and room for the reason.

    RECORD is a record.jsonl or its folder; of several, shards of one run, one baseline is made.
    """
    from verifier.commands.baseline import baseline

    return baseline(records, out, remove)


@cli.command("diff", epilog=_DIFF_EPILOG)
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=_OneOf(DIFF_FORMATS),
    default=DIFF_FORMATS[0],
    show_default=True,
    metavar="|".join(DIFF_FORMATS),
    help="For a terminal, or as Markdown for a pull request's comment.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where the Markdown goes. Default: the standard output.",
)
@click.option(
    "--json",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="All of it as JSON too, with the id of every case; `-` for the standard output, and nothing else there.",
)
@_shows_traceback
def _diff(**options: Any) -> ExitStatus:
    """Tell what a change broke and mended: from the record OLD before it and the record NEW after it.

    OLD and NEW are a record.jsonl or its folder each. What failed and was not looked at before counts as broken.
    """
    from verifier.commands.diff import DiffOptions, diff

    return diff(DiffOptions(**options))


@cli.command("selftest", epilog=_EPILOG)
@click.argument("family", required=False)
@_adapter
@_seed
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the kill table as a page of documentation.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The kill table as JSON too, for `verifier report --selftest`.",
)
@_shows_traceback
@_configured()
def _selftest(family: str, adapter: str, seed: int, as_markdown: bool, json_file: Path | None) -> ExitStatus:
    """Plant a fault for each check of FAMILY, and show that it is seen."""
    from verifier.commands.selftest import selftest

    return selftest(family, adapter, seed, as_markdown=as_markdown, json_file=json_file)


@cli.command("doctor", epilog=_DOCTOR_EPILOG)
@click.argument("family", required=False)
@click.option("--adapter", "adapters", multiple=True, metavar="NAME|MODULE:OBJECT", help="As for `run`.")
@click.option(
    "--json",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="All of it as JSON too; `-` for the standard output, and nothing else there.",
)
@_shows_traceback
def _doctor(family: str | None, adapters: tuple[str, ...], json: Path | None) -> ExitStatus:
    """Look at what is installed, configured and registered here, and at what would keep `verifier run` from running.

    With FAMILY and --adapter it is told what a run of those would be, else what one with no arguments would be.
    """
    from verifier.commands.doctor import doctor

    return doctor(family, adapters, json)


@cli.command("list")
@click.argument("kind", type=_OneOf(LISTS), metavar="|".join(LISTS))
@click.argument("family", required=False)
@_shows_traceback
def _list(kind: str, family: str | None) -> ExitStatus:
    """Name what there is, of FAMILY alone if given."""
    from verifier.commands.listing import listing

    return listing(kind, family)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and end every failure in one line and its status."""
    _have_streams()
    session = _Session(traceback=os.environ.get(TRACEBACK_VARIABLE, "") not in ("", "0"))
    status = int(ExitStatus.CONFORMS)  # of a command that only shows something, and whose reader has seen enough
    try:
        status = _answer(list(sys.argv[1:] if arguments is None else arguments), session)
        sys.stdout.flush()
    except BrokenPipeError:
        pipe.discard(sys.stdout)
    except OSError as error:  # what is printed is kept until there is much of it, or nothing more
        pipe.discard(sys.stdout)
        status = _say(_unprinted(error), ExitStatus.BROKEN)
    return status


def _have_streams() -> None:
    """Output and errors go somewhere, whatever a shell has closed, and hold every character, whatever the locale."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (as long as the process)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _answer(arguments: list[str], session: _Session) -> int:
    try:
        status = _invoke(arguments, session)
    except click.exceptions.Exit as ended:
        status = ended.exit_code
    except click.ClickException as error:
        status = _say(error.format_message(), ExitStatus.USAGE)
    except (KeyboardInterrupt, click.Abort):
        status = _say("interrupted", ExitStatus.INTERRUPTED)
    except BrokenPipeError:
        raise
    except VerifierError as error:
        if session.traceback and error.status is ExitStatus.BROKEN:
            _show_traceback(error)
        status = _say(str(error), error.status)
    except Exception as error:
        if _is_nowhere():
            status = _say("the current folder is not there any more: change into one that is", ExitStatus.USAGE)
        elif isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            pipe.discard(sys.stdout)
            status = _say(_unprinted(error), ExitStatus.BROKEN)
        elif session.traceback:
            _show_traceback(error)
            status = _say(one_line(error), ExitStatus.BROKEN)
        else:
            hint = "--traceback shows where"
            status = _say(f"internal error: {one_line(error)} ({hint})", ExitStatus.BROKEN)
    return int(status)


def _is_nowhere() -> bool:
    """Whether the current folder was removed."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _unprinted(error: OSError) -> str:
    return f"cannot print: {error.strerror}"


def _invoke(arguments: list[str], session: _Session) -> int:
    # Not `cli.main`: it would end the process itself when a pipe is closed.
    with cli.make_context("verifier", arguments, obj=session) as context:
        status = cli.invoke(context)
        return ExitStatus.CONFORMS if status is None else int(status)


def _say(message: str, status: ExitStatus) -> ExitStatus:
    text = " ".join(message.split())
    with contextlib.suppress(BrokenPipeError):  # nobody is there to be told; the status still says it
        print(f"verifier: {text}", file=sys.stderr)
    return status


def _show_traceback(error: Exception) -> None:
    """That of the process in which it showed, where it was a worker."""
    traceback.print_exception(error)
    detail = getattr(error, "detail", None)
    if detail:
        print(detail, file=sys.stderr)
