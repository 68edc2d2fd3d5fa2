"""Probes: networks that read off a hidden state whether the answer is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int

from sightline.core.errors import MissingExtraError
from sightline.core.features import Feature
from sightline.core.protocols import Cost
from sightline.core.types import Record
from sightline.estimators.learning import (
    FOLDS,
    Labelled,
    by_row,
    common_layers,
    fit_logistic,
    grouped_folds,
    labelled,
    log_loss,
    standardiser,
    wrong_probability,
)
from sightline.estimators.signals import FREE, require
from sightline.estimators.states import Position, check_layer, state_needs, states

STRENGTHS = (1e-3, 1e-2, 1e-1)
"""Weights of the data against the penalty that a linear probe chooses from."""

WIDTHS = (256, 128, 64)
"""Hidden layers of SAPLMA's and MIND's networks."""

HELD_OUT = 5
"""One in so many groups is held out to stop the training of a network."""

EPOCHS = 50
PATIENCE = 5
BATCH = 32
LEARNING_RATE = 1e-3


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """Logistic regression on a hidden state.

    Each entry of the state is standardised. The layer, then the penalty (one of three, a factor of
    10 apart; the middle one for choosing the layer), is the one with the least log-loss over three
    inner folds that keep groups together.

    Attributes:
        at: Which state stands for the answer: answer_end, answer_mean, answer_end_and_mean or
            prompt_end.
        layer: Index of a stored layer, or auto to choose among all.

    Source: Alain and Bengio (ICLR workshop 2017); for truthfulness Kadavath et al. (2022), Azaria
    and Mitchell (Findings of EMNLP 2023). They fix the layer and the penalty.
    """

    at: Position = "answer_mean"
    layer: str = "auto"

    family: ClassVar[str] = "probe"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False
    slow: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_layer(self.layer, "auto")

    @property
    def needs(self) -> frozenset[Feature]:
        """Hidden states of the answer or of the prompt."""
        return state_needs(self.at)

    def fit(
        self,
        records: Sequence[Record],
        correct: Float[np.ndarray, " n"],
        *,
        rng: np.random.Generator,
    ) -> FittedProbe:
        """Returns the fitted probe; ``rng`` deals groups to the inner folds.

        Raises:
            DataError: All answers are right or all wrong, right or wrong ones are in one group
                only, or the records have different layers.
            UnscorableError: A record has no state of a layer, or one of another width.
            MissingExtraError: scikit-learn is not installed.
        """
        rows = labelled(records, correct, self.needs, self)
        layers = common_layers(records, self) if self.layer == "auto" else (int(self.layer),)
        fold = grouped_folds(rows, FOLDS, rng, self)
        inputs = {
            layer: _rotated(_standardised(states(records, self.at, layer)[rows.order]))
            for layer in layers
        }

        def loss(layer: int, strength: float) -> float:
            return _validation_loss(inputs[layer], rows.correct, fold, strength)

        middle = STRENGTHS[len(STRENGTHS) // 2]
        layer = min(layers, key=lambda each: loss(each, middle)) if layers[1:] else layers[0]
        strength = min(STRENGTHS, key=lambda each: loss(layer, each))
        features = states(records, self.at, layer)[rows.order]
        weights, bias = fit_logistic(_standardised(features), rows.correct, strength)
        return _probe(self.at, layer, features, [weights[:, None]], [np.array([bias])])

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing."""
        return FREE


