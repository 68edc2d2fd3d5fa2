"""Image encoders by what the user names, and the prompt templates a classifier is used with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args
from urllib.parse import parse_qsl

from sightline.core.errors import UsageError
from sightline.data.vector_files import SUFFIXES
from sightline.models import load_image_encoder
from sightline.workflow.classifying.collecting import encoder_name
from sightline.workflow.classifying.embedding import FileEncoder, ModelEncoder, PictureEncoder

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


Preprocessing = Literal["own", "classifier"]
"""Whose preparation of pictures auxiliary encoders are given: their own, or the classifier's."""
PREPROCESSING: tuple[str, ...] = get_args(Preprocessing)


class Preparing(Protocol):
    """A classifier whose preparation of pictures can be shared."""

    def prepare(self, images: Sequence[Image]) -> Mapping[str, torch.Tensor]:
        """What its image tower is given of RGB pictures."""
        ...


def load_encoders(
    specs: Sequence[str],
    options: Mapping[str, Any],
    *,
    preprocessing: Preprocessing = "own",
    classifier: Preparing | None = None,
) -> list[PictureEncoder]:
    """Loads image encoders, and reads files of vectors.

    Args:
        specs: Each a model directory, a hub name or ``embedded:encoder``, with ``?pool=cls`` or
            ``?pool=mean`` behind it where it is not to be pooled as the model does it; or a .npz,
            .safetensors or .parquet file.
        options: Passed to the loading of a model; the revision is the classifier's alone.
        preprocessing: classifier gives all that look at pictures the classifier's own input.
        classifier: Whose that is.

    Raises:
        UsageError: A model cannot be loaded, or the classifier's preparation is asked for and no
            encoder looks at pictures.
        DataError: A file holds no vectors by key.
    """
    if preprocessing not in PREPROCESSING:
        raise UsageError(
            f"Encoder preprocessing {preprocessing!r}; one of {', '.join(PREPROCESSING)} is "
            "required. Choose among these."
        )
    prepare = classifier.prepare if preprocessing == "classifier" and classifier else None
    encoders = [_load(spec, options, prepare) for spec in specs]
    if preprocessing == "classifier" and not any(isinstance(e, ModelEncoder) for e in encoders):
        raise UsageError(
            f"--encoder-preprocessing classifier with {len(encoders)} encoders, none of which "
            "looks at pictures; one that does is required. Name a model with --encoder, or leave "
            "it out."
        )
    return encoders


def _load(
    spec: str,
    options: Mapping[str, Any],
    prepare: Callable[[Sequence[Image]], Mapping[str, torch.Tensor]] | None,
) -> PictureEncoder:
    place, pool = _pooled(spec)
    if Path(place).suffix.lower() in SUFFIXES:
        if place != spec:
            raise UsageError(
                f"--encoder {spec} sets how a file of vectors is pooled; only a model has tokens. "
                f"Write {place}."
            )
        return FileEncoder.read(Path(place))
    mine = {name: value for name, value in options.items() if name != "revision"}
    name = encoder_name(place) if pool == "model" else f"{encoder_name(place)}-{pool}"
    return ModelEncoder.of(name, load_image_encoder(place, pool=pool, prepare=prepare, **mine))


def _pooled(spec: str) -> tuple[str, Any]:
    """The place, and the pooling that stands behind its question mark."""
    if "?" not in spec or Path(spec).exists():
        return spec, "model"
    from sightline.models.classifiers import POOLS

    place, _, query = spec.rpartition("?")
    settings = parse_qsl(query, keep_blank_values=True)
    if len(settings) != 1 or settings[0][0] != "pool" or settings[0][1] not in POOLS:
        raise UsageError(
            f"--encoder {spec} sets {query[:60]!r}; only pool is known there, one of "
            f"{', '.join(POOLS)}. For example: {place}?pool=mean."
        )
    return place, settings[0][1]


def usual_templates(model: str, *, sigmoid: bool) -> str:
    """Name of the prompt templates that a kind of model is used with."""
    if model.startswith("embedded:"):
        return "picture"
    return "this-is" if sigmoid else "photo"
