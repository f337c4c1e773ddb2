/* Rollups added up from how they are stored, without a Python object for each bin: what total.py does, quicker.
 *
 * `add` takes what rollup.py writes and nothing else. Whatever it does not know (another format, a number out of the
 * common range, more after the end) it leaves alone, whole, and says so: then Python reads it, or says what is wrong
 * with it. So there is one place that knows the whole format, and this one need not.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define CONTRACT 1 /* as in total.py: what it expects of this file */
#define FORMAT 1   /* as in rollup.py */

#define MOST ((int64_t)1 << 40)       /* of any number in a rollup, and of the parts of a bin's number */
#define MOST_TOTAL ((int64_t)1 << 61) /* of all numbers that were added up: then no sum can be beyond 64 bits */
#define MOST_BIN ((int64_t)1 << 17)   /* the doubles reach from bin -35,000 to bin 36,000 */
#define MOST_BINS 8192                /* kept side by side: a factor of 10^71 between the values */
#define USD_UNITS 1000000000000       /* as in rollup.py: a cost is whole dollars and units of 1e-12 dollars */

/* MessagePack, as far as it occurs here. */

typedef struct {
    const uint8_t *at;
    const uint8_t *end;
} Reader;

static bool
take(Reader *reader, size_t size, uint64_t *number)
{
    if ((size_t)(reader->end - reader->at) < size) {
        return false;
    }
    uint64_t found = 0;
    for (size_t byte = 0; byte < size; byte++) {
        found = found << 8 | *reader->at++;
    }
    *number = found;
    return true;
}

static inline bool
read_int(Reader *reader, int64_t least, int64_t *number)
{
    uint64_t tag, found;
    if (reader->at < reader->end && *reader->at <= 0x7f) { /* positive fixint: most of them */
        *number = *reader->at++;
        return *number >= least;
    }
    if (!take(reader, 1, &tag)) {
        return false;
    }
    if (tag >= 0xe0) { /* negative fixint */
        *number = (int64_t)tag - 0x100;
    }
    else if (tag >= 0xcc && tag <= 0xcf) { /* uint 8 to 64 */
        if (!take(reader, (size_t)1 << (tag - 0xcc), &found) || found > (uint64_t)MOST) {
            return false;
        }
        *number = (int64_t)found;
    }
    else if (tag >= 0xd0 && tag <= 0xd3) { /* int 8 to 64 */
        size_t size = (size_t)1 << (tag - 0xd0);
        if (!take(reader, size, &found)) {
            return false;
        }
        uint64_t sign = (uint64_t)1 << (8 * size - 1);
        *number = (int64_t)((found ^ sign) - sign); /* as gcc and clang convert, and C23 says */
    }
    else {
        return false;
    }
    return *number >= least && *number <= MOST;
}

static bool
read_list(Reader *reader, uint64_t *length)
{
    uint64_t tag;
    if (!take(reader, 1, &tag)) {
        return false;
    }
    if (tag >= 0x90 && tag <= 0x9f) {
        *length = tag & 0x0f;
        return true;
    }
    return (tag == 0xdc || tag == 0xdd) && take(reader, tag == 0xdc ? 2 : 4, length);
}

static bool
read_list_of(Reader *reader, uint64_t wanted)
{
    uint64_t length;
    return read_list(reader, &length) && length == wanted;
}

static bool
read_nil(Reader *reader)
{
    if (reader->at < reader->end && *reader->at == 0xc0) {
        reader->at++;
        return true;
    }
    return false;
}

static bool
read_real(Reader *reader, double *number)
{
    uint64_t tag, bits;
    if (!take(reader, 1, &tag) || tag != 0xcb || !take(reader, 8, &bits)) {
        return false;
    }
    memcpy(number, &bits, sizeof bits);
    return isfinite(*number);
}

/* A list of bins and one of their counts, which are read side by side. */
typedef struct {
    uint64_t length;
    const uint8_t *bins;
    const uint8_t *counts;
    const uint8_t *end;
    int64_t first, last; /* the lowest and the highest bin */
} Listed;

