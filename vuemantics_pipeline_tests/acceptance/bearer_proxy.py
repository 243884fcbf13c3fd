"""A proxy that adds a bearer token to every request, for clients that cannot send one.

Everything else is handed on as it came, Host and Origin as well: the server behind it judges them.
"""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP_BY_HOP = ("connection", "transfer-encoding")


@contextmanager
def bearer_proxy(url: str, token: str) -> Iterator[str]:
    """Give the URL under which `url` is reached with the token."""
    target = urlsplit(url)
    assert target.hostname is not None

    class Handler(BaseHTTPRequestHandler):
        def hand_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            server = http.client.HTTPConnection(str(target.hostname), target.port, timeout=60)
            server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    server.putheader(name, value)
            server.putheader("Authorization", f"Bearer {token}")
            server.endheaders(body)
            answer = server.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            self.end_headers()
            try:
                while chunk := answer.read1(65536):
                    self.wfile.write(chunk)
            except (OSError, http.client.HTTPException):
                pass  # one of the two has gone
            finally:
                server.close()

        do_GET = do_POST = do_DELETE = hand_on  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            """Nothing: a test's output is its own."""

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.daemon_threads = True
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_address[1]}{target.path}"
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
