"""One worker thread that owns the local model, and batches whatever waits for it.

While a batch runs, further requests queue; the next batch takes all that can be observed together
(the same settings), in order of arrival. A request that was cancelled or is past its deadline
leaves the queue unobserved. Requests about the same image bytes hold the same decoded image, so
that a model which can continues one reading of it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sightline.core.condition_names import CLEAN
from sightline.core.errors import ModelError, OutOfMemoryError, SightlineError, UnreadableError
from sightline.core.protocols import Request, VisionLanguageModel
from sightline.core.records import link
from sightline.core.types import Example, Record
from sightline.serving.errors import RequestError
from sightline.serving.trust import Judge, Judgement

if TYPE_CHECKING:
    from PIL.Image import Image


Told = Callable[[str], None]
"""Called on the worker's thread with the beginning of an answer, longer every time."""


@runtime_checkable
class TellsAnswers(Protocol):
    """A model that tells its greedy answers while it generates them."""

    tells: bool

    def observe(
        self,
        examples: Sequence[Example],
        images: Sequence[tuple[Image, ...]],
        request: Request,
        *,
        told: Sequence[Told | None] | None = None,
    ) -> list[Record]:
        """As `VisionLanguageModel.observe`, telling."""
        ...


@runtime_checkable
class CountsPrompts(Protocol):
    """A model that says how many tokens its prompts have, images included."""

    counts_prompts: bool

    def observe(
        self,
        examples: Sequence[Example],
        images: Sequence[tuple[Image, ...]],
        request: Request,
        *,
        counted: Callable[[Sequence[int]], None] | None = None,
    ) -> list[Record]:
        """As `VisionLanguageModel.observe`, counting."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """What was observed of one question, and what the judge says of it.

    Attributes:
        record: What was observed.
        judgement: What the judge says.
        prompt_tokens: Tokens of the prompt, images included; None where the model does not say.
        completion_tokens: Tokens of all that was generated for it, where that is not the record's
            answer alone.
    """

    record: Record
    judgement: Judgement
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(slots=True, eq=False)
class _Job:
    example: Example
    images: tuple[Image, ...]
    requests: tuple[Request, ...]
    deadline: float
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Seen]
    told: Told | None = None
    stage: int = 0
    cancelled: bool = False

    @property
    def request(self) -> Request:
        return self.requests[self.stage]

    def finish(self, outcome: Seen | SightlineError) -> None:
        """Hands the outcome to the event loop; dropped if nobody waits any more."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(_settle, self.future, outcome)


@dataclass(slots=True)
class EngineCounts:
    """What the engine has done since it started."""

    batches: int = 0
    observed: int = 0
    dropped: int = 0
    busy_s: float = 0.0
    sizes: dict[int, int] = field(default_factory=dict)


