"""Outlines, masks and pictures against plane geometry, written out slowly."""

import numpy as np
import pytest

from nps_jax.drawn import drawing

STILL = drawing.Pose(0.0, 1.0, (0.0, 0.0))
TILTED = drawing.Pose(0.3, 0.9, (0.05, -0.04))


def area(outline):
  """The shoelace formula, edge by edge."""
  total = 0.0
  for (x, y), (u, v) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
    total += (x * v - u * y) / 2
  return abs(total)


def placed(outline, pose, size):
  """The corners in pixels: scaled and turned about the middle, then shifted."""
  z = np.array([complex(x - 0.5, y - 0.5) for x, y in outline])
  z = z * pose.scale * np.exp(1j * pose.angle) + 0.5 + 0.5j + complex(*pose.shift)
  return np.stack([z.real, z.imag], axis=1) * size


def coverage(outline, pose, size):
  """The share of each pixel inside an upright rectangle."""
  corners = placed(outline, pose, size)
  low, high = corners.min(axis=0), corners.max(axis=0)
  share = np.zeros((size, size))
  for y in range(size):
    for x in range(size):
      width = min(x + 1, high[0]) - max(x, low[0])
      height = min(y + 1, high[1]) - max(y, low[1])
      share[y, x] = max(width, 0) * max(height, 0)
  return share


def depth(outline, pose, size):
  """How far each pixel's centre is inside a convex outline, in pixels."""
  corners = placed(outline, pose, size)
  y, x = np.mgrid[:size, :size] + 0.5
  found = np.full((size, size), np.inf)
  for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
    cross = (bx - ax) * (y - ay) - (by - ay) * (x - ax)
    found = np.minimum(found, cross / np.hypot(bx - ax, by - ay))
  return found


def test_a_disc_has_its_radius_and_the_area_of_36_triangles():
  outline = drawing.disc(0.3, 0.6, 0.2)
  np.testing.assert_allclose(np.hypot(*(outline - [0.3, 0.6]).T), 0.2, atol=1e-12)
  wedge = np.sin(np.deg2rad(10)) / 2
  assert area(outline) == pytest.approx(36 * wedge * 0.2**2, rel=1e-12)
  flat = drawing.disc(0.3, 0.6, 0.2, 0.5)
  np.testing.assert_allclose(np.ptp(flat, axis=0), [0.4, 0.2], atol=1e-12)
  assert area(flat) == pytest.approx(area(outline) / 2, rel=1e-12)


def test_a_rectangle_lies_around_its_centre():
  outline = drawing.rectangle(0.5, 0.25, 0.2, 0.1)
  wanted = [(0.4, 0.2), (0.6, 0.2), (0.6, 0.3), (0.4, 0.3)]
  np.testing.assert_allclose(outline, wanted, atol=1e-12)
  assert area(outline) == pytest.approx(0.02, rel=1e-12)


def test_a_stroke_keeps_half_its_width_from_each_segment():
  points = [(0.1, 0.2), (0.5, 0.5), (0.4, 0.9)]
  parts = drawing.stroke(points, 0.06)
  assert len(parts) == 2
  caps = 8 * np.sin(np.pi / 8) * 0.03**2  # of a 16-gon, half at either end
  for part, *ends in zip(parts, points[:-1], points[1:], strict=True):
    start, end = np.array(ends)
    length = np.linalg.norm(end - start)
    for corner in part:
      along = np.clip((corner - start) @ (end - start) / length**2, 0, 1)
      gap = np.linalg.norm(corner - (start + along * (end - start)))
      assert gap == pytest.approx(0.03, abs=1e-12)
    assert area(part) == pytest.approx(0.06 * length + caps, rel=1e-12)


def test_a_blob_is_a_star_around_its_centre_and_differs_by_seed():
  outlines = [
    drawing.blob(np.random.default_rng(seed), 0.4, 0.6, 0.1) for seed in range(20)
  ]
  for outline in outlines:
    x, y = (outline - [0.4, 0.6]).T
    reach = np.hypot(x, y)
    assert 0.04 <= reach.min() < reach.max() <= 0.18
    turn = np.mod(np.arctan2(y, x) + 1e-9, 2 * np.pi)
    np.testing.assert_allclose(np.rad2deg(turn), 15 * np.arange(24), atol=1e-6)
  again = drawing.blob(np.random.default_rng(7), 0.4, 0.6, 0.1)
  np.testing.assert_array_equal(again, outlines[7])
  assert len({area(each) for each in outlines}) == 20


