"""Settings: contradictions are refused, and only what must be shared is in the batch key."""

from dataclasses import replace

import pytest
from captioner.errors import SettingsContradict
from captioner.generation import Settings, batch_key


@pytest.mark.parametrize(
    "settings",
    [
        Settings(temperature=1, num_beams=5),
        Settings(top_p=0.9),
        Settings(top_k=10),
        Settings(min_new_tokens=20, max_new_tokens=10),
    ],
)
def test_contradictions(settings: Settings) -> None:
    with pytest.raises(SettingsContradict):
        settings.check()


def test_sampling_settings_do_not_split_batches() -> None:
    plain = Settings()
    assert batch_key(plain) == batch_key(replace(plain, temperature=0.7, top_p=0.5, top_k=3, seed=9))
    assert batch_key(plain) != batch_key(replace(plain, repetition_penalty=1.2))


def test_length_penalty_matters_to_beams_only() -> None:
    assert batch_key(Settings(length_penalty=2)) == batch_key(Settings())
    assert batch_key(Settings(num_beams=2, length_penalty=2)) != batch_key(Settings(num_beams=2))
