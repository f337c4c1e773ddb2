/* What the files of voicelog._hot share. _hot.c says what the module is. */

#ifndef VOICELOG_HOT_H
#define VOICELOG_HOT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

/* How a step ended. UNCOMMON is no error: nothing has happened, no exception is set, and the Python code does it. */
typedef enum { DONE, UNCOMMON, FAILED } Outcome;

/* The classes whose slots C reads, by the names that bind() takes them by, and those slots. Slots of a stage it also
 * writes; all others it only reads. */
#define HOT_CLASSES(X) X(stage) X(client) X(session) X(turn) X(stream) X(anchor) X(plan) X(watcher)
#define HOT_SLOTS(X)                                                                                                   \
    X(stage, name) X(stage, span_id) X(stage, _client) X(stage, _fields) X(stage, _first_ns) X(stage, _more)           \
    X(stage, _plan) X(stage, _session) X(stage, _start_ns) X(stage, _status) X(stage, _token) X(stage, _turn)          \
    X(client, closed) X(client, count_produced) X(client, left_out_of) X(client, looks_within) X(client, max_bytes)    \
    X(client, now_ns) X(client, prices) X(client, producer) X(client, watcher)                                         \
    X(session, current_turn) X(session, inherited_turn_id) X(session, spans) X(session, stream) X(session, traced)     \
    X(turn, id) X(turn, runs)                                                                                          \
    X(stream, anchor) X(stream, heads) X(stream, hold) X(stream, key) X(stream, next_seq) X(stream, next_span)         \
    X(stream, span_prefix) X(stream, stream_id)                                                                        \
    X(anchor, mono_ns) X(anchor, wall_us)                                                                              \
    X(plan, kind) X(plan, known) X(plan, start_mark) X(plan, tell)                                                     \
    X(watcher, open)

/* The methods, keys and values that C calls and compares by name. */
#define HOT_NAMES(X)                                                                                                   \
    X(_cut) X(_finish) X(add) X(attributes) X(counters) X(current) X(dropped) X(fault) X(head) X(ok) X(parent_id)      \
    X(produce) X(stage_mark)

/* What C is given by voicelog.hot beside the classes, under these names. */
#define HOT_GIVEN(X) X(plans) X(other) X(topics) X(process) X(session_var) X(stage_var) X(leave_elsewhere)

#define AS_CLASS(name) CLASS_##name,
#define AS_SLOT(owner, name) SLOT_##owner##_##name,
#define AS_MEMBER(name) PyObject *name;
enum { HOT_CLASSES(AS_CLASS) CLASSES };
enum { HOT_SLOTS(AS_SLOT) SLOTS };

typedef struct {
    PyTypeObject *type;            /* the accelerated class; NULL before bind() and after the module was cleared */
    PyTypeObject *classes[CLASSES]; /* the first is voicelog.stage.Stage, its base, and the reference for what it does */
    Py_ssize_t offset[SLOTS];
    Py_ssize_t max_runs, max_name; /* turn.MAX_STAGES, given.MAX_NAME_CHARS */
    PyObject *set, *enter, *leave; /* Stage's set, __enter__ and __exit__ */
    struct { HOT_GIVEN(AS_MEMBER) } given;
    struct { HOT_NAMES(AS_MEMBER) } name;
} Hot;

/* The place of a slot in an object of the class that has it: a reference of the object's own, or NULL. */
static inline PyObject **
place_of(const Hot *hot, PyObject *object, int which)
{
    return (PyObject **)((char *)object + hot->offset[which]);
}

/* What is in a slot, as a borrowed reference. */
static inline PyObject *
at(const Hot *hot, PyObject *object, int which)
{
    return *place_of(hot, object, which);
}

/* Puts a new reference into a slot, which lets go of the one it had. May run any code, at its end. */
static inline void
put(const Hot *hot, PyObject *object, int which, PyObject *value)
{
    PyObject **place = place_of(hot, object, which), *before = *place;
    *place = value;
    Py_XDECREF(before);
}

/* Returns whether an object is of a class, so that its slots can be read. */
static inline bool
is_a(const Hot *hot, PyObject *object, int which)
{
    return object != NULL && PyObject_TypeCheck(object, hot->classes[which]);
}

/* Returns whether a value is a text, and not of a subclass. */
static inline bool
is_text(PyObject *value)
{
    return value != NULL && PyUnicode_CheckExact(value);
}

/* Reads an int of Python's that fits; false, without an exception, for anything else. Runs no code. */
static inline bool
read_int(PyObject *value, int64_t *found)
{
    int overflow = 0;
    if (value == NULL || !PyLong_CheckExact(value)) {
        return false;
    }
    *found = PyLong_AsLongLongAndOverflow(value, &overflow);
    return overflow == 0;
}

#define TRY(step)                                                                                                      \
    do {                                                                                                               \
        Outcome outcome_ = (step);                                                                                     \
        if (outcome_ != DONE) {                                                                                        \
            return outcome_;                                                                                           \
        }                                                                                                              \
    } while (0)

/* Takes what a call returned that is not needed. */
static inline Outcome
called(PyObject *result)
{
    Py_XDECREF(result);
    return result != NULL ? DONE : FAILED;
}

/* _hot_stage.c */
extern PyMethodDef hot_stage_methods[];
PyObject *hot_stage_new(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames);

/* _hot_event.c */
Outcome hot_finish(const Hot *hot, PyObject *stage, PyObject *client, PyObject *ended);

#endif
