"""Category vectors from a tiny CLIP made here, from files, and their maps."""

import json
import pathlib
import subprocess
import sys
import time

from flax import traverse_util
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import safetensors.numpy
import tiny_clip

from nps_jax import config as settings
from nps_jax.models import context
from nps_jax.pretrained import clip as clip_text
from nps_jax.pretrained import hub

NAMES = ("screw_bag", "file", "pushpins")
TEMPLATES = ("{}", "a photo of a {}")


@pytest.fixture
def config(clip, tmp_path) -> ml_collections.ConfigDict:
  found = settings.defaults().context.unlock()
  found.update(model=str(clip), templates=TEMPLATES, cache=str(tmp_path / "cache"))
  return found


def direct(folder: pathlib.Path, prompts: list[str]) -> np.ndarray:
  """Transformers' own loading and answer, with all the padding that there can be."""
  import transformers  # noqa: PLC0415

  tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
  model, params = transformers.FlaxCLIPTextModelWithProjection.from_pretrained(
    folder, _do_init=False
  )
  tokens = tokenizer(prompts, padding="max_length", max_length=40, return_tensors="np")
  found = jax.jit(lambda params: model(**tokens, params=params))(params)
  return np.asarray(found.text_embeds, np.float64)


def test_vectors_agree_with_transformers(clip, config):
  found = context.category_vectors(config, NAMES)
  assert found.shape == (3, 8)
  assert found.dtype == np.float32
  words = ("screw bag", "file", "pushpins")
  prompts = [text for word in words for text in (word, f"a photo of a {word}")]
  each = direct(clip, prompts).reshape(3, 2, 8)
  each /= np.linalg.norm(each, axis=-1, keepdims=True)
  for mean, vector in zip(each.mean(axis=1), found, strict=True):
    np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)
  gaps = np.linalg.norm(found[:, None] - found[None], axis=-1)
  assert gaps[np.triu_indices(3, 1)].min() > 1e-3


def test_torch_layout_gives_the_same_vectors(clip, tmp_path):
  import transformers  # noqa: PLC0415

  model, params = transformers.FlaxCLIPTextModelWithProjection.from_pretrained(
    clip, _do_init=False
  )
  ours = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
  tensors = {}
  for path, leaf in traverse_util.flatten_dict(params).items():
    name = ".".join((*path[:-1], ours.get(path[-1], path[-1])))
    tensor = np.asarray(leaf).T if path[-1] == "kernel" else np.asarray(leaf)
    tensors[name] = np.ascontiguousarray(tensor)
  folder = tmp_path / "torch"
  tiny_clip.make_tokenizer(folder)
  model.config.save_pretrained(folder)
  content = safetensors.numpy.save(tensors, metadata={"format": "pt"})
  (folder / "model.safetensors").write_bytes(content)
  want = context.clip_vectors(str(clip), TEMPLATES, NAMES)
  found = context.clip_vectors(str(folder), TEMPLATES, NAMES)
  for name in NAMES:
    np.testing.assert_allclose(found[name], want[name], atol=1e-5)

  del tensors["text_projection.weight"]
  content = safetensors.numpy.save(tensors, metadata={"format": "pt"})
  (folder / "model.safetensors").write_bytes(content)
  with pytest.raises(
    ValueError, match=r"text_projection/kernel should be \(16, 8\) and is missing"
  ):
    context.clip_vectors(str(folder), TEMPLATES, NAMES)


@pytest.mark.parametrize("name", ["flax_model.msgpack", "model.safetensors"])
def test_damaged_weights_are_named(clip, tmp_path, name):
  folder = tmp_path / "cut"
  tiny_clip.make_tokenizer(folder)
  (folder / "config.json").symlink_to(clip / "config.json")
  (folder / name).write_bytes((clip / "flax_model.msgpack").read_bytes()[:900])
  with pytest.raises(ValueError, match=rf"{name} is cut short or damaged"):
    context.clip_vectors(str(folder), TEMPLATES, NAMES)


