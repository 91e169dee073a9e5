import gzip
import hashlib
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST

from hwnas import datasets
from hwnas.datasets import _shared, fashion_mnist, folder
from hwnas.errors import DataError, InputError, UnknownNameError

RED, GREEN, GREY = (200, 30, 30), (30, 200, 30), (90, 90, 90)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """No test sees this machine's data sets or the network."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("HWNAS_DATA", str(folder))
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "no-package")

    def unreachable(reader):
        raise URLError("no network")

    for reader in (FashionMNIST, CIFAR10):
        monkeypatch.setattr(reader, "download", unreachable)
    return folder


def everything(images):
    return images.read(torch.arange(len(images.labels)))


def labels(count, classes=10):
    return np.arange(count, dtype=np.uint8) % classes


def assert_sound(dataset):
    """What every data set promises."""
    count = len(dataset.classes)
    parts = [dataset.train, dataset.validation, dataset.whole_train, dataset.test]
    for images in parts:
        pixels = everything(images)
        assert pixels.shape == (len(images.labels), dataset.channels, dataset.resolution, dataset.resolution)
        assert pixels.dtype == torch.uint8
        assert images.labels.dtype == torch.int64
        assert images.labels.unique().tolist() == list(range(count))
        assert torch.equal(images.read(torch.tensor([1, 0])), pixels[[1, 0]])
        assert len(images.read(torch.arange(0))) == 0
    whole = torch.cat([everything(dataset.train), everything(dataset.validation)])
    assert torch.equal(everything(dataset.whole_train), whole)
    scaled = everything(dataset.train).double() / 255
    assert dataset.mean == pytest.approx(scaled.mean(dim=(0, 2, 3)).tolist())
    assert dataset.std == pytest.approx(scaled.std(dim=(0, 2, 3), correction=0).tolist())


# --- hwnas.datasets


def test_importing_the_data_sets_does_not_import_torch():
    check = "import sys, hwnas.datasets; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"'imagenet'; known: cifar10, cifar100, fashion-mnist, folder, npz$"):
        datasets.load("imagenet")


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_a_validation_share_that_is_none_is_refused(share):
    with pytest.raises(InputError, match=f"between 0 and 1; got {share}"):
        datasets.load("fashion-mnist", validation=share)


def test_a_resolution_below_one_pixel_is_refused():
    with pytest.raises(InputError, match="at least 1 pixel; got 0"):
        datasets.load("fashion-mnist", resolution=0)


# --- the split, the statistics, the resizing


def test_the_split_is_disjoint_complete_and_keeps_the_shares_of_the_classes():
    balance = torch.tensor([0] * 100 + [1] * 40 + [2] * 3)
    parts = _shared.split(balance, [0.2, 0.1], classes="abc", seed=5, source="here")
    assert torch.cat(parts).sort().values.tolist() == list(range(143))
    assert [torch.bincount(balance[part]).tolist() for part in parts] == [[70, 28, 1], [20, 8, 1], [10, 4, 1]]


@pytest.mark.parametrize("shares", [[0.999], [0.9, 0.15], [1e-9, 0.999]])
def test_each_part_has_each_class_however_extreme_the_share(shares):
    balance = torch.tensor([0] * 3 + [1] * 4)
    parts = _shared.split(balance, shares, classes="ab", seed=0, source="here")
    assert all(torch.bincount(balance[part], minlength=2).min() >= 1 for part in parts)


def test_the_split_is_the_seeds():
    balance = torch.arange(100) % 4
    first, again, other = (_shared.split(balance, [0.1], classes="abcd", seed=seed, source="") for seed in (1, 1, 2))
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    assert first[1].tolist() == [52, 56, 63, 66, 83, 89, 97, 98]  # on every machine, in every version


def test_a_class_too_small_for_the_split_is_named():
    with pytest.raises(DataError, match=r"at least 3 images.* here has 2 of 'b'; add images"):
        _shared.split(torch.tensor([0, 0, 0, 1, 1]), [0.1, 0.1], classes="ab", seed=0, source="here")


def test_equal_pixels_everywhere_are_refused_and_one_flat_channel_is_not():
    flat = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    images = _shared.TensorImages(flat, torch.arange(4), resolution=2)
    with pytest.raises(DataError, match="all pixels of the training part of here are equal"):
        _shared.statistics(images, source="here")
    flat[:, 0, 0] = 255
    mean, std = _shared.statistics(images, source="here")
    assert mean == (0.5, 0, 0)
    assert std == (0.5, 1 / 255, 1 / 255)


def test_images_are_resized_as_torch_does_and_cropped_to_the_centre_square():
    pixels = torch.randint(0, 256, (5, 3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    square = pixels[..., 5:25]
    assert torch.equal(_shared.resized(pixels, 20), square)
    for resolution in (8, 32):
        floats = torch.nn.functional.interpolate(
            square.float(), (resolution, resolution), mode="bilinear", antialias=True
        )
        assert (_shared.resized(pixels, resolution) - floats).abs().max() <= 1


def test_sets_too_large_for_memory_are_resized_at_each_read_to_the_same_pixels(tmp_path, monkeypatch):
    path = write_npz(tmp_path)
    small = datasets.load(f"npz:{path}", resolution=24)
    monkeypatch.setattr(_shared, "MEMORY_LIMIT", 15 * 24 * 24)
    large = datasets.load(f"npz:{path}", resolution=24)
    for part in ("train", "validation", "whole_train", "test"):
        assert torch.equal(everything(getattr(small, part)), everything(getattr(large, part)))
    assert large.mean == pytest.approx(small.mean, abs=0.05)  # of 15 images, evenly spaced


# --- fashion-mnist


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_idx(folder, *, packed=True, count=60, brightness=0):
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        pixels = np.random.default_rng(0).integers(0, 200, (count, 28, 28), dtype=np.uint8) + np.uint8(brightness)
        for name, array in (("images-idx3", pixels), ("labels-idx1", labels(count))):
            content = idx(array)
            path = folder / f"{part}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content, 1) if packed else content)
    return folder


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("inside", [".", "FashionMNIST/raw", "raw"])
def test_fashion_mnist_is_read_from_the_users_folder(tmp_path, inside, packed):
    write_idx(tmp_path / "mine" / inside, packed=packed)
    dataset = datasets.load(f"fashion-mnist:{tmp_path / 'mine'}", validation=0.2)
    assert_sound(dataset)
    assert (dataset.channels, dataset.resolution, dataset.flips) == (1, 28, True)
    assert dataset.name == f"fashion-mnist:{tmp_path / 'mine'}"
    assert dataset.classes[9] == "Ankle boot"
    assert [len(part.labels) for part in (dataset.train, dataset.validation, dataset.test)] == [50, 10, 60]


def test_fashion_mnist_prefers_the_users_folder_then_the_cache_then_the_package_then_the_download(
    tmp_path, cache, monkeypatch
):
    monkeypatch.setattr(FashionMNIST, "download", lambda reader: write_idx(Path(reader.raw_folder), packed=False))
    raw = cache / "FashionMNIST" / "raw"

    def mean(name):
        return datasets.load(name).mean[0]

    downloaded = mean("fashion-mnist")
    assert raw.is_dir()
    shutil.rmtree(cache)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", write_idx(tmp_path / "package", brightness=10))
    packaged = mean("fashion-mnist")
    write_idx(raw, brightness=20)
    cached = mean("fashion-mnist")
    given = mean(f"fashion-mnist:{write_idx(tmp_path / 'mine', brightness=30)}")
    assert np.diff([downloaded, packaged, cached, given]) == pytest.approx([10 / 255] * 3)


def test_a_half_filled_cache_is_passed_over(tmp_path, cache, monkeypatch):
    write_idx(cache / "FashionMNIST" / "raw")
    (cache / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte.gz").unlink()
    monkeypatch.setattr(fashion_mnist, "DEBIAN", write_idx(tmp_path / "package", count=40))
    assert len(datasets.load("fashion-mnist").whole_train.labels) == 40


def test_a_failed_download_names_what_was_tried_and_the_remedies(tmp_path, cache):
    with pytest.raises(DataError) as caught:
        datasets.load("fashion-mnist")
    for part in (str(cache), "no-package", "no network", "apt-get install dataset-fashion-mnist", "fashion-mnist:PATH"):
        assert part in str(caught.value)


def test_without_a_folder_of_its_own_the_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("HWNAS_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _shared.cache_folder() == tmp_path / "hwnas" / "data"


def test_fashion_mnist_at_a_path_that_is_not_there(tmp_path):
    with pytest.raises(
        DataError, match=rf"must name a folder; got {tmp_path}/gone, which is not there; check the path"
    ):
        datasets.load(f"fashion-mnist:{tmp_path}/gone")


def test_fashion_mnist_names_the_files_that_lack(tmp_path):
    folder = write_idx(tmp_path / "mine")
    (folder / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DataError, match=rf"{folder} lacks t10k-images-idx3-ubyte; add"):
        datasets.load(f"fashion-mnist:{folder}")


BROKEN_IDX = {
    "truncated archive": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "no archive": lambda path: path.write_bytes(b"not gzip"),
    "corrupted archive": lambda path: path.write_bytes(path.read_bytes()[:20] + b"\xff" * 20 + path.read_bytes()[40:]),
    "empty": lambda path: path.write_bytes(b""),
    "no IDX": lambda path: path.write_bytes(gzip.compress(b"something else")),
    "wrong dimensions": lambda path: path.write_bytes(gzip.compress(idx(np.zeros((4, 4), np.uint8)))),
    "too short": lambda path: path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1])),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("name", ["images-idx3", "labels-idx1"])
@pytest.mark.parametrize("damage", BROKEN_IDX.values(), ids=BROKEN_IDX.keys())
def test_a_broken_idx_file_is_named(tmp_path, damage, name):
    path = write_idx(tmp_path / "mine") / f"train-{name}-ubyte.gz"
    damage(path)
    with pytest.raises(DataError, match=f"train-{name}-ubyte.*;"):
        datasets.load(f"fashion-mnist:{path.parent}")


def test_idx_images_and_labels_must_be_as_many(tmp_path):
    folder = write_idx(tmp_path / "mine")
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels(59))))
    with pytest.raises(DataError, match=r"has 60 images, .*train-labels-idx1-ubyte.gz 59 labels"):
        datasets.load(f"fashion-mnist:{folder}")


def test_idx_images_must_be_28x28(tmp_path):
    folder = write_idx(tmp_path / "mine")
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros((60, 32, 32), np.uint8))))
    with pytest.raises(DataError, match=r"must be 28x28; .*train-images-idx3-ubyte.gz has \[32, 32\]"):
        datasets.load(f"fashion-mnist:{folder}")


def test_a_label_out_of_range_is_refused(tmp_path):
    folder = write_idx(tmp_path / "mine")
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels(60, 47))))
    with pytest.raises(DataError, match=r"labels must be 0 to 9; .*mine has 0 to 46"):
        datasets.load(f"fashion-mnist:{folder}")


def test_a_class_that_lacks_in_the_training_set_is_named(tmp_path):
    folder = write_idx(tmp_path / "mine")
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels(60, 9))))
    with pytest.raises(DataError, match=r"each class must have images; .*mine has none of 'Ankle boot'"):
        datasets.load(f"fashion-mnist:{folder}")


def test_the_test_files_of_fashion_mnist_are_first_read_by_test(tmp_path):
    folder = write_idx(tmp_path / "mine")
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(b"broken")
    dataset = datasets.load(f"fashion-mnist:{folder}")
    everything(dataset.whole_train)
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte.gz must be readable; .*; fetch the file anew"):
        _ = dataset.test
    (folder / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"must hold the t10k images and labels; they are gone"):
        _ = dataset.test


def test_the_test_set_is_read_once(tmp_path):
    dataset = datasets.load(f"fashion-mnist:{write_idx(tmp_path / 'mine')}")
    assert dataset.test is dataset.test


@pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="apt-get install dataset-fashion-mnist"
)
def test_fashion_mnist_is_read_from_the_debian_package(monkeypatch):
    monkeypatch.setattr(fashion_mnist, "DEBIAN", Path("/usr/share/datasets/fashion-mnist"))
    dataset = datasets.load("fashion-mnist")
    assert torch.bincount(dataset.train.labels).tolist() == [5400] * 10
    assert torch.bincount(dataset.validation.labels).tolist() == [600] * 10
    assert torch.bincount(dataset.test.labels).tolist() == [1000] * 10
    assert dataset.mean == pytest.approx([0.286], abs=0.001)  # the figures in common use
    assert dataset.std == pytest.approx([0.353], abs=0.001)
    assert dataset.read_test().read(torch.tensor([0])).shape == (1, 1, 28, 28)


# --- cifar10, cifar100


class OldDtype:
    """Pickles as numpy did when CIFAR was made; numpy 2.4.0 to 2.4.4 warn of it (numpy pull request 31177)."""

    def __reduce__(self):
        return np.dtype, ("u1", 0, 1)


def write_cifar(root, reader, monkeypatch, *, per_batch=40):
    """Write small batches under torchvision's names, with MD5s to match: pickles, as CIFAR's own files are."""
    classes = 100 if reader is CIFAR100 else 10
    folder = root / reader.base_folder
    folder.mkdir(parents=True)

    def write(name, content):
        blob = pickle.dumps(content)
        (folder / name).write_bytes(blob)
        return hashlib.md5(blob).hexdigest()

    key = "fine_labels" if classes == 100 else "labels"
    random = np.random.default_rng(0)
    for which in ("train_list", "test_list"):
        sums = []
        for name, _ in getattr(reader, which):
            pixels = random.integers(0, 256, (per_batch, 3072), dtype=np.uint8)
            content = {"data": pixels, key: labels(per_batch, classes).tolist(), "dtype": OldDtype()}
            sums.append([name, write(name, content)])
        monkeypatch.setattr(reader, which, sums)
    names = {reader.meta["key"]: [f"class {n}" for n in range(classes)]}
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": write(reader.meta["filename"], names)})
    return folder


@pytest.mark.parametrize(("name", "reader", "count"), [("cifar10", CIFAR10, 40), ("cifar100", CIFAR100, 200)])
def test_cifar_is_read_from_the_cache_and_from_the_users_folder(name, reader, count, cache, tmp_path, monkeypatch):
    folder = write_cifar(cache, reader, monkeypatch, per_batch=count)
    dataset = datasets.load(name)
    assert_sound(dataset)
    assert (dataset.channels, dataset.resolution, dataset.flips) == (3, 32, True)
    assert len(dataset.classes) == (100 if reader is CIFAR100 else 10)
    assert dataset.classes[3] == "class 3"
    elsewhere = shutil.move(cache, tmp_path / "mine")
    for path in (elsewhere, elsewhere / folder.name):
        again = datasets.load(f"{name}:{path}")
        assert again.mean == dataset.mean
        assert again.name == f"{name}:{path}"


def test_cifar_pixels_are_those_of_torchvision(cache, monkeypatch):
    write_cifar(cache, CIFAR10, monkeypatch)
    expected, label = CIFAR10(cache, train=False)[7]
    test = datasets.load("cifar10").test
    assert np.array_equal(test.read(torch.tensor([7]))[0].permute(1, 2, 0).numpy(), np.asarray(expected))
    assert test.labels[7] == label


def test_cifars_failed_download_names_what_was_tried_and_the_remedy(cache):
    with pytest.raises(DataError, match=rf"not in {cache}/cifar-10-batches-py, .*tar.gz failed .*as cifar10:PATH"):
        datasets.load("cifar10")


def test_cifar_at_a_folder_without_it_names_the_files_that_lack(tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path}/cifar-100-python lacks train, test, meta; unpack"):
        datasets.load(f"cifar100:{tmp_path}")


def test_a_broken_batch_of_cifar_is_named(cache, monkeypatch):
    folder = write_cifar(cache, CIFAR10, monkeypatch)
    (folder / "data_batch_3").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"data_batch_3 must match its MD5; it does not; remove"):
        datasets.load("cifar10")


def test_the_test_batch_of_cifar_is_first_read_by_test(cache, monkeypatch):
    folder = write_cifar(cache, CIFAR10, monkeypatch)
    (folder / "test_batch").write_bytes(b"broken")
    dataset = datasets.load("cifar10")
    everything(dataset.whole_train)
    with pytest.raises(DataError, match=r"test_batch must match its MD5; it does not; remove"):
        _ = dataset.test


# --- folder


def picture(path, colour=RED, size=(40, 40), **options):
    """Write an image of noise around `colour`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(sum(path.name.encode())).integers(-20, 20, (size[1], size[0], 1))
    Image.fromarray((np.array(colour) + noise).astype(np.uint8)).save(path, **options)
    return path


