"""One reader of images: what an artefact carries gives its files the pixels that training reads; so does MediaPipe."""

import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from winners import trained_run

import hwnas
from hwnas import datasets, formats
from hwnas.artefacts import files as artefact
from hwnas.artefacts.exporting import Exported
from hwnas.datasets._reader import read_bands, read_square
from hwnas.errors import InputError

SIDE = 8
FILES = ["model.tflite", "model.onnx"]
MEDIAPIPE = Path(__file__).parents[2] / ".venv" / "mediapipe" / "bin" / "python"


def exported(folder: Path, *, channels: int, data: str | None = None, **options: Any) -> Exported:
    run = trained_run(folder, channels=channels, data=data)
    (made,) = hwnas.export(str(run), out=str(folder / "export"), **{"files": FILES, **options})
    return made


@pytest.fixture(scope="module", params=[(1, "normalised"), (3, "normalised"), (3, "pixels"), (3, "uint8")], ids=str)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return an artefact that tests only read."""
    channels, input = request.param
    return exported(tmp_path_factory.mktemp("made"), channels=channels, input=input)


def photos(folder: Path) -> list[Path]:
    """Write images of all kinds that read otherwise where one is not careful."""
    folder.mkdir()
    random = np.random.default_rng(0)
    photo = Image.fromarray(random.integers(0, 256, (60, 90, 3), dtype=np.uint8))
    for turn in (3, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = turn
        photo.save(folder / f"turned{turn}.jpg", exif=exif, quality=95)
    Image.fromarray(random.integers(0, 65536, (20, 30), dtype=np.uint16)).save(folder / "deep.png")
    photo.convert("P").save(folder / "palette.png")
    photo.convert("P").save(folder / "glass.png", transparency=bytes(range(256)))
    photo.convert("P").save(folder / "animated.gif")
    photo.convert("CMYK").save(folder / "print.jpg")
    photo.convert("CMYK").save(folder / "print.tif")
    drawing = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    ImageDraw.Draw(drawing).ellipse((5, 5, 20, 20), fill=(0, 0, 0, 200))
    drawing.save(folder / "drawing.png")
    drawing.convert("LA").save(folder / "grey drawing.png")
    photo.save(folder / "key.png", transparency=photo.getpixel((3, 3)))
    photo.convert("1").save(folder / "fax.png")
    photo.resize((900, 600)).save(folder / "large.jpg")
    return sorted(folder.iterdir())


def run_script(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("run", folder / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def readme_images(folder: Path, image: Path) -> Any:
    """Return what the README's code makes of an image."""
    text = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    found: dict[str, Any] = {}
    exec(text.replace('"image.png"', repr(str(image))), found)
    return found["images"]


def logits_of(made: Exported, pixels: Any) -> Any:
    """Return what an artefact's network gives for pixels [h, w, c], by its TFLite file and the card."""
    check = artefact.Check(pixels.transpose(2, 0, 1)[None], np.zeros(0), np.zeros(0))
    return formats.get("tflite").load(Path(made.folder, "model.tflite"))(check.images(made.card))[0]


def test_run_py_and_the_readme_give_the_logits_of_trainings_reader(made: Exported, tmp_path: Path) -> None:
    folder, data, script = Path(made.folder), made.card.data, run_script(Path(made.folder))
    for photo in photos(tmp_path / "photos"):
        pixels = read_square(photo, SIDE, data.channels, data.background, data.black, data.white)
        expected = logits_of(made, pixels)
        for name in FILES:
            found = script.run(folder / name, 1, script.read_image(photo))
            assert found == pytest.approx(expected, abs=1e-4), (photo.name, name)
        np.testing.assert_allclose(readme_images(folder, photo), script.read_image(photo), atol=1e-6)


def test_the_set_of_photos_is_read_by_the_reader_that_artefacts_carry(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / "all" / name).mkdir(parents=True)
        for photo in photos(tmp_path / name):
            photo.rename(tmp_path / "all" / name / photo.name)
    dataset = datasets.load(f"folder:{tmp_path / 'all'}", resolution=SIDE)
    (tmp_path / "run").mkdir()
    made = exported(tmp_path / "run", channels=3, data=f"folder:{tmp_path / 'all'}")
    script = run_script(Path(made.folder))
    read = {script.read_image(path).tobytes() for path in (tmp_path / "all").rglob("*.*")}
    mean, std = (np.array(of) for of in (dataset.mean, dataset.std))
    for part in (dataset.train, dataset.validation, dataset.test):
        for index in range(len(part.labels)):
            pixels = part.read(datasets_index(index)).numpy().transpose(0, 2, 3, 1)
            assert ((pixels.astype(np.float32) / 255 - mean) / std).astype(np.float32).tobytes() in read


def datasets_index(index: int) -> Any:
    import torch

    return torch.tensor([index])


