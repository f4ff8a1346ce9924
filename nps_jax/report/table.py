"""Results of several categories as Markdown, CSV and JSON, beside published ones."""

from collections.abc import Mapping, Sequence
import csv
import io
import json
import pathlib

from nps_jax.report import published
from nps_jax.runs import files

REGIONS = {  # title and the limit that the field quotes
  "au_spro": ("AU-sPRO@0.05", "0.05"),
  "au_pro": ("AU-PRO@0.3", "0.3"),
}
COLUMNS = (  # title, path in a category's results
  ("AUROC logical", ("image_auroc", "logical")),
  ("structural", ("image_auroc", "structural")),
  ("mean", ("image_auroc", "mean")),
  ("pooled", ("image_auroc", "pooled")),
  (REGIONS["au_spro"][0], ("au_spro", "mean", REGIONS["au_spro"][1])),
  (REGIONS["au_pro"][0], ("au_pro", REGIONS["au_pro"][1])),
  ("pixel AUROC", ("pixel_auroc",)),
  ("pixel AP", ("pixel_ap",)),
)
APART = ("n_by_kind", "region_by_kind", "region_curves")  # of a result: not in its line
LOCO = (  # the categories of the published results
  "breakfast_box",
  "juice_bottle",
  "pushpins",
  "screw_bag",
  "splicing_connectors",
)
CONVENTIONS = (
  "All values in percent; n is the number of test images. There are two conventions "
  "for one image AUROC: mean is (logical + structural) / 2, as EfficientAD, PSAD, "
  "SALAD and GCAD report it; pooled is good against all anomalous images, as PUAD does."
)


def to_markdown(results: Sequence[Mapping]) -> str:
  """Tables in percent: by category, by kind, and, of LOCO, beside published results."""
  parts = [by_category(results)]
  if any(result["n_by_kind"] for result in results):
    parts.append(by_kind(results))
  if any(result["category"] in LOCO for result in results):
    parts.append(beside_published(results))
  return "\n\n".join([*parts, CONVENTIONS]) + "\n"


Grid = tuple[list[str], list[list[str]]]  # a table's header and its rows


def by_category(results: Sequence[Mapping]) -> str:
  """A row per category, and a mean row if there are several; see grid_by_category."""
  return render(*grid_by_category(results))


def grid_by_category(results: Sequence[Mapping]) -> Grid:
  """The header and rows of `by_category`.

  Values that do not exist are dashes, and so is a mean that lacks any of its parts.
  The region column is AU-sPRO@0.05, AU-PRO@0.3, or both, as the data sets have them.
  Bootstrap intervals, where there are any, follow their image AUROC.
  """
  titles = [title for title, path in COLUMNS if is_shown(path, results)]
  paths = dict(COLUMNS)
  rows = [
    [
      result["category"],
      *(_cell(result, paths[title]) for title in titles),
      str(result["n_test"]),
    ]
    for result in results
  ]
  if len(results) > 1:
    total = sum(result["n_test"] for result in results)
    rows.append(["mean", *_means(results, titles), str(total)])
  return ["category", *titles, "n"], rows


def by_kind(results: Sequence[Mapping]) -> str:
  """A row per kind of anomaly: good images against those that show it; its channels."""
  return render(*grid_by_kind(results), texts=2)


def grid_by_kind(results: Sequence[Mapping]) -> Grid:
  """The header and rows of `by_kind`."""
  regions = [part for part in REGIONS if any(result[part] for result in results)]
  rows = []
  for result in results:
    for kind, count in result["n_by_kind"].items():
      cells = [_cell(result, ("image_auroc", "by_kind", kind))]
      for part in regions:
        path = ("region_by_kind", kind, REGIONS[part][1])
        cells.append(_cell(result, path) if result[part] else "-")
      rows.append([result["category"], kind, *cells, str(count)])
  titles = [REGIONS[part][0] for part in regions]
  return ["category", "kind", "AUROC", *titles, "n"], rows


def beside_published(results: Sequence[Mapping], name: str = "this run") -> str:
  """The published MVTec LOCO AD results, and below them the mean of ours."""
  titles = [title for title, path in COLUMNS if path[0] in ("image_auroc", "au_spro")]
  rows = published_rows()
  categories = ", ".join(result["category"] for result in results)
  rows.append([f"**{name}**", *_means(results, titles), "", "", categories])
  return render(["method", *titles, *published.WORDS], rows)


def published_rows() -> list[list[str]]:
  """A row for each published result: its method, values in percent, and words."""
  return [
    [figure.method, *(_format(value) for value in figure.values), *figure.words]
    for figure in published.read()
  ]


