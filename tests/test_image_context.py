"""Image context: a tiny CLIP's vectors, their neighbours, and a whole training."""

import pathlib

from flax import traverse_util
import jax
import numpy as np
from PIL import Image
import pytest
import runs
import safetensors.numpy

from nps_jax import config as settings
from nps_jax import inference
from nps_jax import trainer
from nps_jax.data import folder as folders
from nps_jax.data import records
from nps_jax.models import image_context
from nps_jax.pretrained import clip as models


def pictures(folder: pathlib.Path, count: int, seed: int = 0) -> list[records.Record]:
  rng, found = np.random.default_rng(seed), []
  for index in range(count):
    path = folder / f"{seed}_{index}.png"
    pixels = rng.integers(0, 256, (2, 2, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    Image.fromarray(pixels).save(path)
    found.append(records.Record(f"a/train/good/{index}", "a", "train", "good", path))
  return found


def options(clip: pathlib.Path, cache: pathlib.Path):
  found = settings.defaults().context.unlock()
  found.update(model=str(clip), cache=str(cache), source="image")
  return found


def direct(clip: pathlib.Path, images: list[records.Record]) -> np.ndarray:
  """Transformers' own loading and answer; pixels as CLIP's card has them."""
  import transformers  # noqa: PLC0415

  model, params = transformers.FlaxCLIPModel.from_pretrained(clip, _do_init=False)
  pixels = np.stack([np.asarray(Image.open(each.image)) for each in images]) / 255
  mean = np.array([0.48145466, 0.4578275, 0.40821073])
  spread = np.array([0.26862954, 0.26130258, 0.27577711])
  pixels = np.float32((pixels - mean) / spread).transpose(0, 3, 1, 2)
  found = jax.jit(lambda params: model.get_image_features(pixels, params=params))(
    params
  )
  return np.asarray(found, np.float64)


def scores_of(run, images) -> dict[str, float]:
  return {each.record.id: each.score for each in inference.scores(run, images, "tray")}


def test_vectors_agree_with_transformers_and_are_cached(clip, tmp_path, monkeypatch):
  images, config = pictures(tmp_path, 19), options(clip, tmp_path / "cache")
  found = image_context.image_vectors(config, images)
  want = direct(clip, images)
  want /= np.linalg.norm(want, axis=1, keepdims=True)
  np.testing.assert_allclose(found, want, atol=2e-5)
  gaps = np.linalg.norm(want[:, None] - want[None], axis=-1)
  assert gaps[np.triu_indices(19, 1)].min() > 1e-3  # much more than the tolerance

  def refuse(*_):
    raise AssertionError("the cache holds them")

  monkeypatch.setattr(models, "embed_images", refuse)
  np.testing.assert_array_equal(image_context.image_vectors(config, images), found)
  for other in (images[::-1], images[:-1]):
    with pytest.raises(AssertionError, match="the cache holds them"):
      image_context.image_vectors(config, other)


def test_torch_layout_gives_the_same_vectors(clip, tmp_path):
  import transformers  # noqa: PLC0415

  model, params = transformers.FlaxCLIPModel.from_pretrained(clip, _do_init=False)
  names, tensors = {"kernel": "weight", "scale": "weight", "embedding": "weight"}, {}
  for path, leaf in traverse_util.flatten_dict(params).items():
    tensor = np.asarray(leaf)
    if path[-1] == "kernel":
      tensor = tensor.transpose(3, 2, 0, 1) if tensor.ndim == 4 else tensor.T
    name = ".".join((*path[:-1], names.get(path[-1], path[-1])))
    tensors[name] = np.ascontiguousarray(tensor)
  place = tmp_path / "torch"
  model.config.save_pretrained(place)
  content = safetensors.numpy.save(tensors, metadata={"format": "pt"})
  (place / "model.safetensors").write_bytes(content)
  batch = np.random.default_rng(3).integers(0, 256, (2, 32, 32, 3), np.uint8)
  want, found = (models.embed_images(each, [batch]) for each in (clip, place))
  np.testing.assert_allclose(found, want, atol=1e-5)


def test_neighbours_by_hand():
  bank = np.float32([[1, 0], [0, 1], [0.6, 0.8], [0.8, 0.6]])
  mean = bank.mean(axis=0)
  queries = np.float32([[1, 0], [0.28, 0.96]])
  found = image_context.around(bank, queries, 2).reshape(2, 3, 2)
  np.testing.assert_array_equal(found[:, 0], [mean, mean])
  # The first is in the bank, and no neighbour of itself.
  np.testing.assert_array_equal(found[0, 1:], bank[[3, 2]])
  np.testing.assert_array_equal(found[1, 1:], bank[[1, 2]])
  found = image_context.around(bank[:2], queries, 3).reshape(2, 4, 2)
  mean = bank[:2].mean(axis=0)
  np.testing.assert_array_equal(found[0, 1:], [bank[1], mean, mean])
  np.testing.assert_array_equal(found[1, 1:], [bank[1], bank[0], mean])


@pytest.mark.slow
def test_a_training_reads_each_image_s_own_context(clip, root, tmp_path):
  config = runs.config(
    root,
    data__category="bottle,tray",
    context__source="image",
    context__model=str(clip),
    context__cache=str(tmp_path / "cache"),
    context__nearest=2,
    image_size=32,
    encoder__levels=(4,),
    encoder__deepest=4,
    codebook__enabled=False,
    codebook__parts=0,
    codebook__memory=0.0,
    structural__enabled=False,
    train__steps=2,
  )
  run = trainer.fit(config, tmp_path / "run")
  opened = inference.open_run(tmp_path / "run")
  held = opened.frozen["context"]
  assert set(held["bank"]) == {"bottle", "tray"}
  data = {name: folders.open_category(root, name) for name in ("bottle", "tray")}
  rows = [inference.contexts(opened, data[name].train, name)[0] for name in data]
  np.testing.assert_array_equal(held["vectors"], np.concatenate(rows))
  assert held["vectors"].shape == (24, 3 * 8)
  first = scores_of(run, data["tray"].test)
  again = scores_of(opened, data["tray"].test)
  assert first == again and np.isfinite(list(first.values())).all()
  # Another bank is another context, and so another reconstruction.
  held["bank"]["tray"] = held["bank"]["tray"][:, ::-1].copy()
  other = scores_of(opened, data["tray"].test)
  assert all(other[name] != score for name, score in first.items())
