"""Uncertainty estimators and the one table that lists them.

A new estimator is a frozen dataclass in the module of its family, one line in `ESTIMATORS` and a
test. Everything that offers estimators (contract tests, command line, documentation, report,
server) reads this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sightline.core import specs
from sightline.core.protocols import Estimator, FittedEstimator, LearnedEstimator
from sightline.estimators.agreement import (
    ConditionAgreement,
    ModelAgreement,
    NegationConsistency,
    RotationAgreement,
    SampleAgreement,
)
from sightline.estimators.choice import (
    ChoiceAnswerProbability,
    ChoiceEntropy,
    ChoiceMargin,
    ChoiceMaxProbability,
)
from sightline.estimators.contrast import (
    BlankUnchanged,
    ChoiceVisualInformation,
    VisualInformation,
    VisualUncertainty,
)
from sightline.estimators.controls import (
    AnswerLength,
    FittedQuestionType,
    QuestionType,
    Random,
)
from sightline.estimators.density import SemanticDensity, SentenceSAR
from sightline.estimators.equivalence import VLUncertainty
from sightline.estimators.fusion import FittedFusion, Fusion
from sightline.estimators.graph import Degree, Eccentricity, LaplacianEigenvalues
from sightline.estimators.harmony import FittedHarmony, Harmony
from sightline.estimators.importance import MARS, TokenSAR
from sightline.estimators.kernel import KernelLanguageEntropy
from sightline.estimators.lexical import LexicalSimilarity
from sightline.estimators.likelihood import (
    LengthNormalisedProbability,
    NegativeLogLikelihood,
    Perplexity,
    SequenceProbability,
    TokenEntropy,
    TokenMargin,
    TokenProbability,
)
from sightline.estimators.mahalanobis import FittedMahalanobis, Mahalanobis
from sightline.estimators.probes import FittedProbe, LinearProbe, NeuralProbe
from sightline.estimators.recorded import RecordedConfidence
from sightline.estimators.semantic import (
    DiscreteSemanticEntropy,
    DistinctAnswers,
    PredictiveEntropy,
    SemanticEntropy,
)
from sightline.estimators.sgpu import SGPU, FittedSGPU
from sightline.estimators.spectral import EigenScore, GramSpectrum
from sightline.estimators.spectrum_regression import (
    FittedSpectrumLogisticRegression,
    SpectrumLogisticRegression,
)
from sightline.estimators.stability import Instability
from sightline.estimators.verbal import (
    JudgedTrue,
    StatedGuesses,
    VerbalisedConfidence,
    WordConfidence,
)

AnyEstimator = Estimator | LearnedEstimator

ESTIMATORS: Mapping[str, AnyEstimator] = MappingProxyType(
    {
        "sequence_probability": SequenceProbability(),
        "negative_log_likelihood": NegativeLogLikelihood(),
        "length_normalised_probability": LengthNormalisedProbability(),
        "perplexity": Perplexity(),
        "first_token_probability": TokenProbability(over="first"),
        "min_token_probability": TokenProbability(over="min"),
        "mean_token_probability": TokenProbability(over="mean"),
        "mean_token_entropy": TokenEntropy(over="mean"),
        "max_token_entropy": TokenEntropy(over="max"),
        "first_token_margin": TokenMargin(over="first"),
        "min_token_margin": TokenMargin(over="min"),
        "token_sar": TokenSAR(),
        "mars": MARS(),
        "choice_max_probability": ChoiceMaxProbability(),
        "choice_answer_probability": ChoiceAnswerProbability(),
        "choice_margin": ChoiceMargin(),
        "choice_entropy": ChoiceEntropy(),
        "option_max_probability": ChoiceMaxProbability(scores="options"),
        "option_margin": ChoiceMargin(scores="options"),
        "option_entropy": ChoiceEntropy(scores="options"),
        "option_max_probability_per_token": ChoiceMaxProbability(scores="options_per_token"),
        "option_margin_per_token": ChoiceMargin(scores="options_per_token"),
        "option_entropy_per_token": ChoiceEntropy(scores="options_per_token"),
        "sample_agreement": SampleAgreement(),
        "condition_agreement": ConditionAgreement(),
        "vl_uncertainty": VLUncertainty(),
        "negation_consistency": NegationConsistency(),
        "condition_and_negation_consistency": NegationConsistency(with_views=True),
        "rotation_agreement": RotationAgreement(),
        "model_agreement": ModelAgreement(),
        "discrete_semantic_entropy": DiscreteSemanticEntropy(),
        "distinct_answers": DistinctAnswers(),
        "predictive_entropy": PredictiveEntropy(),
        "length_normalised_predictive_entropy": PredictiveEntropy(length_normalised=True),
        "semantic_entropy": SemanticEntropy(),
        "lexical_similarity": LexicalSimilarity(),
        "degree": Degree(),
        "eccentricity": Eccentricity(),
        "laplacian_eigenvalues": LaplacianEigenvalues(),
        "kernel_language_entropy": KernelLanguageEntropy(),
        "eigenscore": EigenScore(),
        "von_neumann_entropy": GramSpectrum(),
        "mean_log_eigenvalue": GramSpectrum(functional="mean_log_eigenvalue"),
        "largest_eigenvalue": GramSpectrum(functional="largest_eigenvalue"),
        "participation_ratio": GramSpectrum(functional="participation_ratio"),
        "semantic_density": SemanticDensity(),
        "sentence_sar": SentenceSAR(),
        "visual_information": VisualInformation(),
        "visual_uncertainty": VisualUncertainty(),
        "noise_visual_information": VisualInformation(against="noise"),
        "noise_visual_uncertainty": VisualUncertainty(against="noise"),
        "choice_visual_information": ChoiceVisualInformation(),
        "blank_unchanged": BlankUnchanged(),
        "flip_rate": Instability(),
        "margin_loss": Instability(sign="margin_loss"),
        "drift_share": Instability(sign="drift_share"),
        "delta_energy": Instability(sign="delta_energy"),
        "prior_index": Instability(sign="prior_index"),
        "linear_probe": LinearProbe(),
        "saplma": NeuralProbe(),
        "mind": NeuralProbe(at="answer_end_and_mean"),
        "harmony": Harmony(),
        "lars": Harmony(inputs="text+prob"),
        "mahalanobis": Mahalanobis(),
        "relative_mahalanobis": Mahalanobis(relative=True),
        "fusion": Fusion(),
        "sgpu": SGPU(),
        "sgpu_hidden": SGPU(similarity="hidden"),
        "sgpu_likelihood": SGPU(likelihood_weighted=True),
        "spectrum_logistic_regression": SpectrumLogisticRegression(),
        "p_true": JudgedTrue(),
        "self_check": JudgedTrue(form="self_check"),
        "confidence_word": WordConfidence(),
        "confidence_scale": WordConfidence(form="confidence_scale"),
        "verbalised_confidence": VerbalisedConfidence(),
        "verbalised_confidence_reasoned": VerbalisedConfidence(form="confidence_reasoned"),
        "answer_confidence": StatedGuesses(form="answer_confidence", read="stated"),
        "answer_confidence_reasoned": StatedGuesses(
            form="answer_confidence_reasoned", read="stated"
        ),
        "top_guesses": StatedGuesses(),
        "guess_probabilities": StatedGuesses(form="guess_probabilities", read="stated"),
        "recorded_confidence": RecordedConfidence(),
        "question_type": QuestionType(),
        "answer_length": AnswerLength(),
        "random": Random(),
    }
)
"""Every estimator by name, with its default settings; the names are the field's standard terms."""

