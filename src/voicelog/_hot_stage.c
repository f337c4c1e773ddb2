/* What a stage does before its event: it is made, entered, given fields, and left. */

#include "_hot_json.h"

#include <math.h>

/* The module's state by the class that a method belongs to; NULL once the module was cleared, at the process's end. */
static const Hot *
hot_of(PyTypeObject *type)
{
    const Hot *hot = PyType_GetModuleState(type);
    return hot != NULL && hot->type != NULL ? hot : NULL;
}

/* Gives an exception that is set to client.fault(), which counts it, or raises it in a user's test. Others go on. */
static Outcome
fault(const Hot *hot, PyObject *client, const char *where)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return FAILED;
    }
#if PY_VERSION_HEX >= 0x030C0000
    PyObject *raised = PyErr_GetRaisedException();
#else
    PyObject *kind, *raised, *traceback;
    PyErr_Fetch(&kind, &raised, &traceback);
    PyErr_NormalizeException(&kind, &raised, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(raised, traceback);
    }
    Py_XDECREF(kind);
    Py_XDECREF(traceback);
#endif
    PyObject *place = PyUnicode_FromString(where);
    PyObject *arguments[] = {client, place, raised};
    Outcome outcome = place != NULL ? called(PyObject_VectorcallMethod(hot->name.fault, arguments, 3, NULL)) : FAILED;
    Py_XDECREF(place);
    Py_DECREF(raised);
    return outcome;
}

/* Calls a method of Stage as it was called here. */
static PyObject *
call_python(PyObject *method, PyObject *stage, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *bound = PyMethod_New(method, stage);
    PyObject *done = bound != NULL ? PyObject_Vectorcall(bound, args, (size_t)count, names) : NULL;
    Py_XDECREF(bound);
    return done;
}

/* Reads the client's clock: monotonic nanoseconds. */
static PyObject *
now_of(const Hot *hot, PyObject *client)
{
    PyObject *clock = Py_XNewRef(at(hot, client, SLOT_client_now_ns));
    PyObject *now = clock != NULL ? PyObject_CallNoArgs(clock) : NULL;
    Py_XDECREF(clock);
    if (clock == NULL) {
        PyErr_SetString(PyExc_AttributeError, "the client has no clock");
    }
    return now;
}

/* ---- made ------------------------------------------------------------------------------------------------------- */

/* Returns the plan of a stage's name as a borrowed reference; NULL where the name is not one as it is. */
static PyObject *
plan_of(const Hot *hot, PyObject *name)
{
    PyObject *plan = PyDict_GetItemWithError(hot->given.plans, name);
    if (plan == NULL && !PyErr_Occurred()) {
        Py_ssize_t length = PyUnicode_GET_LENGTH(name);
        plan = length > 0 && length <= hot->max_name ? hot->given.other : NULL;
    }
    return plan;
}

/* Stage(name, fields, None, True), as voicelog.stage() calls it where all fields are texts that the stage knows. */
static bool
is_plainly_made(PyObject *const *args, Py_ssize_t count, PyObject *kwnames)
{
    return kwnames == NULL && count == 4 && is_text(args[0]) && PyDict_CheckExact(args[1]) && args[2] == Py_None
        && args[3] == Py_True;
}

static PyObject *
made(const Hot *hot, PyObject *name, PyObject *fields, PyObject *plan)
{
    PyObject *stage = hot->type->tp_alloc(hot->type, 0);
    if (stage == NULL) {
        return NULL;
    }
    static const int empty[] = {
        SLOT_stage_span_id, SLOT_stage__client, SLOT_stage__first_ns, SLOT_stage__more, SLOT_stage__session, SLOT_stage__status, SLOT_stage__token, SLOT_stage__turn,
    };
    for (size_t i = 0; i < sizeof(empty) / sizeof(*empty); i++) {
        *place_of(hot, stage, empty[i]) = Py_NewRef(Py_None);
    }
    *place_of(hot, stage, SLOT_stage_name) = Py_NewRef(name);
    *place_of(hot, stage, SLOT_stage__fields) = Py_NewRef(fields);
    *place_of(hot, stage, SLOT_stage__plan) = Py_NewRef(plan);
    return stage;
}

