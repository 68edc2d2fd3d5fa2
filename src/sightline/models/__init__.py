"""Models that can be observed; torch and transformers are imported only when one is loaded."""

from sightline.models.loading import (
    check_model,
    files_hash,
    load_classifier,
    load_image_encoder,
    load_model,
)
from sightline.models.text_models import load_entailment_model, load_text_encoder

__all__ = [
    "check_model",
    "files_hash",
    "load_classifier",
    "load_entailment_model",
    "load_image_encoder",
    "load_model",
    "load_text_encoder",
]
