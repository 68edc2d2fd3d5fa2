"""Array shapes and argument types of the numeric floors are checked while their tests run."""

from __future__ import annotations

import os

from jaxtyping import install_import_hook

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

install_import_hook(
    [
        "sightline.core",
        "sightline.metrics",
        "sightline.calibration",
        "sightline.estimators",
        "sightline.zeroshot",
        "sightline.audit",
    ],
    "beartype.beartype",
)
