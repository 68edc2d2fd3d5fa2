"""The closed list of signals a record can show, with the axes of those that are arrays.

Axes: ``m`` samples, ``a`` answers (greedy, then samples), ``t`` generated tokens, ``k`` most likely
tokens, ``l`` layers, ``d`` width, ``c`` choices, ``r`` fixed replies to a follow-up question, ``s``
tokens of the clean answer, ``v`` transformed views of an image, ``p`` prompt templates, ``y`` and
``x`` vision tokens down and across, ``q`` yes and no, ``w`` different texts among the answer and
those under its views, in alphabetical order.
Logarithms are natural (nats).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType


class Feature(StrEnum):
    """The closed list of signals a record can show; an estimator names those it needs.

    The first block is read off the generations and the example; the second block is linked from
    other records (see `sightline.core.records.link`); the third block is arrays in
    `Record.features`, whose axes `ARRAY_AXES` gives.
    """

    ANSWER = "answer"
    LOGPROBS = "logprobs"
    SAMPLES = "samples"
    SAMPLE_LOGPROBS = "sample_logprobs"
    CHOICES = "choices"
    QUESTION_TYPE = "question_type"

    CONDITIONS = "conditions"
    BLANK_ANSWER = "blank_answer"
    NOISED_LOGPROBS = "noised_logprobs"
    NEGATIONS = "negations"
    ROTATIONS = "rotations"
    MODELS = "models"
    P_TRUE = "p_true"
    SELF_CHECK = "self_check"
    CONFIDENCE_WORD = "confidence_word"
    CONFIDENCE_SCALE = "confidence_scale"
    CONFIDENCE_NUMBER = "confidence_number"
    CONFIDENCE_REASONED = "confidence_reasoned"
    ANSWER_CONFIDENCE = "answer_confidence"
    ANSWER_CONFIDENCE_REASONED = "answer_confidence_reasoned"
    TOP_GUESSES = "top_guesses"
    GUESS_PROBABILITIES = "guess_probabilities"

    TOKEN_ENTROPY = "token_entropy"  # noqa: S105
    TOP_LOGPROBS = "top_logprobs"
    TOP_TOKEN_IDS = "top_token_ids"  # noqa: S105
    HIDDEN = "hidden"
    PROMPT_HIDDEN = "prompt_hidden"
    IMAGE_HIDDEN = "image_hidden"
    SAMPLE_HIDDEN = "sample_hidden"
    EMBEDDINGS = "embeddings"
    ENTAILMENT = "entailment"
    CONTRADICTION = "contradiction"
    VIEW_EMBEDDINGS = "view_embeddings"
    VIEW_ENTAILMENT = "view_entailment"
    VIEW_CONTRADICTION = "view_contradiction"
    TOKEN_IMPORTANCE = "token_importance"  # noqa: S105
    OPTION_LOGPROBS = "option_logprobs"
    OPTION_LENGTHS = "option_lengths"
    LETTER_LOGPROBS = "letter_logprobs"
    BLANK_LOGPROBS = "blank_logprobs"
    BLANK_OPTION_LOGPROBS = "blank_option_logprobs"
    BLANK_LETTER_LOGPROBS = "blank_letter_logprobs"
    CLEAN_LOGPROBS = "clean_logprobs"
    YES_NO_LOGPROBS = "yes_no_logprobs"
    CTX_MCQ = "ctx_mcq"
    CTX_OPEN = "ctx_open"
    ANS_OPEN = "ans_open"
    ANS_MCQ = "ans_mcq"
    ANS_MCQ_FREE = "ans_mcq_free"
    ANS_FIXED = "ans_fixed"
    VISION_ENCODED = "vision_encoded"
    VISION_PROJECTED = "vision_projected"
    VISION_ENERGY = "vision_energy"
    VISION_ENERGY_NORMALISED = "vision_energy_normalised"
    ENERGY_MAP = "energy_map"
    FLIP_RATE = "flip_rate"
    MARGIN_LOSS = "margin_loss"
    DRIFT_SHARE = "drift_share"
    DELTA_ENERGY = "delta_energy"
    PRIOR_INDEX = "prior_index"
    REPLY_LOGPROBS = "reply_logprobs"
    RECORDED_CONFIDENCE = "recorded_confidence"
    IMAGE_VECTOR = "image_vector"
    VIEW_VECTORS = "view_vectors"
    AUX_VECTORS = "aux_vectors"
    CLASS_VECTORS = "class_vectors"


ARRAY_AXES: Mapping[Feature, tuple[str, ...]] = MappingProxyType(
    {
        Feature.TOKEN_ENTROPY: ("t",),  # nats, full vocabulary, raw distribution
        Feature.TOP_LOGPROBS: ("t", "k"),  # nats, raw, descending along k
        Feature.TOP_TOKEN_IDS: ("t", "k"),  # token ids beside TOP_LOGPROBS
        Feature.HIDDEN: ("l", "t", "d"),  # state at the position that emitted token t
        Feature.PROMPT_HIDDEN: ("l", "d"),  # state at the last prompt position
        Feature.IMAGE_HIDDEN: ("l", "d"),  # mean state over the image tokens
        Feature.SAMPLE_HIDDEN: ("l", "m", "d"),  # state that emitted the last token of each sample
        Feature.EMBEDDINGS: ("a", "d"),  # unit sentence vectors of the answers' texts
        Feature.ENTAILMENT: ("a", "a"),  # p(answer i entails answer j), diagonal 1
        Feature.CONTRADICTION: ("a", "a"),  # p(answer i contradicts answer j), diagonal 0
        Feature.VIEW_EMBEDDINGS: ("w", "d"),  # as EMBEDDINGS, of what is answered under the views
        Feature.VIEW_ENTAILMENT: ("w", "w"),  # p(text i entails text j), diagonal 1
        Feature.VIEW_CONTRADICTION: ("w", "w"),  # p(text i contradicts text j), diagonal 0
        Feature.TOKEN_IMPORTANCE: ("t",),  # 1 − cosine of the answer with and without the token
        Feature.OPTION_LOGPROBS: ("c",),  # log p(option text + end | prompt), summed over tokens
        Feature.OPTION_LENGTHS: ("c",),  # tokens summed over in OPTION_LOGPROBS
        Feature.LETTER_LOGPROBS: ("c",),  # log p(option letter | prompt)
        Feature.BLANK_LOGPROBS: ("t",),  # greedy tokens, teacher-forced under the blank image
        Feature.BLANK_OPTION_LOGPROBS: ("c",),
        Feature.BLANK_LETTER_LOGPROBS: ("c",),
        Feature.CLEAN_LOGPROBS: ("s",),  # the clean answer's tokens under this condition
        Feature.YES_NO_LOGPROBS: ("q",),  # log p(the answer begins with yes, with no | prompt)
        Feature.CTX_MCQ: ("l", "d"),  # state at the last position of the multiple-choice prompt
        Feature.CTX_OPEN: ("l", "d"),  # the same of the open prompt: the question without options
        Feature.ANS_OPEN: ("l", "d"),  # mean state over the greedy answer to the open prompt
        Feature.ANS_MCQ: ("l", "d"),  # over the most probable option's text
        Feature.ANS_MCQ_FREE: ("l", "d"),  # over the greedy answer to the multiple-choice prompt
        Feature.ANS_FIXED: ("l", "d"),  # over the clean answer, read under this condition
        Feature.VISION_ENCODED: ("d",),  # mean vision token before the projector
        Feature.VISION_PROJECTED: ("d",),  # mean vision token as the language model reads it
        Feature.VISION_ENERGY: (),  # Dirichlet energy of the grid of vision tokens
        Feature.VISION_ENERGY_NORMALISED: (),  # the same over their mean squared length
        Feature.ENERGY_MAP: ("y", "x"),  # mean squared difference to a token's neighbours
        Feature.FLIP_RATE: (),  # share of perturbed versions whose label flips, by condition
        Feature.MARGIN_LOSS: (),  # mean fall of the clean label's margin, nats
        Feature.DRIFT_SHARE: (),  # mean drift as per cent of the run's mean control
        Feature.DELTA_ENERGY: (),  # mean size of the change of normalised vision-token energy
        Feature.PRIOR_INDEX: (),  # mean drift-to-prior: 0 = clean margin, 1 = the blank picture's
        Feature.REPLY_LOGPROBS: ("r",),  # log p of each of the FIXED_REPLIES of a follow-up
        Feature.RECORDED_CONFIDENCE: (),  # whatever confidence another tool recorded
        Feature.IMAGE_VECTOR: ("d",),  # unit vector of the image in a zero-shot classifier's space
        Feature.VIEW_VECTORS: ("v", "d"),  # the same of transformed views
        Feature.AUX_VECTORS: ("d",),  # auxiliary encoders' vectors, as given, one after another
        Feature.CLASS_VECTORS: ("p", "d"),  # unit vector of a class's text in each template
    }
)
"""Axes of every array feature, in order."""


STATE_CHANNELS = (
    *(Feature.CTX_OPEN, Feature.CTX_MCQ, Feature.ANS_OPEN, Feature.ANS_MCQ),
    *(Feature.ANS_MCQ_FREE, Feature.ANS_FIXED),
)
"""What a language model holds of question, picture and answer, at every kept layer.

