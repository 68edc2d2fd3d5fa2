"""Trust policies on disk: sealed JSON and safetensors, no pickle.

    DIRECTORY/policy.json            stages, thresholds, evidence; checksums of the other files
    DIRECTORY/stage-0/fitted.json    an estimator that learns, one folder per such stage
    DIRECTORY/stage-0/arrays.safetensors
    DIRECTORY/stage-0/score.safetensors   in their place a classifier's score, with its class texts

`policy.json` is written last, so that a directory holds a whole policy or none.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from sightline.calibration.fitted import load_calibration
from sightline.core.errors import CorruptStoreError, DataError, DiskError, SightlineError
from sightline.core.protocols import Estimator, FittedEstimator, LearnedEstimator, Request
from sightline.estimators import from_spec
from sightline.estimators.saved import ARRAYS, SETTINGS, Saved, load_fitted, save_fitted
from sightline.store.disk import disk_errors, make_directory, write_file
from sightline.store.sealed import dump_document, load_document
from sightline.workflow.classifying.scoring import AppliedScore
from sightline.workflow.policy.class_sets import CLASSES, read_class_sets
from sightline.workflow.policy.evidence import Evidence
from sightline.workflow.policy.option_sets import PredictionSets, read_option_sets
from sightline.workflow.policy.saved_scores import SCORE, read_score, write_score
from sightline.workflow.policy.trust import Stage, TrustPolicy

FORMAT_VERSION = 1
POLICY = "policy.json"

_EVIDENCE: TypeAdapter[Evidence] = TypeAdapter(Evidence)
_REQUEST: TypeAdapter[Request] = TypeAdapter(Request)


def require_no_policy(path: str | Path) -> None:
    """Requires a directory without a policy, or none.

    What a killed `save_policy` left is no policy; the next one replaces it.

    Raises:
        DataError: It holds one, or files of something else.
    """
    folder = Path(path)
    if (folder / POLICY).exists():
        raise DataError(
            f"{folder} holds a policy; a new one needs an empty directory. Choose another, or "
            "remove it first."
        )
    if folder.exists() and not (folder.is_dir() and all(map(_is_unfinished, folder.iterdir()))):
        raise DataError(
            f"{folder} is not empty; a policy needs a directory of its own. Choose another."
        )


def _is_unfinished(path: Path) -> bool:
    """Whether a file or folder is what a `save_policy` left that was killed."""
    written = {SETTINGS, ARRAYS, SCORE}
    if path.is_dir():
        inside = all(name.name.partition(".tmp.")[0] in written for name in path.iterdir())
        return inside and re.fullmatch(r"stage-\d+", path.name) is not None
    return path.name.startswith(f"{POLICY}.tmp.")


def _clear(folder: Path) -> None:
    """Removes what a killed `save_policy` left."""
    with disk_errors(f"Clearing {folder}"):
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def save_policy(path: str | Path, policy: TrustPolicy) -> None:
    """Writes a policy to a directory that `require_no_policy` passes.

    Raises:
        DataError: The directory is taken.
        DiskError: The operating system refused to write.
    """
    folder = Path(path)
    require_no_policy(folder)
    make_directory(folder)
    _clear(folder)
    stages, files = [], dict[str, str]()
    for index, stage in enumerate(policy.stages):
        estimator = stage.estimator
        own = f"stage-{index}" if isinstance(estimator, FittedEstimator | AppliedScore) else None
        if own is not None:
            files |= _write_estimator(folder, own, stage)
        document: dict[str, Any] = {
            "name": stage.name,
            "spec": dict(stage.spec),
            "fitted": own,
            "calibration": stage.calibration.to_dict(),
            "undecided": None if stage.undecided is None else list(stage.undecided),
        }
        if isinstance(estimator, AppliedScore):
            aux = estimator.aux
            document["score"] = {
                "kind": type(estimator.fitted).__name__,
                "aux": None if aux is None else [aux.start, aux.stop],
            }
        stages.append(document)
    blob = dump_document(
        {
            "format_version": FORMAT_VERSION,
            "stages": stages,
            "sets": None if policy.sets is None else policy.sets.to_dict(),
            "evidence": asdict(policy.evidence),
            "files": files,
        }
    )
    write_file(folder / POLICY, lambda file: file.append(memoryview(blob)))


def load_policy(path: str | Path) -> TrustPolicy:
    """Reads what `save_policy` wrote.

    Raises:
        DataError: There is no policy, or another format version wrote it.
        CorruptStoreError: A file is not the one that was written.
    """
    folder = Path(path)
    if not (folder / POLICY).is_file():
        raise DataError(
            f"{folder} has no {POLICY}; a directory written by 'sightline calibrate' is required. "
            "Give its path."
        )
    document = load_document(folder / POLICY)
    version = document.get("format_version")
    if version != FORMAT_VERSION:
        raise DataError(
            f"{folder / POLICY} has format version {version!r}; {FORMAT_VERSION} is required. "
            "Calibrate again with this version of Sightline."
        )
    try:
        return _read(folder, document)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(folder, "its parts do not fit together") from error
    except CorruptStoreError:
        raise
    except SightlineError as error:
        raise DataError(f"Policy {folder}: {error}") from error


def _read(folder: Path, document: Mapping[str, Any]) -> TrustPolicy:
    files = document["files"]
    if set(files) != _files_of(document["stages"]):
        raise ValueError("files that no stage has, or stages without theirs")
    for name, digest in files.items():
        if _digest(folder, name) != digest:
            raise _damaged(folder, f"{name} does not match its checksum")
    stages = tuple(_read_stage(folder, stage) for stage in document["stages"])
    evidence = _EVIDENCE.validate_python(document["evidence"])
    policy = TrustPolicy(stages, evidence, _read_sets(document["sets"], stages))
    if policy.request is not None:
        _REQUEST.validate_python(asdict(policy.request))
    return policy


def _read_sets(data: Mapping[str, Any] | None, stages: Sequence[Stage]) -> PredictionSets | None:
    if data is None:
        return None
    if data["scores"] != CLASSES:
        return read_option_sets(data)
    (stage,) = stages
    if not isinstance(stage.estimator, AppliedScore):
        raise ValueError("sets over classes without a classifier's score")
    return read_class_sets(data, stage.estimator.texts)


def _files_of(stages: Sequence[Mapping[str, Any]]) -> set[str]:
    """Files of the stages that were fitted, each in the folder of its place."""
    own = {f"stage-{at}": s for at, s in enumerate(stages) if s["fitted"] is not None}
    if own.keys() != {stage["fitted"] for stage in stages} - {None}:
        raise ValueError("a stage in another folder than its own")
    return {
        f"{folder}/{name}"
        for folder, stage in own.items()
        for name in ((SCORE,) if "score" in stage else (SETTINGS, ARRAYS))
    }


def _write_estimator(folder: Path, own: str, stage: Stage) -> dict[str, str]:
    """Writes a stage's fitted estimator or score; returns the checksums of its files."""
    names: tuple[str, ...] = (SETTINGS, ARRAYS)
    try:
        if isinstance(stage.estimator, AppliedScore):
            names = (SCORE,)
            write_score(folder / own, stage.estimator)
        elif isinstance(stage.estimator, FittedEstimator):
            save_fitted(folder / own, Saved(stage.estimator, stage.spec, {"policy": True}))
    except OSError as error:
        raise DiskError(
            f"Writing {folder / own} failed: {error.strerror}; a directory that can be written is "
            "required. Choose another."
        ) from error
    return {f"{own}/{name}": _digest(folder, f"{own}/{name}") for name in names}


