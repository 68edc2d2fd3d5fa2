"""Reading short answers: normal form, option letter, yes or no, number; and making text inert.

Graders and estimators share these, so that an answer counted as right is also the one counted as
agreeing. Nothing here knows the right answer except through the *form* of the references.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Literal, NamedTuple

from sightline.core.types import Example, choice_letters

_REMOVED = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_MINUS = re.compile(r"(?<![^\s(\[$€£])-(?=\.?\d)")
_ARTICLES = frozenset({"a", "an", "the"})
_COUNTED = "zero one two three four five six seven eight nine ten"
_NUMBER_WORDS = {word: str(value) for value, word in enumerate(_COUNTED.split())} | {"none": "0"}
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's i'd've isn't it'd it'd've it'll ma'am mightn't
mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've
should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've
someone'll someone's something'd something'd've something'll that's there'd there'd've there're
there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
you've
"""
_CONTRACTIONS = {word.replace("'", ""): word for word in _CONTRACTED.split()}


def normalise_answer(text: str) -> str:
    """Returns the answer in the normal form of the VQA evaluation.

    Lower case, whitespace collapsed, punctuation removed (or turned into a space inside a word),
    digit-group commas and sentence periods removed, articles dropped, "none" and "zero" to "ten"
    as digits, contractions with their apostrophes.

    Source: Antol et al., "VQA: Visual Question Answering", ICCV 2015, the official evaluation.
    Ours differs so that different answers stay different: an answer that would vanish (``A``,
    ``the``, ``?``) keeps its lower-case text, a minus sign before a number stays (``-5`` is not
    ``5``), curly quotes count as straight ones, and every sentence period is removed, not only
    the first 32.

    Example:
        >>> normalise_answer("The  dogs, two!")
        'dogs 2'
        >>> normalise_answer("1,000"), normalise_answer("A"), normalise_answer("dont")
        ('1000', 'a', "don't")
    """
    raw = unicodedata.normalize("NFC", text).replace("’", "'").replace("‘", "'")
    raw = raw.replace("“", '"').replace("”", '"').replace("−", "-")
    raw = " ".join(raw.split())
    out = _MINUS.sub("\0", raw)
    delete_all = _DIGIT_COMMA.search(raw) is not None
    for sign in _REMOVED:
        if sign in out:
            beside_space = sign + " " in raw or " " + sign in raw
            out = out.replace(sign, "" if delete_all or beside_space else " ")
    out = _PERIOD.sub("", out).replace("\0", "-")
    words = [_NUMBER_WORDS.get(word, word) for word in out.lower().split()]
    kept = [
        _CONTRACTIONS.get(word.replace("'", ""), word) for word in words if word not in _ARTICLES
    ]
    return " ".join(kept) or raw.lower()


_WRAPPED = re.compile(r"\\(?:boxed|text|mathrm)\{([^{}]*)\}")
_MARKUP = re.compile(r"[*`$]|</?s>|<\|[^|<>]{0,40}\|>")
_LETTER = r"(?:[A-Z]{1,2})"
_ALONE = re.compile(r"[\W_]*(?:option|choice|answer)?[\W_]*([A-Za-z]{1,2})[\W_]*", re.IGNORECASE)
_STATED = re.compile(
    r"\b(?i:answer|option|choice)(?:\s+(?i:is|was|would\s+be|should\s+be|must\s+be))?"
    rf"(?i:\s+(?:option|choice|letter))?\s*[:=\-]?\s*[(\[\"']?({_LETTER}(?![\w'])|[a-z](?=\s*(?:[.,;:)\]\"]|$)))"
)
_LEADING = re.compile(rf"^\s*[(\[]?({_LETTER})(?:[)\]]|[.:,](?=\s|$)|\s+-\s)", re.MULTILINE)
_BRACKETED = re.compile(rf"[(\[]({_LETTER})[)\]]")
_STANDING = re.compile(rf"(?<![\w'-])({_LETTER})(?![\w'-])")
_NEGATED_BEFORE = re.compile(
    r"(?i:\b(?:not|never|neither|nor|except|than|instead of)|n't)"
    r"(?:\s+(?i:be|option|choice|answer|is|the)){0,3}\s*[(\[\"']?$"
)
_NEGATED_AFTER = re.compile(
    r"^[)\]\"']?\s+(?i:is|was|are|can|does|could|would|seems)\s*(?i:not\b|n't|incorrect|wrong|false)|^[)\]\"']?\s+(?i:isn't|can't|cannot|doesn't)"
)
_WORD_FOLLOWS = re.compile(r"\s+(?!(?:and|as|because|but|for|is|nor|or|since|would)\b)[a-z]")


