"""Drawn scenes: areas by formula, labels by the picture, textures by their numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nps_jax.data import scenes

SIDE = 512
AXIS = (np.arange(SIDE) + 0.5) / SIDE
X, Y = (jnp.asarray(each, jnp.float32) for each in np.meshgrid(AXIS, AXIS))
LINE = jnp.float32([(-0.8, 0), (-0.2, 0), (0.3, 0), (0.8, 0)])  # a glyph that is a bar


def form(kind, scale=0.25, turn=0.0, aspect=1.0, hollow=False):
  return scenes.Form(
    jnp.int32(scenes.SHAPES.index(kind)),
    jnp.float32([0.5, 0.5]),
    *(jnp.float32(each) for each in (scale, turn, aspect)),
    jnp.bool_(hollow),
    LINE,
    jnp.float32(0),
  )


def surface(kind, turn=0.0, rate=8.0):
  colours = jnp.float32([(0.2, 0.4, 0.6), (0.8, 0.4, 0.1)])
  index = jnp.int32(scenes.TEXTURES.index(kind))
  offset = jnp.zeros(2, jnp.int32)
  return scenes.Surface(index, colours, jnp.float32(turn), jnp.float32(rate), offset)


def star_area():
  angle = np.linspace(0, 2 * np.pi, 100_000, endpoint=False)
  return np.mean((0.55 / (0.7 + 0.3 * np.cos(5 * angle))) ** 2) * np.pi


def crescent_area():
  """A disc less what another covers, whose centre is half a unit away."""
  large, small, gap = 0.9, 0.75, 0.5
  first = (gap**2 + large**2 - small**2) / (2 * gap)
  lens = large**2 * np.arccos(first / large) - first * np.sqrt(large**2 - first**2)
  rest = gap - first
  lens += small**2 * np.arccos(rest / small) - rest * np.sqrt(small**2 - rest**2)
  return np.pi * large**2 - lens


AREAS = {
  "disc": np.pi * 0.9**2,
  "square": 1.6**2,
  "triangle": 3 * np.sqrt(3) * 0.5**2,  # of the circle within it
  "hexagon": 2 * np.sqrt(3) * 0.8**2,
  "star": star_area(),
  "gear": np.pi * (0.8**2 + 0.12**2 / 2),
  "ring": np.pi * (0.95**2 - 0.55**2),
  "cross": 2 * 1.8 * 0.56 - 0.56**2,
  "bar": 1.6 * 0.4 + np.pi * 0.2**2,
  "corner": 2.5 * 0.4 - 0.2**2 + (2 - 0.75) * np.pi * 0.2**2,
  "crescent": crescent_area(),
  "glyph": 1.6 * 0.28 + np.pi * 0.14**2,
}


@pytest.mark.parametrize("kind", scenes.SHAPES[1:])
@pytest.mark.parametrize(("turn", "aspect"), [(0.0, 1.0), (0.7, 2.5), (4.0, 0.5)])
def test_each_shape_covers_its_area_however_it_lies(kind, turn, aspect):
  inside = scenes.distance(form(kind, turn=turn, aspect=aspect), X, Y) < 0
  want = AREAS[kind] * 0.25**2
  np.testing.assert_allclose(inside.mean(), want, rtol=0.015)


def test_the_distance_is_in_sides_of_the_image():
  gap = scenes.distance(form("disc", 0.2), jnp.float32([[0.8]]), jnp.float32([[0.5]]))
  np.testing.assert_allclose(gap, 0.3 - 0.9 * 0.2, rtol=1e-5)
  hollow = scenes.distance(form("disc", hollow=True), X, Y) < 0
  np.testing.assert_allclose(  # a fifth of its size wide, within the disc's edge
    hollow.mean(), np.pi * (0.9**2 - 0.7**2) * 0.25**2, rtol=0.015
  )


def test_an_object_is_where_its_label_is_and_has_its_own_colour(monkeypatch):
  grounds = {0: surface("flat")}
  own = scenes.Surface(jnp.int32(0), jnp.ones((2, 3)), *grounds[0][2:])
  drawn = iter([grounds[0], own])
  monkeypatch.setattr(scenes, "OBJECTS", 1)
  monkeypatch.setattr(scenes, "random_surface", lambda key: next(drawn))
  monkeypatch.setattr(scenes, "random_form", lambda key: form("cross", turn=0.3))
  monkeypatch.setattr(jax.random, "randint", lambda *_: jnp.int32(1))  # how many
  side = 64
  found = scenes.draw(jax.random.key(0), side)
  y, x = jnp.mgrid[:side, :side] / side
  gap = np.asarray(scenes.distance(form("cross", turn=0.3), x, y))
  inside = gap < -0.5 / side
  outside = gap > 0.5 / side
  kind = scenes.SHAPES.index("cross")
  assert set(np.unique(found.shape)) == {0, kind}
  assert (np.asarray(found.shape)[inside] == kind).all()
  assert (np.asarray(found.shape)[outside] == 0).all()
  np.testing.assert_allclose(np.asarray(found.colour)[inside], 1, rtol=1e-5)
  ground = np.broadcast_to(np.float32([0.2, 0.4, 0.6]), (outside.sum(), 3))
  np.testing.assert_allclose(np.asarray(found.colour)[outside], ground, rtol=1e-5)


def test_textures_have_their_numbers():
  noise = jax.random.normal(jax.random.key(0), (scenes.NOISE, scenes.NOISE))
  images = {
    kind: np.asarray(scenes.paint(surface(kind), X, Y, noise))[..., 0]
    for kind in scenes.TEXTURES
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


def test_scenes_come_again_by_their_keys_and_show_everything():
  draw = jax.jit(jax.vmap(lambda key: scenes.draw(key, 64)))
  keys = jax.random.split(jax.random.key(5), 96)
  found, again = draw(keys), draw(keys[::-1])
  for one, other in zip(found, again, strict=True):
    np.testing.assert_array_equal(one, other[::-1])
  assert found.image.dtype == "uint8"
  assert set(np.unique(found.shape)) == set(range(len(scenes.SHAPES)))
  assert set(np.unique(found.texture)) == set(range(len(scenes.TEXTURES)))
  assert 0.5 < np.mean(np.asarray(found.shape) == 0) < 0.9
  assert np.min(found.colour) >= 0 and np.max(found.colour) <= 1
  like = np.corrcoef(np.ravel(found.image), np.ravel(found.colour))[0, 1]
  assert 0.6 < like < 0.99  # the light is not the surface's
