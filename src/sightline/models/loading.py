"""Loading a model by what the user names: ``fake``, ``embedded:…``, a directory or a hub name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import ModelError, UsageError
from sightline.core.protocols import VisionLanguageModel
from sightline.data.prompts import PromptStyle
from sightline.models.checkpoints import Checkpoint, content_hash, find_checkpoint, quiet
from sightline.models.open_clip import OPEN_CLIP, load_open_clip
from sightline.models.openai import PREFIX, EndpointSettings, load_endpoint
from sightline.models.openai.settings import refuse_endpoint, required_endpoint
from sightline.models.soundness import (
    STYLE_FILE,
    read_object,
    refusals,
    require_all_weights,
    require_readers,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch
    from PIL import Image

    from sightline.models.classifiers import ImageEncoder, Pool, ZeroShotClassifier
    from sightline.models.open_clip import OpenClipClassifier

_WEIGHTS = "its weights and config.json"
_CLASSIFIER = "a model with an image and a text tower (CLIP, SigLIP)"
_ENCODER = "a model that reads pictures alone"
_READERS = "its processor and tokenizer files (processor_config.json, tokenizer.json, …)"


def load_model(
    spec: str,
    *,
    device_map: str | Mapping[str, Any] | None = None,
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    style: PromptStyle | Mapping[str, str] | None = None,
    blank_colour: str = "white",
    endpoint: EndpointSettings | None = None,
) -> VisionLanguageModel:
    """Loads a model that can be observed.

    Quantised checkpoints load as transformers loads them, by their own configuration.

    Args:
        spec: ``fake``, ``embedded:<name>``, a model directory, a hub name ``owner/model``, or
            ``openai:<name>`` for a model behind an endpoint.
        device_map: As transformers takes it (``auto``, ``cpu``, ``cuda:1``, a mapping); None = the
            first GPU, else the CPU.
        dtype: ``float32``, ``bfloat16``, ``float16``, or ``auto``: the checkpoint's, and float32
            on the CPU.
        revision: Branch, tag or commit of a hub model.
        trust_remote_code: Run Python code that comes with the model; never taken from data.
        style: How examples become text; None = the model directory's own style file, or what the
            endpoint says of itself, else the default. A mapping changes single fields of that.
        blank_colour: Colour of the image that stands for "no image".
        endpoint: Where ``openai:<name>`` is served.

    Raises:
        UsageError: The model does not exist, is damaged, cannot be loaded, or brings code that was
            not allowed to run; the device is not there; the colour is none.
        EndpointError: No server of an endpoint can be asked.
        MissingExtraError: torch, transformers or the HTTP client is not installed.
    """
    _require_colour(blank_colour)
    if spec.startswith(PREFIX):
        return load_endpoint(
            spec.removeprefix(PREFIX),
            required_endpoint(
                spec,
                endpoint,
                device_map=device_map,
                dtype=dtype,
                revision=revision,
                trust_remote_code=trust_remote_code,
            ),
            style=style,
            blank_colour=blank_colour,
        )
    refuse_endpoint(spec, endpoint)
    if spec == "fake":
        from sightline.models.fake import FakeModel

        return FakeModel(style=_chosen_style(PromptStyle(), style))
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

    if found.is_local:
        require_readers(found.directory, text=True)
    own_style = _chosen_style(_own_style(found.directory), style)
    required = "an image-text-to-text model of transformers"
    settings: dict[str, Any] = _hub_settings(found, revision, trust_remote_code)
    with quiet(transformers), refusals(spec, _WEIGHTS, required):
        model, report = transformers.AutoModelForImageTextToText.from_pretrained(
            found.source, **_weight_settings(found), **settings
        )
    require_all_weights(spec, report)
    with quiet(transformers), refusals(spec, _READERS, required):
        processor = _processor(transformers, found.source, model.config, settings)
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise UsageError(
            f"{spec} has no processor of images and text, only a {type(processor).__name__}; "
            f"{required} is required. Check processor_config.json, or download the model again."
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
        style=own_style,
        blank_colour=blank_colour,
    )


def check_model(spec: str, **options: Any) -> None:
    """Raises what `load_model` would say of the model's name and settings, without loading it.

    Args:
        spec: As `load_model` takes it.
        options: Those of `load_model`.

    Raises:
        UsageError: As `load_model`, as far as the files tell.
        MissingExtraError: torch or transformers is not installed.
    """
    _require_colour(options.get("blank_colour", "white"))
    known = ("device_map", "dtype", "revision", "trust_remote_code")
    chosen = {name: options[name] for name in known if name in options}
    if spec.startswith(PREFIX):
        required_endpoint(spec, options.get("endpoint"), **chosen).api_key()
        return
    refuse_endpoint(spec, options.get("endpoint"))
    if spec == "fake":
        return
    found = find_checkpoint(spec, purpose="observing a local model", **chosen)
    if found.is_local:
        require_readers(found.directory, text=True)


def files_hash(spec: str, **options: Any) -> str | None:
    """The hash of files that a model's fingerprint will have, without loading the model.

    Args:
        spec: As `load_model` takes it.
        options: Those of `load_model`.

    Returns:
        None where the model has no directory on this machine: an endpoint's, or one of the hub.

    Raises:
        UsageError: As `check_model`.
    """
    check_model(spec, **options)
    if spec == "fake" or spec.startswith(PREFIX):
        return None
    known = ("device_map", "dtype", "revision", "trust_remote_code")
    chosen = {name: options[name] for name in known if name in options}
    found = find_checkpoint(spec, purpose="observing a local model", **chosen)
    return content_hash(found.directory) if found.is_local else None


def load_classifier(
    spec: str,
    *,
    device_map: str | None = None,
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> ZeroShotClassifier | OpenClipClassifier:
    """Loads a CLIP, SigLIP or SigLIP 2 model; the arguments are those of `load_model`.

    ``open_clip:ARCHITECTURE/WEIGHTS`` is a model of open_clip, in float32; of the arguments only
    the device is for it.

    Raises:
        UsageError: The model does not exist, cannot be loaded, or is no such model.
        MissingExtraError: torch or transformers is not installed.
    """
    if spec.startswith(OPEN_CLIP):
        return load_open_clip(spec, device_map=device_map)
    found, model, settings = _load_vectors(
        spec,
        "classifying pictures",
        device_map=device_map,
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    if not hasattr(model, "logit_scale") or not hasattr(model, "get_text_features"):
        raise UsageError(
            f"{spec} is a {type(model).__name__}; {_CLASSIFIER} is required. Name one, such as "
            "embedded:clip."
        )
    import transformers

    from sightline.models.classifiers import ZeroShotClassifier

    if found.is_local:
        require_readers(found.directory, text=True)
    with quiet(transformers), refusals(spec, _READERS, _CLASSIFIER):
        processor = transformers.AutoProcessor.from_pretrained(found.source, **settings)
        classifier = ZeroShotClassifier(model, processor, found)
        classifier.image_vectors([_probe_image()])
        classifier.text_vectors(["a probe"])
    return classifier


def load_image_encoder(
    spec: str,
    *,
    device_map: str | None = None,
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    pool: Pool = "model",
    prepare: Callable[[Sequence[Image.Image]], Mapping[str, torch.Tensor]] | None = None,
) -> ImageEncoder:
    """Loads any vision model; the other arguments are those of `load_model`.

    A checkpoint without weights of its pooling layer (DINO's) is pooled by its class token.

    Args:
        spec: A model directory, a hub name or ``embedded:encoder``.
        device_map: As in `load_model`.
        dtype: As in `load_model`.
        revision: As in `load_model`.
        trust_remote_code: As in `load_model`.
        pool: How its tokens come to one vector; see `ImageEncoder`.
        prepare: A classifier's preparation of pictures, to be used instead of the model's own.

    Raises:
        UsageError: The model does not exist, cannot be loaded, has a text tower too, gives no
            vector, or cannot read pictures as the classifier prepares them.
        MissingExtraError: torch or transformers is not installed.
    """
    found, model, settings = _load_vectors(
        spec,
        "encoding pictures",
        device_map=device_map,
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
        pooler_optional=True,
    )
    if hasattr(model, "get_text_features") or model.main_input_name != "pixel_values":
        raise UsageError(
            f"{spec} is a {type(model).__name__}; {_ENCODER} is required. Name one, such as "
            "embedded:encoder, or use the classifier's own image vectors."
        )
    import transformers

    from sightline.models.classifiers import ImageEncoder
    from sightline.models.preprocessing import picture_preparation

    if prepare is not None:
        encoder = ImageEncoder(model, prepare, found, pool=pool, preparation="classifier")
        try:
            encoder.vectors([_probe_image()])
        except (ModelError, ValueError, TypeError) as error:
            raise UsageError(
                f"{spec} cannot read pictures as the classifier prepares them "
                f"({' '.join(str(error).split())[:200]}); input of one kind and size is required. "
                "Leave --encoder-preprocessing out, or choose an encoder of the classifier's size."
            ) from error
        return encoder
    if found.is_local:
        require_readers(found.directory, text=False)
    with quiet(transformers), refusals(spec, _READERS, _ENCODER):
        processor = transformers.AutoImageProcessor.from_pretrained(found.source, **settings)
        encoder = ImageEncoder(model, picture_preparation(processor), found, pool=pool)
        encoder.vectors([_probe_image()])
    return encoder


def _load_vectors(
    spec: str,
    purpose: str,
    *,
    device_map: str | None,
    dtype: str,
    revision: str | None,
    trust_remote_code: bool,
    pooler_optional: bool = False,
) -> tuple[Checkpoint, Any, dict[str, Any]]:
    """The weights of a model, and the settings that its processor is loaded with."""
    found = find_checkpoint(
        spec,
        device_map=device_map,
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
        purpose=purpose,
    )
    import transformers

    settings = _hub_settings(found, revision, trust_remote_code)
    with quiet(transformers), refusals(spec, _WEIGHTS, "a model directory of transformers"):
        model, report = transformers.AutoModel.from_pretrained(
            found.source, **_weight_settings(found), **settings
        )
    pooler = {name for name, _ in model.named_parameters() if name.startswith("pooler.")}
    if pooler_optional and pooler and set(report["missing_keys"]) == pooler:
        model.pooler = None
        report = {**report, "missing_keys": []}
    require_all_weights(spec, report)
    return found, model, settings


def _hub_settings(
    found: Checkpoint, revision: str | None, trust_remote_code: bool
) -> dict[str, Any]:
    """Which files are taken, of weights and processor alike."""
    return {
        "revision": revision,
        "trust_remote_code": trust_remote_code,
        "local_files_only": found.cached_only,
    }


def _weight_settings(found: Checkpoint) -> dict[str, Any]:
    return {
        "dtype": found.dtype,
        "device_map": None if found.device == "cpu" else found.device,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # they are in the report, with both shapes
    }


def _chosen_style(own: PromptStyle, asked: PromptStyle | Mapping[str, str] | None) -> PromptStyle:
    if isinstance(asked, PromptStyle):
        return asked
    return PromptStyle.from_dict({**own.to_dict(), **(asked or {})})


def _own_style(directory: Path) -> PromptStyle:
    path = directory / STYLE_FILE
    if not path.exists():
        return PromptStyle()
    values = read_object(path)
    try:
        return PromptStyle.from_dict(values)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _probe_image() -> Image.Image:
    from PIL import Image

    return Image.new("RGB", (64, 48))


def _require_colour(colour: str) -> None:
    from PIL import ImageColor

    try:
        ImageColor.getcolor(colour, "RGB")
    except ValueError:
        raise UsageError(
            f"blank_colour {colour!r} is no colour that Pillow knows; a name (white, gray) or "
            "#rrggbb is required. Correct --model-args blank_colour=…."
        ) from None


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
