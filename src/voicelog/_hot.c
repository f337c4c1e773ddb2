/* voicelog._hot: what every stage does, in C. Optional: voicelog.hot uses it where it was built.
 *
 * voicelog.stage.Stage, in Python, is complete and is the reference. bind() makes a subclass of it, without slots of
 * its own, whose set(), __enter__, __exit__ and construction do the common case in C: a new stage in a session, with
 * texts, numbers and what is plain JSON, that ends without an exception. Whatever is uncommon C hands to the methods of
 * Stage before it has done anything lasting, so that each rule is decided in one place. Uncommon is, for example: a
 * stage that is entered again, attributes, attempts, OpenTelemetry spans, prices, sampling, redaction, a lone surrogate.
 *
 * The contract with the Python side:
 * - Slots of the classes that _hot.h names are read where the classes' own descriptors say that they are, at the moment
 *   that they are needed; nothing is cached between calls. An object of any other class is uncommon.
 * - An event has the same fields and values as the Python code's; its JSON may be written otherwise (0.001 for 1e-3).
 * - The lasting steps happen in the order of the Python code, and read the clock as often.
 * - Plan.tell is called with what was given to the stage, without what the library adds to its event.
 * - An exception within goes to client.fault(), as there; nothing is swallowed.
 * A change of Stage.set, __enter__, __exit__, _begin, _finish or Client.emit must be made here too, or be uncommon here;
 * tests/voicelog/test_hot.py runs the same programs on both and compares their events whole.
 *
 * Safe under the GIL, in any number of threads and in subinterpreters that share it: there is no state but the
 * module's. A reference is held to each object for as long as it is used, since Python code may run in any call and
 * whenever something is let go; JSON is written without running any (_hot_json.h).
 *
 * To debug: VOICELOG_PURE_PYTHON=1 runs the Python code instead, and voicelog.stats()["accelerated"] says which one
 * runs. `CFLAGS="-O0 -g3 -UNDEBUG" python hatch_build.py` builds it for a debugger; `make hot-check` with the
 * sanitizers, and runs its tests.
 */

#include "_hot.h"

#include <structmember.h>

/* Goes up when what bind() is given, or what C expects of the Python code, changes. voicelog.hot asks for its own. */
#define CONTRACT 1

static PyType_Slot type_slots[] = {
    {Py_tp_doc, "A stage, accelerated: see voicelog.Stage."},
    {Py_tp_methods, hot_stage_methods},
    {0, NULL},
};

static PyType_Spec type_spec = {
    .name = "voicelog.stage.HotStage",
    .basicsize = 0, /* the base's: a slot more would be one that Python code does not know */
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = type_slots,
};

/* Finds where a slot of a class lies in its objects. */
static int
find_slot(PyTypeObject *owner, const char *name, Py_ssize_t *offset)
{
    PyObject *found = PyObject_GetAttrString((PyObject *)owner, name);
    if (found == NULL) {
        return -1;
    }
    bool is_slot = Py_IS_TYPE(found, &PyMemberDescr_Type);
    if (is_slot) {
        const PyMemberDef *member = ((PyMemberDescrObject *)found)->d_member;
        is_slot = member->type == T_OBJECT_EX && PyType_IsSubtype(owner, ((PyDescrObject *)found)->d_type);
        *offset = member->offset;
    }
    Py_DECREF(found);
    if (!is_slot) {
        PyErr_Format(PyExc_TypeError, "%s.%s: expected a slot, as __slots__ makes it", owner->tp_name, name);
    }
    return is_slot ? 0 : -1;
}

