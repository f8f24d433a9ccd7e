"""Broken requests over HTTP: name, bytes, status that is right, and words that help."""

import gzip

from tests.serve.faults.serving import URL, X, binary, infer, post, tensor

SIZE = X.nbytes


def _shape(shape):
    return post(infer(tensor(shape=shape)))


def _data(text):
    """The request with this text where its data would be."""
    return post(infer(tensor(data="DATA")).replace(b'"DATA"', text))


def _get(path, method="GET", **headers):
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()


CHUNKED = _get(URL, "POST", **{"Transfer-Encoding": "chunked"})
BODY = infer(tensor())
BOMB = gzip.compress(bytes(20_000_000))

TLS = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)
MANY = {f"X-{i}": "abc" for i in range(10_000)}
WORDS = "Expected HTTP/1.1"

CASES = [
    ("no body", post(b""), 400, "not JSON"),
    ("a body that is cut off", post(BODY[:-20]), 400, "not JSON"),
    (
        "a length too large",
        post(BODY, length=len(BODY) + 9),
        408,
        "send as many bytes",
    ),
    ("a length too small", post(BODY, length=len(BODY) - 9), 400, "not JSON"),
    ("a negative length", post(BODY, length=-5), 400, WORDS),
    ("a length that is no number", post(BODY, length="many"), 400, WORDS),
    ("two lengths", post(BODY, Content_Length=5, content_length=7), 400, WORDS),
    ("a length of exabytes", post(BODY, length=10**18), 413, "larger than"),
    ("a head longer than the body", binary(SIZE, head_length=99999), 400, "expected 1.."),
    ("a head of nothing", binary(SIZE, head_length=0), 400, "expected 1.."),
    ("a negative head", binary(SIZE, head_length=-1), 400, "is '-1', expected a number"),
    ("a head of words", binary(SIZE, head_length="all"), 400, "is 'all', expected a number"),
    ("a tensor shorter than said", binary(SIZE + 4), 400, "only 24 bytes of the body are left"),
    ("a tensor longer than said", binary(SIZE - 4), 400, "has 20 raw bytes, expected 24"),
    ("a tensor of negative size", binary(-4), 400, "binary_data_size -4"),
    ("a tensor size of text", binary("24"), 400, "binary_data_size '24'"),
    ("a tensor size of exabytes", binary(2**62), 400, "only 24 bytes of the body"),
    (
        "bytes after the tensor",
        binary(SIZE, X.tobytes() + b"more"),
        400,
        "4 bytes follow",
    ),
    ("NaN", _data(b"[NaN, 0, 0, 0, 0, 0]"), 500, "logits for this input are not finite"),
    ("a number beyond floats", _data(b"[1e999, 0, 0, 0, 0, 0]"), 200, '"exit":"final"'),
    (
        "an integer of 5000 digits",
        _data(b"[" + b"9" * 5000 + b", 0, 0, 0, 0, 0]"),
        400,
        "not JSON",
    ),
    (
        "a shape that overflows",
        _shape([2**40, 2**40]),
        400,
        "holds 6 elements",
    ),
    ("a dimension beyond 64 bits", _shape([1, 10**30]), 400, "holds 6 elements"),
    ("a negative dimension", _shape([-1, 6]), 400, "is [-1, 6], expected"),
    ("two negative dimensions", _shape([-1, -6]), 400, "is [-1, -6], expected"),
    ("no rows", post(infer(tensor(shape=[0, 6], data=[]))), 400, "is [0, 6], expected"),
    ("half a dimension", _shape([1.5, 4]), 400, "is [1.5, 4], expected"),
    ("a shape of truth", _shape([True, 6]), 400, "is [True, 6], expected"),
    ("a shape of text", _shape("1,6"), 400, "is '1,6', expected"),
    ("no shape", post(infer(tensor(shape=None))), 400, "is None, expected"),
    ("10,000 dimensions", _shape([1] * 10_000), 400, "at most 32"),
    ("another datatype", post(infer(tensor(datatype="INT32"))), 400, "input 'x' is INT32"),
    (
        "an unknown datatype",
        post(infer(tensor(datatype="FP99"))),
        400,
        "is 'FP99'",
    ),
    ("a datatype of numbers", post(infer(tensor(datatype=32))), 400, "is 32, expected one of"),
    (
        "text for numbers",
        post(infer(tensor(datatype="BYTES", data=["a"] * 6))),
        400,
        "FP32",
    ),
    ("words as numbers", _data(b'["a", "b", 0, 0, 0, 0]'), 400, "holds strings, expected numbers"),
    ("ragged data", _data(b"[[1, 2], [3], [4, 5, 6]]"), 400, "for shape [1, 6]"),
    ("data as an object", _data(b'{"a": 1}'), 400, "expected a list"),
    ("one name twice", post(infer(tensor(), tensor())), 400, "input 'x' is there twice"),
    ("a name that is unknown", post(infer(tensor(name="y"))), 400, "input 'y' is unknown"),
    ("no name", post(infer(tensor(name=None))), 400, "the name of inputs[0]"),
    ("no data", post(infer(tensor(data=None))), 400, "data of input 'x' is None"),
    ("no inputs", post(b'{"id": "a"}'), 400, "'inputs' is None"),
    ("inputs as an object", post(b'{"inputs": {"x": 1}}'), 400, "expected a list"),
    ("a list as the request", post(b"[1, 2]"), 400, "expected a JSON object"),
    ("an id as an object", post(infer(tensor(), id={})), 400, "id is {}"),
    ("outputs of numbers", post(infer(tensor(), outputs=[1])), 400, "outputs[0] is 1"),
    (
        "5,000 outputs",
        post(infer(tensor(), outputs=[{"name": "label"}] * 5000)),
        400,
        "twice",
    ),
    ("parameters as a list", post(infer(tensor(), parameters=[1])), 400, "expected an object"),
    ("nesting without end", post(b"[" * 150_000), 400, "too deeply"),
    (
        "nested data without end",
        _data(b"[" * 50_000 + b"1" + b"]" * 50_000),
        400,
        "too deeply",
    ),
    ("no UTF-8", post(BODY.replace(b'"x"', b'"\xff\xfe"')), 400, "can't decode byte 0xff"),
    ("half a surrogate", post(infer(tensor(), id="\ud800")), 200, '"exit":"final"'),
    ("half a surrogate as a name", post(infer(tensor(name="\udfff"))), 400, "is unknown"),
    (
        "2,000 inputs",
        post(infer(*[tensor(data=[0])] * 2000)),
        400,
        "expected 6",
    ),
    (
        "text that says it is longer",
        binary(8, b"\xff\xff\xff\x7fabcd", datatype="BYTES"),
        400,
        "only 4 follow",
    ),
    ("a gzip bomb", post(BOMB, Content_Encoding="gzip"), 413, "larger than"),
    (
        "damaged gzip",
        post(gzip.compress(BODY)[:-9], Content_Encoding="gzip"),
        400,
        "is cut off",
    ),
    ("no gzip at all", post(BODY, Content_Encoding="gzip"), 400, "is not gzip data"),
    ("an unknown coding", post(BODY, Content_Encoding="zstd"), 415, "is 'zstd', expected gzip"),
    ("two codings", post(BODY, Content_Encoding="gzip, gzip"), 415, "expected gzip"),
    ("a chunk of no size", CHUNKED + b"zz\r\n{}\r\n", 400, WORDS),
    ("a chunk that does not end", CHUNKED + b"ff\r\n{}", 408, "was not complete"),
    ("a chunk of exabytes", CHUNKED + b"7fffffffffffffff\r\n{}", 408, "was not complete"),
    ("an unknown model", post(BODY, URL.replace("one", "two")), 404, "served here are 'one'"),
    ("an unknown version", post(BODY, URL.replace("infer", "versions/9/infer")), 404, "it has 1"),
    (
        "a path out of the tree",
        post(BODY, "/v2/models/../../etc/passwd"),
        404,
        "an endpoint",
    ),
    ("a path with a zero", post(BODY, "/v2/models/%00/infer"), 404, "is unknown"),
    ("a path of half a sequence", post(BODY, "/v2/models/%ff%zz/infer"), 404, "is unknown"),
    ("a wrong method", _get(URL), 405, "Method Not Allowed"),
    ("a method that nobody knows", _get(URL, "BREW"), 400, WORDS),
    ("a path of 100 KB", _get("/" + "a" * 100_000), 431, "65536 bytes"),
    ("a header of 100 KB", _get("/v2", **{"X-Long": "a" * 100_000}), 431, "65536 bytes"),
    (
        "a header that does not end",
        _get("/v2", A="a" * 100_000)[:-4],
        431,
        "65536 bytes",
    ),
    (
        "10,000 headers",
        _get("/v2", **MANY),
        431,
        "65536 bytes",
    ),
    ("a header without a colon", b"GET /v2 HTTP/1.1\r\nHost\r\n\r\n", 400, WORDS),
    ("no HTTP", bytes(range(256)) * 4, 400, WORDS),
    (
        "TLS on a plain port",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        400,
        WORDS,
    ),
    (
        "HTTP/2 on this port",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        400,
        WORDS,
    ),
]
