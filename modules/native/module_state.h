// ModuleState: what `_pyhost` keeps per interpreter.  No static PyObject* anywhere: each interpreter that
// imports the module gets a state of its own, freed with the module.
//
// Everything is strong references, set in module.cc and the Bind functions; constant afterwards unless
// noted.  Needs the GIL of the interpreter it belongs to.

#ifndef PYHOST_MODULES_NATIVE_MODULE_STATE_H_
#define PYHOST_MODULES_NATIVE_MODULE_STATE_H_

#include "absl/container/flat_hash_map.h"
#include "modules/native/python_ref.h"
#include "runtime/base/ids.h"

namespace pyhost::native {

struct ModuleState {
  // Exceptions.
  PyRef owner_died_error;   // _pyhost.OwnerDiedError(RuntimeError)
  PyRef session_error;      // _pyhost.SessionError(OSError): the supervisor is gone, no identity, ...
  PyRef queue_full;         // queue.Full and queue.Empty, imported with first use
  PyRef queue_empty;

  // Types (bind_*.cc).
  PyRef memory_type;
  PyRef queue_type;
  PyRef lock_type;
  PyRef semaphore_type;
  PyRef condition_type;
  PyRef event_type;
  PyRef barrier_type;
  PyRef synchronized_type;
  PyRef hand_over_type;
  PyRef payload_type;       // bytes of a received message, read in place (pickling.cc)
  PyRef writer_type;        // gathers what a pickler writes (pickling.cc)
  PyRef child_type;         // bind_process.cc
  PyRef child_start_type;
  PyRef call_client_type;   // bind_pool.cc
  PyRef call_server_type;
  PyRef calls_type;
  PyRef pool_outcomes;      // module multiprocessing.pool_outcomes, imported with first use

  // Pickling (pickling.cc), filled with first use.
  PyRef pickler_type;         // _pickle.Pickler
  PyRef loads;                // _pickle.loads
  PyRef forking_pickler;      // multiprocessing.reduction.ForkingPickler, the package's own
  PyRef reduction_module;
  PyRef forking_pickler_name; // "ForkingPickler", interned
  PyRef copyreg_table;
  PyRef array_reducers;       // type -> reducer, set by pyhost.arrays; from the module's start on
  bool knows_numpy = false;   // its arrays stand in array_reducers
  PyRef socket_name;
  bool knows_sockets = false;  // they have a reducer
  PyRef merged_table;         // copyreg's table, those of arrays, and ForkingPickler's reducers on top
  PyRef plain_table;          // the same without those of arrays

  // Where the out-of-band buffers of messages lie that have a Memory object here (bind_memory.cc).  Changes.
  absl::flat_hash_map<const void*, Handle> received;
};

extern PyModuleDef kModuleDef;

// The state of the `_pyhost` in this interpreter; null with ImportError when it was never imported here.
ModuleState* GetState();
ModuleState* StateOfModule(PyObject* module);
ModuleState* StateOfType(PyTypeObject* type);  // one of ours, or a subclass; quicker than GetState

// Each returns 0, or -1 with a Python error.
int BindMemory(PyObject* module, ModuleState* state);
int BindPickling(PyObject* module, ModuleState* state);
int BindQueue(PyObject* module, ModuleState* state);
int BindConnection(PyObject* module, ModuleState* state);
int BindHandOver(PyObject* module, ModuleState* state);
int BindLine(PyObject* module, ModuleState* state);
int BindLock(PyObject* module, ModuleState* state);
int BindSemaphore(PyObject* module, ModuleState* state);
int BindCondition(PyObject* module, ModuleState* state);  // and Event
int BindBarrier(PyObject* module, ModuleState* state);
int BindSynchronized(PyObject* module, ModuleState* state);
int BindProcess(PyObject* module, ModuleState* state);
int BindPool(PyObject* module, ModuleState* state);
int BindEngine(PyObject* module, ModuleState* state);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_MODULE_STATE_H_