def test_a_cache_hit_needs_no_transformers_and_no_model(config):
  want = context.category_vectors(config, NAMES)
  script = f"""
import sys
import ml_collections
from nps_jax.models import context
config = ml_collections.ConfigDict({config.to_dict()!r})
print(context.category_vectors(config, {NAMES[::-1]!r}).tolist())
assert not any(name.startswith(("transformers", "torch")) for name in sys.modules)
"""
  answer = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, check=False
  )
  assert answer.returncode == 0, answer.stderr
  np.testing.assert_array_equal(np.float32(json.loads(answer.stdout)), want[::-1])


def test_the_cache_tells_models_templates_and_names_apart(config, monkeypatch):
  asked = []

  def fake(model, templates, names):
    asked.append((model, tuple(templates), tuple(names)))
    return {name: np.ones(2, np.float32) for name in names}

  monkeypatch.setattr(context, "clip_vectors", fake)
  for change in ({}, {}, {"templates": ("{}",)}, {"model": "a/b"}):
    config.update(change)
    context.category_vectors(config, NAMES)
  context.category_vectors(config, NAMES[::-1])
  context.category_vectors(config, NAMES[:2])
  assert len(asked) == len(set(asked)) == 4


def test_the_notice_alone_is_kept_back(clip):
  script = f"""
import logging
from nps_jax.models import context
context.clip_vectors({str(clip)!r}, ("{{}}",), ("a", "b"))
logging.getLogger("transformers.modeling_flax_utils").warning("another warning")
"""
  answer = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, check=False
  )
  assert answer.returncode == 0, answer.stderr
  assert "deprecated" not in answer.stderr
  assert "another warning" in answer.stderr


def test_long_prompts_and_bad_templates_are_refused(clip):
  with pytest.raises(ValueError, match=r"takes 52 tokens.* reads 40\. Shorten"):
    context.clip_vectors(str(clip), ("{}",), ("x" * 50,))
  for templates in ((), ("a photo",)):
    with pytest.raises(ValueError, match=r"at least one text, each with \{\}"):
      context.clip_vectors(str(clip), templates, ("a",))


def test_offline_without_cache_says_what_to_bring(config, monkeypatch, tmp_path):
  monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
  monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
  start = time.monotonic()
  for model in ("openai/clip-vit-base-patch32", "/no/such/folder"):
    config.model = model
    with pytest.raises(
      FileNotFoundError,
      match=rf"'{model}': no folder here, and config\.json .*vectors\.npz.*'learned'",
    ):
      context.category_vectors(config, NAMES)
  assert time.monotonic() - start < 2


def test_the_hubs_cache_is_enough_offline(clip, monkeypatch):
  monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
  monkeypatch.setattr(
    hub.huggingface_hub,
    "try_to_load_from_cache",
    lambda repo, name, revision: (
      str(clip / name) if revision == wanted and (clip / name).exists() else None
    ),
  )
  for wanted in (None, "3d74acf"):
    model = "openai/clip-vit-base-patch32" + (f"@{wanted}" if wanted else "")
    assert clip_text.find_model(model) == clip
  with pytest.raises(FileNotFoundError, match=r"is not in the hub's cache"):
    clip_text.find_model("openai/clip-vit-base-patch32@main")


@pytest.mark.parametrize("name", ["config.json", "merges.txt", "flax_model.msgpack"])
def test_an_incomplete_folder_names_the_file(clip, tmp_path, name):
  folder = tmp_path / "part"
  folder.mkdir()
  for path in clip.iterdir():
    if path.name != name:
      (folder / path.name).symlink_to(path)
  with pytest.raises(FileNotFoundError, match=rf"which holds no {name}"):
    clip_text.find_model(str(folder))


def write_vectors(
  path: pathlib.Path, **vectors: np.ndarray
) -> ml_collections.ConfigDict:
  np.savez(path, **vectors)
  return ml_collections.ConfigDict({"source": "vectors", "vectors": str(path)})


def test_vectors_come_from_a_file_in_the_order_asked(tmp_path):
  config = write_vectors(tmp_path / "v.npz", a=np.arange(3), b=np.array([0.5, 1, 2]))
  found = context.category_vectors(config, ("b", "a"))
  np.testing.assert_array_equal(found, np.float32([[0.5, 1, 2], [0, 1, 2]]))
  assert found.dtype == np.float32