def test_turning_is_about_the_origin_and_comes_before_moving():
  outline = np.array([(1.0, 0.0), (0.0, 2.0)])
  found = drawing.turned(outline, np.pi / 2, 3.0, 5.0)
  np.testing.assert_allclose(found, [(3.0, 6.0), (1.0, 5.0)], atol=1e-12)
  square = drawing.rectangle(0.2, 0.1, 0.3, 0.4)
  assert area(drawing.turned(square, 1.1, 0.5, 0.5)) == pytest.approx(0.12, rel=1e-12)


@pytest.mark.parametrize(
  "pose",
  [STILL, drawing.Pose(0.0, 1.25, (0.0, 0.0)), drawing.Pose(0.0, 0.8, (0.1, -0.05))],
)
def test_a_mask_is_half_coverage_of_an_upright_rectangle(pose):
  """Edges stay clear of half a pixel by more than a sub-pixel, which PIL rounds to."""
  rng, size = np.random.default_rng(0), 40
  for _ in range(30):
    low, high = rng.integers(6, 16, 2), rng.integers(20, 34, 2)
    edges = np.float64([low, high]) + rng.choice([-0.2, -0.1, 0.05, 0.1, 0.2], (2, 2))
    corners = edges / size - 0.5 - np.array(pose.shift)
    (left, top), (right, bottom) = corners / pose.scale + 0.5
    outline = drawing.rectangle(
      (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
    )
    wanted = coverage(outline, pose, size)
    assert wanted.sum() == pytest.approx(np.prod(edges[1] - edges[0]), rel=1e-9)
    np.testing.assert_array_equal(drawing.cover([outline], pose, size), wanted >= 0.5)


@pytest.mark.parametrize("pose", [STILL, TILTED, drawing.Pose(-2.0, 1.1, (-0.1, 0.02))])
@pytest.mark.parametrize(
  "outline",
  [
    drawing.disc(0.45, 0.55, 0.25),
    drawing.disc(0.5, 0.4, 0.2, 0.6),
    drawing.rectangle(0.55, 0.5, 0.3, 0.15),
    drawing.turned(drawing.rectangle(0.0, 0.0, 0.3, 0.2), 0.7, 0.5, 0.5),
  ],
)
def test_a_mask_agrees_with_the_half_planes_of_a_convex_outline(outline, pose):
  found, inside = drawing.cover([outline], pose, 48), depth(outline, pose, 48)
  assert (inside > 1 / 3).sum() > 50
  assert found[inside > 1 / 3].all()  # PIL rounds to a third of a pixel
  assert not found[inside < -1 / 3].any()


def test_a_mask_is_the_union_of_its_outlines():
  first = drawing.rectangle(0.4, 0.4, 0.3, 0.2)
  second, third = drawing.disc(0.5, 0.5, 0.1), drawing.disc(0.8, 0.8, 0.05)
  masks = [drawing.cover([each], TILTED, 64) for each in (first, second, third)]
  found = drawing.cover([first, second, third], TILTED, 64)
  assert (found >= np.any(masks, axis=0)).all()  # shares add where outlines meet
  assert found.sum() <= np.any(masks, axis=0).sum() + 8


@pytest.mark.parametrize("size", [32, 64, 100])
def test_even_a_hairline_or_a_dot_has_a_mask(size):
  rng = np.random.default_rng(size)
  for _ in range(50):
    start, end = rng.uniform(0.2, 0.8, (2, 2))
    for x, y in ((end[0], end[1]), start + 1e-7):
      (outline,) = drawing.stroke([tuple(start.tolist()), (float(x), float(y))], 1e-6)
      ys, xs = np.nonzero(drawing.cover([outline], STILL, size))
      assert len(xs)
      line = np.array([x, y]) - start
      at = np.stack([xs + 0.5, ys + 0.5], axis=1) / size - start
      along = np.clip(at @ line / (line @ line), 0, 1)
      away = np.linalg.norm(at - along[:, None] * line[None, :], axis=1)
      assert away.max() * size < 1.0


def test_later_shapes_cover_earlier_ones():
  red, green, blue = (0.9, 0.1, 0.2), (0.1, 0.8, 0.3), (0.0, 0.2, 1.0)
  shapes = [
    drawing.Shape(drawing.rectangle(0.5, 0.5, 0.6, 0.6), red),
    drawing.Shape(drawing.rectangle(0.6, 0.5, 0.2, 0.2), green),
  ]
  scene = drawing.Drawing(blue, shapes, {})
  found = drawing.paint(scene, STILL, 40)
  assert found.dtype == np.float64
  for (y, x), colour in (((2, 2), blue), ((14, 14), red), ((20, 24), green)):
    wanted = [round(255 * value) / 255 for value in colour]
    np.testing.assert_allclose(found[y, x], wanted, atol=1e-12)
  swapped = drawing.paint(scene._replace(shapes=shapes[::-1]), STILL, 40)
  np.testing.assert_allclose(swapped[20, 24], found[14, 14], atol=1e-12)
  assert (found != swapped).any(axis=-1).sum() == pytest.approx(8 * 8, abs=2 * 8 + 2)


def test_a_picture_and_its_mask_share_the_pose():
  disc = drawing.disc(0.6, 0.4, 0.2)
  scene = drawing.Drawing((0.0, 0.0, 0.0), [drawing.Shape(disc, (1.0, 1.0, 1.0))], {})
  found = drawing.paint(scene, TILTED, 64)
  np.testing.assert_array_equal(found[..., 0] >= 0.5, drawing.cover([disc], TILTED, 64))


def test_poses_and_colours_stay_in_their_ranges():
  rng = np.random.default_rng(0)
  poses = [drawing.random_pose(rng) for _ in range(300)]
  angles, scales, shifts = map(np.array, zip(*poses, strict=True))
  assert 2.3 < np.rad2deg(np.abs(angles).max()) < 2.55
  assert 0.97 <= scales.min() < 0.975 and 1.025 < scales.max() <= 1.03
  assert 0.015 < np.abs(shifts).max() <= 0.02
  colours = np.array([drawing.jitter(rng, (0.98, 0.5, 0.01), 0.2) for _ in range(300)])
  assert 0.0 <= colours.min() < colours.max() <= 1.0
  assert colours[:, 1].mean() == pytest.approx(0.5 * np.exp(0.2**2 / 2), abs=0.03)
  assert drawing.jitter(rng, (0.25, 0.5, 1.0), 0.0) == (0.25, 0.5, 1.0)


def grey(value, size=64):
  return np.full((size, size, 3), value)


def test_a_photograph_is_made_by_its_generator_alone():
  first, again, other = (
    drawing.photograph(np.random.default_rng(seed), grey(0.5)) for seed in (1, 1, 2)
  )
  assert first.dtype == np.uint8 and first.shape == (64, 64, 3)
  np.testing.assert_array_equal(first, again)
  assert (first != other).mean() > 0.5


def test_a_photograph_changes_only_where_the_scene_does():
  scene = grey(0.4)
  scene[20:30, 30:44] = (0.9, 0.1, 0.1)
  for seed in range(5):
    before, after = (
      drawing.photograph(np.random.default_rng(seed), each)
      for each in (grey(0.4), scene)
    )
    gap = np.abs(np.int64(after) - before).max(axis=-1)
    assert gap[20:30, 30:44].min() > 40
    outside = np.ones((64, 64), bool)
    outside[18:32, 28:46] = False  # the lens blurs over less than two pixels here
    assert not gap[outside].any()


def test_photographs_are_as_bright_as_their_scene_and_as_noisy_as_their_sensor():
  shots = [
    drawing.photograph(np.random.default_rng(seed), grey(0.4)) / 255
    for seed in range(60)
  ]
  brightness = np.array([shot.mean() for shot in shots]) / 0.4
  assert 0.95 < brightness.mean() < 1.12
  assert 0.05 < brightness.std() < 0.15
  for shot in shots:  # second differences of white noise spread sqrt(6) times as wide
    noise = (shot[:, 2:] - 2 * shot[:, 1:-1] + shot[:, :-2]).std() / np.sqrt(6)
    assert 0.0035 < noise < 0.015
  dark = drawing.photograph(np.random.default_rng(0), grey(0.0))
  bright = drawing.photograph(np.random.default_rng(0), grey(1.0))
  assert dark.max() <= 255 * 0.02 * 6 and bright.mean() > 200
  assert (dark.min(), bright.max()) == (0, 255)
