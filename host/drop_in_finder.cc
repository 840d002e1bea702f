#include "host/drop_in_finder.h"

#include "modules/native/python_ref.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "host/modules_dir.h"
#include "modules/native/fork_hooks.h"

namespace pyhost::host {
namespace {

using native::PyRef;

// What the finder claims.  A package's submodules are found through its __path__ by Python's own finders.
struct DropIn {
  std::string_view name;
  const char* file;  // within the modules folder
  bool package;
  bool required;  // a modules folder without it is damaged; else the standard library's is as good
};
constexpr DropIn kDropIns[] = {
    {"multiprocessing", "multiprocessing/__init__.py", true, true},
    {"concurrent.futures.process", "concurrent/futures/process.py", false, true},
    {"concurrent.futures._process_crew", "concurrent/futures/_process_crew.py", false, true},
    {"concurrent.futures._process_errors", "concurrent/futures/_process_errors.py", false, true},
    {"concurrent.futures._process_future", "concurrent/futures/_process_future.py", false, true},
    {"pyhost", "pyhost/__init__.py", true, true},
};

const DropIn* FindDropIn(std::string_view name) {
  const DropIn* found = std::find_if(std::begin(kDropIns), std::end(kDropIns),
                                     [name](const DropIn& drop_in) { return drop_in.name == name; });
  return found == std::end(kDropIns) ? nullptr : found;
}

// The folder of the program that a virtual environment's was copied from.
std::string BaseFolder() {
  PyObject* value = PySys_GetObject("_base_executable");  // borrowed
  if (value == nullptr || !PyUnicode_Check(value)) return "";
  PyRef bytes = PyRef::Steal(PyUnicode_EncodeFSDefault(value));
  if (!bytes) {
    PyErr_Clear();
    return "";
  }
  return std::filesystem::path(PyBytes_AS_STRING(bytes.get())).parent_path().string();
}

PyObject* RaiseMissing(PyObject* fullname, const std::vector<std::string>& looked) {
  std::string places;
  for (const std::string& place : looked) places.append(places.empty() ? "" : ", ").append(place);
  PyRef message = PyRef::Steal(PyUnicode_FromFormat(
      "pyhost serves %R from its own modules folder, where it is missing (looked at: %s); install pyhost again "
      "with `meson install`, and move its bin/ and lib/ together",
      fullname, places.empty() ? "nowhere, as /proc is not mounted" : places.c_str()));
  if (message) PyErr_SetImportErrorSubclass(PyExc_ModuleNotFoundError, message.get(), fullname, nullptr);
  return nullptr;
}

// importlib's own spec for a source file: loader, __file__ and cached bytecode are as for any module.
PyObject* MakeSpec(PyObject* fullname, const std::filesystem::path& file, bool package) {
  PyRef importlib = PyRef::Steal(PyImport_ImportModule("_frozen_importlib_external"));
  if (!importlib) return nullptr;
  PyRef make = PyRef::Steal(PyObject_GetAttrString(importlib.get(), "spec_from_file_location"));
  PyRef location = PyRef::Steal(PyUnicode_DecodeFSDefault(file.c_str()));
  if (!make || !location) return nullptr;
  PyRef args = PyRef::Steal(PyTuple_Pack(2, fullname, location.get()));
  PyRef kwargs = PyRef::Steal(PyDict_New());
  if (!args || !kwargs) return nullptr;
  if (package) {
    PyRef folder = PyRef::Steal(PyUnicode_DecodeFSDefault(file.parent_path().c_str()));
    if (!folder) return nullptr;
    PyRef locations = PyRef::Steal(PyList_New(0));
    if (!locations || PyList_Append(locations.get(), folder.get()) < 0 ||
        PyDict_SetItemString(kwargs.get(), "submodule_search_locations", locations.get()) < 0) {
      return nullptr;
    }
  }
  return PyObject_Call(make.get(), args.get(), kwargs.get());
}

PyObject* SpecOf(PyObject* fullname, const DropIn& drop_in) {
  ModulesDir dir = FindModulesDir(BaseFolder());
  if (dir.path.empty()) return RaiseMissing(fullname, dir.looked);
  std::filesystem::path file = std::filesystem::path(dir.path) / drop_in.file;
  std::error_code error;
  if (std::filesystem::is_regular_file(file, error)) return MakeSpec(fullname, file, drop_in.package);
  if (drop_in.required) return RaiseMissing(fullname, {file.string()});
  Py_RETURN_NONE;
}

// The finder protocol: find_spec(fullname, path=None, target=None).
PyObject* FindSpec(PyObject*, PyObject* args, PyObject* kwargs) {
  static const char* keywords[] = {"fullname", "path", "target", nullptr};
  PyObject* fullname;
  PyObject* unused_path;
  PyObject* unused_target;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "U|OO:find_spec", const_cast<char**>(keywords), &fullname,
                                   &unused_path, &unused_target)) {
    return nullptr;
  }
  Py_ssize_t size;
  const char* name = PyUnicode_AsUTF8AndSize(fullname, &size);
  if (name == nullptr) {  // a name with lone surrogates is none of ours
    PyErr_Clear();
    Py_RETURN_NONE;
  }
  const DropIn* drop_in = FindDropIn({name, static_cast<size_t>(size)});
  if (drop_in == nullptr) Py_RETURN_NONE;
  return SpecOf(fullname, *drop_in);
}

