"""What a LoRA file tells without its weights."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from webui_engine.lora_files import family_of, read_header, short_hash

TO_K = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"
Q_PROJ = "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight"


def test_metadata_and_shapes(tmp_path: Path) -> None:
    save_file(
        {"a": np.zeros((2, 3), np.float32), "b": np.array(1, np.float32)},
        tmp_path / "f",
        metadata={"ss_output_name": "x"},
    )
    assert read_header(tmp_path / "f") == ({"ss_output_name": "x"}, {"a": (2, 3), "b": ()})


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\x02" + bytes(7) + b"[]", b"\x0a" + bytes(7) + b'{"a": "b"}', b"\xff" * 99]
)
def test_what_is_no_safetensors_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(ValueError, match="is no safetensors file"):
        read_header(tmp_path / "f")


@pytest.mark.parametrize(
    ("shapes", "family"),
    [
        ({TO_K: (4, 768)}, "sd15"),
        ({TO_K: (4, 1024)}, "sd21"),
        ({TO_K: (4, 2048)}, "sdxl"),
        ({Q_PROJ: (4, 1024)}, "sd21"),
        ({Q_PROJ: (4, 768), "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 1280)}, "sdxl"),
        ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (4, 3072)}, "flux"),
        ({TO_K.replace("attn2", "attn1"): (4, 320)}, ""),
        ({TO_K: (4, 64)}, ""),
    ],
)
def test_the_family_is_told_by_the_width_of_the_prompts(shapes: dict[str, tuple[int, ...]], family: str) -> None:
    assert family_of(shapes) == family


def test_the_hash_leaves_out_the_header_unless_the_metadata_has_it(tmp_path: Path) -> None:
    numbers = np.arange(6, dtype=np.float32)
    for name in ("one", "two"):
        save_file({"a": numbers}, tmp_path / name, metadata={"name": name})
    expected = hashlib.sha256(numbers.tobytes()).hexdigest()[:12]
    assert short_hash(tmp_path / "one", "1") == short_hash(tmp_path / "two", "2") == expected
    save_file({"a": numbers}, tmp_path / "three", metadata={"sshs_model_hash": "ab" * 32})
    assert short_hash(tmp_path / "three", "3") == "ab" * 6
