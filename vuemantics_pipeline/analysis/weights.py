"""Weights out of a file of `torch.save` (the format before PyTorch 1.6), without torch.

Such a file is five pickles (magic number, protocol version, sizes of the writer's types, the
state dict, the keys of its storages) and then each storage: its length as a 64-bit integer and its
raw numbers. A pickle is a program, so ours knows the five names that a state dict needs and
refuses every other before anything can be called.
"""

import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

# MAGIC_NUMBER and PROTOCOL_VERSION of torch/serialization.py.
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001


@dataclass(frozen=True)
class _Storage:
    """Where a tensor's numbers will be found: known by key, read after the pickles."""

    key: str
    dtype: np.dtype[Any]
    length: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _tensor(
    storage: _Storage,
    offset: int,
    shape: Sequence[int],
    strides: Sequence[int],
    *_: object,
) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


_FLOATS, _INTEGERS = np.dtype("<f4"), np.dtype("<i8")
_KNOWN: dict[tuple[str, str], Callable[..., object] | np.dtype[Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch", "FloatStorage"): _FLOATS,
    ("torch", "LongStorage"): _INTEGERS,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} has no place among weights") from None

    def persistent_load(self, pid: object) -> _Storage:
        match pid:
            case ("storage", np.dtype() as dtype, str(key), str(), int(length), None):
                return _Storage(key, dtype, length)
        raise pickle.UnpicklingError("not a reference to a storage")


def read_state_dict(content: bytes) -> dict[str, NDArray[np.float32]]:
    """Return the float tensors of a state dict by name; counters of training are left out.

    Raises:
        ValueError: the content is not such a file, or asks for more than weights.
    """
    stream = io.BytesIO(content)
    try:
        magic, version, _types, tensors, keys = (_Unpickler(stream).load() for _ in range(5))
        if (magic, version) != (_MAGIC_NUMBER, _PROTOCOL_VERSION):
            raise ValueError("not a file of torch.save before PyTorch 1.6")
        dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in tensors.values()}
        storages = {key: _read_storage(stream, dtypes[key]) for key in keys}
        return {
            name: _array(tensor, storages[tensor.storage.key])
            for name, tensor in tensors.items()
            if tensor.storage.dtype == _FLOATS
        }
    except ValueError:
        raise
    except Exception as error:  # A pickle that is not what it should be fails in many ways.
        raise ValueError(f"not weights: {error}") from error


def _read_storage(stream: io.BytesIO, dtype: np.dtype[Any]) -> NDArray[Any]:
    (length,) = struct.unpack("<q", stream.read(8))
    return np.frombuffer(stream.read(length * dtype.itemsize), dtype, count=length)


def _array(tensor: _Tensor, storage: NDArray[np.float32]) -> NDArray[np.float32]:
    last = tensor.offset + sum(
        (side - 1) * stride for side, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    if min(tensor.offset, *tensor.shape, *tensor.strides, 0) < 0 or last >= storage.size:
        raise ValueError("a tensor reaches beyond its storage")
    view = as_strided(
        storage[tensor.offset :],
        tensor.shape,
        [stride * storage.itemsize for stride in tensor.strides],
        writeable=False,
    )
    return np.ascontiguousarray(view)
