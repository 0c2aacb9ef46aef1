"""A client id's secret survives its process, is its owner's alone, and is replaced when it is damaged."""

import logging
import os
from pathlib import Path

import pytest

from splitplace.storage.client_secret import draw_secret, kept_secret


def test_a_secret_is_drawn_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "state" / "gateway.client-id"
    secret = kept_secret(path)
    assert len(secret) == 32
    assert kept_secret(path) == secret
    assert len({draw_secret() for _ in range(100)}) == 100


def test_only_the_owner_may_read_it_whatever_the_umask_and_whoever_made_it(tmp_path: Path) -> None:
    path = tmp_path / "gateway.client-id"
    before = os.umask(0)
    try:
        secret = kept_secret(path)
        assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o644)
        assert kept_secret(path) == secret
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"\0" * 33, b"\xff\xfe", b"short\n", b"g" * 32, b"a" * 33])
def test_a_damaged_file_is_replaced_and_that_is_said_once(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "gateway.client-id"
    path.write_bytes(content)
    secret = kept_secret(path)
    assert kept_secret(path) == secret
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert str(path) in caplog.text
    assert secret not in caplog.text


def test_a_file_that_cannot_be_read_or_written_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "gateway.client-id"
    assert kept_secret(path) != kept_secret(path)
    assert "cannot be written" in caplog.text
