"""Post-hoc correction: a vision-language model chooses among the classifier's likeliest classes.

The model sees the picture and the first classes with their probabilities, in the prompt form
``rerank``; what it shows is a run of its own, which every estimator scores like any other.

Source: "Surely Large Multimodal Models (Don't) Excel in Visual Species Recognition?" (2025). The
wording, the rule by which a reply names a class, and keeping the classifier's class where it names
none are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from sightline.audit.resampled import Clusters
from sightline.core.column import Column, ColumnKind
from sightline.core.condition_names import CLEAN
from sightline.core.errors import DataError, UsageError
from sightline.core.estimates import Estimate
from sightline.core.features import Feature
from sightline.core.protocols import Request, VisionLanguageModel
from sightline.core.text import normalise_answer
from sightline.core.types import Example, ImageRef, Record
from sightline.data.collected import digest_json
from sightline.data.examples import Dataset
from sightline.metrics.intervals import proportion
from sightline.store.layout import CLASSES, SUPPORT, is_run
from sightline.store.run import RunStore
from sightline.workflow.classifying.reading import (
    Embedded,
    open_classification,
    read_embedded,
    read_texts,
)
from sightline.workflow.collect import CollectProgress, CollectResult, collect
from sightline.zeroshot.blocks import BLOCK_ROWS
from sightline.zeroshot.outputs import normalised

if TYPE_CHECKING:
    from PIL.Image import Image

ASKED = "What does the picture show?"
LABEL = "classifier_label"
CANDIDATES = "candidates"


@dataclass(frozen=True, slots=True)
class RerankResult:
    """What became of the classifier's labels.

    Attributes:
        collected: How the model was observed.
        before: Share right of the classifier, on the pictures that the model answered.
        after: Share right after the model's choice.
        change: After less before, paired by picture.
        changed: Pictures whose class changed.
        unnamed: Pictures whose reply names none of the classes offered; they keep the classifier's.
    """

    collected: CollectResult
    before: Estimate
    after: Estimate
    change: Estimate
    changed: int
    unnamed: int


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What a model made of the classes offered for one picture.

    Attributes:
        record: The model's.
        first: The classifier's class.
        named: The class that the reply names, or None.
    """

    record: Record
    first: str
    named: str | None

    @property
    def label(self) -> str:
        """The class after the choice: the classifier's where the reply names none."""
        return self.named or self.first

    @property
    def right(self) -> str:
        """The picture's own class."""
        return self.record.example.references[0]


@dataclass(frozen=True, slots=True, eq=False)
class Reranker:
    """A model that also hands on the classifier's probability, as a recorded confidence.

    Attributes:
        model: The model that is asked.
        confidences: The classifier's largest probability, by example id.
        source: What the candidates come from.
    """

    model: VisionLanguageModel
    confidences: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    source: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def fingerprint(self) -> Mapping[str, Any]:
        """The model's own, and whose candidates it chooses among."""
        return {**self.model.fingerprint(), "reranks": dict(self.source)}

    def observe(
        self,
        examples: Sequence[Example],
        images: Sequence[tuple[Image, ...]],
        request: Request,
        *,
        given: Sequence[Sequence[int] | None] | None = None,
    ) -> list[Record]:
        """The model's records, with the classifier's confidence beside each answer."""
        return [
            replace(
                record,
                features={
                    **record.features,
                    Feature.RECORDED_CONFIDENCE: np.array(self.confidences[record.example.id]),
                },
            )
            for record in self.model.observe(examples, images, request, given=given)
        ]


