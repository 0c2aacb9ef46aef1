"""Password hashes are those of Mosquitto's plugin."""

import base64

from splitplace.security.passwords import draw_password, stored

# Made by `mosquitto_ctrl dynsec init` of Mosquitto 2.0.11.
SALT = "HD1zbTp6toXHzYn8"
HASH = "F5ywUpVHvsjZrQwa+YTwg/KULAwxlBszoatffiUe6Z+hN4V5yv1PC7VVMK06u0+aOuIaXSI3A7rcsFtSxkxegQ=="


def test_a_hash_is_the_one_that_mosquitto_makes() -> None:
    kept = stored("correct horse", base64.b64decode(SALT))
    assert kept == {"password": HASH, "salt": SALT, "iterations": 101}


def test_equal_passwords_have_different_hashes() -> None:
    assert stored("same")["password"] != stored("same")["password"]


def test_a_password_has_256_bits_and_needs_no_escaping() -> None:
    drawn = {draw_password() for _ in range(100)}
    assert len(drawn) == 100
    assert all(len(each) == 43 and each.replace("-", "").replace("_", "").isalnum() for each in drawn)
