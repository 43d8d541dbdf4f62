"""What tfadv's own code costs, as ratios to the least that the same work can take."""

import time

import keras
import numpy as np
import tensorflow as tf

from tfadv import attacks, models
from tfadv.attacks import core
from tfadv.benchmark.peers import bare, own
from tfadv.benchmark.timing import (
    CLASSES,
    IMAGE_SHAPE,
    MNIST_SHAPE,
    compiled,
    medians,
    random_batch,
)
from tfadv.data import Augment, Images, pipeline
from tfadv.defenses import (
    E2SAD,
    AdversarialNetwork,
    AdversarialTraining,
    Kurakin,
    Standard,
)
from tfadv.training.precision import PRECISIONS, computing


def training_steps(batch_size=128, rounds=15):
    """Seconds of a plain Keras step and of a Kurakin step, ResNet-20.

    The floor of the ratio is 1.33 for k = m / 2: of a step's three passes (forward,
    back to activations, back to weights) crafting adds two on half of the images.
    """
    batch = random_batch(batch_size)
    plain = models.resnet20(IMAGE_SHAPE, CLASSES)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    plain.compile(keras.optimizers.SGD(0.1, 0.9), loss, metrics=["accuracy"])
    defended = Kurakin(
        models.resnet20(IMAGE_SHAPE, CLASSES), attack=attacks.StepLL(eps=16 / 255)
    )
    defended.compile(keras.optimizers.SGD(0.1, 0.9))
    return medians(
        {
            "plain Keras step": compiled(plain.train_step, batch),
            "Kurakin step": compiled(defended.train_step, batch),
        },
        rounds,
    )


def mixed_precision(batch_size=128, rounds=5):
    """Seconds of a Kurakin step on ResNet-20 in float32 and in bfloat16.

    How much bfloat16 saves is a matter of the processor: convolutions in it are fast
    where there are instructions for them (AVX512-BF16, AMX, tensor cores), elsewhere
    they may be slower.
    """
    batch = random_batch(batch_size)
    steps = {}
    for precision in PRECISIONS:
        made = Kurakin(
            models.resnet20(IMAGE_SHAPE, CLASSES), attack=attacks.StepLL(eps=16 / 255)
        )
        made.compile(keras.optimizers.SGD(0.1, 0.9))
        made.build((None, *IMAGE_SHAPE))
        run = compiled(made.train_step, batch)
        with computing(made, precision=precision):
            run()  # Which compiles it.
        steps[f"Kurakin step, {precision}"] = run
    return medians(steps, rounds)


def two_step_defense(batch_size=256, rounds=5):
    """Seconds of a training step of e2SAD and of what it is compared with, its network.

    In passes of the network (forward, back to activations, back to weights): clean
    training 3; FGSM 2 to craft and 2 x 3 to train; e2SAD, whose passes craft and train,
    3 x 3 and 2 back to the images; IFGSM 30 x 2 and 2 x 3. (FGSM training could share
    its first pass, too, and take 7; it is written for any attack and network.)
    """
    batch = random_batch(batch_size, MNIST_SHAPE)
    fgsm, ifgsm = attacks.StepFGSM(eps=0.3), attacks.IFGSM(eps=0.3, steps=30)
    defenses = {
        "clean": lambda c: Standard(c),
        "FGSM": lambda c: AdversarialTraining(c, attack=fgsm, alpha=0.6),
        "e2SAD": lambda c: E2SAD(c, attack=fgsm, eps2=0.1),
        "IFGSM-30": lambda c: AdversarialTraining(c, attack=ifgsm, alpha=0.6),
    }
    steps = {}
    for name, defense in defenses.items():
        made = defense(models.e2sad_mnist(MNIST_SHAPE, CLASSES))
        made.compile(keras.optimizers.Adam())
        steps[f"{name} training step, e2sad_mnist"] = compiled(made.train_step, batch)
    return medians(steps, rounds)


def adversarial_network(batch_size=64, k=8, rounds=5):
    """Seconds of a training step against a generator G1, and of its parts, LeNet.

    One step of G goes through G and the classifier forward and back; an adversarial
    network takes five of them, then one of the classifier on clean and on perturbed
    images, whose regulariser asks for the gradient of G once more and, by finite
    difference, for another pass of both networks.
    """
    batch = random_batch(batch_size, MNIST_SHAPE)
    plain = Standard(models.lenet(MNIST_SHAPE, CLASSES))
    plain.compile(keras.optimizers.SGD(0.01, 0.9))
    steps = {"clean training step, LeNet": compiled(plain.train_step, batch)}
    for regularizer in ("none", "finite_difference", "exact"):
        made = AdversarialNetwork(
            models.lenet(MNIST_SHAPE, CLASSES),
            generator=models.get_generator("g1")(MNIST_SHAPE, CLASSES, k=k),
            eps=0.3,
            regularizer=regularizer,
        )
        made.compile(
            keras.optimizers.SGD(0.01, 0.9),
            generator_optimizer=keras.optimizers.Adam(0.002, 0.5),
        )
        name = f"adversarial network, {regularizer}"
        steps[name] = compiled(made.train_step, batch)

    @tf.function
    def strengthen(x, y):
        return made.strengthen(x, y, (0, 0), made.generator_optimizer)[0]

    steps["one step of its generator"] = lambda: strengthen(*batch).numpy()
    return medians(steps, rounds)


