"""Examples, images, prompts and splits."""
