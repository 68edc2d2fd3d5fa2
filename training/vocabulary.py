"""The word-level tokenizer and the processors built on it.

`python training/vocabulary.py` writes vocabulary.txt anew from the mixture and the extra words.

Text is lower-cased and cut at white space, punctuation and single digits. A capital option letter
("A.", "B)", or a letter alone) is kept apart from the article "a", and loses its full stop.
"""

from pathlib import Path
from random import Random

from architecture import IDEFICS3, LLAVA, PATCH, PATCHES, SIDE, Architecture
from attributes import NORMAL
from mixture import QuestionMixture
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)

from sightline.data.questions import pictures
from sightline.data.scenes import SPLITS, generate

SPECIAL = ("<pad>", "<unk>", "<image>", "<user>", "<assistant>", "<end>")
LETTERS = "ABCDEFGH"
# "A." and "A)" before white space, "(A)", A after "option" or a colon, and A on its own.
_LETTER = (
    r"(?<![A-Za-z(]){x}[.)](?=\s|$)|(?<=\(){x}(?=\))|(?<=[Oo]ption |: ){x}(?![A-Za-z])|^\s*{x}\s*$"
)
FILE = Path(__file__).with_name("vocabulary.txt")
EXTRA_WORDS = """
please using following options option choices choice choose select from these only one word letter
correct incorrect right wrong image photo this that it be would could should do you think sure
certain uncertain unsure likely unlikely probability percent confidence confident guess between
very maybe probably definitely almost never always because then first second third best most least
question reason step by explain give your final label class of type kind figure drawn drawing tell
me name anything any other same different left right above below beside near next to upper lower
large little larger smaller than more fewer less equal as many nothing none zero one two three four
five six seven eight nine ten hundred his her their its was were has have had been there here where
""".split()  # noqa: SIM905

TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}<assistant>{%- else -%}<user>{%- endif -%}"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}"
    "{%- for part in message['content'] if part['type'] == 'image' -%}<image>{%- endfor -%}"
    "{%- for part in message['content'] if part['type'] == 'text' -%}"
    "{{ part['text'] }}{%- if not loop.last %} {% endif -%}{%- endfor -%}"
    "{%- endif -%}"
    "{%- if message['role'] == 'assistant' -%}<end>{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<assistant>{%- endif -%}"
)


def build_tokenizer(words: list[str], kind: Architecture = LLAVA) -> PreTrainedTokenizerFast:
    """Returns the tokenizer over the special tokens, the option letters and ``words``.

    Tokens that only another architecture needs stand last, so that all share the other ids.
    """
    around = [token for token in dict.fromkeys(kind.prefix) if token not in SPECIAL]
    tokens = list(dict.fromkeys([*SPECIAL, *LETTERS, *words, *around]))
    tokenizer = Tokenizer(
        models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>")
    )
    marks = {letter: chr(0xE000 + i) for i, letter in enumerate(LETTERS)}
    tokenizer.normalizer = normalizers.Sequence(
        [
            *(
                normalizers.Replace(Regex(_LETTER.format(x=letter)), f" {mark} ")
                for letter, mark in marks.items()
            ),
            normalizers.Lowercase(),
            *(normalizers.Replace(mark, letter) for letter, mark in marks.items()),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits(individual_digits=True)]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="<end>",
        extra_special_tokens={
            "image_token": "<image>",
            "user_token": "<user>",
            "assistant_token": "<assistant>",
            **{f"around_token_{i}": token for i, token in enumerate(around)},
        },
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        model_input_names=["input_ids", "attention_mask"],
    )


def load_tokenizer(kind: Architecture) -> PreTrainedTokenizerFast:
    """Returns the tokenizer over the committed vocabulary."""
    return build_tokenizer(FILE.read_text().split("\n"), kind)


def build_processor(kind: Architecture) -> ProcessorMixin:
    """Returns the processor that is shipped with the weights."""
    if kind is IDEFICS3:
        whole = Idefics3ImageProcessor(
            size={"longest_edge": SIDE},
            max_image_size={"longest_edge": SIDE},
            do_image_splitting=False,
            image_mean=NORMAL[0].tolist(),
            image_std=NORMAL[1].tolist(),
        )
        return Idefics3Processor(
            whole, load_tokenizer(kind), image_seq_len=PATCHES // 4, chat_template=TEMPLATE
        )
    pictures = CLIPImageProcessor(
        size={"height": SIDE, "width": SIDE},
        do_center_crop=False,
        do_resize=True,
        resample=3,
    )
    return LlavaProcessor(
        pictures,
        load_tokenizer(kind),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=TEMPLATE,
    )


def words_of_the_mixture() -> list[str]:
    """Returns every word the mixture uses, with the extra words, sorted."""
    tokenizer = build_tokenizer([])
    cut = tokenizer.backend_tokenizer
    words: set[str] = set(EXTRA_WORDS) | set("0123456789.,:;?!'\"%()-")
    mixture = QuestionMixture(None)
    draw = Random(0)

    def add(text: str) -> None:
        normal = cut.normalizer.normalize_str(text)
        words.update(piece for piece, _ in cut.pre_tokenizer.pre_tokenize_str(normal))

    for split in SPLITS:
        for picture in pictures(generate(split, 1500, 5).scenes):
            for prompt, answer in mixture.texts(picture, 8, 1.0, draw):
                add(prompt)
                add(answer)
        for item in generate(split, 1500, 5, 3).items:
            for reference in item.references:
                add(reference)
    return sorted(words - set(LETTERS) - set(SPECIAL))


if __name__ == "__main__":
    FILE.write_text("\n".join(words_of_the_mixture()))
