"""The prompt forms the embedded models are trained to read, beside a plain question.

Any other wording reaches them as mostly familiar words in an unfamiliar order, and their answer to
it says little. Multiple choice is rendered as `sightline.data.prompts` does by default.
"""

from collections.abc import Mapping
from types import MappingProxyType

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
