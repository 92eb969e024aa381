"""Answer the requests of the contract tests once each, and print the answers: `python -m tests.kernels.answers`."""

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

from models import Answer, Request, ask
from tests.models.test_contract import choosing, requests
from tests.models.test_picture_decoder import wish
from tests.tiny import FAMILIES

Told = dict[str, list[dict[str, Any]]]  # for each family its answers, as dictionaries


def answers() -> Told:
    """Return what each family answers, each request alone."""
    asked = {name: [*requests(0.0), *requests(1.0, seed=5), *choosing()] for name in FAMILIES}
    asked["emu3"] += [wish(1), wish(1, (5, 2), "two"), wish(2, negative_prompt=None), wish(7, (6, 6))]
    with tempfile.TemporaryDirectory() as folder:
        return {name: _answered(FAMILIES[name](Path(folder, name)), asked[name]) for name in asked}


def read(text: str) -> Told:
    """Return the answers that a process has printed."""
    told: Told = json.loads(text)
    for answer in (answer for several in told.values() for answer in several):
        answer["image"] = answer["image"] and base64.b64decode(answer["image"])
    return told


def _answered(checkpoint: Path, asked: list[Request]) -> list[dict[str, Any]]:
    return [_written(ask(str(checkpoint), [one], device="cpu")[0]) for one in asked]


def _written(answer: Answer) -> dict[str, Any]:
    return {**vars(answer), "image": answer.image and base64.b64encode(answer.image).decode()}


if __name__ == "__main__":
    print(json.dumps(answers()))
