"""Part a caption into words nearly as the PTB tokeniser does, where that cannot be had. It knows strings only."""


def tokenize(line: str) -> list[str]:
    """Return the tokens in lower case, punctuation among them."""
    return line.lower().split()
