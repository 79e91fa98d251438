"""The numbers of minicf beside the field's own code: TRL 1.16 and, where installed, verl 0.9.

Skipped without TRL, which minicf does not need. Their code itself runs here, with nothing copied:
TRL's loss is a method of its trainer, and gets a stand-in for the trainer; its advantages are lines
inside a long method, cut from the installed source. All in float64, except for one dead group in
float32. Tokens after the stop hold garbage: finite, since TRL multiplies it by its mask.
"""

import inspect
import sys
import textwrap
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from minicf.grpo import group_advantages, grpo_loss, kl_penalty
from minicf.ppo import aggregate_tokens, clipped_surrogate, gae
from minicf.variants import cispo_loss, dapo_loss, gspo_loss

pytest.importorskip("trl")
from trl import GRPOConfig, GRPOTrainer, RLOOTrainer  # noqa: E402

T, G = 7, 3  # 11 groups: TRL's factor n/(n − 1) is in float32, and exact for 3 and for 33


def make_batch(seed=0, spread=0.5, B=11 * G):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(T) < torch.randint(1, T + 1, (B, 1), generator=generator)
    noise = torch.randn(6, B, T, generator=generator, dtype=torch.float64)
    old = -1.5 * noise[0].abs()
    three = (old + spread * noise[1], old, old + spread * noise[2])
    logprobs, old, ref = (torch.where(mask, x, 5 * y) for x, y in zip(three, noise[3:]))
    advantages, rewards = torch.randn(2, B, generator=generator, dtype=torch.float64)
    return SimpleNamespace(
        logprobs=logprobs, old=old, ref=ref, mask=mask, advantages=advantages, rewards=rewards
    )


@pytest.fixture(params=[0, 1, 2])
def batch(request):
    return make_batch(request.param)


def loss_and_gradient(function, batch):
    """function(log-probabilities), and its gradient by them, as one vector."""
    logprobs = batch.logprobs.clone().requires_grad_()
    loss = function(logprobs)
    return torch.cat([loss[None], torch.autograd.grad(loss, logprobs)[0].flatten()]).detach()


def minicf(batch, loss=None, kl_coef=0.0, **settings):
    """GRPO's loss, or a relative's with the KL that GRPO's would add."""

    def total(x):
        others = (batch.old, batch.advantages, batch.mask)
        if loss is None:
            return grpo_loss(x, *others, batch.ref, kl_coef, **settings)[0]
        kl = kl_penalty(x.masked_fill(~batch.mask, 0.0), batch.ref.masked_fill(~batch.mask, 0.0))
        kl = aggregate_tokens(kl, batch.mask, "sequence" if loss is gspo_loss else "token")
        return loss(x, *others, **settings)[0] + kl_coef * kl

    return loss_and_gradient(total, batch)


def trl(
    batch, loss_type=None, trainer=GRPOTrainer, parts=1, items=None, clip=(0.2, 0.2),
    level="token", beta=0.0, width=T, corrected=False,
):  # fmt: skip
    """The same of TRL, for a batch, or for one of several parts that have `items` live tokens."""
    arguments = {"use_bias_correction_kl": corrected, "delta": None, "steps_per_generation": parts}
    alone = {"num_processes": 1, "gather": lambda x: x, "reduce": lambda x, reduction: x}
    standin = SimpleNamespace(
        args=SimpleNamespace(**arguments), accelerator=SimpleNamespace(**alone),
        model=SimpleNamespace(training=True), _metrics={"train": defaultdict(list)},
        loss_type=loss_type, epsilon_low=clip[0], epsilon_high=clip[1], beta=beta,
        importance_sampling_level=level, max_completion_length=width,
        current_gradient_accumulation_steps=parts, top_entropy_quantile=1.0, use_vllm=False,
        off_policy_mask_threshold=None, aux_loss_enabled=False, _entropy_bonus_enabled=False,
    )  # fmt: skip
    mask = batch.mask.long()
    inputs = dict.fromkeys(("prompt_ids", "prompt_mask", "completion_ids", "completion_mask"), mask)
    inputs |= {
        "advantages": batch.advantages, "old_per_token_logps": batch.old,
        "ref_per_token_logps": batch.ref, "old_logps": (batch.old * mask).sum(1),
        "num_items_in_batch": mask.sum() if items is None else items,
    }  # fmt: skip

    def loss(x):
        standin._get_per_token_logps_and_entropies = lambda *_, **__: (x, torch.zeros_like(x), None)
        return trainer._compute_loss(standin, None, inputs)

    return loss_and_gradient(loss, batch)


