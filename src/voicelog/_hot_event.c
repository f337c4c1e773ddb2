/* The event of a stage that ended: what Stage._finish and Client.emit do in the common case. */

#include "_hot_json.h"

/* What an event is made of: references of its own, since Python code that runs meanwhile may change what they are in. */
typedef struct {
    PyObject *client, *stream, *runs, *open, *fields, *name, *status, *first, *start, *ended, *tell, *topic, *key, *head;
    PyObject *session, *turn, *plan, *kind; /* these four are borrowed, and read before any code runs */
    int64_t start_ns, first_ns, ended_ns, anchor_ns, anchor_us, max_bytes;
} Event;

static void
hold(const Event *event)
{
    Py_INCREF(event->client);
    Py_INCREF(event->stream);
    Py_XINCREF(event->runs);
    Py_XINCREF(event->open);
    Py_INCREF(event->fields);
    Py_INCREF(event->name);
    Py_INCREF(event->status);
    Py_INCREF(event->first);
    Py_INCREF(event->start);
    Py_INCREF(event->ended);
    Py_INCREF(event->tell);
    Py_INCREF(event->topic);
    Py_INCREF(event->key);
}

static void
let_go(const Event *event)
{
    Py_DECREF(event->client);
    Py_DECREF(event->stream);
    Py_XDECREF(event->runs);
    Py_XDECREF(event->open);
    Py_DECREF(event->fields);
    Py_DECREF(event->name);
    Py_DECREF(event->status);
    Py_DECREF(event->first);
    Py_DECREF(event->start);
    Py_DECREF(event->ended);
    Py_DECREF(event->tell);
    Py_DECREF(event->topic);
    Py_DECREF(event->key);
}

/* ---- decided: nothing here runs code, changes anything, or holds a reference ---------------------------------------- */

static bool
is_near(int64_t from, int64_t to)
{
    int64_t apart;
    return !__builtin_sub_overflow(to, from, &apart) && apart > -MAX_NS && apart < MAX_NS;
}

/* Reads the stage's own times. */
static bool
read_times(Event *event)
{
    bool is_common = read_int(event->start, &event->start_ns) && read_int(event->ended, &event->ended_ns)
        && is_near(event->start_ns, event->ended_ns);
    if (event->first == NULL || event->first == Py_None) {
        return is_common && event->first != NULL;
    }
    return is_common && read_int(event->first, &event->first_ns) && is_near(event->start_ns, event->first_ns);
}

/* Reads what the stage itself says. */
static bool
read_stage(const Hot *hot, PyObject *stage, Event *event)
{
    event->fields = at(hot, stage, SLOT_stage__fields);
    event->name = at(hot, stage, SLOT_stage_name);
    event->session = at(hot, stage, SLOT_stage__session);
    event->turn = at(hot, stage, SLOT_stage__turn);
    event->plan = at(hot, stage, SLOT_stage__plan);
    event->start = at(hot, stage, SLOT_stage__start_ns);
    event->first = at(hot, stage, SLOT_stage__first_ns);
    event->status = at(hot, stage, SLOT_stage__status);
    if (event->status == Py_None) {
        event->status = hot->name.ok;
    }
    return at(hot, stage, SLOT_stage__more) == Py_None && event->fields != NULL && PyDict_CheckExact(event->fields)
        && is_text(event->name) && is_text(event->status) && is_a(hot, event->session, CLASS_session)
        && event->turn != NULL && is_a(hot, event->plan, CLASS_plan) && read_times(event);
}

/* Reads what the client and the session say: whether they want more than the common of an event. */
static bool
read_call(const Hot *hot, Event *event)
{
    event->stream = at(hot, event->session, SLOT_session_stream);
    return at(hot, event->client, SLOT_client_closed) == Py_False
        && at(hot, event->client, SLOT_client_prices) == Py_None
        && at(hot, event->client, SLOT_client_looks_within) == Py_False
        && read_int(at(hot, event->client, SLOT_client_max_bytes), &event->max_bytes)
        && at(hot, event->session, SLOT_session_traced) == Py_False && is_a(hot, event->stream, CLASS_stream)
        && at(hot, event->stream, SLOT_stream_hold) == Py_None;
}

