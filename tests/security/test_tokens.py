"""A token is one line that says where to join, whom to trust and how to prove oneself, once."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from splitplace.security.tokens import Token, TokenError, draw_secret, parse_token

TOKEN = Token("mqtts://hub:8883", "splitplace/v1", "kitchen~2", bytes(range(32)), b"s" * 16, 1_800_000_000)


def test_a_token_says_all_again() -> None:
    assert parse_token(str(TOKEN)) == TOKEN
    assert TOKEN.name == "kitchen"
    assert len(str(TOKEN)) < 250  # short enough for a message or a QR code


def test_a_token_may_come_with_line_breaks() -> None:
    text = str(TOKEN)
    assert parse_token(f" {text[:40]}\n{text[40:80]}\r\n {text[80:]}\n") == TOKEN


@example(place=len(str(TOKEN)) - 1, letter="b")
@given(place=st.integers(4, len(str(TOKEN)) - 1), letter=st.sampled_from("Ab9_-=+/é"))
def test_a_slip_of_the_pen_is_noticed(place: int, letter: str) -> None:
    text = str(TOKEN)
    changed = text[:place] + letter + text[place + 1 :]
    if changed != text:
        with pytest.raises(TokenError):
            parse_token(changed)


@given(st.text() | st.binary().map(lambda raw: "sp1." + raw.hex()))
def test_anything_else_is_no_token(text: str) -> None:
    with pytest.raises(TokenError):
        parse_token(text)


@pytest.mark.parametrize("length", range(4, 60, 7))
def test_half_a_token_is_none(length: int) -> None:
    with pytest.raises(TokenError):
        parse_token(str(TOKEN)[:length])


def test_a_token_does_not_tell_its_secret_by_accident() -> None:
    secret = draw_secret()
    token = Token("mqtts://hub:8883", "p", "n", bytes(32), secret, 1)
    assert str(secret) not in repr(token)
    assert token.password not in f"{token!r} {token.mark}"
    assert token.mark != Token("mqtts://hub:8883", "p", "n", bytes(32), draw_secret(), 1).mark
