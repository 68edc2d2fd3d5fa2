"""Plain metric functions and their intervals; `METRICS` is the one table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

import numpy as np
from jaxtyping import Float

from sightline.metrics import calibration_error as calibration
from sightline.metrics import discrimination, operating_points, proper_scores, selective
from sightline.metrics.ranked import Ranked

BinGaps = Callable[[Ranked], Float[np.ndarray, " g"]]
"""Mean of correctness less confidence in the bin that each level is in."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: how to compute, read and bound it.

    Attributes:
        function: Plain form ``(confidence, correct) -> float``; raises `UndefinedMetricError`.
        weighted: The same over levels under many weightings; NaN where not defined.
        direction: Which way is better.
        input: ``ranking`` takes any score, ``probability`` a calibrated confidence in [0, 1].
        smallest_n: Rows below which the figure says too little to be shown.
        source: Where the definition is from; details in the function's documentation.
        binary: Whether correctness must be 0 or 1.
        bin_gaps: For a calibration error: mean gap of the bin each level is in, which its interval
            needs; see `sightline.metrics.intervals.cluster_bootstrap`.
        bounds: Smallest and largest possible value.
        undefined: Why it can lack a value where rows are enough.
        undefined_by_scores: Whether scores, not only correctness, can be why.
    """

    function: Callable[..., float]
    weighted: Callable[[Ranked], Float[np.ndarray, " b"]]
    direction: Literal["higher", "lower"]
    input: Literal["ranking", "probability"]
    smallest_n: int
    source: str
    binary: bool = False
    bin_gaps: BinGaps | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    undefined: str = "there are no rows"
    undefined_by_scores: bool = False


_INFINITY = float("inf")

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "auroc": Metric(
            discrimination.auroc,
            discrimination.auroc_levels,
            "higher",
            "ranking",
            10,
            "Mann and Whitney 1947",
            binary=True,
            undefined=discrimination.ONE_CLASS,
        ),
        "aupr_right": Metric(
            discrimination.aupr_right,
            discrimination.aupr_right_levels,
            "higher",
            "ranking",
            10,
            "average precision, right = positive",
            binary=True,
            undefined=discrimination.ONE_CLASS,
        ),
        "aupr_wrong": Metric(
            discrimination.aupr_wrong,
            discrimination.aupr_wrong_levels,
            "higher",
            "ranking",
            10,
            "average precision, wrong = positive",
            binary=True,
            undefined=discrimination.ONE_CLASS,
        ),
        "fpr95": Metric(
            discrimination.fpr95,
            discrimination.fpr95_levels,
            "lower",
            "ranking",
            20,
            "Hendrycks and Gimpel 2017, right = positive",
            binary=True,
            undefined=discrimination.ONE_CLASS,
        ),
        "cohens_d": Metric(
            discrimination.cohens_d,
            discrimination.cohens_d_levels,
            "higher",
            "ranking",
            10,
            "Cohen 1988",
            binary=True,
            bounds=(-_INFINITY, _INFINITY),
            undefined=discrimination.NO_CLASS_SPREAD,
            undefined_by_scores=True,
        ),
        "prr": Metric(
            selective.prr,
            selective.prr_levels,
            "higher",
            "ranking",
            10,
            "Malinin and Gales 2021",
            bounds=(-_INFINITY, 1.0),
            undefined=selective.NO_SPREAD,
        ),
        "aurc": Metric(
            selective.aurc,
            selective.aurc_levels,
            "lower",
            "ranking",
            10,
            "Geifman and El-Yaniv 2017, mean of risks",
        ),
        "e_aurc": Metric(
            selective.e_aurc,
            selective.e_aurc_levels,
            "lower",
            "ranking",
            10,
            "Geifman et al. 2019, finite-n ideal",
        ),
        "augrc": Metric(
            selective.augrc, selective.augrc_levels, "lower", "ranking", 10, "Traub et al. 2024"
        ),
        "auarc": Metric(
            selective.auarc, selective.auarc_levels, "higher", "ranking", 10, "Nadeem et al. 2009"
        ),
        "risk_at_coverage": Metric(
            operating_points.risk_at_coverage,
            operating_points.risk_at_coverage_levels,
            "lower",
            "ranking",
            10,
            "El-Yaniv and Wiener 2010, at coverage 0.8",
        ),
        "coverage_at_risk": Metric(
            operating_points.coverage_at_risk,
            operating_points.coverage_at_risk_levels,
            "higher",
            "ranking",
            20,
            "El-Yaniv and Wiener 2010, at risk 0.05",
        ),
        "accuracy": Metric(
            selective.accuracy,
            selective.accuracy_levels,
            "higher",
            "ranking",
            1,
            "mean correctness; does not depend on confidence",
        ),
        "ece": Metric(
            calibration.ece,
            calibration.ece_levels,
            "lower",
            "probability",
            50,
            "Naeini et al. 2015, 10 bins of equal width",
            bin_gaps=calibration.width_bin_gaps,
        ),
        "ece15": Metric(
            calibration.ece15,
            calibration.ece15_levels,
            "lower",
            "probability",
            75,
            "Naeini et al. 2015, 15 bins of equal width",
            bin_gaps=partial(calibration.width_bin_gaps, n_bins=15),
        ),
        "ece_mass": Metric(
            calibration.ece_mass,
            calibration.ece_mass_levels,
            "lower",
            "probability",
            50,
            "Nguyen and O'Connor 2015, 10 bins of equal mass",
            bin_gaps=calibration.mass_bin_gaps,
        ),
        "ece_debiased": Metric(
            calibration.ece_debiased,
            calibration.ece_debiased_levels,
            "lower",
            "probability",
            50,
            "Kumar et al. 2019, 10 bins of equal width",
            bin_gaps=calibration.width_bin_gaps,
            bounds=(-1.0, 1.0),
        ),
        "ace": Metric(
            calibration.ace,
            calibration.ace_levels,
            "lower",
            "probability",
            75,
            "Nixon et al. 2019, 15 ranges",
            bin_gaps=partial(calibration.mass_bin_gaps, n_bins=15),
        ),
        "mce": Metric(
            calibration.mce,
            calibration.mce_levels,
            "lower",
            "probability",
            100,
            "Naeini et al. 2015, 10 bins of equal width",
            bin_gaps=calibration.width_bin_gaps,
        ),
        "brier": Metric(
            proper_scores.brier,
            proper_scores.brier_levels,
            "lower",
            "probability",
            10,
            "Brier 1950, one probability",
        ),
        "brier_skill": Metric(
            proper_scores.brier_skill,
            proper_scores.brier_skill_levels,
            "higher",
            "probability",
            10,
            "Murphy 1973, against the base rate of the same rows",
            bounds=(-_INFINITY, 1.0),
            undefined=selective.NO_SPREAD,
        ),
        "nll": Metric(
            proper_scores.nll,
            proper_scores.nll_levels,
            "lower",
            "probability",
            10,
            "Good 1952, nats",
            bounds=(0.0, _INFINITY),
            undefined=proper_scores.INFINITE_LOSS,
            undefined_by_scores=True,
        ),
    }
)
"""Every metric by name. The figures of `cluster_bootstrap` are named by these keys."""