class Engine:
    """Observes questions with one local model, and judges the answers.

    Args:
        model: Used by the worker thread alone.
        judge: Judges the answers, on the same thread.
        max_batch: Questions observed at once.
        max_queue: Questions that wait; more are refused with status 503.
        window_s: Longest wait for others to join, where others came together before.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        judge: Judge,
        *,
        max_batch: int = 16,
        max_queue: int = 256,
        window_s: float = 0.01,
    ) -> None:
        self._model, self._judge = model, judge
        self._max_batch, self._max_queue, self._window_s = max_batch, max_queue, window_s
        self._queue: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._last_batch = 0
        self.failed: str | None = None
        self.counts = EngineCounts()
        self._thread = threading.Thread(target=self._work, name="sightline-engine", daemon=True)

    def start(self) -> None:
        """Starts the worker."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the worker after the batch it is at; what waits is answered 503."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        for job in self._queue:
            job.finish(RequestError("The server is stopping; ask another one.", status=503))
        self._queue.clear()

    @property
    def tells(self) -> bool:
        """Whether answers are told while they are generated."""
        return isinstance(self._model, TellsAnswers)

    @property
    def waiting(self) -> int:
        """Questions in the queue."""
        return len(self._queue)

    async def observe(
        self,
        example: Example,
        images: tuple[Image, ...],
        requests: Sequence[Request],
        *,
        deadline: float,
        told: Told | None = None,
    ) -> Seen:
        """Queues a question and waits for what was observed of it.

        Args:
            example: The question.
            images: Its images; those of equal bytes should be the same object.
            requests: What to observe; the later ones only where the judge is undecided.
            deadline: Of `time.monotonic`; past it the question is dropped.
            told: Hears the answer while it is generated, where the model tells it.

        Raises:
            RequestError: The queue is full (503), the deadline passed (504), the model refused
                the question (400), or the engine is down (503).
        """
        loop = asyncio.get_running_loop()
        job = _Job(example, images, tuple(requests), deadline, loop, loop.create_future(), told)
        with self._changed:
            if self.failed is not None:
                raise RequestError(self.failed, status=503, code="engine_down", retry_after=30)
            if self._stopping or len(self._queue) >= self._max_queue:
                raise overloaded(len(self._queue))
            self._queue.append(job)
            self._changed.notify_all()
        try:
            return await asyncio.wait_for(job.future, max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise RequestError(
                "The model did not answer before the request's deadline; the server is busy or "
                "the answer is long. Try again later, or ask for fewer tokens.",
                status=504,
                code="deadline",
            ) from None
        finally:
            job.cancelled = True  # whoever waited is gone, or has its answer

    def _work(self) -> None:
        while True:
            batch = self._next_batch()
            if batch is None:
                return
            started = time.perf_counter()
            try:
                self._observe(batch)
            except SightlineError as error:  # the device is gone: no example is to blame
                self.failed = f"The model stopped: {error}"
                for job in batch:
                    job.finish(RequestError(self.failed, status=503, code="engine_down"))
            except Exception:
                self.failed = "The model stopped on an internal error; see the server's log."
                for job in batch:
                    job.finish(RequestError(self.failed, status=503, code="engine_down"))
                raise
            self.counts.batches += 1
            self.counts.observed += len(batch)
            self.counts.sizes[len(batch)] = self.counts.sizes.get(len(batch), 0) + 1
            self.counts.busy_s += time.perf_counter() - started
            self._last_batch = len(batch)
            del batch  # while the next is waited for, its images are nobody's

    def _next_batch(self) -> list[_Job] | None:
        with self._changed:
            while not self._stopping and not self._queue:
                self._changed.wait()
            if self._stopping:
                return None
            if self._last_batch > 1:
                # Clients that came together tend to come back together.
                until = time.monotonic() + self._window_s
                while len(self._queue) < min(self._last_batch, self._max_batch):
                    left = until - time.monotonic()
                    if left <= 0 or self._stopping:
                        break
                    self._changed.wait(left)
            return self._take()

    def _take(self) -> list[_Job]:
        """The first waiting question, and those that can be observed with it."""
        now = time.monotonic()
        batch: list[_Job] = []
        left: deque[_Job] = deque()
        for job in self._queue:
            if job.cancelled or job.deadline <= now:
                self.counts.dropped += 1
            elif len(batch) < self._max_batch and (not batch or job.request == batch[0].request):
                batch.append(job)
            else:
                left.append(job)
        self._queue = left
        return batch

    def _observe(self, batch: list[_Job]) -> None:
        """Observes a batch without what the model cannot read; halves it on other failures."""
        if not batch:
            return
        try:
            records, lengths = self._records(batch)
        except UnreadableError as error:
            for row, why in error.reasons.items():
                batch[row].finish(RequestError(why, code=error.code))
            self._observe([job for row, job in enumerate(batch) if row not in error.reasons])
            return
        except ModelError as error:
            if len(batch) == 1:
                batch[0].finish(_refused(error))
                return
            middle = len(batch) // 2
            self._observe(batch[:middle])
            self._observe(batch[middle:])
            return
        linked = [own for part in _by_example(records) for own in link(part, condition=CLEAN)]
        judgements = self._judge.judge(linked)
        undecided = []
        for job, record, judgement, length in zip(batch, linked, judgements, lengths, strict=True):
            if judgement.undecided and job.stage + 1 < len(job.requests):
                job.stage += 1
                undecided.append(job)
            else:
                job.finish(Seen(record, judgement, length))
        self._observe(undecided)

    def _records(self, batch: list[_Job]) -> tuple[list[Record], list[int | None]]:
        """What the model shows, and the tokens of each prompt."""
        examples, images = [job.example for job in batch], [job.images for job in batch]
        told = [job.told for job in batch]
        lengths: list[int | None] = []
        more: dict[str, Any] = {}
        if any(told) and isinstance(self._model, TellsAnswers):
            more["told"] = told
        if isinstance(self._model, CountsPrompts):
            more["counted"] = lengths.extend
        records = self._model.observe(examples, images, batch[0].request, **more)
        return records, lengths or [None] * len(batch)


def _by_example(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Each question's clean record and those that follow it; equal questions have equal ids."""
    part: list[Record] = []
    for record in records:
        if record.condition == CLEAN and part:
            yield part
            part = []
        part.append(record)
    if part:
        yield part


def overloaded(waiting: int) -> RequestError:
    """The answer to a request that finds the queue full."""
    return RequestError(
        f"{waiting} requests are waiting; that is the most this server queues. Try again after "
        "the number of seconds in Retry-After.",
        status=503,
        code="queue_full",
        retry_after=1,
    )


def _refused(error: ModelError) -> RequestError:
    if isinstance(error, OutOfMemoryError):
        return RequestError(
            "The question and its images do not fit into the model's memory; a smaller request is "
            "required. Send fewer or smaller images.",
            status=413,
            code="out_of_memory",
        )
    # What a foreign library said stays in the log: its words can carry addresses.
    own = error.__cause__ is None
    message = str(error) if own else "The model refused this input. Send another text or image."
    return RequestError(message, code="model_refused_input")


def _settle(future: asyncio.Future[Seen], outcome: Seen | SightlineError) -> None:
    if future.done():
        return
    if isinstance(outcome, SightlineError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
