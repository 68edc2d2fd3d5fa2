"""The study of hidden instability: what an audit finds on models whose pictures are known.

Every model is asked the same questions about the same generated pictures under every perturbation
of the bank. An audit of each gives the tables of the paper's form; together they say which of its
three findings hold. What single answers show under perturbation is then measured as uncertainty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

from sightline.core.audit_results import Finding
from sightline.core.errors import UsageError
from sightline.core.features import ARRAY_AXES
from sightline.core.protocols import Request
from sightline.data.examples import load_dataset
from sightline.data.perturbations import CONTROLS, PERTURBATIONS, parse_conditions
from sightline.data.scenes import BENCHMARK_TYPES
from sightline.models import load_model
from sightline.models.embedded import EMBEDDED
from sightline.store.images import image_writer
from sightline.store.run import RunStore
from sightline.workflow.auditing.comparing import compare_sizes
from sightline.workflow.auditing.probe_rows import ProbeSettings
from sightline.workflow.auditing.probing import probe_run
from sightline.workflow.auditing.running import AuditOutcome, AuditSettings, audit_run
from sightline.workflow.auditing.writing import write_audit
from sightline.workflow.collect import collect
from sightline.workflow.evaluate import Settings, read_judged
from sightline.workflow.studies.audit_tables import (
    findings_table,
    overview_table,
    run_tables,
)
from sightline.workflow.studies.audit_tasks import (
    HALLUCINATION,
    REASONING,
    answers_by_type,
    by_task,
    tasks_table,
)
from sightline.workflow.studies.stability_value import value_tables
from sightline.workflow.studies.tables import StudyTable, kept_tables

Progress = Callable[[str], None]

RUNS: Mapping[str, str] = {
    name: f"embedded:{name}" for name in ("vlm", "vlm-prior", "vlm-small", "vlm-narrow")
}
"""Models that are always audited, by the name of their run."""

RETRAINED = ("vlm-prior",)
"""Trained on other data than the rest, so that they say nothing of size."""

EVERY_FAMILY = tuple(family for family in PERTURBATIONS if family != "blank")
"""All families; without a picture every question is asked anyway."""

TYPES = ",".join(f"{name}*4" if name == "multiple_choice" else name for name in BENCHMARK_TYPES)
"""Types of question; a third are multiple choice, which have channels of their own."""


@dataclass(frozen=True, slots=True)
class AuditSize:
    """How much is measured.

    Attributes:
        questions: Questions per run, three to a picture.
        conditions: Families and controls, or single conditions.
        samples: Sampled answers to the clean picture, for the estimators that need some.
        control_items: Questions that controls are drawn among.
        controls: Partners of each.
        spectra: Questions whose perturbations are measured by frequency.
        probed: Questions whose frequencies are probed, each about a picture of its own.
        budget: Conditions to choose as the most informative; 0 for none.
        bases: Estimators that signs of instability are added to.
        seeds: Splits of the tables of uncertainty.
        resamples: Bootstrap resamples.
    """

    questions: int = 1500
    conditions: tuple[str, ...] = (*EVERY_FAMILY, *CONTROLS)
    samples: int = 10
    control_items: int = 600
    controls: int = 25
    spectra: int = 32
    probed: int = 192
    budget: int = 4
    bases: tuple[str, ...] = ("sequence_probability", "sgpu", "harmony")
    seeds: int = 3
    resamples: int = 1000


QUICK = AuditSize(
    questions=300,
    conditions=("translate:8", "rotate:30", "text:1", "jpeg:3", "wording:1", "unrelated:1"),
    samples=4,
    control_items=100,
    controls=5,
    spectra=4,
    probed=4,
    budget=2,
    bases=("sequence_probability", "sgpu"),
    seeds=1,
    resamples=100,
)
"""Shows that every table can be computed; too small for its figures to say anything."""


def study_audit(
    out: Path, size: AuditSize, *, also: Mapping[str, Path], progress: Progress
) -> list[StudyTable]:
    """Measures every table of the study.

    Args:
        out: Receives the runs, with an audit each, and the tables; resumes what is there.
        size: How much is measured.
        also: Further models by name, such as other sizes of an embedded one.
        progress: Called before every long step.

    Raises:
        UsageError: A further model has the name of one that is audited anyway.
    """
    taken = sorted(RUNS.keys() & also.keys())
    if taken:
        raise UsageError(
            f"--also {taken[0]}=…; a name of its own is required, {', '.join(RUNS)} are audited "
            "anyway. Rename it."
        )
    study = _Study(
        out, size, {**RUNS, **{name: str(path) for name, path in also.items()}}, progress
    )
    shown: list[StudyTable] = []
    for run in study.models:
        shown += [*study.audited(run), *study.valued(run)]
    return [*study.together(), *shown]


def parameters(model: str) -> int:
    """Number of a model's stored weights, read from the headers of its files.

    Args:
        model: ``embedded:NAME`` or a directory.
    """
    from safetensors import safe_open

    embedded, _, name = model.partition(":")
    folder = EMBEDDED[name].path if embedded == "embedded" else Path(model)
    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "numpy") as weights:
            total += sum(math.prod(weights.get_slice(key).get_shape()) for key in weights.keys())  # noqa: SIM118 (no mapping)
    return total


class _Study:
    """The runs of a study, collected once, their audits, and its tables, kept when measured."""

    def __init__(
        self, out: Path, size: AuditSize, models: Mapping[str, str], progress: Progress
    ) -> None:
        self.models = models
        self._out = out
        self._size = size
        self._progress = progress
        self._outcomes: dict[str, AuditOutcome] = {}
        self._settings = AuditSettings(
            control_items=size.control_items,
            controls=size.controls,
            spectra=size.spectra,
            budget=size.budget,
            geometry=True,
            resamples=size.resamples,
        )

    def audited(self, run: str) -> list[StudyTable]:
        """Collects, probes and audits one run."""
        self._observe(run)

        def measured() -> list[StudyTable]:
            outcome = self._outcome(run)
            answers = answers_by_type(outcome, RunStore.open(self._path(run)))
            tasks = tasks_table(run, answers, self._settings)
            return [*run_tables(run, outcome.audit), tasks]

        return self._kept(f"audited-{run}", (run,), measured)

    def valued(self, run: str) -> list[StudyTable]:
        """What single answers' instability is worth as uncertainty; after `audited`."""

        def measured() -> list[StudyTable]:
            settings = Settings(seeds=self._size.seeds)
            judged = read_judged(RunStore.open(self._path(run)), settings, set(ARRAY_AXES))
            return value_tables(
                run,
                judged.rows,
                self._size.bases,
                resamples=self._size.resamples,
                progress=self._progress,
            )

        return self._kept(f"valued-{run}", (run,), measured)

    def together(self) -> list[StudyTable]:
        """The three findings with their verdicts, and the runs side by side."""

        def measured() -> list[StudyTable]:
            found: list[tuple[str, Finding]] = []
            for run in self.models:
                outcome = self._outcome(run)
                answers = answers_by_type(outcome, RunStore.open(self._path(run)))
                found += [(run, finding) for finding in outcome.audit.findings]
                found.append((run, by_task(answers, REASONING, HALLUCINATION, self._settings)))
            found += self._by_size()
            audits = {run: self._outcome(run).audit for run in self.models}
            sizes = {run: parameters(model) for run, model in self.models.items()}
            return [findings_table(found), overview_table(audits, sizes)]

        return self._kept("together", tuple(self.models), measured)

    def _by_size(self) -> list[tuple[str, Finding]]:
        """Whether size helps, of every two models of different sizes, the smaller first.

        A verdict on more models is one on the smallest and the largest, so that models between
        them would only seem to be judged.
        """
        by_size: dict[int, str] = {}
        for run, model in self.models.items():
            if run not in RETRAINED:
                by_size.setdefault(parameters(model), run)
        found = []
        for small, large in combinations(sorted(by_size), 2):
            names = (by_size[small], by_size[large])
            outcomes = [self._outcome(run) for run in names]
            finding = compare_sizes(outcomes, [small, large], self._settings)
            found.append((", ".join(names), finding))
        return found

    def _observe(self, run: str) -> None:
        self._progress(f"{run}: collecting")
        path, size = self._path(run), self._size
        model = load_model(self.models[run])
        source = f"scenes:test?n={size.questions}&types={TYPES}"
        collect(
            model,
            load_dataset(source, store_image=image_writer(path)),
            path,
            request=Request(
                max_new_tokens=24,
                n_samples=size.samples,
                layers=(0.25, 0.5, 0.75, 1.0),
                options=True,
                blank=True,
                channels=True,
                energy_maps=16,
                conditions=tuple(c.name for c in parse_conditions(size.conditions)),
            ),
            batch_size=32,
            shard_size=32,
        )
        if size.probed:
            self._progress(f"{run}: probing")
            probe_run(path, model, ProbeSettings(size.probed, seed=self._settings.seed))

    def _outcome(self, run: str) -> AuditOutcome:
        if run not in self._outcomes:
            self._progress(f"{run}: auditing")
            outcome = audit_run(self._path(run), self._settings)
            write_audit(outcome, self._path(run))
            self._outcomes[run] = outcome
        return self._outcomes[run]

    def _path(self, run: str) -> Path:
        return self._out / "runs" / run

    def _kept(
        self, key: str, runs: tuple[str, ...], measure: Callable[[], list[StudyTable]]
    ) -> list[StudyTable]:
        models = [RunStore.open(self._path(run)).manifest.model for run in runs]
        settings = {
            "size": asdict(self._size),
            "models": {run: own["files_xxh3"] for run, own in zip(runs, models, strict=True)},
        }
        return kept_tables(self._out / "tables", key, settings, measure)
