"""Published figures: every line has values, a source, and one convention."""

import csv

import pytest

from nps_jax.report import published
from nps_jax.report import table

FIGURES = published.read()


def values(figure):
  return dict(zip(published.METRICS, figure.values, strict=True))


def test_columns_are_those_that_are_read():
  with published.FILE.open(encoding="utf-8", newline="") as file:
    lines = list(csv.DictReader(file))
  titles = ["method", "data_set", *published.METRICS, *published.WORDS]
  assert all(list(line) == titles for line in lines)
  assert {line["data_set"] for line in lines} == {published.DATA_SET}
  assert all(None not in line.values() for line in lines)


def test_values_are_percentages_under_a_name_that_occurs_once():
  names = [figure.method for figure in FIGURES]
  assert len(set(names)) == len(names) == 20
  for figure in FIGURES:
    numbers = [value for value in figure.values if value is not None]
    assert numbers and all(30 < value <= 100 for value in numbers), figure.method
    assert figure.words[-1], f"{figure.method} has no source"


def test_means_are_of_the_stated_convention():
  for figure in FIGURES:
    metrics = values(figure)
    if metrics["logical"] is not None:
      average = (metrics["logical"] + metrics["structural"]) / 2
      assert metrics["mean"] == pytest.approx(average, abs=0.21), figure.method
    assert metrics["mean"] is None or metrics["pooled"] is None


def test_what_makes_a_figure_hard_to_compare_is_told():
  words = {figure.method: figure.words for figure in FIGURES}
  assert "hand-made part masks" in words["PSAD"][0]
  assert "text" in words["LogSAD"][0] and "training-free" in words["LogSAD"][0]
  assert words["CSAD"][1] == "best on test images (its code)"
  assert "secondary source" in words["EfficientAD-M"][2]
  printed = table.beside_published([])
  for figure in FIGURES:
    assert all(part in printed for part in (figure.method, *figure.words))
