"""How an image file becomes pixels: the one reader, of training and, as text, of each artefact's run.py and README.

Python 3.9 with numpy and Pillow alone: that is what an artefact is used with. Each function stands by itself.
"""

from os import PathLike
from typing import Any

import numpy as np
from PIL import Image, ImageOps


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


def read_bands(path: "str | PathLike[str]", resolution: int, channels: int) -> "np.ndarray[Any, Any]":
    """Return the centre square of a file *.npy, uint8 [height, width, channels], or of an image of as many bands.

    Bands are taken as they are: uint8 [resolution, resolution, channels].
    """
    if str(path).endswith(".npy"):
        values = np.load(path)
    else:
        with Image.open(path) as image:
            values = np.stack([np.asarray(band) for band in image.split()], axis=-1)
    if values.dtype != np.uint8 or values.ndim != 3 or values.shape[2] != channels:
        raise ValueError(f"it must be uint8 [height, width, {channels}]; it is {values.dtype} {list(values.shape)}")
    bands = [Image.fromarray(np.ascontiguousarray(values[:, :, at])) for at in range(channels)]
    squares = [np.asarray(ImageOps.fit(band, (resolution, resolution), Image.Resampling.BILINEAR)) for band in bands]
    return np.stack(squares, axis=-1)
