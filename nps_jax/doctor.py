"""What a training of a config would find, and what stands in its way.

python -m nps_jax.doctor --config=folder --config.data.root=DATA

Exit status: 1 if the training would fail, else 0. --json: the same for programs.
--noestimate leaves out what is expected of seconds and memory, which is measured.
"""

from collections.abc import Sequence
import json
import pathlib
from typing import Any

from absl import app
from absl import flags
import jax
import ml_collections

from nps_jax import allowed
from nps_jax import compiling
from nps_jax import console
from nps_jax import estimating
from nps_jax.data import inspection
from nps_jax.data import listing
from nps_jax.data import sources
from nps_jax.models import weights


def examine(
  config: ml_collections.ConfigDict, estimated: bool = False
) -> dict[str, Any]:
  """What was found, ready for JSON; `problems` end a training, `remarks` do not.

  Args:
    estimated: whether to measure what the training is expected to take.
  """
  found: dict[str, Any] = {"problems": [], "remarks": [], "categories": []}
  try:
    allowed.validate(config)
  except ValueError as error:
    found["problems"] += str(error).splitlines()
  try:
    loaded = weights.load(
      config.encoder.weights, config.encoder.name, config.encoder.deepest
    )
    found["encoder"] = loaded.identity
  except (ValueError, OSError) as error:
    found["problems"].append(str(error))
  found["devices"] = [f"{each.platform}: {each.device_kind}" for each in jax.devices()]
  if config.data.synthetic and not config.data.root:
    found["remarks"].append("The data will be drawn: there is nothing to look at.")
    return _with_estimate(found, config) if estimated else found
  try:
    datasets = sources.open_all(config.data, config.seed)
  except (ValueError, OSError) as error:
    found["problems"].append(str(error))
    return found
  found["categories"] = [inspection.look(data) for data in datasets]
  if config.data.source == "folder":
    root = pathlib.Path(config.data.root).expanduser()
    for data, seen in zip(datasets, found["categories"], strict=True):
      seen["ignored"] = inspection.ignored(root, data)
  odd = inspection.examine(datasets)
  found["problems"] += inspection.problems(datasets, odd)
  found["remarks"] += inspection.remarks(datasets, found["categories"], odd)
  return _with_estimate(found, config) if estimated else found


def _with_estimate(
  found: dict[str, Any], config: ml_collections.ConfigDict
) -> dict[str, Any]:
  """The same with what a training is expected to take, where there could be one."""
  if not found["problems"]:
    found["expected"] = estimating.estimate(config)
    found["remarks"] += found["expected"]["warnings"]
  return found


def to_text(found: dict[str, Any]) -> str:
  """The same in words: problems first."""
  lines = [
    f"{title}\n" + "\n".join(f"- {text}" for text in found[part])
    for part, title in (
      ("problems", f"Problems, with which a training fails: {len(found['problems'])}"),
      ("remarks", f"Remarks: {len(found['remarks'])}"),
    )
    if found[part]
  ]
  if not found["problems"]:
    lines.insert(0, "Nothing stands in the way of a training.")
  for seen in found["categories"]:
    counts = ", ".join(f"{name} {count}" for name, count in seen["images"].items())
    lines.append(
      f"{seen['category']} ({seen['layout']}): {counts}; {seen['masks']} masks.\n"
      f"  sizes: {_counted(seen['sizes'])}; files: {_counted(seen['pixels'])}"
    )
    for place, what in seen.get("ignored", {}).items():
      lines.append(f"  not read in {place}: {what}")
  if "encoder" in found:
    about = ", ".join(f"{name} {value}" for name, value in found["encoder"].items())
    lines.append(f"Encoder: {about}")
  lines.append(f"Devices: {listing.some(found['devices'])}")
  if "expected" in found:
    lines.append(estimating.to_text(found["expected"] | {"warnings": []}))
  return "\n".join(lines)


def _counted(counts: dict[str, int]) -> str:
  return listing.some([f"{name} ({count})" for name, count in counts.items()])


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f"Unexpected arguments: {argv[1:]}. Settings need --config.")
  console.listen()
  compiling.prepare()
  try:
    found = examine(console.chosen("config"), flags.FLAGS.estimate)
  except (ValueError, OSError) as error:
    raise SystemExit(f"Error: {error}") from error
  print(json.dumps(found, indent=2) if flags.FLAGS.json else to_text(found))
  raise SystemExit(1 if found["problems"] else 0)


if __name__ == "__main__":
  console.define_config()
  flags.DEFINE_bool("json", False, "Print one JSON object instead of words.")
  flags.DEFINE_bool(
    "estimate", True, "Measure, in seconds to minutes, what a training would take."
  )
  console.run(main)
