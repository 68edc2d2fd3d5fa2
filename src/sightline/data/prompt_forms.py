"""The forms of prompts beside a plain question, above all what a model is asked of its own answer.

`PROMPT_FORMS` are the wordings that the embedded models are trained to read. Any other wording
reaches them as mostly familiar words in an unfamiliar order, and their answer to it says little.
Multiple choice is rendered as `sightline.data.prompts` does by default.

`FOLLOW_UP_FORMS` are the questions that can follow an answer, each in several wordings. Their
wordings are ours; the strategies are those of Kadavath et al. (2022: P(True)), Tian et al. (EMNLP
2023: stated probabilities, words, several guesses) and Xiong et al. (ICLR 2024: self-probing,
reasoning first, top-k, several prompts).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sightline.core.errors import UsageError
from sightline.core.features import FIXED_REPLIES, FOLLOW_UPS, Feature

PROMPT_FORMS: Mapping[str, str] = MappingProxyType(
    {
        # Answer: true, false.
        "p_true": ("{question}\nProposed answer: {answer}\nIs the proposed answer true or false?"),
        # Answer: yes, no.
        "self_check": (
            "{question}\nProposed answer: {answer}\n"
            "Is the proposed answer correct? Answer with yes or no."
        ),
        # Answer: low, medium, high.
        "confidence_word": (
            "{question}\nProposed answer: {answer}\n"
            "How confident are you in the proposed answer? Answer with low, medium or high."
        ),
        # Answer: three short answers, separated by commas, best first.
        "top_guesses": "{question}\nGive your 3 best guesses, separated by commas.",
        # Answer: one of the candidates; {candidates} reads "circle 62%, ring 21%, square 9%".
        "rerank": (
            "{question}\nA classifier suggests: {candidates}.\nAnswer with a single word or phrase."
        ),
        # Answer: the text of an option; {options} holds lines "A. text".
        "choice_text": "{question}\n{options}\nAnswer with the option's text.",
    }
)

_SCALE = ", ".join(FIXED_REPLIES[Feature.CONFIDENCE_SCALE][:-1])
_SCALE += f" or {FIXED_REPLIES[Feature.CONFIDENCE_SCALE][-1]}"


@dataclass(frozen=True, slots=True)
class FollowUpForm:
    """A question that follows an answer.

    Attributes:
        wordings: The prompt in each wording, with ``{question}`` (and options) and ``{answer}``.
        max_new_tokens: Limit on the reply.
    """

    wordings: tuple[str, ...]
    max_new_tokens: int


FOLLOW_UP_FORMS: Mapping[Feature, FollowUpForm] = MappingProxyType(
    {
        Feature.P_TRUE: FollowUpForm(
            (
                PROMPT_FORMS["p_true"],
                "Question: {question}\nPossible answer: {answer}\n"
                "Is the possible answer true or false? Answer with true or false.",
                "Look at the picture again. Someone was asked: {question}\n"
                "They answered: {answer}\nIs that answer true or false? Reply with one word.",
            ),
            max_new_tokens=8,
        ),
        Feature.SELF_CHECK: FollowUpForm(
            (
                PROMPT_FORMS["self_check"],
                "Question: {question}\nPossible answer: {answer}\n"
                "Is this answer right? Answer with yes or no.",
                "Look at the picture again. Someone was asked: {question}\n"
                "They answered: {answer}\nAre they right? Answer with yes or no.",
            ),
            max_new_tokens=8,
        ),
        Feature.CONFIDENCE_WORD: FollowUpForm(
            (
                PROMPT_FORMS["confidence_word"],
                "Question: {question}\nYour answer: {answer}\n"
                "Is your confidence in it low, medium or high? Answer with one of these words.",
            ),
            max_new_tokens=8,
        ),
        Feature.CONFIDENCE_SCALE: FollowUpForm(
            (
                "{question}\nProposed answer: {answer}\nHow likely is it that the proposed answer "
                f"is correct? Answer with {_SCALE}.",
                "Question: {question}\nYour answer: {answer}\nThat this answer is correct, is it "
                f"{_SCALE}? Reply with one of these phrases only.",
            ),
            max_new_tokens=8,
        ),
        Feature.CONFIDENCE_NUMBER: FollowUpForm(
            (
                "{question}\nProposed answer: {answer}\nHow likely is it that the proposed answer "
                "is correct? Answer with a percentage from 0% to 100% and nothing else.",
                "Question: {question}\nPossible answer: {answer}\nGive the probability that the "
                "possible answer is correct, from 0 to 100. Reply with the number only.",
                "Look at the picture again. You were asked: {question}\nYou answered: {answer}\n"
                "How confident are you in that answer, from 0% to 100%? Reply with the percentage "
                "only.",
            ),
            max_new_tokens=16,
        ),
        Feature.CONFIDENCE_REASONED: FollowUpForm(
            (
                "{question}\nProposed answer: {answer}\nHow likely is it that the proposed answer "
                "is correct? Reason briefly about what the picture shows, then end with a line "
                "'Confidence: N%', where N is from 0 to 100.",
                "Question: {question}\nPossible answer: {answer}\nFirst say in a few sentences "
                "what speaks for and against the possible answer. Then write on the last line "
                "'Confidence: N%', the probability that it is correct, from 0 to 100.",
            ),
            max_new_tokens=256,
        ),
        Feature.ANSWER_CONFIDENCE: FollowUpForm(
            (
                "{question}\nAnswer, and say how confident you are that your answer is correct. "
                "Reply with two lines and nothing else:\nAnswer: a single word or phrase\n"
                "Confidence: N%, where N is from 0 to 100",
                "Read the question, give your answer and your confidence in it, from 0% to 100%. "
                "Question: {question}\nUse this format, without explanation:\n"
                "Answer: your answer\nConfidence: your confidence in percent",
            ),
            max_new_tokens=48,
        ),
        Feature.ANSWER_CONFIDENCE_REASONED: FollowUpForm(
            (
                "{question}\nThink step by step about what the picture shows. Then end with two "
                "lines:\nAnswer: a single word or phrase\nConfidence: N%, where N is from 0 to 100",
                "Read the question, analyse it step by step, then give your answer and your "
                "confidence in it, from 0% to 100%. Question: {question}\nEnd in this format:\n"
                "Answer: your answer\nConfidence: your confidence in percent",
            ),
            max_new_tokens=320,
        ),
        Feature.TOP_GUESSES: FollowUpForm(
            (
                PROMPT_FORMS["top_guesses"],
                "Question: {question}\nList the 3 most likely answers, best first, separated by "
                "commas. No other words.",
            ),
            max_new_tokens=48,
        ),
        Feature.GUESS_PROBABILITIES: FollowUpForm(
            (
                "{question}\nGive your 3 best guesses and the probability that each is correct, "
                "from 0% to 100%. Write one guess per line, best first, as 'guess: N%', and "
                "nothing else.",
                "Provide your 3 best guesses and the probability that each is correct (0% to "
                "100%) for the following question. Give only the guesses and probabilities, one "
                "per line, as 'guess: N%'. Question: {question}",
            ),
            max_new_tokens=96,
        ),
    }
)
"""Every follow-up question; the replies to look for are `sightline.core.features.FIXED_REPLIES`."""


def follow_up_of(name: str) -> tuple[Feature, int]:
    """Reads the name of a follow-up question: ``p_true``, or ``p_true.2`` for another wording.

    Returns:
        The question, and the index of the wording (0 for the first).

    Raises:
        UsageError: There is no such question or wording.
    """
    question, dot, number = name.partition(".")
    if question not in {f.value for f in FOLLOW_UPS}:
        known = ", ".join(f.value for f in FOLLOW_UP_FORMS)
        raise UsageError(
            f"Follow-up question {name!r} does not exist; one of {known} is required. "
            "Choose one of these."
        )
    count = len(FOLLOW_UP_FORMS[Feature(question)].wordings)
    others = tuple(str(i + 1) for i in range(1, count))
    if dot and number not in others:
        raise UsageError(
            f"Follow-up question {name!r} names wording {number!r}; {question} has wordings "
            f"{', '.join(('1', *others))}, the first without a number. Write {question} or "
            f"{question}.2."
        )
    return Feature(question), int(number) - 1 if dot else 0


def follow_up_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of follow-up questions, checked, doubles left out, in the order given.

    Raises:
        UsageError: One does not exist.
    """
    found = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    for name in found:
        follow_up_of(name)
    return found


def filled(form: str, **parts: str) -> str:
    r"""A form with its places filled; braces within a part are left alone.

    Example:
        >>> filled("{question}\nProposed answer: {answer}", question="{answer}?", answer="red")
        '{answer}?\nProposed answer: red'
    """
    return re.sub(r"\{(\w+)\}", lambda place: parts.get(place[1], place[0]), form)
