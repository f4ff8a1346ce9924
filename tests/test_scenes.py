"""Drawn scenes: items by the picture, kits, layouts, changes, photographs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nps_jax.pretraining import forms
from nps_jax.pretraining import scenes
from nps_jax.pretraining import surfaces

pytestmark = pytest.mark.slow  # with all that trains the built-in encoder

SIDE = 64
Y, X = (jnp.asarray(each, jnp.float32) for each in np.mgrid[:SIDE, :SIDE] / SIDE)
WHITE, BLUE, RED = (1.0, 1.0, 1.0), (0.2, 0.4, 0.6), (0.9, 0.1, 0.2)
BLACK = (0.0, 0.0, 0.0)


CHANGED = ("form", "surface")


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
  """White crosses, with a red disc on each if a part's scale is given; a black mark."""
  return scenes.Kit(
    jnp.zeros((surfaces.NOISE, surfaces.NOISE)),
    many(form("cross"), scenes.FORMS),
    many(form("disc", part, (0.5, 0.0), 0.0), scenes.FORMS),
    many(flat(WHITE), scenes.SURFACES),
    many(flat(RED), scenes.FORMS),
    flat(BLUE),
    flat(BLUE),
    form("disc", 0.1, shadow=0.0),
    flat(BLACK),
  )


def layout(count=1, panel=scenes.GONE, mark=scenes.GONE):
  """Objects all at one place."""
  rows = (scenes.OBJECTS,)
  return scenes.Layout(
    jnp.int32(count),
    *(jnp.zeros(rows, jnp.int32) for _ in range(2)),
    jnp.full((*rows, 2), 0.5),
    jnp.full(rows, 0.3),
    jnp.ones(rows),
    form("square", panel, turn=0.0),
    form("disc", mark, (0.4, 0.5), shadow=0.0),
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


def test_a_mark_lies_over_everything():
  found = scenes.painted(kit(0.4), layout(panel=0.4, mark=0.2), X, Y)
  disc = np.hypot(X - 0.4, Y - 0.5) < 0.9 * 0.2 - 0.5 / SIDE
  assert (np.asarray(found.item)[disc] == scenes.OBJECTS + 2).all()
  np.testing.assert_allclose(np.asarray(found.colour)[disc], 0, atol=1e-6)
  assert len(np.unique(found.item)) == 4


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
  assert np.unique(kits.forms.kind).tolist() == list(range(len(forms.SHAPES)))
  assert np.mean(kits.surfaces.kind[:, 0] == kits.surfaces.kind[:, 1]) < 0.4
  assert np.ptp(kits.forms.scale) > 0.1
  found = jax.vmap(scenes.random_layout)(jax.random.split(jax.random.key(1), 200))
  assert np.unique(found.count).tolist() == list(range(scenes.FEWEST, 10))
  assert 0.4 < np.mean(found.panel.scale > scenes.GONE) < 0.6
  assert (found.mark.scale == np.float32(scenes.GONE)).all()
  for values in (found.form, found.surface):
    assert np.unique(values).tolist() == [0, 1, 2]
    assert np.std(np.mean(values, axis=0)) < 0.1


def test_some_objects_are_turned_and_moved_a_little():
  base = scenes.random_layout(jax.random.key(3))
  turned = []
  for seed in range(40):
    found = scenes.moved(base, jax.random.key(seed))
    gap = np.abs(found.centre - base.centre).max(axis=1)
    assert gap.max() < 0.06
    turned.append(found.turn != base.turn)
    np.testing.assert_array_equal(turned[-1], gap > 0)
    same = found._replace(turn=base.turn, centre=base.centre)
    jax.tree.map(np.testing.assert_array_equal, same, base)
  assert 0.4 < np.mean(turned) < 0.6


def test_a_change_is_of_one_object_or_a_mark():
  base = scenes.random_layout(jax.random.key(3))
  count, names = int(base.count), ("gone", *CHANGED, "mark")
  mark, change = form("disc", 0.1), jax.jit(scenes.changed)
  seen, places, marks = dict.fromkeys(names, 0), set(), []
  for seed in range(160):
    found = change(base, jax.random.key(seed), mark)
    if found.count < count:
      seen["gone"] += 1
      rows, left = (
        np.stack([each.form, each.surface, each.turn, each.grow], axis=1)[: count - 1]
        for each in (base, found)
      )
      other = (left != rows).any(axis=1)
      assert other.sum() <= 1
      for name in scenes.PLACED:  # the last one is in its place
        last = np.asarray(getattr(base, name))[count - 1]
        assert (np.asarray(getattr(found, name))[: count - 1][other] == last).all()
    elif found.mark.scale > scenes.GONE:
      seen["mark"] += 1
      marks.append(found.mark.centre)
      same = found._replace(mark=base.mark)
      jax.tree.map(np.testing.assert_array_equal, same, base)
      assert found.mark.scale == mark.scale
    else:
      differs = {n: np.asarray(getattr(found, n) != getattr(base, n)) for n in CHANGED}
      (name,) = (each for each in CHANGED if differs[each].any())
      (place,) = np.flatnonzero(differs[name])
      seen[name] += 1
      places.add(int(place))
      same = found._replace(**{name: getattr(base, name)}, mark=base.mark)
      jax.tree.map(np.testing.assert_array_equal, same, base)
      assert {*found.form.tolist(), *found.surface.tolist()} <= {0, 1, 2}
  assert sum(seen.values()) == 160
  assert min(seen.values()) > 8
  assert 60 < seen["mark"] < 100  # half of them
  assert places == set(range(count))
  assert np.min(marks) >= 0.1
  assert np.max(marks) <= 0.9
  assert np.ptp(marks, axis=0).min() > 0.6


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


def test_what_is_new_is_in_the_first_photographs_alone(batch):
  new = np.asarray(batch[0].new).reshape(6, 8, -1)
  shares = new.mean(axis=2)
  assert set(np.unique(new)) == {0, 1}
  assert (shares[:, 2:] == 0).all()
  assert np.mean(shares[:, :2] > 0) > 0.8
  assert shares.max() < 0.4


def test_new_is_where_the_picture_is_not_as_usual():
  usual, found = layout(panel=0.4), layout(panel=0.4, mark=0.2)
  found = scenes.photographed(kit(), usual, found, jax.random.key(0), SIDE)
  same = scenes.photographed(kit(), usual, usual, jax.random.key(0), SIDE)
  image, other = (np.float64(each[0]).sum(axis=-1) for each in (found, same))
  new = np.asarray(found[2]) > 0
  assert not np.any(same[2])
  assert 0.08 < new.mean() < 0.13  # a disc of 0.18 sides in radius
  gap = np.abs(image - other)
  assert gap[new].mean() > 10 * gap[~new].mean()
  mark = np.asarray(found[1]) == scenes.OBJECTS + 2
  assert new[mark].all()
  assert 0 < (new & ~mark).sum() < 60  # its rim, of which less than half is covered


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
