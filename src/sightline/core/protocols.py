"""What an estimator, a calibrator, a grader and a model must offer; nothing inherits from these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Cost:
    """What one score costs beyond the greedy answer itself.

    Attributes:
        forward_passes: Extra passes over image and prompt (1 = one more prefill).
        generations: Extra generated answers.
    """

    forward_passes: int = 0
    generations: int = 0


@runtime_checkable
class Estimator(Protocol):
    """Turns records into uncertainty, higher = worse. A frozen dataclass; fields are parameters.

    The traits are class variables, or properties where they depend on the parameters.
    """

    @property
    def needs(self) -> frozenset[Feature]:
        """Signals every record must show."""
        ...

    @property
    def family(self) -> str:
        """Kind of method, as the report groups it; ``control`` for controls."""
        ...

    @property
    def is_probability(self) -> bool:
        """Whether 1 − uncertainty is a probability of being right, so that its ECE has meaning."""
        ...

    @property
    def control(self) -> bool:
        """Whether it must not work by design; a score that loses to it has learned nothing."""
        ...

    @property
    def simple(self) -> bool:
        """Whether it may serve as the simple baseline that the others are compared with."""
        ...

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Uncertainty of each record's greedy answer.

        Every record has all `needs`; the caller has counted and skipped the others. The result is
        finite, depends on each record alone, and never on the order of the rows.
        """
        ...

    def cost(self, records: Sequence[Record]) -> Cost:
        """What observing the needed signals costs per answer, beyond the greedy answer."""
        ...


@runtime_checkable
class ReadsLayers(Protocol):
    """An estimator that says which layers' states it reads, so that no other need be observed."""

    @property
    def layers(self) -> tuple[int, ...] | None:
        """Indices as in `Record.layers`; None where it depends on which layers a record has."""
        ...


@runtime_checkable
class FittedEstimator(Estimator, Protocol):
    """An estimator that was fitted on labelled records and can be written down."""

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON-serialisable settings, and arrays by name, from which `from_state` rebuilds it."""
        ...

    @classmethod
    def from_state(
        cls, settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> FittedEstimator:
        """Rebuilds what `state` wrote; it scores bitwise alike."""
        ...


@runtime_checkable
class LearnedEstimator(Protocol):
    """Fits on labelled records and returns the fitted `Estimator`."""

    @property
    def needs(self) -> frozenset[Feature]:
        """Signals every record must show."""
        ...

    @property
    def family(self) -> str:
        """Kind of method, as the report groups it; ``control`` for controls."""
        ...

    @property
    def is_probability(self) -> bool:
        """Whether 1 − uncertainty is a probability of being right, so that its ECE has meaning."""
        ...

    @property
    def control(self) -> bool:
        """Whether it must not work by design; a score that loses to it has learned nothing."""
        ...

    @property
    def simple(self) -> bool:
        """Whether it may serve as the simple baseline that the others are compared with."""
        ...

    def cost(self, records: Sequence[Record]) -> Cost:
        """What observing the needed signals costs per answer, beyond the greedy answer."""
        ...

    @property
    def slow(self) -> bool:
        """Whether fitting takes longer than seconds; such a one is evaluated only when named."""
        ...

    def fit(
        self,
        records: Sequence[Record],
        correct: Float[np.ndarray, " n"],
        *,
        rng: np.random.Generator,
    ) -> FittedEstimator:
        """Returns an estimator fitted on these records; never keeps state on itself."""
        ...


@runtime_checkable
class Calibration(Protocol):
    """A fitted map from uncertainty to the probability of being right.

    `informative` is False where the score carried no signal on the calibration rows and every
    answer is given the base rate.
    """

    @property
    def informative(self) -> bool:
        """Whether the AUROC on the calibration rows was above .5 beyond chance."""
        ...

    def confidence(self, uncertainty: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Probability in [0, 1], never rising with uncertainty."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form; see `sightline.calibration.load_calibration`."""
        ...


@runtime_checkable
class Calibrator(Protocol):
    """Fits a `Calibration` on held-out rows."""

    @property
    def needs_probability(self) -> bool:
        """Whether it calibrates 1 − a probability only, and no other score."""
        ...

    def fit(
        self,
        uncertainty: Float[np.ndarray, " n"],
        correct: Float[np.ndarray, " n"],
        *,
        groups: Int[np.ndarray, " n"] | None = None,
    ) -> Calibration:
        """Returns the calibration fitted on these rows.

        Args:
            uncertainty: Raw scores, higher is worse.
            correct: In [0, 1].
            groups: Rows that share a number are not independent; None if all are.

        Raises:
            AntiInformativeError: The score ranks wrong answers above right ones beyond chance.
        """
        ...


