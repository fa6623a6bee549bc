"""A state file is whole or refused, whatever happens to it or to the process that writes it."""

import dataclasses
import errno
import json
import math
import os
import pickle
import random
import re
import signal
import socket
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
from adadelta._state import atomic, storage
from adadelta._state.record import SLOTS
from adadelta.state import OptimizerState, StateFileError, read_state, write_state
from driver import numpy

SCRIPT = Path(interrupted.__file__)
UMASK = os.umask(0o022)
os.umask(UMASK)


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
    """Return the message; nothing of the optimizer may have changed."""
    optimizer = optimizer or built()
    before = bits(optimizer)
    with pytest.raises(StateFileError) as error:
        adadelta.load_state(optimizer, path)
    assert bits(optimizer) == before
    assert f'{path.name}" ' in str(error.value)
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
    assert "newer adadelta" in message and "its format is 2" in message
    rewritten(path, version="0")
    assert "is damaged" in refused(path)
    rewritten(path, remove=["version"])
    assert "is damaged" in refused(path)


def test_a_changed_header_or_checksum(path):
    rewritten(path, header="{}")
    assert "checksum" in refused(path)
    rewritten(path, remove=["sha256"])
    assert "checksum" in refused(path)


# ------------------------------------------------------------------ a checksum that holds

NESTED = "[" * 100_000 + "]" * 100_000
ENDLESS = "9" * 5000


def parts(state=None):
    """Return the header and the tensors of a file, before they are written."""
    state = state or interrupted.state_of(3, 4)
    about = {
        **state.counters(),
        "hyperparameters": {"rho": 0.9},
        "parameters": list(state.parameters),
    }
    tensors = {f"{n}|{s}": a for n, slots in state.parameters.items() for s, a in slots.items()}
    return about, tensors


