"""Every error the library raises on purpose, each with the exit code the command line ends with.

A message reads: ``{what was found, and where}; {what is required}. {what to do}.`` on one line.
Anything that is not a `SightlineError` is a bug: it shows its traceback and exits 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class SightlineError(Exception):
    """Something the user can understand and act on."""

    exit_code = 1


class UsageError(SightlineError):
    """A flag, setting or argument that cannot be used as given."""

    exit_code = 2


class DataError(UsageError):
    """A file or value from outside that does not have the required form."""


class MissingExtraError(UsageError):
    """A feature whose optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{package} is not installed; {purpose} requires it. "
            f"Run: pip install 'sightline[{extra}]'."
        )


class MissingFeatureError(UsageError):
    """A signal that was not observed, asked for by something that needs it."""


class UnscorableError(DataError):
    """Records that an estimator cannot score although they show every signal it needs.

    Attributes:
        rows: Indices of all such records among those it was given.
        reason: Why, in words that fit all of them; rows are counted by it.
    """

    def __init__(self, rows: Sequence[int], reason: str, remedy: str) -> None:
        super().__init__(f"{len(rows)} records with {reason}. {remedy}")
        self.rows = tuple(rows)
        self.reason = reason


class LeakageError(UsageError):
    """Rows of one group on both sides of a split that must keep groups apart."""


class AntiInformativeError(SightlineError):
    """A score that ranks wrong answers above right ones beyond chance on the calibration rows."""


class UndefinedMetricError(SightlineError):
    """A metric that has no value on the given rows, such as AUROC where every answer is right.

    Attributes:
        reason: Why, in words; what an `Estimate` without a value carries.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ModelError(SightlineError):
    """A model that failed on the given input; the example is quarantined, not the run."""


class UnreadableError(ModelError):
    """Questions of a batch that the model cannot read, found before it has read any.

    Attributes:
        code: What is wrong with them: ``special_token`` or ``context_length_exceeded``.
        reasons: Why, in one line, by row of the batch; the other rows can be asked without these.
    """

    def __init__(self, code: str, reasons: Mapping[int, str]) -> None:
        super().__init__(next(iter(reasons.values())))
        self.code = code
        self.reasons = reasons

    def among(self, rows: Sequence[int]) -> UnreadableError:
        """The same where the batch was these rows of a larger one."""
        return UnreadableError(self.code, {rows[row]: why for row, why in self.reasons.items()})


class OutOfMemoryError(ModelError):
    """A batch that did not fit in memory; the caller halves it and tries again."""


class EndpointError(SightlineError):
    """A server of a model that cannot be asked at all; what was collected stays, and goes on."""


class ImageError(DataError):
    """An image that cannot be read, or that breaks the limits."""


class GateFailedError(SightlineError):
    """A measured figure that misses the threshold the user asked to enforce."""

    exit_code = 3


class StoreError(SightlineError):
    """A run directory that cannot be used as asked (locked, other settings, wrong version)."""

    exit_code = 2


class SettingsDifferError(StoreError):
    """A run that was made with other settings or other examples than it is now asked for."""


class CorruptStoreError(StoreError):
    """Stored bytes that do not match their checksum or schema; they are never used."""

    exit_code = 5


class DiskError(SightlineError):
    """A file operation the operating system refused: disk full, read-only or failing."""
