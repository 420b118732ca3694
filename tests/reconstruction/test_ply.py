"""Points and meshes come back from PLY files as they were, and bad files are refused by name."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import pyvista

from medssl.errors import InputError
from medssl.reconstruction.mesh import Mesh, read_mesh, vertex_normals, write_mesh
from medssl.reconstruction.point_cloud import PointCloud, read_points, write_points

ASCII_MESH = """ply
format ascii 1.0
comment unit m
element vertex 4
property double x
property float y
property float z
property uchar red
property uchar green
property uchar blue
element face 2
property list uchar uint vertex_indices
element camera 1
property float view_px
end_header
0 0 0 1 2 3
1.5 0 0 4 5 6
0 1 0 7 8 9
1 1 0.25 10 11 255
3 0 1 2
3 1 3 2
0.5
"""


def some_mesh() -> Mesh:
    rng = np.random.default_rng(0)
    vertices = rng.normal(size=(50, 3)).astype(np.float32)
    faces = rng.permuted(np.tile(np.arange(50), (30, 1)), axis=1)[:, :3].astype(np.int32)
    return Mesh(vertices, faces, vertex_normals(vertices, faces), rng.integers(0, 256, (50, 3)).astype(np.uint8), "mm")


def some_points() -> PointCloud:
    mesh = some_mesh()
    return PointCloud(mesh.vertices, mesh.normals, mesh.colours, "unknown")


def test_a_mesh_comes_back_bit_for_bit_with_its_unit(tmp_path: Path) -> None:
    mesh = some_mesh()
    write_mesh(tmp_path / "m.ply", mesh)
    again = read_mesh(tmp_path / "m.ply")
    for name in (f.name for f in fields(Mesh) if f.name != "unit"):
        assert getattr(again, name).dtype == getattr(mesh, name).dtype
        assert getattr(again, name).tobytes() == getattr(mesh, name).tobytes()
    assert again.unit == "mm"
    write_mesh(tmp_path / "again.ply", again)
    assert (tmp_path / "m.ply").read_bytes() == (tmp_path / "again.ply").read_bytes()


def test_points_come_back_bit_for_bit_and_say_that_they_are_up_to_scale(tmp_path: Path) -> None:
    cloud = some_points()
    write_points(tmp_path / "p.ply", cloud)
    assert b"up to scale" in (tmp_path / "p.ply").read_bytes()
    again = read_points(tmp_path / "p.ply")
    for name in ("positions", "normals", "colours"):
        assert getattr(again, name).tobytes() == getattr(cloud, name).tobytes()
    assert again.unit == "unknown"


def test_another_program_reads_what_was_written(tmp_path: Path) -> None:
    mesh = some_mesh()
    write_mesh(tmp_path / "m.ply", mesh)
    read = pyvista.read(tmp_path / "m.ply")
    assert (read.n_points, read.n_cells) == (50, 30)
    np.testing.assert_array_equal(read.points, mesh.vertices)
    np.testing.assert_array_equal(read.regular_faces, mesh.faces)
    np.testing.assert_array_equal(read.point_data["RGB"], mesh.colours)


def test_ascii_is_read_and_what_follows_the_faces_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.ply").write_text(ASCII_MESH)
    mesh = read_mesh(tmp_path / "a.ply")
    np.testing.assert_array_equal(mesh.vertices, np.array([[0, 0, 0], [1.5, 0, 0], [0, 1, 0], [1, 1, 0.25]], "f4"))
    np.testing.assert_array_equal(mesh.faces, [[0, 1, 2], [1, 3, 2]])
    np.testing.assert_array_equal(mesh.colours[3], [10, 11, 255])
    assert mesh.unit == "m" and mesh.normals[0, 2] == 1


def test_big_endian_is_read(tmp_path: Path) -> None:
    head = (
        b"ply\nformat binary_big_endian 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\n"
    )
    (tmp_path / "b.ply").write_bytes(head + b"end_header\n" + np.arange(6, dtype=">f4").tobytes())
    np.testing.assert_array_equal(read_points(tmp_path / "b.ply").positions, np.arange(6).reshape(2, 3))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.replace("ply\n", "stl\n", 1), "is not a PLY file"),
        (lambda text: text[:80], "is not a PLY file"),
        (lambda text: text.replace("ascii", "roman"), "does not know: 'format roman"),
        (lambda text: text.replace("vertex 4", "vertex -4"), "fewer than 0"),
        (lambda text: text.replace("float z", "float y"), "a property twice"),
        (lambda text: text.replace("float z", "float w"), "x, y and z are expected"),
        (lambda text: text.replace("uchar red", "float red"), "colours are not uchar"),
        (lambda text: text.replace("vertex 4", "vertex 400"), "cut short.*400 vertex"),
        (lambda text: text.replace("3 1 3 2", "4 1 3 2 0"), "face table does not hold 4 numbers"),
        (lambda text: text.replace("3 1 3 2", "2 1 3 2"), "not triangles"),
        (lambda text: text.replace("3 1 3 2", "3 1 4 2"), "does not have"),
        (lambda text: text.replace("1.5 0 0", "1.5 0 x"), "vertex table does not hold 6 numbers"),
        (lambda text: text.replace("property float y", "property list uchar int y"), "vary in length"),
        (lambda text: text.replace("element vertex", "element node"), "has no vertices"),
        (lambda text: text.replace("element face", "element edge"), "without faces"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_reason(tmp_path: Path, change, reason: str) -> None:
    (tmp_path / "bad.ply").write_text(change(ASCII_MESH))
    with pytest.raises(InputError, match=f"bad.ply: .*{reason}"):
        read_mesh(tmp_path / "bad.ply")


def test_a_truncated_binary_file_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    write_mesh(tmp_path / "m.ply", some_mesh())
    data = (tmp_path / "m.ply").read_bytes()
    (tmp_path / "m.ply").write_bytes(data[:-1])
    with pytest.raises(InputError, match=r"m.ply: is cut short.*30 face"):
        read_mesh(tmp_path / "m.ply")
    (tmp_path / "m.ply").write_bytes(data.replace(b"vertex 50", b"vertex 5000000000"))
    with pytest.raises(InputError, match=r"m.ply: is cut short"):
        read_mesh(tmp_path / "m.ply")
    with pytest.raises(InputError, match=r"none.ply: cannot be read"):
        read_mesh(tmp_path / "none.ply")
