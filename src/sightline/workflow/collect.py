"""Collecting: examples through a model into a run, shard by shard, resumable at any moment.

The plan fixes everything that affects results before the first example is observed: shard ``i``
holds the examples ``[i·size, (i+1)·size)`` and its batches are consecutive slices of it. A killed
collect, started again with the same command, therefore ends with the same rows and arrays.
"""

from __future__ import annotations

import platform
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from sightline.core.condition_names import BLANK, CLEAN, asked_condition
from sightline.core.errors import SettingsDifferError, StoreError, UsageError
from sightline.core.printing import rough_duration
from sightline.core.protocols import Request, VisionLanguageModel
from sightline.core.types import Example, Quarantined, Record
from sightline.data.examples import Dataset
from sightline.data.images import DECODE_POLICY, ImageLimits
from sightline.data.perturbations import LONGEST_SIDE, parse_condition
from sightline.data.unrelated import Pictures, Unrelated, unrelated_pictures
from sightline.store.run import Manifest, RunStore
from sightline.workflow.observing import observe_shard
from sightline.workflow.requests import asked_of_endpoint

FASTEST = "shared prefill"
"""What a model's fingerprint calls the fastest decoding."""

Progress = Callable[["CollectProgress"], None]


@dataclass(frozen=True, slots=True)
class CollectProgress:
    """Where a collect stands.

    Attributes:
        done: Examples committed, those of earlier tries included.
        total: Examples of the plan.
        quarantined: Examples that could not be observed under every condition.
        seconds: Seconds since this try started.
        observed: Examples committed by this try.
    """

    done: int
    total: int
    quarantined: int
    seconds: float
    observed: int

    @property
    def remaining_s(self) -> float | None:
        """Estimated seconds to the end, or None before the first shard of this try."""
        if self.observed == 0:
            return None
        return self.seconds / self.observed * (self.total - self.done)


@dataclass(frozen=True, slots=True)
class CollectResult:
    """What a collect left behind.

    Attributes:
        path: The run directory.
        total: Examples of the plan.
        quarantined: Examples with at least one error row.
        rejected: Dataset rows that never became examples.
        interrupted: Whether it stopped early, on request; the same command goes on.
        reasons: Why examples were quarantined and rows rejected, with counts, most common first.
        refused: Conditions that do not exist for an example: how many, by reason.
    """

    path: Path
    total: int
    quarantined: int
    rejected: int
    interrupted: bool
    reasons: tuple[tuple[str, int], ...]
    refused: tuple[tuple[str, int], ...] = ()


