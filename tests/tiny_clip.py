"""A CLIP of a few thousand random weights, for the tests."""

import json
import pathlib

import jax


def make_tokenizer(folder: pathlib.Path) -> None:
  """Letters, letters that end a word, and two merges."""
  letters = "abcdefghijklmnopqrstuvwxyz"
  words = ["<|startoftext|>", "<|endoftext|>", *letters]
  words += [f"{letter}</w>" for letter in letters] + ["sc", "ag</w>"]
  folder.mkdir(exist_ok=True)
  vocabulary = {word: index for index, word in enumerate(words)}
  (folder / "vocab.json").write_text(json.dumps(vocabulary))
  (folder / "merges.txt").write_text("#version: 0.2\ns c\na g</w>\n")


def make(folder: pathlib.Path) -> pathlib.Path:
  """A folder with a whole CLIP, as the hub has it: images and text, random weights."""
  import transformers  # noqa: PLC0415

  make_tokenizer(folder)
  tower = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 8,
  }
  text = {"vocab_size": 60, "max_position_embeddings": 40}
  text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
  vision = {"image_size": 32, "patch_size": 16, "num_hidden_layers": 1}
  config = transformers.CLIPConfig(
    text_config=tower | text, vision_config=tower | vision, projection_dim=8
  )
  model = transformers.FlaxCLIPModel(config, _do_init=False)
  start = jax.jit(lambda key: model.init_weights(key, model.input_shape))
  params = start(jax.random.key(5))
  # Fresh weights hardly look at the pixels.
  params["vision_model"] = jax.tree.map(
    lambda leaf: 15 * leaf if leaf.ndim > 1 else leaf, params["vision_model"]
  )
  model.save_pretrained(folder, params=params)
  return folder
