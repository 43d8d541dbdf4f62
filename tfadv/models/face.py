"""VGG16-Face and ResNet50-Face, the networks of Liao 2018, as in keras-vggface.

Layers have the names of keras-vggface, whose weights `weights.load_weights` takes.
Keras 3 allows no `/` in a name: here it is `_`, so conv1/7x7_s2/bn is conv1_7x7_s2_bn.
The classifier (there fc8 and classifier) is `embedding` and returns logits.

x in [0, 1] and RGB becomes 255 x - mean in BGR, what those weights are made for.
"""

import keras
from keras import layers

from tfadv.models.layers import bgr, check_rate, decay, embedding, pooled, rgb_input

# Means of the channels B, G, R of the training images, in units of 1/255.
VGG_MEAN = (93.5940, 104.7624, 129.1863)
RESNET_MEAN = (91.4953, 103.8827, 131.0912)


def vgg16_face(
    input_shape,
    num_classes,
    *,
    weight_decay: float = 0.0,
    dropout: float = 0.0,
):
    """Five blocks of conv 3x3 - ReLU and max pool 2; dense 4096 twice; dense K.

    | block | convolutions            | filters |
    |-------|-------------------------|---------|
    | 1     | conv1_1 conv1_2         | 64      |
    | 2     | conv2_1 conv2_2         | 128     |
    | 3     | conv3_1 conv3_2 conv3_3 | 256     |
    | 4     | conv4_1 conv4_2 conv4_3 | 512     |
    | 5     | conv5_1 conv5_2 conv5_3 | 512     |

    Block i ends in the pool `pool<i>`. Convolutions are SAME, everything has a bias,
    kernels are Glorot uniform; no batch normalisation. `fc6` and `fc7` end in their
    ReLU, so the features of a domain classifier are the output of the layer `fc7`.

    Args:
        input_shape: (h, w, 3), sides of 32 or more; 224 in the paper. `fc6` takes
            whatever the pools leave, so its weights belong to one size.
        num_classes: K.
        weight_decay: wd in wd / 2 * sum(kernel^2).
        dropout: rate behind fc6 and fc7; 0.5 in the original network, none in
            keras-vggface.

    Returns:
        A functional `keras.Model` from x [n, h, w, 3] in [0, 1] to logits [n, K].
        134,293,320 parameters for 224x224 and 8 classes.

    Raises:
        ValueError: images too small or not of three channels, an impossible rate.

    Source: Liao 2018, section 4; Parkhi et al. 2015; keras-vggface.
    """
    check_rate(dropout)
    inputs = rgb_input(input_shape, 32, "vgg16_face")
    x = bgr(inputs, VGG_MEAN)
    for block, filters in enumerate((64, 128, 256, 512, 512), start=1):
        for i in range(1, 3 if block < 3 else 4):
            x = layers.Conv2D(
                filters,
                3,
                padding="same",
                activation="relu",
                kernel_regularizer=decay(weight_decay),
                name=f"conv{block}_{i}",
            )(x)
        x = layers.MaxPooling2D(2, name=f"pool{block}")(x)
    x = layers.Flatten(name="flatten")(x)
    for name in ("fc6", "fc7"):
        x = layers.Dense(
            4096, activation="relu", kernel_regularizer=decay(weight_decay), name=name
        )(x)
        if dropout:
            x = layers.Dropout(dropout, name=f"{name}_dropout")(x)
    logits = embedding(x, num_classes, weight_decay)
    return keras.Model(inputs, logits, name="vgg16_face")


def resnet50_face(
    input_shape,
    num_classes,
    *,
    bn_momentum: float = 0.99,
    weight_decay: float = 0.0,
    dropout: float = 0.0,
):
    """conv 7x7x64 / 2 - BN - ReLU - max pool 3 / 2; 16 bottlenecks; mean; dense K.

    The pool is VALID, convolutions SAME. Block b of stage s, with F = 64, 128, 256, 512
    filters in stages 2 to 5, is ReLU(shortcut + increase) of

        conv<s>_<b>_1x1_reduce    1x1 x F   BN - ReLU
        conv<s>_<b>_3x3           3x3 x F   BN - ReLU
        conv<s>_<b>_1x1_increase  1x1 x 4 F BN
        conv<s>_<b>_1x1_proj      1x1 x 4 F BN: the shortcut of block 1; else x

    There are 3, 4, 6 and 3 blocks. The first of stages 3 to 5 halves the size, by
    stride 2 in reduce and proj. Convolutions have no bias and Glorot uniform kernels.
    The layer behind convolution `name` is `name_bn`, with epsilon 1e-3.

    Args:
        input_shape: (h, w, 3), sides of 5 or more; 224 in the paper. The 7x7 pool of
            keras-vggface is the mean over the positions (`avg_pool`, [n, 2048]), here
            for every size.
        num_classes: K.
        bn_momentum: of the moving statistics.
        weight_decay: wd in wd / 2 * sum(kernel^2).
        dropout: rate behind avg_pool; none in keras-vggface.

    Returns:
        A functional `keras.Model` from x [n, h, w, 3] in [0, 1] to logits [n, K].
        23,524,424 trainable parameters for 8 classes.

    Raises:
        ValueError: images too small or not of three channels, an impossible rate.

    Source: Liao 2018, section 4; Cao et al. 2018 (VGGFace2); keras-vggface.
    """
    check_rate(dropout)

    def conv_bn(x, filters, size, strides, name):
        x = layers.Conv2D(
            filters,
            size,
            strides=strides,
            padding="same",
            use_bias=False,
            kernel_regularizer=decay(weight_decay),
            name=name,
        )(x)
        return layers.BatchNormalization(
            momentum=bn_momentum, epsilon=1e-3, name=f"{name}_bn"
        )(x)

    def relu(x, name):
        return layers.ReLU(name=f"{name}_relu")(x)

    def bottleneck(x, filters, strides, project, name):
        reduce, middle = f"{name}_1x1_reduce", f"{name}_3x3"
        shortcut = x
        x = relu(conv_bn(x, filters, 1, strides, reduce), reduce)
        x = relu(conv_bn(x, filters, 3, 1, middle), middle)
        x = conv_bn(x, 4 * filters, 1, 1, f"{name}_1x1_increase")
        if project:
            shortcut = conv_bn(shortcut, 4 * filters, 1, strides, f"{name}_1x1_proj")
        return relu(layers.Add(name=f"{name}_add")([x, shortcut]), name)

    inputs = rgb_input(input_shape, 5, "resnet50_face")
    x = conv_bn(bgr(inputs, RESNET_MEAN), 64, 7, 2, "conv1_7x7_s2")
    x = layers.MaxPooling2D(3, strides=2, name="pool1")(relu(x, "conv1_7x7_s2"))
    for stage, blocks in enumerate((3, 4, 6, 3), start=2):
        for block in range(1, blocks + 1):
            first = block == 1
            strides = 2 if first and stage > 2 else 1
            x = bottleneck(x, 2 ** (stage + 4), strides, first, f"conv{stage}_{block}")
    logits = embedding(pooled(x, dropout), num_classes, weight_decay)
    return keras.Model(inputs, logits, name="resnet50_face")
