"""Sound as a picture, the three comparisons in closed form, false pairs, and a small world that is learnt."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sounding import write_sounding
from torch import Tensor

from medssl.augment import generators
from medssl.clip_augment import ClipAugment
from medssl.data.clips import ClipNeeds, Single, Sound
from medssl.data.prepared_recordings import RecordingPreparation
from medssl.data.streamed_clips import StreamedClips
from medssl.data.streamed_recordings import StreamedRecordings
from medssl.errors import InputError
from medssl.method import as_read
from medssl.methods.audio_visual import (
    AudioVisual,
    Concatenation,
    Distance,
    ScalarProduct,
    euclidean,
    heated,
    partners,
)
from medssl.networks import build_encoder
from medssl.networks.audio import SoundEncoder
from medssl.sample import Batch
from medssl.spectrogram import frequencies, log_spectrogram

HEADS = ("l3", "ave", "avol")
RATE, SAMPLES, SIDE, RADIUS, STRIDE = 4000, 500, 48, 8, 8
COLOURS = torch.tensor([[0.9, 0.2, 0.2], [0.2, 0.8, 0.3], [0.2, 0.3, 0.9]])
PITCHES = torch.tensor([200.0, 600.0, 1500.0])


def built(head: Any = "avol", **arguments: Any) -> AudioVisual:
    torch.manual_seed(0)
    encoder = build_encoder("unet", 3, 2, channels=[8, 16, 16], norm="group")
    small = {"width": 16, "stride": STRIDE, "sound_channels": [4, 8], "rate": RATE, "seconds": SAMPLES / RATE}
    return AudioVisual(encoder, head, **(small | {"augment": ClipAugment(colours=0)} | arguments))


def tones(kind: Tensor, draw: torch.Generator) -> Tensor:
    """A tone of each kind's pitch with any phase, and a little noise, (B, N)."""
    phase = torch.rand(len(kind), 1, generator=draw)
    sound = 0.3 * torch.sin(2 * math.pi * (PITCHES[kind].unsqueeze(1) * torch.arange(SAMPLES) / RATE + phase))
    return sound + 0.01 * torch.randn(len(kind), SAMPLES, generator=draw)


def world(count: int, seed: int) -> tuple[Batch, Tensor]:
    """Clips of a blob somewhere, whose colour says how it sounds; and which pixels it covers, (B, H, W)."""
    draw = torch.Generator().manual_seed(seed)
    kind = torch.randint(0, len(PITCHES), (count,), generator=draw)
    middle = torch.randint(RADIUS, SIDE - RADIUS, (count, 2, 1, 1), generator=draw)
    rows, columns = torch.arange(SIDE).view(1, -1, 1), torch.arange(SIDE).view(1, 1, -1)
    blob = (rows - middle[:, 0]) ** 2 + (columns - middle[:, 1]) ** 2 <= RADIUS**2
    ground = 0.4 + 0.1 * torch.rand(count, 3, SIDE, SIDE, generator=draw)
    image = torch.where(blob.unsqueeze(1), COLOURS[kind].view(-1, 3, 1, 1), ground)
    sounds = {"sound": tones(kind, draw), "other_sound": tones(kind, draw)}
    numbers = {"index": kind, "seed": 1000 * seed + torch.arange(count)}
    return {"clip": image.unsqueeze(1), **sounds, **numbers}, blob


def test_the_spectrogram_is_that_of_a_naive_fourier_transform() -> None:
    window, step, size = 12, 6, 16
    sound = np.random.default_rng(0).uniform(-1, 1, 60)
    around = np.pad(sound, 5, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    expected = np.zeros((9, 10))
    for t in range(10):
        heard = around[t * step + 2 : t * step + 2 + window] * hann
        for k in range(9):
            wave = np.exp(-2j * np.pi * k * np.arange(window) / size)
            decibel = 20 * np.log10(max(2 * abs((heard * wave).sum()) / hann.sum(), 1e-4))
            expected[k, t] = 1 + decibel / 80
    found = log_spectrogram(torch.from_numpy(sound)[None], window)
    assert frequencies(window) == 9
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-12)


def test_a_second_at_48_khz_gives_the_papers_257_by_200() -> None:
    assert log_spectrogram(torch.zeros(1, 48_000)).shape == (1, 1, 257, 200)


