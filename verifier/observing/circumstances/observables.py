"""What is observed of one side in a circumstance: small functions of its calls, each for one or two observables.

An observation is a tensor, or a fact that must be equal on both sides. It is named by its observable, which is a
check's id, and by its place in the order in which a difference would show first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.adapter import Edit
from verifier.canonical import Point
from verifier.cases.circumstances import Circumstance, classes_in
from verifier.cases.lengths import GENERATED
from verifier.judging.outcome import NotApplicable
from verifier.observing.circumstances import edits
from verifier.observing.circumstances.calls import Called, Calls
from verifier.observing.circumstances.edits import Seen

Observed = Tensor | str | bool | int | None
"""A tensor, or a fact."""

Observation = tuple[str, str, Observed]
"""The observable, the place, and what was observed there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a function that observes is given.

    Attributes:
        calls: of the side that is looked at.
        points: at which hooks are put, in causal order.
        number: of the circumstance, by which it is chosen at which point something is done.
        attention: the first layer of the model that has an attention; None where none has.
    """

    calls: Calls
    points: Sequence[Point]
    number: int
    attention: int | None

    def point(self, step: int, shift: int = 0) -> Point:
        """Choose a point by the number of the circumstance.

        Args:
            step: a prime, so that different things are done at different points.
            shift: another number that counts.
        """
        return self.points[(self.number * step + shift) % len(self.points)]


Observer = Callable[[Look], Iterator[Observation]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Described:
    """What a function observes: the ids of observables, and the classes of which one must be looked at."""

    observables: frozenset[str]
    classes: frozenset[str]


_DESCRIBED: dict[Observer, _Described] = {}


_GRADIENTS = ("gradients", "float64 gradients")
_VALUES_AND_GRADIENTS = ("values", "float64 values", *_GRADIENTS)


def observes(*observables: str, classes: Collection[str] = ()) -> Callable[[Observer], Observer]:
    """Say of a function what it observes.

    Args:
        observables: the ids.
        classes: the classes of which one must be looked at for it to be worth running; it always is if empty.
    """

    def register(observer: Observer) -> Observer:
        _DESCRIBED[observer] = _Described(observables=frozenset(observables), classes=frozenset(classes))
        return observer

    return register


def _gradients(look: Look, observable: str, called: Called) -> Iterator[Observation]:
    if look.calls.differentiates:
        for name, gradient in look.calls.take_gradients(called).items():
            yield observable, name, gradient


def _effect(observable: str, called: Called) -> Iterator[Observation]:
    yield observable, "logits", called.logits
    if called.loss is not None:
        yield observable, "loss", called.loss


@observes("forward.outputs", "forward.losses", "backward.weights", "state.random")
def plain(look: Look) -> Iterator[Observation]:
    """Call without hooks: logits, loss, and the gradients of weights and embeddings."""
    called = look.calls.call()
    logits = called.output.logits
    yield "forward.outputs", "logits", called.logits
    yield "forward.outputs", "dtype of the logits", str(logits.dtype)
    yield "forward.outputs", "requires_grad of the logits", logits.requires_grad
    yield "forward.outputs", "whether there is a cache", called.output.cache is not None
    if look.calls.circumstance["mode"] != "dropout":
        yield "state.random", "random numbers drawn by a call", called.drew
    if called.loss is not None and called.output.loss is not None:
        yield "forward.losses", "loss", called.loss
        yield "forward.losses", "requires_grad of the loss", called.output.loss.requires_grad
    yield from _gradients(look, "backward.weights", called)


@observes(
    *("hooks.shown", "hooks.graph", "backward.shown", "backward.repeated", "hooks.kept_values"),
    classes=_VALUES_AND_GRADIENTS,
)
def shown(look: Look) -> Iterator[Observation]:
    """Read every point, and its gradient, twice: what hooks are shown, how often, and what they may keep.

    What a third of the points shows is kept, and in a second backward the objective is differentiated by it: it is in
    the graph of what follows, or of nothing.
    """
    there, back, again = Seen(), Seen(), Seen()
    names = [point.name for point in look.points]
    chosen = names[look.number % 3 :: 3]
    gradients: dict[str, Tensor | None] = {}
    reading = [back]

    def differentiate(called: Called) -> None:
        if not called.objective.requires_grad:
            return
        called.backward(retain_graph=True)
        kept = {name: there.kept[name] for name in chosen if name in there.kept and there.kept[name].requires_grad}
        if kept:
            reading[:] = [again]
            found = torch.autograd.grad(called.objective, list(kept.values()), allow_unused=True)
            gradients.update(zip(kept, found, strict=True))

    def read_gradient(name: str) -> Edit:
        return lambda gradient: reading[0].note(name, gradient)

    backward = {name: read_gradient(name) for name in names} if look.calls.differentiates else {}
    called = look.calls.call(
        [({name: there.reader(name) for name in names}, backward)],
        backward=differentiate if look.calls.differentiates else None,
    )
    for point in look.points:
        name = point.name
        yield "hooks.shown", name, there.values.get(name)
        yield "hooks.shown", f"{name}: calls of its hook", there.times[name]
        if name in there.values and _has_working_dtype(point):
            as_model = there.values[name].dtype == look.calls.side.dtype
            yield "hooks.graph", f"{name}: dtype", as_model or look.calls.circumstance["grad"] == "autocast"
    yield "hooks.shown", "logits", called.logits
    for name, kept in there.kept.items():
        same = torch.equal(kept.detach(), there.values[name]) or not bool(there.values[name].isfinite().all())
        yield "hooks.kept_values", name, same
    if not look.calls.differentiates:
        return
    for name in reversed(names):
        yield "backward.shown", name, back.values.get(name)
        yield "backward.shown", f"{name}: calls of its hook", back.times[name]
    yield from _gradients(look, "backward.shown", called)
    for name in chosen:
        kept_here = there.kept.get(name)
        yield "hooks.graph", f"{name}: requires_grad", None if kept_here is None else kept_here.requires_grad
    for name in reversed(chosen):
        yield "hooks.graph", name, gradients.get(name)
    # A backward to the points that are kept passes those after the first of them.
    first = next((place for place, name in enumerate(names) if name in gradients), len(names))
    for name in reversed(names[first + 1 :]):
        yield "backward.repeated", name, again.values.get(name)


@observes("hooks.collected", classes=("edits",))
def collected(look: Look) -> Iterator[Observation]:
    """Collect all points but one in the library's own way, beside an edit of that, which acts then and afterwards."""
    calls, edited = look.calls, look.points[len(look.points) // 2]
    names = [point.name for point in look.points if point is not edited]
    after: list[Tensor] = []

    def call_again(called: Called) -> None:
        if not calls.texts.prompt:
            after.append(calls.side.forward(calls.inputs(called.embeds, None)).logits.detach().clone())

    called = calls.call([({edited.name: edits.scaled(edited)}, {})], collecting=names, backward=call_again)
    for name in names:
        yield "hooks.collected", name, called.collected.get(name)
    yield from _effect("hooks.collected", called)
    for logits in after:
        yield "hooks.collected", f"logits of a later forward beside an edit of {edited.name}", logits


def _has_working_dtype(point: Point) -> bool:
    """Whether a point is in the model's dtype; scores, pattern and a norm's parts may be in a wider one."""
    wide = ("scores", "pattern", "scale", "normalized")
    return not point.name.endswith(wide)


@observes("intervene.effects", "backward.behind_edits", classes=("edits",))
def effects(look: Look) -> Iterator[Observation]:
    """Edit every point at once: what each is shown then, and the logits, the loss and the weights' gradients."""
    there = Seen()
    forward = {point.name: there.reader(point.name, edits.scaled(point)) for point in look.points}
    called = look.calls.call([(forward, {})])
    for point in look.points:
        yield "intervene.effects", point.name, there.values.get(point.name)
    yield from _effect("intervene.effects", called)
    yield from _gradients(look, "backward.behind_edits", called)


@observes("intervene.one_point", "hooks.kept_values", classes=("edits",))
def one_point(look: Look) -> Iterator[Observation]:
    """Edit one point alone, in one of several ways; what was given back is nobody else's to write into."""
    there, point = Seen(), look.point(7)
    kind = edits.KINDS_OF_EDITS[look.number % len(edits.KINDS_OF_EDITS)]
    act, given = kind(point, look.calls.texts.real), list[tuple[Tensor, Tensor]]()

    def edit(value: Tensor) -> Tensor | None:
        edited = act(value)
        if edited is not None:
            given.append((edited, edited.detach().clone()))
        return edited

    called = look.calls.call([({point.name: there.reader(point.name, edit)}, {})], backward=lambda _: None)
    yield "intervene.one_point", f"{point.name}: calls of its hook", there.times[point.name]
    for place, observed in ((place, observed) for _, place, observed in _effect("", called)):
        yield "intervene.one_point", f"{place} after an edit of {point.name}", observed
    unchanged = all(torch.equal(one.detach(), copy) or not bool(copy.isfinite().all()) for one, copy in given)
    yield "hooks.kept_values", f"{point.name}: what a hook gave back there", unchanged


_MOST_TOKENS = 512


@observes("intervene.each_point", classes=("edits",))
def each_point(look: Look) -> Iterator[Observation]:
    """Edit each of many points alone, in a row of its own, in one of several ways: no other row is changed."""
    several = len(look.calls.texts.ids) > 1
    if not several or look.calls.circumstance["mode"] == "dropout":
        return  # a dropout draws along the rows
    count = min(len(look.points), max(2, _MOST_TOKENS // look.calls.texts.length))
    calls = look.calls.in_rows(count)
    step = len(look.points) // count
    points = [look.points[(look.number + place * step) % len(look.points)] for place in range(count)]
    kinds = edits.KINDS_OF_EDITS

    def in_row(row: int) -> Edit:
        whole = kinds[(look.number + row) % len(kinds)](points[row], calls.texts.real)

        def act(value: Tensor) -> Tensor:
            edited, given = value.clone(), whole(value)
            assert given is not None
            edited[row : row + 1] = given[row : row + 1]  # none, in a call of fewer rows that it outlived
            return edited

        return act

    called = calls.call([({point.name: in_row(row) for row, point in enumerate(points)}, {})], backward=lambda _: None)
    # Padding is nobody's business.
    logits = called.logits.masked_fill(~calls.texts.real[..., None], 0.0)
    for row, point in enumerate(points):
        yield "intervene.each_point", f"{point.name}: the logits of a row in which it alone is edited", logits[row]


@observes("intervene.layouts", classes=("edits",))
def layouts(look: Look) -> Iterator[Observation]:
    """Edit one point by an expanded view or in float32, and all by writing in place."""
    if look.calls.circumstance["mode"] == "dropout":
        return  # a dropout draws along the memory of what it is given
    point, half = look.point(5, 3), look.calls.circumstance["dtype"] in ("bfloat16", "float16", "mixed")
    kinds = {"an expanded edit": edits.oddly_laid}
    if half:
        kinds["a float32 edit"] = edits.in_single
    for words, kind in kinds.items():
        called = look.calls.call([({point.name: kind(point)}, {})], backward=lambda _called: None)
        for _, place, observed in _effect("", called):
            yield "intervene.layouts", f"{place} after {words} of {point.name}", observed
    if look.calls.differentiates:
        return
    there = Seen()
    called = look.calls.call([({one.name: there.reader(one.name, edits.written(one)) for one in look.points}, {})])
    for one in look.points:
        yield "intervene.layouts", f"{one.name}: its value where all are written in place", there.values.get(one.name)
    for _, place, observed in _effect("", called):
        yield "intervene.layouts", f"{place} where all are written in place", observed


@observes("intervene.nested", "backward.nested", "hooks.left", classes=("edits", "gradient edits"))
def nested(look: Look) -> Iterator[Observation]:
    """Put two edits that do not commute, and a reader, at one point in contexts one inside the other.

    One more context inside them is left before the forward: its hooks are gone, and the others stay.
    """
    point = look.point(11, 1)
    name = point.name
    there, back, gone = Seen(), Seen(), Seen()

    def half(value: Tensor) -> Tensor:
        return value * 0.5

    def add(value: Tensor) -> Tensor:
        return edits.added(point, value, 0.3)

    def add_gradient(gradient: Tensor) -> Tensor:
        return gradient + 0.3 * edits.wave(gradient) * _may_be_edited(look, point, gradient)

    forward = [half, add, there.reader(name)]
    backward = [half, add_gradient, back.reader(name)] if look.calls.differentiates else [None] * 3
    contexts = [
        ({name: one}, {} if other is None else {name: other}) for one, other in zip(forward, backward, strict=True)
    ]
    inner = {name: gone.reader(name)}
    called = look.calls.call(contexts, left=[(inner, inner if look.calls.differentiates else {})])
    yield "hooks.left", f"{name}: calls of hooks whose context was left", gone.times[name]
    yield "hooks.left", f"{name}: calls of a hook whose context stays", there.times[name]
    yield "intervene.nested", name, there.values.get(name)
    for _, place, observed in _effect("", called):
        yield "intervene.nested", f"{place} after two edits of {name}", observed
    if look.calls.differentiates:
        yield "hooks.left", f"{name}: calls of a hook of gradients whose context stays", back.times[name]
        yield "backward.nested", name, back.values.get(name)
    yield from _gradients(look, "backward.nested", called)


def _may_be_edited(look: Look, point: Point, like: Tensor) -> Tensor:
    """Mark with 1 where something may be added to a gradient: not at padding, nor where a mask hides."""
    texts = look.calls.texts
    if "query" not in point.axes:
        return texts.real.reshape(*texts.real.shape, *[1] * (like.ndim - 2)).to(like.dtype)
    return texts.attended.to(like.dtype)


@observes("backward.effects", classes=("gradient edits",))
def gradient_effects(look: Look) -> Iterator[Observation]:
    """Edit the gradient at every point at once: what each is shown then, and the weights' gradients."""
    if not look.calls.differentiates:
        return
    back = Seen()
    backward = {point.name: back.reader(point.name, edits.scaled_gradient(point)) for point in look.points}
    called = look.calls.call([({}, backward)])
    for point in reversed(look.points):
        yield "backward.effects", point.name, back.values.get(point.name)
    yield from _gradients(look, "backward.effects", called)


@observes("backward.double", classes=("parameter gradients",))
def double_backward(look: Look) -> Iterator[Observation]:
    """Differentiate the square of a gradient."""
    calls = look.calls
    if not calls.differentiates or calls.circumstance["grad"] == "autocast" or calls.circumstance["dtype"] == "float16":
        return  # in float16 a square of gradients overflows

    def differentiate(called: Called) -> None:
        along = called.embeds if called.embeds is not None else calls.side.embedding()
        if along is None:
            raise NotApplicable("the adapter shows no embedding")
        if called.objective.requires_grad and along.requires_grad:
            (gradient,) = torch.autograd.grad(called.objective, along, create_graph=True)
            (gradient.double().square().sum() * 1e3).backward()

    called = calls.call(backward=differentiate, twice_differentiable=True)
    yield from _gradients(look, "backward.double", called)


@observes("cache.repeated", classes=("values",))
def repeated_cache(look: Look) -> Iterator[Observation]:
    """Go on from one cache twice: the second time gives what the first did."""
    calls = look.calls
    if not calls.texts.prompt or calls.circumstance["mode"] == "dropout":
        return
    calls.reset()
    embeds = calls.embeds(requires_grad=False)
    with calls.mode():
        cache = calls.fill_cache(embeds)
        calls.side.forward(calls.inputs(embeds, cache, use_cache=True))
        cache = calls.side.continue_again(lambda: calls.fill_cache(embeds), cache)
        output = calls.side.forward(calls.inputs(embeds, cache, use_cache=True))
    yield "cache.repeated", "logits", output.logits.detach().clone()


@observes("forward.repeated")
def at_the_end(look: Look) -> Iterator[Observation]:
    """Call without hooks once more, after everything that was done."""
    yield from _effect("forward.repeated", look.calls.call(backward=lambda _called: None))


@observes("cache.generated", "cache.generated_hooks", "cache.generated_edits")
def generated(look: Look) -> Iterator[Observation]:
    """Generate, alone, under readers and under edits, and call the model afterwards."""
    calls = look.calls
    exact = calls.circumstance["dtype"] in ("float64", "float32") and calls.circumstance["grad"] != "autocast"

    def run(observable: str, forward: Mapping[str, Edit]) -> Iterator[Observation]:
        calls.reset()
        with calls.mode(), calls.hooked([(forward, {})] if forward else []):
            tokens = calls.side.generate(calls.texts.ids, GENERATED, calls.texts.mask)
        yield observable, "shape", str(list(tokens.shape))
        is_whole = not tokens.is_floating_point() and not tokens.is_complex()
        yield observable, "whether the tokens are whole numbers", is_whole
        if exact:
            yield observable, "tokens", str(tokens.long().tolist())

    yield from run("cache.generated", {})
    if look.points:
        there, under = Seen(), Seen()
        yield from run("cache.generated_hooks", {one.name: there.reader(one.name) for one in look.points})
        # A rotated key goes into the cache, and whether an edit of it stays there is a library's own convention.
        scaled = {one.name: None if one.name.endswith("hook_rot_k") else edits.scaled(one) for one in look.points}
        yield from run("cache.generated_edits", {name: under.reader(name, edit) for name, edit in scaled.items()})
        for point in look.points:
            yield "cache.generated_hooks", point.name, there.values.get(point.name)
            yield "cache.generated_hooks", f"{point.name}: calls of its hook", there.times[point.name]
            yield "cache.generated_edits", point.name, under.values.get(point.name)
    calls.reset()
    with calls.mode():
        output = calls.side.forward(calls.texts.whole())
    yield "cache.generated", "logits of a forward afterwards", output.logits.detach().clone()


_COMPONENTS = ("blocks.0.mlp", "ln_final", "unembed", "blocks.1.attn.qkv", "blocks.0.ln1")


@observes("weights.current", "component.current", classes=("values", "generation"))
def weights(look: Look) -> Iterator[Observation]:
    """Read the canonical weights and the split, and run components alone."""
    calls = look.calls
    canonical = calls.side.weights()
    for name, weight in canonical.items():
        yield "weights.current", name, weight.detach().clone()
        yield "weights.current", f"{name}: dtype", str(weight.dtype)
    if look.attention is not None:
        for name, weight in calls.side.split(look.attention).items():
            yield "weights.current", name, weight.detach().clone()
    width = calls.texts.d_model
    draw = torch.Generator().manual_seed(look.number)
    x = torch.randn(2, 3, width, generator=draw).half().bfloat16().to(calls.side.dtype)
    name = _COMPONENTS[look.number % len(_COMPONENTS)]
    calls.reset()
    with calls.mode():
        given = x.clone().requires_grad_(calls.differentiates)
        out = calls.side.component(name, given)
    if out is None:
        return
    yield "component.current", name, out.detach().clone()
    yield "component.current", f"{name}: requires_grad", out.requires_grad
    if out.requires_grad:
        (out * edits.wave(out)).sum().backward()
        yield "component.current", f"{name}: gradient of its input", None if given.grad is None else given.grad.clone()
        calls.clear_gradients()


WITHOUT_HOOKS: tuple[Observer, ...] = (plain, repeated_cache, double_backward, weights)
WITH_HOOKS: tuple[Observer, ...] = (
    shown,
    effects,
    one_point,
    each_point,
    layouts,
    nested,
    gradient_effects,
    collected,
)


def observers(
    circumstance: Circumstance,
    *,
    with_hooks: bool,
    collects: bool = True,
    only: Collection[str] = (),
    first: int = 0,
) -> list[Observer]:
    """Choose what is observed in a circumstance, in its order.

    Args:
        circumstance: a value for each axis.
        with_hooks: whether there is a point at which hooks can be put.
        collects: whether the adapter has a way of its own to collect activations.
        only: the observables that are wanted; all if empty.
        first: a number by which it is chosen what comes first, so that each is some subject's first call.
    """
    if circumstance["past"] == "generation":
        chosen: tuple[Observer, ...] = (generated, weights)
    else:
        chosen = (plain, *(WITH_HOOKS if with_hooks else ()), *WITHOUT_HOOKS[1:], at_the_end)
    looked_at = {kind.name for kind in classes_in(circumstance)}

    def is_wanted(observer: Observer) -> bool:
        described = _DESCRIBED[observer]
        if observer is collected and not collects:
            return False
        if only:
            return not described.observables.isdisjoint(only)
        return not described.classes or not described.classes.isdisjoint(looked_at)

    found = [one for one in chosen if is_wanted(one)]
    last = [one for one in found if one is at_the_end]
    inner = [one for one in found if one is not at_the_end]
    start = first % len(inner) if inner else 0
    return [*inner[start:], *inner[:start], *last]
