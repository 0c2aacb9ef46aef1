"""Settings that every process shares: flags, then `SPLITPLACE_*` variables, then a TOML file."""

import hashlib
import os
import re
import ssl
import tomllib
from collections.abc import Callable, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from splitplace.bus.hints import is_loopback
from splitplace.bus.known_keys import OF_PARTS, correction
from splitplace.errors import ConfigurationError
from splitplace.messages.validation_errors import problem_of
from splitplace.storage.credentials import Credentials, CredentialsError
from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import SHIPPED_STORE, Paths, resolve_paths
from splitplace.storage.secured import SecuredFolder, find_credentials

DEFAULT_PORT = 1883
DEFAULT_TLS_PORT = 8883
DEFAULT_PREFIX = "splitplace/v1"
COMMANDS_USER = "operator"
CONFIG_VARIABLE = "SPLITPLACE_CONFIG"


class _TomlFile(TomlConfigSettingsSource):
    """The TOML file, which may begin with the byte order mark that some editors of Windows write."""

    def _read_file(self, file_path: Path | Traversable) -> dict[str, Any]:
        return tomllib.loads(file_path.read_text("utf-8-sig"))


class Settings(BaseSettings):
    """Settings that all parts share. Each part adds its own fields in a subclass.

    One flat TOML file serves all parts: each takes its own keys. A key that no part knows is an error.
    """

    model_config = SettingsConfigDict(env_prefix="SPLITPLACE_", extra="ignore", hide_input_in_errors=True)

    user: ClassVar[str] = COMMANDS_USER
    """Whose credentials a part takes out of a folder that holds those of several users."""

    broker: str = Field(
        "mqtt://127.0.0.1:1883", description="URL of the broker: `mqtt://HOST:PORT`, or `mqtts://` for TLS."
    )
    prefix: str = Field(DEFAULT_PREFIX, description="First levels of all topics.")
    username: str | None = Field(None, description="User name for the broker.")
    password: SecretStr | None = Field(
        None, description="Password for the broker. A flag is visible to other users: prefer the variable."
    )
    credentials: Path | None = Field(
        None,
        description="File with user, password and authority of a secured broker, or a folder with one for "
        "each user (docs/security.md). By default in the state folder, or what systemd loads.",
    )
    ca_file: Path | None = Field(None, description="Certificate authority of the broker, for `mqtts://`.")
    certificate: Path | None = Field(None, description="Client certificate, for `mqtts://`.")
    key: Path | None = Field(None, description="Key of the client certificate, for `mqtts://`.")
    keepalive_s: int = Field(
        2,
        ge=1,
        le=600,
        description="Seconds between signs of life; the broker notices silence after 1.5 times this. More on "
        "links that large tensors fill for seconds.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe messages to log."
    )
    state_dir: Path | None = Field(
        None, description="Folder of all state. By default where the platform keeps state (docs/files.md)."
    )

    @model_validator(mode="before")
    @classmethod
    def _takes_credentials_out_of_the_url(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Move `user:password@` to fields of their own: a URL is printed and logged."""
        broker = data.get("broker")
        if not isinstance(broker, str) or "@" not in broker:
            return cls._with_credentials(data)
        start, _, address = broker.rpartition("@")
        scheme, _, credentials = start.rpartition("//")
        username, _, password = credentials.partition(":")
        found = {"username": unquote(username), "password": unquote(password)}
        if password and not (username or data.get("username")):
            raise ValueError("the broker URL holds a password and no user name: mqtt://NAME:PASSWORD@HOST")
        return {
            **{name: value for name, value in found.items() if value},
            **data,
            "broker": f"{scheme or 'mqtt:'}//{address}",
        }

    @classmethod
    def _with_credentials(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Add what a file of credentials says; what was given otherwise stays."""
        given, state_dir = data.get("credentials"), data.get("state_dir")
        if given == "" or state_dir == "":  # refused below
            return data
        folder = SecuredFolder(resolve_paths(Path(state_dir) if state_dir else None).secured)
        try:
            path = find_credentials(Path(given) if given else None, folder, cls._user(data))
        except CredentialsError:
            if given or "broker" not in data:
                raise
            path = None
        if path is None:
            return data
        found = Credentials.load(path)
        if "broker" in data and not given and _address(data["broker"]) != _address(found.broker):
            return data  # nobody named these credentials, and another broker must not get them
        return {**cls._from_credentials(found), **data, "credentials": path}

    @classmethod
    def _user(cls, data: Mapping[str, Any]) -> str:  # noqa: ARG003 - a node is called as its settings say
        """Whose credentials to use; empty where that is not known."""
        return cls.user

    @classmethod
    def _from_credentials(cls, found: Credentials) -> dict[str, Any]:
        """Return the settings that a file of credentials makes. Raises CredentialsError: it is not for us."""
        if cls.user not in {COMMANDS_USER, found.name}:
            raise CredentialsError(f"these are the credentials of {found.name}: {cls.user} needs its own")
        return {
            "broker": found.broker,
            "prefix": found.prefix,
            "username": found.username,
            "password": found.password,
        }

    @model_validator(mode="after")
    def _keeps_credentials_encrypted(self) -> Self:
        if self.credentials is not None and urlsplit(self.broker).scheme != "mqtts":
            raise ValueError(
                f"the credentials {self.credentials} are for TLS, and {self.broker} is not: use mqtts://"
            )
        return self

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_empty_path(cls, value: object, info: ValidationInfo) -> object:
        if value == "" and cls.model_fields[str(info.field_name)].annotation == Path | None:
            raise ValueError("it is empty; name a folder or file, or leave it out")  # else the current folder
        return value

    @field_validator("broker")
    @classmethod
    def _is_a_broker_url(cls, value: str) -> str:
        url = value if "//" in value else f"mqtt://{value}"
        shown = re.split(r"[?#]", value)[0]  # nobody should write a password there, but it would be printed
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:  # half an IPv6 address, or no port number
            raise ValueError(
                f"{shown!r} is not a broker URL like mqtt://192.168.1.10:1883 (ports are 1 to 65535)"
            ) from error
        beyond = parts.path.strip("/") or parts.query or parts.fragment
        if parts.scheme not in {"mqtt", "mqtts"} or not host or port == 0 or beyond:
            raise ValueError(f"{shown!r} is not a broker URL like mqtt://192.168.1.10:1883")
        return url.rstrip("/")

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_capitals(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("prefix")
    @classmethod
    def _is_a_topic_prefix(cls, value: str) -> str:
        return as_topic_prefix(value)

    @property
    def host(self) -> str:
        """Host name of the broker."""
        return urlsplit(self.broker).hostname or "127.0.0.1"

    @property
    def port(self) -> int:
        """Port of the broker."""
        parts = urlsplit(self.broker)
        return parts.port or (DEFAULT_TLS_PORT if parts.scheme == "mqtts" else DEFAULT_PORT)

    @property
    def is_open_to_others(self) -> bool:
        """Whether the broker is reached over a network and knows no users: anybody there may do anything."""
        has_user = self.username is not None or self.certificate is not None
        return not has_user and not is_loopback(self.host)

    @property
    def paths(self) -> Paths:
        """Paths of the files of this part."""
        return resolve_paths(self.state_dir)

    def client_id(self, name: str) -> str:
        """Return the MQTT client id of a part; systems that share a broker differ by prefix."""
        if self.prefix == DEFAULT_PREFIX:
            return name
        return f"{name}-{hashlib.sha256(self.prefix.encode()).hexdigest()[:8]}"

    def tls_context(self) -> ssl.SSLContext | None:
        """TLS settings for mqtts, None for mqtt. Read certificate files. Raises ConfigurationError."""
        if urlsplit(self.broker).scheme != "mqtts":
            return None
        try:
            context = ssl.create_default_context(
                cafile=str(self.ca_file) if self.ca_file else None,
                cadata=None if self.ca_file or not self.credentials else self._authority(),
            )
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # also ssl.SSLError
            raise ConfigurationError(
                f"cannot load the certificates for {self.broker}: {error.strerror or error} "
                f"(--ca-file {self.ca_file}, --certificate {self.certificate}, --key {self.key})"
            ) from error
        return context

    def _authority(self) -> str:
        return Credentials.load(self.credentials).authority if self.credentials else ""

    @property
    def client_name(self) -> str | None:
        """What the broker's rules call this user: its login, which may differ after a rotation."""
        return Credentials.load(self.credentials).name if self.credentials else self.username

    @property
    def bound_client_id(self) -> str:
        """The only MQTT client id with which the broker lets this user in; empty where any will do."""
        return Credentials.load(self.credentials).client_id if self.credentials else ""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over variables, variables over the TOML file."""
        toml = _TomlFile(settings_cls, toml_file=config_file())
        return init_settings, env_settings, dotenv_settings, file_secret_settings, toml

    @classmethod
    def load(cls, **given: Any) -> Self:  # noqa: ANN401 - fields
        """Return settings from `given`, then variables, then the TOML file. Raises ConfigurationError."""
        path = config_file()
        try:
            if CONFIG_VARIABLE in os.environ:
                path.open("rb").close()
            _check_keys(path)
            return cls(**given)
        except ValidationError as error:
            lines = [_wrong_setting(each, given, path) for each in error.errors()]
            raise ConfigurationError("\n".join(lines)) from None
        except OSError as error:
            raise ConfigurationError(
                f"cannot read the configuration file {path}: {error.strerror} (see {CONFIG_VARIABLE})"
            ) from error
        except ValueError as error:  # not TOML, or not UTF-8
            raise ConfigurationError(f"{path} is not a valid TOML file: {error}") from error


class StoreSettings(Settings):
    """Settings of a part that reads networks."""

    store: Path | None = Field(
        None, description="Folder of the only networks to use. By default the shipped ones and your own."
    )
    own_store: Path | None = Field(
        None, description="Folder of the networks you add. By default see docs/files.md."
    )

    @property
    def paths(self) -> Paths:
        """Paths of the files of this part."""
        return resolve_paths(self.state_dir, self.own_store)

    @property
    def model_store(self) -> ModelStore:
        """The networks to use. Your own take the place of shipped ones with the same name."""
        return ModelStore(self.store) if self.store else ModelStore(self.paths.own_store, SHIPPED_STORE)


def _address(broker: object) -> tuple[str, int] | None:
    """Host and port of a broker; None where the URL is not valid."""
    if not isinstance(broker, str):
        return None
    url = urlsplit(broker if "//" in broker else f"mqtt://{broker}")
    try:
        port = url.port
    except ValueError:
        return None
    return (url.hostname or "", port or (DEFAULT_TLS_PORT if url.scheme == "mqtts" else DEFAULT_PORT))


def as_topic_prefix(text: str) -> str:
    """Return the first levels of all topics without slashes around them. Raises ValueError."""
    if not text.strip("/") or any(sign in text for sign in "+#\0"):
        raise ValueError(f"{text!r} cannot be a topic prefix")
    return text.strip("/")


def config_file() -> Path:
    """Return the path of the TOML file, which may not exist."""
    return Path(os.environ.get(CONFIG_VARIABLE, "splitplace.toml"))


def _check_keys(path: Path) -> None:
    """Check that some part knows each key of the file. Raises ConfigurationError, OSError, ValueError."""
    if not path.exists():
        return
    known = {*StoreSettings.model_fields, *OF_PARTS}
    wrong = []
    for key, value in tomllib.loads(path.read_text("utf-8-sig")).items():
        if isinstance(value, dict):
            wrong.append(
                f"{path}{_line_of_table(key, path)}: [{key}]: the file has no tables; keys stand at the top"
            )
        elif key not in known:
            wrong.append(f"{path}{_line_of(key, path)}: {key}: no part knows it; {correction(key, known)}")
    if wrong:
        raise ConfigurationError("\n".join(wrong))


def _wrong_setting(error: ErrorDetails, given: Mapping[str, Any], path: Path) -> str:
    """One line: where the value came from, and what is wrong with it."""
    message = problem_of(error)
    if not error["loc"]:
        return f"settings: {message}"
    name = str(error["loc"][0])
    variable = f"SPLITPLACE_{name.upper()}"
    if name in given:
        return f"--{name.replace('_', '-')}: {message}"
    if variable in {each.upper() for each in os.environ}:
        return f"{variable}: {message}"
    return f"{path}{_line_of(name, path)}: {name}: {message}"


def _line_of(name: str, path: Path) -> str:
    """`:3` where line 3 of the file sets this; nothing where none does."""
    return _line_where(path, lambda line: line.partition("=")[0].strip(" \t\"'") == name)


def _line_of_table(name: str, path: Path) -> str:
    """`:3` where line 3 of the file begins this table; nothing where none does."""
    return _line_where(path, lambda line: line.strip(" \t[").partition("]")[0].split(".")[0].strip() == name)


def _line_where(path: Path, is_it: Callable[[str], bool]) -> str:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    return next((f":{number}" for number, line in enumerate(lines, 1) if is_it(line)), "")
