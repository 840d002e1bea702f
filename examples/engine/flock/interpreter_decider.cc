#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "interpreter_decider.h"

#include <vector>

#include "absl/strings/str_cat.h"

namespace flock {
namespace {

// The last Python error as a status.
absl::Status PythonError(const char* where) {
  PyErr_Print();
  return absl::InternalError(
      absl::StrCat(where, " failed in the interpreter of this process; its traceback is on stderr"));
}

class InterpreterDecider final : public Decider {
 public:
  explicit InterpreterDecider(int64_t agents)
      : agents_(static_cast<size_t>(agents)), steering_(static_cast<size_t>(agents)) {}
  ~InterpreterDecider() override {
    for (Group& group : groups_) {
      Py_XDECREF(group.function);
      Py_XDECREF(group.agents);
      Py_XDECREF(group.steering);
    }
    Py_FinalizeEx();
  }

  absl::Status Start(const std::string& scripts) {
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    PyConfig_SetBytesString(&config, &config.program_name, PYTHON_PROGRAM);
    const PyStatus status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status)) return absl::InternalError(absl::StrCat("Python does not start: ", status.err_msg));
    PyObject* folder = PyUnicode_DecodeFSDefault(scripts.c_str());
    const bool added = folder != nullptr && PyList_Insert(PySys_GetObject("path"), 0, folder) == 0;
    Py_XDECREF(folder);
    if (!added) return PythonError("sys.path");
    const size_t rows = agents_.size() / kGroups;
    for (size_t i = 0; i < kGroups; ++i) {
      groups_[i].function = Function(kScripts[i]);
      groups_[i].agents = Rows(agents_.data() + i * rows, rows, kAgentColumns);
      groups_[i].steering = Rows(steering_.data() + i * rows, rows, kSteeringColumns);
      if (groups_[i].function == nullptr || groups_[i].agents == nullptr || groups_[i].steering == nullptr) {
        return PythonError(kScripts[i]);
      }
    }
    return absl::OkStatus();
  }

  std::span<Agent> agents() override { return agents_; }
  std::span<Steering> steering() override { return steering_; }
  void Decide(int frame) override {
    for (Group& group : groups_) {
      PyObject* outcome = PyObject_CallFunction(group.function, "OOi", group.agents, group.steering, frame);
      if (outcome == nullptr) PyErr_Print();
      Py_XDECREF(outcome);
    }
  }

 private:
  struct Group {
    PyObject* function = nullptr;
    PyObject* agents = nullptr;
    PyObject* steering = nullptr;
  };

  static PyObject* Function(const char* script) {
    PyObject* module = PyImport_ImportModule(script);
    PyObject* function = module == nullptr ? nullptr : PyObject_GetAttrString(module, "decide");
    Py_XDECREF(module);
    return function;
  }
  // numpy.frombuffer(memory, 'float32').reshape(rows, columns)
  static PyObject* Rows(void* data, size_t rows, int64_t columns) {
    const Py_ssize_t size = static_cast<Py_ssize_t>(rows) * columns * static_cast<Py_ssize_t>(sizeof(float));
    PyObject* memory = PyMemoryView_FromMemory(static_cast<char*>(data), size, PyBUF_WRITE);
    PyObject* numpy = memory == nullptr ? nullptr : PyImport_ImportModule("numpy");
    PyObject* flat = numpy == nullptr ? nullptr : PyObject_CallMethod(numpy, "frombuffer", "Os", memory, "float32");
    PyObject* shaped = flat == nullptr ? nullptr
                                       : PyObject_CallMethod(flat, "reshape", "nn", static_cast<Py_ssize_t>(rows),
                                                             static_cast<Py_ssize_t>(columns));
    Py_XDECREF(memory);
    Py_XDECREF(numpy);
    Py_XDECREF(flat);
    return shaped;
  }

  std::vector<Agent> agents_;
  std::vector<Steering> steering_;
  Group groups_[kGroups];
};

}  // namespace

absl::StatusOr<std::unique_ptr<Decider>> StartInterpreterDecider(const std::string& scripts, int64_t agents) {
  auto decider = std::make_unique<InterpreterDecider>(agents);
  absl::Status status = decider->Start(scripts);
  if (!status.ok()) return status;
  return decider;
}

}  // namespace flock
