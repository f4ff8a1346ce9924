"""Heat maps, sheets, and what a prediction must hold to be shown."""

import csv
import pathlib

import numpy as np
from PIL import Image
import pytest

from nps_jax.report import figures

SCORES = {  # of two folders, one of an even number of images
  "good/a": 3.0,
  "good/b": 1.0,
  "good/c": 2.0,
  "good/d": 4.0,
  "torn/a": 30.5,
  "torn/b": 10.0,
  "torn/c": 20.0,
}
SHAPE = (20, 30)


def plain(value: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
  return np.full((*shape, 3), value, np.uint8)


def save(path: pathlib.Path, pixels: np.ndarray) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path)


@pytest.fixture
def prediction(tmp_path):
  """Images, and the folder that a prediction of them has written."""
  out = tmp_path / "out"
  rows = [("id", "file", "score", "map_max")]
  for at, (name, score) in enumerate(SCORES.items()):
    image = tmp_path / "in" / f"{name}.png"
    save(image, plain(10 * at))
    save(out / "overlays" / f"{name}.png", plain(10 * at + 100))
    rows.append((name, str(image), score, 0.5))
  with (out / "scores.csv").open("w", newline="") as file:
    csv.writer(file).writerows(rows)
  return out


def test_overlays_colour_what_is_anomalous_and_nothing_else():
  image = np.full((1, 3, 3), 100, np.uint8)
  coloured = figures.overlay(image, np.array([[1.0, 3.0, 9.0]]))
  np.testing.assert_array_equal(coloured[0, 0], [100, 100, 100])
  want = np.rint(0.25 * 100 + 0.75 * np.array([255, 0, 0]))
  np.testing.assert_array_equal(coloured[0, 1], want)
  np.testing.assert_array_equal(coloured[0, 2], want)


