"""Tables of an audit's page: rates, heat maps by severity, frequencies, budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sightline.core.audit_answers import Rates
from sightline.core.audit_results import Audit
from sightline.core.estimates import Estimate
from sightline.core.probe_results import BudgetedAudit, Probes
from sightline.report.audit_answers import answer_tables, cell_of, signed
from sightline.report.audit_terminal import by_kind, flagged_drift, row_name
from sightline.report.audit_view import Grid, GridRow, Shaded
from sightline.report.numbers import DASH, count, inert

BANDS = ("low", "middle", "high")
_NO_SEVERITY = ("text", "answer_", "wording")


def rate_tables(audit: Audit) -> tuple[Grid, ...]:
    """Rates by type of perturbation and by condition, and what only some runs have."""
    kinds = by_kind(audit)
    single = [rates for rates in audit.rates if rates.name in audit.protocol.conditions]
    columns = (
        "IFR",
        "IV",
        "R→W",
        "W→R",
        "accuracy",
        "Δ margin",
        "drift %",
        "drift % (stays)",
        "ΔE",
        "prior",
    )
    return (
        _grid(audit, kinds, columns, "Every type of perturbation; intervals are over pictures."),
        *answer_tables(audit),
        *_meaning(audit),
        replace(_grid(audit, single, columns, "Every single condition."), folded=True),
        *_spectra(audit),
    )


def _grid(audit: Audit, rates: Sequence[Rates], columns: tuple[str, ...], caption: str) -> Grid:
    table = []
    for own in rates:
        drifts = [flagged_drift(audit, own.name, unchanged=u) for u in (False, True)]
        percents = [None if d is None else d.percent for d in drifts]
        table.append(
            (own.ifr, own.iv, own.lost, own.won, own.accuracy_after, own.margin_change, *percents,
             own.energy_change, own.prior_index)
        )  # fmt: skip
    shaded = [row for own, row in zip(rates, table, strict=True) if own.part != "injection"]
    tops = [
        None if name == "accuracy" else largest([row[i] for row in shaded])
        for i, name in enumerate(columns)
    ]
    return Grid(
        caption,
        columns,
        tuple(
            GridRow(
                f"{row_name(own)} ({count(own.pairs)})",
                tuple(
                    cell_of(value, tops[i], places=1 if "%" in columns[i] else 3)
                    for i, value in enumerate(row)
                ),
            )
            for own, row in zip(rates, table, strict=True)
        ),
    )


def heat_maps(audit: Audit) -> tuple[Grid, ...]:
    """Flip rate, margin, drift and CKA by family and severity, mildest first."""
    severities = _severities(audit.protocol.conditions)
    if not severities:
        return ()
    rates = {own.name: own for own in audit.rates}
    drift = {name: flagged_drift(audit, name) for own in severities.values() for name, _ in own}
    percent = {name: found.percent for name, found in drift.items() if found is not None}
    cka = {name: Estimate(value) for name, value in audit.cka.items()}
    ifr = {name: own.ifr for name, own in rates.items()}
    margin = {name: own.margin_change for name, own in rates.items()}
    channel = audit.protocol.channel or "no channel"
    found = (
        _heat("Flip rate (IFR).", severities, ifr, 2),
        _heat("Change of the clean label's margin, nats.", severities, margin, 2),
        _heat(f"Drift of {channel}, % of the control.", severities, percent, 0),
        _heat(f"CKA of {channel}, clean with perturbed: 1 = the same geometry.", severities, cka, 2,
              least=True),
    )  # fmt: skip
    return tuple(grid for grid in found if any(c.text != DASH for r in grid.rows for c in r.cells))


def _severities(conditions: Sequence[str]) -> dict[str, list[tuple[str, float]]]:
    """Conditions by family and direction, with their levels, mildest first."""
    found: dict[str, list[tuple[str, float]]] = {}
    for name in conditions:
        family, _, level = name.partition(":")
        try:
            value = float(level)
        except ValueError:
            continue  # no level, a level that is no size, or several perturbations
        if not family.startswith(_NO_SEVERITY):
            sign = " −" if value < 0 else ""
            found.setdefault(f"{family}{sign}", []).append((name, value))
    return {row: sorted(own, key=lambda pair: abs(pair[1])) for row, own in found.items()}


def _heat(
    caption: str,
    severities: Mapping[str, Sequence[tuple[str, float]]],
    values: Mapping[str, Estimate],
    places: int,
    *,
    least: bool = False,
) -> Grid:
    """Shaded by size, or by how far a value lies below 1; the level stands below its value."""
    width = max(map(len, severities.values()))
    shown = [values[name] for own in severities.values() for name, _ in own if name in values]
    sizes = [_size(e, least) for e in shown]
    top = max(sizes, default=0.0)
    rows = []
    for row, own in severities.items():
        cells = []
        for name, level in own:
            value = values.get(name, Estimate(None))
            if value.value is None:
                cells.append(Shaded(DASH, signed(level)))
                continue
            shade = round(60 * _size(value, least) / top) if top else None
            cells.append(Shaded(signed(value.value, places), signed(level), shade))
        rows.append(GridRow(inert(row, 60), (*cells, *[Shaded("")] * (width - len(cells)))))
    columns = ("mildest", *(str(i) for i in range(2, width)), "strongest")[:width]
    return Grid(caption, columns, tuple(rows))


def _size(value: Estimate, least: bool) -> float:
    if value.value is None:
        return 0.0
    return max(0.0, 1 - value.value) if least else abs(value.value)


def _meaning(audit: Audit) -> tuple[Grid, ...]:
    """Free answers by meaning, beside their short forms."""
    if not audit.meaning:
        return ()
    columns = (
        "short form flips",
        "says something else",
        "of flips: says the same",
        "of the others: says something else",
    )
    rows = tuple(
        GridRow(
            f"{inert(own.judge, 60)} ({count(own.changed.n)})",
            tuple(
                cell_of(value, None)
                for value in (own.flipped, own.changed, own.reworded, own.overlooked)
            ),
        )
        for own in audit.meaning
    )
    return (Grid("Free answers by meaning, as each judge reads them.", columns, rows),)


def probe_tables(probes: Probes) -> tuple[Grid, ...]:
    """Attacks within one band, and where filters first flip the label."""
    attacks = tuple(
        GridRow(
            f"{own.band}: radius {own.low:g} to {own.high:g}",
            (
                cell_of(own.success, 1.0),
                cell_of(own.flips, 1.0),
                cell_of(own.score_change, None),
                cell_of(own.leakage, None),
                Shaded(f"{own.leakage_most:.3f}"),
                Shaded(f"{own.largest * 255:.1f}"),
                *(Shaded(f"{value:.3f}") for value in own.coherence),
            ),
        )
        for own in probes.attacks
    )
    filters = tuple(
        GridRow(
            f"{own.filtering} pass",
            (
                Shaded(count(own.flipped)),
                cell_of(own.threshold, None, places=2),
                cell_of(own.kept[-1], None),
            ),
        )
        for own in probes.filters
    )
    return (
        Grid(
            f"Attacks on the pixels within one band: {probes.steps} steps against the clean "
            f"label's score, at most {probes.epsilon * 255:g} of 255.",
            (
                *("success", "label flips", "Δ score, nats", "leakage", "most leakage"),
                *("largest change, of 255", *(f"coherence, {band}" for band in BANDS)),
            ),
            attacks,
        ),
        Grid(
            "Filters, from mild to strong.",
            ("questions that flip", "mean cut-off of the first flip", "never flip"),
            filters,
        ),
    )


def budget_tables(budgets: Sequence[BudgetedAudit]) -> tuple[Grid, ...]:
    """The chosen conditions of each target."""
    return tuple(
        Grid(
            f"Target: {inert(budget.target, 80)}. In the order they were chosen on all questions.",
            ("gain where chosen", "gain elsewhere, with those before", "chosen in parts"),
            tuple(
                GridRow(
                    f"{number}. {inert(step.condition, 60)}",
                    (
                        Shaded(signed(step.gain, 4)),
                        cell_of(step.held_out, None, places=4),
                        Shaded(f"{step.folds} of {budget.parts}"),
                    ),
                )
                for number, step in enumerate(budget.steps, 1)
            ),
        )
        for budget in budgets
        if budget.steps
    )


def _spectra(audit: Audit) -> tuple[Grid, ...]:
    """Frequency bands of the perturbations."""
    found = []
    if audit.spectra:
        columns = (
            *BANDS,
            *(f"{b}, flips" for b in BANDS),
            *(f"{b}, power" for b in BANDS),
            *(f"{b}, coherence" for b in BANDS),
        )
        rows = []
        for own in audit.spectra:
            flips = own.shares_of_flips or (None,) * len(BANDS)
            cells = [
                *(plain_cell(value) for value in (*own.shares, *flips)),
                *(Shaded(signed(value, 4)) for value in own.relative),
                *(plain_cell(value) for value in own.coherence),
            ]
            rows.append(GridRow(f"{inert(own.name, 60)} ({count(own.pictures)})", tuple(cells)))
        found.append(
            Grid(
                "Share of each frequency band in the change of the pixels, of pairs that count; "
                "change of its power over the clean picture's; agreement with the clean picture.",
                columns,
                tuple(rows),
            )
        )
    return (*found, *_band_means(audit))


def _band_means(audit: Audit) -> tuple[Grid, ...]:
    """Bands by their mean power, as published, of all rendered pairs and of flips."""
    rows = []
    for own in audit.spectra:
        if own.means is None:
            return ()
        flips = own.means_of_flips
        changes = (None,) * len(BANDS) if flips is None else flips.changes
        cells = (
            *(Shaded(f"{value:.3g}") for value in (*own.means.clean, *own.means.perturbed)),
            *(_relative(value) for value in (*own.means.changes, *changes)),
        )
        rows.append(GridRow(f"{inert(own.name, 60)} ({count(own.pictures)})", cells))
    if not rows:
        return ()
    heads = ("{}, clean", "{}, changed", "{}, change", "{}, change in flips")
    return (
        Grid(
            "Mean power of a coefficient in each band, as published: of the clean pictures, of the "
            "changed ones, and the change as a share of the clean mean. Means of bands do not add "
            "up; the shares above do.",
            tuple(head.format(band) for head in heads for band in BANDS),
            tuple(rows),
        ),
    )


def _relative(value: float | None) -> Shaded:
    return Shaded(DASH) if value is None else Shaded(signed(value, 3))


def largest(values: Sequence[Estimate | None]) -> float:
    """Largest size of the figures that have a value, 0 where none has."""
    sizes = [abs(e.value) for e in values if e is not None and e.value is not None]
    return max(sizes, default=0.0)


def plain_cell(value: float | None) -> Shaded:
    """A share without interval, shaded by its size."""
    return Shaded(DASH) if value is None else Shaded(f"{value:.3f}", None, round(60 * value))
