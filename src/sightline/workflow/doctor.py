"""What this machine and a model can give: extras, devices, signals, and so estimators."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from sightline.core.condition_names import CLEAN
from sightline.core.features import Feature
from sightline.core.protocols import Request, VisionLanguageModel
from sightline.core.records import link
from sightline.core.types import Example, Record
from sightline.estimators import ESTIMATORS
from sightline.models.openai import EndpointModel

EXTRAS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "models": (("torch", "transformers"), "collect from local models, embedded ones included"),
    "report": (("jinja2", "matplotlib"), "the HTML report"),
    "learn": (("sklearn", "scipy"), "estimators that are fitted on labelled answers"),
    "datasets": (("datasets",), "datasets by hub name (hf://…)"),
    "open-clip": (("open_clip",), "zero-shot classifiers of open_clip"),
    "xlsx": (("openpyxl",), "recorded answers in Excel workbooks"),
    "remote": (("httpx2",), "models behind an endpoint (openai:NAME)"),
    "serve": (("h11", "httpx2", "python_multipart", "uvicorn"), "the server, and the proxy"),
}
"""Extra to the packages it brings and what they are for."""


@dataclass(frozen=True, slots=True)
class ExtraStatus:
    """Whether an extra's packages are installed."""

    name: str
    purpose: str
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SignalStatus:
    """One signal the model was asked for."""

    name: str
    observed: bool


@dataclass(frozen=True, slots=True)
class EstimatorStatus:
    """Whether one estimator can score what the model shows."""

    name: str
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found; the model's part is empty when none was given.

    ``endpoint`` holds, in plain lines, what the server of a model was seen to do.
    """

    python: str
    platform: str
    cpus: int
    devices: tuple[str, ...]
    extras: tuple[ExtraStatus, ...]
    model: dict[str, Any]
    seconds_per_answer: float | None
    signals: tuple[SignalStatus, ...]
    estimators: tuple[EstimatorStatus, ...]
    endpoint: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return asdict(self)


def examine(model: VisionLanguageModel | None = None) -> Diagnosis:
    """Examines the machine and, if given, what a model shows on two small questions."""
    signals: tuple[SignalStatus, ...] = ()
    estimators: tuple[EstimatorStatus, ...] = ()
    fingerprint: dict[str, Any] = {}
    seconds = None
    if model is not None:
        fingerprint = dict(model.fingerprint())
        started = time.perf_counter()
        records = probe(model)
        seconds = (time.perf_counter() - started) / len(records)
        clean = link(records, condition=CLEAN)
        signals = tuple(
            SignalStatus(feature.value, any(record.has(feature) for record in clean))
            for feature in Feature
        )
        estimators = tuple(
            EstimatorStatus(name, tuple(f.value for f in _lacking(clean, estimator.needs)))
            for name, estimator in ESTIMATORS.items()
        )
    return Diagnosis(
        python=platform.python_version(),
        platform=platform.platform(),
        cpus=os.cpu_count() or 1,
        devices=_devices(),
        extras=tuple(
            ExtraStatus(name, purpose, tuple(p for p in packages if find_spec(p) is None))
            for name, (packages, purpose) in EXTRAS.items()
        ),
        model=fingerprint,
        seconds_per_answer=seconds,
        signals=signals,
        estimators=estimators,
        endpoint=_found(model) if isinstance(model, EndpointModel) else (),
    )


def probe(model: VisionLanguageModel) -> list[Record]:
    """Asks two small questions about a generated picture, with every signal switched on."""
    from PIL import Image

    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], np.uint8(128)), axis=-1)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    examples = [
        Example("probe-open", "What colour is the picture?", question_type="probe"),
        Example(
            "probe-choice", "What is shown?", choices=("a ramp", "a cat"), question_type="probe"
        ),
    ]
    request = Request(max_new_tokens=8, n_samples=2, layers=(0.5, 1.0), options=True, blank=True)
    return model.observe(examples, [(picture,), (picture,)], request)


def _lacking(records: list[Record], needs: frozenset[Feature]) -> tuple[Feature, ...]:
    """What the record that shows most of the needs still lacks."""
    return min((record.missing(needs) for record in records), key=len)


def _devices() -> tuple[str, ...]:
    if find_spec("torch") is None:
        return ()
    import torch

    devices = ["cpu"]
    devices += [
        f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())
    ]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return tuple(devices)


def _found(model: EndpointModel) -> tuple[str, ...]:
    """What an endpoint was seen to do, and what it says of questions."""
    said = () if model.wording is None else (model.wording,)
    return (*model.capabilities.lines(), *said)
