"""Image encoders by what the user names, and the prompt templates a classifier is used with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sightline.data.vector_files import SUFFIXES
from sightline.models import load_image_encoder
from sightline.workflow.classifying.collecting import encoder_name
from sightline.workflow.classifying.embedding import FileEncoder, ModelEncoder, PictureEncoder


def load_encoder(spec: str, options: Mapping[str, Any]) -> PictureEncoder:
    """Loads an image encoder, or reads a file of vectors.

    Args:
        spec: A model directory, a hub name, ``embedded:encoder``, or a .npz, .safetensors or
            .parquet file.
        options: Passed to the loading of a model; the revision is the classifier's alone.

    Raises:
        UsageError: The model cannot be loaded.
        DataError: The file holds no vectors by key.
    """
    if Path(spec).suffix.lower() in SUFFIXES:
        return FileEncoder.read(Path(spec))
    mine = {name: value for name, value in options.items() if name != "revision"}
    return ModelEncoder.of(encoder_name(spec), load_image_encoder(spec, **mine))


def usual_templates(model: str, *, sigmoid: bool) -> str:
    """Name of the prompt templates that a kind of model is used with."""
    if model.startswith("embedded:"):
        return "picture"
    return "this-is" if sigmoid else "photo"
