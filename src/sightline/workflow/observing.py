"""Observing one shard: its examples, then their views under every condition asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sightline.core.condition_names import CLEAN
from sightline.core.errors import DataError, ImageError, ModelError, OutOfMemoryError
from sightline.core.features import Feature
from sightline.core.protocols import Request, VisionLanguageModel
from sightline.core.types import Example, ImageRef, Key, Quarantined, Record, Refused
from sightline.data.images import ImageLimits, load_image
from sightline.data.perturbations import parse_condition, prepared
from sightline.data.unrelated import Pictures
from sightline.workflow.conditions import View, views_of

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What observing one shard gave; ``log`` stays outside the compared bytes."""

    records: tuple[Record, ...]
    quarantined: tuple[Quarantined, ...]
    refused: tuple[Refused, ...]
    log: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Question:
    """What the model is asked at once: an example, or one of its views.

    Attributes:
        keys: Keys that fail with it, its own first.
        example: As the model is asked.
        images: As it sees them.
        view: The view; None for the example itself.
    """

    keys: tuple[Key, ...]
    example: Example
    images: tuple[Image, ...]
    view: View | None = None


@dataclass(slots=True)
class _Observer:
    """Asks a model and keeps what it shows."""

    model: VisionLanguageModel
    records: list[Record] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    halvings: int = 0

    def ask(self, questions: Sequence[_Question], request: Request) -> None:
        """Keeps what a batch shows; halves it on failure down to the question at fault."""
        try:
            self.records += self._shown(questions, request)
            return
        except ModelError as error:
            if len(questions) == 1:
                self.fail(questions[0].keys, str(error))
                return
            out_of_memory = isinstance(error, OutOfMemoryError)
        self.halvings += out_of_memory
        middle = len(questions) // 2
        self.ask(questions[:middle], request)
        self.ask(questions[middle:], request)

    def fail(self, keys: Sequence[Key], reason: str) -> None:
        """Keeps an error row for each key."""
        self.quarantined += [Quarantined(key, reason) for key in keys]

    def _shown(self, questions: Sequence[_Question], request: Request) -> list[Record]:
        examples = [question.example for question in questions]
        images = [question.images for question in questions]
        views = [question.view for question in questions if question.view is not None]
        if not views:
            return self.model.observe(examples, images, request)
        given = [view.answer for view in views]
        shown = self.model.observe(examples, images, request, given=given)
        return [view.record(record) for view, record in zip(views, shown, strict=True)]


def observe_shard(
    model: VisionLanguageModel,
    examples: Sequence[Example],
    request: Request,
    *,
    root: Path,
    batch_size: int,
    limits: ImageLimits = ImageLimits(),  # noqa: B008 (frozen)
    first: int = 0,
    others: Mapping[str, Sequence[Pictures]] = MappingProxyType({}),
) -> ShardResult:
    """Observes one shard; an example, or a view of it, that fails is quarantined alone.

    ``first`` is the first example's place in the plan, which decides whose energy maps are kept.
    ``others`` are pictures of other questions by example id, as
    `sightline.data.unrelated.unrelated_pictures` draws them of the whole plan; a condition that
    shows one is refused where there is none.

    A pure function of its arguments (timings aside), so that any engine can run it. Pictures are
    rendered as they are needed: memory holds those of one batch of examples and of one batch of
    views. With conditions, every picture is first scaled down to the published longest side, the
    clean one too, so that a view differs from it by its condition alone. Where an example could
    not be observed, its views are not asked: there is no answer to compare them with.
    """
    started = time.perf_counter()
    rendering = 0.0
    conditions = [parse_condition(name) for name in request.conditions]
    clean = replace(request, conditions=(), condition_samples=0)
    under = replace(clean, n_samples=request.condition_samples, blank=False, asks=())
    observer = _Observer(model)
    for batch in _slices(examples, batch_size):
        questions = _questions(batch, request, root, limits, observer)
        before = len(observer.records)
        if questions:
            observer.ask(questions, clean)
        own = {r.example.id: r for r in observer.records[before:] if r.condition == CLEAN}
        pictures = {question.example.id: question.images for question in questions}
        views: list[View] = []
        for record in own.values() if conditions else ():
            found, refused = views_of(record, conditions, others.get(record.example.id, ()))
            views += found
            observer.refused += refused
        for some in _slices(views, batch_size):
            begun = time.perf_counter()
            rendered = _rendered(some, pictures, observer, root, limits)
            rendering += time.perf_counter() - begun
            if rendered:
                observer.ask(rendered, under)
    order = {example.id: i for i, example in enumerate(examples)}
    mapped = {example.id for example in examples[: max(0, request.energy_maps - first)]}
    observer.records = [_mapped(record, mapped) for record in observer.records]
    observer.records.sort(key=lambda r: (order[r.example.id], r.condition != CLEAN, r.condition))
    observer.quarantined.sort(key=lambda row: order[row.key.example_id])
    log = {"seconds": time.perf_counter() - started, "halvings": observer.halvings}
    if conditions:
        log["rendering_seconds"] = rendering
    return ShardResult(
        tuple(observer.records), tuple(observer.quarantined), tuple(observer.refused), log
    )


def _questions(
    examples: Sequence[Example],
    request: Request,
    root: Path,
    limits: ImageLimits,
    observer: _Observer,
) -> list[_Question]:
    """The examples whose pictures can be read; the others fail under every condition."""
    found = []
    for example in examples:
        keys = tuple(Key(example.id, name) for name in (CLEAN, *request.conditions))
        try:
            images = _loaded(example.images, root, limits, scaled=bool(request.conditions))
        except ImageError as error:
            observer.fail(keys, str(error))
            continue
        found.append(_Question(keys, example, images))
    return found


def _loaded(
    refs: Sequence[ImageRef], root: Path, limits: ImageLimits, *, scaled: bool
) -> tuple[Image, ...]:
    """Pictures from their files; ``scaled`` down to the published longest side where asked for."""
    images = tuple(load_image(ref, root, limits=limits) for ref in refs)
    return tuple(map(prepared, images)) if scaled else images


def _mapped(record: Record, mapped: Set[str]) -> Record:
    """The record, without its energy map where that is not among those kept."""
    if Feature.ENERGY_MAP not in record.features or record.example.id in mapped:
        return record
    kept: Mapping[Feature, np.ndarray] = {
        f: a for f, a in record.features.items() if f is not Feature.ENERGY_MAP
    }
    return replace(record, features=kept)


def _rendered(
    views: Sequence[View],
    pictures: Mapping[str, tuple[Image, ...]],
    observer: _Observer,
    root: Path,
    limits: ImageLimits,
) -> list[_Question]:
    """The views as they are asked; those that a picture has no room for are refused."""
    found = []
    for view in views:
        try:
            images = pictures[view.example.id]
            if view.pictures is not None:
                images = _loaded(view.pictures, root, limits, scaled=True)
            found.append(_viewed(view, images))
        except ImageError as error:
            observer.fail([view.key], str(error))
        except DataError as error:
            observer.refused.append(Refused(view.key, str(error)))
    return found


def _viewed(view: View, images: Sequence[Image]) -> _Question:
    return _Question((view.key,), view.asked, view.render(images), view)


def _slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
