"""Access tokens: a grant, signed."""

from joserfc import jwt
from joserfc.jwk import OKPKey

from services.chassis.auth import ALGORITHM, ISSUER
from services.sessions.models.token import Grant


def sign(grant: Grant, key: OKPKey) -> str:
    """The grant as a JWT signed with Ed25519 (RFC 8037)."""
    claims = {
        "iss": ISSUER,
        "sub": grant.agent_id,
        "scopes": list(grant.scopes),
        "jti": grant.token_id,
        "iat": int(grant.issued_at.timestamp()),
        "exp": int(grant.expires_at.timestamp()),
        **({"role": grant.role} if grant.role else {}),
        **({"act": {"sub": grant.acting_agent_id}} if grant.acting_agent_id else {}),
        **({"run_id": grant.run_id} if grant.run_id else {}),
    }
    return jwt.encode({"alg": ALGORITHM, "kid": key.kid}, claims, key, algorithms=[ALGORITHM])
