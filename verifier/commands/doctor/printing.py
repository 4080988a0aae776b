"""What the doctor found, in the terminal: facts first, and what is in the way last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from verifier.commands.doctor.facts import Diagnosis, Installed, Planned, Problem, Registered, Setting, Source
from verifier.errors import ExitStatus
from verifier.output import text

# What a run does where nothing is said of a setting that has no value of its own.
_UNSET = {
    "family": "none: `verifier run` must name one",
    "baseline": "none",
    "only": "every check",
    "where": "every case",
    "workers": "the usable cores",
    "timeout": "60 s",
    "memory": "2 GiB",
    "out": "reports/FAMILY-ADAPTER",
    "gate": "nothing besides what always does",
}


def show(found: Diagnosis, console: Console) -> None:
    """Print all of it."""
    machine = found.machine
    memory = "memory unknown" if machine.memory is None else f"{machine.memory / 2**30:.1f} GiB of memory free"
    _section(
        "Here",
        [
            ("python", f"{machine.python} on {machine.platform}"),
            ("torch", machine.torch),
            ("machine", f"{text.plural(machine.cores, 'usable core')}, {memory}"),
        ],
        console,
    )
    _section("Installed", [_installed(one) for one in found.installed], console)
    _section("Registered", [_registered(one) for one in found.registered], console)
    file = "no file: neither [tool.verifier] in a pyproject.toml nor a verifier.toml, here or above"
    _section(f"Configured: {found.file or file}", [_setting(one) for one in found.settings], console)
    _section("`verifier run` here", [(one.adapter, _planned(one)) for one in found.planned], console)
    _problems(found.problems, console)
    console.print(_verdict(found), soft_wrap=True)


def _section(title: str, rows: Sequence[Sequence[str]], console: Console) -> None:
    if not rows:
        return
    console.print(Text(text.line(title), style="bold"))
    grid = Table.grid(padding=(0, 2))
    for _ in rows[0][:-1]:
        grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for row in rows:
        grid.add_row(*(Text(text.line(cell)) for cell in row))
    console.print(Padding(grid, (0, 0, 1, 2), expand=False))


def _installed(one: Installed) -> tuple[str, ...]:
    wanted = f", {one.wanted}" if one.wanted else ""
    return one.name, one.version or "-", f"{one.purpose}{wanted}"


def _registered(one: Registered) -> tuple[str, ...]:
    where = f"{one.where}, from {one.origin}" if one.origin else one.where
    loads = f"loads in {text.duration(one.seconds)}: {one.said}" if one.loads else "DOES NOT LOAD"
    return one.kind, one.name, f"{where}; {loads}"


def _setting(one: Setting) -> tuple[str, ...]:
    return one.key, one.source, one.value or (_UNSET.get(one.key, "") if one.source is Source.DEFAULT else "nothing")


def _planned(one: Planned) -> str:
    looked = "cases and checks unknown"
    if one.valid is not None and one.refused is not None and one.checks is not None:
        cases = f"{text.plural(one.valid, 'valid case')}, {one.refused:,} refused by HF"
        looked = f"{cases}, {text.plural(one.checks, 'check')}"
    known = "no baseline"
    if one.baseline is not None:
        until = f", the next until {one.expires}" if one.expires else ", none with a last day"
        known = f"{text.plural(one.entries, 'known failure')} in {one.baseline}{until if one.entries else ''}"
    return (
        f"{one.family}: {looked}; {text.plural(one.workers, 'worker')}; a case may take {text.limits(one.limits)}; "
        f"{known}; into {one.out}"
    )


def _problems(found: Iterable[Problem], console: Console) -> None:
    for one in found:
        style = "bold red" if one.status is not None else "yellow"
        mark = "!" if one.status is None else "✗"
        console.print(Text(f"{mark} {text.line(one.what)}", style), soft_wrap=True)
        console.print(Text(f"  {text.line(one.remedy)}"), soft_wrap=True)


def _verdict(found: Diagnosis) -> Text:
    if found.status is not ExitStatus.CONFORMS:
        return Text("`verifier run` would not begin here", style="bold red")
    return Text("`verifier run` would begin here" if found.planned else _UNNAMED, style="bold green")


_UNNAMED = "`verifier run FAMILY` would begin here"