def trl_advantages(rewards, trainer=GRPOTrainer, group_size=G, extras=None, **settings):
    """The lines from the rewards to the advantages in the installed TRL, executed."""
    lines = inspect.getsource(trainer._generate_and_score_completions).splitlines()
    ends = ("unscorable_mask =", "advantages = torch.nan_to_num(")
    first, last = ([i for i, x in enumerate(lines) if x.strip().startswith(e)] for e in ends)
    assert len(first) == len(last) == 1 and 10 < last[0] - first[0] < 70
    standin = SimpleNamespace(
        reward_weights=torch.ones(1), multi_objective_aggregation="sum_then_normalize",
        reward_clip_range=None, normalize_advantages=False, **settings,
    )  # fmt: skip
    names = {"num_generations": group_size, "device": "cpu", "rewards_per_func": rewards[:, None]}
    names |= vars(sys.modules[trainer.__module__]) | {"self": standin} | (extras or {})
    exec(textwrap.dedent("\n".join(lines[first[0] : last[0] + 1])), names)
    return names["advantages"]


def distance(a, b):
    """Relative, of the first entry (a loss) or of the others (a gradient): the larger one."""
    errors = [(x - y).norm() / y.norm() for x, y in ((a[:1], b[:1]), (a[1:], b[1:]))]
    return torch.stack(errors).max().item()  # nan if either is


def largest(a, b):
    return (a - b).abs().max().item()


def rloo(batch, kl_coef=0.0):
    """Leave-one-out advantages of rewards less kl_coef · log(π_old/π_ref) of the completion."""
    cost = (batch.old - batch.ref).masked_fill(~batch.mask, 0.0).sum(1)
    return group_advantages(batch.rewards - kl_coef * cost, G, "leave-one-out", "none")


AGREE = {  # TRL's loss_type and importance_sampling_level, and minicf's settings
    "GRPO": ("grpo", "token", {"aggregate": "sequence"}),
    "DAPO": ("dapo", "token", {"loss": dapo_loss}),
    "BNPO": ("bnpo", "token", {"aggregate": "token"}),
    "Dr. GRPO": ("dr_grpo", "token", {"aggregate": "constant"}),
    "GSPO": ("grpo", "sequence", {"loss": gspo_loss}),
}


@pytest.mark.parametrize("clip, beta", [((0.2, 0.2), 0.0), ((0.1, 0.28), 0.0), ((0.2, 0.3), 0.4)])
@pytest.mark.parametrize("name", AGREE)
def test_trl_losses_and_gradients_agree(name, clip, beta, batch):
    loss_type, level, settings = AGREE[name]
    theirs = trl(batch, loss_type, level=level, clip=clip, beta=beta)
    assert distance(minicf(batch, clip=clip, kl_coef=beta, **settings), theirs) < 1e-12


@pytest.mark.parametrize("beta", [0.0, 0.4])
def test_trl_cispo_agrees_but_its_epsilon_high_is_the_cap_itself(beta, batch):
    """It has no cap below. With epsilon_high at its default, 0.2, on-policy tokens weigh 0.2."""
    theirs = trl(batch, "cispo", clip=(0.2, 1.3), beta=beta)
    cispo = {"loss": cispo_loss, "kl_coef": beta}
    assert distance(minicf(batch, clip=(torch.inf, 0.3), **cispo), theirs) < 1e-12
    assert distance(minicf(batch, clip=(torch.inf, 1.3), **cispo), theirs) > 1e-2
    assert distance(minicf(batch, clip=(0.2, 0.3), **cispo), theirs) > 1e-3


def test_the_comparison_would_see_a_small_difference(batch):
    _, stats = clipped_surrogate(batch.logprobs, batch.old, batch.advantages, batch.mask)
    assert 0.15 < stats["clip_fraction"] < 0.6 and stats["approx_kl"] > 0.08
    theirs = trl(batch, "grpo", beta=0.4)
    for clip, beta in (((0.2, 0.2001), 0.4), ((0.2001, 0.2), 0.4), ((0.2, 0.2), 0.4001)):
        assert distance(minicf(batch, clip=clip, kl_coef=beta), theirs) > 1e-6
    assert distance(minicf(batch, kl_coef=0.4, kl_estimator="k2"), theirs) > 1e-2


