"""sweep.html: the table of a sweep, each variant beside the first one, and bars."""

from collections.abc import Mapping, Sequence
import pathlib
import statistics
from typing import Any

from nps_jax.report import page
from nps_jax.report import plots
from nps_jax.study import table

LENGTH, STEP, GAP = 300, 18, 10  # of a bar of 100 %; from bar to bar; between products
BARS = ("image_auroc.pooled", "au_spro.mean.0.05", "au_pro.0.3")


def of_sweep(
  content: Mapping[str, Any], notes: Sequence[str], out: pathlib.Path
) -> str:
  """The page of what sweep.json has.

  Args:
    out: the sweep's folder; pages of runs that are there are linked.
  """
  lines, titles = content["summary"], dict(table.shown(content["summary"]))
  variants = list(content["variants"])
  first = variants[0] if variants else ""
  parts = [
    _part(lines, name, first, titles)
    for name in dict.fromkeys(line["category"] for line in lines)
  ]
  packages = [(run["started"] or {}).get("package", {}) for run in content["runs"]]
  commits = {str(package.get("commit")) for package in packages}
  pages = {run["name"]: out / run["name"] / page.NAME for run in content["runs"]}
  return page.render(
    "sweep.html",
    title="Anomaly detection: a sweep",
    subtitle=f"{len(variants)} variants, {len(content['categories'])} categories, "
    f"{len(content['seeds'])} seeds",
    facts={
      "Command": " ".join(content["command"]),
      "Commits": ", ".join(sorted(commits)),
      "Seeds": ", ".join(map(str, content["seeds"])),
    },
    notes=[table.EXPLANATION, *notes],
    sections=parts,
    first=first,
    beside=table.BESIDE,
    published=table.beside_published(lines),
    charts=[
      _chart(lines, variants, titles[name], name) for name in BARS if name in titles
    ],
    runs=[
      (name, path.relative_to(out).as_posix())
      for name, path in pages.items()
      if path.exists()
    ],
  )


def gain(line: Mapping, base: Mapping, name: str) -> tuple[float, float | None] | None:
  """By how much a metric is above another line's, seed by seed: mean and deviation.

  None where no seed has both; the deviation is None of one seed.
  """
  figure, other = line["metrics"][name], base["metrics"][name]
  if figure is None or other is None:
    return None
  values = dict(zip(line["seeds"], figure["values"], strict=True))
  bases = dict(zip(base["seeds"], other["values"], strict=True))
  gaps = [values[seed] - bases[seed] for seed in values if seed in bases]
  if not gaps:
    return None
  return statistics.fmean(gaps), statistics.stdev(gaps) if len(gaps) > 1 else None


def _part(
  lines: Sequence[Mapping], category: str, first: str, titles: Mapping[str, str]
) -> dict[str, Any]:
  """The table of one category, or of the mean over them."""
  own = [line for line in lines if line["category"] == category]
  base = next(line for line in own if line["variant"] == first)
  rows = []
  for line in own:
    cells = [line["variant"]]
    for name in titles:
      text, above = table.cell(line, name), gain(line, base, name)
      if line is not base and above:
        spread = "" if above[1] is None else f" ± {100 * above[1]:.1f}"
        text += f" ({100 * above[0]:+.1f}{spread})"
      cells.append(text)
    rows.append(cells)
  mean = category == table.MEAN
  return {
    "title": "Mean over categories" if mean else category,
    "header": ["variant", *titles.values()],
    "rows": rows,
  }


def _chart(
  lines: Sequence[Mapping], variants: Sequence[str], title: str, name: str
) -> dict[str, Any]:
  """Bars of one metric: a group for each product, a bar for each variant."""
  bars, y, category = [], 0, None
  series = [
    {"name": variant, "colour": plots.colour(at)} for at, variant in enumerate(variants)
  ]
  products = [line for line in lines if line["category"] != table.MEAN]
  for line in sorted(products, key=lambda line: line["category"]):
    if line["category"] != category:
      y += GAP if bars else 0
    figure = line["metrics"][name]
    if figure is None:
      continue
    text = table.cell(line, name)
    bars.append(
      {
        "y": y,
        "label": line["category"] if line["category"] != category else "",
        "width": round(LENGTH * figure["mean"], 1),
        "spread": round(LENGTH * (figure["sd"] or 0), 1),
        "colour": series[variants.index(line["variant"])]["colour"],
        "text": f"{100 * figure['mean']:.1f}",
        "says": f"{line['category']}, {line['variant']}: {text}",
      }
    )
    category = line["category"]
    y += STEP
  return {"title": title, "height": max(y, 1), "bars": bars, "series": series}
