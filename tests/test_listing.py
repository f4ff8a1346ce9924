"""What a folder holds, and how messages name it."""

import pytest

from nps_jax.data import listing


def test_files_and_folders_are_sorted_and_hidden_ones_left_out(tmp_path):
  for name in ("b.png", "a.PNG", ".c.png", "notes.txt"):
    (tmp_path / name).touch()
  for name in ("z", "y", ".x"):
    (tmp_path / name).mkdir()
  (tmp_path / "y" / "d.webp").touch()
  (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
  names = ["a.PNG", "b.png", "gone.png", "notes.txt"]
  assert [each.name for each in listing.files(tmp_path)] == names
  assert [each.name for each in listing.images(tmp_path)] == [*names[:3], "d.webp"]
  assert [each.name for each in listing.folders(tmp_path)] == ["y", "z"]
  assert [each.name for each in listing.walk(tmp_path)] == [*names, "d.webp"]
  assert listing.contents(tmp_path) == "a.PNG, b.png, gone.png, notes.txt, y/, z/"
  assert listing.files(tmp_path / "no") == listing.folders(tmp_path / "no") == []


def test_folders_that_links_lead_into_are_walked_once(tmp_path):
  (tmp_path / "a" / "b").mkdir(parents=True)
  for name in ("a/x.png", "a/b/y.png", "z.png"):
    (tmp_path / name).touch()
  (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
  (tmp_path / "a" / "self").symlink_to(".")
  (tmp_path / "c").symlink_to("a")
  (tmp_path / "d").symlink_to("d")
  found = [each.relative_to(tmp_path).as_posix() for each in listing.walk(tmp_path)]
  assert found == ["d", "z.png", "a/x.png", "a/b/y.png"]


def test_a_folder_of_other_files_is_an_error(tmp_path):
  for name in ("a.gif", "b.gif", "README"):
    (tmp_path / name).touch()
  wanted = r"found \.gif, README, expected \.bmp, .*\.webp\. Convert"
  with pytest.raises(ValueError, match=wanted):
    listing.images(tmp_path)


def test_long_lists_are_cut():
  assert listing.some([]) == "nothing"
  assert listing.some([1, 2]) == "1, 2"
  assert listing.some(range(12)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"


def test_later_choices_only_where_the_first_clash():
  choices = [("a", "a.png", "x/a.png"), ("a", "a.jpg", "x/a.jpg"), ("b", "b.png", "-")]
  assert listing.distinct(choices) == ["a.png", "a.jpg", "b"]
  assert listing.distinct([*choices, ("a", "a.png", "y/a.png")]) == [
    *("x/a.png", "a.jpg", "b", "y/a.png"),
  ]
  # One image is called what another falls back to.
  assert listing.distinct([("a.png", "a.png.jpg"), *choices[:2]]) == [
    *("a.png.jpg", "x/a.png", "a.jpg"),
  ]
