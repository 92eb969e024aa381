"""Numbers and a gallery drawn as one HTML file that needs nothing but a browser. It computes nothing.

All text of rows is escaped by the template; style and images stand inside the file.
"""

from collections.abc import Mapping
from importlib import resources
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from jobs.report.gallery import Gallery
from jobs.report.shown import ShownJob, words_of

# What decoding makes of the oddities that models.images.oddities names.
SETTLED = {
    "exif_turned": "turned upright, as its EXIF data say",
    "cmyk": "converted to RGB",
    "palette": "its palette was resolved",
    "gray": "gray became equal red, green and blue",
    "transparent": "laid on white",
    "sixteen_bit": "the high byte of each sample was kept",
    "color_profile": "colours were taken as they stand; the profile was not applied",
    "animated": "only the first frame was seen",
    "several_pictures": "only the first picture in the file was seen",
}


def render_report(numbers: Mapping[str, Any], gallery: Gallery, job: ShownJob) -> str:
    """Draw a run's report."""
    return render(
        "page.html",
        title=job.title,
        numbers=numbers,
        settings=numbers["settings"],
        settings_yaml=yaml.safe_dump(numbers["settings"], sort_keys=False, allow_unicode=True),
        group_by=numbers["settings"]["job"].get("group_by"),
        gallery=gallery,
        card_lines=job.shown,
        words=words_of(job),
        pictures=numbers.get("pictures"),
        settled=SETTLED,
    )


def render(template: str, **values: Any) -> str:
    """Fill one of this folder's templates."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"count": _count, "percent": _percent, "duration": _duration, "rate": _rate}
    style = Markup(_text("page.css"))  # ours, and it holds no markup
    return environment.from_string(_text(template)).render(style=style, **values)


def _text(name: str) -> str:
    return (resources.files("jobs.report") / name).read_text(encoding="utf-8")


def _count(number: int) -> str:
    # A narrow space keeps the digits together at the end of a line, and reads alike in every language.
    return f"{number:,}".replace(",", "\u202f")


def _percent(share: float) -> str:
    return f"{share * 100:.1f}\u202f%"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _rate(per_second: float | None) -> str:
    if per_second is None:
        return "–"
    return _count(round(per_second)) if per_second >= 10 else f"{per_second:.2g}"
