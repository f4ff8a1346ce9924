"""Writes vit.json: what transformers' DINOv2 answers, in float64, and its tensors.

  python tests/golden/make_vit.py

with torch 2.14.1, transformers 4.57.6 and numpy 2.4.6, in an environment of its own.
The networks are small (48 channels, 3 blocks, 2 heads, trained at 42 x 42 pixels, with
no registers and with 4); their weights follow encoder_rule.py. A block's answer is its
patches under the final normalisation, which are the maps of Dinov2Backbone.

  python tests/golden/make_vit.py dinov2_vits14 FILE.npz

writes instead every answer of a network of full size, to compare with by hand: on a CPU
no value of dinov2_vits14 differed by more than 7e-6, with registers 6e-6.
"""

import json
import pathlib
import sys

import encoder_rule
import numpy as np
import torch
import transformers

SMALL = {
  "hidden_size": 48,
  "num_hidden_layers": 3,
  "num_attention_heads": 2,
  "image_size": 42,
}
SIZES = ((42, 42), (28, 56), (70, 42), (84, 84), (14, 28))  # height, width
FULL = {"image_size": 518, "num_hidden_layers": 12}
NAMED = {
  "dinov2_vits14": (0, FULL | {"hidden_size": 384, "num_attention_heads": 6}),
  "dinov2_vitb14": (0, FULL | {"hidden_size": 768, "num_attention_heads": 12}),
  "dinov2_vits14_reg": (4, FULL | {"hidden_size": 384, "num_attention_heads": 6}),
  "dinov2_vitb14_reg": (4, FULL | {"hidden_size": 768, "num_attention_heads": 12}),
}
FULL_SIZES = ((224, 224), (252, 196))


def network(registers: int, sizes: dict) -> torch.nn.Module:
  """The ruled network; its maps are those of all blocks."""
  stages = [f"stage{block + 1}" for block in range(sizes["num_hidden_layers"])]
  if registers:
    config = transformers.Dinov2WithRegistersConfig(
      num_register_tokens=registers, patch_size=14, out_features=stages, **sizes
    )
    model = transformers.Dinov2WithRegistersBackbone(config)
  else:
    config = transformers.Dinov2Config(patch_size=14, out_features=stages, **sizes)
    model = transformers.Dinov2Backbone(config)
  state = {
    key: torch.from_numpy(encoder_rule.tensor(key, tuple(tensor.shape)))
    for key, tensor in model.state_dict().items()
  }
  model.load_state_dict(state)
  return model.eval().double()


def maps(model: torch.nn.Module, size: tuple[int, int]) -> list[np.ndarray]:
  """Each block's answer to the ruled images of that size, channels last."""
  mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
  images = (encoder_rule.images(*size) / 255 - mean) / std
  with torch.no_grad():
    answers = model(torch.from_numpy(images.transpose(0, 3, 1, 2))).feature_maps
  return [answer.numpy().transpose(0, 2, 3, 1) for answer in answers]


def summary(block: int, feats: np.ndarray) -> dict:
  """Mean, spread and 64 values of a block."""
  values = feats.reshape(-1)[encoder_rule.places(block, feats.size)]
  return {
    "shape": list(feats.shape),
    "mean": float(feats.mean()),
    "std": float(feats.std()),
    "values": [round(value, 9) for value in values.tolist()],
  }


def main(words: list[str]) -> None:
  if words:
    name, path = words
    model = network(*NAMED[name])
    answers = {
      f"{size[0]}x{size[1]}/{block}": np.float32(feats)
      for size in FULL_SIZES
      for block, feats in enumerate(maps(model, size), start=1)
    }
    np.savez(path, **answers)
    return
  found = {}
  for registers in (0, 4):
    model = network(registers, SMALL)
    found[str(registers)] = {
      "names": {name: list(held.shape) for name, held in model.state_dict().items()},
      "answers": {
        f"{size[0]}x{size[1]}": [
          summary(block, feats) for block, feats in enumerate(maps(model, size), 1)
        ]
        for size in SIZES
      },
    }
  path = pathlib.Path(__file__).with_name("vit.json")
  path.write_text(json.dumps(found))


if __name__ == "__main__":
  main(sys.argv[1:])