/* Reads both lists and finds where their ends are; adds what their counts are to `weight`. */
static bool
read_listed(Reader *reader, Listed *listed, int64_t *weight)
{
    if (!read_list(reader, &listed->length)) {
        return false;
    }
    listed->bins = reader->at;
    int64_t bin = 0, number;
    for (uint64_t place = 0; place < listed->length; place++) {
        if (!read_int(reader, place == 0 ? -MOST_BIN : 1, &number)) {
            return false;
        }
        bin += number;
        if (bin > MOST_BIN) {
            return false;
        }
        if (place == 0) {
            listed->first = bin;
        }
    }
    listed->last = bin;
    if (!read_list_of(reader, listed->length)) {
        return false;
    }
    listed->counts = reader->at;
    for (uint64_t place = 0; place < listed->length; place++) {
        if (!read_int(reader, 1, &number)) { /* of nothing there is no bin */
            return false;
        }
        *weight += number; /* of at most 2 * MOST_BIN bins, each at most MOST: below 2^59 */
    }
    listed->end = reader->at;
    return true;
}

/* Counts of neighbouring bins, from `first` on. */
typedef struct {
    int64_t *counts;
    int64_t first;
    int64_t size;
} Bins;

/* Whether the bins from `first` to `last` can be kept beside those that are. */
static bool
can_reach(const Bins *bins, const Listed *listed)
{
    if (listed->length == 0) {
        return true;
    }
    int64_t first = listed->first, last = listed->last;
    if (bins->size > 0) {
        first = Py_MIN(first, bins->first);
        last = Py_MAX(last, bins->first + bins->size - 1);
    }
    return last - first < MOST_BINS;
}

