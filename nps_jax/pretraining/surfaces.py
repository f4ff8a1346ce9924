"""Surfaces of a drawn scene: two colours, spread by one texture or another. Ours."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

TEXTURES = ("flat", "stripes", "checks", "dots", "grain", "clouds")
FLAT = 0.35  # share of surfaces that are flat for certain
NOISE = 64  # cells along a side of the random tile that grain and clouds show


class Surface(NamedTuple):
  """Two colours, and how they are spread."""

  kind: Int[Array, ""]  # index in TEXTURES
  colours: Float[Array, "2 3"]  # in 0..1
  turn: Float[Array, ""]  # radians
  rate: Float[Array, ""]  # stripes across the image
  offset: Int[Array, "2"]  # in the random tile


def random_surface(key: Key[Array, ""]) -> Surface:
  """Any texture of two colours, bright or grey, that are not far from each other."""
  keys = jax.random.split(key, 7)
  plain = jax.random.bernoulli(keys[6], FLAT)
  first, second = jax.random.uniform(keys[0], (2, 3))
  colours = jnp.stack([first, jnp.clip(first + 0.7 * (second - 0.5), 0, 1)])
  grey = colours.mean(axis=1, keepdims=True)
  return Surface(
    kind=jnp.where(plain, 0, jax.random.randint(keys[1], (), 0, len(TEXTURES))),
    colours=grey + jax.random.uniform(keys[5]) * (colours - grey),
    turn=jax.random.uniform(keys[2], maxval=jnp.pi),
    rate=6 * 5 ** jax.random.uniform(keys[3]),
    offset=jax.random.randint(keys[4], (2,), 0, NOISE),
  )


def paint(
  surface: Surface,
  x: Float[Array, "h w"],
  y: Float[Array, "h w"],
  noise: Float[Array, "n n"],
) -> Float[Array, "h w 3"]:
  """The surface's colour at every point."""
  share = jax.lax.switch(surface.kind, _SPREADS, surface, x, y, noise)
  share = jnp.clip(share, 0, 1)[..., None]
  first, second = surface.colours[:, None, None, :]
  return first + share * (second - first)


def _waves(surface, x, y):
  cos, sin = jnp.cos(surface.turn), jnp.sin(surface.turn)
  along = jnp.sin(jnp.pi * surface.rate * (cos * x + sin * y))
  return along, jnp.sin(jnp.pi * surface.rate * (cos * y - sin * x))


def _stripes(surface, x, y, _):
  return 0.5 + 0.5 * jnp.tanh(4 * _waves(surface, x, y)[0])


def _checks(surface, x, y, _):
  along, across = _waves(surface, x, y)
  return 0.5 + 0.5 * jnp.tanh(8 * along * across)


def _dots(surface, x, y, _):
  along, across = _waves(surface, x, y)
  return jax.nn.sigmoid(10 * (along**2 * across**2 - 0.5))


def _grain(surface, x, y, noise):
  tile = jnp.roll(noise, surface.offset, (0, 1))
  row = jnp.floor(128 * y).astype(jnp.int32) % NOISE
  column = jnp.floor(128 * x).astype(jnp.int32) % NOISE
  return 0.5 + 0.4 * tile[row, column]


def _clouds(surface, x, y, noise):
  tile = jnp.roll(noise, surface.offset, (0, 1))
  return 0.5 + 0.4 * jax.image.resize(tile[:8, :8], x.shape, "cubic")


_SPREADS = (  # each point's share of the second colour, in the order of TEXTURES
  lambda surface, x, y, noise: jnp.zeros_like(x),  # flat
  _stripes,
  _checks,
  _dots,
  _grain,
  _clouds,
)
