"""M_LAD: what reaches what, and the losses of its codes against brute force."""

from flax import traverse_util
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from nps_jax import config as settings
from nps_jax.models import logical

SIDE, WIDTHS = (32, 32), {3: 8, 4: 12}
SHAPES = {3: (4, 4, 8), 4: (2, 2, 12)}


def tiny(**changes):
  config = settings.defaults()
  config.update(
    {
      "context": {"source": "learned", "width": 4},
      "codebook": {"size": 8, "groups": 2, "width": 4},
      "logical": {"width": 16, "blocks": 1, "embedding": 8, "local_width": 16},
    }
  )
  for name, value in changes.items():
    section, field = name.split("__")
    config[section][field] = value
  return ml_collections.FrozenConfigDict(config)


def features(seed, count=3):
  rng = np.random.default_rng(seed)
  return {
    level: np.float32(rng.normal(size=(count, *shape)))
    for level, shape in SHAPES.items()
  }


def on_device(feats):
  return jax.tree.map(jnp.asarray, feats)


def assert_same(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_array_equal(left, right)


def built(config, categories=2, vectors=None, seed=0):
  model = logical.LogicalModule(WIDTHS, 4, categories, config)
  row = jnp.zeros((3,), jnp.int32)
  key = jax.random.key(seed)
  held = model.init(
    key, on_device(features(0)), vectors, row, jnp.ones((3,)), SIDE, False
  )
  return model, held


def run(model, held, feats, category=(0, 0, 0), valid=(1, 1, 1), vectors=None):
  return model.apply(
    held,
    *(on_device(feats), vectors, jnp.int32(category), jnp.float32(valid), SIDE, False),
  )


def trained(model, held, feats, valid=(1, 1, 1), steps=3):
  """The module's state after some updates of its codebooks alone."""
  for step in range(steps):
    found, changed = model.apply(
      held,
      *(on_device(feats), None, jnp.int32((0, 1, 0)), jnp.float32(valid), SIDE, True),
      mutable=["codes", "intermediates"],
      rngs={"codes": jax.random.key(step)},
    )
    held = held | {"codes": changed["codes"]}
  return found, held


def test_the_local_head_sees_a_few_cells_only():
  model, held = built(tiny())
  feats = features(1)
  before = run(model, held, feats).local[3]
  feats[3][:, 0, 0] += 5
  after = run(model, held, feats).local[3]
  moved = np.abs(np.asarray(after - before)).max(axis=(0, 3)) > 0
  want = np.zeros((4, 4), bool)
  want[:2, :2] = True  # a 3x3 convolution around the corner, and no further
  np.testing.assert_array_equal(moved, want)


def test_without_a_local_head_the_rest_is_the_same():
  model, held = built(tiny())
  bare, fewer = built(tiny(logical__local_width=0))
  assert set(held["params"]) - set(fewer["params"]) == {"local"}
  whole, rest = (
    run(
      each,
      held | {"params": {name: held["params"][name] for name in own["params"]}},
      features(1),
    )
    for each, own in ((model, held), (bare, fewer))
  )
  assert rest.local == {} and set(whole.local) == set(WIDTHS)
  assert_same(rest.rebuilt, whole.rebuilt)


def test_everything_rebuilt_comes_through_the_embedding_and_the_priors():
  model, held = built(tiny())
  feats = features(2)
  before = run(model, held, feats)
  feats[3] = features(3)[3]  # not the deepest level, which alone is embedded
  after = run(model, held, feats)
  for level in WIDTHS:
    np.testing.assert_array_equal(before.rebuilt[level], after.rebuilt[level])
  feats[4] = features(3)[4]
  moved = run(model, held, feats)
  assert np.abs(moved.rebuilt[3] - after.rebuilt[3]).max() > 1e-3


def test_levels_are_read_without_their_scale():
  model, held = built(tiny())
  feats = features(4)
  found = run(model, held, feats)
  other = run(model, held, {level: 100 * each for level, each in feats.items()})
  for level in WIDTHS:
    np.testing.assert_allclose(
      found.rebuilt[level], other.rebuilt[level], rtol=1e-3, atol=1e-4
    )


def test_each_image_has_its_own_category_s_vector():
  vectors = jnp.float32(np.random.default_rng(5).normal(size=(2, 6)))
  model, held = built(tiny(context__source="vectors"), vectors=vectors)
  feats = jax.tree.map(lambda each: np.repeat(each[:1], 3, axis=0), features(5))
  found = run(model, held, feats, (0, 1, 0), vectors=vectors).rebuilt[3]
  np.testing.assert_array_equal(found[0], found[2])
  assert np.abs(found[0] - found[1]).max() > 1e-3
  swapped = run(model, held, feats, (1, 0, 1), vectors=vectors[::-1]).rebuilt[3]
  np.testing.assert_array_equal(found, swapped)


def test_without_context_the_category_changes_nothing():
  model, held = built(tiny(context__source="none"))
  feats = features(6)
  one, other = (
    run(model, held, feats, row).rebuilt[3] for row in ((0, 0, 0), (1,) * 3)
  )
  np.testing.assert_array_equal(one, other)
  assert "vectors" not in held["params"] and "context" not in held["params"]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("where", "fusion"),
  [("embedding", "concat"), ("levels", "concat"), ("decoder", "attention")],
)
def test_padding_rows_reach_neither_codes_nor_other_rows(where, fusion):
  config = tiny(codebook__where=where, logical__fusion=fusion)
  model, held = built(config)
  feats = features(7)
  _, plain = trained(model, held, feats, (1, 1, 0))
  for each in feats.values():
    each[2] = 1e3
  _, padded = trained(model, held, feats, (1, 1, 0))
  assert_same(plain["codes"], padded["codes"])
  one = run(model, padded, features(8)).rebuilt[4][:2]
  feats = features(8)
  for each in feats.values():
    each[2] = -7
  other = run(model, padded, feats, valid=(1, 1, 0)).rebuilt[4][:2]
  np.testing.assert_array_equal(one, other)


