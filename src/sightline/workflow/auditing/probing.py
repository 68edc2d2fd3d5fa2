"""Frequency probes of a run's questions: the one step of an audit that asks the model again.

Each question is probed by itself, in the model's own pixel space, or in the picture's where the
model reads tiles of it: its picture is filtered until the label flips, given noise of one band, and
attacked within one band. Labels are read off the scores of answers, as the run has them; a free
answer is scored itself, and flips when it is decoded again with another short form. What is found
is written after every question, so that a stopped probe goes on and ends with the same figures.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from sightline.audit.attack import HIGH_BAND, LOW_BAND, PixelAttack, attack
from sightline.audit.frequency import Band, band_edges, coherence
from sightline.audit.probes import (
    HIGH_PASS_CUTOFFS,
    LOW_PASS_CUTOFFS,
    flip_thresholds,
    noise_flips,
)
from sightline.core.condition_names import CLEAN
from sightline.core.errors import ImageError, ModelError, UsageError
from sightline.core.features import Feature
from sightline.core.printing import rough_duration
from sightline.core.text import answer_form, canonical_answer
from sightline.core.types import Record
from sightline.data.images import load_image
from sightline.data.perturbations import prepared
from sightline.store.run import RunStore
from sightline.workflow.auditing.pairs import label_of, option_scores
from sightline.workflow.auditing.probe_rows import (
    AttackedQuestion,
    ProbedQuestion,
    ProbedRun,
    ProbeSettings,
    load_probes,
    write_probes,
)

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

BANDS: Mapping[str, Band] = {"low": LOW_BAND, "high": HIGH_BAND}
"""The bands of noise and attack."""

_SCORES = (Feature.OPTION_LOGPROBS, Feature.YES_NO_LOGPROBS)
FILTERS: tuple[Literal["low", "high"], ...] = ("low", "high")
_BATCH = 8
_SAME_MODEL = ("files_xxh3", "model_type", "revision", "quantization", "prompt_style")

Progress = Callable[[int, int], None]


class Scorer(Protocol):
    """Scores and labels of one question's answers, from the pixels of its picture."""

    clean: np.ndarray
    answers: tuple[str, ...]

    def scores(self, pixels: torch.Tensor) -> torch.Tensor:
        """Log-probability of each answer, in nats, (n, answers), with gradients."""
        ...

    def labels(self, pixels: np.ndarray) -> np.ndarray:
        """The label of each picture, by number."""
        ...


