"""The study of zero-shot classifiers: TrustVLM and its rivals on the embedded models.

Pictures are embedded once; every score is computed from the vectors. Scores that learn do so from
labelled support pictures of the training split, drawn anew ten times. Calibration uses labelled
pictures of the calibration split, the same for every score. Last, the embedded vision-language
model chooses among the likeliest classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from PIL import Image

from sightline.core.estimates import Estimate
from sightline.core.protocols import ImageTextModel
from sightline.data.objects import (
    CLASSES,
    DIGIT_CLASSES,
    TEMPLATES,
    ObjectSet,
    draw_objects,
    generate_objects,
)
from sightline.models import load_classifier, load_image_encoder
from sightline.models.classifiers import ImageEncoder
from sightline.workflow.classifying.reading import joined_templates
from sightline.workflow.studies.classifier_reranking import reranking_tables
from sightline.workflow.studies.classifier_scores import (
    Labelled,
    Result,
    draw_supports,
    measure,
    relative,
)
from sightline.workflow.studies.tables import Cell, StudyTable, kept_tables
from sightline.zeroshot import ZERO_SHOT_SCORES, ClassifierOutputs, ClassTexts

Progress = Callable[[str], None]

MODELS = ("clip", "siglip")
PICTURES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "scenes": ("test", CLASSES),
    "digits": ("test", DIGIT_CLASSES),
    "shifted": ("shifted", CLASSES),
}
"""Test pictures by name: their split, and the classes that are told apart."""

BASELINE = "msp"
METHOD = "trustvlm_aux"
RELABELLED = "trustvlm_aux_rescored"
"""The same, where it may change the label."""

RIVAL = "logistic_aux"
"""Learns from the same support pictures."""

LOWER = "AURC lower than msp's by"
OWN_LOWER = f"{METHOD}'s AURC lower than its by"
RAW = "ECE of its own probability"


@dataclass(frozen=True, slots=True)
class ClassifierSize:
    """How much is measured.

    Attributes:
        pictures: Test pictures of each kind.
        calibration: Labelled pictures that the scores are calibrated on.
        shots: Support pictures of each class.
        draws: Support sets of each size.
        resamples: Bootstrap resamples.
    """

    pictures: int = 2500
    calibration: int = 1000
    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    draws: int = 10
    resamples: int = 1000


QUICK = ClassifierSize(pictures=300, calibration=200, shots=(2,), draws=2, resamples=100)
"""Shows that every table can be computed; too small for its figures to say anything."""


def study_classifiers(out: Path, size: ClassifierSize, *, progress: Progress) -> list[StudyTable]:
    """Measures every table of the study.

    Args:
        out: Receives the tables as they are measured; what is there is resumed.
        size: How much is measured.
        progress: Called before every long step.
    """
    encoder = load_image_encoder("embedded:encoder")
    tables: list[StudyTable] = []
    for name in MODELS:
        model = load_classifier(f"embedded:{name}")
        prints = [dict(model.fingerprint()), dict(encoder.fingerprint())]
        settings = {"size": asdict(size), "models": prints, "texts": "mean of the templates"}
        for kind in PICTURES:
            setting = _Setting(name, kind, model, encoder, size, progress)
            tables += kept_tables(
                out / "tables", f"classifiers-{name}-{kind}", settings, setting.tables
            )
    choices = reranking_tables(out, size.pictures, size.calibration, size.resamples, progress)
    return [targets_table(tables), *tables, *choices]


@dataclass(frozen=True, slots=True)
class _Setting:
    """One classifier on one kind of pictures."""

    name: str
    kind: str
    model: ImageTextModel
    encoder: ImageEncoder
    size: ClassifierSize
    progress: Progress

    def tables(self) -> list[StudyTable]:
        """All scores at the most support pictures, and those that learn at every number."""
        split, classes = PICTURES[self.kind]
        texts = self._texts(classes)
        pool_labels = np.repeat(np.arange(len(classes)), max(self.size.shots) * 3 // 2)
        pool = Labelled(self._seen(texts, self._drawn("train", classes, pool_labels)), pool_labels)
        test = self._labelled(texts, split, classes, self.size.pictures, seed=0)
        calibration = self._labelled(texts, "calibration", classes, self.size.calibration, seed=1)
        most = max(self.size.shots)
        by_shots: dict[int, dict[str, Result]] = {}
        for shots in self.size.shots:
            self.progress(f"{self.name} on {self.kind}: {shots} support pictures a class")
            supports = draw_supports(pool, shots, self.size.draws)
            by_shots[shots] = {
                name: measure(
                    name, texts, supports, calibration, test, resamples=self.size.resamples
                )
                for name in ZERO_SHOT_SCORES
                if shots == most or name == BASELINE or uses_support(name)
            }
        return [
            all_scores(self.name, self.kind, most, by_shots[most], self.size),
            by_number(self.name, self.kind, by_shots, self.size),
        ]

    def _texts(self, classes: Sequence[str]) -> ClassTexts:
        return joined_templates(
            classes,
            np.stack([self.model.text_vectors([t.format(c) for c in classes]) for t in TEMPLATES]),
            logit_scale=self.model.scale,
            logit_bias=self.model.bias,
            link="sigmoid" if self.model.sigmoid else "softmax",
        )

    def _labelled(
        self, texts: ClassTexts, split: str, classes: Sequence[str], n: int, *, seed: int
    ) -> Labelled:
        wanted = None if classes is CLASSES else classes
        batch = generate_objects(split, n, seed, classes=wanted)
        return Labelled(self._seen(texts, batch), batch.labels - CLASSES.index(classes[0]))

    def _drawn(
        self, split: str, classes: Sequence[str], labels: Int[np.ndarray, " n"]
    ) -> ObjectSet:
        return draw_objects(split, labels + CLASSES.index(classes[0]), np.random.default_rng(16))

    def _seen(self, texts: ClassTexts, batch: ObjectSet) -> ClassifierOutputs:
        pictures = [Image.fromarray(pixels) for pixels in batch.images]
        mirrored = [picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for picture in pictures]
        gray = [picture.convert("L").convert("RGB") for picture in pictures]
        views = np.stack([self.model.image_vectors(mirrored), self.model.image_vectors(gray)])
        own = self.model.image_vectors(pictures)
        return ClassifierOutputs(texts, own, self.encoder.vectors(pictures), views)


def uses_support(name: str) -> bool:
    """Whether a score learns from support pictures."""
    return ZERO_SHOT_SCORES[name].traits.uses_support


def all_scores(
    model: str, kind: str, shots: int, results: Mapping[str, Result], size: ClassifierSize
) -> StudyTable:
    """One row per score, lowest AURC first."""
    rows: list[tuple[Cell, ...]] = []
    for name in sorted(results, key=lambda n: _number(results[n].figure("aurc"))):
        result = results[name]
        rows.append(
            (
                name,
                "support labels" if uses_support(name) else "zero-shot",
                result.draws,
                *_figures(result),
                None if name == BASELINE else relative(result, results[BASELINE]),
                None if name == RIVAL else relative(result, results[RIVAL]),
                None if name == METHOD else relative(results[METHOD], result),
            )
        )
    return StudyTable(
        key=f"all-{model}-{kind}",
        title=f"All scores of {model} on {kind}",
        note=(
            f"{size.pictures:,} test pictures, {len(PICTURES[kind][1])} classes, {shots} support "
            "pictures a class from the training split; the texts of a class are the mean over "
            f"{len(TEMPLATES)} templates. Figures are means over the support sets, intervals "
            "resample the test pictures, the spread is the standard deviation of AURC over the "
            "sets. FPR95, nearest, is by the rule of TrustVLM's released code. ECE is of "
            "confidences calibrated (Platt) on "
            f"{size.calibration:,} labelled pictures of the calibration split; beside it that of "
            "the score's own probability, where it is one, which saw none of them. Lower AURC is "
            f"relative, paired: against {BASELINE}; against {RIVAL}, which learns from the same "
            f"support pictures; and {METHOD}'s against the score's. A score that may relabel is "
            "judged by its own label."
        ),
        columns=(
            "Score", "Uses", "Support sets", *_FIGURES, LOWER, f"AURC lower than {RIVAL}'s by",
            OWN_LOWER,
        ),
        rows=tuple(rows),
    )  # fmt: skip


def by_number(
    model: str, kind: str, by_shots: Mapping[int, Mapping[str, Result]], size: ClassifierSize
) -> StudyTable:
    """The scores that learn, by number of support pictures."""
    rows: list[tuple[Cell, ...]] = []
    for shots, results in by_shots.items():
        for name, result in results.items():
            if name != BASELINE and not uses_support(name):
                continue
            rows.append(
                (
                    f"{shots}: {name}",
                    *_figures(result),
                    None if name == BASELINE else relative(result, results[BASELINE]),
                    None if name == METHOD else relative(results[METHOD], result),
                )
            )
    return StudyTable(
        key=f"shots-{model}-{kind}",
        title=f"By number of support pictures: {model} on {kind}",
        note=(
            f"Support pictures a class: score. {size.draws} support sets each; as above. Scores "
            "that learn from no support pictures are the same at every number."
        ),
        columns=("Shots: score", *_FIGURES, LOWER, OWN_LOWER),
        rows=tuple(rows),
    )


_FIGURES = ("AURC ×1000", "Spread", "AUROC", "FPR95", "FPR95, nearest", "Accuracy", "ECE", RAW)


def _figures(result: Result) -> tuple[Cell, ...]:
    return (
        result.figure("aurc", 1000),
        f"{1000 * result.spread:.1f}",
        *(result.figure(metric) for metric in ("auroc", "fpr95")),
        None if result.ranking is None else f"{result.nearest:.3f}",
        *(result.figure(metric) for metric in ("accuracy", "ece")),
        None if result.raw is None else result.raw.estimate(0, "ece"),
    )


def targets_table(tables: Sequence[StudyTable]) -> StudyTable:
    """Whether TrustVLM with the stronger encoder does what was hoped for.

    Args:
        tables: All tables of the study.
    """
    rows: list[tuple[Cell, ...]] = [_enough(tables, method) for method in (METHOD, RELABELLED)]
    for table in tables:
        if not table.key.startswith("all-"):
            continue
        cells = {str(row[0]): dict(zip(table.columns, row, strict=True)) for row in table.rows}
        own = _number(cells[METHOD]["AURC ×1000"])
        for uses in ("zero-shot", "support labels"):
            rivals = {
                name: _number(row["AURC ×1000"])
                for name, row in cells.items()
                if row["Uses"] == uses and not name.startswith("trustvlm")
            }
            beaten = sum(own < value for value in rivals.values())
            surely = sum(_low(cells[name][OWN_LOWER]) > 0 for name in rivals)
            best = min(rivals, key=lambda name: rivals[name])
            rows.append(
                (
                    f"{table.key.removeprefix('all-')}: {METHOD} has a lower AURC than every rival "
                    f"({uses})",
                    f"{own:.1f}; best rival {best} {rivals[best]:.1f}",
                    f"{'reached' if beaten == len(rivals) else 'not reached'}: lower than {beaten} "
                    f"of {len(rivals)}, beyond chance than {surely}",
                )
            )
    return StudyTable(
        key="targets",
        title="Targets",
        note=(
            "Set before the study was run. AURC by point estimate; beyond chance where the paired "
            "interval of the tables below lies above zero. A score that keeps the classifier's "
            "labels cannot push AURC below what its error rate forces even on a perfect ranking; "
            "one that may relabel can."
        ),
        columns=("Target", "Figure", "Verdict"),
        rows=tuple(rows),
    )


def _enough(tables: Sequence[StudyTable], method: str) -> tuple[Cell, ...]:
    """In how many settings a method lowers AURC against the maximum softmax as far as hoped."""
    gains = [
        row[table.columns.index(LOWER)]
        for table in tables
        if table.key.startswith("shots-")
        for row in table.rows
        if str(row[0]).endswith(f": {method}")
    ]
    large = sum(isinstance(g, Estimate) and g.value is not None and g.value >= 0.2 for g in gains)
    return (
        f"{method} lowers AURC against msp by at least 20 % in most settings",
        f"{large} of {len(gains)} settings",
        "reached" if 2 * large > len(gains) else "not reached",
    )


def _low(cell: Cell) -> float:
    """The lower end of an interval; minus infinity where there is none."""
    low = cell.low if isinstance(cell, Estimate) else None
    return float("-inf") if low is None else low


def _number(cell: Cell) -> float:
    value = cell.value if isinstance(cell, Estimate) else None
    return float("inf") if value is None else value