def pgd(batch_size=64, steps=10, rounds=7):
    """Seconds of PGD on ResNet-20, as a bare loop and as tfadv's attack."""
    batch = random_batch(batch_size)
    model = models.resnet20(IMAGE_SHAPE, CLASSES)
    settings = {"eps": 8 / 255, "step_size": 2 / 255, "steps": steps}
    loop, ours = (who.crafters(model, **settings)["PGD"] for who in (bare, own))
    np.testing.assert_allclose(loop(*batch), ours(*batch), atol=1e-6)
    return medians(
        {
            f"bare PGD-{steps} loop": lambda: loop(*batch).numpy(),
            f"tfadv PGD-{steps}": lambda: ours(*batch).numpy(),
        },
        rounds,
    )


def crafting(batch_size=32, largest=16, rounds=3):
    """Seconds of iter_fgsm at eps 1 .. `largest` pixels: in one sweep, one by one.

    By counting gradients the ratio is 44 / 164 = 0.27 for 16 sizes.
    """
    x, y = random_batch(batch_size)
    model = models.resnet20(IMAGE_SHAPE, CLASSES)
    sizes = [pixels / 255 for pixels in range(1, largest + 1)]
    attack = attacks.IterFGSM(eps=sizes[-1])

    def predict(z):
        return model(z, training=False)

    # Of the sizes one by one, the number of steps is all that differs.
    @tf.function
    def together():
        return core.sweep(attack, predict, x, y, sizes)

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def alone(eps):
        return attacks.IterFGSM(eps=eps)(predict, x, y)

    return medians(
        {
            f"iter_fgsm at {largest} eps together": lambda: together()[-1].numpy(),
            f"iter_fgsm at {largest} eps alone": lambda: [
                alone(tf.constant(eps)).numpy() for eps in sizes
            ],
        },
        rounds,
    )


def input_pipeline(batch_size=128, batches=200):
    """Seconds that the input pipeline takes for a batch: 24x24 crops and flips."""
    n = 20_000
    random = np.random.default_rng(0)
    images = Images(
        x=random.integers(0, 256, (n, *IMAGE_SHAPE), np.uint8),
        y=random.integers(0, CLASSES, n, np.int32),
    )
    data = pipeline.batches(
        images,
        batch_size=batch_size,
        seed=0,
        start=0,
        stop=batches + 10,
        augment=Augment(crop=24, flip=True),
    )
    iterator = iter(data)
    for _ in range(10):
        next(iterator)
    start = time.perf_counter()
    for _ in range(batches):
        next(iterator)
    return (time.perf_counter() - start) / batches


def report(rounds=15):
    """All measurements of one run.

    Returns:
        dict with the median seconds and the ratios, and `text` lines to print.
    """
    steps = training_steps(rounds=rounds)
    attack = pgd(rounds=max(3, rounds // 2))
    craft = crafting(rounds=min(3, rounds))
    mixed = mixed_precision(rounds=min(5, rounds))
    two = two_step_defense(rounds=min(5, rounds))
    game = adversarial_network(rounds=min(5, rounds))
    pipe = input_pipeline()
    (plain, kurakin), (bare, ours) = steps.values(), attack.values()
    together, alone = craft.values()
    full, half = mixed.values()
    clean, fgsm, e2sad, ifgsm = two.values()
    natural, without, difference, exact, generator = game.values()
    ratios = {
        "Kurakin step / plain Keras step": kurakin / plain,
        "tfadv PGD-10 / bare loop": ours / bare,
        "16 eps crafted together / alone": together / alone,
        "bfloat16 step / float32 step": half / full,
        "FGSM step / clean step": fgsm / clean,
        "e2SAD step / clean step": e2sad / clean,
        "IFGSM-30 step / clean step": ifgsm / clean,
        "e2SAD step / FGSM step": e2sad / fgsm,
        "e2SAD step / IFGSM-30 step": e2sad / ifgsm,
        "adversarial network step / clean step": difference / natural,
        "... share of the five generator steps": 5 * generator / difference,
        "... share of the regulariser": 1 - without / difference,
        "... exact / finite difference": exact / difference,
        "input pipeline images/s / training images/s": plain / pipe,
    }
    seconds = {
        **steps,
        **attack,
        **craft,
        **mixed,
        **two,
        **game,
        "input pipeline, a batch of 128": pipe,
    }
    text = [f"{name:<46}{1000 * value:10.1f} ms" for name, value in seconds.items()]
    text += [f"{name:<46}{value:10.2f}" for name, value in ratios.items()]
    return {"median_seconds": seconds, "ratios": ratios, "text": text}
