"""Counting what the server does, and saying it in Prometheus' text format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of the histogram of seconds."""


@dataclass(slots=True)
class Histogram:
    """Seconds by `BOUNDS_S`; the last bucket has no bound."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Counts one duration."""
        at = next((i for i, bound in enumerate(BOUNDS_S) if seconds <= bound), len(BOUNDS_S))
        self.buckets[at] += 1
        self.total += seconds


@dataclass(slots=True)
class Counters:
    """Everything counted since the start; labels come from closed sets, never from clients."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: dict[str, Histogram] = field(default_factory=dict)
    decisions: Counter[str] = field(default_factory=Counter)
    active: int = 0
    waiting: int = 0

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Counts one answer."""
        self.requests[path, status] += 1
        self.seconds.setdefault(path, Histogram()).add(seconds)

    def judged(self, trust: Mapping[str, object]) -> None:
        """Counts one answer's trust."""
        if trust["confidence"] is None:
            self.decisions["no_confidence"] += 1
        else:
            self.decisions["abstained" if trust["abstain"] else "accepted"] += 1

    def text(self, gauges: Mapping[str, float | None]) -> str:
        """Returns all counters in the text format.

        Args:
            gauges: Further values by metric name without prefix; None where there is none.
        """
        lines = [
            *_metric("requests_total", "counter", "Answers by path and status."),
            *(
                f'sightline_requests_total{{path="{path}",status="{status}"}} {count}'
                for (path, status), count in sorted(self.requests.items())
            ),
            *_metric("request_seconds", "histogram", "Seconds from headers to the last byte."),
            *(line for path in sorted(self.seconds) for line in self._histogram(path)),
            *_metric("answers_total", "counter", "Answers by what the policy says of them."),
            *(
                f'sightline_answers_total{{decision="{name}"}} {count}'
                for name, count in sorted(self.decisions.items())
            ),
        ]
        for name, value in (("active", self.active), ("waiting", self.waiting), *gauges.items()):
            if value is not None:
                kind = "counter" if name.endswith("_total") else "gauge"
                lines += [*_metric(name, kind, _HELP.get(name, name)), f"sightline_{name} {value}"]
        return "\n".join(lines) + "\n"

    def _histogram(self, path: str) -> Sequence[str]:
        histogram = self.seconds[path]
        lines, count = [], 0
        for bound, own in zip([*map(str, BOUNDS_S), "+Inf"], histogram.buckets, strict=True):
            count += own
            label = f'path="{path}",le="{bound}"'
            lines.append(f"sightline_request_seconds_bucket{{{label}}} {count}")
        name = f'{{path="{path}"}}'
        return [
            *lines,
            f"sightline_request_seconds_sum{name} {histogram.total}",
            f"sightline_request_seconds_count{name} {count}",
        ]


_HELP = {
    "active": "Requests being worked on.",
    "waiting": "Requests that wait for a place.",
    "engine_queue": "Questions that wait for the model.",
    "engine_batches_total": "Batches observed.",
    "engine_observed_total": "Questions observed.",
    "engine_dropped_total": "Questions dropped unobserved: cancelled or past their deadline.",
    "engine_busy_seconds_total": "Seconds the model worked.",
    "upstream_verified": "1 once the upstream was found to be the policy's, else 0.",
    "upstream_samples_failed_total": "Answers without confidence since their samples failed.",
    "feedback_total": "Graded outcomes kept.",
    "feedback_e_value": "Evidence against the confidences being calibrated; 1 is none.",
    "feedback_recalibrate": "1 once the evidence says to recalibrate, else 0.",
}


def _metric(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP sightline_{name} {text}", f"# TYPE sightline_{name} {kind}"