PyObject* Represent(PyObject*) { return PyUnicode_FromString("<pyhost drop-in finder>"); }

void Deallocate(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  reinterpret_cast<freefunc>(PyType_GetSlot(type, Py_tp_free))(self);
  Py_DECREF(type);
}

PyMethodDef kMethods[] = {
    {"find_spec", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(FindSpec)),
     METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("find_spec(fullname, path=None, target=None)\n--\n\nThe spec of a drop-in module, else None.")},
    {nullptr, nullptr, 0, nullptr},
};

PyType_Slot kSlots[] = {
    {Py_tp_doc, const_cast<char*>("Serves pyhost's own packages in place of the standard library's.")},
    {Py_tp_methods, kMethods},
    {Py_tp_repr, reinterpret_cast<void*>(Represent)},
    {Py_tp_dealloc, reinterpret_cast<void*>(Deallocate)},
    {0, nullptr},
};

PyType_Spec kSpec = {"pyhost.DropInFinder", sizeof(PyObject), 0, Py_TPFLAGS_DEFAULT, kSlots};

bool IsInstalled(PyObject* meta_path) {
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(meta_path); ++i) {
    PyTypeObject* type = Py_TYPE(PyList_GET_ITEM(meta_path, i));
    if (type->tp_repr == Represent) return true;
  }
  return false;
}

// Appends a finder to this interpreter's sys.meta_path, unless it has one already (a test may import `posix`
// afresh).  False with a Python error set where that fails.
bool AddToMetaPath() {
  PyObject* meta_path = PySys_GetObject("meta_path");  // borrowed
  if (meta_path == nullptr || !PyList_Check(meta_path) || IsInstalled(meta_path)) return true;
  PyRef type = PyRef::Steal(PyType_FromSpec(&kSpec));
  if (!type) return false;
  PyRef finder = PyRef::Steal(PyObject_CallNoArgs(type.get()));
  return finder && PyList_Append(meta_path, finder.get()) == 0;
}

// What importing `posix` does in our version of it, besides what it does in CPython's.
int ExecuteWithPosix(PyObject* posix) {
  if (native::RegisterForkHooks(posix) < 0) return -1;
  return AddToMetaPath() ? 0 : -1;
}

using InitFunction = PyObject* (*)();
InitFunction original_posix = nullptr;

// CPython's own definition of `posix`, with one step more.  The first call, in the main interpreter before any other
// exists, adds the step; later ones find it there.  (A step of the definition runs in the interpreter that imports the
// module; this function itself runs in the main interpreter, from 3.13 on.)
PyObject* InitPosixAndFinder() {
  static PyModuleDef_Slot slots[16];
  PyObject* result = original_posix();
  if (result == nullptr || !PyObject_TypeCheck(result, &PyModuleDef_Type)) return result;
  PyModuleDef* definition = reinterpret_cast<PyModuleDef*>(result);
  if (definition->m_slots == slots) return result;
  size_t count = 0;
  for (PyModuleDef_Slot* slot = definition->m_slots; slot != nullptr && slot->slot != 0; ++slot) {
    if (count + 2 >= std::size(slots)) Py_FatalError("pyhost: the module posix has too many slots");
    slots[count++] = *slot;
  }
  slots[count] = {Py_mod_exec, reinterpret_cast<void*>(ExecuteWithPosix)};
  definition->m_slots = slots;
  return result;
}

}  // namespace

void InstallDropInFinder() {
  for (struct _inittab* entry = PyImport_Inittab; entry->name != nullptr; ++entry) {
    if (std::strcmp(entry->name, "posix") != 0) continue;
    original_posix = entry->initfunc;
    entry->initfunc = InitPosixAndFinder;
    return;
  }
  Py_FatalError("pyhost: this Python has no built-in module posix");
}

}  // namespace pyhost::host