def test_a_full_sine_is_1_at_its_frequency_and_silence_is_0() -> None:
    time = torch.arange(4800) / 48_000
    shown = log_spectrogram(torch.sin(2 * math.pi * 6000 * time)[None])[0, 0]
    assert shown[:, 10].argmax() == 6000 * 512 // 48_000
    torch.testing.assert_close(shown[:, 10].max(), torch.tensor(1.0), atol=1e-3, rtol=0)
    assert not log_spectrogram(torch.zeros(1, 4800)).any()


def test_ten_times_the_amplitude_is_a_quarter_more() -> None:
    sound = 0.05 * torch.sin(torch.arange(4800) * 0.3)[None]
    louder, soft = log_spectrogram(10 * sound), log_spectrogram(sound)
    heard = soft > 0.01
    torch.testing.assert_close(louder[heard], soft[heard] + 0.25)


def test_in_mixed_precision_the_spectrogram_keeps_its_digits() -> None:
    sound = torch.rand(1, 960) - 0.5
    with torch.autocast("cpu", torch.bfloat16):
        mixed = log_spectrogram(sound)
    assert mixed.dtype == torch.float32 and torch.equal(mixed, log_spectrogram(sound))


def test_a_sound_of_less_than_two_windows_is_refused() -> None:
    with pytest.raises(InputError, match=r"at least 2 windows.*got \(1, 900\) and windows of 480"):
        log_spectrogram(torch.zeros(1, 900))


def test_the_tower_tells_the_pitch_of_a_tone_but_not_its_moment() -> None:
    torch.manual_seed(0)
    tower = SoundEncoder(65, (4, 4)).eval()
    picture = torch.zeros(3, 1, 65, 64)
    for n, (pitch, moment) in enumerate([(16, 24), (16, 40), (48, 24)]):
        picture[n, 0, pitch, moment : moment + 4] = 1
    first, later, higher = tower(picture)
    assert len(first) == tower.width == 4 * 17
    torch.testing.assert_close(first, later)
    assert not torch.allclose(first, higher)


def test_l3_is_a_perceptron_on_the_concatenation() -> None:
    head = Concatenation(4)
    seen, heard = torch.randn(2, 3, 4), torch.randn(2, 4)
    joined = torch.cat([seen, heard.unsqueeze(1).expand(2, 3, 4)], 2)
    hidden = (joined @ torch.cat([torch.eye(4), torch.eye(4)])).clamp_min(0)
    classes = hidden @ head.classes.weight.T + head.classes.bias
    torch.testing.assert_close(head(seen, heard), classes.log_softmax(2)[..., 1] - classes.log_softmax(2)[..., 0])


def test_the_logistic_loss_of_the_odds_is_the_cross_entropy_of_two_classes() -> None:
    head = Distance(4)
    seen, heard = torch.randn(5, 1, 4), torch.randn(5, 4)
    distance = (torch.nn.functional.normalize(seen[:, 0]) - torch.nn.functional.normalize(heard)).norm(dim=1)
    classes = head.classes(distance.unsqueeze(1))
    expected = torch.nn.functional.cross_entropy(classes, torch.ones(5, dtype=torch.long))
    torch.testing.assert_close(torch.nn.functional.softplus(-head(seen, heard)).mean(), expected)


def test_aves_distance_is_0_of_equals_2_of_opposites_and_the_root_of_2_at_right_angles() -> None:
    a = torch.tensor([[1.0, 0.0]]).repeat(3, 1)
    b = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(euclidean(a, b), torch.tensor([0.0, 2.0, 2**0.5]), atol=2e-3, rtol=0)


def test_aves_odds_fall_with_the_distance_and_are_even_at_right_angles() -> None:
    heard = torch.tensor([[2.0, 0.0]])
    odds = Distance(2)(torch.tensor([[[3.0, 0.0], [0.0, 5.0], [-1.0, 0.0]]]), heard)[0]
    assert odds[0] > 0 > odds[2] and abs(float(odds[1].detach())) < 1e-6