/* Makes room for the bins from `first` to `last`; -1 with MemoryError where there is none. */
static int
reach(Bins *bins, int64_t first, int64_t last)
{
    if (bins->size > 0) {
        if (first >= bins->first && last < bins->first + bins->size) {
            return 0;
        }
        first = Py_MIN(first, bins->first);
        last = Py_MAX(last, bins->first + bins->size - 1);
    }
    int64_t spare = 16, size;
    first -= spare;
    size = last + spare - first + 1;
    int64_t *counts = PyMem_Calloc((size_t)size, sizeof *counts);
    if (counts == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (bins->size > 0) {
        memcpy(counts + (bins->first - first), bins->counts, (size_t)bins->size * sizeof *counts);
    }
    PyMem_Free(bins->counts);
    *bins = (Bins){counts, first, size};
    return 0;
}

/* Adds lists that were read before, into bins that reach so far. */
static void
add_listed(Bins *bins, const Listed *listed)
{
    Reader steps = {listed->bins, listed->end}, counts = {listed->counts, listed->end};
    int64_t bin = -bins->first, number = 0;
    for (uint64_t place = 0; place < listed->length; place++) {
        (void)read_int(&steps, -MOST, &number);
        bin += number;
        (void)read_int(&counts, 0, &number);
        bins->counts[bin] += number;
    }
}

/* The counts that are there, by their bins. */
static PyObject *
as_dict(const Bins *bins)
{
    PyObject *dict = PyDict_New();
    for (int64_t place = 0; dict != NULL && place < bins->size; place++) {
        if (bins->counts[place] == 0) {
            continue;
        }
        PyObject *bin = PyLong_FromLongLong(bins->first + place);
        PyObject *count = PyLong_FromLongLong(bins->counts[place]);
        if (bin == NULL || count == NULL || PyDict_SetItem(dict, bin, count) < 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(bin);
        Py_XDECREF(count);
    }
    return dict;
}

/* What was added up. */
typedef struct {
    PyObject_HEAD
    int64_t count, errors, excluded, zeros;
    int64_t usd, usd_rest;
    bool has_usd, has_values;
    double least, most;
    int64_t total; /* at most the sum of all numbers that were added */
    Bins above, below;
} Total;

/* One rollup as it was read. */
typedef struct {
    int64_t count, errors, excluded, zeros, usd, usd_rest;
    bool has_usd, has_values;
    double least, most;
    Listed above, below;
} One;

static bool
read_one(Reader *reader, One *one, int64_t *weight)
{
    int64_t format;
    if (!read_list_of(reader, 7) || !read_int(reader, 0, &format) || format != FORMAT
        || !read_int(reader, 0, &one->count) || !read_int(reader, 0, &one->errors)
        || !read_int(reader, 0, &one->excluded)) {
        return false;
    }
    one->has_usd = !read_nil(reader);
    if ((one->has_usd && !read_int(reader, -MOST, &one->usd)) || !read_int(reader, 0, &one->usd_rest)
        || one->usd_rest >= USD_UNITS || !read_list_of(reader, 7)) {
        return false;
    }
    one->has_values = !read_nil(reader);
    if (one->has_values ? !read_real(reader, &one->least) || !read_real(reader, &one->most) : !read_nil(reader)) {
        return false;
    }
    if (!read_int(reader, 0, &one->zeros) || !read_listed(reader, &one->above, weight)
        || !read_listed(reader, &one->below, weight) || reader->at != reader->end) {
        return false;
    }
    *weight += one->count + one->errors + one->excluded + one->zeros + (one->usd < 0 ? -one->usd : one->usd) + 1;
    return true;
}

PyDoc_STRVAR(add_doc, "add(data, /)\n--\n\nAdd a rollup as it is stored; return False where it must be read in Python.");

static PyObject *
total_add(Total *self, PyObject *data)
{
    if (!PyBytes_Check(data)) {
        Py_RETURN_FALSE;
    }
    const uint8_t *begin = (const uint8_t *)PyBytes_AS_STRING(data);
    Reader reader = {begin, begin + PyBytes_GET_SIZE(data)};
    One one = {0};
    int64_t weight = 0;
    if (!read_one(&reader, &one, &weight) || self->total > MOST_TOTAL - weight || !can_reach(&self->above, &one.above)
        || !can_reach(&self->below, &one.below)) {
        Py_RETURN_FALSE;
    }
    bool is_empty = !one.has_values; /* as in sketch.py: then its bins count for nothing */
    if (!is_empty) {
        if ((one.above.length && reach(&self->above, one.above.first, one.above.last) < 0)
            || (one.below.length && reach(&self->below, one.below.first, one.below.last) < 0)) {
            return NULL;
        }
        add_listed(&self->above, &one.above);
        add_listed(&self->below, &one.below);
        self->zeros += one.zeros;
        self->least = self->has_values && self->least <= one.least ? self->least : one.least + 0.0;
        self->most = self->has_values && self->most >= one.most ? self->most : one.most + 0.0;
        self->has_values = true;
    }
    self->total += weight;
    self->count += one.count;
    self->errors += one.errors;
    self->excluded += one.excluded;
    if (one.has_usd) {
        self->has_usd = true;
        self->usd += one.usd;
        self->usd_rest += one.usd_rest;
        if (self->usd_rest >= USD_UNITS) {
            self->usd_rest -= USD_UNITS;
            self->usd++;
        }
    }
    Py_RETURN_TRUE;
}

PyDoc_STRVAR(sums_doc,
             "sums()\n--\n\nReturn count, errors, excluded, (dollars, 1e-12 dollars) or None, (least, largest value) or "
             "None, zeros,\nthe counts by bin, and those of negative values.");

static PyObject *
total_sums(Total *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *cost = self->has_usd ? Py_BuildValue("LL", self->usd, self->usd_rest) : Py_NewRef(Py_None);
    PyObject *ends = self->has_values ? Py_BuildValue("dd", self->least, self->most) : Py_NewRef(Py_None);
    /* N takes the reference, also of NULL, for which it raises what was raised. */
    return Py_BuildValue("LLLNNLNN", self->count, self->errors, self->excluded, cost, ends, self->zeros,
                         as_dict(&self->above), as_dict(&self->below));
}

static void
total_dealloc(Total *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyMem_Free(self->above.counts);
    PyMem_Free(self->below.counts);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef total_methods[] = {
    {"add", (PyCFunction)(void (*)(void))total_add, METH_O, add_doc},
    {"sums", (PyCFunction)(void (*)(void))total_sums, METH_NOARGS, sums_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot total_slots[] = {
    {Py_tp_doc, "Rollups added up; begins with none."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, total_dealloc},
    {Py_tp_methods, total_methods},
    {0, NULL},
};

static PyType_Spec total_spec = {
    .name = "voicelog_sink._total.Total",
    .basicsize = sizeof(Total),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = total_slots,
};

static int
execute(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &total_spec, NULL);
    int done = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
    Py_XDECREF(type);
    return done < 0 ? -1 : PyModule_AddIntConstant(module, "CONTRACT", CONTRACT);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "voicelog_sink._total",
    .m_doc = "Rollups added up, in C: total.py uses it.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit__total(void)
{
    return PyModuleDef_Init(&definition);
}
