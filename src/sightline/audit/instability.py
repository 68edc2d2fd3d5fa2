"""How often answers change under perturbation: flips, transitions, visual entropy.

A *pair* is one answer under one perturbation beside the answer to the clean picture. Pairs whose
right answer may change with the picture are excluded from every figure, and counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from sightline.audit.resampled import Clusters, Ratio
from sightline.core.errors import DataError
from sightline.core.estimates import Estimate
from sightline.core.results import Skipped

NO_TRUTH = "no pair has a known right answer"
TRUTH_CHANGES = "the right answer changes under the perturbation"
TRUTH_UNKNOWN = "whether the right answer stays is not known"


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Perturbed answers beside clean ones.

    Attributes:
        images: Image of each pair; pairs that share one are not independent.
        items: Item of each pair: one question about one picture.
        flipped: Whether the answer changed.
        right_before: Whether the clean answer is right; False where that is not known.
        right_after: The same for the perturbed answer.
        graded: Whether both are known.
        excluded: Why the pair does not count, in words; empty where it counts.
    """

    images: Int[np.ndarray, " n"]
    items: Int[np.ndarray, " n"]
    flipped: Bool[np.ndarray, " n"]
    right_before: Bool[np.ndarray, " n"]
    right_after: Bool[np.ndarray, " n"]
    graded: Bool[np.ndarray, " n"]
    excluded: Shaped[np.ndarray, " n"]

    @staticmethod
    def of_labels(
        images: Int[np.ndarray, " n"],
        items: Int[np.ndarray, " n"],
        clean: Int[np.ndarray, " n"],
        perturbed: Int[np.ndarray, " n"],
        truth: Int[np.ndarray, " n"],
        excluded: Shaped[np.ndarray, " n"] | None = None,
    ) -> Pairs:
        """Pairs of labels: option numbers, or 0 and 1 for no and yes.

        Args:
            images: Image of each pair.
            items: Item of each pair.
            clean: Label of the clean picture.
            perturbed: Label of the perturbed picture.
            truth: The right label, or -1 where it is not known.
            excluded: Why a pair does not count, empty where it does; None if all count.

        Raises:
            DataError: Lengths differ, or an item has two clean labels or two images.
        """
        _one_per_item(items, clean, "clean labels")
        known = truth >= 0
        return Pairs._checked(
            images,
            items,
            flipped=clean != perturbed,
            before=(clean == truth) & known,
            after=(perturbed == truth) & known,
            graded=known,
            excluded=excluded,
        )

    @staticmethod
    def of_grades(
        images: Int[np.ndarray, " n"],
        items: Int[np.ndarray, " n"],
        before: Float[np.ndarray, " n"],
        after: Float[np.ndarray, " n"],
        *,
        threshold: float = 0.5,
        excluded: Shaped[np.ndarray, " n"] | None = None,
    ) -> Pairs:
        """Pairs of free answers that a grader has marked: a flip is a change of right or wrong.

        Two different wrong answers are no flip here; `of_meaning` sees them.

        Args:
            images: Image of each pair.
            items: Item of each pair.
            before: Mark of the clean answer, in [0, 1].
            after: Mark of the perturbed answer.
            threshold: An answer counts as right when its mark reaches it.
            excluded: As for `of_labels`.

        Raises:
            DataError: Lengths differ, a mark is not in [0, 1], or an item has two clean marks or
                two images.
        """
        _require_marks(before, after)
        _one_per_item(items, before, "clean marks")
        right_before, right_after = before >= threshold, after >= threshold
        return Pairs._checked(
            images,
            items,
            flipped=right_before != right_after,
            before=right_before,
            after=right_after,
            graded=np.ones(len(items), dtype=bool),
            excluded=excluded,
        )

    @staticmethod
    def of_meaning(
        images: Int[np.ndarray, " n"],
        items: Int[np.ndarray, " n"],
        same_meaning: Bool[np.ndarray, " n"],
        before: Float[np.ndarray, " n"] | None = None,
        after: Float[np.ndarray, " n"] | None = None,
        *,
        threshold: float = 0.5,
        excluded: Shaped[np.ndarray, " n"] | None = None,
    ) -> Pairs:
        """Pairs of free answers compared with one another: a flip is another meaning.

        Args:
            images: Image of each pair.
            items: Item of each pair.
            same_meaning: Whether the perturbed answer means what the clean one does.
            before: Mark of the clean answer, in [0, 1]; None if answers were not graded.
            after: Mark of the perturbed answer.
            threshold: An answer counts as right when its mark reaches it.
            excluded: As for `of_labels`.

        Raises:
            DataError: Lengths differ, a mark is not in [0, 1], or an item has two images.
        """
        _require_marks(*(marks for marks in (before, after) if marks is not None))
        graded = before is not None and after is not None
        unknown = np.zeros(len(items), dtype=bool)
        return Pairs._checked(
            images,
            items,
            flipped=~same_meaning,
            before=unknown if before is None or not graded else before >= threshold,
            after=unknown if after is None or not graded else after >= threshold,
            graded=~unknown if graded else unknown,
            excluded=excluded,
        )

    @staticmethod
    def _checked(
        images: Int[np.ndarray, " n"],
        items: Int[np.ndarray, " n"],
        *,
        flipped: Bool[np.ndarray, " n"],
        before: Bool[np.ndarray, " n"],
        after: Bool[np.ndarray, " n"],
        graded: Bool[np.ndarray, " n"],
        excluded: Shaped[np.ndarray, " n"] | None,
    ) -> Pairs:
        reasons = np.full(len(items), "") if excluded is None else excluded
        lengths = {len(images), len(items), len(flipped), len(before), len(after), len(reasons)}
        if len(lengths) > 1:
            raise DataError(
                f"Pairs have columns of {sorted(lengths)} rows; one row per pair in each is "
                "required. Align them by key first."
            )
        _one_per_item(items, images, "images")
        return Pairs(images, items, flipped, before, after, graded, reasons)

    def where(self, rows: Bool[np.ndarray, " n"]) -> Pairs:
        """Some of the pairs, such as those of one type of perturbation."""
        return replace(
            self,
            images=self.images[rows],
            items=self.items[rows],
            flipped=self.flipped[rows],
            right_before=self.right_before[rows],
            right_after=self.right_after[rows],
            graded=self.graded[rows],
            excluded=self.excluded[rows],
        )

    @property
    def counted(self) -> Bool[np.ndarray, " n"]:
        """Whether each pair counts."""
        return np.asarray(self.excluded == "")

    def exclusions(self) -> tuple[Skipped, ...]:
        """Pairs that do not count, by reason, the commonest first."""
        reasons, n = np.unique(self.excluded[~self.counted], return_counts=True)
        order = np.lexsort((reasons, -n))
        return tuple(Skipped(str(reasons[i]), int(n[i])) for i in order)


