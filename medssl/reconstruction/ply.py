"""PLY files of points and triangles: written in binary, read in binary and in ASCII.

The format: Turk, "The PLY Polygon File Format", 1994.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.files import write_aside

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_NAMES = {"u1": "uchar", "i4": "int", "f4": "float", "f8": "double"}
_FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_POSITION, _NORMAL, _COLOUR = ("x", "y", "z"), ("nx", "ny", "nz"), ("red", "green", "blue")
_LONGEST_HEADER = 1 << 16  # bytes


class Ply(NamedTuple):
    """What is read from a file and written to one.

    Attributes:
        vertices: A table with a column for each property, (V,).
        faces: Triangles (F, 3), int32; ``None`` where the file has none.
        comments: The lines that the header states them in, without the word.
    """

    vertices: NDArray[Any]
    faces: NDArray[np.int32] | None
    comments: tuple[str, ...] = ()


@dataclass
class _Element:
    """One kind of record: its name, how many, each property's name and type, and its count's type if it is a list."""

    name: str
    count: int
    properties: list[tuple[str, str, str | None]] = field(default_factory=list)


class _Header(NamedTuple):
    order: str
    elements: list[_Element]
    comments: tuple[str, ...]
    length: int


def vertex_table(
    positions: NDArray[np.float32], normals: NDArray[np.float32], colours: NDArray[np.uint8]
) -> NDArray[Any]:
    """Put positions, normals and colours, each (V, 3), beside each other as PLY names them."""
    table = np.empty(len(positions), dtype=[(n, "<f4") for n in _POSITION + _NORMAL] + [(n, "u1") for n in _COLOUR])
    for names, values in ((_POSITION, positions), (_NORMAL, normals), (_COLOUR, colours)):
        for column, name in enumerate(names):
            table[name] = values[:, column]
    return table


def vertices_of(path: Path, ply: Ply) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.uint8]]:
    """Positions, normals (``None`` where there are none) and colours (white where there are none), each (V, 3).

    Raises:
        InputError: There are no positions.
    """
    names = ply.vertices.dtype.names or ()
    if not set(_POSITION) <= set(names):
        raise InputError(f"{path}: its vertices have {', '.join(names) or 'no properties'}; x, y and z are expected.")

    if any(ply.vertices.dtype[name] != np.uint8 for name in _COLOUR if name in names):
        raise InputError(f"{path}: its colours are not uchar, 0 to 255. Convert them first.")

    def columns(of: tuple[str, ...], kind: type) -> NDArray[Any] | None:
        return np.stack([ply.vertices[n] for n in of], axis=-1).astype(kind) if set(of) <= set(names) else None

    positions, colours = columns(_POSITION, np.float32), columns(_COLOUR, np.uint8)
    assert positions is not None
    if colours is None:
        colours = np.full(positions.shape, 255, dtype=np.uint8)
    return positions, columns(_NORMAL, np.float32), colours


def write_ply(path: Path, ply: Ply) -> None:
    """Write a binary file, whole or not at all.

    Raises:
        InputError: The disk is full or refuses to be written.
    """
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {c}" for c in ply.comments)]
    lines.append(f"element vertex {len(ply.vertices)}")
    fields = [(name, ply.vertices.dtype[name]) for name in ply.vertices.dtype.names or ()]
    lines += [f"property {_NAMES[kind.str[1:]]} {name}" for name, kind in fields]
    if ply.faces is not None:
        lines += [f"element face {len(ply.faces)}", "property list uchar int vertex_indices"]
    with write_aside(path) as aside, aside.open("wb") as stream:
        stream.write(("\n".join([*lines, "end_header"]) + "\n").encode("ascii"))
        stream.write(ply.vertices.astype([(name, kind.newbyteorder("<")) for name, kind in fields]).tobytes())
        if ply.faces is not None:
            records = np.empty(len(ply.faces), dtype=_triangle("u1", "i4", "<"))
            records["count"], records["corners"] = 3, ply.faces
            stream.write(records.tobytes())


def read_ply(path: Path) -> Ply:
    """Read the vertices and, where there are some, the triangles of a file; what follows them is passed over.

    Raises:
        InputError: It is missing, cut short, no PLY, or has faces that are not triangles.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    header = _read_header(path, data)
    body = data[header.length :]
    read = _read_ascii if header.order == "" else _read_binary
    tables = read(path, body, header)
    if "vertex" not in tables:
        raise InputError(f"{path}: has no vertices; a PLY file of points or triangles is expected.")
    faces = tables.get("face")
    if faces is not None and faces.size and not 0 <= faces.min() <= faces.max() < len(tables["vertex"]):
        raise InputError(
            f"{path}: has faces between vertices that it does not have ({len(tables['vertex'])} vertices)."
        )
    return Ply(tables["vertex"], faces, header.comments)


