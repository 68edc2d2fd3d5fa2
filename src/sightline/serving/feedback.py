"""Graded outcomes on disk: acknowledged only when synced, and read back after any crash.

One directory holds ``outcomes.jsonl``, one line per outcome that begins with the checksum of the
rest, and ``receipt.key``, with which the server signs what it said, so that a client can hand back
the confidence of its answer and cannot invent one. A last line that a crash cut short has no end
and was never acknowledged; it is dropped when the directory is opened.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import json
import logging
import os
import queue
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash

from sightline.core.errors import CorruptStoreError, DiskError, StoreError
from sightline.serving.drift import CalibrationWatch
from sightline.serving.errors import RequestError
from sightline.store.disk import disk_errors, write_file

OUTCOMES, KEY = "outcomes.jsonl", "receipt.key"
_VERSION = "r1"
_LOG = logging.getLogger("sightline.serving")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One graded answer.

    Attributes:
        answer: Id of the answer and index of the choice.
        confidence: As it was stated.
        policy: Digest of what made it.
        correct: 1 = right, 0 = wrong.
        note: The client's note, or None.
        time: Unix time at which it was kept.
    """

    answer: str
    confidence: float
    policy: str
    correct: float
    note: str | None
    time: float


class FeedbackStore:
    """Keeps outcomes and watches the calibration of one policy.

    Args:
        directory: Made if missing; one server at a time.
        policy: Digest of the policy that serves; outcomes of others are kept, not watched.

    Raises:
        StoreError: Another server uses the directory.
        CorruptStoreError: A line that has its end is damaged.
        DiskError: The operating system refused.
    """

    def __init__(self, directory: Path, policy: str) -> None:
        self._policy = policy
        self.watch = CalibrationWatch()
        self.kept = 0
        self._seen: dict[bytes, float] = {}
        self._path = directory / OUTCOMES
        with disk_errors(f"Opening {directory}"):
            directory.mkdir(parents=True, exist_ok=True)
            self._file = os.open(
                self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
            )
            with ExitStack() as undo:
                undo.callback(os.close, self._file)
                self._open(directory)
                undo.pop_all()
        self._queue: queue.SimpleQueue[tuple[Outcome, Future[bool]] | None] = queue.SimpleQueue()
        self._failed: str | None = None
        self._thread = threading.Thread(target=self._write, name="sightline-feedback", daemon=True)
        self._thread.start()

    def _open(self, directory: Path) -> None:
        """Takes the directory for this server alone and reads what it keeps."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"{directory} is in use by another server; a feedback directory of its own is "
                "required. Name another with --feedback."
            ) from None
        # Behind the lock: one who starts beside us would replace the key that we have read.
        self._key = _key(directory / KEY)
        for outcome in self._recovered():
            self._note(outcome)

    def receipt(self, answer: str, confidence: float) -> str:
        """Signs what was said of an answer; anyone can read it, only this server can write it."""
        said = json.dumps([_VERSION, answer, confidence, self._policy]).encode()
        return f"{_text(said)}.{_text(self._signature(said))}"

    async def add(self, receipt: str, correct: float, note: str | None) -> bool:
        """Keeps an outcome; synced to disk on return.

        Returns:
            Whether it is new; the same outcome of the same answer is kept once.

        Raises:
            RequestError: The receipt is not this server's (400), the answer was graded otherwise
                (409), or the disk refuses (503).
        """
        import asyncio

        answer, confidence, policy = self._read(receipt)
        outcome = Outcome(answer, confidence, policy, correct, note, time.time())
        done: Future[bool] = Future()
        self._queue.put((outcome, done))
        return await asyncio.wrap_future(done)

    def close(self) -> None:
        """Writes what waits and lets the directory go."""
        self._queue.put(None)
        self._thread.join()
        os.close(self._file)

    def _read(self, receipt: str) -> tuple[str, float, str]:
        said, _, signature = receipt.partition(".")
        try:
            content, signed = _bytes(said), _bytes(signature)
        except ValueError:
            content, signed = b"", b""
        if not content or not hmac.compare_digest(self._signature(content), signed):
            raise RequestError(
                "The receipt is not one of this server's; choices[i].trust.receipt of an answer is "
                "required. Send it unchanged.",
                param="receipt",
                code="invalid_receipt",
            )
        _, answer, confidence, policy = json.loads(content)
        return answer, confidence, policy

    def _signature(self, said: bytes) -> bytes:
        return hmac.digest(self._key, said, "sha256")[:16]

    def _write(self) -> None:
        """Writes outcomes in order; those that came meanwhile share a sync."""
        while True:
            entry = self._queue.get()
            batch = []
            while entry is not None:
                batch.append(entry)
                try:
                    entry = self._queue.get_nowait()
                except queue.Empty:
                    break
            if batch:
                self._commit(batch)
            if entry is None:
                return

    def _commit(self, batch: list[tuple[Outcome, Future[bool]]]) -> None:
        fresh: dict[bytes, tuple[Outcome, Future[bool]]] = {}
        again: list[tuple[Future[bool], bytes, float]] = []
        for outcome, done in batch:
            name = _digest(outcome.answer)
            if name in self._seen or name in fresh:
                again.append((done, name, outcome.correct))
            else:
                fresh[name] = outcome, done
        try:
            if fresh:
                self._append([outcome for outcome, _ in fresh.values()])
        except DiskError as error:
            _LOG.error("%s", error)  # it names paths, which are nobody else's
            refusal = _not_kept()
            for done in [*(done for _, done in fresh.values()), *(done for done, _, _ in again)]:
                done.set_exception(refusal)
            return
        for outcome, done in fresh.values():
            self._note(outcome)
            done.set_result(True)
        for done, name, correct in again:
            if self._seen[name] == correct:
                done.set_result(False)
            else:
                done.set_exception(_graded_otherwise(self._seen[name]))

    def _append(self, outcomes: list[Outcome]) -> None:
        data = b"".join(_line(outcome) for outcome in outcomes)
        with disk_errors(f"Writing {self._path}"):
            if self._failed is not None:
                raise OSError(self._failed)
            before = os.fstat(self._file).st_size
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._file, rest) :]
                os.fsync(self._file)
            except OSError as error:
                self._give_up(before, error)
                raise

    def _give_up(self, before: int, error: OSError) -> None:
        """Takes back what was not acknowledged; after a failed sync nothing more is accepted."""
        self._failed = f"an earlier write failed ({error.strerror}); restart the server"
        os.ftruncate(self._file, before)

    def _note(self, outcome: Outcome) -> None:
        self.kept += 1
        self._seen[_digest(outcome.answer)] = outcome.correct
        if outcome.policy == self._policy:
            self.watch.add(outcome.confidence, outcome.correct)

    def _recovered(self) -> Iterator[Outcome]:
        """Outcomes on disk; a last line that was cut short is removed."""
        whole = 0
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            for number, line in enumerate(file, 1):
                outcome = _parsed(line)
                if outcome is None:
                    if line.endswith(b"\n"):
                        raise CorruptStoreError(
                            f"{self._path} is damaged at line {number}; lines as they were written "
                            "are required. Restore the file, or name another --feedback."
                        )
                    break
                whole += len(line)
                yield outcome
        os.ftruncate(self._file, whole)
        os.fsync(self._file)


def read_outcomes(directory: Path) -> Iterator[dict[str, Any]]:
    """Yields the outcomes of a feedback directory, oldest first; a torn last line is left out."""
    with (directory / OUTCOMES).open("rb") as file:
        for line in file:
            outcome = _parsed(line)
            if outcome is not None:
                yield asdict(outcome)


def _key(path: Path) -> bytes:
    if not path.exists():
        key = secrets.token_bytes(32)
        write_file(path, lambda file: file.append(memoryview(key)))
        path.chmod(0o600)
    key = path.read_bytes()
    if len(key) != 32:
        raise CorruptStoreError(
            f"{path} has {len(key)} bytes; 32 are required. Restore it, or name another --feedback."
        )
    return key


def _line(outcome: Outcome) -> bytes:
    content = json.dumps(asdict(outcome), separators=(",", ":")).encode()
    return xxhash.xxh3_64_hexdigest(content).encode() + b" " + content + b"\n"


def _parsed(line: bytes) -> Outcome | None:
    checksum, _, content = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or xxhash.xxh3_64_hexdigest(content).encode() != checksum:
        return None
    return Outcome(**json.loads(content))


def _digest(answer: str) -> bytes:
    return hashlib.blake2b(answer.encode(), digest_size=16).digest()


def _graded_otherwise(before: float) -> RequestError:
    return RequestError(
        f"This answer was already graded {before:g}; each answer counts once. Leave it.",
        status=409,
        code="already_graded",
    )


def _not_kept() -> RequestError:
    return RequestError(
        "The outcome was not kept: the server cannot write it to its disk, and its log says why. "
        "Send it again once its operator has mended that and restarted the server.",
        status=503,
        code="disk_error",
    )


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
