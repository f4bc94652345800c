"""Which pictures a folder or a csv has, and of which class."""

from pathlib import Path

import pytest
from PIL import Image

from keras_models.images import decode, lists
from keras_models.images.decode import Preprocessing
from shufflelite.errors import InputError


def save_pictures(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / name)


def test_a_folder_is_searched_below_and_sorted(tmp_path: Path) -> None:
    save_pictures(tmp_path, "b/2.JPG", "a.webp", "b/1.Png", ".hidden.png", ".git/x.png")
    (tmp_path / "notes.txt").touch()
    listed = lists.find(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in listed.files] == [
        "a.webp",
        "b/1.Png",
        "b/2.JPG",
    ]
    assert listed.labels is None


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    save_pictures(tmp_path / "elsewhere", "cat/1.png", "cat/2.png")
    save_pictures(tmp_path / "pictures", "dog/1.png")
    (tmp_path / "pictures" / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    (tmp_path / "elsewhere" / "cat" / "all").symlink_to(tmp_path / "elsewhere")
    listed = lists.find(tmp_path / "pictures")
    assert [f.relative_to(tmp_path / "pictures").as_posix() for f in listed.files] == [
        "cat/1.png",
        "cat/2.png",
        "dog/1.png",
    ]


def test_class_folders_number_the_classes_even_where_one_is_empty(tmp_path: Path) -> None:
    save_pictures(tmp_path, "cat/1.png", "dog/1.png", "dog/2.png")
    (tmp_path / "cow").mkdir()
    (tmp_path / "fox").symlink_to(tmp_path / "nowhere")
    listed = lists.find(tmp_path, labels_from_folders=True)
    assert listed.class_names == ("cat", "cow", "dog", "fox")
    assert listed.labels == (0, 2, 2)


@pytest.mark.parametrize("name", ["a\nb", "a\u2028b", "a\x85b", "a\udcff"])
def test_a_class_whose_name_is_no_line_of_a_file_is_refused(name: str, tmp_path: Path) -> None:
    save_pictures(tmp_path, f"{name}/1.png")
    with pytest.raises(
        InputError, match=r"expected names of classes in one line of UTF-8, got 'a\\"
    ):
        lists.find(tmp_path, labels_from_folders=True)


@pytest.mark.parametrize("stray", ["stray.png", "dog/young/1.png"])
def test_class_folders_refuse_a_picture_elsewhere(stray: str, tmp_path: Path) -> None:
    save_pictures(tmp_path, "cat/1.png", stray)
    with pytest.raises(InputError, match=f"named after its class, found {stray}"):
        lists.find(tmp_path, labels_from_folders=True)


def test_a_folder_without_pictures_and_no_folder_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected pictures \(\.avif \.bmp .*\), found none"):
        lists.find(tmp_path)
    (tmp_path / "b.png").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"found 1 broken link or pipe \(first: b\.png\)"):
        lists.find(tmp_path)
    (tmp_path / "b.png").unlink()
    (tmp_path / "a.PDF").touch()
    with pytest.raises(InputError, match=r"found 1 \.pdf \(first: a\.PDF\)"):
        lists.find(tmp_path)
    with pytest.raises(InputError, match="found nothing of that name"):
        lists.find(tmp_path / "absent")


def test_pictures_are_found_whatever_their_ending_and_the_rest_is_counted_once(
    tmp_path: Path,
) -> None:
    kinds = {
        **{"cat/a.jpg": "JPEG", "cat/b.jfif": "JPEG", "cat/c.jpe": "JPEG", "cat/d.avif": "AVIF"},
        **{"dog/a.pgm": "PPM", "dog/b.jpg": "JPEG"},
    }
    for name, kind in kinds.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (9, 99, 199)).save(tmp_path / name, kind)
    for name in ("cat/IMG_1.HEIC", "cat/IMG_2.HEIC", "dog/Thumbs.db", "LICENSE"):
        (tmp_path / name).touch()
    warnings: list[str] = []
    listed = lists.find(tmp_path, labels_from_folders=True, warn=warnings.append)
    assert [file.relative_to(tmp_path).as_posix() for file in listed.files] == sorted(kinds)
    _, decoded = decode.read_files(
        listed.files, resolution=8, preprocessing=Preprocessing(), warn=warnings.append
    )
    assert decoded == [*range(len(kinds))]
    assert warnings == [
        f"{tmp_path}: left out what is no picture, or of a kind not read: 2 .heic, 1 no ending, "
        "1 .db (first: LICENSE); .heic needs pip install pillow-heif"
    ]


@pytest.mark.parametrize(
    "header",
    [
        "file,label",
        " File , Label ",
        "file;label",
        "x;file; label",
        "label\tfile",
        '"label", "file"',
    ],
)
def test_headers_of_spreadsheets_are_read(header: str, tmp_path: Path) -> None:
    save_pictures(tmp_path, "a b.png", "c.png")
    delimiter = next(d for d in ";\t," if d in header)
    names = [name.strip(' "').lower() for name in header.split(delimiter)]
    lines = [
        f" {delimiter}".join({"file": name, "label": label}.get(key, "-") for key in names)
        for name, label in (("a b.png", "1"), ("c.png", " 0"))
    ]
    (tmp_path / "list.csv").write_text("\n".join([header, *lines]))
    listed = lists.find(tmp_path / "list.csv")
    assert listed.files == (tmp_path / "a b.png", tmp_path / "c.png")
    assert listed.labels == (1, 0)


def test_a_csv_gives_files_beside_it_and_labels(tmp_path: Path) -> None:
    save_pictures(tmp_path, "sub/a b.png", "c.png")
    text = '\ufeffname,label,filename\n"x, y", 7 ,sub/a b.png\n\nz,0,c.png\n'
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    listed = lists.find(tmp_path / "list.csv")
    assert listed.files == (tmp_path / "sub/a b.png", tmp_path / "c.png")
    assert listed.labels == (7, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label\na.png,1\n", "expected a header with one of file, filename, path, got image"),
        ("", "got an empty file"),
        ("file\n", "found only the header"),
        ("file\na.png\n\nb.png\nc.png\n", "line 4: 'b.png' is not a file; 2 of its 3 files are"),
        ("file,label\na.png,1\na.png,-1\n", "line 3: expected a label that is an .* got '-1'"),
        ("file,label\na.png,1.0\n", "line 2: expected a label that is an integer >= 0, got '1.0'"),
        ("file,label\na.png\n", "line 2: expected a label .* got None"),
        ("file,label\na.png," + "9" * 5000, "line 2: expected a label .* got '9{99}\\.$"),
        ("a" * 9000 + ",label\n", r"got a{300}\.\.\.\.$"),
        ('"a\nb",label\n', r"got a b, label\.$"),
        ("file\n" + "a" * 9000, r"expected a csv file with a header \(File name too long\)\.$"),
        ("file\n\xff\xfe", "expected a csv file"),
    ],
)
def test_a_wrong_csv_is_refused_with_the_line(text: str, message: str, tmp_path: Path) -> None:
    save_pictures(tmp_path, "a.png")
    (tmp_path / "list.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        lists.find(tmp_path / "list.csv")
