"""Policies over a classifier's pictures: its scores as estimators, read without holding vectors.

A score is fitted on support pictures, which none of the three parts holds, and computed once over
the run; what is calibrated and certified are numbers by picture. A finished policy holds the fitted
score itself, and decides a shard's pictures at a time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sightline.calibration.risk_control import one_of_each
from sightline.core.errors import DataError, MissingFeatureError, UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.types import Key, Record
from sightline.store.layout import CLASSES, SUPPORT, is_run
from sightline.store.run import RunStore
from sightline.workflow.classifying.comparing import differing_in
from sightline.workflow.classifying.judging import judged_pictures, relabelled
from sightline.workflow.classifying.reading import (
    Embedded,
    SupportDraws,
    open_classification,
    read_embedded,
    read_support,
    read_texts,
)
from sightline.workflow.classifying.scoring import AppliedScore, Drawn, score_embedded
from sightline.workflow.evaluate import Judged, Settings
from sightline.workflow.fitted import content
from sightline.workflow.policy.categories import PREDICTED_CLASS
from sightline.workflow.policy.class_sets import fit_sets_over_classes
from sightline.workflow.policy.decision import Decision
from sightline.workflow.policy.evidence import ClassifierOrigin, SetsFit, Target
from sightline.workflow.policy.fitting import Ready, fit_ready
from sightline.workflow.policy.labelled import Labelled, SetsTarget
from sightline.workflow.policy.option_sets import PredictionSets
from sightline.workflow.policy.trust import TrustPolicy, array_needs
from sightline.zeroshot import parse_score

LABEL = "label"
"""Entry of a picture's meta data that is its right class in the source's words."""


@dataclass(frozen=True, slots=True, eq=False)
class KnownScore:
    """A fitted score whose values on a run are computed already: an estimator without needs.

    Attributes:
        applied: The score.
        known: Uncertainty by picture.
    """

    applied: AppliedScore
    known: Mapping[Key, float]
    needs: frozenset[Feature] = field(default=frozenset(), init=False)
    control: bool = field(default=False, init=False)

    @property
    def family(self) -> str:
        """The score's."""
        return self.applied.family

    @property
    def is_probability(self) -> bool:
        """The score's."""
        return self.applied.is_probability

    @property
    def simple(self) -> bool:
        """The score's."""
        return self.applied.simple

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Uncertainty of the classifier's label."""
        return np.array([self.known[record.key] for record in records])

    def cost(self, records: Sequence[Record]) -> Cost:
        """The score's."""
        return self.applied.cost(records)


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """A classifier's run with the one score that a policy is to be made of.

    Attributes:
        seen: The pictures.
        drawn: The fitted score and its values.
        draws: The support draw that it learned from; None where it learns from none.
    """

    seen: Embedded
    drawn: Drawn
    draws: SupportDraws | None

    def fit(
        self,
        data: Labelled,
        target: Target,
        *,
        calibrator: str,
        sets: SetsTarget | None,
        seed: int,
    ) -> TrustPolicy:
        """The policy on these labelled pictures, which are those of known class, in order."""
        (result,) = self.drawn.results
        keys = (record.key for record in self.seen.records)
        known = KnownScore(
            self.drawn.estimator, dict(zip(keys, result.uncertainty.tolist(), strict=True))
        )
        policy = fit_ready(
            [Ready(self.drawn.name, self.drawn.spec, known)],
            data,
            target,
            np.empty(0, dtype=np.int64),
            Counter(),
            calibrator=calibrator,
            sets=None if sets is None else partial(self._fit_sets, sets),
            seed=seed,
        )
        (stage,) = policy.stages
        return replace(policy, stages=(replace(stage, estimator=known.applied),))

    def _fit_sets(
        self, target: SetsTarget, data: Labelled, rng: np.random.Generator
    ) -> tuple[PredictionSets, SetsFit]:
        """Sets on a random picture of every group of the third part."""
        judged, test = np.flatnonzero(self.seen.labels >= 0), data.parts.test
        drawn = test[one_of_each(data.groups[test], rng)]
        return fit_sets_over_classes(self.seen, judged[test], judged[drawn], target)

    def judged(
        self,
        settings: Settings,
        given_split: Mapping[str, str] | None,
        announce: Callable[[str], None],
    ) -> Judged:
        """The pictures of known class, right where the score's own label is."""
        judged = judged_pictures(self.seen, settings, given_split, draws=1)
        if not self.drawn.estimator.traits.may_relabel:
            return judged
        rows = relabelled(judged.rows, self.drawn, self.seen)
        others = sum(
            own.answer.text != record.answer.text
            for own, record in zip(rows.records, judged.rows.records, strict=True)
        )
        announce(
            f"{self.drawn.name} is judged by its own labels: {others:,} of {len(rows.records):,} "
            "pictures get another than the classifier's."
        )
        return replace(judged, rows=rows)

    @property
    def learned_from(self) -> tuple[str, ...]:
        """Hashes of the support pictures that the score was fitted on."""
        if self.draws is None:
            return ()
        records = self.draws.pictures.records
        return tuple(
            digest for row in self.draws.rows[0] for digest in content(records[row].example)
        )

    @property
    def origin(self) -> ClassifierOrigin:
        """What the score was fitted with."""
        model = self.seen.store.manifest.model
        draws = self.draws
        return ClassifierOrigin(
            classes=len(self.seen.texts.classes),
            templates=tuple(model["templates"]),
            encoders=self.seen.encoders,
            support=None if draws is None else draws.run,
            shots=(0, 0) if draws is None else draws.shots,
            pictures=0 if draws is None else len(draws.rows[0]),
        )


