"""A trust policy as the server's judge of answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline.core.errors import UsageError
from sightline.core.features import AUDITED, Feature
from sightline.core.protocols import Estimator, Request
from sightline.core.types import Record
from sightline.data.images import DECODE_POLICY
from sightline.data.prompts import PromptStyle
from sightline.estimators import parse_estimator
from sightline.models.openai.capabilities import Capabilities
from sightline.models.openai.settings import PREFIX, WORDS
from sightline.serving.forwarding import Served
from sightline.serving.identity import Identity, require_endpoint
from sightline.serving.proxy import SHOWN
from sightline.serving.trust import Judgement
from sightline.workflow.policy.decision import Decision
from sightline.workflow.policy.deriving import KINDS, Deriver, load_deriver
from sightline.workflow.policy.saved import POLICY, load_policy
from sightline.workflow.policy.trust import TrustPolicy

NOT_SERVED = frozenset(
    {
        Feature.QUESTION_TYPE,
        Feature.CONDITIONS,
        Feature.NOISED_LOGPROBS,
        *AUDITED,
        Feature.NEGATIONS,
        Feature.ROTATIONS,
        Feature.MODELS,
        Feature.VIEW_EMBEDDINGS,
        Feature.VIEW_ENTAILMENT,
        Feature.VIEW_CONTRADICTION,
        Feature.RECORDED_CONFIDENCE,
    }
)
"""Signals that one request to one model does not show."""

_NAMES = ("name", "model", "served_model")


@dataclass(frozen=True, slots=True)
class PolicyJudge:
    """Judges answers by a policy.

    Attributes:
        policy: The policy.
        digest: SHA-256 of its file, shortened.
        requests: What to observe, stage by stage.
        deriver: Computes what the policy reads of an answer's texts; None where it reads none.
    """

    policy: TrustPolicy
    digest: str
    requests: tuple[Request, ...]
    deriver: Deriver | None = None

    @property
    def calibrator(self) -> str:
        """The stages and the policy's digest."""
        names = "+".join(stage.name for stage in self.policy.stages)
        return f"{names}@sha256:{self.digest}"

    @property
    def per_group(self) -> str | None:
        """Field of the example that the policy's thresholds go by, or None."""
        return self.policy.evidence.target.per_group

    def judge(self, records: Sequence[Record]) -> list[Judgement]:
        """The policy's decision on each record."""
        whole = records if self.deriver is None else self.deriver(records)
        return [_judgement(decision, self.per_group) for decision in self.policy.decide(whole)]

    def describe(self) -> dict[str, Any]:
        """Target, guarantee and reliability diagram of the policy, JSON-serialisable."""
        evidence = self.policy.evidence
        return {
            "digest": self.digest,
            "estimators": [stage.name for stage in self.policy.stages],
            "risk": evidence.target.risk,
            "coverage": evidence.target.coverage,
            "delta": evidence.target.delta,
            "thresholds": {name or "all": t for name, t in self.policy.thresholds.items()},
            "certified": evidence.met,
            "labelled": evidence.certified_on.rows,
            "unit": evidence.target.unit,
            "units": sum(promise.units for promise in evidence.promises),
            "per_group": evidence.target.per_group,
            "sets_level": None if self.policy.sets is None else self.policy.sets.conformal.level,
            "auroc": evidence.auroc.value,
            "ece": evidence.ece,
            "reliability": [
                {
                    "low": one.low,
                    "high": one.high,
                    "confidence": one.confidence,
                    "accuracy": one.accuracy.value,
                    "accuracy_low": one.accuracy.low,
                    "accuracy_high": one.accuracy.high,
                    "n": one.n,
                }
                for one in evidence.reliability
            ],
        }


def read_policy(path: Path) -> tuple[TrustPolicy, str]:
    """Loads a policy and the digest of its file.

    Raises:
        DataError: There is none, or it is of another format.
        CorruptStoreError: It is damaged.
        UsageError: It is for a classifier's pictures, or reads signals that a server cannot
            observe.
    """
    policy = load_policy(path)
    policy.require_questions("'sightline serve'")
    missing = sorted(feature.value for feature in policy.needs & NOT_SERVED)
    if missing:
        raise UsageError(
            f"The policy {path} reads {', '.join(missing)}; signals that one request shows are "
            "required to serve it. Calibrate a policy on other estimators."
        )
    digest = hashlib.sha256((path / POLICY).read_bytes()).hexdigest()[:16]
    return policy, digest