def _read_header(path: Path, data: bytes) -> _Header:
    head, end, _ = data[:_LONGEST_HEADER].partition(b"end_header")
    lines = [line.strip() for line in head.decode("ascii", errors="replace").splitlines()]
    newline = data[len(head) + len(end) :][:2]
    if not end or not lines or lines[0] != "ply" or newline[:1] not in (b"\n", b"\r"):
        raise InputError(f"{path}: is not a PLY file (its header does not begin with 'ply', or does not end).")
    order, elements, comments = None, [], []
    for line in lines[1:]:
        words = line.split()
        try:
            if words[:1] == ["format"]:
                order = _FORMATS[words[1]]
            elif words[:1] == ["comment"]:
                comments.append(line[len("comment") :].strip())
            elif words[:1] == ["element"]:
                elements.append(_Element(words[1], int(words[2])))
            elif words[:2] == ["property", "list"]:
                elements[-1].properties.append((words[4], _TYPES[words[3]], _TYPES[words[2]]))
            elif words[:1] == ["property"]:
                elements[-1].properties.append((words[2], _TYPES[words[1]], None))
        except (KeyError, IndexError, ValueError) as error:
            raise InputError(f"{path}: its header has a line that PLY does not know: '{line}'.") from error
    if order is None or any(
        e.count < 0 or len({name for name, *_ in e.properties}) < len(e.properties) for e in elements
    ):
        raise InputError(f"{path}: its header states no format, fewer than 0 of something, or a property twice.")
    return _Header(order, elements, tuple(comments), len(head) + len(end) + (2 if newline == b"\r\n" else 1))


def _read_binary(path: Path, body: bytes, header: _Header) -> dict[str, NDArray[Any]]:
    """The tables of vertices and faces."""
    wanted = {"vertex", "face"} & {element.name for element in header.elements}
    tables: dict[str, NDArray[Any]] = {}
    at = 0
    for element in header.elements:
        record = _record(path, element, header.order)
        if len(body) - at < element.count * record.itemsize:
            raise _truncated(path, element)
        table = np.frombuffer(body, record, element.count, at)
        at += table.nbytes
        tables[element.name] = _triangles(path, table) if element.name == "face" else table
        if wanted <= set(tables):
            break
    return tables


def _record(path: Path, element: _Element, order: str) -> np.dtype[Any]:
    """The type of one record, whose lists, if any, have three entries."""
    lists = [p for p in element.properties if p[2] is not None]
    if element.name == "face" and len(lists) == 1 and len(element.properties) == 1:
        _, kind, count = lists[0]
        assert count is not None
        return _triangle(count, kind, order)
    if lists:
        raise InputError(f"{path}: its '{element.name}' records vary in length; only plain triangles can be read.")
    return np.dtype([(name, order + kind) for name, kind, _ in element.properties])


def _read_ascii(path: Path, body: bytes, header: _Header) -> dict[str, NDArray[Any]]:
    """The tables of vertices and faces."""
    lines = body.decode("ascii", errors="replace").splitlines()
    tables: dict[str, NDArray[Any]] = {}
    at = 0
    for element in header.elements:
        rows = lines[at : at + element.count]
        at += element.count
        if element.name not in ("vertex", "face"):
            continue
        record = _record(path, element, "<")
        if len(rows) < element.count:
            raise _truncated(path, element)
        tables[element.name] = _parse(path, element, rows, record)
    return tables


def _parse(path: Path, element: _Element, rows: list[str], record: np.dtype[Any]) -> NDArray[Any]:
    width = 4 if element.name == "face" else len(element.properties)
    try:
        values = np.array([row.split() for row in rows], dtype=np.float64).reshape(-1, width)
    except ValueError as error:
        raise InputError(f"{path}: a line of its {element.name} table does not hold {width} numbers.") from error
    table = np.empty(len(values), dtype=record)
    if element.name == "face":
        table["count"], table["corners"] = values[:, 0], values[:, 1:]
        return _triangles(path, table)
    for column, (name, _, _) in enumerate(element.properties):
        table[name] = values[:, column]
    return table


def _triangle(count: str, corner: str, order: str) -> np.dtype[Any]:
    return np.dtype([("count", order + count), ("corners", order + corner, 3)])


def _triangles(path: Path, table: NDArray[Any]) -> NDArray[np.int32]:
    if (table["count"] != 3).any():
        raise InputError(f"{path}: has faces that are not triangles. Triangulate the mesh first.")
    return table["corners"].astype(np.int32)


def _truncated(path: Path, element: _Element) -> InputError:
    return InputError(
        f"{path}: is cut short: its header promises {element.count} {element.name} records. Copy the file again."
    )
