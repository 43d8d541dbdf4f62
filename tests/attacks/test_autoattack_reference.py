"""AutoAttack and its parts against another implementation, on the same network.

Needs PyTorch and torchattacks, which tfadv does not install: skipped without them.
"""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv import attacks
from tfadv.attacks import core, square
from tfadv.data import digits
from tfadv.defenses import AdversarialTraining

torch = pytest.importorskip("torch")
torchattacks = pytest.importorskip("torchattacks")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]

EPS = {"linf": 0.15, "l2": 0.8}
NORM = {"linf": "Linf", "l2": "L2"}
EXAMPLES = 450
# Of the Square Attack, which draws much and is compared by means over seeds.
SQUARE_EXAMPLES, QUERIES, SEEDS = 150, 1000, 3

# Name, ours, theirs, and how far robust accuracies may be apart, in points.
PAIRS = {
    "apgd": (
        functools.partial(attacks.APGD, restarts=3),
        functools.partial(torchattacks.APGD, steps=100, n_restarts=3),
        1.0,
    ),
    "apgd_t": (
        attacks.APGDTargeted,
        functools.partial(torchattacks.APGDT, steps=100),
        1.0,
    ),
    "fab_t": (
        attacks.FABTargeted,
        functools.partial(
            torchattacks.FAB, steps=100, n_restarts=1, multi_targeted=True, n_classes=10
        ),
        1.0,
    ),
    "autoattack": (
        attacks.AutoAttack,
        functools.partial(torchattacks.AutoAttack, version="standard", n_classes=10),
        0.5,
    ),
}


