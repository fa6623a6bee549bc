"""Replace a file as a whole: readers see the old one or the new one, never a part."""

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the path of a temporary file to write, and rename it to `path` at the end.

    The file is in the same directory and is flushed to disk before it is renamed. If writing fails,
    it is removed and the old file stays. If the process is killed, it is left as a hidden file with
    the same extension, which the next save of `path` removes.

    Raises:
        OSError: `path` is no regular file, or the new file can't be written.

    """
    # If `path` is a link, the file that it points to is replaced and not the link.
    target = Path(os.path.realpath(path))
    # Of the given path: /dev/stdout is a link into /proc, which can be followed but not read.
    mode = _mode_of(path)
    try:
        _remove_leftovers(target)
        with _new_file(target, private=mode is not None) as (beside, new_mode):
            yield beside
            mode = new_mode if mode is None else mode
            # A file system that does not let modes be changed has one mode for all files.
            if stat.S_IMODE(os.stat(beside).st_mode) != mode:
                os.chmod(beside, mode)
            _flush(beside)
            # Another process may have made a FIFO there in the meantime.
            _mode_of(target)
            os.replace(beside, target)
    except OSError as error:
        # The user knows neither the temporary file nor where the links lead.
        if Path(str(error.filename)).parent == target.parent:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
    _flush_directory(target.parent)


def kind_of(path: str | os.PathLike[str], mode: int) -> str | None:
    """Return the kind of a file by its mode, `None` if it is regular; a directory is an error."""
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")


def _mode_of(path: str | os.PathLike[str]) -> int | None:
    """Return the permissions of a file that may be replaced, or `None` if it does not exist."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    kind = kind_of(path, mode)
    if kind is not None:
        text = f"Only a regular file can be replaced, and this is {kind}"
        raise OSError(errno.EINVAL, text, os.fspath(path))
    return stat.S_IMODE(mode)


# The names of temporary files, and the locks that tell a running save from a killed one
#
# The name contains a hash, since the file's own name may already be as long as names can be. The
# lock is the kernel's (flock), which is released however the process ends, so no ages or process
# numbers have to be compared. If a save finds its own new file locked, another save is about to
# remove that file, and so it makes one with another name.


def _prefix(target: Path) -> str:
    return f".adadelta-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}-"


@contextlib.contextmanager
def _new_file(target: Path, private: bool) -> Iterator[tuple[Path, int]]:
    """Create the file to write, yield its path and mode, and remove it if it still exists."""
    ending = target.name.rpartition(".")[2] if "." in target.name else ""
    # Keras requires an extension, and the whole name has to fit into 255 bytes.
    ending = f".{ending}" if 0 < len(os.fsencode(ending)) < 32 else ""
    while True:
        beside = target.with_name(f"{_prefix(target)}{secrets.token_hex(16)}{ending}")
        # If no file is replaced, the mode is that of every new file here: the system applies
        # the umask and the directory's default permissions.
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        descriptor = os.open(beside, flags, 0o600 if private else 0o666)
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open(descriptor, "rb"))
            stack.callback(_remove, beside)
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            if fcntl is None:
                # Windows can't rename an open file.
                file.close()
                yield beside, mode
                return
            with contextlib.suppress(OSError):
                os.chmod(descriptor, 0o600)
            if _locked(descriptor) is not False and os.fstat(descriptor).st_nlink:
                yield beside, mode
                return


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _remove_leftovers(target: Path) -> None:
    """Remove what killed saves of this file left, on systems whose locks show which they are."""
    if fcntl is None:
        return
    prefix = _prefix(target)
    with contextlib.suppress(OSError):
        for name in os.listdir(target.parent):
            if name.startswith(prefix):
                with contextlib.suppress(OSError):
                    _remove_unless_locked(target.with_name(name))


def _remove_unless_locked(path: Path) -> None:
    # Locking a file on NFS needs a descriptor for writing.
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if kind_of(path, os.fstat(descriptor).st_mode) is None and _locked(descriptor):
            path.unlink()
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool | None:
    """Take the lock; return `False` if it is taken, `None` on a file system without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _flush_directory(path: Path) -> None:
    # So that the new name survives a power failure. Windows and some file systems can't do this.
    if os.name != "posix":
        return
    try:
        directory = os.open(path, os.O_RDONLY)
    except PermissionError:
        # The directory may be written to, but not listed.
        return
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(directory)
