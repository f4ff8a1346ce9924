"""Public data sets: where they come from, under which terms, what they should hold.

Addresses, sums, sizes and counts are as public repositories have them; of publishers
themselves only AutoVI's gives sums, on Zenodo. None was held against a download of our
own: `fetch` does that, and says where something has changed.
"""

from collections.abc import Callable
import pathlib
from typing import NamedTuple

from nps_jax.data import arranging


class Archive(NamedTuple):
  """A file to download and unpack."""

  file: str
  url: str
  sum: str  # "sha256:..." or "md5:..."
  size: int  # bytes


class DataSet(NamedTuple):
  """One data set as its publisher offers it."""

  title: str
  size: int  # bytes, of all archives
  licence: str
  terms: str  # in a line
  page: str  # where to read more
  archives: tuple[Archive, ...] = ()
  record: str = ""  # instead of them: a Zenodo record's address in its API
  counts: tuple[tuple[str, tuple[int, ...]], ...] = ()  # by split, what is right
  arrange: Callable[[pathlib.Path], None] | None = None  # into folders that are read
  note: str = ""  # what to know of the folders


BY_NC_SA = "CC BY-NC-SA 4.0, https://creativecommons.org/licenses/by-nc-sa/4.0/"
RESEARCH = "research with attribution; no commercial use; share changes alike"


def single(
  title: str, url: str, sha256: str, size: int, page: str, file: str = ""
) -> DataSet:
  """A data set of one archive, under the licence that most have."""
  archive = Archive(file or url.rpartition("/")[2], url, f"sha256:{sha256}", size)
  return DataSet(title, size, BY_NC_SA, RESEARCH, page, (archive,))


MVTEC = "https://www.mvtec.com/company/research/datasets"
SHARES = "https://www.mydrive.ch/shares"

DATA_SETS = {
  # Address and sum: Anomalib (open-edge-platform/anomalib). Size, and the counts that
  # come second: one repository's own download. The paper's counts come first.
  "mvtec_loco": single(
    "MVTec LOCO AD",
    f"{SHARES}/48237/1b9106ccdfbb09a0c414bd49fe44a14a/download/"
    "430647091-1646842701/mvtec_loco_anomaly_detection.tar.xz",
    "9e7c84dba550fd2e59d8e9e231c929c45ba737b6b6a6d3814100f54d63aae687",
    6_126_996_224,
    f"{MVTEC}/mvtec-loco",
  )._replace(
    counts=(("train", (1772, 1778)), ("validation", (304, 305)), ("test", (1568,)))
  ),
  # Address and sum: Anomalib. Size and counts: several repositories' own downloads.
  "mvtec_ad": single(
    "MVTec AD",
    f"{SHARES}/150996/b52ecdcbf521176e9db9c731f2304b27/download/"
    "420938113-1629960298/mvtec_anomaly_detection.tar.xz",
    "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
    5_264_982_680,
    f"{MVTEC}/mvtec-ad",
  )._replace(counts=(("train", (3629,)), ("test", (1725,)))),
  # Address and sum: Anomalib. Size and counts: several repositories' own downloads. Of
  # the test images those of test_public alone, whose truth is public.
  "mvtec_ad_2": single(
    "MVTec AD 2",
    f"{SHARES}/150997/701c90d3aea6588f404936e32a674602/download/"
    "466712769-1743429042/mvtec_ad_2.tar.gz",
    "c0ded99ef32bfc8e352d52beb44515e5b292b8598cb963aadfa91ca0763505e4",
    32_739_596_982,
    f"{MVTEC}/mvtec-ad-2",
  )._replace(counts=(("train", (2528,)), ("validation", (302,)), ("test", (1084,)))),
  # Address and sum: Anomalib. Licence: the publisher's repository; Anomalib has CC
  # BY-NC-SA. Size: several repositories' own downloads. Counts: its split, of 9621
  # normal and 1200 anomalous images in all.
  "visa": single(
    "VisA",
    "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
    "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
    1_929_840_640,
    "https://github.com/amazon-science/spot-diff",
  )._replace(
    licence="CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
    terms="any use with attribution",
    arrange=arranging.visa,
    counts=(("train", (8659,)), ("test", (2162,))),
    note="Train and test folders are made as its own split_csv/1cls.csv says.",
  ),
  # Counts: the record's and the paper's. The record has sizes and MD5 sums, which are
  # read from it before the download, since they are not known here.
  "autovi": DataSet(
    "AutoVI",
    4_000_000_000,
    BY_NC_SA,
    RESEARCH,
    "https://zenodo.org/records/10459003",
    record="https://zenodo.org/api/records/10459003",
    counts=(("train", (1530,)), ("test", (2420,))),
  ),
  # Address and sum: Anomalib. Size: one repository, as the server reports it.
  "btad": single(
    "BTAD (beanTech)",
    "https://avires.dimi.uniud.it/papers/btad/btad.zip",
    "461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a",
    1_229_193_337,
    "https://github.com/pankajmishra000/VT-ADL",
  ),
  # Address and sum: Anomalib. Size: one repository's own download.
  "kolektor_sdd": single(
    "KolektorSDD",
    "https://go.vicos.si/kolektorsdd",
    "65dc621693418585de9c4467d1340ea7958a6181816f0dc2883a1e8b61f9d4dc",
    101_831_129,
    "https://www.vicos.si/resources/kolektorsdd/",
    "KolektorSDD.zip",
  )._replace(
    arrange=arranging.kolektor_sdd,
    note="Its publisher has no split without defects in training. This one is ours: "
    "images with a defect, and the others of every fifth item, are the tests.",
  ),
}
