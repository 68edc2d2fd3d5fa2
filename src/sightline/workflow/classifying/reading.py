"""Reading a classifier's run: class texts, vectors of the pictures, and the support draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from sightline.core.errors import DataError, LeakageError, StoreError, UsageError
from sightline.core.features import Feature
from sightline.core.types import Example, Record
from sightline.store.layout import CLASSES, SUPPORT, is_run
from sightline.store.run import RunStore
from sightline.zeroshot import ClassifierOutputs, ClassTexts, Support
from sightline.zeroshot.outputs import normalised

TASK = "classification"


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """The embedded pictures of one run.

    Attributes:
        store: The run.
        texts: Its classes.
        records: The pictures, without their vectors.
        labels: Class of each picture, -1 where its label is none of the classes.
        encoders: Names of the auxiliary encoders.
        image: Unit vectors.
        aux: Vectors of each encoder.
        views: Unit vectors of transformed versions, or None.
    """

    store: RunStore
    texts: ClassTexts
    records: tuple[Record, ...]
    labels: Int[np.ndarray, " n"]
    encoders: tuple[str, ...]
    image: np.ndarray
    aux: tuple[np.ndarray, ...]
    views: np.ndarray | None

    def outputs(self, encoder: int | None) -> ClassifierOutputs:
        """What scores see, with the vectors of one auxiliary encoder or of none."""
        return ClassifierOutputs(self.texts, self.image, self._of(encoder), self.views)

    def support(self, rows: Int[np.ndarray, " k"], encoder: int | None) -> Support:
        """Some of the pictures as a support set."""
        aux = self._of(encoder)
        return Support(
            self.image[rows],
            self.labels[rows],
            None if aux is None else aux[rows],
            None if self.views is None else self.views[:, rows],
        )

    def _of(self, encoder: int | None) -> np.ndarray | None:
        return None if encoder is None else self.aux[encoder]


@dataclass(frozen=True, slots=True, eq=False)
class SupportDraws:
    """Repeated support draws.

    Attributes:
        pictures: All support pictures.
        rows: Those of each draw.
        shots: Pictures of every class in a draw, where it has as many.
        run: Name of the run that they lie in.
        lacking: Pictures of the draws that could not be read.
    """

    pictures: Embedded
    rows: tuple[Int[np.ndarray, " k"], ...]
    shots: int
    run: str
    lacking: int


def is_classification(store: RunStore) -> bool:
    """Whether a run is that of a zero-shot classifier."""
    return store.manifest.settings.get("task") == TASK


def open_classification(path: Path) -> RunStore:
    """Opens the run of a zero-shot classifier.

    Raises:
        UsageError: It is another kind of run.
        StoreError: There is no run.
    """
    store = RunStore.open(path)
    if not is_classification(store) or not is_run(path / CLASSES):
        raise UsageError(
            f"{path} is no run of a zero-shot classifier; one is required. Make it with "
            "'sightline classify'."
        )
    return store


def run_classes(path: Path) -> tuple[str, ...] | None:
    """Names of the classes of an earlier run, in their order; None where there is no run.

    Raises:
        UsageError: It is another kind of run.
    """
    if not is_run(path):
        return None
    open_classification(path)
    return tuple(example.question for example in RunStore.open(path / CLASSES).examples())


def read_texts(classes: RunStore) -> ClassTexts:
    """The class texts of a run's ``classes``; several templates are joined by their mean.

    Raises:
        StoreError: Not all classes are there.
    """
    records = list(classes.records())
    n = len(classes.examples())
    if len(records) < n:
        raise StoreError(
            f"{classes.path} holds the texts of {len(records)} of {n} classes; all are required. "
            "Run the same 'sightline classify' again."
        )
    stacked = np.stack([r.array(Feature.CLASS_VECTORS) for r in records], axis=1)
    model = classes.manifest.model
    return ClassTexts(
        tuple(r.example.question for r in records),
        normalised(stacked.astype(np.float64).mean(axis=0)),
        logit_scale=model["logit_scale"],
        logit_bias=model["logit_bias"],
        link=model["link"],
        templates=normalised_stack(stacked) if len(stacked) > 1 else None,
    )


def normalised_stack(stack: np.ndarray) -> np.ndarray:
    """Layers of rows of length one."""
    return np.stack([normalised(layer) for layer in stack])


def read_embedded(store: RunStore, texts: ClassTexts) -> Embedded:
    """Reads the vectors of a run's pictures.

    Raises:
        DataError: No picture was embedded.
    """
    index = {name: i for i, name in enumerate(texts.classes)}
    wanted = {Feature.IMAGE_VECTOR, Feature.VIEW_VECTORS, Feature.AUX_VECTORS}
    records: list[Record] = []
    vectors: dict[Feature, list[np.ndarray]] = {feature: [] for feature in wanted}
    for record in store.records(features=wanted):
        for feature, arrays in vectors.items():
            if record.has(feature):
                arrays.append(record.array(feature))
        records.append(replace(record, features={}))
    if not records:
        raise DataError(
            f"{store.path} holds no embedded picture; at least one is required. See why "
            "with 'sightline runs show'."
        )
    encoders = store.manifest.model["encoders"]
    aux = np.stack(vectors[Feature.AUX_VECTORS]) if encoders else np.empty((len(records), 0))
    ends = np.cumsum([int(entry["width"]) for entry in encoders])[:-1]
    views = vectors[Feature.VIEW_VECTORS]
    return Embedded(
        store,
        texts,
        tuple(records),
        np.array([_label(r, index) for r in records], dtype=np.int64),
        tuple(entry["encoder"] for entry in encoders),
        np.stack(vectors[Feature.IMAGE_VECTOR]),
        tuple(np.split(aux, ends, axis=1)) if encoders else (),
        np.ascontiguousarray(np.stack(views, axis=1)) if views else None,
    )


def _label(record: Record, index: Mapping[str, int]) -> int:
    named = record.example.references
    return index.get(named[0], -1) if named else -1


def read_support(run: Path, tested: Embedded, shots: int | None) -> SupportDraws:
    """Reads the support draws of a run, of which the tested pictures may be another split.

    Args:
        run: The run whose support pictures are used.
        tested: The pictures that will be judged.
        shots: Pictures of every class, at most as many as were drawn; None takes those.

    Raises:
        UsageError: The run has no support, fewer shots, or is of another classifier.
        LeakageError: A support picture is among the tested ones.
    """
    if not is_run(run / SUPPORT):
        raise UsageError(
            f"{run} has no support pictures; labelled pictures of every class are required. Make "
            "it with 'sightline classify … --support DATA'."
        )
    store = RunStore.open(run / SUPPORT)
    same_classifier(run, store.manifest.model, tested)
    if len(store.committed()) < (store.manifest.n_shards or 0):
        raise StoreError(
            f"{store.path} holds {len(store.committed())} of {store.manifest.n_shards} shards; all "
            "are required. Run the same 'sightline classify' again."
        )
    plan = store.manifest.settings
    drawn = int(plan["shots"])
    if shots is not None and not 1 <= shots <= drawn:
        raise UsageError(
            f"--shots {shots}; 1 to {drawn}, as many as {run} was made with, are possible. Make a "
            "run with more."
        )
    pictures = read_embedded(store, tested.texts)
    refuse_leakage(
        [r.example for r in pictures.records],
        [r.example for r in tested.records],
        str(store.path),
        str(tested.store.path),
    )
    members: list[list[tuple[int, int, int]]] = [[] for _ in range(int(plan["draws"]))]
    for row, record in enumerate(pictures.records):
        for place in str(record.example.meta["draws"]).split(","):
            draw, _, nth = place.partition(":")
            members[int(draw)].append((int(pictures.labels[row]), int(nth), row))
    wanted = shots or drawn
    rows = []
    for mine in members:
        chosen = [row for _, nth, row in sorted(mine) if nth < wanted]
        rows.append(np.array(chosen, dtype=np.int64))
    return SupportDraws(pictures, tuple(rows), wanted, run.resolve().name, len(store.quarantined()))


def same_classifier(run: Path, model: Mapping[str, Any], tested: Embedded) -> None:
    """Requires one classifier, one set of classes and the same encoders for both."""
    theirs, own = _comparable(model), _comparable(tested.store.manifest.model)
    differing = sorted(key for key in {*theirs, *own} if theirs.get(key) != own.get(key))
    if differing:
        raise UsageError(
            f"The support pictures of {run} and the pictures of {tested.store.path} differ in "
            f"{', '.join(differing)}; one classifier, the same classes, templates, encoders and "
            "views are required. Classify both with the same flags."
        )


def _comparable(model: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same; of vectors computed elsewhere their width, not their file."""
    encoders = [
        {k: v for k, v in entry.items() if k != "model" or "sha256" not in entry["model"]}
        for entry in model["encoders"]
    ]
    return {**model, "encoders": encoders}


def refuse_leakage(
    support: Sequence[Example], tested: Sequence[Example], pool: str, name: str
) -> None:
    """Requires that no picture is both learned from and tested on, by the hash of its bytes.

    Raises:
        LeakageError: One is.
    """
    there = {image.sha256: e.id for e in tested for image in e.images}
    both = [e for e in support if any(image.sha256 in there for image in e.images)]
    if both:
        first = both[0]
        raise LeakageError(
            f"{len(both)} support pictures of {pool} are among the test pictures of {name}, such "
            f"as {first.id!r} ({there[first.images[0].sha256]!r} there); pictures that are not "
            "tested are required. Take them from another split, or remove them from one."
        )