def read_pictures(
    path: Path, specs: Sequence[str], *, support: Path | None, shots: int | None, seed: int
) -> Pictures:
    """Reads a classifier's run and computes the score that a policy is to be made of.

    A score that learns is fitted on the first draw of the support pictures.

    Args:
        path: The run.
        specs: The score: a name of `sightline.zeroshot.ZERO_SHOT_SCORES` with settings, where the
            run has several auxiliary encoders with one of them in brackets.
        support: Run whose support pictures are used; None takes the run's own.
        shots: Support pictures of every class; None takes as many as were drawn.
        seed: Of the fit.

    Raises:
        UsageError: Several scores, an unknown one, one that learns from no support although some
            is named, or runs of two classifiers.
        LeakageError: A support picture is among the pictures.
        MissingFeatureError: The run does not hold what the score needs.
    """
    store = open_classification(path)
    if len(specs) > 1:
        raise UsageError(
            f"A cascade of {' -> '.join(specs)} for {path}, a run of a classifier; one score is "
            "required, since all of them are read off the same vectors. Choose one with -e."
        )
    name, encoder = _encoder_named(specs[0])
    traits = parse_score(name).traits
    if not traits.uses_support and (support is not None or shots is not None):
        raise UsageError(
            f"--support or --shots with {name!r}, which learns from no support pictures; a score "
            "that does is required. Leave them out."
        )
    seen = read_embedded(store, read_texts(RunStore.open(path / CLASSES)))
    draws = None
    home = support or (path if is_run(path / SUPPORT) else None)
    if traits.uses_support and home is not None:
        found = read_support(home, seen, shots)
        draws = replace(found, rows=found.rows[:1], shots=_shots(found))
    drawn, _, lacking = score_embedded(seen, [], draws, [name], seed=seed)
    if not drawn:
        raise MissingFeatureError(
            f"Score {name!r} cannot be computed on {path}: {lacking[0].reasons[0].reason}"
        )
    return Pictures(seen, _of_encoder(drawn, name, encoder, seen), draws)


