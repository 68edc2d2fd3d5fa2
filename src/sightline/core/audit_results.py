"""Typed results of an audit: all that a report of it may read.

`Audit` is written as audit.json and read back with `load_audit`; nothing that renders it computes a
figure of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from sightline.core.audit_answers import Meaning, Part, Prior, Rates, YesNo
from sightline.core.errors import DataError
from sightline.core.estimates import Estimate
from sightline.core.probe_results import BudgetedAudit, Probes
from sightline.core.results import Skipped

AUDIT_VERSION = 2
CONTROL_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "other_images": "another picture, same question",
        "other_items": "another question",
        "paraphrases": "same picture, other words",
    }
)
"""What drift is held against, in words."""

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class ChannelDrift:
    """Drift of one channel at one layer under one type of perturbation, beside one control.

    Of the pairs that count in the rates of the same name, as far as they have the channel.

    Attributes:
        channel: Feature whose clean and perturbed vectors are compared.
        layer: Layer index; None for vision tokens.
        name: Type of perturbation, or ``all``.
        control: ``other_images`` (same question), ``other_items`` or ``paraphrases``.
        unchanged: Whether only pairs whose label stayed are looked at.
        drift: Mean 1 - cosine over questions.
        l2: Mean Euclidean drift over pairs.
        control_drift: Mean 1 - cosine to the control's partners.
        percent: 100 drift / control.
        percent_sd: Its spread over questions, as printed in the paper.
        cohens_d: Drift less control in pooled standard deviations.
        rows: Drift values.
        partners: Control values.
    """

    channel: str
    layer: int | None
    name: str
    control: str
    unchanged: bool
    drift: Estimate
    l2: Estimate
    control_drift: Estimate
    percent: Estimate
    percent_sd: float | None
    cohens_d: Estimate
    rows: int
    partners: int


@dataclass(frozen=True, config=_STRICT)
class Similarity:
    """Mean linear CKA of a channel at one layer between clean and perturbed vectors.

    Attributes:
        channel: Feature whose clean and perturbed vectors are compared.
        layer: Layer index; None for vision tokens.
        name: Type of perturbation.
        value: Debiased, mean over the type's conditions; 1 is unchanged.
        conditions: How many conditions have one.
    """

    channel: str
    layer: int | None
    name: str
    value: float
    conditions: int


@dataclass(frozen=True, config=_STRICT)
class Density:
    """Counts of drift values and control values in the same bins of 1 - cosine."""

    channel: str
    layer: int | None
    edges: tuple[float, ...]
    unchanged: tuple[int, ...]
    flipped: tuple[int, ...]
    control: tuple[int, ...]
    control_name: str


@dataclass(frozen=True, config=_STRICT)
class BandMeans:
    """Mean power of a coefficient in each band, low band first; means over pictures.

    ``clean`` is of the clean pictures, ``perturbed`` of the same pictures under the type.
    """

    clean: tuple[float, ...]
    perturbed: tuple[float, ...]

    @property
    def changes(self) -> tuple[float | None, ...]:
        """Change of each band's mean over its clean mean; None for a band without power."""
        return tuple(
            (after - before) / before if before else None
            for before, after in zip(self.clean, self.perturbed, strict=True)
        )


@dataclass(frozen=True, config=_STRICT)
class Spectrum:
    """Frequency bands of a type's change of the pixels, low band first; means over pictures.

    ``shares`` are those of the bands in the change, ``relative`` the change of each band's power
    over the clean picture's total power. ``means`` are as published, of all pairs and of flips.
    """

    name: str
    pictures: int
    shares: tuple[float, ...]
    relative: tuple[float, ...]
    shares_of_flips: tuple[float, ...] | None
    coherence: tuple[float, ...]
    means: BandMeans | None = None
    means_of_flips: BandMeans | None = None


@dataclass(frozen=True, config=_STRICT)
class Finding:
    """A verdict; see `sightline.audit.verdicts.Verdict`."""

    finding: str
    outcome: Literal["holds", "does not hold", "undecided"]
    estimate: Estimate
    rule: str
    reason: str | None
    evidence: dict[str, Estimate]


@dataclass(frozen=True, config=_STRICT)
class Comparison:
    """Verdicts on several audits together.

    Attributes:
        runs: Names of the runs, those that others are held against last.
        findings: Whether size helps, where sizes are known; whether other questions suffer
            otherwise, one for each run held against them.
        unlike: That the runs' pairs differ, and by how many; None where all count in every run.
    """

    runs: tuple[str, ...]
    findings: tuple[Finding, ...]
    unlike: str | None = None


