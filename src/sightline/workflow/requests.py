"""What to ask a model for, so that named estimators can be computed."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

from sightline.core.condition_names import NOISE
from sightline.core.features import AUDITED, CHANNELS, FOLLOW_UPS, LAYERED, Feature
from sightline.core.protocols import Request, VisionLanguageModel
from sightline.core.types import Example
from sightline.data.perturbations import PERTURBATIONS
from sightline.data.prompt_forms import follow_up_names
from sightline.data.prompts import PromptStyle
from sightline.estimators import parse_estimator
from sightline.estimators.equivalence import EQUIVALENT
from sightline.models.openai import EndpointModel
from sightline.models.openai.forecasting import forecast

SAMPLED = frozenset(
    {
        Feature.SAMPLES,
        Feature.SAMPLE_LOGPROBS,
        Feature.SAMPLE_HIDDEN,
        Feature.EMBEDDINGS,
        Feature.ENTAILMENT,
        Feature.CONTRADICTION,
    }
)
LETTERS = frozenset({Feature.LETTER_LOGPROBS, Feature.BLANK_LETTER_LOGPROBS})
TOP = frozenset({Feature.TOP_LOGPROBS, Feature.TOP_TOKEN_IDS})
OPTIONS = frozenset(
    {
        Feature.OPTION_LOGPROBS,
        Feature.OPTION_LENGTHS,
        Feature.LETTER_LOGPROBS,
        Feature.BLANK_OPTION_LOGPROBS,
        Feature.BLANK_LETTER_LOGPROBS,
    }
)
STRONGEST_NOISE = f"{NOISE}:{PERTURBATIONS[NOISE].levels[-1]}"
BLANKED = frozenset(
    {
        Feature.BLANK_ANSWER,
        Feature.BLANK_LOGPROBS,
        Feature.BLANK_OPTION_LOGPROBS,
        Feature.BLANK_LETTER_LOGPROBS,
    }
)


def request_for(estimators: Sequence[str], defaults: Request) -> Request:
    """Returns the request that observes just what the named estimators need.

    Args:
        estimators: Specs of estimators.
        defaults: Settings for what is needed (number of samples, layers, …).
    """
    needs: set[Feature] = set()
    for spec in estimators:
        needs |= parse_estimator(spec).needs
    return request_of(frozenset(needs), defaults)


def request_of(needs: frozenset[Feature], defaults: Request) -> Request:
    """Returns the request that observes just these signals, and what the defaults ask on top.

    Args:
        needs: Signals to observe.
        defaults: Settings for what is needed (number of samples, layers, …).
    """
    channels = defaults.channels or bool(needs & (CHANNELS | AUDITED))
    return replace(
        defaults,
        conditions=_conditions(needs, defaults.conditions),
        n_samples=defaults.n_samples if needs & SAMPLED else 0,
        top_k_logprobs=defaults.top_k_logprobs if needs & TOP else 0,
        layers=defaults.layers if needs & LAYERED or channels else (),
        sample_hidden=Feature.SAMPLE_HIDDEN in needs,
        options=bool(needs & OPTIONS) or channels,
        blank=bool(needs & BLANKED),
        channels=channels,
        asks=tuple(
            dict.fromkeys([*defaults.asks, *(f.value for f in Feature if f in needs & FOLLOW_UPS)])
        ),
    )


def _conditions(needs: Set[Feature], asked: tuple[str, ...]) -> tuple[str, ...]:
    """Those asked for, else equivalent ones where any will do; noise on top where it is needed."""
    found = asked or (EQUIVALENT if needs & {Feature.CONDITIONS, *AUDITED} else ())
    noised = any(name.startswith(f"{NOISE}:") and "+" not in name for name in found)
    if Feature.NOISED_LOGPROBS in needs and not noised:
        found = (*found, STRONGEST_NOISE)
    return found


def answerable(request: Request, model: VisionLanguageModel) -> tuple[Request, str | None]:
    """The request without follow-up questions that the model was not trained to read.

    Returns:
        The request, and one line on what was left out; None where nothing was.

    Raises:
        UsageError: There is no such question.
    """
    style = PromptStyle.from_dict(model.fingerprint().get("prompt_style", {}))
    names = follow_up_names(request.asks)
    kept = tuple(name for name in names if style.can_ask(name))
    if kept == names:
        return replace(request, asks=names), None
    line = (
        f"Not asked: {', '.join(name for name in names if name not in kept)}. The model was "
        f"trained to read {', '.join(style.asks or ()) or 'none'} of the follow-up questions only."
    )
    return replace(request, asks=kept), line


def unobservable(request: Request, model: VisionLanguageModel) -> str | None:
    """One line on signals asked for that a model's server does not show; None for local models."""
    return model.unobservable(request) if isinstance(model, EndpointModel) else None


def asked_of_endpoint(
    examples: Sequence[Example], request: Request, model: VisionLanguageModel
) -> str | None:
    """One line on how much a model's server will be asked; None for local models."""
    if not isinstance(model, EndpointModel):
        return None
    return forecast(examples, request, model.capabilities, model.style).line(len(examples))


def no_letters(estimators: Sequence[str], model: VisionLanguageModel) -> str | None:
    """One line on why a model shows no letter probabilities to estimators that need them.

    Args:
        estimators: Specs of estimators.
        model: Its fingerprint holds the prompt style that the run records.

    Returns:
        The line; None where letters are scored, or nothing needs them.
    """
    style = PromptStyle.from_dict(model.fingerprint().get("prompt_style", {}))
    needing = [spec for spec in estimators if parse_estimator(spec).needs & LETTERS]
    if not needing or style.asks_for_letters:
        return None
    return (
        f"No letter probabilities for {', '.join(needing)}: the prompt asks for no letter "
        f"({style.choice_instruction!r}). Use scores=options, or change --choice-instruction."
    )
