"""Means and spreads over seeds against NumPy and by hand; what each cell says."""

import csv
import io

import numpy as np
import pytest

from nps_jax.study import table

METRICS = (
  "image_auroc.logical",
  "image_auroc.structural",
  "image_auroc.mean",
  "image_auroc.pooled",
  "au_spro.mean.0.05",
  "au_pro.0.3",
)


def result(logical, structural=0.5, pooled=0.6, au_spro=0.25, au_pro=None):
  mean = None if logical is None else (logical + structural) / 2
  return {
    "image_auroc": {
      "logical": logical,
      "structural": structural,
      "mean": mean,
      "pooled": pooled,
    },
    "au_spro": None if au_spro is None else {"mean": {"0.05": au_spro, "0.3": 0.9}},
    "au_pro": None if au_pro is None else {"0.3": au_pro, "0.05": 0.1},
  }


def entry(variant, category, seed, *values, **named):
  return table.Entry(variant, category, seed, result(*values, **named))


def line_of(lines, variant, category):
  (found,) = [
    line for line in lines if (line["variant"], line["category"]) == (variant, category)
  ]
  return found


def test_three_seeds_by_hand():
  entries = [entry("v", "a", seed, value) for seed, value in enumerate((0.8, 0.9, 1.0))]
  (line,) = table.summarise(entries, ["v"], ["a"], [0, 1, 2])
  figure = line["metrics"]["image_auroc.logical"]
  assert figure["mean"] == pytest.approx(0.9) and figure["sd"] == pytest.approx(0.1)
  assert figure["values"] == [0.8, 0.9, 1.0] and line["seeds"] == [0, 1, 2]
  figure = line["metrics"]["image_auroc.mean"]  # 0.65, 0.7, 0.75
  assert figure["mean"] == pytest.approx(0.7) and figure["sd"] == pytest.approx(0.05)


def test_every_figure_is_numpy_s():
  rng = np.random.default_rng(0)
  values = rng.uniform(
    size=(2, 3, 4, 5)
  )  # variant, category, seed, what `result` takes
  variants, categories, seeds = ("v", "w"), ("a", "b", "c"), (3, 1, 7, 2)
  entries = [
    entry(variant, category, seed, *values[i, j, k])
    for i, variant in enumerate(variants)
    for j, category in enumerate(categories)
    for k, seed in enumerate(seeds)
  ]
  lines = table.summarise(entries, variants, categories, seeds)
  assert len(lines) == 2 * (1 + 3)
  logical, structural, pooled, au_spro, au_pro = np.moveaxis(values, -1, 0)
  mean = (logical + structural) / 2
  wanted = (logical, structural, mean, pooled, au_spro, au_pro)
  for name, per_seed in zip(METRICS, wanted, strict=True):
    for i, variant in enumerate(variants):
      for j, category in enumerate(categories):
        figure = line_of(lines, variant, category)["metrics"][name]
        assert figure["mean"] == pytest.approx(per_seed[i, j].mean(), rel=1e-12)
        assert figure["sd"] == pytest.approx(per_seed[i, j].std(ddof=1), rel=1e-12)
      figure = line_of(lines, variant, table.MEAN)["metrics"][name]
      over = per_seed[i].mean(axis=0)
      assert figure["mean"] == pytest.approx(over.mean(), rel=1e-12)
      assert figure["sd"] == pytest.approx(over.std(ddof=1), rel=1e-12)


def test_the_mean_over_categories_is_of_seeds_that_have_them_all():
  entries = [
    entry("v", "a", 0, 0.5),
    entry("v", "a", 1, 0.9),
    entry("v", "b", 0, 0.7),
  ]
  lines = table.summarise(entries, ["v"], ["a", "b"], [0, 1])
  whole = line_of(lines, "v", table.MEAN)
  assert whole["seeds"] == [0] and whole["seeds_asked"] == [0, 1]
  figure = whole["metrics"]["image_auroc.logical"]
  assert figure["mean"] == pytest.approx(0.6) and figure["sd"] is None
  assert line_of(lines, "v", "a")["seeds"] == [0, 1]