/* Calls a class as one without a vectorcall of its own is called: __new__ and __init__. */
static PyObject *
call_class(PyObject *type, PyObject *const *args, Py_ssize_t count, PyObject *kwnames)
{
    PyObject *stage = NULL, *positional = PyTuple_New(count), *named = kwnames != NULL ? PyDict_New() : NULL;
    if (positional == NULL || (kwnames != NULL && named == NULL)) {
        goto end;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyTuple_SET_ITEM(positional, i, Py_NewRef(args[i]));
    }
    for (Py_ssize_t i = 0; kwnames != NULL && i < PyTuple_GET_SIZE(kwnames); i++) {
        if (PyDict_SetItem(named, PyTuple_GET_ITEM(kwnames, i), args[count + i]) < 0) {
            goto end;
        }
    }
    stage = PyType_Type.tp_call(type, positional, named);
end:
    Py_XDECREF(positional);
    Py_XDECREF(named);
    return stage;
}

PyObject *
hot_stage_new(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    Py_ssize_t count = PyVectorcall_NARGS(nargsf);
    const Hot *hot = hot_of((PyTypeObject *)type);
    if (hot != NULL && is_plainly_made(args, count, kwnames)) {
        PyObject *plan = plan_of(hot, args[0]);
        if (plan != NULL) {
            return made(hot, args[0], args[1], plan);
        }
        if (PyErr_Occurred()) {
            return NULL;
        }
    }
    return call_class(type, args, count, kwnames);
}

/* ---- given fields ------------------------------------------------------------------------------------------------ */

/* Returns whether a value is taken as it is for a field of this type: what Stage.set() takes over without a change. */
static bool
fits(PyObject *kind, PyObject *value)
{
    int64_t number;
    if (kind == (PyObject *)&PyUnicode_Type) {
        return PyUnicode_CheckExact(value);
    }
    if (kind == (PyObject *)&PyFloat_Type) {
        return PyFloat_CheckExact(value) && isfinite(PyFloat_AS_DOUBLE(value));
    }
    if (kind == (PyObject *)&PyLong_Type) {
        return read_int(value, &number) && number >= 0;
    }
    return kind == (PyObject *)&PyBool_Type && PyBool_Check(value);
}

/* Sets one field as Stage.set(name=value) does, by which it is done where the value does not fit as it is. */
static Outcome
set_field(const Hot *hot, PyObject *stage, PyObject *known, PyObject *mine, PyObject *const *value, PyObject *name)
{
    PyObject *kind = is_text(name) ? PyDict_GetItemWithError(known, name) : NULL;
    if (kind != NULL && fits(kind, *value)) {
        return PyDict_SetItem(mine, name, *value) == 0 ? DONE : FAILED;
    }
    PyObject *names = PyErr_Occurred() ? NULL : PyTuple_Pack(1, name);
    if (names == NULL) {
        return FAILED;
    }
    PyObject *arguments[] = {stage, *value};
    Outcome outcome = called(PyObject_Vectorcall(hot->set, arguments, 1, names));
    Py_DECREF(names);
    return outcome;
}

static Outcome
set_fields(const Hot *hot, PyObject *stage, PyObject *const *values, PyObject *names)
{
    PyObject *mine = at(hot, stage, SLOT_stage__fields), *plan = at(hot, stage, SLOT_stage__plan);
    PyObject *known = is_a(hot, plan, CLASS_plan) ? at(hot, plan, SLOT_plan_known) : NULL;
    if (mine == NULL || !PyDict_CheckExact(mine) || known == NULL || !PyDict_CheckExact(known)) {
        return UNCOMMON;
    }
    Outcome outcome = DONE;
    Py_INCREF(mine);
    Py_INCREF(known);
    for (Py_ssize_t i = 0; outcome == DONE && i < PyTuple_GET_SIZE(names); i++) {
        outcome = set_field(hot, stage, known, mine, values + i, PyTuple_GET_ITEM(names, i));
    }
    Py_DECREF(mine);
    Py_DECREF(known);
    return outcome;
}

static PyObject *
stage_set(PyObject *stage, PyTypeObject *type, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    const Hot *hot = hot_of(type);
    if (hot == NULL || (count == 0 && names == NULL)) {
        Py_RETURN_NONE;
    }
    Outcome outcome = count == 0 ? set_fields(hot, stage, args, names) : UNCOMMON;
    if (outcome == UNCOMMON) { /* with arguments by position it raises TypeError */
        return call_python(hot->set, stage, args, count, names);
    }
    return outcome == DONE ? Py_NewRef(Py_None) : NULL;
}