def write_tree(root, *, count=8, classes=("cat", "dog"), colours=(RED, GREEN), **options):
    for name, colour in zip(classes, colours, strict=True):
        for n in range(count):
            picture(root / name / f"{n}.png", colour, **options)
    return root


def write_sets(root, *sets, **options):
    for name in sets:
        write_tree(root / name, **options)
    return root


def test_one_tree_is_split_into_three(tmp_path):
    dataset = datasets.load(f"folder:{write_tree(tmp_path / 'pets', count=20)}")
    assert_sound(dataset)
    assert dataset.name == f"folder:{tmp_path}/pets"
    assert dataset.classes == ("cat", "dog")
    assert (dataset.channels, dataset.resolution, dataset.flips) == (3, 32, True)
    assert [len(part.labels) for part in (dataset.train, dataset.validation, dataset.test)] == [30, 4, 6]


def test_the_split_of_a_tree_is_the_seeds(tmp_path):
    write_tree(tmp_path, count=20)
    first, again, other = (datasets.load(f"folder:{tmp_path}", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(everything(first.test), everything(again.test))
    assert torch.equal(everything(first.train), everything(again.train))
    assert not torch.equal(everything(first.test), everything(other.test))


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_of_two_sets_the_second_is_the_test_set(tmp_path, held_out):
    write_sets(tmp_path, "train", count=10)
    write_sets(tmp_path, held_out, count=7)
    dataset = datasets.load(f"folder:{tmp_path}", validation=0.2)
    assert_sound(dataset)
    assert [len(part.labels) for part in (dataset.train, dataset.validation, dataset.test)] == [16, 4, 14]


def test_of_three_sets_val_is_the_validation_part(tmp_path):
    for name, count in (("train", 10), ("val", 5), ("test", 4)):
        write_sets(tmp_path, name, count=count)
    dataset = datasets.load(f"folder:{tmp_path}")
    assert_sound(dataset)
    assert [len(part.labels) for part in (dataset.train, dataset.validation, dataset.test)] == [20, 10, 8]
    assert len(dataset.whole_train.labels) == 30


@pytest.mark.parametrize("sets", [["train"], ["val", "test"]])
def test_sets_that_do_not_make_a_whole_are_refused(tmp_path, sets):
    write_sets(tmp_path, *sets)
    found = " and ".join(sets)
    with pytest.raises(DataError, match=rf"train/ with val/ or test/ or both.* has {found} only; add what lacks"):
        datasets.load(f"folder:{tmp_path}")


def test_a_class_may_be_called_train(tmp_path):
    write_tree(tmp_path, classes=("plane", "train"))
    assert datasets.load(f"folder:{tmp_path}").classes == ("plane", "train")


@pytest.mark.parametrize(
    ("sizes", "resolution"), [([20, 20, 20], 20), ([32, 40, 50], 32), ([50, 70, 900], 64), ([300, 300, 20], 224)]
)
def test_the_resolution_is_a_usual_one_that_most_images_have(tmp_path, sizes, resolution):
    for name in ("a", "b"):
        for number, size in enumerate(sizes):
            picture(tmp_path / "train" / name / f"{number}.png", size=(size + 5, size))
    shutil.copytree(tmp_path / "train", tmp_path / "val")
    assert datasets.load(f"folder:{tmp_path}").resolution == resolution


def test_images_of_any_size_are_brought_to_the_resolution_asked_for(tmp_path):
    write_sets(tmp_path, "train", "val", count=3)
    picture(tmp_path / "train" / "cat" / "wide.png", size=(200, 10))
    picture(tmp_path / "train" / "cat" / "tall.jpg", size=(30, 400))
    dataset = datasets.load(f"folder:{tmp_path}", resolution=24)
    assert_sound(dataset)
    assert dataset.resolution == 24


def test_an_image_is_cropped_to_its_centre_square(tmp_path):
    write_sets(tmp_path, "train", "val", count=3, size=(16, 16))
    pixels = np.zeros((16, 48, 3), np.uint8)
    pixels[:, 16:32] = np.random.default_rng(0).integers(1, 256, (16, 16, 3))
    Image.fromarray(pixels).save(tmp_path / "val" / "cat" / "0.png")
    read = datasets.load(f"folder:{tmp_path}").test.read(torch.tensor([0]))[0]
    assert np.array_equal(read.permute(1, 2, 0).numpy(), pixels[:, 16:32])


def test_a_photo_is_turned_upright(tmp_path):
    write_sets(tmp_path, "train", "val", count=3, size=(16, 16))
    path = tmp_path / "val" / "cat" / "0.png"
    upright = np.asarray(Image.open(path))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view
    Image.fromarray(np.rot90(upright)).save(path, exif=exif)
    read = datasets.load(f"folder:{tmp_path}").test.read(torch.tensor([0]))[0]
    assert np.array_equal(read.permute(1, 2, 0).numpy(), upright)


def test_a_broken_exif_tag_is_no_broken_image(tmp_path):
    write_sets(tmp_path, "train", "val")
    picture(tmp_path / "train" / "cat" / "photo.jpg", exif=b"Exif\0\0nonsense")
    everything(datasets.load(f"folder:{tmp_path}").whole_train)


def test_grey_images_have_one_channel_whatever_their_mode(tmp_path):
    write_sets(tmp_path, "train", "val", "test", count=1, colours=(GREY, GREY))
    grey = Image.open(tmp_path / "train" / "cat" / "0.png").convert("L")
    for mode in ("L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
        assert image.mode == mode
        image.save(tmp_path / "train" / "cat" / f"mode {mode}.png")
    dataset = datasets.load(f"folder:{tmp_path}", resolution=40)
    assert dataset.channels == 1
    cats = everything(dataset.train)[dataset.train.labels == 0]
    assert len(cats) == 7
    assert all(np.array_equal(cat[0].numpy(), np.asarray(grey)) for cat in cats)


@pytest.mark.parametrize("mode", ["P", "RGB", "RGBA", "CMYK"])
def test_one_image_in_colour_makes_three_channels(tmp_path, mode):
    write_sets(tmp_path, "train", "val", colours=(GREY, GREY))
    path = picture(tmp_path / "train" / "cat" / "colour.tif", RED)
    Image.open(path).convert(mode).save(path)
    dataset = datasets.load(f"folder:{tmp_path}")
    assert_sound(dataset)
    assert dataset.channels == 3


def test_a_palette_with_transparency_is_read(tmp_path):
    write_sets(tmp_path, "train", "val")
    image = Image.open(tmp_path / "train" / "cat" / "0.png").convert("P")
    image.save(tmp_path / "train" / "cat" / "p.png", transparency=bytes(range(256)))
    everything(datasets.load(f"folder:{tmp_path}").whole_train)


def test_other_files_and_hidden_ones_are_left_out(tmp_path):
    write_sets(tmp_path, "train", "val")
    before = len(datasets.load(f"folder:{tmp_path}").whole_train.labels)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "cat" / "._0.png").write_text("a Mac wrote this")
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / "README.md").write_text("no class")
    assert len(datasets.load(f"folder:{tmp_path}").whole_train.labels) == before


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=rf"got {tmp_path}/gone, which is not there; check the path"):
        datasets.load(f"folder:{tmp_path}/gone")


