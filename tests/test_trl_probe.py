"""The probe inside TRL's own trainer, against scores computed one completion at a time.

The test with two processes needs MINICF_SLOW=1 in the environment.

Skipped where trl is not installed. Nothing is downloaded: tokenizer and model are made here.
"""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from minicf.costate import empirical_costates
from minicf.readiness import pass_at_k, squared_signal
from minicf.rollout import Rollout
from minicf.tap import tap

pytest.importorskip("trl")
from datasets import Dataset  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402

from minicf.trl_probe import ReadinessGRPOTrainer  # noqa: E402

WORDS = ["<pad>", "<eos>", *"0123456789+="]
PROMPTS = ["12=", "7=", "3+4=", "9="]
MORE_PROMPTS = [*PROMPTS, "5=", "1+1=", "20=", "8="]


@pytest.fixture(autouse=True)
def own_randomness():
    """TRL seeds the global generator."""
    with torch.random.fork_rng(devices=[]):
        yield


def make_tokenizer():
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "padding_side": "left"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def make_model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    tokens = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    tokens["vocab_size"] = len(WORDS)
    config = LlamaConfig(initializer_range=0.3, **sizes, **heads, **tokens)
    return LlamaForCausalLM(config)


def first_token_is_even(completion_ids):
    return [float(ids[0] % 2 == 0) for ids in completion_ids]


class Seen:
    """A reward function that keeps what it is shown, in the order of the rollouts."""

    __name__ = "seen"

    def __init__(self, reward=first_token_is_even):
        self.reward = reward
        self.rollouts = []

    def __call__(self, prompts, completion_ids, **_):
        rewards = self.reward(completion_ids)
        self.rollouts.append({"prompts": prompts, "ids": completion_ids, "rewards": rewards})
        return rewards


class Recorded(ReadinessGRPOTrainer):
    """Keeps scores and weights of every rollout at the moment when its numbers are computed."""

    def _add_metrics(self):
        rows = torch.cat([batch["row"] for batch in self._buffered_inputs])
        scores = torch.cat(self._scores)[rows.argsort()]
        weights = copy.deepcopy(self.accelerator.unwrap_model(self.model).state_dict())
        self.records = [*getattr(self, "records", []), (scores, weights)]
        super()._add_metrics()


