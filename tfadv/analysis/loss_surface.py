"""The loss over a plane through images: e2SAD 2019, Figures 3 and 4."""

import numpy as np
import tensorflow as tf

from tfadv import losses
from tfadv.analysis import directions
from tfadv.attacks import core


def plane(predict, x, y, attack, *, seed, batch_size):
    """The two directions of the figures, for every image its own.

        g1 = sign(x_adv - x), 0 where they differ by rounding alone
        g2 = r - <r, g1> / <g1, g1> g1,  r uniform in {-1, 1}, the same for all models

    Args:
        predict: x -> logits, in inference mode.
        x, y: [n, h, w, c] float32 in [0, 1], [n] true labels.
        attack: which makes x_adv.
        seed: int, of r.
        batch_size: int, images a call.

    Returns:
        g1, g2, both [n, h, w, c] float32.
    """
    x_adv = _craft(attack, predict, x, y, batch_size)
    moved = x_adv - x
    g1 = np.where(np.abs(moved) < 1e-6, 0, np.sign(moved)).astype(np.float32)
    r = tf.sign(core.uniform(x, seed)).numpy()
    return g1, r - _expand(coordinate(r, g1)) * g1


def coordinate(d, g):
    """<d, g> / <g, g> [n]: how far d goes along g; 0 where g is 0."""
    flat_d, flat_g = (np.reshape(v, [len(v), -1]).astype(np.float64) for v in (d, g))
    length = np.sum(flat_g**2, axis=1)
    along = np.sum(flat_d * flat_g, axis=1)
    return np.divide(along, length, out=np.zeros_like(along), where=length > 0)


def surface(predict, x, y, g1, g2, grid, *, batch_size, desc=""):
    """sum_i J(x_i + t1 g1_i + t2 g2_i, y_i) for all t1 and t2 of `grid`, unclipped.

    Args:
        predict, x, y: as `plane` takes them.
        g1, g2: of `plane`.
        grid: [g] numbers in the units of x.
        batch_size: int, images a call.
        desc: text before the bar.

    Returns:
        [g, g] float64, t1 changing slowest.
    """

    def at(x, g1, g2, y, t):
        t1, t2 = (part[:, None, None, None] for part in tf.unstack(t, axis=1))
        return losses.cross_entropy(y, predict(x + t1 * g1 + t2 * g2))

    corners = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    corners = corners.astype(np.float32)
    loss = directions.compiled(at, x, g1, g2, y, corners)
    total = np.zeros(len(corners))
    for j, i in directions.grid(len(corners), len(x), batch_size, desc):
        found = loss(x[i], g1[i], g2[i], y[i], corners[j]).numpy()
        np.add.at(total, j, found.astype(np.float64))
    return total.reshape(len(grid), len(grid))


def path(predict, x, y, g1, g2, steps, *, batch_size):
    """Where attacks one after the other lead, as seen in the plane.

    Args:
        predict, x, y, batch_size: as `plane` takes them.
        g1, g2: of `plane`.
        steps: attacks that draw nothing, each on the images of the one before.

    Returns:
        list of dicts, the clean images first: `t1`, `t2`, the mean coordinates of the
        images, and `loss`, the sum of J over them. They need not lie in the plane.
    """
    images = [x]
    for attack in steps:
        images.append(_craft(attack, predict, images[-1], y, batch_size))
    return [
        {
            "t1": float(np.mean(coordinate(z - x, g1))),
            "t2": float(np.mean(coordinate(z - x, g2))),
            "loss": float(np.sum(_losses(predict, z, y, batch_size))),
        }
        for z in images
    ]


def _craft(attack, predict, x, y, batch_size):
    call = directions.compiled(lambda x, y: attack(predict, x, y), x, y)
    return directions.in_parts(call, batch_size, x, y)


def _losses(predict, x, y, batch_size):
    call = directions.compiled(lambda x, y: losses.cross_entropy(y, predict(x)), x, y)
    return directions.in_parts(call, batch_size, x, y).astype(np.float64)


def _expand(values):
    return values[:, None, None, None].astype(np.float32)