def test_a_sheet_has_the_pictures_at_their_places_and_legible_captions():
  side, gap = figures.SIDE, figures.GAP
  panels = [
    figures.Panel(plain(10, (side, side)), plain(20, (side, side)), "one", "1.0"),
    figures.Panel(plain(30, (side, side)), plain(40, (side, side)), "two", "2.0"),
  ]
  page = figures.sheet(panels)
  captions = gap + figures.TITLE + figures.NOTE + gap  # edge, two lines, two half gaps
  assert page.shape == (captions + 2 * side + gap // 2 + gap, 2 * side + 3 * gap, 3)
  for top, row in ((captions, (10, 30)), (captions + side + gap // 2, (20, 40))):
    for left, value in zip((gap, side + 2 * gap), row, strict=True):
      picture = page[top : top + side, left : left + side]
      np.testing.assert_array_equal(picture, value)
      page[top : top + side, left : left + side] = 255
  np.testing.assert_array_equal(page[captions:], 255)  # white around them
  np.testing.assert_array_equal(page[:, :gap], 255)
  title = page[gap : gap + figures.TITLE, gap : gap + side]
  assert title.min() < 50  # black on white
  inked = np.flatnonzero((title < 128).any(axis=(1, 2)))
  assert inked[-1] - inked[0] >= 8  # pixels that a small letter is high


def test_a_column_is_as_wide_as_its_caption():
  short = figures.Panel(plain(0), plain(0), "a", "b")
  long = short._replace(title="a caption\nof many words, " * 5)
  narrow, wide = (figures.sheet([panel]) for panel in (short, long))
  assert narrow.shape[1] == figures.SIDE + 2 * figures.GAP
  assert wide.shape[1] > 2 * figures.SIDE and wide.shape[0] == narrow.shape[0]
  title = wide[figures.GAP : figures.GAP + figures.TITLE]
  inked = np.flatnonzero((title < 128).any(axis=(0, 2)))
  assert wide.shape[1] - 2 * figures.GAP < inked[-1] < wide.shape[1] - figures.GAP


@pytest.mark.parametrize(
  ("shape", "size"),
  [((20, 30), (256, 171)), ((512, 128), (64, 256)), ((1, 3000), (256, 1))],
)
def test_pictures_keep_their_proportions(shape, size):
  panel = figures.Panel(plain(7, shape), plain(9, shape), "", "")
  page, (width, height) = figures.sheet([panel]), size
  assert np.all(page == 7, axis=-1).sum() == width * height
  assert np.all(page == 9, axis=-1).sum() == width * height


def test_without_ids_the_median_of_each_folder_is_shown(prediction):
  assert figures.medians(figures.read_scores(prediction)) == ["good/c", "torn/c"]
  panels = figures.read_panels(prediction, [], [])
  assert [(panel.title, panel.note) for panel in panels] == [
    ("good/c", "score 2.0"),
    ("torn/c", "score 20.0"),
  ]


def test_the_images_named_are_shown_in_their_order(prediction):
  panels = figures.read_panels(prediction, ["torn/a", "good/b"], ["a tear", "normal"])
  assert [(panel.title, panel.note) for panel in panels] == [
    ("a tear", "torn/a, score 30.5"),
    ("normal", "good/b, score 1.0"),
  ]
  for panel, value in zip(panels, (40, 10), strict=True):
    np.testing.assert_array_equal(panel.image, plain(value))
    np.testing.assert_array_equal(panel.overlay, plain(value + 100))


def test_the_command_writes_a_png_within_four_levels_of_the_sheet(prediction, capsys):
  out = prediction / "new" / "sheet.png"
  flags = [f"--prediction={prediction}", f"--out={out}", "--ids=good/a, torn/a"]
  figures.main([*flags, "--titles=normal,a tear"])
  assert capsys.readouterr().out == f"2 images above their overlays: {out}\n"
  panels = figures.read_panels(prediction, ["good/a", "torn/a"], ["normal", "a tear"])
  with Image.open(out) as picture:
    assert picture.format == "PNG" and picture.mode == "RGB"
    gap = np.int64(picture) - figures.sheet(panels)
  assert np.abs(gap).max() <= 4
  before = out.read_bytes()
  with pytest.raises(SystemExit, match=r"sheet\.png exists already\. Give another"):
    figures.main(flags)
  assert out.read_bytes() == before
  figures.main([*flags, "--overwrite"])
  assert out.read_bytes() != before  # other captions


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (
      ["--ids=good/a,torn/x"],
      r"scores\.csv does not have torn/x; it has good/a, .*\. Did you mean 'torn/\w'\?",
    ),
    (["--titles=one"], r"--titles has 1 for 2 images, which are good/c, torn/c; give"),
    (["--prediction=lost"], r"--prediction=lost has no scores\.csv; give the --out of"),
    (["--out=sheet.jpg"], r"--out=sheet\.jpg does not end in \.png\."),
  ],
)
def test_wrong_requests_are_one_line(prediction, monkeypatch, flags, message):
  monkeypatch.chdir(prediction.parent)
  given = [f"--prediction={prediction}", "--out=sheet.png", *flags]
  with pytest.raises(SystemExit, match=f"^Error: .*{message}") as error:
    figures.main(given)
  assert "\n" not in str(error.value)
  assert not list(prediction.parent.glob("sheet*"))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda out: (out / "scores.csv").unlink(), r"has no scores\.csv; give the"),
    (lambda out: (out / "scores.csv").write_bytes(b""), r"csv names no image\.$"),
    (lambda out: (out / "scores.csv").write_text("a,b\n1,2\n"), "is not as nps_jax.pr"),
    (
      lambda out: (out / "scores.csv").write_text("id,file,score\na,a.png,high\n"),
      "is not as nps_jax.predict writes it",
    ),
    (
      lambda out: (out / "scores.csv").write_text("id,file,score\na\n"),
      "is not as nps_jax.predict writes it",
    ),
    (lambda out: (out / "scores.csv").write_bytes(b"id,\xff\n"), "is not as nps_jax"),
    (
      lambda out: (out.parent / "in" / "good" / "c.png").unlink(),
      r"c\.png does not exist, from which .*scores\.csv has good/c\. Start where",
    ),
    (
      lambda out: (out / "overlays" / "torn" / "c.png").unlink(),
      r"overlays/torn/c\.png cannot be read \(No such file or directory\)",
    ),
    (
      lambda out: save(out.parent / "in" / "good" / "c.png", plain(1, (20, 31))),
      r"c\.png is 20 x 31 \(height x width\) but its overlay is 20 x 30\. Predict ag",
    ),
  ],
)
def test_a_prediction_that_is_not_whole_is_refused(prediction, change, message):
  change(prediction)
  with pytest.raises(ValueError, match=message):
    figures.read_panels(prediction, [], [])
