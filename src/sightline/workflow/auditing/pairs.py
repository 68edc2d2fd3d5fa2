"""From a run to columns: one row per question and one per pair of question and condition.

Shards are read one after another; of perturbed records only distances to their clean record are
kept, of clean records their channels, so that memory does not grow with the number of conditions.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Int

from sightline.audit.drift import cosine_drift, l2_drift
from sightline.audit.instability import TRUTH_CHANGES, TRUTH_UNKNOWN, Pairs
from sightline.audit.labels import labels, score_change
from sightline.core.condition_names import BLANK, CLEAN, UNRELATED, has_family, question_of
from sightline.core.errors import DataError
from sightline.core.features import LAYERED, STATE_CHANNELS, VISION_CHANNELS, Feature
from sightline.core.text import answer_form, canonical_answer, parse_yes_no
from sightline.core.types import Example, Record
from sightline.data.label_preservation import decide
from sightline.data.perturb_truth import scene_of
from sightline.data.perturbations import Condition, parse_condition
from sightline.grading import Auto, grade_records
from sightline.store.run import RunStore

CHANNEL_ORDER = (*STATE_CHANNELS, *VISION_CHANNELS)
_READ = (
    *CHANNEL_ORDER,
    *(Feature.VISION_ENERGY, Feature.VISION_ENERGY_NORMALISED, Feature.YES_NO_LOGPROBS),
    *(Feature.OPTION_LOGPROBS, Feature.OPTION_LENGTHS, Feature.LETTER_LOGPROBS),
    *(Feature.BLANK_OPTION_LOGPROBS, Feature.CLEAN_LOGPROBS),
)


@dataclass(slots=True)
class Item:
    """One question under the clean condition.

    Attributes:
        record: Its clean record, without arrays.
        image: Number of its picture.
        question: Number of its prompt, word for word.
        form: How its label is read: ``choice`` and ``yes_no`` by scores, ``text`` by short form.
        scores: Scores of its options, or of no and yes; None for free answers.
        blank_scores: The same without the picture.
        blank_label: Its label without the picture; None where that was not asked.
        label: Its label: an option's number, 0 no, 1 yes, or the short form of the answer.
        truth: Number of the right option; -1 where it is not known or there are none.
        right: Whether the clean answer is right; None where that is not known.
        energy: Dirichlet energy, plain and normalised; None where there is none.
        channels: Clean vectors, (l, d) or (1, d).
    """

    record: Record
    image: int
    question: int
    form: str
    scores: np.ndarray | None
    blank_scores: np.ndarray | None
    blank_label: str | None
    label: str
    truth: int
    right: bool | None
    energy: tuple[float, float] | None
    channels: dict[Feature, np.ndarray] = field(default_factory=dict)


@dataclass(slots=True)
class Pair:
    """One answer under one condition beside the clean one.

    Attributes:
        item: Number of the question.
        record: The perturbed record, without arrays.
        kind: Type of perturbation.
        scores: As `Item.scores`, under the condition.
        label: As `Item.label`.
        right: As `Item.right`.
        lengths: Tokens of the options.
        letters: Scores of the options' letters, clean and perturbed.
        score_change: Log-probability of the clean answer, after less before, in nats.
        energy: As `Item.energy`.
        drift: 1 - cosine per channel, (l,) or (1,).
        l2: Euclidean distance per channel.
    """

    item: int
    record: Record
    kind: str
    scores: np.ndarray | None
    label: str
    right: bool | None
    lengths: np.ndarray | None
    letters: tuple[np.ndarray, np.ndarray] | None
    score_change: float | None
    energy: tuple[float, float] | None
    drift: dict[Feature, np.ndarray]
    l2: dict[Feature, np.ndarray]

    @property
    def condition(self) -> Condition:
        """What was done to the picture and the question."""
        return parse_condition(self.record.condition)


@dataclass(slots=True)
class ControlAnswer:
    """One question asked about another question's picture: no pair, but what pairs are held to.

    Attributes:
        item: Number of the question.
        drift: As `Pair.drift`, from the clean vectors.
    """

    item: int
    drift: dict[Feature, np.ndarray]


@dataclass(slots=True)
class AuditRows:
    """All questions and pairs of a run.

    Attributes:
        items: Questions, in the run's order.
        pairs: Pairs, by question.
        layers: Layer indices of the channels.
        named: Pairs that count only because their condition is said to keep the right answer.
        unrelated: Questions asked about another picture.
    """

    items: list[Item]
    pairs: list[Pair]
    layers: tuple[int, ...]
    named: int = 0
    unrelated: list[ControlAnswer] = field(default_factory=list)

    def column(self, name: str) -> np.ndarray:
        """An attribute of every pair; NaN where it is None."""
        values = [getattr(pair, name) for pair in self.pairs]
        return np.array([np.nan if value is None else value for value in values])

    @property
    def item_of(self) -> Int[np.ndarray, " n"]:
        """Question of each pair."""
        return np.array([pair.item for pair in self.pairs], dtype=np.int64)

    @property
    def image_of(self) -> Int[np.ndarray, " n"]:
        """Picture of each pair."""
        return np.array([self.items[pair.item].image for pair in self.pairs], dtype=np.int64)

    @property
    def kinds(self) -> np.ndarray:
        """Type of perturbation of each pair."""
        return np.array([pair.kind for pair in self.pairs], dtype=object)

    @property
    def conditions(self) -> np.ndarray:
        """Condition of each pair."""
        return np.array([pair.record.condition for pair in self.pairs], dtype=object)

    @property
    def flipped(self) -> Bool[np.ndarray, " n"]:
        """Whether each pair's label changed."""
        return np.array([pair.label != self.items[pair.item].label for pair in self.pairs])

    def as_pairs(self) -> Pairs:
        """The pairs as `sightline.audit.instability` measures them."""
        before = [self.items[pair.item].right for pair in self.pairs]
        after = [pair.right for pair in self.pairs]
        graded = np.array(
            [b is not None and a is not None for b, a in zip(before, after, strict=True)]
        )
        reasons = {"same": "", "changed": TRUTH_CHANGES, "unknown": TRUTH_UNKNOWN}
        return Pairs(
            images=self.image_of,
            items=self.item_of,
            flipped=self.flipped,
            right_before=np.array([b is True for b in before]),
            right_after=np.array([a is True for a in after]),
            graded=graded,
            excluded=np.array([reasons[pair.record.truth] for pair in self.pairs]),
        )


