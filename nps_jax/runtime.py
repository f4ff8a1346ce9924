"""Scores images with an exported ONNX model; needs NumPy, Pillow, onnxruntime alone.

python -m nps_jax.runtime --model=FOLDER --images IMAGE ...

  from nps_jax import runtime
  model = runtime.Model("FOLDER")
  answer = model.score("image.png")  # .score, .anomalous, .evidence, .map
"""

import argparse
from collections.abc import Mapping, Sequence
import hashlib
import io
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags
from PIL import Image

ABOUT, SUM = "model.json", "model.sha256"
FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
PAGED = ("PNG", "TIFF", "WEBP")  # formats of several pages or frames
TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}  # by EXIF orientation
FILL = (124, 116, 104)  # outside of a region
BATCH = 8  # images at once
CLOSE = 1e-3  # most that another machine's answers may differ
Source = str | pathlib.Path | io.BufferedIOBase


class Answer(NamedTuple):
  """What a model says of one image."""

  score: float
  anomalous: bool
  evidence: dict[str, float]  # the score's terms: it is their sum
  map: np.ndarray  # rows x columns of 4 x 4 pixels of the model's input; 1: threshold


class Model:
  """An exported model, its files checked against their sums."""

  def __init__(self, folder: str | pathlib.Path, providers: Sequence[str] = ()):
    """Opens the folder.

    Args:
      providers: of onnxruntime, best first; none: the CPU.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is damaged, or it is no ONNX model.
      ModuleNotFoundError: onnxruntime is not installed.
    """
    self.folder = pathlib.Path(folder)
    self.about = read(self.folder)
    if self.about["format"] != "onnx":
      raise ValueError(
        f"{folder} is an export to {self.about['format']}, which needs JAX; export "
        "with --format=onnx to run it here."
      )
    self.size = self.about["input"]["height"], self.about["input"]["width"]
    self.threshold = float(self.about["threshold"])
    self._region = region(self.folder, self.about)
    self._session = session(self.folder / self.about["graph"], providers)

  def decode(self, source: Source) -> np.ndarray:
    """The image in RGB at the model's size, uint8.

    Raises:
      ValueError: it cannot be read, or has another size than the region.
    """
    return decode(source, self.about["input"]["bits"], self.size, self._region)

  def score(self, source: Source, threshold: float | None = None) -> Answer:
    """What the model says of an image: a path, or a file that is open for bytes.

    Args:
      threshold: above which it is anomalous; None: the model's own.
    """
    return self.answers(self.decode(source)[None], threshold)[0]

  def answers(self, images: np.ndarray, threshold: float | None = None) -> list[Answer]:
    """What the model says of images at its size: uint8, RGB, n x height x width x 3.

    Raises:
      ValueError: they have another shape or type.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.shape[1:] != (*self.size, 3):
      raise ValueError(
        f"Images of shape {images.shape} and type {images.dtype}; expected "
        f"(n, {self.size[0]}, {self.size[1]}, 3) and uint8. `decode` makes them so."
      )
    limit = self.threshold if threshold is None else threshold
    answers = []
    for start in range(0, len(images), BATCH):
      feed = {"images": images[start : start + BATCH]}
      maps, evidence = self._session.run(["map", "evidence"], feed)
      answers += told(self.about, maps, evidence, limit, self._region)
    return answers

  def check(self) -> float:
    """The largest difference from what was said of the reference image.

    Raises:
      ValueError: it is over CLOSE, or the verdict is another one.
    """
    expected = self.about["reference"]
    answer = self.score(self.folder / expected["image"], self.threshold)
    values = np.load(self.folder / expected["map"], allow_pickle=False)
    gap = max(abs(answer.score - expected["score"]), np.abs(answer.map - values).max())
    if not gap <= CLOSE or answer.anomalous != expected["anomalous"]:
      raise ValueError(
        f"{self.folder} says something else here than where it was made: a score of "
        f"{answer.score:.6f}, not {expected['score']:.6f}; its map and score differ by "
        f"up to {gap:.2g}. Try another version of onnxruntime, or another provider."
      )
    return float(gap)


def session(path: pathlib.Path, providers: Sequence[str] = ()) -> Any:
  """A session of onnxruntime; without providers on the CPU.

  Raises:
    ModuleNotFoundError: it is not installed.
  """
  import onnxruntime  # noqa: PLC0415 - other formats do without

  return onnxruntime.InferenceSession(
    str(path), providers=list(providers) or ["CPUExecutionProvider"]
  )


def told(
  about: Mapping[str, Any],
  maps: np.ndarray,
  evidence: np.ndarray,
  threshold: float,
  inside: np.ndarray | None = None,
) -> list[Answer]:
  """A graph's maps and evidence as answers, image by image.

  Args:
    inside: the region's pixels; the map is lowest outside of it.
  """
  if inside is not None:
    cells = _at_grid(inside, maps.shape[1:])
    maps = np.stack([np.where(cells, values, values.min()) for values in maps])
  return [
    Answer(
      float(row.sum()),
      bool(row.sum() > threshold),
      dict(zip(about["terms"], map(float, row), strict=True)),
      values,
    )
    for row, values in zip(evidence, maps, strict=True)
  ]


def region(folder: pathlib.Path, about: Mapping[str, Any]) -> np.ndarray | None:
  """Where to look, pixel by pixel of the original images; None: everywhere."""
  if not about["region"]:
    return None
  with Image.open(folder / about["region"]) as image:
    return np.asarray(image.convert("L")) > 0


def at_size(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """The map at an image's height and width, bilinear."""
  image = Image.fromarray(np.asarray(values, np.float32))
  return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))


