"""InfoNCE against its definition."""

import math

import pytest
import torch

from ibc.losses import candidate_statistics, info_nce


def test_info_nce_is_the_cross_entropy_of_the_first_candidate():
    energies = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.cross_entropy(
        -energies, torch.zeros(5, dtype=torch.long), reduction="none"
    )
    torch.testing.assert_close(info_nce(energies), expected)


def test_a_model_that_knows_nothing_is_at_chance():
    assert info_nce(torch.full((3, 65), 7.0)).tolist() == pytest.approx([math.log(65)] * 3)


def test_lower_energy_of_the_positive_is_better():
    energies = torch.zeros(1, 4)
    better = energies.clone()
    better[0, 0] = -3.0
    assert info_nce(better).item() < info_nce(energies).item()


def test_statistics_count_the_negatives_that_matter():
    energies = torch.tensor([[0.0, 2.0, 2.0, 100.0]])
    found = candidate_statistics(energies, None)
    assert found["effective_negatives"].item() == pytest.approx(2.0)
    assert found["energy_gap"].item() == pytest.approx(104.0 / 3)
