"""What lessons share: shown source, checks that grade, tables."""

import inspect

import kit
import pytest
import torch
from conftest import ROOT

from minicf.grpo import group_advantages
from minicf.rollout import Rollout, completion_mask


def test_shown_source_is_the_packages_own():
    assert kit.show(group_advantages).data == inspect.getsource(group_advantages)
    assert kit.show(Rollout).data == inspect.getsource(Rollout)
    assert "monospace" in kit.show(group_advantages)._repr_html_()


def test_the_packages_function_earns_nothing_called_or_copied():
    def copied(completions, eos):
        pass

    def called(completions, eos):
        return completion_mask(completions, eos)

    copied.__code__ = completion_mask.__code__
    tokens = torch.zeros(1, 2)
    for function in (copied, called):
        assert kit.answer(function, tokens, 0).shape == (1, 2)  # where nothing is switched off
        with kit.disabled(completion_mask), pytest.raises(AssertionError, match="own"):
            kit.answer(function, tokens, 0)
        assert kit.answer(function, tokens, 0).shape == (1, 2)


def test_an_exercise_that_is_not_written_yet_says_so():
    def stub():
        raise NotImplementedError()

    with pytest.raises(NotImplementedError, match="`stub` is not written yet"):
        kit.answer(stub)


@pytest.mark.parametrize(
    "mine, says",
    [
        (lambda x: tuple([x, None])[:, 0], "several values stand where one is needed"),
        (lambda x: (x, None).sum(), "several values stand where one is needed"),
        (lambda x: torch.exp((x, None)), "several values stand where one is needed"),
        (lambda x: None + x, "is None"),
        (lambda x: x + torch.ones(3), "shapes that do not fit"),
        (lambda x: x.gather(0, torch.zeros(2, 2).long()), "raises an error"),
        (lambda x: {"reward": x}["rewards"], "a name that is not there .KeyError: 'rewards'"),
        (lambda x: x.sum().backward(), "no gradient is attached"),
        (lambda x: no_such_name, "raises an error"),  # noqa: F821
    ],
)
def test_a_slip_in_a_learners_function_is_one_sentence(mine, says):
    with pytest.raises(AssertionError, match=f"`<lambda>` breaks off: .*{says}") as caught:
        kit.answer(mine, torch.ones(2))
    assert "\n" not in str(caught.value) and caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "got, says",
    [
        (None, "returns None"),
        ([1.0], "shape"),
        ([1.0, 2.1], "expected"),
        ([1.0, float("nan")], "expected"),
    ],
)
def test_what_is_wrong_is_named(got, says):
    def mine():
        return got if got is None else torch.tensor(got)

    with pytest.raises(AssertionError, match=f"`mine`.*{says}"):
        kit.check_answer(mine, (), [1.0, 2.0], "a hint")


def test_many_numbers_that_are_wrong_are_told_by_cosine_and_length():
    def mine():
        return 2 * torch.ones(30)

    with pytest.raises(AssertionError, match="cosine 1.0000 .* 2.0000 times"):
        kit.check_answer(mine, (), torch.ones(30), "a hint")


def test_a_right_answer_is_returned():
    def mine(x):
        return x + 1

    assert kit.checked_answer(mine, (1.0,), 2.0, "a hint") == 2.0


def test_derivatives_are_zero_where_a_scalar_does_not_depend():
    x, y = (torch.ones(2, requires_grad=True) for _ in range(2))
    by_x, by_y = kit.derivatives((3 * x).sum(), x, y)
    assert by_x.tolist() == [3, 3] and by_y.tolist() == [0, 0]
    (by_x,) = kit.derivatives(torch.tensor(1.0), x)
    assert by_x.tolist() == [0, 0]


def test_a_missing_study_is_said_in_one_sentence(tmp_path, monkeypatch):
    assert kit.stored_study(ROOT)["checkpoints"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="^study.json not found: copy .* notebook$"):
        kit.stored_study(tmp_path)


def test_tables(capsys):
    kit.print_columns({"name": ["a", "bcd"], "x": torch.tensor([1.0, 20.25])}, digits=1)
    assert capsys.readouterr().out == "name     x\n   a   1.0\n bcd  20.2\n"
    kit.print_rows([{"x": 0.5}, {"x": 1.0}])
    assert capsys.readouterr().out == "   x\n0.50\n1.00\n"
    assert kit.interval_text(0.5, 0.25, 0.75) == "0.50 [0.25, 0.75]"
    assert kit.interval_text(0.5, 0.25, 0.75, digits=1) == "0.5 [0.2, 0.8]"
    assert kit.interval_text(float("nan"), 0.0, 0.0) == "-"


def test_a_function_that_changes_its_input_does_not_spoil_the_next_check():
    values = torch.tensor([1.0, 2.0])

    def centred(values):
        values -= values.mean()
        return values

    for _ in range(2):
        kit.checked_answer(centred, (values,), [-0.5, 0.5], "twice")
    assert values.tolist() == [1.0, 2.0]


def test_a_pair_of_tensors_is_not_taken_for_rows():
    def with_returns(rewards):
        return rewards, rewards

    with pytest.raises(AssertionError, match="returns a tuple of 2, not one value"):
        kit.checked_answer(with_returns, (torch.ones(2),), torch.ones(2), "a pair")