def test_avols_odds_are_the_largest_scaled_product_and_its_heat_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    method = built()
    head = method.head
    assert isinstance(head, ScalarProduct)
    with torch.no_grad():
        head.scale.fill_(2.0)
        head.bias.fill_(-1.0)
    cells, heard = torch.randn(2, 12, 16), torch.randn(2, 16)
    monkeypatch.setattr(method, "_cells", lambda seen: seen.flatten(2).transpose(1, 2))
    seen = cells.transpose(1, 2).unflatten(2, (3, 4))
    products = 2 * torch.stack([cells[n] @ heard[n] for n in range(2)]) - 1
    torch.testing.assert_close(method.odds(seen, heard), products.amax(1))
    torch.testing.assert_close(method.heat(seen, heard), products.sigmoid().view(2, 1, 3, 4))


def test_false_partners_are_of_other_recordings_and_never_the_clip_itself() -> None:
    recordings = torch.tensor([0, 0, 1, 2, 1])
    for seed in range(50):
        chosen = partners(recordings, generators(torch.arange(5) + 10 * seed))
        assert (recordings[chosen] != recordings).all()
    alone = [partners(torch.zeros(3), generators(torch.arange(3) + 10 * seed)) for seed in range(50)]
    assert all((one != torch.arange(3)).all() for one in alone)
    assert {int(one[0]) for one in alone} == {1, 2}


def test_false_partners_depend_on_the_seeds_alone() -> None:
    recordings, seeds = torch.arange(6), torch.arange(6) + 7
    assert torch.equal(partners(recordings, generators(seeds)), partners(recordings, generators(seeds)))


