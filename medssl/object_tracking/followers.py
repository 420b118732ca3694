"""Ways to follow what one frame shows: by the likeness of learnt embeddings, by optical flow, or by staying put."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medssl.data.prepared_recordings import RecordingPreparation
from medssl.data.view import View
from medssl.errors import InputError
from medssl.geometry import sample, warp
from medssl.label_propagation import Memory, Propagated, Propagation, decided, keypoints_in, with_marks
from medssl.method_file import TrainedMethod
from medssl.methods import build_video_method
from medssl.networks import build_encoder
from medssl.object_tracking.given import Given, Objects, Points
from medssl.object_tracking.seen import Seen
from medssl.video_inference import Clock
from medssl.video_method import CorrespondenceMethod, FlowMethod


class Followed(NamedTuple):
    """What became of objects or points in one frame.

    Attributes:
        frame: Its number.
        found: The number of the object at each pixel (H, W), or the places of points (N, 2), x and y, pixels.
        confidence: Of each object or point, 0 to 1: of the votes; NaN from those who do not tell, and of what is lost.
        similarity: Of the most alike cell, -1 to 1, its mean over the object, or at the point; NaN where none was seen.
        hidden: Share of the object that looks like nothing known, or 0 or 1 of a point; NaN of what is lost.
        whole: Whether the frame was decoded without damage.
    """

    frame: int
    found: NDArray[Any]
    confidence: NDArray[np.float32]
    similarity: NDArray[np.float32]
    hidden: NDArray[np.float32]
    whole: bool = True


class Follower(Protocol):
    """Follows what the first of some frames shows through the others."""

    def follow(self, seen: Iterable[Seen], given: Given) -> Iterator[Followed]:
        """Give what becomes of it in each frame, the first one too."""


@dataclass(frozen=True)
class ByLikeness:
    """Follow by embeddings: each cell takes the labels of the cells it most looks like.

    It holds ``batch_size`` frames, and the embeddings of ``propagation.recent`` frames and of those whose labels are
    given, however long the recording.

    Args:
        method: In evaluation, on its device.
        size: Height and width of the pictures that it sees, pixels.
        propagation: How labels are carried.
        precision: float32, or the 16-bit type that the network computes in.
        batch_size: Frames at once.
        clock: Is told how long reading, the network and the carrying take.
    """

    method: CorrespondenceMethod
    size: tuple[int, int]
    propagation: Propagation = field(default_factory=Propagation)
    precision: torch.dtype = torch.float32
    batch_size: int = 8
    clock: Clock = field(default_factory=Clock)

    def follow(self, seen: Iterable[Seen], given: Given) -> Iterator[Followed]:
        """Give what becomes of it in each frame; a frame that is not whole keeps the labels of the one before."""
        stride = self.method.stride
        labels = given.cells(self.size, stride).to(self.device)
        embedded = self._embedded(iter(seen))
        first, start = next(embedded)
        memory = Memory(_whole(start, first.frame), labels, self.propagation)
        unknown = torch.ones_like(labels[:, :1])
        last = Propagated(labels, labels.amax(1, keepdim=True), unknown, unknown < 0)
        yield _told(first, last, given, self.size, stride)._replace(found=_as_given(given))
        for one, embedding in embedded:
            marks = given.marks(one.frame, self.size, stride)
            if marks is not None:
                marks, embedding = marks.to(self.device), _whole(embedding, one.frame)
            if embedding is None:
                last = Propagated(last.labels, last.confidence, unknown * torch.nan, unknown > 0)
            else:
                with self.clock.measure("carrying"):
                    last = memory.carry(embedding, marks)
            with self.clock.measure("enlarging"):
                told = _told(one, last, given, self.size, stride)
            yield told._replace(found=given.corrected(one.frame, told.found))

    @property
    def device(self) -> torch.device:
        """Where the method is."""
        return next((parameter.device for parameter in self.method.parameters()), torch.device("cpu"))

    def _embedded(self, seen: Iterator[Seen]) -> Iterator[tuple[Seen, Tensor | None]]:
        """Embed frames, some at once, (1, D, h, w) each; ``None`` for those that are not whole."""
        while some := self._next(seen):
            view = View(some[0].picture.shape[:2], self.size)
            pictures = [torch.from_numpy(view.picture(one.picture)) for one in some if one.whole]
            vectors: Iterator[Tensor] = iter(())
            if pictures:
                batch = torch.stack(pictures).to(self.device).float() / 255
                low = self.precision != torch.float32
                with (
                    self.clock.measure("network"),
                    torch.no_grad(),
                    torch.autocast(self.device.type, self.precision, enabled=low),
                ):
                    vectors = iter(self.method.embed(batch).split(1))
            while some:  # given away one by one: the next ones are read when no earlier one is held
                one = some.popleft()
                yield one, next(vectors) if one.whole else None

    def _next(self, seen: Iterator[Seen]) -> deque[Seen]:
        with self.clock.measure("reading"):
            return deque(islice(seen, self.batch_size))


@dataclass(frozen=True)
class ByFlow:
    """Follow by optical flow from each frame to the next: masks are redrawn, points moved; mistakes add up.

    Args:
        method: In evaluation, on its device.
        size: Height and width of the pictures that it sees, pixels.
    """

    method: FlowMethod
    size: tuple[int, int]

    @torch.no_grad()
    def follow(self, seen: Iterable[Seen], given: Given) -> Iterator[Followed]:
        """Give what becomes of it in each frame; nothing moves to a frame that is not whole."""
        frames = iter(seen)
        first = next(frames)
        before = self._picture(first)
        state = given.cells(self.size, 1).to(before) if isinstance(given, Objects) else given.seen(self.size)
        yield _silent(first.frame, _as_given(given), given)
        for one in frames:
            if one.whole:
                now = self._picture(one)
                if isinstance(state, Tensor):
                    drawn = warp(state, self.method.flow(now, before), padding="zeros")[:, 1:]
                    state = torch.cat([1 - drawn.sum(1, keepdim=True), drawn], 1)  # what enters shows no object
                else:
                    state = state + self._at(self.method.flow(before, now), state)
                before = now
            if isinstance(state, Tensor) and (marks := given.marks(one.frame, self.size, 1)) is not None:
                state = with_marks(state, marks.to(state), marks.amax((2, 3), keepdim=True).to(state) > 0)
            yield _silent(one.frame, given.corrected(one.frame, self._found(state, given)), given)

    def _picture(self, one: Seen) -> Tensor:
        device = next((parameter.device for parameter in self.method.parameters()), torch.device("cpu"))
        picture = View(one.picture.shape[:2], self.size).picture(one.picture)
        return torch.from_numpy(picture)[None].to(device).float() / 255

    @staticmethod
    def _at(flow: Tensor, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Flow (1, 2, H, W) at places (N, 2)."""
        where = torch.from_numpy(places.T.copy()).to(flow)[None, :, None]  # (1, 2, 1, N)
        moved: NDArray[np.float64] = sample(flow, where)[0, :, 0].double().cpu().numpy().T
        return moved

    def _found(self, state: Tensor | NDArray[np.float64], given: Given) -> NDArray[Any]:
        if isinstance(state, Tensor):
            return _ids(state, given)
        return given.recorded(state, self.size) if isinstance(given, Points) else state


