"""Correlated noise in PyTorch training loops, the very noise of `dpkit.noise`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from dpkit.interop.optional import required
from dpkit.noise import NoiseState

if TYPE_CHECKING:
    import optax

torch = required("torch")

_STATE = "correlated_noise"


class CorrelatedNoise(torch.optim.Optimizer):
    """An optimizer that adds step t's noise to the gradients of step t before the wrapped optimizer uses them.

    Use it, not the wrapped one, from then on: for steps, `zero_grad`, schedulers, scalers, `state_dict`.

    With Opacus, let its `DPOptimizer` clip without noise of its own, and wrap the optimizer inside it:

        module, optimizer, loader = PrivacyEngine().make_private(
            module=module, optimizer=sgd, data_loader=loader, poisson_sampling=False,
            noise_multiplier=0.0, max_grad_norm=l2_clip_norm,
        )
        privatizer = plan.privatizer(key, expected_batch_size=optimizer.expected_batch_size)
        optimizer.original_optimizer = CorrelatedNoise(optimizer.original_optimizer, privatizer)

    The sums that it hands on are divided by `expected_batch_size` (not so with loss_reduction="sum"), and so is the
    noise. Steps that Opacus skips, to accumulate a large batch, take no noise. Its accountants know of no noise but its
    own and say inf: epsilon is the plan's, and so is the order of batches that the loader must keep to.

    Args:
        optimizer: the wrapped one, any that needs no closure.
        privatizer: `noise.add_correlated_noise(strategy, stddev=..., key=...)` or `TrainingPlan.privatizer(key)`.

    Raises:
        ValueError: a parameter is frozen or not real; `privatizer` is another transformation. By `step`, once the run
            is over, or if the wrapped optimizer got other parameters.

    Guarantees: the noise equals, bit by bit, what the same privatizer adds in JAX to a list of arrays shaped like the
    parameters, in the order of the wrapped optimizer's groups. Every parameter gets its noise at every step; a missing
    gradient (None) counts as zero. The sum is made in the wider of both types and returned in that of the gradient. The
    gradients must be clipped before, per example: nothing here can see whether they were.

    Noise is made on JAX's device and handed over without a copy where that is the parameter's too. Processes that train
    one model together draw the same noise, since it depends on the key alone: add it after gradients were averaged, not
    in each process before. Parameters sharded over processes are not supported.

    >>> from dpkit import factorization as fz, noise
    >>> model = torch.nn.Linear(3, 1)
    >>> privatizer = noise.add_correlated_noise(fz.BandedSquareRoot(num_bands=4), stddev=0.5, key=jax.random.key(0))
    >>> optimizer = CorrelatedNoise(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), privatizer)
    >>> model(torch.ones(2, 3)).sum().backward()
    >>> optimizer.step()
    """

    def __init__(self, optimizer: Any, privatizer: "optax.GradientTransformation"):
        self.optimizer = optimizer
        # The hooks of an optimizer; its __init__ would give it parameters and a state beside the wrapped one's.
        self.__setstate__({})
        self._privatizer: Any = privatizer
        self._parameters = self._current()
        for p in self._parameters:
            if not (p.requires_grad and p.is_floating_point()):
                raise ValueError(
                    "optimizer must hold real parameters that are trained, got one of shape "
                    f"{tuple(p.shape)}, {p.dtype}, requires_grad={p.requires_grad}; leave it out of the optimizer"
                )
        state = privatizer.init(self._zeros())
        if not isinstance(state, NoiseState):
            raise ValueError(
                "privatizer must be made by dpkit.noise.add_correlated_noise or TrainingPlan.privatizer, got one with "
                f"the state {type(state).__name__}"
            )
        self._noise = state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Adds the noise and lets the wrapped optimizer make its step.

        Args:
            closure: computes the gradients, which are all cleared before, and returns the loss; called once.

        Returns:
            What `closure` returned, if there is one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._add_noise()
        self.optimizer.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's, and the state of the noise, which holds the key: a secret.

        Save it with the parameters, and go on from both: a repeated step must be the very same, gradient included.
        """
        leaves = [_to_torch(leaf).clone() for leaf in jax.tree.leaves(self._noise)]
        return self.optimizer.state_dict() | {_STATE: leaves}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from `state_dict`, its key included, with the noise that would have come next.

        Raises:
            ValueError: it has no noise, or that of another strategy, generator or model.
        """
        if _STATE not in state_dict:
            raise ValueError(f'state_dict must have "{_STATE}", got {list(state_dict)}; it is of another optimizer')
        # Clones, because whoever owns the tensors may write to them.
        saved = [jnp.from_dlpack(leaf.clone()) for leaf in state_dict[_STATE]]
        leaves, tree = jax.tree.flatten(self._noise)
        found, expected = ([(leaf.shape, leaf.dtype.name) for leaf in side] for side in (saved, leaves))
        if found != expected:
            raise ValueError(
                f'state_dict["{_STATE}"] must have arrays of {expected}, got {found}; use the same privatizer and model'
            )
        self.optimizer.load_state_dict({name: part for name, part in state_dict.items() if name != _STATE})
        placed = [jax.device_put(new, old.sharding) for new, old in zip(saved, leaves, strict=True)]
        self._noise = jax.tree.unflatten(tree, placed)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        raise ValueError(
            f"the noise is of a fixed list of parameters; {param_group} must be added before it is wrapped"
        )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    @property
    def state(self) -> Any:
        return self.optimizer.state

    @property
    def defaults(self) -> dict[str, Any]:
        return self.optimizer.defaults

    def __getstate__(self) -> Any:
        raise TypeError(
            "CorrelatedNoise cannot be copied or pickled: two would add the same noise; save its state_dict"
        )

    def __repr__(self) -> str:
        return f"CorrelatedNoise({self.optimizer!r})"

    def _add_noise(self) -> None:
        if list(map(id, self._current())) != list(map(id, self._parameters)):
            raise ValueError(
                "optimizer must keep the parameters it had when it was wrapped; wrap it when it has them all"
            )
        noise, self._noise = self._privatizer.update(self._zeros(), self._noise)
        for p, x in zip(self._parameters, noise, strict=True):
            xi = _to_torch(x).to(p.device)
            gradient = torch.zeros_like(p) if p.grad is None else p.grad
            wide = torch.promote_types(gradient.dtype, xi.dtype)
            # A sum, hence new memory: that of JAX must not be written to.
            p.grad = (xi.to(wide) + gradient.to(wide)).to(gradient.dtype)

    def _current(self) -> list[Any]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _zeros(self) -> list[jax.Array]:
        return [jnp.zeros(tuple(p.shape)) for p in self._parameters]


def _to_torch(array: jax.Array) -> Any:
    """The same memory as a tensor, once JAX has written it."""
    return torch.from_dlpack(array.block_until_ready())
