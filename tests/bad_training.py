"""Data sets, weights and settings, good and bad; and what `train` says of them."""

import json
import os

import bad_images
import bad_trees as trees
import numpy as np
import safetensors.numpy


def tensors(here):
  """A file of safetensors, cut short."""
  content = safetensors.numpy.save(
    {"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}
  )
  (here / "weights.safetensors").write_bytes(content[:5000])


def resnet(here):
  """A file of safetensors with a ResNet's stem."""
  stem = {"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}
  (here / "weights.safetensors").write_bytes(safetensors.numpy.save(stem))


def defects(*changes):
  """Replaces defects_config.json: the usual entry, once for each set of changes."""
  return trees.write(
    trees.CONFIG, json.dumps([trees.DEFECT | each for each in changes])
  )


def many(here):
  for at in range(25):
    trees.write(f"data/nuts/train/good/bad{at:02d}.png", b"")(here)


def one_of(text, count=11):
  return f"1 of the {count} image and mask files cannot be used:\n{text}"


TRAIN = (
  trees.Case("nothing wrong", trees.both(), trees.PASSED),
  trees.Case(
    "a mask of another size",
    trees.image(trees.MASK, trees.mask(size=(5, 16))),
    one_of(
      f"{trees.OF_MASK} is 5 x 16 (height x width) but its image is 12 x 16; a mask "
      "must have the image's size."
    ),
  ),
  trees.Case(
    "a mask of a value that is not listed",
    trees.image(trees.MASK, trees.mask(7)),
    one_of(
      f"{trees.OF_MASK} holds the value 7, which defects_config.json does not list. It "
      "lists [255]."
    ),
  ),
  trees.Case(
    "a mask of several values",
    trees.image(trees.MASK, np.maximum(trees.mask(), trees.mask(9)[::-1])),
    one_of(
      f"{trees.OF_MASK} holds the values [9, 255]; a mask has one nonzero value, which "
      "selects its defect."
    ),
  ),
  trees.Case(
    "an empty mask",
    trees.image(trees.MASK, trees.mask(0)),
    one_of(f"{trees.OF_MASK} is empty: a mask marks at least one pixel."),
  ),
  trees.Case(
    "a mask of several colours",
    trees.image(
      trees.MASK, np.dstack([trees.mask(), trees.mask()[::-1], trees.mask()])
    ),
    one_of(f"{trees.OF_MASK} has 3 colours; a mask is grey, or one colour on black."),
  ),
  trees.Case(
    "a mask cut short",
    trees.both(
      trees.image(trees.MASK, bad_images.noise(*trees.SIZE, 0)), trees.cut(trees.MASK)
    ),
    one_of(f"{trees.OF_MASK} cannot be read ({bad_images.DAMAGED}). {trees.GONE}"),
  ),
  trees.Case(
    "a mask of 20000 x 20000 pixels by its header",
    trees.write(trees.MASK, bad_images.png(20000, 20000, 1, 0, [])),
    one_of(
      f"{trees.OF_MASK} cannot be read (it is over {bad_images.LIMIT} pixels). "
      f"{trees.GONE}"
    ),
  ),
  trees.Case(
    "PostScript as a mask",
    trees.write(trees.MASK, b"%!PS-Adobe-3.0 EPSF-3.0\n"),
    one_of(f"{trees.OF_MASK} cannot be read ({bad_images.START}). {trees.GONE}"),
  ),
  trees.Case(
    "an image and its mask cut short, and a validation image",
    trees.both(
      *(
        trees.cut(each)
        for each in (f"{trees.TEST}/logical_anomalies/000.png", trees.MASK)
      ),
      trees.write("data/nuts/validation/good/001.png", b""),
    ),
    "3 of the 11 image and mask files cannot be used:\n"
    f"{trees.NUTS}/validation/good/001.png cannot be read (it is empty). {trees.GONE}\n"
    f"{trees.NUTS}/test/logical_anomalies/000.png cannot be read "
    f"({bad_images.DAMAGED}). {trees.GONE}\n{trees.OF_MASK} cannot be read "
    f"({bad_images.DAMAGED}). {trees.GONE}",
  ),
  trees.Case(
    "25 empty training images",
    many,
    "25 of the 36 image and mask files cannot be used:\n"
    f"{trees.NUTS}/train/good/bad00.png cannot be read (it is empty). "
    f"{trees.GONE}\n...\n{trees.NUTS}/train/good/bad19.png cannot be read (it is "
    f"empty). {trees.GONE}\nand 5 more",
  ),
  trees.Case(
    "an anomalous image without a mask",
    trees.remove(f"{trees.TRUTH}/logical_anomalies"),
    f"1 anomalous images have no mask in "
    f"HERE/{trees.TRUTH}/<kind>/<image>/<number>.png: "
    f"{trees.NUTS}/test/logical_anomalies/000.png. Add their masks, remove the "
    'images, or set config.data.layout to "plain", which does without masks.',
  ),
  trees.Case(
    "a mask without an image",
    trees.image(f"{trees.TRUTH}/logical_anomalies/007/000.png", trees.mask()),
    f"1 masks in HERE/{trees.TRUTH} have no image in {trees.NUTS}/test: "
    f"HERE/{trees.TRUTH}/logical_anomalies/007. Expected <kind>/<image>/<number>.png. "
    "Add the images, or remove the masks.",
  ),
  trees.Case(
    "a mask beside the folders of masks",
    trees.image(f"{trees.TRUTH}/logical_anomalies/000.png", trees.mask()),
    f"1 masks in HERE/{trees.TRUTH} have no image in {trees.NUTS}/test: "
    f"HERE/{trees.TRUTH}/logical_anomalies/000.png. Expected "
    "<kind>/<image>/<number>.png. ...",
  ),
  trees.Case(
    "a.png and a.jpg among anomalous images",
    trees.image(f"{trees.TEST}/logical_anomalies/000.jpg"),
    f"{trees.NUTS}/test/logical_anomalies has several images named 000, which would "
    "share a mask. Rename all but one of each, and their masks.",
  ),
  trees.Case(
    "a.png and a.jpg among training images",
    trees.image("data/nuts/train/good/000.jpg"),
    trees.PASSED,
  ),
  trees.Case(
    "an image outside of a kind's folder",
    trees.image(f"{trees.TEST}/000.png"),
    f"{trees.NUTS}/test holds images outside of a kind's folder: "
    f"{trees.NUTS}/test/000.png. Put normal ones into {trees.NUTS}/test/good, others "
    "into a folder named after their kind.",
  ),
  trees.Case(
    "training images directly in train and in train/good",
    trees.image("data/nuts/train/000.png"),
    f"{trees.NUTS}/train holds images both directly and in good/. Put all of them into "
    f"{trees.NUTS}/train/good.",
  ),
  trees.Case(
    "a kind that LOCO does not have",
    trees.image(f"{trees.TEST}/scratch/000.png"),
    f"{trees.NUTS}/test holds scratch; the LOCO layout has good, logical_anomalies, "
    "structural_anomalies, or other kinds alone. Rename or move the folders, or change "
    "config.data.layout.",
  ),
  trees.Case(
    "a folder without train",
    trees.remove("data/nuts/train"),
    f"{trees.NUTS} has no folder train; found defects_config.json, ground_truth/, "
    f"test/, validation/. Put normal images into {trees.NUTS}/train/good.",
  ),
  trees.Case(
    "an empty train/good",
    trees.both(
      *(trees.remove(f"data/nuts/train/good/{at:03d}.png") for at in range(4)),
    ),
    f"{trees.NUTS}/train/good holds no images; found nothing. Put normal images into "
    "it.",
  ),
  trees.Case(
    "training images of another kind of file",
    trees.both(
      *(
        trees.move(
          f"data/nuts/train/good/{at:03d}.png", f"data/nuts/train/good/{at:03d}.gif"
        )
        for at in range(4)
      ),
    ),
    f"{trees.NUTS}/train/good holds no images: found .gif, expected {trees.FORMS}. "
    "Convert the files.",
  ),
  trees.Case(
    "an empty validation folder",
    trees.both(
      *(trees.remove(f"data/nuts/validation/good/{at:03d}.png") for at in range(2)),
    ),
    f"{trees.NUTS}/validation/good holds no images; found nothing. Put normal images "
    "into it, or remove the folder.",
  ),
  trees.Case(
    "one validation image",
    trees.remove("data/nuts/validation/good/001.png"),
    "nuts has 1 validation images; the calibration needs 2 or more. Add normal images "
    "to its validation folder or, where it has none, to train; or raise "
    "config.data.validation_fraction.",
  ),
  trees.Case(
    "one training image and no validation folder",
    trees.both(
      trees.remove("data/nuts/validation"),
      *(trees.remove(f"data/nuts/train/good/{at:03d}.png") for at in range(1, 4)),
    ),
    f"{trees.NUTS} has a single training image and no validation folder, so none can "
    "be held out. Add images.",
  ),
  trees.Case(
    "no defects_config.json",
    trees.remove(trees.CONFIG),
    f"HERE/{trees.CONFIG} cannot be read (No such file or directory). The MVTec LOCO "
    "AD layout has one defects_config.json in each category's folder.",
  ),
  trees.Case(
    "defects_config.json cut short",
    trees.cut(trees.CONFIG),
    f"HERE/{trees.CONFIG} is not valid JSON: ...",
  ),
  trees.Case(
    "defects_config.json lists a value twice",
    defects({}, {"defect_name": "bent"}),
    f"HERE/{trees.CONFIG} gives pixel_value [255] to more than one defect.",
  ),
  trees.Case(
    "defects_config.json has a value of 300",
    defects({"pixel_value": 300}),
    f"HERE/{trees.CONFIG}, entry 0: pixel_value is 300; expected 1 to 255.",
  ),
  trees.Case(
    "an unknown category",
    trees.both(),
    "The category is 'nut'; HERE/data has nuts. Did you mean 'nuts'?",
    ("data.category=nut",),
  ),
  trees.Case(
    "an unknown layout",
    trees.both(),
    "config.data.layout is 'locos'; expected one of ('auto', 'loco', 'mvtec_ad', "
    "'plain').",
    ("data.layout=locos",),
  ),
  trees.Case(
    "a data folder that is not there",
    trees.both(),
    "The data folder HERE/lost does not exist; HERE holds data/, maps/. Change the "
    "root: config.data.root, or --dataset of an evaluation.",
    ("data.root=HERE/lost",),
  ),
  trees.Case(
    "a category's folder whose name is not UTF-8",
    trees.move("data/nuts", f"data/{os.fsdecode(b'caf' + bytes([0xE9]))}"),
    "The folder of a category, HERE/data/caf\\xe9, has a name that is not UTF-8. "
    "Rename the folder.",
  ),
  trees.Case(
    "a test folder and masks whose names are not UTF-8",
    trees.both(
      *(
        trees.move(
          f"{place}/logical_anomalies", f"{place}/{os.fsdecode(b'w' + bytes([0xFF]))}"
        )
        for place in (trees.TEST, trees.TRUTH)
      ),
      *(
        trees.remove(f"{place}/structural_anomalies")
        for place in (trees.TEST, trees.TRUTH)
      ),
    ),
    trees.PASSED,
  ),
  trees.Case(
    "an archive as the data folder",
    trees.write("data.tar", b""),
    "The data folder HERE/data.tar is a file; unpack an archive first. ...",
    ("data.root=HERE/data.tar",),
  ),
  trees.Case(
    "an empty data folder",
    lambda here: (here / "none").mkdir(),
    "HERE/none holds no category; expected HERE/none/train or "
    "HERE/none/<category>/train, found nothing. ...",
    ("data.root=HERE/none",),
  ),
  trees.Case(
    "a region of another size",
    trees.image("region.png", trees.mask(size=(5, 16))),
    "9 of the 11 image and mask files cannot be used:\n"
    "HERE/region.png is 5 x 16 (height x width) but the image of "
    "nuts/train/good/000 is 12 x 16; a region must have its image's size.\n...",
    ("data.region=HERE/region.png",),
  ),
  trees.Case(
    "a region that is black all over",
    trees.image("region.png", trees.mask(value=0)),
    "9 of the 11 image and mask files cannot be used:\n"
    "HERE/region.png is black all over: nothing would be looked at.\n...",
    ("data.region=HERE/region.png",),
  ),
  trees.Case(
    "regions by image, of which one is missing",
    trees.image("regions/train/good/000.png", trees.mask()),
    "HERE/regions has no region for nuts/train/good/001; expected an image named "
    "nuts/train/good/001 or train/good/001 or 001.",
    ("data.region=HERE/regions",),
  ),
  trees.Case(
    "a region that is not there",
    trees.both(),
    "HERE/region.png does not exist; config.data.region is an image of where to look, "
    "or a folder with one for each image.",
    ("data.region=HERE/region.png",),
  ),
  trees.Case(
    "weights that are a pickle",
    trees.pickled("weights.safetensors"),
    "HERE/weights.safetensors is a pickle, which can run code when it is opened; it is "
    "refused. Convert it where torch is installed:\n...",
    ("encoder.weights=HERE/weights.safetensors",),
  ),
  trees.Case(
    "weights named .pth",
    trees.write("weights.pth", b"anything"),
    "HERE/weights.pth is a pickle, which can run code when it is opened; it is "
    "refused. ...",
    ("encoder.weights=HERE/weights.pth",),
  ),
  trees.Case(
    "weights cut short",
    tensors,
    "HERE/weights.safetensors is cut short, damaged or no safetensors file (...). Its "
    "size is 5000 bytes; compare with the original and copy it again.",
    ("encoder.weights=HERE/weights.safetensors",),
  ),
  trees.Case(
    "weights that are not there",
    trees.both(),
    "config.encoder.weights is 'HERE/lost.safetensors', which is no file; expected a "
    ".safetensors file, 'hub', 'builtin' or 'random'. In HERE there is: nothing.",
    ("encoder.weights=HERE/lost.safetensors",),
  ),
  trees.Case(
    "settings out of range",
    trees.both(),
    "config.image_size is 100; expected a positive multiple of 32, two of them as "
    "(height, width), or 'auto'.\n"
    "config.train.steps is 0; expected 1 or more.",
    ("image_size=100", "train.steps=0"),
  ),
  trees.Case(
    "a vision transformer with a ResNet's levels and sides",
    trees.both(),
    "config.image_size is 64; expected a positive multiple of 28, two of them as "
    "(height, width), or 'auto'.\n"
    "config.encoder.levels is (2, 3, 4); expected rising levels out of 1..12, such as "
    "(4,8,12), the highest at least 6.",
    ("encoder.name=dinov2_vits14", "encoder.levels=(2,3,4)", "encoder.deepest=0"),
  ),
  trees.Case(
    "a vision transformer with a ResNet's weights",
    resnet,
    "HERE/weights.safetensors is no file of dinov2_vits14: by its tensors it is of "
    "resnet18, ... Change config.encoder.name or config.encoder.weights.",
    (
      "encoder.name=dinov2_vits14",
      "encoder.levels=(4,8,12)",
      "encoder.deepest=0",
      "encoder.weights=HERE/weights.safetensors",
      "image_size=56",
    ),
  ),
)
