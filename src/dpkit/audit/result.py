"""What an audit found."""

import dataclasses

from dpkit import validation


@dataclasses.dataclass(frozen=True)
class AuditResult:
    """A statistical lower bound on epsilon.

    Args:
        epsilon_lower: with probability at least `confidence` over the audit's own randomness, epsilon at `delta` is no
            smaller, if `assumption` holds.
        delta: the delta that it is a bound for.
        confidence: of one audit. Quoting the largest of several has less; give each of k audits 1 - (1 - confidence)/k.
        method: how it was found, in a few words.
        samples: releases that the bound was computed from, or canaries of one run. Those that only chose the attack
            are not among them.
        assumption: what must be true for the bound to hold.
        false_positive_rate: upper confidence limit, where rates were measured.
        false_negative_rate: likewise.
    """

    epsilon_lower: float
    delta: float
    confidence: float
    method: str
    samples: int
    assumption: str
    false_positive_rate: float | None = None
    false_negative_rate: float | None = None

    def contradicts(self, certified: float) -> bool:
        """Whether the bound is above a certified upper bound on epsilon at the same delta.

        If both were computed rightly, this happens with probability at most 1 - `confidence`. Otherwise there is a
        mistake in the code, the accounting or an assumption.
        """
        return self.epsilon_lower > certified


def checked_confidence(confidence: float) -> float:
    """`confidence`, or `ValueError`."""
    number = validation.real("confidence", confidence)
    if not 0 < number < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence}; 0.95 is usual")
    return number
