"""Zero-shot classifiers of open_clip, by architecture and weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from jaxtyping import Float
from PIL import Image

from sightline.core.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    import torch

OPEN_CLIP = "open_clip:"

_BATCH = 64


class OpenClipClassifier:
    """A model of open_clip; classes are texts.

    Attributes:
        scale: What cosines are multiplied by.
        bias: What is added then; 0 for CLIP.
        sigmoid: Whether a logit stands for its class alone (SigLIP) rather than against the others.
    """

    def __init__(self, model: Any, preprocess: Any, tokenizer: Any, name: str, device: str) -> None:
        self._model = model.eval().to(device)
        self._preprocess, self._tokenizer = preprocess, tokenizer
        self._name, self._device = name, device
        self.scale = float(model.logit_scale.detach().float().exp())
        bias = getattr(model, "logit_bias", None)
        self.bias = 0.0 if bias is None else float(bias.detach().float())
        self.sigmoid = bias is not None

    def fingerprint(self) -> Mapping[str, Any]:
        """What identifies the model: name, architecture, hash of its weights, precision."""
        digest = xxhash.xxh3_128()
        for name, tensor in sorted(self._model.state_dict().items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(tensor.detach().float().cpu().numpy()).data)
        return {
            "name": self._name,
            "architecture": self._name.removeprefix(OPEN_CLIP).partition("/")[0],
            "weights_xxh3": digest.hexdigest(),
            "dtype": str(next(self._model.parameters()).dtype).removeprefix("torch."),
        }

    def prepare(self, images: Sequence[Image.Image]) -> Mapping[str, torch.Tensor]:
        """What the image tower is given of RGB pictures: scaled, cropped and normalised."""
        import torch

        return {"pixel_values": torch.stack([self._preprocess(image) for image in images])}

    def image_vectors(self, images: Sequence[Image.Image]) -> Float[np.ndarray, "n d"]:
        """Unit vectors (float32) of RGB pictures."""
        return self._vectors(
            images, lambda part: [self._preprocess(i) for i in part], self._model.encode_image
        )

    def text_vectors(self, texts: Sequence[str]) -> Float[np.ndarray, "k d"]:
        """Unit vectors (float32) of texts, cut at the model's longest text."""
        return self._vectors(
            texts, lambda part: list(self._tokenizer(list(part))), self._model.encode_text
        )

    def _vectors(
        self,
        items: Sequence[Any],
        prepare: Callable[[Sequence[Any]], list[Any]],
        encode: Callable[..., Any],
    ) -> Float[np.ndarray, "n d"]:
        import torch

        from sightline.models.failures import model_errors

        if not items:
            raise UsageError(
                "No picture or text was given; at least one is required. Check the data."
            )
        found = []
        with model_errors(), torch.inference_mode():
            for at in range(0, len(items), _BATCH):
                batch = torch.stack(prepare(items[at : at + _BATCH])).to(self._device)
                found.append(encode(batch, normalize=True).float().cpu().numpy())
        return np.concatenate(found)


def load_open_clip(spec: str, *, device_map: str | None = None) -> OpenClipClassifier:
    """Loads ``open_clip:ARCHITECTURE/WEIGHTS``; WEIGHTS is a name open_clip knows, or a file.

    Raises:
        UsageError: There is no such architecture or weights, or they cannot be loaded.
        MissingExtraError: open_clip is not installed.
    """
    architecture, _, weights = spec.removeprefix(OPEN_CLIP).partition("/")
    try:
        import open_clip
        import torch
    except ImportError as error:
        raise MissingExtraError("open_clip", "open-clip", "loading its classifiers") from error
    if architecture not in open_clip.list_models():
        raise UsageError(
            f"{spec} names the architecture {architecture!r}, which open_clip lacks; one of "
            "open_clip.list_models() is required. For example open_clip:ViT-B-32/openai."
        )
    known = open_clip.list_pretrained_tags_by_model(architecture)
    if not weights or (weights not in known and not Path(weights).is_file()):
        raise UsageError(
            f"{spec} names the weights {weights!r}; a file, or one of {', '.join(known[:8])} is "
            f"required. For example open_clip:{architecture}/{known[0] if known else 'FILE'}."
        )
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(
            architecture, pretrained=weights
        )
        tokenizer = open_clip.get_tokenizer(architecture)
    except (OSError, RuntimeError, ValueError, KeyError, AssertionError) as error:
        raise UsageError(
            f"{spec} cannot be loaded ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:160]}); weights of this architecture are required. "
            "Check the name, the file and the network."
        ) from None
    usual = "cuda" if torch.cuda.is_available() else "cpu"
    return OpenClipClassifier(model, preprocess, tokenizer, spec, device_map or usual)