def test_a_file_is_no_folder(tmp_path):
    path = picture(tmp_path / "a.png")
    with pytest.raises(DataError, match=rf"must name a folder; got {path}, which is none"):
        datasets.load(f"folder:{path}")


@pytest.mark.parametrize("name", ["folder", "npz"])
def test_a_path_is_needed(name):
    with pytest.raises(DataError, match=f"got none; type {name}:PATH"):
        datasets.load(name)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=rf"two classes or more; {tmp_path} has 0 \[\]; put images in {tmp_path}/CLASS/"
    ):
        datasets.load(f"folder:{tmp_path}")


def test_one_class_only_is_refused(tmp_path):
    write_tree(tmp_path, classes=("cat",), colours=(RED,))
    with pytest.raises(DataError, match=r"two classes or more; .* has 1 \['cat'\]; put images"):
        datasets.load(f"folder:{tmp_path}")


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_class_that_lacks_in_a_set_is_named_at_once(tmp_path, part):
    write_sets(tmp_path, "train", "val", "test")
    shutil.rmtree(tmp_path / part / "dog")
    with pytest.raises(
        DataError, match=rf"{tmp_path}/{part} has none of 'dog'; put images in {tmp_path}/{part}/CLASS/"
    ):
        datasets.load(f"folder:{tmp_path}")