@dataclass(frozen=True)
class Staying:
    """Say that nothing moves: what any tracker must do better than."""

    def follow(self, seen: Iterable[Seen], given: Given) -> Iterator[Followed]:
        """Give what was given, in each frame."""
        found = _as_given(given)
        for one in seen:
            found = given.corrected(one.frame, found)
            yield _silent(one.frame, found, given)


def correspondence_method(trained: TrainedMethod, named: str) -> tuple[CorrespondenceMethod, RecordingPreparation]:
    """The method, where it is one that finds things again, and how its recordings were prepared.

    Args:
        trained: What was loaded.
        named: Stands in front of the message.

    Raises:
        InputError: It does not.
    """
    if isinstance(trained.method, CorrespondenceMethod) and isinstance(trained.preparation, RecordingPreparation):
        return trained.method, trained.preparation
    raise InputError(
        f"{named}: '{trained.name}' does not find things again in other frames; give the folder 'method' of a "
        "pretraining by video_colorization or cycle_walk."
    )


def flow_follower(trained: TrainedMethod, named: str) -> ByFlow:
    """Follow by a method of optical flow, at the size of its training.

    Raises:
        InputError: It is none.
    """
    if isinstance(trained.method, FlowMethod) and isinstance(trained.preparation, RecordingPreparation):
        return ByFlow(trained.method, trained.preparation.size)
    raise InputError(
        f"{named}: '{trained.name}' tells no optical flow; give the folder 'method' of a pretraining by optical_flow."
    )


