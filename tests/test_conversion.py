"""Functions of images in ONNX, as onnxruntime computes them, beside JAX."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from nps_jax.exporting import conversion
from nps_jax.models import counts
from nps_jax.models import memory

RNG = np.random.default_rng(0)
KERNEL = np.float32(RNG.normal(size=(3, 3, 3, 4))) / 9
TABLE = np.float32(RNG.normal(size=(50, 6)))
BASIS = np.float32(RNG.normal(size=(3, 6)))


def convolved(x):
  return jax.lax.conv_general_dilated(
    x, KERNEL, (2, 1), ((1, 1), (0, 2)), dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def carried(x):
  """A loop over rows that carries a sum."""
  rows = jnp.moveaxis(x, 1, 0)
  total, sums = jax.lax.scan(lambda sum, row: (sum + row, sum * row), rows[0], rows)
  return jnp.moveaxis(sums, 0, 1) + total[:, None]


def products(x):
  pairs = jnp.einsum("bhwc,bhvc->bhwv", x, x) + jnp.einsum("bhwc,bhwd->bcd", x, x).sum()
  return pairs @ jnp.einsum("cd,bhwc->bhwd", BASIS, x).swapaxes(2, 3).swapaxes(2, 3)


FUNCTIONS = {
  "a convolution": convolved,
  "the maximum of windows": lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))),
  "means of windows": counts.scenes,
  "patches": lambda x: memory.patches({3: x, 4: nn.avg_pool(x, (2, 2), (2, 2))}),
  "a larger image": lambda x: jax.image.resize(x, (x.shape[0], 16, 15, 3), "bilinear"),
  "a smaller image": lambda x: jax.image.resize(x, (x.shape[0], 3, 4, 3), "linear"),
  "rows of a table": lambda x: (
    jnp.asarray(TABLE)[jnp.argmin(x, axis=3)] + jnp.argmax(x, -1)[..., None]
  ),
  "a loop": carried,
  "products": products,
  "the highest": lambda x: jax.lax.top_k(x.reshape(-1, 8 * 6 * 3), 4)[0],
  "statistics": lambda x: jnp.stack([x.mean((1, 2)), x.std((1, 2)), x.min((1, 2))], 1),
  "elements": lambda x: jnp.logaddexp(-x, 0) + jnp.where(x > 1, jax.nn.gelu(x), x**3),
  "batches": lambda x: jnp.concatenate(
    [x, jnp.broadcast_to(jnp.arange(6.0)[None, None, :, None], x.shape)], axis=-1
  ),
  "cut": lambda x: jax.lax.slice(
    jnp.clip(x, -1, jax.nn.softmax(x)),
    (0, 1, 0, 2),
    (x.shape[0], 8, 6, 3),
    (1, 3, 1, 1),
  ),
  "rounded": lambda x: jax.lax.reduce_precision(x / 3, 8, 12),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_onnxruntime_computes_what_jax_does(name):
  def function(images):
    return (FUNCTIONS[name](images.astype(jnp.float32) / 64 - 2),)

  model = conversion.convert(function, (8, 6, 3), ["result"], "a test")
  session = onnxruntime.InferenceSession(model.SerializeToString())
  for rows in (1, 3):
    images = RNG.integers(0, 256, (rows, 8, 6, 3), np.uint8)
    (have,) = session.run(None, {"images": images})
    (want,) = function(jnp.asarray(images))
    assert have.shape == want.shape and have.dtype == want.dtype
    np.testing.assert_allclose(have, want, rtol=1e-4, atol=2e-5)


def test_what_has_no_form_is_named():
  with pytest.raises(ValueError, match=r"'sort'.*--format=stablehlo"):
    conversion.convert(
      lambda images: (jnp.sort(images.astype(jnp.float32), axis=1),),
      (8, 6, 3),
      ["x"],
      "",
    )