@dataclass(frozen=True, slots=True)
class Transitions:
    """Graded pairs by whether the answer was right before and after."""

    right_right: int
    right_wrong: int
    wrong_right: int
    wrong_wrong: int


@dataclass(frozen=True, slots=True)
class Instability:
    """How often the answers of some pairs change; every rate on the pairs that count.

    Attributes:
        pairs: Pairs that count.
        items: Their items.
        excluded: Pairs that do not count, by reason.
        ifr: Share of pairs whose answer flipped (instance flip rate).
        iv: Share of items with at least one flip (image vulnerability).
        transitions: Counts of graded pairs.
        lost: Of the pairs that were right, the share that became wrong: R→W/(R→W+R→R).
        won: Of the pairs that were wrong, the share that became right: W→R/(W→R+W→W).
        accuracy_before: Share of graded pairs whose clean answer is right; an item counts as often
            as it has pairs, so that before and after are on the same rows.
        accuracy_after: Share of graded pairs whose perturbed answer is right.
        accuracy_change: After less before, on the same resamples; negative = worse.
    """

    pairs: int
    items: int
    excluded: tuple[Skipped, ...]
    ifr: Estimate
    iv: Estimate
    transitions: Transitions
    lost: Estimate
    won: Estimate
    accuracy_before: Estimate
    accuracy_after: Estimate
    accuracy_change: Estimate


