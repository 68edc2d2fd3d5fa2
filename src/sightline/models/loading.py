"""Loading a model by what the user names: ``fake``, ``embedded:vlm``, a directory or a hub name."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from sightline.core.errors import MissingExtraError, UsageError
from sightline.core.protocols import VisionLanguageModel
from sightline.data.prompts import PromptStyle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STYLE_FILE = "prompt_style.json"
"""A model directory may hold the prompt style it was trained with, as `PromptStyle.to_dict`."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SETTINGS = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
)
_CODE_KEYS = ("auto_map", "_attn_implementation_internal")
_DTYPES = ("auto", "float32", "bfloat16", "float16")
_BLOCK = 1024


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
    if dtype not in _DTYPES:
        raise UsageError(f"dtype {dtype!r}; one of {', '.join(_DTYPES)} is required. Choose one.")
    if spec.startswith("embedded:"):
        from sightline.models.embedded import embedded_model_path

        source, name = str(embedded_model_path(spec.removeprefix("embedded:"))), spec
    else:
        source = _source(spec)
        name = Path(source).resolve().name if Path(source).is_dir() else spec
    try:
        import torch
        import transformers
    except ImportError as error:
        package = "transformers" if "transformers" in str(error) else "torch"
        raise MissingExtraError(package, "models", "observing a local model") from error
    from sightline.models.transformers import TransformersModel

    directory = _checked_settings(source, revision, trust_remote_code=trust_remote_code)
    if style is None:
        style = _own_style(directory)
    on_gpu = torch.cuda.is_available() and device_map != "cpu"
    device = device_map if device_map is not None else "cuda:0" if on_gpu else "cpu"
    settings: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    precision = "float32" if dtype == "auto" and not on_gpu else dtype
    try:
        with _quiet(transformers):
            model, report = transformers.AutoModelForImageTextToText.from_pretrained(
                source,
                dtype=precision,
                device_map=None if device == "cpu" else device,
                output_loading_info=True,
                **settings,
            )
            processor = _processor(transformers, source, model.config, settings)
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
        "name": name,
        "revision": getattr(model.config, "_commit_hash", None) or revision,
        "files_xxh3": _identity(directory),
        "quantization": _quantization(model.config),
    }
    return TransformersModel(
        model, processor, identity=identity, style=style, blank_colour=blank_colour
    )


def _source(spec: str) -> str:
    """Returns a directory or a hub name, and refuses what is neither without asking the hub."""
    path = Path(spec).expanduser() if spec.startswith("~/") else Path(spec)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UsageError(
                f"{spec} holds no config.json; a model directory as save_pretrained writes it is "
                "required. Give the directory that holds the model's files."
            )
        return str(path)
    # "runs/model" with an existing "runs" is a missing path, not a hub name.
    if _HUB_NAME.fullmatch(spec) is None or path.parent.exists():
        raise UsageError(
            f"{spec} does not exist; a model directory, a hub name (owner/model), embedded:vlm or "
            "fake is required. Check the path."
        )
    return spec


def _checked_settings(source: str, revision: str | None, *, trust_remote_code: bool) -> Path:
    """Reads the model's settings as JSON only and returns the directory they lie in.

    Raises:
        UsageError: They name code to import, and that was not allowed; or there is no such model.
    """
    from transformers.utils import cached_file

    directory = Path(source)
    for name in _SETTINGS:
        try:
            found = cached_file(
                source,
                name,
                revision=revision,
                _raise_exceptions_for_missing_entries=name == "config.json",
            )
        except OSError as error:
            raise UsageError(
                f"{source} has no readable config.json ({' '.join(str(error).split())[:200]}); a "
                "model directory or a reachable hub name is required. Check name and network."
            ) from error
        if found is None:
            continue
        directory = Path(found).parent
        try:
            values = json.loads(Path(found).read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(
                f"{found} is not JSON ({error}); a valid settings file is required. "
                "Download the model again."
            ) from error
        key = _code_key(values)
        if key is not None and not trust_remote_code:
            raise UsageError(
                f"{name} of {source} names code to run ({key}); models that bring code are refused "
                "by default. Read that code, then pass --trust-remote-code if you trust it."
            )
    return directory


def _code_key(values: Any) -> str | None:
    if isinstance(values, dict):
        for key, value in values.items():
            if key in _CODE_KEYS and value:
                return str(key)
            found = _code_key(value)
            if found is not None:
                return found
    return None


def _own_style(directory: Path) -> PromptStyle:
    path = directory / STYLE_FILE
    if not path.is_file():
        return PromptStyle()
    return PromptStyle.from_dict(json.loads(path.read_text(encoding="utf-8")))


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No progress bars and no advice of the library while it loads; its errors still raise."""
    logging = transformers.utils.logging
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


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


def _identity(directory: Path) -> str:
    """Hash of the model's settings and weights that reads only a part of the weights.

    JSON files, chat templates and tokenizers enter whole; of every weight file its size, its
    header and the middle kilobyte of every tensor, so that another fine-tuning of the same
    architecture differs.
    """
    digest = xxhash.xxh3_128()
    for path in sorted(directory.iterdir()):
        if path.suffix in {".json", ".jinja", ".txt", ".model"}:
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
        elif path.suffix in {".safetensors", ".bin", ".pt"}:
            size = path.stat().st_size
            digest.update(f"{path.name} {size}".encode())
            with path.open("rb") as file:
                for start in _tensor_middles(file, size, path.suffix == ".safetensors", digest):
                    file.seek(start)
                    digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def _tensor_middles(file: Any, size: int, safetensors: bool, digest: Any) -> list[int]:
    if not safetensors:
        return [i * size // 64 for i in range(64)]
    length = int.from_bytes(file.read(8), "little")
    header = file.read(length)
    digest.update(header)
    offsets = [
        entry["data_offsets"]
        for name, entry in json.loads(header).items()
        if name != "__metadata__"
    ]
    return [8 + length + max(begin, (begin + end - _BLOCK) // 2) for begin, end in sorted(offsets)]