def test_cells_say_mean_deviation_and_missing_seeds():
  entries = [
    entry("full", "a", 0, 0.8),
    entry("full", "a", 1, 0.9),
    entry("half", "a", 1, 0.75, au_spro=None),
  ]
  lines = table.summarise(entries, ["full", "half", "none"], ["a"], [0, 1])
  text = table.to_markdown(lines, ["Failed: half/a/seed0."])
  assert text.splitlines()[:7] == [
    "## a",
    "",
    "| variant | AUROC logical | structural | mean | pooled | AU-sPRO@0.05 |",
    "| --- | ---: | ---: | ---: | ---: | ---: |",
    "| full | 85.0 ± 7.1 | 50.0 ± 0.0 | 67.5 ± 3.5 | 60.0 ± 0.0 | 25.0 ± 0.0 |",
    "| half | 75.0 (1 of 2) | 50.0 (1 of 2) | 62.5 (1 of 2) | 60.0 (1 of 2) "
    "| - (1 of 2) |",
    f"| none |{' - (0 of 2) |' * 5}",
  ]
  assert "standard deviation over seeds (of the sample, n - 1)" in text
  assert text.endswith("\n\nFailed: half/a/seed0.\n")


def test_the_mean_comes_first_and_regions_that_no_line_has_are_left_out():
  entries = [
    entry("v", "a", 0, None, au_spro=None, au_pro=0.9),
    entry("v", "b", 0, None, au_spro=None, au_pro=0.8),
  ]
  lines = table.summarise(entries, ["v"], ["a", "b"], [0])
  text = table.to_markdown(lines, [])
  titles = [each for each in text.splitlines() if each.startswith("#")]
  assert titles == ["## Mean over categories", "## a", "## b"]
  assert "| variant | AUROC logical | structural | mean | pooled | AU-PRO@0.3 |" in text
  assert text.splitlines()[4] == "| v | - | 50.0 | - | 60.0 | 85.0 |"


def test_csv_has_full_precision_and_empty_cells():
  entries = [entry("v", "a", 0, 1 / 3), entry("v", "a", 1, 2 / 3, au_spro=0.5)]
  lines = table.summarise(entries, ["v", "w"], ["a"], [0, 1, 2])
  rows = list(csv.DictReader(io.StringIO(table.to_csv(lines))))
  assert [row["variant"] for row in rows] == ["v", "w"]
  assert (rows[0]["seeds"], rows[0]["seeds_asked"]) == ("2", "3")
  assert float(rows[0]["image_auroc.logical.mean"]) == pytest.approx(0.5, rel=1e-15)
  want = np.std([1 / 3, 2 / 3], ddof=1)
  assert float(rows[0]["image_auroc.logical.sd"]) == pytest.approx(want, rel=1e-15)
  assert rows[0]["au_pro.0.3.mean"] == "" and rows[1]["au_spro.mean.0.05.mean"] == ""
  assert list(rows[0])[4:] == [f"{n}.{p}" for n in METRICS for p in ("mean", "sd")]


def test_all_of_loco_stands_beside_what_others_report():
  categories = list(table.table.LOCO)
  values = dict(zip(categories, (0.5, 0.6, 0.7, 0.8, 0.9), strict=True))
  entries = [entry("v", name, 0, value) for name, value in values.items()]
  entries += [entry("w", name, 0, 1.0) for name in categories[1:]]
  lines = table.summarise(entries, ["v", "w"], categories, [0])
  header, rows = table.beside_published(lines)
  assert header[:6] == [
    *("method", "AUROC logical", "structural", "mean", "pooled"),
    "AU-sPRO@0.05",
  ]
  by_method = {row[0]: row[1:] for row in rows}
  assert all(len(row) == len(header) for row in rows)
  assert by_method["SALAD"][:3] == ["96.5", "95.7", "96.1"]
  assert by_method["v"][:5] == ["70.0", "50.0", "60.0", "60.0", "25.0"]
  assert by_method["w"][0] == "- (0 of 1)"  # of four categories there is no mean
  text = table.to_markdown(lines, [])
  assert "## Beside what others report" in text and "| SALAD | 96.5 |" in text


@pytest.mark.parametrize("left", [1, 4])
def test_a_part_of_loco_or_other_data_stand_alone(left):
  for categories in (table.table.LOCO[:left], (*table.table.LOCO, "tray"), ("tray",)):
    entries = [entry("v", name, 0, 0.5) for name in categories]
    lines = table.summarise(entries, ["v"], categories, [0])
    assert table.beside_published(lines) is None
    assert "SALAD" not in table.to_markdown(lines, [])
