"""Replace a file as a whole: whoever reads it sees the old one or the new one, never a part."""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the path of a file to write, and put that file in the place of `path` at the end.

    It lies in the same directory and is on the disk before it is renamed. When writing fails it
    is removed and the old file stays; when the process is killed it is left over, as a hidden
    file with the same ending.
    """
    # Through a link, the file it points to is replaced and not the link.
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{target.stem}.{uuid.uuid4().hex}{target.suffix}")
    try:
        yield beside
        with contextlib.suppress(FileNotFoundError):
            os.chmod(beside, target.stat().st_mode & 0o7777)
        _flush(beside)
        os.replace(beside, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        # Nobody knows the file beside it.
        if isinstance(error, OSError) and str(error.filename) == str(beside):
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
    _flush_directory(target.parent)


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _flush_directory(path: Path) -> None:
    # So that the new name outlives a power failure too. Windows can't, nor can some file systems.
    if os.name != "posix":
        return
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(directory)
