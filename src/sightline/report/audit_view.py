"""What the audit's page shows, as text and drawings; the template decides nothing."""

from __future__ import annotations

from dataclasses import dataclass

from sightline.report.audit_pictures import MapRow, Tile
from sightline.report.view import FigureGroup


@dataclass(frozen=True, slots=True)
class Shaded:
    """One cell; ``shade`` is its share of the table's largest value in per cent, or None."""

    text: str
    detail: str | None = None
    shade: int | None = None


@dataclass(frozen=True, slots=True)
class GridRow:
    """One row of a table."""

    name: str
    cells: tuple[Shaded, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of figures; ``folded`` away where it is long."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[GridRow, ...]
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """Drawings and tables under one heading; ``lines`` say what they are, or why there are none."""

    lines: tuple[str, ...]
    figures: FigureGroup
    tables: tuple[Grid, ...]


@dataclass(frozen=True, slots=True)
class ExampleView:
    """A question with pictures and what was answered to each."""

    id: str
    question: str
    answer: str
    references: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class VerdictView:
    """One verdict in words."""

    outcome: str
    finding: str
    figure: str
    rule: str


@dataclass(frozen=True, slots=True)
class FactView:
    """One setting of the audit."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class AuditView:
    """One audited run as text and drawings."""

    key: str
    title: str
    subtitle: str
    partial: str | None
    notes: tuple[str, ...]
    warning: str | None
    summary: tuple[str, ...]
    verdicts: tuple[VerdictView, ...]
    sheet: tuple[ExampleView, ...]
    tables: tuple[Grid, ...]
    heat: tuple[Grid, ...]
    densities: FigureGroup
    no_drift: str
    profile: FigureGroup
    profiles: tuple[Grid, ...]
    no_energy: str | None
    energy: FigureGroup
    maps: tuple[MapRow, ...]
    probes: Section
    budgets: Section | None
    unstable: tuple[ExampleView, ...]
    hidden: tuple[ExampleView, ...]
    facts: tuple[FactView, ...]


@dataclass(frozen=True, slots=True)
class AuditPage:
    """The whole page."""

    title: str
    version: str
    runs: tuple[AuditView, ...]
    comparison: Section | None
