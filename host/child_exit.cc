#include "host/child_exit.h"

#include <utility>
#include <vector>

#include "host/interpreter.h"
#include "host/interpreter_state.h"
#include "host/teardown_errors.h"

namespace pyhost::host {
namespace {

using native::PyRef;

// What python3 exits with when it cannot flush the standard streams.
constexpr int kFlushFailed = 120;
// As many functions as Py_AtExit takes.
constexpr int kExitFunctions = 32;

void NoExitFunction() {}

// The table of exit functions can only be asked how much room is left in it, by filling it.
bool HasExitFunctions() {
  int room = 0;
  while (Py_AtExit(NoExitFunction) == 0) ++room;
  return room != kExitFunctions;
}

bool HasSubinterpreters() {
  PyInterpreterState* first = PyInterpreterState_Head();
  return first != nullptr && PyInterpreterState_Next(first) != nullptr;
}

bool IsVerbose() {
  PyObject* flags = PySys_GetObject("flags");  // borrowed
  PyRef verbose = PyRef::Steal(flags == nullptr ? nullptr : PyObject_GetAttrString(flags, "verbose"));
  bool result = !verbose || PyObject_IsTrue(verbose.get()) != 0;
  PyErr_Clear();
  return result;
}

// Nobody is there to receive an error any more.
void ReportError(PyObject* about) {
  if (PyErr_Occurred()) PyErr_WriteUnraisable(about);
}

// A function of the module gc.  "collect" is not PyGC_Collect, which does nothing after gc.disable().
PyRef CallGc(const char* function) {
  PyRef gc = PyRef::Steal(PyImport_ImportModule("gc"));
  PyRef result = PyRef::Steal(gc ? PyObject_CallMethod(gc.get(), function, nullptr) : nullptr);
  ReportError(nullptr);
  return result;
}

bool StartsWithOneUnderscore(PyObject* name) {
  return PyUnicode_GET_LENGTH(name) > 0 && PyUnicode_READ_CHAR(name, 0) == '_' &&
         (PyUnicode_GET_LENGTH(name) == 1 || PyUnicode_READ_CHAR(name, 1) != '_');
}

// In python3's order: private names go first, as others are expected to use them.
void ClearNamespace(PyObject* names) {
  PyRef keys = PyRef::Steal(PyDict_Keys(names));
  for (bool is_private : {true, false}) {
    for (Py_ssize_t i = 0; keys && i < PyList_GET_SIZE(keys.get()); ++i) {
      PyObject* name = PyList_GET_ITEM(keys.get(), i);
      if (!PyUnicode_Check(name) || StartsWithOneUnderscore(name) != is_private) continue;
      if (PyUnicode_CompareWithASCIIString(name, "__builtins__") == 0) continue;
      if (PyDict_SetItem(names, name, Py_None) < 0) ReportError(names);
    }
  }
  ReportError(names);
}

// ---- Objects that are left ----------------------------------------------------------------------------------------

constexpr const char* kStreams[] = {"stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__"};

// A standard stream, its buffer or its file: finalizers may want to write to it until the end.
bool IsOfStandardStream(PyObject* object) {
  for (const char* name : kStreams) {
    PyRef layer = PyRef::Borrow(PySys_GetObject(name));
    for (const char* inner : {"buffer", "raw"}) {
      if (layer.get() == object) return true;
      layer = PyRef::Steal(layer && layer.get() != Py_None ? PyObject_GetAttrString(layer.get(), inner) : nullptr);
      PyErr_Clear();
    }
    if (layer.get() == object) return true;
  }
  return false;
}

// Which finalizers run before which: a file's inner layer must not be closed before the outer has written to it.
class Layers {
 public:
  static constexpr int kCount = 4;

  Layers() : io_(PyRef::Steal(PyImport_ImportModule("_io"))) {
    for (int i = 0; i < kFileTypes; ++i) types_[i] = PyRef::Steal(io_ ? PyObject_GetAttrString(io_.get(), kNames[i]) : nullptr);
    PyErr_Clear();
  }

  // 0: no file; 1: text, and what is written in Python (gzip); 2: buffers; 3: files.
  int Of(PyObject* object) const {
    if (!Is(object, kAnyFile)) return 0;
    if (Is(object, kRaw)) return 3;
    for (int type : {kReader, kWriter, kBoth, kPair}) {
      if (Is(object, type)) return 2;
    }
    return 1;
  }

 private:
  enum { kAnyFile, kRaw, kReader, kWriter, kBoth, kPair, kFileTypes };
  static constexpr const char* kNames[kFileTypes] = {"_IOBase",        "_RawIOBase",     "BufferedReader",
                                                     "BufferedWriter", "BufferedRandom", "BufferedRWPair"};

  bool Is(PyObject* object, int type) const {
    return types_[type] && PyType_IsSubtype(Py_TYPE(object), reinterpret_cast<PyTypeObject*>(types_[type].get()));
  }