def make_trainer(kind, folder, reward, prompts=PROMPTS, make=make_model, **settings):
    defaults = {
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "num_generations": 4,
        "max_completion_length": 4,
        "learning_rate": 1e-2,
        "max_steps": 2,
        "logging_steps": 2,
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    return kind(
        model=make(),
        args=GRPOConfig(str(folder), **defaults | settings),
        reward_funcs=reward,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        processing_class=make_tokenizer(),
    )


def half_frozen_model():
    """The first block's input has no gradient of its own, as under LoRA."""
    model = make_model()
    model.model.embed_tokens.requires_grad_(False)
    model.model.layers[0].requires_grad_(False)
    return model


def loaded(weights):
    model = make_model()
    model.load_state_dict(weights)
    return model


def own_score(model, prompt, ids):
    """The score of one completion at its prompt (P, D), in a pass of its own, without padding."""
    prompt = torch.tensor([make_tokenizer()(prompt).input_ids])
    completion = torch.tensor([ids])
    live = torch.ones_like(completion, dtype=torch.bool)
    rollout = Rollout(prompt, completion, live, live.float(), torch.ones(1), 1)
    costates = empirical_costates(model, rollout, torch.ones(1), model.model.layers[0])
    return costates[0, : prompt.size(1)]


def own_scores(model, rollout):
    return [own_score(model, *row) for row in zip(rollout["prompts"], rollout["ids"], strict=True)]


def expected_numbers(scores, rewards, G):
    """squared_signal and headroom, from scores and rewards in the order of the rollout."""
    squares = []
    for first in range(0, len(rewards), G):
        group = torch.stack([score.flatten() for score in scores[first : first + G]])
        squares.append(squared_signal(group, torch.tensor(rewards[first : first + G])).item())
    correct = torch.tensor(rewards).view(-1, G).sum(1)
    reach = pass_at_k(correct, G, G).mean() - correct.mean() / G
    return sum(squares) / len(squares), reach.item()


def mean(numbers):
    return sum(numbers) / len(numbers)


def logged(trainer):
    return [line for line in trainer.state.log_history if "readiness" in line]


def check_log(trainer, numbers):
    """The only line has the means of pairs (square, reach), and takes the root of the mean."""
    (line,) = logged(trainer)
    square = mean([number[0] for number in numbers])
    reach = mean([number[1] for number in numbers])
    assert line["squared_signal"] == pytest.approx(square, rel=1e-4)
    assert line["headroom"] == pytest.approx(reach, rel=1e-6)
    assert line["readiness"] == pytest.approx(max(square, 0) ** 0.5 * reach, rel=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loss_type": "grpo", "gradient_checkpointing": False},
        {"loss_type": "dr_grpo", "scale_rewards": "none", "temperature": 0.5},
        {"num_iterations": 2, "max_steps": 4, "logging_steps": 4},
        {"gradient_accumulation_steps": 4, "steps_per_generation": 2, "prompts": MORE_PROMPTS},
        {"prompts": ["7=", "12=", "7=", "12="]},
        {"make": half_frozen_model},
        {"make": half_frozen_model, "gradient_checkpointing": False},
    ],
)
def test_every_score_is_the_completions_own(tmp_path, settings):
    seen = Seen()
    trainer = make_trainer(Recorded, tmp_path, seen, **settings)
    trainer.train()
    rollouts = len(seen.rollouts)
    assert rollouts == len(trainer.records) == (4 if "steps_per_generation" in settings else 2)
    numbers = []
    live_rows = 0
    for (scores, weights), rollout in zip(trainer.records, seen.rollouts, strict=True):
        model = loaded(weights)
        model.lm_head.weight.data /= settings.get("temperature", 1.0)
        own = own_scores(model, rollout)
        rewards = torch.tensor(rollout["rewards"]).view(-1, 4)
        live = (rewards.std(1) > 0).repeat_interleave(4).tolist()
        live_rows += sum(live)
        for score, expected, is_live in zip(scores, own, live, strict=True):
            padding = len(score) - len(expected)
            assert not score[:padding].any()
            error = (score[padding:] - expected * is_live).norm()
            assert error <= 1e-5 * expected.norm()
        numbers.append(expected_numbers(own, rollout["rewards"], 4))
    assert live_rows >= 16
    check_log(trainer, numbers)


@pytest.mark.parametrize("what", ["autocast", "weights"])
def test_bfloat16_rounds_the_scores_and_no_more(tmp_path, what):
    seen = Seen()
    settings = {"bf16": True}
    if what == "weights":
        settings["make"] = lambda: make_model().bfloat16()
    trainer = make_trainer(Recorded, tmp_path, seen, max_steps=1, **settings)
    trainer.train()
    ((scores, weights),) = trainer.records
    own = own_scores(loaded(weights), seen.rollouts[0])
    live = [index for index, score in enumerate(scores) if score.any()]
    assert len(live) >= 8
    for index in live:
        padding = len(scores[index]) - len(own[index])
        error = (scores[index][padding:] - own[index]).norm()
        assert error < 0.1 * own[index].norm()


@pytest.mark.parametrize("what", ["last position", "projection"])
def test_what_a_large_model_keeps_of_the_scores(tmp_path, what):
    projection = torch.randn(16, 4, generator=torch.Generator().manual_seed(0)) / 2

    def less(scores):
        return scores[..., -1:, :] if what == "last position" else scores @ projection

    class Small(Recorded):
        def row_scores(self, x, logprobs):
            return less(super().row_scores(x, logprobs))

    seen = Seen()
    trainer = make_trainer(Small, tmp_path, seen)
    trainer.train()
    numbers = []
    for (_, weights), rollout in zip(trainer.records, seen.rollouts, strict=True):
        own = [less(score) for score in own_scores(loaded(weights), rollout)]
        numbers.append(expected_numbers(own, rollout["rewards"], 4))
    check_log(trainer, numbers)


