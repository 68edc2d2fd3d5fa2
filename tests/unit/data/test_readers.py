"""Reading rows: each format, and one row lost where one row is bad."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sightline.core.errors import DataError
from sightline.data import readers
from sightline.data.json_files import parse_json
from sightline.data.readers import Row, metadata_file, read_folder, read_rows


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(path: Path) -> list[Row]:
    return list(read_rows(path))


def test_jsonl_keeps_types_and_line_numbers(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"a": 1, "b": [true, null]}\n\n{"a": "é"}')
    assert rows(path) == [
        Row("line 1", {"a": 1, "b": [True, None]}),
        Row("line 3", {"a": "é"}),
    ]


def test_bom_crlf_and_a_missing_last_newline_do_not_matter(tmp_path):
    path = write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n{"a": 3}')
    assert [row.fields["a"] for row in rows(path)] == [1, 2, 3]
    path = write(tmp_path / "a.csv", b"\xef\xbb\xbfa,b\r\n1,2\r\n3,\r\n")
    assert [dict(row.fields) for row in rows(path)] == [{"a": "1", "b": "2"}, {"a": "3", "b": None}]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"[1, 2]", "list instead of an object"),
        (b"null", "NoneType instead of an object"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 15 of the file"),
        (b'{"a": 1, "a": 2}', "'a' twice"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "thousands of digits, which is not read"),
    ],
)
def test_a_bad_line_costs_that_line(tmp_path, line, reason):
    path = write(tmp_path / "a.jsonl", b'{"a":1}\n' + line + b'\n{"a":3}\n')
    first, bad, last = rows(path)
    assert (first.fields, last.fields) == ({"a": 1}, {"a": 3})
    assert (bad.where, bad.fields) == ("line 2", {})
    assert reason in bad.error
    assert len(bad.error) < 200


def test_an_overlong_line_is_skipped_without_being_held(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", 1_000)
    long = json.dumps({"a": "x" * 5_000_000})
    path = write(tmp_path / "a.jsonl", '{"a":1}\n' + long + '\n{"a":3}\n')
    assert [row.error for row in rows(path)] == [None, "longer than 1000 bytes", None]
    assert rows(path)[2] == Row("line 3", {"a": 3})


def test_a_line_of_exactly_the_limit_is_read(tmp_path, monkeypatch):
    line = b'{"a": "xyz"}\n'
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", len(line))
    path = write(tmp_path / "a.jsonl", line * 2)
    assert [row.fields for row in rows(path)] == [{"a": "xyz"}] * 2


def test_astral_characters_and_escaped_pairs_round_trip(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"a": "😀", "b": "\\ud83d\\ude00"}\n')
    assert rows(path)[0].fields == {"a": "😀", "b": "😀"}


def test_parse_json_keeps_nan_for_its_caller_to_judge():
    assert str(parse_json("[NaN]")) == "[nan]"


def test_json_list_and_wrapped_lists(tmp_path):
    assert rows(write(tmp_path / "a.json", '[{"a": 1}, 5]'))[0] == Row("row 1", {"a": 1})
    assert "int instead" in rows(write(tmp_path / "a.json", '[{"a": 1}, 5]'))[1].error
    for key in ("questions", "data", "rows", "examples"):
        path = write(tmp_path / "b.json", json.dumps({"info": {}, key: [{"a": 1}]}))
        assert [row.fields for row in rows(path)] == [{"a": 1}]


def test_vqa_annotations_are_joined_by_question_id(tmp_path):
    content = {
        "questions": [{"question_id": 7, "question": "q"}, {"question_id": 8, "question": "r"}],
        "annotations": [{"question_id": 7, "answers": [{"answer": "yes"}]}, "junk"],
    }
    first, second = rows(write(tmp_path / "v.json", json.dumps(content)))
    assert first.fields == {"question_id": 7, "question": "q", "answers": [{"answer": "yes"}]}
    assert second.fields == {"question_id": 8, "question": "r"}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "not JSON"),
        ("{}", "object with keys"),
        ('{"a": 1}', "object with keys"),
        ("3", "one JSON int"),
        ('"x"', "one JSON str"),
        (b"\xff", "not UTF-8"),
        ('[{"a": 1}]'.encode("utf-16"), "not UTF-8"),
    ],
)
def test_json_of_another_form_is_refused(tmp_path, content, found):
    with pytest.raises(DataError, match=found):
        rows(write(tmp_path / "a.json", content))


def test_csv_cells_hold_newlines_quotes_and_delimiters(tmp_path):
    path = write(tmp_path / "a.csv", 'id,question\n1,"two\nlines, and ""quotes"""\n2,plain\n')
    assert [dict(row.fields) for row in rows(path)] == [
        {"id": "1", "question": 'two\nlines, and "quotes"'},
        {"id": "2", "question": "plain"},
    ]
    assert [row.where for row in rows(path)] == ["line 2", "line 4"]


def test_tsv_is_split_at_tabs_and_unnamed_columns_are_left_out(tmp_path):
    path = write(tmp_path / "a.tsv", "\tindex\tquestion\n0\t5\ta, b\n")
    assert [dict(row.fields) for row in rows(path)] == [{"index": "5", "question": "a, b"}]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1,2,3", "3 cells under 2 column names"),
        (b"1", "1 cells under 2"),
        (b'"1"x,2', "not CSV"),
        (b"\xff\xfe,2", "not UTF-8 at byte 8"),
    ],
)
def test_a_bad_csv_line_costs_that_line(tmp_path, line, reason):
    path = write(tmp_path / "a.csv", b"a,b\n1,2\n" + line + b"\n5,6\n")
    first, bad, last = rows(path)
    assert first.fields["a"] == "1"
    assert last == Row("line 4", {"a": "5", "b": "6"})
    assert bad.where == "line 3"
    assert reason in bad.error


