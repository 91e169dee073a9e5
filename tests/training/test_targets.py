"""Mixed images: what they are made of, and what is wanted of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import repeatable
from torch.nn import functional as F

from hwnas.training.targets import class_weights, mixed, soft_labels

CLASSES = 8


def batch(size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images whose pixels all say their number, and soft labels that say it, too."""
    numbers = torch.arange(CLASSES)
    return numbers.float().reshape(-1, 1, 1, 1).expand(-1, 2, size, size + 1).clone(), F.one_hot(numbers).float()


def test_soft_labels_are_smoothed_as_torch_smooths() -> None:
    logits, labels = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    soft = soft_labels(labels, torch.ones(3), smoothing=0.1)
    assert soft.sum(1).tolist() == pytest.approx([1] * 5)
    expected = F.cross_entropy(logits, labels, label_smoothing=0.1)
    assert F.cross_entropy(logits, soft).item() == pytest.approx(expected.item())


def test_weighed_classes_count_alike_and_the_mean_weight_is_1() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [3])
    weights = class_weights(labels, 4)
    assert weights[labels].mean().item() == pytest.approx(1)
    sums = [weights[labels[labels == label]].sum().item() for label in (0, 1, 3)]
    assert sums == pytest.approx([10 / 3] * 3)
    assert class_weights(torch.tensor([0, 1, 1, 0]), 2).tolist() == [1, 1]


def test_an_images_loss_counts_by_the_weight_of_its_class() -> None:
    logits, labels, weights = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0]), torch.tensor([0.5, 2.0, 1.0])
    each = F.cross_entropy(logits, labels, label_smoothing=0.1, reduction="none")
    weighed = F.cross_entropy(logits, soft_labels(labels, weights, smoothing=0.1))
    assert weighed.item() == pytest.approx((each * weights[labels]).mean().item())


@given(alpha=st.sampled_from([0.2, 1.0, 8.0]), size=st.integers(1, 9), seed=st.integers(0, 10**18))
@repeatable(40)
def test_labels_are_mixed_as_the_pixels_are(alpha: float, size: int, seed: int) -> None:
    numbers = torch.arange(CLASSES).float()
    for options in ({"mixup": alpha, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": alpha}, {"mixup": 1.0, "cutmix": alpha}):
        images, wanted = mixed(*batch(size), seed=seed, **options)
        assert wanted.sum(1).tolist() == pytest.approx([1] * CLASSES)
        assert torch.allclose(images.mean((1, 2, 3)), wanted @ numbers, atol=1e-4)


def test_mixup_averages_whole_images_and_cutmix_pastes_a_rectangle() -> None:
    averaged, _ = mixed(*batch(), mixup=1.0, cutmix=0.0, seed=1)
    assert (averaged == averaged[:, :1, :1, :1]).all()
    pasted, wanted = mixed(*batch(), mixup=0.0, cutmix=1.0, seed=4)
    is_own = pasted == torch.arange(CLASSES).float().reshape(-1, 1, 1, 1)
    changed = ~is_own[wanted.amax(1) < 1]
    assert len(changed)
    assert (changed == changed[:1, :1]).all()  # one rectangle for the batch
    rows, columns = changed[0, 0].any(1), changed[0, 0].any(0)
    assert torch.equal(changed[0, 0], rows[:, None] & columns)


def test_with_both_a_batch_takes_one_by_chance() -> None:
    pastes = []
    for seed in range(200):
        images, wanted = mixed(*batch(), mixup=1.0, cutmix=1.0, seed=seed)
        pastes.append(bool((images == images.round()).all()) and not torch.equal(wanted, torch.eye(CLASSES)))
    assert 60 < sum(pastes) < 120  # half, but for those whose rectangle is empty


def test_a_seed_decides_how_images_are_mixed() -> None:
    first, second, other = (mixed(*batch(), mixup=0.4, cutmix=1.0, seed=seed) for seed in (3, 3, 4))
    assert all(map(torch.equal, first, second))
    assert not torch.equal(first[0], other[0])
