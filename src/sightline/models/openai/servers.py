"""Which of several servers is asked next: the one expected to answer soonest.

A server's share falls with its latency, and with the age of what it has not answered yet; one that
fails is left alone for a while, then tried with a single request.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

_LONGEST_PAUSE_S = 60.0
_WEIGHT = 0.3  # of the newest latency in the running mean

_RANDOM = secrets.SystemRandom()


@dataclass(slots=True, eq=False)
class Server:
    """One base URL and what is known of it.

    Attributes:
        url: Its base URL.
        started: Start time of each request it has not answered.
        latency_s: Running mean over its answers; None before the first.
        paused_until: Not asked before this time.
        strikes: Failures since its last answer.
        answered: Requests it has answered.
    """

    url: str
    started: list[float] = field(default_factory=list)
    latency_s: float | None = None
    paused_until: float = 0.0
    strikes: int = 0
    answered: int = 0

    def ready(self, now: float) -> bool:
        """Whether it may be asked: not paused, and after a failure with one request at a time."""
        return self.paused_until <= now and not (self.strikes and self.started)

    def wait_s(self, now: float, unknown: float) -> float:
        """How long one more request is expected to take, in seconds."""
        oldest = max((now - start for start in self.started), default=0.0)
        latency = unknown if self.latency_s is None else self.latency_s
        return (len(self.started) + 1) * max(latency, oldest, 1e-6)

    def finish(self, start: float, now: float, *, answered: bool, timed: bool = True) -> None:
        """Books the end of a request; how long it took counts where it is ``timed``."""
        self.started.remove(start)
        if answered and timed:
            took = now - start
            before = took if self.latency_s is None else self.latency_s
            self.latency_s = (1 - _WEIGHT) * before + _WEIGHT * took
        if answered:
            self.strikes = 0
            self.answered += 1

    def strike(self, now: float, backoff_s: float, asked_s: float | None) -> None:
        """Books a failure; it is paused for as long as it asked, else twice as long every time."""
        self.strikes += 1
        pause = backoff(self.strikes, backoff_s) if asked_s is None else asked_s
        self.paused_until = max(self.paused_until, now + min(pause, _LONGEST_PAUSE_S))


def backoff(failures: int, first_s: float) -> float:
    """Seconds to wait after so many failures: doubling, half of it by chance."""
    longest = min(first_s * 2.0 ** (failures - 1), _LONGEST_PAUSE_S)
    return longest * _RANDOM.uniform(0.5, 1.0)


class Pool:
    """The servers of one model."""

    def __init__(self, urls: Sequence[str], clock: Callable[[], float]) -> None:
        self.servers = tuple(Server(url) for url in dict.fromkeys(urls))
        self._clock = clock

    def choose(self, avoid: Collection[Server] = ()) -> Server | None:
        """The ready server that is expected to answer soonest, or None.

        Args:
            avoid: Servers to ask only where no other is ready.
        """
        now = self._clock()
        ready = [server for server in self.servers if server.ready(now)]
        others = [server for server in ready if server not in avoid] or ready
        known = [s.latency_s for s in self.servers if s.latency_s is not None]
        unknown = min(known, default=1.0)
        return min(others, key=lambda server: server.wait_s(now, unknown), default=None)

    def pause_s(self) -> float:
        """Seconds until a server may be ready again; a moment where one is only being tried."""
        now = self._clock()
        return max(0.01, min(server.paused_until for server in self.servers) - now)

    def patience_s(self, server: Server) -> float | None:
        """After how long a request is given to another server, too: four times its usual latency.

        None where no other server's latency is known.
        """
        known = [
            s.latency_s
            for s in self.servers
            if s is not server and s.latency_s is not None and not s.strikes
        ]
        return max(1.0, 4 * min(known)) if known else None
