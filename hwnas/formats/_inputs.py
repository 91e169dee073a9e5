"""What an exported file reads: normalised images, pixels from 0 to 1, or bytes; and a network that reads pixels.

Normalisation goes into the convolutions that read the images where these pad nothing. Where they pad it is a depthwise
1x1 convolution before them: zeros around normalised images are no zeros around pixels. A full int8 file of bytes needs
neither where all channels have one mean and one std: the scale and zero point of its input are the normalisation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from hwnas.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hwnas.formats import Array, Weights
    from hwnas.network import Graph, Layer

Input = Literal["normalised", "pixels", "uint8"]
MetadataReader = Literal["tflite", "mediapipe"]  # whose tools are to take a .tflite file by its metadata
MEDIAPIPE = "mediapipe"
NAME = "normalised"  # of the layer that normalises
_WHITE = 255


class Form(NamedTuple):
    """The form of an export's files: what they read, and how many images at once; without a batch one, or any.

    MediaPipe takes TFLite files of bytes or pixels, one image at once, and of floats that come out.
    """

    input: Input = "normalised"
    batch: int | None = None
    metadata: MetadataReader = "tflite"

    @property
    def entries(self) -> dict[str, str]:
        """What a file says of the form, beside what it reads."""
        return {"reader": self.metadata} if self.metadata == MEDIAPIPE else {}


AS_USUAL = Form()


def checked_form(input: Input, batch: int | None, metadata: MetadataReader = "tflite") -> Form:
    """Return the form: for MediaPipe, which does not normalise by channel, bytes in place of normalised images.

    Raises InputError for an input that there is not, for a batch below 1, and for one of several for MediaPipe.
    """
    if input not in get_args(Input):
        raise InputError(f"the input must be one of {', '.join(get_args(Input))}; got {input!r}")
    if batch is not None and batch < 1:
        raise InputError(f"a batch must be 1 image or more; got {batch}. Leave it out for 1 in TFLite, any in ONNX")
    if metadata == MEDIAPIPE and (batch or 1) > 1:
        raise InputError(f"MediaPipe takes one image at once; got a batch of {batch}. Leave it out")
    if metadata == MEDIAPIPE and input == "normalised":
        input = "uint8"
    return Form(input, batch, metadata)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file of some precision reads; `mean` and `std` are each channel's, of pixels from 0 to 1."""

    input: Input
    mean: tuple[float, ...]
    std: tuple[float, ...]
    precision: str = "fp32"

    @property
    def uint8(self) -> bool:
        """Whether the file reads bytes."""
        return self.input == "uint8"

    @property
    def scaled(self) -> bool:
        """Whether the scale and zero point of the file's input normalise."""
        return self.uint8 and self.precision == "int8" and len(set(self.mean)) == len(set(self.std)) == 1

    @property
    def bakes(self) -> bool:
        """Whether layers normalise, so that the network reads pixels from 0 to 1."""
        return {"normalised": False, "pixels": True, "uint8": True}[self.input] and not self.scaled

    @property
    def input_range(self) -> tuple[float, float] | None:
        """What 0 and 255 stand for in an int8 file; None where calibration has to find it."""
        if self.input == "normalised":
            return None
        if not self.scaled:
            return 0.0, 1.0
        step = 1 / (_WHITE * self.std[0])
        return -self._zero_point * step, (_WHITE - self._zero_point) * step

    @property
    def left(self) -> dict[str, str]:
        """What a file says of its input: the mean and std that are still to be applied to pixels from 0 to 1.

        Where the input has a scale and a zero point, these come after: they make bytes of the bytes again.
        """
        mean, std = ([0.0] * len(self.mean), [1.0] * len(self.std)) if self.bakes else (self.mean, self.std)
        if self.scaled:
            mean = [self._zero_point / _WHITE] * len(self.mean)
        return {"input": self.input, "mean": _line(mean), "std": _line(std)}

    @property
    def _zero_point(self) -> int:
        return round(_WHITE * self.mean[0])

    def read(self, pixels: "NDArray[np.uint8]") -> "NDArray[Any]":
        """Return images, uint8 [n, c, h, w], as the file reads them."""
        return pixels if self.uint8 else self.seen(pixels)

    def seen(self, pixels: "NDArray[np.uint8]") -> "Array":
        """Return images, uint8 [n, c, h, w], as the network in the file sees them."""
        import numpy as np

        if self.bakes:
            return np.divide(pixels, _WHITE, dtype=np.float32)
        mean, std = (_WHITE * np.asarray(of, np.float32).reshape(-1, 1, 1) for of in (self.mean, self.std))
        return (pixels - mean) / std

    def bake(self, graph: "Graph", weights: "Weights") -> "tuple[Graph, Weights]":
        """Return a network of normalised images as one of what the file reads; weights are in torch's layout.

        Raises InputError unless there are a mean and a std for each channel.
        """
        import numpy as np

        from hwnas.network import pads

        channels = graph.layers[0].shape[0]
        if not len(self.mean) == len(self.std) == channels:
            raise InputError(
                f"normalisation must have a mean and a std for each of {channels} channels; got {len(self.mean)} and "
                f"{len(self.std)}. Take them from the data set that the network was trained on"
            )
        mean, std = (np.array(of, dtype=np.float64) for of in (self.mean, self.std))
        readers = _readers(graph)
        if self.scaled and all(layer.kind == "conv" for layer in readers):
            # the mean is no whole number of steps, the zero point is; at padded borders the rest stays: half a step
            return graph, _folded(graph, weights, np.ones(channels), (self._zero_point / _WHITE - mean) / std)
        if not self.bakes:
            return graph, weights
        if all(layer.kind == "conv" and not any(pads(layer, graph.layers[0].shape)) for layer in readers):
            return graph, _folded(graph, weights, 1 / std, -mean / std)
        weight = (1 / std).astype(np.float32).reshape(-1, 1, 1, 1)
        return _with_layer(graph), {**weights, NAME: (weight, (-mean / std).astype(np.float32))}


