"""The study: what its rows say, how its files and sums are made, and one cheap row of each kind.

Training amplifies rounding. Weights that differ by 1e-7 of their size part by percents within 100
steps of pretraining on the clean corpus, and not at all on the one with wrong targets. So stored
rows are recomputed narrowly where they are stable, and within wide bounds where they are not.
"""

import json
import math

import pytest
import study
import torch
from conftest import ROOT, make_policy

from minicf.env import SumGame
from minicf.exact import outcomes, success, value_gradient, value_gradients
from minicf.readiness import measure
from minicf.rollout import completion_logprobs, completion_mask

# What a row of a checkpoint holds.


@pytest.mark.parametrize("terms", [1, 2])
def test_the_signal_of_the_path_is_a_sum_over_beginnings(terms):
    """Each ‖∇V‖ from a graph of its own, each probability from the policy's next tokens."""
    env = SumGame(terms)
    policy = make_policy(env)
    block = policy.blocks[0]
    total = value_gradients(policy, env, block).flatten(1).norm(dim=1).sum().item()
    for prompt in env.prompts:
        answers = env.solutions(prompt)
        with torch.no_grad():
            chances = completion_logprobs(policy, prompt[None], answers, len(answers)).exp()
        beginnings = {}
        for answer, chance in zip(answers, chances):
            for t in range(1, int(completion_mask(answer[None], env.eos).sum())):
                beginnings[tuple(answer[:t].tolist())] = chance[:t].prod().item()
        for tokens, chance in beginnings.items():
            gradient = value_gradient(policy, env, prompt, torch.tensor(tokens), block)
            total += chance * gradient.norm().item()
    path, _, _ = study.path_signal(policy, env)
    assert path == pytest.approx(total / len(env.prompts), rel=1e-9)
    prompts_alone = measure(policy, env)["signal"]
    assert path > 1.01 * prompts_alone  # so that the beginnings count


def test_the_held_out_loss_is_the_one_on_fresh_sums(env, policy):
    """Against 20,000 sums of the corpus: the mean of loss·tokens + log π must be 0."""
    generator = torch.Generator().manual_seed(0)
    prompts, answers = env.corpus(20_000, generator)
    mask = completion_mask(answers, env.eos)
    texts, place = torch.cat([prompts, answers], 1).unique(dim=0, return_inverse=True)
    with torch.no_grad():
        logprobs = completion_logprobs(policy, texts[:, : env.prompt_length], texts[:, -4:])[place]
    logprobs = logprobs.masked_fill(~mask, 0.0).sum(1)
    _, loss, _ = study.path_signal(policy, env)
    off = loss * mask.sum(1) + logprobs
    assert abs(off.mean()) / (off.std() / len(off) ** 0.5) < 4.5
    wrong = 1.02 * loss * mask.sum(1) + logprobs  # two percent would be seen
    assert abs(wrong.mean()) / (wrong.std() / len(off) ** 0.5) > 4.5


def test_the_variance_is_that_of_the_reward():
    env = SumGame(1)
    policy = make_policy(env)
    variances = []
    for prompt in env.prompts:
        rollout, p = outcomes(policy, env, prompt)
        rewards = rollout.rewards.double()
        variances.append((p @ (rewards - p @ rewards).square()).item())
    _, _, variance = study.path_signal(policy, env)
    assert variance == pytest.approx(sum(variances) / len(variances), rel=1e-9)


def test_predictors_are_products_of_what_they_say(env, policy):
    row = study.predictors(policy, env)
    asked = measure(policy, env)
    J, S, H = asked["success"], asked["signal"], asked["headroom"]
    path, loss, variance = study.path_signal(policy, env)
    assert row == pytest.approx(
        {
            "success": J, "signal": S, "headroom": H, "readiness": S * H, "held_out_loss": loss,
            "path_readiness": path * H, "success_headroom": J * H, "variance": variance,
            "root_readiness": (S * J) ** 0.5 * H, "parabola": J - J * J,
            "reward_std": asked["reward_std"],
        }
    )  # fmt: skip


