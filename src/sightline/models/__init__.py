"""Vision-language models that can be observed."""
