"""Codebooks against float64 loops: choice, gradients, EMA, re-seeding, padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nps_jax import distributed
from nps_jax.models import codebook

HUGE = 1e15  # of padding; its square is still finite in float32
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def drawn(seed: int, *shape: int) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def book(size: int, groups: int = 1, decay: float = 0.8, reseed_after: int = 99):
  settings = (size, groups, "ema", decay)
  return codebook.Codebook(*settings, eps=1e-3, reseed_after=reseed_after)


def started(codes: np.ndarray) -> codebook.CodeState:
  """A running state whose codes are the given ones, each chosen once so far."""
  fresh = codebook.initial_state(*codes.shape)
  codes = jnp.asarray(codes)
  return fresh._replace(codes=codes, sums=codes, started=jnp.ones((), bool))


@functools.partial(jax.jit, static_argnums=0)
def train(model, state, feats, valid, key):
  """The quantised features, the new codes by group, and each group's perplexity."""
  found, changed = model.apply(
    {"codes": state},
    *(feats, valid, True),
    mutable=["codes", "intermediates"],
    rngs={"codes": key},
  )
  return found, changed["codes"], changed["intermediates"]


move = jax.jit(codebook.update, static_argnames=("decay", "eps", "reseed_after"))


def assert_close(found, want, tolerance: dict = CLOSE) -> None:
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(one, other, **tolerance)


def assert_same(found, want) -> None:
  assert_close(found, want, {"rtol": 0, "atol": 0})


def slow_nearest(feats: np.ndarray, codes: np.ndarray) -> np.ndarray:
  feats, codes = np.float64(feats), np.float64(codes)
  gaps = [[np.square(each - code).sum() for code in codes] for each in feats]
  return np.argmin(gaps, axis=1)


def slow_update(held, feats, index, weight, decay, eps):
  """Equations of VQ-VAE's appendix on (codes, counts, sums), code by code."""
  _, counts, sums = (np.float64(part) for part in held)
  size = len(counts)
  for code in range(size):
    mine = [f for f, i, w in zip(feats, index, weight, strict=True) if w and i == code]
    total = np.sum(np.float64(mine), axis=0) if mine else 0.0
    counts[code] = decay * counts[code] + (1 - decay) * len(mine)
    sums[code] = decay * sums[code] + (1 - decay) * total
  mass = counts.sum()
  smooth = np.array([(n + eps) / (mass + size * eps) * mass for n in counts])
  return sums / smooth[:, None], counts, sums


def test_nearest_code_agrees_with_brute_force():
  feats, codes = drawn(0, 60, 6), drawn(1, 9, 6)
  found = codebook.nearest_code(jnp.asarray(feats), jnp.asarray(codes))
  np.testing.assert_array_equal(found, slow_nearest(feats, codes))
  assert len(set(found.tolist())) > 5


