"""Tiny look-alikes of every dataset form, with drawn faces. Each writer returns the rows that a source should read:
(split, label or None), in the source's order."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from builders import drawn_face

AFFECTNET = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
FER2013 = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
FER_FOLDERS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
USAGES = ("Training", "Training", "Training", "PublicTest", "PrivateTest")
SPLITS = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")


def picture(path: Path, seed: int = 0, size: int = 32) -> None:
    """Write a drawn face, making its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(drawn_face(size, seed=seed), cv2.COLOR_RGB2BGR))


def png(seed: int = 0, size: int = 32) -> bytes:
    """An encoded drawn face."""
    return cv2.imencode(".png", drawn_face(size, seed=seed)[..., ::-1])[1].tobytes()


def pixels(seed: int) -> str:
    """A grey drawn face of 48x48 as FER2013 writes it."""
    return " ".join(map(str, cv2.cvtColor(drawn_face(48, seed=seed), cv2.COLOR_RGB2GRAY).ravel()))


def table(path: Path, header, rows) -> None:
    """Write a CSV; no header line if `header` is None."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        if header:
            file.write(header + "\n")
        out.writerows(rows)


def landmarks(count: int = 68) -> str:
    """x;y;x;y..."""
    return ";".join(f"{i}.5;{2 * i}" for i in range(count))


AFFECTNET_HEADER = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
)


def affectnet(root: Path, header: bool = True):
    """First release: codes 0 to 10, of which 8, 9 and 10 are no expression."""
    for name, count in (("training", 11), ("validation", 8)):
        rows = []
        for i in range(count):
            image = f"{i % 3}/{name}{i}.jpg"
            picture(root / "Manually_Annotated_Images" / image, i)
            affect = (-2, -2) if i >= 7 else (i / 10, -i / 10)
            rows.append((image, 2, 3, 20, 24, landmarks(), i, *affect))
        table(root / f"{name}.csv", AFFECTNET_HEADER if header else None, rows)
    return [(split, label) for split in ("train", "validation") for label in AFFECTNET]


def affectnet2021(root: Path):
    """2021 release: numbers stored as NumPy strings."""
    for word in ("train_set", "val_set"):
        for i in range(12):
            picture(root / word / "images" / f"{i}.jpg", i)
            folder = root / word / "annotations"
            folder.mkdir(exist_ok=True)
            np.save(folder / f"{i}_exp.npy", np.array(str(i % 8)))
            np.save(folder / f"{i}_val.npy", np.array("-2" if i == 7 else f"{i / 20:.6f}"))
            np.save(folder / f"{i}_aro.npy", np.array(f"-{i / 20:.6f}"))
            np.save(folder / f"{i}_lnd.npy", np.array([f"{j}.25" for j in range(136)]))
    return [(split, AFFECTNET[i % 8]) for split in ("train", "validation") for i in range(12)]


def affectnet_kaggle(root: Path):
    """labels.csv over class folders; two rows lie in the folder of another class."""
    words = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
    rows = []
    for i in range(16):
        folder = words[(i + (i in (3, 5))) % 8]
        picture(root / folder / f"image{i:07}.png", i)
        rows.append((i, f"{folder}/image{i:07}.png", words[i % 8], 0.87))
    table(root / "labels.csv", ",pth,label,relFCs", rows)
    return [("train", AFFECTNET[i % 8]) for i in range(16)]


def huggingface_parquet(path: Path, codes, names=None, column: str = "label"):
    """A Parquet file in the Hugging Face image layout; `names` go into its metadata."""
    rows = [{"image": {"bytes": png(i), "path": None}, column: c} for i, c in enumerate(codes)]
    made = pa.Table.from_pylist(rows)
    if names is not None:
        features = {"image": {"_type": "Image"}, column: {"names": list(names), "_type": "ClassLabel"}}
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(made, path)


HQ_NAMES = ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise")


def affectnet_hq(root: Path):
    """Two Parquet files in `data`."""
    for part in range(2):
        huggingface_parquet(root / "data" / f"train-0000{part}-of-00002.parquet", range(7), HQ_NAMES)
    return [("train", n) for n in ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")] * 2


def rafdb(root: Path):
    """The list and the aligned pictures, as in basic/."""
    order = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
    lines = []
    for split, count in (("train", 14), ("test", 7)):
        for i in range(count):
            picture(root / "basic" / "Image" / "aligned" / f"{split}_{i + 1:05}_aligned.jpg", i)
            lines.append(f"{split}_{i + 1:05}.jpg {i % 7 + 1}")
    path = root / "basic" / "EmoLabel" / "list_patition_label.txt"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines) + "\n")
    return [(split, order[i % 7]) for split, count in (("train", 14), ("test", 7)) for i in range(count)]


def ckplus(root: Path):
    """CK+48's folders; three frames of each of two subjects per class."""
    names = {"anger": "anger", "contempt": "contempt", "disgust": "disgust", "fear": "fear", "happy": "happiness", "sadness": "sadness", "surprise": "surprise"}  # fmt: skip
    for at, word in enumerate(names):
        for i in range(6):
            picture(root / word / f"S{10 + at + i // 3:03}_004_{i:08}.png", i, 48)
    return [("train", label) for label in names.values() for _ in range(6)]


