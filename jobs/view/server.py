"""Answer a browser on this machine: a page of rows, and a page of one row with its images at full size.

Every text is escaped by the templates, every image is decoded and encoded anew, and the pages hold no script, which
the browser is told to hold to. Whoever does not know the address's random part gets nothing.
"""

import base64
import hashlib
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, urlencode, urlsplit

from jobs.config import RunSettings, frozen_settings, output_at
from jobs.report.gallery import drawn_images, seen_images
from jobs.report.job import labels_of
from jobs.report.page import page_style, render
from jobs.report.part_files import Pictures
from jobs.report.results import ReportError
from jobs.view.rows import SORTS, VERDICTS, Rows, Wanted
from pipeline import ConfigError, NotFound, StorageError, Store, read_plan, settings_by_source

HOST = "127.0.0.1"
ROWS_A_PAGE = 24
LARGE_PIXELS = 1600


@dataclass(frozen=True)
class View:
    """What is looked at: an output, its rows, and how its images are reached."""

    store: Store
    settings: RunSettings
    rows: Rows

    def page(self, query: Mapping[str, str]) -> str:
        """Draw a page of rows.

        Args:
            query: `verdict`, `group`, `text`, `sort` as in `Wanted`, and `page`, from 1.
        """
        wanted = _wanted(query)
        found = _find(self.rows, wanted)
        last = max(1, -(-len(found) // ROWS_A_PAGE))
        page = min(max(1, _number(query.get("page", ""), 1)), last)
        numbers = found[(page - 1) * ROWS_A_PAGE : page * ROWS_A_PAGE].tolist()
        return self._render("view/rows.html", numbers, wanted=wanted, found=len(found), page=page, last=last)

    def row(self, query: Mapping[str, str]) -> str | None:
        """Draw one row, `number` in the results, with all its columns; None where there is no such row."""
        number = _number(query.get("number", ""), -1)
        if not 0 <= number < len(self.rows):
            return None
        return self._render("view/row.html", [number], side=LARGE_PIXELS, total=len(self.rows))

    def _known(self, number: int) -> dict[str, Any]:
        return {"verdict": self.rows.verdict(number), "likelihood": self.rows.likelihood(number)}

    def _render(self, template: str, numbers: list[int], **values: Any) -> str:
        job = self.settings.job.build()
        rows = self.rows.read(numbers)
        side = {"side": values["side"]} if "side" in values else {}
        if job.picture is None:
            sources = settings_by_source(job, self.settings.read)
            images = seen_images(rows, read_plan(self.store), sources, **side)
        else:
            images = drawn_images(Pictures(self.store, self.rows.sizes), numbers, **side)
        return render(
            template,
            uri=self.store.uri,
            shown=[
                {
                    "number": number,
                    "row": row,
                    "images": pictures,
                    "note": note,
                    "lines": _lines(job, row),
                    **self._known(number),
                }
                for number, row, (pictures, note) in zip(numbers, rows, images, strict=True)
            ],
            labels=labels_of(job),
            verdicts=VERDICTS,
            counts=self.rows.counts(),
            groups=self.rows.groups,
            sorts=SORTS,
            address=_address,
            **values,
        )


def view_of(uri: str, overrides: Sequence[str] = ()) -> View:
    """Look at an output.

    Args:
        uri: Where it is.
        overrides: `dotted.key=value` each, of settings that say how to reach the output, or the input for its images.

    Raises:
        ReportError: There is no run, or it has no results yet.
        ConfigError: An override is wrong, or of another setting.
        StorageError: The output cannot be read.
    """
    store = output_at(uri, overrides, allowed=("read.storage", "write.storage"))
    settings = frozen_settings(store, overrides)
    return View(store, settings, Rows(store, settings.job.build()))


def serve(open_view: Callable[[], View], port: int, say: Callable[[str], None]) -> None:
    """Answer until interrupted.

    Args:
        open_view: Looks at the output; called again where a run that goes on has moved its rows meanwhile.
        port: Where to listen; 0 for any that is free.
        say: Told the address.

    Raises:
        ConfigError: The port is taken.
    """
    try:
        server = make_server(open_view, port)
    except OSError as error:
        fault = f"--port: cannot listen at {HOST}:{port} ({error.strerror}); leave it out, and a free one is taken"
        raise ConfigError("the command line", [fault]) from error
    say(address_of(server))
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


def address_of(server: ThreadingHTTPServer) -> str:
    """Return what to type into the browser."""
    handler = cast(type[_Handler], server.RequestHandlerClass)
    return f"http://{HOST}:{server.server_port}/{handler.token}/"


def make_server(open_view: Callable[[], View], port: int) -> ThreadingHTTPServer:
    """Open the port, with a new random address; see `serve`."""
    view, token = open_view(), secrets.token_urlsafe(16)
    handler = type("Handler", (_Handler,), {"open_view": staticmethod(open_view), "view": view, "token": token})
    return ThreadingHTTPServer((HOST, port), handler)


class _Handler(BaseHTTPRequestHandler):
    """One request at a time: images of large files are in memory while a page is made."""

    open_view: Callable[[], View]
    view: View
    token: str
    lock = threading.Lock()

    def do_GET(self) -> None:
        """Answer with a page."""
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        _, token, name = (*parts.path.split("/", 2), "", "")[:3]
        # Another site's script could reach this server under a name of its own, were any host taken.
        port = self.connection.getsockname()[1]
        hosts = {f"{host}:{port}" for host in (HOST, "localhost")}
        is_known = secrets.compare_digest(token.encode(), self.token.encode()) and self.headers.get("Host") in hosts
        pages = {"": View.page, "row": View.row}
        if not is_known or name not in pages:
            self._answer(HTTPStatus.NOT_FOUND, "nothing is here; open the whole address that `triptych view` said")
            return
        with self.lock:
            try:
                page = self._draw(pages[name], query)
            except (StorageError, ReportError) as error:
                self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
                return
        self._answer(HTTPStatus.OK if page else HTTPStatus.NOT_FOUND, page or "found no such row")

    def _draw(self, page: Callable[[View, Mapping[str, str]], str | None], query: Mapping[str, str]) -> str | None:
        try:
            return page(self.view, query)
        except NotFound:  # a run that goes on has made a part of its units
            type(self).view = self.open_view()
            return page(self.view, query)

    def _answer(self, status: HTTPStatus, text: str) -> None:
        body = text.encode()
        style = base64.b64encode(hashlib.sha256(page_style().encode()).digest()).decode()
        policy = f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; form-action 'self'; base-uri 'none'"
        kind = "text/html" if text.startswith("<!doctype") else "text/plain"
        self.send_response(status)
        for name, value in {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": f"{policy}; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: the terminal has the address on it."""


@lru_cache(maxsize=8)
def _find(rows: Rows, wanted: Wanted) -> Any:
    return rows.find(wanted)


def _wanted(query: Mapping[str, str]) -> Wanted:
    verdict, sort = query.get("verdict", ""), query.get("sort", "")
    return Wanted(
        verdict=verdict if verdict in VERDICTS else "",
        group=query.get("group", ""),
        text=query.get("text", ""),
        sort=sort if sort in SORTS else "order",
    )


def _address(wanted: Wanted, page: int = 1, **changes: str) -> str:
    wanted = replace(wanted, **changes)
    return "?" + urlencode({**vars(wanted), "page": page})


def _number(text: str, default: int) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 15 else default


def _lines(job: Any, row: Mapping[str, Any]) -> list[tuple[str, str]]:
    if row["error"] is not None:
        return [("failed", f"{row['error']['stage']}, {row['error']['type']}: {row['error']['message']}")]
    return list(job.card_lines(row))
