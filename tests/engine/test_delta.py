"""Laws of deltas: every form adds its own numbers, and no other form is read."""

import pytest
import torch
from safetensors.torch import save_file

from actors.engine.delta import Delta
from actors.engine.loader import load_full, load_sliced, slim_of
from actors.engine.route import ModelError
from tests.engine.test_loader import GATE, logits_of, over_dtypes, route_of
from tests.engine.toys import CPU

NORM = "model.norm.weight"


def int8_form(name: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    values = torch.randint(-128, 128, (192, 96), dtype=torch.int8, generator=generator)
    return {name: values, f"{name}.scale": torch.rand(192, generator=generator) / 1000}


def written(tmp_path, tensors):
    save_file(tensors, tmp_path / "delta.safetensors")
    return tmp_path / "delta.safetensors"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_int8_change_is_its_values_times_their_rows_scales(tmp_path, dtype):
    form = int8_form(GATE)
    weight = torch.randn(192, 96).to(dtype)
    change = torch.stack([row.float() * scale for row, scale in zip(*form.values(), strict=True)])
    found = Delta.read(written(tmp_path, form)).added_to(weight, GATE)
    assert torch.equal(found, (weight.float() + change).to(dtype))
    other = torch.randn(3, 3)
    assert Delta.read(written(tmp_path, form)).added_to(other, "another") is other


@over_dtypes
@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_both_slims_take_the_int8_form_and_the_last_norm(toy_dirs, tmp_path, architecture, dtype):
    path = written(tmp_path, {**int8_form(GATE), NORM: torch.linspace(-0.5, 0.5, 96)})
    full = load_full(toy_dirs[architecture], dtype, CPU)
    norm = full.model.norm.weight.clone()
    shared = slim_of(full, route_of(), path)
    sliced = load_sliced(toy_dirs[architecture], route_of(), dtype, CPU, path)
    assert torch.equal(logits_of(shared), logits_of(sliced))
    assert torch.equal(full.model.norm.weight, norm)
    assert not torch.equal(shared.model.norm.weight, norm)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({GATE: torch.ones(192, 96, dtype=torch.int8)}, "is of torch.int8"),
        ({GATE: torch.ones(192, 96, dtype=torch.int64)}, "is of torch.int64"),
        ({GATE: torch.ones(192, 96), f"{GATE}.scale": torch.ones(192)}, "is of torch.float32"),
        ({f"{GATE}.scale": torch.ones(192)}, "NAME.scale, which is no form"),
        ({**int8_form(GATE), f"{GATE}.scale": torch.ones(96)}, r"one number per row is \[192\]"),
        ({**int8_form(GATE), f"{GATE}.scale": torch.ones(192, 1)}, r"per row is \[192\]"),
        (
            {n: torch.ones(2, 2) for n in (GATE, f"{GATE}.lora_a", f"{GATE}.lora_b")},
            "NAME, NAME.lora_a, NAME.lora_b, which is no form",
        ),
    ],
)
def test_what_is_no_form_of_a_change_is_refused_in_one_line(tmp_path, tensors, reason):
    path = written(tmp_path, tensors)
    with pytest.raises(ModelError, match=reason) as refused:
        Delta.read(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_delta_that_is_no_file_of_tensors_is_refused(tmp_path):
    path = tmp_path / "delta.safetensors"
    path.write_bytes(b"junk")
    with pytest.raises(ModelError, match=r"delta.*delta\.safetensors"):
        Delta.read(path)
