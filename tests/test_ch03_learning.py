"""The lab on learning: slopes worked out backwards are PyTorch's."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_utils import Value, letter_loss, look_up


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def tracked(box):
    return box.clone().requires_grad_()


OPERATIONS = {
    "+": lambda a, b: a + b,
    "·": lambda a, b: a * b,
    "@": lambda a, b: a @ b,
    "tanh": lambda a, b: a.tanh(),
}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(OPERATIONS)),
            st.integers(0, 9),
            st.integers(0, 9),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_graph_has_pytorchs_slopes(steps):
    """Boxes are taken again and again, so slopes from several uses add up."""
    start = [drawn(4, 4, seed=i) / 2 for i in range(3)]
    ours, theirs = [Value(box) for box in start], [tracked(b) for b in start]
    for boxes in ours, theirs:
        for name, i, j in steps:
            a, b = boxes[i % len(boxes)], boxes[j % len(boxes)]
            boxes.append(OPERATIONS[name](a, b))
    ours[-1].backward()
    theirs[-1].sum().backward()
    for value, tensor in zip(ours[:3], theirs):
        if tensor.grad is None:
            assert value.grad is None
        else:
            torch.testing.assert_close(value.grad, tensor.grad)


@pytest.mark.parametrize("shape", [(5,), (1, 5), (3, 1), ()])
@pytest.mark.parametrize("name", ["+", "·"])
def test_a_broadcast_box_gets_the_sum_over_its_uses(shape, name):
    a, b = drawn(3, 5), drawn(*shape, seed=1)
    ours, theirs = (Value(a), Value(b)), (tracked(a), tracked(b))
    OPERATIONS[name](*ours).backward()
    OPERATIONS[name](*theirs).sum().backward()
    for value, tensor in zip(ours, theirs):
        torch.testing.assert_close(value.grad, tensor.grad)


def test_slopes_are_added_until_they_are_cleared():
    a = Value(drawn(3))
    (a * a).backward()
    once = a.grad.clone()
    (a * a).backward()
    torch.testing.assert_close(a.grad, 2 * once)
    a.grad = None
    (a * a).backward()
    torch.testing.assert_close(a.grad, once)


def test_going_back_twice_from_one_loss_adds_the_same_again():
    """What is between keeps nothing that would be counted twice."""
    a = Value(drawn(3))
    loss = (a * a).tanh()
    loss.backward()
    once = a.grad.clone()
    loss.backward()
    torch.testing.assert_close(a.grad, 2 * once)


def test_a_chain_of_doublings_is_walked_once():
    """Each value is visited once, not once for every way that leads to it."""
    a = Value(torch.tensor(1.0, dtype=torch.float64))
    end = a
    for _ in range(60):
        end = end + end
    end.backward()
    assert a.grad.item() == 2.0**60


def test_a_row_that_is_picked_twice_collects_both_slopes():
    table, ids = drawn(6, 3), torch.tensor([[1, 1], [4, 1]])
    weight = drawn(2, 6, seed=1)
    ours, theirs = Value(table), tracked(table)
    (look_up(ours, ids) * Value(weight)).backward()
    (theirs[ids].flatten(1) * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert ours.grad[0].abs().sum() == 0 and ours.grad[1].abs().sum() > 0


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_the_loss_and_its_slope_are_pytorchs(scale):
    scores, targets = scale * drawn(7, 5), torch.tensor([0, 4, 4, 1, 2, 0, 3])
    ours, theirs = Value(scores), tracked(scores)
    loss, reference = letter_loss(ours, targets), F.cross_entropy(theirs, targets)
    torch.testing.assert_close(loss.data, reference.detach())
    loss.backward()
    reference.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