def test_a_class_without_images_is_named(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "zebra").mkdir()
    with pytest.raises(DataError, match=rf"{tmp_path} has none of 'zebra'; put images"):
        datasets.load(f"folder:{tmp_path}")


def test_a_class_of_a_tree_with_two_images_is_named(tmp_path):
    write_tree(tmp_path)
    write_tree(tmp_path, classes=("fox",), colours=(GREY,), count=2)
    with pytest.raises(DataError, match=rf"at least 3 images, .*; {tmp_path} has 2 of 'fox'"):
        datasets.load(f"folder:{tmp_path}")


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_broken_header_is_found_at_once(tmp_path, content, part):
    write_sets(tmp_path, "train", "val", "test")
    path = tmp_path / part / "dog" / "0.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"^{path} must be an image; it cannot be read: .*; remove it or replace it$"):
        datasets.load(f"folder:{tmp_path}")


def test_of_many_broken_images_all_are_named(tmp_path):
    write_sets(tmp_path, "train", "val")
    for n in range(7):
        (tmp_path / "train" / "cat" / f"{n}.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"7 are broken, which --skip-broken leaves out") as caught:
        datasets.load(f"folder:{tmp_path}")
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()[1:]] == [
        f"  {tmp_path}/train/cat/{n}.png" for n in range(7)
    ]


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp", "bmp"])
def test_a_truncated_image_is_named_when_it_is_read(tmp_path, kind):
    write_sets(tmp_path, "train", "val", "test")
    path = picture(tmp_path / "val" / "dog" / f"cut.{kind}")
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
    with pytest.raises(DataError, match=rf"{path} must be an image; it cannot be read: .*; remove it or replace it$"):
        everything(datasets.load(f"folder:{tmp_path}").validation)


