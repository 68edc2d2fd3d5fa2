"""Which questions the model is asked while it learns, in which prompt forms, in which order.

Progress runs from 0 to 1 over the schedule. First look-ups in plain wording on easy pictures, with
letter look-ups from the start; then all types; then full difficulty; then all wordings and forms.
"""

from functools import lru_cache
from random import Random

import numpy as np
from transformers import PreTrainedTokenizerFast

from sightline.data.prompt_forms import PROMPT_FORMS
from sightline.data.prompts import PromptStyle
from sightline.data.question_writers import COLOR_NAMES, LETTERS, POSITIONS, Picture
from sightline.data.questions import Item, ask
from sightline.data.rendering import CONFUSABLE, SHAPES

STYLE = PromptStyle()
OPTIONS = {
    "color": COLOR_NAMES,
    "shape": SHAPES,
    "size": ("small", "big"),
    "position": POSITIONS,
    "digit": tuple("0123456789"),
    "count": tuple("012345"),
    "existence": ("yes", "no"),
}
LOOK_UPS = {
    "color": 1.0,
    "shape": 1.0,
    "size": 1.0,
    "position": 1.0,
    "digit": 1.2,
    "existence": 0.7,
    "text": 0.7,
    "multiple_choice": 1.0,
    "letter": 1.0,
}
ALL_TYPES = {
    "color": 0.8,
    "shape": 0.9,
    "size": 0.5,
    "count": 1.2,
    "position": 1.0,
    "digit": 1.6,
    "existence": 1.0,
    "comparison": 1.8,
    "multiple_choice": 4.0,
    "description": 1.0,
    "scene": 0.25,
    "text": 0.6,
    "letter": 2.5,
}
FORM_SHARES = {
    "p_true": 0.06,
    "self_check": 0.04,
    "confidence_word": 0.03,
    "top_guesses": 0.02,
    "rerank": 0.02,
}
LOOK_UP_PHASE, RAMP, FORMS_FROM = 0.12, 0.3, 0.3
TEXT_SHARE = 0.15
"""How often options are answered by their text, which is how the shipped models are asked."""


