"""Drawn scenes: labels by the picture, changes of one object, photographs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nps_jax.data import forms
from nps_jax.data import scenes
from nps_jax.data import surfaces

SIDE = 64
Y, X = (jnp.asarray(each, jnp.float32) for each in np.mgrid[:SIDE, :SIDE] / SIDE)


def cross(turn=0.3):
  return forms.Form(
    jnp.int32(forms.SHAPES.index("cross")),
    jnp.float32([0.5, 0.5]),
    *(jnp.float32(each) for each in (0.25, turn, 1.0)),
    jnp.bool_(False),
    jnp.zeros((4, 2)),
    jnp.float32(0.4),
  )


def flat(colour):
  pair = jnp.float32([colour, colour])
  offset = jnp.zeros(2, jnp.int32)
  return surfaces.Surface(jnp.int32(0), pair, jnp.float32(0), jnp.float32(8), offset)


def layout(count=1):
  """White crosses, all at one place, on a ground of another colour."""
  many = jax.tree.map(
    lambda each: jnp.stack([each] * scenes.OBJECTS), (cross(), flat((1.0, 1.0, 1.0)))
  )
  noise = jnp.zeros((surfaces.NOISE, surfaces.NOISE))
  return scenes.Layout(noise, flat((0.2, 0.4, 0.6)), jnp.int32(count), *many)


def test_an_object_is_where_its_label_is_and_has_its_own_colour():
  found = scenes.painted(layout(), X, Y)
  gap = np.asarray(forms.distance(cross(), X, Y))
  inside, outside = gap < -0.5 / SIDE, gap > 0.5 / SIDE
  kind = forms.SHAPES.index("cross")
  assert set(np.unique(found.shape)) == {0, kind}
  assert (np.asarray(found.shape)[inside] == kind).all()
  assert (np.asarray(found.shape)[outside] == 0).all()
  np.testing.assert_allclose(np.asarray(found.colour)[inside], 1, rtol=1e-5)
  ground = np.broadcast_to(np.float32([0.2, 0.4, 0.6]), (outside.sum(), 3))
  np.testing.assert_allclose(np.asarray(found.colour)[outside], ground, rtol=1e-5)
  shade = 1 - 0.4 * np.exp(-np.maximum(gap, 0) / (0.15 * 0.25))
  np.testing.assert_allclose(
    np.asarray(found.light)[outside], shade[outside], rtol=1e-5
  )
  np.testing.assert_allclose(np.asarray(found.light)[inside], 1, rtol=1e-5)


def test_a_change_is_of_one_object_and_of_what_it_says():
  base = scenes.random_layout(jax.random.key(3))
  seen, places = {}, set()
  fields = ("scale", "kind", "hollow", "ends", "centre", "turn", "aspect", "shadow")
  change = jax.jit(scenes.changed)
  for seed in range(64):
    found = change(base, jax.random.key(seed))
    both = (base, found)
    pairs = {name: [getattr(each.forms, name) for each in both] for name in fields}
    pairs |= {"surface": [each.surfaces.colours for each in both]}
    differs = {
      name: np.any(np.reshape(one != other, (scenes.OBJECTS, -1)), axis=1)
      for name, (one, other) in pairs.items()
    }
    names = tuple(name for name, hits in differs.items() if hits.any())
    where = np.flatnonzero(np.any(list(differs.values()), axis=0))
    assert len(where) == 1
    places.add(int(where[0]))
    seen[names] = seen.get(names, 0) + 1
    if names == ("scale",):
      assert found.forms.scale[where[0]] == np.float32(scenes.VANISHED)
    jax.tree.map(
      np.testing.assert_array_equal,
      (base.noise, base.ground, base.count),
      (found.noise, found.ground, found.count),
    )
  assert places == set(range(int(base.count)))
  forms_changed = {names for names in seen if "ends" in names}
  assert all(set(names) <= {"kind", "hollow", "ends"} for names in forms_changed)
  assert set(seen) - forms_changed == {("scale",), ("centre", "turn"), ("surface",)}
  assert min(seen[names] for names in set(seen) - forms_changed) >= 8


def test_a_vanished_object_leaves_no_trace():
  shown = layout()
  gone = shown._replace(forms=shown.forms._replace(scale=jnp.full(10, scenes.VANISHED)))
  found, bare = scenes.painted(gone, X, Y), scenes.painted(layout(0), X, Y)
  at = np.hypot(X - 0.5, Y - 0.5) > 1 / SIDE
  np.testing.assert_allclose(found.colour[at], bare.colour[at], atol=1e-6)
  np.testing.assert_allclose(found.light[at], bare.light[at], atol=1e-3)


@pytest.fixture(scope="module")
def batch():
  key = jax.random.key(5)
  draw = jax.jit(lambda key: scenes.draw(key, 12, 4, SIDE))
  return draw(key), draw(key)


def test_scenes_come_again_by_their_keys_and_show_everything(batch):
  found, again = batch
  jax.tree.map(np.testing.assert_array_equal, found, again)
  assert found.image.dtype == "uint8"
  assert set(np.unique(found.shape)) == set(range(len(forms.SHAPES)))
  assert set(np.unique(found.texture)) == set(range(len(surfaces.TEXTURES)))
  assert 0.4 < np.mean(np.asarray(found.shape) == 0) < 0.9
  assert np.min(found.colour) >= 0 and np.max(found.colour) <= 1
  like = np.corrcoef(np.ravel(found.image), np.ravel(found.colour))[0, 1]
  assert 0.6 < like < 0.99  # the light is not the surface's


def test_two_photographs_of_each_variant_of_each_layout(batch):
  shape = np.asarray(batch[0].shape).reshape(2, 12, 4, SIDE, SIDE)
  same = np.mean(shape[0] != shape[1])
  variant = np.mean(shape[0] != np.roll(shape[1], 1, axis=1))
  layout = np.mean(shape[0] != np.roll(shape[1], 1, axis=0))
  assert 0 < same < variant < layout
  image = np.asarray(batch[0].image)
  assert len(np.unique(image.reshape(len(image), -1), axis=0)) == 96
