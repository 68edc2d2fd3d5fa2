"""Writes a trained run as a model directory that transformers loads, in half precision.

python training/export.py training/runs/seed0 src/sightline/models/embedded_weights/vlm
"""

import argparse
import json
from pathlib import Path

import torch
from architecture import ARCHITECTURES
from vocabulary import TEMPLATE, build_processor, load_tokenizer

from sightline.models.soundness import STYLE_FILE

STYLE = {
    "choice_instruction": "Answer with the option's text.",
    "asks": ["p_true", "self_check", "confidence_word", "top_guesses"],
}
"""How the exported model is asked: options by text, and the follow-up questions it learned."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--architecture", choices=tuple(ARCHITECTURES), default="llava")
    args = parser.parse_args()
    state = torch.load(args.run / "vlm.pt", weights_only=True, map_location="cpu")
    kind = ARCHITECTURES[args.architecture]
    tokenizer = load_tokenizer(kind)
    ids = {
        "pad": tokenizer.pad_token_id,
        "image": tokenizer.convert_tokens_to_ids("<image>"),
        "end": tokenizer.eos_token_id,
    }
    model = kind.build(len(tokenizer), ids)
    model.load_state_dict(state["model"])
    model.generation_config.eos_token_id = ids["end"]
    model.generation_config.pad_token_id = ids["pad"]
    model.generation_config.bos_token_id = None
    model.half().save_pretrained(args.target)
    processor = build_processor(kind)
    processor.tokenizer.chat_template = TEMPLATE
    processor.save_pretrained(args.target)
    (args.target / STYLE_FILE).write_text(json.dumps(STYLE) + "\n", encoding="utf-8")
    size = sum(file.stat().st_size for file in args.target.iterdir())
    print(f"step {state['step']}: {size / 1e6:.2f} MB in {args.target}")


if __name__ == "__main__":
    main()