def require_raw_scores(specs: Sequence[str], *, upstream: bool) -> None:
    """Requires estimators whose raw scores a server without a policy can show.

    Args:
        specs: Specs of estimators.
        upstream: Whether the answers are an endpoint's.

    Raises:
        UsageError: There is no such estimator, it must be fitted first, or it reads signals that
            one request does not show.
    """
    for spec in specs:
        estimator = parse_estimator(spec)
        if not isinstance(estimator, Estimator):
            raise UsageError(
                f"--estimator {spec} learns from labelled answers; one that needs none is required "
                "without a policy. Run 'sightline calibrate' and add --policy."
            )
        shown = SHOWN if upstream else frozenset(Feature) - NOT_SERVED
        missing = sorted(feature.value for feature in estimator.needs - shown)
        if missing:
            raise UsageError(
                f"--estimator {spec} reads {', '.join(missing)}; signals that one request shows "
                "are required. Choose another, for example sequence_probability."
            )


def saved_judge(path: Path, text_models: Path | None = None) -> PolicyJudge:
    """A policy as a judge, all checked that does not take the model.

    Args:
        path: The policy's directory.
        text_models: Directory of the local text models that computed the policy's derived signals.

    Raises:
        UsageError: The policy was fitted on recorded answers, on images decoded otherwise, or
            reads signals that one request does not show.
        DataError: There is no policy.
        CorruptStoreError: It is damaged.
    """
    policy, digest = read_policy(path)
    request = policy.request
    origin = policy.evidence.origin
    if request is None or origin is None:
        raise _recorded(path)
    if origin.decode_policy != DECODE_POLICY:
        raise UsageError(
            f"The policy {path} was fitted on pictures decoded as {origin.decode_policy!r}; "
            f"{DECODE_POLICY!r} is required. Calibrate a policy with this version."
        )
    deriver = load_deriver(policy.needs, origin.derived, text_models)
    return PolicyJudge(policy, digest, _stages(policy, request), deriver)


def upstream_judge(
    path: Path, name: str, url: str, key: str | None = None, text_models: Path | None = None
) -> tuple[PolicyJudge, Served]:
    """The judge of an endpoint's answers, and what the endpoint is known by.

    The endpoint is examined, and compared with the one that the policy's run was collected from;
    one that cannot be asked now is examined later (see `sightline.serving.identity`).

    Args:
        path: The policy's directory.
        name: What the endpoint calls the model.
        url: The endpoint's base URL.
        key: Its bearer key, or None.
        text_models: As for `saved_judge`.

    Raises:
        UsageError: The policy was fitted on another model, on one served otherwise, on recorded
            answers, or reads signals that endpoints do not show.
        DataError: There is no policy.
        CorruptStoreError: It is damaged.
    """
    policy, digest = read_policy(path)
    request, origin = policy.request, policy.evidence.origin
    if request is None or origin is None:
        raise _recorded(path)
    missing = sorted(feature.value for feature in policy.needs - SHOWN - KINDS.keys())
    if missing:
        raise UsageError(
            f"The policy {path} reads {', '.join(missing)}, which an endpoint does not show; "
            "token log-probabilities or samples are required there. Calibrate a policy on such "
            "estimators, or serve the model itself."
        )
    said = [value for field, value in origin.model.items() if field in _NAMES]
    names = frozenset(str(value).removeprefix(PREFIX) for value in said if value)
    if name not in names:
        raise UsageError(
            f"The policy {path} was fitted on {', '.join(sorted(names)) or 'an unnamed model'} and "
            f"the upstream's model is {name}; the same model is required. Calibrate a policy on "
            "its answers."
        )
    require_endpoint(policy, path)
    deriver = load_deriver(policy.needs, origin.derived, text_models)
    identity = Identity(policy, name, url, key)
    identity.check()
    capabilities = Capabilities.from_dict(origin.model["capabilities"])
    own = capabilities.answers_as
    style = PromptStyle.from_dict(origin.model.get("prompt_style", {}))
    served = Served(
        name=name,
        models=names if own is None else frozenset({own}),
        style=style,
        words=origin.model.get(WORDS) == style.to_dict(),
        capabilities=capabilities,
        identity=identity,
        unlike=origin.unlike,
    )
    return PolicyJudge(policy, digest, _stages(policy, request), deriver), served


def _stages(policy: TrustPolicy, request: Request) -> tuple[Request, ...]:
    """What to observe, stage by stage."""
    stages = range(len(policy.stages))
    return tuple(dict.fromkeys(policy.observed_by(request, stage) for stage in stages))


def _recorded(path: Path) -> UsageError:
    return UsageError(
        f"The policy {path} was fitted on answers that another tool recorded; answers of this "
        "model are required to serve it. Run 'sightline collect' and 'sightline calibrate'."
    )


def _judgement(decision: Decision, per_group: str | None) -> Judgement:
    scored, reason = decision.confidence is not None, decision.reason
    if scored and per_group is not None and decision.category is None:
        reason += "; name it in trust.category"
    return Judgement(
        confidence=decision.confidence,
        raw_score=decision.uncertainty,
        abstain=not decision.accepted,
        threshold=decision.threshold,
        signals=dict(decision.signals),
        warnings=() if scored else (reason,),
        reason=reason,
        prediction_set=decision.prediction_set,
        category=decision.category,
        undecided=bool(decision.pending),
    )