def to_csv(results: Sequence[Mapping]) -> str:
  """A line per category and per kind, every value at full precision, as fractions.

  Columns are paths such as au_spro.mean.0.05; a value that does not exist is empty,
  and one that no line has gets no column. A category's own line has no kind; a kind's
  has image_auroc.kind, its interval, and region.<limit>.
  """
  rows = []
  for result in results:
    whole = {name: part for name, part in result.items() if name not in APART}
    rows.append({"category": result["category"], "kind": ""} | _flatten(whole))
    for kind, count in result["n_by_kind"].items():
      named = {"category": result["category"], "kind": kind, "n_test": count}
      values = {
        "image_auroc": {"kind": look_up(result, ("image_auroc", "by_kind", kind))},
        "image_auroc_95": {
          "kind": look_up(result, ("image_auroc_95", "by_kind", kind))
        },
        "region": result["region_by_kind"][kind],
      }
      rows.append(named | _flatten(values))
  text = io.StringIO()
  columns = list(dict.fromkeys(key for row in rows for key in row))
  writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
  writer.writeheader()
  writer.writerows(rows)
  return text.getvalue()


def publish(results: Sequence[Mapping], path: pathlib.Path) -> None:
  """Writes the results and, beside them, CSV and Markdown; prints the latter."""
  write(results, path)
  show(path)


def show(path: pathlib.Path) -> None:
  """Prints the results that `publish` wrote."""
  print(path.with_suffix(".md").read_text(encoding="utf-8"))
  print(f"Written: {path}, and beside it .csv and .md")


def write(results: Sequence[Mapping], path: pathlib.Path) -> None:
  """Writes the .json at `path` and, before it, .csv and .md beside it.

  Each is whole or absent, and where there is a .json, all three are there and agree.

  Raises:
    ValueError: a result is NaN or infinite; nothing is written then.
  """
  content = json.dumps(list(results), indent=2, allow_nan=False) + "\n"
  beside = {".csv": to_csv(results), ".md": to_markdown(results)}
  path.unlink(missing_ok=True)
  for suffix, text in beside.items():
    files.write_text(path.with_suffix(suffix), text)
  files.write_text(path, content)


def paths(path: pathlib.Path) -> list[pathlib.Path]:
  """Where `write` puts the results of `path`, which come first, and what is beside."""
  return [path.with_suffix(suffix) for suffix in (".json", ".csv", ".md")]


def check_absent(path: pathlib.Path, *others: pathlib.Path) -> None:
  """Makes sure that `write` would replace nothing, and that others are absent too.

  Raises:
    ValueError: some of its files exist; names them.
  """
  targets = [*paths(path), *others]
  if existing := [str(target) for target in targets if target.exists()]:
    raise ValueError(
      f"{', '.join(existing)} would be replaced. Give another --out, or --overwrite."
    )


def is_shown(path: Sequence[str], results: Sequence[Mapping]) -> bool:
  """Whether a column is worth showing; a region's only if some value exists."""
  if path[0] not in REGIONS:
    return True
  return any(look_up(result, path) is not None for result in results)


def look_up(result: Mapping, path: Sequence[str]) -> float | list[float] | None:
  """The value at the path, or None where the path ends early."""
  value = result
  for key in path:
    value = None if value is None else value.get(key)
  return value


def _cell(result: Mapping, path: Sequence[str]) -> str:
  """A value in percent, with its interval where it has one."""
  value = look_up(result, path)
  text = _format(None if value is None else 100 * value)
  interval = path[0] == "image_auroc" and look_up(result, ("image_auroc_95", *path[1:]))
  if not interval:
    return text
  return f"{text} ({'-'.join(_format(100 * bound) for bound in interval)})"


def _means(results: Sequence[Mapping], titles: Sequence[str]) -> list[str]:
  """The mean over the results of each titled column, in percent."""
  paths, cells = dict(COLUMNS), []
  for title in titles:
    values = [look_up(result, paths[title]) for result in results]
    complete = values and None not in values
    cells.append(_format(100 * sum(values) / len(values) if complete else None))
  return cells


def _format(percent: float | None) -> str:
  return "-" if percent is None else f"{percent:.1f}"


def render(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
  """A Markdown table with `texts` columns of text to the left, then numbers, words."""
  sides = [
    "---" if at < texts or title in published.WORDS else "---:"
    for at, title in enumerate(header)
  ]
  return "\n".join(f"| {' | '.join(row)} |" for row in [header, sides, *rows])


def _flatten(values: Mapping, prefix: str = "") -> dict[str, object]:
  """The leaves by dotted path, without None and by_kind; an interval's ends apart."""
  flat = {}
  for key, value in values.items():
    if key == "by_kind" or value is None:
      continue
    if isinstance(value, Mapping):
      flat |= _flatten(value, f"{prefix}{key}.")
    elif isinstance(value, list):
      flat |= {f"{prefix}{key}.low": value[0], f"{prefix}{key}.high": value[1]}
    else:
      flat[prefix + key] = value
  return flat
