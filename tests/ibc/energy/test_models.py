"""The energy heads: split first layer, shared actions, dropout, gradients."""

import pytest
import torch

from ibc.config.implicit import EnergyConfig
from ibc.energy.models import ConcatEnergy, build_energy
from ibc.layers import MLP, drop

FUSIONS = pytest.mark.parametrize("fusion", ["concat", "product"])


def build(fusion, dropout=0.0, depth=3):
    torch.manual_seed(0)
    return build_energy(6, 4, EnergyConfig(fusion, width=16, depth=depth, dropout=dropout))


def inputs(n=5):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(3, 6, generator=generator)
    return features, torch.rand(3, n, 4, generator=generator) * 2 - 1


def test_concat_is_an_mlp_over_the_concatenation():
    model = build("concat")
    assert isinstance(model, ConcatEnergy)
    features, actions = inputs()
    plain = MLP([10, 16, 16, 16, 1])
    with torch.no_grad():
        first = torch.cat([model.observation.weight, model.action.weight], 1)
        plain.layers[0].weight.copy_(first)
        plain.layers[0].bias.copy_(model.observation.bias)
        for ours, theirs in zip([*model.hidden, model.out], plain.layers[1:], strict=True):
            theirs.load_state_dict(ours.state_dict())
    both = torch.cat([features[:, None].expand(-1, 5, -1), actions], -1)
    torch.testing.assert_close(
        model.score(model.observe(features), actions), plain(both).squeeze(-1)
    )


def test_the_halves_of_the_first_layer_start_as_one_layer():
    torch.manual_seed(0)
    model = build_energy(30, 2, EnergyConfig("concat", width=2000, depth=2))
    bound = 32**-0.5  # what nn.Linear takes for 30 + 2 inputs
    for half in (model.observation.weight, model.observation.bias, model.action.weight):
        assert 0.99 * bound < half.abs().max() <= bound
        assert half.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@FUSIONS
def test_shared_actions_score_as_if_repeated(fusion):
    model = build(fusion)
    features, actions = inputs()
    context = model.observe(features)
    shared = model.score(context, actions[:1])
    assert shared.shape == (3, 5)
    torch.testing.assert_close(shared, model.score(context, actions[:1].expand(3, -1, -1)))


@FUSIONS
def test_an_energy_depends_on_its_own_row_and_action_only(fusion):
    model = build(fusion)
    features, actions = inputs()
    before = model.score(model.observe(features), actions)
    features[1] += 1.0
    actions[0, 2] += 0.5
    changed = (model.score(model.observe(features), actions) - before).abs() > 1e-6
    assert changed[1].all()
    assert changed[0].tolist() == [False, False, True, False, False]
    assert not changed[2].any()


@FUSIONS
def test_every_parameter_has_a_gradient(fusion):
    model = build(fusion, dropout=0.1)
    features, actions = inputs()
    random = torch.Generator().manual_seed(0)
    energies = model.score(model.observe(features, random), actions, random)
    energies.logsumexp(1).sum().backward()
    for name, parameter in model.named_parameters():
        # A constant added to all energies leaves the loss as it is, so one bias may be at zero.
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@FUSIONS
def test_dropout_only_with_a_generator_and_repeatable(fusion):
    model = build(fusion, dropout=0.5)
    features, actions = inputs(50)

    def energies(seed):
        random = None if seed is None else torch.Generator().manual_seed(seed)
        return model.score(model.observe(features, random), actions, random)

    assert torch.equal(energies(None), energies(None))
    assert torch.equal(energies(1), energies(1))
    assert not torch.equal(energies(1), energies(2))


def test_dropout_keeps_the_mean():
    x = torch.ones(1000, 100)
    dropped = drop(x, 0.2, torch.Generator().manual_seed(0))
    assert dropped.unique().tolist() == [0.0, 1.25]
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9])
def test_dropout_leaves_out_its_share_of_independent_units(share):
    x = torch.ones(400, 25, 101)  # a number of units that four do not divide
    zero = (drop(x, share, torch.Generator().manual_seed(0)) == 0.0).double()
    n = zero.numel()
    sd = (share * (1 - share) / n) ** 0.5
    assert float(zero.mean()) == pytest.approx(share, abs=4 * sd)
    # Neighbours come from one draw of 64 bits, rows from different ones.
    for other in (zero.flatten().roll(1), zero.flatten().roll(4), zero.flatten().roll(101)):
        covariance = float((zero.flatten() * other).mean() - zero.mean() ** 2)
        assert covariance == pytest.approx(0.0, abs=4 * share * (1 - share) / n**0.5)


