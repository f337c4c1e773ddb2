/* JSON, written into one buffer that grows. Runs no Python code, so that what is written can't change meanwhile. */

#ifndef VOICELOG_HOT_JSON_H
#define VOICELOG_HOT_JSON_H

#include "_hot.h"

#include <string.h>

/* Begins on the stack; what an event seldom needs is allocated. */
typedef struct {
    char *data;
    size_t used, room;
    char first[2048];
} Buffer;

void buffer_begin(Buffer *buffer);
void buffer_end(Buffer *buffer);

/* Each returns DONE, or FAILED with MemoryError set. */
Outcome buffer_grow(Buffer *buffer, size_t count);

/* Makes room for `count` more bytes. */
static inline Outcome
reserve(Buffer *buffer, size_t count)
{
    return count <= buffer->room - buffer->used ? DONE : buffer_grow(buffer, count);
}

static inline Outcome
put_bytes(Buffer *buffer, const char *bytes, size_t count)
{
    if (reserve(buffer, count) != DONE) {
        return FAILED;
    }
    memcpy(buffer->data + buffer->used, bytes, count);
    buffer->used += count;
    return DONE;
}

Outcome put_int(Buffer *buffer, int64_t number);
/* Nanoseconds as milliseconds: the decimal fraction that Python's `ns / 1e6` is the nearest double of. */
Outcome put_ms(Buffer *buffer, int64_t ns);

#define put_literal(buffer, text) put_bytes(buffer, text, sizeof(text) - 1)

/* Each returns UNCOMMON too, for what JSON can't say as it is, or another encoder has rules for. */
Outcome put_text(Buffer *buffer, PyObject *text);
Outcome put_value(Buffer *buffer, PyObject *value, int depth);

/* How deep the containers of a value may lie in each other. */
#define MAX_DEPTH 8
/* put_ms takes less than this, either way: a double has each such number exactly. */
#define MAX_NS (INT64_C(1) << 53)

#endif