@pytest.fixture(scope="module")
def clicking(tmp_path_factory: pytest.TempPathFactory) -> StreamedRecordings:
    """A video whose sound has a faint click with each frame, as the traces of an encoder repeat with the frames."""
    sound = np.random.default_rng(0).normal(0, 0.01, 20 * RATE).astype(np.float32)
    sound[:: RATE // 25] += 0.2
    path = tmp_path_factory.mktemp("clicks") / "clicks.mkv"
    write_sounding(path, 20 * 25, sound, rate=RATE, codec="pcm_s16le")
    return StreamedRecordings([path], RecordingPreparation((32, 32), mask=False), sound=True, progress=False)


def told_by_its_phase(data: StreamedRecordings, grid: bool) -> float:
    """Accuracy of a linear classifier of true and false sounds that knows their energy by phase of a frame alone."""
    needs = ClipNeeds(Single(), intrinsics=False, sound=Sound(RATE, 0.4, 0.5, grid))
    clips = StreamedClips(data, needs, as_read, per_number=32)
    batch = clips.collate([clips[number] for number in range(4)])
    sounds = torch.cat([batch["sound"], batch["other_sound"]]).numpy()
    energy = np.log(np.square(sounds.reshape(len(sounds), -1, 16, RATE // 400)).mean((1, 3)))  # 16 phases
    truth = np.repeat([1, 0], len(sounds) // 2)
    known = np.tile(np.arange(len(sounds) // 2) % 2 == 0, 2)
    classifier = LogisticRegression(C=1.0, max_iter=1000).fit(energy[known], truth[known])
    return float(classifier.score(energy[~known], truth[~known]))


def test_off_the_grid_of_frames_false_sounds_are_told_by_their_phase_alone(clicking: StreamedRecordings) -> None:
    assert told_by_its_phase(clicking, grid=False) > 0.85


def test_on_the_grid_of_frames_the_phase_tells_nothing(clicking: StreamedRecordings) -> None:
    assert abs(told_by_its_phase(clicking, grid=True) - 0.5) < 0.1


def test_a_batch_of_one_has_no_false_pair() -> None:
    with pytest.raises(InputError, match=r"at least 2, got 1"):
        built().loss(world(1, 0)[0])


@pytest.mark.parametrize("head", HEADS)
def test_the_gradient_reaches_both_towers(head: str) -> None:
    method = built(head)
    method.loss(world(4, 0)[0])["loss"].backward()
    for tower in (method.encoder, method.hearing, method.of_sight, method.of_hearing, method.head):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tower.parameters())


@pytest.mark.parametrize("head", HEADS)
def test_its_answers_have_the_shapes_and_ranges_that_it_says(head: str) -> None:
    method, (batch, _) = built(head).eval(), world(3, 0)
    image, sound = batch["clip"][:, 0], batch["sound"]
    with torch.no_grad():
        seen, heard = method.see(image), method.hear(sound)
        heat = method.heat(seen, heard)
        assert heat.shape == (3, 1, SIDE // STRIDE, SIDE // STRIDE) and 0 <= heat.min() <= heat.max() <= 1
        assert method.odds(seen, heard).shape == (3,)
        for vectors in (method.embed_image(image), method.embed_sound(sound)):
            torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


def test_the_papers_picture_of_224_pixels_has_14_by_14_places() -> None:
    encoder = build_encoder("unet", 3, 2, channels=[4, 8, 8, 8, 8], norm="group")
    method = AudioVisual(encoder, sound_channels=[4, 8]).eval()
    with torch.no_grad():
        assert method.see(torch.zeros(1, 3, 224, 224)).shape[-2:] == (14, 14)
    assert (method.samples, method.window) == (48_000, 480)


def test_towers_run_in_bf16_and_the_loss_in_float32() -> None:
    method, (batch, _) = built(), world(4, 0)
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.loss(batch)
    assert losses["loss"].dtype == torch.float32 and torch.isfinite(losses["loss"])


def test_it_learns_what_sounds_how_and_where_it_is() -> None:
    method = built()
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    for step in range(80):
        optimizer.zero_grad()
        method.loss(world(16, step)[0])["loss"].backward()
        optimizer.step()
    batch, blob = world(48, 1000)
    method.eval()
    with torch.no_grad():
        assert method.loss(batch)["accuracy"] > 0.9
        heat = method.heat(method.see(batch["clip"][:, 0]), method.hear(batch["sound"]))
    touched = torch.nn.functional.max_pool2d(blob.float(), STRIDE).flatten(1)
    hottest = touched.gather(1, heat.flatten(1).argmax(1, keepdim=True))
    assert hottest.mean() > 0.7 > 2 * touched.mean()


def test_its_state_dict_is_all_it_must_remember() -> None:
    method, other, (batch, _) = built(), built(), world(4, 0)
    method.loss(batch)["loss"].backward()
    torch.optim.SGD(method.parameters(), lr=0.1).step()
    other.load_state_dict(method.state_dict())
    assert torch.equal(method.eval().loss(batch)["loss"], other.eval().loss(batch)["loss"])


def test_a_clips_own_loudness_varies_by_a_tenth_at_most() -> None:
    heard = []
    method = built(volume=0.1)
    method.hearing.register_forward_pre_hook(lambda _, args: heard.append(args[0]))
    batch, _ = world(4, 0)
    batch["other_sound"] = batch["sound"]
    method.loss(batch)
    both = heard[0].unflatten(0, (4, 2))
    change = both - log_spectrogram(batch["sound"], method.window).unsqueeze(1)
    loud = change[both > 0.4]
    assert loud.abs().max() <= -math.log10(0.9) / 4 + 1e-4 and loud.std() > 0


def test_cold_places_are_grey_and_hot_ones_glow() -> None:
    image, heat = torch.rand(1, 3, 8, 8), torch.tensor([[[[0.0, 1.0]]]])
    drawn = heated(image, heat)
    torch.testing.assert_close(drawn[..., 0], image.mean(1, keepdim=True).expand_as(image)[..., 0])
    assert (drawn[:, 0, :, -1] > drawn[:, 2, :, -1]).all() and 0 <= drawn.min() <= drawn.max() <= 1


def test_a_batch_without_sound_is_refused() -> None:
    batch, _ = world(2, 0)
    del batch["sound"]
    with pytest.raises(InputError, match=r"The batch has no 'sound' \(B, N\)"):
        built().loss(batch)


def test_a_sound_of_another_length_or_rate_is_refused() -> None:
    with pytest.raises(InputError, match=r"hears sounds \(B, 500\), which are 0.125 s at 4000 Hz, got \(2, 1500\)"):
        built().hear(torch.zeros(2, 1500))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"head": "avc"}, r"head is one of l3, ave, avol, got 'avc'"),
        ({"volume": 1.5}, r"volume is a share below 1"),
        ({"seconds": 0.01}, r"at least two windows"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        built(**arguments)
