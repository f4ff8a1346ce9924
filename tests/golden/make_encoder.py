"""Writes encoder.json: what plain PyTorch ResNets answer, in float64.

  python tests/golden/make_encoder.py

with torch 2.13.0 and numpy 2.4.6, in an environment of its own. The networks are
written here, with torchvision's parameter names; their weights follow encoder_rule.py.
"""

import json
import pathlib

import encoder_rule
import numpy as np
import torch
from torch import nn

PLANS = {  # blocks of each layer, width of the 3x3 in layer1, channels out per 64
  "resnet18": ((2, 2, 2, 2), 64, 1),
  "resnet34": ((3, 4, 6, 3), 64, 1),
  "resnet50": ((3, 4, 6, 3), 64, 4),
  "resnet101": ((3, 4, 23, 3), 64, 4),
  "wide_resnet50_2": ((3, 4, 6, 3), 128, 4),
  "wide_resnet101_2": ((3, 4, 23, 3), 128, 4),
}


class Block(nn.Module):
  """A basic block, or with expansion 4 a bottleneck, stride in the first 3x3."""

  def __init__(self, source, width, out, stride, bottleneck):
    super().__init__()
    three = {"kernel_size": 3, "padding": 1, "bias": False}
    if bottleneck:
      self.conv1 = nn.Conv2d(source, width, 1, bias=False)
      self.conv2 = nn.Conv2d(width, width, stride=stride, **three)
      self.conv3 = nn.Conv2d(width, out, 1, bias=False)
      self.bn3 = nn.BatchNorm2d(out)
    else:
      self.conv1 = nn.Conv2d(source, width, stride=stride, **three)
      self.conv2 = nn.Conv2d(width, out, **three)
    self.bn1 = nn.BatchNorm2d(self.conv1.out_channels)
    self.bn2 = nn.BatchNorm2d(self.conv2.out_channels)
    self.downsample = None
    if stride != 1 or source != out:
      shortcut = nn.Conv2d(source, out, 1, stride=stride, bias=False)
      self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(out))

  def forward(self, x):
    y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
    if hasattr(self, "conv3"):
      y = self.bn3(self.conv3(torch.relu(y)))
    return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
  """Feature levels f1..f5 of a ResNet."""

  def __init__(self, depths, inner, expansion):
    super().__init__()
    self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
    self.bn1 = nn.BatchNorm2d(64)
    source = 64
    for layer, depth in enumerate(depths):
      width, out = inner * 2**layer, 64 * 2**layer * expansion
      blocks = []
      for index in range(depth):
        stride = 2 if layer and not index else 1
        blocks.append(Block(source, width, out, stride, expansion == 4))
        source = out
      setattr(self, f"layer{layer + 1}", nn.Sequential(*blocks))

  def forward(self, x):
    levels = [torch.relu(self.bn1(self.conv1(x)))]
    x = nn.functional.max_pool2d(levels[0], 3, stride=2, padding=1)
    for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
      x = layer(x)
      levels.append(x)
    return levels


def answers(name: str) -> list[dict]:
  """Mean, spread and 64 values of each level."""
  model = ResNet(*PLANS[name]).eval()
  state = {
    key: torch.from_numpy(np.asarray(encoder_rule.tensor(key, tuple(held.shape))))
    for key, held in model.state_dict().items()
    if not key.endswith("num_batches_tracked")
  }
  model.load_state_dict(state, strict=False)
  model = model.double()
  mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
  images = (encoder_rule.images() / 255 - mean) / std
  with torch.no_grad():
    levels = model(torch.from_numpy(images.transpose(0, 3, 1, 2)))
  found = []
  for level, tensor in enumerate(levels, start=1):
    feats = tensor.numpy().transpose(0, 2, 3, 1)
    values = feats.reshape(-1)[encoder_rule.places(level, feats.size)]
    found.append(
      {
        "shape": list(feats.shape),
        "mean": float(feats.mean()),
        "std": float(feats.std()),
        "values": values.tolist(),
      }
    )
  return found


if __name__ == "__main__":
  found = {name: answers(name) for name in PLANS}
  path = pathlib.Path(__file__).with_name("encoder.json")
  path.write_text(json.dumps(found))
