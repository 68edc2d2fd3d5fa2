"""Single answers that an audit shows, and the rows it exports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from sightline.core.audit_results import AuditedPair, ShownExample, ShownMap
from sightline.core.condition_names import CLEAN, by_level
from sightline.core.features import Feature
from sightline.store.run import RunStore
from sightline.workflow.auditing.columns import PICTURE, Columns
from sightline.workflow.auditing.pairs import AuditRows

SHOWN, SHEETS = 6, 4


def audited_pairs(
    rows: AuditRows,
    columns: Columns,
    drift: np.ndarray,
    l2: np.ndarray,
    far: np.ndarray,
    changed: Mapping[int, bool],
) -> list[AuditedPair]:
    """One typed row per pair, in the run's order.

    Args:
        rows: Questions and pairs.
        columns: What was measured of each pair.
        drift: 1 - cosine of the flagged channel, NaN where there is none.
        l2: Its Euclidean drift.
        far: Whether each pair is flagged.
        changed: Whether free answers say something else, by pair.
    """
    excluded = columns.pairs.excluded
    flipped = columns.pairs.flipped
    found = []
    for i, pair in enumerate(rows.pairs):
        item = rows.items[pair.item]
        found.append(
            AuditedPair(
                example_id=pair.record.example.id,
                condition=pair.record.condition,
                kind=pair.kind,
                part=columns.parts[i],
                image=item.image,
                form=item.form,
                truth=pair.record.truth,
                excluded=str(excluded[i]),
                clean_label=item.label,
                label=pair.label,
                flipped=bool(flipped[i]),
                flipped_per_token=_flag(columns.per_token[i]),
                flipped_letters=_flag(columns.letters[i]),
                meaning_changed=changed.get(i),
                right_before=item.right,
                right_after=pair.right,
                margin_before=_number(columns.margin_before[i]),
                margin=_number(columns.margin[i]),
                margin_true_before=_number(columns.margin_true_before[i]),
                margin_true=_number(columns.margin_true[i]),
                score_change=_number(columns.score_change[i]),
                drift=_number(drift[i]),
                drift_l2=_number(l2[i]),
                moved_far=bool(far[i]),
                energy_before=None if item.energy is None else item.energy[0],
                energy=None if pair.energy is None else pair.energy[0],
                energy_change=_number(columns.energy_change[i]),
                prior_index=_number(columns.prior_index[i]),
                answer=pair.record.answer.text,
            )
        )
    return found


def most_unstable(
    rows: AuditRows,
    pairs: Sequence[AuditedPair],
    signals: Mapping[str, Mapping[Feature, float]],
) -> tuple[ShownExample, ...]:
    """Questions whose label flips most often, of pictures that count; equals by id.

    Args:
        rows: Questions and pairs.
        pairs: The exported rows.
        signals: What is known of each answer; its flip rate, held against that of others under the
            same conditions, decides the order.
    """
    flips = {
        pair.item
        for pair, shown in zip(rows.pairs, pairs, strict=True)
        if shown.flipped and not shown.excluded and shown.part == PICTURE
    }
    ids = {item: rows.items[item].record.example.id for item in flips}
    ranked = sorted(flips, key=lambda item: (-signals[ids[item]][Feature.FLIP_RATE], ids[item]))
    return _examples(
        rows,
        pairs,
        ranked[:SHOWN],
        lambda pair: pair.flipped and not pair.excluded and pair.part == PICTURE,
    )


def same_answer_moved_far(
    rows: AuditRows, pairs: Sequence[AuditedPair]
) -> tuple[ShownExample, ...]:
    """Questions with flagged pairs, the furthest first."""
    furthest: dict[int, float] = {}
    for pair, shown in zip(rows.pairs, pairs, strict=True):
        if shown.moved_far and shown.drift is not None:
            furthest[pair.item] = max(furthest.get(pair.item, 0.0), shown.drift)
    ranked = sorted(furthest, key=lambda i: (-furthest[i], rows.items[i].record.example.id))
    return _examples(rows, pairs, ranked[:SHOWN], lambda pair: pair.moved_far)


def sheet(rows: AuditRows, pairs: Sequence[AuditedPair]) -> tuple[ShownExample, ...]:
    """The first question of each of the first pictures, with all its pairs."""
    first: dict[int, int] = {}
    for number, item in enumerate(rows.items):
        if len(item.record.example.images) == 1:
            first.setdefault(item.image, number)
    return _examples(rows, pairs, [*first.values()][:SHEETS], lambda _pair: True)


def maps(store: RunStore, shown: Iterable[ShownExample], kinds: int = 5) -> tuple[ShownMap, ...]:
    """Energy maps of the first shown questions that have some.

    Of each: clean, and under the first condition of some types.

    Args:
        store: The run.
        shown: Questions, those that matter most first.
        kinds: Types of perturbation.
    """
    wanted: dict[str, list[str]] = {}
    for example in shown:
        if example.example_id in wanted:
            continue
        first: dict[str, str] = {}
        for pair in example.pairs:
            first.setdefault(pair.kind, pair.condition)
        wanted[example.example_id] = [CLEAN, *list(first.values())[:kinds]]
    found: dict[tuple[str, str], ShownMap] = {}
    for record in store.records(features={Feature.ENERGY_MAP}):
        if record.condition in wanted.get(record.example.id, ()) and record.has(Feature.ENERGY_MAP):
            grid = record.array(Feature.ENERGY_MAP).astype(np.float64)
            found[record.example.id, record.condition] = ShownMap(
                record.example.id,
                record.condition,
                tuple(tuple(round(float(v), 6) for v in line) for line in grid),
            )
    return tuple(
        found[example_id, condition]
        for example_id in [i for i in wanted if (i, CLEAN) in found][:SHEETS]
        for condition in wanted[example_id]
        if (example_id, condition) in found
    )


def _examples(
    rows: AuditRows,
    pairs: Sequence[AuditedPair],
    wanted: Sequence[int],
    keep: Callable[[AuditedPair], bool],
) -> tuple[ShownExample, ...]:
    """Questions with their kept pairs, by family and level."""
    of_item: dict[int, list[AuditedPair]] = defaultdict(list)
    for pair, shown in zip(rows.pairs, pairs, strict=True):
        if keep(shown):
            of_item[pair.item].append(shown)
    found = []
    for number in wanted:
        example = rows.items[number].record.example
        image = example.images[0] if example.images else None
        found.append(
            ShownExample(
                example_id=example.id,
                question=example.question,
                references=example.references,
                image="" if image is None else image.path,
                image_sha256="" if image is None else image.sha256,
                clean_answer=rows.items[number].record.answer.text,
                pairs=tuple(sorted(of_item[number], key=lambda pair: by_level(pair.condition))),
            )
        )
    return tuple(found)


def _flag(value: float) -> bool | None:
    return bool(value) if np.isfinite(value) else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