/* Reads both clocks' moment from which the stream's events are dated. */
static bool
read_anchor(const Hot *hot, Event *event)
{
    int64_t ns;
    PyObject *anchor = at(hot, event->stream, SLOT_stream_anchor);
    return is_a(hot, anchor, CLASS_anchor) && read_int(at(hot, anchor, SLOT_anchor_mono_ns), &event->anchor_ns)
        && read_int(at(hot, anchor, SLOT_anchor_wall_us), &event->anchor_us)
        && !__builtin_sub_overflow(event->start_ns, event->anchor_ns, &ns) && is_near(0, event->anchor_us);
}

/* Reads the table of open stages, where the client has a watcher. */
static bool
read_watcher(const Hot *hot, Event *event)
{
    PyObject *watcher = at(hot, event->client, SLOT_client_watcher);
    if (watcher == Py_None) {
        return true;
    }
    event->open = is_a(hot, watcher, CLASS_watcher) ? at(hot, watcher, SLOT_watcher_open) : NULL;
    return event->open != NULL && PyDict_CheckExact(event->open);
}

/* Reads what the turn is told, and whether it takes it. */
static bool
read_turn(const Hot *hot, Event *event)
{
    event->tell = at(hot, event->plan, SLOT_plan_tell);
    if (event->turn == Py_None) {
        return event->tell != NULL;
    }
    event->runs = is_a(hot, event->turn, CLASS_turn) ? at(hot, event->turn, SLOT_turn_runs) : NULL;
    return event->tell != NULL && event->runs != NULL && PyList_CheckExact(event->runs)
        && is_text(at(hot, event->turn, SLOT_turn_id));
}

/* Returns whether nothing was given that is not sent, or not as it is. */
static bool
is_sent_whole(const Hot *hot, const Event *event)
{
    PyObject *left_out_of = at(hot, event->client, SLOT_client_left_out_of);
    if (left_out_of == NULL || !PyDict_CheckExact(left_out_of)) {
        return false;
    }
    PyObject *left_out = PyDict_GetItemWithError(left_out_of, event->kind);
    if (left_out == NULL || !PyTuple_CheckExact(left_out) || PyDict_Contains(event->fields, hot->name.attributes)) {
        return false;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(left_out); i++) {
        if (PyDict_Contains(event->fields, PyTuple_GET_ITEM(left_out, i))) {
            return false;
        }
    }
    return true;
}

static bool
read_event(const Hot *hot, PyObject *stage, Event *event)
{
    if (!is_a(hot, event->client, CLASS_client) || !read_stage(hot, stage, event) || !read_call(hot, event)) {
        return false;
    }
    event->kind = at(hot, event->plan, SLOT_plan_kind);
    event->key = at(hot, event->stream, SLOT_stream_key);
    PyObject *heads = at(hot, event->stream, SLOT_stream_heads);
    if (!is_text(event->kind) || event->key == NULL || heads == NULL || !PyDict_CheckExact(heads)) {
        return false;
    }
    event->topic = PyDict_GetItemWithError(hot->given.topics, event->kind);
    event->head = PyDict_GetItemWithError(heads, event->kind); /* none at the stream's first event of a kind */
    return event->topic != NULL && event->head != NULL && PyBytes_CheckExact(event->head) && read_anchor(hot, event)
        && read_watcher(hot, event) && read_turn(hot, event) && is_sent_whole(hot, event);
}

/* ---- written --------------------------------------------------------------------------------------------------------- */