def test_sampled_predictors_tend_to_the_exact_ones(env, trained, generator):
    exact = study.predictors(trained, env)
    sampled = study.sampled_predictors(trained, env, 300, generator)
    assert set(sampled) == set(study.SAMPLED)
    for name, value in sampled.items():
        assert value == pytest.approx(exact[name], rel=0.15), name


# Runs.


def test_a_baseline_row_is_a_run_of_improve(env, trained, monkeypatch):
    """Each setting gets its method, group, prompts and rate, and starts from a copy."""
    calls = []

    def improve(policy, env, method, steps, generator, group_size, rate, prompts, **settings):
        assert policy is not trained and generator.initial_seed() == 7
        calls.append((method, steps, group_size, rate, len(prompts), settings))
        return [{"success": i / 20} for i in range(13)]

    monkeypatch.setattr(study, "improve", improve)
    row = study.baseline_row(trained, env, 7, "leave-one-out", 2, 4, 5e-4)
    study.baseline_row(trained, env, 7, "batch mean", 8, 1, 1e-3)
    plain = {"baseline": "leave-one-out", "scale": "none", "aggregate": "constant"}
    assert calls[0] == (plain, 120, 2, 5e-4, 4 * 19, {"updates": 1, "advantages": None})
    assert calls[1][0]["baseline"] == "none" and calls[1][2:5] == (8, 1e-3, 19)
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0])
    assert calls[1][5]["advantages"](rewards, 2).tolist() == [0.5, -0.5, -0.5, 0.5]
    assert row["curve"] == [i / 20 for i in range(13)]
    assert (row["area"], row["at_40"], row["success"]) == (pytest.approx(0.3), 0.2, 0.6)
    assert (row["baseline"], row["group_size"], row["samples"]) == ("leave-one-out", 2, 224)


def test_settings_are_compared_at_equal_samples():
    """Groups of eight, and pairs on prompts asked four times, have 224 answers a rollout."""
    for name, group_size, times in study.SETTINGS:
        assert name in study.METHODS
        assert group_size > 1 or name not in ("group mean", "leave-one-out", "exact")
        rival = "none" if group_size == 1 else "leave-one-out"
        assert (rival, group_size, times) in study.SETTINGS
    assert {(g, t) for _, g, t in study.SETTINGS} == {(8, 1), (2, 1), (1, 1), (2, 4)}


# Files.


def test_a_file_that_is_there_is_not_made_again(tmp_path, monkeypatch):
    made = []

    def part(seed):
        made.append(seed)
        return [{"seed": seed, "gain": 1 / 3, "deep": {"curve": [2 / 3, 10_000 / 3]}}]

    monkeypatch.setitem(study.PARTS, "noise", part)
    for seed in (5, 5, 6):
        study.work("noise", seed, tmp_path)
    assert made == [5, 6]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noise-5.json", "noise-6.json"]
    rows = study.read(tmp_path / "noise-5.json", "noise", 5)["rows"]
    assert rows == [{"seed": 5, "gain": 0.3333, "deep": {"curve": [0.6667, 3333.0]}}]


def test_work_that_fails_leaves_no_file(tmp_path, monkeypatch):
    def part(seed):
        raise FloatingPointError("no number")

    monkeypatch.setitem(study.PARTS, "noise", part)
    with pytest.raises(FloatingPointError):
        study.work("noise", 5, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "", '{"part": "noise", "se', "[1, 2]", "3", '{"part": "noise", "seed": 5}',
        '{"part": "noise", "seed": 6, "rows": []}', '{"part": "baselines", "seed": 5, "rows": []}',
    ],
)  # fmt: skip
def test_a_damaged_file_or_another_runs_is_refused_in_one_sentence(text, tmp_path):
    path = tmp_path / "noise-5.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"noise-5.json is damaged or of other settings: delete"):
        study.read(path, "noise", 5)


