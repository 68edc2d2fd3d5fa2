"""sightline ask."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from sightline.cli.options import (
    endpoint_options,
    endpoint_settings,
    loading_options,
    loading_settings,
    option,
    shared_options,
    show_config,
)
from sightline.core.errors import UsageError
from sightline.core.printing import percent, printable

if TYPE_CHECKING:
    from sightline.workflow.asking import Answer
    from sightline.workflow.explaining import Explanation, Token
    from sightline.workflow.policy import Decision, TrustPolicy

_LABEL = 12


@click.command("ask")
@click.argument("images_and_question", nargs=-1, required=True, metavar="IMAGE... QUESTION")
@option("--model", "-m", required=True, help="As for collect: directory, hub name, embedded:vlm.")
@option(
    "--policy",
    "-p",
    type=click.Path(file_okay=False),
    help="A directory that 'sightline calibrate' wrote; without it scores are raw.",
)
@click.option(
    "--choices",
    "-c",
    multiple=True,
    metavar="TEXT",
    help="An option of multiple choice (repeatable, in letter order).",
)
@click.option("--question-type", help="For a policy whose thresholds or estimators go by it.")
@click.option(
    "--category",
    metavar="VALUE",
    help="Its value of the field that the thresholds of a policy go by (--per-group).",
)
@click.option(
    "--explain",
    is_flag=True,
    help="Also show what moves the answer: a blank picture, samples, small changes.",
)
@option(
    "--text-models",
    type=click.Path(file_okay=False),
    help="Directory of the local encoders that computed a policy's derived signals.",
)
@loading_options
@endpoint_options
@shared_options
@click.pass_context
def ask_command(ctx: click.Context, /, **flags: Any) -> int:
    """Ask one question about pictures; say whether to trust the answer.

    \b
    sightline ask photo.jpg "What colour is the car?" -m ./llava-1.5-7b-hf -p policies/a
    """  # noqa: D301 (a backspace, which click reads)
    if flags["show_config"]:
        show_config(ctx)
        return 0
    *images, question = flags["images_and_question"]
    if not images:
        raise UsageError(
            f"Only {printable(question)!r}; pictures and then a question are required. "
            "Write: sightline ask photo.jpg 'What is it?'."
        )
    from sightline.api import ask, load_policy

    policy = None if flags["policy"] is None else load_policy(flags["policy"])
    answer = ask(
        images,
        question,
        model=flags["model"],
        policy=policy,
        choices=flags["choices"] or None,
        question_type=flags["question_type"],
        category=flags["category"],
        explain=flags["explain"],
        text_models=flags["text_models"],
        model_options=loading_settings(flags) | endpoint_settings(flags, {}),
    )
    if flags["as_json"]:
        click.echo(json.dumps(answer.to_dict(), allow_nan=False))
        return 0
    colour = False if "NO_COLOR" in os.environ else None
    for line in _lines(answer, policy):
        click.echo(line, color=colour)
    return 0


def _lines(answer: Answer, policy: TrustPolicy | None) -> Iterator[str]:
    from sightline.core.text import parse_choice

    yield _row("answer", click.style(printable(answer.text) or "(nothing)", bold=True))
    choices = answer.record.example.choices
    if choices and parse_choice(answer.text, choices) is None:
        yield _row("", f"none of the {len(choices)} options is named")
    if answer.decision is None or policy is None:
        yield _row("confidence", "none: without a policy scores are raw and no probabilities")
        yield from _signals(answer.scores)
        yield _row("", "sightline calibrate makes a policy from labelled answers of this model")
    else:
        yield from _decided(answer.decision, policy)
    if answer.explanation is not None:
        yield from _explained(answer.explanation)


def _decided(decision: Decision, policy: TrustPolicy) -> Iterator[str]:
    if decision.confidence is None:
        unscored = decision.uncertainty is None
        why = "the answer could not be scored" if unscored else "the policy knows no such question"
        yield _row("confidence", f"none: {why}")
    else:
        evidence = policy.evidence
        known = "the probability of being right"
        if evidence.calibration == "base rate":
            known = "the share of right answers: the score tells nothing of this one"
        few = evidence.calibrated_on.few
        loose = "" if few is None else f"; loose, by {few}"
        yield _row("confidence", f"{decision.confidence:.3f}, {known}{loose}")
    word = (
        click.style("accept", fg="green")
        if decision.accepted
        else click.style("abstain", fg="yellow")
    )
    yield _row("decision", f"{word}: {printable(decision.reason)}")
    if decision.accepted:
        promise = next(
            p.guarantee for p in policy.evidence.promises if p.category == decision.category
        )
        yield _row(
            "promise",
            f"at most {percent(promise.risk)} of accepted answers wrong, with "
            f"{percent(1 - promise.delta, 0)} certainty",
        )
    if decision.prediction_set is not None and policy.sets is not None:
        held = ", ".join(decision.prediction_set)
        sets, found = policy.sets.conformal, policy.sets.conformal.coverage
        line = f"the right one is among {held} in {percent(sets.level, 0)} of answers"
        if found.low is not None and found.high is not None:
            line += (
                f", {percent(found.low, 0)} to {percent(found.high, 0)} for sets fitted on "
                f"{sets.n:,}"
            )
        yield _row("options", line)
    yield from _signals(decision.signals)


def _signals(signals: Any) -> Iterator[str]:
    for index, (name, value) in enumerate(signals.items()):
        note = "   (uncertainty: higher is worse)" if not index else ""
        yield _row("signals" if not index else "", f"{printable(name)} {value:.4g}{note}")


def _explained(found: Explanation) -> Iterator[str]:
    if found.prior is not None:
        said = printable(found.prior.answer) or "(nothing)"
        line = f"{said!r}, the same answer" if found.prior.same else f"{said!r}, another answer"
        if found.prior.probability is not None and found.prior.blank_probability is not None:
            line += (
                f"; this answer has probability {found.prior.blank_probability:.2g} there, "
                f"{found.prior.probability:.2g} with the picture"
            )
        yield _row("no picture", line)
    if found.draws is not None:
        others = ", ".join(f"{printable(text)!r} ×{n}" for text, n in found.draws.others[:4])
        line = f"{found.draws.agree} of {found.draws.n} say the same"
        yield _row("samples", f"{line}; also {others}" if others else line)
    if found.tokens:
        yield _row("tokens", " ".join(_token(token) for token in found.tokens))
    for index, shift in enumerate(found.shifts):
        said = "same answer" if shift.same else f"answers {printable(shift.answer)!r}"
        moved = "" if shift.distance is None else f", states move by {shift.distance:.3f}"
        yield _row("drift" if not index else "", f"{shift.condition}: {said}{moved}")


def _token(token: Token) -> str:
    """The token's text; where it was a weak choice, marked, with its probability."""
    text = printable(token.text.strip()) or "␣"
    if token.weak and token.probability is not None:
        return click.style(f"{text}[{token.probability:.0%}]", fg="red", bold=True)
    return text


def _row(label: str, text: str) -> str:
    return f"{label:{_LABEL}} {text}"
