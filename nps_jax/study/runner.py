"""Runs what a sweep lacks, each in a process of its own, and writes its tables."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys

from absl import logging
from PIL import Image

from nps_jax import config as settings
from nps_jax import inference
from nps_jax.drawn import synthetic
from nps_jax.runs import description
from nps_jax.runs import files
from nps_jax.runs import interruption
from nps_jax.runs import provenance
from nps_jax.study import page
from nps_jax.study import plan
from nps_jax.study import table

LOG, STARTED = "train.log", "started.json"  # in a run: its output; how it was started
COMPILED = ".compiled"  # folder beside the runs: JAX's cache
TABLE = "sweep.json"  # beside it .csv and .md
TAIL = 15  # lines of a failed run's log that are shown
PLACES = ("data.root", "encoder.weights")  # fields that are the same if their paths are
FOUND = {
  "data.bits": 0,
  "image_size": settings.AUTO,
}  # values that leave it to the data

Results = Mapping[str, Mapping]  # by category


def stored_results(run: plan.Run) -> Results | None:
  """The run's results; None if it has not ended.

  Raises:
    ValueError: the folder holds something else, such as a run with other settings.
  """
  path = run.folder / files.RESULTS
  if not (run.folder / description.CONFIG).exists():
    if path.exists():
      raise ValueError(
        f"{path} has no {description.CONFIG} beside it, so its settings are unknown. "
        "Move it away, or use another --out."
      )
    return None
  try:
    config = description.read(run.folder).config
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    results = {row["category"]: row for row in rows or ()}
  except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
    raise ValueError(f"{run.folder} cannot be read: {error!r}") from error
  differing = _differences(settings.leaves(config), settings.leaves(run.config))
  if differing:
    raise ValueError(
      "\n  ".join([f"{run.folder} holds a run with other settings:", *differing])
      + "\nUse another --out, or give the settings of that run."
    )
  if rows is None:
    return None
  missing = [name for name in run.categories if name not in results]
  if missing:
    raise ValueError(
      f"{path} has no results of {', '.join(missing)}; a category needs test images."
    )
  return {name: results[name] for name in run.categories}


def _differences(stored: Mapping, wanted: Mapping) -> list[str]:
  """A line for each field that makes it another run."""
  deciding = {}
  for field, value in wanted.items():
    if field in PLACES:
      paths = [pathlib.Path(text).expanduser() for text in (stored[field], value)]
      if paths[0].resolve() == paths[1].resolve():
        continue
    elif field in description.FREE or FOUND.get(field) == value:
      continue
    deciding[f"config.{field}"] = value
  named = {f"config.{field}": value for field, value in stored.items()}
  return description.compare(named, deciding)


def command(run: plan.Run, done: Sequence[plan.Run]) -> list[str]:
  """What trains or measures it; not again what one that is done has trained."""
  words = [sys.executable, "-m", *run.command, f"--workdir={run.folder}"]
  for earlier in done:
    calibrated = (earlier.folder / inference.CALIBRATION).exists()
    if calibrated and plan.trained_alike(earlier, run):
      return [*words, f"--trained={earlier.folder}"]
  return words


def train(sweep: plan.Sweep, run: plan.Run, done: Sequence[plan.Run]) -> Results:
  """Trains it, or goes on with it, in a process of its own.

  Args:
    done: runs whose results are there.

  Raises:
    ValueError: it failed; with the end of its log.
    KeyboardInterrupt: it was interrupted, and has saved its state.
  """
  if sweep.drawn:
    draw(run, max(settings.image_shape(sweep.config)))
  words, log = command(run, done), run.folder / LOG
  _write_json(run.folder / STARTED, {"command": words, "package": provenance.package()})
  status = execute(words, log, sweep.out / COMPILED)
  if status == interruption.EXIT:
    raise KeyboardInterrupt
  if status:
    cause = f"exit status {status}" if status > 0 else signal.Signals(-status).name
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
    raise ValueError("\n    ".join([f"ended with {cause}; {log} ends:", *lines]))
  results = stored_results(run)
  if results is None:
    raise ValueError(f"ended without {run.folder / files.RESULTS}; see {log}.")
  return results


def draw(run: plan.Run, size: int) -> None:
  """Draws those of the run's categories that no run before it has needed.

  Args:
    size: pixels; the sweep's own image_size, whatever the variant's.

  Raises:
    ValueError: those that are there are of another size.
  """
  root = pathlib.Path(run.config.data.root)
  for name in run.categories:
    if not (root / name).exists():
      logging.info("Drawing %s into %s.", name, root)
      synthetic.write(root, [name], seed=run.seed, size=size)
    with Image.open(root / name / "train" / "good" / "000.png") as image:
      if image.size != (size, size):
        raise ValueError(
          f"{root / name} was drawn at {image.size[0]} pixels, and config.image_size "
          f"is {size}. Use another --out."
        )


def execute(words: Sequence[str], log: pathlib.Path, compiled: pathlib.Path) -> int:
  """Runs the command, its output added to the log; returns its exit status.

  What it compiles it keeps in a folder, unless the environment names another one:
  most runs of a sweep compile the same.

  An interruption is passed on to it, and its end awaited; a second one kills it. It has
  a process group of its own, so that the Ctrl-C of a terminal reaches it only once.
  """
  unbuffered = {"PYTHONUNBUFFERED": "1"}  # else an error precedes its cause
  with log.open("ab") as file:
    child = subprocess.Popen(
      words,
      env={"JAX_COMPILATION_CACHE_DIR": str(compiled)} | os.environ | unbuffered,
      stdin=subprocess.DEVNULL,
      stdout=file,
      stderr=subprocess.STDOUT,
      process_group=0,
    )
    try:
      return child.wait()
    except KeyboardInterrupt:
      try:
        logging.info("Interrupted; waiting for a checkpoint. Once more kills the run.")
        # Not SIGINT: where SLURM has sent SIGTERM to all, that would end it at once.
        child.send_signal(signal.SIGTERM)
        child.wait()
      except KeyboardInterrupt:
        child.kill()
        child.wait()
      raise


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
  """SIGTERM, and SIGHUP unless it is ignored, interrupt as Ctrl-C does."""

  def interrupt(*_):
    raise KeyboardInterrupt

  numbers = [signal.SIGINT, signal.SIGTERM]
  if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
    numbers.append(signal.SIGHUP)
  handlers = {number: signal.signal(number, interrupt) for number in numbers}
  try:
    yield
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)


def run_all(sweep: plan.Sweep) -> dict[str, str]:
  """Does what is missing; returns why each run that failed did, by its name.

  Of the job "tables" nothing is done, and of a part no table is written.

  Raises:
    KeyboardInterrupt: it was stopped.
  """
  owners = {sweep.owner[name] for name in sweep.asked}
  results, failures, waiting = {}, {}, []
  for run in sweep.runs:
    try:
      stored = stored_results(run)
    except (ValueError, OSError) as error:
      if run.variant in owners:
        failures[run.name] = str(error)
      continue
    if stored is not None:
      results[run.name] = stored
    elif run.variant in owners:
      waiting.append(run)
  logging.info("%d runs are done, %d to do.", len(results), len(waiting))
  publish(sweep, results, failures)
  if sweep.job == "tables":
    return failures
  for number, run in enumerate(waiting, 1):
    logging.info("Run %d of %d: %s", number, len(waiting), run.folder)
    try:
      done = [earlier for earlier in sweep.runs if earlier.name in results]
      results[run.name] = train(sweep, run, done)
    except (ValueError, OSError) as error:
      failures[run.name] = str(error)
      logging.warning("%s failed; going on with the others.", run.name)
    publish(sweep, results, failures)
  return failures


def publish(
  sweep: plan.Sweep, results: Mapping[str, Results], failures: Mapping[str, str]
) -> None:
  """Writes the tables of what is there; of each run also how it was started.

  Not of a part: the others write there, too.
  """
  if sweep.job == "part":
    return
  entries = [
    table.Entry(name, category, run.seed, result)
    for name in sweep.variants
    for run in sweep.runs
    if run.variant == sweep.owner[name]
    for category, result in results.get(run.name, {}).items()
  ]
  measured = {entry.variant for entry in entries}
  shown = [name for name in sweep.variants if name in measured.union(sweep.asked)]
  lines = table.summarise(entries, shown, sweep.categories, sweep.seeds)
  runs = [
    {
      "name": run.name,
      "seed": run.seed,
      "failure": failures.get(run.name),
      "started": _started(run),
      "results": results.get(run.name),
    }
    for run in sweep.runs
    if run.name in results or run.name in failures
  ]
  content = {
    "command": list(sweep.command),
    "package": provenance.package(),
    "config": sweep.config.to_dict(),
    "categories": list(sweep.categories),
    "seeds": list(sweep.seeds),
    "variants": {name: dict(sweep.variants[name]) for name in shown},
    "runs_of": {name: sweep.owner[name] for name in shown},
    "summary": lines,
    "runs": runs,
  }
  path = sweep.out / TABLE
  _write_json(path, content)
  files.write_text(path.with_suffix(".csv"), table.to_csv(lines))
  notes = _notes(content)
  files.write_text(path.with_suffix(".md"), table.to_markdown(lines, notes))
  text = page.of_sweep(content, notes, sweep.out)
  files.write_text(path.with_suffix(".html"), text)


def _notes(content: Mapping) -> list[str]:
  """What a reader of the table must know besides: shared runs, failures, versions."""
  notes = [
    f"{name} has the same settings as {owner}, and shares its runs."
    for name, owner in content["runs_of"].items()
    if owner != name
  ]
  notes += [f"Failed: {run['name']}." for run in content["runs"] if run["failure"]]
  packages = {
    json.dumps(run["started"] and run["started"]["package"])
    for run in content["runs"]
    if run["results"]
  }
  if len(packages) > 1:
    states = ", ".join(sorted(packages)).replace("null", "unknown")
    notes.append(f"These runs were made by different states of the package: {states}.")
  return notes


def _started(run: plan.Run) -> dict | None:
  """How the run was started, as far as it says so."""
  path = run.folder / STARTED
  return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _write_json(path: pathlib.Path, content: Mapping) -> None:
  files.write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
