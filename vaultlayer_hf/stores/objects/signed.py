"""Signed reads: stretches of large objects by Python's own HTTP client, at addresses that the object client signs.

obstore hands a download on in pieces that it has zeroed and copied before; here the bytes go from the socket into one
buffer that is used again and again. Measured with ranges of 32 MiB into a file: 1.6 core seconds a GB by obstore, 1.2
here; with TLS 4.2 and 2.7. A restore on few cores is bound by just that.

Only the straight way is taken: a direct connection, and an answer that holds exactly the bytes asked for. Whatever
else happens, a proxy, a redirect, a refused signature, a lost connection, is the object client's business: it goes on
from the byte that was reached, and its errors are the ones that count.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import ssl
import threading
import urllib.request
from collections.abc import Callable, Generator, Iterator
from urllib.parse import SplitResult, urlsplit

logger = logging.getLogger(__name__)

_BUFFER = 2**16
"""Bytes read at a time. What larger writes cost in fresh memory of the page cache, where a virtual machine's host takes
unused memory back, was more than they saved: 3.1 to 4.9 seconds of system time for 2 GB with 1 MiB, 2.5 to 2.8 so."""
_CONNECT = 10.0
"""Seconds to wait for a connection."""
_SILENCE = 60.0
"""Seconds without a byte after which a connection counts as lost."""


class SignedReads:
    """Reads stretches of objects. Safe to call from several threads.

    Connections are kept while any thread reads, and closed when the last one ends.

    Args:
        sign: gives the address of an object, by its name in the bucket, that anybody may read for some minutes. It is
            a secret: it appears in no message.
        authorities: certificates to trust beside the system's, as PEM; None: no others.
    """

    def __init__(self, sign: Callable[[str], str], authorities: bytes | None = None) -> None:
        self._sign = sign
        self._authorities = authorities
        self._tls: ssl.SSLContext | None = None
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []
        self._reading = 0
        self.refused: str | None = None
        """Why no more is tried, or None."""

    def pieces(self, name: str, start: int, length: int) -> Generator[memoryview, None, None]:
        """Yield the bytes from offset ``start``, in order, each piece good until the next is asked for.

        Ends before ``length`` bytes where the object client has to go on; raises nothing.
        """
        if self.refused is not None:
            return
        with self._connection() as lent:
            came, buffer = 0, memoryview(bytearray(min(_BUFFER, length)))
            try:
                answer = self._ask(lent, name, start, length)
                while answer is not None and came < length:
                    count = answer.readinto(buffer[: length - came])
                    if not count:
                        break
                    came += count
                    lent.whole = came == length and answer.isclosed() and not answer.will_close
                    yield buffer[:count]
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, ssl.SSLCertVerificationError):
                    self._refuse("the certificate isn't trusted")
                logger.debug("a read is left to the object client: %s", type(error).__name__)

    def _ask(self, lent: _Lent, name: str, start: int, length: int) -> http.client.HTTPResponse | None:
        """Return the answer that holds just what is wanted; None: there is none."""
        try:
            address = urlsplit(self._sign(name))
        except Exception as error:  # whatever the client says: it says it again when it is asked itself
            self._refuse(f"no address can be signed ({type(error).__name__})")
            return None
        if lent.connection is None:
            lent.connection = self._connect(address)
        if lent.connection is None:
            return None
        target = f"{address.path}?{address.query}"
        lent.connection.request("GET", target, headers={"Range": f"bytes={start}-{start + length - 1}"})
        answer = lent.connection.getresponse()
        place = answer.headers.get("Content-Range", "")
        if answer.status == 206 and place.startswith(f"bytes {start}-{start + length - 1}/"):
            return answer
        if answer.status < 500 and answer.status not in (404, 408, 416, 429):
            self._refuse(f"the answer is {answer.status} {place!r}")
        return None

    def _connect(self, address: SplitResult) -> http.client.HTTPConnection | None:
        host = address.hostname or ""
        proxies = urllib.request.getproxies()
        if (address.scheme in proxies or "all" in proxies) and not urllib.request.proxy_bypass(host):
            self._refuse("a proxy is set")
            return None
        if address.scheme != "https":
            connection = http.client.HTTPConnection(host, address.port, timeout=_CONNECT)
        else:
            if self._tls is None:
                tls = ssl.create_default_context()
                if self._authorities:
                    tls.load_verify_locations(cadata=self._authorities.decode("ascii", "ignore"))
                self._tls = tls
            connection = http.client.HTTPSConnection(host, address.port, timeout=_CONNECT, context=self._tls)
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        connection.sock.settimeout(_SILENCE)
        return connection

    def _refuse(self, reason: str) -> None:
        if self.refused is None:
            self.refused = reason
            logger.debug("from now on all reads are left to the object client: %s", reason)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[_Lent]:
        with self._lock:
            self._reading += 1
            lent = _Lent(self._idle.pop() if self._idle else None)
        try:
            yield lent
        finally:
            with self._lock:
                self._reading -= 1
                if lent.connection is not None and lent.whole:
                    self._idle.append(lent.connection)
                elif lent.connection is not None:
                    lent.connection.close()
                if not self._reading:
                    while self._idle:
                        self._idle.pop().close()


class _Lent:
    """A connection while one thread has it; ``whole``: another may have it after."""

    def __init__(self, connection: http.client.HTTPConnection | None) -> None:
        self.connection = connection
        self.whole = False
