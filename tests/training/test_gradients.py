"""Clipped gradients, against plain loops in float64."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit import training

RANDOM = np.random.default_rng(7)
PARAMS = {"w": RANDOM.standard_normal((4, 3)).astype(np.float32), "b": RANDOM.standard_normal(3).astype(np.float32)}
XS = (RANDOM.standard_normal((11, 4)) * 10.0 ** RANDOM.uniform(-2, 2, (11, 1))).astype(np.float32)
YS = RANDOM.standard_normal((11, 3)).astype(np.float32)


def loss_fn(params, x, y):
    return 0.5 * jnp.sum((x @ params["w"] + params["b"] - y) ** 2)


def gradient(params, x, y):
    """Of `loss_fn`, by hand in float64: one flat vector."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    error = x @ np.asarray(params["w"], np.float64) + np.asarray(params["b"], np.float64) - y
    return np.concatenate([error, np.outer(x, error).ravel()])


def flat(tree):
    return np.concatenate([np.ravel(tree["b"]), np.ravel(tree["w"])]).astype(np.float64)


def clipped(vector, clip):
    return vector * min(1, clip / np.linalg.norm(vector))


def reference(clip, denominator, mask=None, users=None, params=PARAMS):
    groups = {}
    for i in range(len(XS)):
        if mask is None or mask[i]:
            groups.setdefault(i if users is None else users[i], []).append(gradient(params, XS[i], YS[i]))
    means = [np.mean(group, axis=0) for group in groups.values()]
    return sum(clipped(mean, clip) for mean in means) / denominator, [np.linalg.norm(mean) for mean in means]


def options(**changed):
    return {"expected_batch_size": 8.0, "batch_argnums": (1, 2)} | changed


LOSSES = np.array([loss_fn(PARAMS, x, y) for x, y in zip(XS, YS, strict=True)])


@pytest.mark.parametrize("microbatch_size", [None, 1, 4, 50])
def test_examples_against_a_loop(microbatch_size):
    @jax.jit
    def function(clip):
        chosen = options(microbatch_size=microbatch_size, return_per_example=True)
        return training.clipped_grad(loss_fn, clip, **chosen)(PARAMS, XS, YS)

    for clip in (1e-3, 1.0, 30.0, 1e6):
        got, per_example = function(clip)
        expected, norms = reference(clip, 8.0)
        np.testing.assert_allclose(flat(got), expected, rtol=3e-5, atol=3e-6 * np.abs(expected).max())
        np.testing.assert_allclose(per_example.norms, norms, rtol=1e-5)
        np.testing.assert_allclose(per_example.losses, LOSSES, rtol=1e-5)
        assert per_example.aux is None


@pytest.mark.parametrize("microbatch_size", [None, 1, 2, 5])
def test_users_against_a_loop(microbatch_size):
    chosen = options(unit="user", microbatch_size=microbatch_size, return_per_example=True)
    function = jax.jit(training.clipped_grad(loss_fn, 2.0, **chosen))
    for seed in range(20):
        random = np.random.default_rng(seed)
        users = random.integers(0, random.integers(1, 12), 11) * 1000 - 3
        mask = random.random(11) < 0.8
        got, per_example = function(PARAMS, XS, YS, mask=mask, user_ids=users)
        expected, norms = reference(2.0, 8.0, mask, users)
        np.testing.assert_allclose(flat(got), expected, rtol=3e-5, atol=1e-6)
        filled = sorted(norms, reverse=True) + [-1.0] * (11 - len(norms))
        np.testing.assert_allclose(per_example.norms, filled, rtol=1e-5)
        np.testing.assert_allclose(per_example.losses, LOSSES, rtol=1e-5)


def test_without_jit():
    got = training.clipped_grad(loss_fn, 1.0, **options(microbatch_size=3))(PARAMS, XS, YS)
    np.testing.assert_allclose(flat(got), reference(1.0, 8.0)[0], rtol=3e-5, atol=1e-6)


def test_one_user_moves_the_sum_by_at_most_the_clip_norm():
    # In whatever order and microbatches the examples of the user come.
    users = np.array([5, 1, 5, 2, 5, 5, 9, 5, 1, 5, 5])
    for microbatch_size in (None, 3):
        function = jax.jit(
            training.clipped_grad(
                loss_fn, 0.5, **options(unit="user", microbatch_size=microbatch_size, expected_batch_size=1)
            )
        )
        whole = flat(function(PARAMS, XS, YS, user_ids=users))
        for user in (1, 2, 5, 9):
            without = flat(function(PARAMS, XS, YS, user_ids=users, mask=users != user))
            np.testing.assert_allclose(np.linalg.norm(whole - without), 0.5, rtol=1e-4)


