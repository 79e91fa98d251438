"""The README's pictures are drawn by one command, in the sizes that the README needs."""

import json

import front_page
import torch
from conftest import ROOT
from PIL import Image

from minicf.costate import alignment


def test_the_mean_of_the_costates_walks_to_the_value_gradient():
    prompt = front_page.costates_of_one_prompt("09=", 400, pretraining=20)
    mean, truth = prompt["costates"].mean(0), prompt["truth"]
    first, _ = alignment(prompt["costates"], truth)
    cosine, length = alignment(mean, truth)
    assert cosine > 0.8 and cosine > first.abs().mean() + 0.2 and 0.4 < length < 2.5


def test_the_plane_holds_the_value_gradient_and_the_largest_noise_across_it():
    generator = torch.Generator().manual_seed(0)
    truth = torch.tensor([0.0, 2.0, 0.0, 0.0])
    noise = torch.randn(4000, 4, generator=generator) * torch.tensor([1.0, 9.0, 5.0, 2.0])
    places = front_page.plane_of(truth + noise, truth)
    assert torch.allclose(places[:, 0], (truth + noise)[:, 1] / 2)
    assert torch.allclose(places[:, 1].abs(), noise[:, 2].abs() / 2, atol=0.2)


def test_the_command_leaves_two_pictures_and_their_numbers(tmp_path, capsys):
    sizes = ["--seeds", "2", "--steps", "5", "--answers", "8", "--pretraining", "3"]
    assert front_page.main([*sizes, "--out", str(tmp_path)]) == 0
    runs = json.loads((tmp_path / "front_page.json").read_text(encoding="utf-8"))
    assert runs["steps"] == [0, 5]
    assert [len(run) for run in runs["many"] + runs["cosine"]] == [2, 2, 1, 1]
    with Image.open(tmp_path / "costates.gif") as picture:
        assert picture.n_frames > 5
    assert (tmp_path / "alignment.png").stat().st_size > 10_000
    assert str(tmp_path) in capsys.readouterr().out


def test_the_committed_pictures_load_quickly():
    assert (ROOT / "lessons" / "costates.gif").stat().st_size < 1_500_000
    assert (ROOT / "lessons" / "alignment.png").stat().st_size < 200_000
