// GilWait: how a Python thread waits in the runtime.  The GIL is given up only when a wait really begins to
// spin or sleep, and taken back to run signal handlers; a handler that raises ends the wait.
//
//   GilWait gil;
//   status = queue.Push(message, gil.Until(deadline));
//   if (!status.ok()) return SetError(status);
//
// Lives on the stack of one thread that holds the GIL.

#ifndef PYHOST_MODULES_NATIVE_GIL_WAIT_H_
#define PYHOST_MODULES_NATIVE_GIL_WAIT_H_

#include "absl/status/status.h"
#include "modules/native/python_ref.h"
#include "runtime/base/wait.h"

namespace pyhost::native {

class GilWait final : public Interruptible {
 public:
  GilWait() = default;
  GilWait(const GilWait&) = delete;
  GilWait& operator=(const GilWait&) = delete;

  Wait Until(Deadline deadline) { return {deadline, this}; }

  absl::Status OnSignal() override;
  void BeginBlocking() override { thread_state_ = PyEval_SaveThread(); }
  void EndBlocking() override {
    PyEval_RestoreThread(thread_state_);
    thread_state_ = nullptr;
  }

 private:
  PyThreadState* thread_state_ = nullptr;  // not null: the GIL is given up
};

// Has threads that hold the GIL give it up where a lock of shared memory takes long (runtime/base/long_wait.h).
void InstallLongWaitHooks();

// Python's (block, timeout) and (timeout) conventions.  `timeout` is None, or a number of seconds of which a
// negative one counts as 0.  False with a Python error when it is no number, or NaN.
bool ParseTimeout(PyObject* timeout, Deadline* deadline);
bool ParseBlockTimeout(int block, PyObject* timeout, Deadline* deadline);
// The arguments of acquire(block=True, timeout=None).
bool ParseAcquireArguments(PyObject* args, PyObject* kwargs, Deadline* deadline);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_GIL_WAIT_H_
