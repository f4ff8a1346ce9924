"""The assembled method: losses, separate modules, frozen parts, sources of scores."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import runs

from nps_jax import detector
from nps_jax.models import weights

SHAPES = {3: (8, 8, 128), 4: (4, 4, 256)}


def built(tmp_path, **changes):
  config = ml_collections.FrozenConfigDict(runs.config(tmp_path, **changes))
  return detector.Detector(config, ("tray", "bottle"), 4, None)


def features(seed, count=3):
  rng = np.random.default_rng(seed)
  return {
    level: jnp.float32(np.abs(rng.normal(size=(count, *shape))))
    for level, shape in SHAPES.items()
  }


def objective(model, params, codes, feats, valid=(1, 1, 1)):
  category, key = jnp.int32((0, 1, 0)), jax.random.key(1)
  given = (params, codes, feats, category, jnp.float32(valid), key)
  return jax.jit(model.objective)(*given)


def slow_gap(target, rebuilt):
  """1 - cosine, mean over positions and images, by level."""
  gaps = {}
  for level in rebuilt:
    one, other = np.float64(target[level]), np.float64(rebuilt[level])
    dots = (one * other).sum(-1)
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    gaps[level] = (1 - dots / lengths).mean()
  return gaps


def test_the_loss_is_the_sum_of_both_modules_gaps(tmp_path):
  model = built(tmp_path, codebook__enabled=False, codebook__parts=0)
  params, codes = jax.jit(model.init)(jax.random.key(0))
  feats = features(0)
  total, (_, terms) = objective(model, params, codes, feats)
  found = model._logical.apply(
    {"params": params["logical"]},
    *(feats, None, jnp.int32((0, 1, 0)), jnp.ones(3), (64, 64), True),
  )
  rebuilt = model._structural.apply({"params": params["structural"]}, feats, (64, 64))
  gaps = {
    "logical/reconstruction": slow_gap(feats, found.rebuilt),
    "logical/local": slow_gap(found.rebuilt, found.local),
    "structural/reconstruction": slow_gap(feats, rebuilt),
  }
  want = {name: sum(each.values()) for name, each in gaps.items()}
  np.testing.assert_allclose(total, sum(want.values()), rtol=1e-4)
  want["logical/commitment"] = 0.0
  for name, each in gaps.items():
    want |= {f"{name}/f{level}": gap for level, gap in each.items()}
  assert set(terms) == set(want)
  for name, value in want.items():
    np.testing.assert_allclose(terms[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_each_image_is_read_with_its_own_category_s_vector(tmp_path):
  """Vectors come from files as NumPy arrays; the compiled step takes rows of them."""
  model = built(tmp_path, context__source="vectors", structural__enabled=False)
  vectors = np.random.default_rng(6).normal(size=(2, 5)).astype(np.float32)
  model = dataclasses.replace(model, vectors=vectors)
  params, codes = jax.jit(model.init)(jax.random.key(0))
  feats = jax.tree.map(lambda each: each[:1].repeat(2, axis=0), features(8))

  def maps(rows):
    found = jax.jit(model.raw_scores)(
      *(params, codes, feats, jnp.int32(rows), jnp.ones(2))
    )
    return np.asarray(found.maps["reconstruction"])

  first, second = maps((0, 1))
  assert np.abs(first - second).max() > 1e-4
  np.testing.assert_allclose(maps((1, 0)), [second, first], atol=1e-6)


@pytest.mark.slow
def test_each_module_learns_as_if_alone(tmp_path):
  model = built(tmp_path)
  params, codes = jax.jit(model.init)(jax.random.key(0))
  feats = features(1)

  @jax.jit
  def slope(params):
    return jax.grad(lambda each: objective(model, each, codes, feats)[0])(params)

  both = slope(params)
  moved = jax.tree.map(lambda leaf: leaf + 0.1, params)
  for own, other in (("logical", "structural"), ("structural", "logical")):
    alone = slope({own: params[own], other: moved[other]})[own]
    jax.tree.map(
      lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-7),
      both[own],
      alone,
    )


@pytest.mark.slow
def test_the_local_head_does_not_pull_its_target(tmp_path):
  model = built(tmp_path, codebook__enabled=False, codebook__parts=0)
  params, codes = jax.jit(model.init)(jax.random.key(0))
  feats = features(2)

  @jax.jit
  def slope(params):
    return jax.grad(
      lambda each: objective(model, each, codes, feats)[1][1]["logical/local"]
    )(params)

  found = slope(params)["logical"]
  for name, leaves in found.items():
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(leaves))
    assert (largest > 0) == (name == "local"), name


def test_padding_rows_change_no_loss(tmp_path):
  model = built(tmp_path)
  params, codes = jax.jit(model.init)(jax.random.key(0))
  feats = features(3)
  plain, (state, _) = objective(model, params, codes, feats, (1, 1, 0))
  spoilt = {level: each.at[2].set(50.0) for level, each in feats.items()}
  other, (after, _) = objective(model, params, codes, spoilt, (1, 1, 0))
  np.testing.assert_array_equal(plain, other)
  for one, two in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
    np.testing.assert_array_equal(one, two)


def test_the_encoder_is_frozen_and_reads_up_to_the_deepest_level(tmp_path):
  model = built(tmp_path, encoder__levels=(2,))
  frozen = weights.random("resnet18", 4).params
  images = np.random.default_rng(4).integers(0, 256, (1, 64, 64, 3), np.uint8)

  @jax.jit
  def slope(frozen):
    return jax.grad(
      lambda each: sum(
        feats.sum() for feats in model.features(each, jnp.asarray(images)).values()
      )
    )(frozen)

  assert set(model.features(frozen, jnp.asarray(images))) == {2, 4}
  assert all(not np.any(leaf) for leaf in jax.tree.leaves(slope(frozen)))


@pytest.mark.slow
@pytest.mark.parametrize(
  ("changes", "want"),
  [
    ({}, {"reconstruction", "discrepancy", "structural", "codes"}),
    (
      {"logical__maps": "discrepancy", "structural__enabled": False},
      {"discrepancy", "codes"},
    ),
    (
      {"logical__maps": "reconstruction", "codebook__parts": 0},
      {"reconstruction", "structural"},
    ),
    (
      {"codebook__enabled": False},  # the decoder's codes; these are counted
      {"reconstruction", "discrepancy", "structural", "codes"},
    ),
    (
      {"encoder__levels": (4,)},  # without the level that is counted
      {"reconstruction", "discrepancy", "structural"},
    ),
  ],
)
def test_the_settings_choose_the_sources_of_scores(tmp_path, changes, want):
  model = built(tmp_path, **changes)
  params, codes = jax.jit(model.init)(jax.random.key(0))
  found = jax.jit(model.raw_scores)(
    params, codes, features(5), jnp.int32((0, 1, 0)), jnp.ones(3)
  )
  counted = want & {"codes"}
  assert set(found.maps) == want - counted
  assert {each.shape for each in found.maps.values()} == {(3, 16, 16)}
  assert set(found.pooled) == {"residual", "features"} | counted
  for rows in (found.pooled[name] for name in counted):
    np.testing.assert_allclose(np.square(rows).sum(axis=1), 1, rtol=1e-4)