def test_each_feature_becomes_its_nearest_code():
  feats, codes = drawn(2, 3, 2, 4, 5), drawn(3, 7, 5)
  state = {"codes": {"group0": started(codes)}}
  found = book(7).apply(state, jnp.asarray(feats), jnp.ones(3), False)
  want = slow_nearest(feats.reshape(-1, 5), codes).reshape(3, 2, 4)
  np.testing.assert_array_equal(found.index, want[None])
  np.testing.assert_allclose(found.codes, codes[want], **CLOSE)
  gaps = np.square(np.float64(feats) - codes[want])
  np.testing.assert_allclose(found.commitment, gaps.mean(axis=(1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_gradients_pass_straight_to_the_input_and_never_to_the_codes(training):
  feats, codes, pull = drawn(4, 2, 3, 3, 4), drawn(5, 6, 4), drawn(6, 2, 3, 3, 4)

  def quantise(feats, codes):
    state = {"codes": {"group0": started(drawn(5, 6, 4))._replace(codes=codes)}}
    model, valid = book(6), jnp.ones(2)
    if not training:
      return model.apply(state, feats, valid, False)
    return train(model, state["codes"], feats, valid, jax.random.key(0))[0]

  def pulled(feats, codes):
    return jnp.sum(quantise(feats, codes).codes * pull)

  def commitment(feats, codes):
    return jnp.sum(quantise(feats, codes).commitment * jnp.float32([1.0, 3.0]))

  given = jnp.asarray(feats), jnp.asarray(codes)
  through, onto = jax.grad(pulled, argnums=(0, 1))(*given)
  np.testing.assert_array_equal(through, pull)
  np.testing.assert_array_equal(onto, np.zeros_like(codes))

  through, onto = jax.grad(commitment, argnums=(0, 1))(*given)
  np.testing.assert_array_equal(onto, np.zeros_like(codes))
  chosen = codes[slow_nearest(feats.reshape(-1, 4), codes)].reshape(feats.shape)
  want = 2 * (np.float64(feats) - chosen) / (3 * 3 * 4)
  want *= np.array([1.0, 3.0])[:, None, None, None]
  np.testing.assert_allclose(through, want, rtol=1e-5, atol=1e-7)


def test_codes_that_learn_by_gradient_are_pulled_to_their_features():
  """VQ-VAE, equation 3: each loss reaches one side only, and nothing else does."""
  feats, codes, pull = drawn(7, 2, 3, 3, 4), drawn(8, 6, 2), drawn(9, 2, 3, 3, 4)
  model = codebook.Codebook(6, 2, "gradient", 0.9, eps=1e-3, reseed_after=99)
  held = model.init(jax.random.key(0), jnp.asarray(feats), jnp.ones(2), False)
  assert set(held) == {"params"} and held["params"]["group1"].shape == (6, 2)
  held = {"group0": jnp.asarray(codes), "group1": jnp.asarray(codes + 0.5)}

  def losses(held, feats):
    found, _ = model.apply(
      {"params": held}, feats, jnp.ones(2), True, mutable=["intermediates"]
    )
    weight = jnp.float32([1.0, 3.0])
    return jnp.stack(
      [jnp.sum(found.codes * pull)]
      + [jnp.sum(each * weight) for each in (found.commitment, found.pull)]
    )

  onto, through = jax.jacrev(losses, argnums=(0, 1))(held, jnp.asarray(feats))
  want = {name: np.zeros((6, 2)) for name in held}
  chosen = np.zeros(feats.shape)
  for b, y, x in np.ndindex(feats.shape[:3]):
    for group, name in enumerate(held):
      span = slice(2 * group, 2 * group + 2)
      own = np.float64(feats[b, y, x, span])
      at = slow_nearest(own[None], np.asarray(held[name]))[0]
      chosen[b, y, x, span] = held[name][at]
      want[name][at] += (1, 3)[b] * 2 * (chosen[b, y, x, span] - own) / 36
  for name in held:
    np.testing.assert_array_equal(onto[name][:2], 0)
    np.testing.assert_allclose(onto[name][2], want[name], rtol=1e-4, atol=1e-6)
  committed = 2 * (feats - chosen) / 36 * np.reshape((1, 3), (2, 1, 1, 1))
  for found, gap in zip(through, (pull, committed, np.zeros_like(pull)), strict=True):
    np.testing.assert_allclose(found, gap, rtol=1e-4, atol=1e-6)


def test_several_steps_agree_with_float64():
  model, state = book(5), {"group0": started(drawn(7, 5, 3))}
  held = (drawn(7, 5, 3), np.ones(5), drawn(7, 5, 3))
  idle = np.zeros(5, int)
  for step in range(6):
    feats = drawn(20 + step, 4, 2, 2, 3) + 0.5
    valid = np.float32([1, 1, 0, 1])
    given = (jnp.asarray(feats), jnp.asarray(valid), jax.random.key(step))
    found, state, use = train(model, state, *given)
    flat, weight = feats.reshape(-1, 3), np.repeat(valid, 4)
    index = slow_nearest(flat, held[0])
    np.testing.assert_array_equal(found.index.ravel(), index)
    _, times = np.unique(index[weight > 0], return_counts=True)
    perplexity = np.exp(-np.sum(times / 12 * np.log(times / 12)))
    assert float(use["group0"][0]) == pytest.approx(perplexity, rel=1e-5)
    held = slow_update(held, flat, index, weight, 0.8, 1e-3)
    idle = np.where(np.isin(np.arange(5), index[weight > 0]), 0, idle + 1)
    one = state["group0"]
    assert_close((one.codes, one.counts, one.sums), held)
    np.testing.assert_array_equal(one.idle, idle)
  assert idle.max() > 0


@pytest.mark.parametrize("keep", [[1, 1, 1, 0, 0], [0, 1, 1, 0, 1], [0, 0, 1, 1, 1]])
def test_padding_rows_change_nothing(keep):
  """From the first call to codes that are replaced, whatever the padding holds."""
  model, keep = book(6, reseed_after=2), np.bool_(keep)
  fresh = {"group0": codebook.initial_state(6, 3)}
  bare, zeros, filled = fresh, fresh, fresh
  for step in range(4):
    real, key = jnp.asarray(drawn(30 + step, 3, 2, 2, 3)), jax.random.key(step)
    batch = jnp.zeros((5, 2, 2, 3)).at[keep].set(real)
    other = jnp.full_like(batch, (-1) ** step * HUGE).at[keep].set(real)
    found, bare, use = train(model, bare, real, jnp.ones(3), key)
    same, zeros, _ = train(model, zeros, batch, jnp.float32(keep), key)
    also, filled, its = train(model, filled, other, jnp.float32(keep), key)
    assert_same(zeros, filled)
    assert_same(same.codes[keep], also.codes[keep])
    np.testing.assert_array_equal(also.index[:, keep], found.index)
    np.testing.assert_allclose(also.commitment[keep], found.commitment, rtol=1e-5)
    np.testing.assert_allclose(its["group0"][0], use["group0"][0], rtol=1e-5)
    assert_close(filled, bare)


def test_each_valid_feature_starts_one_code_and_the_others_wait_out_of_reach():
  feats = np.full((9, 2), HUGE, np.float32)
  valid = np.float32([0, 1, 1, 0, 0, 1, 0, 1, 0])
  feats[valid > 0] = drawn(8, 4, 2)
  fresh = codebook.initial_state(30, 2)
  found = codebook.start(
    fresh, jnp.asarray(feats), jnp.asarray(valid), jax.random.key(3)
  )
  same = (np.asarray(found.codes)[:, None] == feats[None, valid > 0]).all(axis=-1)
  np.testing.assert_array_equal(same.sum(axis=0), 1)
  own = same.any(axis=1)
  np.testing.assert_array_equal(found.codes[~own], codebook.FAR)
  np.testing.assert_array_equal(found.sums, found.codes)
  np.testing.assert_array_equal(found.counts, np.ones(30))
  np.testing.assert_array_equal(found.idle, np.zeros(30))
  assert bool(found.started)
  index = codebook.nearest_code(jnp.asarray(50 * drawn(9, 200, 2)), found.codes)
  assert set(np.asarray(index)) == set(np.flatnonzero(own))
  again = codebook.start(found, jnp.ones((5, 2)), jnp.ones(5), jax.random.key(0))
  assert_same(again, found)


def test_codes_fewer_than_features_start_evenly():
  feats, weight = jnp.arange(1000.0)[:, None], jnp.ones(1000)
  times = np.zeros(1000)
  for seed in range(200):
    fresh = codebook.initial_state(100, 1)
    found = codebook.start(fresh, feats, weight, jax.random.key(seed))
    times[np.int64(found.codes[:, 0])] += 1
  # Equally spaced: one of each ten features a time, each 20 times, give or take five
  # deviations of 4.2.
  np.testing.assert_array_equal(times.reshape(100, 10).sum(axis=1), 200)
  np.testing.assert_allclose(times, 20, atol=21)
  assert np.count_nonzero(times) > 990


@pytest.mark.parametrize("offset", [0.0, 0.5, 1 - 2**-24])
def test_of_equal_features_each_is_drawn_once(monkeypatch, offset):
  """Also at both ends of the offset's range; padding (0, 3 and 6) never."""
  monkeypatch.setattr(jax.random, "uniform", lambda key: jnp.float32(offset))
  feats, valid = jnp.arange(7.0)[:, None], jnp.float32([0, 1, 1, 0, 1, 1, 0])
  for count in (4, 8, 11):
    fresh = codebook.initial_state(count, 1)
    found = codebook.start(fresh, feats, valid, jax.random.key(0))
    want = [1, 2, 4, 5] + [codebook.FAR] * (count - 4)
    np.testing.assert_array_equal(np.sort(found.codes[:, 0]), want)


def test_idle_codes_go_to_features_by_squared_distance():
  """Two far features of equal gap take a code each; those at a code get none."""
  codes = jnp.float32([[0, 0], [9, 9], [8, 8], [7, 7], [5, 5]])
  state = codebook.initial_state(5, 2)._replace(
    codes=codes, idle=jnp.int32([0, 1, 1, 1, 1]), started=jnp.ones((), bool)
  )
  feats = jnp.float32([[0, 0], [3, 0], [0, 0], [0, 3], [0, 0]])
  index = jnp.zeros(5, jnp.int32)
  rule = {"decay": 0.9, "eps": 1e-5, "reseed_after": 2}
  found = codebook.update(state, feats, index, jnp.ones(5), jax.random.key(3), **rule)
  fresh = sorted(tuple(row) for row in np.asarray(found.codes[1:3]).tolist())
  assert fresh == [(0.0, 3.0), (3.0, 0.0)]
  np.testing.assert_array_equal(found.idle, [0, 0, 0, 2, 2])


def test_the_first_call_quantises_with_real_features():
  feats = drawn(11, 4, 2, 2, 3)
  feats[3] = HUGE
  fresh = {"group0": codebook.initial_state(5, 3)}
  valid = jnp.float32([1, 1, 1, 0])
  found, state, _ = train(book(5), fresh, jnp.asarray(feats), valid, jax.random.key(1))
  real = np.float64(feats[:3].reshape(-1, 3))
  codes = np.asarray(found.codes[:3]).reshape(-1, 3)
  gaps = np.abs(codes[:, None] - real[None]).max(axis=-1)
  assert gaps.min(axis=1).max() < 1e-6
  assert gaps.max(axis=1).min() > 1
  assert bool(state["group0"].started)
  assert np.abs(state["group0"].codes).max() < np.abs(real).max() * 1.01


def test_a_code_without_use_becomes_a_current_valid_feature():
  """Code 2 is never chosen; code 3 was at the second step, so that it stays."""
  state = started(drawn(12, 4, 2))
  held = (drawn(12, 4, 2), np.ones(4), drawn(12, 4, 2))
  weight = np.float32([1, 1, 1, 1, 0])
  for step in range(3):
    feats = drawn(40 + step, 5, 2)
    feats[4] = HUGE
    index = np.array([0, 1, 1, 3 if step == 1 else 0, 2])
    state = move(
      *(state, jnp.asarray(feats), jnp.asarray(index), jnp.asarray(weight)),
      jax.random.key(step),
      decay=0.9,
      eps=1e-5,
      reseed_after=3,
    )
    held = slow_update(held, feats, index, weight, 0.9, 1e-5)
    stay = np.array([0, 1, 3] if step == 2 else [0, 1, 2, 3])
    for got, want in zip((state.codes, state.counts, state.sums), held, strict=True):
      np.testing.assert_allclose(got[stay], want[stay], **CLOSE)
  np.testing.assert_array_equal(state.idle, [0, 0, 0, 1])
  assert (np.asarray(state.codes[2]) == feats[:4]).all(axis=1).any()
  np.testing.assert_array_equal(state.sums[2], state.codes[2])
  assert state.counts[2] == 1


def test_replaced_codes_take_every_valid_feature_once():
  state, feats = started(drawn(13, 300, 2)), drawn(14, 6, 2)
  feats[[0, 5]] = HUGE
  found = move(
    *(state, jnp.asarray(feats), jnp.zeros(6, int), jnp.float32([0, 1, 1, 1, 1, 0])),
    jax.random.key(0),
    decay=0.9,
    eps=1e-5,
    reseed_after=1,
  )
  same = (np.asarray(found.codes)[1:, None] == feats[None]).all(axis=-1)
  np.testing.assert_array_equal(same.sum(axis=0), [0, 1, 1, 1, 1, 0])
  np.testing.assert_array_equal(found.idle[1:] == 0, same.any(axis=1))


def test_perplexity_by_hand():
  def found(index: list[int], weight: list[float], size: int) -> float:
    return float(codebook.perplexity(jnp.array(index), jnp.float32(weight), size))

  assert found([3, 3, 3], [1, 1, 1], 5) == pytest.approx(1, rel=1e-6)
  assert found([0, 1, 2, 3] * 2, [1] * 8, 4) == pytest.approx(4, rel=1e-6)
  # Shares 1/2, 1/4, 1/4 are 1.5 bits; the padding row's code does not count.
  assert found([0, 0, 1, 2, 7], [1, 1, 1, 1, 0], 8) == pytest.approx(2**1.5, rel=1e-6)
  assert found([0, 1], [0, 0], 2) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("begun", [False, True])
def test_evaluation_leaves_the_state_untouched(begun):
  held = started(drawn(17, 4, 3)) if begun else codebook.initial_state(4, 3)
  feats = jnp.asarray(drawn(18, 2, 2, 2, 3))
  found, changed = book(4, reseed_after=1).apply(
    {"codes": {"group0": held}}, feats, jnp.ones(2), False, mutable=True
  )
  assert_same(changed, {"codes": {"group0": held}})
  want = slow_nearest(np.asarray(feats).reshape(-1, 3), held.codes)
  np.testing.assert_array_equal(found.index.ravel(), want)


def test_initialisation_starts_nothing():
  feats = jnp.asarray(drawn(19, 2, 2, 2, 6))
  held = book(4, groups=2).init(jax.random.key(0), feats, jnp.ones(2), True)
  want = codebook.initial_state(4, 3)
  assert_same(held, {"codes": {"group0": want, "group1": want}})
  np.testing.assert_array_equal(want.codes, np.zeros((4, 3)))
  assert not want.started


def test_groups_quantise_their_own_channels():
  feats = drawn(50, 3, 2, 2, 6)
  states = [started(drawn(51 + group, 4, 2)) for group in range(3)]
  valid, key = jnp.float32([1, 0, 1]), jax.random.key(0)
  held = {f"group{group}": state for group, state in enumerate(states)}
  found, changed, use = train(book(4, groups=3), held, jnp.asarray(feats), valid, key)
  commitment = np.zeros(3)
  for group, state in enumerate(states):
    part = feats[..., 2 * group : 2 * group + 2]
    want, after, its = train(book(4), {"group0": state}, jnp.asarray(part), valid, key)
    index = slow_nearest(part.reshape(-1, 2), state.codes).reshape(3, 2, 2)
    np.testing.assert_array_equal(found.index[group], index)
    np.testing.assert_array_equal(want.index[0], index)
    codes = found.codes[..., 2 * group : 2 * group + 2]
    np.testing.assert_allclose(codes, np.asarray(state.codes)[index], **CLOSE)
    own = (changed[f"group{group}"], use[f"group{group}"])
    assert_same(own, (after["group0"], its["group0"]))
    commitment += np.asarray(want.commitment, np.float64) / 3
  np.testing.assert_allclose(found.commitment, commitment, rtol=1e-5)


def test_groups_start_from_different_features():
  feats = jnp.tile(jnp.asarray(drawn(55, 8, 2, 2, 3)), 2)
  fresh = {f"group{group}": codebook.initial_state(6, 3) for group in range(2)}
  _, state, _ = train(book(6, groups=2), fresh, feats, jnp.ones(8), jax.random.key(0))
  assert not np.array_equal(state["group0"].codes, state["group1"].codes)


def test_groups_that_do_not_divide_the_channels_are_refused():
  with pytest.raises(
    ValueError,
    match=r"codebook\.groups is 4, which does not divide the 6 channels .* a divisor",
  ):
    book(3, groups=4).init(
      jax.random.key(0), jnp.zeros((1, 2, 2, 6)), jnp.ones(1), False
    )


@pytest.mark.slow
def test_eight_devices_equal_one():
  """A batch sharded by row, with padding; codes start, move and are replaced."""
  model = book(12, groups=2, reseed_after=2)
  mesh = distributed.mesh(16)
  rows, whole = distributed.by_row(mesh), distributed.replicated(mesh)
  spread = jax.jit(
    functools.partial(train, model),
    in_shardings=(whole, rows, rows, whole),
    out_shardings=whole,
  )
  fresh = {f"group{group}": codebook.initial_state(12, 2) for group in range(2)}
  alone, shared = fresh, distributed.put_replicated(mesh, fresh)
  valid = np.float32([1] * 11 + [0] * 5)
  for step in range(4):
    feats = drawn(60 + step, 16, 2, 2, 4)
    feats[11:] = HUGE
    key = jax.random.key(step)
    want, alone, _ = train(model, alone, jnp.asarray(feats), jnp.asarray(valid), key)
    put = distributed.put_rows(mesh, (feats, valid))
    assert {shard.data.shape for shard in put[0].addressable_shards} == {(2, 2, 2, 4)}
    found, shared, _ = spread(shared, *put, jax.device_put(key, whole))
    np.testing.assert_array_equal(found.index, want.index)
    np.testing.assert_allclose(found.codes[:11], want.codes[:11], **CLOSE)
    assert all(len(leaf.devices()) == 8 for leaf in jax.tree.leaves(shared))
    assert_close(shared, alone)
