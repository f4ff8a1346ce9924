"""What a prediction takes from its command to its files, in processes of their own."""

import json
import pathlib
import sys

from nps_jax import calibrating
from nps_jax import compiling
from nps_jax import config as settings
from nps_jax import inference
from nps_jax import scoring
from nps_jax import stored
from nps_jax.benchmarking import opening
from nps_jax.benchmarking import parts
from nps_jax.benchmarking import subjects
from nps_jax.benchmarking import timing
from nps_jax.runs import arrays
from nps_jax.runs import description

IMAGES = 7
DRAWN = (16, 6)  # images to train on and held out, of which a stored run's scales are
EDITS = 8  # for these
STATES = ("cold", "warm")  # whether what was compiled is still to be kept, or has been


def startup(run: inference.Run, folder: pathlib.Path) -> parts.Result:
  """Seconds of `predict` with IMAGES images, and of its steps with one, cold and warm.

  Args:
    run: that is stored.
    folder: for images, predictions, and what is compiled.
  """
  images = folder / "images"
  images.mkdir()
  size, category = settings.image_shape(run.about.config), run.about.categories[0]
  for at, record in enumerate(parts.pictures(IMAGES, size)):
    (images / f"{at}.png").write_bytes(record.image)
  seconds, peak, steps = {}, 0.0, folder / "steps.json"
  for state in STATES:
    predict = ("-m", "nps_jax.predict", f"--run={run.folder}", f"--images={images}")
    predict += (f"--out={folder / state}", f"--category={category}")
    spent = timing.command([sys.executable, *predict], _kept(folder / "predicting"))
    peak = max(peak, spent.peak_mib)
    words = (str(run.folder), str(images / "0.png"), category, str(steps))
    first = [sys.executable, "-m", opening.__name__, *words]
    timing.command(first, _kept(folder / "opening"))
    whole = {"command": spent.seconds, "command_cpu": spent.cpu_seconds}
    seconds[state] = parts.rounded(whole | json.loads(steps.read_text()))
  figures = parts.result("startup", run, {"images": IMAGES, "seconds": seconds})
  return figures | {"peak_mib": {"host": round(peak, 1), "device": None}}


def _kept(place: pathlib.Path) -> dict[str, str]:
  """The variables with which JAX keeps what it compiles there, as commands do."""
  return {
    "JAX_COMPILATION_CACHE_DIR": str(place),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(compiling.LEAST),
  }


def store(
  run: inference.Run, priors: scoring.Priors, folder: pathlib.Path
) -> inference.Run:
  """The run as a training leaves it, in its folder, with these priors.

  Its scales are of some drawn images, and say nothing.

  Args:
    folder: for these images.
  """
  data = subjects.draw(run, folder, *DRAWN)
  calibrated = calibrating.calibrate(subjects.with_edits(run, EDITS), [data])
  scales = calibrated.calibrations[data.category]
  scales = {data.category: scales._replace(priors=priors)}
  stored.save(run.folder / inference.CALIBRATION, scales)
  description.write(run.folder, run.about)
  arrays.write(run.folder / arrays.FROZEN, run.frozen)
  stored.save_modules(run.folder / arrays.MODULES, run.variables)
  return inference.open_run(run.folder)
