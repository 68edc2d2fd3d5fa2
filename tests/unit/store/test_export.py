"""Exports are inert, exact where they promise it, and labels come back to the right rows."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_plans import N, make_manifest, write_run

from sightline.core.column import Column, ColumnKind
from sightline.core.errors import DataError
from sightline.core.features import Feature
from sightline.core.types import Example, Generation, Key, Record
from sightline.store.export import (
    CSV_FIELDS,
    exported_rows,
    read_labels,
    safe_cell,
    write_csv,
    write_jsonl,
    write_label_sheet,
)
from sightline.store.run import RunStore

HOSTILE = [
    '=HYPERLINK("http://x","y")',
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "|calc",
    "%0a",
    "\t=1",
    "\n=2",
    "  =1",
    "\uff1d1",
    "\x1b[2J\x1b]52;c;x\x07",
    "\u202egnp.exe",
    "</td><script>alert(1)</script>",
    'quote " and , comma; semicolon',
    "two\r\nlines\x00\x85\u2028",
    "",
    "   ",
    "🍎 é",
    "'=quoted",
    "x" * 200_000,
]


@pytest.fixture
def hostile(tmp_path: Path) -> RunStore:
    """A run whose every text is hostile; even ids, conditions and options."""
    examples = [
        Example(id=text or "empty", question=text, choices=(text, "b"), references=(text,))
        for text in HOSTILE[:-1]
    ]
    examples.append(Example(id="long", question="q"))
    manifest = make_manifest(shard_size=100, conditions=())
    store = RunStore.create(tmp_path / "hostile", manifest, examples)
    answers = [Generation(text, tokens=(text,), logprobs=np.array([-0.5])) for text in HOSTILE]
    records = [
        Record(e, greedy=a, samples=(a,), features={Feature.RECORDED_CONFIDENCE: np.array(0.5)})
        for e, a in zip(examples, answers, strict=True)
    ]
    with store.writer() as writer:
        writer.commit(0, records)
    return store


def is_inert(cell: str) -> bool:
    return cell[:1] not in tuple("=+-@|%\t\r\n") and all(
        ch.isprintable() or ch in {" ", "\u200d"} for ch in cell
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_no_cell_can_act(text: str) -> None:
    assert is_inert(safe_cell(text))


def test_harmless_text_is_left_alone() -> None:
    for text in ("3 dogs", "a = b", "1-2", "é 🍎", "", "A+B"):
        assert safe_cell(text) == text


def test_csv_of_hostile_text_is_inert_and_parses(hostile: RunStore) -> None:
    key = Key("+1+1", "clean")
    hostile.write_column(Column("u", ColumnKind.UNCERTAINTY, (key,), np.array([-1.5])))
    out = io.StringIO(newline="")
    assert write_csv(hostile, out) == len(HOSTILE)
    csv.field_size_limit(1 << 24)
    rows = list(csv.reader(io.StringIO(out.getvalue(), newline="")))
    assert rows[0] == [*CSV_FIELDS, "uncertainty.u"]
    assert len(rows) == len(HOSTILE) + 1
    text_columns = [i for i, name in enumerate(rows[0]) if name not in ("logprob", "uncertainty.u")]
    for row in rows[1:]:
        assert all(is_inert(row[i]) for i in text_columns)
        assert row[rows[0].index("logprob")] == "-0.5"
    assert [row[-1] for row in rows[1:]] == ["", "-1.5"] + [""] * (len(HOSTILE) - 2)


def test_jsonl_is_exact_and_ascii(hostile: RunStore) -> None:
    out = io.StringIO()
    assert write_jsonl(hostile, out) == len(HOSTILE)
    assert out.getvalue().isascii()
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [row["answer"]["text"] for row in rows] == HOSTILE
    assert [row["samples"][0]["tokens"] for row in rows] == [[text] for text in HOSTILE]


def test_jsonl_holds_every_row_quarantined_included(tmp_path: Path) -> None:
    store = write_run(tmp_path / "r")
    out = io.StringIO()
    assert write_jsonl(store, out) == 2 * (N - 1) + 1
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert rows[-1]["status"] == "error"
    assert (rows[-1]["id"], rows[-1]["reason"]) == ("e4", "the image is no image")
    for row, record in zip(rows[:-1], store.records(), strict=True):
        assert row["answer"]["logprobs"] == record.answer.logprobs.tolist()
        assert row["answer"]["token_ids"] == record.answer.token_ids.tolist()
    assert {row["condition"] for row in exported_rows(store, condition="blank")} == {"blank"}


def test_csv_shows_columns_and_missing_values(tmp_path: Path) -> None:
    store = write_run(tmp_path / "r")
    column = Column("exact", ColumnKind.CORRECT, (Key("e1", "clean"),), np.array([0.1 + 0.2]))
    store.write_column(column)
    out = io.StringIO(newline="")
    write_csv(store, out, condition="clean")
    rows = list(csv.DictReader(io.StringIO(out.getvalue(), newline="")))
    assert [row["correct.exact"] for row in rows[:3]] == ["", "0.30000000000000004", ""]
    assert (rows[-1]["status"], rows[-1]["answer"]) == ("error", "")


class TestLabels:
    def sheet(self, store: RunStore) -> list[dict[str, str]]:
        out = io.StringIO(newline="")
        write_label_sheet(store, out)
        return list(csv.DictReader(io.StringIO(out.getvalue(), newline="")))

    def fill(self, path: Path, rows: list[dict[str, str]], **options: str) -> Path:
        encoding = options.pop("encoding", "utf-8")
        with path.open("w", newline="", encoding=encoding) as file:
            writer = csv.DictWriter(file, list(rows[0]), **options)  # type: ignore[arg-type]
            writer.writeheader()
            writer.writerows(rows)
        return path

    def test_the_sheet_holds_what_a_person_needs(self, tmp_path: Path) -> None:
        rows = self.sheet(write_run(tmp_path / "r"))
        assert list(rows[0]) == [
            "id", "condition", "question", "images", "choices", "answer", "references", "correct",
        ]  # fmt: skip
        assert [row["id"] for row in rows] == [f"e{i}" for i in range(N) if i != 4]
        assert all(row["correct"] == "" for row in rows)
        assert rows[1]["choices"] == '["cat", "dog", ""]'
        assert rows[2]["images"] == '["2.png", "2.png"]'

    def test_every_hostile_row_comes_back(self, hostile: RunStore, tmp_path: Path) -> None:
        rows = self.sheet(hostile)
        for i, row in enumerate(rows):
            row["correct"] = str(i % 2)
        column = read_labels(self.fill(tmp_path / "s.csv", rows), hostile)
        assert column.keys == tuple(record.key for record in hostile.records())
        assert column.values.tolist() == [float(i % 2) for i in range(len(HOSTILE))]
        assert column.kind is ColumnKind.CORRECT
        hostile.write_column(column)
        stored = hostile.column(ColumnKind.CORRECT, "labels")
        assert dict(stored.spec) == {"grader": "labels", "source": "s.csv"}

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("0", 0), ("1", 1), ("true", 1), ("FALSE", 0), (" True ", 1), ("0.5", 0.5),
            (".25", 0.25), ("1.0", 1), ("2/3", 2 / 3), ("0/7", 0), ("1.", 1),
        ],
    )  # fmt: skip
    def test_accepted_values(self, tmp_path: Path, text: str, value: float) -> None:
        store = write_run(tmp_path / "r", 3)
        rows = self.sheet(store)
        rows[1]["correct"] = text
        column = read_labels(self.fill(tmp_path / "s.csv", rows), store)
        assert column.keys == (Key("e1", "clean"),)
        assert column.values.tolist() == [value]

    @pytest.mark.parametrize(
        "text",
        ["2", "-1", "1.1", "yes", "nan", "inf", "1e-3", "3/2", "1/0", "0x1", "½", "1" * 400, "1,0"],
    )
    def test_other_values_are_named_with_their_line(self, tmp_path: Path, text: str) -> None:
        store = write_run(tmp_path / "r", 3)
        rows = self.sheet(store)
        rows[1]["correct"] = text
        with pytest.raises(DataError, match=r"s\.csv line 3: correct is"):
            read_labels(self.fill(tmp_path / "s.csv", rows), store)

    def test_unknown_double_and_no_labels(self, tmp_path: Path) -> None:
        store = write_run(tmp_path / "r", 3)
        rows = self.sheet(store)
        with pytest.raises(DataError, match="no filled-in cell"):
            read_labels(self.fill(tmp_path / "s.csv", rows), store)
        rows[0]["correct"] = "1"
        double = self.fill(tmp_path / "s.csv", [*rows, rows[0]])
        with pytest.raises(DataError, match="line 5: id 'e0' is labelled a second time"):
            read_labels(double, store)
        unknown = self.fill(tmp_path / "s.csv", [*rows, {**rows[0], "id": "e99"}])
        with pytest.raises(DataError, match=r"line 5: id 'e99' .* no answer of"):
            read_labels(unknown, store)

    def test_ids_that_look_alike_in_a_sheet_are_refused(self, tmp_path: Path) -> None:
        examples = [Example(id="a b", question="q"), Example(id="a\nb", question="q")]
        store = RunStore.create(tmp_path / "r", make_manifest(), examples)
        with store.writer() as writer:
            writer.commit(0, [Record(e, greedy=Generation("x")) for e in examples])
        rows = self.sheet(store)
        rows[0]["correct"] = "1"
        with pytest.raises(DataError, match="stands for 2 answers"):
            read_labels(self.fill(tmp_path / "s.csv", rows), store)

    def test_what_spreadsheets_make_of_it(self, tmp_path: Path) -> None:
        store = write_run(tmp_path / "r", 3)
        rows = self.sheet(store)
        for row in rows:
            row["correct"] = "1"
        thin = [{"correct": row["correct"], "ID ": row["id"]} for row in reversed(rows)]
        excel = self.fill(tmp_path / "s.csv", thin, delimiter=";", encoding="utf-8-sig")
        excel.write_bytes(excel.read_bytes() + b";\r\n\r\n")
        assert len(read_labels(excel, store)) == 3
        tabs = self.fill(tmp_path / "t.csv", rows, delimiter="\t", lineterminator="\n")
        assert len(read_labels(tabs, store)) == 3

    @pytest.mark.parametrize(
        ("content", "found"),
        [
            (b"", "no single column 'id'"),
            (b"id,condition\n", "no single column 'correct'"),
            (b"id,id,correct\n", "no single column 'id'"),
            (b"id,correct\ne0,1,extra\n", "line 2: 3 cells under 2"),
            (b'id,correct\n"e0,1\n', "line 2"),
            (b"id,correct\n\xe9,1\n", "not UTF-8 at 11"),
            (b"\xff\xfei\x00d\x00", "not UTF-8"),
        ],
    )
    def test_what_is_no_sheet(self, tmp_path: Path, content: bytes, found: str) -> None:
        store = write_run(tmp_path / "r", 3)
        (tmp_path / "s.csv").write_bytes(content)
        with pytest.raises(DataError, match=found):
            read_labels(tmp_path / "s.csv", store)

    def test_an_absent_sheet(self, tmp_path: Path) -> None:
        store = write_run(tmp_path / "r", 3)
        with pytest.raises(DataError, match="cannot be read"):
            read_labels(tmp_path / "absent.csv", store)

    def test_the_csv_limit_of_the_process_is_left_as_it_was(self, tmp_path: Path) -> None:
        store = write_run(tmp_path / "r", 3)
        rows = self.sheet(store)
        rows[0]["correct"] = "1"
        before = csv.field_size_limit(12_345)
        try:
            read_labels(self.fill(tmp_path / "s.csv", rows), store)
            assert csv.field_size_limit() == 12_345
        finally:
            csv.field_size_limit(before)


def test_samples_without_an_answer_are_not_for_labelling(tmp_path: Path) -> None:
    example = Example(id="a", question="q")
    greedy = Record(example, greedy=Generation("yes"))
    drawn = Record(replace(example, id="b"), samples=(Generation("yes"), Generation("no")))
    store = RunStore.create(
        tmp_path / "r", make_manifest(), [record.example for record in (greedy, drawn)]
    )
    with store.writer() as writer:
        writer.commit(0, [greedy, drawn])
    sheet = tmp_path / "labels.csv"
    with sheet.open("w", encoding="utf-8", newline="") as out:
        assert write_label_sheet(store, out) == 1
    sheet.write_text("id,correct\nb,1\n")
    with pytest.raises(DataError, match="id 'b' with condition 'clean' is no answer"):
        read_labels(sheet, store)
