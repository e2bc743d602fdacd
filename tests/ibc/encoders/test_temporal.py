"""Fusion over frames: order matters, the newest frame is the last, and all ages are seen."""

import pytest
import torch

from ibc.encoders.temporal import Attention, Recurrence, build_fusion

FUSIONS = pytest.mark.parametrize("stacking", ["recurrent", "attention"])


def build(stacking, horizon, width=16):
    torch.manual_seed(0)
    fusion = build_fusion(stacking, 6, width, horizon)
    assert fusion is not None
    return fusion, torch.randn(3, horizon, 6)


@FUSIONS
@pytest.mark.parametrize("horizon", range(2, 9))
def test_every_frame_is_seen_and_their_order_matters(stacking, horizon):
    fusion, frames = build(stacking, horizon)
    before = fusion(frames)
    assert before.shape == (3, 16)
    for t in range(horizon):
        changed = frames.clone()
        changed[0, t] += 1.0
        after = fusion(changed)
        assert not torch.allclose(after[0], before[0], atol=1e-4)
        assert torch.allclose(after[1:], before[1:])
    older = frames.clone()
    older[:, :-1] = frames[:, :-1].roll(1, 1)
    if horizon > 2:
        assert not torch.allclose(fusion(older), before, atol=1e-4), "the past out of order"
    assert not torch.allclose(fusion(frames.flip(1)), before, atol=1e-4)


def test_recurrence_is_a_gated_recurrent_unit():
    fusion, frames = build("recurrent", 4)
    assert isinstance(fusion, Recurrence)
    reference = torch.nn.GRU(6, 16, batch_first=True)
    with torch.no_grad():
        # There the second gate says how much is kept, here how much is new.
        sign = torch.ones(48)
        sign[16:32] = -1.0
        reference.weight_ih_l0.copy_(fusion.frame.weight * sign[:, None])
        reference.weight_hh_l0.copy_(fusion.memory.weight * sign[:, None])
        reference.bias_ih_l0.copy_(fusion.frame.bias * sign)
        reference.bias_hh_l0.copy_(fusion.memory.bias * sign)
    state = reference(frames)[1][0]
    torch.testing.assert_close(fusion(frames), torch.nn.functional.layer_norm(state, (16,)))


def test_recurrence_starts_with_memories_of_all_lengths():
    units = Recurrence(6, 16, 8).frame.bias[16:32].detach().neg().exp()
    assert units[0] == pytest.approx(1.0)
    assert units[-1] == pytest.approx(7.0)


def test_heads_of_the_attention_start_at_ages_of_their_own():
    fusion = Attention(6, 16, 8)
    assert fusion.heads == 8
    assert fusion.preference_NT.argmax(1).tolist() == list(range(8))
    assert Attention(6, 10, 2).heads == 2
    assert Attention(6, 7, 2).heads == 1


@FUSIONS
def test_half_precision_changes_little(stacking):
    fusion, frames = build(stacking, 4, width=64)
    with torch.autocast("cpu", torch.bfloat16):
        half = fusion(frames)
    torch.testing.assert_close(half.float(), fusion(frames), atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("stacking", "horizon"), [("features", 4), ("channels", 4), ("recurrent", 1), ("attention", 1)]
)
def test_nothing_is_fused_without_frames_to_fuse(stacking, horizon):
    assert build_fusion(stacking, 6, 16, horizon) is None