def test_training_starts_the_codes_and_evaluation_leaves_them():
  model, held = built(tiny())
  feats = features(9)
  _, after = trained(model, held, feats)
  for state in jax.tree.leaves(
    after["codes"], is_leaf=lambda each: hasattr(each, "started")
  ):
    assert bool(state.started) and np.abs(state.codes).max() > 0
  _, kept = model.apply(
    after,
    *(on_device(feats), None, jnp.int32((0, 0, 0)), jnp.ones(3), SIDE, False),
    mutable=["codes"],
  )
  assert_same(kept["codes"], after["codes"])


@pytest.mark.slow
@pytest.mark.parametrize(
  ("changes", "books", "attended"),
  [
    ({"codebook__where": "decoder"}, {f"codebook{level}" for level in (3, 4, 5)}, {}),
    ({"logical__fusion": "attention"}, {"codebook"}, {3: 2, 4: 2, 5: 2}),
    (
      {"logical__fusion": "attention", "codebook__where": "levels"},
      {"codebook3", "codebook4"},
      {3: 2, 4: 2, 5: 1},
    ),
  ],
)
def test_the_settings_choose_what_is_quantised_and_what_is_attended(
  changes, books, attended
):
  """All of it is used: another code changes what is rebuilt."""
  model, held = built(tiny(codebook__learning="gradient", **changes))
  flat = traverse_util.flatten_dict(held["params"], sep="/")
  found = {name: leaf for name, leaf in flat.items() if "/group" in name}
  assert {name.rpartition("/")[0] for name in found} == books
  decoder = held["params"]["decoder"]
  for level in (3, 4, 5):
    names = decoder.get(f"attention{level}", {})
    tokens = [name for name in names if name.startswith("in")]
    assert len(tokens) == attended.get(level, 0)
  before = run(model, held, features(14)).rebuilt[3]
  for name, leaf in found.items():
    other = traverse_util.unflatten_dict(flat | {name: leaf + 1}, sep="/")
    after = run(model, held | {"params": other}, features(14)).rebuilt[3]
    assert np.abs(after - before).max() > 1e-5, name


def test_the_codes_losses_are_summed_over_the_codebooks():
  config = tiny(codebook__learning="gradient", codebook__where="levels")
  model, held = built(config)
  feats = on_device(features(15))
  found = run(model, held, feats)
  np.testing.assert_array_equal(found.pull, found.commitment)
  want = 0
  for level in WIDTHS:
    unit = logical._root_mean_square(feats[level])
    own = held["params"][f"codebook{level}_in"]
    keys = np.asarray(unit) @ np.asarray(own["kernel"][0, 0]) + np.asarray(own["bias"])
    for group in (0, 1):
      part = keys[..., 2 * group : 2 * group + 2].reshape(3, -1, 1, 2)
      codes = np.asarray(held["params"][f"codebook{level}"][f"group{group}"])
      want += np.square(part - codes).sum(-1).min(-1).mean(-1) / 4
  np.testing.assert_allclose(found.pull, want, rtol=1e-4)


def test_without_codebooks_nothing_is_quantised():
  model, held = built(tiny(codebook__enabled=False))
  found = run(model, held, features(12))
  assert "codes" not in held
  np.testing.assert_array_equal((found.commitment, found.pull), 0)