def untrained(trained: TrainedMethod, seed: int) -> CorrespondenceMethod:
    """The same method and network with random weights, in evaluation."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = build_encoder(trained.encoder, trained.method.encoder.in_channels, 2, **trained.encoder_arguments)
        method = build_video_method(trained.name, encoder, **trained.arguments)
    if not isinstance(method, CorrespondenceMethod):
        raise TypeError(f"'{trained.name}' does not find things again in other frames.")
    return method.eval()


def _whole(embedding: Tensor | None, frame: int) -> Tensor:
    """The embeddings of a frame whose labels are given.

    Raises:
        InputError: There are none.
    """
    if embedding is None:
        raise InputError(f"Frame {frame}, whose labels are given, cannot be decoded; give those of another frame.")
    return embedding


def _as_given(given: Given) -> NDArray[Any]:
    return given.mask if isinstance(given, Objects) else given.places


def _ids(labels: Tensor, given: Given) -> NDArray[np.uint8]:
    """The number of the object at each pixel (H, W), of shares (1, 1 + objects, h, w)."""
    if not isinstance(given, Objects):
        raise TypeError("Points have no mask.")
    height, width = given.mask.shape
    numbers = np.array([0, *given.ids], dtype=np.uint8)
    chosen: NDArray[np.uint8] = numbers[decided(labels, (height, width))[0].cpu().numpy()]
    return chosen


def _told(one: Seen, carried: Propagated, given: Given, size: tuple[int, int], stride: int) -> Followed:
    """Bring the labels of cells to the full picture, and average what is told of the cells."""
    seen = torch.cat([carried.similarity, carried.hidden.float()], 1)  # (1, 2, h, w)
    if isinstance(given, Objects):
        shares = carried.labels[:, 1:]  # of each cell that an object has: its weight in that object's mean
        told = torch.cat([carried.confidence, seen], 1)[0]
        weights = shares / shares.sum((2, 3), keepdim=True)
        means = torch.einsum("kyx,cyx->ck", weights[0], told).cpu().numpy()
        return Followed(one.frame, _ids(carried.labels, given), *means)._replace(whole=one.whole)
    places, value = keypoints_in(carried.labels, stride)
    cells = ((places - (stride - 1) / 2) / stride).round().long()[0]  # (N, 2)
    height, width = seen.shape[2:]
    at = seen[0, :, cells[:, 1].clamp(0, height - 1), cells[:, 0].clamp(0, width - 1)].cpu().numpy()
    found = given.recorded(places[0].double().cpu().numpy(), size)
    return Followed(one.frame, found, value[0].cpu().numpy(), *at)._replace(whole=one.whole)


def _silent(frame: int, found: NDArray[Any], given: Given) -> Followed:
    """Of those who tell nothing else."""
    unknown = np.full(len(given.ids if isinstance(given, Objects) else given.names), np.nan, dtype=np.float32)
    return Followed(frame, found, unknown, unknown, unknown)
