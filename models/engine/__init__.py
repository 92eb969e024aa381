"""The engine: slots, static cache, continuous batching, sampling. See engine.py."""

from models.engine.decoder import Decoder, Prompt
from models.engine.engine import Engine, run_all
from models.engine.scheduler import Sequence

__all__ = ["Decoder", "Engine", "Prompt", "Sequence", "run_all"]
