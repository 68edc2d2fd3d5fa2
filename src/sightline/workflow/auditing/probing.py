"""Frequency probes of a run's questions: the one step of an audit that asks the model again.

Each question is probed by itself, in the model's own pixel space: its picture is filtered until the
label flips, given noise of one band, and attacked within one band. What is found is written after
every question, so that a stopped probe goes on and ends with the same figures.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from sightline.audit.attack import HIGH_BAND, LOW_BAND, PixelAttack, attack
from sightline.audit.frequency import NOISE_SIZES, Band, band_edges, coherence
from sightline.audit.probes import flip_thresholds, noise_flips
from sightline.core.condition_names import CLEAN
from sightline.core.errors import DataError, ImageError, ModelError, UsageError
from sightline.core.text import answer_form
from sightline.core.types import Record
from sightline.data.images import load_image
from sightline.data.perturbations import prepared
from sightline.store.disk import make_directory, write_file
from sightline.store.run import RunStore
from sightline.workflow.auditing.pairs import label_of, option_scores

if TYPE_CHECKING:
    from PIL.Image import Image

    from sightline.models.pixels import PixelScorer

PROBES = Path("audit") / "probes.json"
BANDS: Mapping[str, Band] = {"low": LOW_BAND, "high": HIGH_BAND}
"""The bands of noise and attack."""

FILTERS: tuple[Literal["low", "high"], ...] = ("low", "high")
_ATTACK = PixelAttack()
_BATCH = 8
_SAME_MODEL = ("files_xxh3", "model_type", "revision", "quantization", "prompt_style")
_STRICT = ConfigDict(extra="forbid")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """How questions are probed.

    Attributes:
        questions: How many of the run's questions, in its order.
        sizes: Largest change of a pixel by noise.
        trials: Draws of noise for each band.
        epsilon: Largest change of a pixel by the attack.
        step: Length of a step.
        steps: Number of steps.
        seed: Of the noise.
    """

    questions: int
    sizes: tuple[float, ...] = NOISE_SIZES
    trials: int = 5
    epsilon: float = _ATTACK.epsilon
    step: float = _ATTACK.step
    steps: int = _ATTACK.steps
    seed: int = 0


@checked(frozen=True, config=_STRICT)
class AttackedQuestion:
    """What an attack within one band did to one question.

    Attributes:
        flipped: Whether the label is another.
        score_change: Log-probability of the clean label, after less before, nats.
        leakage: Share of the change's power outside the band, which clipping lets out.
        largest: Largest change of a pixel.
        coherence: Agreement of clean and attacked picture in the low, middle and high band.
    """

    flipped: bool
    score_change: float
    leakage: float
    largest: float
    coherence: tuple[float, ...]


@checked(frozen=True, config=_STRICT)
class ProbedQuestion:
    """What the probes found of one question, or why there is nothing.

    Attributes:
        example_id: The question.
        reason: Why it was not probed; None where it was.
        side: Height and width of the model's own pixel space.
        agrees: Whether the label in that space is the collected one.
        cutoffs: By filter, the first cut-off at which the label flips; None where it never does.
        noise: By band, for each size how many trials flip the label.
        attacks: By band.
        reads: Pictures the model was asked about, each with all answers.
        gradients: How often it was asked for a gradient too.
    """

    example_id: str
    reason: str | None = None
    side: tuple[int, int] = (0, 0)
    agrees: bool = False
    cutoffs: dict[str, float | None] | None = None
    noise: dict[str, tuple[int, ...]] | None = None
    attacks: dict[str, AttackedQuestion] | None = None
    reads: int = 0
    gradients: int = 0


@checked(frozen=True, config=_STRICT)
class ProbedRun:
    """All that was probed of a run.

    Attributes:
        source: Settings and model that the rows depend on.
        questions: In the run's order.
    """

    source: dict[str, Any]
    questions: tuple[ProbedQuestion, ...] = ()


def load_probes(run: Path) -> ProbedRun | None:
    """What was probed of a run; None where nothing was.

    Raises:
        DataError: The file is damaged.
    """
    path = run / PROBES
    if not path.exists():
        return None
    try:
        return TypeAdapter(ProbedRun).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}); the probes of this version are "
            "required. Remove the file and probe again with --probe."
        ) from None


def probe_run(
    run: Path,
    model: Any,
    settings: ProbeSettings,
    *,
    announce: Callable[[str], None] = lambda _text: None,
    progress: Progress = lambda _done, _total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Probes the first questions of a run that have a label read off scores.

    Questions that were probed with the same settings and model are kept; each further one is
    written as soon as it is done.

    Args:
        run: Directory of a run collected from the same model.
        model: The model, a local one.
        settings: How to probe.
        announce: Receives what it will cost, before it begins.
        progress: Called after every question with how many are done, and of how many.
        should_stop: Asked before every question.

    Returns:
        Whether all are done.

    Raises:
        UsageError: The model does not show gradients, is not that of the run, or cuts pictures into
            tiles; or no question of the run can be probed.
        DiskError: The results cannot be written.
    """
    from sightline.models.pixels import require_white_box

    store = RunStore.open(run)
    fingerprint = dict(require_white_box(model).fingerprint())
    _require_same_model(store, fingerprint)
    chosen = _candidates(store, settings.questions)
    if not chosen:
        raise UsageError(
            f"{run} has no question about one picture whose answer is scored (options, or yes and "
            "no); such questions are required to probe frequencies. Collect some with --channels."
        )
    source = _source(settings, fingerprint)
    earlier = load_probes(run)
    kept = earlier.questions if earlier is not None and earlier.source == source else ()
    done = {row.example_id: row for row in kept}
    left = [record for record in chosen if record.example.id not in done]
    probing = _Probing(store, model, settings)
    if left:
        announce(probing.forecast(left))
    for record in left:
        if should_stop():
            return False
        done[record.example.id] = probing.probed(record)
        _write(run, ProbedRun(source, tuple(done[i] for i in _ordered(store, done))))
        progress(sum(r.example.id in done for r in chosen), len(chosen))
    return True


