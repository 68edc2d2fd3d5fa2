"""HARMONY and LARS: a transformer over a generated answer, token by token.

Per token it reads what is written, how probable it was, and the hidden state that emitted it; of
the question, the words. LARS is the same without the states.

An implementation following the published description: a transformer scorer that takes in text, the
token's probability and the hidden state at token level, trained by binary cross-entropy on the
answers' correctness. What the paper does not give is our choice:

- mapping: each token has a position for its text, one for its probability and one for its state
  (``interleaved``); ``additive`` puts all three on one position, ``pooled_mlp`` averages each;
- start: the log-odds start from a logistic regression on all that is read, averaged over the answer
  (`token_start`), and the transformer learns what to add (``residual``). It takes part only where
  it lowers the loss of the held-out rows by more than two standard errors, and then the regression
  is fitted again on all rows, so few labels give no worse a score than a regression does;
- layer: of those stored, the one at which that regression has the best AUROC over inner folds;
- early stopping on the AUROC of one group in five, held out, after a tenth of warm-up; the log-loss
  where AUROCs are equal; learning rate 0.002, batches of 32, at most 12 passes, more where there
  are few rows;
- position of the states: where the token was emitted, so that they pair with the probabilities;
- states: each entry is standardised by the training rows, then Linear, LayerNorm and a learned
  vector for the kind of position; states of image tokens take part only as one mean (``image``);
- the question is read, as in LARS;
- correctness is whatever the rows were graded with; no sampled answers are added to the training
  rows as LARS does, since samples are not graded;
- classes are weighted alike where one is more than four times as frequent; the log-odds are then
  put back to those of the rows as they came;
- the scorer is small and trained from scratch unless ``encoder`` names a pretrained one; tokens are
  decoded one by one and read as words (or as sub-tokens of the pretrained encoder);
- answers of more than 64 tokens are cut to their first and last 32, questions of more than 24 words
  to their first and last 12.

Source: HARMONY, arXiv 2510.22171; LARS, Yaldiz et al. (Findings of NAACL 2025), with its few-hot
codes, whose quantiles here are interior so that all eight bins are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import ModuleType
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.core.errors import MissingExtraError, UnscorableError, UsageError
from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.types import Record
from sightline.estimators.learning import (
    Labelled,
    common_layers,
    grouped_folds,
    labelled,
    wrong_probability,
)
from sightline.estimators.signals import FREE, require
from sightline.estimators.states import check_layer
from sightline.estimators.token_codes import interior_quantiles
from sightline.estimators.token_sequence import Reading, TokenSequence, sequences
from sightline.estimators.token_start import (
    MIDDLE,
    STRENGTHS,
    StartInputs,
    soft_auroc,
    start_numbers,
)
from sightline.estimators.token_text import HashedText

HELD_OUT = 5
"""One in so many groups is held out to choose the layer and to stop the training."""

INPUTS = {"text": Feature.ANSWER, "prob": Feature.LOGPROBS, "hidden": Feature.HIDDEN}
"""What can take part, with the signal that it is read off."""

Device = Literal["auto", "cpu", "cuda"]
Mapped = Literal["interleaved", "additive", "pooled_mlp"]


@dataclass(frozen=True, slots=True)
class Harmony:
    """Transformer over the answer's tokens, each with the inputs that are named in the settings.

    Attributes:
        inputs: Which of the token's text, its probability (prob) and the hidden state that emitted
            it (hidden) take part, joined by +; the question comes with text.
        mapping: How a token's inputs are laid out: interleaved, additive or pooled_mlp.
        layer: Index of a stored layer, or auto to choose by the AUROC over inner folds.
        image: Also read the mean state over the image.
        residual: Start from a logistic regression on the same inputs, averaged over the answer.
        encoder: compact, or directory or hub name of a pretrained text encoder.
        seeds: Scorers whose probabilities are averaged; each holds out other rows.
        device: Where to train and score: auto (a GPU where there is one), cpu or cuda.

    Source: HARMONY, arXiv 2510.22171; without hidden LARS, Yaldiz et al. (Findings of NAACL 2025).
    What they do not give is our choice; the module lists it.
    """

    inputs: str = "text+prob+hidden"
    mapping: Mapped = "interleaved"
    layer: str = "auto"
    image: bool = False
    residual: bool = True
    encoder: str = "compact"
    seeds: int = 1
    device: Device = "auto"

    family: ClassVar[str] = "probe"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False
    slow: ClassVar[bool] = True

    def __post_init__(self) -> None:
        names = self.inputs.split("+")
        if len(set(names)) < len(names) or not set(names) <= set(INPUTS):
            raise UsageError(
                f"Inputs {self.inputs!r}; different ones of {', '.join(INPUTS)} joined by + are "
                "required. For example text+prob."
            )
        check_layer(self.layer, "auto")
        if self.seeds < 1:
            raise UsageError(f"{self.seeds} seeds; at least 1 is required. Use for example 3.")

    @property
    def needs(self) -> frozenset[Feature]:
        """What the inputs are read off."""
        return _needs(self.inputs.split("+"), image=self.image)

    def fit(
        self,
        records: Sequence[Record],
        correct: Float[np.ndarray, " n"],
        *,
        rng: np.random.Generator,
    ) -> FittedHarmony:
        """Returns the fitted scorer; ``rng`` holds groups out and seeds weights and batches.

        The same generator gives the same scorer on the same machine and number of threads,
        whatever order the records come in.

        Raises:
            DataError: All answers are right or all wrong, right or wrong ones are in one group
                only, the records have different layers, or the encoder cannot be loaded.
            UnscorableError: A record has no state of a layer, or one of another width.
            UsageError: There is no GPU, and cuda was asked for.
            MissingExtraError: torch, scikit-learn or transformers is required and not installed.
        """
        rows = labelled(records, correct, self.needs, self)
        fold = grouped_folds(rows, HELD_OUT, rng, self)
        seeds = [int(seed) for seed in rng.integers(0, 2**31, size=self.seeds)]
        chosen, strength = self._chosen(records, rows, fold)
        scorers = tuple(
            chosen.train(rows.correct, fold == member % (fold.max() + 1), strength, seed)
            for member, seed in enumerate(seeds)
        )
        return FittedHarmony(chosen.reading, chosen.blueprint, chosen.edges, scorers, self.device)

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing: everything is observed while the greedy answer is generated."""
        return FREE

    def _chosen(
        self, records: Sequence[Record], rows: Labelled, fold: Int[np.ndarray, " n"]
    ) -> tuple[_Trial, float]:
        """The layer, then the start's penalty, with the best AUROC over the inner folds."""
        best: tuple[float, _Trial] | None = None
        for layer in self._layers(records):
            trial = _Trial(self, records, rows.order, layer)
            auroc = trial.validated(rows.correct, fold, MIDDLE)
            if best is None or auroc > best[0]:
                best = (auroc, trial)
        if best is None:
            raise AssertionError("records with hidden states have a layer")
        chosen = best[1]
        return chosen, max(STRENGTHS, key=lambda s: chosen.validated(rows.correct, fold, s))

    def _layers(self, records: Sequence[Record]) -> tuple[int | None, ...]:
        if not (self.image or "hidden" in self.inputs.split("+")):
            return (None,)
        return common_layers(records, self) if self.layer == "auto" else (int(self.layer),)