@dataclass(frozen=True, slots=True)
class NeuralProbe:
    """Network with hidden layers of 256, 128 and 64 units on a hidden state.

    Each entry of the state is standardised; rectified units, Adam (rate 0.001, batches of 32),
    binary cross-entropy. One group in five is held out; training stops when its loss has not
    fallen for 5 epochs and keeps the best, at most 50. The layer is the one with the least loss
    there.

    Attributes:
        at: Which state stands for the answer: answer_end, answer_mean, answer_end_and_mean or
            prompt_end.
        layer: Index of a stored layer, or auto to choose among all.

    Source: on answer_end SAPLMA of Azaria and Mitchell (Findings of EMNLP 2023), who fix the layer
    and train for 5 epochs; on answer_end_and_mean MIND of Su et al. (Findings of ACL 2024), who
    read the last layer, train with dropout and make their labels without people, where here they
    are the graded answers.
    """

    at: Position = "answer_end"
    layer: str = "auto"

    family: ClassVar[str] = "probe"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False
    slow: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_layer(self.layer, "auto")

    @property
    def needs(self) -> frozenset[Feature]:
        """Hidden states of the answer or of the prompt."""
        return state_needs(self.at)

    def fit(
        self,
        records: Sequence[Record],
        correct: Float[np.ndarray, " n"],
        *,
        rng: np.random.Generator,
    ) -> FittedProbe:
        """Returns the fitted network; ``rng`` holds groups out, sets weights and orders batches.

        The same generator gives the same network on the same machine and number of threads.

        Raises:
            DataError: All answers are right or all wrong, right or wrong ones are in one group
                only, or the records have different layers.
            UnscorableError: A record has no state of a layer, or one of another width.
            MissingExtraError: torch is not installed.
        """
        rows = labelled(records, correct, self.needs, self)
        layers = common_layers(records, self) if self.layer == "auto" else (int(self.layer),)
        held_out = grouped_folds(rows, HELD_OUT, rng, self) == 0
        best: tuple[float, FittedProbe] | None = None
        for layer in layers:
            features = states(records, self.at, layer)[rows.order]
            loss, weights, biases = _train(_standardised(features), rows, held_out, rng)
            if best is None or loss < best[0]:
                best = (loss, _probe(self.at, layer, features, weights, biases))
        if best is None:
            raise AssertionError("records with hidden states have a layer")
        return best[1]

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing."""
        return FREE


@dataclass(frozen=True, slots=True, eq=False)
class FittedProbe:
    """A fitted network from a hidden state to the log-odds of being right.

    Attributes:
        at: Which state it reads.
        layer: Index of the layer it reads.
        weights: Of each layer of the network, inputs by outputs; one for a linear probe.
        biases: Of each layer of the network.
    """

    at: Position
    layer: int
    weights: tuple[Float[np.ndarray, "_ _"], ...]
    biases: tuple[Float[np.ndarray, " _"], ...]

    family: ClassVar[str] = "probe"
    is_probability: ClassVar[bool] = True
    control: ClassVar[bool] = False
    simple: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[Feature]:
        """Hidden states of the answer or of the prompt."""
        return state_needs(self.at)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layer it reads, alone."""
        return (self.layer,)

    def uncertainty(self, records: Sequence[Record]) -> Float[np.ndarray, " n"]:
        """Probability of being wrong, in [0, 1].

        Raises:
            UnscorableError: A record lacks the layer, or its states have another width.
        """
        require(records, self.needs, self)
        out = states(records, self.at, self.layer, len(self.weights[0]))
        for index, (weights, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if index:
                out = np.maximum(out, 0.0)
            out = by_row(out, weights) + bias
        return wrong_probability(out[:, 0])

    def cost(self, records: Sequence[Record]) -> Cost:
        """Nothing."""
        return FREE

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Position and layer; the network's weights and biases by layer."""
        arrays = {f"weights.{i}": array for i, array in enumerate(self.weights)}
        arrays |= {f"biases.{i}": array for i, array in enumerate(self.biases)}
        return {"at": self.at, "layer": self.layer, "depth": len(self.weights)}, arrays

    @classmethod
    def from_state(
        cls, settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> FittedProbe:
        """Rebuilds what `state` wrote."""
        return cls(
            settings["at"],
            int(settings["layer"]),
            tuple(arrays[f"weights.{i}"] for i in range(settings["depth"])),
            tuple(arrays[f"biases.{i}"] for i in range(settings["depth"])),
        )


def _standardised(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    mean, scale = standardiser(features)
    return np.asarray((features - mean) / scale)


def _probe(
    at: Position,
    layer: int,
    features: Float[np.ndarray, "n d"],
    weights: Sequence[np.ndarray],
    biases: Sequence[np.ndarray],
) -> FittedProbe:
    """The network on raw states: the standardisation becomes part of its first layer."""
    mean, scale = standardiser(features)
    first = weights[0] / scale[:, None]
    return FittedProbe(at, layer, (first, *weights[1:]), (biases[0] - mean @ first, *biases[1:]))


def _rotated(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n r"]:
    """The rows in coordinates of their own span, where there are fewer rows than entries.

    An L2 penalty does not change under rotation, so every fit on these rows is the same and faster.
    """
    if features.shape[1] <= features.shape[0]:
        return features
    values, vectors = np.linalg.eigh(features @ features.T)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def _validation_loss(
    features: Float[np.ndarray, "n d"],
    correct: Float[np.ndarray, " n"],
    fold: Int[np.ndarray, " n"],
    strength: float,
) -> float:
    """Mean log-loss of the rows, each under the fit without its fold."""
    losses = np.empty(len(features))
    for held in range(fold.max() + 1):
        inside = fold == held
        weights, bias = fit_logistic(features[~inside], correct[~inside], strength)
        losses[inside] = log_loss(features[inside] @ weights + bias, correct[inside])
    return float(losses.mean())


def _train(
    features: Float[np.ndarray, "n d"],
    rows: Labelled,
    held_out: Bool[np.ndarray, " n"],
    rng: np.random.Generator,
) -> tuple[float, list[np.ndarray], list[np.ndarray]]:
    """Trains a network; returns its least loss on the held-out rows, and its weights there."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "models", "training a network") from error
    inputs = torch.from_numpy(features.astype(np.float32))
    target = torch.from_numpy(rows.correct.astype(np.float32))
    sizes = (features.shape[1], *WIDTHS, 1)
    parameters: list[torch.Tensor] = []
    for fan_in, fan_out in pairwise(sizes):
        bound = fan_in**-0.5
        for shape in ((fan_in, fan_out), (fan_out,)):
            drawn = rng.uniform(-bound, bound, shape).astype(np.float32)
            parameters.append(torch.from_numpy(drawn).requires_grad_())

    def loss(chosen: np.ndarray) -> torch.Tensor:
        index = torch.from_numpy(chosen)
        out = inputs[index]
        for at in range(0, len(parameters), 2):
            out = (torch.relu(out) if at else out) @ parameters[at] + parameters[at + 1]
        return torch.nn.functional.binary_cross_entropy_with_logits(out[:, 0], target[index])

    optimiser = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    training, validation = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    best, kept, waited = np.inf, [p.detach().clone() for p in parameters], 0
    for _ in range(EPOCHS):
        order = rng.permutation(training)
        for start in range(0, len(order), BATCH):
            optimiser.zero_grad()
            loss(order[start : start + BATCH]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.no_grad():
            held = float(loss(validation))
        if held < best:
            best, kept, waited = held, [p.detach().clone() for p in parameters], 0
        else:
            waited += 1
            if waited == PATIENCE:
                break
    arrays = [p.numpy().astype(np.float64) for p in kept]
    return best, arrays[0::2], arrays[1::2]
