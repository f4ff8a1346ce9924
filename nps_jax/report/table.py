"""Results of several categories as Markdown, CSV and JSON, beside published ones."""

from collections.abc import Mapping, Sequence
import csv
import io
import json
import pathlib
from typing import NamedTuple

from nps_jax import files

COLUMNS = (  # title, path in a category's results
  ("AUROC logical", ("image_auroc", "logical")),
  ("structural", ("image_auroc", "structural")),
  ("mean", ("image_auroc", "mean")),
  ("pooled", ("image_auroc", "pooled")),
  ("AU-sPRO@0.05", ("au_spro", "mean", "0.05")),
  ("AU-PRO@0.3", ("au_pro", "0.3")),
  ("pixel AUROC", ("pixel_auroc",)),
)
CONVENTIONS = (
  "All values in percent. There are two conventions for one image AUROC: mean is "
  "(logical + structural) / 2, as EfficientAD, PSAD, SALAD and GCAD report it; pooled "
  "is good against all anomalous images, as PUAD reports it."
)


class Published(NamedTuple):
  """What a paper reports on MVTec LOCO AD, in percent, mean of five categories."""

  method: str
  source: str = ""
  logical: float | None = None
  structural: float | None = None
  mean: float | None = None  # of logical and structural image AUROC
  pooled: float | None = None  # image AUROC of good against all anomalous
  au_spro: float | None = None  # limit 0.05, mean of logical and structural


PUBLISHED = (
  Published("SALAD", "ICCV 2025; foundation model's component maps", 96.5, 95.7, 96.1),
  Published("CSAD", "BMVC 2024", mean=95.3),
  Published("PSAD", "AAAI 2024; few segmentation labels", 98.1, 91.6, 94.9),
  Published("PUAD-M", "ICIP 2024", pooled=94.4),
  Published("EfficientAD-M", "WACV 2024", 86.8, 94.7, 90.7),
  Published("SLSG", "", 89.6, 91.4, 90.3),
  Published("ComAD + PatchCore", "", 89.4, 90.9, 90.1),
  Published("SINBAD", "", 88.9, 84.7, 86.8),
  Published("DSKD", "", 81.2, 86.9, 84.0, au_spro=73.0),
  Published("GCAD", "", 86.0, 80.6, 83.3, au_spro=70.1),
  Published("PatchCore", "", 75.8, 84.8, 80.3),
  Published("RD4AD", "", 70.7, 85.1, 77.9),
  Published("S-T", "", au_spro=62.6),
)


def to_markdown(results: Sequence[Mapping]) -> str:
  """A table in percent, a row per category, and a mean row if there are several.

  Values that do not exist are dashes, and so is a mean that lacks any of its parts.
  The region column is AU-sPRO@0.05, AU-PRO@0.3, or both, as the data sets have them.
  """
  titles = [title for title, path in COLUMNS if _is_shown(path, results)]
  rows = [
    [result["category"], *_cells([result], titles), str(result["n_test"])]
    for result in results
  ]
  if len(results) > 1:
    total = sum(result["n_test"] for result in results)
    rows.append(["mean", *_cells(results, titles), str(total)])
  table = _render(["category", *titles, "n"], rows)
  return f"{table}\n\n{CONVENTIONS} n is the number of test images.\n"


def beside_published(results: Sequence[Mapping], name: str = "this run") -> str:
  """The published MVTec LOCO AD results, and below them the mean of ours."""
  paths = dict(COLUMNS)
  titles = [title for title in paths if title not in ("AU-PRO@0.3", "pixel AUROC")]
  rows = [
    [each.method, *(_format(value) for value in each[2:]), each.source]
    for each in PUBLISHED
  ]
  categories = ", ".join(result["category"] for result in results)
  rows.append([f"**{name}**", *_cells(results, titles), categories])
  table = _render(["method", *titles, "source"], rows)
  return f"{table}\n\n{CONVENTIONS}\n"


def to_csv(results: Sequence[Mapping]) -> str:
  """A line per category with every value at full precision, as fractions.

  Columns are paths such as au_spro.mean.0.05; a value that does not exist is empty,
  and one that no category has gets no column. "by_kind" is in the JSON only.
  """
  rows = [_flatten(result) for result in results]
  text = io.StringIO()
  columns = list(dict.fromkeys(key for row in rows for key in row))
  writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
  writer.writeheader()
  writer.writerows(rows)
  return text.getvalue()


def write(results: Sequence[Mapping], folder: pathlib.Path) -> None:
  """Writes results.json, results.csv and results.md; each is whole or absent.

  Raises:
    ValueError: a result is NaN or infinite; nothing is written then.
  """
  content = json.dumps(list(results), indent=2, allow_nan=False) + "\n"
  files.write_text(folder / "results.json", content)
  files.write_text(folder / "results.csv", to_csv(results))
  files.write_text(folder / "results.md", to_markdown(results))


def _is_shown(path: Sequence[str], results: Sequence[Mapping]) -> bool:
  """Whether a column is worth showing; AU-sPRO and AU-PRO only if some value exists."""
  if path[0] not in ("au_spro", "au_pro"):
    return True
  return any(_look_up(result, path) is not None for result in results)


def _look_up(result: Mapping, path: Sequence[str]) -> float | None:
  """The value at the path, or None where the path ends early."""
  value = result
  for key in path:
    value = None if value is None else value.get(key)
  return value


def _cells(results: Sequence[Mapping], titles: Sequence[str]) -> list[str]:
  """The mean over the results of each titled column, in percent."""
  paths, cells = dict(COLUMNS), []
  for title in titles:
    values = [_look_up(result, paths[title]) for result in results]
    complete = values and None not in values
    cells.append(_format(100 * sum(values) / len(values) if complete else None))
  return cells


def _format(percent: float | None) -> str:
  return "-" if percent is None else f"{percent:.1f}"


def _render(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """A Markdown table with text to the left and numbers to the right."""
  sides = ["---", *["---:"] * (len(header) - 2)]
  sides.append("---" if header[-1] == "source" else "---:")
  return "\n".join(f"| {' | '.join(row)} |" for row in [header, sides, *rows])


def _flatten(values: Mapping, prefix: str = "") -> dict[str, object]:
  """The leaves by dotted path, without None and by_kind."""
  flat = {}
  for key, value in values.items():
    if isinstance(value, Mapping) and key != "by_kind":
      flat |= _flatten(value, f"{prefix}{key}.")
    elif key != "by_kind" and value is not None:
      flat[prefix + key] = value
  return flat