def read(folder: pathlib.Path) -> dict[str, Any]:
  """What model.json says, after all files have been checked against their sums.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a file is damaged.
  """
  about, beside = folder / ABOUT, folder / SUM
  for path in (about, beside):
    if not path.is_file():
      raise FileNotFoundError(
        f"{path} is missing. Give the folder that nps_jax.export wrote."
      )
  check(about, beside.read_text("utf-8", errors="replace")[:64])
  content = json.loads(about.read_bytes())
  for name, digest in content["sha256"].items():
    check(folder / name, digest)
  return content


def check(path: pathlib.Path, digest: str) -> None:
  """Raises an error unless the file is there and has this SHA-256."""
  if not path.is_file():
    raise FileNotFoundError(f"{path} is missing. Export anew, or copy the folder anew.")
  with path.open("rb") as file:
    if hashlib.file_digest(file, "sha256").hexdigest() != digest:
      raise ValueError(
        f"{path} is damaged: its SHA-256 is not the one that was written. Export anew, "
        "or copy the folder anew."
      )


def decode(
  source: Source, bits: int, size: tuple[int, int], region: np.ndarray | None = None
) -> np.ndarray:
  """The image in RGB, squeezed to this height and width; uint8.

  It is turned as its EXIF says, transparency is dropped, and 16-bit grey is scaled by
  the bits. What lies outside of the region is filled before anything is squeezed.

  Raises:
    ValueError: the image cannot be read; says why.
  """
  name = source if isinstance(source, str | pathlib.Path) else "The image"
  try:
    with Image.open(source, formats=FORMATS) as image:
      rgb = _upright(image, bits)
  except Exception as error:  # PIL's readers raise many kinds on damaged files
    raise ValueError(f"{name} cannot be read ({error}).") from error
  if region is not None:
    if rgb.size[::-1] != region.shape:
      raise ValueError(
        f"{name} is {rgb.height} x {rgb.width} (height x width), but the region is "
        f"{region.shape[0]} x {region.shape[1]}; an image must have its size."
      )
    rgb.paste(FILL, mask=Image.fromarray(~region))
  return np.array(rgb.resize(size[::-1], Image.Resampling.BILINEAR))


def _upright(image: Image.Image, bits: int) -> Image.Image:
  """The opened image in RGB, as its EXIF says it stands."""
  limit = Image.MAX_IMAGE_PIXELS
  if limit is not None and image.width * image.height > limit:
    raise ValueError(f"{image.width} x {image.height} is over {limit} pixels")
  if image.mode == "F":
    raise ValueError("its pixels are floating-point numbers")
  if image.format in PAGED and getattr(image, "n_frames", 1) > 1:
    raise ValueError(f"it holds {image.n_frames} pictures; save each alone")
  exif = Image.Image.getexif(image)
  way = TURNS.get(exif.get(ExifTags.Base.Orientation, 1))
  rgb = _rgb(image, bits)
  # PIL turns TIFFs by itself.
  return rgb if way is None or image.format == "TIFF" else rgb.transpose(way)


def _rgb(image: Image.Image, bits: int) -> Image.Image:
  """Any mode in 8-bit RGB, grey of 16-bit files by the bits that its values have."""
  if image.mode.startswith("I"):
    values, full = np.asarray(image), 2**bits - 1
    if values.min() < 0 or values.max() > full:
      raise ValueError(f"it has grey values outside of {bits} bits")
    levels = np.uint8((510 * np.arange(full + 1) + full) // (2 * full))  # the nearest
    return Image.fromarray(levels[values]).convert("RGB")
  if image.mode == "P" and "transparency" in image.info:
    image = image.convert("RGBA")  # PIL warns of the direct way
  return image.convert("RGB")


def _at_grid(inside: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
  """Which cells of the map have a part of the region in them."""
  cells = Image.fromarray(np.float32(inside))
  return np.asarray(cells.resize(grid[::-1], Image.Resampling.BOX)) > 0


def main(arguments: Sequence[str] | None = None) -> None:
  """Scores images with an exported model; without any, checks the model."""
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument("--model", required=True, help="folder of an export to ONNX")
  parser.add_argument("--images", nargs="+", default=[], help="files")
  flags = parser.parse_args(arguments)
  try:
    model = Model(flags.model)
    if not flags.images:
      print(f"The reference image's answer differs by {model.check():.2g} at most.")
    for path in flags.images:
      answer = model.score(path)
      verdict = "anomalous" if answer.anomalous else "ok"
      print(f"{path},{answer.score:.6f},{verdict}")
  except ModuleNotFoundError as error:
    raise SystemExit(
      f"Error: {error.name} is not installed; pip install {error.name}."
    ) from error
  except (ValueError, OSError) as error:
    raise SystemExit(f"Error: {error}") from error


if __name__ == "__main__":
  main()