@functools.cache
def network():
    """A small CNN, trained on adversarial digits until some withstand an attack."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    train = digits.read("train")
    defence = AdversarialTraining(model, attack=attacks.StepFGSM(eps=0.1), alpha=0.5)
    defence.compile(keras.optimizers.Adam(2e-3))
    defence.fit(np.float32(train.x / 255), train.y, batch_size=64, epochs=8, verbose=0)
    return model


@functools.cache
def in_torch():
    """The same network on images [n, c, h, w]."""

    class InTorch(torch.nn.Module):
        def __init__(self, weights):
            super().__init__()
            tensors = [torch.tensor(w) for w in weights]
            self.kernels = [t.permute(3, 2, 0, 1).contiguous() for t in tensors[:4:2]]
            self.biases = tensors[1:4:2]
            self.last = tensors[4:]
            # The attacks ask a parameter for the device.
            self.device_of = torch.nn.Parameter(torch.zeros([]))

        def forward(self, x):
            for kernel, bias in zip(self.kernels, self.biases, strict=True):
                x = torch.relu(torch.nn.functional.conv2d(x, kernel, bias))
            x = x.permute(0, 2, 3, 1).flatten(1)
            return x @ self.last[0] + self.last[1]

    return InTorch(network().get_weights()).eval()


def images():
    test = digits.read("test")
    return np.float32(test.x[:EXAMPLES] / 255), test.y[:EXAMPLES]


def to_torch(x):
    return torch.tensor(np.transpose(x, [0, 3, 1, 2]).copy())


def robust(x_adv, x, y, norm):
    """Which are classified correctly, or not within the ball."""
    moved = np.reshape(x_adv - x, [len(x), -1])
    size = np.linalg.norm(moved, axis=1, ord={"linf": np.inf, "l2": 2}[norm])
    wrong = np.argmax(network()(x_adv), axis=1) != y
    return ~(wrong & (size <= EPS[norm] + 1e-5))


def both(name, norm, x, y):
    """Our adversarial images and theirs."""
    make, make_theirs, _ = PAIRS[name]
    attack = make(eps=EPS[norm], norm=norm)
    theirs = make_theirs(in_torch(), norm=NORM[norm], eps=EPS[norm])
    model = network()
    run = tf.function(lambda x, y, seed: attack(model, x, y, seed))
    found = run(tf.constant(x), tf.constant(y), tf.constant([0, 0])).numpy()
    labels = torch.tensor(y.astype(np.int64))
    their_x = theirs(to_torch(x), labels).detach().numpy().transpose([0, 2, 3, 1])
    return found, their_x


def test_the_networks_are_the_same():
    x, y = images()
    with torch.no_grad():
        logits = in_torch()(to_torch(x)).numpy()
    np.testing.assert_allclose(network()(x), logits, atol=1e-4)
    assert np.mean(logits.argmax(axis=1) == y) > 0.9


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", PAIRS)
def test_robust_accuracy_is_that_of_torchattacks(name, norm):
    points = PAIRS[name][2]
    x, y = images()
    ours, others = (robust(z, x, y, norm) for z in both(name, norm, x, y))
    # Not a comparison where nothing or everything withstands.
    assert 0.05 < others.mean() < 0.95
    print(f"{name} {norm}: {100 * ours.mean():.2f} and {100 * others.mean():.2f} %")
    difference = 100 * (ours.mean() - others.mean())
    assert abs(difference) <= points


def test_their_squares_miss_the_last_row_and_column():
    """Ours reach them: `test_square.py`. What they hold at the start, they keep."""
    asked = []

    class Hopeless(torch.nn.Module):
        """Logits (k, -k) at question k, so that no square is ever kept."""

        def __init__(self):
            super().__init__()
            self.device_of = torch.nn.Parameter(torch.zeros([]))

        def forward(self, x):
            asked.append(x.detach().numpy().copy())
            lead = torch.full([len(x)], 1.0 + len(asked))
            return torch.stack([lead, -lead], dim=1)

    x, y = torch.full([1, 1, 8, 8], 0.5), torch.zeros([1], dtype=torch.int64)
    for norm in NORM.values():
        asked.clear()
        torchattacks.Square(Hopeless(), norm=norm, eps=0.2, n_queries=400)(x, y)
        images = np.array([z[0, 0] for z in asked if len(z) and np.any(z != 0.5)])
        changed = np.any(np.abs(images[1:] - images[0]) > 1e-6, axis=0)
        assert changed[:7, :7].all()
        assert not changed[7].any() and not changed[:, 7].any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_with_their_corners_is_as_strong_as_theirs(norm, monkeypatch):
    """torchattacks draws the corner of a square below h - side, the paper up to it.

    In l2 the last row and column then hold a part of eps for ever, so a network that
    does not see them (images with a row and a column more) is no remedy. With the
    corners of the paper ours leave 36.0 % in l2 (standard deviation 1.8 over 3 seeds),
    theirs 45.8 % (1.4).
    """

    def corner(x, side, seed):
        free = tf.maximum(tf.shape(x)[1:3] - side, 1)
        share = tf.random.stateless_uniform([2], core.as_seed(seed), alg="philox")
        return tf.minimum(
            tf.cast(share * tf.cast(free, tf.float32), tf.int32), free - 1
        )

    monkeypatch.setattr(square, "_corner", corner)
    x, y = (part[:SQUARE_EXAMPLES] for part in images())
    attack = attacks.Square(eps=EPS[norm], norm=norm, queries=QUERIES)
    model = network()
    run = tf.function(lambda x, y, seed: attack(model, x, y, seed))
    ours, others = [], []
    for seed in range(SEEDS):
        x_adv = run(tf.constant(x), tf.constant(y), tf.constant([seed, 0])).numpy()
        ours.append(100 * robust(x_adv, x, y, norm).mean())
        theirs = torchattacks.Square(
            in_torch(), norm=NORM[norm], eps=EPS[norm], n_queries=QUERIES, seed=seed
        )
        x_adv = theirs(to_torch(x), torch.tensor(y.astype(np.int64))).detach().numpy()
        others.append(100 * robust(x_adv.transpose([0, 2, 3, 1]), x, y, norm).mean())
    print(f"square {norm}: {np.round(ours, 2)} and {np.round(others, 2)} %")
    assert abs(np.mean(ours) - np.mean(others)) <= 4.0
