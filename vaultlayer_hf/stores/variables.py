"""What a person sets for a store, checked before its client gets it: an address, a key, a file of authorities.

A client takes any text. With one that can't be sent it stops with a trace of its own, in the middle of a request, and
an address that holds a password is repeated in each of its errors.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from vaultlayer_hf.errors import SettingsError, StoreDeniedError


def server_address(text: str, variable: str) -> str:
    """Return the address of a server without spaces around it and slashes at its end.

    ::

        assert server_address(" https://s3.example.org:9000/ ", "AWS_ENDPOINT_URL") == "https://s3.example.org:9000"

    Args:
        text: what was found.
        variable: where it is set, for messages.

    Raises:
        SettingsError: it is no address, or holds credentials or options; it isn't repeated.
    """
    text = text.strip()
    if not text.startswith(("http://", "https://")):
        raise SettingsError(f"{variable} has to start with http:// or https://")
    try:
        place = urlsplit(text)
        sound = bool(place.hostname) and place.port != 0
    except ValueError:  # a port that is no number, or a bracket that isn't closed
        raise SettingsError(f"{variable} names no server: write it as https://host:port") from None
    if "@" in place.netloc:
        raise SettingsError(
            f"{variable} holds credentials, which errors would repeat: write it as https://host:port, and set the"
            " credentials by their own variables"
        )
    if "?" in text or "#" in text:
        raise SettingsError(f"{variable} takes no ?options or #fragment: write it as https://host:port")
    if not sound or any(character <= " " or character == "\x7f" for character in text):
        raise SettingsError(f"{variable} names no server: write it as https://host:port")
    return text.rstrip("/")


def check_sendable(value: str | None, name: str) -> None:
    """Check that a key or token can stand in a request. Raises StoreDeniedError, which doesn't repeat it.

    ``name``: where it was found, for the message.
    """
    if value and not (value.isascii() and value.isprintable() and " " not in value):
        raise StoreDeniedError(
            "open",
            "",
            f"{name} holds a line break, a space or a letter that no key has",
            "set it again, without what was copied along with it",
        )


def authorities(file: str, variable: str) -> bytes:
    """Return the certificates of the authorities that are to be trusted, from a PEM file. Raises SettingsError."""
    try:
        data = Path(file).expanduser().read_bytes()
    except OSError as error:
        raise SettingsError(f"{variable}: can't read {file}: {error.strerror}") from None
    if b"CERTIFICATE-----" not in data:
        raise SettingsError(f"{variable}: {file} holds no certificate; name a PEM file")
    return data
