"""Hand-written stub of `lxml.etree` 6: what this project may use. The package has no annotations.

Left out on purpose: whatever fetches, validates, transforms or recovers, and parsers with other defaults.
"""

from collections.abc import Iterator

class LxmlError(Exception): ...
class XMLSyntaxError(LxmlError, SyntaxError): ...
class C14NError(LxmlError): ...

class XMLParser:
    def __init__(
        self,
        *,
        encoding: str | None = None,
        attribute_defaults: bool = False,
        dtd_validation: bool = False,
        load_dtd: bool = False,
        no_network: bool = True,
        ns_clean: bool = False,
        recover: bool = False,
        huge_tree: bool = False,
        remove_blank_text: bool = False,
        resolve_entities: bool = True,
        remove_comments: bool = False,
        remove_pis: bool = False,
        strip_cdata: bool = True,
        collect_ids: bool = True,
    ) -> None: ...

class _Attrib:
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def items(self) -> list[tuple[str, str]]: ...

class _Element:
    tag: str
    text: str | None
    tail: str | None
    @property
    def attrib(self) -> _Attrib: ...
    def __iter__(self) -> Iterator[_Element]: ...
    def __len__(self) -> int: ...
    def iter(self) -> Iterator[_Element]: ...
    def remove(self, element: _Element) -> None: ...

def fromstring(text: bytes, parser: XMLParser) -> _Element: ...
def tostring(
    element: _Element, *, method: str = "xml", exclusive: bool = False, with_comments: bool = True
) -> bytes: ...
