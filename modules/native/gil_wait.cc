#include "modules/native/gil_wait.h"

#include <cmath>

#include "absl/time/time.h"
#include "runtime/base/long_wait.h"

namespace pyhost::native {
namespace {

// Where there are subinterpreters, PyGILState_Check() says yes to every thread.
bool HoldsTheGil() {
  if (!Py_IsInitialized()) return false;
  return PyInterpreterState_Next(PyInterpreterState_Head()) == nullptr && PyGILState_Check() != 0;
}

void* GiveGilUp() { return HoldsTheGil() ? PyEval_SaveThread() : nullptr; }

void TakeGilBack(void* thread_state) { PyEval_RestoreThread(static_cast<PyThreadState*>(thread_state)); }

}  // namespace

void InstallLongWaitHooks() { SetLongWaitHooks({.begin = GiveGilUp, .end = TakeGilBack}); }

absl::Status GilWait::OnSignal() {
  const bool released = thread_state_ != nullptr;
  if (released) EndBlocking();
  const bool raised = PyErr_CheckSignals() != 0;
  if (released) BeginBlocking();
  return raised ? absl::CancelledError("a signal handler raised an exception") : absl::OkStatus();
}

bool ParseTimeout(PyObject* timeout, Deadline* deadline) {
  if (timeout == nullptr || timeout == Py_None) {
    *deadline = Deadline::Never();
    return true;
  }
  const double seconds = PyFloat_AsDouble(timeout);
  if (seconds == -1.0 && PyErr_Occurred()) return false;
  if (std::isnan(seconds)) {
    PyErr_SetString(PyExc_ValueError, "timeout is not a number (NaN)");
    return false;
  }
  *deadline = Deadline::After(absl::Seconds(seconds));
  return true;
}

bool ParseBlockTimeout(int block, PyObject* timeout, Deadline* deadline) {
  if (block) return ParseTimeout(timeout, deadline);
  *deadline = Deadline::Now();
  return true;
}

bool ParseAcquireArguments(PyObject* args, PyObject* kwargs, Deadline* deadline) {
  static const char* const kKeywords[] = {"block", "timeout", nullptr};
  int block = 1;
  PyObject* timeout = nullptr;
  return PyArg_ParseTupleAndKeywords(args, kwargs, "|pO:acquire", const_cast<char**>(kKeywords), &block, &timeout) &&
         ParseBlockTimeout(block, timeout, deadline);
}

}  // namespace pyhost::native
