"""Writes a run as a folder that runs elsewhere: a graph, and what goes with it."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import hashlib
import importlib.metadata
import io
import json
import pathlib
import shutil
import tempfile
from typing import Any, NamedTuple

import jax
from jax import export
import jax.numpy as jnp
import numpy as np

from nps_jax import config as settings
from nps_jax import inference
from nps_jax import ready
from nps_jax import runtime
from nps_jax import scoring
from nps_jax import verdict
from nps_jax.data import decoding
from nps_jax.data import encoded
from nps_jax.data import records
from nps_jax.exporting import checking
from nps_jax.exporting import graph
from nps_jax.exporting import scores
from nps_jax.pretrained import encoders
from nps_jax.runs import files
from nps_jax.runs import integrity
from nps_jax.runs import provenance

ONNX, STABLEHLO = "onnx", "stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")
REFERENCE, MAP, REGION = "reference.png", "reference.npy", "region.png"
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)  # of false alarms, whose thresholds are told
OUTPUTS = ("map", "evidence")
RESIZE = (
  "Pillow's Image.resize to width x height, BILINEAR (antialiased), sides not kept"
)


class Wanted(NamedTuple):
  """What is exported."""

  category: str
  format: str
  threshold: float
  platforms: tuple[str, ...] = PLATFORMS  # of StableHLO


def write(
  run: inference.Run,
  images: Sequence[records.Record],
  out: pathlib.Path,
  wanted: Wanted,
) -> checking.Compared:
  """Exports a run, and says how far the export is from it.

  The folder is there whole, and passed, or not at all.

  Args:
    images: on which it is tried; the first is the reference.

  Raises:
    ValueError: the run cannot be exported so, or the export differs from it.
    FileExistsError: there is something in the folder.
    ModuleNotFoundError: what writes or runs ONNX is not installed.
  """
  config = run.about.config
  if wanted.format == ONNX and config.encoder.dtype != "float32":
    raise ValueError(
      f"config.encoder.dtype is {config.encoder.dtype!r}, which onnxruntime does not "
      "compute on CPUs: use --format=stablehlo, or train with float32."
    )
  scorer = ready.Scorer(run, wanted.category)
  if scorer.looks_by_name:
    raise ValueError(
      f"{run.folder} has a region for each image, by its name, which an export cannot "
      "know. Train with one region for all, to export it."
    )
  chosen = checking.spread([scorer.known(record) for record in images])
  with _new_folder(out) as folder:
    name, content = _graph(run, wanted)
    files.write_bytes(folder / name, content)
    about = _about(run, wanted) | {"graph": name}
    about["region"] = _keep_region(folder, chosen[0])
    answers = _answers(folder, about)
    compared = checking.compare(
      scorer,
      chosen,
      decode=lambda record: _decode(folder, about, record),
      answers=answers,
      threshold=wanted.threshold,
    )
    if not compared.passed:
      raise ValueError(
        f"The export differs from the run by up to {compared.difference:.2g} on "
        f"{compared.images} images, and {compared.flips} of their verdicts flip; "
        f"expected at most {checking.MOST:g} and none. Nothing was written."
      )
    about["checked"] = compared._asdict()
    about["reference"] = _reference(folder, about, chosen[0], answers)
    _seal(folder, about)
  return compared


def check_out(out: pathlib.Path) -> None:
  """Makes sure that the folder is new or empty.

  Raises:
    FileExistsError: it is not.
  """
  if out.exists() and not (out.is_dir() and not any(out.iterdir())):
    raise FileExistsError(f"{out} exists and is not empty; give a new folder as --out.")


@contextlib.contextmanager
def _new_folder(out: pathlib.Path) -> Iterator[pathlib.Path]:
  """A folder that becomes `out` in the end, or vanishes where anything fails."""
  check_out(out)
  out.parent.mkdir(parents=True, exist_ok=True)
  folder = pathlib.Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
  try:
    yield folder
    folder.chmod(0o755)
    folder.replace(out)  # which may be an empty folder
  except BaseException:
    shutil.rmtree(folder, ignore_errors=True)
    raise


def _graph(run: inference.Run, wanted: Wanted) -> tuple[str, bytes]:
  """The graph's file: its name and content."""
  function = graph.detect(run, wanted.category)
  images = (*settings.image_shape(run.about.config), 3)
  if wanted.format == ONNX:
    from nps_jax.exporting import conversion  # noqa: PLC0415 - of the extra "onnx"

    about = f"Anomalies of {wanted.category}; see {runtime.ABOUT}"
    model = conversion.convert(function, images, OUTPUTS, about)
    return "model.onnx", model.SerializeToString()
  (batch,) = export.symbolic_shape("batch")
  shape = jax.ShapeDtypeStruct((batch, *images), jnp.uint8)
  exported = export.export(jax.jit(function), platforms=wanted.platforms)(shape)
  return "model.stablehlo", bytes(exported.serialize())


