"""What a model's forward pass raises, as errors the caller can act on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from sightline.core.errors import ModelError, OutOfMemoryError, SightlineError
from sightline.models.soundness import out_of_memory


@contextlib.contextmanager
def model_errors() -> Iterator[None]:
    """Turns what a model's forward pass raises into errors the caller can act on."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            raise OutOfMemoryError(one_line(error, "memory ran out")) from error
        if isinstance(error, torch.AcceleratorError):
            # Whatever is asked of the device afterwards fails too: no example is to blame.
            raise SightlineError(
                f"The device failed ({' '.join(str(error).split())[:200]}); a working one is "
                "required. What was committed is kept: run the same command again, on another "
                "device if it fails again."
            ) from error
        raise ModelError(one_line(error, "the model failed")) from error


def one_line(error: Exception, what: str) -> str:
    """What was raised, and what came of it, on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}; {what}. Try a smaller batch or another input."
