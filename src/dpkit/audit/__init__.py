"""Empirical lower bounds on epsilon: what an attack achieved, at a stated confidence.

An accountant says what no attack can do, an audit what some attack did: a lower bound above the certified upper one is
evidence that the code is not what was accounted for. A lower bound far below it proves nothing.
"""

from dpkit.audit.losses import audit_losses
from dpkit.audit.one_run import audit_canaries, audit_guesses, one_run_p_value
from dpkit.audit.rates import audit_counts, audit_scores, clopper_pearson_upper
from dpkit.audit.release import audit_release
from dpkit.audit.result import AuditResult

__all__ = [
    "AuditResult",
    "audit_canaries",
    "audit_counts",
    "audit_guesses",
    "audit_losses",
    "audit_release",
    "audit_scores",
    "clopper_pearson_upper",
    "one_run_p_value",
]
