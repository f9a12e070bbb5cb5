"""A bucket in memory behind gs:// paths, as strict as a real one: objects are written whole."""

import threading

from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem


class Bucket(MemoryFileSystem):
    """What `gcsfs` is to fsspec.

    Attributes:
      full: whether writing fails.
    """

    protocol = ("gcs", "gs")
    full = False

    def __init__(self, **options):
        super().__init__()
        self.store, self.pseudo_dirs = {}, [""]
        self._one = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("gs://").strip("/")

    def pipe_file(self, path, value, mode="overwrite", **options):
        if mode != "create":
            return super().pipe_file(path, value, mode, **options)
        with self._one:  # as exact as Google's `ifGenerationMatch=0`
            if self._strip_protocol(path) in self.store:
                raise FileExistsError(path)
            super().pipe_file(path, value, **options)

    def _open(self, path, mode="rb", **options):
        if "a" in mode or "+" in mode:
            raise NotImplementedError("an object cannot be changed")
        if "w" in mode and self.full:
            raise RuntimeError("429: quota\nexceeded")  # client packages raise errors of their own
        return super()._open(path, mode, **options)


def install(monkeypatch) -> Bucket:
    """Returns a new bucket, which gs:// paths lead to until the test ends."""
    made = Bucket(skip_instance_cache=True)
    monkeypatch.setattr(backend._FileSystemSpecBackend, "_get_filesystem", lambda *_: made)
    return made