def test_missing_categories_are_named(tmp_path):
  config = write_vectors(tmp_path / "v.npz", a=np.ones(3), b=np.ones(3))
  with pytest.raises(ValueError, match=r"no vector for \['c'\]; it holds \['a', 'b'\]"):
    context.category_vectors(config, ("a", "c"))


def test_bad_vector_files_are_refused(tmp_path):
  path = tmp_path / "v.npz"
  config = write_vectors(path, a=np.ones(3), b=np.ones(4))
  with pytest.raises(ValueError, match=r"one length; found .*\(3,\).*\(4,\)"):
    context.category_vectors(config, ("a",))
  write_vectors(path, a=np.array([1, np.nan]))
  with pytest.raises(ValueError, match="vector of 'a' is not of finite numbers"):
    context.category_vectors(config, ("a",))
  for content in (b"", b"text", path.read_bytes()[:40]):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"v\.npz is no \.npz file, or damaged"):
      context.category_vectors(config, ("a",))
  with path.open("wb") as file:
    np.save(file, np.ones(3))
  with pytest.raises(ValueError, match=r"v\.npz is no \.npz file, or damaged"):
    context.category_vectors(config, ("a",))
  path.unlink()
  with pytest.raises(FileNotFoundError, match="no such file of category vectors"):
    context.category_vectors(config, ("a",))
  config.vectors = ""
  with pytest.raises(ValueError, match=r"context\.vectors is empty; expected an \.npz"):
    context.category_vectors(config, ("a",))


def test_sources_without_given_vectors():
  for source in ("learned", "none"):
    config = ml_collections.ConfigDict({"source": source})
    assert context.category_vectors(config, ("a",)) is None
  config = ml_collections.ConfigDict({"source": "text"})
  with pytest.raises(ValueError, match=r"'text'; expected one of \('clip', 'vectors'"):
    context.category_vectors(config, ("a",))


def test_the_command_writes_what_the_source_vectors_reads(
  clip, config, tmp_path, capsys
):
  out = tmp_path / "made" / "v.npz"
  arguments = [f"--categories={','.join(NAMES)}", f"--out={out}", f"--model={clip}"]
  arguments += [f"--template={template}" for template in TEMPLATES]
  context.main(arguments)
  assert "screw_bag, file, pushpins" in capsys.readouterr().out
  want = context.category_vectors(config, NAMES)
  config.update(source="vectors", vectors=str(out))
  np.testing.assert_array_equal(context.category_vectors(config, NAMES), want)


def test_the_command_replaces_a_file_only_on_demand(clip, tmp_path, capsys):
  out = tmp_path / "v.npz"
  out.write_bytes(b"old")
  flags = ["--categories=pins", f"--out={out}", f"--model={clip}"]
  with pytest.raises(
    SystemExit, match=r"Error: .*v\.npz exists already\. Give another"
  ):
    context.main(flags)
  with pytest.raises(SystemExit, match=r"Error: config\.context\.templates is \('no'"):
    context.main([*flags, "--template=no", "--overwrite"])
  with pytest.raises(SystemExit, match="2"):
    context.main(["--categories= ,", f"--out={tmp_path / 'new.npz'}"])
  assert "--categories=' ,' names none" in capsys.readouterr().err
  assert out.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
  context.main([*flags, "--overwrite"])
  assert set(context.read_vectors(out)) == {"pins"}


def test_maps_are_the_bilinear_upsampling_of_one_position():
  vectors = jax.random.normal(jax.random.key(1), (3, 8))
  sizes = [(4, 6), (1, 1), (16, 16)]
  model = context.GlobalContext(5)
  variables = model.init(jax.random.key(2), vectors, sizes)
  maps = model.apply(variables, vectors, sizes)
  assert len(maps) == 3
  for index, (found, size) in enumerate(zip(maps, sizes, strict=True)):
    layer = variables["params"][f"level{index}"]
    small = np.asarray(vectors) @ np.asarray(layer["kernel"]) + layer["bias"][None]
    want = jax.image.resize(
      jnp.asarray(small)[:, None, None], (3, *size, 5), "bilinear"
    )
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
  assert float(jnp.abs(maps[0][:, 0, 0] - maps[2][:, 0, 0]).max()) > 0.1
