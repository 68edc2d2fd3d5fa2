"""Know when a vision-language model can be trusted.

The verbs of the command line as functions: `collect`, `classify`, `import_file`, `evaluate`, `fit`,
`calibrate`, `ask`, `write_report` and others; `sightline.api` has `audit` too, whose name here is a
package's.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    **dict.fromkeys(
        (
            *("collect", "classify", "rerank", "derive", "evaluate", "fit"),
            *("calibrate", "load_policy", "apply_policy", "ask", "write_report"),
            *("import_file", "import_labels"),
        ),
        "sightline.api",
    ),
    "Settings": "sightline.workflow.evaluate",
    "Evaluation": "sightline.core.results",
    "Decision": "sightline.workflow.policy",
    "TrustPolicy": "sightline.workflow.policy",
    "RunStore": "sightline.store.run",
    "SightlineError": "sightline.core.errors",
}

__all__ = [
    "Decision",
    "Evaluation",
    "RunStore",
    "Settings",
    "SightlineError",
    "TrustPolicy",
    "__version__",
    "apply_policy",
    "ask",
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

if TYPE_CHECKING:
    from sightline.api import (
        apply_policy,
        ask,
        calibrate,
        classify,
        collect,
        derive,
        evaluate,
        fit,
        import_file,
        import_labels,
        load_policy,
        rerank,
        write_report,
    )
    from sightline.core.errors import SightlineError
    from sightline.core.results import Evaluation
    from sightline.store.run import RunStore
    from sightline.workflow.evaluate import Settings
    from sightline.workflow.policy import Decision, TrustPolicy


def __getattr__(name: str) -> Any:
    """Imports an exported name when it is first used, so that importing the package is fast."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'sightline' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