def test_rounded_keeps_four_digits_and_all_that_is_no_fraction():
    value = {"a": [1.23456, {"b": 123456.0, "c": None}], "d": "x", "e": 123456, "f": True}
    expected = {"a": [1.235, {"b": 123500.0, "c": None}], "d": "x", "e": 123456, "f": True}
    assert study.rounded(value) == expected
    assert study.rounded(0.00123456, 3) == 0.00123
    assert study.rounded([math.inf]) == [math.inf]


# Sums.


def test_interval_is_the_mean_between_its_ends():
    assert study.interval([0.5, 0.5, 0.5]) == [0.5, 0.5, 0.5]
    values = torch.randn(50, generator=torch.Generator().manual_seed(1)).tolist()
    mean, low, high = study.interval(values)
    x = torch.tensor(values)
    half = 1.96 * (x.std() / 50**0.5).item()
    assert mean == pytest.approx(x.mean().item(), abs=1e-6)
    assert (mean - low, high - mean) == (pytest.approx(half, rel=0.2), pytest.approx(half, rel=0.2))
    tiny = study.interval([-1e-8, -1e-8])  # equal up to rounding is equal
    assert tiny == [0.0, 0.0, 0.0]


def checkpoint_rows(seed, readiness):
    """Three checkpoints of each corpus, whose gains are .1, .3 and .2."""
    rows = []
    for corpus in study.CORPORA:
        for i, gain in enumerate((0.1, 0.3, 0.2)):
            row = {"seed": seed, "corpus": corpus, "step": 100 * (i + 1), "gain": gain}
            row |= {name: float(i) for name in study.PREDICTORS}
            row["readiness"] = readiness[i]
            row["sampled"] = {G: [float(-i)] * len(study.SAMPLED) for G in ("8", "16", "64")}
            row["sampled"]["16"][study.SAMPLED.index("readiness")] = gain
            rows.append(row)
    return rows


def test_checkpoints_are_summed_up_by_rank_and_pick():
    """One seed's readiness is right, the other's picks the last; signal is the step for both."""
    rows = checkpoint_rows(1, (1.0, 3.0, 2.0)) + checkpoint_rows(2, (1.0, 2.0, 3.0))
    summary = study.sum_checkpoints(rows)
    assert list(summary) == ["clean", "wrong", "narrow", "pooled"]
    for corpus in ("clean", "wrong", "narrow"):
        table = summary[corpus]
        assert table["readiness"]["rank"][0] == pytest.approx(0.75)  # 1 and .5
        assert table["readiness"]["pick"][0] == pytest.approx((1 + 2 / 3) / 2)
        assert table["signal"]["rank"] == pytest.approx([0.5] * 3)
        assert table["signal"]["pick"] == pytest.approx([2 / 3] * 3, abs=1e-6)
        assert table["signal"]["rank_lead"] == pytest.approx([0.25, 0, 0.5])  # ½ and 0, by seed
        assert table["signal"]["pick_lead"] == pytest.approx([1 / 6, 0, 1 / 3], abs=1e-6)
        assert table["readiness"]["rank_lead"] == table["readiness"]["pick_lead"] == [0, 0, 0]
        for name in ("loss", "held_out_loss"):  # a low loss is the promise
            assert table[name]["rank"] == pytest.approx([-0.5] * 3)
            assert table[name]["pick"] == pytest.approx([1 / 3] * 3, abs=1e-6)
        # Predictors from samples are compared with readiness from as many.
        assert table["variance of 16"]["rank_lead"] == pytest.approx([1.5] * 3)
        assert table["variance of 8"]["rank_lead"] == pytest.approx([0] * 3)
    assert summary["pooled"]["signal"]["rank"] == pytest.approx([0.5] * 3)


def baseline_rows(seed):
    rows = []
    for name, group_size, final in (
        ("leave-one-out", 8, 0.6 + seed / 10), ("none", 8, 0.5), ("none", 1, 0.3),
        ("perfect critic", 1, 0.4 + seed / 10),
    ):  # fmt: skip
        rows.append(
            {
                "seed": seed, "baseline": name, "group_size": group_size, "learning_rate": 5e-4,
                "samples": 28 * group_size, "curve": [final], "area": final,
                "at_40": final / 2, "success": final,
            }
        )  # fmt: skip
    return rows