def test_dropout_has_the_gradient_of_its_mask():
    x = torch.randn(6, 5, 7, requires_grad=True)
    for by_window in (False, True):
        out = drop(x, 0.3, torch.Generator().manual_seed(0), by_window)
        (grad,) = torch.autograd.grad(out.sum(), x)
        torch.testing.assert_close(out, x * grad)
        assert grad.unique().tolist() == pytest.approx([0.0, 1 / 0.7])


@FUSIONS
def test_depth_and_width_of_the_config_are_used(fusion):
    def count(width, depth):
        model = build_energy(6, 4, EnergyConfig(fusion, width, depth))
        return sum(p.numel() for p in model.parameters())

    assert len({count(16, 2), count(16, 3), count(32, 2)}) == 3


@pytest.mark.parametrize(("rows", "count", "shared"), [(7, 40, False), (3, 900, True)])
def test_scoring_in_blocks_changes_nothing(monkeypatch, rows, count, shared):
    model = build("concat")
    context = torch.randn(rows, 16, generator=torch.Generator().manual_seed(2))
    actions = torch.rand(1 if shared else rows, count, 4)
    whole = model.score(context, actions).detach()
    monkeypatch.setattr("ibc.energy.models.BLOCK", 16 * 100)
    with torch.no_grad():
        torch.testing.assert_close(model.score(context, actions), whole)


def resnet(depth=4, **changes):
    torch.manual_seed(0)
    config = EnergyConfig("concat", width=16, depth=depth, head="resnet", **changes)
    return build_energy(6, 4, config)


def test_resnet_head_is_pre_activation_blocks_of_two_layers():
    model = resnet()
    features, actions = inputs()
    both = torch.cat([features[:, None].expand(-1, 5, -1), actions], -1)
    first = torch.cat([model.observation.weight, model.action.weight], 1)
    h = both @ first.T + model.observation.bias
    assert len(model.hidden) == 2
    for block in model.hidden:
        h = h + block.second(block.first(h.relu()).relu())
    torch.testing.assert_close(
        model.score(model.observe(features), actions), model.out(h.relu()).squeeze(-1)
    )


def test_every_layer_of_a_resnet_head_has_a_gradient_and_matters():
    model = resnet(dropout=0.1)
    features, actions = inputs()
    random = torch.Generator().manual_seed(0)
    energies = model.score(model.observe(features, random), actions, random)
    energies.logsumexp(1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    before = model.score(model.observe(features), actions)
    assert torch.equal(before, model.score(model.observe(features), actions))
    with torch.no_grad():
        model.hidden[1].first.weight.zero_()
    assert not torch.allclose(model.score(model.observe(features), actions), before)


def test_shared_actions_score_as_if_repeated_by_a_resnet_head():
    model = resnet()
    features, actions = inputs()
    context = model.observe(features)
    shared = model.score(context, actions[:1])
    torch.testing.assert_close(shared, model.score(context, actions[:1].expand(3, -1, -1)))


@pytest.mark.parametrize(
    ("fusion", "head"), [("concat", "mlp"), ("concat", "resnet"), ("product", "mlp")]
)
def test_half_precision_rounds_the_hidden_layers_only(fusion, head):
    torch.manual_seed(0)
    config = EnergyConfig(fusion, width=64, depth=4, head=head)
    model = build_energy(6, 4, config)
    features, actions = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        half = model.score(model.observe(features), actions)
    assert half.dtype == torch.float32
    torch.testing.assert_close(
        half, model.score(model.observe(features), actions), atol=0.03, rtol=0.05
    )


@pytest.mark.parametrize("head", ["mlp", "resnet"])
def test_energies_have_second_derivatives(head):
    """As gradient penalties need: of the action's gradient, with respect to the weights."""
    torch.manual_seed(0)
    config = EnergyConfig("concat", width=16, depth=4, head=head)
    model = build_energy(6, 4, config)
    features, actions = inputs()
    actions.requires_grad_(True)
    energies = model.score(model.observe(features), actions)
    (slope,) = torch.autograd.grad(energies.sum(), actions, create_graph=True)
    slope.square().sum().backward()
    assert model.action.weight.grad.abs().sum() > 0
