"""Archives that would write outside of their folder, or are none."""

import io
import tarfile

import bad_trees as trees

COMMAND = ("data.tfds_loco", "--source=HERE/a.tar", "--out=HERE/prepared")
DAMAGED = "HERE/a.tar is damaged, cut short, or no tar archive (...). ..."


def packed(name, kind=tarfile.REGTYPE, target=""):
  """Writes an archive of a normal image's name and one member more."""

  def change(here):
    with tarfile.open(here / "a.tar", "w") as tar:
      tar.addfile(tarfile.TarInfo("nuts/train/good/000.png"), io.BytesIO())
      member = tarfile.TarInfo(name)
      member.type, member.linkname = kind, target
      tar.addfile(member, io.BytesIO())

  return change


def unsafe(title, member, reason, kind=tarfile.REGTYPE, target=""):
  sees = (
    f"HERE/a.tar is not safe to unpack; nothing was. Members: {member} ({reason})...."
  )
  return trees.Case(title, packed(member, kind, target), sees, COMMAND)


CASES = (  # whose first flag is the command
  unsafe("a member of an absolute path", "/tmp/evil", "an absolute path"),
  unsafe("a member of a path with ..", "nuts/../../evil", "a path with .."),
  unsafe(
    "a link that leaves the archive",
    *("nuts/out", "a link to ../../evil", tarfile.SYMTYPE, "../../evil"),
  ),
  unsafe(
    "a hard link that leaves the archive",
    *("nuts/hard", "a link to ../evil", tarfile.LNKTYPE, "../evil"),
  ),
  unsafe("a device in an archive", "disk", "a device or a pipe", tarfile.BLKTYPE),
  trees.Case("text named .tar", trees.write("a.tar", b"words" * 300), DAMAGED, COMMAND),
  trees.Case("an empty .tar", trees.write("a.tar", b""), DAMAGED, COMMAND),
)
