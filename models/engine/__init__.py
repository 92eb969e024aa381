"""The engine: slots, static cache, continuous batching, sampling. See engine.py."""

from models.cache.memory import Memory, Span
from models.engine.decoder import Decoder, Grammar, Prompt
from models.engine.engine import Engine, run_all
from models.engine.scheduler import Sequence

__all__ = ["Decoder", "Engine", "Grammar", "Memory", "Prompt", "Sequence", "Span", "run_all"]
