"""Doubles of clouds that have no server of their own for tests: each translates what it is asked for SeaweedFS.

``GoogleGateway`` speaks the part of Google Cloud Storage's XML API that obstore uses, and refuses what Google refuses.
``HubGateway`` is the S3 gateway of Hugging Face Buckets as its documentation describes it. Where these two are
gentler or stricter than the real ones, nobody has found out: no test here has reached Google or Hugging Face.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import http.server
import json
import re
import threading
import time
import urllib.parse
from typing import Any

from tests.servers import SeaweedServer

HOP = {"connection", "transfer-encoding", "keep-alive", "date", "server", "content-length"}


class Refusal(Exception):
    """What a gateway answers itself."""

    def __init__(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(code)
        self.status, self.headers = status, headers or {}
        self.body = (
            f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        )


class Gateway:
    """An HTTP server in threads that forwards to a SeaweedFS what ``translate`` makes of a request.

    Attributes:
        endpoint: its URL.
        requests: method and path of each request so far.
    """

    def __init__(self, behind: SeaweedServer) -> None:
        self.behind = behind
        self.requests: list[tuple[str, str]] = []
        self._address = urllib.parse.urlsplit(behind.endpoint)
        gateway = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def serve(self) -> None:
                gateway.serve(self)

            def pass_on(self, answer: http.client.HTTPResponse) -> None:
                kept = {name: value for name, value in answer.getheaders() if name.lower() not in HOP}
                length = answer.getheader("content-length")
                if length is not None:
                    kept["Content-Length"] = length
                pieces = iter(lambda: answer.read(2**20), b"")
                self.reply(answer.status, gateway.answered(answer.status, kept), pieces)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = serve

            def reply(self, status: int, headers: dict[str, str], pieces: Any) -> None:
                self.send_response(status)
                if "Content-Length" not in headers:
                    pieces = list(pieces)
                    headers = {**headers, "Content-Length": str(sum(map(len, pieces)))}
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                for piece in pieces:
                    if self.command != "HEAD":
                        self.wfile.write(piece)

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:  # a client that went away
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def serve(self, handler: Any) -> None:
        """Answer one request."""
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        self.requests.append((handler.command, handler.path))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        try:
            path, headers = self.translate(handler.command, handler.path, headers, body)
        except Refusal as refusal:
            handler.reply(refusal.status, refusal.headers, [refusal.body])
            return
        upstream = http.client.HTTPConnection(self._address.netloc, timeout=60)
        with contextlib.closing(upstream):
            signed = self.signed(handler.command, path, headers, body)
            upstream.request(handler.command, path, body, signed)
            handler.pass_on(upstream.getresponse())

    def translate(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[str, dict[str, str]]:
        """Return path and headers for the server behind; raises Refusal."""
        raise NotImplementedError

    def answered(self, status: int, headers: dict[str, str]) -> dict[str, str]:
        """Return the headers of an answer as the client gets them."""
        return headers

    def signed(self, method: str, path: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        """Return headers with a signature that the server behind accepts."""
        kept = {
            name: value
            for name, value in headers.items()
            if name in ("content-type", "range", "if-none-match", "if-match", "content-md5")
            or name.startswith("x-amz-copy")
        }
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        kept |= {
            "host": self._address.netloc,
            "x-amz-date": stamp,
            "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
        }
        names = sorted(kept)
        signature = v4(
            method, path, {name: kept[name] for name in names}, self.behind.secret_key, "us-east-1"
        )
        scope = f"{stamp[:8]}/us-east-1/s3/aws4_request"
        kept["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.behind.access_key}/{scope},"
            f" SignedHeaders={';'.join(names)}, Signature={signature}"
        )
        return kept


def v4(method: str, target: str, headers: dict[str, str], secret: str, region: str) -> str:
    """Return the signature (AWS version 4) of a request with exactly these headers signed."""
    path, _, query = target.partition("?")
    said = urllib.parse.parse_qsl(query, keep_blank_values=True)
    pairs = sorted("=".join(urllib.parse.quote(part, safe="-_.~") for part in pair) for pair in said)
    lines = [f"{name}:{' '.join(value.split())}" for name, value in sorted(headers.items())]
    names = ";".join(sorted(headers))
    asked = "\n".join([method, path, "&".join(pairs), *lines, "", names, headers["x-amz-content-sha256"]])
    stamp = headers["x-amz-date"]
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(asked.encode()).hexdigest()])
    key = ("AWS4" + secret).encode()
    for part in (stamp[:8], region, "s3", "aws4_request", text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key.hex()


class GoogleGateway(Gateway):
    """Google Cloud Storage's XML API, with tokens.

    Attributes:
        tokens: bearer tokens that may do all.
        readers: bearer tokens that may only read and list.
        account: client_email of the service account whose own tokens (JWT) are taken, too.
    """

    account = "trainer@project.iam.gserviceaccount.com"

    def __init__(self, behind: SeaweedServer) -> None:
        super().__init__(behind)
        self.tokens: set[str] = {"token-of-the-tests"}
        self.readers: set[str] = set()

    def translate(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[str, dict[str, str]]:
        token = headers.pop("authorization", "").removeprefix("Bearer ")
        if not token:
            raise Refusal(401, "AuthenticationRequired")
        if token in self.readers:
            if method not in ("GET", "HEAD"):
                raise Refusal(403, "AccessDenied")
        elif token not in self.tokens and not self._own(token):
            raise Refusal(401, "AuthenticationRequired")
        changed = {}
        for name, value in headers.items():
            if name == "x-goog-if-generation-match":
                if value != "0":
                    raise Refusal(501, "NotImplemented")
                name, value = "if-none-match", "*"
            elif name in ("if-none-match", "if-match") and method == "PUT":
                continue  # Google ignores them on writes
            elif name.startswith("x-goog-copy-source"):
                name, value = name.replace("x-goog-", "x-amz-"), self._spelt(value)
            changed[name] = value
        place, mark, query = path.partition("?")
        return self._spelt(place) + mark + query, changed

    @staticmethod
    def _spelt(path: str) -> str:
        """Return a path as AWS escapes it; obstore escapes more for Google, slashes and dashes too."""
        return urllib.parse.quote(urllib.parse.unquote(path), safe="/-_.~")

    def answered(self, status: int, headers: dict[str, str]) -> dict[str, str]:
        tag = next((value for name, value in headers.items() if name.lower() == "etag"), None)
        kept = {name: value for name, value in headers.items() if not name.lower().startswith("x-amz")}
        if tag is not None:
            kept["x-goog-generation"] = str(int(hashlib.sha256(tag.encode()).hexdigest()[:12], 16))
        return kept

    def _own(self, token: str) -> bool:
        """Whether it is a token that the service account has signed; its signature isn't looked at."""
        parts = token.split(".")
        if len(parts) != 3:
            return False
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
        return claims.get("iss") == self.account and claims.get("exp", 0) > time.time()


