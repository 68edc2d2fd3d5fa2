"""Know when a vision-language model can be trusted.

The verbs of the command line as functions: `collect`, `import_file`, `evaluate`, `fit`,
`write_report`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "collect": "sightline.api",
    "evaluate": "sightline.api",
    "fit": "sightline.api",
    "calibrate": "sightline.api_policies",
    "load_policy": "sightline.api_policies",
    "apply_policy": "sightline.api_policies",
    "ask": "sightline.api_policies",
    "write_report": "sightline.api",
    "import_file": "sightline.api",
    "import_labels": "sightline.api",
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
    "collect",
    "evaluate",
    "fit",
    "import_file",
    "import_labels",
    "load_policy",
    "write_report",
]

if TYPE_CHECKING:
    from sightline.api import collect, evaluate, fit, import_file, import_labels, write_report
    from sightline.api_policies import apply_policy, ask, calibrate, load_policy
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