def parse_choice(text: str, choices: Sequence[str]) -> str | None:
    """Returns the option letter an answer gives, or None where it gives none or more than one.

    The first of these that finds anything decides; if it finds several letters, the answer is
    ambiguous: (1) the whole answer is a letter (``b``, ``(B)``, ``B.``, ``Option B``); (2) the
    whole answer is the text of an option; (3) a statement (``The answer is B``, ``choice: (B)``);
    (4) a letter and a delimiter at the start of a line (``B. a dog``, ``(B) a dog``); (5) a letter
    in brackets; (6) a capital standing alone (``I choose B``; not the article of ``A dog``, nor
    the pronoun I), together with the one option whose text occurs in the answer. Letters that are
    denied ("not A", "A is wrong") do not count in (3), (5) and (6). An option's text counts only
    while no other option has the same text.

    Args:
        text: The answer, reasoning removed.
        choices: Option texts in letter order; empty texts are never matched.

    Example:
        >>> parse_choice("The answer is (B).", ["cat", "dog"])
        'B'
        >>> parse_choice("It is a dog", ["cat", "dog"]), parse_choice("A or B", ["cat", "dog"])
        ('B', None)
        >>> parse_choice("three", ["two", "three", "three"]) is None
        True
    """
    letters = choice_letters(len(choices))
    known = frozenset(letters)
    text = _MARKUP.sub("", _WRAPPED.sub(r"\1", unicodedata.normalize("NFC", text)))
    text = "\n".join(words for line in text.splitlines() if (words := " ".join(line.split())))
    alone = _ALONE.fullmatch(text) if len(text) <= 40 else None
    if alone and alone[1].upper() in known:
        return alone[1].upper()
    normal = [normalise_answer(choice) if choice.strip() else "" for choice in choices]
    same = [
        letter for letter, n in zip(letters, normal, strict=True) if n == normalise_answer(text)
    ]
    if same and text:
        return same[0] if len(same) == 1 else None
    for pattern in (_STATED, _LEADING, _BRACKETED):
        found = _mentions(pattern, text, known, denied=pattern is not _LEADING)
        if found:
            return found.pop() if len(found) == 1 else None
    by_text = _options_within(text, normal, letters)
    standing = _mentions(_STANDING, _without_options(text, choices), known, denied=True)
    found = standing | by_text
    return found.pop() if len(found) == 1 else None


def _mentions(
    pattern: re.Pattern[str], text: str, known: frozenset[str], *, denied: bool
) -> set[str]:
    found = set()
    for match in pattern.finditer(text):
        letter = match[1].upper()
        before, after = (
            text[max(0, match.start(1) - 40) : match.start(1)],
            text[match.end(1) :][:40],
        )
        if letter not in known:
            continue
        if denied and (_NEGATED_BEFORE.search(before) or _NEGATED_AFTER.search(after)):
            continue
        is_word = pattern is _STANDING and _WORD_FOLLOWS.match(after)
        if is_word and (letter == "I" or (letter == "A" and _starts_sentence(before))):
            continue
        found.add(letter)
    return found


def _starts_sentence(before: str) -> bool:
    return not before.strip() or before.rstrip()[-1] in ".!?:\"'"


