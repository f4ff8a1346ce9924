"""Drawn scenes, photographed on the device, with the object seen at every pixel.

A scene shows objects of a kit, which has a few forms and a few surfaces, so that its
objects differ in one, in the other, in both or not at all. They lie on a ground and a
panel, over each other. It is photographed again and again, with some objects turned,
under uneven light, by a camera that is held a little differently, through a lens and
onto a sensor. In the first photographs something is new: an object is gone or another
one, or there is a mark. Ours.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8

from nps_jax.pretraining import forms
from nps_jax.pretraining import surfaces

FEWEST, OBJECTS = 3, 9  # in a scene
FORMS, SURFACES = 3, 3  # of a kit
ITEMS = OBJECTS + 3  # of a scene: its objects, then ground, panel and mark
CHANGES = ("gone", "form", "surface", *4 * ("mark",))  # one of them is made
CHANGED = 4  # of so many photographs one shows a change
NEW = 0.05  # by how much a new pixel differs, of the brightest
TURNED = 0.5  # share of the objects that each photograph shows turned
GONE = 1e-3  # the scale of what is not there
KINDS = FORMS * SURFACES + 3  # of a kit: each form in each surface, ground, panel, mark
PLACED = ("form", "surface", "centre", "turn", "grow")  # of a layout, for each object


class Kit(NamedTuple):
  """What scenes are made of."""

  noise: Float[Array, "n n"]  # the random tile that grain and clouds show
  forms: forms.Form  # with a leading axis of FORMS, as the parts
  parts: forms.Form  # one fixed on each form; in its scale, from its centre
  surfaces: surfaces.Surface  # with a leading axis of SURFACES
  covers: surfaces.Surface  # of the parts
  ground: surfaces.Surface
  panel: surfaces.Surface
  mark: forms.Form
  stain: surfaces.Surface  # of the mark


class Layout(NamedTuple):
  """Which objects of a kit there are, and how they lie; the first count are shown."""

  count: Int[Array, ""]
  form: Int[Array, " o"]
  surface: Int[Array, " o"]
  centre: Float[Array, "o 2"]  # in sides of the image
  turn: Float[Array, " o"]  # radians
  grow: Float[Array, " o"]  # times its form's scale
  panel: forms.Form
  mark: forms.Form


class Scene(NamedTuple):
  """A photograph, and what is seen at each of its pixels."""

  image: UInt8[Array, "*b h w 3"]
  item: Int[Array, "*b h w"]  # the uppermost
  new: Int[Array, "*b h w"]  # 1 where it differs by a change, else 0
  kind: Int[Array, "*b i"]  # of each item; equal numbers are alike, in all images


class _Layers(NamedTuple):
  """The scene as it is painted, item by item."""

  colour: Float[Array, "h w 3"]  # in 0..1, without light and shadow
  light: Float[Array, "h w"]
  item: Int[Array, "h w"]


def draw(key: Key[Array, ""], kits: int, photographs: int, size: int) -> Scene:
  """Photographs of a scene of each of some kits, size x size pixels.

  They are drawn one after the other, so that each object costs its own kind alone.

  Returns:
    A scene whose leading axis is kit x photograph, flattened. Of each kit's photographs
    the first fourth (CHANGED) shows a change each.
  """

  def draw_one(index: Int[Array, ""]) -> Scene:
    number, photograph = jnp.unravel_index(index, (kits, photographs))
    kit_key, layout_key, photograph_key = jax.random.split(
      jax.random.fold_in(key, number), 3
    )
    move_key, change_key, camera_key = jax.random.split(
      jax.random.fold_in(photograph_key, photograph), 3
    )
    kit, usual = random_kit(kit_key), moved(random_layout(layout_key), move_key)
    altered = changed(usual, change_key, kit.mark)
    is_changed = photograph < photographs // CHANGED
    layout = jax.tree.map(
      lambda old, new: jnp.where(is_changed, new, old), usual, altered
    )
    image, item, new = photographed(kit, usual, layout, camera_key, size)
    of_objects = layout.form * SURFACES + layout.surface
    kind = jnp.concatenate([of_objects, jnp.arange(FORMS * SURFACES, KINDS)])
    return Scene(image=image, item=item, new=new, kind=KINDS * number + kind)

  return jax.lax.map(draw_one, jnp.arange(kits * photographs))


def random_kit(key: Key[Array, ""]) -> Kit:
  """Any kit, the same for the same key; six forms in ten have a part."""
  keys = jax.random.split(key, 12)

  def several(draw, key, count):
    return jax.vmap(draw)(jax.random.split(key, count))

  parts = several(forms.random_form, keys[1], FORMS)
  scale = jax.random.uniform(keys[2], (FORMS,), minval=0.25, maxval=0.7)
  has_part = jax.random.bernoulli(keys[3], 0.6, (FORMS,))
  place = 0.7 * jax.random.normal(keys[4], (FORMS, 2))
  ground_key, panel_key = jax.random.split(keys[7])
  return Kit(
    noise=jax.random.normal(keys[0], (surfaces.NOISE, surfaces.NOISE)),
    forms=several(forms.random_form, keys[8], FORMS),
    parts=parts._replace(scale=jnp.where(has_part, scale, GONE), centre=place),
    surfaces=several(surfaces.random_surface, keys[5], SURFACES),
    covers=several(surfaces.random_surface, keys[6], FORMS),
    ground=surfaces.random_surface(ground_key),
    panel=surfaces.random_surface(panel_key),
    mark=forms.random_form(keys[9])._replace(
      scale=0.03 * 8 ** jax.random.uniform(keys[10]), shadow=jnp.zeros(())
    ),
    stain=surfaces.random_surface(keys[11]),
  )


def random_layout(key: Key[Array, ""]) -> Layout:
  """Any objects anywhere; in every second scene a panel, which lies nearly straight."""
  keys = jax.random.split(key, 10)
  has_panel, form = jax.random.bernoulli(keys[7]), forms.random_form(keys[6])
  scale = jax.random.uniform(keys[9], minval=0.35, maxval=0.5)
  return Layout(
    count=jax.random.randint(keys[0], (), FEWEST, OBJECTS + 1),
    form=jax.random.randint(keys[1], (OBJECTS,), 0, FORMS),
    surface=jax.random.randint(keys[2], (OBJECTS,), 0, SURFACES),
    centre=jax.random.uniform(keys[3], (OBJECTS, 2), minval=0.05, maxval=0.95),
    turn=jax.random.uniform(keys[4], (OBJECTS,), maxval=2 * jnp.pi),
    grow=1 + 0.06 * jax.random.normal(keys[5], (OBJECTS,)),
    panel=form._replace(
      kind=jnp.int32(forms.SHAPES.index("square")),
      centre=0.5 + 0.05 * jax.random.normal(keys[8], (2,)),
      scale=jnp.where(has_panel, scale, GONE),
      turn=jnp.zeros(()),
      hollow=jnp.bool_(False),
    ),
    mark=form._replace(scale=jnp.float32(GONE)),
  )


def moved(layout: Layout, key: Key[Array, ""]) -> Layout:
  """The layout with some objects turned anyhow, and moved a little."""
  keys = jax.random.split(key, 3)
  free = jax.random.bernoulli(keys[0], TURNED, (OBJECTS,))
  turn = jax.random.uniform(keys[1], (OBJECTS,), maxval=2 * jnp.pi)
  move = 0.01 * jax.random.normal(keys[2], (OBJECTS, 2))
  return layout._replace(
    turn=jnp.where(free, turn, layout.turn),
    centre=layout.centre + jnp.where(free[:, None], move, 0),
  )


def changed(layout: Layout, key: Key[Array, ""], mark: forms.Form) -> Layout:
  """The layout with one object gone, of another form or surface, or the mark.

  In place of the one that is gone there is the last.
  """
  keys = jax.random.split(key, 6)
  picked = jnp.arange(OBJECTS) == jax.random.randint(keys[0], (), 0, layout.count)
  change = jax.random.randint(keys[1], (), 0, len(CHANGES))
  gone, marked = change == CHANGES.index("gone"), change >= CHANGES.index("mark")
  rows = jnp.where(picked & gone, layout.count - 1, jnp.arange(OBJECTS))
  altered = layout._replace(
    **{name: getattr(layout, name)[rows] for name in PLACED},
    count=layout.count - gone,
    mark=mark._replace(
      scale=jnp.where(marked, mark.scale, GONE),
      centre=jax.random.uniform(keys[4], (2,), minval=0.1, maxval=0.9),
      turn=jax.random.uniform(keys[5], maxval=2 * jnp.pi),
    ),
  )

  def exchanged(name: str, old: Int[Array, " o"], kinds: int, key) -> Int[Array, " o"]:
    new = (old + jax.random.randint(key, (), 1, kinds)) % kinds
    return jnp.where(picked & (change == CHANGES.index(name)), new, old)

  return altered._replace(
    form=exchanged("form", altered.form, FORMS, keys[2]),
    surface=exchanged("surface", altered.surface, SURFACES, keys[3]),
  )


def photographed(
  kit: Kit, usual: Layout, layout: Layout, key: Key[Array, ""], size: int
) -> tuple[UInt8[Array, "h w 3"], Int[Array, "h w"], Int[Array, "h w"]]:
  """The layout's image, its items, and where it is not as the usual layout's is.

  The camera is held nearly straight.
  """
  pose_key, light_key = jax.random.split(key)
  y, x = jnp.mgrid[:size, :size] / size
  u, v = _posed(pose_key, x, y)
  layers, usual_layers = painted(kit, layout, u, v), painted(kit, usual, u, v)
  canvas, usual_canvas = _lit(layers), _lit(usual_layers)
  new = jnp.abs(canvas - usual_canvas).max(axis=-1) > NEW
  return _exposed(light_key, canvas, x, y), layers.item, new.astype(jnp.int32)


def _lit(layers: _Layers) -> Float[Array, "h w 3"]:
  return layers.colour * layers.light[..., None]


def painted(
  kit: Kit, layout: Layout, x: Float[Array, "h w"], y: Float[Array, "h w"]
) -> _Layers:
  """The scene's colours, light and items at points of it, in sides of the image."""
  layers = _Layers(
    colour=surfaces.paint(kit.ground, x, y, kit.noise),
    light=jnp.ones(x.shape),
    item=jnp.full(x.shape, OBJECTS),
  )

  def paint_over(layers, form, surface, item):
    return jax.lax.cond(
      form.scale > GONE,
      lambda layers: _with_object(layers, form, surface, item, x, y, kit.noise),
      lambda layers: layers,
      layers,
    )

  def add_object(item: Int[Array, ""], layers: _Layers) -> _Layers:
    form, part, cover = _at(layout.form[item], (kit.forms, kit.parts, kit.covers))
    surface = _at(layout.surface[item], kit.surfaces)
    form = form._replace(
      centre=layout.centre[item],
      turn=layout.turn[item],
      scale=form.scale * layout.grow[item],
    )
    layers = paint_over(layers, form, surface, item)
    return paint_over(layers, attached(part, form), cover, item)

  layers = paint_over(layers, layout.panel, kit.panel, jnp.int32(OBJECTS + 1))
  layers = jax.lax.fori_loop(0, layout.count, add_object, layers)
  return paint_over(layers, layout.mark, kit.stain, jnp.int32(OBJECTS + 2))


