"""What the binaries share: flags, quiet start, errors as one line and an exit code.

The only module that knows absl's flags. Nothing here imports TensorFlow until a
binary's `main` asks for it, so `--help` and wrong flags answer at once.
"""

import importlib
import os
import pathlib
import signal
import sys
import tempfile

try:
    from absl import app, flags, logging
except ModuleNotFoundError:
    sys.exit(
        f"error: {sys.executable} has no absl-py: activate the environment that tfadv "
        "is installed in, or install it with: pip install -e ."
    )

from tfadv import cluster, config
from tfadv.errors import RunError, Stopped, UsageError, WorkerLost

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"

EXIT_RUN, EXIT_USAGE, EXIT_LOST, EXIT_INTERRUPTED = 1, 2, cluster.EXIT_LOST, 130


def main(body):
    """Runs a binary's `body()`; its failures become one line and an exit code.

    0 done, or stopped by SIGTERM with a checkpoint; 1 it cannot be carried out here;
    2 the request is wrong; 3 another worker is lost; 130 interrupted with a checkpoint.
    """
    app.run(lambda _: _guarded(body), flags_parser=_parse)


def _parse(argv):
    try:
        try:
            rest = flags.FLAGS(argv)
        except SystemExit:  # absl's help flags exit with 1.
            sys.exit(0)
        if len(rest) > 1:
            raise flags.Error(f"unexpected argument {rest[1]!r}")
    except flags.Error as error:
        _fail(
            EXIT_USAGE, f"{error} ({pathlib.Path(argv[0]).name} --help lists the flags)"
        )
    return rest


def _guarded(body):
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(None)
    handler.addFilter(_is_ours_or_a_warning)
    try:
        body()
    except UsageError as error:
        _fail(EXIT_USAGE, error)
    except WorkerLost as error:
        _fail(EXIT_LOST, error)
    except RunError as error:
        _fail(EXIT_RUN, error)
    except Stopped as stopped:
        print(f"{stopped}; run the same command to continue", file=sys.stderr)
        sys.exit(0 if stopped.signum == signal.SIGTERM else EXIT_INTERRUPTED)
    except KeyboardInterrupt:
        _fail(EXIT_INTERRUPTED, "interrupted; what was written before is intact")


def _is_ours_or_a_warning(record):
    """TensorFlow tells of every file it saves; a user asked for the training."""
    ours = pathlib.Path(record.pathname).is_relative_to(ROOT / "tfadv")
    return ours or record.levelno >= logging.converter.STANDARD_WARNING


def _fail(code, error):
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(code)


def load(name):
    """The module `tfadv.<name>`, TensorFlow imported quietly first."""
    try:
        _import_tensorflow()
        return importlib.import_module(f"tfadv.{name}")
    except ImportError as error:
        raise RunError(
            f"{error}. Install tfadv with its requirements: pip install -e {ROOT}"
        ) from error


