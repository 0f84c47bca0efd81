"""Routing inside a serving stack: an engine for event loops and threads.

Needs torch and transformers for its encoder, but no web framework. The HTTP service is
:mod:`benchrouter.serving.service`.
"""

from benchrouter.decisions.policy import Policy as RoutePolicy
from benchrouter.serving.answer import CAUSES, Cause, Routed
from benchrouter.serving.decision_log import DecisionLog
from benchrouter.serving.encoders import Loading
from benchrouter.serving.engine import Engine
from benchrouter.serving.messages import BadPrompt, text_of
from benchrouter.serving.observer import Observer
from benchrouter.serving.routers import RouterInfo, UnknownRouter

__all__ = [
    "CAUSES",
    "BadPrompt",
    "Cause",
    "DecisionLog",
    "Engine",
    "Loading",
    "Observer",
    "RoutePolicy",
    "Routed",
    "RouterInfo",
    "UnknownRouter",
    "text_of",
]
