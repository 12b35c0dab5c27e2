"""Every way to say who we are, against real servers; and nothing that says it by accident."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

import anyio
import nkeys
import pytest
from nats.aio.client import RawCredentials

from nats_jobs.errors import AuthorizationFailed, ConnectFailed, UsageError
from nats_jobs.server import Server, run_server
from nats_jobs.wire import Connection, ConnectOptions, Options, connect
from nats_jobs.wire._auth import auth_fields
from nats_jobs.wire._servers import parse_url
from support.certificates import Certificates
from support.connections import LIMIT, RecordingListener, quick, reconnected, stay, until
from support.jwt import Identity, Operator
from support.servers import running_server

pytestmark = pytest.mark.anyio

PASSWORD = "s3cret/with:@odd#marks"


@pytest.fixture(scope="module")
def user() -> Identity:
    return Identity("user")


@pytest.fixture(scope="module")
def plain(user: Identity) -> Iterator[Server]:
    """A server with a user, and one with an nkey."""
    with running_server(
        f"authorization {{ users: [ {{user: ann, password: '{PASSWORD}'}}, {{nkey: {user.public}}} ] }}"
    ) as server:
        yield server


@pytest.fixture(scope="module")
def with_token() -> Iterator[Server]:
    with running_server("authorization { token: 'one/ticket' }") as server:
        yield server


@pytest.fixture(scope="module")
def operator() -> Operator:
    return Operator()


@pytest.fixture(scope="module")
def operated(operator: Operator) -> Iterator[Server]:
    with running_server(operator.config()) as server:
        yield server


def with_userinfo(server: Server, userinfo: str) -> str:
    return server.url.replace("://", f"://{userinfo}@")


async def who_am_i(nc: Connection) -> str:
    reply = await nc.request("$SYS.REQ.USER.INFO", timeout=LIMIT)
    name: str = json.loads(reply.data)["data"]["user"]
    return name


async def let_in(url: str, **options: Unpack[ConnectOptions]) -> str:
    with anyio.fail_after(LIMIT):
        async with connect(url, **quick(**options)) as nc:
            await nc.flush()
            return await who_am_i(nc)


# User and password, token...


async def test_user_and_password_are_options(plain: Server) -> None:
    assert await let_in(plain.url, user="ann", password=PASSWORD) == "ann"


async def test_user_and_password_may_stand_in_the_url_percent_encoded(plain: Server) -> None:
    assert await let_in(with_userinfo(plain, "ann:s3cret%2Fwith:%40odd%23marks")) == "ann"


async def test_what_stands_in_the_url_wins_over_the_options(plain: Server) -> None:
    url = with_userinfo(plain, "ann:s3cret%2Fwith:%40odd%23marks")
    assert await let_in(url, user="bob", password="wrong") == "ann"


async def test_a_token_is_an_option_or_stands_in_the_url(with_token: Server) -> None:
    await let_in(with_token.url, token="one/ticket")
    await let_in(with_userinfo(with_token, "one%2Fticket"))


async def test_user_password_and_token_may_be_functions(plain: Server, with_token: Server) -> None:
    assert await let_in(plain.url, user=lambda: "ann", password=lambda: PASSWORD) == "ann"
    await let_in(with_token.url, token=lambda: "one/ticket")


async def test_a_function_is_called_at_each_connect(tmp_path: Path) -> None:
    config = tmp_path / "server.conf"
    config.write_text("authorization { token: first }")
    tokens = iter(["first", "second"])
    async with (
        run_server(jetstream=False, args=["-c", str(config)]) as server,
        connect(server.url, **quick(token=lambda: next(tokens))) as nc,
    ):
        config.write_text("authorization { token: second }")
        await server.restart()
        await reconnected(nc)

    assert not list(tokens)


async def test_a_wrong_password_is_an_authorization_failure_that_does_not_show_it(plain: Server) -> None:
    with pytest.raises(AuthorizationFailed) as caught:
        await let_in(with_userinfo(plain, "ann:hunter2"))

    assert plain.url in str(caught.value)
    assert "Authorization Violation" in str(caught.value)
    assert (
        "hunter2"
        not in f"{caught.value!s} {caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    )


async def test_it_is_an_authorization_failure_also_when_every_one_of_several_servers_refuses(
    plain: Server, with_token: Server
) -> None:
    with pytest.raises(AuthorizationFailed):
        async with connect([plain.url, with_token.url], **quick(user="ann", password="wrong")):
            pass


async def test_a_server_that_cannot_be_reached_and_one_that_refuses_are_both_listed(plain: Server) -> None:
    with pytest.raises(ConnectFailed) as caught:
        async with connect([plain.url, "nats://127.0.0.1:1"], **quick(user="ann", password="wrong")):
            pass

    assert dict(caught.value.reasons) == {
        plain.url: "Authorization Violation",
        "nats://127.0.0.1:1": "Connection refused",
    }


# nkeys...


async def test_an_nkey_seed_comes_from_a_file_or_a_text(
    plain: Server, user: Identity, tmp_path: Path
) -> None:
    file = tmp_path / "user.nk"
    file.write_text(f"# ann's key\n{user.seed}\n")
    assert await let_in(plain.url, nkeys_seed=file) == user.public
    assert await let_in(plain.url, nkeys_seed=str(file)) == user.public
    assert await let_in(plain.url, nkeys_seed_str=user.seed) == user.public


async def test_a_key_that_the_server_does_not_know_is_refused(plain: Server) -> None:
    with pytest.raises(AuthorizationFailed):
        await let_in(plain.url, nkeys_seed_str=Identity("user").seed)


def test_a_seed_that_cannot_work_is_refused_here_without_being_shown(user: Identity) -> None:
    server = parse_url("nats://h")
    typo = user.seed[:20] + ("A" if user.seed[20] != "A" else "B") + user.seed[21:]
    for seed, why in [
        (typo, "typo"),
        (user.seed[:-4], "begins with SU"),
        ("nonsense", "begins with SU"),
        (user.public, "begins with SU"),
        (Identity("account").seed, "of an account"),
    ]:
        with pytest.raises(UsageError, match=why) as caught:
            auth_fields(server, Options(nkeys_seed_str=seed), "nonce")

        assert seed not in str(caught.value)


def test_without_the_extra_a_seed_says_what_to_install(url: str, user: Identity) -> None:
    program = f"""
