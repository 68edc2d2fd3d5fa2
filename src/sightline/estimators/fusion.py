"""Fusion: a calibrated stack over other estimators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int

from sightline.core.errors import UnscorableError, UsageError
from sightline.core.features import AUDITED, FOLLOW_UPS, Feature
from sightline.core.protocols import Cost, Estimator, FittedEstimator, LearnedEstimator
from sightline.core.types import Record
from sightline.estimators.learning import (
    Labelled,
    fit_logistic,
    grouped_folds,
    labelled,
    standardiser,
    wrong_probability,
)
from sightline.estimators.signals import require
from sightline.estimators.states import layers_read

AnyEstimator = Estimator | LearnedEstimator

FOLDS = 5
"""Folds in which members that learn are fitted on the other rows."""

LEAST_PROBABILITY = 1e-12
"""Probabilities are held this far from 0 and 1 before their log-odds are taken."""

_OBSERVED_APART = frozenset(
    {
        Feature.SAMPLES,
        Feature.CONDITIONS,
        Feature.NEGATIONS,
        Feature.ROTATIONS,
        Feature.MODELS,
        Feature.BLANK_ANSWER,
        Feature.BLANK_LOGPROBS,
        Feature.BLANK_OPTION_LOGPROBS,
        Feature.BLANK_LETTER_LOGPROBS,
        Feature.NOISED_LOGPROBS,
        *AUDITED,
        *FOLLOW_UPS,
    }
)


@dataclass(frozen=True, slots=True)
class Fusion:
    """Logistic regression over the scores of other estimators.

    A member that is a probability gives its log-odds, any other its score; both are standardised
    on the training rows. A member that learns is scored on rows that it was not fitted on (five
    folds that keep groups together), and fitted on all rows for use.

    Attributes:
        members: Names of estimators joined by +; a member's own settings follow it, each after an
            @ (linear_probe@at=prompt_end).
        interactions: Add the product of every two members.

    Source: stacked generalisation, Wolpert (Neural Networks 1992).
    """

    members: str = "sequence_probability+sample_agreement+linear_probe"
    interactions: bool = False

    family: ClassVar[str] = "fusion"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    def __post_init__(self) -> None:
        names = self.members.split("+")
        if len(set(names)) < max(2, len(names)):
            raise UsageError(
                f"Fusion of {self.members!r}; at least 2 different members joined by + are "
                "required. For example sequence_probability+linear_probe."
            )

    @property
    def needs(self) -> frozenset[Feature]:
        """What the members need, all of it."""
        return _needs(self._estimators())

    @property
    def slow(self) -> bool:
        """Whether a member is; it is fitted six times."""
        return any(isinstance(e, LearnedEstimator) and e.slow for e in self._estimators())

    def fit(
        self,
        records: Sequence[Record],
        correct: Float[np.ndarray, " n"],
        *,
        rng: np.random.Generator,
    ) -> FittedFusion:
        """Returns the fitted stack; ``rng`` deals groups to folds and is handed to the members.

        Raises:
            DataError: All answers are right or all wrong, right or wrong ones are in one group
                only, or the rows are too few for a member.
            UnscorableError: A member cannot score or be fitted on a record.
            MissingExtraError: scikit-learn, or what a member requires, is not installed.
        """
        rows = labelled(records, correct, self.needs, self)
        estimators = self._estimators()
        fold = grouped_folds(rows, FOLDS, rng, self)
        members, columns = [], []
        try:
            for estimator in estimators:
                member, scores = _member(estimator, rows, fold, rng)
                members.append(member)
                columns.append(_trust(member, scores))
        except UnscorableError as error:
            given = sorted(int(rows.order[row]) for row in error.rows)
            raise UnscorableError(given, error.reason, "Leave these records out.") from error
        trust = np.column_stack(columns)
        mean, scale = standardiser(trust)
        features = _crossed((trust - mean) / scale, interactions=self.interactions)
        weights, bias = fit_logistic(features, rows.correct, 1.0)
        return FittedFusion(
            tuple(members), tuple(_spec(e) for e in estimators), mean, scale, weights, bias
        )

    def cost(self, records: Sequence[Record]) -> Cost:
        """Of the members, those that read the same extra observations counted once."""
        return joint_cost(self._estimators(), records)

    def _estimators(self) -> list[AnyEstimator]:
        from sightline.estimators import parse_estimator

        found = [parse_estimator(name.replace("@", ":")) for name in self.members.split("+")]
        if any(isinstance(estimator, Fusion) for estimator in found):
            raise UsageError(
                f"Fusion of {self.members!r}; a fusion cannot be a member of another. "
                "Name its members instead."
            )
        return found


@dataclass(frozen=True, slots=True, eq=False)
class FittedFusion:
    """A fitted stack.

    Attributes:
        members: Estimators, fitted where they learn.
        specs: Name and settings of each member in the table.
        mean: Of each member's score, before standardising.
        scale: Standard deviation of each member's score.
        weights: Of the standardised scores, then of their products in pairs if there are more.
        bias: Intercept of the log-odds of being right.
    """

    members: tuple[Estimator, ...]
    specs: tuple[Mapping[str, Any], ...]
    mean: Float[np.ndarray, " k"]
    scale: Float[np.ndarray, " k"]
    weights: Float[np.ndarray, " f"]
    bias: float

    family: ClassVar[str] = "fusion"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[Feature]:
        """What the members need, all of it."""
        return _needs(self.members)

    @property
    def layers(self) -> tuple[int, ...] | None:
        """Those that the members read; None where one does not say."""
        return layers_read(self.members)

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Probability of being wrong, in [0, 1].

        Raises:
            UnscorableError: A member cannot score a record.
        """
        require(records, self.needs, self)
        trust = np.array([_trust(m, m.uncertainty(records)) for m in self.members]).T
        interactions = len(self.weights) > len(self.members)
        features = _crossed((trust - self.mean) / self.scale, interactions=interactions)
        return wrong_probability((features * self.weights).sum(axis=1) + self.bias)

    def cost(self, records: Sequence[Record]) -> Cost:
        """Of the members, those that read the same extra observations counted once."""
        return joint_cost(self.members, records)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The members with their own states, and the regression."""
        arrays = {"mean": self.mean, "scale": self.scale, "weights": self.weights}
        members: list[dict[str, Any]] = []
        for index, (member, spec) in enumerate(zip(self.members, self.specs, strict=True)):
            if isinstance(member, FittedEstimator):
                settings, own = member.state()
                members.append(
                    {"spec": dict(spec), "class": type(member).__name__, "settings": settings}
                )
                arrays |= {f"{index}.{name}": array for name, array in own.items()}
            else:
                members.append({"spec": dict(spec)})
        return {"members": members, "bias": self.bias}, arrays

    @classmethod
    def from_state(
        cls, settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> FittedFusion:
        """Rebuilds what `state` wrote."""
        from sightline.estimators import FITTED, from_spec

        members: list[Estimator] = []
        for index, member in enumerate(settings["members"]):
            if "class" in member:
                prefix = f"{index}."
                own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
                members.append(FITTED[member["class"]].from_state(member["settings"], own))
            else:
                known = from_spec(member["spec"])
                if isinstance(known, LearnedEstimator):
                    raise ValueError(f"{member['spec']['name']} is not fitted")
                members.append(known)
        return cls(
            tuple(members),
            tuple(member["spec"] for member in settings["members"]),
            arrays["mean"],
            arrays["scale"],
            arrays["weights"],
            float(settings["bias"]),
        )


def _member(
    estimator: AnyEstimator, rows: Labelled, fold: Int[np.ndarray, " n"], rng: np.random.Generator
) -> tuple[Estimator, Float[np.ndarray, " n"]]:
    """The member as it will be used, and scores of rows that it was not fitted on."""
    if not isinstance(estimator, LearnedEstimator):
        return estimator, estimator.uncertainty(rows.records)
    scores = np.empty(len(fold))
    for held in range(fold.max() + 1):
        inside = np.flatnonzero(fold == held)
        apart = _fit(estimator, rows, np.flatnonzero(fold != held), rng)
        with _rows_of(inside):
            scores[inside] = apart.uncertainty([rows.records[i] for i in inside])
    return _fit(estimator, rows, np.arange(len(fold)), rng), scores


def _fit(
    estimator: LearnedEstimator,
    rows: Labelled,
    chosen: Int[np.ndarray, " k"],
    rng: np.random.Generator,
) -> FittedEstimator:
    with _rows_of(chosen):
        return estimator.fit([rows.records[i] for i in chosen], rows.correct[chosen], rng=rng)


@contextmanager
def _rows_of(chosen: Int[np.ndarray, " k"]) -> Iterator[None]:
    """Names unscorable rows by their place among all rows, not among the chosen."""
    try:
        yield
    except UnscorableError as error:
        rows = [int(chosen[row]) for row in error.rows]
        raise UnscorableError(rows, error.reason, "Leave these records out.") from error


def _trust(member: Estimator, uncertainty: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Log-odds of being right of a probability, else the score with its sign turned."""
    if not member.is_probability:
        return np.asarray(-uncertainty)
    wrong = np.clip(uncertainty, LEAST_PROBABILITY, 1.0 - LEAST_PROBABILITY)
    return np.asarray(np.log1p(-wrong) - np.log(wrong))