FITTED: Mapping[str, type[FittedEstimator]] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (
            FittedFusion,
            FittedHarmony,
            FittedMahalanobis,
            FittedProbe,
            FittedQuestionType,
            FittedSGPU,
            FittedSpectrumLogisticRegression,
        )
    }
)
"""Classes of fitted estimators by name, as saved ones are named on disk."""


def parse_estimator(spec: str) -> AnyEstimator:
    """Reads an estimator written as ``name`` or ``name:setting=value:setting=value``.

    Raises:
        UsageError: The name, a setting or a value does not exist; the message names the allowed.

    Example:
        >>> parse_estimator("lexical_similarity:metric=rouge1")
        LexicalSimilarity(metric='rouge1')
    """
    return specs.parse(spec, ESTIMATORS, "estimator")


def spec_of(estimator: AnyEstimator) -> dict[str, Any]:
    """Returns the estimator's name and all its settings, JSON-serialisable.

    Raises:
        UsageError: Its class is not in the table.

    Example:
        >>> spec_of(ESTIMATORS["min_token_probability"])
        {'name': 'min_token_probability', 'over': 'min'}
    """
    return specs.spec_of(estimator, ESTIMATORS, "estimator")


def from_spec(spec: Mapping[str, Any]) -> AnyEstimator:
    """Returns the estimator that `spec_of` wrote.

    Raises:
        UsageError: The name, a setting or a value does not exist; the message names the allowed.

    Example:
        >>> from_spec({"name": "random", "seed": 7})
        Random(seed=7)
    """
    return specs.from_spec(spec, ESTIMATORS, "estimator")


__all__ = ["ESTIMATORS", "FITTED", "AnyEstimator", "from_spec", "parse_estimator", "spec_of"]
