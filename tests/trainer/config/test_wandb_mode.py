"""Where keys of W&B are looked for, and what is made of them."""

import pytest

from trainer.config.errors import ConfigError
from trainer.config.wandb_mode import choose_mode, has_key

SERVER = "machine api.wandb.ai login user password key\n"
OWN_SERVER = "machine wandb.example.org login user password key\n"


@pytest.fixture
def netrc(tmp_path):
    def write(content):
        path = tmp_path / "netrc"
        path.write_text(content)
        return {"NETRC": str(path), "WANDB_CONFIG_DIR": str(tmp_path)}

    return write


def test_the_mode_follows_key_and_wish(netrc):
    with_key = netrc(SERVER)
    assert choose_mode("auto", with_key) == "online"
    assert choose_mode("auto", {**with_key, "WANDB_MODE": "offline"}) == "offline"
    assert choose_mode("auto", {"WANDB_API_KEY": "key"}) == "online"
    assert choose_mode("auto", netrc("")) == "offline"
    assert choose_mode("offline", {"WANDB_API_KEY": "key"}) == "offline"


def test_a_key_for_another_server_is_none(netrc):
    assert not has_key({**netrc(SERVER), "WANDB_BASE_URL": "http://localhost:1"})


def test_the_server_of_wandb_login_is_the_one_in_use(netrc, tmp_path):
    variables = netrc(OWN_SERVER)
    assert not has_key(variables)
    settings = "[default]\nbase_url = https://wandb.example.org\n"
    (tmp_path / "settings").write_text(settings)
    assert has_key(variables)
    (tmp_path / "settings").write_text("[default]\napi_key = key\n")
    assert has_key(netrc(""))


@pytest.mark.parametrize("content", ["no section", "[default]\nbase_url = \xff"])
def test_settings_that_cannot_be_read_are_left_to_wandb(netrc, tmp_path, content):
    (tmp_path / "settings").write_bytes(content.encode("latin-1"))
    assert has_key(netrc(SERVER))


def test_online_without_a_key_is_refused_before_wandb_can_ask(netrc):
    with pytest.raises(ConfigError, match="run `wandb login` once") as caught:
        choose_mode("online", netrc(OWN_SERVER))
    assert "none for api.wandb.ai" in caught.value.received
