"""Model directories and hub names: found, refused before any code runs, identified by content."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from sightline.core.errors import MissingExtraError, UsageError
from sightline.models.soundness import read_object, require_whole, tensor_offsets

if TYPE_CHECKING:
    from collections.abc import Iterator

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
_PLACEMENTS = ("auto", "balanced", "balanced_low_0", "sequential", "disk")
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model that may be loaded.

    Attributes:
        source: Directory or hub name, as ``from_pretrained`` takes it.
        name: What the user calls it.
        directory: Where its settings lie.
        device: What ``device_map`` takes.
        dtype: What ``dtype`` takes.
        cached_only: Whether the hub cannot be reached, so that its copy on this machine is used.
    """

    source: str
    name: str
    directory: Path
    device: Any
    dtype: str
    cached_only: bool

    @property
    def is_local(self) -> bool:
        """Whether it is a directory rather than a hub name."""
        return Path(self.source).is_dir()


def find_checkpoint(
    spec: str,
    *,
    device_map: Any = None,
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    purpose: str,
) -> Checkpoint:
    """Finds a model and examines its files as data, before anything of it is loaded.

    Args:
        spec: ``embedded:<name>``, a model directory, or a hub name ``owner/model``.
        device_map: As transformers takes it; None = the first GPU, else the CPU.
        dtype: ``float32``, ``bfloat16``, ``float16``, or ``auto``: the checkpoint's, and float32
            on the CPU.
        revision: Branch, tag or commit of a hub model.
        trust_remote_code: Allow settings that name Python code to run.
        purpose: What it is loaded for, as a message says it.

    Raises:
        UsageError: The model does not exist, is not whole, or brings code that was not allowed to
            run; or the device is not there.
        MissingExtraError: torch or transformers is not installed.
    """
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
        import transformers  # noqa: F401
    except ImportError as error:
        package = "transformers" if "transformers" in str(error) else "torch"
        raise MissingExtraError(package, "models", purpose) from error
    _require_devices(device_map)
    on_gpu = torch.cuda.is_available() and device_map != "cpu"
    local = Path(source).is_dir()
    cached_only = not local and not _reachable(source, revision)
    directory = _checked_settings(
        source, revision, trust_remote_code=trust_remote_code, cached_only=cached_only
    )
    if local:
        require_whole(directory)
    return Checkpoint(
        source=source,
        name=name,
        directory=directory,
        device=device_map if device_map is not None else "cuda:0" if on_gpu else "cpu",
        dtype="float32" if dtype == "auto" and not on_gpu else dtype,
        cached_only=cached_only,
    )


def _require_devices(device_map: Any) -> None:
    """Raises a UsageError for a device that PyTorch does not know or that is not here."""
    import torch

    asked = device_map.values() if isinstance(device_map, dict) else [device_map]
    for device in asked:
        if device is None or device in _PLACEMENTS:
            continue
        try:
            found = torch.device(device)
        except (RuntimeError, TypeError) as error:
            raise UsageError(
                f"Device {device!r} is unknown to PyTorch; cpu, cuda, cuda:1, mps or auto is "
                "required. Correct --device or --device-map."
            ) from error
        backend = getattr(torch, found.type, None)
        counted = getattr(backend, "device_count", None)
        count = 1 if found.type == "cpu" else 0 if counted is None else counted()
        if (found.index or 0) >= count:
            lacking = found.type == "cuda" and torch.version.cuda is None
            built = "; this PyTorch is built without CUDA" if lacking else ""
            raise UsageError(
                f"Device {device} is not on this machine ({count} of type {found.type}{built}); a "
                "device that is there is required. Leave out --device, or see 'sightline doctor'."
            )


def _reachable(name: str, revision: str | None) -> bool:
    """Asks the hub once whether it is there, without the retries that loading makes."""
    from huggingface_hub import file_exists, get_session
    from huggingface_hub.errors import HfHubHTTPError

    # httpx or httpx2, whichever the hub's client is built on.
    client = import_module(type(get_session()).__module__.partition(".")[0])
    try:
        file_exists(name, "config.json", revision=revision)
    except HfHubHTTPError:
        return True  # it answered; loading says what
    except (OSError, client.TransportError):
        return False
    return True


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
            f"{spec} does not exist; a model directory, a hub name (owner/model) or a model of the "
            "package ('sightline models' lists them) is required. Check the path."
        )
    return spec


def _checked_settings(
    source: str, revision: str | None, *, trust_remote_code: bool, cached_only: bool
) -> Path:
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
                local_files_only=cached_only,
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
        key = _code_key(read_object(Path(found)))
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


@contextlib.contextmanager
def quiet(transformers: Any) -> Iterator[None]:
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


def content_hash(directory: Path) -> str:
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
                if path.suffix == ".safetensors":
                    digest.update(file.read(int.from_bytes(file.read(8), "little")))
                for start in _samples(path, size):
                    file.seek(start)
                    digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def _samples(path: Path, size: int) -> list[int]:
    """Where the blocks of a weight file begin that stand for all of it."""
    if path.suffix != ".safetensors":
        return [i * size // 64 for i in range(64)]
    return [max(begin, (begin + end - _BLOCK) // 2) for begin, end in tensor_offsets(path)]
