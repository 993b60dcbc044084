"""The certified accountant inside real Opacus runs."""

import io
import math

import pytest
import torch
from opacus import PrivacyEngine
from opacus.accountants import RDPAccountant, create_accountant, registry
from opacus.accountants.utils import get_noise_multiplier
from opacus.optimizers import DPOptimizer
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch.utils.data import DataLoader, TensorDataset

from dpkit import NeighboringRelation, accounting, mechanisms
from dpkit.interop.opacus import CertifiedAccountant
from mechanisms.exact import mp

pytestmark = [
    pytest.mark.filterwarnings("ignore:Secure RNG turned off"),
    pytest.mark.filterwarnings("ignore:Using a non-full backward hook"),
    pytest.mark.filterwarnings("ignore:Full backward hook is firing"),
    pytest.mark.filterwarnings("ignore:Optimal order is the largest alpha"),
]

DELTA = 1e-5
EXAMPLES, BATCH = 240, 24


def private(*, noise_multiplier=1.0, poisson_sampling=True, **options):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    data = TensorDataset(torch.randn(EXAMPLES, 4), torch.randint(2, (EXAMPLES,)))
    engine = PrivacyEngine(accountant="dpkit")
    made = engine.make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        data_loader=DataLoader(data, batch_size=BATCH),
        noise_multiplier=noise_multiplier,
        max_grad_norm=options.pop("max_grad_norm", 1.0),
        poisson_sampling=poisson_sampling,
        **options,
    )
    return engine, *made


def train(model, optimizer, loader) -> int:
    steps = 0
    for inputs, labels in loader:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        steps += 1
    return steps


def certified(*parts) -> accounting.Bounds:
    run = mechanisms.compose(
        *(mechanisms.repeat(mechanisms.PoissonSampled(mechanisms.Gaussian(z), q), n) for z, q, n in parts)
    )
    return accounting.PldAccountant().epsilon(run, delta=DELTA)


def test_a_training_run_is_accounted_for_step_by_step():
    engine, model, optimizer, loader = private()
    assert type(engine.accountant) is CertifiedAccountant
    assert engine.get_epsilon(DELTA) == 0
    spent = [0.0]
    for epoch in (1, 2, 3):
        assert train(model, optimizer, loader) == EXAMPLES // BATCH
        assert engine.accountant.history == [(1.0, BATCH / EXAMPLES, 10 * epoch)]
        assert len(engine.accountant) == 10 * epoch
        spent.append(engine.get_epsilon(DELTA))
    assert spent == sorted(set(spent))
    bounds = certified((1.0, BATCH / EXAMPLES, 30))
    assert bounds.lower <= spent[-1] <= bounds.upper


def test_changing_noise_and_sampling_compose():
    accountant = CertifiedAccountant()
    steps = [(1.0, 0.1), (1.0, 0.1), (2.0, 0.1), (2.0, 0.2), (1.0, 0.1)]
    for noise_multiplier, sample_rate in steps:
        accountant.step(noise_multiplier=noise_multiplier, sample_rate=sample_rate)
    assert accountant.history == [(1.0, 0.1, 2), (2.0, 0.1, 1), (2.0, 0.2, 1), (1.0, 0.1, 1)]
    assert len(accountant) == len(steps)
    bounds = certified((1.0, 0.1, 3), (2.0, 0.1, 1), (2.0, 0.2, 1))
    assert bounds.lower <= accountant.get_epsilon(DELTA) <= bounds.upper


def test_epsilon_of_an_unsampled_gaussian_is_the_exact_one():
    accountant = CertifiedAccountant()
    accountant.history = [(2.0, 1.0, 4)]  # 1-GDP

    def excess(epsilon):
        return mp.ncdf(mp.mpf(1) / 2 - epsilon) - mp.exp(epsilon) * mp.ncdf(-mp.mpf(1) / 2 - epsilon) - mp.mpf(DELTA)

    truth = float(mp.findroot(excess, (4.0, 4.6), solver="anderson"))
    assert truth <= accountant.get_epsilon(DELTA) <= truth * (1 + 2e-5)


def test_it_is_below_renyi_and_agrees_with_opacus_prv():
    history = [(1.1, 0.01, 2_000)]
    epsilons = {}
    for name in ("dpkit", "rdp", "prv"):
        accountant = create_accountant(name)
        accountant.history = list(history)
        epsilons[name] = accountant.get_epsilon(DELTA)
    assert epsilons["dpkit"] < epsilons["rdp"]
    # Its upper end is eps_error = 0.01 above its estimate.
    assert epsilons["prv"] - 0.021 <= epsilons["dpkit"] <= epsilons["prv"]
    assert isinstance(create_accountant("rdp"), RDPAccountant)


@pytest.mark.parametrize("target", [0.5, 8.0, 300.0])
def test_opacus_finds_the_noise_for_a_target(target):
    sigma = get_noise_multiplier(
        target_epsilon=target, target_delta=DELTA, sample_rate=0.02, steps=500, accountant="dpkit"
    )
    accountant = CertifiedAccountant()
    accountant.history = [(sigma, 0.02, 500)]
    assert target - 0.011 <= accountant.get_epsilon(DELTA) <= target


