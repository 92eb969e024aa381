"""Keep passwords, keys and signatures out of whatever a run says or writes down.

It knows how addresses and request headers carry them and which environment variables hold them; it knows no store.
"""

import os
import re
from typing import Any

BLANK = "***"

_USER = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*@")
_USER_OF_PATH = re.compile(r"(?<=/)[^/@\s]*:[^/@\s]*@")  # clients cut the scheme off
_SIGNED = re.compile(
    r"(?i)([?&][^=&\s]*(?:signature|token|secret|password|credential|key)[^=&\s]*=|[?&]sig=)[^&\s'\"]+"
)
# What servers and clients quote of a request: an Authorization header, an Azure connection string, an Amazon key.
_QUOTED = re.compile(
    r"(?i)\b((?:signature|credential|accountkey|sharedaccesssignature|security-token)[=:] ?)[^,;&\s'\"]+"
)
_AMAZON_KEY = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b")
_SECRET_VARIABLE = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|ACCOUNT_KEY|ACCESS_KEY$|CONNECTION_STRING|SAS_KEY|API_KEY")
_SHORTEST_SECRET = 8  # blanking out a shorter one would take words apart


def without_secrets(value: Any) -> Any:
    """Return plain JSON values with the passwords and signatures inside addresses blanked out."""
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    return _SIGNED.sub(rf"\1{BLANK}", _USER.sub(f"{BLANK}@", value)) if isinstance(value, str) else value


def redacted(text: str) -> str:
    """Return a message fit for logs and results: what `without_secrets` blanks out, and this process's credentials."""
    for secret in _secrets_of_environment():
        text = text.replace(secret, BLANK)
    text = _USER_OF_PATH.sub(f"{BLANK}@", str(without_secrets(text)))
    text = _AMAZON_KEY.sub(BLANK, text)
    return _QUOTED.sub(rf"\1{BLANK}", text)


def refuse_credentials(uri: str) -> str:
    """Return an address of the settings as it is.

    Raises:
        ValueError: It carries credentials. They would travel into the plan, the report and every log from there.
    """
    if without_secrets(uri) != uri:
        raise ValueError("found credentials in the address, expected them in the environment")
    return uri


def _secrets_of_environment() -> list[str]:
    values = {value.strip() for name, value in os.environ.items() if _SECRET_VARIABLE.search(name.upper())}
    return sorted((value for value in values if len(value) >= _SHORTEST_SECRET), key=len, reverse=True)
