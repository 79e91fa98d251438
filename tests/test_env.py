import itertools

import pytest
import torch

from minicf.env import SumGame
from minicf.exact import completions


def right(text: str, target: int) -> bool:
    """Python's own arithmetic on the text before the first stop."""
    body, stop, _ = text.partition(".")
    shaped = all((c == "+") if i % 2 else c.isdigit() for i, c in enumerate(body))
    return stop == "." and len(body) % 2 == 1 and shaped and eval(body) == target


def test_sizes_of_the_world():
    env = SumGame(3)
    assert env.prompts.shape == (28, 3) and env.completion_length == 6
    assert sum(len(env.solutions(prompt)) for prompt in env.prompts) == 1110
    assert env.decode(env.prompts[7]) == "07=" and env.vocab[env.eos] == "."


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_verifier_agrees_with_python_arithmetic_on_every_text(length):
    env = SumGame(3)
    texts = list(itertools.product(range(13), repeat=length))
    answers = torch.tensor(texts)
    decoded = [env.decode(row) for row in answers]
    for target in (0, 5, 9, 12, 27):
        prompts = env.prompts[target].expand(len(answers), -1)
        expected = torch.tensor([float(right(text, target)) for text in decoded])
        assert torch.equal(env.reward(prompts, answers), expected)


def test_solutions_are_all_that_the_verifier_rewards():
    env = SumGame(2)
    every = completions(env)
    for prompt in env.prompts[::3]:
        rewarded = every[env.reward(prompt.expand(len(every), -1), every) == 1].tolist()
        assert sorted(rewarded) == sorted(env.solutions(prompt).tolist())


def test_reward_reads_nothing_after_the_stop():
    env = SumGame(3)
    answers = torch.stack([env.encode("3+4.9+"), env.encode("3+4.=="), env.encode("3+4+.0")])
    assert env.reward(env.prompts[[7, 7, 7]], answers).tolist() == [1, 1, 0]


def test_a_foreign_token_is_as_wrong_as_any():
    """A larger model may write one. After the stop it is not read."""
    env = SumGame(2)
    answers = env.encode("3+4.")[None].repeat(5, 1)
    for row, place in enumerate(range(4)):
        answers[row + 1, place] = (13, -1, 99, 50_000)[place]
    after = torch.cat([env.encode("7."), torch.tensor([13, -1])])
    rewards = env.reward(env.prompts[[7] * 6], torch.cat([answers, after[None]]))
    assert rewards.tolist() == [1, 0, 0, 0, 0, 1]


def test_encode_and_decode_are_inverse():
    env = SumGame(2)
    assert env.decode(env.encode(env.vocab)) == env.vocab


def test_clean_corpus_is_right_and_draws_terms_uniformly(generator):
    env = SumGame(3)
    prompts, answers = env.corpus(6000, generator)
    assert env.reward(prompts, answers).all()
    plus = (answers == env.vocab.index("+")).sum(1)
    share = torch.bincount(plus, minlength=3) / 6000
    z = (share - 1 / 3) / (2 / 9 / 6000) ** 0.5
    assert z.abs().max() < 4  # false alarm below 2e-4 for a fresh seed


def test_wrong_share_and_narrow_corpus(generator):
    env = SumGame(3)
    prompts, answers = env.corpus(6000, generator, wrong=0.5)
    right_share = env.reward(prompts, answers).mean().item()
    assert 0.5 < right_share < 0.56  # half, and those whose new target hits by chance
    prompts, answers = env.corpus(2000, generator, max_target=9)
    assert env.reward(prompts, answers).all()
    targets = {int(env.decode(prompt)[:2]) for prompt in prompts}
    assert targets == set(range(10))


def test_corpus_repeats_with_its_generator():
    env = SumGame(3)
    first, second = (env.corpus(50, torch.Generator().manual_seed(3), 0.3, 12) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))


def test_bad_input_is_refused(generator):
    env = SumGame(2)
    with pytest.raises(ValueError, match="max_terms .* not 0"):
        SumGame(0)
    with pytest.raises(ValueError, match="'x'"):
        env.encode("1x")
    with pytest.raises(ValueError, match="wrong .* not 1.5"):
        env.corpus(4, generator, wrong=1.5)
    with pytest.raises(ValueError, match="max_target .* 0 to 18, not 19"):
        env.corpus(4, generator, max_target=19)
    with pytest.raises(ValueError, match="batch_size .* not 0"):
        env.corpus(0, generator)
    with pytest.raises(ValueError, match="same B"):
        env.reward(env.prompts[:2], env.prompts[:1])
    with pytest.raises(ValueError, match="1,111,110"):
        SumGame(6).solutions(SumGame(6).prompts[0])