def _options_within(text: str, normal: Sequence[str], letters: Sequence[str]) -> set[str]:
    haystack = f" {normalise_answer(text)} "
    inside = {n for n in normal if n and f" {n} " in haystack}
    longest = {n for n in inside if not any(n != m and f" {n} " in f" {m} " for m in inside)}
    return {letter for letter, n in zip(letters, normal, strict=True) if n in longest}


def _without_options(text: str, choices: Sequence[str]) -> str:
    for choice in choices:
        if len(choice.strip()) > 1:
            text = re.sub(
                rf"(?<!\w){re.escape(choice.strip())}(?!\w)", " ", text, flags=re.IGNORECASE
            )
    return text


_YES = frozenset({"yes", "yeah", "yep", "yup", "true", "correct"})
_NO = frozenset({"no", "nope", "nah", "false", "incorrect"})
_UNDECIDED = re.compile(
    r"\b(?:cannot|can't|can not|unable|not sure|not certain|unsure|don't know|do not know|unclear|"
    r"not clear|impossible to|not possible to|not enough|insufficient)\b"
)


def parse_yes_no(text: str) -> Literal["yes", "no"] | None:
    """Returns ``yes`` or ``no``, or None where the answer gives neither or both.

    The first word decides (yes, no, true, false and their kin). Otherwise an answer that declines
    ("cannot tell") is None; one with "yes" alone is yes; one with "no" or "not" alone is no.

    Example:
        >>> parse_yes_no("No, there isn't."), parse_yes_no("Sure it does"), parse_yes_no("No dog")
        ('no', None, 'no')
    """
    words = normalise_answer(text).split()
    if not words:
        return None
    if words[0] in _YES:
        return "yes"
    if words[0] in _NO:
        return "no"
    plain = " ".join(words)
    if _UNDECIDED.search(plain):
        return None
    says_yes = any(word in ("yes", "true") for word in words)
    says_no = any(word in ("no", "not", "false") or word.endswith("n't") for word in words)
    if says_yes == says_no:
        return None
    return "yes" if says_yes else "no"


class Quantity(NamedTuple):
    """A number with its unit; the unit is ``%``, a symbol of the table of units, or empty."""

    value: float
    unit: str


