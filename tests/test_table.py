"""Tables: what each cell says, and files that are whole."""

import copy
import csv
import io
import json

import pytest

from nps_jax.report import table

LIMITS = ("0.01", "0.05", "0.1", "0.3", "1.0")
LOCO = {
  "category": "pushpins",
  "image_auroc": {
    "logical": 0.9,
    "structural": 0.8,
    "mean": 0.85,
    "pooled": 0.8612,
    "by_kind": {"bent": 0.7, "unused": None},
  },
  "image_auroc_95": None,
  "au_spro": {
    "logical": dict.fromkeys(LIMITS, 0.5),
    "structural": dict.fromkeys(LIMITS, 0.7),
    "mean": dict.fromkeys(LIMITS, 0.6) | {"0.05": 0.61},
  },
  "au_pro": None,
  "region_by_kind": {"bent": {"0.05": 0.42, "1.0": 0.9}, "unused": None},
  "region_curves": {"logical": [0.1, 0.9], "structural": [0.2, 0.8]},
  "pixel_auroc": 0.97125,
  "pixel_ap": 0.5,
  "n_test": 310,
  "n_by_kind": {"bent": 12, "unused": 0},
  "config_hash": "abc",
}
MVTEC = {
  "category": "bottle",
  "image_auroc": {
    "logical": None,
    "structural": None,
    "mean": None,
    "pooled": 1.0,
    "by_kind": {"contamination": 1.0},
  },
  "image_auroc_95": None,
  "au_spro": None,
  "au_pro": {"0.3": 0.95, "0.05": 0.8},
  "region_by_kind": {"contamination": {"0.3": 0.95, "0.05": 0.8}},
  "region_curves": {"pro": [0.1, 0.9]},
  "pixel_auroc": 0.98,
  "pixel_ap": 0.75,
  "n_test": 83,
  "n_by_kind": {"contamination": 21},
}


def other_loco():
  other = copy.deepcopy(LOCO) | {"category": "screw_bag", "n_test": 90}
  other["image_auroc"]["logical"] = 0.7
  other["au_spro"]["mean"]["0.05"] = 0.41
  return other


def with_intervals():
  result = copy.deepcopy(LOCO)
  bounds = {name: [0.75, 0.95] for name in ("logical", "structural", "mean", "pooled")}
  result["image_auroc_95"] = bounds | {
    "by_kind": {"bent": [0.5, 0.875], "unused": None}
  }
  return result


def test_one_category_has_no_mean_row():
  assert table.by_category([LOCO]).splitlines() == [
    "| category | AUROC logical | structural | mean | pooled | AU-sPRO@0.05 "
    "| pixel AUROC | pixel AP | n |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    "| pushpins | 90.0 | 80.0 | 85.0 | 86.1 | 61.0 | 97.1 | 50.0 | 310 |",
  ]


def test_several_categories_have_a_mean_row():
  lines = table.by_category([LOCO, other_loco()]).splitlines()
  assert lines[4] == "| mean | 80.0 | 80.0 | 85.0 | 86.1 | 51.0 | 97.1 | 50.0 | 400 |"


def test_intervals_follow_their_figures():
  (row,) = table.by_category([with_intervals()]).splitlines()[2:]
  assert row.startswith("| pushpins | 90.0 (75.0-95.0) | 80.0 (75.0-95.0) |")
  assert row.endswith("| 86.1 (75.0-95.0) | 61.0 | 97.1 | 50.0 | 310 |")
  kinds = table.by_kind([with_intervals()]).splitlines()[2:]
  assert kinds[0] == "| pushpins | bent | 70.0 (50.0-87.5) | 42.0 | 12 |"
  (mean,) = table.by_category([with_intervals(), LOCO]).splitlines()[4:]
  assert mean.startswith("| mean | 90.0 | 80.0 |")


def test_the_region_column_says_what_it_is_and_none_is_a_dash():
  lines = table.by_category([MVTEC]).splitlines()
  assert "AU-PRO@0.3" in lines[0]
  assert "AU-sPRO" not in lines[0]
  assert lines[2] == "| bottle | - | - | - | 100.0 | 95.0 | 98.0 | 75.0 | 83 |"
  lines = table.by_category([LOCO, MVTEC]).splitlines()
  assert "| AU-sPRO@0.05 | AU-PRO@0.3 |" in lines[0]
  assert lines[3] == "| bottle | - | - | - | 100.0 | - | 95.0 | 98.0 | 75.0 | 83 |"
  assert lines[4] == "| mean | - | - | - | 93.1 | - | - | 97.6 | 62.5 | 393 |"


def test_kinds_have_rows_of_their_own():
  assert table.by_kind([LOCO, MVTEC]).splitlines() == [
    "| category | kind | AUROC | AU-sPRO@0.05 | AU-PRO@0.3 | n |",
    "| --- | --- | ---: | ---: | ---: | ---: |",
    "| pushpins | bent | 70.0 | 42.0 | - | 12 |",
    "| pushpins | unused | - | - | - | 0 |",
    "| bottle | contamination | 100.0 | - | 95.0 | 21 |",
  ]