@dataclass(frozen=True, slots=True, eq=False)
class FittedHarmony:
    """A fitted transformer over the tokens of an answer.

    Attributes:
        reading: What it reads.
        blueprint: What rebuilds its networks (`harmony_network.Blueprint`).
        edges: Where the bins of log-probabilities meet, in nats.
        scorers: The networks (`token_transformer.Scorer`).
        device: Where it scores.
    """

    reading: Reading
    blueprint: Any
    edges: Float[np.ndarray, " k"]
    scorers: tuple[Any, ...]
    device: Device

    family: ClassVar[str] = "probe"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[Feature]:
        """What the inputs are read off."""
        taking = {"text": self.reading.text, "prob": self.reading.probability}
        names = [name for name, takes in taking.items() if takes]
        names += ["hidden"] if self.reading.hidden else []
        return _needs(names, image=self.reading.image)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layer it reads; none where it reads no states."""
        return () if self.reading.layer is None else (self.reading.layer,)

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Probability of being wrong, in [0, 1]: the mean over the networks.

        Every answer goes through the networks by itself, so what else is scored has no say.

        Raises:
            UnscorableError: A record lacks the layer, or its states have another width.
            UsageError: There is no GPU, and cuda was asked for.
            MissingExtraError: torch is not installed.
        """
        require(records, self.needs, self)
        network, _ = _torch_modules()
        answers = sequences(records, self.reading, network.text_code(self.blueprint), self.edges)
        _check_widths(answers, self.blueprint.state_width, self.blueprint.image_width)
        log_odds = network.log_odds(self.scorers, answers, _device(self.device))
        return np.mean([wrong_probability(column) for column in log_odds.T], axis=0)

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing: everything is observed while the greedy answer is generated."""
        return FREE

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What is read, the networks' blueprint, and their weights by network and name."""
        network, _ = _torch_modules()
        arrays = {
            f"{index}.{name}": array
            for index, scorer in enumerate(self.scorers)
            for name, array in network.weights(scorer).items()
        }
        settings = {
            "reading": asdict(self.reading),
            "blueprint": self.blueprint.to_dict(),
            "scorers": len(self.scorers),
            "device": self.device,
        }
        return settings, {"edges": self.edges, **arrays}

    @classmethod
    def from_state(
        cls, settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> FittedHarmony:
        """Rebuilds what `state` wrote."""
        network, _ = _torch_modules()
        blueprint = network.Blueprint(**settings["blueprint"])
        scorers = []
        for index in range(settings["scorers"]):
            prefix = f"{index}."
            own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
            scorers.append(network.rebuild(blueprint, own))
        return cls(
            Reading(**settings["reading"]),
            blueprint,
            arrays["edges"],
            tuple(scorers),
            settings["device"],
        )


class _Trial:
    """The training rows laid out with the states of one layer."""

    def __init__(
        self,
        harmony: Harmony,
        records: Sequence[Record],
        order: Int[np.ndarray, " n"],
        layer: int | None,
    ) -> None:
        network, _ = _torch_modules()
        inputs = harmony.inputs.split("+")
        self.reading = Reading(
            text="text" in inputs,
            probability="prob" in inputs,
            hidden="hidden" in inputs,
            image=harmony.image,
            additive=harmony.mapping == "additive",
            layer=layer,
        )
        self.device = _device(harmony.device)
        self.encoder = None
        if harmony.encoder != "compact":
            self.encoder = network.load_encoder(harmony.encoder)
        given = sequences(records, replace(self.reading, text=False), HashedText(), np.zeros(0))
        state_width = given[0].states.shape[1] if self.reading.hidden else None
        image_width = len(given[0].image) if self.reading.image else None
        _check_widths(given, state_width, image_width)
        self.edges = np.zeros(0)
        if self.reading.probability:
            self.edges = interior_quantiles(np.concatenate([a.logprobs for a in given]))
        self.blueprint = network.blueprint(
            pooled=harmony.mapping == "pooled_mlp",
            start=len(start_numbers(given[0])) if harmony.residual else None,
            state_width=state_width,
            image_width=image_width,
            encoder=self.encoder,
        )
        ordered = [records[i] for i in order]
        code = network.text_code(self.blueprint)
        self.answers = sequences(ordered, self.reading, code, self.edges)
        self.start = StartInputs.of(self.answers, network.table_rows(self.blueprint))

    def validated(
        self, correct: Float[np.ndarray, " n"], fold: Int[np.ndarray, " n"], strength: float
    ) -> float:
        """AUROC of the linear start over the inner folds."""
        return soft_auroc(self.start.validated(correct, fold, strength), correct)

    def train(
        self,
        correct: Float[np.ndarray, " n"],
        held_out: Bool[np.ndarray, " n"],
        strength: float,
        seed: int,
    ) -> Any:
        """A network trained on the rows not held out (`token_transformer.Scorer`)."""
        network, training = _torch_modules()
        kept = [answer for answer, held in zip(self.answers, held_out, strict=True) if not held]
        states = np.concatenate([a.states for a in kept]) if self.reading.hidden else None
        images = np.stack([a.image for a in kept]) if self.reading.image else None

        def make() -> Any:
            scorer = network.build(self.blueprint, states, images, self.encoder)
            if scorer.start is not None:
                scorer.start.set_to(self.start, ~held_out, correct, strength)
            return scorer

        schedule = training.COMPACT if self.encoder is None else training.PRETRAINED
        scorer = training.train(make, self.answers, correct, held_out, schedule, seed, self.device)
        if scorer.start is not None:
            scorer.start.set_to(self.start, held_out | ~held_out, correct, strength)
        return scorer


def _needs(inputs: Sequence[str], *, image: bool) -> frozenset[Feature]:
    found = {INPUTS[name] for name in inputs}
    return frozenset(found | {Feature.IMAGE_HIDDEN} if image else found)


def _check_widths(
    answers: Sequence[TokenSequence], state_width: int | None, image_width: int | None
) -> None:
    """Requires states as wide as those the networks read."""
    for width, found in (
        (state_width, [a.states.shape[1] for a in answers]),
        (image_width, [len(a.image) for a in answers]),
    ):
        odd = [row for row, wide in enumerate(found) if width is not None and wide != width]
        if odd:
            raise UnscorableError(
                odd,
                f"hidden states {found[odd[0]]} wide; {width} are required here",
                "Fit on records of the same model.",
            )


def _device(device: Device) -> Any:
    import torch

    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise UsageError("Device cuda; no GPU was found, and one is required. Use auto or cpu.")
    return torch.device("cuda" if there and device != "cpu" else "cpu")


def _torch_modules() -> tuple[ModuleType, ModuleType]:
    """The modules that import torch."""
    try:
        from sightline.estimators import harmony_network, harmony_training
    except ImportError as error:
        raise MissingExtraError("torch", "models", "a transformer over tokens") from error
    return harmony_network, harmony_training
