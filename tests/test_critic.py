import torch
from conftest import make_policy

from minicf.critic import Critic
from minicf.rollout import completion_logprobs, sample


def test_critic_starts_at_zero_shares_prompts_and_is_a_copy(policy, env, generator):
    critic = Critic(policy)
    rollout = sample(policy, env, env.prompts[:3], 2, generator)
    assert torch.equal(critic(env.prompts[:3], rollout.completions, 2), torch.zeros(6, 4).double())
    before = completion_logprobs(policy, env.prompts[:3], rollout.completions, 2)
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
