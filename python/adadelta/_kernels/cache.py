"""The folder in which compiled kernels are kept, and whether it can be trusted.

A file in this folder is machine code that runs with all rights of the user, so no other user may
be able to put one there. On POSIX systems the folder, the directories above it and each file must
belong to the user or to root, and nobody else may be able to write to them. Otherwise nothing is
read or written, and every process compiles its own kernels.

Access control lists of macOS and NFS are not checked. On Windows nothing is checked: other users
have no access to the user's profile, where the folder is by default.
"""

import contextlib
import hashlib
import os
import re
import stat
import tempfile
import time
from pathlib import Path

_IS_POSIX = hasattr(os, "geteuid")
# The largest kernel has 20 KB.
_LARGEST = 2**24
_LEFT_OVER = re.compile(r"\.[\w-]+\.o\.\w+")
_SECONDS_OF_A_WRITER = 3600
# Not every system has all of them: O_BINARY exists on Windows, the others on POSIX systems.
_FLAGS = os.O_RDONLY | sum(
    getattr(os, name, 0)
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY")
)

# Why the last file could not be written, or None.
_failure: str | None = None


class UntrustedError(Exception):
    """Says why a folder is not used."""


def read(folder: str, name: str, identity: str) -> bytes | None:
    """Return the content of a cached file, or None if it is damaged or others can change it.

    Args:
        folder: The result of `folder`. Nobody else can put a file there.
        name: The name of the file.
        identity: What identifies the content; it is a part of the checksum.

    """
    try:
        file = os.open(os.path.join(folder, name), _FLAGS)
    except OSError:
        return None
    try:
        # Check the open file, which nobody can replace any more.
        found = os.fstat(file)
        is_file = stat.S_ISREG(found.st_mode) and found.st_size <= _LARGEST
        if not is_file or (_IS_POSIX and (not _is_own(found) or found.st_mode & 0o022)):
            return None
        content = os.read(file, found.st_size)
    except OSError:
        return None
    finally:
        os.close(file)
    size = hashlib.sha256().digest_size
    checksum, data = content[:size], content[size:]
    return data if _checksum(data, identity) == checksum else None


def write(folder: str, name: str, identity: str, data: bytes) -> None:
    """Write a file atomically; if that fails, note why and leave no partial file behind."""
    global _failure
    try:
        _remove_left_over(folder)
        descriptor, beside = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
        try:
            with open(descriptor, "wb") as file:
                file.write(_checksum(data, identity) + data)
            # The umask may have removed permissions from it.
            os.chmod(beside, 0o600)
            os.replace(beside, os.path.join(folder, name))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
        _failure = None
    except OSError as error:
        _failure = f"{folder} can't be written: {error.strerror}"


def _checksum(data: bytes, identity: str) -> bytes:
    # It detects accidental damage only, since anybody can compute it.
    return hashlib.sha256(hashlib.sha256(identity.encode()).digest() + data).digest()


def _remove_left_over(folder: str) -> None:
    """Remove partial files of processes that were killed while they wrote."""
    for path in Path(folder).iterdir():
        with contextlib.suppress(OSError):
            is_old = path.lstat().st_mtime < time.time() - _SECONDS_OF_A_WRITER
            if is_old and _LEFT_OVER.fullmatch(path.name):
                path.unlink()


def folder() -> str | None:
    """Return the folder for kernels, or None if none can be trusted.

    The folder is created if it does not exist.
    """
    try:
        return _trusted()
    except UntrustedError:
        return None


def status() -> tuple[str | None, str | None]:
    """Return the folder in which kernels are kept or None, and the reason if it is None."""
    try:
        path = _trusted()
    except UntrustedError as error:
        return None, str(error)
    return (path, None) if _failure is None else (None, _failure)