def collect(
    model: VisionLanguageModel,
    dataset: Dataset,
    path: Path,
    *,
    request: Request = Request(),  # noqa: B008 (frozen)
    batch_size: int = 8,
    shard_size: int = 32,
    overwrite: bool = False,
    announce: Callable[[str], None] = lambda _: None,
    limits: ImageLimits = ImageLimits(),  # noqa: B008 (frozen)
    progress: Progress = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    notes: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    image_root: Path | None = None,
) -> CollectResult:
    """Observes every example of a dataset and stores what the model shows.

    Args:
        model: The model to observe.
        dataset: Its examples, and the rows that could not become examples.
        path: The run directory; one that exists is resumed if its settings are the same.
            Relative image paths start from it.
        request: What to observe on every example.
        batch_size: Examples observed at once; halved where memory runs out.
        shard_size: Examples committed at once.
        overwrite: Remove an existing run first.
        announce: Called with one line on the size of the job before the first example.
        limits: Limits on images.
        progress: Called after every shard.
        should_stop: Asked after every shard; True ends the collect, resumable.
        notes: Sentences every report of this run shows.
        settings: What decides the rows beside the model and the data, where it is not the request.
        image_root: Folder that relative image paths start from; the run directory if None.

    Raises:
        UsageError: The dataset is empty, or a size is not positive.
        StoreError: The directory holds a run with other settings, or is in use.
    """
    if batch_size < 1 or shard_size < 1:
        raise UsageError(
            f"batch size {batch_size}, shard size {shard_size}; both must be at least 1. "
            "Give positive numbers."
        )
    if not dataset.examples:
        raise UsageError(
            f"{dataset.name} has no usable example ({len(dataset.rejected)} rows rejected); "
            "at least one is required. See the reasons above."
        )
    path = Path(path)
    root = image_root or path
    manifest = _manifest(model, dataset, request, batch_size, shard_size, notes, settings)
    rejected = dataset.rejected
    decoding = manifest.model.get("decoding", FASTEST)
    if decoding != FASTEST:
        announce(f"This model allows only: {decoding}. That is slower, with the same results.")
    store = _opened(path, manifest, dataset, overwrite=overwrite)
    examples = store.examples()
    others = _unrelated(examples, request)
    shards = list(_shards(examples, shard_size))
    committed = store.committed()
    done = sum(len(shard) for index, shard in shards if index in committed)
    quarantined = _failed_examples(store.quarantined())
    left = [one for index, shard in shards if index not in committed for one in shard]
    asked = asked_of_endpoint(left, request, model) if left else None
    if asked is not None:  # no batch is spent on measuring: it may cost money
        announce(asked)
    elif len(left) > max(shard_size, 4 * batch_size):
        first = next(shard for index, shard in shards if index not in committed)
        announce(_forecast(model, first[:batch_size], request, root, limits, len(left), others))
    started = time.monotonic()
    observed = 0
    interrupted = False
    progress(CollectProgress(done, len(examples), quarantined, 0.0, 0))
    with store.writer() as writer:
        for index, shard in shards:
            if index in committed:
                continue
            if should_stop():
                interrupted = True
                break
            result = observe_shard(
                model,
                shard,
                request,
                root=root,
                batch_size=batch_size,
                limits=limits,
                first=index * shard_size,
                others=others,
            )
            writer.commit(
                index, result.records, result.quarantined, result.log, refused=result.refused
            )
            done += len(shard)
            observed += len(shard)
            quarantined += _failed_examples(result.quarantined)
            progress(
                CollectProgress(
                    done, len(examples), quarantined, time.monotonic() - started, observed
                )
            )
    failed = {(q.key.example_id, q.reason) for q in store.quarantined()}
    reasons = Counter(reason for _, reason in failed)
    reasons.update(row.reason for row in rejected)
    refused = Counter(row.reason for row in store.refused())
    return CollectResult(
        path,
        len(examples),
        quarantined,
        len(rejected),
        interrupted,
        _commonest(reasons),
        _commonest(refused),
    )


def _failed_examples(rows: Sequence[Quarantined]) -> int:
    """Examples with an error row, however many of their conditions failed."""
    return len({row.key.example_id for row in rows})


def _commonest(reasons: Counter[str]) -> tuple[tuple[str, int], ...]:
    """Most common first; equally common ones by name."""
    return tuple(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))


def _opened(path: Path, manifest: Manifest, dataset: Dataset, *, overwrite: bool) -> RunStore:
    """The run to add to: a new one, the one that is there, or a new one in place of an empty one.

    Raises:
        StoreError: The directory holds answers of a run with other settings, or other files.
    """
    rejected = dataset.rejected
    if overwrite:
        return RunStore.create(path, manifest, dataset.examples, rejected=rejected, overwrite=True)
    try:
        return RunStore.resume(path, manifest, dataset.examples, rejected=rejected)
    except SettingsDifferError:
        store = RunStore.open(path)
        if not store.committed():  # a first try that failed: nothing was acknowledged
            return RunStore.create(
                path, manifest, dataset.examples, rejected=rejected, overwrite=True
            )
        moved = _moved_image(store.examples(), dataset.examples)
        if moved is not None:
            raise StoreError(
                f"{path} was made with the image {moved[0]}, which is now {moved[1]}; a run keeps "
                "the paths it began with. Put the images back (a link will do), or start "
                "again with --overwrite."
            ) from None
        raise


