"""The figures of a bench in the terminal: each with its words, and its target where it has one."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from verifier.bench import figures as of
from verifier.bench.against import Against
from verifier.bench.clock import Kind
from verifier.bench.costs import CheckCost, Costs
from verifier.bench.curves import Curve, Fit, Growth
from verifier.bench.figures import Figures
from verifier.bench.fuzzed import Fuzzed
from verifier.output import text

MOST_CHECKS = 15

_NOT_MEASURED = "not measured here"
_GROWTH = {
    Growth.FALLS: "falls: better than linear in what the models cost",
    Growth.HOLDS: "holds: linear in what the models cost",
    Growth.GROWS: "GROWS: worse than linear in what the models cost",
}


def show(figures: Figures, console: Console, *, every_check: bool = False) -> None:
    """Print all of them.

    Args:
        figures: what was measured.
        console: where it goes.
        every_check: whether all checks are shown, and not the dearest alone.
    """
    title = f"verifier bench {figures.family} --adapter {figures.adapter} {figures.narrowed}"
    console.print(Text(text.line(title), style="bold"))
    console.print(text.versions(figures.versions), style="dim")
    _show_startup(figures, console)
    _show_whole(figures, console)
    _show_costs(figures, console)
    _show_checks(figures.costs, None if every_check else MOST_CHECKS, console)
    if figures.against is not None:
        _show_against(figures.against, console)
    for curve in figures.curves:
        _show_curve(curve, console)
    if figures.fuzzed is not None:
        _show_fuzzed(figures.fuzzed, console)


def _show_fuzzed(fuzzed: Fuzzed, console: Console) -> None:
    cases = f"{text.plural(fuzzed.valid, 'valid case')}, {fuzzed.refused:,} refused"
    _head("Fuzzing", console)
    _lines(
        [
            (f"{fuzzed.rate:.2f}", f"cases per second and core ({cases})"),
            (_seconds(fuzzed.seconds), f"wall time, {text.plural(fuzzed.found, 'failure')} shrunk in it"),
        ],
        console,
    )


def _show_startup(figures: Figures, console: Console) -> None:
    startup = figures.startup
    first = "none came" if startup.first_outcome is None else _seconds(startup.first_outcome)
    ours = "" if startup.ours is None else _seconds(startup.ours)
    each = ", ".join(_seconds(one) for one in startup.imports)
    target = _target(f"{of.START_SECONDS:g} s", figures.met["start"])
    _head("Start-up", console)
    _lines(
        [
            (first, "from the start of `verifier run` until its first outcome is in the record"),
            (_seconds(startup.bare), f"to import torch and the modelling file, bare (median of {each})"),
            (ours, f"the harness on top of them{target}"),
        ],
        console,
    )


def _show_whole(figures: Figures, console: Console) -> None:
    whole, met = figures.whole, figures.met
    cases = f"{text.plural(whole.valid, 'valid case')}, {whole.refused:,} refused"
    outcomes = ", ".join(f"{count:,} {verdict}" for verdict, count in sorted(whole.outcomes.items()))
    cpu = _NOT_MEASURED if whole.taken.cpu is None else _seconds(whole.taken.cpu)
    _head("The run" if figures.narrowed else "The whole matrix", console)
    _lines(
        [
            (_seconds(whole.seconds), f"wall time{_target(f'{of.MATRIX_SECONDS:g} s', met['matrix'])}"),
            (cpu, "CPU time of all its processes"),
            (f"{whole.rate:.2f}", f"cases per second and core ({text.plural(whole.workers, 'worker')}, {cases})"),
            (
                _size(whole.taken.memory),
                f"memory at most, of all its processes together{_target('2 GiB', met['memory'])}",
            ),
            (_size(whole.taken.largest), "memory at most, of its largest process, with what it shares"),
            (f"{sum(whole.outcomes.values()):,}", f"outcomes: {outcomes}; exit status {whole.status}"),
        ],
        console,
    )


def _show_costs(figures: Figures, console: Console) -> None:
    costs = figures.costs
    _head("A case", console)
    refused = "" if costs.refused is None else f"; one that HF refuses takes {_milliseconds(costs.refused)}"
    console.print(
        Padding(
            f"{_seconds(costs.seconds)} in the mean, in one process with one thread (CPU time "
            f"{_seconds(costs.cpu)}): {text.plural(costs.cases, 'case')} for {costs.of:,}{refused}. "
            f"The whole matrix of them is {text.duration(_of_all(costs, figures.whole.refused))} of one core.",
            (0, 0, 0, 2),
        )
    )
    table = _table("", "ms", "share", "calls", "bare ms", "watched ms", "bare", "watched")
    rows = [(str(kind), costs.inside[kind]) for kind in Kind if kind.of_models and costs.inside[kind].calls]
    for name, inside in rows:
        table.add_row(
            name,
            *_time_and_share(inside.seconds, costs),
            f"{inside.calls:.1f}",
            _bare_milliseconds(inside.seconds - inside.watched_seconds),
            _bare_milliseconds(inside.watched_seconds),
            f"{inside.calls - inside.watched_calls:.1f}",
            f"{inside.watched_calls:.1f}",
        )
    target = _target(f"{of.MODELS_SHARE:.0%}", figures.met["share"])
    table.add_section()
    table.add_row(f"inside the models{target}", *_time_and_share(costs.models, costs), style="bold")
    table.add_row("  of that in bare calls", *_time_and_share(costs.bare, costs))
    table.add_row(str(Kind.OTHER), *_time_and_share(costs.other, costs), f"{costs.inside[Kind.OTHER].calls:.1f}")
    table.add_row("the harness", *_time_and_share(costs.harness, costs))
    console.print(Padding(table, (0, 0, 0, 2), expand=False))
    console.print(
        Padding(
            "Watched calls run under the harness's taps, hooks or modes, whose work is in their time; bare ones under "
            f"none. Counting them took {_milliseconds(costs.instrument)} of CPU time a case"
            f" ({costs.instrument / costs.cpu:.1%}); "
            + ("every verdict is as without it." if costs.as_without else "VERDICTS DIFFER from those without it!"),
            (0, 0, 0, 2),
        )
    )


def _of_all(costs: Costs, refused: int) -> float:
    return costs.seconds * costs.of + (costs.refused or 0.0) * refused


def _show_checks(costs: Costs, most: int | None, console: Console) -> None:
    _head("Checks, in a mean case", console)
    table = _table("check", "ms", "models", "the rest", "of the time", "of the cases")
    for check in costs.checks[:most]:
        table.add_row(text.line(check.check), *_check(check, costs))
    rest = costs.checks[len(costs.checks[:most]) :]
    if rest:
        table.add_row(
            f"… {text.plural(len(rest), 'more check')}",
            *_times(sum(one.seconds for one in rest), sum(one.models for one in rest)),
            f"{sum(one.seconds for one in rest) / costs.seconds:.1%}",
        )
    console.print(Padding(table, (0, 0, 0, 2), expand=False))


def _check(check: CheckCost, costs: Costs) -> list[str]:
    return [*_times(check.seconds, check.models), f"{check.seconds / costs.seconds:.1%}", f"{check.cases:.0%}"]


def _times(seconds: float, models: float) -> list[str]:
    return [_bare_milliseconds(seconds), _bare_milliseconds(models), _bare_milliseconds(seconds - models)]


def _show_against(against: Against, console: Console) -> None:
    _head("Another program", console)
    ours, theirs = statistics.median(against.ours), statistics.median(against.theirs)
    turns = f"median of {len(against.ours)} turns, start-up included"
    _lines(
        [
            (_seconds(ours), f"ours on {text.plural(against.cases, 'case')} ({turns})"),
            (_seconds(theirs), f"theirs: {text.line(against.command)}"),
            (f"{against.ratio:.2f}", "theirs over ours"),
        ],
        console,
    )


def _show_curve(curve: Curve, console: Console) -> None:
    _head(f"Growth with {curve.axis}", console)
    if not curve.points:
        console.print(Padding(Text(f"Left out: {text.line(curve.left_out)}."), (0, 0, 0, 2)))
        return
    table = _table(curve.axis, "s", "s inside the models", "the rest over them")
    for point in curve.points:
        table.add_row(f"{point.size:,}", f"{point.seconds:.2f}", f"{point.models:.2f}", f"{point.ratio:.2f}")
    table.add_section()
    table.add_row("exponent, at 95%", *(_exponent(one) for one in (curve.total, curve.models, curve.ratio)))
    console.print(Padding(table, (0, 0, 0, 2), expand=False))
    grown = curve.growth
    words = Text(f"What is not inside the models, over what is, {_GROWTH[grown]}.")
    words.stylize("bold yellow" if grown is Growth.GROWS else "green")
    console.print(Padding(words, (0, 0, 0, 2)))
    if gating := sum(point.gating for point in curve.points):
        outcomes = text.plural(gating, "outcome")
        console.print(Padding(Text(f"{outcomes} on the way did not conform.", style="yellow"), (0, 0, 0, 2)))


def _exponent(fit: Fit) -> str:
    return f"{fit.exponent:.2f} ± {fit.error:.2f}"


def _head(title: str, console: Console) -> None:
    console.print()
    console.print(Text(title, style="bold underline"))


def _lines(lines: Sequence[tuple[str, str]], console: Console) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(overflow="fold")
    for figure, words in lines:
        grid.add_row(figure or "-", Text(words))
    console.print(Padding(grid, (0, 0, 0, 2), expand=False))


def _table(first: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    table.add_column(first)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _target(bound: str, met: bool | None) -> str:
    """What the figure is held against, and the answer; nothing where it is not asked of this run."""
    return "" if met is None else f" (target {bound}: {'met' if met else 'MISSED'})"


def _size(count: int | None) -> str:
    return _NOT_MEASURED if count is None else f"{count / 2**20:,.0f} MiB"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s"


def _milliseconds(seconds: float) -> str:
    return f"{_bare_milliseconds(seconds)} ms"


def _bare_milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.1f}"


def _time_and_share(seconds: float, costs: Costs) -> tuple[str, str]:
    return _bare_milliseconds(seconds), f"{seconds / costs.seconds:.1%}"
