"""What was hoped for before the study was run, and whether its tables show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sightline.core.estimates import Estimate
from sightline.workflow.studies.few_labels import ON_LABELS, ON_TEST, label_columns
from sightline.workflow.studies.tables import Cell, StudyTable

WITHIN, PRR = "Δ within type", "Δ PRR"
FEW_LABELS = 500


def targets_table(tables: Sequence[StudyTable]) -> StudyTable:
    """Holds the tables of the study of estimators against its targets.

    Args:
        tables: All tables of the study.
    """
    by_key = {table.key: table for table in tables}
    rows: list[tuple[Cell, ...]] = []
    for key, table in by_key.items():
        kind, _, run = key.partition("-")
        if kind == "harmony":
            rows += _harmony(run, table)
        elif kind == "labels":
            rows += _few_labels(run, table)
        elif kind == "signals":
            rows += _fusion(run, table)
    return StudyTable(
        key="targets",
        title="Targets",
        note=(
            "Set before the study was run. A difference is reached where it is at least as large "
            "as asked and its 95 % interval leaves out zero; 'not below' asks that the interval is "
            "not wholly below zero. Single-signal rivals were chosen by their figures on the test "
            "rows, which favours them."
        ),
        columns=("Target", "Figure", "Verdict"),
        rows=tuple(rows),
    )


def gained(figure: Estimate, least: float) -> str:
    """Whether a difference is at least as large as asked, in words."""
    if figure.value is None or figure.low is None or figure.high is None:
        return "not defined"
    if figure.low > 0:
        return "reached" if figure.value >= least else "above zero, short of the target"
    return "not reached: below zero" if figure.high < 0 else "not reached: no difference shown"


def not_below(figure: Estimate) -> str:
    """Whether a difference is not shown to be below zero, in words."""
    if figure.value is None or figure.high is None:
        return "not defined"
    return "not reached: below zero" if figure.high < 0 else "reached"


def _harmony(run: str, table: StudyTable) -> list[tuple[Cell, ...]]:
    row = _cells(table, "default")
    within, prr = _estimate(row[WITHIN]), _estimate(row[PRR])
    title = f"{run}: HARMONY less the best single signal"
    if "prior" not in run:
        return [
            (f"{title}, AUROC within type: not below", within, not_below(within)),
            (f"{title}, PRR: not below", prr, not_below(prr)),
        ]
    return [
        (f"{title}, AUROC within type: at least .03", within, gained(within, 0.03)),
        (f"{title}, PRR: at least .05", prr, gained(prr, 0.05)),
    ]


def _few_labels(run: str, table: StudyTable) -> list[tuple[Cell, ...]]:
    found: list[tuple[Cell, ...]] = []
    by_count: dict[str, dict[str, Mapping[str, Cell]]] = {}
    for row in table.rows:
        count, _, name = str(row[0]).partition(": ")
        by_count.setdefault(count, {})[name] = _cells(table, str(row[0]))
    for count, rivals in by_count.items():
        if int(count.replace(",", "")) > FEW_LABELS:
            continue
        for how in (ON_LABELS, ON_TEST):
            found.append(_lowest(f"{run}, {count} labels", how, rivals))
        auroc = _estimate(rivals["von_neumann_entropy"]["Δ AUROC"])
        title = f"{run}, {count} labels: SGPU less von Neumann entropy, AUROC: not below"
        found.append((title, auroc, not_below(auroc)))
    return found


def _lowest(where: str, how: str, rivals: Mapping[str, Mapping[str, Cell]]) -> tuple[Cell, ...]:
    _, ece, gap_column = label_columns(how)
    gaps = {n: _estimate(c[gap_column]) for n, c in rivals.items() if c[gap_column] is not None}
    lower = [n for n, gap in gaps.items() if gap.value is not None and gap.value < 0]
    below = sum((high := gap.high) is not None and high < 0 for gap in gaps.values())
    above = sum((low := gap.low) is not None and low > 0 for gap in gaps.values())
    verdict = "reached" if len(lower) == len(gaps) else "not reached"
    return (
        f"{where}: SGPU's own probability has the lowest ECE, rivals' calibrators {how}",
        _estimate(rivals["sgpu"][ece]),
        f"{verdict}: lower than {len(lower)} of {len(gaps)} rivals; beyond chance lower than "
        f"{below} and higher than {above}",
    )


def _fusion(run: str, table: StudyTable) -> list[tuple[Cell, ...]]:
    column = "All less this, within type"
    gaps = {str(row[0]): _cells(table, str(row[0]))[column] for row in table.rows}
    estimates = {name: _estimate(gap) for name, gap in gaps.items() if gap is not None}
    closest = min(estimates, key=lambda name: estimates[name].value or 0.0)
    figure = estimates[closest]
    title = f"{run}: the stack of all signals less the best other ({closest}), AUROC within type"
    return [(f"{title}: above", figure, gained(figure, 0.0))]


def _cells(table: StudyTable, name: str) -> Mapping[str, Cell]:
    row = next(row for row in table.rows if row[0] == name)
    return dict(zip(table.columns, row, strict=True))


def _estimate(cell: Cell) -> Estimate:
    return cell if isinstance(cell, Estimate) else Estimate(None, reason="not measured")