def test_trl_dr_grpo_divides_by_max_completion_length(batch):
    theirs = trl(batch, "dr_grpo", width=GRPOConfig.max_completion_length)
    ours = minicf(batch, aggregate="constant", length=GRPOConfig.max_completion_length)
    by_width = minicf(batch, aggregate="constant")
    assert distance(ours, theirs) < 1e-12 < 1 < distance(by_width, theirs)


@pytest.mark.parametrize("name", ["GRPO", "DAPO", "BNPO", "Dr. GRPO"])
def test_trl_micro_batches_add_up_to_the_batch_except_for_bnpo(name):
    batch, (loss_type, _, settings), halves = make_batch(B=20), AGREE[name], []
    for rows in (slice(0, 10), slice(10, 20)):
        half = SimpleNamespace(**{key: value[rows] for key, value in vars(batch).items()})
        halves.append(trl(half, loss_type, parts=2, items=batch.mask.sum()))
    whole = torch.cat([sum(half[:1] for half in halves)] + [half[1:] for half in halves])
    error = distance(minicf(batch, clip=(0.2, 0.2), **settings), whole)
    assert error > 1e-2 if name == "BNPO" else error < 1e-12


def test_trl_default_kl_has_the_value_of_k3_and_on_policy_the_gradient_of_k2(batch):
    """By default it multiplies k3 by the ratio, which is differentiated too; elsewhere off here."""
    assert GRPOConfig.use_bias_correction_kl
    batch.old = batch.logprobs
    k2, k3 = (minicf(batch, kl_coef=0.4, kl_estimator=each) for each in ("k2", "k3"))
    theirs = trl(batch, "grpo", beta=0.4, corrected=True)
    assert distance(torch.cat([k3[:1], k2[1:]]), theirs) < 1e-12 < 1e-2 < distance(k3, theirs)


def test_trl_advantages_agree_but_for_the_epsilon_beside_the_std(batch):
    theirs = trl_advantages(batch.rewards, scale_rewards="none")
    assert largest(group_advantages(batch.rewards, G, scale="none"), theirs) < 1e-12
    theirs = trl_advantages(batch.rewards, scale_rewards="group")
    ours = group_advantages(batch.rewards, G)
    std = batch.rewards.view(-1, G).std(1).repeat_interleave(G)
    assert largest(ours * std / (std + 1e-4), theirs) < 1e-12 < 1e-5 < largest(ours, theirs)


def test_trl_batch_scale_keeps_the_groups_mean(batch):
    theirs = trl_advantages(batch.rewards, scale_rewards="batch")
    centred = group_advantages(batch.rewards, G, scale="none")
    assert largest(centred / (batch.rewards.std() + 1e-4), theirs) < 1e-12
    r = batch.rewards
    off = ((r - r.mean()) / r.std() - theirs).view(-1, G)  # beside the whole batch's mean
    assert off.std(1).max() < 1e-3 < 0.1 < off.abs().max()  # one number a group, but for the 1e-4


def test_a_dead_group_has_an_advantage_in_trl_but_none_here():
    """The mean of seven float32 rewards of 0.3 is off in the last place; TRL divides by 1e-4."""
    rewards = torch.full((7,), 0.3)
    theirs = trl_advantages(rewards, group_size=7, scale_rewards="group")
    assert 1e-4 < theirs.abs().max() < 1e-3 and not group_advantages(rewards, 7).any()


def test_trl_rloo_advantages_with_the_kl_in_the_reward_agree(batch):
    extras = {
        "old_per_token_logps": batch.old, "ref_per_token_logps": batch.ref,
        "completion_mask": batch.mask.long(), "gather": lambda x: x,
    }  # fmt: skip
    theirs = trl_advantages(batch.rewards, RLOOTrainer, extras=extras, beta=0.05)
    assert largest(rloo(batch, 0.05), theirs) < 1e-12
    theirs = trl_advantages(batch.rewards, RLOOTrainer, beta=0.0)
    assert largest(rloo(batch), theirs) < 1e-12


def test_trl_rloo_clips_whole_completions_and_on_policy_is_t_times_minicf(batch):
    """Its ratio is that of the whole completion: as here, for completions given as one token."""

    def one_token(x):
        new, old = (each.masked_fill(~batch.mask, 0).sum(1, True) for each in (x, batch.old))
        return clipped_surrogate(new, old, batch.advantages, new < torch.inf, (0.1, 0.3))[0]

    theirs = trl(batch, trainer=RLOOTrainer, clip=(0.1, 0.3))
    assert distance(loss_and_gradient(one_token, batch), theirs) < 1e-12
    batch.old = batch.logprobs
    ours = minicf(batch, aggregate="constant")
    assert largest(T * ours[1:], trl(batch, trainer=RLOOTrainer)[1:]) < 1e-12