def test_a_floating_point_image_is_refused_by_name(tmp_path):
    write_sets(tmp_path, "train", "val")
    Image.fromarray(np.zeros((40, 40), np.float32)).save(tmp_path / "train" / "cat" / "0.tif")
    with pytest.raises(DataError, match=r"cat/0.tif must be an image; .*floating-point images are not supported"):
        datasets.load(f"folder:{tmp_path}")


def test_the_test_images_of_one_tree_are_first_decoded_by_test(tmp_path, monkeypatch):
    decoded = []
    original = folder.read_square
    monkeypatch.setattr(folder, "read_square", lambda path, *look: decoded.append(path) or original(path, *look))
    dataset = datasets.load(f"folder:{write_tree(tmp_path, count=20)}")
    everything(dataset.whole_train)
    before = set(decoded)
    everything(dataset.test)
    assert len(before) == 34
    assert len(set(decoded) - before) == 6


def test_images_are_decoded_once_where_they_fit_in_memory(tmp_path, monkeypatch):
    dataset = datasets.load(f"folder:{write_tree(tmp_path)}")
    pixels = everything(dataset.train)
    monkeypatch.setattr(Image, "open", lambda path: pytest.fail(f"{path} was opened again"))
    assert torch.equal(everything(dataset.train), pixels)


