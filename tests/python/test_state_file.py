"""The file of a state: whole or refused, whatever happens to it or to the process writing it."""

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import interrupted
import keras
import numpy as np
import pytest
import safetensors
import safetensors.numpy

import adadelta
from adadelta.state import OptimizerState, StateFileError, read_state, write_state
from driver import numpy

SCRIPT = Path(interrupted.__file__)


def built():
    optimizer = adadelta.Adadelta(1.0, gradient_accumulation_steps=3)
    optimizer.build([keras.Variable(np.ones((2, 3)), name="a"), keras.Variable(1.0, name="b")])
    return optimizer


def trained():
    optimizer = built()
    for call in range(4):
        ones = np.ones((2, 3), "float32") * (call + 1)
        optimizer.apply([keras.ops.array(ones), keras.ops.array(np.float32(call))])
    return optimizer


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "state.safetensors"
    adadelta.save_state(trained(), path)
    return path


def bits(optimizer):
    return [numpy(v).tobytes() for v in optimizer.variables]


def refused(path, optimizer=None):
    """The message; nothing of the optimizer may have changed."""
    optimizer = optimizer or built()
    before = bits(optimizer)
    with pytest.raises(StateFileError) as error:
        adadelta.load_state(optimizer, path)
    assert bits(optimizer) == before
    assert os.fspath(path) in str(error.value)
    return str(error.value)


# ------------------------------------------------------------------ damage


def test_a_flipped_bit_anywhere_is_noticed(path):
    content, whole = path.read_bytes(), read_state(path)
    optimizer, words = built(), set()
    for position in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            assert read_state(path) == whole
        except StateFileError as error:
            words.add(str(error).partition('" ')[2].partition(":")[0])
        if position % 999 == 0:
            refused(path, optimizer)
    assert {"is damaged", "is cut off or damaged"} <= words


def test_a_file_that_is_cut_off(path):
    content, optimizer = path.read_bytes(), built()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(StateFileError, match=r"cut off|damaged|is empty"):
            read_state(path)
        if length % 99 == 0:
            refused(path, optimizer)
    path.write_bytes(content + b"\0")
    assert "is damaged" in refused(path)


def rewritten(path, remove=(), **metadata):
    with safetensors.safe_open(path, framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        everything = {**file.metadata(), **metadata}
    for name in remove:
        del everything[name]
    safetensors.numpy.save_file(tensors, path, everything)


def test_files_of_others(path):
    safetensors.numpy.save_file({"weight": np.ones(3)}, path)
    assert "a safetensors file with something else" in refused(path)
    safetensors.numpy.save_file({"weight": np.ones(3)}, path, {"format": "pt"})
    assert "a safetensors file with something else" in refused(path)
    path.write_bytes(pickle.dumps([1, 2, 3] * 9))
    assert "no file written with save_state()" in refused(path)
    path.write_bytes(b"")
    assert refused(path).endswith("is empty")
    with pytest.raises(FileNotFoundError):
        adadelta.load_state(built(), path.with_name("nowhere"))
    with pytest.raises(OSError, match="Is a directory"):
        adadelta.load_state(built(), path.parent)


def test_versions(path):
    rewritten(path, version="2")
    message = refused(path)
    assert "newer adadelta" in message and "version 2" in message
    rewritten(path, version="0")
    assert "is damaged" in refused(path)
    rewritten(path, remove=["version"])
    assert "is damaged" in refused(path)


def test_a_changed_header_or_checksum(path):
    rewritten(path, header="{}")
    assert "checksum" in refused(path)
    rewritten(path, remove=["sha256"])
    assert "checksum" in refused(path)


# ------------------------------------------------------------------ interruption


def lines_of(kind, directory):
    environment = {**os.environ, "KERAS_BACKEND": "numpy"}
    output = subprocess.run(
        [sys.executable, SCRIPT, kind, directory],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
        timeout=120,
    ).stdout.splitlines()
    return output


@pytest.mark.parametrize("kind", ["state", "model"])
def test_a_save_that_does_not_end_leaves_the_old_file(kind, tmp_path):
    lines = lines_of(kind, tmp_path)
    stages = [line.split("/") for line in lines if not line.startswith("  ")]
    errors = [line for line in lines if line.startswith("  ")]
    assert len(stages) == {"state": 13, "model": 16}[kind]
    for stage, when, how, result, number, left in stages:
        replaced = (stage, when, how) == ("replace", "after", "kill")
        assert number == ("2" if replaced else "1"), (stage, when, how)
        if how == "kill":
            assert result == str(int(signal.SIGKILL)), f"nobody came to {stage}"
        else:
            assert result == "3", f"nobody came to {stage}, {when}"
            assert left == "0", "a file is left over"
    assert any("File too large" in line for line in errors)


def test_killed_at_any_time(tmp_path):
    path, rng = tmp_path / "state.safetensors", random.Random(1)
    seen = set()
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, SCRIPT, "endless", tmp_path], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.random() * 0.2)
        # Its number is read while it is being replaced, and after the end.
        assert read_state(path) is not None
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        state = read_state(path)
        assert state == interrupted.state_of(state.step, 300_000)
        seen.add(state.step)
    assert len(seen) > 1


def test_an_error_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError("no power")

    for name in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(OSError, match="no power"):
                adadelta.save_state(trained(), path)
        assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]
    with pytest.raises(TypeError):
        write_state(OptimizerState(hyperparameters={"rho": object()}), path)
    nowhere = path.parent / "nowhere" / "state"
    with pytest.raises(FileNotFoundError) as error:
        adadelta.save_state(trained(), nowhere)
    assert error.value.filename == str(nowhere)
    with pytest.raises(TypeError, match="OptimizerState"):
        write_state({}, path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


# ------------------------------------------------------------------ the file among others


def test_all_is_on_the_disk_before_the_new_name_and_the_name_after(path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace

    def flushed(descriptor):
        calls.append("directory" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def replaced(old, new):
        calls.append("replace")
        assert Path(old).parent == Path(new).parent and Path(old).suffix == Path(new).suffix
        replace(old, new)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", replaced)
    adadelta.save_state(trained(), path)
    assert calls == ["file", "replace", "directory"]


def test_permissions_and_links(path):
    path.chmod(0o640)
    link = path.with_name("link")
    link.symlink_to(path)
    adadelta.save_state(trained(), link)
    assert link.is_symlink() and path.stat().st_mode & 0o777 == 0o640
    before = os.umask(0o077)
    try:
        adadelta.save_state(trained(), path.with_name("private"))
        adadelta.save_state(trained(), str(path.with_name("text")))
    finally:
        os.umask(before)
    assert path.with_name("private").stat().st_mode & 0o777 == 0o600
    assert read_state(path.with_name("text")) == read_state(path)


def test_save_model_takes_keras_files_only(tmp_path):
    for name in ("model.h5", "model", "model.weights.h5"):
        with pytest.raises(ValueError, match=r'must end in "\.keras"; received'):
            adadelta.save_model(None, tmp_path / name)
    assert not os.listdir(tmp_path)


def test_safetensors_is_needed_by_files_only():
    code = (
        "import sys; sys.modules['safetensors'] = None; import adadelta, adadelta.keras\n"
        "import adadelta.state; adadelta.OptimizerState(); adadelta.export_state"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