An answer's state is read at the positions of its own tokens, the one that ends the turn among them
(so that each has been seen), the first 32 at most.
"""


VISION_CHANNELS = (Feature.VISION_ENCODED, Feature.VISION_PROJECTED)
"""What is held of the picture before the language model."""


CHANNELS = frozenset(
    {
        *STATE_CHANNELS,
        *VISION_CHANNELS,
        Feature.VISION_ENERGY,
        Feature.VISION_ENERGY_NORMALISED,
        Feature.ENERGY_MAP,
        Feature.YES_NO_LOGPROBS,
    }
)
"""What `Request.channels` adds to a record."""


LAYERED = frozenset(
    {
        *(Feature.HIDDEN, Feature.PROMPT_HIDDEN, Feature.IMAGE_HIDDEN, Feature.SAMPLE_HIDDEN),
        *STATE_CHANNELS,
    }
)
"""Features with a leading layer axis, described by `Record.layers`."""


FIXED_REPLIES: Mapping[Feature, tuple[str, ...]] = MappingProxyType(
    {
        Feature.P_TRUE: ("true", "false"),
        Feature.SELF_CHECK: ("yes", "no"),
        Feature.CONFIDENCE_WORD: ("low", "medium", "high"),
        Feature.CONFIDENCE_SCALE: (
            "almost certain",
            "likely",
            "about even",
            "unlikely",
            "highly doubtful",
        ),
    }
)
"""Follow-up questions that are to be answered by one of a few replies, in declared order."""


FOLLOW_UPS = frozenset(
    {
        *FIXED_REPLIES,
        Feature.CONFIDENCE_NUMBER,
        Feature.CONFIDENCE_REASONED,
        Feature.ANSWER_CONFIDENCE,
        Feature.ANSWER_CONFIDENCE_REASONED,
        Feature.TOP_GUESSES,
        Feature.GUESS_PROBABILITIES,
    }
)
"""Questions the model is asked after its answer; each names a record of condition ``asked:NAME``.

