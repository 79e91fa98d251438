import pytest
import torch
from conftest import make_policy

from minicf.critic import Critic, value_loss
from minicf.rollout import completion_logprobs, sample


def test_critic_starts_at_zero_shares_prompts_and_is_a_copy(policy, env, generator):
    rollout = sample(policy, env, env.prompts[:3], 2, generator)
    before = completion_logprobs(policy, env.prompts[:3], rollout.completions, 2)
    critic = Critic(policy)
    assert torch.equal(critic(env.prompts[:3], rollout.completions, 2), torch.zeros(6, 4).double())
    with torch.no_grad():
        for weight in critic.parameters():
            weight += 0.1
    values = critic(env.prompts[:3], rollout.completions, 2)
    assert values.shape == (6, 4)
    torch.testing.assert_close(values, critic(rollout.prompts, rollout.completions))
    after = completion_logprobs(policy, env.prompts[:3], rollout.completions, 2)
    assert torch.equal(before, after)


def test_critic_does_not_see_the_token_it_is_a_baseline_for(env, generator):
    critic = Critic(make_policy(env))
    with torch.no_grad():
        critic.trunk.head.weight.normal_(generator=generator)
    completions = torch.zeros(1, 4, dtype=torch.long)
    values = critic(env.prompts[:1], completions)
    completions[0, 2] = 5
    changed = critic(env.prompts[:1], completions)
    assert torch.equal(values[:, :3], changed[:, :3]) and values[0, 3] != changed[0, 3]


def test_value_loss_against_a_token_by_token_loop(policy, env, generator):
    rollout, critic = sample(policy, env, env.prompts[:3], 4, generator), Critic(policy)
    with torch.no_grad():
        critic.trunk.head.weight.normal_(generator=generator)
    returns = torch.randn(12, 4, generator=generator).double()
    total, count = 0.0, 0
    for b in range(12):
        values = critic(rollout.prompts[[b]], rollout.completions[[b]])[0]
        for t in range(int(rollout.mask[b].sum())):
            total, count = total + (values[t] - returns[b, t]).item() ** 2, count + 1
    assert count < rollout.mask.numel()  # nothing after a stop counts
    assert value_loss(critic, rollout, returns).item() == pytest.approx(total / count, rel=1e-10)


def test_a_policy_without_a_read_out_has_no_critic(policy):
    for other in (torch.nn.Linear(3, 3), policy.blocks[0]):
        with pytest.raises(ValueError, match=f"{type(other).__name__} needs .* `head`"):
            Critic(other)
