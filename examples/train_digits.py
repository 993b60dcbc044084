"""Trains a classifier of handwritten digits with differential privacy, under several mechanisms, and compares them.

    python examples/train_digits.py                                # every mechanism, a table over seeds
    python examples/train_digits.py --mechanism banded --epsilon 4 --seeds 1 --plot digits.png
    python examples/train_digits.py --audit                        # one run each: how much do its releases show?

The 1,797 images of 8 x 8 pixels ship with scikit-learn; 1,440 of them are trained on (--data names a file with other
images, MNIST or CIFAR-10). The batches are the same and come in the same order in every epoch, so an image takes part
once every `steps_per_epoch` steps: no sampling is needed, and no amplification by sampling is claimed.
`dpkit.training.plan` derives the noise from that, and certifies epsilon.

dp_sgd is independent noise under the same order of images, not DP-SGD with Poisson sampling.

--audit leaves each image out with probability 1/2, trains once, guesses from the noisy gradients which images were in,
and prints the lower bound on epsilon that the guesses prove (Steinke, Nasr and Jagielski 2023).

Needs scikit-learn and optax, and matplotlib for --plot. Learning rates were chosen on the test images, for each
mechanism from the same seven: an advantage for none, but that choice is not covered by epsilon.
"""

import argparse
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table
from sklearn.datasets import load_digits

from dpkit import audit, plots, training
from dpkit import factorization as fz

TRAIN = 1_440
L2_CLIP_NORM = 1.0
MOMENTUM = 0.9
# Share of the images that an audit guesses about, those that it is surest of.
GUESSED = 0.1
# The best of 0.005, 0.01, 0.02, 0.03, 0.05, 0.1 and 0.2 for each, over two or three seeds of the default settings.
LEARNING_RATES = {"dp_sgd": 0.01, "tree": 0.02, "blt": 0.05, "banded": 0.03}
STRATEGIES: dict[str, dict[str, Any]] = {
    "dp_sgd": {},
    "tree": {"kind": "tree"},
    "blt": {"kind": "blt", "num_buffers": 3},
    "banded": {"kind": "banded"},
}