def decide_pictures(
    policy: TrustPolicy, seen: Embedded, rows: Sequence[int]
) -> tuple[Decision, ...]:
    """Decides some of a run's pictures; memory holds the vectors of one shard at a time.

    Args:
        policy: A policy of this classifier; see `require_classifier`.
        seen: The pictures.
        rows: Which of them, in ascending order.

    Raises:
        DataError: A shard holds another number of records than when they were read.
    """
    wanted = np.zeros(len(seen), dtype=bool)
    wanted[list(rows)] = True
    features = array_needs(policy.needs)
    decisions: list[Decision] = []
    before = 0
    for index, count in seen.shards.items():
        mine = np.flatnonzero(wanted[before : before + count])
        before += count
        if not len(mine):
            continue
        records = list(seen.store.records(features=features, shard=index))
        if len(records) != count:
            raise DataError(
                f"Shard {index} of {seen.store.path} holds {len(records)} records now and held "
                f"{count} when they were read; a run that does not change meanwhile is required. "
                "Run the same command again."
            )
        decisions.extend(policy.decide([records[at] for at in mine]))
    return tuple(decisions)


def right_classes(
    decisions: Sequence[Decision], seen: Embedded, rows: Sequence[int]
) -> list[float | None]:
    """0 or 1 by whether each decision's answer is the picture's class; None where that has none."""
    labels, names = seen.labels[list(rows)].tolist(), seen.texts.classes
    return [
        None if label < 0 else float(decision.answer == names[label])
        for decision, label in zip(decisions, labels, strict=True)
    ]


def require_classifier(policy: TrustPolicy, store: RunStore) -> None:
    """Requires a run of the policy's classifier, with the encoders and views that it reads.

    Raises:
        UsageError: Something differs; the message names it.
    """
    origin = policy.evidence.origin
    unread = {
        name
        for name, feature in (
            ("encoders", Feature.AUX_VECTORS),
            ("views", Feature.VIEW_VECTORS),
        )
        if feature not in policy.needs
    }
    known = {} if origin is None else origin.model
    differing = differing_in(known, store.manifest.model, unread)
    if differing:
        raise UsageError(
            f"The policy was fitted on pictures of {known.get('name', 'an unnamed classifier')} "
            f"and those of {store.path} differ in {', '.join(differing)}; the same classifier, "
            "classes, templates and encoders are required. Classify them with the same flags and "
            "the policy's run as --classes, or calibrate a policy on a run like this one."
        )


def refuse_true_labels(field: str | None) -> None:
    """Requires thresholds that do not go by the right answer.

    Raises:
        UsageError: They do.
    """
    if field == LABEL:
        raise UsageError(
            f"--per-group {LABEL} is the right class itself, which a new picture does not have; a "
            f"field that is known before the class is required. Use {PREDICTED_CLASS}, the class "
            "that is named, or leave it out."
        )


def _encoder_named(spec: str) -> tuple[str, str | None]:
    """A spec without the encoder in brackets behind it, and the encoder."""
    found = re.fullmatch(r"(.+)\[(.+)\]", spec)
    return (spec, None) if found is None else (found[1], found[2])


def _of_encoder(drawn: Sequence[Drawn], name: str, encoder: str | None, seen: Embedded) -> Drawn:
    """The score as the named encoder has it.

    Raises:
        UsageError: There are several encoders and none is named, or another is.
    """
    by_encoder: dict[Any, Drawn] = {one.spec.get("auxiliary_encoder"): one for one in drawn}
    if encoder is None and len(drawn) == 1:
        return drawn[0]
    if encoder in by_encoder:
        return by_encoder[encoder]
    has = ", ".join(str(name) for name in by_encoder if name is not None) or "none"
    found = "names no encoder" if encoder is None else f"names the encoder {encoder!r}"
    raise UsageError(
        f"-e {name} {found}, and of those that it reads {seen.store.path} has: {has}; one of them "
        f"is required, or no name where it reads none. Write for example '{name}[dinov2-base]'."
    )


def _shots(draws: SupportDraws) -> tuple[int, int]:
    """Fewest and most pictures of a class in the first draw."""
    labels = draws.pictures.labels[draws.rows[0]]
    counts: Int[np.ndarray, " c"] = np.bincount(labels, minlength=len(draws.pictures.texts.classes))
    return int(counts.min()), int(counts.max())
