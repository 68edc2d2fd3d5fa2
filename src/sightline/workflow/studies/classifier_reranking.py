"""Letting the embedded model choose among a classifier's likeliest classes, on handwritten digits.

Every figure is that of ``sightline classify`` and ``sightline rerank`` on generated pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from sightline.core.errors import ModelError
from sightline.core.estimates import Estimate
from sightline.core.features import Feature
from sightline.core.protocols import ImageTextModel, Request, VisionLanguageModel
from sightline.data.collected import digest_json
from sightline.data.examples import Dataset
from sightline.data.image_sets import TEMPLATES, load_image_set
from sightline.data.objects import DIGIT_CLASSES
from sightline.estimators.likelihood import SequenceProbability
from sightline.estimators.recorded import RecordedConfidence
from sightline.metrics.intervals import proportion
from sightline.models import load_classifier, load_model
from sightline.store.images import image_writer
from sightline.store.run import RunStore
from sightline.workflow.classifying.collecting import classify
from sightline.workflow.classifying.reranking import choices, chosen_class, paired_change, rerank
from sightline.workflow.collect import collect
from sightline.workflow.studies.classifier_scores import (
    Judgement,
    Result,
    difference,
    measure_judged,
    relative,
)
from sightline.workflow.studies.tables import Cell, StudyTable, kept_tables

MODELS = ("clip", "siglip")
SPLITS: Mapping[str, str] = {"digits": "test", "shifted digits": "shifted"}
"""Test pictures by name, with their split."""

NAMES: Mapping[str, str] = {name: name.removeprefix("digit ") for name in DIGIT_CLASSES}
"""Digits as the embedded model is offered them while it learns: ``3 62%, 8 20%, 5 10%``."""

ASKED = "What digit is shown?"
TOP = 3
UNTRAINED = (
    "the embedded model was trained on this prompt about one attribute, such as a digit, not about "
    "90 names of size, colour and shape"
)

CLASSIFIER = "classifier alone"
OWN = "choice, its own probability"
CLASSIFIERS = "choice, the classifier's probability"


@dataclass(frozen=True, slots=True)
class Reranked:
    """What became of one set of pictures.

    Attributes:
        before: Whether the classifier's class is right.
        after: Whether the class after the choice is right.
        classifier: One minus the classifier's largest probability.
        own: One minus the probability of the model's reply.
        changed: Whether the class changed.
        unnamed: Whether the reply names none of the classes offered.
    """

    before: Float[np.ndarray, " n"]
    after: Float[np.ndarray, " n"]
    classifier: Float[np.ndarray, " n"]
    own: Float[np.ndarray, " n"]
    changed: Bool[np.ndarray, " n"]
    unnamed: Bool[np.ndarray, " n"]

    def judged(self, by: str) -> Judgement:
        """The labels before or after with one of the confidences."""
        if by == CLASSIFIER:
            return Judgement(self.classifier, self.before)
        return Judgement(self.own if by == OWN else self.classifier, self.after)


def reranking_tables(
    out: Path, pictures: int, calibration: int, resamples: int, progress: Callable[[str], None]
) -> list[StudyTable]:
    """Accuracy before and after the choice, and how far each confidence can be trusted.

    Args:
        out: Receives the runs and the tables; what is there is resumed.
        pictures: Test pictures of each kind.
        calibration: Labelled pictures that the confidences are calibrated on.
        resamples: Bootstrap resamples.
        progress: Called before every long step.
    """
    asked = load_model("embedded:vlm")
    models = {name: load_classifier(f"embedded:{name}") for name in MODELS}
    prints = [dict(model.fingerprint()) for model in models.values()]
    prints.append(dict(asked.fingerprint()))

    def measured() -> list[StudyTable]:
        found: dict[str, tuple[Reranked, Reranked]] = {}
        for name, model in models.items():
            runs = out / "reranking" / name
            progress(f"{name}: choosing among the first {TOP} digits to calibrate")
            known = observed(model, asked, "calibration", calibration, runs)
            for kind, split in SPLITS.items():
                progress(f"{name} on {kind}: choosing among the first {TOP}")
                found[f"{name} on {kind}"] = (
                    known,
                    observed(model, asked, split, pictures, runs),
                )
        return [
            accuracies(found, pictures),
            confidences(found, calibration, resamples),
        ]

    def alone() -> list[StudyTable]:
        seen = {}
        for split in ("calibration", *SPLITS.values()):
            progress(f"asking for the digit alone: {split}")
            count = calibration if split == "calibration" else pictures
            seen[split] = unaided(asked, split, count, out / "unaided" / split)
        known = seen.pop("calibration")
        return [unaided_table(known, {k: seen[split] for k, split in SPLITS.items()}, resamples)]

    settings = {
        "pictures": pictures,
        "calibration": calibration,
        "resamples": resamples,
        "models": prints,
        "request": asdict(_REQUEST),
    }
    tables = kept_tables(out / "tables", "classifiers-reranking", settings, measured)
    settings = {**settings, "models": prints[-1:], "asked": ASKED}
    return [*tables, *kept_tables(out / "tables", "classifiers-unaided", settings, alone)]


_REQUEST = Request(max_new_tokens=8)


def observed(
    model: ImageTextModel, asked: VisionLanguageModel, split: str, pictures: int, runs: Path
) -> Reranked:
    """Classifies digits of one split, lets the model choose, and reads what it chose.

    Raises:
        ModelError: A picture could not be observed, so that the figures would be of others.
    """
    run, choice = runs / split, runs / f"{split}-choice"
    images = load_image_set(
        f"digits:{split}?n={pictures}", classes=NAMES, store_image=image_writer(run)
    )
    templates = [template.replace("{}", "digit {}") for template in TEMPLATES["picture"]]
    classify(model, images, run, templates=templates)
    rerank(run, asked, choice, top=TOP, question=ASKED, request=_REQUEST, batch_size=64)
    made = choices(RunStore.open(choice), (Feature.LOGPROBS, Feature.RECORDED_CONFIDENCE))
    if len(made) < pictures:
        raise ModelError(
            f"{choice} holds {len(made)} of {pictures} choices; all are required. See why with "
            "'sightline runs show'."
        )
    records = [one.record for one in made]
    return Reranked(
        before=np.array([one.first == one.right for one in made], dtype=np.float64),
        after=np.array([one.label == one.right for one in made], dtype=np.float64),
        classifier=RecordedConfidence().uncertainty(records),
        own=SequenceProbability().uncertainty(records),
        changed=np.array([one.label != one.first for one in made]),
        unnamed=np.array([one.named is None for one in made]),
    )


@dataclass(frozen=True, slots=True)
class Unaided:
    """What the model said of one set of pictures without any suggestion.

    Attributes:
        judged: One minus the probability of its reply, and whether it names the digit.
        unnamed: How many replies name no digit, or several; they are wrong.
    """

    judged: Judgement
    unnamed: int


def unaided(asked: VisionLanguageModel, split: str, pictures: int, run: Path) -> Unaided:
    """Asks the model which digit is shown, on the pictures that it elsewhere chooses on.

    Raises:
        ModelError: A picture could not be observed, so that the figures would be of others.
    """
    images = load_image_set(
        f"digits:{split}?n={pictures}", classes=NAMES, store_image=image_writer(run)
    )
    examples = tuple(replace(example, question=ASKED) for example in images.examples)
    digest = digest_json([images.sha256, ASKED])
    collect(
        asked,
        Dataset(images.name, examples, images.rejected, digest),
        run,
        request=_REQUEST,
        batch_size=64,
        shard_size=256,
    )
    records = list(RunStore.open(run).records(features={Feature.LOGPROBS}))
    if len(records) < pictures:
        raise ModelError(
            f"{run} holds {len(records)} of {pictures} answers; all are required. See why with "
            "'sightline runs show'."
        )
    named = [chosen_class(record.answer.text, images.classes) for record in records]
    right = [n == r.example.references[0] for n, r in zip(named, records, strict=True)]
    return Unaided(
        Judgement(SequenceProbability().uncertainty(records), np.array(right, dtype=np.float64)),
        named.count(None),
    )


def unaided_table(known: Unaided, found: Mapping[str, Unaided], resamples: int) -> StudyTable:
    """One row per kind of pictures."""
    rows: list[tuple[Cell, ...]] = []
    for name, test in found.items():
        result = measure_judged([(known.judged, test.judged)], resamples=resamples)
        rows.append(
            (
                f"the model alone on {name}",
                result.figure("aurc", 1000),
                result.figure("auroc"),
                result.figure("fpr95"),
                result.figure("accuracy"),
                result.figure("ece"),
                test.unnamed,
            )
        )
    return StudyTable(
        key="unaided",
        title="The embedded model without a classifier's suggestions",
        note=(
            f"The same pictures of each split. The model is asked “{ASKED}” in the plain form it "
            "was trained on; a reply that names no digit counts as wrong. Confidence and ECE as "
            "above. What the combination adds is its accuracy above the better of this and the "
            "classifier alone; the intervals are not paired."
        ),
        columns=(
            "Setting", "AURC ×1000", "AUROC", "FPR95", "Accuracy", "ECE", "Named no digit",
        ),
        rows=tuple(rows),
    )  # fmt: skip


def accuracies(found: Mapping[str, tuple[Reranked, Reranked]], pictures: int) -> StudyTable:
    """One row per classifier and kind of pictures; what was not trained is named as such."""
    rows: list[tuple[Cell, ...]] = []
    for name, (_, test) in found.items():
        gained = int((test.after > test.before).sum())
        lost = int((test.after < test.before).sum())
        rows.append(
            (
                name,
                proportion(test.before),
                proportion(test.after),
                paired_change(test.before, test.after),
                f"{int(test.changed.sum())} ({gained} to right, {lost} to wrong)",
                int(test.unnamed.sum()),
            )
        )
    rows += [
        (f"{name} on {kind}", Estimate(None, reason=UNTRAINED), None, None, None, None)
        for name in MODELS
        for kind in ("scenes", "shifted")
    ]
    return StudyTable(
        key="reranking",
        title=f"Letting the embedded model choose among the first {TOP} classes",
        note=(
            f"{pictures:,} handwritten digits of the test and of the shifted split "
            "(digits:test, digits:shifted; other pictures than those of the tables above). The "
            f"model is shown the picture, asked “{ASKED}” and told the classifier's first {TOP} "
            "classes with their probabilities, “3 62%, 8 20%, 5 10%”, as it was trained; a reply "
            "that names none of them keeps the classifier's. The change is paired by picture."
        ),
        columns=("Setting", "Accuracy before", "After", "Change", "Changed", "Named none"),
        rows=tuple(rows),
    )


def confidences(
    found: Mapping[str, tuple[Reranked, Reranked]], calibration: int, resamples: int
) -> StudyTable:
    """Three rows per classifier and kind: the classifier's confidence, and two of the choice."""
    rows: list[tuple[Cell, ...]] = []
    for name, (known, test) in found.items():
        results = {
            by: measure_judged([(known.judged(by), test.judged(by))], resamples=resamples)
            for by in (CLASSIFIER, OWN, CLASSIFIERS)
        }
        rows += [_confidence(f"{name}: {by}", one, results) for by, one in results.items()]
    return StudyTable(
        key="reranking-confidence",
        title="How far the choice can be trusted",
        note=(
            "The same pictures. Each confidence is judged by the label it stands for: the "
            "classifier's class, or the class after the choice. The model's own probability is "
            "that of its reply (sequence_probability), the classifier's its largest softmax. ECE "
            f"is of confidences calibrated (Platt) on {calibration:,} digits of the calibration "
            "split, chosen in the same way. Differences from the classifier alone are paired by "
            "picture; AURC also falls because more is right."
        ),
        columns=(
            "Setting: confidence", "AURC ×1000", "AUROC", "FPR95", "Accuracy", "ECE",
            "AURC lower by", "AUROC higher by", "ECE higher by",
        ),
        rows=tuple(rows),
    )  # fmt: skip


def _confidence(name: str, result: Result, results: Mapping[str, Result]) -> tuple[Cell, ...]:
    alone = results[CLASSIFIER]
    figures: Sequence[Cell] = (
        result.figure("aurc", 1000),
        result.figure("auroc"),
        result.figure("fpr95"),
        result.figure("accuracy"),
        result.figure("ece"),
    )
    if result is alone:
        return (name, *figures, None, None, None)
    return (
        name,
        *figures,
        relative(result, alone),
        difference(result, alone, "auroc"),
        difference(result, alone, "ece"),
    )
