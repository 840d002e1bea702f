// What arrives for a call, as Python objects.  Decoding runs user code, so it happens on the thread that asked for the
// outcome, never while draining for others.

#ifndef PYHOST_MODULES_NATIVE_CALL_OUTCOME_H_
#define PYHOST_MODULES_NATIVE_CALL_OUTCOME_H_

#include "modules/native/call_objects.h"

namespace pyhost::native {

// How a call ended, for Calls.take(); the values are known to Python (concurrent/futures/_process_future.py).
enum class Ending { kValue = 0, kRaised = 1, kUnreadable = 2, kLost = 3, kNotRun = 4 };

struct Outcome {
  bool ok = false;
  Ending ending = Ending::kNotRun;
  PyRef value;  // the result, or what to raise: an exception, or a Failure (pool_outcomes) that makes one each time
};

// False with a Python error (an interrupt, mostly).
bool Decode(CallsState* calls, Arrival arrival, Outcome* outcome);

// (ok, value)
PyObject* OutcomeTuple(const Outcome& outcome);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_CALL_OUTCOME_H_
