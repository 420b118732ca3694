"""What a user did that cannot work, said in one message: what arrived, what was expected, what to do."""


class InputError(ValueError):
    """A file, folder or argument that cannot be used; its message names it first.

    The command line prints the message alone; any other exception is a fault of medssl's own and keeps its traceback.
    """


class MissingExtraError(InputError, ImportError):
    """An optional library is not installed; the message names the extra that brings it."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"{library} is not installed; it comes with: pip install 'medssl[{extra}]'.")