@pytest.mark.parametrize("settings", [{}, {"num_iterations": 2}])
def test_what_is_trained_is_unchanged_to_the_bit(tmp_path, settings):
    trained = []
    for kind in (GRPOTrainer, ReadinessGRPOTrainer):
        trainer = make_trainer(kind, tmp_path, Seen(), max_steps=3, **settings)
        trainer.train()
        trained.append(trainer.model.state_dict())
    start = make_model().state_dict()
    for name, plain in trained[0].items():
        assert torch.equal(plain, trained[1][name])
        assert not torch.equal(plain, start[name])


def exact_value(model, prompt):
    """The probability of an even first token, and its squared gradient at the prompt."""
    tokens = torch.tensor([make_tokenizer()(prompt).input_ids])
    with tap(model.model.layers[0], calls=1) as inputs:
        logits = model(tokens).logits
    value = logits[0, -1].softmax(0)[::2].sum()
    (gradient,) = torch.autograd.grad(value, inputs)
    return value.item(), gradient.square().sum().item()


def pair_mean(terms):
    """The mean over pairs i ≠ j of ⟨x_i, x_j⟩, for groups of vectors (Q, G, D): (Q,)."""
    G = terms.size(1)
    return (terms.sum(1).square().sum(1) - terms.square().sum((1, 2))) / (G * (G - 1))


def standard_errors(numbers, truth):
    """How far the mean of independent numbers is from the truth."""
    numbers = torch.tensor(numbers, dtype=torch.float64)
    return ((numbers.mean() - truth) / numbers.std() * len(numbers) ** 0.5).item()


def test_with_frozen_weights_the_mean_is_the_exact_squared_gradient(tmp_path):
    """Of one token, where V can be enumerated. Two estimates that one would write first miss it."""
    G = 4
    prompts = [f"{a}+{b}=" for a in range(4) for b in range(2)]
    prompts += [f"{a}=" for a in range(8)]
    values = []
    squares = []
    for prompt in prompts:
        value, square = exact_value(make_model(), prompt)
        values.append(value)
        squares.append(square)
    seen = Seen()
    settings = {"per_device_train_batch_size": 64, "gradient_accumulation_steps": 1}
    settings |= {"max_completion_length": 1, "max_steps": 120, "logging_steps": 1}
    settings |= {"prompts": prompts, "learning_rate": 0.0}
    trainer = make_trainer(Recorded, tmp_path, seen, **settings)
    trainer.train()
    lines = logged(trainer)
    assert len(lines) == 120
    truth = mean(squares)
    z = standard_errors([line["squared_signal"] for line in lines], truth)
    assert abs(z) < 4.5
    reach = mean([1 - (1 - value) ** G - value for value in values])
    z = standard_errors([line["headroom"] for line in lines], reach)
    assert abs(z) < 4.5
    group_mean = []
    as_trained = []
    for (scores, _), rollout in zip(trainer.records, seen.rollouts, strict=True):
        scores = scores.flatten(1).unflatten(0, (-1, G))  # (Q, G, P·D)
        rewards = torch.tensor(rollout["rewards"]).view(-1, G, 1)
        centred = rewards - rewards.mean(1, keepdim=True)
        group_mean.append(pair_mean(centred * scores).mean())
        advantages = centred / (rewards.std(1, keepdim=True) + 1e-4)
        as_trained.append((advantages * scores).mean(1).square().sum(1).mean())
    assert standard_errors(group_mean, truth) < -4.5
    assert standard_errors(as_trained, truth) > 4.5


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"beta": 0.04}, "beta=0.0, not 0.04"),
        ({"entropy_coef": 0.01}, "entropy_coef"),
        ({"use_adaptive_entropy": True}, "use_adaptive_entropy"),
        ({"top_entropy_quantile": 0.2}, "top_entropy_quantile=1.0"),
        ({"mask_truncated_completions": True}, "mask_truncated_completions"),
        ({"off_policy_mask_threshold": 0.5}, "off_policy_mask_threshold"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "sum_then_normalize"),
        ({"top_p": 0.9}, "top_p"),
        ({"top_k": 5}, "top_k"),
        ({"min_p": 0.1}, "min_p"),
        ({"repetition_penalty": 1.1}, "repetition_penalty"),
        ({"steps_per_generation": 4}, "steps_per_generation"),
        ({"gradient_accumulation_steps": 3, "steps_per_generation": 2}, "steps_per_generation"),
        ({"num_generations": 2}, "num_generations"),
        ({"use_vllm": True}, "vllm_importance_sampling_correction=False"),
    ],
)
def test_what_bends_the_numbers_is_refused_by_name(tmp_path, settings, says):
    with pytest.raises(ValueError, match=says) as error:
        make_trainer(ReadinessGRPOTrainer, tmp_path, Seen(), **settings)
    assert str(error.value).count("\n") == 0