static Outcome
put_given(Buffer *buffer, const Event *event)
{
    PyObject *name, *value;
    Py_ssize_t place = 0;
    while (PyDict_Next(event->fields, &place, &name, &value)) {
        TRY(put_text(buffer, name));
        TRY(put_literal(buffer, ":"));
        TRY(put_value(buffer, value, 1));
        TRY(put_literal(buffer, ","));
    }
    return DONE;
}

static Outcome
put_turn(const Hot *hot, Buffer *buffer, const Event *event)
{
    PyObject *id = event->turn != Py_None ? at(hot, event->turn, SLOT_turn_id)
                                          : at(hot, event->session, SLOT_session_inherited_turn_id);
    if (id == Py_None) {
        return DONE;
    }
    TRY(put_literal(buffer, ",\"turn_id\":"));
    return put_text(buffer, id);
}

/* Writes all that is known before the event is counted. */
static Outcome
put_measured(const Hot *hot, PyObject *stage, Buffer *buffer, const Event *event)
{
    TRY(put_bytes(buffer, PyBytes_AS_STRING(event->head), (size_t)PyBytes_GET_SIZE(event->head)));
    TRY(put_given(buffer, event));
    TRY(put_literal(buffer, "\"stage\":"));
    TRY(put_text(buffer, event->name));
    TRY(put_literal(buffer, ",\"span_id\":"));
    TRY(put_text(buffer, at(hot, stage, SLOT_stage_span_id)));
    TRY(put_literal(buffer, ",\"duration_ms\":"));
    TRY(put_ms(buffer, event->ended_ns - event->start_ns));
    TRY(put_literal(buffer, ",\"status\":"));
    TRY(put_text(buffer, event->status));
    if (event->first != Py_None) {
        TRY(put_literal(buffer, ",\"first_item_ms\":"));
        TRY(put_ms(buffer, event->first_ns - event->start_ns));
    }
    TRY(put_turn(hot, buffer, event));
    TRY(put_literal(buffer, ",\"event_id\":"));
    TRY(put_text(buffer, at(hot, event->stream, SLOT_stream_stream_id)));
    buffer->used--; /* the id goes on: its closing quote comes after the count */
    return put_literal(buffer, "-");
}

static int64_t
microseconds_of(int64_t ns)
{
    return ns / 1000 - (ns % 1000 < 0);
}

static Outcome
put_counted(Buffer *buffer, const Event *event, int64_t seq)
{
    TRY(put_int(buffer, seq));
    TRY(put_literal(buffer, "\",\"seq\":"));
    TRY(put_int(buffer, seq));
    TRY(put_literal(buffer, ",\"ts\":"));
    TRY(put_int(buffer, event->anchor_us + microseconds_of(event->start_ns - event->anchor_ns)));
    return put_literal(buffer, "}");
}

/* ---- done: the lasting steps, in the order of the Python code --------------------------------------------------------- */

/* Takes the stage out of the table of open ones, from which the watcher may have taken it already. */
static Outcome
unwatch(PyObject *stage, const Event *event)
{
    int found = event->open != NULL ? PyDict_Contains(event->open, stage) : 0;
    return found < 0 || (found && PyDict_DelItem(event->open, stage) < 0) ? FAILED : DONE;
}

/* Tells the turn that the stage has run. */
static Outcome
tell_turn(const Hot *hot, const Event *event)
{
    if (event->runs == NULL || PyList_GET_SIZE(event->runs) >= hot->max_runs) {
        return DONE;
    }
    PyObject *told = event->tell != Py_None ? PyObject_CallOneArg(event->tell, event->fields) : Py_NewRef(Py_None);
    if (told == NULL) {
        return FAILED;
    }
    PyObject *run = PyTuple_Pack(6, event->name, event->start, event->first, event->ended, event->status, told);
    int failed = run != NULL ? PyList_Append(event->runs, run) : -1;
    Py_XDECREF(run);
    Py_DECREF(told);
    return failed ? FAILED : DONE;
}

