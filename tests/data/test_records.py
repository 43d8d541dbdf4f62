import os
import struct
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
from array_record.python.array_record_module import ArrayRecordWriter

from tests.data import directories
from tfadv import data
from tfadv.data import records
from tfadv.data.records import Examples, ImageRecords, RecordLabels, Records
from tfadv.errors import RunError

LENGTHS = [3, 1, 4]
# The last ones end in zeros, which must not be lost.
CONTENTS = [bytes([i]) * (i + 1) for i in range(1, 7)] + [b"", b"ab\0\0"]
FORMATS = ["array_record", "tfrecord"]


def write_file(path, contents, file_format):
    if file_format == "tfrecord":
        with tf.io.TFRecordWriter(str(path)) as writer:
            for content in contents:
                writer.write(content)
        return
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for content in contents:
        writer.write(content)
    writer.close()


def write(folder, file_format, contents=CONTENTS):
    """Files of 3, 1 and 4 records."""
    paths = [folder / f"{i}.{file_format}" for i in range(len(LENGTHS))]
    ends = np.cumsum(LENGTHS)
    for path, end, length in zip(paths, ends, LENGTHS, strict=True):
        write_file(path, contents[end - length : end], file_format)
    return paths


@pytest.fixture(params=FORMATS)
def file_format(request):
    return request.param


@pytest.fixture
def paths(tmp_path, file_format):
    return write(tmp_path, file_format)


def test_any_record_of_any_file(paths, file_format):
    found = Records(paths, LENGTHS, file_format=file_format)
    assert len(found) == 8
    for position in (7, 0, 3, 2, 6, 4, 7, 1, 5):
        assert found.read(np.int64(position)) == CONTENTS[position]


@pytest.mark.parametrize("position", [-1, 8])
def test_no_other_records(paths, file_format, position):
    found = Records(paths, LENGTHS, file_format=file_format)
    with pytest.raises(IndexError, match=f"record {position} of 8"):
        found.read(position)


def test_no_files():
    assert len(Records([], [])) == 0


def test_more_files_than_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "OPEN_FILES", 4)
    files = [tmp_path / str(i) for i in range(20)]
    for i, path in enumerate(files):
        write_file(path, [b"first", str(i).encode()], "array_record")
    before = len(os.listdir("/proc/self/fd"))
    found = Records(files, [2] * 20)
    assert [found.read(2 * i + 1) for i in range(20)] == [b"%d" % i for i in range(20)]
    assert len(os.listdir("/proc/self/fd")) <= before + 4


def test_several_threads_at_once(paths, file_format):
    found = Records(paths, LENGTHS, file_format=file_format)
    wrong = []

    def look(seed):
        for position in np.random.default_rng(seed).integers(0, 8, 200):
            if found.read(position) != CONTENTS[position]:
                wrong.append(position)

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("expected", [3, 5])
def test_another_number_of_records(paths, file_format, expected):
    message = f"2.{file_format} has 4 of {expected} examples"
    with pytest.raises(ValueError, match=message):
        Records(paths, [3, 1, expected], file_format=file_format)


def cut(share):
    def change(path):
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return change


DAMAGES = {
    "removed": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut off": cut(0.6),
    "without its last bytes": cut(0.97),
    "a text": lambda path: path.write_text("Not found\n" * 50),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_show_when_they_are_opened(paths, file_format, damage):
    DAMAGES[damage](paths[2])
    with pytest.raises((ValueError, OSError)):
        Records(paths, LENGTHS, file_format=file_format)


def test_a_length_that_leads_out_of_the_file(tmp_path):
    """3 records of 10 bytes take 26 each; the second says that it has 1,000."""
    path = tmp_path / "it"
    write_file(path, [b"0123456789"] * 3, "tfrecord")
    content = bytearray(path.read_bytes())
    assert len(content) == 3 * 26
    content[26:34] = struct.pack("<Q", 1000)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="it is cut off"):
        Records([path], [3], file_format="tfrecord")


def test_a_file_that_is_cut_off_later(tmp_path):
    path = tmp_path / "it"
    write_file(path, [b"0123456789"] * 3, "tfrecord")
    found = Records([path], [3], file_format="tfrecord")
    path.write_bytes(path.read_bytes()[:60])
    assert found.read(1) == b"0123456789"
    with pytest.raises(ValueError, match="it is cut off"):
        found.read(2)


# Examples.


IMAGES = directories.photographs(11)


@pytest.fixture
def examples(tmp_path, file_format):
    """Images 0 .. 10 in three files, with labels 0 .. 9, 0."""
    directories.write(tmp_path, {"train": IMAGES}, file_format=file_format)
    return data.get("imagenette").read("train", str(tmp_path))


def test_images_and_labels_are_those_that_were_written(examples):
    assert isinstance(examples.x, ImageRecords) and isinstance(examples.y, RecordLabels)
    assert examples.x.shape == (11, None, None, 3) and examples.x.dtype == np.uint8
    assert examples.y.shape == (11,) and examples.y.dtype == np.int32
    assert examples.source_index.tolist() == list(range(11))
    for i in (10, 3, 0, -2):
        np.testing.assert_array_equal(examples.x[i], IMAGES[i])
    for found, expected in zip(examples.x[2:9:3], IMAGES[2:9:3], strict=True):
        np.testing.assert_array_equal(found, expected)
    assert np.asarray(examples.y).tolist() == [*range(10), 0]


