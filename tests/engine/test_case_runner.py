"""Cases one at a time: in a worker that is kept, or in this process."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from verifier.engine.case_runner import CaseResult, CaseRunner, InProcessRunner, SubprocessRunner
from verifier.engine.plan import Plan
from verifier.errors import ImportFailed
from verifier.judging.outcome import Verdict

CHECKS = ["build.adapter"]


@pytest.fixture
def runners(plan) -> Iterator[dict[str, CaseRunner]]:
    """Feeds that a test makes; what they started is ended."""
    made: dict[str, CaseRunner] = {}
    yield made
    for runner in made.values():
        runner.close()


def runner_of(
    runners: dict[str, CaseRunner],
    plan: Plan,
    kind: type[SubprocessRunner] | type[InProcessRunner] = SubprocessRunner,
) -> CaseRunner:
    runners[str(len(runners))] = made = kind(replace(plan, specs=()))
    return made


def essence(result: CaseResult) -> list[tuple[str, Verdict, str | None]]:
    return [(one.check, one.verdict, one.fingerprint) for one in result.outcomes]


@pytest.mark.parametrize("kind", [SubprocessRunner, InProcessRunner])
def test_what_the_adapter_calls_itself_is_known_after_one_case(plan, runners, kind) -> None:
    wanted = plan("Right", count=1)
    runner = runner_of(runners, wanted, kind)
    assert runner.started is None
    runner.run(wanted.specs[0], CHECKS)
    assert runner.started is not None
    assert (runner.started.adapter_name, runner.started.adapter_version) == ("right", "1")
    assert {one.id for one in runner.started.checks} == set(wanted.only)


def test_a_case_is_run_alike_here_and_there(plan, runners) -> None:
    wanted = plan("Zeros", count=2, only=("build", "forward.logits"), refused=True)
    here, there = (runner_of(runners, wanted, kind) for kind in (InProcessRunner, SubprocessRunner))
    for spec in wanted.specs:
        checks = ["build.adapter", "build.refusal", "forward.logits"]
        told = essence(here.run(spec, checks))
        assert told == essence(there.run(spec, checks))
        assert {check for check, _, _ in told} <= set(checks)
        assert told


def test_one_worker_is_kept(plan, runners) -> None:
    wanted = plan("Right", count=3)
    runner = runner_of(runners, wanted)
    before, processes = set(multiprocessing.active_children()), set()
    for spec in wanted.specs:
        assert essence(runner.run(spec, CHECKS)) == [("build.adapter", Verdict.PASS, None)]
        processes |= set(multiprocessing.active_children()) - before
    assert len(processes) == 1
    assert runner.lost == []
    runner.close()
    assert not processes & set(multiprocessing.active_children())


def test_the_same_case_can_be_run_again_with_other_checks(plan, runners) -> None:
    wanted = plan("Right", count=1)
    runner = runner_of(runners, wanted)
    (spec,) = wanted.specs
    assert [one.check for one in runner.run(spec, ["build.adapter"]).outcomes] == ["build.adapter"]
    assert [one.check for one in runner.run(spec, ["reference.acceptance"]).outcomes] == ["reference.acceptance"]


def test_a_worker_that_dies_is_replaced(plan, runners) -> None:
    wanted = plan("Segfaults", count=4)
    runner = runner_of(runners, wanted)
    verdicts = [runner.run(spec, CHECKS).outcomes[0].verdict for spec in wanted.specs]
    assert verdicts == [Verdict.PASS, Verdict.CRASH, Verdict.PASS, Verdict.CRASH]
    assert {one.case for one in runner.lost} == {wanted.specs[1].id, wanted.specs[3].id}


def test_a_case_with_nothing_to_look_at_is_over_at_once(plan, runners) -> None:
    wanted = plan("Right", count=1)
    runner = runner_of(runners, wanted)
    assert runner.run(wanted.specs[0], ["build.refusal"]).outcomes == ()


def test_what_fails_at_import_is_told_each_time(plan, runners) -> None:
    wanted = plan("QuitsOnce", count=1)
    runner = runner_of(runners, wanted)
    for _ in range(2):
        with pytest.raises(ImportFailed, match="QuitsOnce"):
            runner.run(wanted.specs[0], CHECKS)


def test_a_runner_can_be_closed_at_any_time_and_used_again(plan, runners) -> None:
    wanted = plan("Right", count=2)
    runner = runner_of(runners, wanted)
    runner.close()
    runner.run(wanted.specs[0], CHECKS)
    runner.close()
    runner.close()
    assert runner.run(wanted.specs[1], CHECKS).outcomes[0].verdict is Verdict.PASS


def test_between_two_cases_an_interrupt_is_the_callers(plan, runners) -> None:
    wanted = plan("Right", count=2)
    runner = runner_of(runners, wanted)
    before = signal.getsignal(signal.SIGINT)
    runner.run(wanted.specs[0], CHECKS)
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert runner.run(wanted.specs[1], CHECKS).outcomes[0].verdict is Verdict.PASS
    runner.close()
    assert signal.getsignal(signal.SIGINT) is before


def test_in_a_case_an_interrupt_ends_it(plan, runners) -> None:
    wanted = plan("Hangs", count=2)
    runner = runner_of(runners, wanted)
    plain, biased = wanted.specs
    runner.run(plain, CHECKS)
    signal.signal(signal.SIGALRM, lambda number, frame: os.kill(os.getpid(), signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    with pytest.raises(KeyboardInterrupt):
        runner.run(biased, CHECKS)
    assert runner.run(plain, CHECKS).outcomes[0].verdict is Verdict.PASS


def test_here_torch_has_one_thread_and_afterwards_as_many_as_before(plan, runners) -> None:
    wanted = plan("Right", count=1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        runner_of(runners, wanted, InProcessRunner).run(wanted.specs[0], CHECKS)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