def attached(part: forms.Form, form: forms.Form) -> forms.Form:
  """The part where the object's form has it; it throws no shadow."""
  cos, sin = jnp.cos(form.turn), jnp.sin(form.turn)
  right, down = part.centre
  offset = form.scale * jnp.stack([cos * right - sin * down, sin * right + cos * down])
  return part._replace(
    centre=form.centre + offset,
    turn=form.turn + part.turn,
    scale=jnp.where(part.scale > GONE, form.scale * part.scale, GONE),
    shadow=jnp.zeros(()),
  )


def _at(index: Int[Array, ""], tree):
  return jax.tree.map(lambda leaf: leaf[index], tree)


def _with_object(layers, form, surface, item, x, y, noise) -> _Layers:
  """The layers with one form painted over them."""
  gap = forms.distance(form, x, y)
  inside = jnp.clip(0.5 - gap * len(x), 0, 1)  # a pixel wide edge
  colour = layers.colour + inside[..., None] * (
    surfaces.paint(surface, x, y, noise) - layers.colour
  )
  # Its shadow falls on what lies under it, none on itself.
  dim = 1 - form.shadow * jnp.exp(-jnp.maximum(gap, 0) / (0.15 * form.scale))
  light = layers.light * dim
  light += inside * (1 - light)
  item = jnp.where(inside > 0.5, item, layers.item)
  return _Layers(colour=colour, light=light, item=item)


def _posed(key, x, y):
  """The scene's points that the pixels show: up to 3 degrees, 4 %, 2 % of the side."""
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
  tint = 1 + 0.06 * jax.random.normal(keys[1], (1, 1, 3))
  canvas = canvas * light[..., None] * tint
  canvas *= jax.random.uniform(keys[2], minval=0.75, maxval=1.2)
  blur = jax.random.uniform(keys[3], maxval=0.9)
  for axis in (0, 1):
    beside = jnp.roll(canvas, 1, axis) + jnp.roll(canvas, -1, axis)
    canvas = (1 - blur) * canvas + 0.5 * blur * beside
  spread = jax.random.uniform(keys[4], maxval=0.03)
  canvas += spread * jax.random.normal(keys[5], canvas.shape)
  return jnp.round(255 * jnp.clip(canvas, 0, 1)).astype(jnp.uint8)
