"""A linear decoder reads what is linearly there, and the encoder does not notice."""

from dataclasses import replace
from math import isnan

import numpy as np
import pytest
import torch
from torch import Generator, nn
from torch.nn import functional as F

from medssl.data.prepared import PreparedDataset
from medssl.errors import InputError
from medssl.evaluation.segmentation_probe import LinearDecoder, probe_segmentation
from medssl.labels.lut import LabelSet
from medssl.networks import build_network
from medssl.networks.encoder import Encoder
from medssl.networks.segmentation import SegmentationNetwork

both_dims = pytest.mark.parametrize("dims", [2, 3])
FEW = {"crops": 6, "steps": 150}


class Pyramid(Encoder):
    """The image and its averages: nothing learnt, all of it known."""

    def __init__(self, dims, strides=(1, 2), scale=1.0):
        super().__init__()
        self.channels, self.strides, self.spatial_dims, self.in_channels = (
            (2, *[1] * (len(strides) - 1)),
            strides,
            dims,
            1,
        )
        self.scale = nn.Parameter(torch.tensor(scale))
        self.norm = (nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d)(1)

    def forward(self, x):
        x = self.norm(x) * self.scale
        pool = F.avg_pool2d if self.spatial_dims == 2 else F.avg_pool3d
        first, *others = (pool(x, stride) for stride in self.strides)
        return [torch.cat([first, first.square()], dim=1), *others]


def scans(dims, count=4, side=20, seed=0):
    """Noisy images of a dark and a bright box on grey, with class indices."""
    drawn = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        label = np.zeros([side] * dims, np.uint8)
        at = rng.integers(1, 4)
        label[(slice(at, at + 7),) * dims] = 1
        label[(slice(side - 8, side - at),) * dims] = 2
        image = np.array([0.0, -1, 1])[label] + rng.normal(0, 0.15, label.shape)
        drawn.append((torch.from_numpy(image).float()[None], torch.from_numpy(label)))
    return drawn


def probe(encoder, dims, train=None, test=None, **arguments):
    given = {"structures": ["dark", "bright"], **FEW, **arguments}
    return probe_segmentation(encoder, train or scans(dims), test or scans(dims, 2, seed=1), [8] * dims, **given)


def decoder_of(encoder, classes=3, stride=None, seed=0):
    """A decoder with random weights and statistics."""
    decoder, generator = LinearDecoder(encoder, classes, stride), Generator().manual_seed(seed)
    for tensor in (decoder.weight, decoder.bias, decoder.mean):
        tensor.data.normal_(generator=generator)
    decoder.std.uniform_(0.5, 2, generator=generator)
    return decoder.double()


@both_dims
@pytest.mark.parametrize("strides", [(1, 2, 4), (2, 4)])
def test_it_is_one_convolution_of_the_up_sampled_concatenated_features(dims, strides):
    encoder = Pyramid(dims, strides).double().eval()
    decoder = decoder_of(encoder)
    image = torch.randn(2, 1, *[8] * dims, generator=Generator().manual_seed(1), dtype=torch.float64)
    features = encoder(image)
    mode = "bilinear" if dims == 2 else "trilinear"
    stacked = torch.cat([F.interpolate(f, features[0].shape[2:], mode=mode) for f in features], dim=1)
    along = (1, -1, *[1] * dims)
    standardised = (stacked - decoder.mean.view(along)) / decoder.std.view(along)
    convolve = F.conv2d if dims == 2 else F.conv3d
    logits = convolve(standardised, decoder.weight[(..., *[None] * dims)], decoder.bias)
    assert torch.allclose(decoder(image, features), F.interpolate(logits, image.shape[2:], mode=mode))


@both_dims
def test_feature_maps_can_meet_on_a_finer_or_coarser_grid(dims):
    encoder = Pyramid(dims, (2, 4)).double().eval()
    image = torch.randn(1, 1, *[8] * dims, generator=Generator().manual_seed(1), dtype=torch.float64)
    for stride in (1, 2, 4):
        assert decoder_of(encoder, stride=stride)(image, encoder(image)).shape == (1, 3, *[8] * dims)


@pytest.mark.parametrize("name", ["unet", "sdnet", "fcn"])
@both_dims
def test_it_is_built_from_the_contract_of_any_encoder(name, dims):
    encoder = build_network(name, 1, 2, dims).encoder
    side = max(encoder.strides)
    network = SegmentationNetwork(encoder, LinearDecoder(encoder, 5)).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 1, *[2 * side] * dims)).shape == (1, 5, *[2 * side] * dims)


def test_standardising_takes_mean_and_deviation_over_all_places_and_leaves_dead_channels_alone():
    encoder = Pyramid(2)
    samples = [[torch.randn(2, 8, 8), torch.randn(1, 4, 4)] for _ in range(3)]
    for sample in samples:
        sample[0][1] = 4  # a channel that never varies
    decoder = LinearDecoder(encoder, 2)
    decoder.standardise(samples)
    first = torch.stack([sample[0][0] for sample in samples])
    assert decoder.mean[0] == pytest.approx(float(first.mean()), abs=1e-6)
    assert decoder.std[0] == pytest.approx(float(first.std(correction=0)))
    assert (decoder.mean[1], decoder.std[1]) == (4, 1)


@both_dims
def test_what_the_features_say_is_read(dims):
    scores = probe(Pyramid(dims), dims)
    assert list(scores) == ["dice/dark", "dice/bright", "dice/mean"]
    assert scores["dice/mean"] == pytest.approx((scores["dice/dark"] + scores["dice/bright"]) / 2)
    assert scores["dice/mean"] > 0.9


