"""Objects of a drawn scene: their kinds, and a point's distance from an object's edge.

All is arithmetic on the device, without branches that cost more than their own kind.
None of it copies the products that the synthetic data set shows. Ours.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

SHAPES = (
  "disc",
  "square",
  "triangle",
  "hexagon",
  "star",
  "gear",
  "ring",
  "cross",
  "bar",
  "corner",
  "crescent",
  "glyph",
)
STROKE = 0.14  # half the width of a glyph's strokes


class Form(NamedTuple):
  """One object; lengths are in sides of the image."""

  kind: Int[Array, ""]  # index in SHAPES
  centre: Float[Array, "2"]
  scale: Float[Array, ""]  # half its size, roughly
  turn: Float[Array, ""]  # radians
  aspect: Float[Array, ""]  # stretches along its axis by the root, squeezes across
  hollow: Bool[Array, ""]  # its outline only
  ends: Float[Array, "4 2"]  # where a glyph's three strokes begin and end
  shadow: Float[Array, ""]  # what it takes of the light just beside it


def random_form(key: Key[Array, ""]) -> Form:
  """Any object, any place."""
  keys = jax.random.split(key, 9)
  return Form(
    kind=jax.random.randint(keys[0], (), 0, len(SHAPES)),
    centre=jax.random.uniform(keys[1], (2,)),
    scale=0.07 * 3 ** jax.random.uniform(keys[2]),
    turn=jax.random.uniform(keys[3], maxval=2 * jnp.pi),
    aspect=3 ** jax.random.uniform(keys[4], minval=-1, maxval=1),
    hollow=jax.random.bernoulli(keys[5], 0.25),
    ends=jax.random.uniform(keys[6], (4, 2), minval=-0.8, maxval=0.8),
    shadow=0.5 * jax.random.uniform(keys[7]) * jax.random.bernoulli(keys[8]),
  )


def distance(
  form: Form, x: Float[Array, "h w"], y: Float[Array, "h w"]
) -> Float[Array, "h w"]:
  """How far each point is from the object's edge, about; below 0 within it."""
  cos, sin = jnp.cos(form.turn), jnp.sin(form.turn)
  right, down = x - form.centre[0], y - form.centre[1]
  stretch = form.scale * jnp.sqrt(form.aspect)
  squeeze = form.scale / jnp.sqrt(form.aspect)
  u, v = (cos * right + sin * down) / stretch, (cos * down - sin * right) / squeeze
  gap = jax.lax.switch(form.kind, _DISTANCES, u, v, form.ends)
  gap = jnp.where(form.hollow, jnp.abs(gap + 0.1) - 0.1, gap)
  return gap * jnp.minimum(stretch, squeeze)


def _polygon(corners: int, size: float):
  """The distance from a regular polygon; size is that of its sides from the centre."""
  wedge = 2 * jnp.pi / corners

  def gap(u, v, _):
    angle = jnp.arctan2(v, u)
    side = wedge * jnp.floor(0.5 + angle / wedge)  # the direction of the nearest one
    return _radius(u, v) * jnp.cos(angle - side) - size

  return gap


def _radius(u, v):
  return jnp.sqrt(u**2 + v**2 + 1e-9)


def _stroke(u, v, start, end):
  """The distance from a line between two points."""
  (left, top), (right, bottom) = start, end
  wide, high = right - left, bottom - top
  share = ((u - left) * wide + (v - top) * high) / (wide**2 + high**2 + 1e-6)
  share = jnp.clip(share, 0, 1)
  return jnp.hypot(u - left - share * wide, v - top - share * high)


def _square(u, v, _):
  return jnp.maximum(jnp.abs(u), jnp.abs(v)) - 0.8


def _star(u, v, _):
  return _radius(u, v) * (0.7 + 0.3 * jnp.cos(5 * jnp.arctan2(v, u))) - 0.55


def _gear(u, v, _):
  return _radius(u, v) - 0.8 - 0.12 * jnp.cos(9 * jnp.arctan2(v, u))


def _cross(u, v, _):
  across, along = jnp.abs(u), jnp.abs(v)
  longer, shorter = jnp.maximum(across, along), jnp.minimum(across, along)
  return jnp.maximum(longer - 0.9, shorter - 0.28)


def _corner(u, v, _):
  foot = _stroke(u, v, (-0.6, 0.6), (0.6, 0.6))
  return jnp.minimum(foot, _stroke(u, v, (-0.6, 0.6), (-0.6, -0.7))) - 0.2


def _crescent(u, v, _):
  return jnp.maximum(_radius(u, v) - 0.9, 0.75 - jnp.hypot(u - 0.5, v))


def _glyph(u, v, ends):
  strokes = [_stroke(u, v, start, end) for start, end in itertools.pairwise(ends)]
  return jnp.stack(strokes).min(axis=0) - STROKE


_DISTANCES = (  # by kind of object, at its size of 1, in the order of SHAPES
  lambda u, v, _: _radius(u, v) - 0.9,  # disc
  _square,
  _polygon(3, 0.5),
  _polygon(6, 0.8),
  _star,
  _gear,
  lambda u, v, _: jnp.abs(_radius(u, v) - 0.75) - 0.2,  # ring
  _cross,
  lambda u, v, _: _stroke(u, v, (-0.8, 0.0), (0.8, 0.0)) - 0.2,  # bar
  _corner,
  _crescent,
  _glyph,
)
