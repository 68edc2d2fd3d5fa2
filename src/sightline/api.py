"""The verbs as Python functions: what the command line calls, and what scripts call.

The README shows them at work; `tests/e2e/test_readme.py` runs what it shows.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.column import Column
from sightline.core.condition_names import BLANK, CLEAN
from sightline.core.protocols import Request
from sightline.core.results import Evaluation, evaluation_json, load_evaluation

if TYPE_CHECKING:
    from sightline.data.prompts import PromptStyle
    from sightline.grading import JudgeModel
    from sightline.store.disk import PendingFile
    from sightline.workflow.auditing.running import AuditOutcome, AuditSettings
    from sightline.workflow.classifying.collecting import ClassifyResult
    from sightline.workflow.classifying.evaluating import ClassifierSettings
    from sightline.workflow.classifying.reranking import RerankResult
    from sightline.workflow.collect import CollectProgress, CollectResult
    from sightline.workflow.derive import DeriveResult
    from sightline.workflow.evaluate import Outcome, Settings
    from sightline.workflow.fitting import FitResult

DEFAULT_LAYERS = (0.25, 0.5, 0.75, 1.0)
DEFAULT_SAMPLES = 10
DEFAULT_ENERGY_MAPS = 16
EVERY_ENERGY_MAP = 2**31 - 1
"""An audit shows the maps of the least stable answers, and which these are is not known before."""
DEFAULT_AUDIT = ("default", "wording:1", "wording:2")
RESULTS = Path("evaluation") / "results.json"
SAMPLES = Path("evaluation") / "samples.parquet"
CALIBRATIONS = Path("evaluation") / "calibrations.json"
REPORT = Path("evaluation") / "report.html"


def collect(
    model: str,
    data: str | Path,
    output: str | Path,
    *,
    images: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    estimators: Sequence[str] | None = None,
    samples: int = DEFAULT_SAMPLES,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int = 64,
    top_k: int = 20,
    layers: Sequence[float | int] = DEFAULT_LAYERS,
    sample_states: bool = False,
    options: bool = True,
    blank: bool = True,
    asks: Sequence[str] = (),
    conditions: str | Path | Sequence[str] = (),
    condition_samples: int = 0,
    channels: bool = False,
    energy_maps: int = DEFAULT_ENERGY_MAPS,
    seed: int = 0,
    limit: float | None = None,
    sample_ids: Sequence[str] = (),
    batch_size: int = 8,
    shard_size: int = 32,
    overwrite: bool = False,
    style: PromptStyle | Mapping[str, str] | None = None,
    model_options: Mapping[str, Any] | None = None,
    announce: Callable[[str], None] = lambda _: None,
    progress: Callable[[CollectProgress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> CollectResult:
    """Observes a model on a dataset and stores everything it shows; the same call resumes.

    Args:
        model: A directory or hub name that transformers loads, ``embedded:NAME``, ``openai:NAME``
            (with ``endpoint`` among the model_options) or ``fake``.
        data: A dataset file, folder or name; see `sightline.data.examples.load_dataset`.
        output: The run directory.
        images: Folder that relative image paths start from; the dataset's own folder if None.
        columns: Renames dataset columns: field to column name.
        estimators: Collect only what these need (overrides samples, layers, sample_states, options,
            blank).
        samples: Sampled answers beside the greedy one.
        temperature: Sampling temperature.
        top_p: Nucleus for sampling.
        max_new_tokens: Limit on generated tokens per answer.
        top_k: Most likely tokens kept per position.
        layers: Depths whose hidden states are kept: fractions, or layer indices.
        sample_states: Keep the last hidden state of every sample too, at the same layers.
        options: Score the options of multiple-choice questions.
        blank: Also observe with a blank image.
        asks: Follow-up questions about the greedy answer, by name (``p_true``, ``p_true.2``), on
            top of those that the estimators need; see `sightline.data.prompt_forms`. Those the
            model was not trained to read are left out.
        conditions: Perturbations under which every example is observed too: names (``jpeg:3``),
            a name of the bank (``default``) or a YAML file; see
            `sightline.data.condition_lists`. Whether the right answer stays is decided for each.
            Where estimators need answers under conditions and none is named, theirs are used.
        condition_samples: Sampled answers under each condition.
        channels: Keep what the model holds of question, picture and answer, at the same layers, and
            how smooth its vision tokens are: what `sightline audit` compares. With estimators, on
            top of what they need.
        energy_maps: With channels, examples of which the energy of every vision token is kept.
        seed: Run seed.
        limit: First examples only: a count (int) or a share (float ≤ 1); stamps the run partial.
        sample_ids: Only these examples.
        batch_size: Examples observed at once.
        shard_size: Examples committed at once.
        overwrite: Remove an existing run first.
        style: How questions are worded; the model's own or the default style if None. A mapping
            changes single fields of that.
        model_options: Passed to `sightline.models.load_model` (device_map, dtype, revision, …).
        announce: Called with one line on size and scope before the first example is observed.
        progress: Called after every shard.
        should_stop: Asked before every shard; True ends the collect, resumable.
    """
    from sightline.data.condition_lists import read_conditions
    from sightline.data.examples import load_dataset
    from sightline.data.prompt_forms import follow_up_names
    from sightline.models import check_model, load_model
    from sightline.store.images import image_writer
    from sightline.store.layout import is_run, require_free
    from sightline.workflow.collect import collect as run_collect
    from sightline.workflow.requests import answerable, no_letters, request_for, unobservable

    named = bool(str(conditions).strip()) if isinstance(conditions, str) else bool(conditions)
    names = [condition.name for condition in read_conditions(conditions)] if named else []
    request = Request(
        max_new_tokens=max_new_tokens,
        n_samples=samples,
        temperature=temperature,
        top_p=top_p,
        top_k_logprobs=top_k,
        layers=tuple(layers),
        sample_hidden=sample_states,
        options=options,
        blank=blank or BLANK in names,
        asks=follow_up_names(asks),
        conditions=tuple(name for name in names if name not in (BLANK, CLEAN)),
        condition_samples=condition_samples,
        channels=channels,
        energy_maps=energy_maps if channels else 0,
        seed=seed,
    )
    if estimators is not None:
        request = request_for(estimators, request)
    if not is_run(Path(output)):
        require_free(Path(output), overwrite=overwrite)
    check_model(model, **(model_options or {}))
    dataset = load_dataset(
        data,
        images=images,
        columns=columns,
        limit=limit,
        sample_ids=sample_ids,
        store_image=image_writer(Path(output)),
    )
    for note in dataset.notes:
        announce(note)
    loaded = load_model(model, style=style, **(model_options or {}))
    unseen = no_letters(estimators or (), loaded)
    if unseen is not None:
        announce(unseen)
    request, unasked = answerable(request, loaded)
    if unasked is not None:
        announce(unasked)
    unseen = unobservable(request, loaded)
    if unseen is not None:
        announce(unseen)
    return run_collect(
        loaded,
        dataset,
        Path(output),
        request=request,
        batch_size=batch_size,
        shard_size=shard_size,
        overwrite=overwrite,
        notes=(*_model_notes(model), *dataset.notes),
        announce=announce,
        progress=progress,
        should_stop=should_stop,
    )


def classify(
    model: str,
    data: str | Path,
    output: str | Path,
    *,
    classes: str | Sequence[str] | None = None,
    templates: str | None = None,
    images: str | Path | None = None,
    encoders: Sequence[str] = (),
    views: Sequence[str] = ("mirror", "gray"),
    support: str | Path | None = None,
    shots: int = 16,
    draws: int = 10,
    seed: int = 0,
    limit: float | None = None,
    batch_size: int = 64,
    shard_size: int = 512,
    overwrite: bool = False,
    model_options: Mapping[str, Any] | None = None,
    announce: Callable[[str], None] = lambda _: None,
    progress: Callable[[str, CollectProgress], None] = lambda _part, _progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ClassifyResult:
    """Embeds pictures and class names with a zero-shot classifier, once; the same call resumes.

    Args:
        model: A CLIP, SigLIP or SigLIP 2 model as transformers loads it, ``embedded:clip``,
            ``embedded:siglip``, or ``open_clip:ARCHITECTURE/WEIGHTS``.
        data: Labelled pictures; see `sightline.data.image_sets.load_image_set`.
        output: The run directory.
        classes: Names of the classes: a sequence, a file, joined by commas, or the directory of an
            earlier run; the data's if None.
        templates: Prompt templates: a built-in name or a file; the model's usual ones if None.
        images: Folder that picture paths start from; the data's own if None.
        encoders: Auxiliary image encoders: model directories, hub names, ``embedded:encoder``, or
            files of vectors (.npz, .safetensors, .parquet).
        views: Transformed versions of every picture that are embedded, too: mirror, gray.
        support: Labelled pictures to learn from: a source as ``data``, or the name of another split
            of it.
        shots: Support pictures of every class.
        draws: Repeated draws of them.
        seed: Of the draws.
        limit: Pictures only of this count (int) or share (float < 1), spread evenly.
        batch_size: Pictures at once.
        shard_size: Pictures committed at once.
        overwrite: Remove an existing run first.
        model_options: Passed to the loading of models (device_map, dtype, revision, …).
        announce: Called with single lines on what will be done.
        progress: Called with the part and its progress after every shard.
        should_stop: Asked before every shard; True ends it, resumable.
    """
    from sightline.data.image_sets import load_image_set, load_templates, with_classes
    from sightline.data.image_sources import support_source
    from sightline.models import load_classifier
    from sightline.store.images import image_writer
    from sightline.store.layout import is_run, require_free
    from sightline.workflow.classifying.collecting import SupportPlan
    from sightline.workflow.classifying.collecting import classify as run_classify
    from sightline.workflow.classifying.encoders import load_encoder, usual_templates
    from sightline.workflow.classifying.reading import run_classes

    path = Path(output)
    if not is_run(path):
        require_free(path, overwrite=overwrite)
    given = str(classes) if isinstance(classes, Path) else classes
    if isinstance(given, str):
        given = run_classes(Path(given)) or given
    writer = image_writer(path)
    pictures = load_image_set(data, classes=given, images=images, limit=limit, store_image=writer)
    plan = None
    if support is not None:
        source = support_source(str(support), str(data), shots)
        pool = load_image_set(source, classes=given, images=images, store_image=writer)
        plan = SupportPlan(with_classes(pool, pictures.classes), shots, draws, seed)
    options = dict(model_options or {})
    loaded = load_classifier(model, **options)
    return run_classify(
        loaded,
        pictures,
        path,
        templates=load_templates(templates, usual_templates(model, sigmoid=loaded.sigmoid)),
        encoders=[load_encoder(spec, options) for spec in encoders],
        views=tuple(views),
        support=plan,
        batch_size=batch_size,
        shard_size=shard_size,
        overwrite=overwrite,
        notes=_model_notes(model),
        announce=announce,
        progress=progress,
        should_stop=should_stop,
    )


def rerank(
    run: str | Path,
    model: str,
    output: str | Path,
    *,
    top: int = 3,
    question: str | None = None,
    shown: bool = False,
    limit: int | None = None,
    samples: int = 0,
    max_new_tokens: int = 32,
    layers: Sequence[float | int] = (),
    seed: int = 0,
    batch_size: int = 8,
    shard_size: int = 32,
    overwrite: bool = False,
    model_options: Mapping[str, Any] | None = None,
    announce: Callable[[str], None] = lambda _: None,
    progress: Callable[[CollectProgress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> RerankResult:
    """Lets a vision-language model choose among a classifier's likeliest classes.

    Args:
        run: The classifier's run.
        model: The model that is asked; as `collect` takes it.
        output: Receives the model's run, which is evaluated like any other.
        top: Classes offered.
        question: What is asked of a picture; "What does the picture show?" if None.
        shown: Also show a support picture of every class offered.
        limit: The first pictures only.
        samples: Sampled answers beside the greedy one.
        max_new_tokens: Limit on generated tokens per answer.
        layers: Depths whose hidden states are kept.
        seed: Run seed.
        batch_size: Pictures at once.
        shard_size: Pictures committed at once.
        overwrite: Remove an existing run first.
        model_options: Passed to `sightline.models.load_model`.
        announce: Called with one line on the size of the job.
        progress: Called after every shard.
        should_stop: Asked before every shard; True ends it, resumable.
    """
    from sightline.models import load_model
    from sightline.workflow.classifying.reranking import ASKED
    from sightline.workflow.classifying.reranking import rerank as run_rerank

    return run_rerank(
        Path(run),
        load_model(model, **(model_options or {})),
        Path(output),
        top=top,
        question=question or ASKED,
        shown=shown,
        limit=limit,
        request=Request(
            max_new_tokens=max_new_tokens, n_samples=samples, layers=tuple(layers), seed=seed
        ),
        batch_size=batch_size,
        shard_size=shard_size,
        overwrite=overwrite,
        announce=announce,
        progress=progress,
        should_stop=should_stop,
    )


def _model_notes(model: str) -> tuple[str, ...]:
    """What a reader must know of an embedded model: which checkpoint, how far it passes."""
    from sightline.models.embedded import EMBEDDED

    name = model.removeprefix("embedded:")
    if name == model or name not in EMBEDDED:
        return ()
    known = EMBEDDED[name]
    return (f"The model is Sightline's embedded one ({known.checkpoint}); gates: {known.gates}.",)


def derive(
    run: str | Path,
    *,
    embeddings: str | None = None,
    entailment: str | None = None,
    importance: str | None = None,
    with_question: bool = False,
    replace: bool = False,
    model_options: Mapping[str, Any] | None = None,
    progress: Callable[[str, int, int], None] = lambda _kind, _done, _total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[DeriveResult]:
    """Computes signals from the answers of a run, beside its records; the same call resumes.

    Args:
        run: The run directory.
        embeddings: Sentence encoder of the answers: ``words``, a directory or a hub name.
        entailment: Entailment model of pairs of answers: a directory or a hub name.
        importance: Sentence encoder that weighs the greedy answer's tokens, as ``embeddings``.
        with_question: Put the question before each answer.
        replace: Replace what another model or setting computed.
        model_options: Passed to the loading of models (device_map, dtype, revision, …).
        progress: Called with (kind, shards done, shards to do).
        should_stop: Asked before every shard; True ends the derivation, resumable.

    Returns:
        What each derivation did, in the order of the arguments.
    """
    from sightline.store.run import RunStore
    from sightline.workflow.derive import derive_named

    return derive_named(
        RunStore.open(Path(run)),
        embeddings=embeddings,
        entailment=entailment,
        importance=importance,
        with_question=with_question,
        replace=replace,
        model_options=model_options or {},
        progress=progress,
        should_stop=should_stop,
    )


def audit(
    run: str | Path,
    *,
    model: str | None = None,
    data: str | Path | None = None,
    conditions: str | Path | Sequence[str] = DEFAULT_AUDIT,
    layers: Sequence[float | int] = DEFAULT_LAYERS,
    limit: float | None = None,
    settings: AuditSettings | None = None,
    collecting: Mapping[str, Any] | None = None,
    probe: int = 0,
    probing: Mapping[str, Any] | None = None,
    entailment: str | None = None,
    model_options: Mapping[str, Any] | None = None,
) -> tuple[AuditOutcome | None, CollectResult | None]:
    """Collects a model under perturbations if that is asked for, and measures how stable it is.

    The folder ``audit`` of the run receives audit.json (every figure) and audit.csv (every pair of
    question and condition).

    Args:
        run: The run directory; one that exists is resumed, or only measured without ``model``.
        model: As `collect` takes it; None measures a run that is there. Without ``data`` it is the
            model that ``probe`` asks, where the run's own name does not lead to it.
        data: As `collect` takes it; with it, ``model`` is collected.
        conditions: Perturbations, as `collect` takes them.
        layers: Depths whose states are compared.
        limit: First examples only, as `collect` takes it.
        settings: How to measure; `sightline.workflow.auditing.running.AuditSettings`.
        collecting: Further arguments of `collect`.
        probe: Questions whose frequencies are probed, which asks the model again, with gradients;
            those that were probed before are kept.
        probing: ``announce``, ``progress`` and ``should_stop`` of
            `sightline.workflow.auditing.probing.probe_run`.
        entailment: Entailment model (a directory or a hub name) that compares free answers by
            meaning; None = by their content words alone.
        model_options: Passed to the loading of the probed and of the entailment model.

    Returns:
        The outcome, and what collecting left behind. The outcome is None where collecting or
        probing was stopped; the same call goes on.
    """
    from sightline.core.errors import UsageError
    from sightline.workflow.auditing.running import AuditSettings, audit_run
    from sightline.workflow.auditing.writing import write_audit

    collected = None
    options = dict(model_options or {})
    if model is not None and data is None and not probe:
        raise UsageError(
            f"Model {model} without data; questions about pictures are required to audit it. "
            "Give --data, or a number of questions to --probe."
        )
    if model is not None and data is not None:
        arguments = {
            "samples": 0,
            "top_k": 0,
            "energy_maps": EVERY_ENERGY_MAP,
            "model_options": options,
            **(collecting or {}),
        }
        collected = collect(
            model,
            data,
            run,
            conditions=conditions,
            layers=layers,
            limit=limit,
            channels=True,
            **arguments,
        )
        if collected.interrupted:
            return None, collected
    if probe and not _probed(Path(run), model, probe, settings, probing or {}, options):
        return None, collected
    judge = None
    if entailment is not None:
        from sightline.models import load_entailment_model

        own = {name: value for name, value in options.items() if name != "revision"}
        judge = load_entailment_model(entailment, **own)
    outcome = audit_run(Path(run), settings or AuditSettings(), judge=judge)
    write_audit(outcome, Path(run))
    return outcome, collected


def _probed(
    run: Path,
    model: str | None,
    questions: int,
    settings: AuditSettings | None,
    probing: Mapping[str, Any],
    options: Mapping[str, Any],
) -> bool:
    """Probes frequencies with the named model, or the one the run was collected from."""
    from sightline.models import load_model
    from sightline.store.run import RunStore
    from sightline.workflow.auditing.probing import ProbeSettings, probe_run

    name = model or str(RunStore.open(run).manifest.model.get("name", ""))
    plan = ProbeSettings(questions, seed=0 if settings is None else settings.seed)
    return probe_run(run, load_model(name, **options), plan, **probing)


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
    runs: Sequence[str | Path], output: str | Path | None = None, *, title: str | None = None
) -> Path:
    """Renders one self-contained HTML report over one or more evaluated runs.

    Returns:
        The report's path: ``output``, or ``evaluation/report.html`` of the first run.
    """
    from sightline.report import render

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
