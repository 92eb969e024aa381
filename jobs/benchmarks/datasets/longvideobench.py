"""LongVideoBench: questions about a video, whose frames and timed subtitles stand in the order of time."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from jobs.benchmarks import templates
from jobs.benchmarks.benchmark import Benchmark, Item, PromptTemplate
from jobs.benchmarks.row import Row, bad_column

_OPTIONS = 5
# So the data set writes an option that a question does not have.
_NO_OPTION = "N/A"
_AFTER_FRAME = re.compile(r"(<image \d+>)\n")
_BEFORE_SUBTITLE = re.compile(r"(<image \d+>)(?!<image )")


class _Line(NamedTuple):
    """A subtitle: from when to when it is shown, in seconds of the video, and what it says."""

    start: float
    end: float
    words: str


def _longvideobench(row: Row) -> Item:
    """Read a question about a video, whose context shows each frame as `<image k>` between the subtitles around it.

    The reader says when the frames are shown (`frame_times`) and brings the subtitles' file as text; without frames,
    as where stored predictions are scored, there is no context.
    """
    options = [row.text_or_none(f"option{place}") for place in range(_OPTIONS)]
    choices = tuple(option for option in options if option is not None and option != _NO_OPTION)
    return Item(
        question=row.text("question"),
        # The test split hides the answer: null, or -1.
        answers=row.gold_letter("correct_choice", choices, hidden=(-1, "-1", "")),
        choices=choices,
        context=_context(row),
        groups=row.groups("duration_group", "question_category"),
        cluster=row.text_or_none("video_id") or row.text_or_none("video_path"),
        facts={"id": row.text("id")},
    )


def _context(row: Row) -> str:
    shown = [] if row.is_empty("frame_times") else row.list_of("frame_times", "a list of seconds")
    times = [Row({"frame_times": time}).number("frame_times") for time in shown]
    subtitles = row.get("subtitles")
    if not times or row.is_empty("subtitles") or subtitles == "":
        return _interleaved(times, [])
    start = "starting_timestamp_for_subtitles"
    begin = 0.0 if row.is_empty(start) else row.number(start)
    return _interleaved(times, _lines(subtitles, begin, row.number("duration")))


def _interleaved(times: Sequence[float], lines: Sequence[_Line]) -> str:
    """Return frames and subtitles on lines of their own, in the order of time.

    A frame stands before the first subtitle whose middle it does not come after. A subtitle is left out unless a
    frame is shown while it is; one of less than a second counts as shown for a second.
    Source: lmms-eval 75571cf and VLMEvalKit e8e78f0, insert_subtitles_into_frames.

    Args:
        times: When each frame is shown, in seconds.
        lines: The subtitles, in the file's order.
    """
    context: list[str] = []
    shown = 0
    for start, end, words in lines:
        middle = (start + end) / 2
        while shown < len(times) and times[shown] <= middle:
            shown += 1
            context.append(f"<image {shown}>")
        if end - start < 1:
            start, end = middle - 0.5, middle + 0.5
        if any(start < time < end for time in times):
            context.append(words)
    return "\n".join([*context, *(f"<image {place + 1}>" for place in range(shown, len(times)))])


def _lines(subtitles: Any, begin: float, duration: float) -> list[_Line]:
    try:
        listed = json.loads(subtitles) if isinstance(subtitles, str) else subtitles
    except (ValueError, RecursionError) as error:
        raise bad_column("subtitles", subtitles, "a JSON list of subtitles") from error
    if not isinstance(listed, list):
        raise bad_column("subtitles", subtitles, "a JSON list of subtitles")
    return [_line(subtitle, begin, duration) for subtitle in listed]


def _line(subtitle: Any, begin: float, duration: float) -> _Line:
    """Read a subtitle in either of the data set's two forms: `timestamp` and `text`, or `start`, `end` and `line`."""
    expected = "`timestamp` and `text`, or `start`, `end` and `line`"
    try:
        if "timestamp" in subtitle:
            start, end = subtitle["timestamp"]
            # An end that is missing, or a whole number, is the video's: as the source has it.
            last = end if isinstance(end, float) and math.isfinite(end) else duration
            return _Line(float(start) - begin, last - begin, _words(subtitle["text"]))
        return _Line(_seconds(subtitle["start"]) - begin, _seconds(subtitle["end"]) - begin, _words(subtitle["line"]))
    except (TypeError, ValueError, KeyError) as error:
        raise bad_column("subtitles", subtitle, expected) from error


def _words(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"found {value!r}, expected text")
    return value


def _seconds(clock: str) -> float:
    hours, minutes, seconds = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _lmms(item: Item) -> str:
    frames = f"{item.context}\n" if item.context else ""
    return f"{frames}{item.with_options()}\n{templates.LETTER}\n"


def _vlmevalkit(item: Item) -> str:
    """Put nothing between two frames and a line end after each subtitle only."""
    frames = _AFTER_FRAME.sub(r"\1", f"{item.context}\n") if item.context else ""
    return f"{frames}{item.with_options()}\n{templates.LETTER}"


def _aria(item: Item) -> str:
    return _BEFORE_SUBTITLE.sub(r"\1\n", _vlmevalkit(item))


_LONGVIDEOBENCH = Benchmark(
    key="longvideobench_val",
    to_item=_longvideobench,
    needed=("question", "option0", "option1", "option2", "option3"),
    used=(
        *("option4", "correct_choice", "duration_group", "question_category", "video_id", "video_path"),
        *("starting_timestamp_for_subtitles", "duration", "frame_times", "subtitles"),
    ),
    key_column="id",
    images=(),
    video="video_path",
    subtitles="subtitle_path",
    rule="mcq/first_letter",
    other_rules=("mcq/prefetch", "mcq/ranked"),
    prompts={
        "lmms": PromptTemplate(_lmms, 32),
        "vlmevalkit": PromptTemplate(_vlmevalkit, templates.VLMEVALKIT_OTHERS),
        "aria": PromptTemplate(_aria, 512, images=templates.ARIA_FRAMES),
    },
)
DATA_SETS: tuple[Benchmark, ...] = (_LONGVIDEOBENCH, replace(_LONGVIDEOBENCH, key="longvideobench_test"))
