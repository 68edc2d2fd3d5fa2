"""What the commands print: hostile text is inert, marks stand for weak tokens."""

import json

import pytest
from click.testing import CliRunner

from sightline.cli import cli, policy_lines
from sightline.core.errors import UsageError
from sightline.core.estimates import Estimate
from sightline.core.types import Example, Generation, Record
from sightline.data.splits import split_groups
from sightline.workflow.asking import Answer
from sightline.workflow.explaining import Draws, Explanation, Prior, Shift, Token
from sightline.workflow.policy import calibrating
from sightline.workflow.policy.evidence import Achieved

HOSTILE = "red\x1b[2J\x1b]52;c;aGk=\x07\n[/foo] \u202egnp"


def hostile_answer():
    explanation = Explanation(
        prior=Prior(HOSTILE, False, 0.5, 0.25),
        draws=Draws(10, 7, ((HOSTILE, 3),)),
        tokens=(Token(HOSTILE, 0.31), Token("</s>", 0.99), Token(" ", None)),
        shifts=(Shift("jpeg:3", HOSTILE, False, 0.125), Shift("blank", HOSTILE, True, None)),
    )
    record = Record(Example("e", "?"), greedy=Generation(HOSTILE))
    return Answer(HOSTILE, None, {"perplexity": 0.25}, record, explanation)


@pytest.fixture
def asked(monkeypatch, tmp_path):
    from sightline import api

    monkeypatch.setattr(api, "ask", lambda *_, **__: hostile_answer())
    monkeypatch.delenv("NO_COLOR", raising=False)

    def run(*flags, **settings):
        runner = CliRunner()
        flags = ["p.png", "What?", "-m", "fake", *flags]
        result = runner.invoke(cli, ["ask", *flags], **settings)
        assert result.exit_code == 0, result.output
        return result.output

    return run


@pytest.mark.parametrize(("text", "said"), [("green", True), ("blue", False), ("A", False)])
def test_an_answer_that_names_none_of_the_options_is_said(monkeypatch, text, said):
    from sightline import api

    record = Record(Example("e", "?", choices=("red", "blue")), greedy=Generation(text))
    monkeypatch.setattr(api, "ask", lambda *_, **__: Answer(text, None, {}, record))
    result = CliRunner().invoke(cli, ["ask", "p.png", "?", "-m", "fake", "-c", "red", "-c", "blue"])
    assert result.exit_code == 0
    assert ("none of the 2 options is named" in result.output) is said


def test_an_answer_cannot_drive_the_terminal(asked):
    text = asked()
    for code in ("\x1b", "\x07", "\u202e"):
        assert code not in text
    assert "[/foo]" in text
    assert "red\\x1b[2J" in text
    assert "none: without a policy scores are raw and no probabilities" in text
    lines = text.splitlines()
    assert lines[0].startswith("answer")
    assert any(line.startswith("drift") and "states move by 0.125" in line for line in lines)
    assert "[31%] </s> ␣" in text


def test_json_is_one_document(asked):
    document = json.loads(asked("--json"))
    assert document["answer"] == HOSTILE
    assert document["confidence"] is None
    assert document["explanation"]["draws"]["agree"] == 7


def test_weak_tokens_are_marked_with_colour_only_where_it_is_wanted(asked):
    coloured = asked(color=True)
    assert "\x1b[31m\x1b[1m" in coloured
    assert "\x1b[2J" not in coloured
    assert "\x1b[31m" not in asked(color=True, env={"NO_COLOR": "1"})


def test_a_question_without_a_picture_is_refused():
    result = CliRunner().invoke(cli, ["ask", "What?", "-m", "fake"])
    assert "pictures and then a question" in str(result.exception)


def test_estimator_or_cascade(monkeypatch):
    both = ["r", "-e", "perplexity", "--cascade", "a -> b", "-o", "p"]
    for flags in (both, ["r", "-o", "p"]):
        result = CliRunner().invoke(cli, ["calibrate", *flags])
        assert "exactly one of them is required" in str(result.exception)
    monkeypatch.setattr(calibrating.RunStore, "open", lambda path: None)
    monkeypatch.setattr(calibrating, "is_classification", lambda store: False)
    result = CliRunner().invoke(
        cli, ["calibrate", "r", "--cascade", "perplexity -> nothing", "-o", "p"]
    )
    assert "'nothing' does not exist" in str(result.exception)


def test_achieved_figures_read_as_shares():
    nothing = Estimate(None, reason="no answer was accepted")
    achieved = Achieved(10, 5, Estimate(0.0, 0.0, 0.3), nothing, Estimate(0.5))
    (line,) = policy_lines.achieved_lines("seen", achieved)
    assert line == (
        "  seen       0.0% [0.0%, 30.0%] of 10 answers (5 groups) accepted, "
        "none; of all 50.0% right"
    )


SHARES = ("--risk", "--delta", "--coverage", "--hold-out", "--sets-level", "--threshold")


@pytest.mark.parametrize("flag", [*SHARES, "--budget"])
@pytest.mark.parametrize("value", ["nan", "inf", "-0.1", "-inf", "much"])
def test_senseless_numbers_are_refused_before_anything_is_read(flag, value):
    flags = ["no-such-run", "-e", "perplexity", "-o", "x", flag, value]
    result = CliRunner().invoke(cli, ["calibrate", *flags])
    assert result.exit_code == 2
    assert f"'{flag}'" in result.output


@pytest.mark.parametrize("value", ["-1", "0.5", "nan"])
def test_a_seed_is_a_whole_number(value):
    flags = ["no-such-run", "-e", "perplexity", "-o", "x", "--seed", value]
    result = CliRunner().invoke(cli, ["calibrate", *flags])
    assert result.exit_code == 2
    assert "'--seed'" in result.output


@pytest.mark.parametrize("name", ["risk", "coverage", "delta", "sets_level", "hold_out", "budget"])
@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), float("-inf"), "0.1", True, b"1", [0.1], 1j, "x\ny" * 99]
)
def test_the_function_refuses_them_in_one_line_too(name, value, tmp_path):
    from sightline import api

    with pytest.raises(UsageError, match=f"^{name} is .*; a finite number is required") as error:
        api.calibrate(tmp_path, "perplexity", tmp_path / "policy", **{name: value})
    assert len(str(error.value)) < 200
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["0.4", ("0.4", 0.2, 0.4), (0.4, 0.6), 0.4, (0.4, 0.2, None)])
def test_fractions_are_three_numbers(value, tmp_path):
    from sightline import api

    with pytest.raises(UsageError, match=r"^fractions is .*; three finite numbers are required"):
        api.calibrate(tmp_path, "perplexity", tmp_path / "policy", fractions=value)


@pytest.mark.parametrize(("name", "value"), [("threshold", "0.5"), ("seed", "0"), ("seed", None)])
def test_numbers_of_the_settings_are_checked_before_anything_is_read(name, value, tmp_path):
    from sightline import api
    from sightline.workflow.evaluate import Settings

    wrong = f"^settings.{name} is {value!r}; a finite number is required"
    settings = Settings(**{name: value})
    with pytest.raises(UsageError, match=wrong):
        api.calibrate(tmp_path, "perplexity", tmp_path / "policy", settings=settings)
    with pytest.raises(UsageError, match=wrong):
        api.apply_policy(tmp_path, tmp_path / "policy", settings=settings)


def test_a_negative_split_seed_is_refused():
    with pytest.raises(UsageError, match="Split seed -1; a whole number from 0 on is required"):
        split_groups(["a", "b", "c"], (0.4, 0.2, 0.4), seed=-1)
