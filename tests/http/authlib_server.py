"""An OAuth2 server made of authlib and Flask, which checks what Lanekeeper sends.

Usage: authlib_server.py PUBLIC_KEY_FILE KIND, where KIND is RSA, EC or OKP. It writes its port, and then a line for each token: client, scope and subject.
"""

import logging
import os
import sys

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

from authlib.integrations.flask_oauth2 import AuthorizationServer  # noqa: E402
from authlib.oauth2.rfc6749 import ClientMixin, grants  # noqa: E402
from authlib.oauth2.rfc7523 import JWTBearerGrant  # noqa: E402
from flask import Flask, request  # noqa: E402
from joserfc import jwk  # noqa: E402
from joserfc.jws import JWSRegistry  # noqa: E402
from werkzeug.serving import make_server  # noqa: E402


# It knows these, and has to be told to take them.
JWSRegistry.recommended += ["RS384", "PS256", "PS512", "ES384", "Ed25519", "EdDSA"]


class Client(ClientMixin):
    """A client that may use one way to send its secret."""

    def __init__(self, client_id, method, grant_type):
        self.client_id = client_id
        self.method = method
        self.grant_type = grant_type

    def get_client_id(self):
        return self.client_id

    def get_allowed_scope(self, scope):
        return scope

    def check_client_secret(self, client_secret):
        return client_secret == "s3cr%t:&ä"

    def check_endpoint_auth_method(self, method, endpoint):
        return method == self.method

    def check_grant_type(self, grant_type):
        return grant_type == self.grant_type


CLIENT_CREDENTIALS = "client_credentials"
CLIENTS = {
    client.client_id: client
    for client in [
        Client("basic:1", "client_secret_basic", CLIENT_CREDENTIALS),
        Client("post&1", "client_secret_post", CLIENT_CREDENTIALS),
        Client("jwt-1", "none", JWTBearerGrant.GRANT_TYPE),
    ]
}


class ClientCredentialsGrant(grants.ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]


class AssertionGrant(JWTBearerGrant):
    def resolve_issuer_client(self, issuer):
        return CLIENTS.get(issuer)

    def resolve_client_public_key(self, client):
        with open(sys.argv[1], encoding="ascii") as file:
            return jwk.import_key(file.read(), KIND)

    def authenticate_user(self, subject):
        return subject if subject == "crm-writer" else None

    def has_granted_permission(self, client, user):
        return True

    def get_audiences(self):
        return [f"http://127.0.0.1:{SERVER.server_port}/token"]


def save_token(token, asked):
    print(asked.client.client_id, token.get("scope"), asked.user or "-", flush=True)


KIND = sys.argv[2]
APP = Flask("authlib")
AUTHORIZATION = AuthorizationServer(APP, query_client=CLIENTS.get, save_token=save_token)
AUTHORIZATION.register_grant(ClientCredentialsGrant)
AUTHORIZATION.register_grant(AssertionGrant)
logging.getLogger("werkzeug").disabled = True


@APP.post("/token")
def token():
    return AUTHORIZATION.create_token_response(request)


SERVER = make_server("127.0.0.1", 0, APP, threaded=True)
print(SERVER.server_port, flush=True)
SERVER.serve_forever()
