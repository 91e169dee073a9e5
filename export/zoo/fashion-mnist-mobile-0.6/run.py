"""Print the likeliest classes of an image: python run.py image.png

Takes numpy, Pillow, and for *.tflite ai-edge-litert or tflite-runtime, for *.onnx onnxruntime. Written by hwnas.
"""

import argparse
import importlib
import os
import sys
from pathlib import Path

try:
    import numpy as np
    from PIL import Image, ImageOps
except ImportError as error:
    sys.exit(f"run.py needs numpy and Pillow, which reads the image; {error}. Type: pip install numpy pillow")

MODELS = ['model.tflite', 'model.int8.tflite']
CLASSES = ['T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot']
RESOLUTION = 28  # pixels
CHANNELS = 1
BACKGROUND = 'white'  # where an image is transparent
BLACK, WHITE = 0, 65535  # of images of 16 bits
MEAN = [0.2861294339031909]  # by channel, of pixels from 0 to 1
STD = [0.3530651829670651]
RUNTIMES = {".tflite": ["ai_edge_litert", "tflite_runtime"], ".onnx": ["onnxruntime"]}


def main():
    parser = argparse.ArgumentParser(description="Print the likeliest classes of an image.")
    parser.add_argument("image", help="an image file")
    parser.add_argument("--model", help="a model file; one of %s beside run.py otherwise" % ", ".join(MODELS))
    parser.add_argument("--threads", type=count, default=1, help="threads of the runtime (default: 1)")
    parser.add_argument("--top", type=count, default=5, help="classes that are printed (default: 5)")
    options = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # a pipe on Windows has few characters of those that classes have
    path = Path(options.model) if options.model else default_model()
    logits = run(path, options.threads, read_image(options.image)).astype(np.float64)
    if logits.shape != (len(CLASSES),):
        sys.exit(f"run.py: {path} must give {len(CLASSES)} logits; got {logits.shape}. Take a model of this folder")
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    for place in np.argsort(-probabilities, kind="stable")[: options.top]:
        print(f"{100 * probabilities[place]:6.2f} %  {CLASSES[place]}")


def count(text):
    """Read a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0; got {text}")
    return int(text)


def default_model():
    """Return the first model beside run.py that an installed runtime can run."""
    paths = [path for path in map(Path(__file__).resolve().with_name, MODELS) if path.is_file()]
    if not paths:
        sys.exit(f"run.py: one of {', '.join(MODELS)} must lie beside run.py; none does. Give one with --model")
    return next((path for path in paths if runtime(path.suffix)), paths[0])


def runtime(suffix):
    """Return the runtime's module for files of that suffix; None where none is installed."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime would write into the cache, and send events
    for package in RUNTIMES[suffix]:
        try:
            return importlib.import_module(package if suffix == ".onnx" else package + ".interpreter")
        except (ImportError, AttributeError, OSError):  # AttributeError: built for another numpy
            continue
    return None


def read_image(path):
    """Return the centre square as the network reads it: float32 [1, height, width, channels]."""
    try:
        pixels = read_square(path, RESOLUTION, CHANNELS, BACKGROUND, BLACK, WHITE)[None]
    except Exception as error:  # Pillow's decoders raise errors of many kinds
        sys.exit(f"run.py: {path} must be an image that Pillow reads; got: {error or type(error).__name__}")
    return ((pixels.astype(np.float32) / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32)


def read_square(
    path: "str | PathLike[str]", resolution: int, channels: int, background: str, black: int, white: int
) -> "np.ndarray[Any, Any]":
    """Return an image file's centre square, upright: uint8 [resolution, resolution, channels], of 1 or 3 channels.

    What is transparent lies on `background`; of images of 16 bits, `black` becomes 0 and `white` 255.
    """
    with Image.open(path) as opened:
        opened.draft(None, (2 * resolution, 2 * resolution))  # JPEG: decoded no finer than is needed
        opened.load()
        image: Image.Image = opened
        try:
            image = ImageOps.exif_transpose(opened)
        except Exception:  # a broken EXIF tag is no broken image
            pass
        if image.mode == "F":
            raise ValueError("floating-point images are not supported")
        if image.mode.startswith("I"):  # 16 bits
            values = np.asarray(image).astype(np.int64).clip(black, white) - black
            image = Image.fromarray((values * 256 // (white - black + 1)).astype(np.uint8))
        if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
        image = image.convert("L" if channels == 1 else "RGB")
    square = ImageOps.fit(image, (resolution, resolution), Image.Resampling.BILINEAR)
    return np.asarray(square, np.uint8).reshape(resolution, resolution, channels)


def run(path, threads, image):
    """Return the logits [classes] of an image [1, height, width, channels]."""
    if path.suffix not in RUNTIMES:
        sys.exit(f"run.py: a model must be a file *.tflite or *.onnx; got {path}")
    if not path.is_file():
        sys.exit(f"run.py: the model {path} is not there; choose one with --model: {', '.join(MODELS)}")
    module = runtime(path.suffix)
    if module is None:
        names = [package.replace("_", "-") for package in RUNTIMES[path.suffix]]
        sys.exit(f"run.py: {path} needs {' or '.join(names)}; none can be imported. Type: pip install {names[0]}")
    try:
        return (run_onnx if path.suffix == ".onnx" else run_tflite)(module, path, threads, image)
    except Exception as error:  # the runtimes' errors have no other base in common
        sys.exit(f"run.py: {path} must be a model of this folder that runs; got: {error}. Copy the file again")


def run_tflite(module, path, threads, image):
    interpreter = module.Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    images = np.repeat(image, source["shape"][0], axis=0)  # as many as the file takes at once
    interpreter.set_tensor(source["index"], quantised(images, source))
    interpreter.invoke()
    return dequantised(interpreter.get_tensor(target["index"]), target)[0]


def run_onnx(module, path, threads, image):
    options = module.SessionOptions()
    options.intra_op_num_threads = threads
    session = module.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    images = np.repeat(image, source.shape[0], axis=0) if isinstance(source.shape[0], int) else image
    return session.run(None, {source.name: images.transpose(0, 3, 1, 2)})[0][0]


def quantised(values, detail):
    """Return float32 values as numbers of a tensor, by its own scale and zero point; others as they are."""
    scale, zero_point = detail["quantization"]
    if not scale or values.dtype == detail["dtype"]:
        return values
    limits = np.iinfo(detail["dtype"])
    return np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max).astype(detail["dtype"])


def dequantised(numbers, detail):
    scale, zero_point = detail["quantization"]
    return scale * (numbers.astype(np.float64) - zero_point) if scale else numbers


if __name__ == "__main__":
    main()
