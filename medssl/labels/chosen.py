"""Some structures of a large label map: the others become background, because somebody chose so."""

from collections.abc import Sequence

from medssl.errors import InputError
from medssl.labels.lut import LabelSet
from medssl.labels.protocols import Protocol


def choose(table: LabelSet, names: Sequence[str] | None = None) -> Protocol:
    """Read label maps whose numbers are those of ``table``, and keep the structures of these names.

    A number that is not in the table stays without a rule, so that a label map of another labeller is refused.

    Args:
        table: Every number that the label maps may hold.
        names: The structures to keep, in any order; ``None`` keeps all.

    Raises:
        InputError: The table has no structure of a name, or nothing is kept.
    """
    unknown = sorted(set(names or ()) - set(table.names))
    if unknown:
        raise InputError(
            f"The label table '{table.name}' has no structure '{unknown[0]}'; it has {', '.join(table.names)}."
        )
    kept = tuple(one for one in table.structures if names is None or one.name in names)
    if not kept:
        raise InputError(f"No structure is chosen; the label table '{table.name}' has {', '.join(table.names)}.")
    target = LabelSet(table.name, kept)
    return Protocol(table.name, target, {0: 0, **{id_: id_ if id_ in target.ids else 0 for id_ in table.ids}})