def severity(progress: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the difficulty of each picture at this point of the schedule."""
    ramp = (progress - LOOK_UP_PHASE) / (RAMP - LOOK_UP_PHASE)
    ceiling = 0.4 + 0.6 * min(max(ramp, 0.0), 1.0)
    return rng.uniform(0, ceiling, n)


def _neighbours(about: str, answer: str) -> list[str]:
    """Returns the two answers most easily taken for the right one, always the same."""
    options = list(OPTIONS[about])
    place = options.index(answer)
    if about == "color":
        first = CONFUSABLE[place]
        second = next(i for i in (CONFUSABLE[first], 0, 3) if i not in (place, first))
        return [options[first], options[second]]
    return [options[(place + 1) % len(options)], options[(place + 2) % len(options)]]


class QuestionMixture:
    """Writes prompts and answers, as text or as token ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast | None, *, yes_share: float = 0.5):
        self.tokenizer = tokenizer
        self.yes_share = yes_share
        if tokenizer is not None:
            unknown = tokenizer.unk_token_id

            @lru_cache(maxsize=200_000)
            def encode(line: str) -> tuple[int, ...]:
                ids = tuple(tokenizer(line, add_special_tokens=False)["input_ids"])
                if unknown in ids:
                    raise ValueError(f"{line!r} has a word outside the vocabulary")
                return ids

            self.encode = encode
            names = ("<image>", "<assistant>", "<end>", "<unk>")
            self.image, self.assistant, self.end, self.unknown = (
                tokenizer.convert_tokens_to_ids(name) for name in names
            )

    def texts(
        self, picture: Picture, n: int, progress: float, random: Random
    ) -> list[tuple[str, str]]:
        """Returns ``n`` prompts with their answers."""
        law = LOOK_UPS if progress < LOOK_UP_PHASE else ALL_TYPES
        names, weights = list(law), list(law.values())
        pairs: list[tuple[str, str]] = []
        forms = progress >= FORMS_FROM
        text_share = TEXT_SHARE if forms else 0.0
        while len(pairs) < n:
            name = random.choices(names, weights)[0]
            if name == "letter":
                pairs.append(self.letter(random))
                continue
            item = ask(picture, name, random, yes_share=self.yes_share, wordings=3 if forms else 1)
            if item is not None:
                pairs.append(self.formed(item, random, forms=forms, text_share=text_share))
        return pairs

    def ids(
        self, picture: Picture, n: int, progress: float, random: Random
    ) -> list[tuple[list[int], int]]:
        """Returns ``n`` question blocks as token ids with the place where the answer starts."""
        blocks = []
        for prompt, answer in self.texts(picture, n, progress, random):
            ids: list[int] = []
            for line in prompt.split("\n"):
                ids += self.encode(line)
            if progress >= FORMS_FROM and random.random() < 0.03:
                ids[random.randrange(len(ids))] = self.unknown
            ids.append(self.assistant)
            start = len(ids)
            blocks.append(([*ids, *self.encode(answer), self.end], start))
        return blocks

    @staticmethod
    def letter(random: Random, kind: float | None = None) -> tuple[str, str]:
        """Which option holds a stated text, or the reverse: only the option list is needed.

        ``kind`` from 0 to 1 decides what is asked; it is drawn where None.
        """
        options = OPTIONS[random.choice(("color", "color", "shape", "digit", "position"))]
        chosen = random.sample(options, random.choice((2, 3, 4, 4)))
        answer = random.choice(chosen)
        lines = [f"{LETTERS[i]}. {text}" for i, text in enumerate(chosen)]
        letter = LETTERS[chosen.index(answer)]
        if kind is None:
            kind = random.random()
        if kind < 0.05:  # lists ask for every option at once, so the look-up is learned sooner
            listed = ", ".join(f"{LETTERS[i]}. {text}" for i, text in enumerate(chosen))
            return "\n".join(["Name the options.", *lines]), listed
        if kind < 0.35:
            order = random.sample(chosen, len(chosen))
            listed = ", ".join(f"{text}: {LETTERS[chosen.index(text)]}" for text in order)
            return "\n".join([f"Which option is {', '.join(order)}?", *lines]), listed
        if kind < 0.4:
            return "\n".join([f"What is option {letter}?", *lines]), answer
        return "\n".join([f"Which option is {answer}?", *lines]), letter

    def formed(
        self, item: Item, random: Random, *, forms: bool, text_share: float = 0.0
    ) -> tuple[str, str]:
        """Puts an item into one of the prompt forms it allows."""
        if item.choices is not None:
            return self.choice(item, random, text=text_share > 0 and random.random() < text_share)
        question = item.question
        if forms:
            if item.question_type == "existence" and random.random() < 0.2:
                return self.negated(item)
            if item.question_type in OPTIONS:
                draw = random.random()
                for form, share in FORM_SHARES.items():
                    draw -= share
                    if draw < 0:
                        return self.asked(form, item, random)
        if random.random() < 0.4:
            question += "\n" + STYLE.short_instruction
        return question, item.answer

    @staticmethod
    def choice(item: Item, random: Random, *, text: bool) -> tuple[str, str]:
        """Puts an item with options, to be answered by the option's text or by its letter."""
        choices = item.choices or ()
        lines = [f"{LETTERS[i]}. {option}" for i, option in enumerate(choices)]
        if text:
            form = PROMPT_FORMS["choice_text"]
            answer = choices[LETTERS.index(item.answer)]
            return form.format(question=item.question, options="\n".join(lines)), answer
        if random.random() < 0.7:
            lines.append(STYLE.choice_instruction)
        return "\n".join([item.question, *lines]), item.answer

    @staticmethod
    def negated(item: Item) -> tuple[str, str]:
        """Is there no …?, with the answer turned round."""
        _, _, thing = item.question.rstrip("?").partition(" a")
        thing = thing.removeprefix("n ").strip()
        return f"Is there no {thing}?", "no" if item.answer == "yes" else "yes"

    @staticmethod
    def asked(form: str, item: Item, random: Random) -> tuple[str, str]:
        """Puts an item into one of the forms of `sightline.data.prompt_forms`."""
        about, template = item.question_type, PROMPT_FORMS[form]
        wrong = [option for option in OPTIONS[about] if option != item.answer]
        if form in ("p_true", "self_check", "confidence_word"):
            right = random.random() < 0.5
            near = about not in ("existence", "size") and random.random() < 0.4
            stated = item.answer if right else random.choice(wrong)
            if near and not right:
                stated = _neighbours(about, item.answer)[0]
            prompt = template.format(question=item.question, answer=stated)
            if form == "p_true":
                return prompt, "true" if right else "false"
            if form == "self_check":
                return prompt, "yes" if right else "no"
            return prompt, ("high" if item.difficulty < 0.45 else "medium") if right else "low"
        if len(OPTIONS[about]) < 3:
            return item.question, item.answer
        near_answers = _neighbours(about, item.answer)
        if form == "top_guesses":
            return template.format(question=item.question), ", ".join([item.answer, *near_answers])
        top = random.sample(wrong, 2)
        order = [item.answer, *top] if random.random() < 0.6 else [top[0], item.answer, top[1]]
        first = random.randint(40, 80)
        second = random.randint(10, min(first, 95 - first))
        shares = (first, second, random.randint(1, min(second, 99 - first - second)))
        listed = ", ".join(f"{text} {share}%" for text, share in zip(order, shares, strict=True))
        return template.format(question=item.question, candidates=listed), item.answer
