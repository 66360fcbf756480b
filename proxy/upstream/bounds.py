"""What an upstream may send of an answer, beside its body."""

MAX_HEAD_BYTES = 64 * 1024
"""Of an answer's head, interim answers before it included."""
MAX_HEADER_LINES = 128
"""Of an answer, interim answers and trailers included."""
MAX_INTERIM_ANSWERS = 8
"""How many 1xx may come before the answer (RFC 9110 15.2). 101 may not: nobody asked for it."""
MAX_FRAMING_BYTES = 64 * 1024
"""Of chunk sizes, chunk extensions and trailers between two bytes of a body, and behind the last."""
MAX_BUFFERED_BYTES = 64 * 1024
"""Of a body, before reading pauses; one read more, as large again, may be there by then."""
READ_BYTES = 64 * 1024
"""One read at most: of the smallest chunks there are it takes two milliseconds to tell them apart."""


class AnswerError(Exception):
    """An answer breaks a rule or a bound; the message says which."""


def read_buffer() -> memoryview:
    """Return what all connections of an event loop read into in turn: each read is parsed at once."""
    return memoryview(bytearray(READ_BYTES))
