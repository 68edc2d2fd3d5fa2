"""The small trained models that ship with the package, and what is known of them.

They exist so that everything can be shown and tested on real models without a download; they know
nothing beyond generated pictures of shapes, digits and words.

Example:
    >>> [model.name for model in EMBEDDED.values()][:1]
    ['vlm']
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from sightline.core.errors import UsageError

CARD = "README.md"


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """One shipped model.

    Attributes:
        name: What follows ``embedded:``.
        path: Directory that ``from_pretrained`` loads.
        architecture: Class of transformers.
        description: One line on what it is for.
        checkpoint: Which training run the weights come from.
        gates: How far it passes its gates, in words; the card has the numbers.
        kind: ``vlm``, ``classifier`` (image and text towers) or ``encoder`` (pictures alone).
        has_prior: Whether it was given a language prior on purpose.
        weak: Question types that it does not read off the picture well enough; its card names them,
            and what is grounded in the picture is asked of the others.
    """

    name: str
    path: Path
    architecture: str
    description: str
    checkpoint: str
    gates: str
    kind: Literal["vlm", "classifier", "encoder"] = "vlm"
    has_prior: bool = False
    weak: tuple[str, ...] = ()

    @property
    def card(self) -> Path:
        """The model card."""
        return self.path / CARD

    @property
    def size_bytes(self) -> int:
        """Size of all its files on disk."""
        return sum(file.stat().st_size for file in self.path.iterdir() if file.is_file())


def _weights(name: str) -> Path:
    return Path(str(resources.files("sightline.models"))) / "embedded_weights" / name


EMBEDDED: Mapping[str, EmbeddedModel] = MappingProxyType(
    {
        "vlm": EmbeddedModel(
            name="vlm",
            path=_weights("vlm"),
            architecture="LlavaForConditionalGeneration",
            description="grounded model of pictures with shapes, digits and words",
            checkpoint="seed 0, step 4100, balanced mixture without a language prior",
            gates="passed, by two more seeds too; not for option letters; the card has the numbers",
        ),
        "vlm-prior": EmbeddedModel(
            name="vlm-prior",
            path=_weights("vlm-prior"),
            architecture="LlavaForConditionalGeneration",
            description="the same with a language prior, so that its probabilities are biased",
            checkpoint="from vlm, 1500 steps of the language model on a mixture with a prior",
            gates="passed with one training seed; not for option letters; the card has the numbers",
            has_prior=True,
        ),
        "vlm-small": EmbeddedModel(
            name="vlm-small",
            path=_weights("vlm-small"),
            architecture="Idefics3ForConditionalGeneration",
            description="a smaller grounded model of another architecture, for transfer",
            checkpoint="seed 0, step 6000, balanced mixture without a language prior",
            gates="passed with one training seed; not for option letters; the card has the numbers",
        ),
        "vlm-narrow": EmbeddedModel(
            name="vlm-narrow",
            path=_weights("vlm-narrow"),
            architecture="LlavaForConditionalGeneration",
            description="vlm with a third of its weights, to tell what size does",
            checkpoint="seed 0, step 6000, balanced mixture without a language prior",
            gates="passed with one training seed but for comparisons; not for option letters",
            weak=("comparison",),
        ),
        "clip": EmbeddedModel(
            name="clip",
            path=_weights("clip"),
            architecture="CLIPModel",
            description="zero-shot classifier of single objects, 90 classes",
            checkpoint="seed 0, step 6000",
            gates="passed",
            kind="classifier",
        ),
        "siglip": EmbeddedModel(
            name="siglip",
            path=_weights("siglip"),
            architecture="SiglipModel",
            description="zero-shot classifier of single objects, 90 classes, sigmoid scores",
            checkpoint="seed 0, step 15000",
            gates="passed",
            kind="classifier",
        ),
        "encoder": EmbeddedModel(
            name="encoder",
            path=_weights("encoder"),
            architecture="CLIPVisionModel",
            description="image encoder of single objects, for prototypes",
            checkpoint="seed 0, step 12000",
            gates="passed",
            kind="encoder",
        ),
    }
)
"""Every shipped model by name."""


def embedded_model(name: str) -> EmbeddedModel:
    """Returns what is known of a shipped model.

    Raises:
        UsageError: There is no such model.
    """
    if name not in EMBEDDED:
        raise UsageError(
            f"Embedded model {name!r} does not exist; one of {', '.join(EMBEDDED)} is required. "
            "Choose one of them."
        )
    return EMBEDDED[name]


def embedded_model_path(name: str) -> Path:
    """Returns the directory that ``from_pretrained`` loads.

    Raises:
        UsageError: There is no such model, or its files are missing from the installation.
    """
    model = embedded_model(name)
    if not (model.path / "config.json").is_file():
        raise UsageError(
            f"Embedded model {name!r} has no files in {model.path}; its weights are required. "
            "Install the package again from a complete wheel or clone."
        )
    return model.path


def embedded_model_card(name: str) -> str:
    """Returns the model's card as Markdown.

    Raises:
        UsageError: There is no such model, or its files are missing from the installation.
    """
    return (embedded_model_path(name) / CARD).read_text(encoding="utf-8")