def test_make_private_with_epsilon():
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    engine = PrivacyEngine(accountant="dpkit")
    model, optimizer, loader = engine.make_private_with_epsilon(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        data_loader=DataLoader(TensorDataset(torch.randn(100, 4), torch.randint(2, (100,))), batch_size=10),
        target_epsilon=3.0,
        target_delta=DELTA,
        epochs=2,
        max_grad_norm=1.0,
    )
    train(model, optimizer, loader)
    assert 0 < engine.get_epsilon(DELTA) < 3
    train(model, optimizer, loader)
    assert 2.98 <= engine.get_epsilon(DELTA) <= 3


def test_no_noise_is_no_privacy():
    engine, model, optimizer, loader = private(noise_multiplier=0.0)
    train(model, optimizer, loader)
    assert engine.accountant.history == [(0.0, BATCH / EXAMPLES, 10)]
    assert engine.get_epsilon(DELTA) == math.inf


def test_checkpoints_keep_the_history():
    engine, model, optimizer, loader = private()
    train(model, optimizer, loader)
    file = io.BytesIO()
    engine.save_checkpoint(path=file, module=model, optimizer=optimizer)
    file.seek(0)
    other, model, optimizer, loader = private()
    other.load_checkpoint(path=file, module=model, optimizer=optimizer)
    assert other.accountant.history == engine.accountant.history
    assert other.get_epsilon(DELTA) == engine.get_epsilon(DELTA)
    train(model, optimizer, loader)
    assert other.accountant.history == [(1.0, BATCH / EXAMPLES, 20)]
    with pytest.raises(ValueError, match="rdp"):
        other.accountant.load_state_dict({"history": [], "mechanism": "rdp"})


def test_batches_split_for_memory_count_once():
    engine, model, optimizer, loader = private()
    with BatchMemoryManager(data_loader=loader, max_physical_batch_size=8, optimizer=optimizer) as split:
        physical = train(model, optimizer, split)
    assert physical > 10
    assert engine.accountant.history == [(1.0, BATCH / EXAMPLES, 10)]


def test_accumulated_batches_are_refused():
    engine, model, optimizer, loader = private(poisson_sampling=False)
    batches = list(loader)
    optimizer.zero_grad()
    for inputs, labels in batches[:2]:
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ValueError, match="one Poisson batch, got 2 accumulated"):
        optimizer.step()
    assert engine.accountant.history == []
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def test_adaptive_clipping_is_refused():
    engine, model, optimizer, loader = private(
        clipping="adaptive",
        target_unclipped_quantile=0.5,
        clipbound_learning_rate=0.2,
        max_clipbound=10.0,
        min_clipbound=0.1,
        unclipped_num_std=5.0,
    )
    with pytest.raises(ValueError, match="adaptive"):
        train(model, optimizer, loader)
    assert engine.accountant.history == []


def test_ghost_clipping_is_accounted_for_alike():
    engine, model, optimizer, criterion, loader = private(
        grad_sample_mode="ghost", criterion=torch.nn.CrossEntropyLoss()
    )
    for inputs, labels in loader:
        optimizer.zero_grad()
        criterion(model(inputs), labels).backward()
        optimizer.step()
    assert engine.accountant.history == [(1.0, BATCH / EXAMPLES, 10)]


def test_the_noise_is_what_is_accounted_for():
    """Noise over 90,000 parameters has the accounted standard deviation, in secure mode's sums too."""
    count, clip, noise_multiplier = 90_000, 0.7, 1.3
    for secure in (False, True):
        p = torch.nn.Parameter(torch.zeros(count))
        optimizer = DPOptimizer(
            torch.optim.SGD([p], lr=1.0),
            noise_multiplier=noise_multiplier,
            max_grad_norm=clip,
            expected_batch_size=1,
            generator=torch.Generator().manual_seed(1),
            secure_mode=secure,
        )
        accountant = CertifiedAccountant()
        optimizer.attach_step_hook(accountant.get_optimizer_hook_fn(sample_rate=1.0))
        p.grad_sample = torch.zeros(1, count)
        optimizer.step()
        ratio = float(p.detach().double().square().mean().sqrt()) / (noise_multiplier * clip)
        # The variance of n squares of normals is 2 / n: 4.5 % are 13 standard deviations of the root, beyond 1e-35.
        assert abs(ratio - 1) < 13 / math.sqrt(2 * count)
        assert accountant.history == [(noise_multiplier, 1.0, 1)]


def test_bad_histories_are_refused():
    accountant = CertifiedAccountant()
    accountant.step(noise_multiplier=1.0, sample_rate=1.5)
    with pytest.raises(ValueError, match="sampling_probability"):
        accountant.get_epsilon(DELTA)
    with pytest.raises(ValueError, match="delta"):
        CertifiedAccountant().get_epsilon(-1.0)


def test_the_name_is_taken_once():
    assert CertifiedAccountant.mechanism() == "dpkit"
    assert registry.create_accountant("dpkit").run == mechanisms.compose()
    with pytest.raises(ValueError, match="already registered"):
        registry.register_accountant("dpkit", CertifiedAccountant)


def test_the_relation_is_that_of_poisson_sampling():
    accountant = CertifiedAccountant()
    accountant.history = [(1.0, 0.1, 10)]
    others = [
        accounting.PldAccountant(relation=relation).epsilon(accountant.run, delta=DELTA)
        for relation in (NeighboringRelation.ADD_OR_REMOVE_ONE, NeighboringRelation.REPLACE_ONE)
    ]
    assert others[0].lower <= accountant.get_epsilon(DELTA) <= others[0].upper < others[1].lower
