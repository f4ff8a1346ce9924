"""Scenes to learn to see from: drawn by arithmetic on the device, known all through.

Shapes of one kind or another lie on a ground, over each other, each with a texture of
two colours, under uneven light, through a lens and a sensor. None of it copies the
products that the synthetic data set shows. Ours.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

SHAPES = (  # the first is no object
  *("ground", "disc", "square", "triangle", "hexagon", "star", "gear", "ring", "cross"),
  *("bar", "corner", "crescent", "glyph"),
)
TEXTURES = ("flat", "stripes", "checks", "dots", "grain", "clouds")
OBJECTS = 10  # in a scene, at most
NOISE = 64  # cells along a side of the random tile that grain and clouds show
STROKE = 0.14  # half the width of a glyph's strokes


class Scene(NamedTuple):
  """An image, and what is seen at each of its pixels."""

  image: UInt8[Array, "h w 3"]
  shape: Int[Array, "h w"]  # index in SHAPES of the uppermost object
  texture: Int[Array, "h w"]  # index in TEXTURES of its surface, or of the ground's
  colour: Float[Array, "h w 3"]  # of the surface in 0..1, without light and shadow


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


class Surface(NamedTuple):
  """Two colours, and how they are spread."""

  kind: Int[Array, ""]  # index in TEXTURES
  colours: Float[Array, "2 3"]  # in 0..1
  turn: Float[Array, ""]  # radians
  rate: Float[Array, ""]  # stripes across the image
  offset: Int[Array, "2"]  # in the random tile


class _Layers(NamedTuple):
  """The scene as it is painted, object by object."""

  colour: Float[Array, "h w 3"]
  light: Float[Array, "h w"]
  shape: Int[Array, "h w"]
  texture: Int[Array, "h w"]


def draw(key: Key[Array, ""], size: int) -> Scene:
  """A scene of size x size pixels, the same for the same key."""
  tile, ground, number, objects, lens = jax.random.split(key, 5)
  noise = jax.random.normal(tile, (NOISE, NOISE))
  y, x = jnp.mgrid[:size, :size] / size
  surface = random_surface(ground)
  layers = _Layers(
    paint(surface, x, y, noise),
    jnp.ones((size, size)),
    jnp.zeros((size, size), jnp.int32),
    jnp.full((size, size), surface.kind),
  )
  count = jax.random.randint(number, (), 0, OBJECTS + 1)
  keys = jax.random.split(objects, OBJECTS)

  def add(index: Int[Array, ""], layers: _Layers) -> _Layers:
    return _with_object(layers, keys[index], x, y, noise)

  layers = jax.lax.fori_loop(0, count, add, layers)
  image = _photograph(lens, layers.colour * layers.light[..., None], x, y)
  return Scene(image, layers.shape, layers.texture, layers.colour)


def _with_object(layers, key, x, y, noise) -> _Layers:
  first, second = jax.random.split(key)
  form, surface = random_form(first), random_surface(second)
  gap = distance(form, x, y)
  inside = jnp.clip(0.5 - gap * len(x), 0, 1)  # a pixel wide edge
  colour = layers.colour + inside[..., None] * (
    paint(surface, x, y, noise) - layers.colour
  )
  # Its shadow falls on what lies under it, none on itself.
  dim = 1 - form.shadow * jnp.exp(-jnp.maximum(gap, 0) / (0.15 * form.scale))
  light = layers.light * dim
  own = inside > 0.5
  return _Layers(
    colour,
    light + inside * (1 - light),
    jnp.where(own, form.kind, layers.shape),
    jnp.where(own, surface.kind, layers.texture),
  )


def random_form(key: Key[Array, ""]) -> Form:
  """Any object, any place."""
  keys = jax.random.split(key, 9)
  return Form(
    jax.random.randint(keys[0], (), 1, len(SHAPES)),
    jax.random.uniform(keys[1], (2,)),
    0.05 * 6 ** jax.random.uniform(keys[2]),
    jax.random.uniform(keys[3], maxval=2 * jnp.pi),
    3 ** jax.random.uniform(keys[4], minval=-1, maxval=1),
    jax.random.bernoulli(keys[5], 0.25),
    jax.random.uniform(keys[6], (4, 2), minval=-0.8, maxval=0.8),
    0.5 * jax.random.uniform(keys[7]) * jax.random.bernoulli(keys[8]),
  )


def random_surface(key: Key[Array, ""]) -> Surface:
  """Any texture of two colours, bright or grey, that are not far from each other."""
  keys = jax.random.split(key, 6)
  first, second = jax.random.uniform(keys[0], (2, 3))
  colours = jnp.stack([first, jnp.clip(first + 0.7 * (second - 0.5), 0, 1)])
  grey = colours.mean(axis=1, keepdims=True)
  return Surface(
    jax.random.randint(keys[1], (), 0, len(TEXTURES)),
    grey + jax.random.uniform(keys[5]) * (colours - grey),
    jax.random.uniform(keys[2], maxval=jnp.pi),
    6 * 5 ** jax.random.uniform(keys[3]),
    jax.random.randint(keys[4], (2,), 0, NOISE),
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
  gap = jax.lax.switch(form.kind - 1, _DISTANCES, u, v, form.ends)
  gap = jnp.where(form.hollow, jnp.abs(gap + 0.1) - 0.1, gap)
  return gap * jnp.minimum(stretch, squeeze)


def _polygon(corners: int, size: float):
  """The distance from a regular polygon; size is that of its sides from the centre."""
  wedge = 2 * jnp.pi / corners

  def gap(u, v, _):
    angle = jnp.arctan2(v, u)
    return (
      _radius(u, v) * jnp.cos(angle - wedge * jnp.floor(0.5 + angle / wedge)) - size
    )

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
  arm, other = jnp.maximum(across, along), jnp.minimum(across, along)
  return jnp.maximum(arm - 0.9, other - 0.28)


def _corner(u, v, _):
  foot = _stroke(u, v, (-0.6, 0.6), (0.6, 0.6))
  return jnp.minimum(foot, _stroke(u, v, (-0.6, 0.6), (-0.6, -0.7))) - 0.2


def _crescent(u, v, _):
  return jnp.maximum(_radius(u, v) - 0.9, 0.75 - jnp.hypot(u - 0.5, v))


def _glyph(u, v, ends):
  strokes = [_stroke(u, v, *each) for each in itertools.pairwise(ends)]
  return jnp.stack(strokes).min(axis=0) - STROKE


_DISTANCES = (  # of each kind of object at its size of 1, in the order of SHAPES
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


def paint(
  surface: Surface,
  x: Float[Array, "h w"],
  y: Float[Array, "h w"],
  noise: Float[Array, "n n"],
) -> Float[Array, "h w 3"]:
  """The surface's colour at every point."""
  share = jax.lax.switch(surface.kind, _SPREADS, surface, x, y, noise)
  share = jnp.clip(share, 0, 1)[..., None]
  first, second = surface.colours[:, None, None, :]
  return first + share * (second - first)