def test_the_range_of_sixteen_bits_and_the_background_travel_to_run_py(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name, low in (("dark", 0), ("dim", 1500), ("light", 3000)):
        (tmp_path / "deep" / name).mkdir(parents=True)
        for number in range(20):
            values = random.integers(low, low + 1000, (12, 12), dtype=np.uint16)
            Image.fromarray(values).save(tmp_path / "deep" / name / f"{number}.png")
    made = exported(tmp_path, channels=1, data=f"folder:{tmp_path / 'deep'}")
    assert (made.card.data.black, made.card.data.white, made.card.data.background) == (0, 4095, "white")
    text = (Path(made.folder) / "run.py").read_text()
    assert "BLACK, WHITE = 0, 4095" in text
    assert "BACKGROUND = 'white'" in text
    text = " ".join((Path(made.folder) / "README.md").read_text().split())
    assert "of images of 16 bits 0 is read as 0 and 4095 as 255" in text


@pytest.mark.parametrize(("channels", "mode"), [(2, "LA"), (4, "RGBA"), (4, "CMYK")])
def test_two_and_four_channels_are_read_band_by_band_or_from_an_array(tmp_path: Path, channels: int, mode: str) -> None:
    made = exported(tmp_path, channels=channels)
    values = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, channels), dtype=np.uint8)
    np.save(tmp_path / "values.npy", values)
    Image.fromarray(values, mode=mode).save(tmp_path / "values.tif")
    script = run_script(Path(made.folder))
    for name in ("values.npy", "values.tif"):
        assert np.array_equal(read_bands(tmp_path / name, SIDE, channels), values)
        found = script.run(Path(made.folder, "model.tflite"), 1, script.read_image(tmp_path / name))
        assert found == pytest.approx(logits_of(made, values), abs=1e-4)
        np.testing.assert_allclose(
            readme_images(Path(made.folder), tmp_path / name), script.read_image(tmp_path / name), atol=1e-6
        )
    Image.new("RGB", (9, 9)).save(tmp_path / "colour.png")
    with pytest.raises(SystemExit, match=rf"it must be uint8 \[height, width, {channels}\]; it is uint8 \[9, 9, 3\]"):
        script.read_image(tmp_path / "colour.png")


CLASSIFY = """
import json, sys
import numpy as np
import mediapipe
from mediapipe.tasks.python import BaseOptions
from mediapipe.tasks.python.vision import ImageClassifier, ImageClassifierOptions

options = ImageClassifierOptions(base_options=BaseOptions(model_asset_path=sys.argv[1]))
image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.load(sys.argv[2]))
with ImageClassifier.create_from_options(options) as classifier:
    (found,) = classifier.classify(image).classifications
print(json.dumps({category.category_name: category.score for category in found.categories}))
"""


@pytest.mark.skipif(not MEDIAPIPE.exists(), reason="no MediaPipe here: make mediapipe")
@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["model.tflite", "model.fp16.tflite", "model.dynamic.tflite", "model.int8.tflite"]),
        ({"input": "pixels"}, ["model.tflite", "model.fp16.tflite"]),
    ],
)
def test_mediapipe_gives_the_logits_of_a_file_that_is_for_it(
    tmp_path: Path, options: dict[str, Any], names: list[str]
) -> None:
    made = exported(tmp_path, channels=3, metadata="mediapipe", files=names, **options)
    pixels = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    for name in names:
        command = [str(MEDIAPIPE), "-c", CLASSIFY, str(Path(made.folder, name)), str(tmp_path / "pixels.npy")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        check = artefact.Check(pixels.transpose(2, 0, 1)[None], np.zeros(0), np.zeros(0))
        expected = formats.get("tflite").load(Path(made.folder, name))(check.images(made.card))[0]
        most = 0.05 * float(np.abs(expected).max()) if "int8" in name else 1e-3
        assert found == pytest.approx(dict(zip(made.card.data.classes, expected.tolist(), strict=True)), abs=most)


def test_files_for_mediapipe_read_bytes_and_give_floats_and_are_no_others(tmp_path: Path) -> None:
    names = ["model.tflite", "model.int8.tflite"]
    made = exported(tmp_path, channels=3, metadata="mediapipe", files=names)
    assert (made.card.input, made.card.metadata) == ("uint8", "mediapipe")
    for entry in made.card.files.values():
        assert (entry.tensors.input.dtype, entry.tensors.output.dtype) == ("uint8", "float32")
    assert all(one.fine for one in hwnas.verify(made.folder))
    again = hwnas.export(str(tmp_path / "runs" / "a"), out=str(tmp_path / "export"), files=names, input="uint8")
    assert again[0].card.metadata == "tflite"
    assert again[0].card.files["model.int8.tflite"].tensors.output.dtype == "int8"


@pytest.mark.parametrize(
    ("channels", "options", "words"),
    [
        (1, {}, "MediaPipe takes networks of images in colour; got 1 channel"),
        (3, {"batch": 2}, "MediaPipe takes one image at once; got a batch of 2"),
        (
            3,
            {"input": "pixels", "files": ["model.int8.tflite"]},
            "MediaPipe takes int8 files of bytes alone",
        ),
    ],
)
def test_what_mediapipe_would_not_take_is_refused_in_words(
    tmp_path: Path, channels: int, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        exported(tmp_path, channels=channels, metadata="mediapipe", **options)
    assert not list(tmp_path.glob("export/a/*"))