def _moved_image(before: Sequence[Example], now: Sequence[Example]) -> tuple[str, str] | None:
    """Old and new path of an image where the examples differ in nothing but such paths."""
    found = None
    if len(before) != len(now):
        return None
    for old, new in zip(before, now, strict=True):
        if replace(old, images=new.images) != new or (
            [image.sha256 for image in old.images] != [image.sha256 for image in new.images]
        ):
            return None
        for left, right in zip(old.images, new.images, strict=True):
            if left.path != right.path:
                found = found or (left.path, right.path)
    return found


def _forecast(
    model: VisionLanguageModel,
    examples: Sequence[Example],
    request: Request,
    root: Path,
    limits: ImageLimits,
    total: int,
    others: Mapping[str, Sequence[Pictures]],
) -> str:
    """One line on time and disk, measured by observing one batch that is not kept."""
    shard = observe_shard(
        model,
        examples,
        request,
        root=root,
        batch_size=len(examples),
        limits=limits,
        others=others,
    )
    share = total / len(examples)
    seconds = shard.log["seconds"] * share
    size = sum(_stored_bytes(record) for record in shard.records) * share
    free = shutil.disk_usage(root).free
    under = f" under {len(request.conditions)} conditions" if request.conditions else ""
    line = (
        f"{total} examples{under}: about {rough_duration(seconds)} and "
        f"{_megabytes(size)} on disk, measured on {len(examples)}"
    )
    if size > free:
        line += f"; only {free / 1e6:.0f} MB are free"
    return line


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.0f} MB" if size >= 5e5 else "less than 1 MB"


def _unrelated(examples: Sequence[Example], request: Request) -> Mapping[str, Sequence[Pictures]]:
    """Other questions' pictures for each question, as many as the conditions name."""
    steps = (step for name in request.conditions for step in parse_condition(name).steps)
    levels = [own.level for _, own in steps if isinstance(own, Unrelated)]
    return unrelated_pictures(examples, max(levels, default=0))


def _stored_bytes(record: Record) -> int:
    arrays = sum(array.nbytes for array in record.features.values())
    texts = (record.greedy, *record.samples)
    return arrays + sum(12 * (t.n_tokens or 0) + len(t.text) for t in texts if t is not None)


def _shards(examples: Sequence[Example], size: int) -> Iterator[tuple[int, Sequence[Example]]]:
    for index, start in enumerate(range(0, len(examples), size)):
        yield index, examples[start : start + size]


def _manifest(
    model: VisionLanguageModel,
    dataset: Dataset,
    request: Request,
    batch_size: int,
    shard_size: int,
    notes: Sequence[str],
    settings: Mapping[str, Any] | None,
) -> Manifest:
    return Manifest(
        run_id=dataset.sha256[:12],
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        kind="collected",
        model=dict(model.fingerprint()),
        dataset={
            "name": dataset.name,
            "sha256": dataset.sha256,
        },
        settings={
            **({"request": _plain(request)} if settings is None else settings),
            "batch_size": batch_size,
            "decode_policy": DECODE_POLICY,
            **_of_conditions(request),
        },
        versions=package_versions(),
        shard_size=shard_size,
        conditions=(
            CLEAN,
            *((BLANK,) if request.blank else ()),
            *(asked_condition(name) for name in request.asks),
            *request.conditions,
        ),
        partial=dataset.partial,
        notes=tuple(notes),
    )


def _plain(request: Request) -> dict[str, Any]:
    settings = {**asdict(request), "layers": list(request.layers), "asks": list(request.asks)}
    if not request.channels:  # settings of runs without them are as they were before
        del settings["channels"], settings["energy_maps"]
    return {k: v for k, v in settings.items() if not k.startswith("condition")}


def _of_conditions(request: Request) -> dict[str, Any]:
    """Settings that matter under conditions only, whose names the manifest has of its own."""
    if not request.conditions:
        return {}
    return {"condition_samples": request.condition_samples, "longest_side": LONGEST_SIDE}


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number."""
    versions = {"python": platform.python_version()}
    for name in ("sightline", "numpy", "pillow", "pyarrow", "safetensors", "torch", "transformers"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
