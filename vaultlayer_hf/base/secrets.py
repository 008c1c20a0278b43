"""Secrets are taken out of what this package writes: log lines, events, and the journal of `vl run`.

A person may give one where it doesn't belong: a token as an argument of a script, a presigned URL in an address, a key
in the message of an exception. What is known to be one by its form goes, and what a variable of this process holds
whose name says so.
"""

from __future__ import annotations

import os
import re

SHOWN = "[secret]"
"""What stands in the place of a secret."""
_LEAST = 8
"""Characters: a shorter value of a variable is no secret worth the name, and would be found in words."""
_NAMES = re.compile(
    r"(SECRET|TOKEN|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|ACCOUNT_KEY|SIGNING_KEY|ENCRYPTION_KEY|CREDENTIALS?|SAS)(_|$)"
)
_PATHS = re.compile(r"(_FILE|_PATH|_DIR|_URI|_URL|_ID)$")
_FORMS = re.compile(
    r"""
    \bhf_[A-Za-z0-9]{20,}                                        # a token of Hugging Face
    | \bHFAK[A-Za-z0-9]{12,}                                     # a key of its buckets
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b                              # an access key of AWS
    | \bgh[pousr]_[A-Za-z0-9]{30,}
    | \beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+    # a JSON web token
    | (?<=://)[^\s/@:"']*:[^\s/@"']+(?=@)                        # user:password@host
    | (?<=[?&])(?:X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|Signature|sig)=[^\s&"'\\]+
    | (?:AccountKey|SharedAccessSignature)=[^\s;"'\\]+
    | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----(?:[A-Za-z0-9+/=\s]|\\n)*(?:-----END[ ][A-Z ]*PRIVATE[ ]KEY-----)?
    """,
    re.VERBOSE,
)


def is_secret(text: str, name: str = "") -> bool:
    """Tell whether a text holds a secret, by its form, by the variables of this process, or by what it is called."""
    return bool(_says_secret(name) and text) or (len(text) >= _LEAST and redact(text) != text)


def redact(text: str) -> str:
    """Return a text with each secret in it replaced by ``[secret]``.

    >>> redact("s3://key:word@bucket?X-Amz-Signature=abc")
    's3://[secret]@bucket?[secret]'
    """
    text = _FORMS.sub(SHOWN, text)
    for name, value in os.environ.items():
        if len(value) >= _LEAST and value in text and _says_secret(name):
            text = text.replace(value, SHOWN)
    return text


def _says_secret(name: str) -> bool:
    return bool(_NAMES.search(name.upper())) and not _PATHS.search(name.upper())
