"""The Square Attack: random squares, kept where they help; no gradients."""

import dataclasses

import tensorflow as tf

from tfadv.attacks import core, norms, search

# After so many of 10,000 queries the share of the image that changes is halved.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
PLANNED = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Square:
    """Changes a random square of z and keeps what raises max_{c!=y} z_c - z_y.

    The square of query i covers the share p_i of the image: `p_init`, halved after 10,
    50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of 10,000 queries, or, with `rescale`,
    of as many as `queries` is in proportion.

    l-inf: starts from vertical stripes x +- eps; a square becomes x +- eps, with a
    random sign for each channel.

    l2: starts from tiles, each a bump of random sign for each channel, of norm eps
    together. A square W1 gets a pair of bumps of opposite signs, added to what is there
    (both of norm 1), of the size that a second square W2, which is emptied, W1 itself
    and the unused rest of eps make possible.

    An example stops when it is misclassified, the loop when all are. Where none was
    found the result is the image of the largest margin after the first. The model is
    asked for logits only. All examples of a batch share their random numbers, so that
    the result of one depends neither on the others nor on its place.

    Args:
        eps: radius of the ball, a number or a tensor [n, 1, 1, 1]; in l2 it is the
            norm of the whole image and may exceed 1.
        norm: `"linf"` or `"l2"`.
        queries: int, at most so many forward passes of an example.
        p_init: number in (0, 1].
        rescale: see above.

    Raises:
        ValueError: a number out of range.

    Source: Andriushchenko et al. 2020, Algorithms 1 to 3.
    """

    eps: float
    norm: norms.Norm = "linf"
    queries: int = 5000
    p_init: float = 0.8
    rescale: bool = True

    def __post_init__(self):
        core.check_eps(self.eps, norm=self.norm)
        core.check_counts(self, "queries")
        if not 0 < self.p_init <= 1:
            raise ValueError(f"`p_init` must be in (0, 1]; received {self.p_init:g}")

    def __call__(self, predict, x, y, seed=None):
        """Returns x_adv [n, h, w, c]; `seed` is required."""
        seed = core.as_seed(seed)
        x, y = tf.stop_gradient(x), search.hard_labels(y)
        eps = norms.sizes(self.eps, x)
        first, changed = {"linf": (_stripes, _patch), "l2": (_tiles, _bumps)}[self.norm]
        start = first(x, eps, core.fold(seed, 0))

        def body(i, state):
            # Only those that are not fooled are asked about.
            best, height = state
            rows = tf.where(height <= 0.0)
            few = [tf.gather_nd(part, rows) for part in (best, x, eps, y, height)]
            z, x_few, eps_few, y_few, old = few
            side = _side(self._share(i + 1), x, self.norm)
            tried = changed(z, x_few, eps_few, side, core.fold(seed, i + 1))
            now = search.margin(predict, tried, y_few)
            better = now > old
            z = tf.where(better[:, None, None, None], tried, z)
            best = tf.tensor_scatter_nd_update(best, rows, z)
            new = tf.where(better, now, old)
            return best, tf.tensor_scatter_nd_update(height, rows, new)

        state = (start, search.margin(predict, start, y))
        going = lambda state: tf.reduce_any(state[1] <= 0.0)  # noqa: E731
        best, _ = core.iterate(body, state, self.queries - 1, going)
        return tf.stop_gradient(best)

    def sweep(self, predict, x, y, sizes, seed=None):
        """x_adv for each eps of `sizes` in place of `eps`, in one graph."""
        return search.sweep_in_loop(self, predict, x, y, sizes, seed)

    def _share(self, query):
        """p of a query, counted from 1, as a scalar."""
        planned = self.queries if self.rescale else PLANNED
        done = tf.cast(query, tf.float32) * (PLANNED / planned)
        halvings = tf.reduce_sum(
            tf.cast(done > tf.constant(HALVINGS, tf.float32), "float32")
        )
        return self.p_init * 0.5**halvings


def _side(share, x, norm):
    """How long the side of a square is that covers this share of the image."""
    shape = tf.shape(x)
    area = share * tf.cast(shape[1] * shape[2], tf.float32)
    side = tf.cast(tf.round(tf.sqrt(area)), tf.int32)
    # A bump of less than three pixels has no centre.
    least = 1 if norm == "linf" else 3
    return tf.minimum(tf.maximum(side, least), tf.minimum(shape[1], shape[2]))


def _signs(shape, seed):
    """-1 or 1, equally likely, independent."""
    draw = tf.random.stateless_uniform(shape, seed, 0, 2, tf.int32, alg="philox")
    return tf.cast(2 * draw - 1, tf.float32)


def _corner(x, side, seed):
    """(row, column) of a square of this side, uniform over the image.

    As in the paper. Its published code never draws the last place in either way: there
    the last row and column stay as they were at the start, and more images withstand.
    """
    free = tf.shape(x)[1:3] - side + 1
    share = tf.random.stateless_uniform([2], seed, alg="philox")
    # U(0, 1) in float32 times a whole number may round up to it.
    place = tf.cast(share * tf.cast(free, tf.float32), tf.int32)
    return tf.minimum(place, free - 1)


