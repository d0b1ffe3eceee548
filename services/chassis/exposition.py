"""The metrics of this process as text, in the format that Prometheus reads."""

import os
import stat
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import BaseServer, TCPServer, ThreadingMixIn, UnixStreamServer
from urllib.parse import unquote

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

PATH = "/metrics"
_UNIX = "unix:"
# Who asks and then says nothing.
_SILENCE_SECONDS = 5.0


def reader() -> PrometheusMetricReader:
    """What makes text of the instruments of this process; each sample says of which service it is."""
    return PrometheusMetricReader(
        scope_info_enabled=False,
        disable_target_info=True,
        resource_attribute_filter=lambda name: name == "service.name",
    )


def text() -> bytes:
    """All metrics of this process, and what it takes of the machine. Takes some milliseconds."""
    return generate_latest(REGISTRY)


def serve(address: str) -> None:
    """Serves PATH at `host:port` or `unix:/path` for as long as the process lives, on threads of its own.

    Whoever can reach it may read it. Raises OSError, and ValueError for what is no address.
    """
    server = _server(address)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    timeout = _SILENCE_SECONDS

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != PATH:
            self.send_error(404)
            return
        body = text()
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE_LATEST)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: it is asked again and again."""


class _Threads(ThreadingMixIn):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: whoever asked has left."""


class _Tcp(_Threads, TCPServer):
    allow_reuse_address = True


class _Unix(_Threads, UnixStreamServer):
    pass


def _server(address: str) -> BaseServer:
    if address.startswith(_UNIX):
        path = Path(unquote(address.removeprefix(_UNIX)))
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            # Of a process that was killed.
            path.unlink()
        server = _Unix(str(path), _Handler)
        path.chmod(0o600)
        return server
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{address!r} is no address: write host:port or unix:/path")
    return _Tcp((host.strip("[]"), int(port)), _Handler)


def serve_or_exit(service: str, address: str) -> None:
    """Like `serve`, for the start of a process: it ends with a line that says what is wrong."""
    try:
        serve(address)
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        sys.exit(f"{service}: BATON_METRICS_LISTEN is {address}: {reason}")
