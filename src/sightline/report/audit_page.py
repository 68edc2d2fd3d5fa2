"""From audits to the page that shows them: every choice of what to say is made here."""

from __future__ import annotations

from collections.abc import Sequence

from sightline.audit.instability import TRUTH_UNKNOWN
from sightline.core.audit_results import Audit, AuditedPair, Comparison, Finding, ShownExample
from sightline.core.estimates import Estimate
from sightline.report.audit_comparison import comparison_figures, comparison_tables
from sightline.report.audit_drift import drift_tables
from sightline.report.audit_figures import (
    budget_figures,
    density_figures,
    energy_figures,
    probe_figures,
    profile_figures,
)
from sightline.report.audit_pictures import PictureSource, Tile, map_rows
from sightline.report.audit_tables import (
    budget_tables,
    heat_maps,
    probe_tables,
    rate_tables,
)
from sightline.report.audit_terminal import control_name, verdict_line
from sightline.report.audit_view import (
    AuditPage,
    AuditView,
    ExampleView,
    FactView,
    Section,
    VerdictView,
)
from sightline.report.numbers import count, counted, inert
from sightline.report.view import FigureGroup

SHOWN_TILES, ALL_TILES = 12, 80
ANSWER, QUESTION = 80, 300


def audit_page(
    audits: Sequence[Audit],
    pictures: PictureSource,
    *,
    title: str | None = None,
    comparison: Comparison | None = None,
) -> AuditPage:
    """Returns everything the page shows.

    Args:
        audits: One or more, in the order they are shown.
        pictures: Renders a question's picture under a condition.
        title: Heading; derived from the models if None.
        comparison: Verdicts on all of them together.
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
        comparison=_together(audits, names, comparison) if len(audits) > 1 else None,
    )


def _together(
    audits: Sequence[Audit], names: Sequence[str], comparison: Comparison | None
) -> Section:
    findings = () if comparison is None else comparison.findings
    unlike = () if comparison is None or comparison.unlike is None else (comparison.unlike,)
    return Section(
        (*(inert(line, 2000) for line in unlike), *map(verdict_line, findings)),
        comparison_figures(audits, names),
        comparison_tables(audits, names),
    )


def _names(audits: Sequence[Audit]) -> list[str]:
    names = [inert(audit.model, 60) for audit in audits]
    if len(set(names)) < len(names):
        names = [inert(f"{audit.model}, {audit.run}", 80) for audit in audits]
    return names


def _why(found: Finding) -> str:
    """Why nothing was decided, where the figure does not say so by itself."""
    said = found.estimate.reason if found.estimate.value is None else None
    return "" if found.reason in (None, said) else f" ({inert(str(found.reason))})"


def _view(audit: Audit, key: str, name: str, pictures: PictureSource) -> AuditView:
    return AuditView(
        key=key,
        title=name,
        subtitle=f"on {inert(audit.dataset, 80)}",
        partial=None if audit.partial is None else inert(audit.partial),
        notes=tuple(inert(note) for note in audit.notes),
        warning=None if audit.warning is None else inert(audit.warning, 500),
        summary=_summary(audit),
        verdicts=tuple(
            VerdictView(
                found.outcome,
                inert(found.finding),
                f"{_figure(found.estimate)}, n = {count(found.estimate.n)}" + _why(found),
                inert(f"Rule: {found.rule}.", 1000),
            )
            for found in audit.findings
        ),
        sheet=tuple(
            _example(audit, shown, pictures, most=SHOWN_TILES if i else ALL_TILES)
            for i, shown in enumerate(audit.sheet)
        ),
        tables=rate_tables(audit),
        heat=heat_maps(audit),
        densities=density_figures(audit, key),
        no_drift="No pair of changed pictures that counts has a channel."
        if audit.densities
        else "The run was collected without channels.",
        profile=profile_figures(audit, key),
        profiles=drift_tables(audit),
        no_energy=None if audit.no_energy is None else inert(audit.no_energy),
        energy=energy_figures(audit, key),
        maps=map_rows(audit, pictures),
        probes=_probes(audit, key),
        budgets=_budgets(audit, key),
        unstable=tuple(_example(audit, shown, pictures) for shown in audit.unstable),
        hidden=tuple(_example(audit, shown, pictures) for shown in audit.hidden),
        facts=_facts(audit),
    )


def _summary(audit: Audit) -> tuple[str, ...]:
    rates = audit.rates[0]
    lines = []
    if rates.pairs:
        lines.append(
            f"Of {counted(rates.pairs, 'answer')} to changed pictures {_figure(rates.ifr)} differ "
            f"from the answer to the clean one; {_figure(rates.iv)} of "
            f"{counted(rates.items, 'question')} have at least one that does. Visual "
            f"entropy of a question's labels: {_figure(audit.visual_entropy)} nats. Accuracy goes "
            f"from {_figure(rates.accuracy_before)} to {_figure(rates.accuracy_after)}."
        )
    if audit.moved_far.value is not None:
        lines.append(
            f"Of the answers that stay, {_figure(audit.moved_far)} moved as far as an unrelated "
            f"picture ({inert(audit.protocol.flag_rule)}; control: "
            f"{control_name(audit.protocol.flag_control)})."
        )
    if audit.prior is not None:
        lines.append(
            f"{_figure(audit.prior.unchanged)} of the answers are the same without a picture."
        )
    for skipped in rates.excluded:
        line = f"Not counted: {counted(skipped.n, 'pair')}; {inert(skipped.reason)}"
        if skipped.reason == TRUTH_UNKNOWN:
            line += f"; {_figure(rates.undecided)} of them flip"
        lines.append(f"{line}.")
    if audit.no_spectra is not None:
        lines.append(f"{inert(audit.no_spectra)}.")
    lines += [
        f"No spectrum of {counted(s.n, 'question')}: {inert(s.reason)}."
        for s in audit.spectra_skipped
    ]
    lines += [
        f"Not asked under a condition: {counted(s.n, 'time')}, since {inert(s.reason)}."
        for s in audit.refused
    ]
    return tuple(lines)


def _example(
    audit: Audit, shown: ShownExample, pictures: PictureSource, *, most: int = SHOWN_TILES
) -> ExampleView:
    clean = pictures.tile(audit, shown, "clean")
    tiles = [Tile(clean.src, clean.alt, "clean", inert(shown.clean_answer, ANSWER), "", "")]
    chosen = shown.pairs[:: max(1, -(-len(shown.pairs) // most))][:most]
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
    parts += ["injection test"] if pair.part == "injection" else []
    parts += [] if pair.truth == "same" else [f"truth {pair.truth}"]
    return ", ".join(parts)


def _probes(audit: Audit, key: str) -> Section:
    probes = audit.probes
    lines: tuple[str, ...]
    if probes is None:
        lines = (
            "Not probed. Add --probe 20 to filter, disturb and attack the pictures of 20 questions "
            "by frequency; this asks the model again.",
        )
        return Section(lines, FigureGroup(()), ())
    sides = ", ".join(f"{width} × {height}" for height, width in probes.sides)
    lines = (
        f"{counted(probes.questions, 'question')} on {counted(probes.images, 'picture')}, changed "
        f"in the pixels the model reads ({inert(sides, 200)}; of a model that reads tiles, in the "
        f"picture they are cut from): {counted(probes.reads, 'picture')} read, "
        f"{counted(probes.gradients, 'gradient')}. The label there is the collected one in "
        f"{_figure(probes.agreement)} of them.",
        *_free_lines(probes.free),
        *(f"Not probed: {counted(s.n, 'question')}; {inert(s.reason)}" for s in probes.skipped),
    )
    if not probes.questions:
        return Section(lines, FigureGroup(()), ())
    return Section(lines, probe_figures(probes, key), probe_tables(probes))


def _free_lines(free: int) -> tuple[str, ...]:
    if not free:
        return ()
    return (
        f"Answered freely: {count(free)} of the questions. Their score is the log-probability "
        "of the answer to the clean picture; they flip when the model answers the changed "
        "picture with another short form.",
    )


def _budgets(audit: Audit, key: str) -> Section | None:
    """None where no budget was asked for."""
    if not audit.budgets:
        return None
    lines = tuple(
        f"Target: {inert(budget.target, 80)}. Nothing could be chosen. {inert(budget.reason)}"
        for budget in audit.budgets
        if budget.reason is not None
    )
    return Section(lines, budget_figures(audit.budgets, key), budget_tables(audit.budgets))


def _facts(audit: Audit) -> tuple[FactView, ...]:
    protocol = audit.protocol
    found = {
        "Questions, pictures": f"{count(audit.items)}, {count(audit.images)}",
        "Conditions": f"{len(protocol.conditions)}: {', '.join(protocol.conditions)}",
        "Said to keep the answer": f"{', '.join(protocol.preserving)}: decides "
        f"{counted(protocol.named_pairs, 'pair')}"
        if protocol.preserving
        else "none beyond the table",
        "Layers": ", ".join(map(str, protocol.layers)) or "none",
        "Flagging channel": protocol.channel or "none",
        "Controls": f"{counted(protocol.controls, 'partner')} of "
        f"{counted(protocol.control_items, 'question')}, "
        f"{counted(protocol.unrelated, 'answer')} about an unrelated picture",
        "Resamples": f"{count(protocol.resamples)} of pictures, level {protocol.level:g}",
        "Seed": str(protocol.seed),
    }
    return tuple(FactView(name, inert(text, 1000)) for name, text in found.items())


def _figure(value: Estimate) -> str:
    return inert(str(value))
