"""Runs a script's `main` under absl and turns a user's mistake into one line."""

import contextlib
import errno
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from absl import app, flags

from speccascade.errors import UserError
from speccascade.runtime import command, compilation_cache, config_flag, native, output

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_WRONG_PLACE = (
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.EACCES, errno.EPERM, errno.ENAMETOOLONG),
)

flags.disclaim_key_flags()  # `--help` lists what is defined here as the script's own


def define_distributed() -> None:
    """Defines the flags of a script that several processes may run as one program."""
    flags.DEFINE_bool(
        "distributed",
        False,
        "Run as one of several processes that share a mesh, one per worker. Cloud TPU tells the "
        "rest; elsewhere give the three flags below, or use scripts/launch.py.",
    )
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0.")
    flags.DEFINE_integer("num_processes", None, "How many processes there are.", lower_bound=1)
    flags.DEFINE_integer("process_id", None, "Which one this is, from 0 on.", lower_bound=0)


def define_native() -> None:
    """Defines the flag of a script that decodes, and may do so by `native.enable`."""
    flags.DEFINE_bool(
        "native",
        False,
        "On CPU, multiply few rows by code that is compiled for this processor, once, by g++ or "
        "clang++: models that wait for memory read bfloat16 faster, float32 blocks in half the "
        "time, and int8 as what it is. Rounding differs, so rows are kept apart.",
    )


def run(main: Callable[[Sequence[str]], None], launches: bool = False) -> None:
    """Parses absl flags and calls `main(argv)`, with what XLA compiled kept between runs.

    A `UserError` is printed as one line on standard error and ends the program with exit code 2;
    so does a disk that is full or read-only, a path that is no directory, no file or not ours, and
    a flag, a config file's name or one of its fields that does not exist. Every other exception is
    a defect and keeps its traceback.

    Args:
      main: the script's.
      launches: whether it runs another command, which follows its own flags, and computes nothing.
    """

    def guarded(argv: Sequence[str]) -> None:
        if len(argv) > 1 and not launches:
            _fail(f"unexpected argument {argv[1]!r}; see --help")
        # Orbax reports every save at INFO, which would tear the progress bars apart.
        logging.getLogger().setLevel(logging.WARNING)
        if not launches:
            compilation_cache.enable()
        try:
            with _together(), _room_told():
                if "native" in flags.FLAGS and flags.FLAGS.native:
                    native.enable()
                main(argv)
        except UserError as error:
            _fail(str(error))

    with output.may_go_unread():
        app.run(guarded, flags_parser=_parse)


@contextlib.contextmanager
def _room_told() -> Iterator[None]:
    """Turns a disk that is full or read-only, or a path that cannot be used, into a `UserError`."""
    try:
        yield
    except OSError as error:
        file = error.filename or "a file"
        if error.errno in _WRONG_PLACE and error.filename:
            told = f"{file} cannot be read or written: {error.strerror}; give another path"
            raise UserError(told) from error
        if error.errno not in _NO_ROOM:
            raise
        raise UserError(f"{file} could not be written: {error.strerror}") from error


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Joins the run that the flags name; alone, does nothing."""
    values = flags.FLAGS
    if "distributed" not in values:
        yield
        return
    names = ("coordinator", "num_processes", "process_id")
    given = [values[name].value for name in names]
    if not values.distributed:
        if set(given) != {None}:
            raise UserError("--coordinator, --num_processes and --process_id need --distributed")
        yield
        return
    from speccascade.sharding import hosts  # not at the top: `--help` should not wait for JAX

    with hosts.joined(*given):
        yield


def _parse(argv: Sequence[str]) -> list[str]:
    """Returns what is left of `argv` once its flags are read."""
    argv = _where_configs_are(argv)
    flag = next((a for a in argv if a.startswith("--config=")), "--config")
    if "config" in flags.FLAGS:
        config = flags.FLAGS["config"]
        config.parser = config_flag.Parser(config.parser, argv)
    try:
        rest = flags.FLAGS(argv)
        if "config" in flags.FLAGS and flags.FLAGS["config"].value is not None:
            flags.FLAGS["config"].value.keys()  # a missing file is noticed only when read
        return rest
    except UserError as error:
        _fail(f"{flag}: {error}")
    except flags.Error as error:
        # absl puts the whole traceback of a broken config file into its message: worth reading.
        message = str(error)
        if named := re.match(r"flag --(\w+)=None: Flag --\1 must have a value", message):
            message = f"give --{named[1]}=..."
        if "get_config() takes 0 positional arguments" in message:
            message = f"{flag}: this config takes nothing after the colon"
        _fail(message if "Traceback" in message else f"{' '.join(message.split())}; see --help")
    except OSError as error:
        if "ml_collections" not in traceback.extract_tb(error.__traceback__)[-1].filename:
            raise
        _fail(f"{flag}: there is no such file, or it could not be read")
    except (KeyError, TypeError) as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        at, within = frame.f_locals.get("field_path"), frame.f_locals.get("config")
        if "ml_collections" not in frame.f_code.co_filename or at is None:
            raise
        above, _, name = at.rpartition(".")
        kind = type(within).__name__
        told = f"{above} is of type {kind} and has no field {name!r}; set {above} as a whole"
        _fail(f"{flag}: {told}")


def _where_configs_are(argv: Sequence[str]) -> list[str]:
    """Returns `argv` with --config=~/... and --config=configs/... as paths that are there."""
    found = list(argv)
    for i, argument in enumerate(found):
        name, equals, value = argument.partition("=")
        if argument == "--":
            break
        if name in ("--config", "-config"):
            found[i] = name + equals + _config_file(value)
        elif i and found[i - 1] in ("--config", "-config"):
            found[i] = _config_file(argument)
    return found


def _config_file(value: str) -> str:
    """Returns FILE or FILE:ARGUMENT with the home directory, where no shell puts it, and with the
    package's own configs, which a wheel has elsewhere."""
    value = os.path.expanduser(value)
    path, colon, rest = value.partition(":")
    first, slash, name = path.partition("/")
    if first == "configs" and slash and not os.path.exists(path):
        path = str(command.folder("configs", "configs") / name)
    return path + colon + rest


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
