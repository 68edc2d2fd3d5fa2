"""What was evaluated: the run, its model, what is missing from it, and its question types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from sightline.core.results import RunSummary, Skipped, TypeSummary
from sightline.core.types import Record
from sightline.data.splits import images_across_groups
from sightline.metrics.intervals import proportion
from sightline.store.run import RunStore
from sightline.workflow.judged import JudgedRows


def type_summaries(rows: JudgedRows, level: float) -> tuple[TypeSummary, ...]:
    """Accuracy of every question type, with intervals of the given coverage."""
    out = []
    for code, name in enumerate(rows.type_names):
        chosen = rows.types == code
        accuracy = proportion(rows.correct[chosen], rows.groups[chosen], level=level)
        out.append(TypeSummary(name, int(np.sum(chosen)), accuracy))
    return tuple(out)


def _partial(store: RunStore) -> str | None:
    """Why the run is not all of its data, or None where it is."""
    manifest = store.manifest
    committed = store.committed()
    reasons = [manifest.partial] if manifest.partial else []
    if len(committed) < (manifest.n_shards or 0):
        done = sum(len(store.shard_examples(index)) for index in committed)
        reasons.append(
            f"{done:,} of {len(store.examples()):,} examples collected; the collect has not "
            "finished, and the same command goes on with it"
        )
    return "; ".join(reasons) or None


def _shared_images(rows: JudgedRows) -> tuple[str, ...]:
    shared = images_across_groups([record.example for record in rows.records])
    if not shared:
        return ()
    return (
        f"{shared:,} images occur in more than one group, so held-out answers may be about "
        "pictures that were fitted on; leave the group column out to group by image.",
    )


def _left_out_views(judged: Sequence[Record]) -> tuple[str, ...]:
    """How many answers under other conditions are no views of the judged ones, and why."""
    truths = Counter(c.truth for record in judged for c in record.related.left_out)
    if not truths:
        return ()
    views = sum(len(record.related.views) for record in judged)
    return (
        f"Of {views + truths.total():,} answers under perturbations, {truths.total():,} are not "
        f"compared with the clean ones: under {truths['changed']:,} the right answer is another, "
        f"under {truths['unknown']:,} it is not known whether it stays.",
    )


def run_summary(store: RunStore, judged: Sequence[Record], rows: JudgedRows) -> RunSummary:
    """What a report says of the run before any score."""
    manifest = store.manifest
    quarantined = store.quarantined()
    failed = {(q.key.example_id, q.reason) for q in quarantined}
    reasons = Counter(reason for _, reason in sorted(failed))
    return RunSummary(
        name=store.path.name,
        path=str(store.path),
        model=str(manifest.model.get("name", "unknown")),
        dataset=str(manifest.dataset.get("name", "unknown")),
        records=len(judged),
        quarantined=len({example_id for example_id, _ in failed}),
        quarantine_reasons=tuple(Skipped(reason, n) for reason, n in reasons.most_common(10)),
        partial=_partial(store),
        truncated_answers=sum(record.answer.is_truncated for record in judged),
        empty_answers=sum(record.answer.is_empty for record in judged),
        groups=len(np.unique(rows.groups)),
        created=manifest.created,
        decoding=dict(manifest.settings),
        notes=(*manifest.notes, *_shared_images(rows), *_left_out_views(judged)),
        image_root=manifest.image_root,
        versions=dict(manifest.versions),
    )