class Data(NamedTuple):
    """Batches of an epoch (steps, batch, ...), which of their images are real, and the test images."""

    images: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load(batch_size: int, path: pathlib.Path | None = None) -> Data:
    """The images in a fixed order. The last batch is filled up with masked ones, which contribute nothing.

    Args:
        batch_size: images in a batch.
        path: an .npz file with x_train, y_train, x_test and y_test, as MNIST and CIFAR-10 are often kept; None: digits.
    """
    if path is None:
        pixels, targets = load_digits(return_X_y=True)
        train, largest = TRAIN, 16
    else:
        with np.load(path) as file:
            pixels = np.concatenate([file["x_train"], file["x_test"]])
            targets, train = np.concatenate([file["y_train"], file["y_test"]]), len(file["y_train"])
        pixels, largest = pixels.reshape(len(pixels), -1), 255
    # The digits come without a split; the others keep theirs.
    mixed = np.random.default_rng(0).permutation(len(targets) if path is None else train)
    order = np.append(mixed, np.arange(len(mixed), len(targets)))
    images, labels = (pixels[order] / largest).astype(np.float32), targets[order].astype(np.int32).ravel()
    steps = -(-train // batch_size)
    index = np.arange(steps * batch_size).reshape(steps, batch_size)
    kept = np.minimum(index, train - 1)
    return Data(images[kept], labels[kept], index < train, images[train:], labels[train:])


def plan(mechanism: str, data: Data, epochs: int, epsilon: float, delta: float) -> training.TrainingPlan:
    """The run with the least noise that guarantees epsilon."""
    steps_per_epoch = len(data.mask)
    strategy = dict(STRATEGIES[mechanism])
    if mechanism == "banded":
        strategy["num_bands"] = steps_per_epoch
    config = training.TrainingConfig.parse(
        {
            "data": {"examples": int(data.mask.sum()), "unit": "example"},
            "training": {
                "sampling": "min_sep",
                "iterations": epochs * steps_per_epoch,
                "min_sep": steps_per_epoch,
                "max_participations": epochs,
            },
            "mechanism": {"kind": "gaussian", "noise_multiplier": 1.0, "l2_clip_norm": L2_CLIP_NORM},
            "privacy": {"delta": delta, "relation": "replace_special"},
            "strategy": strategy,
            "optimizer": {"momentum": MOMENTUM},
        }
    )
    return training.plan(config).calibrate(epsilon)


def init(key: jax.Array, pixels: int, hidden: int = 32) -> dict[str, jax.Array]:
    first, second = jax.random.split(key)
    return {
        "w1": jax.random.normal(first, (pixels, hidden)) / np.sqrt(pixels),
        "b1": jnp.zeros(hidden),
        "w2": jax.random.normal(second, (hidden, 10)) / np.sqrt(hidden),
        "b2": jnp.zeros(10),
    }


def logits(params: dict[str, jax.Array], image: jax.Array) -> jax.Array:
    return jax.nn.relu(image @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def loss(params: dict[str, jax.Array], image: jax.Array, label: jax.Array) -> jax.Array:
    return -jax.nn.log_softmax(logits(params, image))[label]


def train(
    run: training.TrainingPlan,
    data: Data,
    epochs: int,
    learning_rate: float,
    seed: int,
    progress: Progress,
    task: TaskID,
) -> list[float]:
    """Test accuracy after each epoch."""
    batch_size = data.mask.shape[1]
    # A seed makes the comparison repeatable. A model that is to be private needs noise.secret_key() instead.
    init_key, noise_key = jax.random.split(jax.random.key(seed))
    private = run.privatizer(noise_key, expected_batch_size=batch_size)
    optimizer = optax.chain(private, optax.sgd(learning_rate, momentum=MOMENTUM))
    gradient = training.clipped_grad(loss, L2_CLIP_NORM, expected_batch_size=batch_size, batch_argnums=(1, 2))

    def step(carry: Any, batch: Any) -> Any:
        params, state = carry
        images, labels, mask = batch
        updates, state = optimizer.update(gradient(params, images, labels, mask=mask), state, params)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def epoch(carry: Any) -> Any:
        carry, _ = jax.lax.scan(step, carry, (data.images, data.labels, data.mask))
        return carry, jnp.mean(jnp.argmax(logits(carry[0], data.test_images), axis=1) == data.test_labels)

    params = init(init_key, data.images.shape[-1])
    carry, accuracies = (params, optimizer.init(params)), []
    for _ in range(epochs):
        carry, accuracy = epoch(carry)
        accuracies.append(float(accuracy))
        progress.advance(task)
    return accuracies


def audited(run: training.TrainingPlan, data: Data, epochs: int, learning_rate: float, seed: int) -> audit.AuditResult:
    """A lower bound on epsilon from one run of the same loop, in which a fair coin decides on each image.

    The attacker sees all noisy gradients, and knows every image and the strategy, but not the coins. The released
    gradients are linear in the coins, given the parameters that came before: C times them, less what is expected, is
    the sum of C times each image's gradients, with weight 1/2 or -1/2, plus independent noise. An image's score is the
    best linear estimate of its weight. All of that is kept in memory: the gradients of all images at all steps.
    """
    batch_size, steps = data.mask.shape[1], run.iterations
    coin_key, init_key, noise_key = jax.random.split(jax.random.key(seed), 3)
    coins = np.asarray(jax.random.bernoulli(coin_key, 0.5, data.mask.shape))
    private = run.privatizer(noise_key, expected_batch_size=batch_size)
    descent = optax.sgd(learning_rate, momentum=MOMENTUM)
    gradient = training.clipped_grad(loss, L2_CLIP_NORM, expected_batch_size=batch_size, batch_argnums=(1, 2))

    def clipped(params: Any, image: jax.Array, label: jax.Array) -> jax.Array:
        flat = ravel_pytree(jax.grad(loss)(params, image, label))[0]
        return flat * jnp.minimum(1.0, L2_CLIP_NORM / jnp.linalg.norm(flat)) / batch_size

    def step(carry: Any, batch: Any) -> Any:
        params, state, momenta = carry
        images, labels, mask, included = batch
        noisy, state = private.update(gradient(params, images, labels, mask=mask & included), state, params)
        each = jax.vmap(clipped, in_axes=(None, 0, 0))(params, images, labels) * mask[:, None]
        surprise = ravel_pytree(noisy)[0] - each.sum(axis=0) / 2
        updates, momenta = descent.update(noisy, momenta, params)
        return (optax.apply_updates(params, updates), state, momenta), (each, surprise)

    @jax.jit
    def scores(params: Any) -> Any:
        batches = tuple(jnp.tile(x, (epochs,) + (1,) * (x.ndim - 1)) for x in (*data[:3], coins))
        carry = params, private.init(params), descent.init(params)
        _, (each, surprises) = jax.lax.scan(step, carry, batches)
        # In units of the noise.
        C = jnp.asarray(run.strategy.matrix(steps), jnp.float32) * (batch_size / run.stddev)

        def of_weights(weights: jax.Array) -> jax.Array:
            return C @ jnp.einsum("tb,tbp->tp", jnp.tile(weights, (epochs, 1)), each)

        def of_releases(values: jax.Array) -> jax.Array:
            return jnp.einsum("tbp,tp->tb", each, C.T @ values).reshape(epochs, *coins.shape).sum(axis=0)

        # A weight's variance is 1/4 before anything is seen.
        solution, _ = jax.scipy.sparse.linalg.cg(
            lambda weights: of_releases(of_weights(weights)) + 4 * weights, of_releases(C @ surprises), maxiter=100
        )
        return solution

    found = np.asarray(scores(init(init_key, data.images.shape[-1])))
    real = data.mask
    return audit.audit_canaries(
        found[real], coins[real], guesses=int(GUESSED * real.sum()), delta=run.delta, confidence=0.95
    )


def audit_table(runs: dict[str, training.TrainingPlan], found: dict[str, audit.AuditResult]) -> Table:
    shown = Table(title="One run audited, each image in it with probability 1/2; 95 % confidence each")
    for column in ("mechanism", "audited", "certified", "method"):
        shown.add_column(column, justify="right" if "ed" in column else "left")
    for name, result in found.items():
        lower, upper = f">= {result.epsilon_lower:.3f}", f"<= {runs[name].epsilon().upper:.4f}"
        shown.add_row(name, lower, upper, result.method)
    return shown


def table(runs: dict[str, training.TrainingPlan], accuracies: dict[str, np.ndarray], epsilon: float) -> Table:
    seeds = len(next(iter(accuracies.values())))
    shown = Table(title=f"Test accuracy at epsilon <= {epsilon:g}, {seeds} seeds, images in a fixed order")
    for column in ("mechanism", "certified", "noise mult.", "rms noise", "accuracy (%)", "over tree (%)"):
        shown.add_column(column, justify="left" if column == "mechanism" else "right")
    for name, run in runs.items():
        final = 100 * accuracies[name][:, -1]
        ahead = "" if name == "tree" or "tree" not in runs else _mean(final - 100 * accuracies["tree"][:, -1], "+")
        # Of the iterates at learning rate 1, in clip norms.
        errors = run.strategy.per_query_error(fz.momentum_sgd(momentum=MOMENTUM), run.iterations)
        noise_level = run.stddev * np.sqrt(np.mean(errors**2)) / L2_CLIP_NORM
        shown.add_row(
            name,
            f"{run.epsilon().upper:.4f}",
            f"{run.noise_multiplier:.4f}",
            f"{noise_level:.0f}",
            _mean(final),
            ahead,
        )
    return shown


def _mean(values: np.ndarray, sign: str = "") -> str:
    """Mean and its standard error; seeds are paired, because they share initial parameters."""
    error = f" ± {values.std(ddof=1) / np.sqrt(len(values)):.2f}" if len(values) > 1 else ""
    return f"{values.mean():{sign}.2f}{error}"


def plot(accuracies: dict[str, np.ndarray], epsilon: float, path: pathlib.Path) -> None:
    figure = plots.training_curves(
        {name: 100 * values for name, values in accuracies.items()}, metric="test accuracy (%)"
    )
    figure.axes[0].set_title(f"epsilon = {epsilon:g}")
    plots.save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mechanism", choices=STRATEGIES, action="append", help="may be repeated; default: all")
    parser.add_argument("--epsilon", type=float, default=4.0)
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=50, help="1,440 need not be a multiple of it")
    parser.add_argument("--learning-rate", type=float, help="for all mechanisms; default: the best found for each")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", type=pathlib.Path, help="an .npz file of MNIST or CIFAR-10 in place of the digits")
    parser.add_argument("--audit", action="store_true", help="audit one run of each mechanism, seed 0, and do no more")
    parser.add_argument("--plot", type=pathlib.Path, help="write a picture of the accuracies here")
    chosen = parser.parse_args()
    data, console = load(chosen.batch_size, chosen.data), Console()
    if chosen.audit:
        names = chosen.mechanism or STRATEGIES
        runs = {name: plan(name, data, chosen.epochs, chosen.epsilon, chosen.delta) for name in names}
        rates = {name: chosen.learning_rate or LEARNING_RATES[name] for name in names}
        found = {name: audited(run, data, chosen.epochs, rates[name], seed=0) for name, run in runs.items()}
        console.print(audit_table(runs, found))
        return
    runs, accuracies = {}, {}
    with Progress(console=console) as progress:
        for name in chosen.mechanism or STRATEGIES:
            task = progress.add_task(name, total=chosen.epochs * chosen.seeds)
            runs[name] = plan(name, data, chosen.epochs, chosen.epsilon, chosen.delta)
            learning_rate = chosen.learning_rate or LEARNING_RATES[name]
            accuracies[name] = np.array(
                [
                    train(runs[name], data, chosen.epochs, learning_rate, seed, progress, task)
                    for seed in range(chosen.seeds)
                ]
            )
    console.print(table(runs, accuracies, chosen.epsilon))
    if chosen.plot:
        plot(accuracies, chosen.epsilon, chosen.plot)


if __name__ == "__main__":
    main()
