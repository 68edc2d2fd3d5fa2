"""Know when a vision-language model can be trusted."""

__version__ = "0.1.0"