@dataclass(frozen=True, slots=True)
class _Probing:
    store: RunStore
    model: Any
    settings: ProbeSettings

    def forecast(self, left: list[Record]) -> str:
        """One line on what the probes cost, the time measured on one question."""
        options = self.settings
        filters = 20
        noise = len(BANDS) * len(options.sizes) * options.trials
        attacks = len(BANDS) * (options.steps + 1)
        line = (
            f"probing {len(left)} questions: for each at most {filters} filtered and {noise} noisy "
            f"pictures, and {len(BANDS)} attacks of {options.steps} steps with gradients, every "
            "picture with all its answers"
        )
        scorer = self._first(left)
        if scorer is None:
            return line
        scorer.labels(scorer.clean[None])  # the first call is slower than all others
        start = time.perf_counter()
        base = int(scorer.labels(scorer.clean[None])[0])
        read = time.perf_counter() - start
        start = time.perf_counter()
        attack(scorer.clean[None], _score_of(scorer, base), PixelAttack(steps=1))
        step = time.perf_counter() - start - read
        seconds = len(left) * (read * (filters + noise + 5) + step * attacks)
        return f"{line}; about {max(1, round(seconds / 60))} min, measured on one"

    def probed(self, record: Record) -> ProbedQuestion:
        """One question, probed; with its reason where its picture or prompt cannot be read."""
        try:
            return self._probed(record, self._scorer(record))
        except (ImageError, ModelError) as error:
            return ProbedQuestion(record.example.id, reason=" ".join(str(error).split())[:300])

    def _first(self, left: list[Record]) -> PixelScorer | None:
        for record in left:
            try:
                return self._scorer(record)
            except (ImageError, ModelError):
                continue
        return None

    def _scorer(self, record: Record) -> PixelScorer:
        from sightline.models.pixels import PixelScorer

        return PixelScorer(self.model, record.example, self._picture(record))

    def _picture(self, record: Record) -> Image:
        named = self.store.manifest.image_root
        root = Path(named) if named else self.store.path
        return prepared(load_image(record.example.images[0], root))

    def _probed(self, record: Record, scorer: PixelScorer) -> ProbedQuestion:
        options, clean = self.settings, [scorer.clean]
        before = scorer.values(scorer.clean[None])[0]
        base = int(before.argmax())
        asked = _Asked(scorer)
        label = np.array([base])
        thresholds = {
            name: flip_thresholds(clean, label, asked, filtering=name, batch=_BATCH)
            for name in FILTERS
        }
        flips = noise_flips(
            clean,
            label,
            asked,
            keys=np.array([_key(record.example.id)]),
            bands=tuple(BANDS.values()),
            sizes=options.sizes,
            trials=options.trials,
            seed=options.seed,
            batch=_BATCH,
        )
        return ProbedQuestion(
            example_id=record.example.id,
            side=scorer.clean.shape[:2],
            agrees=scorer.answers[base] == _collected(record, scorer.answers),
            cutoffs={
                name: float(found.cutoffs[0]) if len(found.cutoffs) else None
                for name, found in thresholds.items()
            },
            noise={
                name: tuple(int(n) for n in own[..., 0].sum(axis=1))
                for name, own in zip(BANDS, flips, strict=True)
            },
            attacks={name: self._attacked(scorer, before, band) for name, band in BANDS.items()},
            reads=asked.pictures + 1 + len(BANDS) * (options.steps + 2),
            gradients=len(BANDS) * options.steps,
        )

    def _attacked(self, scorer: PixelScorer, before: np.ndarray, band: Band) -> AttackedQuestion:
        options, base = self.settings, int(before.argmax())
        plan = PixelAttack(options.epsilon, options.step, options.steps, band)
        clean = scorer.clean[None]
        found = attack(clean, _score_of(scorer, base), plan)
        after = scorer.values(found.images)[0]
        height, width = scorer.clean.shape[:2]
        agreement = coherence(clean, found.images, band_edges(height=height, width=width))[0]
        return AttackedQuestion(
            flipped=int(after.argmax()) != base,
            score_change=float(after[base] - before[base]),
            leakage=float(found.leakage[0]),
            largest=float(found.largest[0]),
            coherence=tuple(float(value) for value in agreement),
        )


