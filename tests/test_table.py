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
  "au_spro": {
    "logical": dict.fromkeys(LIMITS, 0.5),
    "structural": dict.fromkeys(LIMITS, 0.7),
    "mean": dict.fromkeys(LIMITS, 0.6) | {"0.05": 0.61},
  },
  "au_pro": None,
  "pixel_auroc": 0.97125,
  "n_test": 310,
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
  "au_spro": None,
  "au_pro": {"0.3": 0.95, "0.05": 0.8},
  "pixel_auroc": 0.98,
  "n_test": 83,
}


def other_loco():
  other = copy.deepcopy(LOCO) | {"category": "screw_bag", "n_test": 90}
  other["image_auroc"]["logical"] = 0.7
  other["au_spro"]["mean"]["0.05"] = 0.41
  return other


def test_one_category_has_no_mean_row():
  lines = table.to_markdown([LOCO]).splitlines()
  assert lines == [
    "| category | AUROC logical | structural | mean | pooled | AU-sPRO@0.05 "
    "| pixel AUROC | n |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    "| pushpins | 90.0 | 80.0 | 85.0 | 86.1 | 61.0 | 97.1 | 310 |",
    "",
    f"{table.CONVENTIONS} n is the number of test images.",
  ]
  assert "(logical + structural) / 2" in table.CONVENTIONS
  assert "pooled is good against all anomalous images" in table.CONVENTIONS


def test_several_categories_have_a_mean_row():
  lines = table.to_markdown([LOCO, other_loco()]).splitlines()
  assert lines[4] == "| mean | 80.0 | 80.0 | 85.0 | 86.1 | 51.0 | 97.1 | 400 |"


def test_the_region_column_says_what_it_is_and_none_is_a_dash():
  lines = table.to_markdown([MVTEC]).splitlines()
  assert "AU-PRO@0.3" in lines[0]
  assert "AU-sPRO" not in lines[0]
  assert lines[2] == "| bottle | - | - | - | 100.0 | 95.0 | 98.0 | 83 |"
  lines = table.to_markdown([LOCO, MVTEC]).splitlines()
  assert "| AU-sPRO@0.05 | AU-PRO@0.3 |" in lines[0]
  assert lines[3] == "| bottle | - | - | - | 100.0 | - | 95.0 | 98.0 | 83 |"
  assert lines[4] == "| mean | - | - | - | 93.1 | - | - | 97.6 | 393 |"


def test_plain_results_and_missing_subsets():
  plain = MVTEC | {"au_pro": None, "pixel_auroc": None}
  line = table.to_markdown([plain]).splitlines()[2]
  assert line == "| bottle | - | - | - | 100.0 | - | 83 |"
  partial = copy.deepcopy(LOCO)
  partial["au_spro"] |= {"structural": None, "mean": None}
  assert "| 86.1 | 97.1 | 310 |" in table.to_markdown([partial])


def test_csv_keeps_every_digit():
  rows = list(csv.DictReader(io.StringIO(table.to_csv([LOCO, MVTEC]))))
  assert [row["category"] for row in rows] == ["pushpins", "bottle"]
  assert float(rows[0]["image_auroc.pooled"]) == 0.8612
  assert float(rows[0]["au_spro.mean.0.05"]) == 0.61
  assert (rows[0]["au_pro.0.3"], rows[1]["au_pro.0.3"]) == ("", "0.95")
  assert (rows[0]["config_hash"], rows[1]["config_hash"]) == ("abc", "")
  assert not any("by_kind" in column for column in rows[0])


def test_published_results_stand_beside_ours():
  lines = table.beside_published([LOCO, other_loco()]).splitlines()
  assert lines[0].startswith("| method | AUROC logical | structural | mean | pooled |")
  assert "| GCAD | 86.0 | 80.6 | 83.3 | - | 70.1 |  |" in lines
  assert "| PUAD-M | - | - | - | 94.4 | - | ICIP 2024 |" in lines
  ours = "| **this run** | 80.0 | 80.0 | 85.0 | 86.1 | 51.0 | pushpins, screw_bag |"
  assert ours in lines
  assert lines[-1] == table.CONVENTIONS


def test_published_means_are_of_the_stated_convention():
  for each in table.PUBLISHED:
    if each.logical is not None:
      average = (each.logical + each.structural) / 2
      assert each.mean == pytest.approx(average, abs=0.21), each.method


def test_write_leaves_three_files(tmp_path):
  table.write([LOCO, MVTEC], tmp_path / "run")
  files = {path.name: path.read_text() for path in (tmp_path / "run").iterdir()}
  assert sorted(files) == ["results.csv", "results.json", "results.md"]
  assert json.loads(files["results.json"]) == [LOCO, MVTEC]
  assert files["results.csv"] == table.to_csv([LOCO, MVTEC])
  assert files["results.md"] == table.to_markdown([LOCO, MVTEC])


def test_a_failed_write_keeps_the_old_files(tmp_path):
  table.write([LOCO], tmp_path)
  with pytest.raises(ValueError, match="not JSON compliant"):
    table.write([LOCO | {"pixel_auroc": float("nan")}], tmp_path)
  assert json.loads((tmp_path / "results.json").read_text()) == [LOCO]
  assert len(list(tmp_path.iterdir())) == 3
