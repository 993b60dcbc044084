"""PyTorch training with the noise of the JAX streams."""

import copy
import functools
import io
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from opacus import PrivacyEngine
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch.utils.data import DataLoader, TensorDataset

from dpkit import factorization as fz
from dpkit import noise, training
from dpkit.interop.torch import CorrelatedNoise

SEED = 17
KEY = jax.random.key(SEED)
SHAPES = [(3, 2), (), (5,)]
STEPS = 10
STDDEV = 0.5

STRATEGIES = {
    "identity": fz.Identity(),
    "banded": fz.Banded(num_bands=2, coefficients=[[1.0, 0.0]] + [[0.8, -0.6]] * (STEPS - 1)),
    "banded-toeplitz": fz.BandedSquareRoot(num_bands=4),
    "banded-inverse": fz.BandedInverseSquareRoot(num_bands=3),
    "blt": fz.BufferedLinearToeplitz(theta=[0.97, 0.5], omega=[0.1, 0.2]),
    "tree": fz.Tree(iterations=STEPS),
    "square-root": fz.SquareRoot(),
    "window-scaled": fz.WindowScaled(fz.Identity(), window=5, scales=[1.0, 0.8]),
}
BLOCKS = {"block_size": 4}
OPTIONS = {
    "plain": {},
    "regenerate": {"memory": "regenerate"},
    "blocks": BLOCKS,
    "chacha20": {"generator": "chacha20"},
}


def parameters(dtype=torch.float32):
    return [torch.nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in SHAPES]


@functools.cache  # What is one stream is compiled once.
def privatizer(strategy=STRATEGIES["banded-toeplitz"], *, seed=SEED, iterations=STEPS, **options):
    return noise.add_correlated_noise(
        strategy, stddev=STDDEV, key=jax.random.key(seed), iterations=iterations, **options
    )


@functools.cache
def stream_noise(strategy, **options):
    """What the JAX stream hands out, step by step."""
    stream = noise.stream(strategy, stddev=STDDEV, key=KEY, iterations=STEPS, **options)
    state, steps = stream.init([jnp.zeros(shape) for shape in SHAPES]), []
    for _ in range(STEPS):
        xi, state = stream.step(state)
        steps.append([np.asarray(leaf) for leaf in xi])
    return steps


def noise_steps(strategy, **options):
    """What arrives in PyTorch: with gradients of zero and a learning rate of 1, parameters move by -noise."""
    params = parameters()
    optimizer = CorrelatedNoise(torch.optim.SGD(params, lr=1.0), privatizer(strategy, **options))
    for _ in range(STEPS):
        for p in params:
            p.data.zero_()
            p.grad = torch.zeros_like(p)
        optimizer.step()
        yield [-p.detach().numpy() for p in params]


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", STRATEGIES)
def test_noise_is_bitwise_that_of_the_jax_stream(name):
    found = list(noise_steps(STRATEGIES[name]))
    assert_same(found, stream_noise(STRATEGIES[name]))
    assert all(np.all(leaf != 0) for step in found for leaf in step)


@pytest.mark.parametrize("options", OPTIONS)
def test_every_kind_of_stream_is_the_same_in_both(options):
    strategy = STRATEGIES["banded-inverse"]
    assert_same(noise_steps(strategy, **OPTIONS[options]), stream_noise(strategy, **OPTIONS[options]))


def test_a_training_run_equals_the_optax_run():
    """The same gradients, which depend on the parameters, through both libraries' SGD with momentum."""
    rng = np.random.default_rng(0)
    targets = [rng.normal(size=shape).astype(np.float32) for shape in SHAPES]
    params = parameters()
    optimizer = CorrelatedNoise(torch.optim.SGD(params, lr=0.1, momentum=0.9), privatizer())
    chain = optax.chain(privatizer(), optax.sgd(0.1, momentum=0.9))
    arrays = [jnp.zeros(shape) for shape in SHAPES]
    state = chain.init(arrays)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = sum(((p - torch.from_numpy(t)) ** 2).sum() for p, t in zip(params, targets, strict=True))
        loss.backward()
        optimizer.step()
        gradients = [2 * (x - t) for x, t in zip(arrays, targets, strict=True)]
        updates, state = chain.update(gradients, state)
        arrays = optax.apply_updates(arrays, updates)
    for p, x in zip(params, arrays, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), x, rtol=1e-5, atol=1e-6)