def expw(root: Path):
    """label.lst; the first picture holds two faces."""
    order = FER2013
    lines = []
    for i in range(8):
        name = f"angry_actor_{max(i - 1, 0)}.jpg"
        picture(root / "image" / "origin" / name, i, 96)
        lines.append(f"{name} {i if i < 2 else 0} {10 + i} {20 + i} {60 + i} {90 + i} 34.5 {i % 7}")
    (root / "label").mkdir()
    (root / "label" / "label.lst").write_text("\n".join(lines))
    return [("train", order[i % 7]) for i in range(8)]


EXPR = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"


def _video(root: Path, folder: str, name: str, header: str, lines, gone=()) -> None:
    for i in range(1, len(lines) + 1):
        if i not in gone:
            picture(root / "cropped_aligned" / name / f"{i:05}.jpg", i)
    path = root / folder / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *lines]))


def abaw_expr(root: Path):
    """Two videos; one line is not annotated, one frame has no picture."""
    _video(root, "EXPR/Train_Set", "v1_left", EXPR, ["0", "-1", "1", "7"], gone=(3,))
    _video(root, "EXPR/Validation_Set", "v2", EXPR, ["4", "6"])
    return [("train", "neutral"), ("train", "other"), ("validation", "happiness"), ("validation", "surprise")]


def abaw_va(root: Path):
    """Two videos; one line is not annotated."""
    _video(root, "VA/Train_Set", "v1_right", "valence,arousal", ["0.5,-0.25", "-5,-5", "1,0"])
    _video(root, "VA/Validation_Set", "v2", "valence,arousal", ["-1,1"])
    return [("train", None)] * 2 + [("validation", None)]


def sfew(root: Path):
    """Train and Val over seven classes."""
    words = {"Angry": "anger", "Disgust": "disgust", "Fear": "fear", "Happy": "happiness", "Neutral": "neutral", "Sad": "sadness", "Surprise": "surprise"}  # fmt: skip
    for split in ("Train", "Val"):
        for word in words:
            for i in range(2):
                picture(root / split / word / f"Film_{i:09}_{i:08}.png", i)
    return [(split, label) for split in ("train", "validation") for label in words.values() for _ in range(2)]


def fer2013_rows(count: int = 35):
    """(number, usage, code) in fer2013.csv's order: Training, then PublicTest, then PrivateTest."""
    usages = sorted((USAGES[i % 5] for i in range(count)), key=["Training", "PublicTest", "PrivateTest"].index)
    return [(i, usage, i % 7) for i, usage in enumerate(usages)]


def _fer2013_expected(rows):
    return [(SPLITS[usage], FER2013[code]) for _, usage, code in rows]


def fer2013_csv(root: Path):
    """fer2013.csv."""
    rows = fer2013_rows()
    table(root / "fer2013.csv", "emotion,pixels,Usage", [(c, pixels(i), u) for i, u, c in rows])
    return _fer2013_expected(rows)


def icml_csv(root: Path):
    """icml_face_data.csv: another order of columns, leading spaces in the header."""
    rows = fer2013_rows()
    table(root / "icml_face_data.csv", "emotion, Usage, pixels", [(c, u, pixels(i)) for i, u, c in rows])
    return _fer2013_expected(rows)


def competition_csv(root: Path):
    """train.csv with labels, test.csv without."""
    table(root / "train.csv", "emotion,pixels", [(i % 7, pixels(i)) for i in range(14)])
    table(root / "test.csv", "pixels", [(pixels(i),) for i in range(20, 24)])
    return [("train", FER2013[i % 7]) for i in range(14)] + [("test", None)] * 4


def fer2013_parquet(root: Path, voted: bool = False):
    """A Parquet file for each usage: by name PrivateTest comes first, by row number last."""
    rows = fer2013_rows()
    for usage in SPLITS:
        made = [
            {
                "image": {"bytes": cv2.imencode(".png", np.array(pixels(i).split(), np.uint8).reshape(48, 48))[1].tobytes(), "path": None},
                "row": i,
                "usage": u,
                "emotion": c,
                **(dict(zip(VOTES, votes(i), strict=True)) if voted else {}),
            }
            for i, u, c in rows
            if u == usage
        ]  # fmt: skip
        pq.write_table(pa.Table.from_pylist(made), root / f"{usage.lower()}.parquet")
    return _fer2013_expected(rows)


def votes(i: int) -> list[int]:
    """Ten votes with a clear majority, except every tenth row, which is mostly unknown."""
    found = [0] * 10
    found[8 if i % 10 == 9 else i % 8] = 7
    found[(i + 1) % 8] += 3
    return found