def read_pairs(
    store: RunStore, *, threshold: float = 0.5, preserving: Collection[str] = ()
) -> AuditRows:
    """Reads the clean records of a run and their perturbed ones.

    Args:
        store: A run collected under conditions.
        threshold: A free answer is right when its mark reaches this.
        preserving: Conditions that keep the right answer where it was not known whether they do.

    Raises:
        DataError: The run has no record under a perturbation.
    """
    rows = AuditRows([], [], ())
    images: dict[tuple[str, ...], int] = {}
    questions: dict[tuple[str, ...], int] = {}
    for shard in sorted(store.committed()):
        by_example: dict[str, dict[str, Record]] = {}
        for record in store.records(shard=shard, features=_READ):
            if question_of(record.condition) is not None:
                continue
            by_example.setdefault(record.example.id, {})[record.condition] = record
        for own in by_example.values():
            clean = own.pop(CLEAN, None)
            blank = own.pop(BLANK, None)
            if clean is None or clean.greedy is None:
                continue
            rows.layers = rows.layers or clean.layers
            item = _item(clean, blank, images, questions, threshold)
            rows.items.append(item)
            for record in own.values():
                if record.greedy is None:
                    continue
                if has_family(record.condition, UNRELATED):
                    apart, _ = _distances(item, record)
                    rows.unrelated.append(ControlAnswer(len(rows.items) - 1, apart))
                    continue
                decided = _decided(record, preserving)
                rows.named += decided.truth != record.truth
                rows.pairs.append(_pair(len(rows.items) - 1, item, clean, decided, threshold))
    if not rows.pairs:
        raise _without_pairs(store)
    return rows


def require_perturbed(store: RunStore) -> None:
    """Refuses a run that was collected under no perturbation, before its records are read.

    Raises:
        DataError: It was.
    """
    asked = [name for name in store.manifest.conditions if question_of(name) is None]
    conditions = [parse_condition(name) for name in asked]
    if all(own.is_control or own.name in {CLEAN, BLANK} for own in conditions):
        raise _without_pairs(store)


def _without_pairs(store: RunStore) -> DataError:
    return DataError(
        f"{store.path} has no answer under a perturbation; an audit requires some. Collect "
        "with --conditions default --channels, or give 'sightline audit' a model and data."
    )


def _decided(record: Record, preserving: Collection[str]) -> Record:
    """The record, its truth known where whoever audits said so; no scene is overruled."""
    if not preserving or record.truth != "unknown" or scene_of(record.example) is not None:
        return record
    condition = parse_condition(record.condition)
    return replace(record, truth=decide(condition, record.example, preserving=preserving).truth)


def _item(
    clean: Record,
    blank: Record | None,
    images: dict[tuple[str, ...], int],
    questions: dict[tuple[str, ...], int],
    threshold: float,
) -> Item:
    example = clean.example
    pictures = tuple(image.sha256 for image in example.images) or (example.group,)
    prompt = (example.question.strip(), *(example.choices or ()))
    scores = option_scores(clean)
    form = "text" if scores is None else answer_form(example)
    truth = right_option(example, form)
    label = label_of(clean, scores)
    return Item(
        record=_bare(clean),
        image=images.setdefault(pictures, len(images)),
        question=questions.setdefault(prompt, len(questions)),
        form=form,
        scores=scores,
        blank_scores=_blank_scores(clean, blank),
        blank_label=_blank_label(clean, blank),
        label=label,
        truth=truth,
        right=_right(clean, scores, truth, threshold),
        energy=_energy(clean),
        channels=clean_channels(clean),
    )


