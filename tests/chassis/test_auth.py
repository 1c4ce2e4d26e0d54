import pytest
from chassis.auth import TokenMissing, TokenWrong, check_header, token_matches


def test_only_the_same_token_matches() -> None:
    assert token_matches("secret", "secret")
    assert not token_matches("secret", "Secret")
    assert not token_matches("secret", "secret ")
    assert not token_matches("secret", "")
    assert token_matches("gehëim", "gehëim")


def test_an_empty_expected_token_matches_nothing() -> None:
    assert not token_matches("", "")
    assert not token_matches("", "anything")


@pytest.mark.parametrize("header", ["Bearer secret", "bearer secret", "Bearer  secret "])
def test_the_scheme_is_case_insensitive_and_spaces_do_not_count(header: str) -> None:
    check_header("secret", header)


@pytest.mark.parametrize("header", [None, "", "Basic c2VjcmV0", "secret", "Bearer", "Bearer "])
def test_a_header_without_a_token_is_told_from_a_wrong_token(header: str | None) -> None:
    with pytest.raises(TokenMissing, match="DARKROOM_TOKEN"):
        check_header("secret", header)


def test_a_wrong_token_is_refused_without_repeating_it() -> None:
    with pytest.raises(TokenWrong) as caught:
        check_header("secret", "Bearer guess")
    assert "guess" not in str(caught.value)
    assert "secret" not in str(caught.value)