def test_baselines_are_summed_up_beside_leave_one_out_of_the_same_seed():
    summary = study.sum_baselines(baseline_rows(1) + baseline_rows(0))
    by_key = {(row["baseline"], row["group_size"]): row for row in summary}
    assert len(by_key) == len(summary) == 4
    assert by_key["leave-one-out", 8]["area_lead"] == [0, 0, 0]
    assert by_key["none", 8]["success"] == [0.5, 0.5, 0.5]
    assert by_key["none", 8]["area_lead"] == pytest.approx([0.15, 0.1, 0.2])
    assert by_key["none", 8]["at_40_lead"] == pytest.approx([0.075, 0.05, 0.1])
    assert by_key["perfect critic", 1]["area_lead"] == pytest.approx([-0.15, -0.2, -0.1])
    assert by_key["perfect critic", 1]["samples"] == 28


def noise_row(seed, place, step, V):
    names = ("value", "best_baseline", "none", "best", "token critic", "leave-one-out of 8")
    row = {"seed": seed, "target": 5, "place": place, "step": step, "V": V}
    return row | {name: 2.0 for name in names}


def test_noise_is_summed_up_by_place_and_step_and_a_missing_part_is_left_out():
    rows = [noise_row(seed, "weights", 100, V) for seed, V in enumerate((4.0, 1.0, 2.5, 3.0))]
    rows[1]["token critic"] = 1.0
    (summed,) = study.sum_noise(rows + [noise_row(0, "weights", 40, 1.0)])[1:]
    assert (summed["place"], summed["step"]) == ("weights", 100)
    assert summed["policies and prompts"] == 4
    assert summed["V"] == [2.75, 1.0, 4.0]  # the median of four is between two
    assert summed["V noisier than none"] == 3
    assert summed["token critic quieter than none"] == 1
    assert study.sum_noise([]) == []


def write(folder, part, seed, rows):
    text = json.dumps({**study.heading(part, seed), "commit": "abc", "rows": rows})
    (folder / f"{part}-{seed}.json").write_text(text, encoding="utf-8")


@pytest.fixture
def two_seeds(tmp_path):
    """A folder with small made-up files of two seeds of every part."""
    for seed in (300, 301):
        write(tmp_path, "checkpoints", seed, checkpoint_rows(seed, (1.0, 3.0, 2.0)))
        write(tmp_path, "baselines", seed, baseline_rows(seed - 300))
        write(tmp_path, "noise", seed, [noise_row(seed, "weights", 40, 3.0)])
        write(tmp_path, "corrections", seed, [{"seed": seed, "kl": 0.1}])
    return tmp_path


@pytest.mark.parametrize("more", [[], ["--seeds", "2"]])
def test_sum_alone_sums_up_what_is_there(more, two_seeds, capsys):
    """It does not touch the lessons' file, which is that of all seeds."""
    stored = (ROOT / "lessons" / "study.json").read_bytes()
    assert study.main(["--sum", "--out", str(two_seeds), *more]) == 0
    assert "study.json: " in capsys.readouterr().out
    assert (ROOT / "lessons" / "study.json").read_bytes() == stored
    result = json.loads((two_seeds / "study.json").read_text(encoding="utf-8"))
    assert [row["seed"] for row in result["noise"]] == [300, 301]
    assert len(result["checkpoints"]) == 18 and len(result["corrections"]) == 2
    assert set(result["summary"]) == {"checkpoints", "baselines", "noise"}
    assert result["summary"]["noise"][0]["V"] == [3.0, 3.0, 3.0]
    assert result["summary"]["checkpoints"]["pooled"]["readiness"]["pick"] == [1.0, 1.0, 1.0]
    assert result["versions"]["torch"] == torch.__version__


