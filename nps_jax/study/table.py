"""Means and spreads over the seeds of a sweep, as Markdown and CSV."""

from collections.abc import Mapping, Sequence
import csv
import io
import statistics
from typing import NamedTuple

from nps_jax.report import published
from nps_jax.report import table

BESIDE = "Beside what others report"
MEAN = "(mean)"  # stands for the category in the line of their mean
COLUMNS = tuple(
  (title, path)
  for title, path in table.COLUMNS
  if path[0] in ("image_auroc", *table.REGIONS)
)
EXPLANATION = (
  "Values in percent: mean ± standard deviation over seeds (of the sample, n - 1); one "
  "seed has no deviation. The mean over categories is taken seed by seed, of the seeds "
  "that have them all; its deviation is that of these means. A cell of fewer seeds "
  "than asked says how many. Two conventions for one image AUROC: mean is (logical + "
  "structural) / 2; pooled is good against all anomalous images."
)


class Entry(NamedTuple):
  """What one run measured on one category."""

  variant: str
  category: str
  seed: int
  result: Mapping  # as nps_jax.metrics.category.measure has it


def summarise(
  entries: Sequence[Entry],
  variants: Sequence[str],
  categories: Sequence[str],
  seeds: Sequence[int],
) -> list[dict]:
  """A line for each variant's mean over categories, if several, and for each category.

  A line has variant, category, seeds (those that are there, of those asked) and, for
  each metric by dotted name, None if a value does not exist, else mean, sd (None of
  one seed) and values (by seed, as a list), all of them fractions.
  """
  lines = []
  for variant in variants:
    results = {
      (entry.category, entry.seed): entry.result
      for entry in entries
      if entry.variant == variant
    }
    if len(categories) > 1:
      lines.append(_line(results, variant, MEAN, categories, seeds))
    lines += [_line(results, variant, name, [name], seeds) for name in categories]
  return lines


def _line(
  results: Mapping[tuple[str, int], Mapping],
  variant: str,
  title: str,
  categories: Sequence[str],
  seeds: Sequence[int],
) -> dict:
  """The line of one category, or of the mean over several.

  Args:
    results: by category and seed.
    title: stands in the line for the category.
  """
  measured = [
    seed for seed in seeds if all((name, seed) in results for name in categories)
  ]
  metrics = {}
  for _, path in COLUMNS:
    values = [
      _mean([table.look_up(results[name, seed], path) for name in categories])
      for seed in measured
    ]
    mean = _mean(values)
    metrics[".".join(path)] = (
      mean
      if mean is None
      else {
        "mean": mean,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "values": values,
      }
    )
  return {
    "variant": variant,
    "category": title,
    "seeds": measured,
    "seeds_asked": list(seeds),
    "metrics": metrics,
  }


def _mean(values: Sequence[float | None]) -> float | None:
  """The mean; None if there is no value, or any of them does not exist."""
  return None if not values or None in values else statistics.fmean(values)


def to_markdown(lines: Sequence[Mapping], notes: Sequence[str]) -> str:
  """A table of the variants for the mean over categories, and for each category.

  A region's column is shown if any line has it.
  """
  titles, parts = shown(lines), []
  for category in dict.fromkeys(line["category"] for line in lines):
    rows = [
      [line["variant"], *(cell(line, name) for name, _ in titles)]
      for line in lines
      if line["category"] == category
    ]
    parts.append(f"## {'Mean over categories' if category == MEAN else category}")
    parts.append(table.render(["variant", *(title for _, title in titles)], rows))
  if beside := beside_published(lines):
    parts += [f"## {BESIDE}", table.render(*beside)]
  return "\n\n".join([*parts, EXPLANATION, *notes]) + "\n"


def beside_published(
  lines: Sequence[Mapping],
) -> tuple[list[str], list[list[str]]] | None:
  """Header and rows: others' results on MVTec LOCO AD, and each variant's mean.

  None where the categories are not LOCO's, all five.
  """
  if {line["category"] for line in lines} - {MEAN} != set(table.LOCO):
    return None
  titles = {".".join(path): title for title, path in COLUMNS if path[0] != "au_pro"}
  rows = table.published_rows()
  for line in lines:
    if line["category"] == MEAN:
      cells = [cell(line, name) for name in titles]
      rows.append([line["variant"], *cells, "", "last step", "this sweep"])
  return ["method", *titles.values(), *published.WORDS], rows


def shown(lines: Sequence[Mapping]) -> list[tuple[str, str]]:
  """The dotted names and the titles of the metrics that some line has."""
  return [
    (".".join(path), title)
    for title, path in COLUMNS
    if path[0] not in table.REGIONS
    or any(line["metrics"][".".join(path)] for line in lines)
  ]


def to_csv(lines: Sequence[Mapping]) -> str:
  """The lines at full precision: of each metric its mean and sd; empty where none."""
  names = [".".join(path) for _, path in COLUMNS]
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  titles = [f"{name}.{part}" for name in names for part in ("mean", "sd")]
  writer.writerow(["variant", "category", "seeds", "seeds_asked", *titles])
  for line in lines:
    figures = [line["metrics"][name] or {"mean": None, "sd": None} for name in names]
    values = [figure[part] for figure in figures for part in ("mean", "sd")]
    counts = [len(line["seeds"]), len(line["seeds_asked"])]
    writer.writerow([line["variant"], line["category"], *counts, *values])
  return text.getvalue()


def cell(line: Mapping, name: str) -> str:
  """A metric of a line in percent, with its deviation and its seeds if some lack."""
  figure = line["metrics"][name]
  text = "-" if figure is None else f"{100 * figure['mean']:.1f}"
  if figure and figure["sd"] is not None:
    text += f" ± {100 * figure['sd']:.1f}"
  if len(line["seeds"]) < len(line["seeds_asked"]):
    text += f" ({len(line['seeds'])} of {len(line['seeds_asked'])})"
  return text
