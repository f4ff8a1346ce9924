"""Learnable codebooks of normal features: vector quantisation with EMA updates."""

from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from nps_jax import distributed

FAR = 1e4  # where a code waits, out of all features' reach, for a feature of its own


class CodeState(NamedTuple):
  """One group of codes and the running statistics that they are means of."""

  codes: Float[Array, "k d"]
  counts: Float[Array, " k"]  # EMA of how many features chose each code
  sums: Float[Array, "k d"]  # EMA of the sum of those features
  idle: Int[Array, " k"]  # steps since the code was last chosen
  started: Bool[Array, ""]  # False until the codes hold real features


class Quantised(NamedTuple):
  """A feature map's codes, and the two losses between them and the features."""

  codes: Float[Array, "b h w d"]  # straight-through: gradients pass to the input
  index: Int[Array, "g b h w"]
  commitment: Float[Array, " b"]  # mean squared distance to the (constant) codes
  pull: Float[Array, " b"]  # that of the codes to the (constant) features; 0 with EMA


def nearest_code(
  feats: Float[Array, "n d"], codes: Float[Array, "k d"]
) -> Int[Array, " n"]:
  """The index of each feature's closest code in L2 (VQ-VAE, equation 1)."""
  bias = 0.5 * jnp.einsum("kd,kd->k", codes, codes)
  closeness = jnp.einsum("nd,kd->nk", feats, codes) - bias[None, :]
  return jnp.argmax(closeness, axis=-1)


def initial_state(size: int, width: int) -> CodeState:
  """Codes at zero, not started: the first update fills them from real features."""
  return CodeState(
    codes=jnp.zeros((size, width)),
    counts=jnp.ones((size,)),
    sums=jnp.zeros((size, width)),
    idle=jnp.zeros((size,), jnp.int32),
    started=jnp.zeros((), bool),
  )


def start(
  state: CodeState,
  feats: Float[Array, "n d"],
  weight: Float[Array, " n"],
  key: Key[Array, ""],
) -> CodeState:
  """The state with codes drawn from the features, unless it had started before.

  No feature becomes two codes: which of two equal ones is nearest, rounding would
  decide. Codes without a feature wait for one, out of reach (ours).
  """
  drawn, is_first = _draw(feats, weight, key, state.codes.shape[0])
  codes = jnp.where(is_first[:, None], drawn, FAR)
  started = state._replace(codes=codes, sums=codes, started=jnp.ones((), bool))
  keep = state.started | (jnp.sum(weight) == 0)
  return jax.tree.map(lambda old, new: jnp.where(keep, old, new), state, started)


def update(
  state: CodeState,
  feats: Float[Array, "n d"],
  index: Int[Array, " n"],
  weight: Float[Array, " n"],
  key: Key[Array, ""],
  *,
  decay: float,
  eps: float,
  reseed_after: int,
) -> CodeState:
  """The state after one EMA step (VQ-VAE, appendix A.1) with Laplace smoothing.

  Args:
    feats: features that chose codes; constants, no gradient is wanted.
    index: the code that each feature chose.
    weight: 1 for real features, 0 for padding; these change nothing.
    key: draws the features that replace idle codes, by squared distance to their own
      code (as k-means++ seeds), so that rare normal features find a code too. Each
      becomes one code at most; codes left over go on waiting.
    decay: of the running counts and sums, in [0, 1).
    eps: smoothing of the counts; keeps unused codes finite.
    reseed_after: a code not chosen for this many steps becomes a current feature.
  """
  size = state.codes.shape[0]
  hits = jax.ops.segment_sum(weight, index, size)
  totals = jax.ops.segment_sum(feats * weight[:, None], index, size)
  counts = decay * state.counts + (1 - decay) * hits
  sums = decay * state.sums + (1 - decay) * totals
  mass = jnp.sum(counts)
  smooth = (counts + eps) / (mass + size * eps) * mass
  codes = sums / smooth[:, None]
  idle = jnp.where(hits > 0, 0, state.idle + 1)
  gap = jnp.sum(jnp.square(feats - state.codes[index]), axis=-1)
  by_gap = jnp.where(weight > 0, jnp.maximum(gap, 1e-12), 0.0)
  stale = idle >= reseed_after
  rank = jnp.cumsum(stale) - 1
  drawn, is_first = _draw(feats, by_gap, key, size)
  drawn = drawn[rank]
  stale &= is_first[rank]
  return state._replace(
    codes=jnp.where(stale[:, None], drawn, codes),
    counts=jnp.where(stale, 1.0, counts),
    sums=jnp.where(stale[:, None], drawn, sums),
    idle=jnp.where(stale, 0, idle),
  )


def learn(
  state: CodeState,
  feats: Float[Array, "n d"],
  weight: Float[Array, " n"],
  key: Key[Array, ""],
  decay: float,
  eps: float,
  reseed_after: int,
) -> tuple[Float[Array, "n d"], Int[Array, " n"], CodeState]:
  """One training step: each feature's code and its index, and the state after.

  The codes are those before the step, so that training reads what evaluation would.
  Every device makes the step, from the features of all of them.
  """
  draw, reseed = jax.random.split(key)
  state = start(state, feats, weight, draw)
  index = distributed.on_every_device(nearest_code(feats, state.codes))
  updated = update(
    state,
    feats,
    index,
    weight,
    reseed,
    decay=decay,
    eps=eps,
    reseed_after=reseed_after,
  )
  return state.codes[index], index, updated


