"""From audits to the page that shows them: every choice of what to say is made here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sightline.core.audit_results import Audit, AuditedPair, Density, Rates, ShownExample
from sightline.core.estimates import Estimate
from sightline.report.audit_pictures import PictureSource, Tile, map_tiles
from sightline.report.audit_terminal import by_kind, flagged_drift
from sightline.report.audit_view import (
    AuditPage,
    AuditView,
    Bar,
    DensityView,
    ExampleView,
    FactView,
    Grid,
    GridRow,
    Shaded,
    VerdictView,
)
from sightline.report.numbers import count, inert

DASH = "—"
Pick = Callable[[Audit, Rates | None, str], Estimate | None]
SHOWN_TILES = 12
ANSWER, QUESTION = 80, 300


def audit_page(
    audits: Sequence[Audit], pictures: PictureSource, *, title: str | None = None
) -> AuditPage:
    """Returns everything the page shows.

    Args:
        audits: One or more, in the order they are shown.
        pictures: Renders a question's picture under a condition.
        title: Heading; derived from the models if None.
    """
    models = dict.fromkeys(audit.model for audit in audits)
    heading = title or f"Does {' or '.join(models)} hold when the picture changes?"
    names = _names(audits)
    return AuditPage(
        title=inert(heading),
        version=inert(audits[0].sightline_version),
        runs=tuple(
            _view(audit, f"run{i}", name, pictures)
            for i, (audit, name) in enumerate(zip(audits, names, strict=True), start=1)
        ),
        comparison=_comparison(audits, names) if len(audits) > 1 else None,
    )


def _names(audits: Sequence[Audit]) -> list[str]:
    names = [inert(audit.model, 60) for audit in audits]
    if len(set(names)) < len(names):
        names = [inert(f"{audit.model}, {audit.run}", 80) for audit in audits]
    return names


def _view(audit: Audit, key: str, name: str, pictures: PictureSource) -> AuditView:
    return AuditView(
        key=key,
        title=name,
        subtitle=f"on {inert(audit.dataset, 80)}",
        partial=None if audit.partial is None else inert(audit.partial),
        notes=tuple(inert(note) for note in audit.notes),
        summary=_summary(audit),
        verdicts=tuple(
            VerdictView(
                found.outcome,
                inert(found.finding),
                f"{_figure(found.estimate)}, n = {count(found.estimate.n)}"
                + ("" if found.reason is None else f" ({inert(found.reason)})"),
                inert(f"Rule: {found.rule}.", 1000),
            )
            for found in audit.findings
        ),
        sheet=tuple(_example(audit, shown, pictures) for shown in audit.sheet),
        tables=_tables(audit),
        densities=tuple(map(_density, audit.densities)),
        profiles=_profiles(audit),
        no_energy=None if audit.no_energy is None else inert(audit.no_energy),
        maps=map_tiles(audit, pictures),
        unstable=tuple(_example(audit, shown, pictures) for shown in audit.unstable),
        hidden=tuple(_example(audit, shown, pictures) for shown in audit.hidden),
        facts=_facts(audit),
    )


def _summary(audit: Audit) -> tuple[str, ...]:
    rates = audit.rates[0]
    lines = [
        f"Of {count(rates.pairs)} answers to changed pictures {_figure(rates.ifr)} differ from the "
        f"answer to the clean one; {_figure(rates.iv)} of {count(rates.items)} questions have at "
        f"least one that does. Accuracy goes from {_figure(rates.accuracy_before)} to "
        f"{_figure(rates.accuracy_after)}."
    ]
    if audit.moved_far.value is not None:
        lines.append(
            f"Of the answers that stay, {_figure(audit.moved_far)} moved as far as an unrelated "
            f"picture ({inert(audit.protocol.flag_rule)}; control: {audit.protocol.flag_control})."
        )
    if audit.prior is not None:
        lines.append(
            f"{_figure(audit.prior.unchanged)} of the answers are the same without a picture."
        )
    lines += [f"Not counted: {count(s.n)} pairs; {inert(s.reason)}." for s in rates.excluded]
    lines += [f"No such condition: {count(s.n)} times {inert(s.reason)}." for s in audit.refused]
    return tuple(lines)


def _example(audit: Audit, shown: ShownExample, pictures: PictureSource) -> ExampleView:
    clean = pictures.tile(audit, shown, "clean")
    tiles = [Tile(clean.src, clean.alt, "clean", inert(shown.clean_answer, ANSWER), "", "")]
    chosen = shown.pairs[:: max(1, -(-len(shown.pairs) // SHOWN_TILES))][:SHOWN_TILES]
    for pair in chosen:
        found = pictures.tile(audit, shown, pair.condition)
        tiles.append(
            Tile(
                found.src,
                found.alt,
                inert(pair.condition, 60),
                inert(pair.answer, ANSWER),
                _tile_detail(pair),
                "flipped" if pair.flipped else "far" if pair.moved_far else "",
            )
        )
    return ExampleView(
        inert(shown.example_id, 80),
        inert(shown.question, QUESTION),
        inert(shown.clean_answer, ANSWER),
        inert(", ".join(shown.references), ANSWER),
        tuple(tiles),
    )


def _tile_detail(pair: AuditedPair) -> str:
    parts = ["flipped" if pair.flipped else "same answer"]
    parts += [] if pair.drift is None else [f"drift {pair.drift:.3f}"]
    parts += ["moved far"] if pair.moved_far else []
    parts += [] if pair.truth == "same" else [f"truth {pair.truth}"]
    return ", ".join(parts)


def _tables(audit: Audit) -> tuple[Grid, ...]:
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
        _grid(audit, single, columns, "Every single condition."),
        *_yes_no(audit),
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
    tops = [_largest([row[i] for row in table]) for i in range(len(columns))]
    return Grid(
        caption,
        columns,
        tuple(
            GridRow(
                f"{inert(own.name, 60)} ({count(own.pairs)})",
                tuple(
                    _cell(value, tops[i], places=1 if "%" in columns[i] else 3)
                    for i, value in enumerate(row)
                ),
            )
            for own, row in zip(rates, table, strict=True)
        ),
    )


def _yes_no(audit: Audit) -> tuple[Grid, ...]:
    if not audit.yes_no:
        return ()
    columns = ("accuracy", "precision", "recall", "F1", "false positives", "says yes")
    rows = tuple(
        GridRow(
            f"{inert(own.name, 60)} ({count(own.n)})",
            tuple(
                _cell(value, None)
                for value in (
                    own.accuracy,
                    own.precision,
                    own.recall,
                    own.f1,
                    own.false_positive_rate,
                    own.yes_rate,
                )
            ),
        )
        for own in audit.yes_no
    )
    return (Grid("Yes-or-no questions.", columns, rows),)


def _spectra(audit: Audit) -> tuple[Grid, ...]:
    """Frequency bands of the perturbations, and what the change of energy goes with."""
    found = []
    if audit.spectra:
        bands = ("low", "middle", "high")
        columns = (*bands, *(f"{b}, flips" for b in bands), *(f"{b}, coherence" for b in bands))
        rows = []
        for own in audit.spectra:
            flips = own.shares_of_flips or (None,) * len(bands)
            cells = [_plain(value) for value in (*own.shares, *flips, *own.coherence)]
            rows.append(GridRow(f"{inert(own.name, 60)} ({count(own.pictures)})", tuple(cells)))
        found.append(
            Grid("Share of each frequency band in the change of the pixels.", columns, tuple(rows))
        )
    if audit.energy_correlations:
        correlations = tuple(_cell(value, None) for value in audit.energy_correlations.values())
        found.append(
            Grid(
                "Correlation of the change of energy with other changes.",
                tuple(inert(name, 80) for name in audit.energy_correlations),
                (GridRow("change of energy", correlations),),
            )
        )
    return tuple(found)


def _profiles(audit: Audit) -> tuple[Grid, ...]:
    """Drift by layer: a row per channel, a column per layer; and the controls at the last layer."""
    control = audit.protocol.flag_control
    own = [d for d in audit.drift if d.name == "all"]
    channels = list(dict.fromkeys(d.channel for d in own))
    layers = sorted({d.layer for d in own if d.layer is not None})
    if not own:
        return ()
    by_layer = []
    for channel in channels:
        cells = []
        for layer in [*layers, None]:
            found = next(
                (d for d in own if (d.channel, d.layer, d.unchanged) == (channel, layer, True)),
                None,
            )
            cells.append(_cell(None if found is None else found.percent, 100.0, places=1))
        by_layer.append(GridRow(channel, tuple(cells)))
    names = ("other_images", "other_items", "paraphrases")
    by_control = []
    for channel in channels:
        rows = [d for d in own if d.channel == channel and not d.unchanged]
        last = rows[0].layer
        cells = [_cell(rows[0].drift, None)]
        for name in names:
            found = next((d for d in rows if d.control == name and d.layer == last), None)
            cells.append(_cell(None if found is None else found.percent, None, places=1))
            cells.append(_cell(None if found is None else found.cohens_d, None, places=2))
        by_control.append(GridRow(channel, tuple(cells)))
    return (
        Grid(
            f"Drift of answers that stay, as per cent of the control ({control}, or the one that "
            "has pairs), by layer.",
            (*(f"layer {layer}" for layer in layers), "vision tokens"),
            tuple(by_layer),
        ),
        Grid(
            "Drift at the last layer beside every control: per cent of it, and Cohen's d.",
            ("1 − cosine", *(part for name in names for part in (f"% of {name}", "d"))),
            tuple(by_control),
        ),
    )


def _density(found: Density) -> DensityView:
    width, bars = 24 * 10, []
    for kind in ("control", "unchanged", "flipped"):
        counts = getattr(found, kind)
        total, step = sum(counts), width / len(counts)
        top = max(counts, default=0)
        for i, n in enumerate(counts):
            height = round(86 * n / top, 2) if top else 0.0
            third = {"control": (0.0, 1.0), "unchanged": (0.1, 0.4), "flipped": (0.5, 0.4)}[kind]
            if total and n:
                bars.append(
                    Bar(kind, round((i + third[0]) * step, 2), round(90 - height, 2),
                        round(third[1] * step, 2), height)
                )  # fmt: skip
    layer = "" if found.layer is None else f", layer {found.layer}"
    sizes = ", ".join(
        f"{count(sum(getattr(found, k)))} {k}" for k in ("unchanged", "flipped", "control")
    )
    return DensityView(
        title=f"{found.channel}{layer}",
        label=f"Drift of {found.channel}{layer} beside the control {found.control_name}: {sizes}",
        caption=f"1 − cosine; blue: stays, orange: flips, grey: {found.control_name} ({sizes})",
        top=f"{found.edges[-1]:.3f}",
        width=width,
        bars=tuple(bars),
    )


def _comparison(audits: Sequence[Audit], names: Sequence[str]) -> tuple[Grid, ...]:
    kinds = list(dict.fromkeys(rates.name for audit in audits for rates in by_kind(audit)))
    of = [{rates.name: rates for rates in audit.rates} for audit in audits]

    def table(caption: str, pick: Pick) -> Grid:
        values = [
            [pick(audit, own.get(kind), kind) for audit, own in zip(audits, of, strict=True)]
            for kind in kinds
        ]
        top = _largest([value for row in values for value in row])
        rows = tuple(
            GridRow(inert(kind, 60), tuple(_cell(v, top) for v in row))
            for kind, row in zip(kinds, values, strict=True)
        )
        return Grid(caption, tuple(names), rows)

    def drift(audit: Audit, _rates: Rates | None, kind: str) -> Estimate | None:
        found = flagged_drift(audit, kind)
        return None if found is None else found.percent

    return (
        table("Flip rate (IFR).", lambda _a, r, _k: None if r is None else r.ifr),
        table("Accuracy after.", lambda _a, r, _k: None if r is None else r.accuracy_after),
        table("Drift as per cent of each run's control.", drift),
    )


def _facts(audit: Audit) -> tuple[FactView, ...]:
    protocol = audit.protocol
    found = {
        "Questions, pictures": f"{count(audit.items)}, {count(audit.images)}",
        "Conditions": f"{len(protocol.conditions)}: {', '.join(protocol.conditions)}",
        "Layers": ", ".join(map(str, protocol.layers)) or "none",
        "Flagging channel": protocol.channel or "none",
        "Controls": f"{protocol.controls} partners of {count(protocol.control_items)} questions",
        "Resamples": f"{count(protocol.resamples)} of pictures, level {protocol.level:g}",
        "Seed": str(protocol.seed),
    }
    return tuple(FactView(name, inert(text, 1000)) for name, text in found.items())


def _cell(value: Estimate | None, top: float | None, *, places: int = 3) -> Shaded:
    if value is None or value.value is None:
        return Shaded(DASH)
    ends = None
    if value.low is not None and value.high is not None:
        ends = f"{value.low:.{places}f} to {value.high:.{places}f}"
    shade = None if not top else min(60, round(60 * abs(value.value) / top))
    return Shaded(f"{value.value:.{places}f}", ends, shade)


def _largest(values: Sequence[Estimate | None]) -> float:
    """Largest size of the figures that have a value, 0 where none has."""
    sizes = [abs(e.value) for e in values if e is not None and e.value is not None]
    return max(sizes, default=0.0)


def _plain(value: float | None) -> Shaded:
    return Shaded(DASH) if value is None else Shaded(f"{value:.3f}", None, round(60 * value))


def _figure(value: Estimate) -> str:
    return inert(str(value))
