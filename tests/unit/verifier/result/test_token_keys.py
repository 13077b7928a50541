"""Keys for tokens: announced before they sign, replaced, retired, distrusted; believed by the identity's word alone."""

from __future__ import annotations

import contextlib
import copy
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.broken_files import Broken, FaultyFiles
from fakes.soft_tpm import derive_key
from support.result_tokens import KEY, issued, verified
from weighbridge.proto import cose, strict
from weighbridge.proto.errors import Code, EnvironmentFault, MalformedEvidence, NotAuthentic, WeighbridgeError
from weighbridge.verifier.keys import VerifierKeys
from weighbridge.verifier.result import Serialisation, jwks
from weighbridge.verifier.result.endorsement import endorse, endorsed
from weighbridge.verifier.result.key_store import ANNOUNCED_MIN, KeyState, StoredKey, TokenKeyStore
from weighbridge.verifier.result.trusted import TrustedKey, TrustedKeys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


NOW: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
CWT: Final = Serialisation.EAR_04_CWT


@pytest.fixture
def identity(tmp_path: Path) -> VerifierKeys:
    return VerifierKeys.create(tmp_path / "keys")


@pytest.fixture
def store(identity: VerifierKeys) -> TokenKeyStore:
    return TokenKeyStore(identity)


def announced(store: TokenKeyStore, *, since: timedelta = HOUR, until: timedelta = 10 * HOUR) -> StoredKey:
    return store.new(at=NOW, not_before=NOW + since, not_after=NOW + until)


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(WeighbridgeError) as refused:
        call()
    code = refused.value.code
    assert isinstance(code, Code)
    return code


def kids(document: strict.JsonObject) -> list[str]:
    listed: Any = document["keys"]
    return [strict.base64url_decode(key["kid"], what="kid").hex() for key in listed]


def signs(store: TokenKeyStore, at: datetime) -> bytes:
    thumbprint = cose.thumbprint(store.signer(at).public_key())
    assert thumbprint == store.signer_thumbprint(at)
    return thumbprint


def pinned(identity: VerifierKeys) -> TrustedKey:
    return TrustedKey(identity.signing.public_key())


def believed(store: TokenKeyStore, identity: VerifierKeys, at: datetime) -> TrustedKeys:
    """By a relying party that has pinned the identity and fetched the key set."""
    return jwks.read(strict.json_encode(store.jwks(at)), [pinned(identity)])


# -- which one signs ---------------------------------------------------------------------------------------------------


def test_while_there_is_none_the_identity_signs(store: TokenKeyStore, identity: VerifierKeys) -> None:
    assert signs(store, NOW) == identity.thumbprint
    assert kids(store.jwks(NOW)) == [identity.thumbprint.hex()]
    assert identity.thumbprint in store.trusted(NOW)


def test_a_key_is_announced_before_it_signs(store: TokenKeyStore, identity: VerifierKeys) -> None:
    key = announced(store)
    assert store.state(key, NOW) is KeyState.ANNOUNCED
    assert signs(store, NOW) == identity.thumbprint
    assert signs(store, NOW + HOUR - timedelta(microseconds=1)) == identity.thumbprint
    assert kids(store.jwks(NOW)) == [key.trusted.kid.hex(), identity.thumbprint.hex()]
    assert signs(store, NOW + HOUR) == key.trusted.kid
    assert store.state(key, NOW + HOUR) is KeyState.CURRENT


def test_it_is_not_announced_for_less_than_relying_parties_need(store: TokenKeyStore) -> None:
    with pytest.raises(ValueError, match="announced"):
        announced(store, since=ANNOUNCED_MIN - timedelta(seconds=1))
    assert store.known() == ()


def test_a_later_key_takes_the_place_of_the_one_before(store: TokenKeyStore) -> None:
    first, second = announced(store), announced(store, since=3 * HOUR)
    assert signs(store, NOW + 3 * HOUR - timedelta(seconds=1)) == first.trusted.kid
    assert signs(store, NOW + 3 * HOUR) == second.trusted.kid
    assert store.state(first, NOW + 3 * HOUR) is KeyState.REPLACED
    # Its last tokens are verified still.
    assert first.trusted.kid.hex() in kids(store.jwks(NOW + 3 * HOUR))


def test_when_its_time_is_over_the_identity_signs_again(store: TokenKeyStore, identity: VerifierKeys) -> None:
    key = announced(store)
    end = NOW + 10 * HOUR
    assert signs(store, end) == key.trusted.kid
    assert signs(store, end + timedelta(seconds=1)) == identity.thumbprint
    assert store.state(key, end + timedelta(seconds=1)) is KeyState.EXPIRED
    assert key.trusted.kid.hex() in kids(store.jwks(end + timedelta(seconds=120)))
    assert key.trusted.kid.hex() not in kids(store.jwks(end + timedelta(seconds=131)))