def _import_tensorflow():
    """Imports TensorFlow without its start-up chatter, shown only if it fails.

    It is written by static initialisers that no setting reaches, hence the redirect
    of file descriptor 2. TFADV_VERBOSE=1 leaves everything as it is.
    """
    if os.environ.get("TFADV_VERBOSE"):
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
        except BaseException:
            captured.seek(0)
            os.write(saved, captured.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def define_data_dir():
    """--data_dir."""
    flags.DEFINE_string(
        "data_dir",
        os.environ.get("TFDS_DATA_DIR"),
        "folder of prepared TFDS data sets, and of adience/ (TFDS_DATA_DIR); digits "
        "need none",
    )


def define_training():
    """The flags that choose and change an experiment."""
    define_data_dir()
    flags.DEFINE_string("method", None, "runs configs/<method>.toml, on embedded data")
    flags.DEFINE_string("config", None, "any other configuration file")
    flags.DEFINE_string("workdir", None, "where the run lives; default runs/<name>")
    flags.DEFINE_string("dataset", None, "data set, instead of the file's")
    flags.DEFINE_string("model", None, "network, instead of the file's")
    flags.DEFINE_list(
        "weights",
        [],
        "file of pretrained weights to begin with, .keras or HDF5; of several networks "
        "one each, [model] first, nothing between commas for none",
    )
    flags.DEFINE_integer(
        "steps",
        None,
        "shortens (or lengthens) the run to this many steps, the drops of the learning "
        "rate in proportion; results say steps of steps",
    )
    flags.DEFINE_integer("seed", None, "seed of weights, data order and noise")
    flags.DEFINE_enum(
        "precision",
        None,
        ["float32", "mixed_bfloat16"],
        "in which layers compute while they are trained; what is saved and measured is "
        "float32",
    )
    flags.DEFINE_bool(
        "sync_bn", None, "batch normalisation takes the whole batch of all replicas"
    )
    flags.DEFINE_enum(
        "on_nan",
        None,
        ["stop", "rewind"],
        "where a loss or weight is no number: stop, or go back to the last checkpoint "
        "and step over the batches since, at most three times",
    )
    define_set()


def define_set():
    """--set."""
    flags.DEFINE_multi_string("set", [], "section.key=value, as in attack.eps=8/255")


def define_model():
    """The flags that name a trained model and the data to try it on."""
    define_data_dir()
    flags.DEFINE_string("workdir", None, "of a finished bin/train run")
    define_checkpoint()
    flags.DEFINE_string(
        "saved_model", None, "a .keras file or a SavedModel directory, of any origin"
    )
    flags.DEFINE_string("dataset", None, "data set; needed with --saved_model")
    flags.DEFINE_list(
        "input_range", ["0", "1"], "of the images a --saved_model takes, as in 0,255"
    )
    flags.DEFINE_enum(
        "outputs", "logits", ["logits", "probabilities"], "what a --saved_model returns"
    )
    define_evaluation()


def define_checkpoint():
    """--checkpoint."""
    flags.DEFINE_enum(
        "checkpoint",
        "last",
        ["last", "best"],
        "of a workdir: the classifier of the last step, or the one that withstood most "
        "on held-out images while it was trained",
    )


def define_evaluation():
    """The flags that say how trained models are attacked."""
    flags.DEFINE_list("eps", None, "sizes of the perturbation, as in 4/255,8/255")
    flags.DEFINE_integer("num_examples", None, "the first so many images; default all")
    flags.DEFINE_integer("batch_size", None, "images attacked at once")
    flags.DEFINE_enum(
        "bn_eval",
        None,
        ["moving", "batch"],
        "what batch normalisation takes: moving averages (the number to go by), or the "
        "statistics of each batch, which couples its images",
    )
    flags.DEFINE_integer("seed", None, "seed of random attacks")
    define_set()


def define_checks():
    """The flags of `bin/evaluate` alone: how thoroughly it looks."""
    flags.DEFINE_bool(
        "drop_broken",
        None,
        "try each attack only on images that withstood those before it, so that the "
        "last row is the worst case",
    )
    flags.DEFINE_enum(
        "twin",
        None,
        ["none", "folded", "bfloat16"],
        "craft images on a cheaper copy of the model: batch normalisation folded, or "
        "first on one in bfloat16 and then, with --drop_broken, on the model",
    )
    flags.DEFINE_flag(
        flags.Flag(
            flags.EnumParser(["false", "true", "full"], case_sensitive=False),
            flags.ArgumentSerializer(),
            "sanity",
            "false",
            "check that attacks on this model work at all, and say whether it is "
            "robust, masks gradients or is not robust; --sanity=full with AutoAttack. "
            "Of the first --num_examples images, default 500",
            boolean=True,
        )
    )
    flags.DEFINE_string(
        "sanity_eps", None, "size of the checks, as in 8/255; default the largest --eps"
    )
    flags.DEFINE_string(
        "transfer_from",
        None,
        "workdir of a model without a defence, whose adversarial images --sanity tries "
        "on this one",
    )


def sanity_request():
    """A table of what the flags of `define_checks` ask of `run.evaluate`, or None.

    Raises:
        UsageError: a flag of the checks without --sanity.
    """
    values = flags.FLAGS
    if values.sanity == "false":
        for name in ("sanity_eps", "transfer_from"):
            if getattr(values, name) is not None:
                raise UsageError(f"--{name} goes with --sanity")
        return None
    written = {
        "eps": values.sanity_eps,
        "full": values.sanity == "full",
        "num_examples": values.num_examples,
        "transfer_from": values.transfer_from,
    }
    return {key: value for key, value in written.items() if value is not None}


def define_attacks():
    """--attacks."""
    flags.DEFINE_list("attacks", None, "names of attacks; arguments go in with --set")


def training_config():
    """The `config.Config` that the flags of `define_training` mean, and a workdir."""
    values = flags.FLAGS
    if (values.method is None) == (values.config is None):
        raise UsageError(
            "give exactly one of --method (a file in configs/) and --config (any file)"
        )
    path = values.config
    if path is None:
        path = config.method_path(values.method, CONFIGS)
    tables = config.load(path)
    for section, name in (("data", values.dataset), ("model", values.model)):
        if name is not None:
            flag = "--dataset" if section == "data" else "--model"
            tables = tables.merged({section: {"name": name}}, flag)
    if values.steps is not None:
        tables = config.shortened(tables, values.steps)
    if values.seed is not None:
        tables = tables.merged({"train": {"seed": values.seed}}, "--seed")
    for name in ("precision", "sync_bn", "on_nan"):
        if (value := values[name].value) is not None:
            tables = tables.merged({"train": {name: value}}, f"--{name}")
    tables = config.override(tables, values.set)
    tables = _with_weights(tables, values.weights)
    return tables, values.workdir or str(pathlib.Path("runs") / pathlib.Path(path).stem)


def _with_weights(tables, files):
    """`tables` with the files of --weights as `weights` of their networks."""
    partners = tables.get("partners", {}).get("models", [])
    if len(files) > 1 + len(partners):
        raise UsageError(
            f"--weights: at most one file for each network, [model] and then those of "
            f"[partners]: {1 + len(partners)}; received {len(files)}"
        )
    changes = {}
    if files and files[0]:
        changes["model"] = {"weights": files[0]}
    if any(files[1:]):
        given = [*files[1:], *[""] * len(partners)]
        changes["partners"] = {
            "models": [
                {**table, "weights": file} if file else table
                for table, file in zip(partners, given, strict=False)
            ]
        }
    return tables.merged(changes, "--weights")


def model_request():
    """What the flags of `define_model` ask for, as `tfadv.trained.open_model` takes it.

    Raises:
        UsageError: neither or both of --workdir and --saved_model, or a malformed flag.
    """
    values = flags.FLAGS
    if (values.workdir is None) == (values.saved_model is None):
        raise UsageError(
            "give exactly one of --workdir (of a bin/train run) and --saved_model (a "
            "Keras file or SavedModel)"
        )
    if values.saved_model is not None and values.dataset is None:
        raise UsageError("--saved_model needs --dataset, the images to try it on")
    try:
        input_range = tuple(float(v) for v in values.input_range)
    except ValueError:
        raise UsageError(
            f"--input_range: expected two numbers as in 0,255; received "
            f"{','.join(values.input_range)}"
        ) from None
    for name in ("input_range", "outputs"):
        if values.workdir is not None and not values[name].using_default_value:
            raise UsageError(
                f"--{name} goes with --saved_model; of a --workdir it is known"
            )
    changes = config.Config()
    if values.dataset is not None:
        changes = changes.merged({"data": {"name": values.dataset}}, "--dataset")
    return {
        "workdir": values.workdir,
        "saved_model": values.saved_model,
        "changes": evaluation_changes(changes),
        "input_range": input_range,
        "outputs": values.outputs,
        "checkpoint": values.checkpoint,
    }


def evaluation_changes(changes=None):
    """`changes`, a `config.Config`, with the flags of `define_evaluation` laid over it.

    Raises:
        UsageError: a malformed --set.
    """
    values = flags.FLAGS
    changes = changes or config.Config()
    keys = ("attacks", "eps", "num_examples", "batch_size", "bn_eval")
    for key in (*keys, "drop_broken", "twin"):
        # Each binary defines those that it has a use for.
        value = getattr(values, key, None)
        if value is not None:
            changes = changes.merged({"evaluate": {key: value}}, f"--{key}")
    if values.seed is not None:
        changes = changes.merged({"train": {"seed": values.seed}}, "--seed")
    return config.override(changes, values.set)
