"""Pretraining: each step against a loop of the test's own."""

import copy
import math

import pytest
import torch
from conftest import flat_gradient, make_policy, norm

from minicf import pretrain as module
from minicf.pretrain import pretrain

SEED = 3


def loss_by_a_loop(policy, env, prompts, completions):
    """Mean over live tokens, each scored by a pass of its own over the text before it."""
    nats = []
    for prompt, completion in zip(prompts, completions):
        for t in range(env.decode(completion).index(".") + 1):
            logits = policy(torch.cat([prompt, completion[:t]])[None])[0][0, -1]
            nats.append(-logits.log_softmax(0)[completion[t]])
    return torch.stack(nats).mean()


def test_each_step_is_the_loss_gradient_rate_and_decay_of_its_own_batch(env, steps):
    """Four steps, two of them to warm up: the cosine falls to a tenth over all four."""
    policy, root = make_policy(env), math.sqrt(0.5)
    other, draws = copy.deepcopy(policy), torch.Generator().manual_seed(SEED)
    losses = pretrain(policy, env, 4, torch.Generator().manual_seed(SEED), 8, 1e-2, warmup=2)
    rates = [1e-2 * (0.1 + 0.9 * each) for each in ((1 + root) / 2, 1 / 2, (1 - root) / 2, 0)]
    assert [step.lr for step in steps] == pytest.approx([rates[0] / 2, *rates[1:]])
    for step, loss in zip(steps, losses, strict=True):
        with torch.no_grad():
            for weight, value in zip(other.parameters(), step.before):
                weight.copy_(value)
        expected = loss_by_a_loop(other, env, *env.corpus(8, draws))
        assert loss == pytest.approx(expected.item(), rel=1e-10)
        gradient = flat_gradient(expected, other)
        gradient = gradient / max(1, gradient.norm().item())
        left = torch.cat([each.flatten() for each in step.left])
        torch.testing.assert_close(left, gradient, rtol=1e-5, atol=1e-10)
        assert (step.weight_decay, step.betas) == (0.1, (0.9, 0.95))
    assert all(torch.equal(a, b) for a, b in zip(steps[-1].after, policy.parameters()))


@pytest.mark.parametrize("factor", [1e3, 1e-3])
def test_the_gradient_is_clipped_to_norm_one(factor, env, steps, monkeypatch, generator):
    mean = module.aggregate_tokens
    monkeypatch.setattr(module, "aggregate_tokens", lambda *some: factor * mean(*some))
    pretrain(make_policy(env, dtype=torch.float32), env, 2, generator, 16)
    for step in steps:
        size = norm(step.left)
        assert size == pytest.approx(1, rel=1e-3) if factor > 1 else 0 < size < 0.5


def test_the_loss_falls_and_checkpoints_are_called_back(env):
    policy, seen = make_policy(env, spread=0.0, dtype=torch.float32), []
    losses = pretrain(
        policy, env, 100, torch.Generator().manual_seed(0), learning_rate=1e-2, warmup=10,
        checkpoints=(20, 100), at_checkpoint=lambda step, loss: seen.append((step, loss)),
    )  # fmt: skip
    assert len(losses) == 100 and [step for step, _ in seen] == [20, 100]
    assert losses[0] == pytest.approx(math.log(13), abs=0.05)  # an untrained policy is uniform
    assert sum(losses[-20:]) / 20 == pytest.approx(seen[1][1]) and seen[1][1] < 0.7 * losses[0]
    logits, _ = policy(env.encode("05=2+3")[None])  # the stop is an action, and is trained
    assert logits[0, -1].softmax(0)[env.eos] > 0.5


def test_corpus_switches_are_passed_on_and_the_seed_decides(env, monkeypatch):
    policy, asked, corpus = make_policy(env, dtype=torch.float32), [], type(env).corpus

    def recording(self, *arguments):
        asked.append(arguments)
        return corpus(self, *arguments)

    monkeypatch.setattr(type(env), "corpus", recording)
    ends = []
    for _ in range(2):
        trial, generator = copy.deepcopy(policy), torch.Generator().manual_seed(5)
        pretrain(trial, env, 2, generator, 4, wrong=0.3, max_target=9)
        ends.append(list(trial.parameters()))
        assert asked[-1] == (4, generator, 0.3, 9)
    assert all(torch.equal(a, b) for a, b in zip(*ends))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_changes_no_weight(value, env, steps, monkeypatch):
    policy, mean = make_policy(env, dtype=torch.float32), module.aggregate_tokens

    def breaking(*some):
        return mean(*some) * (value if len(steps) == 2 else 1.0)

    monkeypatch.setattr(module, "aggregate_tokens", breaking)
    with pytest.raises(FloatingPointError, match="pretraining, step 3: the loss is"):
        pretrain(policy, env, 5, torch.Generator().manual_seed(0), 4)
    assert all(torch.equal(a, b) for a, b in zip(steps[-1].after, policy.parameters()))


def test_a_gradient_that_is_not_finite_is_named():
    one = torch.tensor(1.0)
    with pytest.raises(FloatingPointError, match="here: the gradient norm is nan"):
        module.check_finite("here", one, one * math.nan)
    assert module.check_finite("here", one, one) is None
