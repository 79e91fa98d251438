import pytest
import torch
import torch.nn.functional as F
from conftest import make_policy

from minicf.env import SumGame
from minicf.gpt import GPT, GPTConfig
from minicf.rollout import completion_logprobs, sample


@pytest.fixture
def tokens(generator):
    return torch.randint(0, 13, (3, 6), generator=generator)


def test_attention_against_pytorch(policy, generator):
    """One layer beside `scaled_dot_product_attention`, which scales, masks and mixes by itself."""
    layer, x = policy.blocks[0].attention, torch.randn(2, 5, 16, generator=generator).double()
    heads = layer.qkv(x).unflatten(-1, (3, layer.n_head, -1)).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
    expected = layer.out(mixed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x, None)[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("split", [1, 2, 5])
def test_cache_changes_neither_logits_nor_gradients(policy, tokens, split):
    whole, _ = policy(tokens)
    first, cache = policy(tokens[:, :split])
    second, cache = policy(tokens[:, split:], cache)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-12, atol=1e-12)
    assert cache[0][0].size(2) == 6
    # the loss sits behind the cache, so its gradient reaches the first part through the cache only
    parameters = list(policy.parameters())
    direct = torch.autograd.grad(whole[:, -1].square().sum(), parameters)
    cached = torch.autograd.grad(second[:, -1].square().sum(), parameters)
    for a, b in zip(direct, cached):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_no_position_sees_what_comes_later(policy, tokens):
    changed = tokens.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 13
    a, b = policy(tokens)[0], policy(changed)[0]
    assert torch.equal(a[:, :4], b[:, :4]) and not torch.equal(a[:, 4:], b[:, 4:])


def test_the_stream_is_read_by_each_block_and_the_final_norm(policy, tokens):
    """Read through the stream alone, a module after the other, the logits are the same."""
    positions = policy.position_embedding.weight[: tokens.size(1)]
    x = policy.token_embedding(tokens) + positions
    *blocks, norm = policy.stream
    for block in blocks:
        x, _ = block(x, None)
    assert torch.equal(policy.head(norm(x)), policy(tokens)[0])
    assert blocks == list(policy.blocks) and norm is policy.norm


@pytest.mark.parametrize("max_terms", [1, 3])
def test_a_policy_for_a_world_has_its_vocabulary_and_just_room_enough(max_terms, generator):
    world = SumGame(max_terms)
    policy = GPT.for_world(world, n_layer=1, n_head=2, d_model=8, generator=generator)
    assert policy.head.out_features == len(world.vocab)
    rollout = sample(policy, world, world.prompts, 2, generator)
    scored = completion_logprobs(policy, world.prompts, rollout.completions, 2)
    assert scored.shape == rollout.completions.shape
    whole = torch.cat([rollout.prompts, rollout.completions], 1)  # its last token is never fed
    with pytest.raises(ValueError, match="do not fit a context"):
        policy(whole)
    assert policy(whole[:, :-1])[0].isfinite().all()


def test_a_policy_for_a_world_repeats_with_its_generator(env):
    a, b = (GPT.for_world(env, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(a.head.weight, b.head.weight)
    assert a.config == GPTConfig(13, 6, n_layer=2, n_head=4, d_model=64)


def test_weights_come_from_the_generator_and_leave_the_global_one_alone():
    config = GPTConfig(13, 6)
    before = torch.random.get_rng_state()
    a, b, c = (GPT(config, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(a.head.weight, b.head.weight)
    assert not torch.equal(a.head.weight, c.head.weight)


def test_bad_input_is_refused(policy):
    with pytest.raises(ValueError, match="d_model 10 is not divisible by n_head 4"):
        GPTConfig(13, 6, 1, 4, 10)
    with pytest.raises(ValueError, match="n_layer .* not 0"):
        GPTConfig(13, 6, 0)
    with pytest.raises(ValueError, match="7 tokens do not fit a context of 6"):
        policy(torch.zeros(1, 7, dtype=torch.long))


def test_every_size_trains(env):
    for n_layer, d_model, n_head in ((1, 8, 1), (3, 12, 3)):
        policy = make_policy(env, n_layer=n_layer, d_model=d_model, n_head=n_head)
        policy(env.prompts)[0].sum().backward()
        assert all(weight.grad is not None for weight in policy.parameters())