def _about(run: inference.Run, wanted: Wanted) -> dict[str, Any]:
  """What model.json says, but for the files."""
  config, calibration = run.about.config, run.calibrations[wanted.category]
  height, width = settings.image_shape(config)
  normal = calibration.normal
  return {
    "format": wanted.format,
    "category": wanted.category,
    "input": {
      "name": "images",
      "type": "uint8",
      "shape": ["batch", height, width, 3],
      "colours": "red green blue",
      "height": height,
      "width": width,
      "resize": RESIZE,
      "bits": config.data.bits,
      "fill": list(decoding.FILL),
    },
    "outputs": {
      "map": {"shape": ["batch", height // scoring.STRIDE, width // scoring.STRIDE]},
      "evidence": {"shape": ["batch", len(scores.terms(config.scoring, calibration))]},
    },
    "terms": list(scores.terms(config.scoring, calibration)),
    "threshold": wanted.threshold,
    "thresholds": {
      str(rate): verdict.threshold(normal[scoring.SCORE], rate).value for rate in RATES
    },
    "normal_scores": normal[scoring.SCORE].tolist(),
    "normal_peaks": normal[scoring.MAP].tolist(),
    "weights": run.about.encoder | {"licence": licence(config.encoder)},
    "platforms": list(wanted.platforms) if wanted.format == STABLEHLO else None,
    "versions": provenance.package() | _versions(wanted.format),
    "step": run.step,
    "config_hash": settings.fingerprint(config),
  }


def licence(encoder: Any) -> str:
  """Under which terms the encoder's weights are, as far as that is known here."""
  if encoder.weights == "builtin":
    return "Apache-2.0 (trained on drawn scenes: nps_jax/models/builtin.md)"
  if encoder.weights == "random":
    return "none (random numbers)"
  if encoder.weights == "hub":
    terms = "Apache-2.0" if encoder.name.startswith("dinov2") else "BSD-3-Clause"
    return f"{terms} ({encoders.HUB[encoder.name].repo})"
  return f"that of {pathlib.Path(encoder.weights).name}, which this package cannot know"


def _versions(kind: str) -> dict[str, str]:
  names = ("jax", "onnx", "onnxruntime") if kind == ONNX else ("jax",)
  return {name: importlib.metadata.version(name) for name in names}


def _keep_region(folder: pathlib.Path, record: records.Record) -> str | None:
  """Writes where to look; the file's name, or None where that is everywhere."""
  if record.region is None:
    return None
  inside = decoding.region(record, decoding.original_size(record))
  grey = np.uint8(255) * inside[:, :, None]
  files.write_bytes(folder / REGION, encoded.png(np.repeat(grey, 3, axis=2)))
  return REGION


def _decode(
  folder: pathlib.Path, about: dict[str, Any], record: records.Record
) -> checking.Pixels:
  """The image as whoever runs the export reads it."""
  given = about["input"]
  inside = runtime.region(folder, about)
  with encoded.opened(record.image) as file:
    size = given["height"], given["width"]
    return runtime.decode(file, given["bits"], size, inside)


def _answers(
  folder: pathlib.Path, about: dict[str, Any]
) -> Callable[[Sequence[checking.Pixels]], list[runtime.Answer]]:
  """The export's answers, by what runs it elsewhere."""
  limit, inside = about["threshold"], runtime.region(folder, about)
  path = folder / about["graph"]
  if about["format"] == ONNX:
    session = runtime.session(path)

    def run(images: np.ndarray) -> list[np.ndarray]:
      return session.run(list(OUTPUTS), {"images": images})
  else:
    run = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)

  def answers(images: Sequence[checking.Pixels]) -> list[runtime.Answer]:
    maps, evidence = map(np.asarray, run(np.stack(images)))
    return runtime.told(about, maps, evidence, limit, inside)

  return answers


def _reference(
  folder: pathlib.Path,
  about: dict[str, Any],
  record: records.Record,
  answers: Callable[[Sequence[checking.Pixels]], list[runtime.Answer]],
) -> dict[str, Any]:
  """Writes an image and its map; what is to be expected of it."""
  content = encoded.png(decoding.decode(record._replace(region=None)))
  files.write_bytes(folder / REFERENCE, content)
  pixels = _decode(folder, about, record._replace(image=content))
  (answer,) = answers([pixels])
  buffer = io.BytesIO()
  np.save(buffer, answer.map)
  files.write_bytes(folder / MAP, buffer.getvalue())
  told = {name: getattr(answer, name) for name in ("score", "anomalous", "evidence")}
  return {"image": REFERENCE, "map": MAP} | told


def _seal(folder: pathlib.Path, about: dict[str, Any]) -> None:
  """Writes model.json with the sums of the other files, and its own beside it."""
  sums = {
    path.name: hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.iterdir())
  }
  content = json.dumps(about | {"sha256": sums}, indent=2)
  integrity.write(folder / runtime.ABOUT, f"{content}\n".encode())
