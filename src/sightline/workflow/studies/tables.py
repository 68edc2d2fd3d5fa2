"""Tables of a study: typed cells, written as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sightline
from sightline.core.estimates import Estimate
from sightline.store.disk import PendingFile, make_directory, write_file

Cell = Estimate | str | int | None


@dataclass(frozen=True, slots=True)
class StudyTable:
    """One table of a study.

    Attributes:
        key: Short name, unique within the study.
        title: What it shows.
        note: How it was measured, in full sentences.
        columns: Headings, the first over the rows' names.
        rows: A name and one cell per further column; None where nothing applies.
    """

    key: str
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> StudyTable:
        """Rebuilds what `to_dict` wrote."""
        rows = (
            tuple(Estimate(**cell) if isinstance(cell, dict) else cell for cell in row)
            for row in document["rows"]
        )
        return cls(
            key=document["key"],
            title=document["title"],
            note=document["note"],
            columns=tuple(document["columns"]),
            rows=tuple(rows),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form; estimates are objects with value, low, high, n and reason."""
        return {
            "key": self.key,
            "title": self.title,
            "note": self.note,
            "columns": list(self.columns),
            "rows": [
                [asdict(cell) if isinstance(cell, Estimate) else cell for cell in row]
                for row in self.rows
            ],
        }


def kept_tables(
    folder: Path,
    key: str,
    settings: Mapping[str, Any],
    measure: Callable[[], Sequence[StudyTable]],
) -> list[StudyTable]:
    """Returns tables that an earlier try measured with the same settings, or measures them now.

    Args:
        folder: Where tables are kept.
        key: Names the file; unique within the study.
        settings: JSON-serialisable; whatever decides the figures beside Sightline's version.
        measure: Computes the tables.
    """
    path = folder / f"{key}.json"
    wanted = json.loads(json.dumps({"sightline_version": sightline.__version__, **settings}))
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["settings"] == wanted:
            return [StudyTable.from_dict(table) for table in found["tables"]]
    tables = list(measure())
    kept = {"settings": wanted, "tables": [table.to_dict() for table in tables]}
    document = json.dumps(kept, allow_nan=False)

    def fill(file: PendingFile) -> None:
        file.write(document.encode())

    make_directory(folder)
    write_file(path, fill)
    return tables


def write_study(folder: Path, name: str, title: str, tables: Sequence[StudyTable]) -> Path:
    """Writes the tables as JSON and as a Markdown page.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "format_version": 1,
        "study": name,
        "sightline_version": sightline.__version__,
        "tables": [table.to_dict() for table in tables],
    }
    text = json.dumps(document, allow_nan=False) + "\n"
    (folder / f"{name}.json").write_text(text, encoding="utf-8")
    page = folder / f"{name}.md"
    page.write_text(markdown(title, tables), encoding="utf-8")
    return page


def markdown(title: str, tables: Sequence[StudyTable]) -> str:
    """The tables as one Markdown page."""
    parts = [f"# {title}"]
    for table in tables:
        lines = [
            "| " + " | ".join(table.columns) + " |",
            "|" + "---|" * len(table.columns),
            *("| " + " | ".join(_text(cell) for cell in row) + " |" for row in table.rows),
        ]
        parts += [f"## {table.title}", table.note, "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _text(cell: Cell) -> str:
    if cell is None:
        return "not applicable"
    if isinstance(cell, Estimate):
        if cell.value is None:
            return f"— ({cell.reason})"
        if cell.low is None or cell.high is None:
            return f"{cell.value:.3f}"
        return f"{cell.value:.3f} ({cell.low:.3f} to {cell.high:.3f})"
    return str(cell).replace("|", "\\|")