def test_the_noise_has_the_accounted_standard_deviation_and_correlation():
    """Over m = 40,000 parameters of 3 steps the sample covariance is that of stddev C^{-1} z."""
    m, steps, strategy = 40_000, 3, STRATEGIES["banded-toeplitz"]
    p = torch.nn.Parameter(torch.zeros(m))
    optimizer = CorrelatedNoise(torch.optim.SGD([p], lr=1.0), privatizer(strategy))
    rows = []
    for _ in range(steps):
        p.data.zero_()
        p.grad = torch.zeros(m)
        optimizer.step()
        rows.append(-p.detach().numpy().astype(np.float64))
    # z from the noise is white: each of its 9 products' means is within 7 deviations (at most sqrt(2 / m)) but with
    # probability 9 * 2.6e-12. A scale that is wrong by 6 % fails: 1.06^2 - 1 = 0.124 > 2 * 7 sqrt(2 / m) = 0.099.
    z = strategy.matrix(steps) @ np.array(rows) / STDDEV
    bound = 7 * np.sqrt(2 / m)
    assert np.max(np.abs(z @ z.T / m - np.eye(steps))) < bound
    wrong = 1.06 * z
    assert np.max(np.abs(wrong @ wrong.T / m - np.eye(steps))) > bound


# ---- state -----------------------------------------------------------------------------------------------------------


def run(optimizer, params, steps):
    for _ in range(steps):
        for i, p in enumerate(params):
            p.grad = torch.full_like(p, 0.1 * (i + 1)) + 0.01 * p.detach()
        optimizer.step()


@pytest.mark.parametrize(
    ("name", "options"),
    [("banded", {}), ("banded-inverse", {}), ("blt", {}), ("tree", {}), ("identity", {}), ("banded-inverse", BLOCKS)],
)
def test_a_restored_run_goes_on_with_the_same_noise(name, options):
    def made(params, seed=SEED):
        return CorrelatedNoise(torch.optim.Adam(params, lr=0.1), privatizer(STRATEGIES[name], seed=seed, **options))

    params = parameters()
    optimizer = made(params)
    run(optimizer, params, 6)
    file = io.BytesIO()
    torch.save({"params": [p.data for p in params], "optimizer": optimizer.state_dict()}, file)
    run(optimizer, params, 4)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = [torch.nn.Parameter(p) for p in saved["params"]]
    restored = made(again, seed=99 if name == "identity" else SEED)  # The key is in the state.
    restored.load_state_dict(saved["optimizer"])
    for leaf in saved["optimizer"]["correlated_noise"]:
        leaf.zero_()  # What was loaded is the optimizer's own.
    run(restored, again, 4)
    for p, q in zip(params, again, strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())


def test_a_saved_state_does_not_move_with_the_run():
    params = parameters()
    optimizer = CorrelatedNoise(torch.optim.SGD(params, lr=1.0), privatizer())
    run(optimizer, params, 2)
    saved = optimizer.state_dict()["correlated_noise"]
    before = copy.deepcopy(saved)
    run(optimizer, params, 2)
    assert all(torch.equal(a, b) for a, b in zip(saved, before, strict=True))
    assert not torch.equal(saved[0], optimizer.state_dict()["correlated_noise"][0])


def test_foreign_states_are_refused():
    params = parameters()
    optimizer = CorrelatedNoise(torch.optim.SGD(params, lr=1.0), privatizer())
    with pytest.raises(ValueError, match='must have "correlated_noise"'):
        optimizer.load_state_dict(torch.optim.SGD(params, lr=1.0).state_dict())
    other = CorrelatedNoise(torch.optim.SGD(params, lr=1.0), privatizer(fz.BandedSquareRoot(num_bands=3)))
    with pytest.raises(ValueError, match="use the same privatizer"):
        optimizer.load_state_dict(other.state_dict())


# ---- gradients of every kind -----------------------------------------------------------------------------------------


def expected_noise():
    return stream_noise(STRATEGIES["banded-toeplitz"])[0]


