"""Objects of drawn scenes: areas by formula, distances by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from nps_jax.pretraining import forms

SIDE = 512
AXIS = (np.arange(SIDE) + 0.5) / SIDE
X, Y = (jnp.asarray(each, jnp.float32) for each in np.meshgrid(AXIS, AXIS))
LINE = jnp.float32([(-0.8, 0), (-0.2, 0), (0.3, 0), (0.8, 0)])  # a glyph that is a bar


def form(kind, scale=0.25, turn=0.0, aspect=1.0, hollow=False):
  return forms.Form(
    jnp.int32(forms.SHAPES.index(kind)),
    jnp.float32([0.5, 0.5]),
    *(jnp.float32(each) for each in (scale, turn, aspect)),
    jnp.bool_(hollow),
    LINE,
    jnp.float32(0),
  )


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


@pytest.mark.parametrize("kind", forms.SHAPES)
@pytest.mark.parametrize(("turn", "aspect"), [(0.0, 1.0), (0.7, 2.5), (4.0, 0.5)])
def test_each_shape_covers_its_area_however_it_lies(kind, turn, aspect):
  inside = forms.distance(form(kind, turn=turn, aspect=aspect), X, Y) < 0
  want = AREAS[kind] * 0.25**2
  np.testing.assert_allclose(inside.mean(), want, rtol=0.015)


def test_the_distance_is_in_sides_of_the_image():
  gap = forms.distance(form("disc", 0.2), jnp.float32([[0.8]]), jnp.float32([[0.5]]))
  np.testing.assert_allclose(gap, 0.3 - 0.9 * 0.2, rtol=1e-5)
  hollow = forms.distance(form("disc", hollow=True), X, Y) < 0
  np.testing.assert_allclose(  # a fifth of its size wide, within the disc's edge
    hollow.mean(), np.pi * (0.9**2 - 0.7**2) * 0.25**2, rtol=0.015
  )
