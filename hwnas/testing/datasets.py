"""What every data set must keep to."""

from itertools import combinations

import pytest
import torch

from hwnas.datasets import Dataset, Images


def _pixels(images: Images) -> torch.Tensor:
    return images.read(torch.arange(len(images.labels)))


class DatasetContract:
    """Takes the fixture `dataset`: a data set as it was loaded, small enough to be read whole."""

    def test_its_parts_are_images_of_its_classes(self, dataset: Dataset) -> None:
        for images in (dataset.train, dataset.validation, dataset.test):
            pixels = _pixels(images)
            assert pixels.dtype == torch.uint8
            assert pixels.shape[1:] == (dataset.channels, dataset.resolution, dataset.resolution)
            assert images.labels.dtype == torch.int64
            assert len(images.labels) == len(pixels) > 0
            assert int(images.labels.min()) >= 0
            assert int(images.labels.max()) < len(dataset.classes)

    def test_training_has_every_class(self, dataset: Dataset) -> None:
        assert set(dataset.train.labels.tolist()) == set(range(len(dataset.classes)))
        assert len(set(dataset.classes)) == len(dataset.classes)

    def test_images_come_in_the_order_asked_for_and_any_number_of_times(self, dataset: Dataset) -> None:
        pixels = _pixels(dataset.train)
        wanted = torch.tensor([2, 0, 2])
        assert torch.equal(dataset.train.read(wanted), pixels[wanted])

    def test_the_whole_training_set_is_its_two_parts(self, dataset: Dataset) -> None:
        parts = torch.cat([_pixels(dataset.train), _pixels(dataset.validation)])
        assert torch.equal(_pixels(dataset.whole_train), parts)

    def test_mean_and_spread_are_those_of_the_training_part(self, dataset: Dataset) -> None:
        shares = _pixels(dataset.train).double() / 255
        assert dataset.mean == pytest.approx(shares.mean(dim=(0, 2, 3)).tolist(), abs=1e-3)
        assert dataset.std == pytest.approx(shares.std(dim=(0, 2, 3), correction=0).tolist(), abs=1e-3)

    def test_no_image_is_in_two_parts(self, dataset: Dataset) -> None:
        """Images that differ are meant: give a data set without doubles."""
        parts = [
            {bytes(image.numpy().tobytes()) for image in _pixels(images)}
            for images in (dataset.train, dataset.validation, dataset.test)
        ]
        assert not any(one & other for one, other in combinations(parts, 2))
