from __future__ import annotations

from dataclasses import replace

from evaluations import BASELINE, bare, evaluation, picture

from sightline.core.estimates import Estimate
from sightline.core.results import Evaluation
from sightline.report.page import page_view


def page(*evaluations: Evaluation, title: str | None = None):
    return page_view(evaluations, image_bytes=lambda *_: None, title=title)


def with_auroc(run: Evaluation, name: str, figure: Estimate) -> Evaluation:
    return replace(
        run,
        estimators=tuple(
            replace(e, heldout=e.heldout | {"auroc": figure}) if e.name == name else e
            for e in run.estimators
        ),
    )


def test_one_run_has_no_comparison_and_says_that_it_is_partial() -> None:
    view = page(evaluation())
    assert view.comparison is None
    assert view.title == "Can llava-1.5-7b-hf be trusted?"
    assert view.runs[0].partial == "first 605 of 2,000 examples (--limit 605)"
    assert "Preliminary" in view.runs[0].notes[0]
    assert page(evaluation(), title="Mine").title == "Mine"


def test_facts_count_what_was_left_out() -> None:
    facts = {fact.term: fact for fact in page(evaluation()).runs[0].facts}
    assert facts["Accuracy"].text.endswith("%")
    assert facts["Accuracy"].detail is not None
    assert "n = 600" in facts["Accuracy"].detail
    assert facts["Answers judged"].detail == (
        "of 603, in 300 groups; not graded: no references (3)"
    )
    assert (facts["Quarantined"].text, facts["Cut off"].text, facts["Empty"].text) == (
        "2",
        "4",
        "1",
    )
    assert facts["Quarantined"].detail == "image is damaged or cut short (2)"


def test_summary_names_best_estimator_difference_and_best_control() -> None:
    run = evaluation()
    text = " ".join(page(run).runs[0].summary)
    assert text.startswith(f"{run.estimators[0].name} separates right from wrong answers best")
    assert f"best simple baseline, {BASELINE}: a difference beyond chance" in text
    assert "The best control, question_type, reaches" in text


def test_summary_warns_where_a_control_does_as_well_or_there_is_no_signal() -> None:
    run = evaluation()
    best = run.estimators[0].name
    weak = with_auroc(run, best, Estimate(0.71, 0.45, 0.9, n=300))
    text = " ".join(page(weak).runs[0].summary)
    assert "Its interval contains 0.5" in text
    assert "Caution: the control question_type" in text


def test_summary_says_where_the_baseline_is_not_beaten() -> None:
    run = evaluation()
    baseline_first = replace(
        run, estimators=tuple(sorted(run.estimators, key=lambda e: e.name != BASELINE))
    )
    assert "It is itself the best simple baseline" in " ".join(page(baseline_first).runs[0].summary)


def test_a_run_where_nothing_can_be_measured_is_shown_with_reasons() -> None:
    run = page(bare()).runs[0]
    assert run.summary == ("No estimator has a held-out AUROC on this run; the tables say why.",)
    assert run.reliability.figures == ()
    assert run.histograms.figures == ()
    assert run.coverage is None
    assert run.types is None
    assert run.answers[0].empty == "No estimator is calibrated, so no answer has a confidence."
    assert [f.title for f in run.curves.figures] == ["Risk–coverage", "Rejection"]


def test_answers_show_question_choices_reference_images_and_confidence() -> None:
    wrong, right = page_view([evaluation()], image_bytes=picture, title=None).runs[0].answers
    assert (wrong.title, right.title) == (
        "Most confident wrong answers",
        "Least confident right answers",
    )
    confidences = [float(card.confidence) for card in wrong.answers]
    assert confidences == sorted(confidences, reverse=True)
    card = next(c for c in wrong.answers if c.choices)
    assert card.choices == ("A. red", "B. dark blue", "C. green")
    assert card.references == "red · crimson"
    assert all(
        image.alt.startswith("Image 1 of 1 for the question: What colour")
        for c in wrong.answers
        for image in c.images
    )
    pictures = [image for c in (*wrong.answers, *right.answers) for image in c.images]
    assert any(image.uri for image in pictures)
    assert any(image.missing and "was not found" in image.missing for image in pictures)


