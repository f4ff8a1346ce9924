"""Anomaly maps and images to be scored, good and bad; and what a user sees."""

import os

import bad_images
import bad_trees as trees
import numpy as np
import tifffile


def score_map(values, name=trees.MAP):
  """Replaces the map of the good image."""

  def change(here):
    (here / trees.MAP).unlink()
    path = here / name
    np.save(path, values) if path.suffix == ".npy" else tifffile.imwrite(path, values)

  return change


def objects(here):
  """A map whose reading would run code."""
  (here / trees.MAP).unlink()
  held = np.array([trees.Payload(here / "unpickled")], object)
  np.save((here / trees.MAP).with_suffix(".npy"), held, allow_pickle=True)


OF_MAP, OF_NPY = (
  f"HERE/{trees.MAP}",
  f"HERE/{trees.MAP}".replace(".tiff", ".npy"),
)
UNREAD = "cannot be read as an anomaly map: ..."

MAPS = (
  trees.Case("nothing wrong", trees.both(), trees.PASSED),
  trees.Case(
    "a missing map",
    trees.remove(trees.MAP),
    f"1 of the 3 test images of nuts have no anomaly map; missing are {OF_MAP} (or "
    ".tif, .npy). HERE/maps holds nuts/.",
  ),
  trees.Case(
    "two maps of one image",
    lambda here: np.save(
      here / trees.MAP.replace(".tiff", ".npy"), np.zeros(trees.SIZE)
    ),
    f"nuts/test/good/000 has 2 anomaly maps: {OF_MAP}, {OF_NPY}. Leave one.",
  ),
  trees.Case(
    "a map of another size",
    score_map(np.zeros((6, 8), np.float32)),
    f"{OF_MAP} has shape (6, 8); its image is 12 x 16 (height x width), and a map must "
    "be of the image's size.",
  ),
  trees.Case(
    "a map in colour",
    score_map(np.zeros((*trees.SIZE, 3), np.uint8)),
    f"{OF_MAP} has shape (12, 16, 3); its image is 12 x 16 (height x width), and a map "
    "must be of the image's size.",
  ),
  trees.Case(
    "a map with NaN",
    score_map(np.full(trees.SIZE, np.nan, np.float32)),
    f"{OF_MAP} holds NaN or infinity; all scores must be finite.",
  ),
  trees.Case(
    "a map with infinity",
    score_map(np.full(trees.SIZE, np.inf), trees.MAP.replace(".tiff", ".npy")),
    f"{OF_NPY} holds NaN or infinity; all scores must be finite.",
  ),
  trees.Case(
    "a map of the largest 64-bit integers",
    score_map(
      np.full(trees.SIZE, 2**64 - 1, np.uint64),
      trees.MAP.replace(".tiff", ".npy"),
    ),
    trees.PASSED,
  ),
  trees.Case(
    "a map of yes and no",
    score_map(np.zeros(trees.SIZE, bool), trees.MAP.replace(".tiff", ".npy")),
    f"{OF_NPY} holds bool; an anomaly map holds real numbers.",
  ),
  trees.Case(
    "a .npy of pickled objects, never unpickled", objects, f"{OF_NPY} {UNREAD}"
  ),
  trees.Case("a .tiff cut short", trees.cut(trees.MAP), f"{OF_MAP} {UNREAD}"),
  trees.Case("an empty .tiff", trees.write(trees.MAP, b""), f"{OF_MAP} {UNREAD}"),
  trees.Case(
    "a .npy cut short",
    trees.both(
      score_map(np.zeros(trees.SIZE), trees.MAP.replace(".tiff", ".npy")),
      trees.cut(trees.MAP.replace(".tiff", ".npy")),
    ),
    f"{OF_NPY} {UNREAD}",
  ),
  trees.Case(
    "a test image without a header",
    trees.write(f"{trees.TEST}/good/000.png", b""),
    f"{trees.NUTS}/test/good/000.png cannot be read (it is empty). {trees.GONE}",
  ),
  trees.Case(
    "an empty mask",
    trees.image(trees.MASK, trees.mask(0)),
    f"{trees.OF_MASK} is empty: a mask marks at least one pixel.",
  ),
  trees.Case(
    "no test images",
    trees.remove(trees.TEST),
    f"{trees.NUTS} has no test images; ...",
  ),
  trees.Case(
    "results that are there already",
    trees.both(trees.write("out.json", b"old"), trees.write("out.md", b"old")),
    "HERE/out.json, HERE/out.md would be replaced. Give another --out, or --overwrite.",
  ),
  trees.Case(
    "results that are there, and --overwrite",
    trees.both(trees.write("out.json", b"old"), trees.write("out.csv", b"old")),
    trees.PASSED,
    ("--overwrite",),
  ),
)


def loops(here):
  """Folders that lead into each other by links, with one image."""
  trees.image("in/a/one.png")(here)
  os.symlink(here / "in", here / "in/a/up", target_is_directory=True)
  os.symlink(here / "in/a", here / "in/b", target_is_directory=True)
  os.symlink("../a", here / "in/a/again", target_is_directory=True)


def twice(here):
  trees.image("in/one.png")(here)
  os.symlink(here / "in/one.png", here / "in/two.png")


