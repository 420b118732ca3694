"""Whole images through a network that sees patches."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from medssl import sliding_window
from medssl.errors import InputError
from medssl.sliding_window import Importance, available_bytes, estimate_bytes, predict_windows


class Thresholds(nn.Module):
    """Class c where the intensity is nearest to c: its answer at a voxel depends on that voxel alone."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.arange(classes, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        return -10 * (x[:, :1] - self.levels.view(1, -1, *(1 for _ in x.shape[2:]))).square()


def convolution(classes: int, dims: int = 3) -> nn.Module:
    torch.manual_seed(0)
    kind = nn.Conv3d if dims == 3 else nn.Conv2d
    return kind(1, classes, 5, padding=2)


def random_labels(shape: Sequence[int], classes: int = 4) -> Tensor:
    return torch.randint(0, classes, tuple(shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("shape", [(20, 31, 17), (5, 30, 3), (8, 8, 8), (1, 1, 1), (9, 40, 16)])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("importance", ["gaussian", "constant"])
def test_every_voxel_gets_its_own_answer(shape: tuple[int, ...], batch_size: int, importance: Importance) -> None:
    labels = random_labels(shape)
    found = predict_windows(
        Thresholds(4), labels[None].float(), (8, 8, 8), 4, batch_size=batch_size, importance=importance
    )
    assert found.dtype == torch.uint8
    assert torch.equal(found, labels)


@pytest.mark.parametrize("shape", [(20, 31), (5, 30), (1, 1)])
def test_a_2d_network_segments_a_2d_image(shape: tuple[int, ...]) -> None:
    labels = random_labels(shape)
    assert torch.equal(predict_windows(Thresholds(4), labels[None].float(), (8, 12), 4), labels)


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_a_2d_network_segments_a_volume_slice_by_slice(slice_axis: int) -> None:
    network = convolution(4, dims=2)
    image = torch.randn(1, 9, 10, 11, generator=torch.Generator().manual_seed(0))
    patch = [n for axis, n in enumerate((9, 10, 11)) if axis != slice_axis]
    found = predict_windows(network, image, patch, 4, slice_axis=slice_axis, batch_size=4)
    with torch.no_grad():
        expected = [network(plane[None]).argmax(1)[0] for plane in image.unbind(1 + slice_axis)]
    assert torch.equal(found.long(), torch.stack(expected, slice_axis))


@pytest.mark.parametrize("shape", [(24, 24, 16), (16, 24, 40)])
def test_agrees_with_monai_where_the_windows_coincide(shape: tuple[int, ...]) -> None:
    network = convolution(5)
    image = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    probabilities = torch.zeros(5, *shape)
    found = predict_windows(network, image, (16, 16, 16), 5, importance="constant", probabilities=probabilities)
    with torch.no_grad():
        logits = sliding_window_inference(image[None], (16, 16, 16), 1, network, overlap=0.5, mode="constant")
    torch.testing.assert_close(probabilities, logits[0].softmax(0))
    assert torch.equal(found.long(), logits[0].argmax(0))


def test_half_precision_probabilities_have_the_same_best_class() -> None:
    image = torch.randn(1, 20, 20, 20, generator=torch.Generator().manual_seed(1))
    probabilities = torch.zeros(5, 20, 20, 20, dtype=torch.float16)
    found = predict_windows(convolution(5), image, (12, 12, 12), 5, probabilities=probabilities)
    best = probabilities.gather(0, found.long()[None])[0]
    assert torch.equal(best, probabilities.amax(0))  # ties of half precision aside
    torch.testing.assert_close(probabilities.float().sum(0), torch.ones(20, 20, 20), atol=2e-3, rtol=0)


def test_a_constant_answer_is_blended_to_itself_at_every_voxel() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([0.2, 1.7, -0.4]).view(1, 3, 1, 1, 1).expand(len(x), 3, *x.shape[2:])

    probabilities = torch.zeros(3, 23, 9, 14)
    predict_windows(Constant(), torch.zeros(1, 23, 9, 14), (8, 8, 8), 3, overlap=0.3, probabilities=probabilities)
    expected = torch.tensor([0.2, 1.7, -0.4]).softmax(0).view(3, 1, 1, 1).expand_as(probabilities)
    torch.testing.assert_close(probabilities, expected)


def test_the_first_of_several_outputs_is_the_answer() -> None:
    class DeeplySupervised(Thresholds):
        def forward(self, x: Tensor) -> Tensor:  # returns a list on purpose
            finest = super().forward(x)
            return [finest, finest[..., ::2]]

    labels = random_labels((10, 10, 10))
    assert torch.equal(predict_windows(DeeplySupervised(4), labels[None].float(), (8, 8, 8), 4), labels)


def test_mirroring_makes_the_answer_to_a_mirror_image_the_mirrored_answer() -> None:
    network = convolution(4)
    mirrored = (0, 2, 1, 3)
    image = torch.randn(1, 20, 12, 12, generator=torch.Generator().manual_seed(2))
    there = predict_windows(network, image, (8, 8, 8), 4, mirrored=mirrored)
    back = predict_windows(network, image.flip(1), (8, 8, 8), 4, mirrored=mirrored).flip(0)
    swapped = torch.tensor(mirrored, dtype=torch.uint8)[back.long()]
    assert (there == swapped).float().mean() > 0.999  # the sums of both may differ in the last bit
    alone = predict_windows(network, image, (8, 8, 8), 4)
    assert (alone != there).float().mean() > 0.05


def test_the_network_is_evaluated_without_dropout_and_trains_on_afterwards() -> None:
    network = nn.Sequential(nn.Dropout(0.9), Thresholds(4)).train()
    labels = random_labels((8, 8, 8))
    assert torch.equal(predict_windows(network, labels[None].float(), (8, 8, 8), 4), labels)
    assert network.training and network[0].training


def test_bfloat16_gives_the_same_classes_where_they_are_clear() -> None:
    labels = random_labels((12, 12, 12))
    image = labels[None].float()
    assert torch.equal(predict_windows(Thresholds(4), image, (8, 8, 8), 4, precision=torch.bfloat16), labels)


def test_the_estimate_does_not_grow_with_the_length_of_the_longest_axis() -> None:
    short = estimate_bytes((64, 64, 128), (32, 32, 32), 28)
    long = estimate_bytes((64, 64, 1280), (32, 32, 32), 28)
    assert long - short == 64 * 64 * (1280 - 128)  # the class indices alone
    assert short > 4 * 28 * 64 * 64 * 32


def test_too_little_memory_is_said_before_the_network_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliding_window.psutil, "virtual_memory", lambda: SimpleNamespace(available=2**20))
    network = Thresholds(4)
    network.forward = pytest.fail  # it must not be reached
    with pytest.raises(InputError, match=r"needs \d+\.\d GiB .* 0\.0 GiB are free"):
        predict_windows(network, torch.zeros(1, 64, 64, 64), (32, 32, 32), 4)


def test_the_limit_of_a_container_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "max").write_text("1000\n")
    (tmp_path / "current").write_text("400\n")
    monkeypatch.setattr(sliding_window, "_CGROUP_FILES", ((str(tmp_path / "max"), str(tmp_path / "current")),))
    assert available_bytes(torch.device("cpu")) == 600
    (tmp_path / "max").write_text("max\n")
    assert available_bytes(torch.device("cpu")) > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch_size": (8,)}, "does not fit"),
        ({"patch_size": (8, 8, 8, 8)}, "does not fit"),
        ({"overlap": 1.0}, r"\[0, 1\)"),
        ({"classes": 300}, "1 to 256"),
        ({"classes": 5}, "into 5 classes"),
        ({"mirrored": (0, 1, 1, 3)}, "another order"),
        ({"patch_size": (8, 8), "slice_axis": 0, "mirrored": (0, 1, 2, 3)}, "no left and right"),
        ({"patch_size": (8, 8), "slice_axis": 3}, "axes 0, 1 and 2"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, object], message: str) -> None:
    arguments = {"patch_size": (8, 8, 8), "classes": 4, **arguments}
    with pytest.raises(ValueError, match=message):
        predict_windows(Thresholds(4), torch.zeros(1, 8, 8, 8), **arguments)
