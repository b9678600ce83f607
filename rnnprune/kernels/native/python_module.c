/* rnnprune.kernels._native: a thin door to the engine. Arrays come as (address, length) pairs; every length is checked
 * here or in the engine before anything is read. Limited API of Python 3.11: one build serves every later version. */
#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "rp_layer.h"
#include "rp_product.h"

#define POOL "rnnprune.pool"
#define LAYER "rnnprune.layer"
#define PRODUCT "rnnprune.product"

/* Reads the arguments of one call in order; after the first bad one all others read as 0 and `failed` stays set. */
typedef struct {
    PyObject *const *args;
    Py_ssize_t left;
    bool failed;
} reader;

static PyObject *next(reader *r) {
    if (r->failed) return NULL;
    if (r->left == 0) {
        PyErr_SetString(PyExc_TypeError, "too few arguments");
        r->failed = true;
        return NULL;
    }
    r->left--;
    return *r->args++;
}

static size_t next_size(reader *r) {
    PyObject *object = next(r);
    if (!object) return 0;
    size_t value = PyLong_AsSize_t(object);
    if (value == (size_t)-1 && PyErr_Occurred()) r->failed = true;
    return r->failed ? 0 : value;
}

static void *next_capsule(reader *r, const char *name) {
    PyObject *object = next(r);
    void *pointer = object ? PyCapsule_GetPointer(object, name) : NULL;
    if (!pointer) r->failed = true;
    return pointer;
}

/* None or a name of an instruction set; the text lives as long as the argument. */
static const char *next_name(reader *r) {
    PyObject *object = next(r);
    if (!object || object == Py_None) return NULL;
    const char *text = PyUnicode_AsUTF8AndSize(object, NULL);
    if (!text) r->failed = true;
    return text;
}

/* A pair of arguments. An address of 0 makes the array empty, so that a wrong length cannot reach through NULL. */
static rp_f32_in next_f32(reader *r) {
    const float *data = (const float *)next_size(r);
    size_t len = next_size(r);
    return (rp_f32_in){data, data ? len : 0};
}

static rp_f32_out next_f32_out(reader *r) {
    rp_f32_in in = next_f32(r);
    return (rp_f32_out){(float *)in.data, in.len};
}

/* rows, cols, crow_indices, columns are uint16?, col_indices, values: 9 arguments */
static rp_csr next_csr(reader *r) {
    rp_csr csr = {.rows = next_size(r), .cols = next_size(r)};
    csr.crow_indices.data = (const int32_t *)next_size(r);
    csr.crow_indices.len = next_size(r);
    bool is_u16 = next_size(r) != 0;
    size_t columns = next_size(r);
    csr.col_indices.u16 = is_u16 ? (const uint16_t *)columns : NULL;
    csr.col_indices.i32 = is_u16 ? NULL : (const int32_t *)columns;
    csr.col_indices.len = next_size(r);
    csr.values = next_f32(r);
    return csr;
}

/* layout, lanes, width, int8 */
static rp_format next_format(reader *r) {
    rp_format format = {.layout = (rp_layout)next_size(r)};
    format.lanes = next_size(r);
    format.width = next_size(r);
    format.int8_values = next_size(r) != 0;
    return format;
}

static bool complete(reader *r) {
    if (!r->failed && r->left) PyErr_SetString(PyExc_TypeError, "too many arguments");
    return !r->failed && !r->left;
}

static PyObject *raise_status(rp_status status) {
    PyErr_SetString(status == RP_NO_MEMORY ? PyExc_MemoryError : PyExc_ValueError, rp_status_text(status));
    return NULL;
}

static PyObject *none_or_raise(rp_status status) {
    if (status != RP_OK) return raise_status(status);
    Py_RETURN_NONE;
}

static void free_pool(PyObject *capsule) { rp_pool_free(PyCapsule_GetPointer(capsule, POOL)); }
static void free_layer(PyObject *capsule) { rp_layer_free(PyCapsule_GetPointer(capsule, LAYER)); }
static void free_product(PyObject *capsule) { rp_product_free(PyCapsule_GetPointer(capsule, PRODUCT)); }

static PyObject *pool_new(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    reader r = {args, count, false};
    size_t threads = next_size(&r);
    if (!complete(&r)) return NULL;
    rp_pool *pool = NULL;
    rp_status status = rp_pool_new(&pool, threads);
    return status == RP_OK ? PyCapsule_New(pool, POOL, free_pool) : raise_status(status);
}

static PyObject *product_new(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    reader r = {args, count, false};
    size_t threads = next_size(&r);
    const char *isa = next_name(&r);
    rp_format format = next_format(&r);
    rp_csr csr = next_csr(&r);
    if (!complete(&r)) return NULL;
    rp_product *product = NULL;
    rp_status status = rp_product_new(&product, &csr, format, isa, threads);
    return status == RP_OK ? PyCapsule_New(product, PRODUCT, free_product) : raise_status(status);
}

