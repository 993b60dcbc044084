"""Sweeps: each pair of a mechanism and a target once, with the numbers it has alone, wherever the work is done."""

import itertools
import json
import os
import pathlib
import signal
import sys

import pytest

from dpkit import factorization as fz
from dpkit.training import planning, sweep
from dpkit.training.result_cache import ResultCache
from training.test_planning import config

TARGETS = (1.0, 4.0)
TABLES = (
    {},
    {"kind": "tree"},
    {"kind": "blt", "num_buffers": 1},
    {"kind": "banded", "num_bands": 4},
    {"kind": "banded_square_root", "num_bands": 4},
)


@pytest.fixture
def cache(tmp_path):
    return ResultCache(tmp_path / "cache")


@pytest.fixture
def calls(monkeypatch):
    """The tables that were solved for and the pairs that were evaluated, in this process."""
    made = {"solve": [], "evaluate": []}
    solve, evaluate = planning.solve, planning.evaluate

    def counted_solve(run, table):
        made["solve"].append(table)
        return solve(run, table)

    def counted_evaluate(run, table, target, solution=None):
        made["evaluate"].append((table, target))
        return evaluate(run, table, target, solution)

    monkeypatch.setattr(planning, "solve", counted_solve)
    monkeypatch.setattr(planning, "evaluate", counted_evaluate)
    return made


def here(run, tables, cache, targets=TARGETS):
    return list(sweep.sweep(run, tables, targets, cache=cache, jobs=1))


def pairs(results):
    return sorted((json.dumps(result.strategy), result.target_epsilon) for result in results)


def assert_same(result, alone):
    assert (result.name, result.epsilon, result.config) == (alone.name, alone.epsilon, alone.plan.config)
    assert (result.noise_multiplier, result.delta) == (alone.plan.noise_multiplier, alone.plan.delta)
    assert (result.state_copies, result.operations) == (alone.copies, alone.operations)
    assert (result.accountant, result.gap is None) == ("pld", alone.gap is None)
    # Other threads round otherwise, and so a search may take another step before it stops.
    assert (result.rmse, result.max_error) == pytest.approx((alone.rmse, alone.max_error), rel=1e-3)


def test_two_processes_find_what_one_by_one_is_found(cache):
    run = config()
    results = list(sweep.sweep(run, TABLES, TARGETS, cache=cache, jobs=2))
    assert pairs(results) == sorted((json.dumps(table), target) for table in TABLES for target in TARGETS)
    for result in results:
        alone = planning.evaluate(run, result.strategy, result.target_epsilon)
        assert_same(result, alone)
        assert result.plan == alone.plan
        values = result.as_dict()
        assert json.loads(json.dumps(values)) == values
        assert sweep.Outcome.parse(values) == result


def test_what_is_known_is_not_computed_again(cache, calls):
    first = here(config(), TABLES, cache)
    assert calls["solve"][0] == TABLES[3]  # the longest search
    assert sorted(calls["solve"], key=repr) == sorted(TABLES, key=repr)
    assert len(calls["evaluate"]) == len(TABLES) * len(TARGETS)
    calls["solve"].clear()
    calls["evaluate"].clear()
    # Nor is anything asked of a cluster, or told twice.
    again = list(sweep.sweep(config(), TABLES * 2, TARGETS * 2, cache=cache, scheduler="tcp://127.0.0.1:1"))
    assert not calls["solve"]
    assert not calls["evaluate"]
    assert sorted(again, key=repr) == sorted(first, key=repr)
    # A new target needs the strategies again, and only itself.
    assert len(here(config(), TABLES[:2], cache, (1.0, 2.0))) == 4
    assert calls["evaluate"] == [(table, 2.0) for table in TABLES[:2]]


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"mechanism__noise_multiplier": 7.0}, False),
        ({"privacy__accountant": "rdp"}, False),
        ({"strategy__kind": "tree"}, False),
        ({"privacy__delta": 1e-6}, True),
        ({"privacy__relation": "add_or_remove_one"}, True),
        ({"training__max_participations": 3}, True),
        ({"optimizer__momentum": 0.25}, True),
    ],
    ids=str,
)
def test_what_a_result_depends_on_is_in_its_key(cache, calls, changes, again):
    here(config(), [{}], cache, [1.0])
    here(config(**changes), [{}], cache, [1.0])
    assert len(calls["evaluate"]) == 1 + again


