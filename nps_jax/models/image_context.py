"""Image context: CLIP's mean over normal images, and those nearest to an image (ours).

With one category a text vector is a constant. The mean of the normal training images'
CLIP vectors with the few that are nearest to the image at hand is not.
"""

from collections.abc import Iterator, Sequence
import hashlib
import pathlib

from jaxtyping import Float32, UInt8
import ml_collections
import numpy as np

from nps_jax.data import decoding
from nps_jax.data import encoded
from nps_jax.data import records
from nps_jax.models import context
from nps_jax.pretrained import clip
from nps_jax.runs import files

BATCH = 16


def image_vectors(
  config: ml_collections.ConfigDict, images: Sequence[records.Record]
) -> Float32[np.ndarray, "n t"]:
  """CLIP's vector of each image, of length 1; cached, so that it is computed once.

  Args:
    config: the settings' section `context`.

  Raises:
    FileNotFoundError: no CLIP model within reach.
    ValueError: an image cannot be read.
  """
  digest = hashlib.sha256(clip.stamp(config.model).encode())
  for record in images:
    with encoded.opened(record.image) as file:
      digest.update(hashlib.sha256(file.read()).digest())
  folder = pathlib.Path(config.cache or context.CACHE).expanduser()
  path = folder / f"clip-images-{digest.hexdigest()[:16]}.npz"
  if path.exists():
    cached = context.read_vectors(path)
    return context.select(cached, [str(row) for row in range(len(images))], path)
  model = clip.find_model(config.model)
  vectors = clip.embed_images(model, _batches(images, clip.image_size(model)))
  vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
  named = {str(row): vector for row, vector in enumerate(vectors)}
  files.write_bytes(path, context.packed(named))
  return vectors


def _batches(
  images: Sequence[records.Record], size: int
) -> Iterator[UInt8[np.ndarray, "b h w 3"]]:
  for start in range(0, len(images), BATCH):
    batch = images[start : start + BATCH]
    yield np.stack([decoding.decode(record, (size, size)) for record in batch])


def around(
  bank: Float32[np.ndarray, "m t"], queries: Float32[np.ndarray, "n t"], nearest: int
) -> Float32[np.ndarray, "n c"]:
  """The bank's mean and, behind it, each query's nearest vectors of the bank.

  An image is not its own neighbour, so that training sees what tests will. Where the
  bank has too few others, the mean stands in for them.

  Args:
    bank: vectors of the normal training images, of length 1.
    queries: likewise of the images at hand.
    nearest: how many neighbours; c = (1 + nearest) t.
  """
  mean = bank.mean(axis=0)
  closeness = np.einsum("nt,mt->nm", queries, bank)
  bank_bytes = [vector.tobytes() for vector in bank]
  same = [[query.tobytes() == vector for vector in bank_bytes] for query in queries]
  closeness[np.array(same)] = -np.inf
  order = np.argsort(-closeness, axis=1, kind="stable")[:, :nearest]
  contexts = np.broadcast_to(mean, (len(queries), 1 + nearest, mean.size)).copy()
  for query, ranked in enumerate(order):
    neighbours = ranked[np.isfinite(closeness[query, ranked])]
    contexts[query, 1 : 1 + len(neighbours)] = bank[neighbours]
  return contexts.reshape(len(queries), -1)
