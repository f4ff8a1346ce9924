"""Drawn scenes: items by the picture, kits, layouts, changes, photographs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nps_jax.data import forms
from nps_jax.data import scenes
from nps_jax.data import surfaces

SIDE = 64
Y, X = (jnp.asarray(each, jnp.float32) for each in np.mgrid[:SIDE, :SIDE] / SIDE)
WHITE, BLUE, RED = (1.0, 1.0, 1.0), (0.2, 0.4, 0.6), (0.9, 0.1, 0.2)


def form(kind, scale=0.25, centre=(0.5, 0.5), turn=0.3, shadow=0.4):
  return forms.Form(
    jnp.int32(forms.SHAPES.index(kind)),
    jnp.float32(centre),
    *(jnp.float32(each) for each in (scale, turn, 1.0)),
    jnp.bool_(False),
    jnp.zeros((4, 2)),
    jnp.float32(shadow),
  )


def flat(colour):
  pair = jnp.float32([colour, colour])
  offset = jnp.zeros(2, jnp.int32)
  return surfaces.Surface(jnp.int32(0), pair, jnp.float32(0), jnp.float32(8), offset)


def many(tree, count):
  return jax.tree.map(lambda leaf: jnp.stack([leaf] * count), tree)


def kit(part=scenes.GONE):
  """White crosses, with a red disc on each if a part's scale is given."""
  return scenes.Kit(
    jnp.zeros((surfaces.NOISE, surfaces.NOISE)),
    many(form("cross"), scenes.FORMS),
    many(form("disc", part, (0.5, 0.0), 0.0), scenes.FORMS),
    many(flat(WHITE), scenes.SURFACES),
    many(flat(RED), scenes.FORMS),
    flat(BLUE),
    flat(BLUE),
  )


def layout(count=1, panel=scenes.GONE):
  """Objects all at one place."""
  rows = (scenes.OBJECTS,)
  return scenes.Layout(
    jnp.int32(count),
    *(jnp.zeros(rows, jnp.int32) for _ in range(2)),
    jnp.full((*rows, 2), 0.5),
    jnp.full(rows, 0.3),
    jnp.ones(rows),
    form("square", panel, turn=0.0),
  )


def test_an_object_is_where_its_item_is_and_has_its_own_colour():
  found = scenes.painted(kit(), layout(), X, Y)
  gap = np.asarray(forms.distance(form("cross"), X, Y))
  inside, outside = gap < -0.5 / SIDE, gap > 0.5 / SIDE
  assert set(np.unique(found.item)) == {0, scenes.OBJECTS}
  assert (np.asarray(found.item)[inside] == 0).all()
  assert (np.asarray(found.item)[outside] == scenes.OBJECTS).all()
  np.testing.assert_allclose(np.asarray(found.colour)[inside], 1, rtol=1e-5)
  ground = np.broadcast_to(np.float32(BLUE), (outside.sum(), 3))
  np.testing.assert_allclose(np.asarray(found.colour)[outside], ground, rtol=1e-5)
  shade = 1 - 0.4 * np.exp(-np.maximum(gap, 0) / (0.15 * 0.25))
  light, far = np.asarray(found.light), outside & (np.hypot(X - 0.5, Y - 0.5) > 0.03)
  np.testing.assert_allclose(light[far], shade[far], rtol=1e-4)
  np.testing.assert_allclose(light[inside], 1, rtol=1e-5)


def test_a_part_goes_with_its_form_and_is_of_the_same_item():
  found = scenes.painted(kit(0.4), layout(), X, Y)
  right, down = 0.5 * 0.25 * np.cos(0.3), 0.5 * 0.25 * np.sin(0.3)
  away = np.hypot(X - 0.5 - right, Y - 0.5 - down)
  disc = away < 0.9 * 0.4 * 0.25 - 0.5 / SIDE
  assert disc.sum() > 60
  np.testing.assert_allclose(
    np.asarray(found.colour)[disc], np.tile(np.float32(RED), (disc.sum(), 1)), rtol=1e-5
  )
  assert (np.asarray(found.item)[disc] == 0).all()


def test_the_panel_lies_under_the_objects():
  found = scenes.painted(kit(), layout(panel=0.4), X, Y)
  gap = np.asarray(forms.distance(form("cross"), X, Y))
  panel = np.maximum(np.abs(X - 0.5), np.abs(Y - 0.5)) < 0.8 * 0.4 - 0.5 / SIDE
  item = np.asarray(found.item)
  assert (item[gap < -0.5 / SIDE] == 0).all()
  assert (item[panel & (gap > 0.5 / SIDE)] == scenes.OBJECTS + 1).all()
  assert (item[~panel & (gap > 3 / SIDE)] == scenes.OBJECTS).mean() > 0.9


