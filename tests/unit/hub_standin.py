"""A stand-in for the hub on loopback: the endpoints that huggingface_hub calls, and the ways in which they fail.

Constructed after the library's own source: the answers, headers and error codes are those it looks at.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

# Constructed: no commit of any real repository.
COMMIT, PINNED = "a" * 40, "b" * 40
GOOD_TOKEN, OTHER_TOKEN = "hf_good", "hf_without_access"


@dataclass(frozen=True)
class Cut:
    """A transfer of a file that ends early: after some bytes of the answer, cleanly, by a reset, or never."""

    after: int
    how: str = "close"


@dataclass
class Hub:
    """What a test says of the hub, and what it saw. files: path -> bytes. faults: path -> what its answers are."""

    files: dict[str, bytes]
    repository: str = "o/m"
    commit: str = COMMIT
    gated: bool = False
    names_only: bool = False
    ignores_ranges: bool = False
    faults: dict[str, list[Any]] = field(default_factory=dict)
    corrupt: set[str] = field(default_factory=set)
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    holding: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ranges(self, name: str) -> list[str | None]:
        """The Range of each request for a file's bytes."""
        first = "/blobs/" if large(name) else f"/{self.repository}/resolve/"
        return [range_ for path, range_, _ in self.asked if path.startswith(first) and path.endswith("/" + name)]

    def tokens(self, prefix: str) -> set[str | None]:
        """What came as Authorization with requests below a path."""
        return {token for path, _, token in self.asked if path.startswith(prefix)}

    def listing(self) -> list[dict[str, Any]]:
        """The siblings of /api/models/..., as the hub words them."""
        if self.names_only:
            return [{"rfilename": name} for name in self.files]
        return [
            {"rfilename": name, "size": len(content), "blobId": git_sha1(content)}
            | ({"lfs": {"sha256": sha256(content), "size": len(content), "pointerSize": 134}} if large(name) else {})
            for name, content in self.files.items()
        ]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def large(name: str) -> bool:
    """Whether the hub keeps the file with Git LFS, behind a redirect to another host."""
    return name.endswith((".safetensors", ".bin"))


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """The hub answers until the end of the block."""

    class Handler(_Handler):
        it = hub

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a client that is gone

    with Quiet(("127.0.0.1", hub.port), Handler) as server:
        hub.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.released.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    it: Hub

    def do_GET(self) -> None:
        hub, path = self.it, unquote(urlsplit(self.path).path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        hub.asked.append((path, self.headers.get("Range"), token))
        self.close_connection = True
        fault = next((answers.pop(0) for key, answers in hub.faults.items() if key in path and answers), None)
        if isinstance(fault, tuple):
            self._say(fault[0], b"", None, **fault[1])
        elif path.startswith(f"/api/models/{hub.repository}"):
            self._info(path.rpartition("/revision/")[2] if "/revision/" in path else hub.commit)
        elif path.startswith(f"/{hub.repository}/resolve/"):
            self._resolve(path, token, fault)
        elif path.startswith("/blobs/"):
            self._send(path.removeprefix("/blobs/"), fault)
        else:
            self._say(401 if token is None else 404, b"", X_Error_Code="RepoNotFound")

    do_HEAD = do_GET  # noqa: N815 - named by http.server

    def _info(self, revision: str) -> None:
        hub = self.it
        if revision not in (hub.commit, PINNED):
            self._say(404, b"", X_Error_Code="RevisionNotFound")
            return
        self._say(200, json.dumps({"id": hub.repository, "sha": revision, "siblings": hub.listing()}).encode())

    def _resolve(self, path: str, token: str | None, fault: Cut | None) -> None:
        hub, (commit, _, name) = self.it, path.removeprefix(f"/{self.it.repository}/resolve/").partition("/")
        if token not in (None, GOOD_TOKEN, OTHER_TOKEN):
            self._say(401, b"", X_Error_Message="Invalid credentials in Authorization header")
        elif hub.gated and token != GOOD_TOKEN:
            self._say(401 if token is None else 403, b"", X_Error_Code="GatedRepo")
        elif name not in hub.files:
            self._say(404, b"", X_Error_Code="EntryNotFound")
        else:
            facts = {"X_Repo_Commit": commit}
            if not large(name):
                self._send(name, fault, ETag=f'"{git_sha1(hub.files[name])}"', **facts)
                return
            facts |= {"X_Linked_Size": str(len(hub.files[name])), "X_Linked_ETag": f'"{sha256(hub.files[name])}"'}
            # another host name, as the hub's own store of large files is another origin
            self._say(302, b"", None, Location=f"http://localhost:{hub.port}/blobs/{name}", **facts)

    def _send(self, name: str, cut: Cut | None, **facts: str) -> None:
        content = self.it.files[name]
        if name in self.it.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        first = 0
        if self.headers.get("Range") and not self.it.ignores_ranges:
            first = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        if first:
            facts["Content_Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        body = content[first:]
        self._say(206 if first else 200, body if cut is None else body[: cut.after], len(body), **facts)
        if cut is not None and cut.how == "hold":
            self.wfile.flush()
            self.it.holding.set()
            self.it.released.wait(30)
        elif cut is not None and cut.how == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.wfile.close()
            self.connection.close()

    def _say(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