def test_images_are_decoded_at_each_read_where_they_do_not_fit(tmp_path, monkeypatch):
    write_tree(tmp_path)
    small = datasets.load(f"folder:{tmp_path}")
    monkeypatch.setattr(_shared, "MEMORY_LIMIT", 1)
    large = datasets.load(f"folder:{tmp_path}")
    for part in ("train", "whole_train", "test"):
        assert torch.equal(everything(getattr(small, part)), everything(getattr(large, part)))


# --- npz


def arrays(**changes):
    random = np.random.default_rng(0)
    content = {
        "x_train": random.integers(0, 256, (40, 16, 16), dtype=np.uint8),
        "y_train": labels(40, 4),
        "x_test": random.integers(0, 256, (12, 16, 16), dtype=np.uint8),
        "y_test": labels(12, 4).astype(np.int64),
    }
    return {name: array for name, array in (content | changes).items() if array is not None}


def write_npz(folder, **changes):
    path = folder / "data.npz"
    np.savez(path, **arrays(**changes))
    return path


def test_arrays_are_read_from_one_archive(tmp_path):
    dataset = datasets.load(f"npz:{write_npz(tmp_path)}")
    assert_sound(dataset)
    assert (dataset.channels, dataset.resolution, dataset.flips) == (1, 16, False)
    assert dataset.classes == ("0", "1", "2", "3")
    assert torch.equal(everything(dataset.test)[:, 0], torch.from_numpy(arrays()["x_test"]))


