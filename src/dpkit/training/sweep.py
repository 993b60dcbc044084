"""Many mechanisms at many target epsilons: on all cores or a Dask cluster, each computed once and kept."""

import concurrent.futures
import dataclasses
import hashlib
import pathlib
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, cast

from dpkit import validation
from dpkit.accounting.base import Bounds
from dpkit.training import fields, planning
from dpkit.training.config import TrainingConfig
from dpkit.training.plan import TrainingPlan
from dpkit.training.plan import plan as plan_of
from dpkit.training.result_cache import ResultCache, digest, software

_PATIENCE = "10s"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What `planning.evaluate` found for one mechanism at one target, in numbers and text only.

    Args:
        target_epsilon: that the run stays within.
        name: of the mechanism.
        noise_multiplier: the least that is enough.
        epsilon: certified, at `delta`.
        delta: of the guarantee.
        accountant: that certified it.
        rmse, max_error, state_copies, operations, gap, seconds: as `planning.Candidate` has them.
        strategy: the `[strategy]` table; {}: independent noise.
        config: the calibrated run.
    """

    target_epsilon: float
    name: str
    noise_multiplier: float
    epsilon: Bounds
    delta: float
    accountant: str
    rmse: float
    max_error: float
    state_copies: int
    operations: int
    gap: float | None
    seconds: float
    strategy: dict[str, Any]
    config: TrainingConfig

    @classmethod
    def of(cls, target_epsilon: float, candidate: planning.Candidate) -> Self:
        """The numbers of a candidate."""
        values = {**candidate.as_dict(), "epsilon": candidate.epsilon, "config": candidate.plan.config}
        return cls(target_epsilon=target_epsilon, **values)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """What `as_dict` had written."""
        config = TrainingConfig.parse(tomllib.loads(values["config"], parse_float=fields.toml_float))
        return cls(**{**values, "epsilon": Bounds(**values["epsilon"]), "config": config})

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON values; the config as the text of a file."""
        return {**vars(self), "epsilon": dataclasses.asdict(self.epsilon), "config": self.config.toml()}

    @property
    def plan(self) -> TrainingPlan:
        """The calibrated run, derived anew from `config`."""
        return plan_of(self.config)


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why a mechanism cannot be had at a target.

    Args:
        target_epsilon: that was asked for.
        strategy: the `[strategy]` table.
        reason: in words.
    """

    target_epsilon: float
    strategy: dict[str, Any]
    reason: str


class WorkersLostError(RuntimeError):
    """The processes that did the work are gone, or cannot be reached any more."""


@dataclasses.dataclass(frozen=True)
class _Task:
    """One mechanism at the targets for which it is not known yet; they share its strategy."""

    config: TrainingConfig
    table: dict[str, Any]
    targets: tuple[float, ...]
    software: str

    def run(self) -> list[Outcome | Refusal]:
        if software() != self.software:
            remedy = "install the same dpkit, NumPy, SciPy and numba for every worker, and restart the workers"
            raise ValueError(f"a worker runs other software than the process that asks; {remedy}")
        try:
            solution = planning.solve(self.config, self.table)
        except ValueError as error:
            return self.refused(str(error))
        return [self._at(target, solution) for target in self.targets]

    def _at(self, target: float, solution: Any) -> Outcome | Refusal:
        try:
            return Outcome.of(target, planning.evaluate(self.config, self.table, target, solution))
        except ValueError as error:
            return Refusal(target, self.table, str(error))

    def refused(self, reason: str) -> list[Outcome | Refusal]:
        return [Refusal(target, self.table, reason) for target in self.targets]


def sweep(
    config: TrainingConfig,
    tables: Iterable[Mapping[str, Any]],
    target_epsilons: Iterable[float],
    *,
    cache: ResultCache,
    jobs: int = -1,
    scheduler: str | None = None,
) -> Iterator[Outcome | Refusal]:
    """Every mechanism at every target: first what the cache holds, then the rest in the order in which it is finished.

    Whoever stops asking, or is interrupted, keeps what was yielded, and a later sweep finds it in the cache. The cache
    is read and written by this process only, so workers need not share its file system.

    Args:
        config: the run; its own strategy and noise multiplier are replaced.
        tables: `[strategy]` tables, for instance those of `planning.strategies`; {}: independent noise.
        target_epsilons: each > 0.
        cache: where results are kept.
        jobs: local processes; 1: this one; -1: as many as there are cores.
        scheduler: address of a Dask scheduler, whose workers then do the work instead; each needs the same dpkit, and
            a strategy file under the same path.

    Raises:
        ValueError: a target or `jobs` is out of range, the scheduler cannot be reached, or a worker has another dpkit.
        ModuleNotFoundError: a scheduler is given and distributed is not installed.
        WorkersLostError: the processes died, or the connection to the scheduler was lost.

    Guarantees: each pair of a mechanism and a target is yielded once, also where workers die; what `Outcome` says is
    what `planning.evaluate` says of the pair.

    >>> import tempfile
    >>> from dpkit import training
    >>> run = training.TrainingConfig.parse({
    ...     "data": {"users": 100, "unit": "user"},
    ...     "training": {"batch_size": 30, "iterations": 7, "sampling": "shuffle"},
    ...     "mechanism": {"kind": "gaussian", "noise_multiplier": 4.0, "l2_clip_norm": 0.5},
    ...     "privacy": {"delta": 1e-3, "relation": "replace_special"},
    ... })
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = list(sweep(run, [{}], [1.0, 2.0], cache=ResultCache(folder), jobs=1))
    >>> [(each.target_epsilon, f"{each.noise_multiplier:.1f}") for each in found]
    [(1.0, '4.5'), (2.0, '2.5')]
    """
    if jobs != -1:
        validation.count("jobs", jobs, 1)
    targets = sorted({validation.positive("target_epsilon", target) for target in target_epsilons})
    waiting = []
    for table in {digest(dict(table)): dict(table) for table in tables}.values():
        found = {target: cache.get(_key(config, table, target)) for target in targets}
        yield from (Outcome.parse(values) for values in found.values() if values is not None)
        if missing := tuple(target for target, values in found.items() if values is None):
            waiting.append(_Task(config, table, missing, software()))
    if not waiting:
        return
    # The longest searches first, lest one of them starts when all else is done.
    waiting.sort(key=lambda task: (task.table.get("kind") != "banded", -task.table.get("num_bands", 0)))
    for results in _on_cluster(waiting, scheduler) if scheduler is not None else _locally(waiting, jobs):
        for result in results:
            if isinstance(result, Outcome):
                cache.put(_key(config, result.strategy, result.target_epsilon), result.as_dict())
        yield from results


def by_mechanism(config: TrainingConfig, outcomes: Iterable[Outcome]) -> dict[str, dict[float, Outcome]]:
    """Outcomes by the mechanism's label and by target epsilon, the least error at the largest target first.

    Args:
        config: the run; the label of its own strategy says so, since it may share its name with another one.
        outcomes: of `sweep`, in any order.
    """
    rows: dict[str, dict[float, Outcome]] = {}
    for found in sorted(outcomes, key=lambda each: (-each.target_epsilon, each.rmse, each.state_copies)):
        own = config.correlated and found.strategy == config.tables()["strategy"]
        rows.setdefault(f"{found.name} (own)" if own else found.name, {})[found.target_epsilon] = found
    return {label: dict(sorted(row.items())) for label, row in rows.items()}


def _key(config: TrainingConfig, table: Mapping[str, Any], target: float) -> str:
    """Of everything an outcome depends on: `planning.evaluate` replaces the noise, the strategy and the accountant."""
    tables = {name: dict(keys) for name, keys in config.tables().items() if name not in ("strategy", "report")}
    tables["mechanism"].pop("noise_multiplier", None)
    tables["privacy"].pop("accountant", None)
    parts = {"software": software(), "config": tables, "strategy": dict(table), "target_epsilon": target}
    if "file" in table:
        path = pathlib.Path(table["file"])
        # A file that is not there is refused where it is read.
        parts["file"] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    return digest(parts)


def _locally(tasks: Sequence[_Task], jobs: int) -> Iterator[list[Outcome | Refusal]]:
    import joblib

    # A single task stays in this process. Batches of one, since tasks differ by orders of magnitude; joblib's types
    # know of "auto" only.
    count = min(joblib.effective_n_jobs(jobs), len(tasks))
    options: dict[str, Any] = {"n_jobs": count, "batch_size": 1, "return_as": "generator_unordered"}
    try:
        yield from cast(Iterator, joblib.Parallel(**options)(joblib.delayed(task.run)() for task in tasks))
    except concurrent.futures.BrokenExecutor as error:
        raise WorkersLostError("a worker process died, perhaps for want of memory; try fewer jobs") from error


def _on_cluster(tasks: Sequence[_Task], scheduler: str) -> Iterator[list[Outcome | Refusal]]:
    try:
        import distributed
    except ModuleNotFoundError:
        raise ModuleNotFoundError('a Dask cluster needs distributed; run pip install "dpkit[dask]"') from None
    try:
        client = distributed.Client(scheduler, timeout=_PATIENCE)
    except (OSError, ValueError) as error:
        remedy = "check the address, for example tcp://10.0.0.1:8786, and that the scheduler runs"
        raise ValueError(f"the Dask scheduler {scheduler} cannot be reached ({error}); {remedy}") from None
    with client:
        futures = {client.submit(task.run, pure=False): task for task in tasks}
        # Results are fetched as soon as they are there: what a dying worker still holds is computed again.
        for future, results in distributed.as_completed(futures, with_results=True, raise_errors=False):
            if future.status == "finished":
                yield results
            elif future.status == "error":
                error = future.exception()
                if not isinstance(error, distributed.KilledWorker):
                    raise error
                yield futures[future].refused("every worker that tried it died, perhaps for want of memory")
            else:
                raise WorkersLostError(f"the Dask scheduler {scheduler} gave up the work or cannot be reached any more")
