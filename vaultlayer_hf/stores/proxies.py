"""What leads to a server, as the variables say, its address or a proxy: so that an error names it."""

from __future__ import annotations

import os
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

_ADDRESSES = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_STORAGE_SERVICE_ENDPOINT",
    "STORAGE_EMULATOR_HOST",
    "HF_ENDPOINT",
)
"""Variables that name a store's server."""


def way_hint(server: str) -> str:
    """Return what to do where a server can't be reached: ``proxy_hint``, or the variable that names the server.

    Empty where neither a proxy nor the server is named by a variable.
    """
    return proxy_hint(server) or _address_hint(server)


def _address_hint(server: str) -> str:
    asked = _place(server)
    named = next((one for one in _ADDRESSES if asked and _place(os.environ.get(one, "")) == asked), None)
    return f"{named} names it: is that its address, and does it run?" if named else ""


def _place(address: str) -> str:
    """Return the host and port of an address, with or without a scheme; empty where it has none."""
    try:
        return urlsplit(address if "://" in address else f"//{address}").netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""


def proxy_hint(server: str) -> str:
    """Return what to do where a server can't be reached and a variable names a proxy for it; empty where none does.

    ::

        os.environ["HTTPS_PROXY"] = "http://proxy:3128"
        proxy_hint("https://s3.example.org")
        # "HTTPS_PROXY leads through a proxy: check it, or add s3.example.org to NO_PROXY"

    The proxy's address, which may hold a password, isn't repeated.
    """
    try:
        place = urlsplit(server)
        host = place.hostname or ""
    except ValueError:
        return ""
    found = getproxies_environment()
    scheme = next((one for one in (place.scheme, "all") if found.get(one)), None)
    if not host or scheme is None or proxy_bypass(host):
        return ""
    name = f"{scheme}_proxy"
    variable = name.upper() if os.environ.get(name.upper()) else name
    return f"{variable} leads through a proxy: check it, or add {host} to NO_PROXY"
