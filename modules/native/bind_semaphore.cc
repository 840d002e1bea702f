// _pyhost.Semaphore: the base of multiprocessing's Semaphore and BoundedSemaphore.

#include <cerrno>

#include "modules/native/acquire.h"
#include "modules/native/shared_object.h"
#include "runtime/sync/semaphore.h"

namespace pyhost::native {
namespace {

bool CheckRange(long long value, long long maximum) {
  constexpr long long kMost = Semaphore::kMaxValue;
  if (value >= 0 && value <= maximum && maximum <= kMost) return true;
  const long long most = maximum < 0 || maximum > kMost ? kMost : maximum;
  PyRef message = PyRef::Steal(PyUnicode_FromFormat("semaphore value must lie in 0 ... %lld, not %lld", most, value));
  // In python3 the one does not fit into a C int; the other is refused by sem_open.
  const bool too_large = value > kMost;
  PyRef arguments = !message   ? PyRef()
                    : too_large ? PyRef::Steal(Py_BuildValue("(O)", message.get()))
                                : PyRef::Steal(Py_BuildValue("(iO)", EINVAL, message.get()));
  if (arguments) PyErr_SetObject(too_large ? PyExc_OverflowError : PyExc_OSError, arguments.get());
  return false;
}

PyObject* New(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* const kKeywords[] = {"value", "maximum", nullptr};
  long long value = 1;
  long long maximum = Semaphore::kMaxValue;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|LL:Semaphore", const_cast<char**>(kKeywords), &value, &maximum) ||
      !CheckRange(value, maximum)) {
    return nullptr;
  }
  Session* session = EnsureSession();
  if (session == nullptr) return nullptr;
  return NewShared(type, session,
                   Semaphore::Create(session->segment(), session->me(), static_cast<uint32_t>(value),
                                     static_cast<uint32_t>(maximum)));
}

PyObject* Release(PyObject* self, PyObject*) {
  std::optional<Semaphore> semaphore = OpenShared<Semaphore>(self);
  if (!semaphore) return nullptr;
  const absl::Status status = semaphore->Release();
  if (!status.ok()) return SetError(status);
  Py_RETURN_NONE;
}

PyObject* Exit(PyObject* self, PyObject* const*, Py_ssize_t) { return Release(self, nullptr); }

PyObject* GetValue(PyObject* self, PyObject*) {
  std::optional<Semaphore> semaphore = OpenShared<Semaphore>(self);
  return semaphore ? PyLong_FromUnsignedLong(semaphore->value()) : nullptr;
}
PyObject* GetMaximum(PyObject* self, void*) {
  std::optional<Semaphore> semaphore = OpenShared<Semaphore>(self);
  return semaphore ? PyLong_FromUnsignedLong(semaphore->max_value()) : nullptr;
}

PyMethodDef kMethods[] = {
    {"acquire", AsMethod(Acquire<Semaphore>), METH_FASTCALL | METH_KEYWORDS,
     "acquire(block=True, timeout=None) -> bool\n\nTakes a permit.  False: none within `timeout` seconds."},
    {"release", Release, METH_NOARGS, "release(): give a permit; ValueError beyond the maximum."},
    {"__enter__", Enter<Semaphore>, METH_NOARGS, nullptr},
    {"__exit__", AsMethod(Exit), METH_FASTCALL, nullptr},
    {"_get_value", GetValue, METH_NOARGS, "Permits left at this moment."},
    {"__reduce__", ReduceShared, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};
PyGetSetDef kGetSet[] = {
    {"maxvalue", GetMaximum, nullptr, "The most permits it may have.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyType_Slot kSlots[] = {
    {Py_tp_doc, const_cast<char*>("Semaphore(value=1, maximum=...): permits for all processes of the session.")},
    {Py_tp_new, reinterpret_cast<void*>(New)},
    {Py_tp_dealloc, reinterpret_cast<void*>(DeallocShared)},
    {Py_tp_repr, reinterpret_cast<void*>(ReprShared)},
    {Py_tp_methods, kMethods},
    {Py_tp_getset, kGetSet},
    {0, nullptr},
};
PyType_Spec kSpec = {"_pyhost.Semaphore", sizeof(SharedObject), 0,
                     Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE, kSlots};

}  // namespace

int BindSemaphore(PyObject* module, ModuleState* state) {
  state->semaphore_type = PyRef::Steal(PyType_FromModuleAndSpec(module, &kSpec, nullptr));
  if (!state->semaphore_type ||
      PyModule_AddIntConstant(module, "SEM_VALUE_MAX", static_cast<long>(Semaphore::kMaxValue)) < 0) {
    return -1;
  }
  return PyModule_AddObjectRef(module, "Semaphore", state->semaphore_type.get());
}

}  // namespace pyhost::native
