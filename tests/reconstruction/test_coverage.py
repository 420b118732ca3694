"""Coverage counts what views saw, and finds the gaps beside the way, not the ends of the tube."""

import numpy as np
import pytest
from reconstruction.scenes import INTRINSICS, SIZE, all_around, pose_at, sphere_depth, tube_depth, view_of

from medssl.reconstruction.coverage import boundary_loops, coverage, holes
from medssl.reconstruction.mesh import Mesh, vertex_areas, vertex_normals
from medssl.reconstruction.tsdf import TSDF

RADIUS = 10.0


def tube(rings: int = 61, around: int = 72, gap: tuple[slice, slice] | None = None) -> Mesh:
    """The inside of a tube of length 60 along z; a gap leaves out the quads of some rings and sectors."""
    z, angle = np.meshgrid(np.linspace(0, 60, rings), 2 * np.pi * np.arange(around) / around, indexing="ij")
    vertices = np.stack([RADIUS * np.cos(angle), RADIUS * np.sin(angle), z], axis=-1).reshape(-1, 3).astype(np.float32)
    index = np.arange(rings * around).reshape(rings, around)
    a, b = index[:-1], np.roll(index, -1, axis=1)[:-1]
    c, d = index[1:], np.roll(index, -1, axis=1)[1:]
    quads = np.stack([a, c, b, b, c, d], axis=-1)  # seen from the axis
    kept = np.ones(a.shape, dtype=bool)
    if gap is not None:
        kept[gap] = False
    faces = quads[kept].reshape(-1, 3).astype(np.int32)
    return Mesh(vertices, faces, vertex_normals(vertices, faces), np.full((len(vertices), 3), 200, np.uint8), "mm")


def along(start: float, end: float) -> np.ndarray:
    way = np.zeros((20, 3))
    way[:, 2] = np.linspace(start, end, 20)
    return way


def test_the_tube_looks_inwards() -> None:
    mesh = tube()
    assert (np.einsum("vc,vc->v", mesh.normals[:, :2], mesh.vertices[:, :2]) < 0).all()


def test_all_that_was_fused_was_seen() -> None:
    views = [view_of(sphere_depth(20.0), pose) for pose in all_around((1, -2, 0))]
    tsdf = TSDF(np.array([[-24.0] * 3, [24.0] * 3]), 1.0, "mm")
    for view in views:
        tsdf.integrate(view)
    seen = coverage(tsdf.mesh(), views, tolerance=2.0)
    assert seen.seen_share() == 1 and seen.estimated_share == 1 and seen.unseen_area == 0
    assert seen.seen_area() == pytest.approx(4 * np.pi * 20**2, rel=0.01)
    assert 0 < seen.seen_share(3) < seen.seen_share(2) < 1


def test_views_are_counted_where_a_vertex_is_in_the_picture() -> None:
    mesh = tube()
    poses = [pose_at((0, 0, z), (x, 0, 0)) for z, x in ((5.0, 0.0), (20.0, 25.0), (40.0, -10.0))]
    views = [view_of(tube_depth(RADIUS, (0, 60)), pose) for pose in poses]
    counts = np.zeros(len(mesh.vertices), dtype=int)
    best = np.zeros(len(mesh.vertices))
    for i, vertex in enumerate(mesh.vertices.astype(np.float64)):
        for pose in poses:
            x, y, z = np.linalg.inv(pose)[:3] @ [*vertex, 1]
            if z <= 0:
                continue
            u, v = (INTRINSICS @ [x / z, y / z, 1])[:2]
            if -0.5 < u < SIZE[1] - 0.5 and -0.5 < v < SIZE[0] - 0.5:
                counts[i] += 1
                inwards = np.array([-vertex[0], -vertex[1], 0]) / RADIUS
                best[i] = max(best[i], inwards @ (pose[:3, 3] - vertex) / np.linalg.norm(pose[:3, 3] - vertex))
    seen = coverage(mesh, views, tolerance=0.5)
    inner = (mesh.vertices[:, 2] > 0.5) & (mesh.vertices[:, 2] < 57)  # at the ends the depth map itself ends
    np.testing.assert_array_equal(seen.views[inner], counts[inner])
    np.testing.assert_allclose(seen.best_cosine[inner], best[inner], atol=0.01)
    assert seen.best_angle_degrees[inner].max() == pytest.approx(np.degrees(np.arcsin(best[inner].max())), abs=0.5)
    assert seen.seen_area(2) == pytest.approx(vertex_areas(mesh)[seen.views >= 2].sum())


