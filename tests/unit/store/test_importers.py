"""Importing files: formats, models, conditions, hostile content, interruption, and memory."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sightline.core.column import ColumnKind
from sightline.core.errors import DataError, DiskError, MissingExtraError, StoreError, UsageError
from sightline.core.features import Feature
from sightline.core.types import Key
from sightline.grading import GRADERS, grade_records
from sightline.store import import_spool
from sightline.store.import_formats import detect
from sightline.store.importers import FORMATS, import_runs
from sightline.store.run import RunStore

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "imports"
LMMS = FIXTURES / "llava-hf__tiny-llava"
VLMEVALKIT = FIXTURES / "TinyVLM"


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def rows_of(n: int, **more: Any) -> list[dict[str, Any]]:
    return [{"id": str(i), "question": f"q{i}?", "answer": f"a{i}", **more} for i in range(n)]


def import_one(path: Path, out: Path, **options: Any) -> RunStore:
    (run,) = import_runs(path, out, **options)
    return RunStore.open(run)


def test_a_run_of_plain_rows(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "answers.jsonl", rows_of(5, correct=True, model="org/m 1"))
    store = import_one(path, tmp_path / "runs", shard_size=2)
    assert store.path.name == "answers.org-m-1"
    assert store.manifest.kind == "imported"
    assert store.manifest.model == {"name": "org/m 1"}
    assert store.manifest.dataset["name"] == "answers"
    assert store.manifest.dataset["source"] == "answers.jsonl"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert store.manifest.dataset["source_sha256"] == digest
    assert store.manifest.image_root == str(tmp_path.resolve())
    assert store.committed() == {0, 1, 2}
    assert [record.answer.text for record in store.records()] == [f"a{i}" for i in range(5)]
    column = store.column(ColumnKind.CORRECT, "recorded")
    assert column.keys == tuple(Key(str(i), "clean") for i in range(5))
    assert column.values.tolist() == [1.0] * 5
    assert store.verify() == []


def test_models_that_are_mixed_become_runs_of_their_own(tmp_path: Path) -> None:
    rows = [
        {"id": str(i), "question": "?", "answer": f"{model}{i}", "model": model, "dataset": "d"}
        for i in range(3)
        for model in ("a", "A", "b/c")
    ]
    runs = import_runs(write_jsonl(tmp_path / "x.jsonl", rows), tmp_path / "runs")
    assert [run.name for run in runs] == ["x.a", "x.A-2", "x.b-c"]
    for run, model in zip(runs, ("a", "A", "b/c"), strict=True):
        store = RunStore.open(run)
        assert [r.answer.text for r in store.records()] == [f"{model}{i}" for i in range(3)]
        assert store.manifest.dataset["name"] == "d"


def test_conditions_far_apart_meet_in_one_example(tmp_path: Path) -> None:
    rows = rows_of(4, condition="clean") + rows_of(4, condition="blur:2")
    store = import_one(write_jsonl(tmp_path / "x.jsonl", rows), tmp_path / "runs", shard_size=3)
    assert len(store.examples()) == 4
    assert [record.key for record in store.records()] == [
        Key(str(i), condition) for i in range(4) for condition in ("clean", "blur:2")
    ]


def test_duplicates_are_rejected_with_both_places(tmp_path: Path) -> None:
    rows = [*rows_of(2), {"id": "1", "question": "again?", "answer": "other"}]
    store = import_one(write_jsonl(tmp_path / "x.jsonl", rows), tmp_path / "runs")
    (rejected,) = store.rejected()
    assert rejected.where == "line 3"
    assert "line 2" in rejected.reason
    assert [record.answer.text for record in store.records()] == ["a0", "a1"]


def test_bad_rows_are_counted_and_the_others_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    good = json.dumps(rows_of(1, correct=False)[0]).encode()
    path.write_bytes(
        b"\xef\xbb\xbf" + good + b"\r\n"
        b"{not json}\r\n"
        b"[1, 2]\r\n"
        b'{"id": "2", "question": "?", "answer": "x", "token_logprobs": [NaN]}\r\n'
        b'{"id": "3", "question": "?", "answer": "x", "token_logprobs": [0.5]}\r\n'
        b'{"id": "4", "question": "?", "answer": "\xff"}\r\n'
        b'{"id": "5", "question": "?", "answer": "x", "mystery": [1], "also": {"a": 1}}\r\n'
        b"\r\n"
        b'{"id": "6", "question": "?", "answer": "x", "tokens": ["a"], "token_ids": [1, 2]}\r\n'
        b'{"id": "7", "question": "?"' + b"\n"
    )
    store = import_one(path, tmp_path / "runs")
    assert [record.example.id for record in store.records()] == ["0", "5"]
    places = [rejected.where for rejected in store.rejected()]
    assert sorted(places) == [f"line {i}" for i in (10, 2, 3, 4, 5, 6, 9)]
    notes = " ".join(store.manifest.notes)
    assert "mystery was not imported (1 rows)" in notes
    assert "also was not imported (1 rows)" in notes
    assert "3 rows of this model were rejected" in notes
    assert "4 rows of no model here were rejected" in notes
    assert store.manifest.dataset["rejected"] == 7


def test_a_rejected_row_is_counted_in_one_run(tmp_path: Path) -> None:
    """In its model's, whether that has come or not; in the first, where no run is its model's."""
    rows = [
        {"id": "0", "answer": "no question yet", "model_name": "b"},
        *rows_of(2, model="a"),
        {"id": "9", "question": "?", "model": "a"},
        "{not json}",
        {"id": "9", "question": "?", "model": "only bad rows"},
        *rows_of(1, model="b"),
        {"id": "0", "question": "?", "answer": "again", "model": "b"},
    ]
    runs = import_runs(write_jsonl(tmp_path / "x.jsonl", rows), tmp_path / "runs")
    a, b = map(RunStore.open, runs)
    assert [row.where for row in a.rejected()] == ["line 4", "line 5", "line 6"]
    assert [row.where for row in b.rejected()] == ["line 1", "line 8"]
    assert a.manifest.dataset["rejected"] == 3
    assert "1 rows of this model were rejected" in " ".join(a.manifest.notes)
    assert "2 rows of no model here were rejected" in " ".join(a.manifest.notes)
    assert "of no model here" not in " ".join(b.manifest.notes)


def test_more_rejected_rows_than_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_spool, "MAX_LISTED", 2)
    monkeypatch.setattr(import_spool, "MAX_MODELS", 3)
    bad = [{"id": "9", "question": "?", "model": f"m{i % 5}"} for i in range(15)]
    rows = [*rows_of(1, model="a"), *bad]
    store = import_one(write_jsonl(tmp_path / "x.jsonl", rows), tmp_path / "runs")
    *listed, last = store.rejected()
    assert len(listed) == 8  # two of m0, m1 and m2 each, and of all the others together
    assert (last.where, last.reason) == ("further rows", "7 more rejected rows are not listed")
    assert "15 rows of no model here were rejected" in " ".join(store.manifest.notes)


def test_hostile_text_is_stored_as_it_is(tmp_path: Path) -> None:
    answers = ["<script>", "\x1b[2J", "\u202e", "=cmd()", "x" * 1_000_000, "", "\x00", "🙂"]
    rows = [{"id": f"{i}\x1b", "question": "?", "answer": a} for i, a in enumerate(answers)]
    store = import_one(write_jsonl(tmp_path / "x.jsonl", rows), tmp_path / "runs")
    assert [record.answer.text for record in store.records()] == answers


@pytest.mark.parametrize(
    "model", ["../../evil", "/etc/passwd", "..", "", "con", "a" * 300, "\x1b", "é"]
)
def test_a_models_name_never_leads_out_of_the_folder(tmp_path: Path, model: str) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", rows_of(1, model=model or None))
    (run,) = import_runs(path, tmp_path / "runs")
    assert run.parent == tmp_path / "runs"
    assert run.is_dir()


def test_too_many_models_are_one_clear_line(tmp_path: Path) -> None:
    rows = [{"id": "1", "question": "?", "answer": "x", "model": f"m{i}"} for i in range(1001)]
    with pytest.raises(DataError, match="more than 1000 models"):
        import_runs(write_jsonl(tmp_path / "x.jsonl", rows), tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


def test_images_beside_the_file_are_referenced_by_hash(tmp_path: Path) -> None:
    (tmp_path / "data" / "img").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "data" / "img" / "a.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    images = ["img/a.png", "img/none.png", "../secret.png", str(tmp_path / "secret.png"), None]
    rows = [row | {"image": image} for row, image in zip(rows_of(5), images, strict=True)]
    rows.append({**rows_of(6)[5], "images": ["img/a.png", "img/a.png"]})
    rows.append({**rows_of(7)[6], "image": "data:image/png;base64,AAAA"})
    store = import_one(write_jsonl(tmp_path / "data" / "x.jsonl", rows), tmp_path / "runs")
    examples = store.examples()
    sha256 = hashlib.sha256((tmp_path / "data" / "img" / "a.png").read_bytes()).hexdigest()
    assert [len(example.images) for example in examples] == [1, 0, 0, 0, 0, 2, 0]
    assert (examples[0].images[0].path, examples[0].images[0].sha256) == ("img/a.png", sha256)
    assert examples[1].meta["image_missing"] == "img/none.png"
    assert "image_missing" not in examples[4].meta
    notes = " ".join(store.manifest.notes)
    assert "3 examples have images that were not found" in notes
    assert "embedded images was not imported (1 rows)" in notes


def test_tables_of_every_form_give_the_same_run(tmp_path: Path) -> None:
    rows = [
        {"id": str(i), "question": "Which?", "choices": ["x", "y"], "answer": "AB"[i % 2]}
        | {"choice_probs": [0.25, 0.75], "correct": i % 2 == 0, "references": ["A"]}
        for i in range(4)
    ]
    write_jsonl(tmp_path / "a.jsonl", rows)
    (tmp_path / "a.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for suffix, separator in ((".csv", ","), (".tsv", "\t")):
        lines = [separator.join(rows[0])]
        for row in rows:
            cells = [v if isinstance(v, str) else json.dumps(v) for v in row.values()]
            lines.append(separator.join('"' + cell.replace('"', '""') + '"' for cell in cells))
        (tmp_path / f"a{suffix}").write_text("\n".join(lines))
    hashes = set()
    for suffix in (".jsonl", ".json", ".csv", ".tsv", ".parquet"):
        store = import_one(tmp_path / f"a{suffix}", tmp_path / suffix[1:])
        assert store.rejected() == []
        column = store.column(ColumnKind.CORRECT, "recorded")
        assert column.values.tolist() == [1, 0, 1, 0]
        for record in store.records():
            scores = np.exp(record.array(Feature.LETTER_LOGPROBS))
            np.testing.assert_allclose(scores, [0.25, 0.75])
        hashes.add(store.manifest.dataset["examples_sha256"])
    assert len(hashes) == 1


def test_the_tool_is_recognised_by_its_columns(tmp_path: Path) -> None:
    assert detect(LMMS / "20250101_120000_samples_gqa.jsonl") == "lmms-eval"
    assert detect(VLMEVALKIT / "TinyVLM_MMBench_DEV_EN.tsv") == "vlmevalkit"
    assert detect(write_jsonl(tmp_path / "x.jsonl", ["{broken", *rows_of(1)])) == "rows"
    assert detect(write_jsonl(tmp_path / "y.jsonl", [{"choice_probs": [1, 0]}])) == "rows"


def test_lmms_eval_generated_answers(tmp_path: Path) -> None:
    store = import_one(LMMS / "20250101_120000_samples_gqa.jsonl", tmp_path)
    assert store.manifest.model["name"] == "llava-hf/tiny-llava"
    assert store.manifest.dataset["name"] == "gqa"
    records = list(store.records())
    assert [record.example.question for record in records] == [
        "Is it overcast?",
        "What color is the bus?",
        "How many dogs?",
    ]
    assert [record.answer.text for record in records] == ["No", "Red.", "2"]
    assert records[2].answer.text == "2"  # and never one of its own samples
    assert [sample.text for sample in records[2].samples] == ["two", "3"]
    assert [record.example.references for record in records] == [("no",), ("yellow",), ("2",)]
    recorded = store.column(ColumnKind.CORRECT, "recorded")
    graded, _ = grade_records(records, GRADERS["auto"])
    assert recorded.values.tolist() == graded.values.tolist() == [1.0, 0.0, 1.0]


def test_lmms_eval_multiple_choice(tmp_path: Path) -> None:
    store = import_one(LMMS / "20250101_120000_samples_mmbench_en_dev.jsonl", tmp_path)
    records = list(store.records())
    assert [record.answer.text for record in records] == ["A", "B"]
    assert records[0].example.question == "Look at the fruit.\nWhich is red?"
    assert records[0].example.choices == ("apple", "banana")
    assert records[1].example.references == ("B",)
    assert records[1].array(Feature.OPTION_LOGPROBS).tolist() == [-2.5, -0.5]
    assert [record.example.question_type for record in records] == ["attribute", "shape"]
    assert store.column(ColumnKind.CORRECT, "recorded").values.tolist() == [1.0, 1.0]
    (rejected,) = store.rejected()
    assert "filtered_resps" in rejected.reason


def test_lmms_eval_prompts_metrics_and_drawn_answers(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"doc_id": 0, "input": "One?", "filtered_resps": [["a", "b"]], "f1": {"score": 0.5}},
        {"doc_id": 1, "arguments": [["Two?", {"max_tokens": 3}]], "resps": [["b"]], "f1": True},
        {"doc_id": 2, "arguments": {"a": {"b": "Three?"}}, "resps": "c", "f1": 0.1, "bleu": 0.2},
        {"doc_id": 3, "input": "Four?", "resps": "d", "f1": 7, "acc": 1.0},
        {"doc_id": 4, "input": [], "resps": "e", "f1": 1},
        {"doc_id": 5, "input": "?", "doc": {"A": "x", "B": "y"}, "resps": "B", "target": "A"},
        {"doc_id": 6, "input": "?", "resps": [["a", 1], ["b", 2, 3]]},
        "{broken",
    ]
    path = write_jsonl(tmp_path / "samples_task.jsonl", rows)
    store = import_one(path, tmp_path / "runs", format="lmms-eval")
    records = list(store.records())
    asked = [record.example.question for record in records]
    assert asked == ["One?", "Two?", "Three?", "Four?", "?"]
    assert [sample.text for sample in records[0].samples] == ["b"]
    assert records[4].example.choices == ("x", "y")
    recorded = store.column(ColumnKind.CORRECT, "recorded")
    assert [key.example_id for key in recorded.keys] == ["0", "1", "3"]
    assert recorded.values.tolist() == [0.5, 1.0, 1.0]
    assert [row.where for row in store.rejected()] == ["line 5", "line 7", "line 8"]


def test_an_id_with_other_choices_is_rejected(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "question": "?", "answer": "A", "choices": ["x", "y"]},
        {"id": "1", "question": "?", "answer": "A", "choices": list("xyz"), "condition": "blank"},
    ]
    store = import_one(write_jsonl(tmp_path / "x.jsonl", rows), tmp_path / "runs")
    (rejected,) = store.rejected()
    assert rejected.reason == "id '1' has other choices at line 1"


def test_logits_without_a_right_answer_have_no_reference(tmp_path: Path) -> None:
    path = logits_file(tmp_path / "all.npz", answer_index=np.array([-1, 9, 0]), group=None)
    records = list(RunStore.open(import_runs(path, tmp_path / "runs")[0]).records())
    assert [record.example.references for record in records] == [(), (), ("A",)]


def test_a_full_disk_while_sorting_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        import_spool,
        "_TABLES",
        "PRAGMA page_size = 512; PRAGMA max_page_count = 3;" + import_spool._TABLES,
    )
    path = write_jsonl(tmp_path / "x.jsonl", rows_of(50))
    with pytest.raises(DiskError, match=r"Sorting the rows [^\n]*full[^\n]*$"):
        import_runs(path, tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


def test_vlmevalkit_predictions(tmp_path: Path) -> None:
    store = import_one(VLMEVALKIT / "TinyVLM_MMBench_DEV_EN.tsv", tmp_path)
    assert store.manifest.model["name"] == "TinyVLM"
    assert store.manifest.dataset["name"] == "MMBench_DEV_EN"
    records = list(store.records())
    assert [record.example.id for record in records] == ["1", "1000001", "2", "4"]
    assert [record.example.group for record in records] == ["1", "1", "2", "4"]
    assert records[0].example.choices == ("cat", "dog", "bird")
    assert records[2].example.question == "It is a kitchen.\nWhat is on the table?"
    assert records[3].answer.is_empty
    graded, _ = grade_records(records, GRADERS["auto"])
    assert graded.values.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert [rejected.where for rejected in store.rejected()] == ["line 5"]
    assert store.columns() == []


def test_vlmevalkit_results(tmp_path: Path) -> None:
    store = import_one(VLMEVALKIT / "TinyVLM_TextVQA_VAL_result.json", tmp_path)
    records = list(store.records())
    assert records[0].example.references == ("stop", "STOP")
    assert [record.example.question_type for record in records] == ["ocr"] * 3
    recorded = store.column(ColumnKind.CORRECT, "recorded")
    graded, _ = grade_records(records, GRADERS["auto"])
    assert recorded.values.tolist() == graded.values.tolist() == [1.0, 1.0, 0.0]


def test_vlmevalkit_workbook_equals_its_table(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    assert book.active is not None
    for line in (VLMEVALKIT / "TinyVLM_MMBench_DEV_EN.tsv").read_text().splitlines():
        cells = [int(c) if c.isdecimal() else c or None for c in line.split("\t")]
        book.active.append(cells)
    path = tmp_path / "TinyVLM_MMBench_DEV_EN.xlsx"
    book.save(path)
    sheet = import_one(path, tmp_path / "sheet")
    table = import_one(VLMEVALKIT / "TinyVLM_MMBench_DEV_EN.tsv", tmp_path / "table")
    assert sheet.examples() == table.examples()
    assert [r.answer.text for r in sheet.records()] == [r.answer.text for r in table.records()]
    assert [r.reason for r in sheet.rejected()] == [r.reason for r in table.rejected()]


def test_a_missing_prediction_is_no_answer_and_an_empty_one_is(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for line in (
        ["index", "question", "prediction", "A"],
        [1, "q?", "yes"],
        [2, "q?"],
        [],
        [4, "q?", None, None, "over the edge"],
    ):
        book.active.append(line)
    book.save(tmp_path / "m.xlsx")
    store = import_one(tmp_path / "m.xlsx", tmp_path / "runs")
    answers = [(record.example.id, record.answer.text) for record in store.records()]
    assert answers == [("1", "yes"), ("2", ""), ("4", "")]
    path = write_jsonl(tmp_path / "n.jsonl", [{"index": 1, "question": "q?"}])
    with pytest.raises(DataError, match="the first is line 1: no prediction"):
        import_runs(path, tmp_path / "runs", format="vlmevalkit")


def test_a_workbook_without_its_reader_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "a.xlsx").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=r"sightline\[xlsx\]"):
        import_runs(tmp_path / "a.xlsx", tmp_path / "runs")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"<html>"])
@pytest.mark.parametrize("suffix", [".xlsx", ".npz", ".parquet", ".json"])
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(DataError) as caught:
        import_runs(tmp_path / f"a{suffix}", tmp_path / "runs")
    assert "\n" not in str(caught.value)


def logits_file(path: Path, **changed: Any) -> Path:
    arrays = {
        "models": np.array(["m/1", "m2"]),
        "ids": np.array(["7", "8", "9"]),
        "group": np.array(["g", "g", "h"]),
        "answer_index": np.array([0, 1, -1], dtype=np.int8),
        "logits": np.array(
            [[[2, 1, 0], [0, 1, 2], [1, 0, 0]], [[0, 0, 9], [0, 9, 0], [np.nan, 0, 0]]], np.float16
        ),
    } | changed
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_logits_of_several_models(tmp_path: Path) -> None:
    runs = import_runs(logits_file(tmp_path / "all.npz"), tmp_path / "runs")
    assert [run.name for run in runs] == ["all.m-1", "all.m2"]
    first, second = (RunStore.open(run) for run in runs)
    records = list(first.records())
    assert [record.answer.text for record in records] == ["A", "C", "A"]
    assert [record.example.references for record in records] == [("A",), ("B",), ()]
    assert [record.example.group for record in records] == ["g", "g", "h"]
    assert len({record.example.question for record in records}) == 3
    expected = np.array([2.0, 1.0, 0.0]) - math.log(1 + math.e + math.e**2)
    np.testing.assert_allclose(records[0].array(Feature.LETTER_LOGPROBS), expected, atol=1e-9)
    assert [record.answer.text for record in second.records()] == ["C", "B"]
    assert [rejected.where for rejected in second.rejected()] == ["m2 item 9"]


@pytest.mark.parametrize(
    "changed",
    [
        {"logits": None},
        {"models": None},
        {"ids": np.array(["7"])},
        {"logits": np.zeros((2, 3))},
        {"logits": np.full((2, 3, 2), "x")},
        {"answer_index": np.array([0.5, 1, 1])},
        {"group": np.array(["g"])},
        {"models": np.array([{}, {}], dtype=object)},
    ],
)
def test_wrong_arrays_are_one_clear_line(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="required"):
        import_runs(logits_file(tmp_path / "all.npz", **changed), tmp_path / "runs")


def test_what_no_reader_fits_says_what_was_found(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", [{"name": "a", "value\x1b": 1}])
    with pytest.raises(DataError, match=r"holds name, value\\x1b;"):
        import_runs(path, tmp_path / "runs")
    path = write_jsonl(tmp_path / "y.jsonl", ["{broken"])
    with pytest.raises(DataError, match="line 1"):
        import_runs(path, tmp_path / "runs")
    (tmp_path / "x.pkl").write_bytes(b"")
    with pytest.raises(DataError, match="suffix"):
        import_runs(tmp_path / "x.pkl", tmp_path / "runs")
    with pytest.raises(DataError, match="not a file"):
        import_runs(tmp_path, tmp_path / "runs")
    with pytest.raises(UsageError, match="lmms-eval"):
        import_runs(path, tmp_path / "runs", format="lm-eval")


def test_a_file_without_one_usable_row_is_an_error(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", [{"id": "1", "answer": "x"}, {"id": "2", "answer": 3}])
    with pytest.raises(DataError, match="2 rejected; the first is line 1: no question"):
        import_runs(path, tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


def test_the_formats_are_listed() -> None:
    assert list(FORMATS) == ["auto", "rows", "lmms-eval", "vlmevalkit", "logits"]
    assert all(description for description in FORMATS.values())


def test_shards_of_long_rows_hold_fewer_examples(tmp_path: Path) -> None:
    rows = [row | {"samples": ["x" * 1_000_000] * 4} for row in rows_of(12)]
    store = import_one(write_jsonl(tmp_path / "x.jsonl", rows), tmp_path / "runs")
    assert store.manifest.shard_size == 7  # 32 MB of rows of 4 MB
    assert len(list(store.records())) == 12
    small = import_one(write_jsonl(tmp_path / "y.jsonl", rows_of(3)), tmp_path / "runs")
    assert small.manifest.shard_size == 256


def test_a_finished_run_is_replaced_only_on_request(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", rows_of(3, model="m"))
    store = import_one(path, tmp_path / "runs")
    with pytest.raises(StoreError, match="already holds a run"):
        import_runs(path, tmp_path / "runs")
    write_jsonl(path, rows_of(2, model="m"))
    with pytest.raises(StoreError, match="--overwrite"):
        import_runs(path, tmp_path / "runs")
    assert len(list(store.records())) == 3
    assert len(list(import_one(path, tmp_path / "runs", overwrite=True).records())) == 2


def files_of(run: Path) -> dict[str, bytes]:
    skipped = ("manifest.json", "lock", "log.jsonl")
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in skipped
    }


def test_an_interrupted_import_continues_to_the_same_bytes(tmp_path: Path) -> None:
    rows = [row | {"model": model, "correct": 1} for model in "ab" for row in rows_of(10)]
    path = write_jsonl(tmp_path / "x.jsonl", rows)
    whole = import_runs(path, tmp_path / "whole", shard_size=2)
    parts = import_runs(path, tmp_path / "part", shard_size=2)
    for shard in (1, 3, 4):  # as a kill during the second model leaves it
        (parts[1] / "shards" / f"{shard:06d}.parquet").unlink()
    assert import_runs(path, tmp_path / "part", shard_size=2) == parts
    for one, two in zip(whole, parts, strict=True):
        assert files_of(one) == files_of(two)
        assert RunStore.open(two).verify() == []
    with pytest.raises(StoreError, match="already holds a run"):
        import_runs(path, tmp_path / "part", shard_size=2)


IMPORT = """
import sys
from pathlib import Path
from sightline.store.importers import import_runs
import_runs(Path(sys.argv[1]), Path(sys.argv[2]), shard_size=SIZE)
"""


def test_a_killed_import_leaves_nothing_but_runs(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", rows_of(1500, model="m"))
    whole = import_runs(path, tmp_path / "whole", shard_size=20)
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", IMPORT.replace("SIZE", "20"), path, out])
    shards = out / "x.m" / "shards"
    while process.poll() is None and not (shards.is_dir() and len(list(shards.iterdir())) > 5):
        pass
    process.kill()
    process.wait()
    assert [entry.name for entry in out.iterdir()] == ["x.m"]
    stored = RunStore.open(out / "x.m")
    assert 0 < len(stored.committed()) <= 75
    if len(stored.committed()) < 75:
        import_runs(path, out, shard_size=20)
    stored.gc()
    assert files_of(out / "x.m") == files_of(whole[0])


@pytest.mark.slow
def test_a_gigabyte_is_imported_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    with path.open("w") as file:
        for i in range(10_000):
            row = {"id": f"item {i}", "question": "Which?", "choices": ["cat", "dog"]}
            row |= {"answer": "A", "correct": i % 2, "samples": ["a cat " * 100] * 170}
            file.write(json.dumps(row) + "\n")
    assert path.stat().st_size > 1e9
    code = (
        IMPORT.replace("SIZE", "None")
        + "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, path, tmp_path / "runs"],
        check=True,
        capture_output=True,
    )
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(run.stdout) * unit < 1.5e9
    store = RunStore.open(tmp_path / "runs" / "big")
    assert sum(1 for _ in store.records(condition="clean")) == 10_000
