"""A server on this machine that sends one file, and can be cut off."""

import re
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONNECT, LOOK_UP = socket.socket.connect, socket.getaddrinfo


def open_to_this_machine(monkeypatch):
    """Open the way to this machine, which the tests close like every other."""

    def connect(self, address):
        assert address[0] == "127.0.0.1"
        return CONNECT(self, address)

    def look_up(host, *told, **more):
        assert host == "127.0.0.1"
        return LOOK_UP(host, *told, **more)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)


class Served:
    """What is served, how it fails, and what was asked for.

    Attributes:
        content: The file.
        etag: The server's name for its version; none if empty.
        modified: Since when it has been so; untold if empty.
        kind: What is said to be sent.
        statuses: Answer these first, one a request, with a page.
        versions: Whether If-Range is understood.
        cuts: After how many bytes the next answers break off.
        ranges: Whether parts may be asked for.
        asked: The header Range of every request.
        status: Answer this instead.
    """

    def __init__(self, content):
        self.content, self.etag, self.status = content, '"first"', None
        self.modified, self.kind, self.statuses, self.versions = "", "", [], True
        self.cuts, self.asked, self.ranges = [], [], True
        self.url = ""


@contextmanager
def serve(content):
    """Serve a file on a port of this machine."""
    served = Served(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self, served)

        def log_message(self, *told):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/file"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(handler, served):
    """Send the file or the part asked for, as far as it goes."""
    asked = handler.headers.get("Range")
    served.asked.append(asked)
    if status := served.statuses.pop(0) if served.statuses else served.status:
        handler.send_error(status)
        return
    start = 0
    weak = served.etag.startswith("W/")
    version = served.etag if served.etag and not weak else served.modified
    same = not served.versions or handler.headers.get("If-Range", version) == version
    if asked and served.ranges and same:
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
    total = len(served.content)
    if start >= total:
        handler.send_response(416)
        handler.send_header("Content-Range", f"bytes */{total}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    handler.send_response(206 if start else 200)
    told = {"ETag": served.etag, "Last-Modified": served.modified, "Content-Type": served.kind}
    for name, value in told.items():
        if value:
            handler.send_header(name, value)
    handler.send_header("Content-Length", str(total - start))
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
    handler.end_headers()
    stop = start + served.cuts.pop(0) if served.cuts else total
    handler.wfile.write(served.content[start:stop])
