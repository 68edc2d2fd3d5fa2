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
from typing import TYPE_CHECKING, Any, Literal, get_args

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

Pool = Literal["model", "cls", "mean"]
"""How the tokens of an image encoder come to one vector; see `ImageEncoder`."""
POOLS: tuple[str, ...] = get_args(Pool)

_BATCH = 64
_CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")
_MASKING = "vit_mae"  # drops three patches of four at random unless it is told not to
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

    def prepare(self, images: Sequence[Image.Image]) -> Mapping[str, torch.Tensor]:
        """What the image tower is given of RGB pictures: scaled, cropped and normalised."""
        return self._prepared(images)

    def image_vectors(self, images: Sequence[Image.Image]) -> Float[np.ndarray, "n d"]:
        """Unit vectors (float32) of RGB pictures."""
        compute = self._model.get_image_features
        return _unit(
            _in_batches(images, self._prepared, lambda **i: _given(compute(**i)), self._model)
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
                lambda **inputs: _given(self._model.get_text_features(**inputs)),
                self._model,
            )
        )


def class_logits(
    model: ImageTextModel, images: Float[np.ndarray, "n d"], texts: Float[np.ndarray, "k d"]
) -> Float[np.ndarray, "n k"]:
    """Logit of each text for each picture, from unit vectors."""
    return model.scale * (images @ texts.T) + model.bias


class ImageEncoder:
    """Any vision model of transformers, its tokens or feature map pooled to one vector a picture.

    ``pool`` says how: ``model`` takes the model's own pooled output; a model without one gives its
    class token, or where it has none the mean of all tokens. ``cls`` takes the class token, and
    ``mean`` the mean of all tokens of the last layer, the class token among them, as TrustVLM's
    released code does. What is spatial (a ResNet's pooled output or feature map) is averaged over
    its places.

    Raises:
        UsageError: The class token of a model without one is asked for.
    """

    def __init__(
        self,
        model: Any,
        prepare: Callable[[Sequence[Image.Image]], Mapping[str, torch.Tensor]],
        found: Checkpoint,
        *,
        pool: Pool = "model",
        preparation: str | None = None,
    ) -> None:
        """Wraps a loaded model.

        Args:
            model: The model.
            prepare: Turns RGB pictures into its input.
            found: Its files.
            pool: How tokens come to one vector.
            preparation: Whose preparation of pictures it is, where it is not the model's own.
        """
        self._model = model.eval()
        self._prepare = prepare
        self._found = found
        self._preparation = preparation
        self._pool = pool
        self._has_class_token = any(
            name.rpartition(".")[2] in _CLASS_TOKENS for name, _ in model.named_parameters()
        )
        if pool == "cls" and not self._has_class_token:
            raise UsageError(
                f"{found.name} is a {type(model).__name__} without a class token, which pool=cls "
                "requires. Write pool=mean, or leave it out."
            )
        if model.config.model_type == _MASKING:
            model.config.mask_ratio = 0.0

    def fingerprint(self) -> Mapping[str, Any]:
        """What identifies the model: name, architecture, content hash, precision.

        Also its pooling and whose preparation of pictures it is given, where these are not its own.
        """
        chosen: dict[str, str] = {"pool": self._pool} if self._pool != "model" else {}
        if self._preparation is not None:
            chosen["preprocessing"] = self._preparation
        return {**_fingerprint(self._model, self._found), **chosen}

    def vectors(self, images: Sequence[Image.Image]) -> Float[np.ndarray, "n d"]:
        """Pooled vectors (float32) of RGB pictures, as the model gives them, not normalised.

        Raises:
            UsageError: The model gives neither a pooled output nor tokens.
        """
        return _in_batches(images, self._prepare, self._pooled, self._model)

    def _pooled(self, **inputs: torch.Tensor) -> torch.Tensor:
        if self._model.config.model_type == _MASKING:
            # It orders patches by noise before it drops the last ones; this keeps all in place.
            patches = self._model.embeddings.patch_embeddings.num_patches
            order = torch.arange(patches, device=self._model.device, dtype=torch.float32)
            inputs["noise"] = order.expand(len(inputs["pixel_values"]), -1)
        output = self._model(**inputs)
        own = _given(output) if self._pool == "model" else None
        found = _last_layer(output) if own is None else own
        if found is None or found.ndim not in ((2, 4) if own is not None else (3, 4)):
            shape = "nothing" if found is None else f"an array of shape {tuple(found.shape)}"
            raise UsageError(
                f"{self._found.name} is a {type(self._model).__name__}, which gives {shape} for a "
                "picture; a pooled output, tokens or a feature map is required. Use another model, "
                "or a file of vectors computed elsewhere."
            )
        if found.ndim == 4:
            return found.float().flatten(2).mean(dim=2)
        if found.ndim == 2:
            return found
        if self._pool != "mean" and self._has_class_token:
            return found[:, 0]
        return found.float().mean(dim=1)


def _given(output: Any) -> torch.Tensor | None:
    """The pooled output, if there is one."""
    found: torch.Tensor | None = getattr(output, "pooler_output", None)
    return found


def _last_layer(output: Any) -> torch.Tensor | None:
    """Tokens or feature map of the last layer, if the model shows them."""
    maps = getattr(output, "feature_maps", None)
    found: torch.Tensor | None = getattr(output, "last_hidden_state", None)
    return maps[-1] if found is None and maps else found


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
            vectors.append(compute(**inputs).float().cpu().numpy())
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
