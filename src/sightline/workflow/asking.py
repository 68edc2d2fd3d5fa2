"""Asking a model one question about pictures: its answer, and whether to trust it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.condition_names import CLEAN
from sightline.core.errors import UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Estimator, Request, VisionLanguageModel
from sightline.core.records import link
from sightline.core.types import Example, ImageRef, Record
from sightline.data.images import DECODE_POLICY, hash_image_file, load_image
from sightline.estimators.choice import ChoiceMaxProbability
from sightline.estimators.likelihood import Perplexity, SequenceProbability, TokenEntropy
from sightline.workflow.explaining import Explanation, explain
from sightline.workflow.policy import Decision, TrustPolicy
from sightline.workflow.policy.categories import in_category
from sightline.workflow.policy.deriving import load_deriver
from sightline.workflow.requests import answerable, request_of
from sightline.workflow.scoring import settled

if TYPE_CHECKING:
    from PIL.Image import Image

RAW: Mapping[str, Estimator] = {
    "sequence_probability": SequenceProbability(),
    "perplexity": Perplexity(),
    "mean_token_entropy": TokenEntropy(over="mean"),
    "choice_max_probability": ChoiceMaxProbability(),
    "option_max_probability": ChoiceMaxProbability(scores="options"),
}
"""Scores shown where there is no policy: all that one greedy answer and its options give."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered, and what is known of it.

    Attributes:
        text: The greedy answer, as the model gave it: untrusted.
        decision: What the policy says; None without one.
        scores: Raw uncertainty by estimator, higher = worse, where there is no policy; these are
            no probabilities of being right.
        record: Everything that was observed.
        explanation: What moves the answer; None where it was not asked for.
    """

    text: str
    decision: Decision | None
    scores: Mapping[str, float]
    record: Record
    explanation: Explanation | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return {
            "answer": self.text,
            "confidence": None if self.decision is None else self.decision.confidence,
            "accepted": None if self.decision is None else self.decision.accepted,
            "decision": None if self.decision is None else self.decision.to_dict(),
            "scores": dict(self.scores),
            "explanation": None if self.explanation is None else self.explanation.to_dict(),
        }


def ask(
    model: VisionLanguageModel,
    images: Sequence[str | Path],
    question: str,
    *,
    policy: TrustPolicy | None = None,
    choices: Sequence[str] | None = None,
    question_type: str | None = None,
    category: str | None = None,
    explained: bool = False,
    text_models: Path | None = None,
) -> Answer:
    """Asks a question about pictures and decides about the answer.

    A cascade's later signals are observed only where the earlier ones leave the answer undecided.

    Args:
        model: The model; with a policy, the one that the policy was fitted on.
        images: Files, in the order the question refers to them.
        question: The question, without an instruction how to answer.
        policy: Decides; None shows raw scores.
        choices: Option texts for multiple choice.
        question_type: For a policy whose thresholds or estimators go by it.
        category: Value of the field that the policy's thresholds go by, whichever that is.
        explained: Also observe what moves the answer: several more passes and answers.
        text_models: Directory of the local text models that computed the policy's derived signals.

    Raises:
        UsageError: No picture or question, or the policy is of another model or cannot be asked
            with.
        ImageError: A picture cannot be read.
        ModelError: The model failed.
    """
    require_askable(images, question, policy)
    example = _categorised(_example(images, question, choices, question_type), policy, category)
    pictures = tuple(load_image(ref, Path("/")) for ref in example.images)
    if policy is None:
        record = _observed(model, example, pictures, _raw_request())
        decision, scores = None, _raw_scores(record)
    else:
        record, decision = _decided(model, example, pictures, policy, text_models)
        scores = {}
    explanation = None
    if explained:
        length = _asked_length(policy)
        explanation = explain(model, record, pictures, max_new_tokens=length)
    return Answer(record.answer.text, decision, scores, record, explanation)


def require_askable(
    images: Sequence[str | Path], question: str, policy: TrustPolicy | None = None
) -> None:
    """Requires what can be told without the model, so that nobody waits for one in vain.

    Args:
        images: Files, in the order the question refers to them.
        question: The question.
        policy: Decides; None shows raw scores.

    Raises:
        UsageError: No picture or question, or the policy is not one of answers to questions.
        ImageError: A picture cannot be read.
    """
    if not images:
        raise UsageError(
            "No picture; at least one, and a question, are required. Write: sightline ask "
            "photo.jpg 'What is it?'."
        )
    if not question.strip():
        raise UsageError(
            f"The question {question[:40]!r} has no visible character; a question is required. "
            "Write: sightline ask photo.jpg 'What is it?'."
        )
    if policy is not None:
        policy.require_questions("'sightline ask'")
    for image in images:
        path = Path(image).resolve()
        load_image(ImageRef(str(path), hash_image_file(path)), Path("/"))


def question_id(question: str, hashes: Sequence[str], choices: Sequence[str] | None) -> str:
    """The id of a question that belongs to no data set, and so where its samples are drawn from.

    Args:
        question: Its text.
        hashes: SHA-256 of each of its images' bytes.
        choices: Options that are shown to the model, or None for a free answer.
    """
    said = json.dumps([question, list(hashes), choices and list(choices)]).encode()
    return hashlib.sha256(said).hexdigest()[:32]


def _example(
    images: Sequence[str | Path],
    question: str,
    choices: Sequence[str] | None,
    question_type: str | None,
) -> Example:
    refs = []
    for image in images:
        path = Path(image).resolve()
        refs.append(ImageRef(str(path), hash_image_file(path)))
    return Example(
        question_id(question, [ref.sha256 for ref in refs], choices),
        question,
        images=tuple(refs),
        choices=None if choices is None else tuple(choices),
        question_type=question_type,
    )


def _categorised(example: Example, policy: TrustPolicy | None, category: str | None) -> Example:
    if category is None:
        return example
    field = None if policy is None else policy.evidence.target.per_group
    if field is None:
        raise UsageError(
            f"Category {category[:40]!r}, and no threshold goes by one; a policy of 'sightline "
            "calibrate --per-group FIELD' is required. Leave the category out."
        )
    return in_category(example, field, category)


def _decided(
    model: VisionLanguageModel,
    example: Example,
    pictures: tuple[Image, ...],
    policy: TrustPolicy,
    text_models: Path | None,
) -> tuple[Record, Decision]:
    """Observes stage by stage until the policy has settled the answer."""
    policy.check_model(model.fingerprint())
    request = policy.request
    origin = policy.evidence.origin
    if request is None or origin is None:
        raise UsageError(
            "The policy was fitted on answers that another tool recorded, so how to ask the model "
            "as it was asked is not known; a policy calibrated on a collected run is required. "
            "Collect labelled answers of this model and calibrate on them."
        )
    if origin.decode_policy != DECODE_POLICY:
        raise UsageError(
            f"The policy was fitted on pictures decoded by {origin.decode_policy!r} and this "
            f"version decodes by {DECODE_POLICY!r}; the same are required. Collect and calibrate "
            "again."
        )
    deriver = load_deriver(policy.needs, origin.derived, text_models)
    stage = 0
    while True:
        needed = policy.observed_by(request, stage)
        record = _observed(model, example, pictures, needed)
        if deriver is not None:
            (record,) = deriver([record])
        (decision,) = policy.decide([record])
        stage += 1
        if not decision.pending or stage == len(policy.stages):
            return record, decision


def _observed(
    model: VisionLanguageModel, example: Example, pictures: tuple[Image, ...], request: Request
) -> Record:
    request, _ = answerable(request, model)
    return link(model.observe([example], [pictures], request), condition=CLEAN)[0]


def _raw_request() -> Request:
    needs = frozenset[Feature]().union(*(estimator.needs for estimator in RAW.values()))
    return request_of(needs, Request(top_k_logprobs=0))


def _raw_scores(record: Record) -> dict[str, float]:
    return {
        name: float(settled(estimator.uncertainty([record]))[0])
        for name, estimator in RAW.items()
        if not record.missing(estimator.needs)
    }


def _asked_length(policy: TrustPolicy | None) -> int:
    request = None if policy is None else policy.request
    return (request or Request()).max_new_tokens