def test_a_missing_gradient_gets_noise_too():
    params = parameters()
    optimizer = CorrelatedNoise(torch.optim.SGD(params, lr=1.0), privatizer())
    optimizer.step()
    assert_same([[-p.detach().numpy() for p in params]], [expected_noise()])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_sums_are_made_in_the_wider_type(dtype):
    params = parameters(dtype)
    optimizer = CorrelatedNoise(torch.optim.SGD(params, lr=1.0), privatizer())
    for p in params:
        p.grad = torch.full_like(p, 1 / 3)
    gradients = [p.grad.clone() for p in params]
    optimizer.step()
    for p, g, xi in zip(params, gradients, expected_noise(), strict=True):
        assert p.grad.dtype == dtype
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        assert torch.equal(p.grad, (g.to(wide) + torch.tensor(xi).to(wide)).to(dtype))


def test_sparse_gradients_become_dense():
    table = torch.nn.Embedding(5, 3, sparse=True)
    torch.nn.init.zeros_(table.weight)
    optimizer = CorrelatedNoise(torch.optim.SGD(table.parameters(), lr=1.0), privatizer())
    table(torch.tensor([1, 1])).sum().backward()
    assert table.weight.grad.is_sparse
    gradient = table.weight.grad.to_dense()
    optimizer.step()
    stream = noise.stream(STRATEGIES["banded-toeplitz"], stddev=STDDEV, key=KEY)
    (xi,), _ = stream.step(stream.init([jnp.zeros((5, 3))]))
    np.testing.assert_array_equal(table.weight.detach().numpy(), -(np.asarray(xi) + gradient.numpy()))


def test_a_closure_computes_gradients_before_the_noise():
    params = parameters()
    optimizer = CorrelatedNoise(torch.optim.SGD(params, lr=1.0), privatizer())

    def closure():
        optimizer.zero_grad()
        loss = sum(2 * p.sum() for p in params)
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 0
    assert_same([[-p.detach().numpy() for p in params]], [[2 + xi for xi in expected_noise()]])


def test_a_scaler_unscales_before_the_noise():
    params = parameters()
    optimizer = CorrelatedNoise(torch.optim.Adam(params, lr=1.0, fused=True), privatizer())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    scaler.scale(sum(p.sum() for p in params)).backward()
    scaler.step(optimizer)
    scaler.update()
    for p, xi in zip(params, expected_noise(), strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), 1 + xi)