PREDICT = (  # with a stand-in for the scores; "accepted" tells the ids
  trees.Case(
    "folders that links lead into again and again", loops, f"{trees.PASSED}: a/one"
  ),
  trees.Case("an image and a link to it", twice, f"{trees.PASSED}: one"),
  trees.Case(
    "images with a leading dot beside others",
    trees.both(trees.image("in/one.png"), trees.image("in/.two.png")),
    f"{trees.PASSED}: one",
  ),
  trees.Case(
    "a.png and a.jpg",
    trees.both(trees.image("in/a.png"), trees.image("in/a.jpg")),
    f"{trees.PASSED}: a.jpg, a.png",
  ),
  trees.Case(
    "images of other kinds of files beside others",
    trees.both(
      trees.image("in/one.png"),
      trees.write("in/film.gif", bad_images.pages("GIF")),
    ),
    f"{trees.PASSED}: one",
  ),
  trees.Case(
    "only other kinds of files",
    trees.write("in/film.gif", bad_images.pages("GIF")),
    f"HERE/in gives no image: found .gif, expected {trees.FORMS}. Convert the files, "
    "or name others.",
  ),
  trees.Case(
    "an empty folder",
    lambda here: (here / "in").mkdir(),
    f"HERE/in gives no image: found nothing, expected {trees.FORMS}. Convert the "
    "files, or name others.",
  ),
  trees.Case(
    "a folder that is not there",
    trees.both(),
    "HERE/in does not exist; give image files or folders.",
  ),
  trees.Case(
    "no readable image at all",
    trees.both(trees.write("in/a.png", b""), trees.write("in/b.png", b"text")),
    "2 of 2 images cannot be scored:\n"
    f"HERE/in/a.png cannot be read (it is empty). {trees.GONE}\n"
    f"HERE/in/b.png cannot be read ({bad_images.START}). {trees.GONE}",
  ),
  trees.Case(
    "--out is a file",
    trees.both(trees.image("in/a.png"), trees.write("out", b"old")),
    "--out=HERE/out is a file; give a new or empty folder.",
  ),
  trees.Case(
    "--out holds files",
    trees.both(trees.image("in/a.png"), trees.write("out/notes.txt", b"old")),
    "--out=HERE/out holds files already; give a new or empty folder, --resume to go on "
    "with a prediction, or --overwrite to replace maps, overlays, errors.csv, "
    "scores.csv, prediction.json in it.",
  ),
  trees.Case(
    "--out holds files, and --overwrite",
    trees.both(
      trees.image("in/a.png"),
      trees.write("out/notes.txt", b"old"),
      trees.write("out/maps/stale.tiff", b"old"),
      trees.write("out/errors.csv", b"old"),
    ),
    f"{trees.PASSED}: a",
    ("--overwrite",),
  ),
  trees.Case(
    "--overwrite where it would remove the images",
    trees.both(trees.image("in/a.png"), trees.image("out/overlays/a.png")),
    "--out=HERE/out would replace HERE/out/overlays/a.png, which it is to score.",
    ("--overwrite", "--images=HERE/out/overlays"),
  ),
  trees.Case(
    "a folder that is no run",
    trees.both(trees.image("in/a.png"), lambda here: (here / "run").mkdir()),
    "HERE/run is not a run: it has no config.json. Give the --workdir of a training.",
    ("--run=HERE/run",),
  ),
  trees.Case(
    "a run whose settings are cut short",
    trees.both(
      trees.image("in/a.png"),
      trees.write("run/config.json", b'{"config": {'),
      trees.write("run/config.sha256", b"0" * 64 + b"  config.json\n"),
    ),
    "HERE/run/config.json is damaged: its SHA-256 is not that in config.sha256. Bring "
    "an intact copy of both, or train anew in another --workdir.",
    ("--run=HERE/run",),
  ),
)

OTHERS = (  # whose first flag is the command
  trees.Case(
    "results that are there already",
    trees.write("run/results.json", b"old"),
    "HERE/run/results.json would be replaced. Give another --out, or --overwrite.",
    ("evaluate", "--run=HERE/run"),
  ),
  trees.Case(
    "drawn products that are there already",
    trees.write("drawn/tray/notes.txt", b"old"),
    "HERE/drawn/tray exists already. Remove it, or choose another folder.",
    ("drawn.synthetic", "--out=HERE/drawn", "--categories=box,tray"),
  ),
  trees.Case(
    "vectors that are there already",
    trees.write("v.npz", b"old"),
    "HERE/v.npz exists already. Give another --out, or --overwrite.",
    ("models.context", "--categories=nuts", "--out=HERE/v.npz"),
  ),
  trees.Case(
    "weights that are a pickle",
    trees.pickled("weights.safetensors"),
    "HERE/weights.safetensors is a pickle, which can run code when it is opened; it is "
    "refused. ...",
    ("models.weights", "--check=HERE/weights.safetensors"),
  ),
  trees.Case(
    "a folder that no prediction wrote",
    trees.image("out/a.png"),
    "--prediction=HERE/out has no scores.csv; give the --out of nps_jax.predict.",
    ("report.figures", "--prediction=HERE/out", "--out=HERE/sheet.png"),
  ),
  trees.Case(
    "an image that the prediction lacks",
    trees.write("out/scores.csv", "id,file,score,map_max\ngood/000,a.png,2.5,0.1\n"),
    "HERE/out/scores.csv does not have good/00; it has good/000. Did you mean "
    "'good/000'?",
    (
      "report.figures",
      "--prediction=HERE/out",
      "--ids=good/00",
      "--out=HERE/sheet.png",
    ),
  ),
  trees.Case(
    "a picture that is there already",
    trees.write("sheet.png", b"old"),
    "HERE/sheet.png exists already. Give another --out, or --overwrite.",
    ("report.figures", "--prediction=HERE/out", "--out=HERE/sheet.png"),
  ),
)