def _trusted() -> str:
    home = _home()
    wanted = _chosen(home)
    if wanted is None:
        raise UntrustedError(
            "there is no home directory; ADADELTA_KERNEL_CACHE can name a directory"
        )
    place = wanted
    try:
        if not _IS_POSIX:
            os.makedirs(wanted, exist_ok=True)
            return wanted
        real = os.path.realpath(wanted)
        for place in _checked_places(wanted, home):
            with contextlib.suppress(FileNotFoundError):
                _refuse_untrusted(place, may_be_link=True)
        for place in _checked_places(real, home):
            _make(place)
            _refuse_untrusted(place, is_last=place == real)
    except OSError as error:
        raise UntrustedError(f"{error.filename or place} can't be used: {error.strerror}") from None
    return real


def _chosen(home: str | None) -> str | None:
    """Return the folder that the environment variables name, ignoring relative paths.

    A relative path would mean another folder in each directory, often one that others can write to.
    """
    own = os.environ.get("ADADELTA_KERNEL_CACHE", "")
    if os.path.isabs(own):
        return own
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):
        if home is None:
            return None
        cache = os.path.join(home, ".cache")
    return os.path.join(cache, "adadelta", "kernels")


def _home() -> str | None:
    home = os.path.expanduser("~")
    if _IS_POSIX and not os.path.isabs(home):
        import pwd

        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            return None
    return home if os.path.isabs(home) else None


def _checked_places(folder: str, home: str | None) -> list[str]:
    """Return a folder and its parents up to the home directory or the root, topmost first."""
    places = list(map(str, (Path(folder), *Path(folder).parents)))
    for top in () if home is None else (home, os.path.realpath(home)):
        top = str(Path(top))
        if top in places:
            return places[places.index(top) :: -1]
    return places[::-1]


def _make(place: str) -> None:
    """Create a folder unless something exists at its path."""
    with contextlib.suppress(FileExistsError):
        if not os.path.lexists(place):
            os.mkdir(place, 0o700)
            # The umask removes permissions from the mode that `mkdir` gets.
            os.chmod(place, 0o700)


def _refuse_untrusted(place: str, may_be_link: bool = False, is_last: bool = False) -> None:
    found = os.lstat(place)
    if not _is_own(found):
        raise UntrustedError(
            f"{place} belongs to another user; ADADELTA_KERNEL_CACHE can name a directory of yours"
        )
    if may_be_link and stat.S_ISLNK(found.st_mode):
        # A link has no mode of its own, and its target is checked separately.
        return
    if not stat.S_ISDIR(found.st_mode):
        raise UntrustedError(f"{place} is not a directory")
    # In a sticky directory, such as /tmp, other users can't rename or remove the user's files.
    is_protected = bool(found.st_mode & stat.S_ISVTX) and not is_last
    if not is_protected and _is_open_to_others(place, found):
        raise UntrustedError(f"other users can write to {place}; `chmod go-w` on it ends that")


def _is_own(found: os.stat_result) -> bool:
    return found.st_uid in (os.geteuid(), 0)


def _is_open_to_others(place: str, found: os.stat_result) -> bool:
    is_for_group = found.st_mode & 0o020
    if is_for_group and (not _is_group_of_user_alone(found.st_gid) or _has_access_list(place)):
        return True
    return bool(found.st_mode & 0o002)


def _is_group_of_user_alone(number: int) -> bool:
    """Whether a group has no other member, as on systems with a group named after each user.

    There the umask is often 002, so that every directory is writable by its group.
    """
    import grp
    import pwd

    try:
        group, user = grp.getgrgid(number), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return (
        group.gr_name == user.pw_name
        and set(group.gr_mem) <= {user.pw_name}
        and all(entry.pw_gid != number or entry.pw_uid == user.pw_uid for entry in pwd.getpwall())
    )


def _has_access_list(place: str) -> bool:
    """Whether an access control list may give other users the group's permissions (Linux)."""
    try:
        return "system.posix_acl_access" in os.listxattr(place)
    except (AttributeError, OSError):
        return False