def _read_stage(folder: Path, stage: Mapping[str, Any]) -> Stage:
    estimator: Estimator
    if "score" in stage:
        estimator = read_score(folder / stage["fitted"], stage["spec"], stage["score"])
    elif stage["fitted"] is None:
        known = from_spec(stage["spec"])
        if isinstance(known, LearnedEstimator):
            raise ValueError(f"{stage['name']} is not fitted")
        estimator = known
    else:
        saved = load_fitted(folder / stage["fitted"])
        if saved.spec != stage["spec"]:
            raise ValueError(f"{stage['fitted']} holds another estimator than {stage['name']}")
        estimator = saved.estimator
    undecided = None
    if stage["undecided"] is not None:
        low, high = stage["undecided"]
        if not 0.0 <= low <= high:
            raise ValueError(f"{stage['name']} leaves no band")
        undecided = (low, high)
    return Stage(
        name=stage["name"],
        spec=stage["spec"],
        estimator=estimator,
        calibration=load_calibration(stage["calibration"]),
        undecided=undecided,
    )


def _digest(folder: Path, name: str) -> str:
    try:
        return hashlib.sha256((folder / name).read_bytes()).hexdigest()
    except OSError:
        raise _damaged(folder, f"{name} is missing or cannot be read") from None


def _damaged(folder: Path, found: str) -> CorruptStoreError:
    return CorruptStoreError(
        f"Policy {folder}: {found}; the files as they were written are required. Calibrate again, "
        "or restore them from a copy."
    )