def rerank(
    run: Path,
    model: VisionLanguageModel,
    path: Path,
    *,
    top: int = 3,
    question: str = ASKED,
    shown: bool = False,
    limit: int | None = None,
    request: Request = Request(),  # noqa: B008 (frozen)
    batch_size: int = 8,
    shard_size: int = 32,
    overwrite: bool = False,
    announce: Callable[[str], None] = lambda _: None,
    progress: Callable[[CollectProgress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> RerankResult:
    """Asks a model to choose among the likeliest classes of every picture; the same call resumes.

    Args:
        run: The classifier's run.
        model: The model that is asked.
        path: Receives the model's run; its correctness is that of the class it chose.
        top: Classes offered.
        question: What is asked of the picture.
        shown: Also show a support picture of every class offered, behind the picture itself.
        limit: The first pictures only.
        request: What to observe.
        batch_size: Pictures at once.
        shard_size: Pictures committed at once.
        overwrite: Remove an existing run first.
        announce: Called with one line on the size of the job.
        progress: Called after every shard.
        should_stop: Asked after every shard; True ends it, resumable.

    Raises:
        UsageError: Fewer than two classes are offered, pictures are to be shown and there is no
            support, or the model's run would lie in the classifier's.
        DataError: Pictures are to be shown, and none of a class could be read.
    """
    store = open_classification(run)
    if run.resolve() in (path.resolve(), *path.resolve().parents):
        raise UsageError(
            f"{path} is the classifier's run or lies in it; a directory of its own is required for "
            "the model's. Choose another --output-path."
        )
    texts = read_texts(RunStore.open(run / CLASSES))
    seen = read_embedded(store, texts)
    if not 2 <= top <= len(texts.classes):
        raise UsageError(
            f"--top-k {top}; 2 to {len(texts.classes)}, the number of classes, are possible. Use 3."
        )
    judged = [i for i, label in enumerate(seen.labels) if label >= 0][:limit]
    if not judged:
        raise UsageError(
            f"No picture of {run} has a label among its classes; labelled ones are required, to "
            "count what changes. Classify labelled pictures."
        )
    first, probabilities = _likeliest(seen, np.array(judged), top)
    pictures = _pictures_of_classes(run, texts.classes) if shown else {}
    examples = [
        _example(
            seen.records[row].example, [texts.classes[i] for i in mine], p, question, pictures, run
        )
        for row, mine, p in zip(judged, first, probabilities, strict=True)
    ]
    right = float(np.mean([e.meta[LABEL] == e.references[0] for e in examples]))
    source = {"run": store.manifest.run_hash(), "top": top, "question": question, "shown": shown}
    named = store.manifest.model.get("name", "a classifier")
    collected = collect(
        Reranker(
            model,
            {e.id: float(p[0]) for e, p in zip(examples, probabilities, strict=True)},
            source,
        ),
        Dataset(
            f"{store.manifest.dataset.get('name', run.name)}, first {top} classes of {named}",
            tuple(examples),
            (),
            digest_json([[e.id, e.question, [i.sha256 for i in e.images]] for e in examples]),
            None if limit is None else f"--limit {limit}: the first {len(examples)}",
        ),
        path,
        request=request,
        batch_size=batch_size,
        shard_size=shard_size,
        overwrite=overwrite,
        notes=(
            f"The model chooses among the first {top} classes of {named}, which was right on "
            f"{right:.1%} of these pictures; the recorded confidence is the classifier's.",
        ),
        announce=announce,
        progress=progress,
        should_stop=should_stop,
    )
    return _judged(RunStore.open(path), collected)


def chosen_class(reply: str, candidates: Sequence[str]) -> str | None:
    """The class that a reply names, or None where it names none or several.

    It counts as named where the reply is its name as it is spelled, or but for case, articles and
    punctuation and no other candidate's so; or where the reply holds all words of its name and of
    no other candidate's (but one within it: "sea lion" is no lion); or where only its name holds
    all words of the reply.

    Example:
        >>> chosen_class("3", ["digit 3", "digit 8"]), chosen_class("a cat", ["cat", "dog"])
        ('digit 3', 'cat')
        >>> chosen_class("cat or dog", ["cat", "dog"]) is None
        True
    """
    spelled = [c for c in candidates if c in (reply.strip(), reply.strip().rstrip("."))]
    if spelled:
        return spelled[0]
    said = normalise_answer(reply)
    exact = [c for c in candidates if normalise_answer(c) == said]
    if exact:
        return exact[0] if len(exact) == 1 else None
    words = set(said.split())
    parts = {c: set(normalise_answer(c).split()) for c in candidates}
    for matching in (
        [c for c, mine in parts.items() if mine and mine <= words],
        [c for c, mine in parts.items() if words and words <= mine],
    ):
        longest = [c for c in matching if not any(parts[c] < parts[other] for other in matching)]
        if len(longest) == 1:
            return longest[0]
    return None


def choices(store: RunStore, features: Iterable[Feature] = ()) -> list[Choice]:
    """What a model's run chose, picture by picture, with some of what it showed.

    Args:
        store: A run of `rerank`.
        features: Arrays that the records are to hold.
    """
    found = []
    for record in store.records(features=set(features)):
        if record.condition == CLEAN and record.greedy:
            meta = record.example.meta
            named = chosen_class(record.answer.text, str(meta[CANDIDATES]).split("\n"))
            found.append(Choice(record, str(meta[LABEL]), named))
    return found


def _likeliest(
    seen: Embedded, rows: Int[np.ndarray, " n"], top: int
) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
    """The likeliest classes of some pictures, with their probabilities (float64).

    Args:
        seen: The pictures.
        rows: Which of them, ascending.
        top: Number of classes.
    """
    classes = seen.texts.vectors.T.astype(np.float64)
    first, probabilities = [], []
    start = 0
    for part in seen.parts(None):
        mine = rows[(rows >= start) & (rows < start + len(part))] - start
        start += len(part)
        for some in np.split(mine, range(BLOCK_ROWS, len(mine), BLOCK_ROWS)):
            image = normalised(part.image[some], np.float64)
            logits = image @ classes * seen.texts.logit_scale
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            odds /= odds.sum(axis=1, keepdims=True)
            first.append(np.argsort(-odds, axis=1, kind="stable")[:, :top])
            probabilities.append(np.take_along_axis(odds, first[-1], axis=1))
    return np.concatenate(first), np.concatenate(probabilities)


def _example(
    example: Example,
    names: Sequence[str],
    probabilities: Float[np.ndarray, " k"],
    question: str,
    pictures: Mapping[str, ImageRef],
    run: Path,
) -> Example:
    offered = ", ".join(
        f"{name} {round(100 * float(p))}%" for name, p in zip(names, probabilities, strict=True)
    )
    lines = [question]
    images = [_absolute(example.images[0], run)]
    if pictures:
        images += [pictures[name] for name in names]
        lines.append(f"The first picture is asked about. The others show: {', '.join(names)}.")
    lines.append(f"A classifier suggests: {offered}.")
    return replace(
        example,
        question="\n".join(lines),
        images=tuple(images),
        meta={**example.meta, LABEL: names[0], CANDIDATES: "\n".join(names)},
    )


def _absolute(ref: ImageRef, run: Path) -> ImageRef:
    path = Path(ref.path)
    return ref if path.is_absolute() else replace(ref, path=str((run / path).resolve()))


def _pictures_of_classes(run: Path, classes: Sequence[str]) -> dict[str, ImageRef]:
    """The first support picture of every class among those that could be read.

    Raises:
        UsageError: The run has no support pictures.
        DataError: None of a class could be read.
    """
    if not is_run(run / SUPPORT):
        raise UsageError(
            f"{run} has no support pictures to show; labelled ones are required. Make it with "
            "'sightline classify … --support DATA', or leave --examples out."
        )
    found: dict[str, ImageRef] = {}
    for record in RunStore.open(run / SUPPORT).records(features=()):
        example = record.example
        found.setdefault(example.references[0], _absolute(example.images[0], run))
    without = [name for name in classes if name not in found]
    if without:
        raise DataError(
            f"{len(without)} of {len(classes)} classes have no readable support picture in {run}, "
            f"such as {without[0]!r}; one of every class is required to show. Classify with more "
            "--shots, or leave --examples out."
        )
    return found


def _judged(store: RunStore, collected: CollectResult) -> RerankResult:
    """Stores which of the chosen classes are right, and counts what changed."""
    made = choices(store)
    before = np.array([choice.first == choice.right for choice in made], dtype=np.float64)
    after = np.array([choice.label == choice.right for choice in made], dtype=np.float64)
    store.write_column(
        Column(
            name="recorded",
            kind=ColumnKind.CORRECT,
            keys=tuple(choice.record.key for choice in made),
            values=after,
            spec={"name": "recorded", "of": "the class chosen among the classifier's first"},
        ),
        replace=True,
    )
    groups = np.unique([choice.record.example.group for choice in made], return_inverse=True)[1]
    return RerankResult(
        collected,
        proportion(before, groups),
        proportion(after, groups),
        paired_change(before, after, groups),
        sum(choice.label != choice.first for choice in made),
        sum(choice.named is None for choice in made),
    )


def paired_change(
    before: Float[np.ndarray, " n"],
    after: Float[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"] | None = None,
) -> Estimate:
    """Mean difference, with an interval by resampling groups of pictures.

    There is no interval where all resamples agree, as where no picture changed: on few pictures
    that is no evidence that none would.

    Args:
        before: Whether each picture was right.
        after: Whether it is now.
        groups: Pictures that share a number are not independent; None if all are.
    """
    if not len(before):
        return Estimate(None, reason="no picture was answered")
    images = np.arange(len(before)) if groups is None else groups
    return Clusters.of(images, rng=np.random.default_rng(0)).mean(images, after - before)