def test_schedulers_take_the_wrapper():
    params = parameters()
    optimizer = CorrelatedNoise(torch.optim.SGD(params, lr=1.0), privatizer())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    rates = []
    for _ in range(3):
        rates.append(optimizer.optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == [1.0, 0.5, 0.25]
    assert "SGD" in repr(optimizer)


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_steps_beyond_the_run_are_refused_and_change_nothing():
    params = parameters()
    optimizer = CorrelatedNoise(torch.optim.SGD(params, lr=1.0), privatizer(iterations=2))
    run(optimizer, params, 2)
    before = [p.detach().clone() for p in params]
    with pytest.raises(ValueError, match="iterations must be >= 3"):
        optimizer.step()
    assert all(torch.equal(p, old) for p, old in zip(params, before, strict=True))


def test_parameters_are_those_of_the_beginning():
    params = parameters()
    sgd = torch.optim.SGD(params, lr=1.0)
    optimizer = CorrelatedNoise(sgd, privatizer())
    late = torch.nn.Parameter(torch.zeros(2))
    with pytest.raises(ValueError, match="before it is wrapped"):
        optimizer.add_param_group({"params": [late]})
    sgd.add_param_group({"params": [late]})
    with pytest.raises(ValueError, match="parameters it had when it was wrapped"):
        optimizer.step()


@pytest.mark.parametrize(
    "bad",
    [
        torch.nn.Parameter(torch.zeros(2), requires_grad=False),
        torch.nn.Parameter(torch.zeros(2, dtype=torch.complex64)),
    ],
    ids=["frozen", "complex"],
)
def test_parameters_that_cannot_be_noised_are_refused(bad):
    with pytest.raises(ValueError, match="real parameters that are trained"):
        CorrelatedNoise(torch.optim.SGD([bad], lr=1.0), privatizer())


def test_other_transformations_are_refused():
    with pytest.raises(ValueError, match=r"privatizer must be made by dpkit\.noise\.add_correlated_noise"):
        CorrelatedNoise(torch.optim.SGD(parameters(), lr=1.0), optax.sgd(0.1))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copies_are_refused(duplicate):
    with pytest.raises(TypeError, match="save its state_dict"):
        duplicate(CorrelatedNoise(torch.optim.SGD(parameters(), lr=1.0), privatizer()))


def test_hooks_are_those_of_any_optimizer():
    optimizer, called = CorrelatedNoise(torch.optim.SGD(parameters(), lr=1.0), privatizer()), []
    optimizer.register_step_pre_hook(lambda *_: called.append("before"))
    optimizer.register_step_post_hook(lambda *_: called.append("after"))
    optimizer.step()
    assert called == ["before", "after"]


# ---- Opacus ----------------------------------------------------------------------------------------------------------


def opacus_loop(physical_batch=None):
    """(gradients that the optimizer saw, the clipped means they were made of) per step, and the plan's privatizer."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    data = TensorDataset(torch.randn(60, 4), torch.randint(3, (60,)))
    model, optimizer, loader = PrivacyEngine(accountant="rdp").make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        data_loader=DataLoader(data, batch_size=10),
        poisson_sampling=False,
        noise_multiplier=0.0,
        max_grad_norm=0.5,
    )
    schema = fz.FixedEpoch(iterations=12, epochs=2)
    strategy = fz.BandedSquareRoot(num_bands=4)
    stddev = 1.5 * 0.5 * strategy.sensitivity(schema) / optimizer.expected_batch_size
    assert optimizer.expected_batch_size == 10
    made = noise.add_correlated_noise(strategy, stddev=stddev, key=KEY, iterations=12)
    optimizer.original_optimizer = CorrelatedNoise(optimizer.original_optimizer, made)
    seen = []
    optimizer.attach_step_hook(lambda inner: seen.append([p.grad.clone() for p in inner.params]))
    noisy = []

    def train(batches):
        for inputs, labels in batches:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
            if not optimizer._is_last_step_skipped:
                noisy.append([p.grad.clone() for p in model.parameters()])

    for _ in range(2):
        if physical_batch is None:
            train(loader)
        else:
            with BatchMemoryManager(
                data_loader=loader, max_physical_batch_size=physical_batch, optimizer=optimizer
            ) as split:
                train(split)
    return noisy, seen, made


@pytest.mark.filterwarnings("ignore:Secure RNG turned off", "ignore:Using a non-full backward hook")
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("physical_batch", [None, 4])
def test_inside_an_opacus_loop(physical_batch):
    noisy, clipped, made = opacus_loop(physical_batch)
    assert len(noisy) == len(clipped) == 12
    state = made.init([jnp.zeros((3, 4)), jnp.zeros(3)])
    for after, before in zip(noisy, clipped, strict=True):
        expected, state = made.update([jnp.asarray(g.numpy()) for g in before], state)
        total = sum(float(g.square().sum()) for g in before) ** 0.5
        assert 0 < total <= 0.5 * (1 + 1e-6)  # A mean of gradients clipped to 0.5.
        for g, x in zip(after, expected, strict=True):
            np.testing.assert_array_equal(g.numpy(), x)


PLAN = """
[data]
users = 100
unit = "user"
[training]
sampling = "min_sep"
iterations = 20
min_sep = 10
max_participations = 2
[mechanism]
kind = "gaussian"
noise_multiplier = 1.0
l2_clip_norm = 1.0
[strategy]
kind = "tree"
[privacy]
delta = 1e-6
relation = "replace_special"
"""


def test_a_plan_gives_noise_to_pytorch(tmp_path):
    path = tmp_path / "train.toml"
    path.write_text(PLAN, encoding="utf-8")
    plan = training.plan(training.load_config(path))
    p = torch.nn.Parameter(torch.zeros(4))
    optimizer = CorrelatedNoise(torch.optim.SGD([p], lr=1.0), plan.privatizer(KEY, expected_batch_size=10))
    optimizer.step()
    stream = noise.stream(fz.Tree(iterations=20), stddev=plan.stddev / 10, key=KEY)
    (xi,), _ = stream.step(stream.init([jnp.zeros(4)]))
    np.testing.assert_array_equal(-p.detach().numpy(), xi)
    assert np.all(np.asarray(xi) != 0)