def test_what_is_taken_stays_together(examples):
    taken = examples.take(np.array([9, 4, 10])).take(np.array([True, False, True]))
    assert taken.y[:].shape == (2,) and tf.constant(taken.y).numpy().tolist() == [9, 0]
    assert taken.source_index.tolist() == [9, 10]
    np.testing.assert_array_equal(taken.x[1], IMAGES[10])


def test_labels_are_compared_and_counted_as_arrays(examples):
    y = examples.y
    np.testing.assert_array_equal(y == 0, np.arange(11) % 10 == 0)
    np.testing.assert_array_equal(np.arange(11) - y, [0] * 10 + [10])
    assert y[:, None].shape == (11, 1)
    assert np.bincount(y).tolist() == [2] + [1] * 9
    assert set(y) == set(range(10))
    assert examples.take(y == 0).source_index.tolist() == [0, 10]
    assert np.asarray(y, np.float64).dtype == np.float64
    assert (y[3], y[-1]) == (3, 0) and y[3].dtype == np.int32


def count_reads(monkeypatch):
    """The positions that are read, as they are."""
    seen, read = [], Records.read

    def note(self, position):
        seen.append(int(position))
        return read(self, position)

    monkeypatch.setattr(Records, "read", note)
    return seen


def test_nothing_is_read_before_it_is_needed(examples, monkeypatch):
    seen = count_reads(monkeypatch)
    few = examples.take(slice(1, 9)).take(np.arange(8) % 2 == 1)
    small = few.x.map(lambda x: x[:4, :4], (4, 4, 3))[1:, 1:, 2:]
    assert small.shape == (3, 3, 2, 3) and not seen
    np.testing.assert_array_equal(small, [IMAGES[i][1:4, 2:4] for i in (4, 6, 8)])
    assert sorted(seen) == [4, 6, 8]


def test_every_label_is_read_once(examples, monkeypatch):
    seen = count_reads(monkeypatch)
    assert np.asarray(examples.y[2:5]).tolist() == [2, 3, 4]
    assert sorted(seen) == [2, 3, 4]
    # That of an image came with it.
    examples.x[7]
    assert sorted(seen) == [2, 3, 4, 7]
    assert (examples.y[3], examples.y[7]) == (3, 7)
    assert np.asarray(examples.y[[7, 2, 7]]).tolist() == [7, 2, 7]
    assert len(seen) == 4


def test_the_memory_does_not_grow_with_the_set(tmp_path):
    """Of 7 MB of noise, which does not shrink in files, one batch at a time."""
    sides = (200, 200)
    images = directories.photographs(60, sides=sides)
    directories.write(tmp_path, {"train": images}, per_file=60)
    read = data.get("imagenette").read
    read("train", str(tmp_path))
    tracemalloc.start()
    found = read("train", str(tmp_path))
    opened, _ = tracemalloc.get_traced_memory()
    x = found.x.map(lambda x: x, (*sides, 3))
    for start in range(0, 60, 5):
        np.asarray(x[start : start + 5])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = images[0].nbytes
    assert opened < 10 * size and 5 * size < peak < 30 * size


def test_images_of_different_sizes_are_no_array(examples):
    for convert in (np.asarray, tf.constant):
        with pytest.raises(ValueError, match="`map` them to one size first"):
            convert(examples.x)
    with pytest.raises(IndexError, match="only by images where they differ in size"):
        examples.x[:, 1:3]


def test_a_record_that_is_no_example_is_named(tmp_path):
    write_file(tmp_path / "it", [b"Not found"] * 2, "array_record")
    read = Records([tmp_path / "it"], [2])
    broken = Examples(read, what="some train", advice="Get it.")
    message = r"some train is damaged: example 1 cannot be read\. Get it\."
    for values in (ImageRecords(broken, (None, None, 3)), RecordLabels(broken)):
        with pytest.raises(RunError, match=message):
            values[1]
    with pytest.raises(RunError, match=r"cannot be read: .*\. Get it\."):
        broken._example(1)


def test_an_image_that_cannot_be_decoded_is_named(tmp_path):
    feature = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"Not found"])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[3])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    write_file(tmp_path / "it", [example.SerializeToString()], "array_record")
    read = Records([tmp_path / "it"], [1])
    broken = Examples(read, what="some train", advice="Get it.")
    assert RecordLabels(broken)[0] == 3
    with pytest.raises(RunError, match="example 0 cannot be read"):
        ImageRecords(broken, (None, None, 3))[0]


def test_images_of_another_size_than_promised(tmp_path):
    """Larger ones are not cut, either."""
    directories.write(
        tmp_path,
        {"train": directories.photographs(1, sides=(40, 32))},
        name="imagenet_resized",
        config="32x32",
        version="0.1.0",
    )
    found = data.get("imagenet_resized_32x32").read("train", str(tmp_path))
    assert found.x.shape == (1, 32, 32, 3)
    with pytest.raises(RunError, match="example 0 cannot be read"):
        np.asarray(found.x)


AT_EXIT = """
import sys
from tfadv import data
from tfadv.data import Inception, pipeline

images = data.get("imagenette").read("train", sys.argv[1])
reading = [
    iter(
        pipeline.batches(
            images,
            batch_size=4,
            seed=seed,
            start=0,
            stop=10**6,
            augment=Inception(size=8),
        )
    )
    for seed in range(4)
]
for _ in range(50):
    for iterator in reading:
        next(iterator)
"""


def test_a_process_ends_while_it_reads_ahead(tmp_path):
    """Unless the reading stops first, Python aborts or hangs, often if not always."""
    directories.write(tmp_path, {"train": IMAGES})
    script = [sys.executable, "-c", AT_EXIT, tmp_path]
    found = subprocess.run(script, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
