"""Say what an error of a storage client means: gone for good, refused by a condition, or worth another try.

The clients do not agree on their exceptions, so this looks at classes, their names, and the server's own words. It
reads nothing and writes nothing, and what it says is free of credentials.
"""

import errno
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.redaction import redacted

PERMANENT = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
# Names of the clients' connection errors: not all of them are OSErrors, and their modules cost a second to import.
PASSING = {
    "ConnectionError",  # Python's, botocore's, requests'
    "HTTPClientError",  # botocore: time-outs, connections closed in the middle
    "ClientPayloadError",  # aiohttp: a body ended early
    "ClientConnectionError",  # aiohttp
    "ResponseParserError",  # botocore: a proxy's error page in place of XML
    "TransportError",  # httpx
    "ServiceRequestError",  # Azure
    "ServiceResponseError",
    "IncompleteRead",
    "IncompleteReadError",
}
PASSING_NUMBERS = {
    *(errno.EBUSY, errno.ESTALE, errno.EAGAIN),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),  # this machine has too much in hand
    # The server of a mounted disk is gone.
    *(errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
}
FULL_NUMBERS = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota of the disk is used up"}

_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_REGION = "the bucket is in another region; set storage.region"
_NETWORK = "check storage.endpoint_url, the server and the network"
# What is wrong with whoever asks: whatever else they ask for, the answer is the same.
_OF_PROCESS = {
    "InvalidAccessKeyId": f"the server does not know this access key; check {_KEYS}",
    "SignatureDoesNotMatch": "the secret key does not fit the access key; check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the credentials have expired; fetch new ones",
    "InvalidToken": "the session token is wrong; check AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "NoCredentialsError": f"found no credentials; set {_KEYS}, or storage.anon: true for a public bucket",
    "PartialCredentialsError": f"found only half of the credentials; set {_KEYS}",
    "ProfileNotFound": "check AWS_PROFILE",
    "CertificateError": "the server's certificate is not trusted; check storage.endpoint_url and AWS_CA_BUNDLE",
    "HeaderError": "the credentials hold a line break or another character that no header may have",
}
# What is so of all that a bucket holds.
_OF_BUCKET = {
    "NoSuchBucket": "there is no such bucket; check the address, or create the bucket",
    "InvalidBucketName": "this is not a valid bucket name; check the address",
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "Unauthorized": None,
}
_REMEDIES = {
    **_OF_PROCESS,
    **{code: remedy for code, remedy in _OF_BUCKET.items() if remedy},
    "AccessDenied": f"access is refused; check {_KEYS}, and what these credentials may do there",
    "Forbidden": f"access is refused; check {_KEYS}, and what these credentials may do there",
    "EndpointConnectionError": _NETWORK,
    "ConnectTimeoutError": _NETWORK,
}
_SAME_AS = {
    "301": "PermanentRedirect",
    "401": "Unauthorized",
    "403": "AccessDenied",
    "AllAccessDisabled": "AccessDenied",
}


class StorageError(Exception):
    """Something cannot be read or written; the message names the uri and the cause.

    Attributes:
        code: The server's word for it, or the client's; empty where neither is known here.
    """

    code = ""


class NotFound(StorageError):
    """There is nothing under this uri."""


class Unreachable(StorageError):
    """The store did not answer within a Store's patience; later it may."""


def storage_error(what: str, error: BaseException) -> StorageError:
    """Return an error that is final, as `what` failed with it: one sentence with the cause and the remedy."""
    kind = NotFound if isinstance(error, FileNotFoundError) else StorageError
    final = kind(redacted(f"{what}: {_explained(error)}"))
    code = code_of(error) or str(_status(error) or "")
    final.code = _SAME_AS.get(code, code)
    return final


def is_of_process(error: StorageError) -> bool:
    """Say whether whoever asks is at fault, not what was asked for: credentials, the clock, trust in certificates."""
    return error.code in _OF_PROCESS


def is_of_bucket(error: StorageError) -> bool:
    """Say whether all else in this bucket would fail as well: it is missing, elsewhere, or wants to know who asks."""
    return error.code in _OF_BUCKET


def unreachable(what: str, error: BaseException, waited_s: float) -> Unreachable:
    """Return the error of giving up on a store that did not answer for so long."""
    return Unreachable(redacted(f"{what}: {_explained(error)} (gave up after {waited_s:.0f} s)"))


