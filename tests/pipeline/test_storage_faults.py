import errno
from collections.abc import Callable
from typing import Any

import botocore.exceptions
import pytest
from s3fs.errors import translate_boto_error

from pipeline.storage.faults import harmless, is_beyond_end, is_refused, is_transient


def answer(code: str, status: int, **more: str) -> Any:
    """What s3fs raises when a server answers so."""
    response = {"Error": {"Code": code, "Message": "no", **more}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate_boto_error(botocore.exceptions.ClientError(response, "PutObject"))


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (answer("ConditionalRequestConflict", 409), True),
        (answer("SlowDown", 503), True),
        (answer("InternalError", 500), True),
        (answer("TooManyRequests", 429), True),
        (answer("RequestTimeout", 400), True),
        (answer("AccessDenied", 403), False),
        (answer("NoSuchKey", 404), False),
        (answer("InvalidArgument", 400), False),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="x"), True),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="x"), True),
        (botocore.exceptions.ConnectionClosedError(endpoint_url="x"), True),
        (botocore.exceptions.NoCredentialsError(), False),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (OSError(errno.ENOSPC, "no room"), False),
        (OSError(errno.ENOTCONN, "the mount's server is gone"), True),
        (OSError(errno.EMFILE, "too many files are open"), True),
        (ValueError("no"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_what_may_pass_is_tried_again(error: Exception, transient: bool) -> None:
    assert is_transient(error) is transient


def test_a_refusal_is_known_in_both_of_its_shapes() -> None:
    assert is_refused(answer("PreconditionFailed", 412, Condition="If-None-Match"))
    assert is_refused(answer("PreconditionFailed", 412))
    assert not is_refused(answer("ConditionalRequestConflict", 409))
    assert not is_refused(answer("AccessDenied", 403))


def test_a_range_beyond_the_end_is_known() -> None:
    assert is_beyond_end(answer("InvalidRange", 416))
    assert not is_beyond_end(answer("InvalidArgument", 400))


def test_an_error_is_kept_out_of_tracebacks_that_would_print_a_signature() -> None:
    signed = "https://host/x?X-Amz-Signature=hushhush"

    def refuse() -> None:
        raise OSError("no luck")

    def while_handling() -> None:
        try:
            raise ValueError(f"cannot read {signed}")
        except ValueError:
            refuse()

    def instead() -> None:
        try:
            raise ValueError(f"cannot read {signed}")
        except ValueError:
            raise OSError("no luck") from None

    def raised(by: Callable[[], None]) -> Exception:
        with pytest.raises(OSError, match="no luck") as caught:
            by()
        return caught.value

    assert harmless(raised(while_handling)) is None
    told = raised(instead)
    assert harmless(told) is told, "a traceback leaves out what was set aside"
    assert harmless(ExceptionGroup("several", [ValueError(signed)])) is None