import sys, anyio
sys.modules["nkeys"] = None  # as if it were not installed
from nats_jobs.wire import connect
async def main():
    async with connect({url!r}, nkeys_seed_str={user.seed!r}):
        pass
anyio.run(main)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].endswith(
        "needs an optional package: pip install 'nats-jobs[nkeys]'"
    )
    assert "MissingExtra" in result.stderr


# JWT...


async def test_a_credentials_file_works_in_every_form_that_nats_py_takes(
    operated: Server, operator: Operator, user: Identity, tmp_path: Path
) -> None:
    file = operator.write_credentials(tmp_path / "user.creds", user)
    jwt_file, seed_file = tmp_path / "user.jwt", tmp_path / "user.nk"
    jwt_file.write_text(operator.user_jwt(user))
    seed_file.write_text(user.seed)
    for credentials in (
        file,
        str(file),
        RawCredentials(file.read_text()),
        (str(jwt_file), str(seed_file)),
        (file, file),
    ):
        assert await let_in(operated.url, user_credentials=credentials) == user.public


async def test_functions_may_give_the_jwt_and_sign_the_nonce(
    operated: Server, operator: Operator, user: Identity
) -> None:
    def sign(nonce: str) -> bytes:
        return base64.b64encode(nkeys.from_seed(user.seed.encode()).sign(nonce.encode()))

    def jwt() -> bytearray:
        return bytearray(operator.user_jwt(user).encode())

    assert await let_in(operated.url, user_jwt_cb=jwt, signature_cb=sign) == user.public


async def test_a_function_that_fails_is_named(operated: Server) -> None:
    def jwt() -> bytes:
        raise RuntimeError("the vault is sealed")

    with pytest.raises(
        UsageError, match="user_jwt_cb: the function failed: RuntimeError: the vault is sealed"
    ) as caught:
        await let_in(operated.url, user_jwt_cb=jwt, signature_cb=lambda nonce: b"")

    assert isinstance(caught.value.__cause__, RuntimeError)


