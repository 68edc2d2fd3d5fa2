"""What the audit's page shows, as text and drawings; the template decides nothing."""

from __future__ import annotations

from dataclasses import dataclass

from sightline.report.audit_pictures import Tile


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
    """A table of figures."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[GridRow, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a drawing, in its units."""

    kind: str
    x: float
    y: float
    w: float
    h: float


@dataclass(frozen=True, slots=True)
class DensityView:
    """Drifts of answers that stay and that flip, over those of the control."""

    title: str
    label: str
    caption: str
    top: str
    width: int
    bars: tuple[Bar, ...]


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
    summary: tuple[str, ...]
    verdicts: tuple[VerdictView, ...]
    sheet: tuple[ExampleView, ...]
    tables: tuple[Grid, ...]
    densities: tuple[DensityView, ...]
    profiles: tuple[Grid, ...]
    no_energy: str | None
    maps: tuple[tuple[Tile, ...], ...]
    unstable: tuple[ExampleView, ...]
    hidden: tuple[ExampleView, ...]
    facts: tuple[FactView, ...]


@dataclass(frozen=True, slots=True)
class AuditPage:
    """The whole page."""

    title: str
    version: str
    runs: tuple[AuditView, ...]
    comparison: tuple[Grid, ...] | None
