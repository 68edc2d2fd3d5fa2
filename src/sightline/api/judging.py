"""What a run is worth: evaluated, fitted, reported; recorded outputs and labels brought in."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.core.column import Column
from sightline.core.errors import UsageError
from sightline.core.results import Evaluation, evaluation_json, load_evaluation

if TYPE_CHECKING:
    from sightline.grading import JudgeModel
    from sightline.store.disk import PendingFile
    from sightline.workflow.classifying.evaluating import ClassifierSettings
    from sightline.workflow.evaluate import Outcome, Settings
    from sightline.workflow.fitting import FitResult

RESULTS = Path("evaluation") / "results.json"
SAMPLES = Path("evaluation") / "samples.parquet"
CALIBRATIONS = Path("evaluation") / "calibrations.json"
REPORT = Path("evaluation") / "report.html"


def evaluate(
    run: str | Path,
    settings: Settings | None = None,
    *,
    other_runs: Sequence[str | Path] = (),
    given_split: Mapping[str, str] | None = None,
    judge: str | None = None,
    classifier: ClassifierSettings | None = None,
    progress: Callable[[str, int, int], None] = lambda _stage, _done, _total: None,
) -> Evaluation:
    """Evaluates a run and writes results, samples and calibrations beside its records.

    The folder ``evaluation`` of the run receives results.json (every figure), samples.parquet
    (every answer) and calibrations.json (see `sightline.calibration.load_calibration`).

    Args:
        run: The run directory.
        settings: How to evaluate; `sightline.workflow.evaluate.Settings` has the defaults.
        other_runs: Runs of other models on the same examples, for cross-model agreement.
        given_split: Split name (train, calibration or test) by group; replaces the seeds.
        judge: Model that answers for the grader ``judge``: a directory, hub name or embedded model.
        classifier: For the run of a zero-shot classifier: whose support pictures, how many, and a
            run of pictures of none of its classes.
        progress: Called with (stage, done, total).
    """
    from sightline.store.run import RunStore
    from sightline.workflow.classifying.reading import is_classification
    from sightline.workflow.evaluate import Settings
    from sightline.workflow.evaluate import evaluate as run_evaluate

    if classifier is not None or is_classification(RunStore.open(Path(run))):
        from sightline.workflow.classifying.evaluating import (
            ClassifierSettings,
            evaluate_classifier,
        )

        if other_runs:
            raise UsageError(
                f"{run} is a run of a classifier and is to be evaluated together with "
                f"{other_runs[0]}; runs of models that answer the same questions are required. "
                "Leave --together out."
            )
        outcome = evaluate_classifier(
            Path(run),
            settings or Settings(),
            classifier or ClassifierSettings(),
            given_split=given_split,
            progress=progress,
        )
    else:
        outcome = run_evaluate(
            Path(run),
            settings or Settings(),
            other_runs=[Path(other) for other in other_runs],
            given_split=given_split,
            judge=None if judge is None else observed_judge(judge),
            progress=progress,
        )
    _write_outcome(outcome, Path(run))
    return outcome.evaluation


def fit(
    run: str | Path,
    estimator: str,
    output: str | Path,
    settings: Settings | None = None,
    *,
    all_rows: bool = False,
    given_split: Mapping[str, str] | None = None,
    judge: str | None = None,
) -> FitResult:
    """Fits an estimator that learns on a run's graded answers and writes it to a directory.

    ``Settings(fitted=(output,))`` lets it score another run, or this one's rows that it has not
    seen.

    Args:
        run: The run directory.
        estimator: Name or spec of an estimator that learns.
        output: Receives the fitted estimator; holds none yet.
        settings: Grader, threshold, condition and split; the defaults if None.
        all_rows: Fit on every row, not on those of the first split's train part.
        given_split: Split name (train, calibration or test) by group; replaces the shuffle.
        judge: Model that answers for the grader ``judge``: a directory, hub name or embedded model.
    """
    from sightline.workflow.evaluate import Settings
    from sightline.workflow.fitting import fit as run_fit

    return run_fit(
        Path(run),
        estimator,
        Path(output),
        settings or Settings(),
        all_rows=all_rows,
        given_split=given_split,
        judge=None if judge is None else observed_judge(judge),
    )


def _write_outcome(outcome: Outcome, run: Path) -> None:
    """Replaces the run's evaluation, each file whole or not at all, the results last."""
    import pyarrow.parquet as pq

    from sightline.store.disk import make_directory, write_file

    samples = io.BytesIO()
    pq.write_table(outcome.samples, samples)
    calibrations = json.dumps(outcome.calibrations, indent=1, allow_nan=False) + "\n"
    make_directory((run / RESULTS).parent)
    for path, content in (
        (run / SAMPLES, samples.getvalue()),
        (run / CALIBRATIONS, calibrations.encode()),
        (run / RESULTS, evaluation_json(outcome.evaluation).encode()),
    ):

        def fill(file: PendingFile, content: bytes = content) -> None:
            file.write(content)

        write_file(path, fill)


def observed_judge(model: str) -> JudgeModel:
    """The model behind the grader ``judge``: a directory, hub name or embedded model."""
    from sightline.data.prompts import PromptStyle
    from sightline.grading import ObservedJudge
    from sightline.models import load_model

    return ObservedJudge(load_model(model, style=PromptStyle(short_instruction="")))


def write_report(
    runs: str | Path | Sequence[str | Path],
    output: str | Path | None = None,
    *,
    title: str | None = None,
) -> Path:
    """Renders one self-contained HTML report over one or more evaluated runs.

    Args:
        runs: One run directory or several.
        output: The page to write; ``evaluation/report.html`` of the first run if None.
        title: The page's title; the model's name if None.

    Returns:
        The report's path: ``output``, or ``evaluation/report.html`` of the first run.
    """
    from sightline.report import render

    runs = [runs] if isinstance(runs, str | Path) else runs
    evaluations = [load_evaluation(Path(run) / RESULTS) for run in runs]
    path = Path(output) if output is not None else Path(runs[0]) / REPORT
    render.write_report(evaluations, path, title=title)
    return path


def import_file(
    source: str | Path,
    output: str | Path,
    *,
    format: str = "auto",  # noqa: A002 (the flag's name)
    overwrite: bool = False,
) -> list[Path]:
    """Turns recorded outputs of models that ran elsewhere into runs, one per model.

    Args:
        source: The file.
        output: Folder that receives one run directory per model.
        format: A name of `sightline.store.importers.FORMATS`.
        overwrite: Replace existing runs of the same name.

    Returns:
        The run directories written under ``output``.
    """
    from sightline.store.importers import import_runs

    return import_runs(Path(source), Path(output), format=format, overwrite=overwrite)


def import_labels(labels: str | Path, run: str | Path) -> Column:
    """Stores the correctness that people filled into a sheet of ``runs export --to-label``."""
    from sightline.store.export import read_labels
    from sightline.store.run import RunStore

    store = RunStore.open(Path(run))
    column = read_labels(Path(labels), store)
    store.write_column(column, replace=True)
    return column
