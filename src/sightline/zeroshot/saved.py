"""A fitted score and its classes as one safetensors file: arrays, and settings as JSON; no pickle.

Example:
    >>> state = state_of(FittedTemperature(inverse=0.5))
    >>> state.settings, state.kind
    ({'inverse': 0.5}, 'FittedTemperature')
    >>> rebuilt(state)
    FittedTemperature(inverse=0.5)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from sightline.core.errors import DataError
from sightline.zeroshot.calibrating import FittedDirichlet, FittedTemperature, FittedVectorScaling
from sightline.zeroshot.correctness import FittedCorrectnessAware, FittedStack, Signals
from sightline.zeroshot.density import FittedMahalanobis, FittedVirtualLogit
from sightline.zeroshot.neighbours import FittedNeighbours, FittedTrustScore
from sightline.zeroshot.outputs import ClassTexts
from sightline.zeroshot.protocols import FittedScore
from sightline.zeroshot.prototypes import FittedPrototypeDistance
from sightline.zeroshot.scores import (
    AugmentationConsistency,
    DoctorAlpha,
    DoctorBeta,
    Energy,
    Entropy,
    Margin,
    MaxCosine,
    MaximumConceptMatching,
    MaxLogit,
    MaxSoftmax,
    TemplateDisagreement,
)
from sightline.zeroshot.trustvlm import FittedTrustVLM

FORMAT_VERSION = 1
_META = "sightline.score"

FITTED_SCORES: Mapping[str, type] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (
            AugmentationConsistency,
            DoctorAlpha,
            DoctorBeta,
            Energy,
            Entropy,
            FittedCorrectnessAware,
            FittedDirichlet,
            FittedMahalanobis,
            FittedNeighbours,
            FittedPrototypeDistance,
            FittedStack,
            FittedTemperature,
            FittedTrustScore,
            FittedTrustVLM,
            FittedVectorScaling,
            FittedVirtualLogit,
            Margin,
            MaxCosine,
            MaxLogit,
            MaxSoftmax,
            MaximumConceptMatching,
            TemplateDisagreement,
        )
    }
)
"""Every class that `ZeroShotScore.fit` returns."""

_PARTS = {"Signals": Signals, "ClassTexts": ClassTexts, **FITTED_SCORES}


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What a fitted score consists of.

    Attributes:
        kind: Its class, in `FITTED_SCORES`.
        settings: JSON values by field.
        arrays: Arrays by field; parts of a field are called ``field.part``.
    """

    kind: str
    settings: dict[str, Any]
    arrays: dict[str, np.ndarray]


def state_of(fitted: object) -> State:
    """Takes a fitted score apart.

    Raises:
        DataError: Its class is not in the table.
    """
    kind = type(fitted).__name__
    if _PARTS.get(kind) is not type(fitted):
        raise DataError(
            f"{kind} is not in the table of fitted scores; only its entries can be read back. Add "
            "it to FITTED_SCORES."
        )
    settings: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for field in fields(fitted):  # type: ignore[arg-type]
        value = getattr(fitted, field.name)
        if isinstance(value, np.ndarray):
            arrays[field.name] = value
        elif is_dataclass(value):
            inner = state_of(value)
            settings[field.name] = {"kind": inner.kind, "settings": inner.settings}
            arrays |= {f"{field.name}.{name}": array for name, array in inner.arrays.items()}
        elif isinstance(value, tuple) and any(isinstance(part, np.ndarray) for part in value):
            arrays |= {f"{field.name}.{at}": part for at, part in enumerate(value)}
        else:
            settings[field.name] = value.item() if isinstance(value, np.generic) else value
    return State(kind, settings, arrays)


def rebuilt(state: State) -> Any:
    """Puts a fitted score together again; it scores alike to the bit.

    Raises:
        DataError: The class is unknown or its parts do not fit.
    """
    kind = _PARTS.get(state.kind)
    if kind is None:
        raise DataError(
            f"No fitted score is called {state.kind!r}; one of {', '.join(FITTED_SCORES)} is "
            "required. Fit it again with this version of Sightline."
        )
    values: dict[str, Any] = {}
    for field in fields(kind):
        name = field.name
        inner = {
            key.removeprefix(f"{name}."): array
            for key, array in state.arrays.items()
            if key.startswith(f"{name}.")
        }
        given = state.settings.get(name)
        if name in state.arrays:
            values[name] = state.arrays[name]
        elif isinstance(given, dict):
            values[name] = rebuilt(State(given["kind"], given["settings"], inner))
        elif inner:
            values[name] = tuple(inner[str(at)] for at in range(len(inner)))
        elif name in state.settings:
            values[name] = tuple(given) if isinstance(given, list) else given
    try:
        return kind(**values)
    except TypeError as error:
        raise DataError(
            f"The state of {state.kind} is not whole ({error}); all of its parts are required. Fit "
            "it again."
        ) from None


def save_score(path: Path, fitted: FittedScore, texts: ClassTexts) -> None:
    """Writes a fitted score with the classes it was fitted for; the file is there whole or not."""
    from safetensors.numpy import save

    score, classes = state_of(fitted), state_of(texts)
    document = {
        "format_version": FORMAT_VERSION,
        "score": {"kind": score.kind, "settings": score.settings},
        "texts": {"kind": classes.kind, "settings": classes.settings},
    }
    arrays = {f"score/{name}": array for name, array in score.arrays.items()}
    arrays |= {f"texts/{name}": array for name, array in classes.arrays.items()}
    blob = save(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        metadata={_META: json.dumps(document, allow_nan=False)},
    )
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_bytes(blob)
    unfinished.replace(path)


def load_score(path: Path) -> tuple[Any, ClassTexts]:
    """Reads what `save_score` wrote.

    Raises:
        DataError: There is no such file, or it is damaged or of another version.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            document = json.loads((file.metadata() or {}).get(_META, "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(
            f"{path} is no fitted score ({' '.join(str(error).split())[:120]}); a file written by "
            "save_score is required. Fit it again."
        ) from None
    version = document.get("format_version") if isinstance(document, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path} has format version {version!r}; {FORMAT_VERSION} is required. Fit the score "
            "again with this version of Sightline."
        )

    def part(name: str) -> Any:
        mine = {
            key.removeprefix(f"{name}/"): array
            for key, array in arrays.items()
            if key.startswith(f"{name}/")
        }
        return rebuilt(State(document[name]["kind"], document[name]["settings"], mine))

    return part("score"), part("texts")