class HubGateway(Gateway):
    """The S3 gateway of Hugging Face Buckets: ``/namespace/bucket/key``, and a CDN to which reading is led.

    Attributes:
        access_key, secret_key: made from a token of a person, who may do all.
        namespace: whose buckets they are.
    """

    access_key, secret_key = "HFAKTESTS0000000", "secret-of-the-hub-tests"
    namespace = "me"

    def __init__(self, behind: SeaweedServer) -> None:
        super().__init__(behind)
        self._cdn = _Cdn(behind)

    def close(self) -> None:
        super().close()
        self._cdn.close()

    def translate(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[str, dict[str, str]]:
        self._check_signature(method, path, headers)
        if "trailer" in " ".join(headers) or "aws-chunked" in headers.get("content-encoding", ""):
            raise Refusal(400, "InvalidRequest")
        if headers["x-amz-content-sha256"].startswith("STREAMING"):
            raise Refusal(400, "InvalidRequest")
        place, _, query = path.partition("?")
        namespace, bucket, key = (*place.lstrip("/").split("/", 2), "", "")[:3]
        if namespace != self.namespace or bucket != self.behind.bucket:
            raise Refusal(404, "NoSuchBucket")
        asked = urllib.parse.parse_qs(query, keep_blank_values=True)
        name = urllib.parse.unquote(key)
        if "//" in name or "../" in name or "\\" in name or name.startswith("./") or name.endswith(".."):
            raise Refusal(400, "InvalidArgument")
        if not key and method == "GET" and asked.get("list-type") != ["2"]:
            raise Refusal(501, "NotImplemented")
        if asked.get("delimiter", ["/"]) != ["/"] or "lifecycle" in asked:
            raise Refusal(501, "NotImplemented")
        if "partNumber" in asked and "x-amz-copy-source" in headers:
            raise Refusal(501, "NotImplemented")
        headers = {name: value for name, value in headers.items() if not name.startswith("x-amz-meta-")}
        source = headers.get("x-amz-copy-source")
        if source is not None:
            owner, _, rest = source.lstrip("/").partition("/")
            # obstore names the source as bucket/key; the gateway scopes it by the endpoint's namespace
            headers["x-amz-copy-source"] = "/" + (rest if owner == self.namespace else source.lstrip("/"))
        target = f"/{bucket}/{key}" if key else f"/{bucket}"
        agent = headers.get("user-agent", "")
        if key and method == "GET" and not re.search(r"aws-cli|botocore|aws-sdk-rust", agent, re.IGNORECASE):
            raise Refusal(302, "Found", {"Location": self._cdn.link(target)})
        if method in ("GET", "HEAD"):  # honoured on PutObject alone
            headers = {
                name: value for name, value in headers.items() if name not in ("if-match", "if-none-match")
            }
        return target + (f"?{query}" if query else ""), headers

    def _check_signature(self, method: str, path: str, headers: dict[str, str]) -> None:
        found = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=([^/]+)/\d+/([^/]+)/s3/aws4_request,"
            r" ?SignedHeaders=([^,]+), ?Signature=(\w+)",
            headers.get("authorization", ""),
        )
        if found is None:
            raise Refusal(403, "AccessDenied")
        key, region, names, signature = found.groups()
        if key != self.access_key:
            raise Refusal(403, "InvalidAccessKeyId")
        if region != "us-east-1":
            raise Refusal(400, "AuthorizationHeaderMalformed")
        signed = {name: headers[name] for name in names.split(";")}
        if not hmac.compare_digest(v4(method, path, signed, self.secret_key, region), signature):
            raise Refusal(403, "SignatureDoesNotMatch")


class _Cdn(Gateway):
    """Serves what it has given a link to, to whoever comes with it and without other credentials."""

    _key = b"key-of-the-cdn"

    def link(self, target: str) -> str:
        return f"{self.endpoint}{target}?Signature={self._sign(target)}"

    def translate(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[str, dict[str, str]]:
        target, _, query = path.partition("?")
        if "authorization" in headers or query != f"Signature={self._sign(target)}":
            raise Refusal(403, "AccessDenied")
        return target, headers

    def _sign(self, target: str) -> str:
        return hmac.new(self._key, target.encode(), hashlib.sha256).hexdigest()
