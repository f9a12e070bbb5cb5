"""Runs one Python program where it can do no harm; a script of its own, see `sandbox.run`.

    python -I -S jail.py LIMITS_AS_JSON < program

It needs no privileges but what Linux gives a process in a user namespace of its own:

1. new user, mount, process, network, IPC and UTS namespaces: there is no network interface, no
   other process to see, and everything in it dies with its first process;
2. a root of its own in memory, of limited size, into which the interpreter and the system's
   libraries are bound read-only: nothing else of the machine has a name there, no socket of a
   daemon, no home directory, no /proc;
3. for a caller who is root, another user inside and outside: limits do not hold for root;
4. limits on memory, processor time, processes, open files and file size;
5. no new privileges, and a filter of system calls: no sockets, no further namespaces, no memory
   that the limits do not count (shared segments, memory files), no tracing, no io_uring.

It exits with 0 if the program did, with `BROKEN` and a line on standard error if any of this could
not be had (the program has not run then), and with 1 otherwise.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import struct
import sys

BROKEN = 97
REPORT_FD = 3  # where the program says that it came to its end

_USER, _NOBODY = 1000, 65534  # the program's user within, and outside for a caller who is root

_NEW = 0x00020000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_NEW_ANY = _NEW | 0x02000000 | 0x00000080  # cgroup and time too
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_MNT_DETACH, _AT_FDCWD, _AT_RECURSIVE = 2, -100, 0x8000
_SYS_MOUNT_SETATTR = 442
_PDEATHSIG, _NO_NEW_PRIVS, _SECCOMP = 1, 38, 22

_SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/lib32", "/etc/ld.so.cache")

# Numbers of system calls by machine: (audit architecture, clone, those denied).
_DENIED = (
    "socket unshare setns shmget semget msgget mq_open memfd_create memfd_secret io_uring_setup "
    "bpf perf_event_open userfaultfd keyctl add_key request_key ptrace process_vm_writev"
).split()
_MACHINES = {
    "x86_64": (
        0xC000003E,
        56,
        (41, 272, 308, 29, 64, 68, 240, 319, 447, 425, 321, 298, 323, 250, 248, 249, 101, 311),
    ),
    "aarch64": (
        0xC00000B7,
        220,
        (198, 97, 268, 194, 190, 186, 180, 279, 447, 425, 280, 241, 282, 219, 217, 218, 117, 271),
    ),
}
_CLONE3, _EPERM, _ENOSYS = 435, 1, 38

_libc = ctypes.CDLL(None, use_errno=True)


class _Unavailable(Exception):
    """Something that the isolation needs is refused here."""


def _call(name, *arguments):
    """Calls a function of libc."""
    function = getattr(_libc, name, None)
    if function is None:
        raise _Unavailable(f"the C library has no {name}")
    given = [a.encode() if isinstance(a, str) else a for a in arguments]
    wide = [ctypes.c_ulong(a) if isinstance(a, int) and a > 0 else a for a in given]
    if function(*wide) < 0:
        shown = " ".join(str(a) for a in arguments if isinstance(a, str))
        raise _Unavailable(f"{name} {shown}: {os.strerror(ctypes.get_errno())}")


def _enter_namespaces():
    """Enters the namespaces; another process writes who is who, as the kernel wants it."""
    pid, root = os.getpid(), os.geteuid() == 0
    reading, writing = os.pipe()
    helper = os.fork()
    if helper == 0:
        try:
            os.close(writing)
            if os.read(reading, 1):
                _write_maps(pid, root)
        except OSError:
            os._exit(1)
        os._exit(0)
    os.close(reading)
    try:
        _call("unshare", _NEW)
        os.write(writing, b"x")
    finally:
        os.close(writing)
        _, status = os.waitpid(helper, 0)
    if status:
        raise _Unavailable("the user namespace gets no users")


def _write_maps(pid, root):
    for kind, own in (("uid", os.geteuid()), ("gid", os.getegid())):
        if not root:
            with open(f"/proc/{pid}/setgroups", "w") as file:
                file.write("deny")
        with open(f"/proc/{pid}/{kind}_map", "w") as file:
            file.write(f"0 {own} 1\n{_USER} {_NOBODY} 1\n" if root else f"{_USER} {own} 1\n")


def _die_with_parent():
    _call("prctl", _PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _be_first_to_go():
    """Should the machine run out of memory, this is what the kernel ends."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def _make_root(limits, root):
    """Makes `root`, an empty directory, the root of all names."""
    _call("mount", "none", "/", None, _MS_REC | _MS_PRIVATE, None)
    size = f"size={limits['disk_bytes']},nr_inodes=4096,mode=755"
    _call("mount", "tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, size)
    for path in dict.fromkeys((*_SYSTEM, *limits["libraries"])):
        _show(path, root)
    os.makedirs(root + "/dev", exist_ok=True)
    _bind("/dev/null", root)
    os.makedirs(root + "/tmp")
    os.chmod(root + "/tmp", 0o777)
    os.chdir(root)
    _call("pivot_root", ".", ".")
    _call("umount2", ".", _MNT_DETACH)
    os.chdir("/tmp")


def _show(path, root):
    """Makes a path of the machine visible under `root`, read-only."""
    if os.path.islink(path):
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(os.readlink(path), root + path)
    elif os.path.exists(path) and not os.path.exists(root + path):
        _bind(path, root)


def _bind(path, root):
    target = root + path
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _call("mount", path, target, None, _MS_BIND | _MS_REC, None)
    # struct mount_attr: read-only, no set-user-ID; and devices work for /dev/null alone.
    flags = 1 | 2 | (0 if path.startswith("/dev/") else 4)
    attributes = struct.pack("QQQQ", flags, 0, 0, 0)
    result = _libc.syscall(
        _SYS_MOUNT_SETATTR,
        _AT_FDCWD,
        target.encode(),
        _AT_RECURSIVE,
        attributes,
        ctypes.c_size_t(len(attributes)),
    )
    if result < 0:
        raise _Unavailable(f"mount_setattr {path}: {os.strerror(ctypes.get_errno())}")


def _limit(limits, root):
    """Gives up what the program is not to have."""
    if root:
        os.setgroups([])
        os.setresgid(_USER, _USER, _USER)
        os.setresuid(_USER, _USER, _USER)
    for name, value in (
        ("AS", limits["memory_bytes"]),
        ("CPU", int(limits["seconds"]) + 1),
        ("NPROC", limits["processes"]),
        ("FSIZE", limits["disk_bytes"]),
        ("NOFILE", 64),
        ("CORE", 0),
        ("MEMLOCK", 0),
        ("MSGQUEUE", 0),
    ):
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    _call("prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)
    _filter_system_calls()


def _filter_system_calls():
    machine = os.uname().machine
    if machine not in _MACHINES or sys.maxsize < 2**32:
        raise _Unavailable(f"there is no filter of system calls for {machine}")
    architecture, clone, denied = _MACHINES[machine]
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, error = 0x7FFF0000, 0x80000000, 0x00050000
    program = [
        (load, 0, 0, 4),  # the architecture
        (equal, 1, 0, architecture),
        (give, 0, 0, kill),
        (load, 0, 0, 0),  # the number
        (at_least, 0, 1, 0x40000000),  # x86-64's other numbering
        (give, 0, 0, error | _EPERM),
        (equal, 0, 1, _CLONE3),  # its flags cannot be seen from here; libc then uses clone
        (give, 0, 0, error | _ENOSYS),
    ]
    for number in denied:
        program += [(equal, 0, 1, number), (give, 0, 0, error | _EPERM)]
    program += [
        (equal, 0, 3, clone),
        (load, 0, 0, 16),  # its flags
        (any_bit, 0, 1, _NEW_ANY & ~0x80),
        (give, 0, 0, error | _EPERM),
        (give, 0, 0, allow),
    ]
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    _call("prctl", _SECCOMP, 2, ctypes.create_string_buffer(header, len(header)), 0, 0)


def _run(program, limits, root):
    """Runs the program as a child of the first process, which ends only after it; its status."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return status
    try:
        with open("program.py", "w", encoding="utf-8") as file:
            file.write(program)
        os.chmod("program.py", 0o644)
        nothing = os.open("/dev/null", os.O_RDWR)
        errors = os.dup(2)
        os.set_inheritable(errors, False)
        for descriptor in (0, 1):
            os.dup2(nothing, descriptor)
        _limit(limits, root)
        os.dup2(nothing, 2)
        os.closerange(REPORT_FD + 1, errors)
        python = limits["python"]
        # Sets have the same order every time.
        os.execve(python, [python, "-s", "-S", "-P", "program.py"], {"PYTHONHASHSEED": "0"})
    except BaseException as error:
        os.write(errors, f"{type(error).__name__}: {error}\n".encode())
        os._exit(BROKEN)


def main():
    limits = json.loads(sys.argv[1])
    program = sys.stdin.buffer.read().decode("utf-8", "replace")
    if limits["report"] != REPORT_FD:
        os.dup2(limits["report"], REPORT_FD)
        os.close(limits["report"])
    root = os.geteuid() == 0
    _be_first_to_go()
    try:
        _enter_namespaces()
        _die_with_parent()
        alive, kept = os.pipe()
        first = os.fork()
        if first == 0:
            _die_with_parent()
            os.close(kept)
            if select.select([alive], [], [], 0)[0]:
                os._exit(1)  # the parent had died before
            os.close(alive)
            _make_root(limits, limits["root"])
            os._exit(os.waitstatus_to_exitcode(_run(program, limits, root)) & 0xFF)
    except (_Unavailable, OSError) as error:
        os.write(2, f"{error}\n".encode())
        os._exit(BROKEN)
    _, status = os.waitpid(first, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code in (0, BROKEN) else 1)


if __name__ == "__main__":
    main()