def test_all_seeds_are_for_the_lessons(two_seeds, monkeypatch):
    (two_seeds / "lessons").mkdir()
    monkeypatch.setattr(study, "HERE", two_seeds / "lessons")
    monkeypatch.setattr(study, "SEEDS", dict.fromkeys(study.SEEDS, 2))
    assert study.main(["--out", str(two_seeds), "--jobs", "1"]) == 0  # all is there: no work
    assert (two_seeds / "lessons" / "study.json").exists()
    assert not (two_seeds / "study.json").exists()


def test_sum_of_nothing_and_of_a_damaged_file(two_seeds, tmp_path, capsys):
    (two_seeds / "noise-301.json").write_text("{", encoding="utf-8")
    assert study.main(["--sum", "--seeds", "2", "--out", str(two_seeds)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("study.py: ") and "noise-301.json is damaged" in line
    assert study.main(["--sum", "--seeds", "2", "--out", str(tmp_path / "new")]) == 0
    result = json.loads((tmp_path / "new" / "study.json").read_text(encoding="utf-8"))
    assert result["noise"] == result["summary"]["noise"] == []


@pytest.mark.parametrize("arguments", [["--seeds", "1"], ["--jobs", "0"]])
def test_one_seed_is_refused_in_one_line(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        study.main([*arguments, "--out", str(tmp_path / "new")])
    *_, last = capsys.readouterr().err.splitlines()
    assert last.endswith("--seeds must be at least 2, for an interval, and --jobs at least 1")
    assert not (tmp_path / "new").exists()


# The stored study.


@pytest.fixture(scope="module")
def stored():
    study_file = ROOT / "lessons" / "study.json"
    result = json.loads(study_file.read_text(encoding="utf-8"))
    if "summary" not in result:
        pytest.skip("lessons/study.json is that of an earlier edition")
    return result


def the_row(rows, **wanted):
    (row,) = [row for row in rows if wanted.items() <= row.items()]
    return row


def test_the_stored_study_is_whole_and_its_summary_is_of_its_rows(stored):
    for part, count in study.SEEDS.items():
        seeds = {row["seed"] for row in stored[part]}
        assert seeds == set(range(study.FIRST_SEED, study.FIRST_SEED + count)), part
    assert len(stored["checkpoints"]) == 16 * 3 * 8
    assert len(stored["baselines"]) == 8 * (len(study.SETTINGS) + len(study.METHODS))
    assert len(stored["noise"]) == 5 * 3 * 2 * 2
    assert len(stored["corrections"]) == 5 * 2 * 8
    anew = {
        "checkpoints": study.sum_checkpoints(stored["checkpoints"]),
        "baselines": study.sum_baselines(stored["baselines"]),
        "noise": study.sum_noise(stored["noise"]),
    }
    assert stored["summary"] == study.rounded(anew, 3)


def test_stored_rows_agree_with_themselves(stored):
    for row in stored["checkpoints"]:
        J, S, H = row["success"], row["signal"], row["headroom"]
        products = {
            "readiness": S * H, "success_headroom": J * H, "root_readiness": (S * J) ** 0.5 * H,
            "parabola": J - J * J,
        }  # fmt: skip
        for name, value in products.items():
            assert row[name] == pytest.approx(value, rel=1e-2, abs=2e-3), name
        assert S * H < row["path_readiness"] * 1.01
    for seed in {row["seed"] for row in stored["baselines"]}:
        rows = [row for row in stored["baselines"] if row["seed"] == seed]
        assert len({row["curve"][0] for row in rows}) == 1  # one start for all
        for row in rows:
            curve = row["curve"]
            assert len(curve) == 13 and (row["at_40"], row["success"]) == (curve[4], curve[-1])
            assert row["area"] == pytest.approx(sum(curve) / 13, rel=3e-3)
    for row in stored["noise"]:
        assert row["best"] <= 1.01 * min(row["none"], row["V"])
        assert row["V"] < row["leave-one-out of 8"]
    for row in stored["corrections"]:
        unbiased = [row["V"]["sequence"], row["exact"]["sequence"], row["exact"]["prefix"]]
        assert max(bias for bias, _ in unbiased) < 1e-7
        bias, variance = row["V"]["sequence TIS"]
        error = row["caps"]["sequence"]["2.0"]
        assert error == pytest.approx(bias**2 + variance / 64, rel=2e-2)


def test_a_checkpoint_is_recomputed(stored):
    """On the corpus with wrong targets, whose first hundred steps rounding does not part."""
    (row,) = study.checkpoints_of(300, "wrong", (100,))
    kept = the_row(stored["checkpoints"], seed=300, corpus="wrong", step=100)
    assert row.keys() == kept.keys()
    assert (row["seed"], row["corpus"], row["step"]) == (300, "wrong", 100)
    for name in study.PREDICTORS:
        assert row[name] == pytest.approx(kept[name], rel=2e-2), name
    assert row["gain"] == pytest.approx(kept["gain"], abs=0.02)
    for G, sampled in kept["sampled"].items():
        # A draw may fall on the other side; of 28·G draws few do.
        assert row["sampled"][G] == pytest.approx(sampled, rel=0.2, abs=0.02)


def test_a_baseline_is_recomputed(stored, monkeypatch):
    """Up to rollout 10 of 120; its start is one that rounding moves by a tenth."""
    improve = study.improve

    class Enough(Exception):
        pass

    def ten_rollouts(*args, **settings):
        entries = []

        def log(entry):
            entries.append(entry)
            raise Enough

        with pytest.raises(Enough):
            improve(*args, **settings, log=log)
        before = success(*started).mean().item()
        return [{"success": before}] + 12 * entries

    monkeypatch.setattr(study, "improve", ten_rollouts)
    started = study.start_of_runs(300)
    row = study.baseline_row(*started, 300, "none", 1, 1, 5e-4)
    kept = the_row(stored["baselines"], seed=300, baseline="none", group_size=1, learning_rate=5e-4)
    assert row.keys() == kept.keys() and row["samples"] == kept["samples"]
    assert row["curve"][:2] == pytest.approx(kept["curve"][:2], abs=0.25)
    step = row["curve"][1] - row["curve"][0]
    assert step == pytest.approx(kept["curve"][1] - kept["curve"][0], abs=0.1)


def test_noise_is_recomputed(stored):
    """After forty steps, which rounding parts by a few percents."""
    policy = study.small_policies(300, study.NOISE_STAGES, d_model=32)[40]
    (row,) = study.noise_rows(policy, 300, 40, 5, weights=False)
    kept = the_row(stored["noise"], seed=300, step=40, target=5, place="activations")
    assert row.pop("place") == kept.pop("place")
    assert row == pytest.approx(kept, rel=0.15)


def test_a_correction_is_recomputed(stored):
    """After a hundred steps, between which rounding has parted the variances by a factor of 4."""
    policy = study.small_policies(300, study.CORRECTION_STAGES, d_model=16)[100]
    row = study.correction_row(policy, 300, 100, "bfloat16", 0)
    kept = the_row(stored["corrections"], seed=300, step=100, kind="bfloat16")
    assert row.keys() == kept.keys() and row["caps"].keys() == kept["caps"].keys()
    assert 0.05 < row["kl"] / kept["kl"] < 20
    for kind in ("V", "exact"):
        assert row[kind].keys() == kept[kind].keys()
        for name in kept[kind]:
            assert 1 / 30 < row[kind][name][1] / kept[kind][name][1] < 30
    assert row["V"]["sequence"][0] < 1e-9 and row["exact"]["prefix"][0] < 1e-9


def test_a_file_of_other_settings_is_refused(two_seeds, monkeypatch):
    path = two_seeds / "noise-300.json"
    assert study.read(path, "noise", 300)["rows"]
    monkeypatch.setattr(study, "NOISE_STAGES", (40, 100))
    with pytest.raises(ValueError, match="of other settings"):
        study.read(path, "noise", 300)
    assert study.read(two_seeds / "baselines-300.json", "baselines", 300)["rows"]