def _coordinates(x, corner):
    """Rows [1, h, 1, 1] and columns [1, 1, w, 1] from this corner on."""
    shape = tf.shape(x)
    rows = tf.range(shape[1])[None, :, None, None] - corner[0]
    return rows, tf.range(shape[2])[None, None, :, None] - corner[1]


def _inside(rows, columns, side):
    """Which pixels are in the square, [1, h, w, 1]."""
    return tf.logical_and(
        tf.logical_and(rows >= 0, rows < side),
        tf.logical_and(columns >= 0, columns < side),
    )


def _stripes(x, eps, seed):
    """x +- eps in stripes one pixel wide, a sign for each column and channel."""
    shape = tf.shape(x)
    return core.to_range(x + eps * _signs([1, 1, shape[2], shape[3]], seed))


def _patch(z, x, eps, side, seed):
    """z with x +- eps in a random square, a sign for each channel."""
    rows, columns = _coordinates(x, _corner(x, side, core.fold(seed, 0)))
    sign = _signs([1, 1, 1, tf.shape(x)[3]], core.fold(seed, 1))
    patch = core.to_range(x + eps * sign)
    return tf.where(_inside(rows, columns, side), patch, z)


def bump(rows, columns, height, width):
    """sum_k=0^M 1 / (n + 1 - k)^2 with M = n - max(|r - h // 2|, |s - w // 2|).

    The largest in the middle, where M = n = h // 2, and falling in rings around it;
    rows and columns count from 0.

    Args:
        rows, columns: int32, of shapes that broadcast.
        height, width: int32 scalars, h >= w. Only r < h, s < w have a meaning.

    Source: Andriushchenko et al. 2020, eq. 2.
    """
    n = height // 2
    ring = tf.maximum(tf.abs(rows - height // 2), tf.abs(columns - width // 2))
    ring = tf.minimum(ring, n)
    # The sum from 1 / (ring + 1)^2 to 1 / (n + 1)^2.
    whole = tf.cast(tf.range(1, n + 2), tf.float32)
    sums = tf.concat([[0.0], tf.cumsum(1.0 / whole**2)], axis=0)
    return sums[-1] - tf.gather(sums, ring)


def pair(rows, columns, side):
    """Two bumps of opposite signs, one above the other, that fill a square; 0 outside.

    The published code gives each bump the same norm and makes all sides odd. Either
    moved robust accuracy on digits by less than its spread over seeds.

    Args:
        rows [1, h, 1, 1], columns [1, 1, w, 1]: int32, from the square's corner on.
        side: int32 scalar.

    Returns:
        [1, h, w, 1].
    """
    half = side // 2
    upper = bump(columns, rows, side, half)
    lower = bump(columns, rows - half, side, side - half)
    both = tf.where(rows < half, upper, -lower)
    return tf.where(_inside(rows, columns, side), both, 0.0)


def _tiles(x, eps, seed):
    """x and a perturbation of norm eps of bumps, about five on each side.

    The published code puts a pair of bumps into each tile, and centres the tiles.
    """
    shape = tf.shape(x)
    side = tf.maximum(tf.minimum(shape[1], shape[2]) // 5, 1)
    rows, columns = _coordinates(x, (0, 0))
    tile = bump(rows % side, columns % side, side, side)
    signs = _signs([1, shape[1], shape[2], shape[3]], seed)
    # The sign of a tile is that of its first pixel.
    signs = tf.gather(signs, (rows - rows % side)[0, :, 0, 0], axis=1)
    signs = tf.gather(signs, (columns - columns % side)[0, 0, :, 0], axis=2)
    return core.to_range(x + eps * norms.steepest(tile * signs, "l2"))


def _bumps(z, x, eps, side, seed):
    """z with the l2 change of two random squares."""
    places = [
        _coordinates(x, _corner(x, side, core.fold(seed, number))) for number in (0, 1)
    ]
    here, there = (_inside(*place, side) for place in places)
    here, there = (tf.cast(inside, tf.float32) for inside in (here, there))
    upright, across = (
        pair(*places[0], side),
        tf.transpose(pair(*_transposed(places[0]), side), [0, 2, 1, 3]),
    )
    turned = tf.random.stateless_uniform([], core.fold(seed, 2), alg="philox") < 0.5
    shape = tf.where(turned, across, upright)
    shape = norms.steepest(shape, "l2")
    sign = _signs([1, 1, 1, tf.shape(x)[3]], core.fold(seed, 3))

    def squared(part):
        """Of each channel, [n, 1, 1, c]."""
        return tf.reduce_sum(part**2, axis=[1, 2], keepdims=True)

    change = z - x
    channels = tf.cast(tf.shape(x)[3], tf.float32)
    unused = tf.maximum(eps**2 - tf.reduce_sum(squared(change), 3, keepdims=True), 0.0)
    given = tf.sqrt(squared(change * tf.maximum(here, there)) + unused / channels)
    added = sign * shape + _unit(change * here, squared)
    added = _unit(added, squared) * given
    kept = change * (1.0 - tf.maximum(here, there))
    return norms.to_ball(x + kept + added, x, eps, "l2")


def _transposed(place):
    """Rows and columns of the transposed image."""
    rows, columns = place
    return tf.transpose(columns, [0, 2, 1, 3]), tf.transpose(rows, [0, 2, 1, 3])


def _unit(part, squared):
    return tf.math.divide_no_nan(part, tf.sqrt(squared(part)))
