"""Embedding, blocks and decoder against slow float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nps_jax import geometry
from nps_jax.models import fusion

CLOSE = {"rtol": 2e-4, "atol": 2e-5}


def drawn(seed, *shape):
  return jnp.float32(np.random.default_rng(seed).normal(size=shape))


def randomised(params, seed=0):
  """Parameters none of which is 0 or 1, so that each of them shows."""
  leaves, tree = jax.tree.flatten(params)
  rng = np.random.default_rng(seed)
  noisy = [leaf + 0.3 * rng.normal(size=leaf.shape) for leaf in leaves]
  return jax.tree.unflatten(tree, [np.float32(leaf) for leaf in noisy])


def convolved(feats, kernel, stride):
  """By loops, zeros around; kernel is height x width x in x out."""
  size = kernel.shape[0]
  pad = size // 2
  padded = np.pad(np.float64(feats), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  rows = (feats.shape[1] + 2 * pad - size) // stride + 1
  columns = (feats.shape[2] + 2 * pad - size) // stride + 1
  found = np.zeros((feats.shape[0], rows, columns, kernel.shape[3]))
  for y, x in np.ndindex(rows, columns):
    window = padded[:, y * stride :, x * stride :][:, :size, :size]
    found[:, y, x] = np.einsum("byxi,yxio->bo", window, np.float64(kernel))
  return found


def group_normed(feats, groups, params):
  found = np.zeros(feats.shape)
  width = feats.shape[-1] // groups
  for b, group in np.ndindex(feats.shape[0], groups):
    span = slice(group * width, (group + 1) * width)
    part = feats[b, ..., span]
    found[b, ..., span] = (part - part.mean()) / np.sqrt(part.var() + 1e-6)
  return found * np.float64(params["scale"]) + np.float64(params["bias"])


def slow_block(feats, params, groups, stride=1):
  feats = convolved(feats, params["Conv_0"]["kernel"], stride)
  return np.maximum(group_normed(feats, groups, params["GroupNorm_0"]), 0)


def slow_upsample(feats, grid):
  """Bilinear between cell centres, for grids at least as fine."""
  parts = []
  for old, new in zip(feats.shape[1:3], grid, strict=True):
    at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    parts.append(np.maximum(1 - np.abs(at[:, None] - np.arange(old)), 0))
  return np.einsum("yh,xw,bhwd->byxd", *parts, np.float64(feats))


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 1)])
def test_a_convolution_block_agrees_with_loops(kernel, stride):
  feats = drawn(1, 2, 6, 4, 5)
  block = fusion.ConvBlock(16, kernel=kernel, stride=stride)
  params = randomised(block.init(jax.random.key(0), feats)["params"])
  found = block.apply({"params": params}, feats)
  np.testing.assert_allclose(found, slow_block(feats, params, 2, stride), **CLOSE)


def test_a_residual_block_agrees_with_loops_and_starts_as_identity():
  feats = drawn(2, 2, 4, 4, 16)
  block = fusion.ResidualBlock()
  params = block.init(jax.random.key(0), feats)["params"]
  np.testing.assert_array_equal(
    block.apply({"params": params}, feats), np.maximum(feats, 0)
  )
  params = randomised(params)
  inner = slow_block(feats, params["ConvBlock_0"], 2)
  inner = convolved(inner, params["Conv_0"]["kernel"], 1)
  want = np.maximum(feats + group_normed(inner, 2, params["GroupNorm_0"]), 0)
  np.testing.assert_allclose(block.apply({"params": params}, feats), want, **CLOSE)


def test_the_embedding_is_strided_convolutions():
  feats = drawn(3, 2, 8, 8, 8)
  model = fusion.OneClassEmbedding(16, 2)
  params = randomised(model.init(jax.random.key(0), feats)["params"])
  inner = slow_block(feats, params["ConvBlock_0"], 2, stride=2)
  want = convolved(inner, params["Conv_0"]["kernel"], 2) + params["Conv_0"]["bias"]
  assert want.shape == (2, 2, 2, 16)
  np.testing.assert_allclose(model.apply({"params": params}, feats), want, **CLOSE)


def test_the_decoder_fuses_each_level_with_its_priors():
  """Two levels without residual blocks, each step by hand."""
  embedding, side = drawn(4, 2, 1, 2, 6), (32, 64)
  priors = {4: [drawn(5, 2, 2, 4, 3)], 3: [drawn(6, 2, 4, 8, 3), drawn(7, 2, 4, 8, 2)]}
  model = fusion.FusionDecoder({3: 5, 4: 7}, 32, 0)
  params = randomised(
    model.init(jax.random.key(0), embedding, 5, side, priors)["params"]
  )
  found = model.apply({"params": params}, embedding, 5, side, priors)
  assert set(found) == {3, 4}
  feats = embedding
  for level, groups in ((4, 4), (3, 2)):
    feats = slow_upsample(feats, geometry.PYRAMID.grid(level, side))
    feats = np.concatenate([feats, *priors[level]], axis=-1)
    feats = slow_block(feats, params[f"fuse{level}"], groups)
    head = params[f"head{level}"]
    want = convolved(feats, head["kernel"], 1) + head["bias"]
    np.testing.assert_allclose(found[level], want, **CLOSE)


def slow_attention(feats, priors, params):
  """Four heads; each prior's cells, averaged to at most 8 x 8, are keys and values."""
  tokens = []
  for at, prior in enumerate(priors):
    held = np.float64(prior)
    for axis in (1, 2):
      while held.shape[axis] > 8:  # twice as fine: a triangle over four cells
        held = np.moveaxis(halved(np.moveaxis(held, axis, 0)), 0, axis)
    dense = params[f"in{at}"]
    rows = held.reshape(len(held), -1, held.shape[-1]) @ np.float64(dense["kernel"])
    tokens.append(rows + dense["bias"] + params[f"place{at}"])
  tokens = np.concatenate(tokens, axis=1)
  held = params["MultiHeadDotProductAttention_0"]
  queries = np.float64(feats).reshape(len(feats), -1, feats.shape[-1])

  def headed(rows, name):
    kernel = np.float64(held[name]["kernel"])
    return np.einsum("bnd,dhk->bhnk", rows, kernel) + held[name]["bias"][None, :, None]

  query, key, value = (
    headed(rows, name)
    for rows, name in ((queries, "query"), (tokens, "key"), (tokens, "value"))
  )
  logits = np.einsum("bhnk,bhmk->bhnm", query, key) / np.sqrt(query.shape[-1])
  share = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
  mixed = np.einsum("bhnm,bhmk->bhnk", share, value)
  kernel = np.float64(held["out"]["kernel"])
  found = np.einsum("bhnk,hkd->bnd", mixed, kernel) + held["out"]["bias"]
  return found.reshape(feats.shape)