The reply is that record's greedy answer. Further wordings of a question are ``asked:NAME.2`` and so
on; under another condition than clean, its name and ``+`` come first.
"""


READ_WITH: Mapping[Feature, Feature] = MappingProxyType(
    {
        Feature.NOISED_LOGPROBS: Feature.CLEAN_LOGPROBS,
        **dict.fromkeys(FOLLOW_UPS, Feature.REPLY_LOGPROBS),
    }
)
"""Arrays of linked records that come with a signal: the only ones read of those records."""


AUDITED = frozenset(
    {
        *(Feature.FLIP_RATE, Feature.MARGIN_LOSS, Feature.DRIFT_SHARE),
        *(Feature.DELTA_ENERGY, Feature.PRIOR_INDEX),
    }
)
"""What `sightline audit` derives for every answer from its perturbed versions."""


DERIVED = frozenset(
    {
        *(Feature.EMBEDDINGS, Feature.ENTAILMENT, Feature.CONTRADICTION),
        *(Feature.VIEW_EMBEDDINGS, Feature.VIEW_ENTAILMENT, Feature.VIEW_CONTRADICTION),
        Feature.TOKEN_IMPORTANCE,
    }
)
"""Array features computed from stored answers, by models of their own."""


INTEGER_FEATURES = frozenset({Feature.TOP_TOKEN_IDS, Feature.OPTION_LENGTHS})
"""Array features that hold integers; all others hold floats."""


def how_to_observe(missing: Iterable[Feature]) -> str:
    """Returns what brings missing signals into a run, as the start of a sentence.

    Example:
        >>> how_to_observe([Feature.ENTAILMENT]), how_to_observe([Feature.SAMPLE_HIDDEN])
        ('Run sightline derive', 'Collect the run with --sample-states')
    """
    wanted = set(missing)
    ways = (
        (DERIVED, "Run sightline derive"),
        (AUDITED, "Run sightline audit"),
        (CHANNELS, "Collect the run with --channels"),
        ({Feature.SAMPLE_HIDDEN}, "Collect the run with --sample-states"),
        ({Feature.CONDITIONS, Feature.NOISED_LOGPROBS}, "Collect the run with --conditions"),
        (FOLLOW_UPS, "Collect the run with --ask"),
    )
    found = (way for signals, way in ways if wanted & signals)
    return next(found, "Collect or import the run with this signal")
