"""Serves a bucket in memory by Google's JSON API, as far as TensorStore asks for it.

Orbax reads and writes arrays through TensorStore, which knows nothing of fsspec.
"""

import contextlib
import http.server
import json
import re
import threading
import urllib.parse
import zlib
from collections.abc import Iterator

from tests.workdir.bucket import Bucket


@contextlib.contextmanager
def serve(bucket: Bucket) -> Iterator[str]:
    """Yields the URL at which a bucket is served as long as the context lasts."""

    class Handler(_Handler):
        made = bucket

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    made: Bucket

    def do_GET(self):
        bucket, name, query = self._asked()
        if not name:
            found = self._objects(f"/{bucket}/", query.get("prefix", ""))
            items = [_described(bucket, key, data) for key, data in found]
            return self._answer(200, {"kind": "storage#objects", "items": items})
        if (data := self._data(bucket, name)) is None:
            return self._answer(404, {})
        if query.get("alt") != "media":
            return self._answer(200, _described(bucket, name, data))
        headers, status = {"x-goog-generation": str(_generation(data))}, 200
        if query.get("ifGenerationNotMatch") == str(_generation(data)):
            return self._answer(304, {})
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            data, status = data[first : last + 1], 206
        return self._answer(status, data, headers)

    def do_POST(self):
        bucket, _, query = self._asked()
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        there = self._data(bucket, query["name"])
        wanted = query.get("ifGenerationMatch")
        if wanted is not None and wanted != str(0 if there is None else _generation(there)):
            return self._answer(412, {})
        if self.made.full:
            return self._answer(403, {"error": {"code": 403, "message": "quota exceeded"}})
        self.made.pipe_file(f"/{bucket}/{query['name']}", data)
        return self._answer(200, _described(bucket, query["name"], data))

    def do_DELETE(self):
        bucket, name, _ = self._asked()
        there = self.made.store.pop(f"/{bucket}/{name}", None)
        return self._answer(404 if there is None else 204, b"")

    def _asked(self):
        url = urllib.parse.urlsplit(self.path)
        query = {k: v[0] for k, v in urllib.parse.parse_qs(url.query).items()}
        found = re.fullmatch(r"(?:/upload)?/storage/v1/b/([^/]+)/o(?:/(.*))?", url.path)
        return found[1], urllib.parse.unquote(found[2] or ""), query

    def _data(self, bucket, name):
        file = self.made.store.get(f"/{bucket}/{name}")
        return None if file is None else file.getvalue()

    def _objects(self, root, prefix):
        for path, file in sorted(self.made.store.items()):
            if path.startswith(root + prefix):
                yield path.removeprefix(root), file.getvalue()

    def _answer(self, status, value, headers=()):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for key, text in {**dict(headers), "Content-Length": str(len(data))}.items():
            self.send_header(key, text)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def _generation(data: bytes) -> int:
    return zlib.crc32(data) + 1


def _described(bucket: str, name: str, data: bytes) -> dict:
    generation = str(_generation(data))
    return {"bucket": bucket, "name": name, "generation": generation, "size": str(len(data))}