@dataclass(frozen=True, config=_STRICT)
class AuditedPair:
    """One answer under one condition, as audit.csv has it.

    Attributes:
        example_id: The question.
        condition: What was done to the picture.
        kind: Type of perturbation.
        part: As `Rates.part`.
        image: Number of the picture; pairs that share one are not independent.
        form: ``choice``, ``yes_no`` or ``text``: how the label is read.
        truth: Whether the right answer stays.
        excluded: Why the pair does not count; empty where it does.
        clean_label: Label under the clean picture: option, yes or no, or the answer's short form.
        label: Label under the condition.
        flipped: Whether they differ.
        flipped_per_token: The same of labels by mean log-probability per token; None without.
        flipped_letters: The same of labels by the scores of the options' letters.
        meaning_changed: Whether a free answer says something else; None for other answers.
        right_before: None where the right answer is not known.
        right_after: The same under the condition.
        margin_before: Margin of the clean label, nats; None for free answers.
        margin: The same under the condition.
        margin_true_before: Margin of the right option under the clean picture.
        margin_true: The same under the condition.
        score_change: Log-probability of the clean answer, after less before, nats.
        drift: 1 - cosine of the flagged channel at its layer.
        drift_l2: Its Euclidean drift.
        moved_far: Whether it moved as far as an unrelated picture, its label unchanged.
        energy_before: Dirichlet energy of the clean picture's vision tokens.
        energy: The same under the condition.
        energy_change: Change of the normalised energy.
        prior_index: Drift-to-prior.
        answer: The greedy answer's text.
    """

    example_id: str
    condition: str
    kind: str
    part: Part
    image: int
    form: str
    truth: str
    excluded: str
    clean_label: str
    label: str
    flipped: bool
    flipped_per_token: bool | None
    flipped_letters: bool | None
    meaning_changed: bool | None
    right_before: bool | None
    right_after: bool | None
    margin_before: float | None
    margin: float | None
    margin_true_before: float | None
    margin_true: float | None
    score_change: float | None
    drift: float | None
    drift_l2: float | None
    moved_far: bool
    energy_before: float | None
    energy: float | None
    energy_change: float | None
    prior_index: float | None
    answer: str


@dataclass(frozen=True, config=_STRICT)
class ShownMap:
    """Energy of the vision tokens of one picture under one condition, rows from the top."""

    example_id: str
    condition: str
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, config=_STRICT)
class ShownExample:
    """A question of which the report shows pictures."""

    example_id: str
    question: str
    references: tuple[str, ...]
    image: str
    image_sha256: str
    clean_answer: str
    pairs: tuple[AuditedPair, ...]


@dataclass(frozen=True, config=_STRICT)
class AuditProtocol:
    """How an audit was made; everything that changes its figures.

    ``preserving`` are the conditions that whoever audits said to keep the right answer, on top of
    those known to; ``named_pairs`` count for that reason alone. ``unrelated`` are the answers about
    another question's picture, which join the control of the same question.
    """

    conditions: tuple[str, ...]
    preserving: tuple[str, ...]
    named_pairs: int
    layers: tuple[int, ...]
    channel: str
    flag_rule: str
    flag_control: str
    controls: int
    control_items: int
    resamples: int
    level: float
    threshold: float
    seed: int
    band_edges: str
    spectra_pictures: int
    unrelated: int = 0


@dataclass(frozen=True, config=_STRICT)
class Audit:
    """One run, audited.

    `rates` starts with ``all`` (every pair of a changed picture that counts), then types of
    perturbation, then single conditions. ``warning`` is what a reader must know first, None where
    there is nothing. ``spectra_skipped`` are questions whose spectra could not be measured.
    ``cka`` is of the flagged channel at its last layer, by condition; ``similarities`` are made
    when asked.
    """

    format_version: Literal[2]
    sightline_version: str
    run: str
    path: str
    model: str
    dataset: str
    partial: str | None
    notes: tuple[str, ...]
    warning: str | None
    items: int
    images: int
    quarantined: int
    refused: tuple[Skipped, ...]
    protocol: AuditProtocol
    rates: tuple[Rates, ...]
    visual_entropy: Estimate
    variants: dict[str, Estimate]
    drift: tuple[ChannelDrift, ...]
    densities: tuple[Density, ...]
    cka: dict[str, float]
    no_energy: str | None
    energy_correlations: dict[str, Estimate]
    yes_no: tuple[YesNo, ...]
    prior: Prior | None
    spectra: tuple[Spectrum, ...]
    no_spectra: str | None
    spectra_skipped: tuple[Skipped, ...]
    findings: tuple[Finding, ...]
    moved_far: Estimate
    unstable: tuple[ShownExample, ...]
    hidden: tuple[ShownExample, ...]
    sheet: tuple[ShownExample, ...]
    maps: tuple[ShownMap, ...] = field(default=())
    meaning: tuple[Meaning, ...] = field(default=())
    probes: Probes | None = field(default=None)
    budgets: tuple[BudgetedAudit, ...] = field(default=())
    similarities: tuple[Similarity, ...] = field(default=())


def audit_json(audit: Audit) -> str:
    """Returns the text of audit.json, readable by people and by `load_audit`."""
    return json.dumps(asdict(audit), indent=1, allow_nan=False) + "\n"


def load_audit(path: Path) -> Audit:
    """Reads audit.json.

    Raises:
        DataError: The file cannot be read, or is not an audit of this format version.
    """
    try:
        return TypeAdapter(Audit).validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}; the results of an audited run are required. "
            "Run 'sightline audit' first."
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise DataError(
            f"{path}: {first['msg']} at {where}; an audit of format version {AUDIT_VERSION} is "
            "required. Run 'sightline audit' again."
        ) from None
