"""The types that data travels in: one image's record, one category, one batch."""

from typing import NamedTuple

from jaxtyping import Float, Int, UInt8
import numpy as np

from nps_jax.data import encoded

GOOD = "good"
LOGICAL = "logical_anomalies"
STRUCTURAL = "structural_anomalies"


class Record(NamedTuple):
  """One image and what is known of it; masks stay references, never pixels."""

  id: str  # "<category>/<split>/<kind>/<stem>", unique in a data set
  category: str
  split: str  # "train", "validation" or "test"
  kind: str  # "good", or the name of the test folder
  image: encoded.Encoded
  masks: tuple[encoded.Encoded, ...] = ()  # one image per ground-truth channel
  region: encoded.Encoded | None = None  # an image, black where nothing is to be seen
  bits: int = 16  # of the grey values of a 16-bit file, whose full range is ours


class Defect(NamedTuple):
  """One entry of LOCO's defects_config.json."""

  name: str
  pixel_value: int  # 1..255, the mask value that stands for this defect
  saturation_threshold: float  # pixels if absolute, a fraction if relative
  relative_saturation: bool


class Dataset(NamedTuple):
  """One category: its records by split, and how its ground truth is read."""

  category: str
  layout: str  # "loco", "mvtec_ad" or "plain"
  train: tuple[Record, ...]
  validation: tuple[Record, ...]
  test: tuple[Record, ...]
  defects: tuple[Defect, ...] = ()  # LOCO layout only


class Batch(NamedTuple):
  """Fixed-size rows for the device; padding rows have valid = 0."""

  image: UInt8[np.ndarray, "b h w 3"]
  context: Int[np.ndarray, " b"]  # index of the row's category
  valid: Float[np.ndarray, " b"]  # 1 for a real row, 0 for padding
  index: Int[np.ndarray, " b"]  # position of the row's record in its sequence
