"""Which classes are taken for which, and what counts as nearly right."""

import numpy as np


def confusion_matrix(labels, predictions, num_classes):
    """How many examples of class i are taken for class j.

    Args:
        labels: [n] integers, the true classes.
        predictions: [n] integers, what the model says.
        num_classes: C.

    Returns:
        [C, C] int64; row i is the true class i, column j the prediction j.

    Raises:
        ValueError: not as many labels as predictions; a class that is not 0 .. C - 1.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.ndim != 1 or labels.shape != predictions.shape:
        raise ValueError(
            "`labels` and `predictions` must be two lists of one length; received the "
            f"shapes {labels.shape} and {predictions.shape}"
        )
    for name, values in (("labels", labels), ("predictions", predictions)):
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            raise ValueError(
                f"`{name}` must be from 0 to {num_classes - 1}; received "
                f"{values.min()} to {values.max()}"
            )
    if not labels.size:
        return np.zeros((num_classes, num_classes), np.int64)
    # Slow to import, and most evaluations need none of it.
    from sklearn import metrics

    return metrics.confusion_matrix(labels, predictions, labels=range(num_classes))


def one_off(confusion):
    """The share of examples that get their own class or one beside it.

        sum_c sum_{|j - c| <= 1} confusion[c, j] / sum_{c, j} confusion[c, j]

    For classes with an order, such as groups of age. The first and the last class have
    one neighbour: the order does not go round.

    Args:
        confusion: [C, C], as `confusion_matrix` returns it.

    Returns:
        float in [0, 1].

    Raises:
        ValueError: not a square, or nothing was counted.

    Source: Liao 2018, equation 4.
    """
    confusion = np.asarray(confusion)
    if confusion.ndim != 2 or len(set(confusion.shape)) != 1:
        raise ValueError(
            f"`confusion` must have the shape [C, C]; received {confusion.shape}"
        )
    total = confusion.sum()
    if total <= 0:
        raise ValueError("`confusion` must count at least one example; received none")
    classes = np.arange(len(confusion))
    near = np.abs(classes[:, None] - classes) <= 1
    return float(confusion[near].sum() / total)
