"""Embedding pictures and class names once; every score is computed from what is stored here.

It is `sightline.workflow.collect` three times: class texts, pictures, labelled support pictures.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Int

from sightline.core.errors import DataError, ModelError, UsageError
from sightline.core.protocols import VisionLanguageModel
from sightline.core.types import Example
from sightline.data.collected import Rejected, digest_json
from sightline.data.examples import Dataset
from sightline.data.image_sets import ImageSet
from sightline.store.layout import CLASSES, PARTS, SUPPORT, is_run, remove_run
from sightline.store.run import RunStore
from sightline.workflow.classifying.embedding import (
    Classifier,
    ClassObserver,
    PictureEncoder,
    PictureObserver,
)
from sightline.workflow.classifying.reading import TASK, read_texts, refuse_leakage
from sightline.workflow.collect import CollectProgress, CollectResult, collect
from sightline.zeroshot import draw_support, draw_support_compat

DRAWS = "draws"
"""Meta entry of a support picture: the draws it is in, each with its place, as ``0:3,4:0``."""


SupportRule = Literal["random", "compat"]
"""How support pictures are drawn; see `SupportPlan`."""
SUPPORT_RULES: tuple[str, ...] = get_args(SupportRule)


@dataclass(frozen=True, slots=True)
class SupportPlan:
    """Labelled pictures to learn from.

    Attributes:
        pool: Where they are drawn from.
        shots: Pictures of every class in a draw; a class with fewer gives all it has.
        draws: Number of draws.
        seed: Of the draws.
        rule: random draws anew each time; compat is the one draw of TrustVLM's released code,
            which seeds anew for every class and knows no other.

    Raises:
        UsageError: No shots or draws, no such rule, or several draws by a rule that has one.
    """

    pool: ImageSet
    shots: int = 16
    draws: int = 10
    seed: int = 0
    rule: SupportRule = "random"

    def __post_init__(self) -> None:
        if self.shots < 1 or self.draws < 1:
            raise UsageError(
                f"{self.shots} shots, {self.draws} draws; both must be at least 1. Give positive "
                "numbers."
            )
        if self.rule not in SUPPORT_RULES:
            raise UsageError(
                f"Support rule {self.rule!r}; one of {', '.join(SUPPORT_RULES)} is required. "
                "Choose among these."
            )
        if self.rule == "compat" and self.draws > 1:
            raise UsageError(
                f"{self.draws} draws by the rule compat, which gives the same pictures every time; "
                "1 is possible. Leave --draws out, or draw at random."
            )

    def settings(self) -> dict[str, Any]:
        """What identifies the draws of a pool."""
        known = {"shots": self.shots, "draws": self.draws, "seed": self.seed}
        return known if self.rule == "random" else {**known, "rule": self.rule}

    def rows(self, labels: Int[np.ndarray, " n"]) -> Iterator[Int[np.ndarray, " s"]]:
        """Rows of each draw among pictures of these classes.

        Raises:
            DataError: A class has fewer pictures than shots, and the rule is compat.
        """
        if self.rule == "compat":
            yield draw_support_compat(labels, self.shots)
            return
        for draw in range(self.draws):
            yield draw_support(labels, self.shots, np.random.default_rng([self.seed, draw]))


@dataclass(frozen=True, slots=True)
class ClassifyResult:
    """What was embedded.

    Attributes:
        path: The run.
        images: The pictures.
        support: The support pictures, or None.
        interrupted: Whether it stopped early, on request; the same command goes on.
    """

    path: Path
    images: CollectResult | None
    support: CollectResult | None
    interrupted: bool


def classify(
    model: Classifier,
    images: ImageSet,
    path: Path,
    *,
    templates: Sequence[str],
    encoders: Sequence[PictureEncoder] = (),
    views: Sequence[str] = (),
    support: SupportPlan | None = None,
    batch_size: int = 64,
    shard_size: int = 512,
    overwrite: bool = False,
    notes: Sequence[str] = (),
    announce: Callable[[str], None] = lambda _: None,
    progress: Callable[[str, CollectProgress], None] = lambda _part, _progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ClassifyResult:
    """Embeds classes, pictures and support pictures; the same call resumes.

    Args:
        model: The classifier.
        images: Pictures to classify.
        path: The run directory.
        templates: Prompt templates.
        encoders: Auxiliary image encoders, of names of their own.
        views: Transformed versions of every picture that the classifier embeds, too.
        support: Labelled pictures to learn from; another run's can be named when evaluating.
        batch_size: Pictures at once; halved where memory runs out.
        shard_size: Pictures committed at once.
        overwrite: Remove an existing run first.
        notes: Sentences every report of this run shows.
        announce: Called with single lines on what will be done.
        progress: Called with the part and its progress after every shard.
        should_stop: Asked after every shard; True ends it, resumable.

    Raises:
        LeakageError: A support picture is among the pictures.
        DataError: A class without support picture, or a class that could not be embedded.
        UsageError: Two encoders of one name.
        StoreError: The directory holds a run with other settings, or is in use.
    """
    _check_names(encoders)
    images = _encodable(images, encoders)
    drawn = None if support is None else _drawn(support, images, encoders, announce)
    unnamed = sum(not example.references for example in images.examples)
    if unnamed:
        announce(
            f"{unnamed} of {len(images.examples)} pictures have a label that is none of the "
            f"{len(images.classes)} classes; they are embedded, and not judged."
        )
    if overwrite:
        for run in (path, *(path / part for part in PARTS)):
            if is_run(run):
                remove_run(run)

    def embed(
        part: str,
        observer: VisionLanguageModel,
        data: Dataset,
        where: Path,
        settings: Mapping[str, Any],
    ) -> CollectResult:
        return collect(
            observer,
            data,
            where,
            batch_size=batch_size,
            shard_size=shard_size,
            notes=notes,
            settings={"task": TASK, **settings},
            image_root=path,
            announce=announce if part == "pictures" else lambda _: None,
            progress=lambda state: progress(part, state),
            should_stop=should_stop,
        )

    texts = ClassObserver(model, tuple(templates))
    done = embed("classes", texts, _as_examples(images.classes), path / CLASSES, {})
    if done.interrupted:
        return ClassifyResult(path, None, None, interrupted=True)
    if done.quarantined:
        raise ModelError(
            f"{done.quarantined} of {done.total} classes could not be embedded: "
            f"{done.reasons[0][0]}"
        )
    vectors = read_texts(RunStore.open(path / CLASSES)).vectors
    observer = PictureObserver(
        model, images.classes, vectors, tuple(templates), tuple(encoders), tuple(views)
    )
    seen = embed("pictures", observer, _dataset(images), path, {})
    if seen.interrupted or drawn is None or support is None:
        return ClassifyResult(path, seen, None, seen.interrupted)
    learned = embed("support", observer, _dataset(drawn), path / SUPPORT, support.settings())
    return ClassifyResult(path, seen, learned, learned.interrupted)


def encoder_name(spec: str) -> str:
    """What an encoder is called by: the end of its spec, other signs than letters as ``-``."""
    end = Path(spec.removeprefix("embedded:")).name or spec
    return re.sub(r"[^A-Za-z0-9_.-]", "-", end.removesuffix(Path(end).suffix) or end)[:40]


def _check_names(encoders: Sequence[PictureEncoder]) -> None:
    name, times = Counter([e.name for e in encoders] or [""]).most_common(1)[0]
    if times > 1:
        raise UsageError(
            f"{times} encoders are called {name!r}; names must differ. Rename a file or folder."
        )


def _encodable(images: ImageSet, encoders: Sequence[PictureEncoder]) -> ImageSet:
    """The pictures that every encoder has a vector for; the others are rejected with the reason.

    Raises:
        DataError: None is left.
    """
    kept: list[Example] = []
    rejected: list[Rejected] = list(images.rejected)
    for example in images.examples:
        why = next((reason for e in encoders if (reason := e.lacks(example))), None)
        if why is None:
            kept.append(example)
        else:
            rejected.append(Rejected(example.id, why))
    if not kept:
        raise DataError(
            f"None of {len(images.examples)} pictures of {images.name} can be encoded, the last "
            f"since {rejected[-1].reason}; a vector for at least one is required. Check the file "
            "of vectors."
        )
    return replace(images, examples=tuple(kept), rejected=tuple(rejected))


def _drawn(
    plan: SupportPlan,
    images: ImageSet,
    encoders: Sequence[PictureEncoder],
    announce: Callable[[str], None],
) -> ImageSet:
    """The pictures of all draws, each marked with its draws.

    Raises:
        LeakageError: One of them is among the pictures to classify.
        DataError: A class has none.
    """
    pool = _encodable(plan.pool, encoders)
    refuse_leakage(pool.examples, images.examples, pool.name, images.name)
    index = {name: i for i, name in enumerate(images.classes)}
    labelled = [e for e in pool.examples if e.references and e.references[0] in index]
    labels = np.array([index[e.references[0]] for e in labelled], dtype=np.int64)
    counts = np.bincount(labels, minlength=len(index))
    if (counts == 0).any():
        empty = np.flatnonzero(counts == 0)
        raise DataError(
            f"{empty.size} of {len(index)} classes have no picture in {pool.name}, among them "
            f"{images.classes[empty[0]]!r}; at least one of every class is required. Add pictures, "
            "or leave the classes out with --classes."
        )
    short = int((counts < plan.shots).sum())
    if short and plan.rule == "random":
        announce(
            f"{short} of {len(index)} classes have fewer than {plan.shots} pictures in "
            f"{pool.name}; all of theirs are used."
        )
    places: dict[int, list[str]] = {}
    for draw, rows in enumerate(plan.rows(labels)):
        nth = Counter[int]()
        for row in rows.tolist():
            places.setdefault(row, []).append(f"{draw}:{nth[labels[row]]}")
            nth[labels[row]] += 1
    examples = [
        replace(labelled[row], meta={**labelled[row].meta, DRAWS: ",".join(places[row])})
        for row in sorted(places)
    ]
    digest = digest_json(
        [[e.id, e.images[0].sha256, e.references, e.meta[DRAWS]] for e in examples]
    )
    return replace(
        pool, examples=tuple(examples), classes=images.classes, rejected=(), sha256=digest
    )


def _dataset(images: ImageSet) -> Dataset:
    return Dataset(images.name, images.examples, images.rejected, images.sha256, images.partial)


def _as_examples(classes: Sequence[str]) -> Dataset:
    examples = tuple(Example(id=f"{i:06d}", question=name) for i, name in enumerate(classes))
    return Dataset("classes", examples, (), digest_json(list(classes)))
