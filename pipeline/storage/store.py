"""Reach files by uri: local folders, S3 and whatever else fsspec knows, with whole-object writes that one writer wins.

Everything that reads or writes data goes through a Store. It knows nothing of shards, units or parts, keeps no
listing in memory, and takes credentials only from the environment or the provider chain.
"""

import contextlib
import functools
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, TypeVar, cast

from fsspec.utils import glob_translate

from pipeline.redaction import redacted
from pipeline.storage import listing, local_disk
from pipeline.storage.deletion import batches, delete_at_once
from pipeline.storage.faults import NotFound as NotFound
from pipeline.storage.faults import StorageError as StorageError
from pipeline.storage.faults import Unreachable as Unreachable
from pipeline.storage.faults import is_beyond_end, is_refused, is_unknown
from pipeline.storage.file_systems import BLOCK_BYTES, S3_SCHEMES, open_file_system, scheme_of
from pipeline.storage.file_systems import StorageSettings as StorageSettings
from pipeline.storage.file_systems import absolute as absolute
from pipeline.storage.listing import Entry as Entry
from pipeline.storage.listing import entries_of, s3_page
from pipeline.storage.patience import patiently
from pipeline.storage.ranged_file import ranged_file

T = TypeVar("T")

UNFINISHED_AGE_S = 3600.0
LOOKING_PATIENCE_S = 10.0
MD5 = re.compile(r"[0-9a-f]{32}")
PROBES = "_triptych/probes"
# Servers of these may answer a range with the whole file.
WITHOUT_RANGES = ("http", "https")


Entries = list[Entry]  # inside Store, `list` is its method
Paths = list[str]