/* Takes the event's count: from here on it is known that there was an event. */
static Outcome
count_event(const Hot *hot, const Event *event, int64_t *seq)
{
    PyObject *next = Py_XNewRef(at(hot, event->stream, SLOT_stream_next_seq));
    PyObject *counted = next != NULL ? PyObject_CallNoArgs(next) : NULL;
    bool is_counted = read_int(counted, seq);
    Py_XDECREF(next);
    Py_XDECREF(counted);
    if (!is_counted && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_TypeError, "Stream.next_seq() must return an int of 64 bits");
    }
    return is_counted ? DONE : FAILED;
}

/* Returns the message's value, cut where it is longer than the sink takes. */
static PyObject *
value_of(const Hot *hot, const Event *event, const Buffer *buffer)
{
    PyObject *value = PyBytes_FromStringAndSize(buffer->data, (Py_ssize_t)buffer->used);
    if (value != NULL && PyBytes_GET_SIZE(value) > event->max_bytes) {
        Py_SETREF(value, PyObject_CallMethodOneArg(event->client, hot->name._cut, value));
    }
    return value;
}

static Outcome
count_produced(const Hot *hot, const Event *event)
{
    PyObject *step = Py_XNewRef(at(hot, event->client, SLOT_client_count_produced));
    Outcome outcome = step != NULL ? called(PyObject_CallNoArgs(step)) : DONE;
    Py_XDECREF(step);
    return outcome;
}

static Outcome
count_dropped(const Hot *hot, const Event *event, PyObject *reason)
{
    PyObject *counters = PyObject_GetAttr(event->client, hot->name.counters);
    if (counters == NULL) {
        return FAILED;
    }
    PyObject *arguments[] = {counters, hot->name.dropped, reason};
    Outcome outcome = called(PyObject_VectorcallMethod(hot->name.add, arguments, 3, NULL));
    Py_DECREF(counters);
    return outcome;
}

/* Hands the message to the producer, which never blocks, and counts what became of it. */
static Outcome
produce(const Hot *hot, const Event *event, const Buffer *buffer)
{
    PyObject *producer = Py_XNewRef(at(hot, event->client, SLOT_client_producer)), *reason = NULL;
    PyObject *value = value_of(hot, event, buffer);
    if (producer == NULL) {
        PyErr_SetString(PyExc_AttributeError, "the client has no producer");
    }
    else if (value != NULL) {
        PyObject *arguments[] = {producer, event->topic, event->key, value, Py_None};
        reason = PyObject_VectorcallMethod(hot->name.produce, arguments, 5, NULL);
    }
    Py_XDECREF(producer);
    Py_XDECREF(value);
    if (reason == NULL) {
        return FAILED;
    }
    Outcome outcome = reason == Py_None ? count_produced(hot, event) : count_dropped(hot, event, reason);
    Py_DECREF(reason);
    return outcome;
}

static Outcome
emit(const Hot *hot, PyObject *stage, const Event *event, Buffer *buffer)
{
    int64_t seq = 0;
    TRY(unwatch(stage, event));
    TRY(tell_turn(hot, event));
    TRY(count_event(hot, event, &seq));
    TRY(put_counted(buffer, event, seq));
    return produce(hot, event, buffer);
}

/* Emits the event of a stage that ended at `ended`, monotonic nanoseconds. UNCOMMON: nothing lasting was done. */
Outcome
hot_finish(const Hot *hot, PyObject *stage, PyObject *client, PyObject *ended)
{
    Event event = {.client = client, .ended = ended};
    if (!read_event(hot, stage, &event)) {
        return PyErr_Occurred() ? FAILED : UNCOMMON;
    }
    Buffer buffer;
    buffer_begin(&buffer);
    Outcome outcome = put_measured(hot, stage, &buffer, &event);
    if (outcome == DONE) {
        hold(&event);
        outcome = emit(hot, stage, &event, &buffer);
        let_go(&event);
    }
    buffer_end(&buffer);
    return outcome;
}