def test_arrays_may_be_in_colour_not_square_named_and_packed(tmp_path):
    random = np.random.default_rng(0)
    changes = {
        "x_train": random.integers(0, 256, (40, 16, 24, 3), dtype=np.uint8),
        "x_test": random.integers(0, 256, (12, 30, 20, 3), dtype=np.uint8),
        "y_train": labels(40, 4)[:, None],
        "classes": np.array(["a", "b", "c", "d"]),
    }
    np.savez_compressed(tmp_path / "data.npz", **arrays(**changes))
    dataset = datasets.load(f"npz:{tmp_path}/data.npz")
    assert_sound(dataset)
    assert (dataset.channels, dataset.resolution) == (3, 16)
    assert dataset.classes == ("a", "b", "c", "d")
    assert_sound(datasets.load(f"npz:{tmp_path}/data.npz", resolution=20))


def test_an_archive_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=rf"must name a file; got {tmp_path}/gone.npz, which is not there"):
        datasets.load(f"npz:{tmp_path}/gone.npz")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_a_file_that_is_no_archive_is_named(tmp_path, content):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{path} must be a NumPy archive .*; write it by numpy.savez"):
        datasets.load(f"npz:{path}")


@pytest.mark.parametrize("name", ["x_train", "y_train", "x_test", "y_test"])
def test_a_missing_array_is_named_at_once(tmp_path, name):
    path = write_npz(tmp_path, **{name: None})
    with pytest.raises(DataError, match=f"it lacks {name}; write it by"):
        datasets.load(f"npz:{path}")


