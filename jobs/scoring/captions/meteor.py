"""METEOR 1.5 of captions through its jar, which stands in the extra `captions`. It knows captions as words only."""

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from jobs.scoring.captions.java import EXTRA, CaptionError, java, meteor_jar

_APART = " ||| "


@dataclass(frozen=True)
class Meteor:
    """A running METEOR and what it complains of."""

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
        self._say(["EVAL", *counts])
        captions = [float(self._hear()) for _ in candidates]
        return float(self._hear()), captions

    def _counts(self, candidate: str, references: Sequence[str]) -> str:
        # Three bars part the fields, so they may not stand in a caption.
        self._say(["SCORE", *(text.replace("|||", "").replace("  ", " ") for text in (*references, candidate))])
        return self._hear()

    def _say(self, fields: Sequence[str]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(_APART.join(fields) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise self._ended() from error

    def _hear(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise self._ended()
        return line

    def _ended(self) -> CaptionError:
        self.errors.seek(0)
        said = self.errors.read().strip().splitlines()
        return CaptionError(f"METEOR ended early: {said[-1] if said else 'it said nothing'}")


@contextmanager
def running_meteor() -> Iterator[Meteor]:
    """Start METEOR, which takes seconds and 2 GB of memory, and end it behind.

    Raises:
        CaptionError: The extra, or Java, is missing.
    """
    jar, program = meteor_jar(), java()
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
