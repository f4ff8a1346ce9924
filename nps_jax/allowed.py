"""Which values the settings may have."""

from collections.abc import Callable
from typing import Any

import ml_collections

from nps_jax import config as settings
from nps_jax import geometry

CHOICES = {
  "context.source": ("clip", "image", "vectors", "learned", "none"),
  "codebook.learning": ("ema", "gradient"),
  "codebook.where": ("embedding", "levels", "decoder"),
  "data.layout": ("auto", "loco", "mvtec_ad", "plain"),
  "data.source": ("folder", "tfds"),
  "encoder.dtype": ("float32", "bfloat16"),
  "encoder.name": tuple(geometry.ENCODERS),
  "logical.fusion": ("concat", "attention"),
  "loss.distance": ("cosine", "mse", "cosine_flat"),
  "scoring.fusion": ("learned", "equal"),
  "scoring.image": ("max", "top1"),
  "variant": ("default", "paper"),
}
LOW = "a quantile below scoring.high"
COUNTED = ("features", "residual", "codes")  # statistics that scoring.pooled may name

Rules = dict[str, tuple[str, Callable[[Any], bool]]]  # in words, and as they are


def _is_size(value: Any, multiple: int) -> bool:
  sides = value if isinstance(value, tuple) and len(value) == 2 else (value,)
  return all(type(side) is int and side > 0 and side % multiple == 0 for side in sides)


# By field: in words and as a rule, what its value must be.
RULES: Rules = {
  "data.bits": ("0 or 8 to 16", lambda v: v == 0 or 8 <= v <= 16),
  "data.validation_fraction": ("in (0, 1)", lambda v: 0 < v < 1),
  "codebook.decay": ("in [0, 1)", lambda v: 0 <= v < 1),
  "codebook.memory": ("in [0, 1]", lambda v: 0 <= v <= 1),
  "codebook.eps": ("above 0", lambda v: v > 0),
  "train.learning_rate": ("above 0", lambda v: v > 0),
  "scoring.high": ("a quantile in (0, 1]", lambda v: 0 < v <= 1),
  "scoring.low": (LOW, lambda v: v >= 0),
  "scoring.maps": (
    f"some of {settings.MAPS}",
    lambda v: v and set(v) <= set(settings.MAPS),
  ),
  "scoring.pooled": (f"some of {COUNTED}", lambda v: set(v) <= set(COUNTED)),
}
RULES |= {
  name: ("0 or more", lambda v: v >= 0)
  for name in (
    "codebook.parts",
    "logical.local_width",
    "scoring.edits",
    "scoring.smoothing",
    "structural.strides",
    "train.edits",
  )
}
RULES |= {
  name: ("1 or more", lambda v: v >= 1)
  for name in (
    "checkpoint.every",
    "checkpoint.keep",
    "codebook.groups",
    "codebook.reseed_after",
    "codebook.size",
    "codebook.width",
    "context.nearest",
    "context.width",
    "data.threads",
    "image_pixels",
    "logical.embedding",
    "logical.strides",
    "logical.width",
    "structural.embedding",
    "structural.width",
    "train.batch_size",
    "train.log_every",
    "train.steps",
  )
}


def of_encoder(name: str) -> Rules:
  """What the encoder of that name, which there must be, asks of sizes and levels."""
  kind = geometry.ENCODERS[name]
  last, multiple = max(kind.widths), kind.multiple
  levels = f"rising levels out of 1..{last}, such as ({','.join(map(str, kind.usual))})"
  if kind.least > 1:
    levels += f", the highest at least {kind.least}"
  return {
    "image_size": (
      f"a positive multiple of {multiple}, two of them as (height, width), or "
      f"{settings.AUTO!r}",
      lambda v: v == settings.AUTO or _is_size(v, multiple),
    ),
    "encoder.levels": (
      levels,
      lambda v: (
        0 < len(v) == len(set(kind.widths) & set(v))
        and sorted(v) == list(v)
        and v[-1] >= kind.least
      ),
    ),
    "encoder.deepest": (_deepest(last), lambda v: v in range(last + 1)),
  }


def _deepest(last: int) -> str:
  return f"0 (automatic), or a level 1..{last} not below the highest of encoder.levels"


def validate(config: ml_collections.ConfigDict) -> None:
  """Checks what types alone cannot.

  Raises:
    ValueError: lists every field that is out of its range, and the range.
  """
  values = settings.leaves(config)
  wrong = [
    f"config.{name} is {values[name]!r}; expected one of {allowed}."
    for name, allowed in CHOICES.items()
    if values[name] not in allowed
  ]
  named = values["encoder.name"]
  rules = (of_encoder(named) if named in geometry.ENCODERS else {}) | RULES
  wrong += [
    f"config.{name} is {values[name]!r}; expected {what}."
    for name, (what, holds) in rules.items()
    if not holds(values[name])
  ]
  wrong = wrong or _misfits(config)
  if wrong:
    raise ValueError("\n".join(wrong))


def _misfits(config: ml_collections.ConfigDict) -> list[str]:
  """What is wrong between fields, each of which is in its own range."""
  levels, deepest = config.encoder.levels, config.encoder.deepest
  kind = geometry.encoder(config.encoder.name)
  low, wrong = config.scoring.low, []
  if 0 < deepest < max(levels):
    expected = _deepest(max(kind.widths))
    wrong.append(f"config.encoder.deepest is {deepest!r}; expected {expected}.")
  if low >= config.scoring.high:
    wrong.append(f"config.scoring.low is {low!r}; expected {LOW}.")
  if not (config.logical.enabled or config.structural.enabled):
    wrong.append(
      "config.logical.enabled and config.structural.enabled are False, so there is "
      "nothing to train; enable one. To score without its map, leave it out of "
      "config.scoring.maps."
    )
  counted = config.codebook.parts > 0 and kind.counted(levels) is not None
  there = {
    "memory": config.codebook.memory > 0,
    "codes": counted,
    "layout": counted,
    "reconstruction": config.logical.enabled,
    "discrepancy": config.logical.enabled and config.logical.local_width > 0,
    "structural": config.structural.enabled,
    "features": len(kind.coarse(levels)) > 0,
    "residual": config.logical.enabled,
  }
  needs = (
    "the memory needs config.codebook.memory, codes and layout level 3 (of a ResNet) "
    "in config.encoder.levels and config.codebook.parts, reconstruction and "
    "residual config.logical.enabled, discrepancy config.logical.local_width besides, "
    "structural config.structural.enabled, features a level from 3 on"
  )
  for name in ("maps", "pooled"):
    asked = config.scoring[name]
    if asked and not any(map(there.get, asked)):
      wrong.append(
        f"config.scoring.{name} is {asked!r}, none of which is there: {needs}."
      )
  return wrong
