"""Say what an error of a storage client means: gone for good, refused by a condition, or worth another try.

The clients do not agree on their exceptions, so this looks at classes, their names, and the server's own words. It
reads nothing and writes nothing.
"""

import errno
from typing import Any

PERMANENT = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)


def is_refused(error: OSError) -> bool:
    """Say whether a conditional write met an object; servers differ in how much they say, and so does s3fs."""
    code = _response(error).get("Error", {}).get("Code")
    return isinstance(error, FileExistsError) or code in ("PreconditionFailed", "412")


def is_beyond_end(error: OSError) -> bool:
    """Say whether a range was asked for that begins where the object has ended already."""
    return _response(error).get("Error", {}).get("Code") in ("InvalidRange", "416")


def is_transient(error: Exception) -> bool:
    """Say whether the same request may succeed later. A conflict (409) is: two conditional writes met in mid-air."""
    if isinstance(error, PERMANENT):
        return False
    if isinstance(error, TimeoutError):  # among them S3's RequestTimeout, whose status is 400
        return True
    status = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status:
        return status in (408, 409, 429) or status >= 500
    # Connection errors of the S3 client are not OSErrors, and their module costs a second to import.
    names = {cls.__name__ for cls in type(error).__mro__}
    return (
        bool(names & {"ConnectionError", "HTTPClientError", "ClientPayloadError"})
        or getattr(error, "errno", None) == errno.EBUSY
    )


def describe(error: BaseException) -> str:
    """Return an error as one line for people."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _response(error: BaseException) -> dict[str, Any]:
    for link in (error, error.__cause__):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            return response
    return {}
