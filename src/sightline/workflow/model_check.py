"""Measures the gates of the embedded models, each measurement once for all models that need it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sightline.models import load_classifier, load_image_encoder, load_model
from sightline.models.embedded import embedded_model
from sightline.workflow.classifier_gates import (
    ClassifierFigures,
    classifier_gates,
    encoder_gate,
    measure_classifier,
    prototype_accuracy,
)
from sightline.workflow.gates import (
    Gate,
    SplitFigures,
    measure_split,
    prior_gate,
    size_gate,
    split_gates,
)

_LIMITS = {"vlm": 12_000_000, "classifier": 6_000_000, "encoder": 6_000_000}
_GROUNDED, _CLASSIFIER = "vlm", "clip"


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """What was measured on one embedded model.

    Attributes:
        name: As in ``embedded:<name>``.
        figures: One entry per split of a vision-language model; one entry of a classifier;
            accuracy of the nearest prototype for an image encoder.
        gates: The requirements, each with what was measured.
    """

    name: str
    figures: tuple[SplitFigures | ClassifierFigures | float, ...]
    gates: tuple[Gate, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate is."""
        return all(gate.passed for gate in self.gates)


def check_models(
    names: Sequence[str],
    *,
    n: int = 2000,
    seed: int = 0,
    done: Callable[[ModelCheck], None] = lambda check: None,
) -> list[ModelCheck]:
    """Measures the gates of the named embedded models.

    Args:
        names: Keys of `sightline.models.embedded.EMBEDDED`.
        n: Questions per split; classifiers are measured on a quarter more pictures.
        seed: Seed of the scenes.
        done: Called after each model.

    Raises:
        UsageError: There is no such model.
    """

    @lru_cache
    def split(name: str, which: str) -> SplitFigures:
        return measure_split(load_model(f"embedded:{name}"), split=which, n=n, seed=seed)

    @lru_cache
    def classifier(name: str) -> ClassifierFigures:
        return measure_classifier(load_classifier(f"embedded:{name}"), n=n * 5 // 4, seed=seed)

    checks = []
    for name in names:
        model = embedded_model(name)
        gates = [size_gate(model.size_bytes, _LIMITS[model.kind])]
        figures: list[SplitFigures | ClassifierFigures | float] = []
        if model.kind == "vlm":
            for which in ("test", "prior-removed"):
                figures.append(split(name, which))
                gates += split_gates(split(name, which), weak=model.weak)
            if model.has_prior:
                which = "prior-removed"
                gates.append(prior_gate(split(name, which), split(_GROUNDED, which)))
        elif model.kind == "classifier":
            figures.append(classifier(name))
            gates += classifier_gates(classifier(name))
        else:
            encoder = load_image_encoder(f"embedded:{name}")
            accuracy = prototype_accuracy(encoder.vectors, n=n * 5 // 4, seed=seed)
            figures.append(accuracy)
            gates.append(encoder_gate(accuracy, classifier(_CLASSIFIER)))
        checks.append(ModelCheck(name, tuple(figures), tuple(gates)))
        done(checks[-1])
    return checks
