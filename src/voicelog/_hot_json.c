#include "_hot_json.h"

#include <math.h>

void
buffer_begin(Buffer *buffer)
{
    buffer->data = buffer->first;
    buffer->used = 0;
    buffer->room = sizeof(buffer->first);
}

void
buffer_end(Buffer *buffer)
{
    if (buffer->data != buffer->first) {
        PyMem_Free(buffer->data);
    }
}

Outcome
buffer_grow(Buffer *buffer, size_t count)
{
    if (count > (size_t)PY_SSIZE_T_MAX / 2 - buffer->used) {
        PyErr_NoMemory();
        return FAILED;
    }
    size_t room = (buffer->used + count) * 2;
    bool is_first = buffer->data == buffer->first;
    char *data = is_first ? PyMem_Malloc(room) : PyMem_Realloc(buffer->data, room);
    if (data == NULL) {
        PyErr_NoMemory();
        return FAILED;
    }
    if (is_first) {
        memcpy(data, buffer->first, buffer->used);
    }
    buffer->data = data;
    buffer->room = room;
    return DONE;
}

/* Writes a number's digits before `end`, at least `least` of them; returns where they begin. */
static char *
digits(char *end, uint64_t number, int least)
{
    for (; number != 0 || least > 0; number /= 10, least--) {
        *--end = (char)('0' + number % 10);
    }
    return end;
}

/* A number without its sign, also of the smallest one, which has no positive counterpart. */
static uint64_t
magnitude(int64_t number)
{
    return number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
}

Outcome
put_int(Buffer *buffer, int64_t number)
{
    char written[24], *end = written + sizeof(written), *begin = digits(end, magnitude(number), 1);
    if (number < 0) {
        *--begin = '-';
    }
    return put_bytes(buffer, begin, (size_t)(end - begin));
}

Outcome
put_ms(Buffer *buffer, int64_t ns)
{
    char written[32], *end = written + sizeof(written);
    uint64_t left = magnitude(ns);
    char *begin = digits(end, left % 1000000, 6);
    *--begin = '.';
    begin = digits(begin, left / 1000000, 1);
    if (ns < 0) {
        *--begin = '-';
    }
    while (end[-1] == '0' && end[-2] != '.') {
        end--;
    }
    return put_bytes(buffer, begin, (size_t)(end - begin));
}

static const char HEX[] = "0123456789abcdef";

static inline bool
is_plain(unsigned char byte)
{
    return byte >= 0x20 && byte != '"' && byte != '\\';
}

#define EACH_BYTE(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Sets the high bit of some byte where one of eight bytes is 0, and of none otherwise. */
static inline uint64_t
zeros(uint64_t bytes)
{
    return (bytes - EACH_BYTE(0x01)) & ~bytes & EACH_BYTE(0x80);
}

/* Returns how many bytes from the first on need no escape. */
static size_t
plain_run(const char *bytes, size_t size)
{
    size_t i = 0;
    for (uint64_t eight; i + sizeof(eight) <= size; i += sizeof(eight)) {
        memcpy(&eight, bytes + i, sizeof(eight));
        uint64_t controls = (eight - EACH_BYTE(0x20)) & ~eight & EACH_BYTE(0x80);
        if (controls | zeros(eight ^ EACH_BYTE('"')) | zeros(eight ^ EACH_BYTE('\\'))) {
            break;
        }
    }
    while (i < size && is_plain((unsigned char)bytes[i])) {
        i++;
    }
    return i;
}

static Outcome
put_escaped(Buffer *buffer, unsigned char byte)
{
    switch (byte) {
    case '"': return put_literal(buffer, "\\\"");
    case '\\': return put_literal(buffer, "\\\\");
    case '\n': return put_literal(buffer, "\\n");
    case '\r': return put_literal(buffer, "\\r");
    case '\t': return put_literal(buffer, "\\t");
    default: break;
    }
    char escaped[] = {'\\', 'u', '0', '0', HEX[byte >> 4], HEX[byte & 15]};
    return put_bytes(buffer, escaped, sizeof(escaped));
}

