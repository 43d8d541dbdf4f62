"""Images centred at 0 and scaled to [-1, 1], each by its own pixels."""

from keras import ops


def standardize(x):
    """(x - mean) / max |x - mean| over the pixels and channels of each image.

    What is left of dividing by the standard deviation once the result is scaled to
    [-1, 1]: the deviation cancels. An image of one colour becomes 0. Of `keras.ops`,
    so x may be an array, a tensor or what a Keras model is made of.

    Args:
        x: [n, h, w, c] in [0, 1].

    Returns:
        [n, h, w, c] in [-1, 1], each image with mean 0.

    Source: e2SAD 2019, section 4.2.
    """
    centered = x - ops.mean(x, axis=(1, 2, 3), keepdims=True)
    largest = ops.max(ops.abs(centered), axis=(1, 2, 3), keepdims=True)
    # Less than a step of 8 bits is rounding of the mean.
    return centered / ops.maximum(largest, 1e-3)