def test_other_software_computes_again(cache, calls, monkeypatch):
    here(config(), [{}], cache, [1.0])
    monkeypatch.setattr(sweep, "software", lambda: "another version")
    here(config(), [{}], cache, [1.0])
    assert len(calls["evaluate"]) == 2


def test_a_strategy_file_is_known_by_what_it_holds(cache, calls, tmp_path):
    run, path = config(), tmp_path / "strategy.npz"
    table, schema = {"file": str(path)}, fz.MinSep(64, 8, 4)
    found = []
    for bands in (2, 4, 4):
        fz.save(path, fz.BandedSquareRoot(bands), schema)
        found += here(run, [table], cache, [1.0])
    assert len(calls["evaluate"]) == 2
    assert found[0].rmse > found[1].rmse == found[2].rmse


def test_a_damaged_entry_is_computed_again(cache, calls):
    (true,) = here(config(), [{}], cache, [1.0])
    (path,) = pathlib.Path(cache.folder).iterdir()
    text = path.read_text(encoding="utf-8")
    rmse = f'"rmse": {true.rmse!r}'
    assert rmse in text
    path.write_text(text.replace(rmse, f'"rmse": {true.rmse / 2!r}'), encoding="utf-8")
    (again,) = here(config(), [{}], cache, [1.0])
    assert len(calls["evaluate"]) == 2
    assert again.rmse == true.rmse
    here(config(), [{}], cache, [1.0])
    assert len(calls["evaluate"]) == 2


def test_an_interrupted_sweep_goes_on_where_it_was(cache, calls, monkeypatch):
    counted = planning.solve

    def interrupted(run, table):
        if len(calls["solve"]) == 3:
            raise KeyboardInterrupt
        return counted(run, table)

    monkeypatch.setattr(planning, "solve", interrupted)
    done = []
    with pytest.raises(KeyboardInterrupt):
        done.extend(sweep.sweep(config(), TABLES, TARGETS, cache=cache, jobs=1))
    assert len(done) == 3 * len(TARGETS)
    monkeypatch.setattr(planning, "solve", counted)
    everything = here(config(), TABLES, cache)
    assert set(pairs(done)) < set(pairs(everything))
    assert len(calls["solve"]) == len(TABLES)
    assert len(calls["evaluate"]) == len(set(pairs(everything))) == len(TABLES) * len(TARGETS)


def test_whoever_stops_asking_keeps_what_came(cache, calls):
    results = sweep.sweep(config(), TABLES, TARGETS, cache=cache, jobs=1)
    next(results)
    results.close()
    here(config(), TABLES, cache)
    # Nothing of the mechanism that was finished is computed again.
    counts = [calls["evaluate"].count((TABLES[3], target)) for target in TARGETS]
    assert counts == [1, 1]


def test_what_cannot_be_had_is_refused_and_the_rest_is_found(cache):
    wide = {"kind": "banded", "num_bands": 16}
    results = here(config(), [wide, {}], cache)
    refused = [result for result in results if isinstance(result, sweep.Refusal)]
    assert [(result.strategy, result.target_epsilon) for result in refused] == [(wide, 1.0), (wide, 4.0)]
    assert all("num_bands" in result.reason for result in refused)
    assert len(results) == 4


def test_mechanisms_are_told_apart_and_the_best_is_first(cache):
    # As many participations as min_sep allows: unequal norms help.
    strategy = {"strategy__kind": "banded", "strategy__num_bands": 4, "strategy__column_norms": "equal"}
    run = config(training__max_participations=8, **strategy)
    tables = [run.tables()["strategy"], {"kind": "banded", "num_bands": 4}, {}]
    rows = sweep.by_mechanism(run, here(run, tables, cache, (4.0, 1.0)))
    assert list(rows) == ["banded 4", "banded 4 (own)", "independent"]
    for row in rows.values():
        assert [(target, found.target_epsilon) for target, found in row.items()] == [(1.0, 1.0), (4.0, 4.0)]
    assert rows["banded 4"][4.0].rmse < rows["banded 4 (own)"][4.0].rmse < rows["independent"][4.0].rmse


