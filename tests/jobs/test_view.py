"""All rows of an output in a browser: what is found, how it is read, and who gets an answer."""

import http.client
import json
import re
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit

import pyarrow as pa
import pytest

from jobs.config import RunSettings
from jobs.report.results import ReportError
from jobs.view.rows import Rows, Wanted
from jobs.view.server import address_of, make_server, view_of
from pipeline.settings import check_settings, dump_settings
from pipeline.state import ledger
from pipeline.storage.store import Store
from tests.jobs.test_report import captioned, output_of, questioned


def with_tokens(part):
    """Rows of the report's tests with tokens: row i has i of them, each of log-probability -i / 10."""
    lengths = [0 if error else number for number, error in enumerate(part["error"].is_valid().to_pylist())]
    part = part.set_column(part.column_names.index("output_tokens"), "output_tokens", pa.array(lengths, pa.int32()))
    values = [[-number / 10] * length for number, length in enumerate(lengths)]
    return part.append_column("output_logprobs", pa.array(values, pa.list_(pa.float32())))


def output_to_view(photos, uri):
    """Forty captions in two files: row 3 failed, every fourth is hostile, the others are right."""
    job, part = captioned(photos)
    part = with_tokens(part)
    store = output_of(photos, job, part.slice(0, 25), part.slice(25), uri=uri)
    frozen = ledger.read_settings(store)
    settings = check_settings(RunSettings, {**frozen["settings"], "write": {"uri": uri}})
    store.replace(ledger.SETTINGS, json.dumps({**frozen, "settings": dump_settings(settings)}).encode())
    return store, job


@pytest.fixture
def viewed(photos, tmp_path):
    return output_to_view(photos, str(tmp_path / "out"))


def test_rows_are_found_by_verdict_group_and_text(viewed, photos):
    store, job = viewed
    rows = Rows(store, job)
    assert rows.counts() == {"right": 29, "wrong": 10, "failed": 1, "unknown": 0}
    assert rows.find(Wanted(verdict="wrong")).tolist() == list(range(0, 40, 4))
    assert rows.find(Wanted(verdict="failed")).tolist() == [3]
    assert rows.find(Wanted(text="<SCRIPT>")).tolist() == list(range(0, 40, 4))
    assert rows.find(Wanted(text="39.PNG")).tolist() == [39]
    asked, answers = questioned(photos)
    grouped = Rows(output_of(photos, asked, answers), asked)
    assert grouped.groups == {"benchmark: b": 40, "kind: even": 20, "kind: odd": 20}
    odd = [number for number in range(1, 40, 2) if number != 3]
    assert grouped.find(Wanted(group="kind: odd", verdict="right")).tolist() == odd


def test_rows_without_tokens_come_last_however_rows_are_sorted(viewed):
    rows = Rows(*viewed)
    for sort, first in {"least likely": 39, "most likely": 1, "shortest": 1, "longest": 39}.items():
        found = rows.find(Wanted(sort=sort)).tolist()
        assert (found[0], sorted(found[-2:])) == (first, [0, 3]) and sorted(found) == list(range(40))
    assert rows.likelihood(20) == pytest.approx(-2.0) and rows.likelihood(3) is None


def test_rows_are_read_in_the_order_asked_for(viewed):
    rows = Rows(*viewed).read([30, 2, 24, 25])
    assert [row["key"] for row in rows] == ["30.png", "02.png", "24.png", "25.png"]
    assert "output_logprobs" not in rows[0]


@contextmanager
def served(store):
    server = make_server(lambda: view_of(store.uri), 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield address_of(server)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def get(address, path="", **headers):
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    try:
        connection.request("GET", parts.path + path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode(), response.headers
    finally:
        connection.close()


def test_a_page_holds_no_script_and_forbids_any(viewed):
    with served(viewed[0]) as address:
        status, page, headers = get(address)
        assert status == 200 and "40 of 40 rows" in page and page.count("<figure") == 24
        assert "<script" not in page and "&lt;script&gt;" in page
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script-src" not in policy and "unsafe" not in policy
        assert page.count('src="data:image/png') == 23  # of the one that is no image there is none
        assert get(address, "?page=2")[1].count("<figure") == 16
        assert get(address, "?page=99&verdict=nonsense&sort=%3Cb%3E")[1].count("<figure") == 16
        status, row, _ = get(address, "row?number=4")
        assert status == 200 and "<script" not in row and re.search(r"<h1>04\.png</h1>", row)
        assert get(address, "row?number=40")[0] == get(address, "row?number=-1")[0] == get(address, "row")[0] == 404


def test_whoever_does_not_know_the_address_gets_nothing(viewed):
    with served(viewed[0]) as address:
        server = address.rsplit("/", 2)[0]
        assert get(f"{server}/")[0] == get(f"{server}/wrong/")[0] == get(f"{server}/../etc/passwd")[0] == 404
        assert get(address, Host="evil.example")[0] == 404
        assert "04.png" not in get(f"{server}/wrong/", "row?number=4")[1]


def test_rows_that_a_run_moves_meanwhile_are_found_again(viewed):
    store, _ = viewed
    with served(store) as address:
        assert "40 of 40" in get(address)[1]
        store.delete(["part-00001.parquet"])
        assert "25 of 25" in get(address, "?page=2")[1]


def test_without_a_run_there_is_nothing_to_look_at(tmp_path):
    with pytest.raises(ReportError, match="found no run in"):
        view_of(str(tmp_path))
    assert ledger.SETTINGS not in [entry.path for entry in Store(str(tmp_path)).list()]