@dataclass(frozen=True)
class Store:
    """Files below one uri. Cheap to make and to pickle: every process opens its own connection when it first needs one.

    Attributes:
        uri: A local folder (made absolute, so that workers elsewhere find it) or an fsspec URL.
        settings: How to reach it.
        patience_s: How long a store that does not answer is asked again before `Unreachable`; None: as settings say.
    """

    uri: str
    settings: StorageSettings = field(default_factory=StorageSettings)
    patience_s: float | None = None

    def __post_init__(self) -> None:
        uri = absolute(self.uri)
        # One slash at the end is a manner of writing; a second one is a part of S3's keys.
        object.__setattr__(self, "uri", uri.removesuffix("/") if not uri.endswith("//") and len(uri) > 1 else uri)

    def while_looking(self) -> "Store":
        """Return this store with the patience of someone who watches: a wrong address should fail while they do."""
        return replace(self, patience_s=min(LOOKING_PATIENCE_S, self.settings.patience_s))

    def folder_of(self, path: str) -> "Store":
        """Return the store of the folder in which a file lies.

        The slash at the end stays: where it is the second one it belongs to the key, `s3://bucket/a//x.jpg`.
        """
        folder, slash, _ = self._address(path).rpartition("/")
        return replace(self, uri=folder + slash)

    @property
    def is_local(self) -> bool:
        """Whether the files lie on a disk of this machine (or one mounted on it)."""
        return "://" not in self.uri

    @property
    def bucket(self) -> str:
        """The beginning of the uri that names what answers or does not: `s3://bucket`."""
        return "/".join(self.uri.split("/")[:3])

    def list(self, prefix: str = "") -> Entries:
        """List every file below the folder `prefix`, sorted by path; an absent folder has none."""
        return self._entries(self._found(prefix))

    def list_with_links(self) -> Entries:
        """List as `list` does all files, and those of folders to which links on a disk lead, each folder once."""
        return self._entries(local_disk.with_links(self._found(""), self._full(""))) if self.is_local else self.list()

    def holds_anything(self) -> bool:
        """Say whether anything lies below the uri, without listing it; True of stores that are neither disk nor S3."""
        if self.is_local:
            return local_disk.holds_anything(self.uri)
        if not self._is_s3:
            return True
        folder = self._full("")
        page = self._steadily("list", "", lambda: s3_page(self._fs, folder, "", 2))
        return any(info["name"] != f"{folder}/" for info in page.infos)  # an object that marks an empty folder

    def glob(self, pattern: str) -> Entries:
        """List the files whose path below the uri matches `pattern`; `*` stays within a folder, `**` does not.

        On a disk links to folders are followed, as `list_with_links` does.
        """
        if not (self._is_s3 or self._slashes_of_keys or self.is_local):
            found = self._steadily("list", pattern, lambda: self._fs.glob(self._full(pattern), detail=True))
            return self._entries(found.values())
        matches = self._steadily("list", pattern, lambda: re.compile(glob_translate(pattern))).match
        if self.is_local:
            levels = None if "**" in pattern else pattern.count("/") + 1
            below = self._steadily("list", pattern, lambda: self._fs.find(self._full(""), levels, detail=True))
            return self._entries(local_disk.with_links(below.values(), self._full(""), matches, levels))
        # fsspec's glob lists keys twice, or once for each folder, and makes one slash of two.
        begins = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
        is_flat = "/" not in pattern[len(begins) :] and "**" not in pattern
        listed = self._entries(self._found("", begins, is_flat=is_flat))
        return [entry for entry in listed if matches(entry.path)]

    def entry(self, path: str) -> Entry:
        """Look up one file.

        Raises:
            NotFound: There is no file of this path, or it is a folder.
        """
        entries = self._entries([self._steadily("look up", path, lambda: self._fs.info(self._full(path)))])
        if not entries:
            raise NotFound(f"cannot look up {self.name(path)}: it is a folder, expected a file")
        return entries[0]

    def size(self, path: str) -> int:
        """Return the size of one file in bytes."""
        return self.entry(path).size

    def is_there(self) -> bool:
        """Say whether a file or a folder is called what the uri says, wildcards and all."""
        try:
            self._steadily("look up", "", lambda: self._fs.info(self._full("")))
        except NotFound:
            return False
        return True

    def exists(self, path: str) -> bool:
        """Say whether there is a file of this path."""
        try:
            self.entry(path)
        except NotFound:
            return False
        return True

    def md5(self, path: str) -> str | None:
        """Return the MD5 that the store keeps of a file's content, where it keeps one (S3, of objects put whole)."""
        if not self._is_s3:
            return None
        bucket, _, key = self._full(path).partition("/")
        head = self._steadily("look up", path, lambda: self._fs.call_s3("head_object", Bucket=bucket, Key=key))
        # Encrypted under a key of the server's or the caller's, the tag is something else of the same length.
        is_plain = head.get("ServerSideEncryption", "AES256") == "AES256" and "SSECustomerAlgorithm" not in head
        tag = str(head["ETag"]).strip('"')
        return tag if is_plain and MD5.fullmatch(tag) else None

    def read(self, path: str, start: int | None = None, stop: int | None = None) -> bytes:
        """Return a file's bytes, or those from `start` up to `stop`."""
        if start is not None and start == stop:
            return b""
        return self._steadily("read", path, lambda: self._bytes(path, start, stop))

    def open(self, path: str, size: int | None = None, ahead_bytes: int = BLOCK_BYTES) -> BinaryIO:
        """Open a file for reading and seeking; small reads are served from a read-ahead buffer.

        Of a store in a network, each range is asked for again while the store stumbles, at any time of the reading.

        Args:
            path: Of the file.
            size: Its bytes, where they are known: then nothing is asked before the first read.
            ahead_bytes: What a small read fetches from a store in a network.
        """
        if self.is_local or scheme_of(self.uri) in WITHOUT_RANGES:
            return self._steadily("open", path, lambda: cast(BinaryIO, self._fs.open(self._full(path), "rb")))
        size = self.size(path) if size is None else size
        return ranged_file(lambda start, stop: self.read(path, start, stop), size, ahead_bytes)

    def use(
        self,
        path: str,
        operation: Callable[[BinaryIO], T],
        size: int | None = None,
        ahead_bytes: int = BLOCK_BYTES,
    ) -> T:
        """Open a file as `open` does and hand it to `operation`, all over again if the store stumbles meanwhile."""

        def read() -> T:
            with self.open(path, size, ahead_bytes) as file:
                return operation(file)

        return self._steadily("read", path, read)

    def publish(self, path: str, data: bytes) -> bool:
        """Write a whole object unless one is there: first writer wins, nobody ever sees a part of it.

        Returns:
            True if the object is now there through this call, False if it was there already.
        """
        if self.is_local:
            return self._steadily("publish", path, lambda: local_disk.link_new(self._full(path), data))
        writer = uuid.uuid4().hex
        return self._steadily("publish", path, lambda: self._put_new(path, data, writer))

    def replace(self, path: str, data: bytes) -> None:
        """Write a whole object in one step, over what was there."""
        if self.is_local:
            self._steadily("replace", path, lambda: local_disk.rename_over(self._full(path), data))
        else:
            self._steadily("replace", path, lambda: self._put(path, data))

    def replace_by_pieces(self, path: str, pieces: Iterable[bytes]) -> None:
        """Write a whole object as `replace` does, of which no memory holds more than a piece."""
        with tempfile.NamedTemporaryFile() as held:
            for piece in pieces:
                held.write(piece)
            held.flush()
            if self.is_local:
                self._steadily("replace", path, lambda: local_disk.copy_over(self._full(path), held.name))
            else:
                self._steadily("replace", path, lambda: self._fs.put_file(held.name, self._full(path)))

    def delete(self, paths: Sequence[str]) -> None:
        """Remove files; those that are gone already are no error. S3 removes a thousand of them in a request."""
        if len(paths) > 1 and self._is_s3:
            paths = self._delete_at_once(paths)
        for path in paths:
            with contextlib.suppress(NotFound):
                self._steadily("delete", path, functools.partial(self._fs.rm_file, self._full(path)))

    def sweep(self, older_than_s: float = UNFINISHED_AGE_S) -> int:
        """Remove what crashed writers left unfinished; return how many files that were.

        On a local disk, what dead processes of this machine left goes at once. What other machines write is left alone
        until it is so old: its writer may be alive.
        """
        probes = [entry.path for entry in self.list(PROBES) if _age_of_probe(entry.path) >= older_than_s]
        self.delete(probes)
        return len(probes) + (local_disk.sweep(self.uri, older_than_s) if self.is_local else 0)

    def name(self, path: str) -> str:
        """Return the full uri of a path, for people: credentials are blanked out."""
        return redacted(self._address(path))

    def _address(self, path: str) -> str:
        return f"{self.uri}/{path}" if path and not self.uri.endswith("/") else f"{self.uri}{path}"

    @property
    def _fs(self) -> Any:
        return open_file_system(self.uri, self.settings)

    @property
    def _is_s3(self) -> bool:
        return scheme_of(self.uri) in S3_SCHEMES

    @property
    def _slashes_of_keys(self) -> int:
        """How many slashes at the end of the uri belong to keys; a disk knows no folders without a name."""
        return 0 if self.is_local else max(0, len(self.uri) - len(self.uri.rstrip("/")) - 1)

    @property
    def _root(self) -> str:
        root = str(self._fs._strip_protocol(self.uri)).rstrip("/")
        return root + "/" * self._slashes_of_keys

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/") if path else self._root or "/"

    def _entries(self, found: Iterable[Any]) -> Entries:
        if self._slashes_of_keys:  # fsspec lists the folder above, too
            found = (info for info in found if info["name"].startswith(f"{self._root}/"))
        return entries_of(self._root, found)

    def _found(self, folder: str, begins: str = "", *, is_flat: bool = False) -> Iterator[Any]:
        """Yield what lies below a folder, an absent one holding nothing; of S3 by the page, which is asked for again.

        Of S3 alone, `begins` and `is_flat` say which are wanted (see `s3_page`).
        """
        full = self._full(folder)
        try:
            if not self._is_s3:
                yield from self._steadily("list", folder, lambda: self._fs.find(full, detail=True)).values()
                return
            token: str | None = ""
            while token is not None:
                ask = functools.partial(s3_page, self._fs, full, token, listing.PAGE_FILES, begins, is_flat=is_flat)
                infos, token = self._steadily("list", folder, ask)
                yield from infos
        except NotFound as error:
            if error.code == "NoSuchBucket":
                raise

    def _steadily(self, verb: str, path: str, operation: Callable[[], T]) -> T:
        patience_s = self.settings.patience_s if self.patience_s is None else self.patience_s
        return patiently(operation, f"cannot {verb} {self._address(path)}", self.bucket, patience_s)

    def _delete_at_once(self, paths: Sequence[str]) -> Paths:
        """Remove files; return those that S3 would not, to be tried one by one: then each says what is wrong."""
        left: Paths = []
        for batch in batches(paths):
            names = {self._full(path): path for path in batch}
            refused = self._steadily("delete", batch[0], functools.partial(delete_at_once, self._fs, [*names]))
            left += [names[name] for name in refused]
        return left

    def _bytes(self, path: str, start: int | None, stop: int | None) -> bytes:
        try:
            data = bytes(self._fs.cat_file(self._full(path), start=start, end=stop))
        except OSError as error:
            if is_beyond_end(error):  # S3 refuses a range that a local file would answer with nothing
                return b""
            raise
        first = start or 0
        if stop is not None and first >= 0 and len(data) > stop - first >= 0:
            return data[first:stop]  # a web server that answers a range with the whole file
        return data

    def _put_new(self, path: str, data: bytes, writer: str) -> bool:
        try:
            if self._is_s3:
                # One PUT whatever the size: the condition on a multipart upload is not atomic on every server.
                options = {"chunksize": len(data) + 1, "Metadata": {"writer": writer}}
                self._fs.pipe_file(self._full(path), data, mode="create", **options)
            else:
                self._fs.pipe_file(self._full(path), data, mode="create")
        except (OSError, NotImplementedError) as error:
            if is_unknown(error):  # a store without conditional writes, where the last writer wins
                self._put(path, data)
                return True
            if not is_refused(error):
                raise
            # A PUT whose reply was lost is sent again by the client, and then refused because of itself.
            return self._is_s3 and self._writer(path) == writer
        return True

    def _writer(self, path: str) -> str | None:
        with contextlib.suppress(FileNotFoundError):  # another driver has removed it already
            return cast("str | None", self._fs.metadata(self._full(path), refresh=True).get("writer"))
        return None

    def _put(self, path: str, data: bytes) -> None:
        options = {"chunksize": len(data) + 1} if self._is_s3 else {}
        self._fs.pipe_file(self._full(path), data, **options)


def _age_of_probe(path: str) -> float:
    begun = path.rsplit("/", 1)[-1].split("-")[0]
    return time.time() - int(begun) if begun.isdigit() else 0.0