@pytest.mark.parametrize("unit", ["example", "user"])
@pytest.mark.parametrize("microbatch_size", [None, 4])
def test_masked_and_broken_examples_contribute_nothing_at_all(unit, microbatch_size):
    ids = {"user_ids": np.arange(11)} if unit == "user" else {}
    function = jax.jit(
        training.clipped_grad(
            loss_fn, 1.0, **options(unit=unit, microbatch_size=microbatch_size, return_per_example=True)
        )
    )
    mask = np.arange(11) % 3 != 0
    zeroed = np.where(mask[:, None], XS, 0)
    expected, _ = function(PARAMS, zeroed, YS, mask=mask, **ids)
    for bad in (np.nan, np.inf, 1e38):
        broken = np.where(mask[:, None], XS, np.float32(bad))
        got, _ = function(PARAMS, broken, YS, mask=mask, **ids)
        unmasked, per_example = function(PARAMS, broken, YS, **ids)
        np.testing.assert_allclose(flat(got), flat(expected), rtol=1e-6)
        np.testing.assert_allclose(flat(unmasked), flat(expected), rtol=1e-6)
        assert np.sum(np.isinf(per_example.norms)) == 4


def test_a_user_with_one_broken_example_contributes_nothing():
    users = np.array([0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    broken = XS.copy()
    broken[3] = np.nan
    function = training.clipped_grad(loss_fn, 1.0, **options(unit="user", microbatch_size=4))
    got = function(PARAMS, broken, YS, user_ids=users)
    np.testing.assert_allclose(flat(got), reference(1.0, 8.0, users != 1, users)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("unit", ["example", "user"])
def test_batches_without_anybody(unit):
    ids = {"user_ids": np.zeros(0, int)} if unit == "user" else {}
    function = training.clipped_grad(loss_fn, 1.0, **options(unit=unit, microbatch_size=4, return_per_example=True))
    got, per_example = function(PARAMS, XS[:0], YS[:0], **ids)
    assert not flat(got).any()
    assert per_example.norms.shape == (0,)
    ids = {"user_ids": np.zeros(11, int)} if unit == "user" else {}
    got, per_example = function(PARAMS, XS, YS, mask=np.zeros(11, bool), **ids)
    assert not flat(got).any()
    np.testing.assert_array_equal(per_example.norms, -1)


@pytest.mark.parametrize("unit", ["example", "user"])
def test_a_contribution_is_bounded_in_exact_arithmetic(unit):
    @jax.jit
    def contribution(gradient, clip):
        function = training.clipped_grad(jnp.vdot, clip, expected_batch_size=1, unit=unit)
        ids = {"user_ids": jnp.zeros(1, int)} if unit == "user" else {}
        return function(jnp.zeros(500), gradient[None], **ids)

    random = np.random.default_rng(3)
    for _ in range(200):
        clip = np.float32(10.0 ** random.uniform(-29, 29))
        values = random.standard_normal(500) * 10 ** random.uniform(-3, 3, 500)
        # Most of the time barely above or below the bound, where rounding decides.
        norm = clip * (1 + random.choice([0.3, 1e-5, 1e-6, 1e-7, 0]) * random.uniform(-1, 1))
        got = contribution((values * (norm / np.linalg.norm(values))).astype(np.float32), clip)
        square = sum(Fraction(float(x)) ** 2 for x in got)
        assert (1 - Fraction(1, 10**4)) ** 2 * min(Fraction(float(norm)), Fraction(float(clip))) ** 2 < square
        assert square <= Fraction(float(clip)) ** 2


def test_vmap_over_parameters():
    stacked = jax.tree.map(lambda p: jnp.stack([p, -p, 2 * p]), PARAMS)
    function = training.clipped_grad(loss_fn, 1.0, **options(microbatch_size=4))
    got = jax.vmap(function, in_axes=(0, None, None))(stacked, XS, YS)
    for i in range(3):
        params, one = jax.tree.map(lambda p, i=i: p[i], (stacked, got))
        np.testing.assert_allclose(flat(one), reference(1.0, 8.0, params=params)[0], rtol=3e-5, atol=1e-6)


def test_the_denominator_does_not_depend_on_who_came():
    function = training.clipped_grad(loss_fn, 1e-3, **options())
    np.testing.assert_allclose(
        flat(function(PARAMS, XS, YS)),
        flat(function(PARAMS, XS, YS, mask=np.arange(11) < 10)) + clipped(gradient(PARAMS, XS[10], YS[10]), 1e-3) / 8,
        rtol=1e-4,
        atol=1e-8,
    )


def test_low_precision_parameters_are_summed_in_float32():
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.bfloat16), PARAMS)
    # 300 equal gradients of norm 1: a bfloat16 sum would stop growing at 256.
    function = training.clipped_grad(loss_fn, 1.0, **options(expected_batch_size=1, microbatch_size=1))
    xs, ys = np.repeat(XS[:1], 300, 0).astype(jnp.bfloat16), np.repeat(YS[:1], 300, 0).astype(jnp.bfloat16)
    got = function(params, xs, ys)
    assert all(g.dtype == jnp.float32 for g in jax.tree.leaves(got))
    np.testing.assert_allclose(np.linalg.norm(flat(got)), 300, rtol=1e-4)


def test_aux_and_keys_of_examples_keep_their_order():
    def with_aux(params, example):
        noise = jax.random.normal(example["key"])
        return jnp.sum(params * example["x"]) * noise, {"twice": 2 * example["x"], "noise": noise}

    batch = {"x": jnp.arange(5.0), "key": jax.random.split(jax.random.key(3), 5)}
    noise = np.array([jax.random.normal(key) for key in batch["key"]])
    for unit, ids in (("example", {}), ("user", {"user_ids": jnp.array([4, 2, 4, 9, 2])})):
        function = training.clipped_grad(
            with_aux, 1e6, expected_batch_size=1, unit=unit, microbatch_size=2, has_aux=True
        )
        _, per_example = function(jnp.ones(()), batch, **ids)
        np.testing.assert_array_equal(per_example.aux["twice"], 2 * np.arange(5.0))
        np.testing.assert_allclose(per_example.aux["noise"], noise, rtol=1e-6)
        np.testing.assert_allclose(per_example.losses, noise * np.arange(5.0), rtol=1e-6)


def test_a_transform_acts_before_clipping():
    scale = {"w": np.float32(100.0), "b": np.float32(0.01)}
    function = training.clipped_grad(
        loss_fn, 1.0, **options(pre_clipping_transform=lambda g: jax.tree.map(jnp.multiply, g, scale))
    )
    factors = np.concatenate([np.full(3, 0.01), np.full(12, 100.0)])
    expected = sum(clipped(gradient(PARAMS, x, y) * factors, 1.0) for x, y in zip(XS, YS, strict=True)) / 8
    np.testing.assert_allclose(flat(function(PARAMS, XS, YS)), expected, rtol=3e-5, atol=1e-6)


def test_memory_is_bounded_by_the_microbatch():
    def temporaries(microbatch_size):
        function = training.clipped_grad(
            lambda w, x: jnp.sum(jnp.tanh(w * x)), 1.0, expected_batch_size=1, microbatch_size=microbatch_size
        )
        compiled = jax.jit(function).lower(jnp.ones(10_000), jnp.ones(256)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(4) < temporaries(None) / 8


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"expected_batch_size": 0}, "expected_batch_size"),
        ({"batch_argnums": 0}, "batch_argnums"),
        ({"batch_argnums": ()}, "batch_argnums"),
        ({"unit": "device"}, "unit must be"),
        ({"microbatch_size": 0}, "microbatch_size"),
        ({"microbatch_size": 2.0}, "microbatch_size"),
    ],
)
def test_bad_arguments_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        training.clipped_grad(loss_fn, 1.0, **options(**changed))
    with pytest.raises(ValueError, match="l2_clip_norm"):
        training.clipped_grad(loss_fn, -1.0, **options())


@pytest.mark.parametrize(
    ("unit", "args", "extra", "message"),
    [
        ("example", (XS,), {}, "not passed"),
        ("example", (XS, YS[:5]), {}, "one leading axis"),
        ("example", (XS, np.float32(1)), {}, "one leading axis"),
        ("example", (XS, YS), {"mask": np.ones(11)}, "mask must be bool"),
        ("example", (XS, YS), {"mask": np.ones(10, bool)}, "mask must be bool"),
        ("example", (XS, YS), {"user_ids": np.arange(11)}, "goes without"),
        ("user", (XS, YS), {}, "needs user_ids"),
        ("user", (XS, YS), {"user_ids": np.arange(10)}, "user_ids must be integers"),
        ("user", (XS, YS), {"user_ids": np.arange(11.0)}, "user_ids must be integers"),
        ("user", (XS, YS), {"user_ids": np.arange(11) * 2**32}, "user_ids must fit"),
    ],
)
def test_bad_batches_are_refused(unit, args, extra, message):
    with pytest.raises(ValueError, match=message):
        training.clipped_grad(loss_fn, 1.0, **options(unit=unit))(PARAMS, *args, **extra)
