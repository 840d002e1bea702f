// What the two halves of the pool binding share.  bind_call_client.cc and bind_calls.cc: the caller's side (`CallClient`,
// `Calls`; see call_objects.h); bind_call_server.cc: the worker's (`CallServer`); bind_pool.cc: registration and common
// helpers.
//
// What an outcome looks like in Python (errors, what they say, how they are packed) is decided by the module
// multiprocessing.pool_outcomes; these files only call it.

#ifndef PYHOST_MODULES_NATIVE_BIND_POOL_H_
#define PYHOST_MODULES_NATIVE_BIND_POOL_H_

#include "modules/native/module_state.h"
#include "modules/native/python_ref.h"
#include "runtime/broker/call_client.h"

namespace pyhost::native {

int BindCallClient(PyObject* module, ModuleState* state);
int BindCalls(PyObject* module, ModuleState* state);
int BindCallServer(PyObject* module, ModuleState* state);

// A CallServer object for the pool that `session` just created: what a worker is started with.
PyObject* NewCallServer(ModuleState* state, Handle pool);

// The Python error that is set, as an exception object with its traceback; none is set afterwards.
PyRef TakeException();
void RaiseException(PyRef exception);

// pool_outcomes.<name>(arguments...); null with a Python error.
PyRef CallOutcomes(ModuleState* state, const char* name, std::initializer_list<PyObject*> arguments);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_BIND_POOL_H_