def test_what_is_not_there_leaves_no_trace():
  found = scenes.painted(kit(), layout(0), X, Y)
  at = np.asarray(np.hypot(X - 0.5, Y - 0.5) > 1 / SIDE)
  ground = np.broadcast_to(np.float32(BLUE), (at.sum(), 3))
  np.testing.assert_allclose(np.asarray(found.colour)[at], ground, rtol=1e-5)
  np.testing.assert_allclose(np.asarray(found.light)[at], 1, atol=1e-3)
  assert (np.asarray(found.item)[at] == scenes.OBJECTS).all()


def test_kits_and_layouts_are_many():
  kits = jax.vmap(scenes.random_kit)(jax.random.split(jax.random.key(0), 200))
  assert 0.5 < np.mean(kits.parts.scale > scenes.GONE) < 0.7
  assert np.unique(kits.forms.kind).tolist() == list(range(1, len(forms.SHAPES)))
  assert np.mean(kits.surfaces.kind[:, 0] == kits.surfaces.kind[:, 1]) < 0.4
  assert np.ptp(kits.forms.scale) > 0.1
  found = jax.vmap(scenes.random_layout)(jax.random.split(jax.random.key(1), 200))
  assert np.unique(found.count).tolist() == list(range(scenes.FEWEST, 10))
  assert 0.4 < np.mean(found.panel.scale > scenes.GONE) < 0.6
  for values in (found.form, found.surface):
    assert np.unique(values).tolist() == [0, 1, 2]
    assert np.std(np.mean(values, axis=0)) < 0.1


def test_a_change_is_of_one_object_while_others_are_turned():
  base = scenes.random_layout(jax.random.key(3))
  count, seen = int(base.count), {"gone": 0, "form": 0, "surface": 0}
  change, turned, places = jax.jit(scenes.changed), [], set()
  for seed in range(90):
    found = change(base, jax.random.key(seed))
    shown = np.arange(scenes.OBJECTS) < count
    moved = np.abs(found.centre - base.centre).max(axis=1)
    assert moved.max() < 0.06
    turned.append(found.turn != base.turn)
    np.testing.assert_array_equal(turned[-1], moved > 0)
    form, surface = found.form != base.form, found.surface != base.surface
    if found.count < count:
      seen["gone"] += 1
      assert found.count == count - 1
      pairs, left = (
        np.stack([each.form, each.surface], axis=1)[: each.count].tolist()
        for each in (base, found)
      )
      assert all(each in pairs for each in left)
      assert sum(a != b for a, b in zip(left, pairs[:-1], strict=True)) <= 1
      continue
    seen["form" if form.any() else "surface"] += 1
    assert form.sum() + surface.sum() == 1
    assert shown[form | surface].all()
    places.add(int(np.flatnonzero(form | surface)[0]))
    assert {*found.form.tolist(), *found.surface.tolist()} <= {0, 1, 2}
  assert min(seen.values()) > 15
  assert places == set(range(count))
  assert 0.6 < np.mean(turned) < 0.8


@pytest.fixture(scope="module")
def batch():
  key = jax.random.key(5)
  draw = jax.jit(lambda key: scenes.draw(key, 6, 8, SIDE))
  return draw(key), draw(key)


def test_scenes_come_again_by_their_keys_and_show_everything(batch):
  found, again = batch
  jax.tree.map(np.testing.assert_array_equal, found, again)
  assert found.image.dtype == "uint8"
  assert found.image.shape == (48, SIDE, SIDE, 3)
  assert set(np.unique(found.item)) == set(range(scenes.ITEMS))
  assert len(np.unique(np.reshape(found.image, (48, -1)), axis=0)) == 48


def test_a_kind_is_of_one_kit_and_looks_alike_in_all_its_photographs(batch):
  kind = np.asarray(batch[0].kind).reshape(6, -1)
  for index, each in enumerate(kind):
    assert set(each // scenes.KINDS) == {index}
  assert len(np.unique(kind)) > 6 * 8
  image = np.float64(batch[0].image).reshape(6, 8, -1, 3)
  ground = np.asarray(batch[0].item).reshape(6, 8, -1) == scenes.OBJECTS
  colours = np.array(
    [
      [each[seen].mean(0) / each[seen].mean() for each, seen in zip(*pair, strict=True)]
      for pair in zip(image, ground, strict=True)
    ]
  )
  within = colours.std(axis=1).mean()
  assert within < 0.5 * colours.mean(axis=1).std(axis=0).mean()