static int
find_slots(Hot *hot)
{
#define FIND_SLOT(owner, name)                                                                                         \
    if (find_slot(hot->classes[CLASS_##owner], #name, &hot->offset[SLOT_##owner##_##name]) < 0) {                      \
        return -1;                                                                                                     \
    }
    HOT_SLOTS(FIND_SLOT)
    return 0;
}

static int
take_classes(Hot *hot, PyObject *given)
{
#define NAME_OF(name) #name,
    static const char *const names[] = {HOT_CLASSES(NAME_OF)};
    for (int which = 0; which < CLASSES; which++) {
        PyObject *found = PyDict_GetItemString(given, names[which]);
        if (found == NULL || !PyType_Check(found)) {
            PyErr_Format(PyExc_TypeError, "bind() needs %s=, a class", names[which]);
            return -1;
        }
        Py_XSETREF(hot->classes[which], (PyTypeObject *)Py_NewRef(found));
    }
    return 0;
}

/* Takes from the class the methods that the accelerated one falls back on. */
static int
take_methods(Hot *hot)
{
    PyObject *stage = (PyObject *)hot->classes[CLASS_stage];
    Py_XSETREF(hot->set, PyObject_GetAttrString(stage, "set"));
    Py_XSETREF(hot->enter, PyObject_GetAttrString(stage, "__enter__"));
    Py_XSETREF(hot->leave, PyObject_GetAttrString(stage, "__exit__"));
    return hot->set != NULL && hot->enter != NULL && hot->leave != NULL ? 0 : -1;
}

static int
take_given(Hot *hot, PyObject *given)
{
#define TAKE(name)                                                                                                     \
    Py_XSETREF(hot->given.name, Py_XNewRef(PyDict_GetItemString(given, #name)));                                       \
    if (hot->given.name == NULL) {                                                                                     \
        PyErr_SetString(PyExc_TypeError, "bind() needs " #name "=");                                                   \
        return -1;                                                                                                     \
    }
    HOT_GIVEN(TAKE)
    if (!PyDict_CheckExact(hot->given.plans) || !PyDict_CheckExact(hot->given.topics)
        || !PyContextVar_CheckExact(hot->given.session_var) || !PyContextVar_CheckExact(hot->given.stage_var)) {
        PyErr_SetString(PyExc_TypeError, "bind(): plans and topics are dicts, session_var and stage_var are ContextVars");
        return -1;
    }
    return 0;
}

static int
take_limit(PyObject *given, const char *name, Py_ssize_t *limit)
{
    PyObject *found = PyDict_GetItemString(given, name);
    *limit = found != NULL ? PyLong_AsSsize_t(found) : -1;
    if (*limit < 0 && !PyErr_Occurred()) {
        PyErr_Format(PyExc_TypeError, "bind() needs %s=, an int from 0 on", name);
    }
    return *limit < 0 ? -1 : 0;
}

PyDoc_STRVAR(bind_doc,
    "bind($module, /, **given)\n--\n\n"
    "Return the accelerated subclass of the class `stage`. Once a module: raises RuntimeError after that.\n\n"
    "`given` are the classes, plans, variables, functions and limits that _hot.h names; TypeError says what is wrong.");

static PyObject *
bind(PyObject *module, PyObject *args, PyObject *given)
{
    Hot *hot = PyModule_GetState(module);
    if (PyTuple_GET_SIZE(args) > 0 || given == NULL) {
        PyErr_SetString(PyExc_TypeError, "bind() takes keywords");
        return NULL;
    }
    if (hot->type != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "bind() was called before: voicelog.stage was loaded twice");
        return NULL;
    }
    if (take_classes(hot, given) < 0 || find_slots(hot) < 0 || take_methods(hot) < 0 || take_given(hot, given) < 0
        || take_limit(given, "max_runs", &hot->max_runs) < 0 || take_limit(given, "max_name", &hot->max_name) < 0) {
        return NULL;
    }
    PyObject *type = PyType_FromModuleAndSpec(module, &type_spec, (PyObject *)hot->classes[CLASS_stage]);
    if (type != NULL) {
        ((PyTypeObject *)type)->tp_vectorcall = hot_stage_new; /* not inherited: it is this class's alone */
        hot->type = (PyTypeObject *)Py_NewRef(type);
    }
    return type;
}

static PyMethodDef functions[] = {
    {"bind", (PyCFunction)(void (*)(void))bind, METH_VARARGS | METH_KEYWORDS, bind_doc},
    {NULL, NULL, 0, NULL},
};

static int
execute(PyObject *module)
{
    Hot *hot = PyModule_GetState(module);
#define INTERN(text)                                                                                                   \
    hot->name.text = PyUnicode_InternFromString(#text);                                                                \
    if (hot->name.text == NULL) {                                                                                      \
        return -1;                                                                                                     \
    }
    HOT_NAMES(INTERN)
    return PyModule_AddIntConstant(module, "CONTRACT", CONTRACT);
}

static int
traverse(PyObject *module, visitproc visit, void *arg)
{
    Hot *hot = PyModule_GetState(module);
#define VISIT_GIVEN(of) Py_VISIT(hot->given.of);
    HOT_GIVEN(VISIT_GIVEN)
    Py_VISIT(hot->type);
    for (int which = 0; which < CLASSES; which++) {
        Py_VISIT(hot->classes[which]);
    }
    Py_VISIT(hot->set);
    Py_VISIT(hot->enter);
    Py_VISIT(hot->leave);
    return 0;
}

static int
clear(PyObject *module)
{
    Hot *hot = PyModule_GetState(module);
    Py_CLEAR(hot->type); /* first: without it every method does nothing */
#define CLEAR_GIVEN(of) Py_CLEAR(hot->given.of);
    HOT_GIVEN(CLEAR_GIVEN)
#define CLEAR_NAME(of) Py_CLEAR(hot->name.of);
    HOT_NAMES(CLEAR_NAME)
    for (int which = 0; which < CLASSES; which++) {
        Py_CLEAR(hot->classes[which]);
    }
    Py_CLEAR(hot->set);
    Py_CLEAR(hot->enter);
    Py_CLEAR(hot->leave);
    return 0;
}

static void
release(void *module)
{
    (void)clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "voicelog._hot",
    .m_doc = "What every stage does, in C. voicelog.hot binds it to voicelog.stage.",
    .m_size = sizeof(Hot),
    .m_methods = functions,
    .m_slots = module_slots,
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = release,
};

PyMODINIT_FUNC
PyInit__hot(void)
{
    return PyModuleDef_Init(&definition);
}