def test_features_that_say_nothing_are_worth_nothing():
    assert probe(Pyramid(2, scale=0.0), 2)["dice/mean"] < 0.4


def test_the_scale_of_the_features_does_not_matter():
    once, again = (probe(Pyramid(2, scale=scale), 2)["dice/mean"] for scale in (1.0, 300.0))
    assert again == pytest.approx(once, abs=0.02)


@both_dims
def test_the_frozen_encoder_is_left_as_it_was_bit_for_bit(dims):
    encoder = Pyramid(dims).train()
    encoder.norm.eval()  # a mode of its own
    encoder.scale.grad = torch.tensor(7.0)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    probe(encoder, dims, steps=5)
    after = encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert encoder.training and not encoder.norm.training
    assert encoder.scale.requires_grad and encoder.scale.grad == 7
    assert encoder.norm.weight.grad is None


def test_an_encoder_is_put_back_into_its_mode_when_a_scan_is_refused():
    encoder = Pyramid(2).train()
    with pytest.raises(InputError):
        probe(encoder, 2, train=[(torch.zeros(1, 8, 8), torch.zeros(8, 9, dtype=torch.uint8))])
    assert encoder.training and encoder.norm.training


@pytest.mark.parametrize("without_gradient", [torch.no_grad, torch.inference_mode])
def test_it_trains_in_the_middle_of_a_validation_too(without_gradient):
    outside = probe(Pyramid(2), 2, steps=20)
    encoder = Pyramid(2)
    with without_gradient():
        assert probe(encoder, 2, steps=20) == outside


def test_the_same_seed_gives_the_same_scores_and_draws_from_nobody_else():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    once, again, other = (probe(Pyramid(2), 2, steps=20, seed=seed) for seed in (3, 3, 4))
    assert once == again != other
    assert torch.equal(torch.get_rng_state(), state)


def test_crops_go_through_the_encoder_once():
    class Counting(Pyramid):
        seen = 0

        def forward(self, x):
            self.seen += len(x) * (x.shape[-1] == 8)
            return super().forward(x)

    few, many = Counting(2), Counting(2)
    probe(few, 2, steps=2)
    probe(many, 2, steps=60)
    assert few.seen == many.seen


def test_a_structure_that_no_test_scan_holds_is_nan_and_not_in_the_mean():
    test = [(image, torch.where(label == 2, 0, label)) for image, label in scans(2, 2, seed=1)]
    image_without = [(torch.where(image > 0.5, 0, image), label) for image, label in test]
    scores = probe(Pyramid(2), 2, test=image_without)
    assert scores["dice/bright"] == 0 or isnan(scores["dice/bright"])
    empty = [(torch.zeros(1, 16, 16), torch.zeros(16, 16, dtype=torch.uint8))]
    assert isnan(probe(Pyramid(2), 2, test=empty, structures=["dark", "bright", "third"])["dice/third"])


def test_scans_smaller_than_the_patch_and_arrays_are_taken():
    small = [(image.numpy()[:, :20, :6], label.numpy()[:20, :6]) for image, label in scans(2)]
    assert probe(Pyramid(2), 2, train=small, test=small)["dice/dark"] > 0.8


def test_prepared_scans_are_probed_by_the_names_of_their_structures(prepared_cohort):
    data = PreparedDataset(prepared_cohort)
    train, test = data.select(data.subjects[:3]), data.select(data.subjects[3:4])
    torch.manual_seed(0)
    encoder = build_network("unet", 1, 4, 3, channels=(16, 32, 64)).encoder
    scores = probe_segmentation(encoder, train, test, (16, 16, 16), crops=8, steps=150)
    assert list(scores) == ["dice/Left-Box", "dice/Right-Box", "dice/Ball", "dice/mean"]
    assert scores["dice/mean"] > 0.2
    with pytest.raises(InputError, match="Subject"):
        probe_segmentation(encoder, train, train, (16, 16, 16))
    test.description = replace(test.description, label_set=LabelSet("other", test.label_set.structures[:2]))
    with pytest.raises(InputError, match="prepared with different structures"):
        probe_segmentation(encoder, train, test, (16, 16, 16))


def test_fewer_crops_than_scans_are_drawn_from_some_of_them():
    assert probe(Pyramid(2), 2, train=scans(2, 8), crops=5)["dice/mean"] > 0.8


def test_what_does_not_fit_is_refused_by_the_number_of_the_scan():
    good = scans(2)
    encoder = Pyramid(2, (1, 4))
    with pytest.raises(InputError, match="scans to train and to test on, got 0 and 4"):
        probe_segmentation(encoder, [], good, (8, 8), ["a", "b"])
    with pytest.raises(InputError, match="have no names"):
        probe_segmentation(encoder, good, good, (8, 8))
    with pytest.raises(InputError, match="does not fit 2D images"):
        probe_segmentation(encoder, good, good, (8, 8, 8), ["a", "b"])
    with pytest.raises(InputError, match="must be a multiple of 4"):
        probe_segmentation(encoder, good, good, (6, 6), ["a", "b"])
    with pytest.raises(InputError, match=r"the label must hold class indices 0 to 1, got torch\.uint8 from 0 to 2"):
        probe_segmentation(encoder, good, good, (8, 8), ["a"])
    shifted = [(image[:, 1:], label) for image, label in good]
    with pytest.raises(
        InputError, match=r"Scan 0: the image \(C, \*spatial\) is \(1, 19, 20\), the label .* \(20, 20\)"
    ):
        probe_segmentation(encoder, good, shifted, (8, 8), ["a", "b"], steps=1)
