"""Loading a model by what the user names: ``fake``, ``embedded:…``, a directory or a hub name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import UsageError
from sightline.core.protocols import VisionLanguageModel
from sightline.data.prompts import PromptStyle
from sightline.models.checkpoints import Checkpoint, content_hash, find_checkpoint, quiet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sightline.models.classifiers import ImageEncoder, ZeroShotClassifier

STYLE_FILE = "prompt_style.json"
"""A model directory may hold the prompt style it was trained with, as `PromptStyle.to_dict`."""


def load_model(
    spec: str,
    *,
    device_map: str | Mapping[str, Any] | None = None,
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    style: PromptStyle | None = None,
    blank_colour: str = "white",
) -> VisionLanguageModel:
    """Loads a model that can be observed.

    Quantised checkpoints load as transformers loads them, by their own configuration.

    Args:
        spec: ``fake``, ``embedded:<name>``, a model directory, or a hub name ``owner/model``.
        device_map: As transformers takes it (``auto``, ``cpu``, ``cuda:1``, a mapping); None = the
            first GPU, else the CPU.
        dtype: ``float32``, ``bfloat16``, ``float16``, or ``auto``: the checkpoint's, and float32
            on the CPU.
        revision: Branch, tag or commit of a hub model.
        trust_remote_code: Run Python code that comes with the model; never taken from data.
        style: How examples become text; None = the model directory's own style file, else the
            default.
        blank_colour: Colour of the image that stands for "no image".

    Raises:
        UsageError: The model does not exist, cannot be loaded, or brings code that was not
            allowed to run.
        MissingExtraError: torch or transformers is not installed.
    """
    if spec == "fake":
        from sightline.models.fake import FakeModel

        return FakeModel(style=style or PromptStyle())
    found = find_checkpoint(
        spec,
        device_map=device_map,
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
        purpose="observing a local model",
    )
    import transformers

    from sightline.models.transformers import TransformersModel

    settings: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        with quiet(transformers):
            model, report = transformers.AutoModelForImageTextToText.from_pretrained(
                found.source,
                dtype=found.dtype,
                device_map=None if found.device == "cpu" else found.device,
                output_loading_info=True,
                **settings,
            )
            processor = _processor(transformers, found.source, model.config, settings)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(
            f"{spec} could not be loaded ({' '.join(str(error).split())[:300]}); an image-text-to-"
            "text model of transformers is required. Check the name, the files and the network."
        ) from error
    absent = sorted(report["missing_keys"])
    if absent:
        raise UsageError(
            f"{spec} has no weights for {', '.join(absent[:3])} ({len(absent)} such); all weights "
            "are required, since missing ones would be random. Download the model again."
        )
    identity = {
        "name": found.name,
        "revision": getattr(model.config, "_commit_hash", None) or revision,
        "files_xxh3": content_hash(found.directory),
        "quantization": _quantization(model.config),
    }
    return TransformersModel(
        model,
        processor,
        identity=identity,
        style=_own_style(found.directory) if style is None else style,
        blank_colour=blank_colour,
    )


def check_model(spec: str, **options: Any) -> None:
    """Raises what `load_model` would say of the model's name and settings, without loading it.

    Args:
        spec: As `load_model` takes it.
        options: Those of `load_model`.

    Raises:
        UsageError: The model does not exist, or brings code that was not allowed to run.
        MissingExtraError: torch or transformers is not installed.
    """
    if spec == "fake":
        return
    known = ("device_map", "dtype", "revision", "trust_remote_code")
    chosen = {name: options[name] for name in known if name in options}
    find_checkpoint(spec, purpose="observing a local model", **chosen)


def load_classifier(
    spec: str,
    *,
    device_map: str | None = None,
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> ZeroShotClassifier:
    """Loads a CLIP, SigLIP or SigLIP 2 model; the arguments are those of `load_model`.

    Raises:
        UsageError: The model does not exist, cannot be loaded, or is no such model.
        MissingExtraError: torch or transformers is not installed.
    """
    model, processor, found = _load_vectors(
        spec,
        "classifying pictures",
        "AutoProcessor",
        device_map=device_map,
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    if not hasattr(model, "logit_scale") or not hasattr(model, "get_text_features"):
        raise UsageError(
            f"{spec} is a {type(model).__name__}; a model with an image and a text tower (CLIP, "
            "SigLIP) is required. Name one, such as embedded:clip."
        )
    from sightline.models.classifiers import ZeroShotClassifier

    return ZeroShotClassifier(model, processor, found)


def load_image_encoder(
    spec: str,
    *,
    device_map: str | None = None,
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> ImageEncoder:
    """Loads any vision model with a pooled output; the arguments are those of `load_model`.

    Raises:
        UsageError: The model does not exist, cannot be loaded, or has a text tower too.
        MissingExtraError: torch or transformers is not installed.
    """
    model, processor, found = _load_vectors(
        spec,
        "encoding pictures",
        "AutoImageProcessor",
        device_map=device_map,
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    if hasattr(model, "get_text_features") or model.main_input_name != "pixel_values":
        raise UsageError(
            f"{spec} is a {type(model).__name__}; a model that reads pictures alone is required. "
            "Name one, such as embedded:encoder, or use the classifier's own image vectors."
        )
    from sightline.models.classifiers import ImageEncoder

    return ImageEncoder(model, processor, found)


def _load_vectors(
    spec: str,
    purpose: str,
    reader: str,
    *,
    device_map: str | None,
    dtype: str,
    revision: str | None,
    trust_remote_code: bool,
) -> tuple[Any, Any, Checkpoint]:
    found = find_checkpoint(
        spec,
        device_map=device_map,
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
        purpose=purpose,
    )
    import transformers

    settings: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        with quiet(transformers):
            model = transformers.AutoModel.from_pretrained(
                found.source,
                dtype=found.dtype,
                device_map=None if found.device == "cpu" else found.device,
                **settings,
            )
            processor = getattr(transformers, reader).from_pretrained(found.source, **settings)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(
            f"{spec} could not be loaded ({' '.join(str(error).split())[:300]}); a model directory "
            "of transformers is required. Check the name, the files and the network."
        ) from error
    return model, processor, found


def _own_style(directory: Path) -> PromptStyle:
    path = directory / STYLE_FILE
    if not path.is_file():
        return PromptStyle()
    return PromptStyle.from_dict(json.loads(path.read_text(encoding="utf-8")))


def _processor(transformers: Any, source: str, config: Any, settings: dict[str, Any]) -> Any:
    """The model's processor, without its video part where torchvision is not installed."""
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    from sightline.models.inputs import images_only

    found: Any = getattr(transformers, PROCESSOR_MAPPING_NAMES.get(config.model_type, ""), None)
    if (
        found is None
        or "video_processor" not in found.get_attributes()
        or transformers.utils.is_torchvision_available()
    ):
        return transformers.AutoProcessor.from_pretrained(source, **settings)
    return images_only(found).from_pretrained(source, **settings)


def _quantization(config: Any) -> str | None:
    found = getattr(config, "quantization_config", None)
    if found is None:
        return None
    method = found.get("quant_method") if isinstance(found, dict) else found.quant_method
    return str(getattr(method, "value", method))
