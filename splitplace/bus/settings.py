"""Settings that every process shares: flags, then `SPLITPLACE_*` variables, then a TOML file."""

import hashlib
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import SHIPPED_STORE, Paths, resolve_paths

DEFAULT_PORT = 1883
DEFAULT_TLS_PORT = 8883
DEFAULT_PREFIX = "splitplace/v1"
CONFIG_VARIABLE = "SPLITPLACE_CONFIG"


class Settings(BaseSettings):
    """How to reach the broker. Every part of the system adds its own fields in a subclass.

    One flat TOML file serves all parts: each takes the keys it knows.
    """

    model_config = SettingsConfigDict(
        env_prefix="SPLITPLACE_", extra="ignore", cli_kebab_case=True, cli_avoid_json=True
    )

    broker: str = Field(
        "mqtt://127.0.0.1:1883", description="URL of the broker: mqtt://host:port or mqtts://"
    )
    prefix: str = Field(DEFAULT_PREFIX, description="topic prefix")
    username: str | None = Field(None, description="broker user name")
    password: SecretStr | None = Field(None, description="broker password (better as SPLITPLACE_PASSWORD)")
    ca_file: Path | None = Field(None, description="certificate authority of the broker (mqtts)")
    certificate: Path | None = Field(None, description="client certificate (mqtts)")
    key: Path | None = Field(None, description="key of the client certificate (mqtts)")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")
    state_dir: Path | None = Field(
        None,
        description="folder for all that is kept; default: where the platform keeps state (docs/files.md)",
    )

    @field_validator("broker")
    @classmethod
    def _is_a_broker_url(cls, value: str) -> str:
        parts = urlsplit(value if "//" in value else f"mqtt://{value}")
        if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname:
            raise ValueError(f"{value!r} is not a broker URL like mqtt://192.168.1.10:1883")
        return parts.geturl()

    @field_validator("prefix")
    @classmethod
    def _is_a_topic_prefix(cls, value: str) -> str:
        if not value.strip("/") or any(sign in value for sign in "+#\0"):
            raise ValueError(f"{value!r} cannot be a topic prefix")
        return value.strip("/")

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
    def address(self) -> str:
        """URL of the broker without credentials, for texts."""
        parts = urlsplit(self.broker)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    @property
    def paths(self) -> Paths:
        """Where the files of this part lie."""
        return resolve_paths(self.state_dir)

    def client_id(self, name: str) -> str:
        """MQTT client id of a part. Systems that share a broker differ by prefix, and so must these."""
        if self.prefix == DEFAULT_PREFIX:
            return name
        return f"{name}-{hashlib.sha256(self.prefix.encode()).hexdigest()[:8]}"

    def tls_context(self) -> ssl.SSLContext | None:
        """TLS settings for mqtts, None for mqtt. Reads certificate files."""
        if urlsplit(self.broker).scheme != "mqtts":
            return None
        context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
        if self.certificate:
            context.load_cert_chain(self.certificate, self.key)
        return context

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
        path = Path(os.environ.get(CONFIG_VARIABLE, "splitplace.toml"))
        toml = TomlConfigSettingsSource(settings_cls, toml_file=path)
        return init_settings, env_settings, dotenv_settings, file_secret_settings, toml

    @classmethod
    def from_arguments(cls, arguments: Sequence[str], program: str) -> Self:
        """Settings from command-line flags (and variables and file). Exits with usage on bad flags."""
        return cls(_cli_parse_args=list(arguments), _cli_prog_name=program)


class StoreSettings(Settings):
    """Settings of a part that reads networks."""

    store: Path | None = Field(
        None, description="folder of the only networks to use; default: the shipped ones and your own"
    )
    own_store: Path | None = Field(
        None, description="folder of the networks you add; default: see docs/files.md"
    )

    @property
    def paths(self) -> Paths:
        """Where the files of this part lie."""
        return resolve_paths(self.state_dir, self.own_store)

    @property
    def model_store(self) -> ModelStore:
        """The networks to use. Your own take the place of shipped ones with the same name."""
        return ModelStore(self.store) if self.store else ModelStore(self.paths.own_store, SHIPPED_STORE)
