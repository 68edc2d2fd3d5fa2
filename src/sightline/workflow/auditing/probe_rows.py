"""What probing found of each question, as it is kept beside a run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from sightline.audit.attack import PixelAttack
from sightline.audit.frequency import NOISE_SIZES
from sightline.core.errors import DataError
from sightline.store.disk import make_directory, write_file

PROBES = Path("audit") / "probes.json"
_ATTACK = PixelAttack()
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """How questions are probed.

    Attributes:
        questions: How many of the run's questions, of as many pictures as there are.
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
        score_change: Log-probability of the clean label, or of the clean answer where it is free,
            after less before, nats.
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
        side: Height and width of the space that is probed.
        agrees: Whether the label in that space is the collected one.
        cutoffs: By filter, the first cut-off at which the label flips; None where it never does.
        noise: By band, for each size how many trials flip the label.
        attacks: By band.
        reads: Pictures the model was asked about, each with all answers.
        gradients: How often it was asked for a gradient too.
        free: Whether the answer is free, and flips when decoded again with another short form.
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
    free: bool = False


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


def write_probes(run: Path, probed: ProbedRun) -> None:
    """Writes what was probed of a run, in place of what was there.

    Raises:
        DiskError: It cannot be written.
    """
    content = json.dumps(asdict(probed), allow_nan=False).encode() + b"\n"
    make_directory((run / PROBES).parent)
    write_file(run / PROBES, lambda file: file.append(memoryview(content)))
