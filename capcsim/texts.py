"""Text as people save it: UTF-8, or what a mark at its beginning says."""

import codecs

# The mark of UTF-32 begins with that of UTF-16.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
OTHERS = {
    b"PAR1": "it is a Parquet file: read it as one, not as CSV",
    b"PK": "it is an archive or a workbook: export its sheet as CSV",
    b"\x1f\x8b": "it is gzipped: unpack it",
    b"\xd0\xcf\x11\xe0": "it is a workbook: export its sheet as CSV",
}
"""What other files begin with, and what to do about them."""


def decoded(content: bytes) -> str:
    """A file's text; raises ValueError, which says what is wrong and what to do."""
    other = next((what for magic, what in OTHERS.items() if content.startswith(magic)), None)
    if other:
        raise ValueError(other)
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"its text is not UTF-8 (line {line}): save it as UTF-8") from None
    if "\0" in text:
        raise ValueError("its text is not UTF-8: save it as UTF-8")
    return text
