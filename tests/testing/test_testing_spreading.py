"""The items of a case go to one process, and what is none of ours is spread as ever."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from xdist.remote import Producer

from verifier.testing.plans import list_items, plan_decorated
from verifier.testing.spreading import WholeCases, case_of

OURS = [
    f"test_it.py::test_conforms[alibi+num_kv_heads:4-{case}-{area}]"
    for case in ("gjei7dt5", "vpi8zeva", "twnfby3k", "f3ggc9nu")
    for area in ("build", "qkv", "forward")
]
OTHERS = [f"test_other.py::test_other[{number}]" for number in range(12)]


class Process:
    """What xdist knows a worker process by; it keeps what it is sent."""

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.shutting_down = False
        self.sent: list[int] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        self.sent += indices

    def shutdown(self) -> None:
        self.shutting_down = True


def spread(how: str, collection: list[str]) -> list[list[str]]:
    """Which of two processes gets what, the first test of each always ended first."""
    options: dict[str, Any] = {"dist": how, "tx": ["popen", "popen"], "maxschedchunk": None}
    option = SimpleNamespace(loadscopereorder=True)
    config: Any = SimpleNamespace(getoption=options.get, getvalue=options.get, option=option)
    scheduler = WholeCases(config, Producer("test", enabled=False))
    processes = [Process("gw0"), Process("gw1")]
    for one in processes:
        scheduler.add_node(one)
    for one in processes:
        scheduler.add_node_collection(one, collection)
    scheduler.schedule()
    ended = [0, 0]
    while any(ended[place] < len(one.sent) for place, one in enumerate(processes)):
        for place, one in enumerate(processes):
            if ended[place] < len(one.sent):
                scheduler.mark_test_complete(one, one.sent[ended[place]], 0.1)
                ended[place] += 1
    assert sorted(index for one in processes for index in one.sent) == list(range(len(collection)))
    return [[collection[index] for index in one.sent] for one in processes]


@pytest.mark.parametrize("how", ["load", "loadgroup"])
def test_a_case_is_run_by_one_process(how: str) -> None:
    first, second = ({case_of(one) for one in some} - {None} for some in spread(how, OURS + OTHERS))
    assert first | second == {"gjei7dt5", "vpi8zeva", "twnfby3k", "f3ggc9nu"}
    assert not first & second


@pytest.mark.thinned(3)
@pytest.mark.parametrize("how", ["load", "loadgroup"])
@pytest.mark.parametrize("collection", [OTHERS, OURS + OTHERS], ids=["alone", "beside ours"])
def test_other_tests_are_spread(how: str, collection: list[str]) -> None:
    assert all(set(some) & set(OTHERS) for some in spread(how, collection))


def test_the_groups_of_others_stay_together() -> None:
    grouped = [f"{name}@group" for name in OTHERS]
    first, second = spread("loadgroup", OURS + grouped)
    assert (set(grouped) <= set(first)) != (set(grouped) <= set(second))


def test_sessions_without_an_item_of_ours_are_left_to_xdist() -> None:
    options: dict[str, Any] = {"dist": "load", "tx": ["popen"], "maxschedchunk": None}
    config: Any = SimpleNamespace(getoption=options.get, getvalue=options.get)
    scheduler, one = WholeCases(config, Producer("test", enabled=False)), Process("gw0")
    scheduler.add_node(one)
    scheduler.add_node_collection(one, OTHERS)
    assert type(scheduler._inner).__name__ == "LoadScheduling"


@pytest.mark.slow
def test_every_item_of_a_plan_is_known_by_its_name() -> None:
    plan = plan_decorated("falcon", "bridge", only=["qkv", "forward.logits"])
    for per in ("area", "check"):
        for item in list_items(plan_decorated("falcon", "bridge", only=["qkv", "forward.logits"], per=per)):
            assert case_of(f"tests/test_it.py::test_conforms[{item.name}]") == item.spec.id
    assert len({item.name for item in list_items(plan)}) == len(list_items(plan))


@pytest.mark.parametrize(
    "name",
    [
        "test_it.py::test_it",
        "test_it.py::test_it[cpu-bfloat16-forward]",
        "test_it.py::test_it[cpu-standard-mean]",
        "test_it.py::test_it[a-b-qkv]",
        "test_gjei7dt5-qkv.py::test_it[3]",
    ],
)
def test_what_others_call_their_tests_is_not_taken_for_ours(name: str) -> None:
    assert case_of(name) is None