def probe_run(
    run: Path,
    model: Any,
    settings: ProbeSettings,
    *,
    announce: Callable[[str], None] = lambda _text: None,
    progress: Progress = lambda _done, _total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Probes questions of a run that are about one picture: of every picture one, then a second.

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
        UsageError: The model does not show gradients, is not that of the run, or reads pixels that
            no known way from the first picture leads to; or no question of the run can be probed.
        DiskError: The results cannot be written.
    """
    from sightline.models.pixels import require_white_box

    store = RunStore.open(run)
    fingerprint = dict(require_white_box(model).fingerprint())
    _require_same_model(store, fingerprint)
    chosen = _candidates(store, settings.questions)
    if not chosen:
        raise UsageError(
            f"{run} has no answered question about one picture; such questions are required to "
            "probe frequencies. Collect some."
        )
    source = _source(settings, fingerprint)
    earlier = load_probes(run)
    kept = earlier.questions if earlier is not None and earlier.source == source else ()
    done = {row.example_id: row for row in kept}
    left = [record for record in chosen if record.example.id not in done]
    probing = _Probing(store, model, settings, any(row.reason is None for row in kept))
    if left:
        announce(probing.forecast(left))
    for record in left:
        if should_stop():
            return False
        done[record.example.id] = probing.probed(record)
        write_probes(run, ProbedRun(source, tuple(done[i] for i in _ordered(store, done))))
        progress(sum(r.example.id in done for r in chosen), len(chosen))
    return True


@dataclass(frozen=True, slots=True)
class _Probing:
    store: RunStore
    model: Any
    settings: ProbeSettings
    known: bool  # whether a question was probed before, so that a way to the pixels is known

    def forecast(self, left: list[Record]) -> str:
        """One line on what the probes cost, the time measured on one question."""
        options = self.settings
        filters = len(LOW_PASS_CUTOFFS) + len(HIGH_PASS_CUTOFFS)
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
        return f"{line}; about {rough_duration(seconds)}, measured on one"

    def probed(self, record: Record) -> ProbedQuestion:
        """One question, probed; with its reason where its picture or prompt cannot be read.

        Whether a way leads to a model's tiles depends on the picture's size: `forecast` found one
        for another picture, so this question alone is left out.
        """
        try:
            scorer = self._scorer(record)
        except (UsageError, ModelError) as error:
            return _left_out(record, error)
        try:
            return self._probed(record, scorer)
        except (ImageError, ModelError) as error:
            return _left_out(record, error)

    def _first(self, left: list[Record]) -> Scorer | None:
        """What reads the first question that can be read; None where none can.

        Raises:
            UsageError: No way to the model's pixels is known for the first picture, nor was one for
                a picture before.
        """
        for record in left:
            try:
                return self._scorer(record)
            except (ImageError, ModelError):
                continue
            except UsageError:
                if not self.known:
                    raise
        return None

    def _scorer(self, record: Record) -> Scorer:
        from sightline.models.pixel_answers import AnswerScorer
        from sightline.models.pixels import PixelScorer

        if _is_scored(record):
            return PixelScorer(self.model, record.example, self._picture(record))
        return AnswerScorer(
            self.model,
            record.example,
            self._picture(record),
            max_new_tokens=int(self.store.manifest.settings["request"]["max_new_tokens"]),
        )

    def _picture(self, record: Record) -> Image:
        named = self.store.manifest.image_root
        root = Path(named) if named else self.store.path
        return prepared(load_image(record.example.images[0], root))

    def _probed(self, record: Record, scorer: Scorer) -> ProbedQuestion:
        options, clean = self.settings, [scorer.clean]
        asked = _Asked(scorer)
        label = scorer.labels(scorer.clean[None])
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
            agrees=_agrees(record, scorer.answers[int(label[0])]),
            cutoffs={
                name: float(found.cutoffs[0]) if len(found.cutoffs) else None
                for name, found in thresholds.items()
            },
            noise={
                name: tuple(int(n) for n in own[..., 0].sum(axis=1))
                for name, own in zip(BANDS, flips, strict=True)
            },
            attacks={
                name: self._attacked(scorer, int(label[0]), band) for name, band in BANDS.items()
            },
            reads=asked.pictures + 1 + len(BANDS) * (options.steps + 2),
            gradients=len(BANDS) * options.steps,
            free=not _is_scored(record),
        )

    def _attacked(self, scorer: Scorer, base: int, band: Band) -> AttackedQuestion:
        options, clean = self.settings, scorer.clean[None]
        plan = PixelAttack(options.epsilon, options.step, options.steps, band)
        found = attack(clean, _score_of(scorer, base), plan)
        height, width = scorer.clean.shape[:2]
        agreement = coherence(clean, found.images, band_edges(height=height, width=width))[0]
        return AttackedQuestion(
            flipped=int(scorer.labels(found.images)[0]) != base,
            score_change=float(found.loss_after[0] - found.loss_before[0]),
            leakage=float(found.leakage[0]),
            largest=float(found.largest[0]),
            coherence=tuple(float(value) for value in agreement),
        )


def _left_out(record: Record, error: Exception) -> ProbedQuestion:
    return ProbedQuestion(record.example.id, reason=" ".join(str(error).split())[:300])


@dataclass(slots=True)
class _Asked:
    """Labels of changed pictures, and how many were asked about."""

    scorer: Scorer
    pictures: int = 0

    def __call__(self, pictures: Any, rows: np.ndarray) -> np.ndarray:
        self.pictures += len(rows)
        return self.scorer.labels(np.stack(pictures))


def _score_of(scorer: Scorer, base: int) -> Callable[[Any], Any]:
    """The score of one answer as a loss, as published."""
    return partial(_column, scorer, base)


def _column(scorer: Scorer, base: int, pixels: Any) -> Any:
    return scorer.scores(pixels)[:, base]


def _candidates(store: RunStore, count: int) -> list[Record]:
    """Clean records of answered questions about one picture, the first of every picture first.

    Questions about one picture say little more than one of them, and each costs as much.
    """
    ranks: Counter[str] = Counter()
    found: list[tuple[int, str]] = []
    for record in store.records(condition=CLEAN, features=()):
        if record.greedy is not None and len(record.example.images) == 1:
            picture = record.example.images[0].sha256
            found.append((ranks[picture], record.example.id))
            ranks[picture] += 1
    place = {example_id: i for i, (_, example_id) in enumerate(sorted(found, key=_rank)[:count])}
    chosen = [r for r in store.records(condition=CLEAN, features=_SCORES) if r.example.id in place]
    return sorted(chosen, key=lambda record: place[record.example.id])


def _rank(candidate: tuple[int, str]) -> int:
    """Which question about its picture it is; equals stay in the run's order."""
    return candidate[0]


def _is_scored(record: Record) -> bool:
    """Whether the label is read off the scores of options, or of yes and no."""
    closed = record.example.choices is not None or answer_form(record.example) == "yes_no"
    return closed and option_scores(record) is not None


def _agrees(record: Record, answer: str) -> bool:
    """Whether an answer is the one that the run's own label names."""
    example, label = record.example, label_of(record, option_scores(record))
    if not _is_scored(record):
        return canonical_answer(example, answer) == label
    if example.choices is None:
        return answer == label
    return answer == example.choices[example.letters.index(label)]


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
