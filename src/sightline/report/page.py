"""From evaluations to the page that is shown: every choice of what to say is made here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import zip_longest

from sightline.core.estimates import Estimate
from sightline.core.results import AnswerRow, EstimatorResult, Evaluation, RunSummary
from sightline.core.types import choice_letters
from sightline.report import classifier_tables, figures, numbers, tables
from sightline.report.numbers import Notes, inert
from sightline.report.tables import heldout
from sightline.report.thumbnails import ImageBytes, thumbnail
from sightline.report.view import (
    AnswerCard,
    AnswerList,
    Cell,
    Comparison,
    Fact,
    Folded,
    Heading,
    Page,
    Row,
    RunView,
    Table,
)

QUESTION_LIMIT = 600
ANSWER_LIMIT = 400
CHOICE_LIMIT = 160
SHOWN_CHOICES = 10
SHOWN_IMAGES = 4


def page_view(
    evaluations: Sequence[Evaluation], *, image_bytes: ImageBytes, title: str | None = None
) -> Page:
    """Returns everything the page shows, as text."""
    names = _names(evaluations)
    if title is None:
        title = (
            f"Can {evaluations[0].run.model} be trusted?"
            if len({e.run.model for e in evaluations}) == 1
            else "Which answers can be trusted?"
        )
    runs = tuple(
        _run(evaluation, f"run{index}", name, image_bytes)
        for index, (evaluation, name) in enumerate(zip(evaluations, names, strict=True), start=1)
    )
    return Page(
        title=inert(title),
        version=inert(evaluations[0].sightline_version),
        runs=runs,
        comparison=_comparison(evaluations, names) if len(evaluations) > 1 else None,
    )


def _names(evaluations: Sequence[Evaluation]) -> list[str]:
    """Shortest names that tell the runs apart."""
    for name_of in (
        lambda e: e.run.model,
        lambda e: e.run.name,
        lambda e: f"{e.run.model}, {e.run.name}",
    ):
        names = [inert(name_of(e), 60) for e in evaluations]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({i})" for i, name in enumerate(names, start=1)]


def _run(evaluation: Evaluation, key: str, name: str, image_bytes: ImageBytes) -> RunView:
    shown = figures.shown_estimators(evaluation)
    untyped = (
        None if evaluation.types else "Not every question has a type, so there is no breakdown."
    )
    return RunView(
        key=key,
        title=name,
        subtitle=f"on {inert(evaluation.run.dataset, 80)}",
        partial=None if evaluation.run.partial is None else inert(evaluation.run.partial),
        notes=tuple(inert(note) for note in evaluation.run.notes),
        facts=_facts(evaluation),
        summary=_summary(evaluation),
        leaderboard=tables.leaderboard(evaluation),
        differences=tables.differences(evaluation),
        raw=tables.raw_figures(evaluation),
        costs=tables.costs(evaluation),
        not_applicable=tables.not_applicable(evaluation),
        over_draws=classifier_tables.over_draws(evaluation),
        second_task=classifier_tables.second_task(evaluation),
        reliability=figures.reliability(evaluation, key),
        curves=figures.curves(evaluation, key),
        histograms=figures.histograms(evaluation, key),
        coverage=tables.coverage(evaluation, shown),
        types=tables.types(evaluation, shown, all_of=False),
        types_absent=untyped,
        all_types=tables.types(evaluation, evaluation.estimators, all_of=True),
        answers=_answers(evaluation, image_bytes),
        protocol=_protocol(evaluation),
    )


def _facts(evaluation: Evaluation) -> tuple[Fact, ...]:
    run, protocol = evaluation.run, evaluation.protocol
    accuracy = evaluation.accuracy
    style = numbers.STYLES["accuracy"]
    if accuracy.value is None:
        right = Fact("Accuracy", numbers.DASH, inert(accuracy.reason or ""))
    else:
        ends = numbers.interval(accuracy, style)
        right = Fact(
            "Accuracy",
            numbers.number(accuracy.value, style),
            f"{ends or 'no interval'}, n = {numbers.count(accuracy.n)}{_part_marks(evaluation)}",
        )
    ungraded = tables.reasons(protocol.ungraded)
    return (
        right,
        Fact(
            "Answers judged",
            numbers.count(protocol.graded),
            f"of {numbers.count(run.records)}, in {numbers.count(run.groups)} groups"
            + (f"; not graded: {ungraded}" if ungraded else ""),
        ),
        Fact(
            "Quarantined",
            numbers.count(run.quarantined),
            tables.reasons(run.quarantine_reasons) or "no example failed",
        ),
        *(_written(run) if evaluation.classifier is None else ()),
    )


def _written(run: RunSummary) -> tuple[Fact, ...]:
    """What only generated answers can be."""
    return (
        Fact("Cut off", numbers.count(run.truncated_answers), "answers that hit the token limit"),
        Fact("Empty", numbers.count(run.empty_answers), "answers without a visible character"),
    )


def _part_marks(evaluation: Evaluation) -> str:
    """The mean correctness, where answers get part marks."""
    mean = evaluation.mean_correctness
    if mean.value is None or mean.value == evaluation.accuracy.value:
        return ""
    style = numbers.STYLES["accuracy"]
    return (
        f"; right from a correctness of {evaluation.protocol.threshold:g}; mean correctness "
        f"{numbers.number(mean.value, style)} ({numbers.interval(mean, style) or 'no interval'})"
    )


def _summary(evaluation: Evaluation) -> tuple[str, ...]:
    """The result in a few sentences, with what speaks against it."""
    level = evaluation.protocol.level
    real = [e for e in evaluation.estimators if not e.control]
    best = next((e for e in real if heldout(e, "auroc").value is not None), None)
    if best is None:
        return ("No estimator has a held-out AUROC on this run; the tables say why.",)
    auroc = heldout(best, "auroc")
    out = [
        f"{inert(best.name)} separates right from wrong answers best: held-out AUROC "
        f"{numbers.plain(auroc, 'auroc', level=level)}."
    ]
    if auroc.low is not None and auroc.low <= 0.5:
        out.append("Its interval contains 0.5: it cannot be told from a score without signal.")
    baseline = evaluation.protocol.baseline
    gain = best.vs_baseline.get("auroc", Estimate(None))
    if baseline == best.name:
        out.append("It is itself the best simple baseline: nothing more elaborate beats it here.")
    elif baseline is not None and gain.value is not None:
        beyond = gain.low is not None and gain.low > 0
        out.append(
            f"That is {numbers.plain(gain, 'auroc', level=level, signed=True)} against the best "
            f"simple baseline, {inert(baseline)}: "
            + ("a difference beyond chance." if beyond else "no difference beyond chance.")
        )
    out.extend(_control_warning(evaluation, best))
    ece = heldout(best, "ece")
    if ece.value is not None:
        out.append(
            f"Its calibrated confidence is off by {numbers.plain(ece, 'ece', level=level)} on "
            "average (ECE)."
        )
    return tuple(out)


def _control_warning(evaluation: Evaluation, best: EstimatorResult) -> list[str]:
    """Whether a score that knows nothing of the answer does nearly as well."""
    floor = heldout(best, "auroc")
    controls = [
        (value, e)
        for e in evaluation.estimators
        if e.control and (value := heldout(e, "auroc").value) is not None
    ]
    if not controls:
        return []
    value, control = max(controls, key=lambda pair: (pair[0], pair[1].name))
    figure = numbers.plain(heldout(control, "auroc"), "auroc", level=evaluation.protocol.level)
    if floor.low is not None and value >= floor.low:
        return [
            f"Caution: the control {inert(control.name)}, which by design cannot know whether an "
            f"answer is right, reaches AUROC {figure}; that is not below the interval of the best "
            "estimator."
        ]
    return [f"The best control, {inert(control.name)}, reaches AUROC {figure}."]


def _answers(evaluation: Evaluation, image_bytes: ImageBytes) -> tuple[AnswerList, ...]:
    """Answers whose confidence misleads most, by the best estimator that has any."""
    result = next(
        (
            e
            for e in evaluation.estimators
            if not e.control and (e.confident_wrong or e.unsure_right)
        ),
        None,
    )
    if result is None:
        none = "No estimator is calibrated, so no answer has a confidence."
        return (AnswerList("Answers", "", none, ()),)
    note = (
        f"By the calibrated confidence of {inert(result.name)}, held-out rows of the first split."
    )
    return (
        AnswerList(
            "Most confident wrong answers",
            note,
            "No held-out answer is wrong.",
            tuple(_card(row, evaluation, image_bytes) for row in result.confident_wrong),
        ),
        AnswerList(
            "Least confident right answers",
            note,
            "No held-out answer is right.",
            tuple(_card(row, evaluation, image_bytes) for row in result.unsure_right),
        ),
    )


def _card(row: AnswerRow, evaluation: Evaluation, image_bytes: ImageBytes) -> AnswerCard:
    letters = choice_letters(len(row.choices))
    choices = [
        f"{letter}. {inert(text, CHOICE_LIMIT)}"
        for letter, text in zip(letters, row.choices, strict=True)
    ]
    if len(choices) > SHOWN_CHOICES:
        left = len(choices) - SHOWN_CHOICES
        choices = [*choices[:SHOWN_CHOICES], f"… and {left} more options"]
    named = dict(zip(letters, row.choices, strict=True))
    references: list[str] = []
    for reference in row.references:
        option = f"{reference}. {named[reference]}" if reference in named else reference
        text = inert(option, CHOICE_LIMIT)
        if text not in references:
            references.append(text)
    shown = list(zip_longest(row.images, row.image_sha256))[: min(SHOWN_IMAGES, len(row.images))]
    extra = len(row.images) - SHOWN_IMAGES
    about = inert(row.question, 120)
    return AnswerCard(
        question=inert(row.question, QUESTION_LIMIT),
        answer=inert(row.answer, ANSWER_LIMIT) if row.answer.strip() else "(empty answer)",
        references=" · ".join(references[:SHOWN_CHOICES]) or "none recorded",
        choices=tuple(choices),
        confidence=f"{row.confidence:.3f}",
        example_id=inert(row.example_id, 80),
        question_type=None if row.question_type is None else inert(row.question_type, 80),
        images=tuple(
            thumbnail(
                path,
                evaluation,
                image_bytes,
                alt=f"Image {i} of {len(row.images)} for the question: {about}",
                sha256=sha256,
            )
            for i, (path, sha256) in enumerate(shown, start=1)
        ),
        more_images=f"and {extra} more images" if extra > 0 else None,
    )


def _protocol(evaluation: Evaluation) -> tuple[Fact, ...]:
    run, protocol = evaluation.run, evaluation.protocol
    train, calibration, test = (numbers.count(n) for n in protocol.rows)
    shares = " / ".join(numbers.share(f) for f in protocol.fractions)
    seeds = ", ".join(str(seed) for seed in protocol.seeds)
    return (
        Fact("Run", inert(run.name), inert(run.path)),
        Fact("Created", inert(run.created)),
        Fact("Model", inert(run.model)),
        Fact("Data set", inert(run.dataset)),
        *classifier_tables.facts(evaluation),
        Fact("Condition", inert(protocol.condition), "the records that were judged"),
        Fact("Decoding", _settings(run.decoding)),
        Fact(
            "Grader",
            _settings(protocol.grader),
            f"an answer is right when its correctness reaches {protocol.threshold:g}",
        ),
        Fact(
            "Split",
            f"{shares} of the groups for train, calibration and test",
            f"rows of the first split: {train} / {calibration} / {test}; a group is never split",
        ),
        Fact("Seeds", seeds, "figures are means over the splits; drawings show the first"),
        Fact(
            "Calibrator",
            inert(protocol.calibrator),
            "the same for every estimator, fitted on the calibration rows only",
        ),
        Fact(
            "Intervals",
            numbers.share(protocol.level),
            f"bootstrap over groups, {numbers.count(protocol.resamples)} resamples, shared by all "
            "estimators, so that differences are paired",
        ),
        Fact(
            "Baseline",
            numbers.DASH if protocol.baseline is None else inert(protocol.baseline),
            "the simple estimator that is best on the calibration rows",
        ),
        Fact("Sightline", inert(evaluation.sightline_version)),
        Fact("Collected with", _settings(dict(run.versions))),
    )


def _settings(settings: dict[str, object]) -> str:
    parts = []
    for name, value in settings.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        parts.append(f"{inert(name)} = {inert(text, 300)}")
    return "; ".join(parts) or "not recorded"


def _comparison(evaluations: Sequence[Evaluation], names: Sequence[str]) -> Comparison:
    shared = _shared_estimators(evaluations)
    return Comparison(
        overview=_overview(evaluations, names),
        figure=figures.across_runs(evaluations, names, shared),
        estimators=tuple(
            Folded(
                f"{numbers.STYLES[metric].label} of every shared estimator",
                _across(evaluations, names, shared, metric),
            )
            for metric in ("auroc", "prr", "aurc", "ece", "brier")
        )
        if shared
        else (),
        absent="No estimator was measured on two of these runs, so none can be compared.",
    )


def _overview(evaluations: Sequence[Evaluation], names: Sequence[str]) -> Table:
    notes = Notes()
    rows = []
    for evaluation, name in zip(evaluations, names, strict=True):
        best = next((e for e in evaluation.estimators if not e.control), None)
        missing = Estimate(None, reason="no estimator but controls")
        figures_of = [
            numbers.cell(heldout(best, m) if best else missing, m, notes)
            for m in ("auroc", "prr", "aurc", "ece")
        ]
        rows.append(
            Row(
                name,
                (
                    numbers.words(evaluation.run.dataset),
                    Cell(numbers.count(evaluation.protocol.graded)),
                    numbers.cell(
                        evaluation.accuracy, "accuracy", notes, row_n=evaluation.protocol.graded
                    ),
                    Cell(numbers.DASH if best is None else inert(best.name)),
                    *figures_of,
                ),
                ("partial",) if evaluation.run.partial is not None else (),
            )
        )
    level = numbers.share(evaluations[0].protocol.level)
    return Table(
        caption=f"Accuracy and the best estimator of each run, with {level} intervals.",
        corner="Run",
        headings=(
            Heading("Data set", words=True),
            Heading("n", "judged rows"),
            numbers.heading("accuracy"),
            Heading("Best estimator", words=True),
            *(numbers.heading(m) for m in ("auroc", "prr", "aurc", "ece")),
        ),
        rows=tuple(rows),
        notes=tuple(notes.texts),
    )


def _shared_estimators(evaluations: Sequence[Evaluation]) -> list[str]:
    """Estimators of at least two runs, by mean rank where they were measured."""
    ranks: dict[str, list[int]] = {}
    for evaluation in evaluations:
        for rank, result in enumerate(evaluation.estimators):
            ranks.setdefault(result.name, []).append(rank)
    several = {name: r for name, r in ranks.items() if len(r) > 1}
    return sorted(several, key=lambda name: (sum(several[name]) / len(several[name]), name))


def _across(
    evaluations: Sequence[Evaluation], names: Sequence[str], estimators: Sequence[str], metric: str
) -> Table:
    notes = Notes()
    rows = []
    for estimator in estimators:
        cells = []
        control = False
        for evaluation in evaluations:
            found = next((e for e in evaluation.estimators if e.name == estimator), None)
            missing = Estimate(None, reason="not measured on this run")
            control = control or (found is not None and found.control)
            cells.append(numbers.cell(heldout(found, metric) if found else missing, metric, notes))
        rows.append(
            Row(inert(estimator), tuple(cells), ("control",) if control else (), quiet=control)
        )
    heading = numbers.heading(metric)
    level = numbers.share(evaluations[0].protocol.level)
    return Table(
        caption=f"Held-out {heading.text} of the same estimators on every run, {level} intervals.",
        corner="Estimator",
        headings=tuple(Heading(name, heading.hint) for name in names),
        rows=tuple(rows),
        notes=tuple(notes.texts),
    )
