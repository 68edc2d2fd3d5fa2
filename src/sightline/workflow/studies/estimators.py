"""The study of estimators: what each score is worth, on models whose behaviour is known.

Runs are collected once and resumed; every table is computed from them. What is fitted is fitted on
training rows only. Beside every pooled figure stands the one within question types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sightline.core.errors import DataError
from sightline.core.estimates import Estimate
from sightline.core.features import ARRAY_AXES
from sightline.core.protocols import Request
from sightline.core.results import EstimatorResult, Evaluation
from sightline.data.examples import load_dataset
from sightline.data.vector_files import file_sha256
from sightline.estimators import ESTIMATORS, parse_estimator
from sightline.estimators.equivalence import EQUIVALENT
from sightline.estimators.likelihood import SequenceProbability
from sightline.metrics.intervals import WITHIN_TYPE
from sightline.models import load_model
from sightline.store.images import image_writer
from sightline.store.importers import import_runs
from sightline.store.run import RunStore
from sightline.workflow.collect import collect
from sightline.workflow.evaluate import Settings, evaluate, read_judged
from sightline.workflow.judged import JudgedRows
from sightline.workflow.studies.ablations import harmony_grid, network_grid
from sightline.workflow.studies.few_labels import label_curve
from sightline.workflow.studies.protocol import CONTROL, RANKING, compare, on_test, shown_name
from sightline.workflow.studies.tables import Cell, StudyTable, kept_tables
from sightline.workflow.studies.targets import targets_table
from sightline.workflow.studies.transfer import transfer_table

Progress = Callable[[str], None]

RUNS = {
    "vlm": ("vlm", "test"),
    "vlm-prior": ("vlm-prior", "prior-removed"),
    "vlm-small": ("vlm-small", "test"),
}
"""Runs of the main tables: model and scene split."""

SHIFTED = {
    "vlm-shifted": ("vlm", "shifted"),
    "vlm-prior-shifted": ("vlm-prior", "shifted"),
}
"""Runs over new backgrounds, fonts and textures."""

ALL = "all"
SIGNALS = {
    "probability": "sequence_probability",
    "+ samples": "sequence_probability+discrete_semantic_entropy+sgpu",
    "+ hidden": "sequence_probability+linear_probe+relative_mahalanobis",
    "+ text (HARMONY)": "sequence_probability+harmony",
    "+ blank image": "sequence_probability+visual_information",
    "+ perturbations": "sequence_probability+vl_uncertainty+noise_visual_information",
    ALL: (
        "sequence_probability+discrete_semantic_entropy+sgpu+linear_probe+relative_mahalanobis"
        "+harmony+visual_information+vl_uncertainty+noise_visual_information"
    ),
}
"""Stacks of the table of signals: members by what they add to the probability of the answer."""

TRANSFERRED = (
    "harmony", "lars", "linear_probe", "sgpu", "spectrum_logistic_regression", CONTROL,
)  # fmt: skip
"""Learned estimators, and the control, that are fitted on one run and measured on another."""

NOT_SINGLE = ("harmony", "lars", "fusion")
RECORDED = ("festa_vsr_samples.jsonl", "ensec_mmbench.jsonl", "ensec_oodcv.jsonl")


@dataclass(frozen=True, slots=True)
class StudySize:
    """How much is measured.

    Attributes:
        examples: Questions per run; two fifths are fitted on, two fifths tested.
        shifted: Questions of the shifted split.
        samples: Sampled answers per question.
        seeds: Splits of every table.
        resamples: Bootstrap resamples.
        train_sizes: Training answers of HARMONY's learning curve.
        labels: Labelled answers of SGPU's learning curve.
    """

    examples: int = 5000
    shifted: int = 2500
    samples: int = 10
    seeds: int = 5
    resamples: int = 1000
    train_sizes: tuple[int, ...] = (250, 500, 1000, 2000)
    labels: tuple[int, ...] = (100, 200, 500, 1000)


QUICK = StudySize(
    examples=400,
    shifted=150,
    samples=4,
    seeds=2,
    resamples=100,
    train_sizes=(80,),
    labels=(100,),
)
"""Shows that every table can be computed; too small for its figures to say anything."""


def study_estimators(
    out: Path, size: StudySize, *, recorded: Path | None, progress: Progress
) -> list[StudyTable]:
    """Measures every table of the study.

    Args:
        out: Receives the runs, with an evaluation each; resumes what is there.
        size: How much is measured.
        recorded: Directory with recorded outputs of real models, or None.
        progress: Called before every long step.

    Raises:
        DataError: A file of recorded outputs is not in the directory.
    """
    if recorded is not None:
        _check_recorded(recorded)
    study = _Study(out, size, progress)
    tables: list[StudyTable] = []
    for run, (model, split) in RUNS.items():
        study.collect(run, model, split, size.examples)
        tables.append(study.all_estimators(run))
        if model != "vlm-small":
            tables += [study.signals(run), study.harmony(run), study.network(run)]
        tables.append(study.labels(run))
    for run, (model, split) in SHIFTED.items():
        study.collect(run, model, split, size.shifted)
        tables.append(study.all_estimators(run))
    tables.append(study.transfer())
    tables.insert(0, targets_table(tables))
    if recorded is not None:
        tables += recorded_tables(out / "recorded", recorded, size, progress)
    return tables


class _Study:
    """The runs of a study, collected once, and its tables, each kept when it is measured."""

    def __init__(self, out: Path, size: StudySize, progress: Progress) -> None:
        self._out = out
        self._size = size
        self._progress = progress
        self._rows: dict[str, JudgedRows] = {}

    def collect(self, run: str, model: str, split: str, examples: int) -> None:
        self._progress(f"{run}: collecting")
        _collect(self._out / "runs" / run, model, split, examples, self._size)

    def all_estimators(self, run: str) -> StudyTable:
        def measured() -> StudyTable:
            self._progress(f"{run}: all estimators")
            return table_of_all(run, _evaluated(self._out / "runs" / run, self._size))

        return self._kept(f"all-{run}", (run,), measured)

    def signals(self, run: str) -> StudyTable:
        rivals = (*self._best(run), "harmony", CONTROL)
        return self._kept(
            f"signals-{run}",
            (run,),
            lambda: signal_table(run, self._judged(run), rivals, self._size, self._progress),
        )

    def harmony(self, run: str) -> StudyTable:
        return self._kept(
            f"harmony-{run}",
            (run,),
            lambda: harmony_grid(
                run,
                self._judged(run),
                self._best(run),
                train_sizes=self._size.train_sizes,
                resamples=self._size.resamples,
                progress=self._progress,
            ),
        )

    def network(self, run: str) -> StudyTable:
        return self._kept(
            f"network-{run}",
            (run,),
            lambda: network_grid(
                run,
                self._judged(run),
                self._best(run),
                resamples=self._size.resamples,
                progress=self._progress,
            ),
        )

    def labels(self, run: str) -> StudyTable:
        return self._kept(
            f"labels-{run}",
            (run,),
            lambda: label_curve(
                run,
                self._judged(run),
                self._size.labels,
                resamples=self._size.resamples,
                progress=self._progress,
            ),
        )

    def transfer(self) -> StudyTable:
        runs = (*RUNS, *SHIFTED)
        return self._kept(
            "transfer",
            runs,
            lambda: transfer_table(
                {run: self._judged(run) for run in runs},
                TRANSFERRED,
                SequenceProbability(),
                resamples=self._size.resamples,
                progress=self._progress,
            ),
        )

    def _best(self, run: str) -> tuple[str, str]:
        """The best estimators of one signal: in AUROC within type, and in PRR."""
        shown = self.all_estimators(run)
        return best_single(shown, "AUROC within type"), best_single(shown, "PRR")

    def _judged(self, run: str) -> JudgedRows:
        if run not in self._rows:
            self._rows[run] = _rows(self._out / "runs" / run, self._size)
        return self._rows[run]

    def _kept(self, key: str, runs: Sequence[str], measure: Callable[[], StudyTable]) -> StudyTable:
        models = [RunStore.open(self._out / "runs" / run).manifest.model for run in runs]
        settings = {
            "size": asdict(self._size),
            "models": [model["files_xxh3"] for model in models],
        }
        (table,) = kept_tables(self._out / "tables", key, settings, lambda: [measure()])
        return table


def _collect(path: Path, model: str, split: str, n: int, size: StudySize) -> None:
    loaded = load_model(f"embedded:{model}")
    collect(
        loaded,
        load_dataset(f"scenes:{split}?n={n}", store_image=image_writer(path)),
        path,
        request=Request(
            max_new_tokens=24,
            n_samples=size.samples,
            layers=(0.25, 0.5, 0.75, 1.0),
            sample_hidden=True,
            options=True,
            blank=True,
            asks=("p_true", "self_check", "confidence_word", "top_guesses"),
            # a blur alone, for questions that have no other wording
            conditions=(*EQUIVALENT, "blur:2", "noise:2"),
        ),
        batch_size=32,
        shard_size=256,
    )


def _evaluated(path: Path, size: StudySize) -> Evaluation:
    """With every estimator of the table, the slow ones included."""
    settings = Settings(tuple(ESTIMATORS), seeds=size.seeds, resamples=size.resamples)
    return evaluate(path, settings).evaluation


def _rows(path: Path, size: StudySize) -> JudgedRows:
    return read_judged(RunStore.open(path), Settings(seeds=size.seeds), set(ARRAY_AXES)).rows


def table_of_all(run: str, evaluation: Evaluation) -> StudyTable:
    """One row per estimator that can score some answer, best first."""
    protocol = evaluation.protocol
    return StudyTable(
        key=f"all-{run}",
        title=f"All estimators on {run}",
        note=(
            f"{protocol.graded:,} answers of {evaluation.run.model} on {evaluation.run.dataset}, "
            f"accuracy {evaluation.accuracy}; {protocol.rows[2]:,} test answers in each of "
            f"{len(protocol.seeds)} split(s) by picture, {protocol.rows[0]:,} to fit on, "
            f"{protocol.rows[1]:,} to calibrate on ({protocol.calibrator}). Intervals: 95 %, "
            f"{protocol.resamples:,} resamples of pictures. Δ AUROC: against the best simple "
            f"score, {protocol.baseline}, paired. Costs are per answer, beyond the greedy answer."
        ),
        columns=(
            "Estimator", "Family", "Scored", "AUROC", "AUROC within type", "PRR", "AUARC", "ECE",
            "Δ AUROC", "Passes", "Generations",
        ),
        rows=tuple(_row(result) for result in evaluation.estimators),
    )  # fmt: skip


def _row(result: EstimatorResult) -> tuple[Cell, ...]:
    return (
        shown_name(result.name),
        result.family,
        result.scored,
        result.heldout["auroc"],
        result.within_type,
        result.heldout["prr"],
        result.heldout["auarc"],
        result.heldout["ece"],
        result.vs_baseline.get("auroc"),
        result.forward_passes,
        result.generations,
    )


def best_single(shown: StudyTable, column: str) -> str:
    """The estimator of one signal with the best figure, among those that score all rows.

    Chosen on the test rows, which favours it over what is compared with it.
    """
    at, scored = shown.columns.index(column), shown.columns.index("Scored")
    most = max(_number(row[scored]) for row in shown.rows)
    candidates = {
        name: _number(row[at])
        for row in shown.rows
        if (name := str(row[0])) in ESTIMATORS  # a control is shown under another name
        and name not in NOT_SINGLE
        and _number(row[scored]) == most
    }
    return max(candidates, key=lambda name: candidates[name])


def _number(cell: Cell) -> float:
    value = cell.value if isinstance(cell, Estimate) else cell
    return -1.0 if value is None else float(value)


def signal_table(
    run: str, rows: JudgedRows, rivals: Sequence[str], size: StudySize, progress: Progress
) -> StudyTable:
    """What each signal adds to the probability of the answer, as stacks, and what it costs.

    Args:
        run: Name of the run.
        rows: Its judged rows.
        rivals: Estimators shown beside the stacks.
        size: How much is measured.
        progress: Called before every row.
    """
    estimators = {
        name: parse_estimator(members if "+" not in members else f"fusion:members={members}")
        for name, members in SIGNALS.items()
    }
    estimators |= {name: parse_estimator(name) for name in dict.fromkeys(rivals)}
    scores = {}
    for name, estimator in estimators.items():
        progress(f"{run}: signals, {name}")
        scores[name] = [
            on_test(estimator, rows, split, seed=seed) for seed, split in enumerate(rows.splits)
        ]
    tests = [split.test for split in rows.splits]
    figures = compare(scores, tests, rows, RANKING, resamples=size.resamples)
    first = next(iter(SIGNALS))
    table: list[tuple[Cell, ...]] = []
    for name, estimator in estimators.items():
        cost = estimator.cost(rows.records)
        gain: tuple[Estimate | None, ...] = (None, None)
        if name != first:
            gain = tuple(figures.difference(name, first, m) for m in (WITHIN_TYPE, "prr"))
        table.append(
            (
                shown_name(name),
                "stack" if name in SIGNALS and "+" in SIGNALS[name] else "score",
                figures.figure(name, "auroc"),
                figures.figure(name, WITHIN_TYPE),
                figures.figure(name, "prr"),
                *gain,
                None if name in (ALL, CONTROL) else figures.difference(ALL, name, WITHIN_TYPE),
                cost.forward_passes,
                cost.generations,
            )
        )
    return StudyTable(
        key=f"signals-{run}",
        title=f"What each signal adds on {run}",
        note=(
            f"Logistic stacks, measured on {len(tests[0]):,} answers in each of "
            f"{len(tests)} splits; members that learn are fitted by cross-fitting on the training "
            "rows. Differences are to the probability of the answer alone, paired. "
            + " ".join(f"{name}: {members}." for name, members in SIGNALS.items())
        ),
        columns=(
            "Signals", "Kind", "AUROC", "AUROC within type", "PRR", "Δ within type", "Δ PRR",
            "All less this, within type", "Passes", "Generations",
        ),
        rows=tuple(table),
    )  # fmt: skip


def _check_recorded(folder: Path) -> None:
    missing = [name for name in RECORDED if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder} has no {', '.join(missing)}; the recorded outputs {', '.join(RECORDED)} are "
            "required there. Name their folder, or leave --recorded out."
        )


def recorded_tables(
    out: Path,
    folder: Path,
    size: StudySize,
    progress: Progress,
    *,
    names: Sequence[str] = RECORDED,
) -> list[StudyTable]:
    """All that recorded outputs of real models can feed, from import alone.

    Args:
        out: Receives the imported runs and the tables; what is there is not measured again.
        folder: Where the recorded outputs are.
        size: How much is measured.
        progress: Called before every file.
        names: The files.
    """
    settings = Settings(seeds=size.seeds, resamples=size.resamples)
    tables = []
    for name in names:
        path = folder / name

        def measured(path: Path = path) -> list[StudyTable]:
            progress(f"recorded: {path.name}")
            runs = import_runs(path, out, overwrite=True)
            return [table_of_all(run.name, evaluate(run, settings).evaluation) for run in runs]

        key = {"file": file_sha256(path), "seeds": size.seeds, "resamples": size.resamples}
        tables += kept_tables(out / "tables", path.stem, key, measured)
    return tables
