"""What studies measure with: labels drawn by group, paired comparisons, transfer, tables."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sightline.core.errors import DataError, UsageError
from sightline.core.estimates import Estimate
from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Record
from sightline.data.splits import split_groups
from sightline.estimators import parse_estimator
from sightline.estimators.recorded import RecordedConfidence
from sightline.workflow.judged import JudgedRows
from sightline.workflow.studies.ablations import HARMONY_GRID, NETWORK_GRID
from sightline.workflow.studies.estimators import QUICK, SIGNALS, recorded_tables, study_estimators
from sightline.workflow.studies.few_labels import SPECTRUM_RIVALS, label_curve
from sightline.workflow.studies.protocol import compare, first_groups, on_test
from sightline.workflow.studies.tables import StudyTable, kept_tables, markdown, write_study
from sightline.workflow.studies.transfer import transfer_table


def judged(n=400, *, seed=0, seeds=2, prefix=""):
    """Two rows a group; type b is harder; the recorded confidence is informative."""
    rng = np.random.default_rng(seed)
    types = rng.integers(0, 2, n)
    confidence = rng.random(n)
    correct = (rng.random(n) < np.clip(0.9 * confidence + 0.3 * (1 - types), 0, 1)).astype(float)
    names = [f"{prefix}{i // 2}" for i in range(n)]
    records = tuple(
        Record(
            Example(f"{prefix}{i}", "?", group=names[i], question_type="ab"[types[i]]),
            greedy=Generation("x"),
            features={Feature.RECORDED_CONFIDENCE: np.array(confidence[i])},
        )
        for i in range(n)
    )
    return JudgedRows(
        records=records,
        correct=correct,
        correctness=correct,
        groups=np.arange(n) // 2,
        types=types,
        type_names=("a", "b"),
        splits=tuple(split_groups(names, (0.4, 0.2, 0.4), seed=s) for s in range(seeds)),
    )


def test_every_contender_can_be_named():
    names = [*HARMONY_GRID.values(), *NETWORK_GRID.values(), *SPECTRUM_RIVALS]
    names += [f"fusion:members={members}" for members in SIGNALS.values() if "+" in members]
    different = [parse_estimator(name) for name in names]
    assert len(set(different)) == len(names)


def test_labels_are_drawn_group_by_group():
    rows = judged()
    train = rows.splits[0].train
    chosen = first_groups(rows, train, 51, np.random.default_rng(0))
    assert len(chosen) == 51
    assert set(chosen) <= set(train)
    assert np.all(np.diff(chosen) > 0)
    sizes = np.bincount(rows.groups[chosen])
    assert (sizes == 1).sum() == 1  # only the last group is cut
    again = first_groups(rows, train, 51, np.random.default_rng(0))
    assert np.array_equal(chosen, again)
    assert not np.array_equal(chosen, first_groups(rows, train, 51, np.random.default_rng(1)))
    with pytest.raises(DataError, match="rows to draw 1000 labels from"):
        first_groups(rows, train, 1000, np.random.default_rng(0))


def sampled(n=360, *, seed=0):
    """Answers whose samples agree the more often, the likelier they are right."""
    rng = np.random.default_rng(seed)
    sure = rng.random(n)
    correct = (rng.random(n) < sure).astype(float)
    words = ("red", "green", "blue", "white")
    records = tuple(
        Record(
            Example(f"{i}", "?", group=f"{i // 2}", question_type="a"),
            greedy=Generation("red", tokens=("red",), logprobs=np.log([0.2 + 0.7 * p])),
            samples=tuple(
                Generation(text, tokens=(text,), logprobs=np.log([chance]))
                for text, chance in (
                    ("red", 0.2 + 0.7 * p) if rng.random() < p else (rng.choice(words[1:]), 0.1)
                    for _ in range(4)
                )
            ),
        )
        for i, p in enumerate(sure)
    )
    names = [f"{i // 2}" for i in range(n)]
    return JudgedRows(
        records=records,
        correct=correct,
        correctness=correct,
        groups=np.arange(n) // 2,
        types=np.zeros(n, dtype=np.int64),
        type_names=("a",),
        splits=tuple(split_groups(names, (0.3, 0.2, 0.5), seed=s) for s in range(2)),
    )


def test_rivals_at_few_labels_are_calibrated_on_the_labels_and_at_their_best():
    rows = sampled()
    table = label_curve("run", rows, (60,), resamples=20, progress=lambda _: None)
    cells = {str(row[0]): dict(zip(table.columns, row, strict=True)) for row in table.rows}
    names = ("sgpu", *SPECTRUM_RIVALS, "question_type (control)")
    assert list(cells) == [f"60: {name}" for name in names]
    assert cells["60: question_type (control)"]["AUROC within type"].value == 0.5
    sgpu = cells["60: sgpu"]
    assert sgpu["Calibrator chosen on labels"] == sgpu["Calibrator chosen on test"] == "its own"
    assert sgpu["ECE chosen on labels"] == sgpu["ECE chosen on test"]
    assert sgpu["Δ ECE chosen on labels"] is None
    for name in SPECTRUM_RIVALS:
        rival = cells[f"60: {name}"]
        best, usual = rival["ECE chosen on test"], rival["ECE chosen on labels"]
        assert best.value <= usual.value
        gap = rival["Δ ECE chosen on labels"]
        assert gap.value == pytest.approx(sgpu["ECE chosen on labels"].value - usual.value)
        assert rival["AUROC"].value > 0.6


def test_a_comparison_is_paired_and_knows_which_way_is_better():
    rows = judged()
    tests = [split.test for split in rows.splits]
    good = [on_test(RecordedConfidence(), rows, split, seed=0) for split in rows.splits]
    noise = [np.random.default_rng(1).random(len(test)) for test in tests]
    figures = compare(
        {"good": good, "noise": noise}, tests, rows, ("auroc", "within_type_auroc"), resamples=200
    )
    assert figures.figure("good", "auroc").value > 0.7
    gap = figures.difference("good", "noise", "within_type_auroc")
    assert gap.low > 0
    back = figures.difference("noise", "good", "within_type_auroc")
    assert back.value == pytest.approx(-gap.value)
    confident = compare(
        {"good": [1 - g for g in good]}, tests, rows, ("auroc",), probability=True, resamples=20
    )
    assert confident.figure("good", "auroc").value == figures.figure("good", "auroc").value


def test_what_learns_is_fitted_on_training_rows_only():
    rows = judged(seeds=1)
    (split,) = rows.splits
    learned = parse_estimator("question_type")
    before = on_test(learned, rows, split, seed=0)
    shuffled = JudgedRows(
        records=rows.records,
        correct=np.where(np.isin(np.arange(400), split.train), rows.correct, 1 - rows.correct),
        correctness=rows.correctness,
        groups=rows.groups,
        types=rows.types,
        type_names=rows.type_names,
        splits=rows.splits,
    )
    assert np.array_equal(before, on_test(learned, shuffled, split, seed=0))
    few = on_test(learned, rows, split, seed=0, train=split.train[:3], test=split.test[:5])
    assert len(few) == 5


def test_transfer_leaves_out_groups_that_were_fitted_on():
    same, other = judged(seed=0), judged(seed=1, prefix="other-")
    said = []
    table = transfer_table(
        {"one": same, "two": other},
        ("question_type",),
        RecordedConfidence(),
        resamples=50,
        progress=said.append,
    )
    assert said == [
        "transfer: question_type fitted on one",
        "transfer: question_type fitted on two",
    ]
    assert table.columns == (
        *("Method", "Fitted on"),
        *("on one", "on one, within type", "on two", "on two, within type"),
    )
    assert [row[:2] for row in table.rows] == [
        ("question_type (control)", "one"),
        ("question_type (control)", "two"),
        ("recorded_confidence", "nothing"),
    ]
    # A score that knows the type only cannot rank within it.
    assert table.rows[0][3].value == 0.5
    assert table.rows[0][2].value > 0.55
    assert table.rows[2][4].value > 0.7
    assert table.rows[2][5].value > 0.7
    with pytest.raises(UsageError, match="learns nothing"):
        transfer_table(
            {"one": same},
            ("recorded_confidence",),
            RecordedConfidence(),
            resamples=5,
            progress=said.append,
        )


def test_transfer_measures_no_group_that_was_fitted_on_in_the_same_split():
    """Two runs ask the same questions, cut otherwise: what one fits on is left out of the other."""
    one = judged(seeds=2)
    other = replace(one, splits=one.splits[::-1])
    table = transfer_table(
        {"one": one, "other": other},
        ("question_type",),
        RecordedConfidence(),
        resamples=5,
        progress=lambda _: None,
    )
    train = [{one.groups[i] for i in split.train} for split in one.splits]
    tests = [[one.groups[i] for i in split.test] for split in one.splits]
    left = [sum(g not in train[at] for g in tests[1 - at]) for at in range(2)]
    assert min(left) < len(tests[0])
    assert table.rows[0][2].n == len(tests[0])
    assert table.rows[0][4].n == round(np.mean(left))


def test_tables_are_written_as_json_and_as_a_page(tmp_path):
    table = StudyTable(
        "t",
        "Title",
        "How it was measured.",
        ("name", "figure", "n", "absent"),
        (
            ("a|b", Estimate(0.5, 0.4, 0.6, n=9), 9, None),
            ("c", Estimate(None, n=0, reason="no rows"), 0, "yes"),
            ("d", Estimate(0.25), 1, None),
        ),
    )
    page = write_study(tmp_path / "new", "it", "Study", [table])
    text = page.read_text()
    assert text == markdown("Study", [table])
    assert "| a\\|b | 0.500 (0.400 to 0.600) | 9 | not applicable |" in text
    assert "| c | — (no rows) | 0 | yes |" in text
    assert "| d | 0.250 | 1 | not applicable |" in text
    document = json.loads((tmp_path / "new" / "it.json").read_text())
    assert document["tables"][0]["rows"][0][1]["low"] == 0.4
    assert document["study"] == "it"


def test_tables_are_measured_once_for_the_same_settings(tmp_path):
    calls = []

    def measure():
        calls.append(1)
        rows = (("a", Estimate(0.5, 0.4, 0.6, n=9), None), ("b", Estimate(None, reason="?"), 3))
        return [StudyTable("k", "Title", "How.", ("Name", "AUROC", "n"), rows)]

    first = kept_tables(tmp_path / "tables", "k", {"n": 2, "sizes": (1, 2)}, measure)
    again = kept_tables(tmp_path / "tables", "k", {"n": 2, "sizes": (1, 2)}, measure)
    assert again == first
    assert len(calls) == 1
    kept_tables(tmp_path / "tables", "k", {"n": 3, "sizes": (1, 2)}, measure)
    assert len(calls) == 2


def test_recorded_outputs_are_measured_once_and_again_when_the_file_changes(tmp_path):
    def record(rows):
        lines = [
            json.dumps(
                {
                    "id": i,
                    "question": "?",
                    "answer": "a",
                    "references": ["a" if i % 3 else "b"],
                    "confidence": (i * 7 % 10) / 10,
                    "model": "m",
                }
            )
            for i in range(rows)
        ]
        (tmp_path / "outputs.jsonl").write_text("\n".join(lines), encoding="utf-8")

    told: list[str] = []

    def tables():
        size = replace(QUICK, seeds=1, resamples=10)
        return recorded_tables(
            tmp_path / "out", tmp_path, size, told.append, names=("outputs.jsonl",)
        )

    record(60)
    (first,) = tables()
    assert "60 answers of m" in first.note
    assert tables() == [first]
    assert told == ["recorded: outputs.jsonl"]
    record(90)
    (second,) = tables()
    assert "90 answers of m" in second.note
    assert len(told) == 2


def test_absent_recorded_outputs_are_told_before_anything_is_measured(tmp_path):
    with pytest.raises(DataError, match="has no festa_vsr_samples"):
        study_estimators(tmp_path / "out", QUICK, recorded=tmp_path, progress=pytest.fail)
    assert not (tmp_path / "out").exists()
