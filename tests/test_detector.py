"""The assembled method: losses, separate modules, frozen parts, sources of scores."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import runs
import slow

from nps_jax import detector
from nps_jax import scoring
from nps_jax.models import counts
from nps_jax.models import memory as memories
from nps_jax.models import weights

SHAPES = {2: (16, 16, 64), 3: (8, 8, 128), 4: (4, 4, 256)}
BOTH = {"structural__enabled": True, "logical__local_width": 16}  # and the local head


def built(tmp_path, **changes):
  config = ml_collections.FrozenConfigDict(runs.config(tmp_path, **changes))
  return detector.Detector(config, ("tray", "bottle"), 4, None)


def features(seed, count=3):
  rng = np.random.default_rng(seed)
  return {
    level: jnp.float32(np.abs(rng.normal(size=(count, *shape))))
    for level, shape in SHAPES.items()
  }


def objective(model, params, codes, feats, valid=(1, 1, 1), normal=None):
  """The loss, where nothing else is said of rebuilding the features themselves."""
  normal = feats if normal is None else normal
  category, key = jnp.int32((0, 1, 0)), jax.random.key(1)
  return jax.jit(model.objective)(
    params, codes, feats, normal, category, jnp.float32(valid), key
  )


def scored(model, params, codes, feats, priors=None, category=(0, 1, 0)):
  return jax.jit(model.raw_scores)(
    *(params, codes, feats, jnp.int32(category), jnp.ones(len(category))),
    priors or scoring.Priors(),
  )


def slow_gap(target, rebuilt):
  """1 - cosine, mean over positions and images, by level."""
  gaps = {}
  for level in rebuilt:
    one, other = np.float64(target[level]), np.float64(rebuilt[level])
    dots = (one * other).sum(-1)
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    gaps[level] = (1 - dots / lengths).mean()
  return gaps


def assert_terms(model, seen, normal):
  """The loss sums the gaps between what is rebuilt from `seen` and `normal`."""
  params, codes = jax.jit(model.init)(jax.random.key(0))
  total, (_, terms) = objective(model, params, codes, seen, normal=normal)
  gaps = {}
  if "logical" in params:
    reconstruction = model._logical.apply(
      {"params": params["logical"]},
      *(seen, None, jnp.int32((0, 1, 0)), jnp.ones(3), (64, 64), True),
    )
    gaps["logical/reconstruction"] = slow_gap(normal, reconstruction.rebuilt)
    if model.config.logical.local_width:
      gaps["logical/local"] = slow_gap(reconstruction.rebuilt, reconstruction.local)
  if "structural" in params:
    rebuilt = model._structural.apply({"params": params["structural"]}, seen, (64, 64))
    gaps["structural/reconstruction"] = slow_gap(normal, rebuilt)
  want = {name: sum(levels.values()) for name, levels in gaps.items()}
  np.testing.assert_allclose(total, sum(want.values()), rtol=1e-4)
  if "logical" in params:
    want["logical/commitment"] = 0.0
  for name, levels in gaps.items():
    want |= {f"{name}/f{level}": gap for level, gap in levels.items()}
  assert set(terms) == set(want)
  for name, value in want.items():
    np.testing.assert_allclose(terms[name], value, rtol=1e-4, atol=1e-6)
  return want


def test_the_loss_is_the_sum_of_both_modules_gaps(tmp_path):
  model = built(tmp_path, codebook__enabled=False, **BOTH)
  assert len(assert_terms(model, features(0), features(0))) == 4 + 3 * 2


def test_what_is_seen_is_to_become_what_is_normal(tmp_path):
  """Edited images go in, and the same images' features before the edit are wanted."""
  model = built(tmp_path, codebook__enabled=False, **BOTH)
  seen = features(0)
  unlike = {level: -rows for level, rows in features(9).items()}
  same, other = (assert_terms(model, seen, normal) for normal in (seen, unlike))
  for name, value in same.items():
    reads_normal = name.partition("/f")[0].endswith("reconstruction")
    assert (abs(other[name] - value) > 1e-3) == reads_normal, name


@pytest.mark.parametrize("alone", ["logical", "structural"])
def test_a_module_may_be_the_only_one(tmp_path, alone):
  changes = {f"{name}__enabled": name == alone for name in ("logical", "structural")}
  model = built(tmp_path, codebook__enabled=False, **changes)
  terms = assert_terms(model, features(0), features(9))
  assert {name.partition("/")[0] for name in terms} == {alone}


@pytest.mark.slow
def test_each_image_is_read_with_its_own_category_s_vector(tmp_path):
  """Vectors come from files as NumPy arrays; the compiled step takes rows of them."""
  model = built(tmp_path, context__source="vectors")
  vectors = np.random.default_rng(6).normal(size=(2, 5)).astype(np.float32)
  model = dataclasses.replace(model, vectors=vectors)
  params, codes = jax.jit(model.init)(jax.random.key(0))
  feats = jax.tree.map(lambda each: each[:1].repeat(2, axis=0), features(8))

  def maps(rows):
    raw = scored(model, params, codes, feats, category=rows)
    return np.asarray(raw.maps["reconstruction"])

  first, second = maps((0, 1))
  assert np.abs(first - second).max() > 1e-4
  np.testing.assert_allclose(maps((1, 0)), [second, first], atol=1e-6)


