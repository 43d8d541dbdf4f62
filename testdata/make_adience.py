"""Writes testdata/adience: the layout of Adience with a few dozen drawn faces.

    python testdata/make_adience.py

Nobody is in these pictures: each is a circle with eyes, mouth and hair. Age shows in
the size of the head, the colour of hair and skin, and the lines on the forehead. There
are four people in each of the five folds, with three pictures each; then what the real
files have as well: labels beside the eight, none, a picture that is not there (fold 1)
and one that is cut off (fold 3).
"""

import pathlib
import shutil

import numpy as np
from PIL import Image, ImageDraw

HERE = pathlib.Path(__file__).resolve().parent
SIDE = 40
HEADER = (
    "user_id\toriginal_image\tface_id\tage\tgender\tx\ty\tdx\tdy\t"
    "tilt_ang\tfiducial_yaw_angle\tfiducial_score"
)
GROUPS = [
    *["(0, 2)", "(4, 6)", "(8, 12)", "(15, 20)"],
    *["(25, 32)", "(38, 43)", "(48, 53)", "(60, 100)"],
]
# Further rows of each fold: the label, and the group that is drawn.
BESIDE = [
    [("(25, 23)", 4), ("None", 2)],
    [("35", 5), ("(8, 12)", 2)],
    [("None", 0), ("None", 6), ("(27, 32)", 4)],
    [("58", 7), ("(48, 53)", 6)],
    [("(38, 42)", 5)],
]
# Fold and the number of the row in it.
MISSING, CUT_OFF = (1, 13), (3, 13)


def main(directory=HERE / "adience"):
    directory = pathlib.Path(directory)
    shutil.rmtree(directory, ignore_errors=True)
    random = np.random.default_rng(0)
    for fold in range(5):
        rows = [HEADER]
        for i, (user, age, group) in enumerate(faces(fold)):
            name = f"{1000 * fold + i}_{random.integers(16**10):010x}_o.jpg"
            turned = "\t".join(map(str, random.integers(0, 90, 7)))
            rows.append(f"{user}\t{name}\t{i % 3 + 1}\t{age}\t{'fm'[i % 2]}\t{turned}")
            path = directory / "aligned" / user
            path.mkdir(parents=True, exist_ok=True)
            path /= f"landmark_aligned_face.{i % 3 + 1}.{name}"
            picture = draw(group, random)
            if (fold, i) != MISSING:
                picture.save(path, quality=90)
            if (fold, i) == CUT_OFF:
                path.write_bytes(path.read_bytes()[:400])
        text = "\n".join(rows) + "\n"
        (directory / f"fold_{fold}_data.txt").write_text(text)


def faces(fold):
    """(user, label, group drawn) of every row: a person stays near one age."""
    rows = []
    for i in range(12):
        user = f"{fold}{i // 3}000@N0{fold}"
        group = (2 * (i // 3) + (i % 3 + fold) % 2) % 8
        rows.append((user, GROUPS[group], group))
    last = rows[-1][0]
    return rows + [(last, label, group) for label, group in BESIDE[fold]]


def draw(group, random):
    """A face of the group 0 .. 7, four times as large and then reduced."""
    side = 4 * SIDE
    back = tuple(int(v) for v in random.integers(60, 200, 3))
    image = Image.new("RGB", (side, side), back)
    canvas = ImageDraw.Draw(image)
    age = group / 7
    x, y = side / 2 + random.integers(-6, 7, 2)
    radius = side * (0.24 + 0.2 * min(1, 2 * age)) + random.integers(-2, 3)

    def oval(dx, dy, rx, ry, fill):
        box = (x + dx - rx, y + dy - ry, x + dx + rx, y + dy + ry)
        canvas.ellipse(box, fill=fill)

    hair = mix((90, 50, 20), (235, 235, 235), max(0, 2 * age - 1))
    oval(0, -0.25 * radius, radius, radius * (0.8 + 0.3 * min(1, 3 * age)), hair)
    skin = mix((255, 205, 190), (200, 160, 110), age)
    oval(0, 0.1 * radius, 0.85 * radius, radius, skin)
    for way in (-1, 1):
        eye = radius * (0.24 - 0.1 * age)
        oval(way * 0.38 * radius, 0, eye, eye, (255, 255, 255))
        oval(way * 0.38 * radius, 0, eye / 2, eye / 2, (30, 40, 60))
    oval(0, 0.6 * radius, 0.3 * radius, 0.1 * radius, (170, 50, 60))
    line = mix(skin, (70, 40, 20), 0.8)
    for i in range(max(0, group - 3)):
        height = y - (0.3 + 0.12 * i) * radius
        ends = (x - 0.45 * radius, height, x + 0.45 * radius, height)
        canvas.line(ends, fill=line, width=4)
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)


def mix(first, second, share):
    share = min(1, max(0, share))
    return tuple(round(a + share * (b - a)) for a, b in zip(first, second, strict=True))


if __name__ == "__main__":
    main()
