"""Parts on plain ground: found, lifted, set down and erased without a seam."""

import numpy as np
import pytest
from scipy import ndimage

from nps_jax import parts

DISCS = ((40, 40, 10), (40, 88, 8), (92, 60, 12))  # y, x, radius
COLOURS = ((180, 60, 40), (60, 70, 80), (60, 140, 70))


def ramp(side: int = 128) -> np.ndarray:
  """A plain ground whose light changes across it."""
  y, x = np.mgrid[:side, :side]
  return np.stack([150 + 0.15 * x + 0.1 * y] * 3, axis=-1)


def disc(y: int, x: int, radius: int, side: int = 128) -> np.ndarray:
  rows, columns = np.mgrid[:side, :side]
  return np.hypot(rows - y, columns - x) <= radius


def picture(noise: float = 1.0) -> np.ndarray:
  pixels = ramp()
  for place, colour in zip(DISCS, COLOURS, strict=True):
    pixels[disc(*place)] = colour
  pixels += np.random.default_rng(0).normal(0, noise, pixels.shape)
  return parts.as_picture(pixels)


def test_every_disc_is_found_and_nothing_else():
  masks = parts_of(picture())
  assert len(masks) == len(DISCS)
  for place in DISCS:
    truth = disc(*place)
    (mask,) = [mask for mask in masks if (mask & truth).any()]
    assert (mask & truth).sum() > 0.98 * truth.sum()  # and with it its blurred edge
    assert not (mask & ~ndimage.binary_dilation(truth, iterations=3)).any()


def test_plain_and_busy_images_have_no_parts():
  noise = np.random.default_rng(1).integers(0, 255, (96, 96, 3), np.uint8)
  grey = np.full((64, 64, 3), 90, np.uint8)
  assert parts_of(noise) == [] and parts_of(grey) == []


def test_a_part_at_the_border_is_left_out():
  pixels = ramp()
  pixels[disc(2, 60, 10)] = (20, 20, 20)
  assert parts_of(parts.as_picture(pixels)) == []


def test_the_filling_of_a_slope_is_the_slope():
  slope = 50 + 0.4 * np.mgrid[:40, :40][0]
  pixels = parts.as_picture(np.stack([slope, 150 - slope, slope], axis=-1))
  hole = np.zeros((40, 40), bool)
  hole[15:25, 12:26] = True
  where = parts.place(pixels, hole)
  rows = (np.mgrid[:40, :40][0])[hole]
  slope = 50 + 0.4 * rows
  want = np.stack([slope, 150 - slope, slope], axis=-1)
  np.testing.assert_allclose(where.filling, want, atol=0.8)
  assert (where.noise[where.hole] == 0).all()


def test_the_filling_is_the_mean_of_its_neighbours():
  rng = np.random.default_rng(2)
  pixels = rng.integers(0, 255, (30, 30, 3), np.uint8)
  hole = disc(15, 14, 6, 30)
  where = parts.place(pixels, hole)
  filled = np.full((*where.hole.shape, 3), np.nan)
  filled[where.hole] = where.filling
  inner = ndimage.binary_erosion(where.hole)
  near = [np.roll(filled, step, axis) for step in (-1, 1) for axis in (0, 1)]
  np.testing.assert_allclose(filled[inner], np.mean(near, axis=0)[inner], rtol=1e-9)


def test_an_erased_part_leaves_ground_with_its_light_and_noise():
  image = picture(noise=2.0)
  part = parts_of(image)[0]
  before = image.copy()
  erased, hole = parts.erase(np.random.default_rng(3), image, part)
  np.testing.assert_array_equal(image, before)
  np.testing.assert_array_equal(erased[~hole], image[~hole])
  gap = erased[hole] - ramp()[hole]
  assert np.abs(gap.mean()) < 1 and 1.2 < gap.std() < 3.0
  assert len(parts_of(erased)) == len(DISCS) - 1


def test_a_part_set_down_elsewhere_looks_the_same_on_other_light():
  image = picture()
  part = parts_of(image)[0]
  piece = parts.lift(image, part)
  moved, mask = parts.set_down(image, piece, (70.0, 100.0))
  y, x = (int(at) for at in ndimage.center_of_mass(part))
  step = ramp()[70, 100] - ramp()[y, x]
  inside = ndimage.binary_erosion(mask, iterations=2)
  was = ndimage.binary_erosion(part, iterations=2)
  gap = moved[inside].mean(axis=0) - image[was].mean(axis=0) - step
  assert np.abs(gap).max() < 2
  rim = ndimage.binary_dilation(mask, iterations=8)
  rim &= ~ndimage.binary_dilation(mask, iterations=4)
  np.testing.assert_allclose(moved[rim].mean(), ramp()[rim].mean(), atol=1)


@pytest.mark.parametrize(
  "centre", [(1.0, 60.0), (60.0, 1.0), (127.0, 60.0), (60.0, 127.0)]
)
def test_what_would_stick_out_is_not_set_down(centre):
  image = picture()
  piece = parts.lift(image, parts_of(image)[0])
  assert parts.set_down(image, piece, centre) is None


def test_a_turned_piece_keeps_its_area_and_a_smaller_one_loses_it():
  image = picture()
  piece = parts.lift(image, parts_of(image)[0])
  area = piece.mask.sum()
  assert parts.turn(piece, 37.0, 1.0).mask.sum() == pytest.approx(area, rel=0.1)
  assert parts.turn(piece, 0.0, 0.5).mask.sum() == pytest.approx(area / 4, rel=0.2)


def test_a_free_place_touches_no_part_and_has_the_same_ground():
  image = picture()
  image[:, 100:] = 20  # another ground
  masks = parts_of(image)
  busy = np.any(masks, axis=0)
  rng = np.random.default_rng(5)
  for _ in range(5):
    y, x = map(int, parts.free_place(rng, image, masks, masks[0], (21, 21)))
    box = (slice(y - 10, y + 11), slice(x - 10, x + 11))
    assert busy[box].mean() < 0.03 and x < 95


def test_where_nothing_is_free_there_is_no_place():
  image = picture()
  masks = parts_of(image)
  args = (np.random.default_rng(5), image, masks, masks[0])
  assert parts.free_place(*args, (121, 121)) is None
  assert parts.free_place(*args, (200, 20)) is None


def parts_of(image):
  return parts.find(image, parts.grounds(image))
