"""Reading a classifier's run: class texts, vectors of the pictures, and the support draws.

Memory holds the vectors of at most `PART_ROWS` pictures to be scored at a time, and those of all
support pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sightline.core.errors import DataError, StoreError, UsageError
from sightline.core.features import Feature
from sightline.core.types import Record
from sightline.store.layout import CLASSES, SUPPORT, is_run
from sightline.store.run import RunStore
from sightline.workflow.classifying.comparing import refuse_leakage, same_classifier
from sightline.zeroshot import ClassifierOutputs, ClassTexts, Support
from sightline.zeroshot.blocks import BLOCK_ROWS
from sightline.zeroshot.outputs import normalised

TASK = "classification"

PART_ROWS = 32 * BLOCK_ROWS
"""Pictures whose vectors are read at a time; whole blocks, so that parts change no figure."""


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """Vectors of some pictures.

    Attributes:
        image: Unit vectors.
        aux: Vectors of each auxiliary encoder.
        views: Unit vectors of transformed versions, or None.
    """

    image: Float[np.ndarray, "n d"]
    aux: tuple[np.ndarray, ...]
    views: Float[np.ndarray, "v n d"] | None

    def of(self, encoder: int | None) -> np.ndarray | None:
        """Those of one auxiliary encoder; None for none."""
        return None if encoder is None else self.aux[encoder]


@dataclass(frozen=True, eq=False)
class Embedded:
    """The embedded pictures of one run; their vectors are read where they are needed.

    Attributes:
        store: The run.
        texts: Its classes.
        records: The pictures, without their vectors.
        labels: Class of each picture, -1 where its label is none of the classes.
        encoders: Names of the auxiliary encoders.
        widths: Width of each encoder's vectors.
        has_views: Whether transformed versions were embedded, too.
        shards: Number of the records in each shard, by its index.
    """

    store: RunStore
    texts: ClassTexts
    records: tuple[Record, ...]
    labels: Int[np.ndarray, " n"]
    encoders: tuple[str, ...]
    widths: tuple[int, ...]
    has_views: bool
    shards: Mapping[int, int]

    def __len__(self) -> int:
        return len(self.records)

    def parts(self, encoder: int | None) -> Iterator[ClassifierOutputs]:
        """What scores see, with the vectors of one auxiliary encoder or of none.

        At most `PART_ROWS` pictures at a time, in the order of the records.
        """
        for part in [self.vectors] if len(self) <= PART_ROWS else self._read():
            yield ClassifierOutputs(self.texts, part.image, part.of(encoder), part.views)

    def support(self, rows: Int[np.ndarray, " k"], encoder: int | None) -> Support:
        """Some of the pictures as a support set."""
        aux, views = self.vectors.of(encoder), self.vectors.views
        return Support(
            self.vectors.image[rows],
            self.labels[rows],
            None if aux is None else aux[rows],
            None if views is None else views[:, rows],
        )

    @cached_property
    def vectors(self) -> Vectors:
        """Those of all pictures, kept in memory."""
        parts = list(self._read())
        if len(parts) == 1:
            return parts[0]
        return Vectors(
            np.concatenate([part.image for part in parts]),
            tuple(map(np.concatenate, zip(*(part.aux for part in parts), strict=True))),
            np.concatenate([part.views for part in parts if part.views is not None], axis=1)
            if self.has_views
            else None,
        )

    def _read(self) -> Iterator[Vectors]:
        """The vectors of `PART_ROWS` pictures after another; the last part may hold fewer.

        Shards that were committed since the records were read are left out.

        Raises:
            DataError: A shard holds another number of records than it did then.
        """
        wanted = {Feature.IMAGE_VECTOR: True, Feature.AUX_VECTORS: bool(self.encoders)}
        wanted[Feature.VIEW_VECTORS] = self.has_views
        features = [feature for feature, there in wanted.items() if there]
        waiting: dict[Feature, list[np.ndarray]] = {feature: [] for feature in features}
        count = 0
        stacked = self.store.stacked(features, shards=self.shards)
        for index, shard in zip(self.shards, stacked, strict=True):
            for feature, array in shard.items():
                waiting[feature].append(array)
            read = len(shard.get(Feature.IMAGE_VECTOR, ()))
            if read != self.shards[index]:
                raise DataError(
                    f"Shard {index} of {self.store.path} holds {read} records now and held "
                    f"{self.shards[index]} when they were read; a run that does not change "
                    "meanwhile is required. Run the same command again."
                )
            count += read
            if count >= PART_ROWS:
                joined = {f: np.concatenate(arrays) for f, arrays in waiting.items()}
                whole = count - count % PART_ROWS
                for at in range(0, whole, PART_ROWS):
                    yield self._vectors({f: a[at : at + PART_ROWS] for f, a in joined.items()})
                waiting = {f: [a[whole:]] for f, a in joined.items()}
                count -= whole
        if count:
            yield self._vectors({f: np.concatenate(arrays) for f, arrays in waiting.items()})

    def _vectors(self, arrays: Mapping[Feature, np.ndarray]) -> Vectors:
        aux: tuple[np.ndarray, ...] = ()
        if self.encoders:
            ends = np.cumsum(self.widths)[:-1]
            aux = tuple(np.split(arrays[Feature.AUX_VECTORS], ends, axis=1))
        views = None
        if self.has_views:
            views = np.ascontiguousarray(arrays[Feature.VIEW_VECTORS].swapaxes(0, 1))
        return Vectors(arrays[Feature.IMAGE_VECTOR], aux, views)


@dataclass(frozen=True, slots=True, eq=False)
class SupportDraws:
    """Repeated support draws.

    Attributes:
        pictures: All support pictures.
        rows: Those of each draw.
        shots: Fewest and most pictures of a class in a draw.
        run: Name of the run that they lie in.
        lacking: Pictures that could not be read, or that no usable vector was given for.
    """

    pictures: Embedded
    rows: tuple[Int[np.ndarray, " k"], ...]
    shots: tuple[int, int]
    run: str
    lacking: int


def is_classification(store: RunStore) -> bool:
    """Whether a run is that of a zero-shot classifier."""
    return store.manifest.settings.get("task") == TASK


def open_answers(path: Path) -> RunStore:
    """Opens a run of a model's answers to questions.

    Raises:
        UsageError: It is a run of a classifier.
        StoreError: There is no run.
    """
    store = RunStore.open(path)
    if is_classification(store):
        raise UsageError(
            f"{path} is a run of a classifier; one of a model's answers to questions is required. "
            "Use 'sightline evaluate', which calibrates a classifier's scores held out."
        )
    return store


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
    model = classes.manifest.model
    return joined_templates(
        [r.example.question for r in records],
        np.stack([r.array(Feature.CLASS_VECTORS) for r in records], axis=1),
        logit_scale=model["logit_scale"],
        logit_bias=model["logit_bias"],
        link=model["link"],
    )


def joined_templates(
    names: Sequence[str], vectors: Float[np.ndarray, "t c d"], **scaling: Any
) -> ClassTexts:
    """Class texts whose vectors are the mean over the templates, of length one.

    Args:
        names: The classes.
        vectors: Text vectors of every template.
        scaling: Logit scale, bias and link, as `ClassTexts` has them.
    """
    return ClassTexts(
        tuple(names),
        normalised(vectors.astype(np.float64).mean(axis=0)),
        templates=normalised_stack(vectors) if len(vectors) > 1 else None,
        **scaling,
    )


def normalised_stack(stack: np.ndarray) -> np.ndarray:
    """Layers of rows of length one."""
    return np.stack([normalised(layer) for layer in stack])


def read_embedded(store: RunStore, texts: ClassTexts) -> Embedded:
    """Reads a run's pictures; their vectors are read as they are scored.

    Raises:
        DataError: No picture was embedded.
    """
    index = {name: i for i, name in enumerate(texts.classes)}
    of_shard = {i: list(store.records(features=(), shard=i)) for i in sorted(store.committed())}
    records = tuple(record for mine in of_shard.values() for record in mine)
    if not records:
        raise DataError(
            f"{store.path} holds no embedded picture; at least one is required. See why "
            "with 'sightline runs show'."
        )
    encoders = store.manifest.model["encoders"]
    return Embedded(
        store,
        texts,
        records,
        np.array([_label(r, index) for r in records], dtype=np.int64),
        tuple(entry["encoder"] for entry in encoders),
        tuple(int(entry["width"]) for entry in encoders),
        bool(store.manifest.model["views"]),
        {index: len(mine) for index, mine in of_shard.items()},
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
    same_classifier(run, store.manifest.model, tested.store)
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
    classes = len(tested.texts.classes)
    counts = [np.bincount(pictures.labels[mine], minlength=classes) for mine in rows]
    return SupportDraws(
        pictures,
        tuple(rows),
        (int(np.min(counts)), int(np.max(counts))),
        run.resolve().name,
        len(store.quarantined()) + len(store.rejected()),
    )
