"""Which proxy stands between this machine and a server, as the variables say: so that an error names it."""

from __future__ import annotations

import os
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass


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
