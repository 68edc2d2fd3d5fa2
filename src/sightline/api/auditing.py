"""The audit of what moves inside a model when its pictures are perturbed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.api.observing import DEFAULT_LAYERS, collect
from sightline.core.condition_names import BLANK, CLEAN

if TYPE_CHECKING:
    from sightline.models.encoders import EntailmentModel
    from sightline.workflow.auditing.running import AuditOutcome, AuditSettings
    from sightline.workflow.collect import CollectResult

EVERY_ENERGY_MAP = 2**31 - 1
"""An audit shows the maps of the least stable answers, and which these are is not known before."""
DEFAULT_AUDIT = ("default", "wording:1", "wording:2")


def audit(
    run: str | Path,
    *,
    model: str | None = None,
    data: str | Path | None = None,
    conditions: str | Path | Sequence[str] = DEFAULT_AUDIT,
    layers: Sequence[float | int] = DEFAULT_LAYERS,
    limit: float | None = None,
    settings: AuditSettings | None = None,
    collecting: Mapping[str, Any] | None = None,
    probe: int = 0,
    probing: Mapping[str, Any] | None = None,
    entailment: str | None = None,
    model_options: Mapping[str, Any] | None = None,
    measuring: Callable[[], None] = lambda: None,
    keep: bool = False,
) -> tuple[AuditOutcome | None, CollectResult | None]:
    """Collects a model under perturbations if that is asked for, and measures how stable it is.

    The folder ``audit`` of the run receives audit.json (every figure) and audit.csv (every pair of
    question and condition).

    Args:
        run: The run directory; one that exists is resumed, or only measured without ``model``.
        model: As `collect` takes it; None measures a run that is there. Without ``data`` it is the
            model that ``probe`` asks, where the run's own name does not lead to it.
        data: As `collect` takes it; with it, ``model`` is collected.
        conditions: Perturbations, as `collect` takes them.
        layers: Depths whose states are compared.
        limit: First examples only, as `collect` takes it.
        settings: How to measure; `sightline.workflow.auditing.running.AuditSettings`.
        collecting: Further arguments of `collect`.
        probe: Questions whose frequencies are probed, which asks the model again, with gradients;
            those that were probed before are kept.
        probing: ``announce``, ``progress`` and ``should_stop`` of
            `sightline.workflow.auditing.probing.probe_run`.
        entailment: Entailment model (a directory or a hub name) that compares free answers by
            meaning; None = by their content words alone.
        model_options: Passed to the loading of the probed and of the entailment model.
        measuring: Called once, when what is stored begins to be measured.
        keep: Leave an audit that the run has already as it is, and write nothing into the run;
            for a run that is only set beside others.

    Returns:
        The outcome, and what collecting left behind. The outcome is None where collecting or
        probing was stopped; the same call goes on.
    """
    from sightline.core.errors import UsageError
    from sightline.workflow.auditing.running import AuditSettings, audit_run, check_settings
    from sightline.workflow.auditing.writing import RESULTS, write_audit

    settings = settings or AuditSettings()
    check_settings(settings)
    collected = None
    options = dict(model_options or {})
    if model is not None and data is None and not probe:
        raise UsageError(
            f"Model {model} without data; questions about pictures are required to audit it. "
            "Give --data, or a number of questions to --probe."
        )
    if entailment is not None and (probe or model is not None):
        _judge(entailment, options)  # one that cannot be loaded is refused before a model is asked
    if model is not None and data is not None:
        _require_perturbation(conditions)
        arguments = {
            "samples": 0,
            "top_k": 0,
            "energy_maps": EVERY_ENERGY_MAP,
            "model_options": options,
            **(collecting or {}),
        }
        collected = collect(
            model,
            data,
            run,
            conditions=conditions,
            layers=layers,
            limit=limit,
            channels=True,
            **arguments,
        )
        if collected.interrupted:
            return None, collected
    if probe and not _probed(Path(run), model, probe, settings, probing or {}, options):
        return None, collected
    judge = None if entailment is None else _judge(entailment, options)
    measuring()
    outcome = audit_run(Path(run), settings, judge=judge)
    if not (keep and (Path(run) / RESULTS).exists()):
        write_audit(outcome, Path(run))
    return outcome, collected


def _judge(entailment: str, options: Mapping[str, Any]) -> EntailmentModel:
    from sightline.models import load_entailment_model

    own = {name: value for name, value in options.items() if name != "revision"}
    return load_entailment_model(entailment, **own)


def _require_perturbation(conditions: str | Path | Sequence[str]) -> None:
    """Refuses conditions that an audit would find nothing to compare under."""
    from sightline.core.errors import UsageError
    from sightline.data.condition_lists import read_conditions

    found = read_conditions(conditions)
    names = [condition.name for condition in found]
    if all(own.is_control or own.name in {CLEAN, BLANK} for own in found):
        raise UsageError(
            f"--conditions {','.join(names)} perturbs no picture and no question; at least one "
            "condition besides clean, blank and controls is required. Name for example default or "
            "rotate:30."
        )


def _probed(
    run: Path,
    model: str | None,
    questions: int,
    settings: AuditSettings,
    probing: Mapping[str, Any],
    options: Mapping[str, Any],
) -> bool:
    """Probes frequencies with the named model, or the one the run was collected from."""
    from sightline.models import load_model
    from sightline.store.run import RunStore
    from sightline.workflow.auditing.probe_rows import ProbeSettings
    from sightline.workflow.auditing.probing import probe_run

    name = model or str(RunStore.open(run).manifest.model.get("name", ""))
    plan = ProbeSettings(questions, seed=settings.seed)
    return probe_run(run, load_model(name, **options), plan, **probing)
