"""M_SAD: shapes by level, what it may depend on, and that all of it can learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nps_jax import geometry
from nps_jax import losses
from nps_jax.models import structural

SIDE, WIDTHS = (64, 32), {2: 8, 3: 8, 4: 12}


def features(seed):
  rng = np.random.default_rng(seed)
  return {
    level: np.float32(rng.normal(size=(2, SIDE[0] >> level, SIDE[1] >> level, width)))
    for level, width in WIDTHS.items()
  }


def on_device(feats):
  return jax.tree.map(jnp.asarray, feats)


def built(strides, embedding=8):
  model = structural.StructuralModule(WIDTHS, 16, 1, embedding, strides)
  return model, model.init(jax.random.key(0), on_device(features(0)), SIDE)["params"]


@pytest.mark.parametrize("strides", [0, 1])
def test_each_level_comes_back_in_its_own_shape_from_its_own_image(strides):
  model, params = built(strides)
  feats = features(1)
  found = model.apply({"params": params}, on_device(feats), SIDE)
  assert {at: each.shape for at, each in found.items()} == {
    at: each.shape for at, each in feats.items()
  }
  for each in feats.values():
    each[1] += 3
  moved = model.apply({"params": params}, on_device(feats), SIDE)
  for level in WIDTHS:
    np.testing.assert_array_equal(found[level][0], moved[level][0])
    assert np.abs(found[level][1] - moved[level][1]).max() > 1e-4


def test_every_level_reaches_every_other_through_the_bottleneck():
  model, params = built(0)
  feats = features(2)
  found = model.apply({"params": params}, on_device(feats), SIDE)
  for source in WIDTHS:
    changed = feats | {source: feats[source][::-1]}
    moved = model.apply({"params": params}, on_device(changed), SIDE)
    for level in WIDTHS:
      assert np.abs(found[level] - moved[level]).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("strides", [0, 1])
def test_a_few_steps_of_descent_lower_the_error(strides):
  model, params = built(strides)
  feats = on_device(features(3))

  @jax.jit
  def error(params):
    rebuilt = model.apply({"params": params}, on_device(feats), SIDE)
    return jnp.mean(sum(losses.feature_gap(feats, rebuilt, "cosine").values()))

  slope = jax.jit(jax.grad(error))
  first = float(error(params))
  for _ in range(60):
    params = jax.tree.map(lambda leaf, down: leaf - 0.1 * down, params, slope(params))
  assert float(error(params)) < 0.8 * first


def test_levels_that_share_a_grid_are_merged_as_they_are():
  """Blocks of a transformer: nothing is lowered to reach the deepest of them."""
  layout, side, widths = geometry.Layout(14, 3), (56, 28), {1: 8, 3: 8}
  rng = np.random.default_rng(4)
  feats = {
    level: jnp.float32(rng.normal(size=(2, 4, 2, width)))
    for level, width in widths.items()
  }
  model = structural.StructuralModule(widths, 16, 1, 8, 1, layout)
  params = model.init(jax.random.key(0), feats, side)["params"]
  assert not any(name.startswith("lower") for name in params)
  assert params["merge"]["Conv_0"]["kernel"].shape == (1, 1, 16, 16)
  found = model.apply({"params": params}, feats, side)
  assert {at: each.shape for at, each in found.items()} == dict.fromkeys(
    widths, (2, 4, 2, 8)
  )
  for source in widths:
    moved = model.apply({"params": params}, feats | {source: feats[source][::-1]}, side)
    assert all(np.abs(found[at] - moved[at]).max() > 1e-4 for at in widths)
