"""Surfaces of drawn scenes: their textures by numbers that can be counted."""

import jax
import jax.numpy as jnp
import numpy as np

from nps_jax.pretraining import surfaces

SIDE = 512
AXIS = (np.arange(SIDE) + 0.5) / SIDE
X, Y = (jnp.asarray(each, jnp.float32) for each in np.meshgrid(AXIS, AXIS))


def surface(kind, turn=0.0, rate=8.0):
  colours = jnp.float32([(0.2, 0.4, 0.6), (0.8, 0.4, 0.1)])
  index = jnp.int32(surfaces.TEXTURES.index(kind))
  offset = jnp.zeros(2, jnp.int32)
  return surfaces.Surface(index, colours, jnp.float32(turn), jnp.float32(rate), offset)


def test_textures_have_their_numbers():
  noise = jax.random.normal(jax.random.key(0), (surfaces.NOISE, surfaces.NOISE))
  images = {
    kind: np.asarray(surfaces.paint(surface(kind), X, Y, noise))[..., 0]
    for kind in surfaces.TEXTURES
  }
  assert np.ptp(images["flat"]) == 0
  assert np.ptp(images["stripes"], axis=0).max() < 1e-6  # upright
  high = images["stripes"][0] > 0.5
  assert np.sum(high[1:] != high[:-1]) == 7  # 8 stripes across, of half a period each
  squares = images["checks"] > 0.5
  assert np.sum(squares[9, 1:] != squares[9, :-1]) == 7
  assert np.sum(squares[1:, 9] != squares[:-1, 9]) == 7
  assert (squares[:60, :60] != squares[:60, 64:124]).mean() > 0.95
  assert 0.15 < np.mean(images["dots"] > 0.5) < 0.35
  grains = images["grain"][::4, ::4]  # one of its cells is 1 / 128 of a side
  np.testing.assert_array_equal(images["grain"], grains.repeat(4, 0).repeat(4, 1))
  steps = np.abs(np.diff(images["clouds"], axis=0))
  assert np.ptp(images["clouds"]) > 20 * steps.max() > 0  # no edge
