from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from evaluations import BASELINE, bare, evaluation
from hostile import TEXTS, hostile

from sightline.core.estimates import Estimate
from sightline.report.terminal import WIDTH, print_leaderboard

CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def printed(run, **settings) -> str:
    out = io.StringIO()
    print_leaderboard(run, file=out, **settings)
    return out.getvalue()


def test_it_shows_accuracy_remarks_and_figures_with_interval_and_n() -> None:
    run = evaluation()
    text = printed(run)
    assert text.startswith("llava-1.5-7b-hf on scenes, test\naccuracy 70.2")
    assert "n\xa0=\xa0600" in text
    assert "partial: first 605 of 2,000 examples" in text
    assert "note: Preliminary embedded checkpoint" in text
    assert "2 of 603 quarantined" in text
    auroc = run.estimators[0].heldout["auroc"]
    assert f"{auroc.value:.3f}" in text
    assert f"{auroc.low:.3f}–{auroc.high:.3f}" in text
    assert "best simple baseline" in text
    assert max(len(line) for line in text.splitlines()) <= WIDTH


def test_controls_and_the_baseline_are_shown_whatever_their_rank() -> None:
    text = printed(evaluation(), top=1)
    for name in ("discrete_semantic_entropy", BASELINE, "question_type", "random"):
        assert name in text
    assert "perplexity" not in text
    assert "6 more in the report" in text


def test_skipped_rows_and_estimators_without_a_signal_are_said() -> None:
    text = printed(evaluation())
    assert "skipped 300 (1)" in text
    assert "(1) no option_logprobs" in text
    assert "4 estimators need signals that this run lacks" in text
    assert "need signals" not in printed(replace(evaluation(), not_applicable=()))


def test_missing_figures_carry_their_reason() -> None:
    text = printed(bare())
    assert "— (1)" in text
    assert "(1) all answers are right; both right and wrong ones are required" in text


def test_a_run_without_estimators_says_so() -> None:
    assert "no estimator could score any answer" in printed(replace(evaluation(), estimators=()))


@pytest.mark.parametrize("text", TEXTS[:-1], ids=lambda t: repr(t[:20]))
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_hostile_text_is_inert(text: str, stream: type[io.StringIO]) -> None:
    out = stream()
    print_leaderboard(hostile(evaluation(), text), file=out)
    plain = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())
    assert not CONTROL.search(plain)


def test_colour_only_on_a_terminal_and_never_with_no_color(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b" not in printed(evaluation())
    coloured = Terminal()
    print_leaderboard(evaluation(), file=coloured)
    assert "\x1b[" in coloured.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    print_leaderboard(evaluation(), file=plain)
    assert "\x1b" not in plain.getvalue()


def test_a_narrow_terminal_gets_fewer_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    narrow = Terminal()
    print_leaderboard(evaluation(), file=narrow)
    text = narrow.getvalue()
    assert "AUROC" in text
    assert "Brier" not in text
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize("width", [30, 40, 50, 60, 80, 100])
def test_a_narrow_terminal_keeps_every_name(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    run = evaluation()
    print_leaderboard(run, top=3, file=out)
    plain = re.sub("\x1b\\[[0-9;]*m", "", out.getvalue())
    assert max(len(line) for line in plain.splitlines()) <= width
    rows = plain[plain.index("AUROC") :].splitlines()
    first = "".join(row.split("  ")[0].split(" ")[0] for row in rows)
    for result in run.estimators[:3]:
        assert result.name in first
    auroc = run.estimators[0].heldout["auroc"]
    assert f"{auroc.value:.3f}" in plain
    assert f"{auroc.low:.3f}–{auroc.high:.3f}" in plain


def test_an_estimator_fitted_before_is_shown_whatever_its_rank() -> None:
    run = evaluation()
    last = run.estimators[-1]
    fitted = replace(last, name="linear_probe[probe]", spec={**last.spec, "fitted_on": {"n": 40}})
    text = printed(replace(run, estimators=(*run.estimators, fitted)), top=1)
    assert "linear_probe[probe]" in text


def test_a_long_name_breaks_behind_an_underscore() -> None:
    run = evaluation()
    long = replace(run.estimators[0], name="option_max_probability_per_token_and_more_of_it")
    text = printed(replace(run, estimators=(long, *run.estimators[1:])))
    starts = ("option_max", "token_and", "more")
    parts = [line.split(" ")[0] for line in text.splitlines() if line.startswith(starts)]
    assert len(parts) > 1
    assert all(part.endswith("_") for part in parts[:-1])
    assert "".join(parts) == long.name


def test_a_narrow_terminal_has_no_note_on_a_column_that_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    run = evaluation()
    untyped = Estimate(None, None, None, 0, "some rows have no question type")
    results = tuple(replace(e, within_type=untyped, skipped=()) for e in run.estimators)
    out = Terminal()
    print_leaderboard(replace(run, estimators=results), file=out)
    assert "no question type" not in out.getvalue()
    assert "no question type" in printed(replace(run, estimators=results))