/* ---- entered ----------------------------------------------------------------------------------------------------- */

/* Where a stage that is entered belongs, as references of its own. */
typedef struct {
    PyObject *session, *turn, *stream, *parent, *fields, *mark;
} Place;

static void
leave_place(const Place *place)
{
    Py_XDECREF(place->session);
    Py_XDECREF(place->turn);
    Py_XDECREF(place->stream);
    Py_XDECREF(place->parent);
    Py_XDECREF(place->fields);
    Py_XDECREF(place->mark);
}

/* Reads the session of this context and its turn; false without one that is open, or with OpenTelemetry's spans. */
static bool
find_session(const Hot *hot, Place *place)
{
    if (!is_a(hot, place->session, CLASS_session)) {
        return false;
    }
    place->turn = Py_XNewRef(at(hot, place->session, SLOT_session_current_turn));
    place->stream = Py_XNewRef(at(hot, place->session, SLOT_session_stream));
    return place->turn != NULL && (place->turn == Py_None || is_a(hot, place->turn, CLASS_turn))
        && is_a(hot, place->stream, CLASS_stream) && is_text(at(hot, place->stream, SLOT_stream_span_prefix))
        && at(hot, place->session, SLOT_session_spans) == Py_None;
}

/* Reads where the stage belongs, and whether it can be begun there in the common way. */
static Outcome
find_place(const Hot *hot, PyObject *stage, Place *place)
{
    if (PyContextVar_Get(hot->given.session_var, NULL, &place->session) < 0
        || PyContextVar_Get(hot->given.stage_var, NULL, &place->parent) < 0) {
        return FAILED;
    }
    PyObject *plan = at(hot, stage, SLOT_stage__plan);
    if (!find_session(hot, place) || !is_a(hot, plan, CLASS_plan)) {
        return UNCOMMON;
    }
    place->mark = Py_XNewRef(at(hot, plan, SLOT_plan_start_mark));
    place->fields = Py_XNewRef(at(hot, stage, SLOT_stage__fields));
    bool is_common = place->mark != NULL && place->fields != NULL && PyDict_CheckExact(place->fields)
        && (place->parent == Py_None || is_a(hot, place->parent, CLASS_stage));
    return is_common ? DONE : UNCOMMON;
}

/* Returns whether a stage was not entered before, and has a name. */
static bool
is_fresh(const Hot *hot, PyObject *stage)
{
    PyObject *name = at(hot, stage, SLOT_stage_name);
    return at(hot, stage, SLOT_stage__more) == Py_None && at(hot, stage, SLOT_stage__client) == Py_None
        && at(hot, stage, SLOT_stage_span_id) == Py_None && is_text(name) && PyUnicode_GET_LENGTH(name) > 0;
}

/* Names the stage around it. */
static Outcome
put_parent(const Hot *hot, const Place *place)
{
    if (place->parent == Py_None || at(hot, place->parent, SLOT_stage__session) != place->session) {
        return DONE;
    }
    PyObject *id = Py_XNewRef(at(hot, place->parent, SLOT_stage_span_id));
    int failed = id != NULL ? PyDict_SetItem(place->fields, hot->name.parent_id, id) : 0;
    Py_XDECREF(id);
    return failed ? FAILED : DONE;
}

static PyObject *
span_id_of(PyObject *prefix, PyObject *number)
{
    int64_t count;
    Py_ssize_t size;
    const char *bytes = PyUnicode_AsUTF8AndSize(prefix, &size);
    if (bytes == NULL || !read_int(number, &count)) {
        return bytes != NULL ? PyUnicode_FromFormat("%U%S", prefix, number) : NULL;
    }
    Buffer buffer;
    buffer_begin(&buffer);
    PyObject *id = NULL;
    if (put_bytes(&buffer, bytes, (size_t)size) == DONE && put_int(&buffer, count) == DONE) {
        id = PyUnicode_FromStringAndSize(buffer.data, (Py_ssize_t)buffer.used);
    }
    buffer_end(&buffer);
    return id;
}

