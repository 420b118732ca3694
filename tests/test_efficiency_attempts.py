"""One failing method stops no other; it is kept with its reason, and without anyone's name."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from medssl.efficiency_attempts import PRETRAINING, Attempts
from medssl.efficiency_training import sound
from medssl.errors import InputError
from medssl.evaluation.efficiency import Failure
from medssl.networks import build_encoder
from medssl.tracking import RunLike, hashed
from medssl.training import NonFiniteLossError
from medssl.weights import WEIGHTS, to_bytes

ARMS = ("scratch", "moco", "simclr")


class Noted(RunLike):
    """A run that keeps its texts, and how it ended."""

    def __init__(self, name: str) -> None:
        self.name, self.texts, self.failed = name, {}, False

    def log_text(self, text: str, name: str) -> None:
        self.texts[name] = text


def attempts(*names: str) -> tuple[Attempts, list[Noted]]:
    runs: list[Noted] = []

    @contextmanager
    def opened(name: str) -> Iterator[Noted]:
        runs.append(Noted(name))
        try:
            yield runs[-1]
        except Exception:
            runs[-1].failed = True
            raise

    return Attempts(opened, names), runs


def test_a_method_that_fails_is_kept_with_its_reason_and_the_others_go_on() -> None:
    tried, runs = attempts()
    done = []
    for arm in ARMS[1:]:
        with tried.run(arm, PRETRAINING):
            if arm == "moco":
                raise InputError("moco.yaml: the queue is short.")
            done.append(arm)
    assert done == ["simclr"] and tried.left(ARMS) == ["scratch", "simclr"]
    assert tried.failures == [Failure("moco", "pretraining", "moco.yaml: the queue is short.")]
    assert [(run.name, run.failed) for run in runs] == [("moco, pretraining", True), ("simclr, pretraining", False)]
    assert runs[0].texts == {"failure.txt": "moco.yaml: the queue is short.\n"}
    with pytest.raises(InputError, match=r"1 of the study's parts failed.*\n  moco, pretraining: moco\.yaml"):
        tried.tell()


def test_a_fine_tuning_that_fails_leaves_its_arm_in_the_study() -> None:
    tried, _ = attempts()
    with tried.run("moco", "1 labels, seed 0"):
        raise InputError("no.")
    assert tried.left(ARMS) == list(ARMS)


def test_names_are_hashed_in_what_is_kept_and_told_to_the_user(caplog: pytest.LogCaptureFixture) -> None:
    tried, _ = attempts("s1", "s11", "Ann_Other")
    with tried.noted("moco", "linear probe"):
        raise InputError("/data/s11_T1w.nii.gz and Ann_Other: NaN in s1, not s12 or as1.")
    kept, told = tried.failures[0].reason, tried.messages[0]
    assert kept == (
        f"/data/{hashed('s11')}_T1w.nii.gz and {hashed('Ann_Other')}: NaN in {hashed('s1')}, not s12 or as1."
    )
    assert "Ann_Other" in told and "Ann_Other" in caplog.text


def test_an_error_that_nobody_foresaw_stops_no_other_and_leaves_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    tried, _ = attempts()
    with tried.run("moco", PRETRAINING):
        raise RuntimeError("a matrix is singular")
    assert tried.failures[0].reason == "RuntimeError, which medssl did not foresee: a matrix is singular"
    assert "Traceback" in caplog.text
    caplog.clear()
    with tried.run("simclr", PRETRAINING):
        raise InputError("no.")
    assert "Traceback" not in caplog.text


def test_training_from_scratch_stops_the_study_when_it_fails() -> None:
    tried, _ = attempts()
    told = r"from scratch, 1 labels, seed 0: no\.\nWithout training from scratch nothing"
    with pytest.raises(InputError, match=told), tried.run("scratch", "1 labels, seed 0"):
        raise InputError("no.")
    with pytest.raises(RuntimeError, match="singular"), tried.run("scratch", "1 labels, seed 0"):
        raise RuntimeError("singular")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_the_users_own_stop_is_no_failure(stop: type[BaseException]) -> None:
    tried, _ = attempts()
    with pytest.raises(stop), tried.run("moco", PRETRAINING):
        raise stop
    assert not tried.failures


def test_scratch_alone_is_no_study() -> None:
    tried, _ = attempts()
    for arm in ARMS[1:]:
        with tried.run(arm, PRETRAINING):
            raise InputError("no.")
    with pytest.raises(InputError, match=r"No pretraining is left to compare .*\n  moco, pretraining: no\.\n  simclr"):
        tried.left(ARMS)


def test_without_a_failure_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    tried, _ = attempts()
    with caplog.at_level(logging.INFO), tried.run("moco", PRETRAINING):
        pass
    tried.tell()
    tried.refuse_scratch_alone(ARMS)
    assert not caplog.text


def kept_weights(folder: Path, value: float) -> Path:
    """An encoder whose first weight is ``value``, and a checkpoint beside its folder."""
    encoder = build_encoder("unet", 1, 2, channels=[4], stem_stride=1)
    with torch.no_grad():
        next(encoder.parameters()).view(-1)[0] = value
    (folder / "encoder").mkdir()
    (folder / "encoder" / WEIGHTS).write_bytes(to_bytes(encoder))
    (folder / "last.ckpt").touch()
    return folder / "encoder"


def test_weights_that_are_not_finite_fail_at_once_and_are_not_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds NaN or infinite numbers"), sound(kept_weights(tmp_path, float("nan"))):
        pass
    assert not (tmp_path / "last.ckpt").exists()


def test_a_training_that_diverged_begins_anew_and_one_that_was_stopped_goes_on(tmp_path: Path) -> None:
    kept = kept_weights(tmp_path, 1.0)
    with sound(kept):
        pass
    with pytest.raises(InputError, match="disk"), sound(kept):
        raise InputError("the disk is full")
    assert (tmp_path / "last.ckpt").exists()
    with pytest.raises(NonFiniteLossError), sound(kept):
        raise NonFiniteLossError("NaN")
    assert not (tmp_path / "last.ckpt").exists()
