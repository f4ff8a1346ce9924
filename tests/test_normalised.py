"""Batch normalisation of an encoder without any, against NumPy; folded, it is gone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nps_jax.models import encoder
from nps_jax.pretraining import filters
from nps_jax.pretraining import normalised

pytestmark = pytest.mark.slow  # with all that trains the built-in encoder

MODEL = encoder.Encoder("resnet18", 2)


@pytest.fixture(scope="module")
def start():
  params = filters.initial("resnet18", 2, 0)
  images = jax.random.normal(jax.random.key(0), (3, 32, 32, 3)) + 0.5
  return params, images


def test_the_stem_is_normalised_channel_by_channel(start):
  params, images = start
  rng = np.random.default_rng(0)
  gain, bias = rng.normal(1, 0.2, 64), rng.normal(0, 0.2, 64)
  held = {**params, "stem": {**params["stem"], "bias": jnp.float32(bias)}}
  bare = np.float64(encoder.Encoder("resnet18", 1).apply({"params": params}, images)[1])
  assert (bare >= 0).all()
  _, moments = normalised.apply(MODEL, held, images)
  mean, variance = moments["stem",]
  shown = held | {"stem": {**held["stem"], "gain": jnp.float32(gain)}}
  levels, _ = normalised.apply(MODEL, shown, images)
  kernel = np.float64(params["stem"]["kernel"])
  padded = np.pad(np.float64(images), ((0, 0), (3, 3), (3, 3), (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), axis=(1, 2))
  given = np.einsum("bhwcyx,yxcd->bhwd", windows[:, ::2, ::2], kernel)
  np.testing.assert_allclose(mean, given.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(variance, given.var((0, 1, 2)), rtol=1e-4)
  unit = (given - given.mean((0, 1, 2))) / np.sqrt(given.var((0, 1, 2)) + 1e-5)
  want = np.maximum(unit * gain + bias, 0)
  np.testing.assert_allclose(levels[1], want, rtol=1e-3, atol=1e-4)


def test_gains_that_change_nothing_and_moments_folded_away(start):
  params, images = start
  bare = MODEL.apply({"params": params}, images)
  same, moments = normalised.apply(MODEL, params, images)
  with_gains = normalised.with_gains(params, moments, {})
  again, seen = normalised.apply(MODEL, with_gains, images)
  assert set(seen) == set(moments)
  assert len(seen) == 5
  folded = normalised.fold(with_gains, seen)
  assert jax.tree.structure(folded) == jax.tree.structure(params)
  last = MODEL.apply({"params": folded}, images)
  for level, want in bare.items():
    np.testing.assert_array_equal(same[level], want)
    for found in (again, last):
      np.testing.assert_allclose(found[level], want, rtol=1e-4, atol=1e-5)


def test_the_scale_of_a_kernel_counts_for_nothing(start):
  params, images = start
  _, moments = normalised.apply(MODEL, params, images)
  held = normalised.with_gains(params, moments, {})
  loud = jax.tree_util.tree_map_with_path(
    lambda path, leaf: 3 * leaf if path[-1].key == "kernel" else leaf, held
  )
  one, other = (normalised.apply(MODEL, each, images)[0] for each in (held, loud))
  for level, want in one.items():
    np.testing.assert_allclose(other[level], want, rtol=1e-2, atol=1e-3)


def test_channels_with_gains_given_begin_with_them_and_others_stay_as_they_are():
  model = encoder.Encoder("resnet18", 3)
  params, gains = filters.initial("resnet18", 3, 0), filters.gains("resnet18", 3)
  images = jax.random.normal(jax.random.key(0), (3, 64, 64, 3)) + 0.5
  _, moments = normalised.apply(model, params, images)
  held = normalised.with_gains(params, moments, gains)
  np.testing.assert_array_equal(
    held["layer2_0"]["conv1"]["gain"], gains["layer2_0", "conv1"]
  )
  levels, moments = normalised.apply(model, held, images)
  mean, variance = moments["layer2_0", "shortcut"]
  below, kernel = (
    np.float64(each) for each in (levels[2], held["layer2_0"]["shortcut"]["kernel"])
  )
  given = np.einsum("bhwc,cd->bhwd", below[:, ::2, ::2], kernel[0, 0])
  np.testing.assert_allclose(mean, given.mean((0, 1, 2)), rtol=1e-3, atol=1e-4)
  np.testing.assert_allclose(variance, given.var((0, 1, 2)), rtol=1e-3, atol=1e-5)
  padded = np.pad(below, ((0, 0), (1, 1), (1, 1), (0, 0)))
  blurred = sum(
    weight * padded[:, row : row + 16 : 2, column : column + 16 : 2]
    for (row, column), weight in np.ndenumerate(filters.BLUR)
  )
  np.testing.assert_allclose(levels[3][..., :64], blurred, rtol=1e-4, atol=1e-5)
  assert (np.asarray(levels[3])[..., 64:] == 0).mean() > 0.2
  folded = model.apply({"params": normalised.fold(held, moments)}, images)
  for level, want in levels.items():
    np.testing.assert_allclose(folded[level], want, rtol=1e-3, atol=1e-4)


def test_channels_that_are_as_they_are_do_not_learn():
  rng = np.random.default_rng(0)
  held = {"stem": {"kernel": rng.normal(size=(1, 1, 2, 3)), "bias": np.ones(3)}}
  held["stem"]["gain"] = np.array([0.0, 2.0, -1.0])
  held = jax.tree.map(jnp.asarray, held)
  found = normalised.learned_change(held, jax.tree.map(jnp.ones_like, held))["stem"]
  for each in found.values():
    assert (each[..., 0] == 0).all()
    assert (each[..., 1:] == 1).all()


@pytest.mark.parametrize("level", [3, 4])
def test_the_deepest_levels_features_are_scaled_and_no_others(level):
  model = encoder.Encoder("resnet18", level)
  params = filters.initial("resnet18", level, 0)
  for block in params.values():
    for each in block.values():
      if isinstance(each, dict):
        each["bias"] = each["bias"] + np.float32(0.1)
  images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
  found, want = (
    model.apply({"params": each}, images)
    for each in (normalised.scaled(params, level, 0.25), params)
  )
  for each in want:
    factor = 0.25 if each == level else 1
    np.testing.assert_allclose(found[each], factor * want[each], rtol=1e-4, atol=1e-5)