/* Counts the stage's span_id: the stream's prefix and a number. */
static Outcome
put_span_id(const Hot *hot, PyObject *stage, const Place *place)
{
    PyObject *prefix = Py_XNewRef(at(hot, place->stream, SLOT_stream_span_prefix)), *id = NULL;
    PyObject *next = Py_XNewRef(at(hot, place->stream, SLOT_stream_next_span));
    PyObject *number = next != NULL ? PyObject_CallNoArgs(next) : NULL;
    if (number != NULL && prefix != NULL) {
        id = span_id_of(prefix, number);
    }
    else if (number != NULL || next == NULL) {
        PyErr_SetString(PyExc_AttributeError, "the stream counts no spans");
    }
    Py_XDECREF(prefix);
    Py_XDECREF(next);
    Py_XDECREF(number);
    if (id == NULL) {
        return FAILED;
    }
    put(hot, stage, SLOT_stage_span_id, id);
    return DONE;
}

/* Puts the stage into the table of open ones, for the watcher. */
static Outcome
watch(const Hot *hot, PyObject *stage, PyObject *client)
{
    PyObject *watcher = at(hot, client, SLOT_client_watcher);
    if (!is_a(hot, watcher, CLASS_watcher)) {
        return DONE;
    }
    PyObject *open = Py_XNewRef(at(hot, watcher, SLOT_watcher_open));
    int failed = open != NULL && PyDict_CheckExact(open) ? PyDict_SetItem(open, stage, Py_None) : 0;
    Py_XDECREF(open);
    return failed ? FAILED : DONE;
}

/* Sets the turn's mark of a request, as an llm stage does. */
static Outcome
tell_mark(const Hot *hot, const Place *place, PyObject *now)
{
    if (place->mark == Py_None || place->turn == Py_None) {
        return DONE;
    }
    PyObject *arguments[] = {place->turn, place->mark, now};
    return called(PyObject_VectorcallMethod(hot->name.stage_mark, arguments, 3, NULL));
}

/* Starts the stage at its place: the lasting steps of Stage._begin, in that order. */
static Outcome
begin_at(const Hot *hot, PyObject *stage, PyObject *client, const Place *place)
{
    TRY(put_parent(hot, place));
    TRY(put_span_id(hot, stage, place));
    put(hot, stage, SLOT_stage__session, Py_NewRef(place->session));
    put(hot, stage, SLOT_stage__turn, Py_NewRef(place->turn));
    put(hot, stage, SLOT_stage__client, Py_NewRef(client));
    PyObject *now = now_of(hot, client);
    if (now == NULL) {
        return FAILED;
    }
    put(hot, stage, SLOT_stage__start_ns, Py_NewRef(now));
    Outcome outcome = watch(hot, stage, client);
    outcome = outcome == DONE ? tell_mark(hot, place, now) : outcome;
    Py_DECREF(now);
    return outcome;
}

static Outcome
begin(const Hot *hot, PyObject *stage, PyObject *client)
{
    if (!is_a(hot, client, CLASS_client) || !is_fresh(hot, stage)) {
        return UNCOMMON;
    }
    Place place = {0};
    Outcome outcome = find_place(hot, stage, &place);
    if (outcome == DONE && begin_at(hot, stage, client, &place) != DONE) {
        outcome = FAILED;
    }
    leave_place(&place);
    return outcome;
}

/* Makes the stage the current one of this context. */
static Outcome
become_current(const Hot *hot, PyObject *stage)
{
    PyObject *token = PyContextVar_Set(hot->given.stage_var, stage);
    if (token == NULL) {
        return FAILED;
    }
    put(hot, stage, SLOT_stage__token, token);
    return DONE;
}

static Outcome
enter(const Hot *hot, PyObject *stage)
{
    PyObject *client;
    if (at(hot, stage, SLOT_stage__token) != Py_None) {
        return UNCOMMON;
    }
    client = PyObject_GetAttr(hot->given.process, hot->name.current);
    if (client == NULL) {
        return FAILED;
    }
    Outcome outcome = client != Py_None ? begin(hot, stage, client) : DONE;
    if (outcome == FAILED) {
        outcome = fault(hot, client, "stage.begin");
    }
    if (outcome == DONE && client != Py_None) {
        outcome = become_current(hot, stage);
    }
    Py_DECREF(client);
    return outcome;
}