def describe(error: BaseException) -> str:
    """Return an error as one line for people: in the server's words where there are any, else in the client's."""
    answers = [answer for link in _links(error) if (answer := _response(link).get("Error", {})).get("Code")]
    kind, text = type(error).__name__, str(error)
    if answers:
        kind, text = str(answers[0]["Code"]), str(answers[0].get("Message", ""))
    text = " ".join(text.split())
    return redacted(f"{kind}: {text}" if text else kind)


def harmless(error: BaseException) -> BaseException | None:
    """Return an error for a traceback, or None where it, or one that would be printed before it, quotes credentials."""
    texts = [str(link) for link in _printed(error)]
    return error if all(redacted(text) == text for text in texts) else None


def is_unknown(error: Exception) -> bool:
    """Say whether the store does not know what was asked of it; some do not know conditions of a write."""
    return isinstance(error, NotImplementedError) or code_of(error) in ("NotImplemented", "501")


def is_refused(error: Exception) -> bool:
    """Say whether a conditional write met an object; servers differ in how much they say, and so does s3fs."""
    return isinstance(error, FileExistsError) or code_of(error) in ("PreconditionFailed", "412")


def is_beyond_end(error: OSError) -> bool:
    """Say whether a range was asked for that begins where the object has ended already."""
    return code_of(error) in ("InvalidRange", "416")


def is_transient(error: Exception) -> bool:
    """Say whether the same request may succeed later. A conflict (409) is: two conditional writes met in mid-air."""
    if isinstance(error, PERMANENT) or code_of(error) in ("CertificateError", "HeaderError"):
        return False
    if isinstance(error, TimeoutError):  # among them S3's RequestTimeout, whose status is 400
        return True
    if status := _status(error):
        return status in (408, 409, 425, 429) or (status >= 500 and status != 501)
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & PASSING) or getattr(error, "errno", None) in PASSING_NUMBERS


def code_of(error: BaseException) -> str:
    """Return the server's word for an error, or else the client's; empty where neither is known here."""
    for link in _links(error):
        if code := _response(link).get("Error", {}).get("Code"):
            return _SAME_AS.get(str(code), str(code))
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "CertificateError"
    # The client sees a header that cannot be sent only on the way out, and calls it an error of the connection.
    if any(isinstance(link, ValueError) and "header" in str(link).lower() for link in _links(error)):
        return "HeaderError"
    return next((cls.__name__ for cls in type(error).__mro__ if cls.__name__ in _REMEDIES), "")


def _explained(error: BaseException) -> str:
    number = getattr(error, "errno", None)
    remedy = FULL_NUMBERS.get(number) if number else None
    remedy = remedy or _REMEDIES.get(code_of(error))
    return f"{remedy} ({describe(error)})" if remedy else describe(error)


def _status(error: BaseException) -> int:
    for link in _links(error):
        metadata = _response(link).get("ResponseMetadata", {})
        answer = getattr(link, "response", None)
        found = (
            metadata.get("HTTPStatusCode"),
            getattr(link, "status", None),  # aiohttp, whose `code` is deprecated and must not be asked
            getattr(link, "status_code", None),  # Azure
            getattr(answer, "status_code", None),  # requests, httpx
            getattr(link, "code", None) if type(link).__name__ == "HttpError" else None,  # gcsfs
        )
        for status in found:
            if isinstance(status, int) and status:
                return status
    return 0


def _response(error: BaseException) -> dict[str, Any]:
    response = getattr(error, "response", None)
    return response if isinstance(response, dict) else {}


def _links(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, what it was made from, and what botocore keeps of an error inside one of its own."""
    return _reached(error, lambda link: [link.__cause__, (getattr(link, "kwargs", None) or {}).get("error")])


def _printed(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that a traceback prints with it: also what was being handled when one was raised."""

    def printed_with(link: BaseException) -> list[Any]:
        handled = None if link.__suppress_context__ else link.__context__
        return [link.__cause__, handled, *getattr(link, "exceptions", ())]

    return _reached(error, printed_with)


def _reached(error: BaseException, following: Callable[[BaseException], list[Any]]) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting:
        link = waiting.pop(0)
        if isinstance(link, BaseException) and not any(link is known for known in seen):
            seen.append(link)
            waiting += following(link)
    yield from seen