/* Returns a text's UTF-8 without copying it; NULL for lone surrogates, or with an exception set. */
static const char *
utf8_of(PyObject *text, size_t *size)
{
    Py_ssize_t count = 0;
    const char *bytes = PyUnicode_AsUTF8AndSize(text, &count);
    if (bytes == NULL && PyErr_ExceptionMatches(PyExc_UnicodeError)) {
        PyErr_Clear();
    }
    *size = (size_t)count;
    return bytes;
}

Outcome
put_text(Buffer *buffer, PyObject *text)
{
    size_t size = 0;
    const char *bytes = is_text(text) ? utf8_of(text, &size) : NULL;
    if (bytes == NULL) {
        return PyErr_Occurred() ? FAILED : UNCOMMON;
    }
    TRY(reserve(buffer, size + 2));
    buffer->data[buffer->used++] = '"';
    while (true) {
        size_t run = plain_run(bytes, size);
        TRY(put_bytes(buffer, bytes, run));
        if (run == size) {
            return put_literal(buffer, "\"");
        }
        TRY(put_escaped(buffer, (unsigned char)bytes[run]));
        bytes += run + 1;
        size -= run + 1;
    }
}

static Outcome
put_float(Buffer *buffer, double number)
{
    if (!isfinite(number)) {
        return UNCOMMON;
    }
    /* Most have few decimals. The nearest double of a number of millionths, divided, is the number itself then. */
    double millionths = rint(number * 1e6);
    if (fabs(millionths) < (double)MAX_NS && millionths != 0 && millionths / 1e6 == number) {
        return put_ms(buffer, (int64_t)millionths);
    }
    char *written = PyOS_double_to_string(number, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
    if (written == NULL) {
        return FAILED;
    }
    Outcome outcome = put_bytes(buffer, written, strlen(written));
    PyMem_Free(written);
    return outcome;
}

/* Puts what closes a container in the place of the comma after its last item, or after what opened it. */
static Outcome
close_with(Buffer *buffer, const char *closing)
{
    if (buffer->data[buffer->used - 1] == ',') {
        buffer->used--;
    }
    return put_bytes(buffer, closing, 1);
}

static Outcome
put_dict(Buffer *buffer, PyObject *dict, int depth)
{
    PyObject *name, *value;
    Py_ssize_t place = 0;
    Outcome outcome = put_literal(buffer, "{");
    while (outcome == DONE && PyDict_Next(dict, &place, &name, &value)) {
        outcome = put_text(buffer, name);
        outcome = outcome == DONE ? put_literal(buffer, ":") : outcome;
        outcome = outcome == DONE ? put_value(buffer, value, depth + 1) : outcome;
        outcome = outcome == DONE ? put_literal(buffer, ",") : outcome;
    }
    return outcome == DONE ? close_with(buffer, "}") : outcome;
}

static Outcome
put_list(Buffer *buffer, PyObject *list, int depth)
{
    Outcome outcome = put_literal(buffer, "[");
    for (Py_ssize_t at = 0; outcome == DONE && at < PyList_GET_SIZE(list); at++) {
        outcome = put_value(buffer, PyList_GET_ITEM(list, at), depth + 1);
        outcome = outcome == DONE ? put_literal(buffer, ",") : outcome;
    }
    return outcome == DONE ? close_with(buffer, "]") : outcome;
}

Outcome
put_value(Buffer *buffer, PyObject *value, int depth)
{
    int64_t number;
    if (PyUnicode_CheckExact(value)) {
        return put_text(buffer, value);
    }
    if (PyFloat_CheckExact(value)) {
        return put_float(buffer, PyFloat_AS_DOUBLE(value));
    }
    if (PyLong_CheckExact(value)) {
        return read_int(value, &number) ? put_int(buffer, number) : UNCOMMON;
    }
    if (value == Py_None) {
        return put_literal(buffer, "null");
    }
    if (PyBool_Check(value)) {
        return value == Py_True ? put_literal(buffer, "true") : put_literal(buffer, "false");
    }
    if (depth >= MAX_DEPTH) {
        return UNCOMMON;
    }
    if (PyDict_CheckExact(value)) {
        return put_dict(buffer, value, depth);
    }
    return PyList_CheckExact(value) ? put_list(buffer, value, depth) : UNCOMMON;
}