@pytest.mark.parametrize(
    ("given", "words"),
    [({"jobs": 0}, "jobs must be"), ({"target_epsilons": [1.0, 0.0]}, "target_epsilon must be")],
    ids=["jobs", "target"],
)
def test_mistakes_are_explained(cache, given, words):
    arguments = {"target_epsilons": [1.0], "jobs": 1, **given}
    with pytest.raises(ValueError, match=words):
        list(sweep.sweep(config(), [{}], cache=cache, **arguments))


class Deadly:
    """Ends the process that loads it."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_dead_process_is_said_to_be_one(cache):
    tables = [{"kind": Deadly()}, {"kind": Deadly(), "num_bands": 1}]
    with pytest.raises(sweep.WorkersLostError, match="fewer jobs"):
        list(sweep.sweep(config(), tables, [1.0], cache=cache, jobs=2))


def test_a_cluster_needs_distributed(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "dpkit\[dask\]"'):
        list(sweep.sweep(config(), [{}], [1.0], cache=cache, scheduler="tcp://127.0.0.1:1"))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "no scheme://x"])
def test_a_scheduler_that_is_not_there_is_named(cache, monkeypatch, address):
    pytest.importorskip("distributed")
    monkeypatch.setattr(sweep, "_PATIENCE", "500ms")
    with pytest.raises(ValueError, match=f"{address} cannot be reached"):
        list(sweep.sweep(config(), [{}], [1.0], cache=cache, scheduler=address))


def test_workers_with_other_software_are_refused(cache, monkeypatch):
    versions = itertools.count()
    monkeypatch.setattr(sweep, "software", lambda: next(versions))
    with pytest.raises(ValueError, match="a worker runs other software"):
        here(config(), [{}], cache, [1.0])


def test_a_killed_worker_loses_nothing_and_repeats_nothing(cache, calls):
    distributed = pytest.importorskip("distributed")
    run = config(training__iterations=128)
    tables = [{"kind": "banded", "num_bands": count} for count in range(2, 8)] + [{}, {"kind": "tree"}]
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        results = sweep.sweep(run, tables, TARGETS, cache=cache, scheduler=cluster.scheduler_address)
        found = [next(results)]
        # The one that is at work, so that its work is lost.
        address = next(address for address, worker in cluster.scheduler.workers.items() if worker.processing)
        (pid,) = (nanny.process.pid for nanny in cluster.workers.values() if nanny.worker_address == address)
        os.kill(pid, signal.SIGKILL)
        found += results
        assert address not in cluster.scheduler.workers
    assert pairs(found) == sorted((json.dumps(table), target) for table in tables for target in TARGETS)
    for result in found[::4]:
        alone = planning.evaluate(run, result.strategy, result.target_epsilon)
        assert_same(result, alone)
    calls["solve"].clear()
    again = here(run, tables, cache)
    assert not calls["solve"]
    assert sorted(again, key=repr) == sorted(found, key=repr)


def test_what_kills_its_workers_is_refused(cache):
    distributed = pytest.importorskip("distributed")
    import dask

    def deadly():
        planning.solve = lambda *_: os._exit(1)

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
    ):
        with distributed.Client(cluster) as client:
            client.run(deadly)
        results = list(sweep.sweep(config(), [{}], TARGETS, cache=cache, scheduler=cluster.scheduler_address))
    assert [(result.target_epsilon, result.strategy) for result in results] == [(1.0, {}), (4.0, {})]
    assert all("died" in result.reason for result in results)


def test_a_scheduler_that_goes_away_is_said_to_have(cache):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        # More than can be done while the cluster closes.
        kinds = ("banded_square_root", "banded_inverse_square_root")
        tables = [{"kind": kind, "num_bands": count} for kind in kinds for count in range(1, 65)]
        results = sweep.sweep(config(), tables, TARGETS, cache=cache, scheduler=cluster.scheduler_address)
        next(results)
        cluster.close()
        with pytest.raises(sweep.WorkersLostError):
            list(results)
