"""The cache of compiled kernels: it runs nobody else's code, and is never required."""

import contextlib
import os
import resource
import shutil
import signal
import stat
import time

import pytest

from adadelta import kernel_info
from adadelta._kernels import choose, compiled, compiler

KEY = "fused", "float32"
NOBODY = 65534

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has neither owners nor modes")


@pytest.fixture(scope="module")
def code():
    return compiler.object_codes([KEY])[KEY]


class Machine:
    """A user's home and environment, and processes that request a kernel."""

    def __init__(self, monkeypatch, root, code):
        self.monkeypatch, self.root = monkeypatch, root
        self.home = root / "home"
        self.home.mkdir(mode=0o700)
        self.folder = self.home / ".cache" / "adadelta" / "kernels"
        for name in ("ADADELTA_KERNEL_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(self.home))
        self.compiled = []

        def object_codes(functions):
            self.compiled += functions
            return dict.fromkeys(functions, code)

        monkeypatch.setattr(compiler, "object_codes", object_codes)
        # The other kernels would be tried with the code of this one.
        monkeypatch.setattr(choose, "DESCRIPTIONS", {"cpu": ""})

    def compiles(self):
        """Whether a new process compiles the kernel, rather than reading it from a file."""
        self.monkeypatch.setattr(compiled, "_addresses", {})
        self.compiled.clear()
        assert compiled.addresses(KEY)[0]
        return bool(self.compiled)

    def file(self, folder=None):
        (file,) = (folder or self.folder).iterdir()
        return file

    def prepared(self):
        """Return the file of a kernel that is already compiled."""
        assert self.compiles() and not self.compiles()
        return self.file()

    def give_away(self, path):
        """Give a file or folder, and everything below it, to another user."""
        if os.geteuid():
            # Only root can do that; anyone else becomes another user instead.
            other = os.geteuid() + 1
            self.monkeypatch.setattr(os, "geteuid", lambda: other)
        else:
            for place in (path, *path.rglob("*")):
                os.chown(place, NOBODY, NOBODY, follow_symlinks=False)


@pytest.fixture
def machine(monkeypatch, tmp_path, code):
    return Machine(monkeypatch, tmp_path, code)


@contextlib.contextmanager
def at_most(seconds):
    def stop(*_):
        raise TimeoutError(f"still waiting after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


# ------------------------------------------------------------------ not used


def folder_open_to_all(machine, file):
    machine.folder.chmod(0o777)
    return f"other users can write to {machine.folder}"


def sticky_folder_open_to_all(machine, file):
    machine.folder.chmod(0o1777)
    return f"other users can write to {machine.folder}"


def parent_open_to_all(machine, file):
    machine.folder.parent.chmod(0o777)
    return f"other users can write to {machine.folder.parent}"


def home_open_to_all(machine, file):
    machine.home.chmod(0o777)
    return f"other users can write to {machine.home}"


def folder_of_another(machine, file):
    machine.give_away(machine.folder)
    return "belongs to another user"


def home_of_another(machine, file):
    machine.give_away(machine.home)
    return "belongs to another user"


def cache_in_a_shared_folder(machine, file):
    shared = machine.root / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    shutil.copytree(machine.folder.parent, shared / "adadelta")
    machine.give_away(shared / "adadelta")
    machine.monkeypatch.setenv("XDG_CACHE_HOME", str(shared))
    return "belongs to another user"


def home_in_a_shared_folder(machine, file):
    shared = machine.root / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    machine.home.rename(shared / "home")
    machine.give_away(shared / "home")
    machine.monkeypatch.setenv("HOME", str(shared / "home"))
    return "belongs to another user"


def link_to_a_folder_of_another(machine, file):
    theirs = machine.root / "theirs"
    machine.folder.rename(theirs)
    machine.folder.symlink_to(theirs)
    machine.give_away(theirs)
    return "belongs to another user"


def link_to_a_folder_open_to_all(machine, file):
    theirs = machine.root / "theirs"
    machine.folder.rename(theirs)
    machine.folder.symlink_to(theirs)
    theirs.chmod(0o777)
    return f"other users can write to {theirs}"


def link_of_another(machine, file):
    ours = machine.root / "ours"
    machine.folder.rename(ours)
    machine.folder.symlink_to(ours)
    if os.geteuid():
        machine.give_away(machine.folder)
    else:
        os.chown(machine.folder, NOBODY, NOBODY, follow_symlinks=False)
    return "belongs to another user"


def no_folder(machine, file):
    shutil.rmtree(machine.folder)
    machine.folder.write_bytes(b"")
    return f"{machine.folder} is not a directory"


FOLDERS = [
    folder_open_to_all,
    sticky_folder_open_to_all,
    parent_open_to_all,
    home_open_to_all,
    folder_of_another,
    home_of_another,
    cache_in_a_shared_folder,
    home_in_a_shared_folder,
    link_to_a_folder_of_another,
    link_to_a_folder_open_to_all,
    link_of_another,
    no_folder,
]


@pytest.mark.parametrize("spoil", FOLDERS, ids=lambda it: it.__name__)
def test_a_folder_that_others_could_write_to_is_not_used(machine, spoil):
    reason = spoil(machine, machine.prepared())
    before = sorted(machine.root.rglob("*"))
    assert machine.compiles() and machine.compiles()
    assert sorted(machine.root.rglob("*")) == before
    info = kernel_info()["cpu"]
    assert info["serves"] and info["cache"] is None
    assert reason in info["cache_reason"]


def file_open_to_all(machine, file):
    file.chmod(0o666)


def file_open_to_its_group(machine, file):
    file.chmod(0o660)


def link(machine, file):
    file.rename(machine.root / "file")
    file.symlink_to(machine.root / "file")


def link_to_nothing(machine, file):
    file.unlink()
    file.symlink_to(machine.root / "nothing")


def fifo(machine, file):
    file.unlink()
    os.mkfifo(file, 0o600)


def huge(machine, file):
    os.truncate(file, 2**40)


FILES = [
    file_open_to_all,
    file_open_to_its_group,
    link,
    link_to_nothing,
    fifo,
    huge,
]


@pytest.mark.parametrize("spoil", FILES, ids=lambda it: it.__name__)
def test_a_file_that_is_not_ours_alone_is_made_again(machine, spoil):
    file = machine.prepared()
    spoil(machine, file)
    with at_most(20):
        assert machine.compiles()
    assert machine.file() == file and file.is_file() and not file.is_symlink()
    assert mode(file) == 0o600
    assert not machine.compiles()


def test_a_file_of_another_user_is_not_used(machine):
    file = machine.prepared()
    machine.give_away(file)
    assert machine.compiles()
    # Without root, the file can't be given away alone, so the folder is not trusted either.
    assert os.geteuid() or file.stat().st_uid == 0


def test_a_directory_in_the_place_of_a_file_is_no_error(machine):
    file = machine.prepared()
    file.unlink()
    file.mkdir()
    assert machine.compiles()
    assert list(machine.folder.iterdir()) == [file]
    assert f"{machine.folder} can't be written: " in kernel_info()["cpu"]["cache_reason"]


@pytest.mark.parametrize("name", ["XDG_CACHE_HOME", "ADADELTA_KERNEL_CACHE", "HOME"])
def test_a_relative_path_counts_as_not_set(machine, name):
    import pwd

    shared = machine.root / "shared"
    shutil.copytree(machine.prepared().parent, shared / "adadelta" / "kernels")
    shutil.copytree(machine.folder, shared / ".cache" / "adadelta" / "kernels")
    machine.monkeypatch.chdir(shared)
    machine.monkeypatch.setenv(name, {"ADADELTA_KERNEL_CACHE": "adadelta/kernels"}.get(name, "."))
    entry = pwd.struct_passwd(("me", "", os.getuid(), os.getgid(), "", str(machine.home), ""))
    machine.monkeypatch.setattr(pwd, "getpwuid", lambda _: entry)
    machine.file().unlink()
    assert machine.compiles()
    assert machine.file()
    assert kernel_info()["cpu"]["cache"] == str(machine.folder)


def test_the_code_of_another_kernel_under_this_name_is_not_used(machine):
    file = machine.prepared()
    own = file.read_bytes()
    compiled.addresses(("fused", "float64"))
    (other,) = set(machine.folder.iterdir()) - {file}
    file.write_bytes(other.read_bytes())
    assert machine.compiles()
    assert file.read_bytes() == own


@pytest.mark.parametrize("what", ["version", "processor"])
def test_the_code_for_another_version_or_processor_is_not_used(machine, what):
    file = machine.prepared()
    if what == "version":
        machine.monkeypatch.setattr(compiled, "version", lambda package: "0")
    else:
        machine.monkeypatch.setattr(compiled.binding, "get_host_cpu_name", lambda: "another")
    compiled._surroundings.cache_clear()
    try:
        assert machine.compiles()
        (other,) = set(machine.folder.iterdir()) - {file}
        file.replace(other)
        assert machine.compiles()
    finally:
        compiled._surroundings.cache_clear()


# ------------------------------------------------------------------ used


@pytest.mark.parametrize("umask", [0, 0o002, 0o022, 0o777])
def test_what_is_made_is_the_users_alone(machine, umask):
    before = os.umask(umask)
    try:
        assert machine.compiles()
    finally:
        os.umask(before)
    for folder in (machine.folder, *list(machine.folder.parents)[:2]):
        assert mode(folder) == 0o700
    assert mode(machine.file()) == 0o600
    assert not machine.compiles()
    assert kernel_info()["cpu"]["cache"] == str(machine.folder)


def others_may_read(machine):
    machine.folder.chmod(0o755)
    machine.file().chmod(0o644)


def home_above_which_anything_goes(machine):
    machine.root.chmod(0o777)


def linked_cache(machine):
    (machine.home / ".cache").rename(machine.root / "scratch")
    (machine.home / ".cache").symlink_to(machine.root / "scratch")


def linked_home(machine):
    link = machine.root / "link"
    link.symlink_to(machine.home)
    machine.monkeypatch.setenv("HOME", str(link))


def sticky_folder_of_all(machine):
    shared = machine.root / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    machine.folder.rename(shared / "ours")
    machine.monkeypatch.setenv("ADADELTA_KERNEL_CACHE", str(shared / "ours"))


def with_a_slash(machine):
    machine.monkeypatch.setenv("ADADELTA_KERNEL_CACHE", f"{machine.folder}/")


USED = [
    others_may_read,
    home_above_which_anything_goes,
    linked_cache,
    linked_home,
    sticky_folder_of_all,
    with_a_slash,
]


@pytest.mark.parametrize("arrange", USED, ids=lambda it: it.__name__)
def test_an_ordinary_place_is_used(machine, arrange):
    machine.prepared()
    arrange(machine)
    assert not machine.compiles()
    info = kernel_info()["cpu"]
    assert info["cache"] and info["cache_reason"] is None


GROUPS = {
    "their own": ("me", [], [("me", 7)], True),
    "their own, named": ("me", ["me"], [("me", 7), ("you", 8)], True),
    "with a member": ("me", ["you"], [("me", 7)], False),
    "with another user's": ("me", [], [("me", 7), ("you", 7)], False),
    "of a project": ("project", [], [("me", 8)], False),
}


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_a_folder_open_to_a_group(machine, group):
    import grp
    import pwd

    name, members, users, is_private = group
    own = os.geteuid()
    entries = [
        pwd.struct_passwd((user, "", own if user == "me" else own + 1, number, "", "/", ""))
        for user, number in users
    ]
    machine.prepared()
    machine.folder.chmod(0o775)
    gid = machine.folder.stat().st_gid
    entries = [
        pwd.struct_passwd((*it[:3], gid if it.pw_gid == 7 else gid + 1, *it[4:])) for it in entries
    ]
    machine.monkeypatch.setattr(pwd, "getpwuid", lambda _: entries[0])
    machine.monkeypatch.setattr(pwd, "getpwall", lambda: entries)
    machine.monkeypatch.setattr(
        grp, "getgrgid", lambda number: grp.struct_group((name, "", number, members))
    )
    assert machine.compiles() is not is_private


def test_a_group_without_a_name_is_not_trusted(machine):
    import grp

    def unknown(number):
        raise KeyError(number)

    machine.prepared()
    machine.folder.chmod(0o775)
    machine.monkeypatch.setattr(grp, "getgrgid", unknown)
    assert machine.compiles()


# ------------------------------------------------------------------ nowhere to keep it


def test_without_a_home(machine):
    import pwd

    def unknown(number):
        raise KeyError(number)

    machine.monkeypatch.delenv("HOME")
    machine.monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert machine.compiles() and machine.compiles()
    assert "there is no home directory" in kernel_info()["cpu"]["cache_reason"]


@pytest.mark.skipif(not os.geteuid(), reason="root can write everywhere")
def test_a_folder_that_can_only_be_read(machine):
    file = machine.prepared()
    file.unlink()
    machine.folder.chmod(0o500)
    assert machine.compiles()
    assert "can't be written: Permission denied" in kernel_info()["cpu"]["cache_reason"]
    machine.folder.chmod(0o700)


def test_a_full_disk_leaves_nothing_behind(machine):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        assert machine.compiles()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(machine.folder.iterdir()) == []
    info = kernel_info()["cpu"]
    assert info["serves"] and info["cache"] is None
    assert info["cache_reason"].startswith(f"{machine.folder} can't be written: ")
    assert machine.compiles() and machine.file()
    assert kernel_info()["cpu"]["cache"] == str(machine.folder)


def test_an_interrupted_write_leaves_nothing_behind(machine):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with machine.monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            machine.compiles()
    assert list(machine.folder.iterdir()) == []


def test_what_killed_processes_left_is_removed_by_the_next_write(machine):
    file = machine.prepared()
    file.unlink()
    old, new = (machine.folder / f".{file.name}.{digit * 32}" for digit in "ab")
    other = machine.folder / ".keep"
    hour = 3600
    for place, age in ((old, 2 * hour), (new, hour / 2), (other, 2 * hour)):
        place.write_bytes(b"")
        os.utime(place, (time.time() - age,) * 2)
    assert machine.compiles()
    assert set(machine.folder.iterdir()) == {file, new, other}