async def test_the_credentials_file_is_read_again_at_each_connect(operator: Operator, tmp_path: Path) -> None:
    first, second = Identity("user"), Identity("user")
    file = operator.write_credentials(tmp_path / "user.creds", first)
    async with (
        run_server(jetstream=False, config=operator.config()) as server,
        connect(server.url, **quick(user_credentials=file)) as nc,
    ):
        assert await who_am_i(nc) == first.public
        operator.write_credentials(file, second)
        await server.restart()
        await reconnected(nc)
        assert await who_am_i(nc) == second.public


async def test_a_file_that_is_missing_at_a_reconnect_is_waited_for(
    operator: Operator, tmp_path: Path
) -> None:
    user = Identity("user")
    file = operator.write_credentials(tmp_path / "user.creds", user)
    async with (
        run_server(jetstream=False, config=operator.config()) as server,
        connect(server.url, **quick(user_credentials=file)) as nc,
    ):
        file.unlink()
        await server.restart()
        await until(lambda: not nc.connected)
        operator.write_credentials(file, user)
        await reconnected(nc)
        assert await who_am_i(nc) == user.public


async def test_a_file_that_is_missing_at_the_first_connect_is_a_usage_error(
    operated: Server, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"user_credentials: .*none.creds cannot be read: No such file"):
        await let_in(operated.url, user_credentials=tmp_path / "none.creds")


async def test_a_file_with_something_else_in_it_is_a_usage_error(operated: Server, tmp_path: Path) -> None:
    file = tmp_path / "user.creds"
    for text in (b"", b"hello", b"-----BEGIN NATS USER JWT-----\n------END NATS USER JWT------\n"):
        file.write_bytes(text)
        with pytest.raises(UsageError, match="has no USER JWT"):
            await let_in(operated.url, user_credentials=file)

    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not a text file"):
        await let_in(operated.url, user_credentials=file)


async def test_an_expired_user_comes_back_with_renewed_credentials(
    operated: Server, operator: Operator, tmp_path: Path
) -> None:
    user = Identity("user")
    listener = RecordingListener()
    # A slow machine may take longer to connect than the shortest of these.
    for lifetime in (2, 4, 8, 16):
        file = operator.write_credentials(tmp_path / "user.creds", user, exp=int(time.time()) + lifetime)
        try:
            async with connect(operated.url, listener=listener, **quick(user_credentials=file)) as nc:
                operator.write_credentials(file, user)
                await reconnected(nc)
                assert await who_am_i(nc) == user.public
                break
        except AuthorizationFailed:
            continue

    assert "User Authentication Expired" in listener.errors


async def test_an_expired_user_whose_credentials_are_not_renewed_ends_the_connection(
    operated: Server, operator: Operator, tmp_path: Path
) -> None:
    file = operator.write_credentials(tmp_path / "user.creds", Identity("user"), exp=int(time.time()) + 2)
    with pytest.raises(AuthorizationFailed):
        await stay(operated.url, user_credentials=file)


async def test_a_revoked_user_ends_the_connection(operator: Operator, tmp_path: Path) -> None:
    user = Identity("user")
    file = operator.write_credentials(tmp_path / "user.creds", user)
    config = tmp_path / "server.conf"
    config.write_text(operator.config())
    async with run_server(jetstream=False, args=["-c", str(config)]) as server:

        async def revoke() -> None:
            config.write_text(operator.config(revoked=user))
            await server.restart()

        with pytest.raises(AuthorizationFailed):
            await stay(server.url, revoke, user_credentials=file)


# Client certificates...