def ferplus_csv(root: Path):
    """fer2013.csv and fer2013new.csv; the number in an image's name is not the row."""
    fer2013_csv(root)
    rows = [(u, f"fer{i + 3:07}.png", *votes(i)) for i, u, _ in fer2013_rows()]
    table(root / "fer2013new.csv", ",".join(("Usage", "Image name", *VOTES)), rows)
    return _ferplus_expected()


def ferplus_parquet(root: Path):
    """FER2013's Parquet files, with the votes in them."""
    fer2013_parquet(root, voted=True)
    return _ferplus_expected()


def _ferplus_expected():
    return [(SPLITS[usage], VOTES[i % 8]) for i, usage, _ in fer2013_rows() if i % 10 != 9]


def msambare(root: Path):
    """Class folders; `test` holds PublicTest and PrivateTest, told apart by the name."""
    for i, usage, code in fer2013_rows():
        folder = "train" if usage == "Training" else "test"
        picture(root / folder / FER_FOLDERS[code] / f"{usage}_{90000 - i}.jpg", i, 48)


def jonathanoheix(root: Path):
    """images/train and images/validation: another split."""
    for split in ("train", "validation"):
        for i in range(14):
            picture(root / "images" / split / FER_FOLDERS[i % 7] / f"{i}.jpg", i, 48)


def class_folders(root: Path):
    """A folder per class: two expressions and a class of one's own."""
    for word in ("Happy", "sad", "yawning"):
        for i in range(3):
            picture(root / word / f"{i}.png", i)
    return [("train", "happiness")] * 3 + [("train", "sadness")] * 3 + [("train", "yawning")] * 3


def split_folders(root: Path):
    """A folder per class below train, val and test."""
    for split in ("test", "train", "val"):
        for word in ("happiness", "neutral"):
            picture(root / split / word / "a" / "deep.png")
    return [(s, n) for s in ("test", "train", "validation") for n in ("happiness", "neutral")]


def csv_table(root: Path):
    """A CSV with every column; a Windows path, empty cells, two faces in a picture."""
    for i in range(4):
        picture(root / "pictures" / f"{i}.png", i, 96)
    rows = [
        ("pictures/0.png", "happy", 0.5, 0.25, "train", "ann", "1,2,30,40", landmarks(5)),
        ("pictures\\1.png", "yawning", "", "", "val", "", "", landmarks(68)),
        ("pictures/2.png", "", -1, 1, "test", "bob", "5,6,30,40", ""),
        ("pictures/2.png", "neutral", "", "", "test", "bob", "40,6,70,40", ""),
    ]
    table(root / "faces.csv", "path,expression,valence,arousal,split,subject,box,landmarks", rows)
    return [("train", "happiness"), ("validation", "yawning"), ("test", None), ("test", "neutral")]


def parquet_table(root: Path):
    """A Parquet table with pictures inside, lists for box and landmarks."""
    rows = [
        {"image": {"bytes": png(i), "path": None}, "expression": w, "box": [1.0, 2.0, 20.0, 30.0], "landmarks": [1.5] * 10, "valence": 0.5}
        for i, w in enumerate(("happiness", "sadness", None))
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), root / "faces.parquet")
    return [("train", "happiness"), ("train", "sadness"), ("train", None)]


def huggingface(root: Path):
    """Three splits by file name, class names in the metadata, one unlabelled row."""
    for split in ("test", "train", "validation"):
        huggingface_parquet(root / "data" / f"{split}-00000-of-00001.parquet", (0, 1, -1), ("happy", "bored"))
    return [(s, n) for s in ("test", "train", "validation") for n in ("happiness", "bored", None)]


#: Every form: name -> (source, writer).
FORMS = {
    "affectnet with header": ("affectnet", affectnet),
    "affectnet without header": ("affectnet", lambda root: affectnet(root, header=False)),
    "affectnet 2021": ("affectnet2021", affectnet2021),
    "affectnet kaggle": ("affectnet-kaggle", affectnet_kaggle),
    "affectnet hq": ("affectnet-hq", affectnet_hq),
    "rafdb": ("rafdb", rafdb),
    "ckplus": ("ckplus", ckplus),
    "expw": ("expw", expw),
    "abaw expr": ("abaw-expr", abaw_expr),
    "abaw va": ("abaw-va", abaw_va),
    "sfew": ("sfew", sfew),
    "fer2013.csv": ("fer2013", fer2013_csv),
    "icml_face_data.csv": ("fer2013", icml_csv),
    "competition": ("fer2013", competition_csv),
    "fer2013 parquet": ("fer2013", fer2013_parquet),
    "msambare": ("fer2013", msambare),
    "jonathanoheix": ("fer2013", jonathanoheix),
    "ferplus csv": ("ferplus", ferplus_csv),
    "ferplus parquet": ("ferplus", ferplus_parquet),
    "class folders": ("folders", class_folders),
    "split folders": ("folders", split_folders),
    "csv table": ("table", csv_table),
    "parquet table": ("table", parquet_table),
    "huggingface": ("huggingface", huggingface),
}
