"""Weights of torch.save are read without torch, and a pickle that wants more is refused."""

import io
import os
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from vuemantics_pipeline.analysis.weights import read_state_dict

MAGIC_NUMBER, PROTOCOL_VERSION = 0x1950A86A20F9469CFC6C, 1001


class Global:
    """Stands for a name that is to be in the pickle, wherever it may be."""

    def __init__(self, module: str, name: str) -> None:
        self.path = module, name


class Call:
    """Pickles as a call of a name."""

    def __init__(self, function: Global, *arguments: object) -> None:
        self.function, self.arguments = function, arguments


class Storage:
    def __init__(self, kind: str, key: str, length: int) -> None:
        self.pid = ("storage", Global("torch", kind), key, "cpu", length, None)


class Writer(pickle._Pickler):
    """Writes what torch.save writes, and what it never would.

    The C pickler looks up the names that it writes; this one, in Python, writes any.
    """

    dispatch: ClassVar[dict[type, Any]] = pickle._Pickler.dispatch.copy()
    write: Callable[[bytes], None]
    save: Callable[[object], None]

    def persistent_id(self, obj: object) -> object:
        return obj.pid if isinstance(obj, Storage) else None

    def save_name(self, obj: Global) -> None:
        self.write(pickle.GLOBAL + "\n".join(obj.path).encode() + b"\n")

    def save_call(self, obj: Call) -> None:
        self.save(obj.function)
        self.save(obj.arguments)
        self.write(pickle.REDUCE)

    dispatch[Global] = save_name
    dispatch[Call] = save_call


def pickled(*objects: object) -> bytes:
    stream = io.BytesIO()
    for obj in objects:
        Writer(stream, 2).dump(obj)
    return stream.getvalue()


def tensor(
    key: str = "1",
    shape: tuple[int, ...] = (2, 3),
    strides: tuple[int, ...] = (1, 2),
    offset: int = 0,
) -> Call:
    storage = Storage("FloatStorage", key, 6)
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, storage, offset, shape, strides, False, OrderedDict())


def file_of(tensors: object, magic: int = MAGIC_NUMBER) -> bytes:
    numbers = struct.pack("<q6f", 6, *range(6))
    return pickled(magic, PROTOCOL_VERSION, {}, tensors, ["1"]) + numbers


def test_tensors_come_out_as_they_were_laid_down() -> None:
    weights = read_state_dict(file_of(OrderedDict(weight=tensor())))

    assert weights["weight"].dtype == np.float32
    assert weights["weight"].tolist() == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize(
    "call",
    [
        Call(Global("os", "system"), "touch {}"),
        Call(Global("posix", "system"), "touch {}"),
        Call(Global("builtins", "eval"), "open('{}', 'w')"),
        Call(Global("builtins", "open"), "{}", "w"),
        Call(Global("subprocess", "Popen"), ["touch", "{}"]),
        Call(Global("torch", "load"), "{}"),
        Call(Global("collections", "OrderedDict.fromkeys"), "{}"),
    ],
    ids=lambda call: ".".join(call.function.path),
)
@pytest.mark.parametrize("place", ["first", "tensor"])
def test_a_pickle_that_wants_more_is_refused_and_nothing_runs(
    tmp_path: Path, call: Call, place: str
) -> None:
    made = tmp_path / "made"
    call = Call(
        call.function,
        *(
            [part.format(made) for part in argument]
            if isinstance(argument, list)
            else str(argument).format(made)
            for argument in call.arguments
        ),
    )
    content = pickled(call) if place == "first" else file_of(OrderedDict(weight=call))

    with pytest.raises(ValueError, match="has no place among weights"):
        read_state_dict(content)

    assert not made.exists()


def test_the_malicious_pickle_of_that_test_would_have_run(tmp_path: Path) -> None:
    made = tmp_path / "made"

    pickle.loads(pickled(Call(Global(os.name, "system"), f"touch {made}")))

    assert made.exists()


@pytest.mark.parametrize(
    "broken",
    [
        tensor(shape=(2, 4)),
        tensor(offset=1),
        tensor(offset=-1),
        tensor(strides=(-1, 2)),
        tensor(strides=(1,)),
        tensor(key="2"),
        "no tensor",
    ],
)
def test_a_tensor_stays_within_its_storage(broken: object) -> None:
    with pytest.raises(ValueError):
        read_state_dict(file_of({"weight": broken}))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        file_of({"weight": tensor()}, magic=1),
        file_of({"weight": tensor()})[:-1],
        file_of([]),
    ],
)
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        read_state_dict(content)
