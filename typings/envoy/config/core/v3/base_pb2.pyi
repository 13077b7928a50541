"""Hand-written stub of `xds-protos` 1.85. See `service/auth/v3/external_auth_pb2.pyi`."""

class HeaderValue:
    key: str
    value: str

class HeaderValueOption:
    # envoy.config.core.v3.HeaderValueOption.HeaderAppendAction
    append_action: int
    @property
    def header(self) -> HeaderValue: ...