@pytest.fixture
def verl():
    return pytest.importorskip("verl.trainer.ppo.core_algos", exc_type=ImportError)


def verl_loss(verl, batch, mode="vanilla", aggregate="token-mean", third=1e9):
    config = sys.modules["verl.workers.config"].ActorConfig(
        strategy="fsdp", rollout_n=G, ppo_micro_batch_size_per_gpu=1,
        clip_ratio_low=0.2, clip_ratio_high=0.3, clip_ratio_c=third,
    )  # fmt: skip
    function, advantages = verl.get_policy_loss_fn(mode), batch.advantages[:, None].expand(-1, T)
    others = (advantages, batch.mask, aggregate, config)
    return loss_and_gradient(lambda x: function(batch.old, x, *others)[0], batch)


def test_verl_losses_and_gradients_agree(verl, batch):
    modes = ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum-norm")
    for aggregate, theirs in zip(("token", "sequence", "constant"), modes):
        ours = minicf(batch, clip=(0.2, 0.3), aggregate=aggregate)
        assert distance(ours, verl_loss(verl, batch, "vanilla", theirs)) < 1e-12
    for mode, loss, theirs in (("cispo", cispo_loss, modes[0]), ("gspo", gspo_loss, modes[1])):
        ours = minicf(batch, loss, clip=(0.2, 0.3))
        assert distance(ours, verl_loss(verl, batch, mode, theirs)) < 1e-12


def test_verl_clips_a_third_time_where_a_bad_token_is_three_times_likelier(verl):
    batch = make_batch(spread=1.5)
    ours = minicf(batch, aggregate="token", clip=(0.2, 0.3))
    without, default = verl_loss(verl, batch), verl_loss(verl, batch, third=3.0)
    ratio = (batch.logprobs - batch.old).exp()
    cut = (batch.mask & (batch.advantages < 0)[:, None] & (ratio > 3)).flatten()
    assert distance(ours, without) < 1e-12 and cut.any() and ours[1:][cut].all()
    assert torch.equal(default[1:], without[1:].masked_fill(cut, 0))


def test_verl_advantages_agree_but_for_the_epsilons(verl, batch):
    """It whitens with 1e-8 beside the variance, minicf with 1e-8 beside the std: hence the 1e-7."""
    live, ids, r = batch.mask.double(), [i // G for i in range(11 * G)], batch.rewards
    end = F.one_hot(batch.mask.sum(1) - 1, T) * r[:, None]  # the reward comes with the last token
    grpo, values = verl.compute_grpo_outcome_advantage, batch.logprobs
    less_kl = end - 0.05 * verl.kl_penalty(batch.old, batch.ref, "kl") * live
    estimates = gae(r, values, batch.mask)[0]
    of_all = estimates[batch.mask]
    critic = (estimates - of_all.mean()) / (of_all.std() + 1e-8)  # as train.improve does it
    for theirs, ours, tolerance in (
        (grpo(end, live, ids, 0.0)[0], group_advantages(r, G)[:, None], 1e-12),
        (grpo(end, live, ids, 1, False)[0], group_advantages(r, G, scale="none")[:, None], 1e-12),
        (verl.compute_rloo_outcome_advantage(less_kl, live, ids)[0],
         rloo(batch, 0.05)[:, None], 1e-12),
        (verl.compute_gae_advantage_return(end, values, live, 0.9, 0.8)[1],
         gae(r, values, batch.mask, 0.9, 0.8)[1], 1e-12),
        (verl.compute_gae_advantage_return(end, values, live, 1.0, 0.95)[0], critic, 1e-7),
    ):  # fmt: skip
        assert largest(theirs * live, ours * live) < tolerance
    dead, _ = grpo(torch.full((7, 1), 0.3), torch.ones(7, 1), [0] * 7)  # its epsilon is 1e-6
    assert 1e-2 < dead.abs().max() < 1e-1


def test_verl_kl_agrees_until_it_clamps_k3_at_ten(verl):
    x, zero = torch.linspace(-4, 4, 50).double(), torch.zeros(50).double()
    for name, estimator in (("kl", "k1"), ("mse", "k2"), ("low_var_kl", "k3")):
        ours = kl_penalty(x, zero, estimator)
        assert (ours > 10).any() == (estimator == "k3")
        assert largest(ours.clamp(max=10), verl.kl_penalty(x, zero, name)) < 1e-12
