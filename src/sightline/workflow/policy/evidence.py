"""What a policy was fitted on, what it promises, and how that was shown; kept as JSON."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from sightline.calibration.risk_control import Guarantee, Method, Unit, smallest_accepted
from sightline.core.errors import UsageError
from sightline.core.estimates import Estimate
from sightline.core.results import Curve, ReliabilityBin, Skipped

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Share = Annotated[float, Field(ge=0, le=1)]
Rows = Annotated[int, Field(ge=0)]

FEW_GROUPS = 20
"""Groups with right, and with wrong answers, from which a fit of two parameters is trusted: ten for
each (Peduzzi et al. 1996)."""


@dataclass(frozen=True, config=_STRICT)
class Target:
    """What a policy is to promise: a risk, or a coverage.

    Attributes:
        risk: Largest error rate among accepted answers; None where a coverage is the target.
        coverage: Share of answers to accept; the error rate among them is then bounded from above.
        delta: Chance, over the draw of the labelled answers, that the promise does not hold.
        method: How errors over all tested thresholds are held at delta.
        unit: What is taken to be independent.
        per_group: Field of the example (question_type or an entry of meta) whose every value gets
            a threshold and a promise of its own; None for one threshold.
    """

    risk: float | None = 0.05
    coverage: float | None = None
    delta: float = 0.05
    method: Method = "fixed_sequence"
    unit: Unit = "one_per_group"
    per_group: str | None = None

    def __post_init__(self) -> None:
        if (self.risk is None) == (self.coverage is None):
            raise UsageError(
                f"Risk {self.risk} and coverage {self.coverage}; exactly one of them is the "
                "target. Leave one out."
            )
        for name, value in (("Risk", self.risk), ("Delta", self.delta)):
            if value is not None and not 0 < value < 1:
                raise UsageError(
                    f"{name} {value:g}; a share above 0 and below 1 is required, since no number "
                    "of labels shows that an error never happens. For example 0.05."
                )
        if self.coverage is not None and not 0 < self.coverage <= 1:
            raise UsageError(
                f"Coverage {self.coverage:g}; a share above 0, at most 1, is required. "
                "For example 0.8."
            )

    def smallest(self, tests: int = 1) -> int | None:
        """Accepted units, all of them right, that could certify the risk at all.

        Args:
            tests: Thresholds that are tested; they share delta by Bonferroni's method.

        Returns:
            At least 1; None with a coverage as target.
        """
        if self.risk is None:
            return None
        each = self.delta / tests if self.method == "bonferroni" else self.delta
        return smallest_accepted(self.risk, each, self.unit)


@dataclass(frozen=True, config=_STRICT)
class Part:
    """Rows and groups of one split.

    Attributes:
        rows: Answers.
        groups: Their groups.
        right_groups: Groups with an answer that is right; None in policies of older versions.
        wrong_groups: The same of wrong ones.
    """

    rows: Rows
    groups: Rows
    right_groups: Rows | None = None
    wrong_groups: Rows | None = None

    @property
    def few(self) -> str | None:
        """Which groups are too few to fit on, in words; None where enough, or none, were used."""
        sizes = {"wrong": self.wrong_groups, "right": self.right_groups}
        known = {kind: n for kind, n in sizes.items() if n is not None}
        if not self.rows or not known:
            return None
        kind = min(known, key=lambda name: known[name])
        n = known[kind]
        if n >= FEW_GROUPS:
            return None
        return f"{f'only {n}' if n else 'no'} group{'' if n == 1 else 's'} with {kind} answers"


@dataclass(frozen=True, config=_STRICT)
class Achieved:
    """How a policy does on labelled answers.

    Attributes:
        rows: Answers.
        groups: Their groups.
        coverage: Share accepted, with its interval.
        risk: Error rate among the accepted, with its interval; None where none was accepted.
        accuracy: Share right among all.
        group_risk: Error rate among the accepted where every group counts once, whatever its size:
            what a promise bounds whose unit are groups, or one row of each. None in policies of
            older versions.
        set_coverage: Share of prediction sets that hold the right option.
        set_size: Mean options in a set.
    """

    rows: Rows
    groups: Rows
    coverage: Estimate
    risk: Estimate
    accuracy: Estimate
    group_risk: Estimate | None = None
    set_coverage: Estimate | None = None
    set_size: float | None = None


@dataclass(frozen=True, config=_STRICT)
class SetsFit:
    """How far prediction sets can be relied on, by the rows they were fitted on.

    Attributes:
        coverage: How often they hold the right option: the mean over fits on n groups, one row of
            each, and the interval that 95 % of such fits lie in; more where scores
            tie, or the likeliest answer alone is beyond the quantile and in the set all the same.
        size: Mean options in a set, over all rows with scored options of the part fitted on.
        options: Mean options of these rows.
    """

    coverage: Estimate
    size: float
    options: float


@dataclass(frozen=True, config=_STRICT)
class Promise:
    """One threshold, what is certified of it, and what was seen on the rows it was chosen on.

    Attributes:
        category: Which answers it is for; None for all.
        guarantee: The tests; with a coverage as target one test, whose risk is the bound.
        smallest: Accepted units, all of them right, that could certify the risk at all; None with
            a coverage as target.
        units: Independent units on the threshold split.
        achieved: On the rows that the threshold was chosen on.
        why_not: Why nothing is certified, in words; None where something is.
    """

    category: str | None
    guarantee: Guarantee
    smallest: int | None
    units: Rows
    achieved: Achieved
    why_not: str | None

    def __post_init__(self) -> None:
        found = self.guarantee
        if found.threshold is not None and not 0 <= found.threshold <= 1:
            raise ValueError(f"threshold {found.threshold}; a confidence is required")
        if not (0 < found.risk <= 1 and 0 < found.delta < 1):
            raise ValueError(f"risk {found.risk} at delta {found.delta}; shares are required")


@dataclass(frozen=True, config=_STRICT)
class LastTenth:
    """What the last tenth of a cascade's cost buys, on rows that had no part in choosing bands.

    Attributes:
        cost_before: Mean cost of an answer with the best bands for nine tenths of the cost.
        cost_after: With the chosen bands.
        risk_before: Error rate at the coverage aimed at, before.
        risk_after: The same after.
        change: After less before, with its interval over resampled groups.
    """

    cost_before: float
    cost_after: float
    risk_before: Share
    risk_after: Share
    change: Estimate


@dataclass(frozen=True, config=_STRICT)
class Routing:
    """How a cascade spends and what that buys, on the threshold split.

    Cost is per answer, beyond its greedy generation: extra passes over the image and extra
    generated answers, which count alike.

    Attributes:
        settled: Share of answers that each stage settles.
        cost: Mean cost of an answer.
        full_cost: The same if every stage looked at every answer.
        budget: What the mean cost was held to on the planning rows.
        coverage: Coverage at which error rates are compared.
        frontier: Error rate there (y) against mean cost (x), as the budget grows.
        alone: Error rate (y) and cost (x) of each stage on all answers, signals of the stages
            before it paid.
        last_tenth: What the last tenth of the cost buys; None where nothing is spent.
    """

    settled: tuple[Share, ...]
    cost: float
    full_cost: float
    budget: float
    coverage: Share
    frontier: Curve
    alone: Curve
    last_tenth: LastTenth | None


@dataclass(frozen=True, config=_STRICT)
class ClassifierOrigin:
    """What a classifier's policy was fitted with, beside the labelled pictures.

    Attributes:
        classes: Number of classes; their names lie with the fitted score.
        templates: Prompt templates of their texts.
        encoders: Names of the auxiliary encoders of the run.
        support: Run whose support pictures the score learned from; None where it learns from none.
        shots: Fewest and most support pictures of a class.
        pictures: Support pictures: those of the first draw.
    """

    classes: Rows
    templates: tuple[str, ...]
    encoders: tuple[str, ...]
    support: str | None = None
    shots: tuple[int, int] = (0, 0)
    pictures: Rows = 0


@dataclass(frozen=True, config=_STRICT)
class Origin:
    """What a policy was fitted on.

    Attributes:
        run: Name of the run's directory.
        run_hash: Hash of what fixed the run's results.
        model: The model's fingerprint.
        request: How the model was asked, as far as the policy's signals depend on it; None for
            answers that were recorded by another tool.
        decode_policy: How pictures were decoded; None likewise.
        dataset: Name of the dataset.
        grader: Spec of what decided correctness.
        correct_from: Correctness from which an answer counts as right.
        condition: Condition of the judged answers.
        split: How rows were split: seed and fractions, or that the split was given.
        content: Hashes of every question within its group and of every image it has seen.
        sightline_version: Version that fitted it.
        derived: What computed the signals that were derived from the stored answers, by kind of
            derivation; only those that the policy reads.
        classifier: Of a policy for a classifier's pictures; None for a model's answers.
        pictures: Fewest and most pictures of a labelled question; None for a classifier, for
            answers that another tool recorded, and where an older version fitted the policy.
    """

    run: str
    run_hash: str
    model: dict[str, Any]
    request: dict[str, Any] | None
    decode_policy: Any
    dataset: str
    grader: dict[str, Any]
    correct_from: float
    condition: str
    split: dict[str, Any]
    content: tuple[str, ...]
    sightline_version: str
    derived: dict[str, dict[str, Any]] = field(default_factory=dict)
    classifier: ClassifierOrigin | None = None
    pictures: tuple[Rows, Rows] | None = None

    def unlike(self, pictures: int) -> str | None:
        """Why a question with so many pictures is unlike the labelled ones; None where it is not.

        What was learned from questions about a picture says nothing of a guess without one.
        """
        if self.pictures is None or self.pictures[0] <= pictures <= self.pictures[1]:
            return None
        fewest, most = self.pictures
        had = f"{most}" if fewest == most else f"{fewest} to {most}"
        return f"number of pictures is {pictures}: the policy was fitted on questions with {had}"


@dataclass(frozen=True, config=_STRICT)
class Evidence:
    """Everything that is known of a policy beyond how it decides.

    Attributes:
        target: What was asked for.
        fitted_on: Rows that estimators which learn were fitted on.
        calibrated_on: Rows that calibrations were fitted on and thresholds planned on.
        certified_on: Rows that thresholds were tested on; nothing else saw them.
        skipped: Rows without a score, by reason; they are never accepted.
        calibration: ``fitted``, or ``base rate`` where the score carries no signal.
        promises: One per category, or one.
        reliability: Bins of confidence on the threshold split, with accuracy and its interval.
        auroc: Of the confidence on the threshold split.
        ece: Expected calibration error there, in 10 bins of equal width.
        routing: Of a cascade.
        sets: Of prediction sets; None where there are none, or an older version fitted them.
        tested: On groups held out from everything above; None where there are none.
        origin: What it was fitted on; None for a policy fitted on records alone.
    """

    target: Target
    fitted_on: Part
    calibrated_on: Part
    certified_on: Part
    skipped: tuple[Skipped, ...]
    calibration: str
    promises: tuple[Promise, ...]
    reliability: tuple[ReliabilityBin, ...]
    auroc: Estimate
    ece: float | None
    routing: Routing | None = None
    sets: SetsFit | None = None
    tested: Achieved | None = None
    origin: Origin | None = None

    def __post_init__(self) -> None:
        names = [promise.category for promise in self.promises]
        single = self.target.per_group is None
        if not names or len(set(names)) < len(names) or (None in names) != single:
            raise ValueError(f"promises for {names}; one for all or one a category is required")

    @property
    def met(self) -> bool:
        """Whether anything is certified at all."""
        return any(promise.guarantee.threshold is not None for promise in self.promises)
