"""Fine-tunes a model privately through low-rank adapters, with both factors trained or one of them frozen (FFA-LoRA).

    python examples/ffa_lora.py [--epsilon 1] [--seeds 5]

A layer W becomes W + B A, with A (rank, in) random and B (out, rank) zero at the start. If both factors are trained,
their noises multiply: (B + b)(A + a) = B A + B a + b A + b a. Sun, Li, Li and Ding (2024), "Improving LoRA in
privacy-preserving federated learning", freeze A: the layer is then linear in what is trained. Nothing about the
accounting changes: fewer parameters are clipped and noised.

The base model has learned, publicly, digits shifted by a pixel; the private images are not. At epsilon 1 and below the
best result is that of the frozen factor, and large learning rates hurt it far less; at epsilon 4 both factors, with a
small learning rate, fit better. Needs scikit-learn.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

from dpkit import training

PUBLIC, PRIVATE, HIDDEN, RANK = 500, 1_000, 32, 8
BATCH_SIZE, EPOCHS = 50, 20
LEARNING_RATES = (0.1, 0.3, 1.0)


def images() -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return (pixels[order] / 16).astype(np.float32), labels[order]


def logits(layers: dict[str, jax.Array], image: jax.Array) -> jax.Array:
    return jax.nn.relu(image @ layers["w1"] + layers["b1"]) @ layers["w2"] + layers["b2"]


def cross_entropy(layers: dict[str, jax.Array], image: jax.Array, label: jax.Array) -> jax.Array:
    return -jax.nn.log_softmax(logits(layers, image))[label]


def public_model(pixels: np.ndarray, labels: np.ndarray) -> dict[str, jax.Array]:
    shifted = jnp.asarray(np.roll(pixels.reshape(-1, 8, 8), 1, axis=2).reshape(-1, 64))
    first, second = jax.random.split(jax.random.key(0))
    layers = {
        "w1": jax.random.normal(first, (64, HIDDEN)) / 8,
        "b1": jnp.zeros(HIDDEN),
        "w2": jax.random.normal(second, (HIDDEN, 10)) / np.sqrt(HIDDEN),
        "b2": jnp.zeros(10),
    }
    optimizer = optax.adam(1e-2)

    def step(carry, _):
        layers, state = carry
        loss = lambda p: jnp.mean(jax.vmap(cross_entropy, (None, 0, 0))(p, shifted, labels))  # noqa: E731
        updates, state = optimizer.update(jax.grad(loss)(layers), state)
        return (optax.apply_updates(layers, updates), state), None

    return jax.lax.scan(step, (layers, optimizer.init(layers)), length=300)[0][0]


def plan(epsilon: float) -> training.TrainingPlan:
    """Batches in a fixed order, noise correlated by a banded strategy: see train_digits.py."""
    steps = PRIVATE // BATCH_SIZE
    config = {
        "data": {"examples": PRIVATE, "unit": "example"},
        "training": {"sampling": "min_sep", "iterations": EPOCHS * steps, "min_sep": steps},
        "mechanism": {"kind": "gaussian", "noise_multiplier": 1.0, "l2_clip_norm": 1.0},
        "privacy": {"delta": 1e-5, "relation": "replace_special"},
        "strategy": {"kind": "banded", "num_bands": steps},
    }
    return training.plan(training.TrainingConfig.parse(config)).calibrate(epsilon)


def fine_tune(
    base: dict[str, jax.Array],
    run: training.TrainingPlan,
    data: tuple[np.ndarray, np.ndarray],
    learning_rate: float,
    seed: int,
    *,
    freeze_a: bool,
) -> dict[str, jax.Array]:
    """The base with its first layer adapted."""
    a_key, noise_key = jax.random.split(jax.random.key(seed))
    frozen = {"a": jax.random.normal(a_key, (64, RANK)) / 8}
    params = {"b": jnp.zeros((RANK, HIDDEN))} | ({} if freeze_a else frozen)

    def adapted(params: dict[str, jax.Array]) -> dict[str, jax.Array]:
        factors = frozen | params
        return base | {"w1": base["w1"] + factors["a"] @ factors["b"]}

    gradient = training.clipped_grad(
        lambda params, image, label: cross_entropy(adapted(params), image, label),
        l2_clip_norm=1.0,
        expected_batch_size=BATCH_SIZE,
        batch_argnums=(1, 2),
    )
    private = run.privatizer(noise_key, expected_batch_size=BATCH_SIZE)
    optimizer = optax.chain(private, optax.sgd(learning_rate))
    batches = jax.tree.map(lambda x: jnp.asarray(x).reshape(-1, BATCH_SIZE, *x.shape[1:]), data)

    def step(carry, batch):
        params, state = carry
        updates, state = optimizer.update(gradient(params, *batch), state)
        return (optax.apply_updates(params, updates), state), None

    carry = (params, optimizer.init(params))
    for _ in range(EPOCHS):
        carry, _ = jax.lax.scan(step, carry, batches)
    return adapted(carry[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=5)
    chosen = parser.parse_args()
    pixels, labels = images()
    base = public_model(pixels[:PUBLIC], labels[:PUBLIC])
    private = pixels[PUBLIC : PUBLIC + PRIVATE], labels[PUBLIC : PUBLIC + PRIVATE]
    test = pixels[PUBLIC + PRIVATE :], labels[PUBLIC + PRIVATE :]
    run = plan(chosen.epsilon)

    def accuracy(layers: dict[str, jax.Array]) -> float:
        return 100 * float(jnp.mean(jnp.argmax(logits(layers, test[0]), axis=1) == test[1]))

    table = Table(title=f"Test accuracy (%), epsilon <= {run.epsilon().upper:.4g}, {chosen.seeds} seeds")
    for column in ("learning rate", "both factors", "A frozen"):
        table.add_column(column, justify="right")
    for rate in LEARNING_RATES:
        cells = []
        for freeze_a in (False, True):
            tuned = (fine_tune(base, run, private, rate, seed, freeze_a=freeze_a) for seed in range(chosen.seeds))
            values = np.array([accuracy(layers) for layers in tuned])
            cells.append(f"{values.mean():.1f} ± {values.std() / np.sqrt(len(values)):.1f}")
        table.add_row(f"{rate:g}", *cells)
    console = Console()
    console.print(f"Before fine-tuning: {accuracy(base):.1f} %")
    console.print(table)


if __name__ == "__main__":
    main()