  PyRef io_;
  PyRef types_[kFileTypes];
};

// The child's objects are those that the collector looks at: the server froze its own (fork_server.cc).
void CallFinalizers() {
  PyRef objects = CallGc("get_objects");
  if (!objects || !PyList_Check(objects.get())) return;
  std::vector<PyObject*> found;  // borrowed from `objects`
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(objects.get()); ++i) {
    PyObject* object = PyList_GET_ITEM(objects.get(), i);
    if (Py_TYPE(object)->tp_finalize != nullptr && !IsOfStandardStream(object)) found.push_back(object);
  }
  if (found.empty()) return;
  TeardownErrors errors;
  Layers layers;
  for (int layer = 0; layer < Layers::kCount; ++layer) {
    for (PyObject* object : found) {
      if (layers.Of(object) == layer) PyObject_CallFinalizer(object);
      ReportError(object);
    }
  }
}

// ---- Streams ------------------------------------------------------------------------------------------------------

bool IsClosed(PyObject* stream) {
  PyRef closed = PyRef::Steal(PyObject_GetAttrString(stream, "closed"));
  bool result = closed && PyObject_IsTrue(closed.get()) > 0;
  PyErr_Clear();
  return result;
}

// As python3: only stdout's failure counts and is told.
bool FlushStream(const char* name, bool tell) {
  PyRef stream = PyRef::Borrow(PySys_GetObject(name));
  if (!stream || stream.get() == Py_None || IsClosed(stream.get())) return true;
  bool done = static_cast<bool>(PyRef::Steal(PyObject_CallMethod(stream.get(), "flush", nullptr)));
  if (!done && tell) PyErr_WriteUnraisable(stream.get());
  PyErr_Clear();
  return done || !tell;
}

bool FlushStreams() {
  bool done = FlushStream("stdout", true);
  FlushStream("stderr", false);
  return done;
}

}  // namespace

absl::StatusOr<InterpreterSnapshot> InterpreterSnapshot::Take() {
  PyRef modules = PyRef::Steal(PyDict_Copy(PyImport_GetModuleDict()));
  if (!modules) return TakePythonError("sys.modules");
  return InterpreterSnapshot(std::move(modules));
}

bool InterpreterSnapshot::MustFinalize() const {
  return HasOtherThreads() || HasSubinterpreters() || IsVerbose() || HasExitFunctions();
}

int InterpreterSnapshot::End(int exit_code) {
  if (MustFinalize()) {
    CallGc("unfreeze");  // or nothing that the server made would be collected
    modules_ = PyRef();
    return FinalizeInterpreter(exit_code);
  }
  bool flushed = FlushStreams();
  DropModules();
  CallFinalizers();
  if (!FlushStreams()) flushed = false;
  FlushStream("__stdout__", false);
  return flushed ? exit_code : kFlushFailed;
}

// (name, module) of what sys.modules has and the server had not.  Nothing is touched that is the server's: a count of
// references changed is a page copied.
std::vector<std::pair<PyRef, PyRef>> InterpreterSnapshot::NewModules() const {
  std::vector<std::pair<PyRef, PyRef>> found;
  PyObject *name, *module, *servers_name = nullptr, *servers = nullptr;
  Py_ssize_t servers_position = 0;
  PyDict_Next(modules_.get(), &servers_position, &servers_name, &servers);
  for (Py_ssize_t position = 0; PyDict_Next(PyImport_GetModuleDict(), &position, &name, &module);) {
    // In the same order, as long as nobody has removed any.
    const bool same_place = name == servers_name, same = same_place && module == servers;
    if (same_place) PyDict_Next(modules_.get(), &servers_position, &servers_name, &servers);
    if (same || !PyUnicode_CheckExact(name) || PyDict_GetItemWithError(modules_.get(), name) == module) continue;
    found.emplace_back(PyRef::Borrow(name), PyRef::Borrow(module));
  }
  return found;
}

// Modules that the server has under the same name come back.
void InterpreterSnapshot::DropModules() const {
  PyObject* modules = PyImport_GetModuleDict();  // borrowed
  PyRef references = PyRef::Steal(PyList_New(0));
  if (!references) return ReportError(nullptr);
  for (auto& [name, module] : NewModules()) {
    PyRef reference = PyRef::Steal(PyModule_Check(module.get()) ? PyWeakref_NewRef(module.get(), nullptr) : nullptr);
    if (reference && PyList_Append(references.get(), reference.get()) < 0) ReportError(name.get());
    PyObject* servers = PyDict_GetItemWithError(modules_.get(), name.get());
    int done = servers == nullptr ? PyDict_DelItem(modules, name.get()) : PyDict_SetItem(modules, name.get(), servers);
    if (done < 0 || PyErr_Occurred()) ReportError(name.get());
    module = PyRef();
  }
  CallGc("collect");
  ClearModules(references.get());
}

void InterpreterSnapshot::ClearModules(PyObject* references) const {
  bool cleared = false;
  for (Py_ssize_t i = PyList_GET_SIZE(references); i-- > 0;) {
    PyRef module = PyRef::Steal(PyObject_CallNoArgs(PyList_GET_ITEM(references, i)));
    if (!module || !PyModule_Check(module.get())) continue;  // None: nobody held it
    ClearNamespace(PyModule_GetDict(module.get()));
    cleared = true;
  }
  if (cleared) CallGc("collect");
}

}  // namespace pyhost::host