BAD_ARRAYS = {
    "floats": (
        "x_train",
        np.linspace(0, 1, 2560, dtype=np.float32).reshape(40, 8, 8),
        r"float32 \[40, 8, 8\], 0 to 1;",
    ),
    "NaN": ("x_train", np.full((40, 8, 8), np.nan), r"float64 \[40, 8, 8\], 2560 of it NaN; scale"),
    "int64 images": ("x_train", np.zeros((40, 8, 8), np.int64), "must be uint8; it is int64"),
    "flat images": ("x_train", np.zeros((40, 64), np.uint8), r"it is \[40, 64\]; reshape"),
    "channels first": ("x_train", np.zeros((40, 3, 8, 8), np.uint8), r"it is \[40, 3, 8, 8\]; .*x.transpose"),
    "no images": ("x_train", np.zeros((0, 8, 8), np.uint8), r"it is \[0, 8, 8, 1\]"),
    "pickled images": ("x_train", np.array([None] * 40), "x_train of .* must be a plain array; it cannot be read"),
    "fewer images": ("x_train", np.zeros((39, 8, 8), np.uint8), "has 39 images, y_train has 40 labels"),
    "equal pixels": ("x_train", np.zeros((40, 8, 8), np.uint8), "all pixels of the training part .* are equal"),
    "NaN labels": ("y_train", np.full(40, np.nan), "must be integers; .* 40 of it NaN"),
    "one-hot labels": ("y_train", np.eye(4, dtype=np.int64)[labels(40, 4)], r"it is \[40, 4\]; .*argmax"),
    "no labels": ("y_train", np.zeros(0, np.int64), r"it is \[0\]"),
    "negative labels": ("y_train", labels(40, 4).astype(int) - 1, "labels must be 0 to 2; .* has -1 to 2"),
    "huge labels": ("y_train", labels(40, 4).astype(int) * 10**9, "goes to 3000000000 with 40 images; renumber"),
    "a gap": ("y_train", labels(40, 4) * 2, "y_train of .* has none of '1', '3', '5'"),
    "one class": ("y_train", np.zeros(40, np.int64), r"two classes or more; y_train of .* has 1 \['0'\]"),
    "one image of a class": ("y_train", np.array([0] * 39 + [1]), "at least 2 images, .* has 1 of '1'"),
    "too few names": ("classes", np.array(["a", "b", "c"]), "labels must be 0 to 2; .* has 0 to 3"),
    "too many names": ("classes", np.array(list("abcdefghijk")), "'e', 'f', 'g', 'h', 'i' and 2 more; mend"),
    "equal names": ("classes", np.array(list("aacd")), "must be distinct names"),
    "numbers for names": ("classes", np.arange(4), "classes of .* must be distinct names; it is int64"),
}


@pytest.mark.parametrize(("name", "array", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_an_unfit_array_is_named(tmp_path, name, array, message):
    path = write_npz(tmp_path, **{name: array})
    with pytest.raises(DataError, match=message) as caught:
        datasets.load(f"npz:{path}")
    assert str(path) in str(caught.value)


BAD_TEST_ARRAYS = {
    "lengths": ("y_test", labels(11, 4), "x_test .* has 12 images, y_test has 11 labels"),
    "a class that lacks": ("y_test", labels(12, 3), "y_test of .* has none of '3'"),
    "an unknown class": ("y_test", labels(12, 5), "labels must be 0 to 3; y_test of .* has 0 to 4"),
    "other channels": ("x_test", np.zeros((12, 8, 8, 3), np.uint8), "1 channels like the others; .* has 3"),
    "pickled": ("x_test", np.array([None] * 12), "x_test of .* must be a plain array"),
}


@pytest.mark.parametrize(("name", "array", "message"), BAD_TEST_ARRAYS.values(), ids=BAD_TEST_ARRAYS.keys())
def test_the_test_arrays_are_first_read_by_test(tmp_path, name, array, message):
    dataset = datasets.load(f"npz:{write_npz(tmp_path, **{name: array})}")
    everything(dataset.whole_train)
    with pytest.raises(DataError, match=message):
        _ = dataset.test


def test_a_corrupted_archive_is_named(tmp_path):
    path = write_npz(tmp_path)
    content = bytearray(path.read_bytes())
    content[1000] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"x_train of {path} must be a plain array; it cannot be read"):
        datasets.load(f"npz:{path}")


def test_a_foreign_file_in_the_archive_is_named(tmp_path):
    path = write_npz(tmp_path, y_train=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("y_train", "no array")
    with pytest.raises(DataError, match=rf"y_train of {path} must be a plain array; .* it is a file of another kind"):
        datasets.load(f"npz:{path}")
