import numpy as np
import pytest

from tfadv.evaluation.confusion import confusion_matrix, one_off


def test_rows_are_true_classes_and_columns_predictions():
    found = confusion_matrix([0, 0, 1, 2, 2, 2], [0, 2, 1, 2, 0, 0], 4)
    expected = [[1, 0, 1, 0], [0, 1, 0, 0], [2, 0, 1, 0], [0, 0, 0, 0]]
    assert found.tolist() == expected


def test_it_counts_every_example_once():
    random = np.random.default_rng(0)
    labels, predictions = random.integers(0, 8, (2, 500))
    found = confusion_matrix(labels, predictions, 8)
    assert found.shape == (8, 8) and found.dtype == np.int64
    np.testing.assert_array_equal(found.sum(1), np.bincount(labels, minlength=8))
    np.testing.assert_array_equal(found.sum(0), np.bincount(predictions, minlength=8))
    assert np.trace(found) == np.count_nonzero(labels == predictions)


def test_no_examples():
    assert confusion_matrix([], [], 3).tolist() == [[0] * 3] * 3


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([0, 1], [0], r"one length; received the shapes \(2,\) and \(1,\)"),
        ([[0, 1]], [[0, 1]], r"received the shapes \(1, 2\) and \(1, 2\)"),
        ([0, 3], [0, 1], "`labels` must be from 0 to 2; received 0 to 3"),
        ([0, 1], [-1, 1], "`predictions` must be from 0 to 2; received -1 to 1"),
    ],
)
def test_classes_that_cannot_be(labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(labels, predictions, 3)


def test_one_off_by_hand():
    """Right or beside: 10 + 2, then 1 + 4 + 3, then 5 + 6, then 8: 39 of 50."""
    confusion = [[10, 2, 0, 7], [1, 4, 3, 0], [2, 5, 6, 0], [1, 1, 0, 8]]
    assert one_off(confusion) == 39 / 50


def test_the_first_and_the_last_class_are_no_neighbours():
    """Seven of eight groups are one too high; the last is taken for the first."""
    labels = np.arange(8)
    assert one_off(confusion_matrix(labels, (labels + 1) % 8, 8)) == 7 / 8
    assert one_off(confusion_matrix(labels, labels, 8)) == 1.0
    assert one_off(confusion_matrix(labels, (labels + 2) % 8, 8)) == 0.0


def test_it_is_the_share_of_distances_up_to_one():
    random = np.random.default_rng(1)
    labels, predictions = random.integers(0, 8, (2, 300))
    expected = np.mean(np.abs(labels - predictions) <= 1)
    found = one_off(confusion_matrix(labels, predictions, 8))
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("confusion", "message"),
    [
        (np.ones((2, 3)), r"shape \[C, C\]; received \(2, 3\)"),
        (np.ones(4), r"received \(4,\)"),
        (np.zeros((8, 8)), "at least one example"),
    ],
)
def test_no_confusion_matrix(confusion, message):
    with pytest.raises(ValueError, match=message):
        one_off(confusion)