def put(path, header, tensors, outer=str, **described):
    """Write a file with a correct checksum; `described` changes the description of the tensors."""
    entries, data = {}, b""
    for name, array in tensors.items():
        place = [len(data), len(data) + array.nbytes]
        dtype = {"float32": "F32", "float64": "F64"}.get(array.dtype.name, "I64")
        entries[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": place}
        data += array.tobytes()
    for name, about in described.items():
        entries[name.replace("_", "|", 1)].update(about)
    header = header if isinstance(header, str) else json.dumps(header)
    try:
        checksum = storage._checksum(header, tensors)
    except ValueError:
        checksum = "none: half of a character"
    metadata = {
        "format": storage.FORMAT,
        "version": "1",
        "header": header,
        "sha256": checksum,
    }
    text = outer(json.dumps({"__metadata__": metadata, **entries})).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def with_values(slot, *values):
    return lambda about, tensors: tensors.update({f"x|{slot}": np.array(values, "float32")})


def without(field):
    return lambda about, tensors: about.pop(field)


BAD_HEADERS = {
    "nested too deeply": lambda about, tensors: NESTED,
    "nested too deep.": lambda about, tensors: json.dumps(about)[:-1] + f', "a": {NESTED}}}',
    "digits": lambda about, tensors: json.dumps(about).replace("3,", ENDLESS + ",", 1),
    "Expecting": lambda about, tensors: json.dumps(about)[:-1],
    "Expecting value": lambda about, tensors: "",
    "is no object": lambda about, tensors: "[]",
    "a name occurs twice": lambda about, tensors: '{"step": 1, ' + json.dumps(about)[1:],
    "a name occurs twice in": lambda about, tensors: about.update(parameters=["x", "x"]),
    "not the fields": without("hyperparameters"),
    "not the fields of": without("parameters"),
    "not the fields of a state": lambda about, tensors: about.update(more=1),
    "no list of names": lambda about, tensors: about.update(parameters={"x": 1}),
    "no list of names.*": lambda about, tensors: about.update(parameters=["x", 1]),
    "no list of.*": lambda about, tensors: about.update(window_gradients="x"),
    "no hyperparameters": lambda about, tensors: about.update(hyperparameters=[]),
    "belongs to no parameter": lambda about, tensors: about.update(parameters=[]),
    "belongs to no": lambda about, tensors: tensors.update({"x|momentum": np.ones(1)}),
    "belongs to": lambda about, tensors: tensors.update({"y|average": np.ones(1)}),
    "half of a character": lambda about, tensors: about.update(parameters=["x", "\ud800"]),
    "JSON in header": lambda about, tensors: '{"a": "\ud800"}',
    "square_avg of x has NaN": with_values("square_avg", 1, np.nan, 1, 1),
    "acc_delta of x has negative": with_values("acc_delta", 1, 1, -1e-30, 1),
    "different shapes": with_values("acc_delta", 1, 1),
    "of the dtype I64": lambda about, tensors: tensors.update({"x|average": np.ones(4, int)}),
    "`loss_scale` must be a finite": lambda about, tensors: about.update(loss_scale=math.inf),
    "`loss_scale` must be a .*nan": lambda about, tensors: about.update(loss_scale=math.nan),
    "`loss_scale` must be.* 0": lambda about, tensors: about.update(loss_scale=0),
    "`loss_scale` must be.* -1": lambda about, tensors: about.update(loss_scale=-1.0),
    "`loss_scale` must be.* inf": lambda about, tensors: about.update(loss_scale=10**400),
    "`loss_scale` must be a number": lambda about, tensors: about.update(loss_scale=True),
    "`loss_scale` must be a num": lambda about, tensors: about.update(loss_scale="8"),
    "`loss_scale` must be a n": lambda about, tensors: about.update(loss_scale=[8]),
    "`step` must be at least 0": lambda about, tensors: about.update(step=-1),
    "`step` must be at most": lambda about, tensors: about.update(step=2**63),
    "`step` must be a whole": lambda about, tensors: about.update(step=3.0),
    "`update` must be a whole": lambda about, tensors: about.update(update=True),
    "`skipped` must be a whole": lambda about, tensors: about.update(skipped=None),
    "`window` must be a whole": lambda about, tensors: about.update(window=[]),
    "`finite_calls` must be": lambda about, tensors: about.update(finite_calls=-1),
    "'y', which is no parameter": lambda about, tensors: about.update(window_gradients=["y"]),
}


@pytest.mark.parametrize("text", BAD_HEADERS)
def test_a_bad_header_with_a_good_checksum(text, path):
    about, tensors = parts()
    put(path, about, tensors)
    assert read_state(path) == changed(interrupted.state_of(3, 4), hyperparameters={"rho": 0.9})
    header = BAD_HEADERS[text](about, tensors)
    put(path, header if isinstance(header, str) else about, tensors)
    end = re.escape(str(path)[-77:])
    with pytest.raises(StateFileError, match=rf'^".*{end}" is damaged: .*{text}'):
        read_state(path)


BAD_TENSORS = {
    "longer than the file": {"shape": [8], "data_offsets": [0, 32]},
    "a product that overflows": {"shape": [2**62, 4]},
    "no elements, too long": {"shape": [0, 2**62, 2**62], "data_offsets": [0, 0]},
    "no elements, too deep": {"shape": [0] * 100, "data_offsets": [0, 0]},
    "of a huge number": {"shape": [int(ENDLESS[:4000])]},
    "negative": {"shape": [-4]},
    "fractional": {"shape": [4.0]},
    "true": {"shape": [True, 4]},
    "no list": {"shape": 4},
    "backwards": {"data_offsets": [16, 0]},
    "three offsets": {"data_offsets": [0, 16, 32]},
    "overlapping": {"data_offsets": [8, 24]},
    "another dtype": {"dtype": "F16"},
    "no dtype": {"dtype": ["F32"]},
}


@pytest.mark.parametrize("about", BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_a_tensor_that_is_described_wrongly(about, path):
    put(path, *parts(), x_square_avg=about)
    with pytest.raises(StateFileError, match="is damaged: "):
        read_state(path)


def test_a_file_that_is_cut_off_while_it_is_read(path, monkeypatch):
    with monkeypatch.context() as patch:
        # Cut the file after its size has been read.
        patch.setattr(storage, "_refuse_other_formats", lambda metadata: os.truncate(path, 9000))
        write_state(interrupted.state_of(1, 10_000), path)
        with pytest.raises(StateFileError, match="is damaged"):
            read_state(path)


def test_two_tensors_of_one_name(path):
    put(path, *parts(), outer=lambda text: text[:-1] + ', "x|acc_delta": {}}')
    with pytest.raises(StateFileError, match="is damaged: a name occurs twice"):
        read_state(path)
    for outer in (lambda text: "{" + NESTED, lambda text: text.replace('"F32"', NESTED)):
        put(path, *parts(), outer=outer)
        with pytest.raises(StateFileError, match="is damaged: "):
            read_state(path)


JUNK = [
    *(None, True, -1, 0, 7, 2**31, 2**63, 2**70, 10**400, 1.5, -0.0, math.nan, math.inf, -math.inf),
    *("", "x", "\ud800", "8", "y|average", [], ["x"], ["x", "x"], [[]], {}, {"x": 1}, {"": {}}),
]


def mutated(rng, about, tensors):
    """Make one to three changes anywhere in the content of a file."""
    header = None
    for _ in range(rng.randint(1, 3)):
        field, name = rng.choice(list(about)), rng.choice(list(tensors))
        size = rng.choice([0, 1, 4, 6])
        dtype = rng.choice(["float32", "float64", "int64"])
        array = np.array(rng.choices([0, 1, 1e30, *JUNK[10:14]], k=size), "float64").astype(dtype)
        what = rng.randrange(8)
        if what < 3:
            about[field] = rng.choice(JUNK)
        elif what == 3 and len(about) > 5:
            del about[field]
        elif what == 4:
            tensors[rng.choice([name, "x|average", "z|average", "square_avg", ""])] = array
        elif what == 5 and len(tensors) > 1:
            tensors[rng.choice(["y|acc_delta", "x"])] = tensors.pop(name)
        elif what == 6:
            about["hyperparameters"] = {rng.choice(["rho", "name"]): rng.choice(JUNK)}
        else:
            text = json.dumps(about)
            start = rng.randrange(len(text))
            header = text[:start] + rng.choice(["", "{", '"', "[", "1", "e9"]) + text[start + 1 :]
    return header or about, tensors


def fuzzed(path, seeds):
    """Return how many mutated files are read, and how many are refused."""
    read = 0
    state = interrupted.state_of(3, 4)
    averages = {slot: np.ones(4, "float32") for slot in SLOTS}
    state = changed(state, parameters={**state.parameters, "y": averages}, window=2)
    for seed in seeds:
        # NumPy warns about NaN and infinity that it casts to integers.
        with np.errstate(invalid="ignore"):
            put(path, *mutated(random.Random(seed), *parts(state)))
        try:
            back = read_state(path)
        except StateFileError as error:
            assert f'{path.name}" ' in str(error), seed
            continue
        read += 1
        write_state(back, path)
        assert read_state(path) == back and repr(back), seed
        assert back.summary(1.0, 1e-7) is not None, seed
    return read, len(seeds) - read


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_no_file_with_a_good_checksum_gives_another_error(path):
    read, refused = fuzzed(path, range(500))
    assert read > 30 and refused > 300


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def changed(state, **arguments):
    return dataclasses.replace(state, **arguments)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"loss_scale": math.inf}, ValueError, "`loss_scale` must be a finite number"),
        ({"step": 2**63}, ValueError, "`step` must be at most"),
        ({"step": -1}, ValueError, "`step` must be at least 0"),
        ({"step": True}, TypeError, "`step` must be a whole number"),
        ({"loss_scale": "8"}, TypeError, "`loss_scale` must be a number"),
        ({"window_gradients": ("z",)}, ValueError, "'z', which is no parameter"),
        ({"hyperparameters": {"a": nested(10_000)}}, TypeError, "too deeply"),
        ({"parameters": {"\ud800": {}}}, ValueError, "half of a character"),
        *(
            ({"parameters": {"x": {slot: np.array([1, value])}}}, ValueError, f"the {slot} of x")
            for slot in ("square_avg", "acc_delta")
            for value in (np.nan, -1.0)
        ),
    ],
)
def test_what_could_not_be_read_is_not_written(change, error, text, path):
    before, state = path.read_bytes(), interrupted.state_of(1)
    for name, value in change.items():
        setattr(state, name, value)
    with pytest.raises(error, match=text):
        write_state(state, path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_averages_of_gradients_that_were_nan_are_not_saved_over_a_good_file(path):
    before, x = path.read_bytes(), keras.Variable([1.0, 2.0], name="x")
    optimizer = adadelta.Adadelta(1.0)
    optimizer.apply([keras.ops.array([1.0, np.nan])], [x])
    with pytest.raises(ValueError, match="no file was changed: the square_avg of x has NaN"):
        adadelta.save_state(optimizer, path)
    assert path.read_bytes() == before


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
    assert any(left == "1" for *_, left, _ in stages), "no kill left a file over"
    for stage, when, how, result, number, left, later in stages:
        assert later == "0", "the next save leaves a file over"
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
        # The file can be read while it is being replaced, and later.
        assert read_state(path) is not None
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        state = read_state(path)
        assert state == interrupted.state_of(state.step, 300_000)
        seen.add(state.step)
    assert len(seen) > 1
    write_state(state, path)
    assert os.listdir(tmp_path) == [path.name]


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


def test_a_new_file_is_private_until_it_has_its_mode(path):
    path.chmod(0o644)
    for target, mode in ((path, 0o644), (path.with_name("new"), 0o666 & ~UMASK)):
        with atomic.replaced(target) as beside:
            beside.write_bytes(b"new")
            assert beside.stat().st_mode & 0o777 == 0o600
        assert target.read_bytes() == b"new" and target.stat().st_mode & 0o777 == mode


def test_a_save_that_runs_is_not_taken_for_a_killed_one(path):
    code = (
        "import sys; from adadelta._state import atomic\n"
        "with atomic.replaced(sys.argv[1]) as beside: print(beside, flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    other = Path(process.stdout.readline().strip())
    with atomic.replaced(path) as beside:
        # Two saves are in progress: one in this process, and the other process' save.
        adadelta.save_state(trained(), path)
        assert other.exists() and beside.exists() and beside != other
        beside.write_bytes(path.read_bytes())
    process.kill()
    process.communicate()
    assert other.exists()
    adadelta.save_state(trained(), path.with_name("another"))
    assert other.exists(), "it belongs to another file"
    adadelta.save_state(trained(), path)
    assert sorted(os.listdir(path.parent)) == ["another", path.name]


def test_a_new_file_that_another_save_took_for_a_leftover(path, monkeypatch):
    locked, found = atomic._locked, []

    def removed_first(descriptor):
        # As if the other save had run after the file was created and before it was locked.
        if not found:
            found.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
            found[0].unlink()
        return locked(descriptor)

    monkeypatch.setattr(atomic, "_locked", removed_first)
    with atomic.replaced(path) as beside:
        assert beside.exists() and beside != found[0]
        beside.write_bytes(b"whole")
    assert path.read_bytes() == b"whole" and os.listdir(path.parent) == [path.name]


def test_where_files_have_no_locks_nothing_is_taken_for_a_leftover(path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "no locks")

    with atomic.replaced(path) as beside:
        for name, value in (("fcntl.flock", refuse), ("fcntl", None)):
            monkeypatch.setattr(f"adadelta._state.atomic.{name}", value)
            adadelta.save_state(trained(), path)
            assert sorted(os.listdir(path.parent)) == [beside.name, path.name]
        beside.write_bytes(b"whole")
    assert path.read_bytes() == b"whole" and os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("name", ["n" * 255, "n" * 243 + ".safetensors", "é" * 127, ".n", "n."])
def test_any_name_that_a_file_can_have(name, tmp_path):
    write_state(interrupted.state_of(1), tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    assert read_state(tmp_path / name) == interrupted.state_of(1)
    with pytest.raises(OSError, match="File name too long") as error:
        write_state(interrupted.state_of(1), tmp_path / f"{name:n<256}")
    assert error.value.filename == str(tmp_path / f"{name:n<256}")


def tiny_model():
    return keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])


def test_a_model_has_any_name_that_a_file_can_have(tmp_path):
    for name in ("n" * 249 + ".keras", ".keras"):
        adadelta.save_model(tiny_model(), tmp_path / name)
        (tmp_path / name).unlink()
    assert not os.listdir(tmp_path)


# Things that are not regular files: their names, and functions that make them in a directory.
NO_FILES = {
    "a FIFO": os.mkfifo,
    "a socket": lambda path: socket.socket(socket.AF_UNIX).bind(os.fspath(path)),
    "a device": lambda path: path.symlink_to(os.ttyname(os.openpty()[1])),
    # /dev/stdout is such a link when the output is piped.
    "a FIFO, by a link of /proc": lambda path: path.symlink_to(f"/proc/self/fd/{os.pipe()[0]}"),
}


@pytest.fixture
def in_time():
    """Let a signal end the opening of a FIFO, which would wait forever."""

    def late(*_):
        raise TimeoutError("waited for ever")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.usefixtures("in_time")
def test_what_is_no_file_is_neither_replaced_nor_read(kind, tmp_path):
    path = tmp_path / "it.keras"
    NO_FILES[kind](path)
    before, kind = path.stat(), kind.partition(",")[0]
    for save in (
        lambda: adadelta.save_state(trained(), path),
        lambda: adadelta.save_model(tiny_model(), path),
    ):
        with pytest.raises(OSError, match=f"Only a regular file .* this is {kind}") as error:
            save()
        assert error.value.filename == str(path)
    with pytest.raises(StateFileError, match=f'{path.name}" is {kind} and not a regular file'):
        read_state(path)
    assert path.stat().st_mode == before.st_mode and os.listdir(tmp_path) == [path.name]


@pytest.mark.usefixtures("in_time")
def test_a_file_that_becomes_a_fifo_while_it_is_saved_or_opened(path, monkeypatch):
    flush, stat = atomic._flush, os.stat

    def changed(result):
        path.unlink()
        os.mkfifo(path)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_flush", lambda beside: changed(flush(beside)))
        with pytest.raises(OSError, match="this is a FIFO"):
            adadelta.save_state(trained(), path)
    assert path.is_fifo() and os.listdir(path.parent) == [path.name]
    path.unlink()
    adadelta.save_state(trained(), path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda name: changed(stat(name)))
        with pytest.raises(StateFileError, match="is a FIFO"):
            read_state(path)


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