@pytest.mark.slow
def test_each_module_learns_as_if_alone(tmp_path):
  model = built(tmp_path, **BOTH)
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
  model = built(tmp_path, codebook__enabled=False, **BOTH)
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
  model = built(tmp_path, **BOTH)
  params, codes = jax.jit(model.init)(jax.random.key(0))
  feats, normal = features(3), features(7)
  plain, (state, _) = objective(model, params, codes, feats, (1, 1, 0), normal)
  spoilt = [
    {level: rows.at[2].set(value) for level, rows in levels.items()}
    for levels, value in ((feats, 50.0), (normal, -9.0))
  ]
  other, (after, _) = objective(model, params, codes, spoilt[0], (1, 1, 0), spoilt[1])
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


def priors_for(model, feats, names):
  """Random normal patches and scenes, of the widths that the model's have."""
  rng = np.random.default_rng(11)
  memory = np.float32(rng.normal(size=(9, model.patches(feats).shape[-1])))
  codes = rng.normal(size=(6, SHAPES[3][-1])) / 9
  vocabulary = counts.Vocabulary(jnp.float32(codes), jnp.float32(0.7))
  everything = {"memory": memories.remember(memory), "vocabulary": vocabulary}
  return scoring.Priors(**{name: everything[name] for name in names})


RESIDUAL = {"scoring__pooled": ("features", "residual")}


@pytest.mark.slow
@pytest.mark.parametrize(
  ("changes", "priors", "want"),
  [
    ({}, (), "reconstruction / features"),
    (RESIDUAL, (), "reconstruction / features residual"),
    ({}, ("vocabulary",), "reconstruction / features codes"),
    (
      BOTH,
      ("memory", "vocabulary"),
      "reconstruction discrepancy structural memory / features codes",
    ),
    (  # the decoder's codes are others than those that are counted
      {"codebook__enabled": False, "logical__local_width": 16},
      ("vocabulary",),
      "reconstruction discrepancy / features codes",
    ),
    (
      {"logical__enabled": False, "structural__enabled": True},
      ("vocabulary",),
      "structural / features codes",
    ),
    ({"logical__enabled": False}, ("memory", "vocabulary"), "memory / features codes"),
    (
      {"encoder__levels": (4,)},
      ("memory",),
      "reconstruction memory / features",
    ),
    ({"encoder__levels": (2,)}, ("memory",), "reconstruction memory / "),
    ({"encoder__levels": (2,)} | RESIDUAL, (), "reconstruction / residual"),
  ],
)
def test_modules_and_priors_are_the_sources_of_scores(tmp_path, changes, priors, want):
  model = built(tmp_path, **changes)
  params, codes = jax.jit(model.init)(jax.random.key(0))
  feats = features(5)
  raw = scored(model, params, codes, feats, priors_for(model, feats, priors))
  maps, pooled = (set(names.split()) for names in want.split(" / "))
  assert set(raw.maps) == maps and set(raw.pooled) == pooled
  assert {values.shape for values in raw.maps.values()} == {(3, 16, 16)}
  modules = {"logical": "reconstruction" in maps, "structural": "structural" in maps}
  assert set(params) == {name for name, there in modules.items() if there}
  assert (raw.cells is not None) == ("codes" in pooled)


def test_counted_shares_are_the_means_of_what_each_cell_belongs_to(tmp_path):
  """Against loops: a softmax of squared distances between scenes and codes."""
  model = built(tmp_path, logical__enabled=False)
  feats = features(12)
  priors = priors_for(model, feats, ("memory", "vocabulary"))
  raw = scored(model, {}, {}, feats, priors)
  unit = np.float64(feats[3])
  unit /= np.linalg.norm(unit, axis=-1, keepdims=True)
  codes, gap = np.float64(priors.vocabulary.codes), float(priors.vocabulary.gap)
  cells = np.zeros((3, 8, 8, len(codes)))
  for b, y, x in np.ndindex(cells.shape[:3]):
    rows, columns = slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2)
    scene = unit[b, rows, columns].reshape(-1, unit.shape[-1]).mean(axis=0)
    soft = np.exp(-np.square(scene - codes).sum(axis=1) / gap)
    cells[b, y, x] = soft / soft.sum()
  assert raw.cells.dtype == np.float16
  np.testing.assert_allclose(raw.cells, cells, rtol=2e-3, atol=1e-6)
  np.testing.assert_allclose(raw.pooled["codes"], cells.mean(axis=(1, 2)), rtol=1e-4)
  np.testing.assert_allclose(raw.pooled["codes"].sum(axis=1), 1, rtol=1e-5)


def test_the_memory_s_map_is_the_distance_to_the_nearest_patch(tmp_path):
  model = built(tmp_path, logical__enabled=False)
  feats = features(13)
  priors = priors_for(model, feats, ("memory",))
  raw = scored(model, {}, {}, feats, priors)
  patches = slow.patches({level: np.asarray(feats[level]) for level in (3, 4)})
  gaps = patches[..., None, :] - np.float64(priors.memory.patches)
  want = np.float32(np.linalg.norm(gaps, axis=-1).min(axis=-1))
  grid = scoring.on_grid(jnp.asarray(want), (16, 16))
  np.testing.assert_allclose(raw.maps["memory"], grid, rtol=1e-4)
