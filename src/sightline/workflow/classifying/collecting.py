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
from jaxtyping import Float, Int

from sightline.core.errors import DataError, ModelError, SettingsDifferError, UsageError
from sightline.core.protocols import VisionLanguageModel
from sightline.core.types import Example
from sightline.data.collected import Rejected, digest_json
from sightline.data.examples import Dataset
from sightline.data.image_sets import ImageSet
from sightline.data.labelled_pictures import few
from sightline.store.layout import CLASSES, PARTS, SUPPORT, is_run, remove_run
from sightline.store.run import RunStore
from sightline.workflow.classifying.comparing import refuse_leakage
from sightline.workflow.classifying.embedding import (
    Classifier,
    ClassObserver,
    PictureEncoder,
    PictureObserver,
)
from sightline.workflow.classifying.reading import TASK, read_texts
from sightline.workflow.collect import CollectProgress, CollectResult, collect
from sightline.zeroshot import draw_support, draw_support_compat

_BLOCK = 1024
_ROUNDING = 1e-6

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
        alike: Names of classes whose texts have one vector, so that none but the first of them is
            ever named.
    """

    path: Path
    images: CollectResult | None
    support: CollectResult | None
    interrupted: bool
    alike: tuple[tuple[str, ...], ...] = ()


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
        DataError: A class without support picture, or a file of vectors one of whose keys fits
            several pictures.
        ModelError: A class could not be embedded.
        UsageError: Two encoders of one name.
        SettingsDifferError: The support pictures were drawn otherwise.
        StoreError: The directory holds a run with other settings, or is in use.
    """
    _check_names(encoders)
    for encoder in encoders:
        encoder.require_own((*images.examples, *(support.pool.examples if support else ())))
    images = _encodable(images, encoders)
    drawn = None if support is None else _drawn(support, images, encoders, announce)
    if support is not None and not overwrite:
        _require_same_draws(path, support)
    remarks = _remarks(images, drawn)
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
            notes=(*notes, *remarks),
            settings={"task": TASK, **settings},
            image_root=path,
            announce=announce if part != "classes" else lambda _: None,
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
    alike = tuple(tuple(images.classes[at] for at in rows) for rows in same_rows(vectors))
    if alike:
        remarks.append(
            f"{sum(map(len, alike))} of {len(images.classes)} classes share the vector of their "
            f"text with another, such as {few(alike[0])}: of those that do, only the first is ever "
            "named. Word them otherwise."
        )
    for remark in remarks:
        announce(remark)
    observer = PictureObserver(
        model, images.classes, vectors, tuple(templates), tuple(encoders), tuple(views)
    )
    seen = embed("pictures", observer, _dataset(images), path, {})
    if seen.interrupted or drawn is None or support is None:
        return ClassifyResult(path, seen, None, seen.interrupted, alike)
    learned = embed("support", observer, _dataset(drawn), path / SUPPORT, support.settings())
    return ClassifyResult(path, seen, learned, learned.interrupted, alike)


def same_rows(vectors: Float[np.ndarray, "n d"]) -> list[list[int]]:
    """Rows that are one vector but for rounding, together, in their order; others are left out."""
    groups: dict[int, list[int]] = {}
    is_first = np.ones(len(vectors), dtype=bool)
    for start in range(0, len(vectors), _BLOCK):
        near = vectors[start : start + _BLOCK] @ vectors.T > 1 - 1e-5
        for row in (start + np.flatnonzero(near.sum(axis=1) > 1)).tolist():
            before = np.flatnonzero(near[row - start, :row] & is_first[:row])
            apart = np.abs(vectors[before] - vectors[row]).max(axis=1, initial=0.0)
            same = before[apart < _ROUNDING].tolist()
            if same:
                groups.setdefault(same[0], same[:1]).append(row)
                is_first[row] = False
    return list(groups.values())


def encoder_name(spec: str) -> str:
    """What an encoder is called by: the end of its spec, other signs than letters as ``-``."""
    end = Path(spec.removeprefix("embedded:")).name or spec
    return re.sub(r"[^A-Za-z0-9_.-]", "-", end.removesuffix(Path(end).suffix) or end)[:40]


def _require_same_draws(path: Path, plan: SupportPlan) -> None:
    """Names the setting that differs, which the pictures drawn do not tell."""
    if not is_run(path / SUPPORT):
        return
    store = RunStore.open(path / SUPPORT)
    made, asked = ({"rule": "random", **s} for s in (store.manifest.settings, plan.settings()))
    name = next((name for name in asked if made.get(name) != asked[name]), None)
    if name is not None and store.committed():
        raise SettingsDifferError(
            f"The support pictures of {path} were drawn with {name} = {made.get(name)} and are now "
            f"asked for with {asked[name]}; a run resumes only with the same. Choose another "
            "folder, or start again with --overwrite."
        )


def _remarks(images: ImageSet, drawn: ImageSet | None) -> list[str]:
    """What pictures of equal content tell of the labels."""
    found = []
    parts = [(images, False)] if drawn is None else [(images, False), (drawn, True)]
    for some, is_support in parts:
        labels: dict[str, set[str]] = {}
        copies = 0
        for example in some.examples:
            known = labels.setdefault(example.images[0].sha256, set())
            copies += bool(known.intersection(example.references))
            known.update(example.references)
        several = sum(len(names) > 1 for names in labels.values())
        if several:
            found.append(
                f"{several} of {len(labels)} different pictures of {some.name} come under several "
                "classes; at most one of these is right."
            )
        if copies and is_support:
            found.append(
                f"{copies} of {len(some.examples)} support pictures of {some.name} are copies of "
                "another of their class; a draw may hold one picture twice."
            )
    return found


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
    others = len(pool.examples) - len(labelled)
    if others:
        announce(
            f"{others} of {len(pool.examples)} support pictures have a label that is none of the "
            f"{len(index)} classes; none is drawn from them."
        )
    labels = np.array([index[e.references[0]] for e in labelled], dtype=np.int64)
    counts = np.bincount(labels, minlength=len(index))
    if (counts == 0).any():
        empty = np.flatnonzero(counts == 0)
        usable = "usable " if pool.rejected else ""
        raise DataError(
            f"{empty.size} of {len(index)} classes have no {usable}picture in {pool.name}, among "
            f"them {images.classes[empty[0]]!r}; at least one of every class is required. Add "
            "pictures, or leave the classes out with --classes."
        )
    short = int((counts < plan.shots).sum())
    if short and plan.rule == "random":
        announce(
            f"{short} of {len(index)} classes have fewer than {plan.shots} usable pictures in "
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
    return replace(pool, examples=tuple(examples), classes=images.classes, sha256=digest)


def _dataset(images: ImageSet) -> Dataset:
    return Dataset(images.name, images.examples, images.rejected, images.sha256, images.partial)


def _as_examples(classes: Sequence[str]) -> Dataset:
    examples = tuple(Example(id=f"{i:06d}", question=name) for i, name in enumerate(classes))
    return Dataset("classes", examples, (), digest_json(list(classes)))