def test_what_lies_behind_a_wall_was_not_seen() -> None:
    outer = tube()
    outer.vertices[:, :2] *= 1.3
    seen = coverage(outer, [view_of(tube_depth(RADIUS, (0, 60)), pose_at((0, 0, 5)))], tolerance=0.5)
    assert seen.seen_area() == 0 and seen.estimated_share == 0


def test_a_gap_beside_the_way_is_found_with_its_area_and_the_ends_are_not() -> None:
    mesh = tube(gap=(slice(20, 30), slice(6, 18)))  # 10 long, 60 degrees wide
    found = holes(mesh, along(-5, 65))
    assert len(found) == 1
    assert found[0].area == pytest.approx(10 * 2 * RADIUS * np.sin(np.radians(30)), rel=1e-3)  # the gap's chord
    assert found[0].centre[2] == pytest.approx(25)
    assert len(found[0].loop) == 2 * (10 + 12)
    seen = coverage(mesh, [view_of(tube_depth(RADIUS, (0, 60)), pose_at((0, 0, z))) for z in range(0, 60, 10)], 0.5)
    assert seen.unseen_area == pytest.approx(100, rel=1e-3)
    assert seen.estimated_share == pytest.approx(seen.seen_area() / (seen.seen_area() + 100), rel=1e-3)


@pytest.mark.parametrize("way", [along(-5, 65), along(-5, 40), along(10, 40)])
def test_openings_and_the_end_of_the_recording_are_no_holes(way: np.ndarray) -> None:
    assert len(boundary_loops(tube().faces)) == 2
    assert holes(tube(), way) == []


def test_an_opening_ahead_of_the_first_position_that_the_way_runs_through_is_no_hole() -> None:
    assert holes(tube(), along(-20, 30)) == []


def test_a_gap_outside_the_way_is_not_counted() -> None:
    mesh = tube(gap=(slice(50, 55), slice(0, 5)))
    assert holes(mesh, along(0, 30)) == []
    assert holes(mesh, along(0, 30)[:1]) == []
    assert len(holes(mesh, along(0, 60))) == 1


def test_two_gaps_that_touch_at_a_corner_keep_their_area() -> None:
    mesh = tube(gap=(slice(10, 12), slice(0, 4)))
    kept = ~np.isin(np.arange(len(mesh.faces)), holes_at_corner(mesh))
    both = Mesh(mesh.vertices, mesh.faces[kept], mesh.normals, mesh.colours)
    assert sum(len(loop) for loop in boundary_loops(both.faces)) == 2 * 72 + 2 * (2 + 4) * 2


def test_rims_close_where_faces_overlap() -> None:
    two_and_one = np.array([[0, 1, 2], [0, 1, 3], [1, 0, 4]])  # an edge of three faces, one turned over
    loops = boundary_loops(two_and_one)
    along = [edge for loop in loops for edge in zip(loop.tolist(), np.roll(loop, -1).tolist(), strict=True)]
    assert sorted(along) == [(0, 1), (0, 4), (1, 2), (1, 3), (2, 0), (3, 0), (4, 1)]
    assert boundary_loops(np.zeros((0, 3), dtype=np.int64)) == []


def holes_at_corner(mesh: Mesh) -> np.ndarray:
    """The faces of rings 12 and 13, sectors 4 to 7: beyond the corner of the gap at rings 10 and 11, sectors 0 to 3."""
    centre = mesh.vertices[mesh.faces].mean(axis=1)
    sector = np.degrees(np.arctan2(centre[:, 1], centre[:, 0])) / 5
    return np.flatnonzero((centre[:, 2] > 12) & (centre[:, 2] < 14) & (sector > 4) & (sector < 8))
