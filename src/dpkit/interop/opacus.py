"""The certified accountant for Opacus: to import this module registers it, under the name "dpkit".

>>> import warnings
>>> from opacus import PrivacyEngine
>>> import dpkit.interop.opacus
>>> with warnings.catch_warnings(action="ignore"):  # Opacus recommends its secure mode.
...     engine = PrivacyEngine(accountant="dpkit")
>>> type(engine.accountant).__name__
'CertifiedAccountant'
"""

from collections.abc import Callable
from typing import Any

from dpkit import mechanisms
from dpkit.accounting import PldAccountant
from dpkit.interop.optional import required

accountants = required("opacus.accountants")
optimizers = required("opacus.optimizers")


class CertifiedAccountant(accountants.IAccountant):
    """Epsilon of an Opacus run as the upper end of `PldAccountant`'s certified interval.

    `PrivacyEngine(accountant="dpkit")` uses it in `get_epsilon`, `make_private_with_epsilon` and checkpoints, in place
    of "prv" and "rdp". `history` is kept as Opacus keeps it: a list of (noise_multiplier, sample_rate, steps).

    Guarantees: an upper bound under `ADD_OR_REMOVE_ONE` for Poisson-sampled Gaussian steps, each with its own noise
    and sampling probability: what `make_private(poisson_sampling=True)`, its default, makes of every step, with
    secure_mode or without. With poisson_sampling=False nothing holds, as for Opacus's own accountants: which sampler
    made the batches cannot be seen from here; `dpkit.training.plan` accounts for other samplers. A noise multiplier of
    0 gives inf. Steps that do not fit are refused when they are taken: those of accumulated batches, in several of
    which one record may be, and those of clipping="adaptive", which moves the clipping norm by the true batch size.

    >>> accountant = CertifiedAccountant()
    >>> accountant.history = [(1.1, 0.01, 14_040)]
    >>> accountant.get_epsilon(delta=1e-5) < 6.3074
    True
    """

    def __init__(self):
        self.history: list[tuple[float, float, int]] = []

    def step(self, *, noise_multiplier: float, sample_rate: float) -> None:
        steps = 1
        if self.history and tuple(self.history[-1][:2]) == (noise_multiplier, sample_rate):
            steps += self.history.pop()[2]
        self.history.append((noise_multiplier, sample_rate, steps))

    @property
    def run(self) -> mechanisms.Mechanism:
        """All steps so far as one mechanism, for any accountant of dpkit.

        >>> accountant = CertifiedAccountant()
        >>> accountant.step(noise_multiplier=1.0, sample_rate=0.5)
        >>> list(accountant.run.parts())
        [(PoissonSampled(mechanism=Gaussian(noise_multiplier=1.0), sampling_probability=0.5), 1)]
        """
        return mechanisms.compose(
            *(
                mechanisms.repeat(mechanisms.PoissonSampled(mechanisms.Gaussian(noise), rate), steps)
                for noise, rate, steps in self.history
            )
        )

    def get_epsilon(self, delta: float, *, tolerance: float = 1e-5) -> float:
        """The least epsilon that is certified for the steps so far, to a relative `tolerance`; inf where there is none.

        The tolerance is finer than `PldAccountant`'s own: Opacus searches for noise until epsilon is within 0.01 of its
        target, and would not end if rounding were coarser than that.

        Raises:
            ValueError: delta is not in [0, 1], or the history holds a noise or a probability that is none.
        """
        return PldAccountant(tolerance=tolerance).epsilon(self.run, delta=delta).upper

    def get_optimizer_hook_fn(self, sample_rate: float) -> Callable[[Any], None]:
        account = super().get_optimizer_hook_fn(sample_rate)

        def hook(optimizer: Any) -> None:
            if isinstance(optimizer, optimizers.AdaClipDPOptimizer):
                raise ValueError('clipping="adaptive" depends on the true batch size; use clipping="flat"')
            if optimizer.accumulated_iterations > 1:
                raise ValueError(
                    f"a step must be made of one Poisson batch, got {optimizer.accumulated_iterations} accumulated "
                    "ones; for large batches in little memory use opacus.utils.batch_memory_manager"
                )
            account(optimizer)

        return hook

    def __len__(self) -> int:
        return sum(steps for _, _, steps in self.history)

    @classmethod
    def mechanism(cls) -> str:
        return "dpkit"


accountants.register_accountant(CertifiedAccountant.mechanism(), CertifiedAccountant)