def test_a_quote_never_closed_is_one_bad_row(tmp_path):
    path = write(tmp_path / "a.csv", 'a,b\n1,2\n"3,4\n5,6\n')
    assert [row.error is None for row in rows(path)] == [True, False]


def test_blank_csv_lines_are_no_rows(tmp_path):
    path = write(tmp_path / "a.csv", "a,b\n\n1,2\n\n\n3,4\n")
    assert [(row.where, row.fields["a"]) for row in rows(path)] == [
        ("line 3", "1"),
        ("line 6", "3"),
    ]


def test_an_overlong_csv_line_costs_its_row(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", 1_000)
    path = write(tmp_path / "a.csv", "a,b\n1,2\n3," + "x" * 5_000 + "\n5,6\n")
    first, bad, last = rows(path)
    assert (first.fields["a"], last.fields["a"]) == ("1", "5")
    assert "longer than 1000 bytes" in bad.error


@pytest.mark.parametrize(
    ("header", "found"), [(b'"a"x,b\n', "unreadable header"), (b"a,\xff\n", "not UTF-8 at byte 2")]
)
def test_an_unreadable_header_is_refused(tmp_path, header, found):
    with pytest.raises(DataError, match=found):
        rows(write(tmp_path / "a.csv", header + b"1,2\n"))


def test_a_megabyte_csv_cell_is_read(tmp_path):
    path = write(tmp_path / "a.csv", "a,b\n1," + "x" * 1_000_000 + "\n")
    assert len(rows(path)[0].fields["b"]) == 1_000_000


def test_two_columns_of_one_name_are_refused(tmp_path):
    with pytest.raises(DataError, match="two columns named 'a'"):
        rows(write(tmp_path / "a.csv", "a,b,a\n1,2,3\n"))
    pq.write_table(pa.table([[1], [2]], names=["a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="two columns named 'a'"):
        rows(tmp_path / "a.parquet")


def test_utf_16_is_refused_by_name(tmp_path):
    for name in ("a.csv", "a.jsonl"):
        with pytest.raises(DataError, match="UTF-16"):
            rows(write(tmp_path / name, '{"a": 1}\n'.encode("utf-16")))


def test_parquet_rows_come_with_their_types(tmp_path):
    table = pa.table(
        {"id": [1, 2], "image": [{"bytes": b"x", "path": None}, None], "c": [["a"], []]}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet") == [
        Row("row 1", {"id": 1, "image": {"bytes": b"x", "path": None}, "c": ["a"]}),
        Row("row 2", {"id": 2, "image": None, "c": []}),
    ]


def test_a_parquet_value_python_cannot_hold_costs_its_row(tmp_path):
    # Text columns are not checked by Parquet writers; year 292,277 has no Python datetime.
    bad = pa.array([b"ok", b"\xff", b"ok"]).view(pa.string())
    pq.write_table(pa.table({"a": bad}), tmp_path / "a.parquet")
    assert [row.error is None for row in rows(tmp_path / "a.parquet")] == [True, False, True]
    far = pa.array([0, 2**62], pa.timestamp("ms"))
    pq.write_table(pa.table({"a": far}), tmp_path / "b.parquet")
    assert [row.error is None for row in rows(tmp_path / "b.parquet")] == [True, False]


def test_a_damaged_parquet_file_is_refused(tmp_path):
    pq.write_table(pa.table({"a": list(range(1_000))}), tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    for damaged in (b"", data[:100], data[:-8], data[:20] + b"\xff" * 200 + data[220:]):
        with pytest.raises(DataError, match="not a readable Parquet file"):
            rows(write(tmp_path / "b.parquet", damaged))


def test_what_is_no_data_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        rows(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match=r"unknown suffix '.xlsx'"):
        rows(write(tmp_path / "a.xlsx", "x"))
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(DataError, match="not a regular file"):
        rows(tmp_path / "folder.jsonl")
    with pytest.raises(DataError, match=r"cannot be read|does not exist"):
        rows(tmp_path / ("x" * 5_000 + ".jsonl"))


def test_a_folder_is_read_by_its_metadata_file(tmp_path):
    with pytest.raises(DataError, match=r"has no metadata\.csv"):
        read_folder(tmp_path)
    write(tmp_path / "metadata.jsonl", '{"file_name": "b.png"}')
    assert metadata_file(tmp_path) == tmp_path / "metadata.jsonl"
    assert [row.fields for row in read_folder(tmp_path)] == [{"file_name": "b.png"}]
    write(tmp_path / "metadata.csv", "file_name\na.png\n")
    assert [row.fields for row in read_folder(tmp_path)] == [{"file_name": "a.png"}]


def test_a_folder_of_parquet_parts_is_read_in_order(tmp_path):
    for i in (1, 0):
        pq.write_table(pa.table({"a": [i]}), tmp_path / f"test-{i:05d}-of-00002.parquet")
    found = list(read_folder(tmp_path))
    assert [row.fields["a"] for row in found] == [0, 1]
    assert found[0].where == "test-00000-of-00002.parquet row 1"