def test_the_right_option_is_named_by_its_text_beside_its_letter() -> None:
    run = evaluation()
    row = next(r for e in run.estimators for r in e.confident_wrong if r.choices)
    letter = replace(row, references=("B",))
    best = replace(run.estimators[0], confident_wrong=(letter,))
    card = page(replace(run, estimators=(best, *run.estimators[1:]))).runs[0].answers[0].answers[0]
    assert card.references == "B. dark blue"


def test_an_empty_answer_and_many_images_and_choices_are_said_not_shown() -> None:
    run = evaluation()
    row = replace(
        run.estimators[0].confident_wrong[0],
        answer=" ",
        references=(),
        choices=tuple(f"option {i}" for i in range(30)),
        images=tuple(f"missing-{i}.png" for i in range(9)),
    )
    run = replace(run, estimators=(replace(run.estimators[0], confident_wrong=(row,)),))
    card = page(run).runs[0].answers[0].answers[0]
    assert card.answer == "(empty answer)"
    assert card.references == "none recorded"
    assert card.choices[-1] == "… and 20 more options"
    assert len(card.images) == 4
    assert card.more_images == "and 5 more images"


def test_two_runs_are_compared_over_the_estimators_they_share() -> None:
    first = evaluation()
    second = evaluation(model="Qwen2.5-VL-3B-Instruct", seed=1)
    second = replace(
        second, estimators=tuple(e for e in second.estimators if e.name != "perplexity")
    )
    view = page(first, second)
    assert view.comparison is not None
    assert [r.heading for r in view.comparison.overview.rows] == [
        "llava-1.5-7b-hf",
        "Qwen2.5-VL-3B-Instruct",
    ]
    shared = [r.heading for r in view.comparison.estimators[0].table.rows]
    assert "perplexity" not in shared
    assert len(shared) == len(second.estimators)
    assert view.comparison.figure is not None


def test_runs_of_one_model_are_told_apart_by_name_or_number() -> None:
    first, second = evaluation(), evaluation(seed=1)
    assert [run.title for run in page(first, second).runs] == ["run-0", "run-1"]
    assert [run.title for run in page(first, first).runs] == [
        "llava-1.5-7b-hf, run-0 (1)",
        "llava-1.5-7b-hf, run-0 (2)",
    ]


def test_runs_without_a_shared_estimator_say_so() -> None:
    first, second = evaluation(), evaluation(model="other", seed=1)
    first = replace(first, estimators=first.estimators[:1])
    second = replace(
        second, estimators=tuple(e for e in second.estimators if e.name == "perplexity")
    )
    view = page(first, second)
    assert view.comparison is not None
    assert view.comparison.figure is None
    assert view.comparison.estimators == ()
    assert "none can be compared" in view.comparison.absent


def test_protocol_says_how_it_was_measured() -> None:
    facts = {fact.term: fact for fact in page(evaluation()).runs[0].protocol}
    assert facts["Split"].text.startswith("40\xa0% / 20\xa0% / 40\xa0%")
    assert facts["Split"].detail is not None
    assert "150 / 150 / 300" in facts["Split"].detail
    assert facts["Seeds"].text == "0, 1, 2, 3, 4"
    assert facts["Grader"].text == "name = exact; normalise = true"
    assert facts["Intervals"].detail is not None
    assert "1,000 resamples" in facts["Intervals"].detail
    assert facts["Baseline"].text == BASELINE


def test_no_control_base_rate_or_estimator_of_few_rows_is_set_apart() -> None:
    run = evaluation()
    first, second, third, *others = run.estimators
    perfect = Estimate(0.999, 0.99, 1.0, n=20)
    few = replace(first, scored=20, heldout={**first.heldout, "auroc": perfect})
    flat = replace(
        second,
        calibration="base rate",
        heldout={**second.heldout, "ece": Estimate(0.0001, 0.0, 0.01, n=300)},
    )
    table = page(replace(run, estimators=(few, flat, third, *others))).runs[0].leaderboard
    texts = {cell.text for row in table.rows for cell in row.cells if cell.best}
    assert "0.999" not in texts
    assert "0.000" not in texts
    assert texts
