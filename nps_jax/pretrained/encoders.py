"""Where the Hugging Face hub has each encoder's weights, and what they are."""

import hashlib
import pathlib
from typing import NamedTuple

from absl import logging

from nps_jax.pretrained import hub

FILE = "model.safetensors"


class Published(NamedTuple):
  """A repository of the hub, and the SHA-256 of FILE there."""

  repo: str
  sha256: str = ""  # as the hub's page or several users tell it; "": we know of none


HUB = {
  "resnet18": Published(
    "timm/resnet18.tv_in1k",
    "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
  ),
  "resnet34": Published("timm/resnet34.tv_in1k"),
  "resnet50": Published(
    "timm/resnet50.tv_in1k",
    "5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
  ),
  "resnet101": Published("timm/resnet101.tv_in1k"),
  "wide_resnet50_2": Published(
    "timm/wide_resnet50_2.tv_in1k",
    "df6fb6c4824769769de18e14088475fd6ee94236849aa4e5d8022ba9d9a9a16c",
  ),
  "wide_resnet101_2": Published("timm/wide_resnet101_2.tv_in1k"),
  "dinov2_vits14": Published(
    "facebook/dinov2-small",
    "ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1",
  ),
  "dinov2_vitb14": Published(
    "facebook/dinov2-base",
    "d73036b56966966d07975d696bde331762f37297e2f095de8cea0040c3aa0841",
  ),
  "dinov2_vits14_reg": Published("facebook/dinov2-with-registers-small"),
  "dinov2_vitb14_reg": Published(
    "facebook/dinov2-with-registers-base",
    "7a6f7b3b9fa4b8732e707476a03cd6cdce210048582f21aafb7991c17d98e362",
  ),
}


def fetch(name: str) -> pathlib.Path:
  """The encoder's file in the hub's cache, downloaded if need be; shows what it is.

  Raises:
    FileNotFoundError: the hub is out of reach.
    ValueError: the file is another than is known.
  """
  repo, known = HUB[name]
  path = hub.fetch(repo, FILE)
  if path is None:
    raise FileNotFoundError(
      f"config.encoder.weights is 'hub', but {FILE} of {repo} is not in the hub's "
      "cache and the hub cannot be reached or does not have it. On a machine with a "
      f"network: `hf download {repo} {FILE} --local-dir .`; bring the file here and "
      "set config.encoder.weights to its path."
    )
  with path.open("rb") as stream:
    found = hashlib.file_digest(stream, "sha256").hexdigest()
  if known and found != known:
    raise ValueError(
      f"{path}, {FILE} of {repo}, has the SHA-256 {found}; expected {known}. It is "
      "damaged, or the hub's file has changed. Remove it and fetch it again; or, if "
      "you trust it, set config.encoder.weights to its path."
    )
  remark = "as expected" if known else "which we have no figure to compare with"
  logging.info("%s: %s of %s, SHA-256 %s, %s.", name, FILE, repo, found, remark)
  return path