def halved(rows):
  """Half as many rows: weights 1, 3, 3, 1 of four, fewer at the border."""
  padded = np.concatenate([0 * rows[:1], rows, 0 * rows[:1]])
  there = np.pad(np.ones(len(rows)), 1)
  parts, weights = 0, 0
  for at, weight in enumerate((1, 3, 3, 1)):
    parts = parts + weight * padded[at::2][: len(rows) // 2]
    weights = weights + weight * there[at::2][: len(rows) // 2]
  return parts / weights.reshape(-1, *[1] * (rows.ndim - 1))


def test_attention_agrees_with_float64():
  feats, priors = (
    drawn(10, 2, 4, 3, 16),
    [drawn(11, 2, 16, 4, 5), drawn(12, 2, 1, 2, 3)],
  )
  model = fusion.CrossAttention()
  params = randomised(model.init(jax.random.key(0), feats, priors)["params"])
  found = model.apply({"params": params}, feats, priors)
  np.testing.assert_allclose(found, slow_attention(feats, priors, params), **CLOSE)


def test_the_decoder_adds_what_attention_finds_and_the_codes_of_its_own_features():
  embedding, side = drawn(13, 2, 1, 2, 6), (32, 64)
  priors = {4: [drawn(14, 2, 2, 4, 3)], 3: []}
  model = fusion.FusionDecoder({3: 5, 4: 7}, 32, 0, "attention")

  def double(level, feats):
    return level * feats

  given = (embedding, 5, side, priors, double)
  params = randomised(model.init(jax.random.key(0), *given)["params"])
  found = model.apply({"params": params}, *given)
  feats = embedding
  for level, groups in ((4, 4), (3, 2)):
    feats = slow_upsample(feats, geometry.PYRAMID.grid(level, side))
    feats = slow_block(feats, params[f"fuse{level}"], groups)
    if priors[level]:
      feats = feats + slow_attention(feats, priors[level], params[f"attention{level}"])
    feats = np.concatenate([feats, level * feats], axis=-1)
    feats = slow_block(feats, params[f"codes{level}"], groups)
    head = params[f"head{level}"]
    want = convolved(feats, head["kernel"], 1) + head["bias"]
    np.testing.assert_allclose(found[level], want, **CLOSE)
  assert "attention3" not in params


def test_levels_between_compared_ones_are_passed_through_without_a_head():
  embedding, side = drawn(8, 1, 1, 1, 4), (32, 32)
  model = fusion.FusionDecoder({2: 5, 4: 7}, 16, 1)
  params = model.init(jax.random.key(0), embedding, 5, side, {})["params"]
  assert {name for name in params if name.startswith("head")} == {"head2", "head4"}
  assert {name for name in params if name.startswith("fuse")} == {
    f"fuse{level}" for level in (2, 3, 4)
  }


def test_levels_that_share_a_grid_are_passed_without_upsampling_between_them():
  """Blocks 2 and 3 of a transformer, below one level of half their grid."""
  embedding, side = drawn(9, 2, 2, 1, 6), (84, 56)
  priors = {4: [drawn(10, 2, 3, 2, 3)], 3: [drawn(11, 2, 6, 4, 2)], 2: []}
  layout = geometry.Layout(patch=14, last=3)
  model = fusion.FusionDecoder({2: 5, 3: 7}, 32, 0, layout=layout)
  given = (embedding, 5, side, priors)
  params = randomised(model.init(jax.random.key(0), *given)["params"])
  found = model.apply({"params": params}, *given)
  feats = embedding
  for level, grid in ((4, (3, 2)), (3, (6, 4)), (2, (6, 4))):
    feats = slow_upsample(feats, grid)
    feats = np.concatenate([feats, *priors[level]], axis=-1)
    feats = slow_block(feats, params[f"fuse{level}"], 4)  # as wide at every level
    if level < 4:
      head = params[f"head{level}"]
      want = convolved(feats, head["kernel"], 1) + head["bias"]
      np.testing.assert_allclose(found[level], want, **CLOSE)
  assert set(found) == {2, 3}