def test_plain_results_and_missing_subsets():
  plain = MVTEC | {"au_pro": None, "pixel_auroc": None, "pixel_ap": None}
  line = table.by_category([plain]).splitlines()[2]
  assert line == "| bottle | - | - | - | 100.0 | - | - | 83 |"
  partial = copy.deepcopy(LOCO)
  partial["au_spro"] |= {"structural": None, "mean": None}
  assert "| 86.1 | 97.1 | 50.0 | 310 |" in table.by_category([partial])


def test_csv_keeps_every_digit():
  rows = list(csv.DictReader(io.StringIO(table.to_csv([with_intervals(), MVTEC]))))
  names = [(row["category"], row["kind"]) for row in rows]
  assert names == [
    ("pushpins", ""),
    ("pushpins", "bent"),
    ("pushpins", "unused"),
    ("bottle", ""),
    ("bottle", "contamination"),
  ]
  loco, bent, unused, mvtec, dirty = rows
  assert float(loco["image_auroc.pooled"]) == 0.8612
  assert float(loco["au_spro.mean.0.05"]) == 0.61
  assert (loco["au_pro.0.3"], mvtec["au_pro.0.3"]) == ("", "0.95")
  assert (loco["config_hash"], mvtec["config_hash"]) == ("abc", "")
  assert not any("by_kind" in column for column in loco)
  interval = [loco[f"image_auroc_95.mean.{end}"] for end in ("low", "high")]
  assert interval == ["0.75", "0.95"]
  assert (bent["image_auroc.kind"], bent["image_auroc_95.kind.low"]) == ("0.7", "0.5")
  assert (bent["region.1.0"], bent["n_test"], bent["image_auroc.mean"]) == (
    "0.9",
    "12",
    "",
  )
  assert (unused["image_auroc.kind"], unused["n_test"]) == ("", "0")
  assert dirty["region.0.3"] == "0.95"


def test_published_results_stand_beside_ours():
  lines = table.beside_published([LOCO, other_loco()]).splitlines()
  assert lines[0].startswith("| method | AUROC logical | structural | mean | pooled |")
  assert lines[0].endswith("| AU-sPRO@0.05 | needs | epoch | source |")
  assert lines[1] == "| --- |" + " ---: |" * 5 + " --- |" * 3
  assert "| GCAD | 86.0 | 80.6 | 83.3 | - | 70.1 |  |  | IJCV 2022 |" in lines
  assert "| PUAD-M | - | - | - | 94.4 | - |  |  | ICIP 2024 |" in lines
  ours = (
    "| **this run** | 80.0 | 80.0 | 85.0 | 86.1 | 51.0 |  |  | pushpins, screw_bag |"
  )
  assert lines[-1] == ours


def test_the_page_holds_each_table_that_applies_and_the_conventions():
  whole = table.to_markdown([LOCO])
  for part in (table.by_category, table.by_kind, table.beside_published):
    assert part([LOCO]) + "\n\n" in whole
  assert whole.endswith(f"\n\n{table.CONVENTIONS}\n")
  assert "(logical + structural) / 2" in table.CONVENTIONS
  assert "pooled is good against all anomalous images" in table.CONVENTIONS
  assert "SALAD" not in table.by_category([LOCO]) + table.by_kind([LOCO])
  assert "ICCV" not in table.to_markdown([MVTEC])  # not one of LOCO's categories
  bare = MVTEC | {"n_by_kind": {}, "region_by_kind": {}}
  assert "kind" not in table.to_markdown([bare])


def test_write_leaves_three_files(tmp_path):
  table.write([LOCO, MVTEC], tmp_path / "run" / "mine.json")
  files = {path.name: path.read_text() for path in (tmp_path / "run").iterdir()}
  assert sorted(files) == ["mine.csv", "mine.json", "mine.md"]
  assert json.loads(files["mine.json"]) == [LOCO, MVTEC]
  assert files["mine.csv"] == table.to_csv([LOCO, MVTEC])
  assert files["mine.md"] == table.to_markdown([LOCO, MVTEC])


def test_a_failed_write_keeps_the_old_files(tmp_path):
  path = tmp_path / "results.json"
  table.write([LOCO], path)
  with pytest.raises(ValueError, match="not JSON compliant"):
    table.write([LOCO | {"pixel_auroc": float("nan")}], path)
  assert json.loads(path.read_text()) == [LOCO]
  assert len(list(tmp_path.iterdir())) == 3


def test_the_json_comes_last_and_stands_for_all_three(tmp_path, monkeypatch):
  path, write = tmp_path / "results.json", table.files.write_text
  table.write([LOCO], path)

  def fail(place, content):
    if place.suffix == ".md":
      raise OSError("no space left")
    write(place, content)

  monkeypatch.setattr(table.files, "write_text", fail)
  with pytest.raises(OSError, match="no space left"):
    table.write([MVTEC], path)
  assert sorted(each.name for each in tmp_path.iterdir()) == [
    "results.csv",
    "results.md",
  ]


@pytest.mark.parametrize("suffix", [".json", ".csv", ".md"])
def test_each_file_that_would_be_replaced_is_named(tmp_path, suffix):
  path = tmp_path / "mine.json"
  table.check_absent(path)
  path.with_suffix(suffix).touch()
  wanted = rf"mine\{suffix} would be replaced\. Give another --out, or --overwrite"
  with pytest.raises(ValueError, match=wanted):
    table.check_absent(path)
