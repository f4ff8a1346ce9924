"""The table of what `compare.py` and `nps_jax.evaluate` have left in a folder.

python tests/peers/table.py OUT
"""

import json
import pathlib
import sys

CATEGORIES = ("tray", "bottle", "bag", "box", "cookies", "magnetic_tile")
NAMES = {
  "patchcore": "PatchCore",
  "padim": "PaDiM",
  "stfpm": "STFPM",
  "reverse_distillation": "Reverse Distillation",
}
HEAD = """\
| data | detector | logical | structural | pooled | region | train | image | encoder |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


def percent(value: float | None) -> str:
  """A share in percent, or a dash."""
  return "-" if value is None else f"{100 * value:.1f}"


def row(out: pathlib.Path, model: str, category: str) -> str:
  """A detector's line for a category; "not measured" where it has not been judged."""
  start = f"| {category} | {NAMES[model]}"
  path = out / model / category / "results.json"
  if not path.exists():
    return f"{start} | not measured | | | | | | |"
  results = json.loads(path.read_text())[0]
  facts = json.loads((out / model / f"{category}.json").read_text())
  auroc = results["image_auroc"]
  region = (results["au_spro"] or {}).get("mean", {}).get("0.05")
  if results["au_pro"]:
    region = results["au_pro"]["0.3"]
  scores = (auroc["logical"], auroc["structural"], auroc["pooled"], region)
  epochs = f", {facts['epochs']} epochs" if facts["epochs"] else ""
  spent = f"{facts['train']['cpu_s']:.0f} s | {facts['cpu_ms']:.0f} ms"
  cells = " | ".join(map(percent, scores))
  return f"{start}{epochs} | {cells} | {spent} | {facts['encoder_cpu_ms']:.0f} ms |"


if __name__ == "__main__":
  print(HEAD)
  for name in CATEGORIES:
    print("\n".join(row(pathlib.Path(sys.argv[1]), model, name) for model in NAMES))