static PyObject *product_run(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    reader r = {args, count, false};
    rp_product *product = next_capsule(&r, PRODUCT);
    rp_pool *pool = next_capsule(&r, POOL);
    size_t B = next_size(&r);
    rp_f32_in x = next_f32(&r);
    rp_f32_out y = next_f32_out(&r);
    if (!complete(&r)) return NULL;
    rp_status status;
    Py_BEGIN_ALLOW_THREADS
    status = rp_product_run(product, pool, x, y, B);
    Py_END_ALLOW_THREADS
    return none_or_raise(status);
}

static PyObject *product_info(PyObject *self, PyObject *capsule) {
    (void)self;
    rp_product *product = PyCapsule_GetPointer(capsule, PRODUCT);
    return product ? Py_BuildValue("(ns)", (Py_ssize_t)rp_product_bytes(product), rp_product_isa(product)) : NULL;
}

static PyObject *layer_new(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    reader r = {args, count, false};
    size_t threads = next_size(&r);
    rp_layer_spec spec = {.isa = next_name(&r)};
    spec.kind = (rp_kind)next_size(&r);
    spec.input_size = next_size(&r);
    spec.hidden_size = next_size(&r);
    spec.proj_size = next_size(&r);
    spec.format_ih = next_format(&r);
    spec.format_hh = next_format(&r);
    spec.format_hr = next_format(&r);
    spec.bias_ih = next_f32(&r);
    spec.bias_hh = next_f32(&r);
    spec.weight_ih = next_csr(&r);
    spec.weight_hh = next_csr(&r);
    if (spec.proj_size) spec.weight_hr = next_csr(&r);
    if (!complete(&r)) return NULL;
    rp_layer *layer = NULL;
    rp_status status = rp_layer_new(&layer, &spec, threads);
    return status == RP_OK ? PyCapsule_New(layer, LAYER, free_layer) : raise_status(status);
}

static PyObject *layer_run(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    reader r = {args, count, false};
    rp_layer *layer = next_capsule(&r, LAYER);
    rp_pool *pool = next_capsule(&r, POOL);
    rp_layer_call call = {.reverse = next_size(&r) != 0};
    call.T = next_size(&r);
    call.B = next_size(&r);
    call.x = next_f32(&r);
    call.x_step = next_size(&r);
    call.x_batch = next_size(&r);
    call.y = next_f32_out(&r);
    call.y_step = next_size(&r);
    call.y_batch = next_size(&r);
    call.h0 = next_f32(&r);
    call.c0 = next_f32(&r);
    call.h_n = next_f32_out(&r);
    call.c_n = next_f32_out(&r);
    if (!complete(&r)) return NULL;
    rp_status status;
    Py_BEGIN_ALLOW_THREADS
    status = rp_layer_run(layer, pool, &call);
    Py_END_ALLOW_THREADS
    return none_or_raise(status);
}

static PyObject *layer_info(PyObject *self, PyObject *capsule) {
    (void)self;
    rp_layer *layer = PyCapsule_GetPointer(capsule, LAYER);
    return layer ? Py_BuildValue("(ns)", (Py_ssize_t)rp_layer_bytes(layer), rp_layer_isa(layer)) : NULL;
}

/* isa, "tanh" or "sigmoid", x, y: for the test of their error bounds */
static PyObject *activate(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    reader r = {args, count, false};
    const rp_kernels *kernels = rp_kernels_named(next_name(&r));
    const char *name = next_name(&r);
    rp_f32_in x = next_f32(&r);
    rp_f32_out y = next_f32_out(&r);
    if (!complete(&r)) return NULL;
    if (!kernels || !name) return raise_status(RP_BAD_ARGUMENT);
    (name[0] == 't' ? kernels->tanh : kernels->sigmoid)(x, y);
    Py_RETURN_NONE;
}

/* Names of the instruction sets that run here, best first. */
static PyObject *instruction_sets(PyObject *self, PyObject *unused) {
    (void)self;
    (void)unused;
    const char *names[] = {"avx512", "avx2", "baseline"};
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < sizeof names / sizeof *names; i++) {
        if (!rp_kernels_named(names[i])) continue;
        PyObject *name = PyUnicode_FromString(names[i]);
        if (!name || PyList_Append(list, name) < 0) Py_CLEAR(list);
        Py_XDECREF(name);
    }
    return list;
}

#define FAST(function) (PyCFunction)(void (*)(void))function, METH_FASTCALL
static PyMethodDef methods[] = {
    {"pool_new", FAST(pool_new), "threads"},
    {"product_new", FAST(product_new), "threads, isa, format, csr"},
    {"product_run", FAST(product_run), "product, pool, B, x, y"},
    {"product_info", product_info, METH_O, "(bytes, isa)"},
    {"layer_new", FAST(layer_new), "threads, isa, kind, sizes, formats, biases, weights"},
    {"layer_run", FAST(layer_run), "layer, pool, reverse, T, B, x, strides, y, strides, h0, c0, h_n, c_n"},
    {"layer_info", layer_info, METH_O, "(bytes, isa)"},
    {"activate", FAST(activate), "isa, name, x, y"},
    {"instruction_sets", instruction_sets, METH_NOARGS, "names, best first"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "rnnprune.kernels._native", NULL, 0, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void);
PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&module); }