def _waves(surface, x, y):
  cos, sin = jnp.cos(surface.turn), jnp.sin(surface.turn)
  along = jnp.sin(jnp.pi * surface.rate * (cos * x + sin * y))
  return along, jnp.sin(jnp.pi * surface.rate * (cos * y - sin * x))


def _stripes(surface, x, y, _):
  return 0.5 + 0.5 * jnp.tanh(4 * _waves(surface, x, y)[0])


def _checks(surface, x, y, _):
  along, across = _waves(surface, x, y)
  return 0.5 + 0.5 * jnp.tanh(8 * along * across)


def _dots(surface, x, y, _):
  along, across = _waves(surface, x, y)
  return jax.nn.sigmoid(10 * (along**2 * across**2 - 0.5))


def _grain(surface, x, y, noise):
  tile = jnp.roll(noise, surface.offset, (0, 1))
  row, column = (jnp.floor(128 * each).astype(jnp.int32) % NOISE for each in (y, x))
  return 0.5 + 0.4 * tile[row, column]


def _clouds(surface, x, y, noise):
  tile = jnp.roll(noise, surface.offset, (0, 1))
  return 0.5 + 0.4 * jax.image.resize(tile[:8, :8], x.shape, "cubic")


_SPREADS = (  # each point's share of the second colour, in the order of TEXTURES
  lambda surface, x, y, noise: jnp.zeros_like(x),  # flat
  _stripes,
  _checks,
  _dots,
  _grain,
  _clouds,
)


def _photograph(key, canvas, x, y) -> UInt8[Array, "h w 3"]:
  """Under a light that falls off to one side, through a lens and a sensor."""
  keys = jax.random.split(key, 6)
  slope = jax.random.uniform(keys[0], (2,), minval=-0.4, maxval=0.4)
  light = 1 + slope[0] * (x - 0.5) + slope[1] * (y - 0.5)
  tint = 1 + 0.12 * jax.random.normal(keys[1], (1, 1, 3))
  canvas = canvas * light[..., None] * tint
  canvas *= jax.random.uniform(keys[2], minval=0.6, maxval=1.2)
  blur = jax.random.uniform(keys[3], maxval=0.6)
  for axis in (0, 1):
    beside = jnp.roll(canvas, 1, axis) + jnp.roll(canvas, -1, axis)
    canvas = (1 - blur) * canvas + 0.5 * blur * beside
  spread = jax.random.uniform(keys[4], maxval=0.04)
  canvas += spread * jax.random.normal(keys[5], canvas.shape)
  return jnp.round(255 * jnp.clip(canvas, 0, 1)).astype(jnp.uint8)
