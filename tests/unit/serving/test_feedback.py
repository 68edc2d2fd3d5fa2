"""Outcomes: kept once, signed, synced, recovered, and refused where they are not ours."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from sightline.core.errors import CorruptStoreError, StoreError
from sightline.serving.errors import RequestError
from sightline.serving.feedback import KEY, OUTCOMES, FeedbackStore, read_outcomes


def add(store: FeedbackStore, receipt: str, correct: float = 1.0, note: str | None = None) -> bool:
    return asyncio.run(store.add(receipt, correct, note))


def test_an_outcome_is_kept_once_and_read_back(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path, "p")
    receipt = store.receipt("chatcmpl-1:0", 0.75)
    assert add(store, receipt, 0.0, "wrong \u2028 colour")
    assert not add(store, receipt, 0.0)
    with pytest.raises(RequestError, match="already graded 0") as error:
        add(store, receipt, 1.0)
    assert error.value.status == 409
    store.close()
    again = FeedbackStore(tmp_path, "p")
    assert (again.kept, again.watch.n) == (1, 1)
    assert not add(again, receipt, 0.0)
    again.close()
    (found,) = read_outcomes(tmp_path)
    assert found["answer"] == "chatcmpl-1:0"
    assert found["confidence"] == 0.75
    assert found["note"] == "wrong \u2028 colour"


def test_outcomes_of_another_policy_are_kept_and_not_watched(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path, "old")
    receipt = store.receipt("a:0", 0.9)
    assert add(store, receipt)
    store.close()
    new = FeedbackStore(tmp_path, "new")
    assert (new.kept, new.watch.n) == (1, 0)
    assert add(new, new.receipt("b:0", 0.5))
    assert (new.kept, new.watch.n) == (2, 1)
    new.close()


def test_receipts_cannot_be_made_up(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path / "a", "p")
    other = FeedbackStore(tmp_path / "b", "p")
    good = store.receipt("a:0", 0.5)
    said, _, signature = good.partition(".")
    forged = store.receipt("a:0", 0.9).partition(".")[0] + "." + signature
    for bad in ("", "x", "é.é", said, said + ".", "." + signature, forged, good[:-2], "a.b.c"):
        with pytest.raises(RequestError, match="receipt is not one of this server's"):
            add(store, bad)
    with pytest.raises(RequestError):
        add(other, good)
    assert store.kept == 0
    store.close()
    other.close()


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    store = FeedbackStore(tmp_path, "p")
    for i in range(3):
        assert add(store, store.receipt(f"a:{i}", 0.5))
    store.close()
    path = tmp_path / OUTCOMES
    path.write_bytes(path.read_bytes()[:-cut])
    again = FeedbackStore(tmp_path, "p")
    assert again.kept == 2
    assert add(again, again.receipt("a:2", 0.5))
    again.close()
    assert [one["answer"] for one in read_outcomes(tmp_path)] == ["a:0", "a:1", "a:2"]


@pytest.mark.parametrize("line", [1, 3])
def test_damage_is_said_the_last_line_included(tmp_path: Path, line: int) -> None:
    store = FeedbackStore(tmp_path, "p")
    for i in range(3):
        assert add(store, store.receipt(f"a:{i}", 0.5))
    store.close()
    path = tmp_path / OUTCOMES
    lines = [bytearray(one) for one in path.read_bytes().splitlines(keepends=True)]
    lines[line - 1][30] ^= 1
    path.write_bytes(b"".join(lines))
    with pytest.raises(CorruptStoreError, match=f"damaged at line {line}"):
        FeedbackStore(tmp_path, "p")
    (tmp_path / KEY).write_bytes(b"short")
    with pytest.raises(CorruptStoreError, match="5 bytes; 32 are required"):
        FeedbackStore(tmp_path, "p")


def test_one_server_at_a_time(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path, "p")
    with pytest.raises(StoreError, match="in use by another server"):
        FeedbackStore(tmp_path, "p")
    store.close()
    FeedbackStore(tmp_path, "p").close()


def test_one_that_starts_beside_another_leaves_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FeedbackStore(tmp_path, "p")
    receipt = store.receipt("a:0", 0.5)
    with monkeypatch.context() as early:  # both looked before either had made one
        early.setattr(Path, "exists", lambda _: False)
        with pytest.raises(StoreError, match="in use by another server"):
            FeedbackStore(tmp_path, "p")
    store.close()
    again = FeedbackStore(tmp_path, "p")
    assert add(again, receipt)
    again.close()


def test_outcomes_that_come_together_are_all_kept_in_order(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path, "p")
    receipts = [store.receipt(f"a:{i % 400}", 0.5) for i in range(500)]

    async def all_at_once() -> list[bool]:
        return list(await asyncio.gather(*(store.add(r, 1.0, None) for r in receipts)))

    new = asyncio.run(all_at_once())
    store.close()
    assert sum(new) == 400
    assert [one["answer"] for one in read_outcomes(tmp_path)] == [f"a:{i}" for i in range(400)]


def test_a_disk_that_fails_acknowledges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = FeedbackStore(tmp_path, "p")
    assert add(store, store.receipt("a:0", 0.5))

    def fails(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sightline.serving.feedback.os.fsync", fails)
    for _ in range(2):
        with pytest.raises(RequestError, match="cannot write it to its disk") as error:
            add(store, store.receipt("a:1", 0.5))
        assert error.value.status == 503
        assert str(tmp_path) not in str(error.value)
        assert f"{tmp_path / OUTCOMES} failed: " in caplog.messages[-1]
        assert "No space left on device" in caplog.messages[-1]
    monkeypatch.undo()
    with pytest.raises(RequestError, match="restarted the server"):
        add(store, store.receipt("a:1", 0.5))
    assert "restart the server" in caplog.messages[-1]
    store.close()
    again = FeedbackStore(tmp_path, "p")
    assert again.kept == 1
    again.close()


def test_lines_are_plain_json_behind_their_checksum(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path, "p")
    assert add(store, store.receipt("a:0", 0.25))
    store.close()
    line = (tmp_path / OUTCOMES).read_text()
    assert json.loads(line.partition(" ")[2])["confidence"] == 0.25
    assert (tmp_path / KEY).stat().st_mode & 0o077 == 0
