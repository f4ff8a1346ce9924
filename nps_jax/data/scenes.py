"""Scenes to learn to see from: drawn on the device, known all through, photographed.

Objects of one kind or another lie on a ground, over each other, each with a surface of
its own, under uneven light, before a camera that is held a little differently each
time, through a lens and onto a sensor. A scene comes with variants in which one object
is changed, as anomalies change a product. Ours.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8

from nps_jax.data import forms
from nps_jax.data import surfaces

FEWEST, OBJECTS = 4, 10  # in a scene
CHANGES = ("gone", "form", "surface", "place")  # what becomes of the changed object
SHAPED, LYING = ("kind", "hollow", "ends"), ("centre", "turn")  # of a Form
VANISHED = 1e-3  # scale of an object that is gone


class Layout(NamedTuple):
  """What there is to see; forms and surfaces have a leading axis of OBJECTS."""

  noise: Float[Array, "n n"]  # the random tile that grain and clouds show
  ground: surfaces.Surface
  count: Int[Array, ""]  # of the objects, those that come first
  forms: forms.Form
  surfaces: surfaces.Surface


class Scene(NamedTuple):
  """A photograph, and what is seen at each of its pixels."""

  image: UInt8[Array, "*b h w 3"]
  shape: Int[Array, "*b h w"]  # index in forms.SHAPES of the uppermost object
  texture: Int[Array, "*b h w"]  # index in surfaces.TEXTURES, there or of the ground
  colour: Float[Array, "*b h w 3"]  # of the surface in 0..1, without light and shadow


class _Layers(NamedTuple):
  """The scene as it is painted, object by object."""

  colour: Float[Array, "h w 3"]
  light: Float[Array, "h w"]
  shape: Int[Array, "h w"]
  texture: Int[Array, "h w"]


def draw(key: Key[Array, ""], layouts: int, variants: int, size: int) -> Scene:
  """Photographs: two of each variant of each layout, size x size pixels.

  Every variant differs from its layout in one object, and so from the other variants in
  two at most. Both photographs of a variant show the same. They are drawn one after the
  other, so that each object costs its own kind alone.

  Returns:
    A scene whose leading axis is photograph x layout x variant, flattened.
  """

  def one(index: Int[Array, ""]) -> Scene:
    photograph, layout, variant = jnp.unravel_index(index, (2, layouts, variants))
    base = jax.random.fold_in(key, layout)
    change, lens = jax.random.split(jax.random.fold_in(base, 1 + variant))
    seen = changed(random_layout(base), change)
    return photographed(seen, jax.random.fold_in(lens, photograph), size)

  return jax.lax.map(one, jnp.arange(2 * layouts * variants))


def random_layout(key: Key[Array, ""]) -> Layout:
  """Any layout, the same for the same key."""
  tile, ground, number, form, surface = jax.random.split(key, 5)
  return Layout(
    jax.random.normal(tile, (surfaces.NOISE, surfaces.NOISE)),
    surfaces.random_surface(ground),
    jax.random.randint(number, (), FEWEST, OBJECTS + 1),
    jax.vmap(forms.random_form)(jax.random.split(form, OBJECTS)),
    jax.vmap(surfaces.random_surface)(jax.random.split(surface, OBJECTS)),
  )


def changed(layout: Layout, key: Key[Array, ""]) -> Layout:
  """The layout with one object gone, of another form or surface, or elsewhere."""
  keys = jax.random.split(key, 4)
  one = jnp.arange(OBJECTS) == jax.random.randint(keys[0], (), 0, layout.count)
  change = jax.random.randint(keys[1], (), 0, len(CHANGES))
  other, surface = forms.random_form(keys[2]), surfaces.random_surface(keys[3])

  def put(kind: str, old: Array, new: Array) -> Array:
    hit = one & (change == CHANGES.index(kind))
    return jnp.where(hit.reshape(-1, *[1] * (old.ndim - 1)), new[None], old)

  form = layout.forms
  form = form._replace(
    scale=put("gone", form.scale, jnp.float32(VANISHED)),
    **{name: put("form", getattr(form, name), getattr(other, name)) for name in SHAPED},
    **{name: put("place", getattr(form, name), getattr(other, name)) for name in LYING},
  )
  cover = jax.tree.map(lambda *pair: put("surface", *pair), layout.surfaces, surface)
  return layout._replace(forms=form, surfaces=cover)


def photographed(layout: Layout, key: Key[Array, ""], size: int) -> Scene:
  """The layout, before a camera that is held nearly straight."""
  pose, light = jax.random.split(key)
  y, x = jnp.mgrid[:size, :size] / size
  layers = painted(layout, *_posed(pose, x, y))
  image = _exposed(light, layers.colour * layers.light[..., None], x, y)
  return Scene(image, layers.shape, layers.texture, layers.colour)


def painted(layout: Layout, x: Float[Array, "h w"], y: Float[Array, "h w"]) -> _Layers:
  """The layout's colours, light and labels at points of it, in sides of the image."""
  layers = _Layers(
    surfaces.paint(layout.ground, x, y, layout.noise),
    jnp.ones(x.shape),
    jnp.zeros(x.shape, jnp.int32),
    jnp.full(x.shape, layout.ground.kind),
  )

  def add(index: Int[Array, ""], layers: _Layers) -> _Layers:
    pair = (layout.forms, layout.surfaces)
    form, surface = jax.tree.map(lambda each: each[index], pair)
    return _with_object(layers, form, surface, x, y, layout.noise)

  return jax.lax.fori_loop(0, layout.count, add, layers)


def _with_object(layers, form, surface, x, y, noise) -> _Layers:
  gap = forms.distance(form, x, y)
  inside = jnp.clip(0.5 - gap * len(x), 0, 1)  # a pixel wide edge
  colour = layers.colour + inside[..., None] * (
    surfaces.paint(surface, x, y, noise) - layers.colour
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


def _posed(key, x, y):
  """The layout's points that the pixels show: up to 3 degrees, 4 %, 2 % of the side."""
  turn, scale, right, down = jax.random.uniform(key, (4,), minval=-1)
  turn, scale = 0.05 * turn, 1 + 0.04 * scale
  cos, sin = scale * jnp.cos(turn), scale * jnp.sin(turn)
  u, v = x - 0.5, y - 0.5
  return (
    0.5 + cos * u - sin * v + 0.02 * right,
    0.5 + sin * u + cos * v + 0.02 * down,
  )


def _exposed(key, canvas, x, y) -> UInt8[Array, "h w 3"]:
  """Under a light that falls off to one side, through a lens and a sensor."""
  keys = jax.random.split(key, 6)
  slope = jax.random.uniform(keys[0], (2,), minval=-0.3, maxval=0.3)
  light = 1 + slope[0] * (x - 0.5) + slope[1] * (y - 0.5)
  tint = 1 + 0.04 * jax.random.normal(keys[1], (1, 1, 3))
  canvas = canvas * light[..., None] * tint
  canvas *= jax.random.uniform(keys[2], minval=0.75, maxval=1.2)
  blur = jax.random.uniform(keys[3], maxval=0.6)
  for axis in (0, 1):
    beside = jnp.roll(canvas, 1, axis) + jnp.roll(canvas, -1, axis)
    canvas = (1 - blur) * canvas + 0.5 * blur * beside
  spread = jax.random.uniform(keys[4], maxval=0.04)
  canvas += spread * jax.random.normal(keys[5], canvas.shape)
  return jnp.round(255 * jnp.clip(canvas, 0, 1)).astype(jnp.uint8)
