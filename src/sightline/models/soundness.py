"""Whether a model's files are whole: asked before they are loaded, and said in one line.

A download that was interrupted is the commonest damage, so weights are held to their own header
and every settings file is read as JSON before anything is built from them.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import re
from typing import TYPE_CHECKING, Any

from sightline.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

STYLE_FILE = "prompt_style.json"
"""A model directory may hold the prompt style it was trained with, as `PromptStyle.to_dict`."""

_INDEX = ".index.json"
_OBJECTS = (
    "tokenizer.json",
    "vocab.json",
    "special_tokens_map.json",
    "chat_template.json",
    STYLE_FILE,
)
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_OTHER_KIND = re.compile(r"Unrecognized configuration class <class '[\w.]*?(?P<config>\w+)'>")
_OTHER_WEIGHTS = (".bin", ".pt", ".gguf")
_FULL = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
_AGAIN = "Download the model again."


def read_object(path: Path) -> dict[str, Any]:
    """Reads a settings file, which must hold one JSON object.

    Raises:
        UsageError: It holds something else, or cannot be read.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}); a JSON file is required. {_AGAIN}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} is not JSON ({' '.join(str(error).split())[:120]}); a valid settings file is "
            f"required. {_AGAIN}"
        ) from error
    if not isinstance(values, dict):
        raise UsageError(f"{path} holds no JSON object; settings by name are required. {_AGAIN}")
    return values


def require_whole(directory: Path) -> None:
    """Raises unless every file of a model directory that loading reads is whole.

    Args:
        directory: A model directory as ``save_pretrained`` writes it.

    Raises:
        UsageError: A file is missing, cut off, or not what its name says.
    """
    for name in _OBJECTS:
        if (directory / name).exists():
            read_object(directory / name)
    _require_weights(directory)


def require_readers(directory: Path, *, text: bool) -> None:
    """Raises unless a model directory says how pictures, and text if asked, become inputs.

    Raises:
        UsageError: There are no settings for pictures, or no tokenizer.
    """
    _require_one_of(directory, "processor settings", _PROCESSORS)
    if text:
        require_tokenizer(directory)


def require_tokenizer(directory: Path) -> None:
    """Raises unless a model directory holds a tokenizer: the library would make an empty one.

    Raises:
        UsageError: There is no tokenizer.
    """
    _require_one_of(directory, "tokenizer", _TOKENIZERS)


def _require_one_of(directory: Path, what: str, names: tuple[str, ...]) -> None:
    if not any((directory / name).is_file() for name in names):
        raise UsageError(
            f"{directory} has no {what}; {' or '.join(names[:2])} is required beside the "
            "weights. Copy all of the model's files, or download it again."
        )


def _require_weights(directory: Path) -> None:
    for index in sorted(directory.glob(f"*{_INDEX}")):
        listed = read_object(index).get("weight_map")
        if not isinstance(listed, dict):
            raise UsageError(f"{index} has no weight_map; a list of files is required. {_AGAIN}")
        absent = sorted({str(f) for f in listed.values() if not (directory / str(f)).is_file()})
        if absent:
            raise UsageError(
                f"{directory} has no {absent[0]} ({len(absent)} such), which {index.name} lists; "
                f"every file of weights is required. {_AGAIN}"
            )
    weights = sorted(path for path in directory.glob("*.safetensors") if path.is_file())
    if not weights and not any(p.suffix in _OTHER_WEIGHTS for p in directory.iterdir()):
        raise UsageError(
            f"{directory} holds no weights; model.safetensors is required. Copy all of the "
            "model's files, or download it again."
        )
    for path in weights:
        tensor_offsets(path)


def tensor_offsets(path: Path) -> list[tuple[int, int]]:
    """Where each tensor of a safetensors file begins and ends, in bytes of the file.

    Raises:
        UsageError: The file is shorter or longer than its header says, or has no header.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= size - 8 else b""
    try:
        tensors = [value for name, value in json.loads(header).items() if name != "__metadata__"]
        offsets = sorted(
            (8 + length + int(begin), 8 + length + int(end))
            for begin, end in (tensor["data_offsets"] for tensor in tensors)
        )
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise UsageError(
            f"{path} is no safetensors file, or its beginning is damaged ({size} bytes); whole "
            f"weights are required. {_AGAIN}"
        ) from None
    whole = max((end for _, end in offsets), default=8 + length)
    if whole != size:
        raise UsageError(
            f"{path} has {size} bytes where its header says {whole}; whole weights are required. "
            f"{_AGAIN}"
        )
    return offsets


def require_all_weights(spec: str, report: Mapping[str, Any]) -> None:
    """Raises where loading left weights to chance.

    Args:
        spec: What the user calls the model.
        report: The library's loading information.

    Raises:
        UsageError: Weights are missing, or have another shape than the settings say.
    """
    others: Iterable[tuple[str, Any, Any]] = sorted(report["mismatched_keys"], key=str)
    for name, found, expected in others:
        raise UsageError(
            f"{spec} has {name} of shape {_shape(found)} where config.json asks for "
            f"{_shape(expected)} ({len(report['mismatched_keys'])} such); weights and settings of "
            f"one model are required. {_AGAIN}"
        )
    absent = sorted(report["missing_keys"])
    if absent:
        raise UsageError(
            f"{spec} has no weights for {', '.join(absent[:3])} ({len(absent)} such); all weights "
            f"are required, since missing ones would be random. {_AGAIN}"
        )


def _shape(size: Iterable[int]) -> str:
    return " x ".join(map(str, size)) or "one number"


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, as Python, PyTorch, CUDA or cuBLAS say it."""
    said = isinstance(error, RuntimeError) and any(words in str(error) for words in _FULL)
    return said or isinstance(error, MemoryError)


@contextlib.contextmanager
def refusals(spec: str, files: str, required: str) -> Iterator[None]:
    """Turns what the library raises over a model's files into one line.

    Only calls into the library belong under it: it has no error class of its own.

    Args:
        spec: What the user calls the model.
        files: Which files are being read.
        required: What kind of model is required.

    Raises:
        UsageError: The library refused the files, or memory ran out.
    """
    from huggingface_hub.errors import StrictDataclassError
    from jinja2 import TemplateError
    from safetensors import SafetensorError

    known = (
        *(OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
        *(ImportError, RuntimeError, AssertionError, EOFError, pickle.UnpicklingError),
        *(StrictDataclassError, TemplateError, SafetensorError),
    )
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise UsageError(
                f"{spec} does not fit into memory; room for all of its weights is required. "
                "Choose --dtype bfloat16, --device-map auto or a smaller model."
            ) from error
        # The tokenizers package raises bare exceptions.
        if not isinstance(error, known) and type(error) is not Exception:
            raise
        text = " ".join(str(error).split())[:300]
        # Of a model of another kind the library lists every kind that it knows.
        if (kind := _OTHER_KIND.match(text)) is not None:
            raise UsageError(
                f"{spec} is a model of another kind ({kind['config']}); {required} is required. "
                "Name another model."
            ) from error
        raise UsageError(
            f"{spec} could not be loaded from {files} ({type(error).__name__}: {text}); {required} "
            "is required. Check the name, or download the model again."
        ) from error
