"""What every scoring rule starts from: a raw response without its reasoning. It knows strings only."""

import re

_REASONING = re.compile(r"<think>.*?</think>", re.DOTALL)


def clean(response: str) -> str:
    """Drop text between `<think>` and `</think>`, then strip white space around.

    If only the closing tag occurs, what follows the last one is kept; an opening tag without its end stays.
    """
    kept = _REASONING.sub("", response)
    return kept.rpartition("</think>")[2].strip()
