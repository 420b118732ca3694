"""The parts of a label-efficiency study as attempts: one that fails is told in every result, and stops no other."""

import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from medssl.errors import InputError
from medssl.evaluation.efficiency import SCRATCH, Failure, named
from medssl.tracking import RunLike, hashed

PRETRAINING = "pretraining"
"""What an attempt to pretrain is called."""

logger = logging.getLogger(__name__)


@dataclass
class Attempts:
    """Trainings of which any may fail, but for those from scratch, while the others go on.

    Args:
        open_run: Opens the run of a training, by its name.
        names: Of scans and subjects, which are hashed in what is kept of a message.

    Attributes:
        failures: What failed so far.
        messages: The same for the user's own eyes: names are left as they are.
    """

    open_run: Callable[[str], AbstractContextManager[RunLike]]
    names: Collection[str]
    failures: list[Failure] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    @contextmanager
    def run(self, arm: str, what: str) -> Iterator[RunLike]:
        """Open a training's run; where the training fails, the run is marked so and the error goes no further.

        Raises:
            InputError: Training from scratch failed, without which nothing can be compared.
        """
        with self.noted(arm, what), self.open_run(f"{arm}, {what}") as run:
            try:
                yield run
            except Exception as error:
                run.log_text(f"{self._anonymous(_reason(error))}\n", "failure.txt")
                raise

    @contextmanager
    def noted(self, arm: str, what: str) -> Iterator[None]:
        """Note what fails in the block, whatever the error: hours of others must not be lost to one method's fault.

        Raises:
            InputError: As in ``run``.
        """
        try:
            yield
        except Exception as error:
            message, foreseen = f"{named(arm)}, {what}: {_reason(error)}", isinstance(error, InputError)
            if arm == SCRATCH:
                if not foreseen:
                    raise
                raise InputError(
                    f"{message}\nWithout training from scratch nothing can be compared, so the study stops here. Run "
                    "the same command again when that is mended: what is done is kept."
                ) from error
            logger.warning("Failed, and left out: %s", message, exc_info=not foreseen)
            self.messages.append(message)
            self.failures.append(Failure(arm, what, self._anonymous(_reason(error))))

    def left(self, arms: Sequence[str]) -> list[str]:
        """List the arms whose pretraining did not fail.

        Raises:
            InputError: None but scratch is left.
        """
        failed = {failure.arm for failure in self.failures if failure.what == PRETRAINING}
        left = [arm for arm in arms if arm not in failed]
        self.refuse_scratch_alone(left)
        return left

    def refuse_scratch_alone(self, arms: Iterable[str]) -> None:
        """Stop where there is nothing to compare scratch with.

        Raises:
            InputError: All other arms failed.
        """
        if set(arms) == {SCRATCH}:
            raise InputError(f"No pretraining is left to compare with training from scratch:\n{self._list()}")

    def tell(self) -> None:
        """Say at the end what failed.

        Raises:
            InputError: Something did.
        """
        if self.messages:
            raise InputError(
                f"{len(self.messages)} of the study's parts failed; the others are in its results. Run the same "
                f"command again to try what failed once more, without what is done:\n{self._list()}"
            )

    def _list(self) -> str:
        return "\n".join(f"  {message}" for message in self.messages)

    def _anonymous(self, text: str) -> str:
        longest_first = sorted(map(re.escape, self.names), key=len, reverse=True)
        whole = rf"(?<![^\W_])(?:{'|'.join(longest_first) or '(?!)'})(?![^\W_])"
        return re.sub(whole, lambda found: hashed(found[0]), text)


def _reason(error: Exception) -> str:
    """Say why, in the message's words where it was written for the user."""
    if isinstance(error, InputError):
        return str(error)
    return f"{type(error).__name__}, which medssl did not foresee: {error}"
