"""Abstract global context: category names -> text vectors -> maps for the decoder.

`python -m nps_jax.models.context --categories=a,b --out=FILE.npz` writes the vectors
ahead, for a machine that cannot reach the hub; there, set config.context.source to
"vectors" and config.context.vectors to the file.
"""

import argparse
from collections.abc import Mapping, Sequence
import hashlib
import io
import json
import pathlib
import zipfile

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32
import ml_collections
import numpy as np

from nps_jax import config as settings
from nps_jax.pretrained import clip
from nps_jax.runs import files

SOURCES = ("clip", "vectors", "image", "learned", "none")
CACHE = "~/.cache/nps_jax"
Vectors = Mapping[str, Float32[np.ndarray, " t"]]


class GlobalContext(nn.Module):
  """AGC: a learnable layer per decoder level, then upsampling to the level's grid.

  The vector is a map of one position, for which bilinear upsampling is exactly a
  broadcast; so that is what is computed.
  """

  width: int

  @nn.compact
  def __call__(
    self, vectors: Float[Array, "b t"], sizes: Sequence[tuple[int, int]]
  ) -> list[Float[Array, "b _ _ d"]]:
    """A map of `width` channels for each of the sizes, rows and columns."""
    maps = []
    for index, (rows, columns) in enumerate(sizes):
      prior = nn.Dense(self.width, name=f"level{index}")(vectors)
      shape = (vectors.shape[0], rows, columns, self.width)
      maps.append(jnp.broadcast_to(prior[:, None, None, :], shape))
    return maps


def category_vectors(
  config: ml_collections.ConfigDict, categories: Sequence[str]
) -> Float32[np.ndarray, "k t"] | None:
  """One vector per category, or None where the model learns them, where each image has
  its own ("image"), or where there is no context.

  Args:
    config: the settings' section `context`.
    categories: names of the data's folders.

  Raises:
    ValueError: an unknown source, or a file that lacks a category or is damaged.
    FileNotFoundError: there is no such file, or no CLIP model within reach.
  """
  if config.source in ("image", "learned", "none"):
    return None
  if config.source == "vectors":
    if not config.vectors:
      raise ValueError(
        "config.context.source is 'vectors' but config.context.vectors is empty; "
        "expected an .npz file that maps each category's name to its vector."
      )
    path = pathlib.Path(config.vectors).expanduser()
    return select(read_vectors(path), categories, path)
  if config.source == "clip":
    return cached_vectors(config, categories)
  raise ValueError(
    f"config.context.source is {config.source!r}; expected one of {SOURCES}."
  )


def cached_vectors(
  config: ml_collections.ConfigDict, categories: Sequence[str]
) -> Float32[np.ndarray, "k t"]:
  """CLIP's vectors from the cache, or computed and put there."""
  names = sorted(set(categories))
  content = json.dumps([clip.stamp(config.model), list(config.templates), names])
  key = hashlib.sha256(content.encode()).hexdigest()[:16]
  path = pathlib.Path(config.cache or CACHE).expanduser() / f"clip-{key}.npz"
  if path.exists():
    return select(read_vectors(path), categories, path)
  vectors = clip_vectors(config.model, config.templates, names)
  files.write_bytes(path, packed(vectors))
  return select(vectors, categories, path)


def clip_vectors(
  model: str, templates: Sequence[str], categories: Sequence[str]
) -> dict[str, Float32[np.ndarray, " t"]]:
  """Each category's mean over the prompts of CLIP's text vectors, of length 1.

  As in CLIP's zero-shot classifiers, a prompt's vector has length 1 before the mean.
  "screw_bag" is read as "screw bag".

  Raises:
    ValueError: a template has no place for the name, or a prompt is too long.
    FileNotFoundError: the model is not on this machine and the hub out of reach.
  """
  if not templates or not all("{}" in template for template in templates):
    raise ValueError(
      f"config.context.templates is {tuple(templates)}; expected at least one text, "
      "each with {} where the category's name goes, such as 'a photo of a {}'."
    )
  words = [category.replace("_", " ") for category in categories]
  prompts = [template.replace("{}", word) for word in words for template in templates]
  embedded = clip.embed(clip.find_model(model), prompts).astype(np.float64)
  embedded /= np.linalg.norm(embedded, axis=-1, keepdims=True)
  means = embedded.reshape(len(categories), len(templates), -1).mean(axis=1)
  means /= np.linalg.norm(means, axis=-1, keepdims=True)
  return dict(zip(categories, means.astype(np.float32), strict=True))


def read_vectors(path: pathlib.Path) -> Vectors:
  """The file's vectors by name, float32.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is no .npz file of finite vectors of one length.
  """
  if not path.is_file():
    raise FileNotFoundError(f"{path}: no such file of category vectors (.npz).")
  try:
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
      vectors = {name: stored[name] for name in stored.files}
  except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
    raise ValueError(
      f"{path} is no .npz file, or damaged ({error}). Delete it and write it again."
    ) from error
  shapes = {name: vector.shape for name, vector in vectors.items()}
  if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
    raise ValueError(f"{path}: expected vectors of one length; found {shapes}.")
  for name, vector in vectors.items():
    if vector.dtype.kind not in "fiu" or not np.isfinite(vector).all():
      raise ValueError(f"{path}: the vector of {name!r} is not of finite numbers.")
  return {name: vector.astype(np.float32) for name, vector in vectors.items()}


def select(
  vectors: Vectors, categories: Sequence[str], path: pathlib.Path
) -> Float32[np.ndarray, "k t"]:
  """The categories' vectors in their order; ValueError names those that are missing."""
  if missing := [name for name in categories if name not in vectors]:
    raise ValueError(
      f"{path} holds no vector for {missing}; it holds {sorted(vectors)}. See "
      "config.context.vectors and config.data.category."
    )
  return np.stack([vectors[name] for name in categories])


def packed(vectors: Vectors) -> bytes:
  """An .npz file of the vectors; unlike np.savez it takes any name, "file" included."""
  content = io.BytesIO()
  with zipfile.ZipFile(content, "w") as archive:
    for name, vector in vectors.items():
      with archive.open(f"{name}.npy", "w") as member:
        np.lib.format.write_array(member, np.asarray(vector), allow_pickle=False)
  return content.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
  """Writes the categories' CLIP vectors to a file."""
  default = settings.defaults().context
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument("--categories", required=True, help="names, commas between them")
  parser.add_argument("--out", required=True, type=pathlib.Path, help="an .npz file")
  parser.add_argument("--model", default=default.model, help="hub name or folder")
  parser.add_argument(
    "--template", action="append", help="a prompt with {}; may be given several times"
  )
  parser.add_argument("--overwrite", action="store_true", help="replace the file")
  flags = parser.parse_args(arguments)
  names = [name.strip() for name in flags.categories.split(",") if name.strip()]
  templates = flags.template or list(default.templates)
  if not names:
    parser.error(f"--categories={flags.categories!r} names none")
  if flags.out.exists() and not flags.overwrite:
    raise SystemExit(
      f"Error: {flags.out} exists already. Give another --out, or --overwrite."
    )
  try:
    vectors = clip_vectors(flags.model, templates, names)
    files.write_bytes(flags.out, packed(vectors))
  except (ValueError, OSError) as error:
    raise SystemExit(f"Error: {error}") from error
  print(f"{flags.out}: {', '.join(vectors)}; {flags.model}, {templates}")


if __name__ == "__main__":
  main()
