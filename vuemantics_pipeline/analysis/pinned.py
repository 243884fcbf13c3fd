"""Models that other packages bring along: found, compared with a pinned sum, never imported."""

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from vuemantics_pipeline.errors import BackendUnavailable

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def package_file(package: str, *parts: str, requirement: str) -> Path:
    """Return the path of a file inside an installed package; no code of that package runs.

    Args:
        requirement: what `pip` is to install where the package is missing.

    Raises:
        BackendUnavailable: 'model_missing'.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise BackendUnavailable(
            "model_missing", f"The package {package} is not installed.", _reinstall(requirement)
        )
    return Path(spec.origin).parent.joinpath(*parts)


def read_pinned(path: Path, sha256: str, *, requirement: str) -> bytes:
    """Return the content of a file whose SHA-256 is known beforehand.

    Raises:
        BackendUnavailable: 'model_missing' or 'model_damaged'.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BackendUnavailable(
            "model_missing", f"Cannot read {path}: {error.strerror}.", _reinstall(requirement)
        ) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BackendUnavailable(
            "model_damaged",
            f"{path} is not the file it should be, so it was not loaded.",
            _reinstall(requirement),
        )
    return content


def open_session(model: bytes, *, arena: bool = True) -> "InferenceSession":
    """Open an ONNX model on at most two threads of the CPU.

    Args:
        arena: keep the memory of one input for the next; a waste where each has another shape.
    """
    # The library reports to its maker unless this is set before it is first imported.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = arena
    # Threads that spin between photos would take the processor from the decoders.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _reinstall(requirement: str) -> str:
    return f"Install it again: `pip install --force-reinstall '{requirement}'`."
