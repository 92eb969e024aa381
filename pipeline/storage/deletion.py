"""Remove many objects of an S3 server in one request, and learn which of them are still there.

It knows the client and full names; who asks, and how patiently, a Store knows.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.storage.faults import is_unknown

AT_ONCE = 1000  # what a server takes in one request


def batches(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut what is to be removed into pieces of one request each."""
    return (paths[start : start + AT_ONCE] for start in range(0, len(paths), AT_ONCE))


def delete_at_once(client: Any, names: Sequence[str]) -> list[str]:
    """Remove objects of one bucket; return the names of those that the server did not remove, for whatever reason.

    fsspec's `rm` passes these over in silence. Objects that are gone already are removed.
    """
    bucket = names[0].partition("/")[0]
    keys = {name.partition("/")[2]: name for name in names}
    objects = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
    try:
        answer = client.call_s3("delete_objects", Bucket=bucket, Delete=objects)
    except Exception as error:
        if is_unknown(error):  # a server that removes objects only one by one
            return list(names)
        raise
    return [keys[failure["Key"]] for failure in answer.get("Errors", [])]
