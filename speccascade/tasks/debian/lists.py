"""The lists of descriptions: fetched by apt, which checks signature and hashes and resumes."""

import bz2
import contextlib
import fcntl
import lzma
import os
import pathlib
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import IO

import tqdm

from speccascade.errors import UserError
from speccascade.inputs import paths

LANGUAGES = ("en", "de")
_OPENERS: dict[str, Callable[..., IO]] = {"": open, ".bz2": bz2.open, ".xz": lzma.open}
_MAIN = "_main_i18n_Translation-"  # how apt names a list


def read(directory: str) -> dict[str, str]:
    """Returns the lists by language, fetched into `directory` if they are not there yet.

    Args:
      directory: holds `Translation-en` and `Translation-de`, as mirrors have them in
        `dists/SUITE/main/i18n/`, plain or compressed (.bz2, .xz).

    Raises:
      UserError: they are not there and cannot be fetched, or cannot be read.
    """
    folder = pathlib.Path(paths.on_disk(directory, "task.path"))
    if any(_find(folder, language) is None for language in LANGUAGES):
        fetch(folder)
    texts = {}
    for language in LANGUAGES:
        path = _find(folder, language)
        try:
            with _OPENERS[path.suffix](path, "rt", encoding="utf-8") as file:
                texts[language] = file.read()
        except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path} cannot be read ({type(error).__name__}: {error}); remove it to have it "
                "fetched again"
            ) from None
    return texts


def _find(folder: pathlib.Path, language: str) -> pathlib.Path | None:
    paths = (folder / f"Translation-{language}{ending}" for ending in _OPENERS)
    return next((path for path in paths if path.exists()), None)


def fetch(folder: pathlib.Path) -> None:
    """Fetches the lists of every suite that this machine's apt knows, into `folder`.

    Nothing of the machine's own apt state changes; what an interrupted fetch left in
    `folder`/apt is used by the next one. Other processes that want the same wait for the first.

    Raises:
      UserError: there is no apt, or it does not get the lists.
    """
    by_hand = (
        f"put Translation-en and Translation-de of a Debian mirror, from dists/SUITE/main/i18n/, "
        f"into {folder}, which task.path names"
    )
    if shutil.which("apt-get") is None:
        raise UserError(f"there is no apt-get here to fetch Debian's descriptions; {by_hand}")
    try:
        with _claim(folder):
            if all(_find(folder, language) for language in LANGUAGES):
                return
            said = _update(folder / "apt")
            found = sorted((folder / "apt" / "lists").glob(f"*{_MAIN}de"))
            pairs = [(path.with_name(path.name[:-2] + "en"), path) for path in found]
            pairs = [pair for pair in pairs if pair[0].exists()]
            if not pairs:
                raise UserError(f"apt-get did not get Debian's descriptions ({said}); {by_hand}")
            for position, language in enumerate(LANGUAGES):
                _join([pair[position] for pair in pairs], folder / f"Translation-{language}")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another") from None


@contextlib.contextmanager
def _claim(folder: pathlib.Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _update(state: pathlib.Path) -> str:
    """Runs apt-get with a state of its own; returns its last complaint."""
    for name in ("lists/partial", "cache"):
        (state / name).mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    options = {
        "Dir::State::lists": (state / "lists").absolute(),
        "Dir::Cache": (state / "cache").absolute(),
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Acquire::Languages": "en,de",
        "Acquire::GzipIndexes": "false",
        "Acquire::Retries": "3",
        "Acquire::IndexTargets::deb::Packages::DefaultEnabled": "false",
        "APT::Sandbox::User": "root",  # the user who asks; another could not write here
        "APT::Status-Fd": writing,
    }
    command = ["apt-get", "update", "--quiet"]
    command += [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=(writing,),
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        text=True,
    ) as process:
        os.close(writing)
        progress = threading.Thread(target=_show, args=(reading,))
        progress.start()
        complaints = process.stderr.read().strip().splitlines()
        process.wait()
        progress.join()
    return complaints[-1] if complaints else "its sources have none in German"


def _show(descriptor: int) -> None:
    """Shows what apt-get says of its progress: lines of `dlstatus:NUMBER:PERCENT:TEXT`."""
    shape = "descriptions: {percentage:3.0f}% |{bar}| {elapsed}"
    with open(descriptor) as lines, tqdm.tqdm(total=100, bar_format=shape) as bar:
        for line in lines:
            fields = line.split(":")
            if fields[0] == "dlstatus":
                bar.update(max(0.0, round(float(fields[2]) - bar.n, 1)))


def _join(paths: list[pathlib.Path], target: pathlib.Path) -> None:
    partial = target.with_name(target.name + ".partial")
    with open(partial, "wb") as file:
        for path in paths:
            file.write(path.read_bytes() + b"\n\n")
    os.replace(partial, target)
