"""One of our own models as a judge: asked in this process, without images, always for its likeliest words.

What it is asked is not known here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.types import Request, Sampling
from pipeline import StorageSettings, local_copy, weights_digest

# An option's letter takes one or two tokens, an extracted answer a few more.
MAX_NEW_TOKENS = 64
DIGITS_NAMED = 16


@dataclass(frozen=True)
class ModelJudge:
    """See jobs.evaluation.judge.Judge. The checkpoint is loaded anew for each batch, and freed after it.

    Attributes:
        folder: The local checkpoint.
        name: The folder's name and a fingerprint of what is in it.
    """

    folder: str
    name: str

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """Reply to each prompt.

        Raises:
            BadRequest: A prompt does not fit the model, or it takes no chat.
            CheckpointError: The checkpoint is not one we can run.
        """
        from models import ask  # only now, as it loads torch

        sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS)
        requests = [
            Request(key=str(place), messages=[{"role": "user", "content": prompt}], sampling=sampling)
            for place, prompt in enumerate(prompts)
        ]
        return [answer.text for answer in ask(self.folder, requests)]


def model_judge(path: str) -> ModelJudge:
    """Make a judge of a checkpoint.

    Args:
        path: A local folder, an fsspec URL or a hub name.

    Raises:
        StorageError: There is no model.
    """
    folder = local_copy(path, StorageSettings(), is_looking=True)
    digest = weights_digest([folder]).partition(":")[2]
    return ModelJudge(folder, f"{Path(folder).name}@{digest[:DIGITS_NAMED]}")