@runtime_checkable
class Grader(Protocol):
    """Decides how right an answer is, in [0, 1]."""

    def grade(self, example: Example, generation: Generation) -> float:
        """1 = right, 0 = wrong; fractions for soft accuracy.

        Raises:
            DataError: The example has no reference this grader can use; the caller counts it.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """The grader's name and settings, stored as the column's spec."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """What to observe on every example.

    Attributes:
        max_new_tokens: Limit on generated tokens per answer.
        n_samples: Samples drawn beside the greedy answer.
        temperature: Sampling temperature; log-probabilities are recorded before it.
        top_p: Nucleus for sampling; 1 = off.
        top_k_logprobs: Most likely tokens kept per position; 0 = none.
        layers: Depths whose hidden states are kept, as fractions (0.5) of the decoder's depth or
            as layer indices (int); empty = none.
        sample_hidden: Also keep the state that emitted the last token of every sample, at the
            same layers.
        options: Score the options of multiple-choice examples (texts and letters).
        blank: Also observe every example with a blank image.
        asks: Follow-up questions about the greedy answer, by name (``p_true``, ``p_true.2``).
        conditions: Perturbations under which every example is observed too, by name (``jpeg:3``).
            Whoever collects renders them; a model only ever sees their pictures and questions.
        condition_samples: Samples drawn under each of these.
        channels: Keep what the model holds of question, picture and answer, at the same layers, and
            how smooth its vision tokens are (`sightline.core.features.CHANNELS`).
        energy_maps: Examples, from the first of the plan, of which the energy of every vision token
            is kept too.
        seed: Run seed; a sample's own seed is derived from it, the example id and its index.
    """

    max_new_tokens: int = 64
    n_samples: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k_logprobs: int = 20
    layers: tuple[float | int, ...] = ()
    sample_hidden: bool = False
    options: bool = False
    blank: bool = False
    asks: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    condition_samples: int = 0
    channels: bool = False
    energy_maps: int = 0
    seed: int = 0


@runtime_checkable
class ImageTextModel(Protocol):
    """A CLIP-like model: pictures and texts to unit vectors, and how their cosines are read.

    Attributes:
        scale: What cosines are multiplied by.
        bias: What is added then; 0 for CLIP.
        sigmoid: Whether a logit stands for its class alone (SigLIP) rather than against the others.
    """

    scale: float
    bias: float
    sigmoid: bool

    def fingerprint(self) -> Mapping[str, Any]:
        """What identifies the model: name, architecture, content hash, precision."""
        ...

    def image_vectors(self, images: Sequence[Image]) -> Float[np.ndarray, "n d"]:
        """Unit vectors (float32) of RGB pictures."""
        ...

    def text_vectors(self, texts: Sequence[str]) -> Float[np.ndarray, "k d"]:
        """Unit vectors (float32) of texts, cut at the model's longest text."""
        ...


@runtime_checkable
class VisionLanguageModel(Protocol):
    """A model that can be observed."""

    def fingerprint(self) -> Mapping[str, Any]:
        """What identifies the model and its revision; compared before runs are resumed."""
        ...

    def observe(
        self,
        examples: Sequence[Example],
        images: Sequence[tuple[Image, ...]],
        request: Request,
        *,
        given: Sequence[Sequence[int] | None] | None = None,
    ) -> list[Record]:
        """Observes one batch: for each example its clean record, then the others requested.

        These are the blank one and the replies to follow-up questions, as far as the model can be
        asked them. Everything about an example shares one pass over its images and prompt.

        Args:
            examples: What is asked; samples are seeded by the request's seed and their ids.
            images: Of each example.
            request: What to observe.
            given: Token ids to score behind each example's prompt, such as the answer it had
                under another picture: `Feature.CLEAN_LOGPROBS`. None where there are none.

        Results do not depend on how examples are batched (to floating-point).

        Raises:
            OutOfMemoryError: The batch does not fit; the caller halves it.
            ModelError: The model failed; the caller bisects to the example at fault.
        """
        ...
