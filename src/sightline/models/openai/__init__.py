"""Models behind OpenAI-compatible endpoints: ``openai:NAME`` with one base URL or several."""

from sightline.models.openai.loading import load_endpoint
from sightline.models.openai.model import EndpointModel
from sightline.models.openai.settings import PREFIX, EndpointSettings

__all__ = ["PREFIX", "EndpointModel", "EndpointSettings", "load_endpoint"]