_UNDER_TWENTY = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen
"""
_TENS = "ten twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL = {word: value for value, word in enumerate(_UNDER_TWENTY.split())}
_SMALL |= {word: 10 * value for value, word in enumerate(_TENS.split(), start=1)}
_LARGE = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_UNIT_SPELLINGS = {
    "%": "% percent percentage pct",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "m": "m meter meters metre metres",
    "km": "km kilometer kilometers kilometre kilometres",
    "in": "in inch inches",
    "ft": "ft foot feet",
    "yd": "yd yard yards",
    "mi": "mi mile miles",
    "g": "g gram grams",
    "kg": "kg kilogram kilograms kilo kilos",
    "lb": "lb lbs pound pounds",
    "s": "s sec second seconds",
    "min": "min minute minutes",
    "h": "h hr hour hours",
    "°c": "°c celsius",
    "°f": "°f fahrenheit",
}
_UNITS = {word: unit for unit, words in _UNIT_SPELLINGS.items() for word in words.split()}
_DIGITS = r"[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:e[-+]?\d{1,3})?"
_WORDS = "|".join(sorted((*_SMALL, *_LARGE), key=len, reverse=True))
_QUANTITY = re.compile(
    rf"(?<![\w.])(?:(?P<digits>{_DIGITS})|(?P<words>(?:{_WORDS})(?:(?:[\s-]+(?:and\s+)?)(?:{_WORDS}))*\b))"
    rf"(?:\s*(?P<scale>hundred|thousand|million|billion|trillion)\b)?"
    r"(?:\s*(?P<unit>%|°[cf]\b|[a-z]+\b))?(?![\d])"
)


def parse_number(text: str) -> Quantity | None:
    """Returns the number an answer gives, or None where it gives none or several different ones.

    Reads digits with group commas, decimals and exponents, number words up to trillions, percent
    and common units; currency signs are ignored. "none" and "no" alone are 0.

    Example:
        >>> parse_number("There are twenty-one of them."), parse_number("1,250.5 km")
        (Quantity(value=21.0, unit=''), Quantity(value=1250.5, unit='km'))
        >>> parse_number("3 or 4") is None
        True
    """
    plain = " ".join(unicodedata.normalize("NFC", text).replace("−", "-").lower().split())
    if plain.strip(" .!") in ("none", "no"):
        return Quantity(0.0, "")
    found = set()
    for match in _QUANTITY.finditer(plain):
        if match["digits"] is not None:
            value = float(match["digits"].replace(",", ""))
        else:
            value = _spelled(match["words"])
        if match["scale"]:
            value *= _LARGE[match["scale"]]
        if math.isfinite(value):
            found.add(Quantity(value, _UNITS.get(match["unit"] or "", "")))
    if len({quantity.value for quantity in found}) != 1:
        return None
    return max(found, key=lambda quantity: len(quantity.unit))


def _spelled(words: str) -> float:
    total = current = 0.0
    for word in re.split(r"[\s-]+", words):
        if word == "and":
            continue
        if word in _SMALL:
            current += _SMALL[word]
        elif word == "hundred":
            current = (current or 1.0) * 100
        else:
            total += (current or 1.0) * _LARGE[word]
            current = 0.0
    return total + current


_BOOLEAN_QUESTION = re.compile(
    r"^(?:is|are|was|were|do|does|did|can|could|has|have|had|will|would|should|isn't|aren't|doesn't)\b"
    r"(?!.*\bor\b)|\byes\s+or\s+no\b|\btrue\s+or\s+false\b|\byes/no\b",
    re.IGNORECASE | re.DOTALL,
)
_COUNT_QUESTION = re.compile(r"\bhow many\b|\bcount the\b|\bwhat number of\b", re.IGNORECASE)


def answer_form(example: Example) -> Literal["choice", "yes_no", "number", "text"]:
    """What form an example's answers take.

    | form | where |
    |---|---|
    | choice | it has choices, or its references are all single capital letters |
    | yes_no | its references are all yes or no; without references, a yes/no question |
    | number | its references are all numbers; without references, a "how many" question |
    | text | everything else |
    """
    references = example.references
    if example.choices is not None:
        return "choice"
    if not references:
        if _BOOLEAN_QUESTION.search(example.question.strip()):
            return "yes_no"
        return "number" if _COUNT_QUESTION.search(example.question) else "text"
    if all(len(reference) == 1 and "A" <= reference <= "Z" for reference in references):
        return "choice"
    if all(normalise_answer(r) in ("yes", "no", "true", "false") for r in references):
        return "yes_no"
    return "number" if all(_is_number(reference) for reference in references) else "text"


def _is_number(text: str) -> bool:
    match = _QUANTITY.fullmatch(text.strip().lower().lstrip("$€£"))
    return match is not None and (not match["unit"] or match["unit"] in _UNITS)


def canonical_answer(example: Example, text: str) -> str:
    """Returns the short form under which two answers to this example count as the same.

    The capital letter for multiple choice, ``yes`` or ``no``, a plain number for numeric answers;
    the normalised text wherever that cannot be read off and for all other examples.

    Example:
        >>> canonical_answer(Example(id="1", question="How many dogs?"), "There are two dogs.")
        '2'
    """
    form = answer_form(example)
    found: str | None = None
    if form == "choice":
        found = parse_choice(text, option_texts(example))
    elif form == "yes_no":
        found = parse_yes_no(text)
    elif form == "number" and (quantity := parse_number(text)) is not None:
        found = f"{quantity.value:.12g}" + quantity.unit.replace("%", "")
    return normalise_answer(text) if found is None else found


def option_texts(example: Example) -> tuple[str, ...]:
    """The option texts; 26 empty ones where references are letters and no options were recorded."""
    return ("",) * 26 if example.choices is None else example.choices