async def test_a_client_certificate_can_be_all_that_says_who_we_are(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    tls = certificates.server_tls("localhost", "127.0.0.1", more="verify_and_map: true")
    async with run_server(
        jetstream=False, config=tls + "\nauthorization { users: [ {user: 'ann@example.org'} ] }"
    ) as server:
        assert await let_in(server.url, tls=certificates.as_client("ann@example.org")) == "ann@example.org"
        with pytest.raises(AuthorizationFailed):
            await let_in(server.url, tls=certificates.as_client("eve@example.org"))


# When the server changes its mind...


async def test_the_same_refusal_twice_from_one_server_ends_it(tmp_path: Path) -> None:
    config = tmp_path / "server.conf"
    config.write_text("authorization { token: first }")
    async with run_server(jetstream=False, args=["-c", str(config)]) as server:

        async def change_token() -> None:
            config.write_text("authorization { token: second }")
            await server.restart()

        with pytest.raises(AuthorizationFailed, match="Authorization Violation"):
            await stay(server.url, change_token, token="first")

        assert server.logs().count("authentication error") == 2


async def test_a_server_that_refuses_does_not_keep_us_from_another(tmp_path: Path) -> None:
    config = tmp_path / "server.conf"
    config.write_text("authorization { token: first }")
    async with (
        run_server(jetstream=False, args=["-c", str(config)]) as strict,
        run_server(jetstream=False) as open_,
        connect([strict.url, open_.url], **quick(token="first", dont_randomize=True)) as nc,
    ):
        config.write_text("authorization { token: second }")
        await open_.restart()
        await strict.restart()
        await reconnected(nc)
        await nc.flush()
        assert nc.server_info["port"] == open_.port


# What goes into CONNECT...


def test_a_jwt_goes_together_with_user_or_token_for_an_auth_callout(
    operator: Operator, user: Identity
) -> None:
    credentials = RawCredentials(operator.credentials(user))
    bare = parse_url("nats://h")
    assert set(auth_fields(bare, Options(user_credentials=credentials), "n")) == {"jwt", "sig"}
    assert set(auth_fields(bare, Options(user_credentials=credentials, token="t"), "n")) == {
        "jwt",
        "sig",
        "auth_token",
    }
    named = parse_url("nats://ann:pw@h")
    assert set(auth_fields(named, Options(user_credentials=credentials), "n")) == {
        "jwt",
        "sig",
        "user",
        "pass",
    }


def test_what_the_url_says_takes_the_place_of_an_nkey(user: Identity) -> None:
    assert auth_fields(parse_url("nats://t@h"), Options(nkeys_seed_str=user.seed), "n") == {"auth_token": "t"}


def test_a_signature_is_that_of_the_nonce(user: Identity) -> None:
    fields = auth_fields(parse_url("nats://h"), Options(nkeys_seed_str=user.seed), "the nonce")
    assert fields["nkey"] == user.public
    signature = base64.urlsafe_b64decode(fields["sig"] + "==")
    assert nkeys.from_seed(user.seed.encode()).verify(b"the nonce", signature)


def test_a_function_that_returns_no_text_is_named() -> None:
    wrong: Any = lambda: 5  # noqa: E731
    with pytest.raises(UsageError, match="token: the function failed"):
        auth_fields(parse_url("nats://h"), Options(token=wrong), "")


def test_no_secret_is_in_a_repr() -> None:
    server = parse_url("nats://ann:hunter2@h")
    options = Options(user="ann", password="hunter2", token="hunter2", nkeys_seed_str="hunter2")
    assert "hunter2" not in f"{server!r} {server!s} {options!r} {options!s}"


# Secrets in the wrong place...


@pytest.mark.parametrize("option", ["nkeys_seed", "user_credentials"])
def test_a_secret_given_where_a_path_is_expected_is_never_quoted(option: str) -> None:
    identity = Identity("user")
    seed = identity.seed
    credentials = (
        f"-----BEGIN NATS USER JWT-----\neyJ0eXAi.{'a' * 50}\n------END NATS USER JWT------\n\n{seed}\n"
    )
    for secret in (seed, seed[:-1], seed.lower(), credentials, f"{seed}\0", f"~{seed}", seed * 20):
        for given in (secret, Path(secret)):
            options = Options.build({option: given})  # type: ignore[misc]
            assert secret[5:30] not in repr(options)
            with pytest.raises(UsageError) as caught:
                auth_fields(parse_url("a:1"), options, "nonce")

            shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
            assert secret[5:30] not in shown
            assert "not shown" in shown
            assert caught.value.__context__ is None


@pytest.mark.parametrize("path", ["nowhere.creds", "/etc/nats/of the team/worker-1.creds"])
def test_a_path_that_cannot_be_read_is_named(path: str) -> None:
    with pytest.raises(UsageError, match=f"{path} cannot be read"):
        auth_fields(parse_url("a:1"), Options(user_credentials=path), "nonce")
