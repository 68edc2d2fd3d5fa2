from __future__ import annotations

from dataclasses import replace

from evaluations import BASELINE, DRAWN, TYPES, bare, evaluation

from sightline.core.estimates import Estimate
from sightline.report import tables
from sightline.report.figures import shown_estimators
from sightline.report.view import Cell, Row, Table


def row(table: Table, name: str) -> Row:
    return next(r for r in table.rows if r.heading == name)


def column(table: Table, row_name: str, text: str) -> Cell:
    at = [h.text for h in table.headings].index(text)
    return row(table, row_name).cells[at]


def test_leaderboard_holds_every_estimator_in_order_with_interval_and_n() -> None:
    run = evaluation()
    table = tables.leaderboard(run)
    assert [r.heading for r in table.rows] == [e.name for e in run.estimators]
    for r, result in zip(table.rows, run.estimators, strict=True):
        assert len(r.cells) == len(table.headings)
        assert r.cells[0].text == str(result.heldout["auroc"].n)
        figure = column(table, r.heading, "AUROC")
        assert figure.text == f"{result.heldout['auroc'].value:.3f}"
        assert figure.interval is not None
        assert "–" in figure.interval


def test_controls_are_marked_and_never_lead_a_column() -> None:
    run = evaluation()
    worst = replace(
        run.estimators[0], heldout=run.estimators[0].heldout | {"ece": Estimate(0.9, n=300)}
    )
    run = replace(run, estimators=(worst, *run.estimators[1:]))
    table = tables.leaderboard(run)
    controls = [r for r in table.rows if "control" in r.marks]
    assert {r.heading for r in controls} == {"question_type", "answer_length", "random"}
    assert not any(cell.best for r in controls for cell in r.cells)
    assert all(r.quiet for r in controls)
    best_ece = min(
        (e for e in run.estimators if not e.control), key=lambda e: e.heldout["ece"].value or 1
    )
    assert column(table, best_ece.name, "ECE").best
    assert sum(column(table, r.heading, "ECE").best for r in table.rows) == 1


def test_figures_that_read_the_same_lead_together() -> None:
    run = evaluation()
    first, second = run.estimators[:2]
    nearly = {"brier": Estimate(0.0500001, n=300)}
    run = replace(
        run,
        estimators=(
            replace(first, heldout=first.heldout | nearly),
            replace(second, heldout=second.heldout | {"brier": Estimate(0.05, n=300)}),
        ),
    )
    table = tables.leaderboard(run)
    assert all(column(table, e.name, "Brier").best for e in (first, second))


def test_baseline_is_named_and_others_show_their_difference_with_sign() -> None:
    run = evaluation()
    table = tables.leaderboard(run)
    assert "best simple baseline" in row(table, BASELINE).marks
    assert column(table, BASELINE, "AUROC − baseline").text == "baseline"
    figure = column(table, "random", "AUROC − baseline")
    assert figure.text.startswith("−")
    assert figure.interval is not None
    assert " to " in figure.interval
    against = tables.differences(run)
    assert against is not None
    assert BASELINE not in [r.heading for r in against.rows]


def test_missing_figures_are_dashes_with_reasons_below_the_table() -> None:
    table = tables.leaderboard(bare())
    for r in table.rows:
        for cell, heading in zip(r.cells, table.headings, strict=True):
            if heading.text in ("n", ""):
                continue
            assert cell.text == "—"
            assert cell.note is not None
            assert 1 <= cell.note <= len(table.notes)
    assert "all answers are right; both right and wrong ones are required" in table.notes
    assert tables.differences(bare()) is None
    assert tables.coverage(bare(), shown_estimators(bare())) is None
    assert tables.types(bare(), shown_estimators(bare()), all_of=False) is None


def test_raw_figures_of_a_score_that_fits_on_labels_are_absent_with_the_reason() -> None:
    run = evaluation()
    learned = replace(run.estimators[0], raw={})
    run = replace(run, estimators=(learned, *run.estimators[1:]))
    table = tables.raw_figures(run)
    assert "fits on labels" in row(table, learned.name).marks
    assert column(table, learned.name, "raw AUROC").text == "—"
    assert any("fits on labels" in note for note in table.notes)
    assert column(table, learned.name, "calibrated ECE").text != "—"


def test_raw_calibration_error_is_absent_where_the_score_is_no_probability() -> None:
    table = tables.raw_figures(evaluation())
    cell = column(table, BASELINE, "raw ECE, 15 bins")
    assert cell.text == "—"
    assert cell.note is not None
    assert "no probability" in table.notes[cell.note - 1]


def test_costs_count_skipped_rows_with_their_reason() -> None:
    table = tables.costs(evaluation())
    assert column(table, "choice_margin", "Skipped").text == "300"
    assert column(table, "choice_margin", "Why skipped").text == "no option_logprobs (300)"
    assert column(table, "sample_agreement", "Generations").text == "10"
    assert column(table, "visual_uncertainty", "Forward passes").text == "1"
    assert column(table, "random", "Calibration").text == "base rate"


def test_what_can_score_no_answer_is_listed_by_what_the_run_lacks() -> None:
    table = tables.not_applicable(evaluation())
    assert table is not None
    cells = {r.heading: [c.text for c in r.cells] for r in table.rows}
    assert next(iter(cells)) == "no models"
    assert cells["no models"] == ["2", "model_agreement, votes_of_models"]
    assert cells["no rotations (596); no choices (4)"] == ["1", "rotation_agreement"]
    assert tables.not_applicable(replace(evaluation(), not_applicable=())) is None


def test_unknown_token_counts_are_a_dash_with_the_reason() -> None:
    run = evaluation()
    unknown = replace(run.estimators[0], generated_tokens=None)
    table = tables.costs(replace(run, estimators=(unknown,)))
    assert table.rows[0].cells[6].text == "—"
    assert table.notes == ("tokens of the samples were not recorded",)


def test_coverage_table_names_rows_kept_and_threshold() -> None:
    run = evaluation()
    shown = shown_estimators(run)
    table = tables.coverage(run, shown)
    assert table is not None
    assert [h.text for h in table.headings][-1] == "100\xa0% kept"
    last = table.rows[0].cells[-1]
    edge = shown[0].coverage_table[-1].threshold
    assert last.n == f"300, ≥ {edge:.3f}"


def test_types_table_has_one_row_per_type_and_a_column_per_estimator() -> None:
    run = evaluation()
    table = tables.types(run, run.estimators, all_of=True)
    assert table is not None
    assert tuple(r.heading for r in table.rows) == TYPES
    assert len(table.headings) == 2 + len(DRAWN)
    assert all(len(r.cells) == len(table.headings) for r in table.rows)


def test_an_estimator_without_a_type_says_so() -> None:
    run = evaluation()
    narrowed = replace(run.estimators[0], by_type={})
    table = tables.types(run, (narrowed,), all_of=False)
    assert table is not None
    assert {r.cells[-1].text for r in table.rows} == {"—"}
    assert table.notes == ("no held-out row of this type was scored",)


def test_bars_stay_inside_their_drawing() -> None:
    run = evaluation()
    extreme = replace(
        run.estimators[0],
        heldout=run.estimators[0].heldout | {"auroc": Estimate(0.02, 0.0, 0.1, n=9)},
    )
    bar = tables.leaderboard(replace(run, estimators=(extreme,))).rows[0].cells[2].bar
    assert bar is not None
    assert (bar.at, bar.low, bar.high) == (0.0, 0.0, 0.0)
    assert 0 < bar.chance < 1