def test_a_retired_key_signs_no_more_and_its_tokens_run_out(
    store: TokenKeyStore, identity: VerifierKeys, tmp_path: Path
) -> None:
    first, second = announced(store), announced(store, since=2 * HOUR)
    at = NOW + 3 * HOUR
    retired = store.retire(second.trusted.kid, at=at, distrust=False)
    assert (store.state(retired, at), retired.retired) == (KeyState.RETIRED, at)
    assert signs(store, at) == first.trusted.kid
    assert second.trusted.kid in believed(store, identity, at + timedelta(seconds=120))
    assert second.trusted.kid not in believed(store, identity, at + timedelta(seconds=131))
    assert not (tmp_path / "keys" / "tokens" / f"{second.trusted.kid.hex()}.pem").exists()
    # Again changes nothing: it does not begin to be good once more.
    assert store.retire(second.trusted.kid, at=at + HOUR, distrust=False).retired == at


def test_a_distrusted_key_leaves_the_key_set_at_once(store: TokenKeyStore, identity: VerifierKeys) -> None:
    key, at = announced(store), NOW + 2 * HOUR
    store.retire(key.trusted.kid, at=at, distrust=False)
    lost = store.retire(key.trusted.kid, at=at, distrust=True)
    assert store.state(lost, at) is KeyState.DISTRUSTED
    assert kids(store.jwks(at)) == [identity.thumbprint.hex()]
    assert key.trusted.kid not in store.trusted(at)
    assert store.retire(key.trusted.kid, at=at, distrust=False).distrusted


def test_another_process_takes_up_what_has_changed(store: TokenKeyStore, identity: VerifierKeys) -> None:
    other = TokenKeyStore(identity)
    key, at = announced(store), NOW + 2 * HOUR
    assert signs(other, at) == key.trusted.kid
    store.retire(key.trusted.kid, at=at, distrust=False)
    assert signs(other, at) == identity.thumbprint


# -- who believes it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("serialisation", list(Serialisation))
def test_a_relying_party_that_pinned_the_identity_accepts_a_new_key(
    store: TokenKeyStore, identity: VerifierKeys, serialisation: Serialisation
) -> None:
    key, at = announced(store), NOW + 2 * HOUR
    token = issued(serialisation, key=store.signer(at), received=at)
    found = verified(token, keys=believed(store, identity, NOW), at=at)
    assert (found.key, found.verifier) == (key.trusted.kid, identity.thumbprint)
    # And one who has fetched nothing does not.
    alone = TrustedKeys([pinned(identity)])
    assert code_of(lambda: verified(token, keys=alone, at=at)) is Code.TOKEN_SIGNATURE


def test_tokens_of_the_identity_go_on_to_be_accepted(store: TokenKeyStore, identity: VerifierKeys) -> None:
    announced(store)
    at = NOW + 2 * HOUR
    token = issued(CWT, key=identity.signing, received=at)
    assert verified(token, keys=believed(store, identity, at), at=at).key == identity.thumbprint


def test_a_key_does_not_sign_before_its_time(store: TokenKeyStore, identity: VerifierKeys) -> None:
    announced(store)
    token = issued(CWT, key=store.signer(NOW + 2 * HOUR), received=NOW)
    assert code_of(lambda: verified(token, keys=believed(store, identity, NOW), at=NOW)) is Code.TOKEN_KEY_PERIOD


def test_another_verifiers_key_set_adds_nothing(store: TokenKeyStore, identity: VerifierKeys) -> None:
    key = announced(store)
    keys = jwks.read(strict.json_encode(store.jwks(NOW)), [TrustedKey(KEY.public_key())])
    assert len(keys) == 1
    assert key.trusted.kid not in keys
    assert identity.thumbprint not in keys


def test_a_key_that_is_endorsed_endorses_none(identity: VerifierKeys) -> None:
    middle, last = derive_key("middle"), derive_key("last")
    period = {"not_before": NOW, "not_after": NOW + HOUR}
    first = endorsed(endorse(middle.public_key(), identity, at=NOW, **period), TrustedKeys([pinned(identity)]))
    impostor = VerifierKeys(middle, identity.ledger)
    statement = endorse(last.public_key(), impostor, at=NOW, **period)
    document = strict.json_encode(jwks.write([(first.key, None), (last.public_key(), statement)]))
    assert cose.thumbprint(last.public_key()) not in jwks.read(document, [pinned(identity)])
    assert code_of(lambda: endorsed(statement, TrustedKeys([pinned(identity)]))) is Code.TOKEN_KEY_ENDORSEMENT


def test_a_statement_is_signed_by_whom_it_names(identity: VerifierKeys) -> None:
    forged = endorse(
        derive_key("stolen").public_key(),
        VerifierKeys(KEY, identity.ledger),
        not_before=NOW,
        not_after=NOW + HOUR,
        at=NOW,
    )
    # Its header names the identity, its signature is a stranger's.
    renamed = forged.replace(cose.thumbprint(KEY.public_key()), identity.thumbprint)
    assert code_of(lambda: endorsed(renamed, TrustedKeys([pinned(identity)]))) is Code.TOKEN_KEY_ENDORSEMENT
    document = strict.json_encode(jwks.write([(derive_key("stolen").public_key(), renamed)]))
    assert code_of(lambda: jwks.read(document, [pinned(identity)])) is Code.TOKEN_KEY_ENDORSEMENT


