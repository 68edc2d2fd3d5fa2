"""Models that can be observed; torch and transformers are imported only when one is loaded."""

from sightline.models.loading import (
    check_model,
    load_classifier,
    load_image_encoder,
    load_model,
)

__all__ = ["check_model", "load_classifier", "load_image_encoder", "load_model"]
