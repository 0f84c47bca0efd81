"""The engine as an HTTP service; takes the extra `serve`."""

from benchrouter.serving.service.app import make_app
from benchrouter.serving.service.metrics import Metrics
from benchrouter.serving.service.settings import Settings

__all__ = ["Metrics", "Settings", "make_app"]