def _crossed(scores: Float[np.ndarray, "n k"], *, interactions: bool) -> Float[np.ndarray, "n f"]:
    """The scores, and the product of every two where asked for."""
    if not interactions:
        return scores
    pairs = combinations(range(scores.shape[1]), 2)
    return np.column_stack([scores, *(scores[:, i] * scores[:, j] for i, j in pairs)])


def _needs(members: Iterable[AnyEstimator]) -> frozenset[Feature]:
    return frozenset[Feature]().union(*(member.needs for member in members))


def joint_cost(members: Iterable[AnyEstimator], records: Sequence[Record]) -> Cost:
    """What several estimators cost together, those that read the same observations counted once.

    Of those that read the same the dearest counts; one that reads less than another adds nothing.
    Everything that an audit finds of an answer is read off the same views.
    """
    apart: dict[frozenset[Feature], Cost] = {}
    for member in members:
        needs, cost = member.needs & _OBSERVED_APART, member.cost(records)
        read = needs - AUDITED | ({Feature.FLIP_RATE} if needs & AUDITED else set())
        known = apart.get(read, Cost())
        apart[read] = Cost(
            forward_passes=max(known.forward_passes, cost.forward_passes),
            generations=max(known.generations, cost.generations),
        )
    counted = [cost for read, cost in apart.items() if not any(read < other for other in apart)]
    return Cost(
        forward_passes=sum(cost.forward_passes for cost in counted),
        generations=sum(cost.generations for cost in counted),
    )


def _spec(estimator: AnyEstimator) -> dict[str, Any]:
    from sightline.estimators import spec_of

    return spec_of(estimator)