def test_a_statement_endorses_the_key_beside_it(store: TokenKeyStore, identity: VerifierKeys) -> None:
    announced(store)
    good: Any = store.jwks(NOW)
    for name, value in (("x", good["keys"][1]["x"]), ("kid", good["keys"][1]["kid"]), ("alg", "none"), ("use", "enc")):
        changed = copy.deepcopy(good)
        changed["keys"][0][name] = value
        data = strict.json_encode(changed)
        assert code_of(lambda data=data: jwks.read(data, [pinned(identity)])) is Code.TOKEN_MALFORMED  # type: ignore[misc]


@pytest.mark.parametrize(
    "data", [b"[]", b"{}", b'{"keys":{}}', b'{"keys":[7]}', b'{"keys":[{"weighbridge_endorsement":7}]}']
)
def test_what_is_no_key_set(data: bytes) -> None:
    assert code_of(lambda: jwks.read(data, [TrustedKey(KEY.public_key())])) is Code.TOKEN_MALFORMED


@given(
    st.binary(max_size=60)
    | st.binary(max_size=40).map(lambda junk: b'{"keys":[{"weighbridge_endorsement":"%b"}]}' % junk)
)
def test_any_bytes_are_refused_or_add_nothing(data: bytes) -> None:
    with contextlib.suppress(MalformedEvidence, NotAuthentic):
        assert len(jwks.read(data, [TrustedKey(KEY.public_key())])) == 1


# -- on disk -----------------------------------------------------------------------------------------------------------


def test_a_key_that_was_never_announced_is_passed_over(
    store: TokenKeyStore, identity: VerifierKeys, tmp_path: Path
) -> None:
    key = announced(store)
    (tmp_path / "keys" / "tokens" / f"{key.trusted.kid.hex()}.cose").unlink()
    assert signs(store, NOW + 2 * HOUR) == identity.thumbprint


def test_a_statement_of_somebody_else_is_found(store: TokenKeyStore, identity: VerifierKeys, tmp_path: Path) -> None:
    stranger = VerifierKeys(KEY, identity.ledger)
    other = derive_key("other").public_key()
    statement = endorse(other, stranger, not_before=NOW, not_after=NOW + HOUR, at=NOW)
    announced(store)
    (tmp_path / "keys" / "tokens" / f"{cose.thumbprint(other).hex()}.cose").write_bytes(statement)
    assert code_of(lambda: store.signer(NOW)) is Code.STATE_CORRUPT


@pytest.mark.parametrize(("kind", "data"), [("cose", b"junk"), ("retired", b"{}"), ("retired", b"junk")])
def test_damage_is_found(store: TokenKeyStore, tmp_path: Path, kind: str, data: bytes) -> None:
    key = announced(store)
    path = tmp_path / "keys" / "tokens" / f"{key.trusted.kid.hex()}.{kind}"
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    assert code_of(lambda: store.signer(NOW)) is Code.STATE_CORRUPT


def test_a_private_key_of_another_or_none(store: TokenKeyStore, identity: VerifierKeys, tmp_path: Path) -> None:
    folder, at = tmp_path / "keys" / "tokens", NOW + 2 * HOUR
    key = announced(store)
    path = folder / f"{key.trusted.kid.hex()}.pem"
    path.write_bytes((tmp_path / "keys" / "signing.pem").read_bytes())
    assert code_of(lambda: store.signer(at)) is Code.STATE_CORRUPT
    path.unlink()
    assert code_of(lambda: TokenKeyStore(identity).signer(at)) is Code.FILE_UNREADABLE


def test_private_keys_are_private(store: TokenKeyStore, tmp_path: Path) -> None:
    key = announced(store)
    path = tmp_path / "keys" / "tokens" / f"{key.trusted.kid.hex()}.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.chmod(0o644)
    assert code_of(lambda: store.signer(NOW + 2 * HOUR)) is Code.KEY_EXPOSED


def test_there_is_no_such_key(store: TokenKeyStore) -> None:
    assert code_of(lambda: store.retire(bytes(32), at=NOW, distrust=False)) is Code.FILE_UNREADABLE


@pytest.mark.parametrize("how", list(Broken))
def test_a_failure_at_any_step_leaves_what_was(identity: VerifierKeys, how: Broken) -> None:
    """Whatever fails, a reader finds the keys of before or those of after, and none that it cannot sign with."""
    at = NOW + 2 * HOUR
    step, failures = 1, list[Code]()
    while True:
        files = FaultyFiles(how=how)
        store = TokenKeyStore(identity, files=files)
        known = len(store.known())
        files.arm(step)
        try:
            key = announced(store)
            store.retire(key.trusted.kid, at=at, distrust=False)
        except EnvironmentFault as fault:
            failures.append(fault.code)
        again = TokenKeyStore(identity)
        assert len(again.known()) - known in {0, 1}
        assert again.signer_thumbprint(at) == signs(again, at)
        for left in again.known():
            again.retire(left.trusted.kid, at=at, distrust=False)
        if files.count < step:
            break
        step += 1
    assert len(failures) >= 6
    assert set(failures) == {Code.DISK_FULL}
