"""Slopes of made-up curves are found, and the word that follows from them; configs grow along one axis."""

from __future__ import annotations

import numpy as np
import pytest

from verifier import family
from verifier.bench import growth
from verifier.bench.curves import Curve, Growth, Point, fit
from verifier.cases.spec import CaseSpec
from verifier.family import AXES, Axis

SIZES = (1, 2, 4, 8, 16)


def curve(models: float, harness: float, *, wobble: float = 0.0) -> Curve:
    """Times that grow with these exponents, the harness's a little up and down."""
    points = []
    for number, size in enumerate(SIZES):
        inside = 3 * size**models
        apart = size**harness * (1 + wobble * (-1) ** number)
        points.append(Point(size=size, seconds=inside + apart, models=inside))
    return Curve(axis="layers", points=tuple(points))


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_law_is_found(exponent: float) -> None:
    found = fit(SIZES, [7 * size**exponent for size in SIZES])
    assert found.exponent == pytest.approx(exponent, abs=1e-9)
    assert found.error == pytest.approx(0, abs=1e-6)


def test_models_and_all_are_fitted_apart() -> None:
    found = curve(models=2.0, harness=1.0)
    assert found.models.exponent == pytest.approx(2.0)
    assert found.ratio.exponent == pytest.approx(-1.0)
    assert 1.0 < found.total.exponent < 2.0


GROWTHS = {(1.0, 1.5): Growth.GROWS, (1.0, 0.5): Growth.FALLS, (1.0, 1.0): Growth.HOLDS}


@pytest.mark.parametrize(("exponents", "word"), GROWTHS.items())
def test_the_word_follows_from_the_slopes(exponents: tuple[float, float], word: Growth) -> None:
    assert curve(*exponents, wobble=0.1).growth is word


def test_a_slope_that_may_be_zero_is_none() -> None:
    wobbling = curve(1.0, 1.05, wobble=0.5)
    assert abs(wobbling.ratio.exponent) < wobbling.ratio.error
    assert wobbling.growth is Growth.HOLDS
    assert curve(1.0, 1.05, wobble=0.001).growth is Growth.GROWS


def test_noise_alone_seldom_grows() -> None:
    draws, grows = np.random.default_rng(0), 0
    for _ in range(400):
        points = [Point(size=size, seconds=3 + draws.lognormal(sigma=0.1), models=3.0) for size in SIZES]
        grows += Curve(axis="layers", points=tuple(points)).growth is Growth.GROWS
    assert grows <= 20  # one in forty is expected of what is two-sided at 95 %


# --- what is run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", AXES)
def test_a_config_grows_along_its_axis_alone(axis: Axis) -> None:
    falcon = family.load("falcon")
    ladder = growth.configs(falcon, "falcon", axis)
    first, *others = ladder.values()
    assert list(ladder) == [next(iter(ladder)) * factor for factor in SIZES]
    grown = {"layers": {"num_hidden_layers"}, "width": {"hidden_size", "ffn_hidden_size"}}[axis]
    for factor, spec in zip(SIZES[1:], others, strict=True):
        changed = {name for name, value in spec.config.items() if value != first.config[name]}
        assert changed == grown
        assert all(spec.config[name] == factor * first.config[name] for name in grown)
    assert all(falcon.refusal(spec.config) is None for spec in ladder.values())
    assert first == growth.plainest(falcon, "falcon")


def test_positions_grow_and_the_rows_stay() -> None:
    ladder = growth.lengths(family.load("falcon"), "falcon")
    assert [spec.length for spec in ladder.values()] == list(ladder) == [11 * factor for factor in SIZES]
    assert len({spec.batch for spec in ladder.values()}) == 1


def test_a_family_that_cannot_say_has_no_ladder() -> None:
    class Silent:
        def dims(self) -> dict[str, int]:
            return {}

    assert growth.configs(Silent(), "silent", "layers") == {}  # type: ignore[arg-type]


def test_the_first_cases_are_spread_like_all(spec: CaseSpec) -> None:
    specs = [CaseSpec(family="toy", config={"number": number}) for number in range(640)]
    numbers = [one.config["number"] for one in growth.spread(specs)]
    assert len(set(numbers)) == len(numbers) == 64
    for count in (8, 16, 32):
        gaps = {later - one for one, later in zip(sorted(numbers[:count]), sorted(numbers[:count])[1:], strict=False)}
        assert gaps == {640 // count}


def test_few_cases_come_again_and_again(spec: CaseSpec) -> None:
    refused = CaseSpec(family="toy", config={}, valid=False, reason="no")
    assert [one.id for one in growth.spread([spec, refused])] == [spec.id] * 64


def test_a_point_is_the_median_run_of_its_size(made_run, spec: CaseSpec) -> None:
    small, large = spec, CaseSpec(family="toy", config={"size": 6})
    runs = [made_run(seconds, case=small.id) for seconds in (5.0, 1.0, 2.0)]
    runs += [made_run(seconds, case=large.id) for seconds in (20.0, 10.0)]  # it took long enough
    assert growth.points({3: small, 6: large}, runs) == (
        Point(size=3, seconds=2.0, models=1.5),
        Point(size=6, seconds=10.0, models=7.5),
    )


def test_counts_are_sums_of_the_first_runs(made_run) -> None:
    points = growth.of_counts([made_run(1.0, verdict="fail")] * 64)
    assert [(point.size, point.seconds, point.gating) for point in points] == [
        (count, float(count), count) for count in (8, 16, 32, 64)
    ]