def _readers(graph: "Graph") -> "list[Layer]":
    """Return the layers that compute with the images; zeros only count them."""
    return [graph.layers[reader] for reader in graph.consumers[0] if graph.layers[reader].kind != "zero"]


def _folded(graph: "Graph", weights: "Weights", factor: "NDArray[Any]", shift: "NDArray[Any]") -> "Weights":
    """Return the weights with which the input's convolutions compute of x what they did of factor x + shift."""
    import numpy as np

    folded = dict(weights)
    for layer in _readers(graph):
        weight, bias = (of.astype(np.float64) for of in weights[layer.name])
        group = np.arange(len(weight)) * layer.groups // len(weight)
        channels = group[:, None] * weight.shape[1] + np.arange(weight.shape[1])  # [out, in]: those that each reads
        shifted = bias + (weight.sum((2, 3)) * shift[channels]).sum(1)
        scaled = weight * factor[channels][:, :, None, None]
        folded[layer.name] = (scaled.astype(np.float32), shifted.astype(np.float32))
    return folded


def _with_layer(graph: "Graph") -> "Graph":
    """Return the graph with a depthwise 1x1 convolution between the images and all that computes with them."""
    from hwnas.network import Graph, Layer

    images, *others = graph.layers
    normalise = Layer("conv", (0,), images.shape, NAME, groups=images.shape[0], bias=True)
    moved = (
        layer._replace(inputs=tuple(source + 1 if source or layer.kind != "zero" else 0 for source in layer.inputs))
        for layer in others
    )
    auxiliary = None if graph.auxiliary is None else graph.auxiliary + 1
    return Graph((images, normalise, *moved), graph.norm_epsilon, auxiliary)


def _line(values: Sequence[float]) -> str:
    return ",".join(f"{value:.8g}" for value in values)
