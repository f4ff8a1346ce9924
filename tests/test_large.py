"""Large images: no step holds more of one than it must, in bytes for each pixel."""

import io
import tracemalloc

import numpy as np
from PIL import Image
import pytest

from nps_jax import inference
from nps_jax.data import decoding
from nps_jax.data import levels
from nps_jax.data import records
from nps_jax.metrics import spro
from nps_jax.report import figures

SIDE = 1500
RNG = np.random.default_rng(0)
MAP = np.float32(RNG.normal(size=(SIDE, SIDE)) + 1)
IMAGE = RNG.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
MASK = np.uint8(255) * (MAP > 2)


def encoded(pixels):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "PNG", compress_level=0)
  return records.Record("a", "", "", "", file.getvalue())


DEEP = encoded(RNG.integers(0, 2**16, (SIDE, SIDE), np.uint16))
SHALLOW = encoded(IMAGE)
STEPS = {  # and how many bytes for each pixel it may hold, its result included
  "overlay": (lambda: figures.overlay(IMAGE, MAP), 8),
  "map": (lambda: inference.at_size(MAP[:64, :64], (SIDE, SIDE)), 5),
  "mask": (lambda: levels.marked(MASK, "a"), 4),
  "16 bits": (lambda: decoding.decode(DEEP, (256, 256)), 6),
  "check": (lambda: decoding.problems([SHALLOW]), 1),
}


def peak(step):
  """The most bytes that NumPy and Python hold meanwhile; PIL's own do not count."""
  step()
  tracemalloc.start()
  try:
    step()
    return tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize("name", STEPS)
def test_a_step_holds_little_of_a_large_image(name):
  step, most = STEPS[name]
  assert peak(step) < most * SIDE**2


def test_a_group_copies_only_what_it_keeps():
  values, group = np.zeros((4096, 4096), np.float32), spro.Group()
  group.add(np.zeros((1, 1), np.float32), (), np.zeros(0, np.int64))
  most = peak(lambda: group.add(values, (), np.zeros(0, np.int64)))
  assert most < 7 * values.size  # of which a block of what is kept: 4


def test_an_overlay_in_strips_is_that_of_the_whole_image():
  heat = np.clip((MAP - 1) / 2, 0, 1)[..., None]
  colour = np.concatenate(
    [np.full_like(heat, 255), 230 * (1 - heat), np.zeros_like(heat)], axis=-1
  )
  share = 0.75 * np.sqrt(heat)
  want = np.uint8(np.rint((1 - share) * IMAGE + share * colour))
  np.testing.assert_array_equal(figures.overlay(IMAGE, MAP, 1.0, 3.0), want)


def test_a_map_in_strips_is_that_of_the_whole_image():
  whole = Image.fromarray(MAP[:50, :70]).resize((333, 259), Image.Resampling.BILINEAR)
  np.testing.assert_array_equal(
    inference.at_size(MAP[:50, :70], (259, 333)), np.asarray(whole)
  )


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1, 2), (0, 255), (3, 40), (0, 7)])
def test_whole_numbers_mark_what_their_shares_would(low, high):
  values = np.uint8([[*range(low, high + 1), *[high] * 900]])
  share = (np.float64(values) - low) / (high - low)
  np.testing.assert_array_equal(levels.marked(values, "a"), share >= 0.5)
