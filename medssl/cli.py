"""The ``medssl`` command: parse, call, print."""

import inspect
import logging
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

import medssl
from medssl.errors import InputError
from medssl.provenance import asked_for


@dataclass(frozen=True)
class Command:
    """Where a command's function is, and what stands before the options on its line.

    Attributes:
        summary: Shown in the list of commands.
        module: Holds a function of the module's own last name.
        positional: Parameters that are given by place, in this order.
        many: Whether the last of them takes all that follow.
    """

    summary: str
    module: str
    positional: tuple[str, ...] = ()
    many: bool = False

    def function(self) -> Callable[..., Any]:
        """Import it; only then, so that the list of commands is quick."""
        function: Callable[..., Any] = getattr(import_module(self.module), self.module.rsplit(".", 1)[1])
        return function


COMMANDS = {
    "prepare": Command("check scans and store them for training", "medssl.commands.prepare", ("source",)),
    "weak-labels": Command("label scans automatically", "medssl.commands.weak_labels", ("source",)),
    "train": Command("train a network to segment, classify or detect", "medssl.commands.train", ("data",)),
    "pretrain": Command("pretrain an encoder on images without labels", "medssl.commands.pretrain", ("method",)),
    "audit": Command("find which shortcut a pretraining took", "medssl.commands.audit", ("run",)),
    "probe": Command("probe what a frozen encoder knows", "medssl.commands.probe", ("encoder",)),
    "predict": Command(
        "segment, classify or box scans with a model", "medssl.commands.predict", ("model", "inputs"), many=True
    ),
    "evaluate": Command(
        "score label maps against references", "medssl.commands.evaluate", ("predictions", "references")
    ),
    "sfm": Command("find a camera's way through a video, up to scale", "medssl.commands.sfm", ("video",)),
    "depth": Command("tell the depth of a video, and fuse a surface", "medssl.commands.depth", ("model", "video")),
    "track": Command("follow objects or points through a video", "medssl.commands.track", ("model", "video")),
    "listen": Command("tell where in a video the sound comes from", "medssl.commands.listen", ("model", "video")),
    "compare": Command("compare MLflow runs, with statistics", "medssl.commands.compare", ("runs",), many=True),
}
LISTS = {
    "run": "run a pipeline by name",
    "methods": "list the methods of learning",
    "networks": "list the networks",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns 0, or 2 after a message about what cannot be done."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("medssl").setLevel(logging.INFO)
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_overview())
        elif words[0] == "--version":
            print(medssl.__version__)
        elif words[0] in ("methods", "networks"):
            print(_listing(words[0]))
        elif words[0] == "run":
            _run_pipeline(words[1:])
        elif words[0] in COMMANDS:
            command = COMMANDS[words[0]]
            call(command.function(), f"medssl {words[0]}", words[1:], command.positional, command.many)
        else:
            raise InputError(f"There is no command '{words[0]}'. Commands: {', '.join([*COMMANDS, *LISTS])}.")
    except InputError as error:
        print(f"medssl: {error}", file=sys.stderr)
        return 2
    return 0


def call(
    function: Callable[..., Any], program: str, words: Sequence[str], positional: Sequence[str] = (), many: bool = False
) -> Any:
    """Call a function with a command line; its signature is the schema, YAML in ``--config`` is saved arguments.

    Args:
        function: Its type hints and docstring describe the options.
        program: Name for the usage line.
        words: The command line after the program's name.
        positional: Parameters that may be given by place before the options, as well as by name.
        many: Whether the last positional parameter takes all that follow.
    """
    places = [name.upper() + (" ..." if many and name == positional[-1] else "") for name in positional]
    parser = ArgumentParser(
        prog=program,
        usage=" ".join([program, *places, "[options]"]),
        description=(inspect.getdoc(function) or "").split("\n\nArgs:")[0],
        formatter_class=_Help,
    )
    parser.add_argument("--config", action="config", help="A YAML file with any of these arguments.")
    parser.add_function_arguments(function, as_group=False)
    given = parser.parse_args(_by_name(words, positional, many))
    values = parser.instantiate(given)
    with asked_for(_without_names(parser, given)):
        return function(**{name: values[name] for name in inspect.signature(function).parameters})


class _Help(DefaultHelpFormatter):
    """Calls a type by its name alone."""

    def _expand_help(self, action: Any) -> str:
        return re.sub(r"<class '([\w.]+)'>", r"\1", super()._expand_help(action))


def _without_names(parser: ArgumentParser, given: Namespace) -> str:
    """Write a command's arguments as YAML, with hashes for files and folders: their names may be patients'."""
    from medssl.tracking import hashed

    def told(value: Any) -> Any:
        if isinstance(value, list):
            return [told(one) for one in value]
        return Path(hashed(str(value))) if isinstance(value, Path) else value

    shown = given.clone()
    for name, value in given.items():
        shown[name] = told(value)
    return str(parser.dump(shown))


def _by_name(words: Sequence[str], positional: Sequence[str], many: bool) -> list[str]:
    """Give the words that stand before the first option the names of their places."""
    first_option = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    placed, rest = list(words[:first_option]), list(words[first_option:])
    named: list[str] = []
    for name in positional:
        if not placed:
            break
        if many and name == positional[-1]:
            named += [word for value in placed for word in (f"--{name}+", value)]
            placed = []
        else:
            named += [f"--{name}", placed.pop(0)]
    return [*named, *placed, *rest]


def _run_pipeline(words: Sequence[str]) -> None:
    from medssl.pipelines import pipeline, pipeline_names

    names = ", ".join(pipeline_names())
    if not words or words[0] in ("-h", "--help"):
        print(f"usage: medssl run PIPELINE [options]\n\nPipelines: {names}\nmedssl run PIPELINE --help tells the rest.")
    elif words[0] not in pipeline_names():
        raise InputError(f"There is no pipeline '{words[0]}'. Pipelines: {names}.")
    else:
        call(pipeline(words[0]), f"medssl run {words[0]}", words[1:])


def _listing(what: str) -> str:
    """Name the methods or networks, each with the first line of its documentation."""
    from medssl.methods import METHODS
    from medssl.networks import NETWORKS

    known: dict[str, Any] = dict(METHODS if what == "methods" else NETWORKS)
    about = {name: inspect.getmodule(thing).__doc__ or "" for name, thing in known.items()}
    width = max(map(len, about))
    return "\n".join(f"{name:<{width}}  {text.strip().splitlines()[0]}" for name, text in sorted(about.items()))


def _overview() -> str:
    lines = [f"  {name:<12} {command.summary}" for name, command in COMMANDS.items()]
    lines += [f"  {name:<12} {summary}" for name, summary in LISTS.items()]
    about = (medssl.__doc__ or "").strip()
    return "\n".join(
        [about, "", "usage: medssl COMMAND [options]", "", *lines, "", "medssl COMMAND --help tells the rest."]
    )


if __name__ == "__main__":
    sys.exit(main())
