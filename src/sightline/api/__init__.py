"""The verbs as Python functions: what the command line calls, and what scripts call.

The README shows them at work; `tests/e2e/test_readme.py` runs what it shows. All but `audit`,
whose name is that of a package there, stand in `sightline` too.
"""

from sightline.api.auditing import audit
from sightline.api.classifying import classify, rerank
from sightline.api.judging import (
    evaluate,
    fit,
    import_file,
    import_labels,
    write_report,
)
from sightline.api.observing import collect, derive
from sightline.api.policies import apply_policy, ask, calibrate, load_policy

__all__ = [
    "apply_policy",
    "ask",
    "audit",
    "calibrate",
    "classify",
    "collect",
    "derive",
    "evaluate",
    "fit",
    "import_file",
    "import_labels",
    "load_policy",
    "rerank",
    "write_report",
]