static PyObject *
stage_enter(PyObject *stage, PyTypeObject *type, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    const Hot *hot = hot_of(type);
    if (hot == NULL) {
        return Py_NewRef(stage);
    }
    Outcome outcome = count == 0 && names == NULL ? enter(hot, stage) : UNCOMMON;
    if (outcome == UNCOMMON) {
        return call_python(hot->enter, stage, args, count, names);
    }
    return outcome == DONE ? Py_NewRef(stage) : NULL;
}

/* ---- left -------------------------------------------------------------------------------------------------------- */

/* Makes the stage before this one the current one again, also where it is left in another context than entered in. */
static Outcome
leave_context(const Hot *hot, PyObject *stage, PyObject *token)
{
    if (PyContextVar_Reset(hot->given.stage_var, token) == 0) {
        return DONE;
    }
    if (!PyErr_ExceptionMatches(PyExc_ValueError)) {
        return FAILED;
    }
    PyErr_Clear();
    PyObject *arguments[] = {hot->given.stage_var, token, stage};
    return called(PyObject_Vectorcall(hot->given.leave_elsewhere, arguments, 3, NULL));
}

/* Emits the event; by Stage._finish where it is not a common one. What goes wrong is client.fault()'s. */
static Outcome
finish(const Hot *hot, PyObject *stage, PyObject *client, PyObject *ended)
{
    Outcome outcome = hot_finish(hot, stage, client, ended);
    if (outcome == UNCOMMON) {
        PyObject *arguments[] = {stage, client, Py_None, ended};
        outcome = called(PyObject_VectorcallMethod(hot->name._finish, arguments, 4, NULL));
    }
    return outcome == DONE ? DONE : fault(hot, client, "stage.finish");
}

/* Leaves an open stage: the steps of Stage.__exit__, in that order. */
static Outcome
leave_open(const Hot *hot, PyObject *stage, PyObject *client, PyObject *token)
{
    PyObject *ended = now_of(hot, client);
    if (ended == NULL) {
        return FAILED;
    }
    put(hot, stage, SLOT_stage__token, Py_NewRef(Py_None));
    Outcome outcome = leave_context(hot, stage, token);
    if (outcome == DONE) {
        put(hot, stage, SLOT_stage__client, Py_NewRef(Py_None));
        outcome = finish(hot, stage, client, ended);
    }
    Py_DECREF(ended);
    return outcome;
}

static Outcome
leave(const Hot *hot, PyObject *stage, PyObject *exc)
{
    PyObject *client = at(hot, stage, SLOT_stage__client), *token = at(hot, stage, SLOT_stage__token);
    if (token == Py_None) {
        return DONE;
    }
    if (exc != Py_None || !is_a(hot, client, CLASS_client) || token == NULL || at(hot, stage, SLOT_stage__more) != Py_None) {
        return UNCOMMON;
    }
    Py_INCREF(client);
    Py_INCREF(token);
    Outcome outcome = leave_open(hot, stage, client, token);
    Py_DECREF(token);
    Py_DECREF(client);
    return outcome;
}

static PyObject *
stage_exit(PyObject *stage, PyTypeObject *type, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    const Hot *hot = hot_of(type);
    if (hot == NULL) {
        Py_RETURN_NONE;
    }
    Outcome outcome = count == 3 && names == NULL ? leave(hot, stage, args[1]) : UNCOMMON;
    if (outcome == UNCOMMON) {
        return call_python(hot->leave, stage, args, count, names);
    }
    return outcome == DONE ? Py_NewRef(Py_None) : NULL;
}

#define METHOD(function) (PyCFunction)(void (*)(void))(function), METH_METHOD | METH_FASTCALL | METH_KEYWORDS

PyMethodDef hot_stage_methods[] = {
    {"set", METHOD(stage_set), "set($self, /, **fields)\n--\n\nDo what Stage.set does."},
    {"__enter__", METHOD(stage_enter), "__enter__($self, /)\n--\n\nDo what Stage.__enter__ does."},
    {"__exit__", METHOD(stage_exit), "__exit__($self, kind, exc, tb, /)\n--\n\nDo what Stage.__exit__ does."},
    {NULL, NULL, 0, NULL},
};