def test_a_load_balancing_loss_is_refused(tmp_path):
    def with_router():
        model = make_model()
        model.config.output_router_logits = True
        model.config.router_aux_loss_coef = 0.1
        return model

    with pytest.raises(ValueError, match="router_aux_loss_coef"):
        make_trainer(ReadinessGRPOTrainer, tmp_path, Seen(), make=with_router)


@pytest.mark.parametrize("values", [[0.0, 0.5, 1.0], [-1.0, 1.0], [0.0, None]])
def test_other_rewards_are_refused(tmp_path, values):
    def graded(completion_ids):
        return [values[index % len(values)] for index in range(len(completion_ids))]

    with pytest.raises(ValueError, match="rewards of 0 and 1"):
        make_trainer(ReadinessGRPOTrainer, tmp_path, Seen(graded)).train()


SHARED = {"per_device_train_batch_size": 3, "shuffle_dataset": False, "max_steps": 1}
SHARED |= {"logging_steps": 1, "prompts": ["3+4=", "9=", "12="]}


def run_process(folder):
    """One of two processes: its part of the rollout and what it logs go into a file."""
    seen = Seen()
    trainer = make_trainer(ReadinessGRPOTrainer, folder, seen, **SHARED)
    trainer.train()
    result = {"rollout": seen.rollouts[0], "log": logged(trainer)}
    path = Path(folder) / f"{trainer.accelerator.process_index}.json"
    path.write_text(json.dumps(result), encoding="utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="torchrun")
@pytest.mark.skipif(os.environ.get("MINICF_SLOW") != "1", reason="15 seconds: set MINICF_SLOW=1")
def test_two_processes_log_what_one_would(tmp_path):
    """Each has six completions, so that the middle one of three groups of four lies in both.

    They pad their prompts to different lengths, four tokens and three.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", __file__, str(tmp_path)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, capture_output=True, check=True, timeout=300)
    results = []
    for process in range(2):
        text = (tmp_path / f"{process}.json").read_text(encoding="utf-8")
        results.append(json.loads(text))
    rollout = {}
    for key in ("prompts", "ids", "rewards"):
        rollout[key] = results[0]["rollout"][key] + results[1]["rollout"][key]
    assert rollout["prompts"] == ["3+4="] * 4 + ["9="] * 4 + ["12="] * 4
    assert 0 < sum(rollout["rewards"][4:8]) < 4  # the group that lies in both is a live one
    square, reach = expected_numbers(own_scores(make_model(), rollout), rollout["rewards"], 4)
    for result in results:
        (line,) = result["log"]
        assert line["squared_signal"] == pytest.approx(square, rel=1e-4)
        assert line["headroom"] == pytest.approx(reach, rel=1e-6)


if __name__ == "__main__":
    run_process(sys.argv[1])
