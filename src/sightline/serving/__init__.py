"""Serving: an OpenAI-compatible server whose answers carry calibrated trust."""