def _pair(number: int, item: Item, clean: Record, record: Record, threshold: float) -> Pair:
    scores = None if item.scores is None else option_scores(record)
    drift, l2 = _distances(item, record)
    letters = None
    if clean.has(Feature.LETTER_LOGPROBS) and record.has(Feature.LETTER_LOGPROBS):
        letters = (clean.array(Feature.LETTER_LOGPROBS), record.array(Feature.LETTER_LOGPROBS))
    lengths = record.array(Feature.OPTION_LENGTHS) if record.has(Feature.OPTION_LENGTHS) else None
    return Pair(
        item=number,
        record=_bare(record),
        kind=parse_condition(record.condition).kind,
        scores=scores,
        label=label_of(record, scores),
        right=_right(record, scores, item.truth, threshold) if record.truth == "same" else None,
        lengths=lengths,
        letters=letters,
        score_change=_score_change(item, clean, record, scores),
        energy=_energy(record),
        drift=drift,
        l2=l2,
    )


def _distances(
    item: Item, record: Record
) -> tuple[dict[Feature, np.ndarray], dict[Feature, np.ndarray]]:
    """1 - cosine and Euclidean distance to the clean vectors, by channel."""
    drift, l2 = {}, {}
    for feature, before in item.channels.items():
        if feature not in record.features:
            continue
        after = _vectors(record, feature)
        drift[feature], l2[feature] = cosine_drift(before, after), l2_drift(before, after)
    return drift, l2


def clean_channels(clean: Record) -> dict[Feature, np.ndarray]:
    """Clean vectors by channel; the fixed text is the answer that was given to what was asked."""
    found = {f: _vectors(clean, f) for f in CHANNEL_ORDER if f in clean.features}
    asked = Feature.ANS_OPEN if clean.example.choices is None else Feature.ANS_MCQ_FREE
    if asked in found:
        found[Feature.ANS_FIXED] = found[asked]
    return found


def option_scores(record: Record) -> np.ndarray | None:
    """Scores of the options, or of no and yes, in that order; None where there are none."""
    if record.has(Feature.OPTION_LOGPROBS):
        return record.array(Feature.OPTION_LOGPROBS).astype(np.float64)
    if record.has(Feature.YES_NO_LOGPROBS):
        return record.array(Feature.YES_NO_LOGPROBS).astype(np.float64)[::-1]
    return None


def label_of(record: Record, scores: np.ndarray | None) -> str:
    """The label as people read it: an option's letter, yes or no, or a short form."""
    if scores is None:
        return canonical_answer(record.example, record.answer.text)
    best = int(labels(scores[None])[0])
    return (
        record.example.letters[best] if record.example.choices is not None else ("no", "yes")[best]
    )


def right_option(example: Example, form: str) -> int:
    """Number of the option that most references name; -1 where none is named."""
    if form == "text" or not example.references:
        return -1
    if form == "yes_no":
        said = [parse_yes_no(reference) for reference in example.references]
        known = [word for word in said if word is not None]
        return int(known.count("yes") * 2 > len(known)) if known else -1
    votes = [r for r in example.references if r in example.letters]
    return example.letters.index(max(votes, key=votes.count)) if votes else -1


def _vectors(record: Record, feature: Feature) -> np.ndarray:
    values = record.array(feature).astype(np.float32)
    return values if feature in LAYERED else values[None]


def _bare(record: Record) -> Record:
    return Record(record.example, record.condition, record.greedy, truth=record.truth)


def _right(record: Record, scores: np.ndarray | None, truth: int, threshold: float) -> bool | None:
    if scores is not None:
        return None if truth < 0 else int(labels(scores[None])[0]) == truth
    column, _ = grade_records([record], Auto())
    return bool(column.values[0] >= threshold) if len(column.values) else None


def _energy(record: Record) -> tuple[float, float] | None:
    if not record.has(Feature.VISION_ENERGY):
        return None
    return (
        float(record.array(Feature.VISION_ENERGY)),
        float(record.array(Feature.VISION_ENERGY_NORMALISED)),
    )


def _blank_scores(clean: Record, blank: Record | None) -> np.ndarray | None:
    if clean.has(Feature.BLANK_OPTION_LOGPROBS):
        return clean.array(Feature.BLANK_OPTION_LOGPROBS).astype(np.float64)
    if blank is not None and blank.has(Feature.YES_NO_LOGPROBS):
        return option_scores(blank)
    return None


def _blank_label(clean: Record, blank: Record | None) -> str | None:
    scores = _blank_scores(clean, blank)
    if scores is not None and option_scores(clean) is not None:
        return label_of(clean, scores)
    if blank is None or blank.greedy is None or option_scores(clean) is not None:
        return None
    return label_of(blank, None)


def _score_change(
    item: Item, clean: Record, record: Record, scores: np.ndarray | None
) -> float | None:
    if item.scores is not None and scores is not None:
        base = labels(item.scores[None])
        return float(score_change(item.scores[None], scores[None], base)[0])
    before = clean.answer.logprobs
    if before is None or not record.has(Feature.CLEAN_LOGPROBS):
        return None
    return float(record.array(Feature.CLEAN_LOGPROBS).sum() - before.sum())