@dataclass(slots=True)
class _Asked:
    """Labels of changed pictures, and how many were asked about."""

    scorer: PixelScorer
    pictures: int = 0

    def __call__(self, pictures: Any, rows: np.ndarray) -> np.ndarray:
        self.pictures += len(rows)
        return self.scorer.labels(np.stack(pictures))


def _score_of(scorer: PixelScorer, base: int) -> Callable[[Any], Any]:
    """The score of one answer as a loss, as published."""
    return partial(_column, scorer, base)


def _column(scorer: PixelScorer, base: int, pixels: Any) -> Any:
    return scorer.scores(pixels)[:, base]


def _candidates(store: RunStore, count: int) -> list[Record]:
    """Clean records of the first questions about one picture whose label is read off scores."""
    found: list[Record] = []
    for record in store.records(condition=CLEAN):
        if len(found) == count:
            break
        example = record.example
        closed = example.choices is not None or answer_form(example) == "yes_no"
        scored = record.greedy is not None and option_scores(record) is not None
        if closed and scored and len(example.images) == 1:
            found.append(record)
    return found


def _collected(record: Record, answers: tuple[str, ...]) -> str:
    """The answer that the run's own scores name."""
    label = label_of(record, option_scores(record))
    return label if record.example.choices is None else answers[record.example.letters.index(label)]


def _require_same_model(store: RunStore, fingerprint: Mapping[str, Any]) -> None:
    before = store.manifest.model
    for name in _SAME_MODEL:
        if before.get(name) != fingerprint.get(name):
            raise UsageError(
                f"{store.path} was collected from {before.get('name')} ({name} {before.get(name)}),"
                f" and the model to probe has {name} {fingerprint.get(name)}; the same model is "
                "required. Name it with --model."
            )


def _source(settings: ProbeSettings, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """What the rows depend on, as JSON gives it back; how many there are to be is not part."""
    own = {**asdict(replace(settings, questions=0)), "model": dict(fingerprint)}
    return dict(json.loads(json.dumps(own)))


def _ordered(store: RunStore, done: Mapping[str, Any]) -> list[str]:
    return [example.id for example in store.examples() if example.id in done]


def _key(example_id: str) -> int:
    return int.from_bytes(hashlib.sha256(example_id.encode()).digest()[:4], "big")


def _write(run: Path, probed: ProbedRun) -> None:
    content = json.dumps(asdict(probed), allow_nan=False).encode() + b"\n"
    make_directory((run / PROBES).parent)
    write_file(run / PROBES, lambda file: file.append(memoryview(content)))