def perplexity(
  index: Int[Array, " n"], weight: Float[Array, " n"], size: int
) -> Float[Array, ""]:
  """exp(entropy) of the codes' use: 1 when one code serves all, `size` when even."""
  share = jax.ops.segment_sum(weight, index, size) / jnp.maximum(jnp.sum(weight), 1)
  return jnp.exp(-jnp.sum(share * jnp.log(jnp.maximum(share, 1e-12))))


def _draw(
  feats: Float[Array, "n d"],
  weight: Float[Array, " n"],
  key: Key[Array, ""],
  count: int,
) -> tuple[Float[Array, "k d"], Bool[Array, " k"]]:
  """`count` features, as often as they weigh; which are no repeats, and those first.

  Systematic sampling: equally spaced points along the summed weights, so that chance
  decides no more than it must. Of equal weights each feature is drawn once before any
  is drawn twice; weight 0 is as good as absent.
  """
  offset, mix = jax.random.split(key)
  reach = distributed.on_every_device(jnp.cumsum(distributed.on_every_device(weight)))
  shift = 0.999 * jax.random.uniform(offset)  # short of 1, which float32 might pass
  points = (jnp.arange(count) + shift) / count * reach[-1]
  rows = jnp.searchsorted(reach, points, side="right")
  is_first = jnp.concatenate([jnp.ones(1, bool), rows[1:] != rows[:-1]])
  order = jax.random.permutation(mix, count)
  order = order[jnp.argsort(~is_first[order])]  # stable
  return feats[jnp.clip(rows, 0, len(feats) - 1)][order], is_first[order]


class Codebook(nn.Module):
  """Replaces every feature by its nearest code, group of channels by group.

  With one group this is the plain vector quantisation of the paper; several groups
  are a product quantisation, which describes more with as many codes (ours).
  """

  size: int
  groups: int
  learning: str  # "ema" (VQ-VAE, appendix A.1) or "gradient" (its equation 3)
  decay: float
  eps: float
  reseed_after: int

  @nn.compact
  def __call__(
    self, feats: Float[Array, "b h w d"], valid: Float[Array, " b"], train: bool
  ) -> Quantised:
    """The quantised features; EMA updates the codes if `train`, else they stay frozen.

    Needs, with EMA, the random stream "codes" and the mutable collection "codes" in
    training. Codes that learn by gradient are parameters.
    """
    b, h, w, d = feats.shape
    if d % self.groups:
      raise ValueError(
        f"codebook.groups is {self.groups}, which does not divide the {d} channels "
        "that are quantised; choose a divisor."
      )
    flat = jax.lax.stop_gradient(feats).reshape(b * h * w, self.groups, -1)
    weight = jnp.repeat(valid, h * w)
    average = self.learning == "ema"
    if train and average:
      flat, weight = distributed.on_every_device((flat, weight))
    quantise = self._by_average if average else self._by_gradient
    chosen = [
      quantise(f"group{group}", flat[:, group], weight, train)
      for group in range(self.groups)
    ]
    codes = jnp.stack([codes for codes, _ in chosen], axis=1).reshape(feats.shape)
    index = jnp.stack([index.reshape(b, h, w) for _, index in chosen])
    fixed_codes, fixed_feats = jax.lax.stop_gradient((codes, feats))
    commitment = jnp.mean(jnp.square(feats - fixed_codes), axis=(1, 2, 3))
    pull = jnp.mean(jnp.square(codes - fixed_feats), axis=(1, 2, 3))
    return Quantised(
      codes=feats + jax.lax.stop_gradient(codes - feats),
      index=index,
      commitment=commitment,
      pull=jnp.zeros_like(pull) if average else pull,
    )

  def _by_average(
    self, name: str, feats: Float[Array, "n d"], weight: Float[Array, " n"], train: bool
  ) -> tuple[Float[Array, "n d"], Int[Array, " n"]]:
    """Each feature's code and its index; in training the codes then follow."""
    state = self.variable("codes", name, initial_state, self.size, feats.shape[1])
    if not train or self.is_initializing():
      index = nearest_code(feats, state.value.codes)
      return state.value.codes[index], index
    key = self.make_rng("codes")
    codes, index, state.value = learn(
      state.value, feats, weight, key, self.decay, self.eps, self.reseed_after
    )
    self.sow("intermediates", name, perplexity(index, weight, self.size))
    return codes, index

  def _by_gradient(
    self, name: str, feats: Float[Array, "n d"], weight: Float[Array, " n"], train: bool
  ) -> tuple[Float[Array, "n d"], Int[Array, " n"]]:
    """Each feature's code and its index; the codes are parameters."""
    shape = (self.size, feats.shape[1])
    codes = self.param(name, nn.initializers.normal(1.0), shape)
    index = nearest_code(feats, jax.lax.stop_gradient(codes))
    if train:
      self.sow("intermediates", name, perplexity(index, weight, self.size))
    return codes[index], index