def instability(pairs: Pairs, clusters: Clusters) -> Instability:
    """Flip rates, transitions and accuracies of pairs, with intervals over images.

    Args:
        pairs: Pairs of one type of perturbation, or of all.
        clusters: Resamples of the images.

    Raises:
        DataError: An image the clusters were not drawn from.

    Source:
        arXiv 2602.06652: IFR and IV, AVg and Ve in its code. There accuracy before is over items;
        ours counts the same pairs before and after, which differs where items lose some pairs.
    """
    used = pairs.where(pairs.counted)
    images, graded = used.images, used.graded
    before, after = used.right_before & graded, used.right_after & graded
    items, first = np.unique(used.items, return_index=True)
    flips = np.bincount(np.searchsorted(items, used.items), used.flipped, minlength=len(items))
    return Instability(
        pairs=len(images),
        items=len(items),
        excluded=pairs.exclusions(),
        ifr=clusters.share(images, used.flipped),
        iv=clusters.share(images[first], flips > 0),
        transitions=Transitions(
            right_right=int((before & after).sum()),
            right_wrong=int((before & ~after).sum()),
            wrong_right=int((graded & ~before & after).sum()),
            wrong_wrong=int((graded & ~before & ~after).sum()),
        ),
        lost=clusters.share(images, ~after, before, undefined="no clean answer is right"),
        won=clusters.share(images, after, graded & ~before, undefined="no clean answer is wrong"),
        accuracy_before=clusters.share(images, before, graded, undefined=NO_TRUTH),
        accuracy_after=clusters.share(images, after, graded, undefined=NO_TRUTH),
        accuracy_change=clusters.ratio(
            Ratio(images, after * 1.0 - before, graded * 1.0),
            n=int(graded.sum()),
            undefined=NO_TRUTH,
            bounds=(-1.0, 1.0),
        ),
    )


def visual_entropy(
    items: Int[np.ndarray, " n"],
    clean: Int[np.ndarray, " n"],
    perturbed: Int[np.ndarray, " n"],
) -> tuple[Int[np.ndarray, " i"], Float[np.ndarray, " i"]]:
    """Entropy of the labels an item is given, over its clean and all its perturbed pictures.

    Args:
        items: Item of each perturbed answer that counts.
        clean: Label of the item's clean picture; the same in all its rows.
        perturbed: Label of the perturbed picture, or cluster of meaning; any integers.

    Returns:
        The items, ascending, and their entropy in nats: 0 = one label throughout, at most the
        logarithm of the number of pictures.

    Raises:
        DataError: An item with two clean labels.

    Source:
        arXiv 2602.06652 (H_v).

    Example:
        >>> seen = visual_entropy(np.array([7, 7, 7]), np.array([0, 0, 0]), np.array([0, 1, 1]))
        >>> seen[1].round(4)
        array([0.6931])
    """
    _one_per_item(items, clean, "clean labels")
    found, first = np.unique(items, return_index=True)
    every_item = np.concatenate([found, items])
    every_label = np.concatenate([clean[first], perturbed])
    cells, counts = np.unique(np.stack([every_item, every_label]), axis=1, return_counts=True)
    item = np.searchsorted(found, cells[0])
    share = counts / np.bincount(item, counts)[item]
    entropy = np.bincount(item, -share * np.log(share), minlength=len(found))
    return found, np.maximum(entropy, 0.0)


def mean_visual_entropy(
    pairs: Pairs,
    clean: Int[np.ndarray, " n"],
    perturbed: Int[np.ndarray, " n"],
    clusters: Clusters,
) -> Estimate:
    """Mean `visual_entropy` over items, in nats, of the pairs that count.

    Raises:
        DataError: As `visual_entropy`, or an image the clusters were not drawn from.
    """
    used = pairs.counted
    items, entropy = visual_entropy(pairs.items[used], clean[used], perturbed[used])
    found, first = np.unique(pairs.items[used], return_index=True)
    return clusters.mean(pairs.images[used][first], entropy[np.searchsorted(items, found)])


def _require_marks(*columns: Float[np.ndarray, " n"]) -> None:
    for marks in columns:
        outside = ~((marks >= 0) & (marks <= 1))
        if outside.any():
            raise DataError(
                f"{int(outside.sum())} marks are not in [0, 1], such as {marks[outside][0]}; "
                "correctness from 0 to 1 is required. Exclude pairs that were not graded."
            )


def _one_per_item(
    items: Int[np.ndarray, " n"], values: Shaped[np.ndarray, " n"], what: str
) -> None:
    if len(items) != len(values):
        raise DataError(
            f"{len(items)} items with {len(values)} {what}; one per pair is required. Align them "
            "by key first."
        )
    _, first, place = np.unique(items, return_index=True, return_inverse=True)
    differs = values != values[first][place] if len(items) else np.zeros(0, dtype=bool)
    if differs.any():
        raise DataError(
            f"Item {items[differs][0]} has several {what}; one is required. Number the items by "
            "question and picture."
        )
