"""The pytest plugin: run the matrix as tests, by a decorator or from the command line, with a record and a report.

It is loaded by every pytest run on the machine, so until it is used it imports the options and nothing heavy.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from verifier.errors import visible
from verifier.requests.option import Door
from verifier.requests.request import options
from verifier.requests.values import FLAG

if TYPE_CHECKING:
    from verifier.testing.keeping import Keeper, PlanResult

_GROUP = "verifier: adapters of interpretability libraries held against Hugging Face"
_OF_DECORATED = ("family", "isolation", "out")  # the options that mean something without a family
_NEWS = "verifier_news"  # the attribute of a report that carries what happened from one process to another


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that run the matrix without a test file."""
    group = parser.getgroup("verifier", _GROUP)
    for option in options(Door.PYTEST).values():
        is_on = option.type is FLAG and option.default
        if option.type is FLAG:
            settings: dict[str, Any] = {"action": "store_false" if is_on else "store_true"}
        else:
            action = "append" if option.is_repeated(Door.PYTEST) else "store"
            settings = {"action": action, "metavar": option.type.metavar}
        name = f"--verifier-{'no-' if is_on else ''}{option.flag}"
        help_text = option.help_for(Door.PYTEST)
        group.addoption(name, dest=option.pytest_name, default=None, help=help_text, **settings)


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark, and take the tests without a file out of the command line's paths."""
    config.addinivalue_line("markers", "verifier: a case of a model family and what is checked of it")
    family = config.getoption("verifier_family")
    if not family:
        for name, option in options(Door.PYTEST).items():
            if name not in _OF_DECORATED and config.getoption(option.pytest_name) is not None:
                raise pytest.UsageError(f"--verifier-{option.flag} needs --verifier-family: which family is to be run?")
    # A test without a file is named as pytest names it when it fails; there is no such path.
    config.option.verifier_items = [one for one in config.args if family and one.startswith(f"{family}::")]
    config.args[:] = [one for one in config.args if one not in config.option.verifier_items]
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Main(config), "verifier-main")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the tests that the command line asks for, as if they were in a file."""
    if config.getoption("verifier_family"):
        from verifier.errors import VerifierError
        from verifier.testing.collecting import collect_items

        try:
            items.extend(collect_items(session))
        except VerifierError as error:
            raise pytest.UsageError(str(error)) from error


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tell each share which items the session runs, so that a case is run once for all of them."""
    if not _is_used():
        return
    from verifier.testing.parametrizing import find_checks
    from verifier.testing.running import share_of

    isolated = session.config.getoption("verifier_isolation") is not False
    for item in session.items:
        checks = find_checks(item)
        if checks is not None:
            share_of(checks.plan, isolated=isolated).expect(checks.item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Let the checks know the item in which they run: their subtests are reported through it."""
    if not _is_used():
        return (yield)
    from verifier.testing.parametrizing import running_item

    token = running_item.set(item)
    try:
        return (yield)
    finally:
        running_item.reset(token)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Attach what happened to the report, for the process that keeps the record."""
    report = yield
    if _is_used():
        from verifier.testing.parametrizing import find_checks
        from verifier.testing.running import share_of

        checks = find_checks(item)
        news = share_of(checks.plan).news() if checks is not None else None
        if news is not None:
            setattr(report, _NEWS, news.as_text())
    return report


def pytest_sessionfinish() -> None:
    """Stop what was started to run cases."""
    if _is_used():
        from verifier.testing.running import close_all

        close_all()


class _Main:
    """Keeps the records in the process that hears of every item: with pytest-xdist the one that gives out the work.

    Args:
        config: of the session.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._began = time.monotonic()
        self._keeper: Keeper | None = None
        self._kept: list[PlanResult] = []
        self._complaints: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write what happened into the record."""
        news = getattr(report, _NEWS, None)
        if news is None:
            return
        from verifier.testing.keeping import Keeper
        from verifier.testing.running import News

        if self._keeper is None:
            out = self._config.getoption("verifier_out")
            self._keeper = Keeper(None if out is None else Path(out))
        with self._at_home():
            self._keeper.note(News.from_text(news))

    def _at_home(self) -> contextlib.AbstractContextManager[None]:
        """Go back to where pytest was started, from where paths lead, wherever a test or an adapter has gone since."""
        from verifier.engine.process import preserve_cwd

        return preserve_cwd(self._config.invocation_params.dir)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """End the records; the session also fails if a verdict does, for example because too little was looked at."""
        if self._keeper is None:
            return
        from verifier.engine.events import Stop
        from verifier.errors import ExitStatus

        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        whole = ended and not session.shouldstop and not session.shouldfail
        stop = Stop.COMPLETE if whole else Stop.INTERRUPTED
        with self._at_home():
            self._kept = self._keeper.finish(stop, time.monotonic() - self._began)
        self._complaints = self._keeper.complaints
        bad = [one for one in self._kept if one.summary.status is not ExitStatus.CONFORMS]
        if exitstatus == pytest.ExitCode.OK and (bad or self._complaints):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the verdict on each adapter, as `verifier run` does."""
        for one in self._kept:
            from verifier.output import console
            from verifier.report import terminal

            text = io.StringIO()
            terminal.show_verdict(one.summary, console.stream_console(text))
            terminalreporter.section(visible(f"verifier {one.summary.run.family} × {one.summary.run.adapter}"))
            terminalreporter.write_line(text.getvalue().rstrip())
            if one.folder is not None:
                terminalreporter.write_line(visible(f"record and report  {one.folder}"))
        for complaint in self._complaints:
            terminalreporter.write_line(f"verifier: {complaint}", red=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give whole cases to one worker, so that nothing is built twice; other tests are spread as usual."""
    if config.getoption("dist") not in ("load", "loadgroup"):
        return None
    from verifier.testing.spreading import WholeCases

    return WholeCases(config, log)


def _is_used() -> bool:
    """Whether this process has any test of this plugin."""
    return "verifier.testing.parametrizing" in sys.modules
