"""Zero-shot classifiers and image encoders of transformers: pictures and texts to vectors.

Vectors are all that is asked of a model; every score is computed from them later.

Example:
    >>> from PIL import Image
    >>> from sightline.models import load_classifier
    >>> model = load_classifier("embedded:clip")
    >>> pictures = model.image_vectors([Image.new("RGB", (48, 48))])
    >>> class_logits(model, pictures, model.text_vectors(["a big red circle", "digit 3"])).shape
    (1, 2)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from sightline.core.errors import UsageError
from sightline.core.protocols import ImageTextModel
from sightline.models.checkpoints import Checkpoint, content_hash
from sightline.models.failures import model_errors
from sightline.models.preprocessing import picture_preparation

if TYPE_CHECKING:
    from collections.abc import Callable

_BATCH = 64
_FULL_LENGTH = ("siglip", "siglip2")  # trained on texts padded to full length


class ZeroShotClassifier:
    """A CLIP-like model; classes are texts.

    Attributes:
        scale: What cosines are multiplied by.
        bias: What is added then; 0 for CLIP.
        sigmoid: Whether a logit stands for its class alone (SigLIP) rather than against the others.
    """

    def __init__(self, model: Any, processor: Any, found: Checkpoint) -> None:
        self._model = model.eval()
        self._processor = processor
        self._prepared = picture_preparation(processor)
        self._found = found
        self.scale = float(model.logit_scale.detach().float().exp())
        bias = getattr(model, "logit_bias", None)
        self.bias = 0.0 if bias is None else float(bias.detach().float())
        self.sigmoid = bias is not None

    def fingerprint(self) -> Mapping[str, Any]:
        """What identifies the model: name, architecture, content hash, precision."""
        return _fingerprint(self._model, self._found)

    def image_vectors(self, images: Sequence[Image.Image]) -> Float[np.ndarray, "n d"]:
        """Unit vectors (float32) of RGB pictures."""
        return _unit(
            _in_batches(images, self._prepared, self._model.get_image_features, self._model)
        )

    def text_vectors(self, texts: Sequence[str]) -> Float[np.ndarray, "k d"]:
        """Unit vectors (float32) of texts, cut at the model's longest text."""
        full = self._model.config.model_type in _FULL_LENGTH
        padding = "max_length" if full else True
        return _unit(
            _in_batches(
                texts,
                lambda part: self._processor(
                    text=list(part), padding=padding, truncation=True, return_tensors="pt"
                ),
                self._model.get_text_features,
                self._model,
            )
        )


def class_logits(
    model: ImageTextModel, images: Float[np.ndarray, "n d"], texts: Float[np.ndarray, "k d"]
) -> Float[np.ndarray, "n k"]:
    """Logit of each text for each picture, from unit vectors."""
    return model.scale * (images @ texts.T) + model.bias


class ImageEncoder:
    """Any vision model of transformers with a pooled output."""

    def __init__(self, model: Any, processor: Any, found: Checkpoint) -> None:
        self._model = model.eval()
        self._prepared = picture_preparation(processor)
        self._found = found

    def fingerprint(self) -> Mapping[str, Any]:
        """What identifies the model: name, architecture, content hash, precision."""
        return _fingerprint(self._model, self._found)

    def vectors(self, images: Sequence[Image.Image]) -> Float[np.ndarray, "n d"]:
        """Pooled vectors (float32) of RGB pictures, as the model gives them, not normalised."""
        return _in_batches(images, self._prepared, self._model, self._model)


@torch.inference_mode()
def _in_batches(
    items: Sequence[Any],
    prepare: Callable[[Sequence[Any]], Mapping[str, torch.Tensor]],
    compute: Callable[..., Any],
    model: Any,
) -> Float[np.ndarray, "n d"]:
    if not items:
        raise UsageError("No picture or text was given; at least one is required. Check the data.")
    vectors = []
    for at in range(0, len(items), _BATCH):
        inputs = {
            name: value.to(model.device, model.dtype if value.is_floating_point() else None)
            for name, value in prepare(items[at : at + _BATCH]).items()
        }
        with model_errors():
            vectors.append(compute(**inputs).pooler_output.float().cpu().numpy())
    return np.concatenate(vectors)


def _unit(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _fingerprint(model: Any, found: Checkpoint) -> dict[str, Any]:
    return {
        "name": found.name,
        "architecture": type(model).__name__,
        "revision": getattr(model.config, "_commit_hash", None),
        "files_xxh3": content_hash(found.directory),
        "dtype": str(model.dtype).removeprefix("torch."),
    }
